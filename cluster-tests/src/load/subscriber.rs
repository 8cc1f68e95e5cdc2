//! A subscriber with a persistent session. It keeps the ids of QoS 2 messages over its connections, as the standards ask
//! of it, so that what it counts as delivered twice was delivered twice.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use fulmar_mqtt::packet::{Ack, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use rand::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use super::SOON;
use super::book::{Phase, Step};
use super::link::{Caller, Heard, Link};
use crate::history::What;
use crate::raw;
use crate::sequence::{Arrival, Sequence};

/// One in so many messages, the subscriber itself loses its connection.
const DROPS: u32 = 1500;

/// How long acknowledgements wait for company.
const LINGER: Duration = Duration::from_millis(5);

/// Silence after which a node is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// Unacknowledged messages that an MQTT 5 subscriber lets come.
pub(super) const RECEIVE_MAXIMUM: u16 = 40;

/// Answers that wait to be written.
#[derive(Default)]
struct Answers {
    bytes: BytesMut,
    steps: Vec<Step>,
}

pub(super) struct Subscriber {
    caller: Caller,
    qos: QoS,
    online: bool,
    random: StdRng,
    /// QoS 2 messages that came and were not released, by packet id.
    received: BTreeMap<u16, (usize, u64)>,
    /// By lane.
    sequences: Vec<Sequence>,
    /// Since when nothing came that was new.
    last: Instant,
}

impl Subscriber {
    pub(super) fn new(caller: Caller, qos: QoS, online: bool, random: StdRng) -> Subscriber {
        let sequences = vec![Sequence::default(); caller.book.lanes.len()];
        Subscriber { caller, qos, online, random, received: BTreeMap::new(), sequences, last: Instant::now() }
    }

    /// Makes the session.
    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut link = self.caller.resume(false).await?;
        let bytes = link.encoded(&raw::subscribe(1, filter, self.qos))?;
        link.send(&bytes).await?;
        match link.next(SOON).await? {
            Heard::Packet(Packet::SubAck(suback)) => ensure!(!suback.reasons[0].is_error(), "{suback:?}"),
            Heard::Packet(other) => bail!("expected SUBACK, got {other:?}"),
            Heard::Nothing | Heard::Lost => bail!("no SUBACK"),
        }
        if let Some(connection) = link.connection() {
            self.caller.book.history.subscribed(connection, filter, self.qos, true);
        }
        link.leave().await
    }

    /// Takes messages until all have come. One that is not online comes only when nothing new is published.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Result<()> {
        if !self.online {
            phase.wait_for(|phase| *phase == Phase::Finish).await?;
        }
        loop {
            let link = self.caller.resume(true).await?;
            self.last = Instant::now();
            let client_id = self.caller.client_id.clone();
            if self.converse(link, &phase).await.with_context(|| client_id)? {
                return Ok(());
            }
            self.caller.lost();
        }
    }

    /// True once all has come, false if the connection is lost.
    async fn converse(&mut self, mut link: Link, phase: &watch::Receiver<Phase>) -> Result<bool> {
        let mut answers = Answers::default();
        let (mut many, manner) = (1, self.caller.book.manner);
        // When the node was heard or asked last, and whether it has been heard since.
        let (mut heard_last, mut asked) = (Instant::now(), false);
        loop {
            match link.next(LINGER).await? {
                Heard::Lost => return Ok(false),
                Heard::Packet(Packet::PingResp) if manner.moves() => (heard_last, asked) = (Instant::now(), false),
                Heard::Packet(packet) => {
                    (heard_last, asked) = (Instant::now(), false);
                    self.last = heard_last;
                    self.take(packet, &link, &mut answers)?;
                    if self.random.random_ratio(1, DROPS) {
                        return Ok(false); // what waits to be written is lost too
                    }
                }
                Heard::Nothing => {
                    let ending =
                        *phase.borrow() == Phase::Finish && self.caller.book.publishing.load(Ordering::SeqCst) == 0;
                    if ending && answers.steps.is_empty() && self.is_complete()? {
                        link.leave().await?;
                        return Ok(true);
                    }
                    if ending && self.last.elapsed() > SOON {
                        // With others there, the history tells what is missing.
                        self.caller.book.wrong(format!("nothing comes any more, and {}", self.missing()))?;
                        return Ok(true);
                    }
                    many = 1;
                    if manner.moves() && asked && heard_last.elapsed() > manner.patience() {
                        return Ok(false);
                    }
                    if manner.moves() && !asked && heard_last.elapsed() > ASK_AFTER {
                        (heard_last, asked) = (Instant::now(), true);
                        if !link.send(&link.encoded(&Packet::PingReq)?).await? {
                            return Ok(false);
                        }
                    }
                }
            }
            if answers.steps.len() >= many && !answers.steps.is_empty() {
                if !link.send(&answers.bytes).await? {
                    return Ok(false);
                }
                answers.bytes.clear();
                answers.steps.drain(..).for_each(|step| self.caller.book.step(step, 1));
                many = self.random.random_range(1..=12);
            }
        }
    }

    fn take(&mut self, packet: Packet, link: &Link, answers: &mut Answers) -> Result<()> {
        let (answer, step) = match packet {
            Packet::Publish(message) => {
                self.caller.book.step(Step::Delivery, 1);
                self.arrive(link, &message)?;
                match message.qos {
                    QoS::AtLeastOnce => (Packet::PubAck(Ack::success(message.packet_id)), Step::Acked),
                    QoS::ExactlyOnce => (Packet::PubRec(Ack::success(message.packet_id)), Step::Received),
                    QoS::AtMostOnce => bail!("a message came with QoS 0"),
                }
            }
            Packet::PubRel(ack) => {
                self.caller.book.step(Step::Released, 1);
                // After a restart it may come for one that was released before: answered again.
                let known = self.received.remove(&ack.packet_id).is_some();
                let reason = match self.caller.version {
                    Version::V5 if !known => ReasonCode::PacketIdentifierNotFound,
                    _ => ReasonCode::Success,
                };
                (Packet::PubComp(Ack::with_reason(ack.packet_id, reason)), Step::Completed)
            }
            other => bail!("a subscriber got {other:?}"),
        };
        link.encode(&answer, &mut answers.bytes)?;
        answers.steps.push(step);
        Ok(())
    }

    fn arrive(&mut self, link: &Link, message: &Publish) -> Result<()> {
        let (lane, number) = self.caller.book.read(message)?;
        let Publish { qos, packet_id, dup, .. } = *message;
        let topic = &self.caller.book.lanes[lane].topic;
        let expected = self.caller.book.lanes[lane].qos.min(self.qos);
        ensure!(qos == expected && !message.retain, "{number} of {topic} came as {message:?}");
        if qos == QoS::ExactlyOnce {
            if let Some(before) = self.received.get(&packet_id) {
                ensure!(
                    *before == (lane, number),
                    "packet id {packet_id} was {before:?} and is {number} of {topic}, and was not released between"
                );
                ensure!(dup, "{number} of {topic} came again, and is not marked so");
                return Ok(());
            }
            self.received.insert(packet_id, (lane, number));
        }
        link.record(What::Delivered { lane: self.caller.book.lanes[lane].id, number });
        let id = &self.caller.client_id;
        match self.sequences[lane].arrive(number) {
            Arrival::InOrder => Ok(()),
            Arrival::Duplicate if qos == QoS::AtLeastOnce => Ok(()),
            Arrival::Duplicate => {
                let text = format!("{id}: {number} of {topic} came twice with QoS 2; now dup={dup} id={packet_id}");
                self.caller.book.wrong(text)
            }
            Arrival::Reordered => {
                let text = format!("{id}: {number} of {topic} came for the first time after a later one; dup={dup}");
                self.caller.book.wrong(text)
            }
        }
    }

    /// Whether the last message of every topic has come and nothing is half done.
    ///
    /// # Errors
    /// The last has come, and an earlier one has not.
    fn is_complete(&self) -> Result<bool> {
        for (lane, sequence) in self.caller.book.lanes.iter().zip(&self.sequences).filter(|(lane, _)| !lane.retain) {
            let sent = lane.sent.load(Ordering::SeqCst);
            if sequence.next() < sent {
                return Ok(false);
            }
            if sequence.lost(sent, &[]) > 0 {
                let text = format!("the last of {} has come, and {}", lane.topic, self.missing());
                return self.caller.book.wrong(text).map(|()| true);
            }
        }
        Ok(self.received.is_empty())
    }

    fn missing(&self) -> String {
        let mut missing = String::new();
        for (lane, sequence) in self.caller.book.lanes.iter().zip(&self.sequences).filter(|(lane, _)| !lane.retain) {
            let sent = lane.sent.load(Ordering::SeqCst);
            let absent: Vec<u64> = (0..sent).filter(|number| !sequence.has(*number)).collect();
            if let (Some(first), Some(last)) = (absent.first(), absent.last()) {
                missing.push_str(&format!("{} of {} are missing ({first} to {last}); ", absent.len(), lane.topic));
            }
        }
        format!("{missing}{} are not released", self.received.len())
    }
}
