//! A client by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use fulmar_mqtt::packet::{Ack, ConnAck, Connect};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Topic;
use crate::history::{ConnectionId, History, LaneId, What};
use crate::load::{payload, read};
use crate::raw::{self, RawClient};

/// What came of waiting for a packet.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    /// A message of a lane; it is acknowledged.
    Message(LaneId, u64),
    /// A message that the history does not know; it is acknowledged.
    Other {
        topic: String,
        payload: Bytes,
        retain: bool,
    },
    /// PUBACK, PUBREC or PUBCOMP.
    Ack(&'static str, u16, ReasonCode),
    SubAck(Vec<ReasonCode>),
    UnsubAck,
    Pong,
    /// Part of an exchange that needs nobody's attention.
    Step,
    /// The reason, if the node gave one.
    Closed(Option<ReasonCode>),
}

/// What a client keeps of its session, as the node does: to be handed on to the session's next connection [v5 4.1]. Without
/// it, a packet id that is open at the node would be given to another message, which the node takes for the first one.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    packet_id: u16,
    /// Publishes that are not acknowledged to the end, by packet id.
    open: BTreeMap<u16, Open>,
    /// QoS 2 messages that came and were not released.
    received: BTreeMap<u16, ()>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    lane: LaneId,
    number: u64,
    /// PUBREC has come: PUBREL is what remains.
    received: bool,
}

/// See the module. Dropped, it closes its connection without a word.
pub(crate) struct Voice {
    client: RawClient<TcpStream>,
    history: Arc<History>,
    connection: ConnectionId,
    persistent: bool,
    /// The highest number that came, by lane.
    came: BTreeMap<LaneId, u64>,
    pub(crate) kept: Kept,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.history.record(self.connection, What::Closed);
    }
}

impl Voice {
    /// Connects to this node and returns what CONNACK says; an error if it refuses.
    pub(crate) async fn connect(
        history: &Arc<History>,
        (node, address): (usize, SocketAddr),
        connect: Connect,
        deadline: Duration,
    ) -> Result<(Voice, ConnAck)> {
        let begun = Instant::now();
        let open = RawClient::tcp(address, connect.version);
        let mut client = timeout(deadline, open).await.context("no connection in time")??;
        let (client_id, persistent) = (connect.client_id.to_string(), keeps(&connect));
        let left = deadline.saturating_sub(begun.elapsed());
        let connack = client.handshake(connect, left).await.with_context(|| format!("{client_id} at node {node}"))?;
        ensure!(connack.reason == ReasonCode::Success, "{client_id} was refused by node {node}: {:?}", connack.reason);
        let connection = history.opened(&client_id, node);
        let (came, kept) = (BTreeMap::new(), Kept::default());
        Ok((Voice { client, history: history.clone(), connection, persistent, came, kept }, connack))
    }

    /// Subscribes and waits for SUBACK; messages may come before it.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS, deadline: Duration) -> Result<()> {
        let id = self.next_id();
        self.client.send(&raw::subscribe(id, filter, qos)).await?;
        let end = Instant::now() + deadline;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await? {
                Came::SubAck(reasons) => {
                    ensure!(reasons.iter().all(|reason| !reason.is_error()), "{filter} was refused: {reasons:?}");
                    break;
                }
                Came::Closed(reason) => bail!("closed instead of SUBACK: {reason:?}"),
                _ => {}
            }
        }
        self.history.subscribed(self.connection, filter, qos, self.persistent);
        Ok(())
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str, deadline: Duration) -> Result<()> {
        let id = self.next_id();
        self.client.send(&raw::unsubscribe(id, filter)).await?;
        let end = Instant::now() + deadline;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await? {
                Came::UnsubAck => return Ok(()),
                Came::Closed(reason) => bail!("closed instead of UNSUBACK: {reason:?}"),
                _ => {}
            }
        }
    }

    /// Writes a PUBLISH of this number; returns its packet id.
    pub(crate) async fn send(&mut self, topic: &Topic, number: u64, dup: bool) -> Result<u16> {
        let id = if topic.qos == QoS::AtMostOnce { 0 } else { self.next_id() };
        if id > 0 {
            self.kept.open.insert(id, Open { lane: topic.lane, number, received: false });
        }
        self.write(topic, number, id, dup).await?;
        Ok(id)
    }

    async fn write(&mut self, topic: &Topic, number: u64, id: u16, dup: bool) -> Result<()> {
        let mut publish = raw::publish(id, &topic.name, topic.qos, payload(topic.lane, number, 0));
        publish.dup = dup && id > 0;
        self.history.record(self.connection, What::Sent { lane: topic.lane, number });
        self.client.send(&Packet::Publish(publish)).await
    }

    /// Publishes this number and waits until it is acknowledged to the end.
    pub(crate) async fn publish(&mut self, topic: &Topic, number: u64, dup: bool, deadline: Duration) -> Result<()> {
        let id = self.send(topic, number, dup).await?;
        if topic.qos == QoS::AtMostOnce {
            return Ok(());
        }
        self.completed(id, deadline).await
    }

    /// As [`Voice::publish`], or goes on with what an earlier connection of the session has left of it: under the same packet
    /// id, at the half-step that it had reached [v5 MQTT-4.4.0-1].
    pub(crate) async fn see_through(&mut self, topic: &Topic, number: u64, deadline: Duration) -> Result<()> {
        let this = |(_, open): &(&u16, &Open)| (open.lane, open.number) == (topic.lane, number);
        let Some((id, open)) = self.kept.open.iter().find(this).map(|(id, open)| (*id, *open)) else {
            return self.publish(topic, number, false, deadline).await;
        };
        match open.received {
            true => self.client.send(&Packet::PubRel(Ack::success(id))).await?,
            false => self.write(topic, number, id, true).await?,
        }
        // [v5 3.7.2.1] Not found: the node had completed it before, and that answer was lost.
        let gone = open.received.then_some(ReasonCode::PacketIdentifierNotFound);
        self.ended(id, gone, deadline).await
    }

    /// Waits for PUBACK or PUBCOMP of this id.
    pub(crate) async fn completed(&mut self, id: u16, deadline: Duration) -> Result<()> {
        self.ended(id, None, deadline).await
    }

    async fn ended(&mut self, id: u16, also_good: Option<ReasonCode>, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await? {
                Came::Ack(name, of, reason) if of == id => {
                    // [v5 3.4.2.1] Nobody subscribes: no error either.
                    let good = [ReasonCode::Success, ReasonCode::NoMatchingSubscribers];
                    ensure!(good.contains(&reason) || also_good == Some(reason), "{name} refuses: {reason:?}");
                    if name != "PUBREC" {
                        return Ok(());
                    }
                }
                Came::Closed(reason) => bail!("closed instead of an acknowledgement: {reason:?}"),
                _ => {}
            }
        }
    }

    /// Takes messages until this number of a topic has come, at some time.
    pub(crate) async fn hear(&mut self, topic: &Topic, number: u64, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        while self.came.get(&topic.lane).is_none_or(|highest| *highest < number) {
            let left = end.saturating_duration_since(Instant::now());
            let came = self.next(left).await.with_context(|| format!("{number} of {} does not come", topic.name))?;
            if let Came::Closed(reason) = came {
                bail!("closed instead of {number} of {}: {reason:?}", topic.name);
            }
        }
        Ok(())
    }

    /// Sends any packet.
    pub(crate) async fn say(&mut self, packet: &Packet) -> Result<()> {
        self.client.send(packet).await
    }

    /// The next packet; what is to be answered is.
    pub(crate) async fn next(&mut self, deadline: Duration) -> Result<Came> {
        let packet = match self.client.next_or_closed(deadline).await? {
            Some(packet) => packet,
            None => return Ok(Came::Closed(None)),
        };
        Ok(match packet {
            Packet::Publish(message) => {
                let id = message.packet_id;
                let again = message.qos == QoS::ExactlyOnce && self.kept.received.insert(id, ()).is_some();
                let topic = message.topic.as_ref().map(|topic| topic.as_str().to_owned()).unwrap_or_default();
                let known = if message.retain { None } else { read(&message.payload).ok() };
                if let (Some((lane, number)), false) = (known, again) {
                    self.history.record(self.connection, What::Delivered { lane, number });
                    let highest = self.came.entry(lane).or_default();
                    *highest = number.max(*highest);
                }
                let answer = match message.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(Packet::PubAck(Ack::success(id))),
                    QoS::ExactlyOnce => Some(Packet::PubRec(Ack::success(id))),
                };
                if let Some(answer) = answer {
                    self.client.send(&answer).await?;
                }
                match known {
                    _ if again => Came::Step,
                    Some((lane, number)) => Came::Message(lane, number),
                    None => Came::Other { topic, payload: message.payload, retain: message.retain },
                }
            }
            Packet::PubRel(ack) => {
                self.kept.received.remove(&ack.packet_id);
                self.client.send(&Packet::PubComp(Ack::success(ack.packet_id))).await?;
                Came::Step
            }
            Packet::PubAck(ack) => self.acknowledged("PUBACK", &ack, true),
            Packet::PubRec(ack) => {
                let came = self.acknowledged("PUBREC", &ack, ack.reason.is_error());
                if !ack.reason.is_error() {
                    self.client.send(&Packet::PubRel(Ack::success(ack.packet_id))).await?;
                }
                came
            }
            Packet::PubComp(ack) => {
                self.kept.open.remove(&ack.packet_id);
                Came::Ack("PUBCOMP", ack.packet_id, ack.reason)
            }
            Packet::SubAck(suback) => Came::SubAck(suback.reasons.to_vec()),
            Packet::UnsubAck(_) => Came::UnsubAck,
            Packet::PingResp => Came::Pong,
            Packet::Disconnect(disconnect) => Came::Closed(Some(disconnect.reason)),
            other => bail!("a client got {other:?}"),
        })
    }

    /// DISCONNECT, and waits for the close.
    pub(crate) async fn leave(mut self, deadline: Duration) -> Result<()> {
        self.say(&raw::disconnect(ReasonCode::Success)).await?;
        while self.next(deadline).await? != Came::Closed(None) {}
        Ok(())
    }

    fn acknowledged(&mut self, name: &'static str, ack: &Ack, done: bool) -> Came {
        if let Some(open) = self.kept.open.get_mut(&ack.packet_id) {
            if !ack.reason.is_error() {
                open.received = true;
                let Open { lane, number, .. } = *open;
                self.history.record(self.connection, What::Acknowledged { lane, number });
            }
            if done {
                self.kept.open.remove(&ack.packet_id);
            }
        }
        Came::Ack(name, ack.packet_id, ack.reason)
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.kept.packet_id = self.kept.packet_id % u16::MAX + 1;
            if !self.kept.open.contains_key(&self.kept.packet_id) {
                return self.kept.packet_id;
            }
        }
    }
}

/// Whether the session outlives the connection.
fn keeps(connect: &Connect) -> bool {
    match connect.version {
        Version::V5 => connect.properties.session_expiry_s.is_some_and(|seconds| seconds > 0),
        Version::V31 | Version::V311 => !connect.clean_start,
    }
}
