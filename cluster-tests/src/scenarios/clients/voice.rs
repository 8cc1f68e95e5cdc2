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

/// See the module. Dropped, it closes its connection without a word.
pub(crate) struct Voice {
    client: RawClient<TcpStream>,
    history: Arc<History>,
    connection: ConnectionId,
    persistent: bool,
    packet_id: u16,
    /// Publishes that are not acknowledged, by packet id.
    open: BTreeMap<u16, (LaneId, u64)>,
    /// The highest number that came, by lane.
    came: BTreeMap<LaneId, u64>,
    /// QoS 2 messages that came and were not released. To be handed on to the session's next connection.
    pub(crate) received: BTreeMap<u16, ()>,
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
        let (open, came, received) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let voice =
            Voice { client, history: history.clone(), connection, persistent, packet_id: 0, open, came, received };
        Ok((voice, connack))
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
        let mut publish = raw::publish(id, &topic.name, topic.qos, payload(topic.lane, number, 0));
        publish.dup = dup && id > 0;
        self.history.record(self.connection, What::Sent { lane: topic.lane, number });
        if id > 0 {
            self.open.insert(id, (topic.lane, number));
        }
        self.client.send(&Packet::Publish(publish)).await?;
        Ok(id)
    }

    /// Publishes this number and waits until it is acknowledged to the end.
    pub(crate) async fn publish(&mut self, topic: &Topic, number: u64, dup: bool, deadline: Duration) -> Result<()> {
        let id = self.send(topic, number, dup).await?;
        if topic.qos == QoS::AtMostOnce {
            return Ok(());
        }
        self.completed(id, deadline).await
    }

    /// Waits for PUBACK or PUBCOMP of this id.
    pub(crate) async fn completed(&mut self, id: u16, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await? {
                Came::Ack(name, of, reason) if of == id => {
                    // [v5 3.4.2.1] Nobody subscribes: no error either.
                    let good = [ReasonCode::Success, ReasonCode::NoMatchingSubscribers];
                    ensure!(good.contains(&reason), "{name} refuses: {reason:?}");
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
                let again = message.qos == QoS::ExactlyOnce && self.received.insert(id, ()).is_some();
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
                self.received.remove(&ack.packet_id);
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
                self.open.remove(&ack.packet_id);
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
        if let Some((lane, number)) = self.open.get(&ack.packet_id).copied() {
            if !ack.reason.is_error() {
                self.history.record(self.connection, What::Acknowledged { lane, number });
            }
            if done {
                self.open.remove(&ack.packet_id);
            }
        }
        Came::Ack(name, ack.packet_id, ack.reason)
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id % u16::MAX + 1;
            if !self.open.contains_key(&self.packet_id) {
                return self.packet_id;
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
