//! A subscriber with a persistent session. It keeps the ids of QoS 2 messages over its connections, as the standards ask
//! of it, so that what it counts as delivered twice was delivered twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use cluster_tests::raw;
use cluster_tests::sequence::{Arrival, Sequence};
use fulmar_mqtt::packet::{Ack, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use rand::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use super::book::{Book, Phase, Step};
use super::link::{Heard, Link};
use crate::support::SOON;

/// One in so many messages, the subscriber itself loses its connection.
const DROPS: u32 = 1500;

/// How long acknowledgements wait for company.
const LINGER: Duration = Duration::from_millis(5);

/// Unacknowledged messages that an MQTT 5 subscriber lets come.
const RECEIVE_MAXIMUM: u16 = 40;

/// Answers that wait to be written.
#[derive(Default)]
struct Answers {
    bytes: BytesMut,
    steps: Vec<Step>,
}

pub(super) struct Subscriber {
    book: Arc<Book>,
    address: SocketAddr,
    client_id: String,
    version: Version,
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
    pub(super) fn new(
        book: Arc<Book>,
        address: SocketAddr,
        client_id: String,
        version: Version,
        qos: QoS,
        online: bool,
        random: StdRng,
    ) -> Subscriber {
        let sequences = vec![Sequence::default(); book.lanes.len()];
        let (received, last) = (BTreeMap::new(), Instant::now());
        Subscriber { book, address, client_id, version, qos, online, random, received, sequences, last }
    }

    /// Makes the session.
    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut link = self.connect(false).await?;
        let bytes = link.encoded(&raw::subscribe(1, filter, self.qos))?;
        link.send(&bytes).await?;
        match link.next(SOON).await? {
            Heard::Packet(Packet::SubAck(suback)) => ensure!(!suback.reasons[0].is_error(), "{suback:?}"),
            Heard::Packet(other) => bail!("expected SUBACK, got {other:?}"),
            Heard::Nothing | Heard::Lost => bail!("no SUBACK"),
        }
        link.leave().await
    }

    async fn connect(&self, present: bool) -> Result<Link> {
        let receive_maximum = Some(RECEIVE_MAXIMUM);
        Link::resume(&self.book, self.address, self.version, &self.client_id, receive_maximum, present).await
    }

    /// Takes messages until all have come. One that is not online comes only when nothing new is published.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Result<()> {
        if !self.online {
            phase.wait_for(|phase| *phase == Phase::Finish).await?;
        }
        loop {
            let link = self.connect(true).await?;
            self.last = Instant::now();
            let client_id = self.client_id.clone();
            if self.converse(link, &phase).await.with_context(|| client_id)? {
                return Ok(());
            }
        }
    }

    /// True once all has come, false if the connection is lost.
    async fn converse(&mut self, mut link: Link, phase: &watch::Receiver<Phase>) -> Result<bool> {
        let mut answers = Answers::default();
        let mut many = 1;
        loop {
            let heard = link.next(LINGER).await?;
            match heard {
                Heard::Lost => return Ok(false),
                Heard::Packet(packet) => {
                    self.last = Instant::now();
                    self.take(packet, &link, &mut answers)?;
                    if self.random.random_ratio(1, DROPS) {
                        return Ok(false); // what waits to be written is lost too
                    }
                }
                Heard::Nothing => {
                    let ending = *phase.borrow() == Phase::Finish && self.book.publishing.load(Ordering::SeqCst) == 0;
                    if ending && answers.steps.is_empty() && self.is_complete()? {
                        link.leave().await?;
                        return Ok(true);
                    }
                    ensure!(!ending || self.last.elapsed() < SOON, "nothing comes any more, and {}", self.missing());
                    many = 1;
                }
            }
            if answers.steps.len() >= many && !answers.steps.is_empty() {
                if !link.send(&answers.bytes).await? {
                    return Ok(false);
                }
                answers.bytes.clear();
                answers.steps.drain(..).for_each(|step| self.book.step(step, 1));
                many = self.random.random_range(1..=12);
            }
        }
    }

    fn take(&mut self, packet: Packet, link: &Link, answers: &mut Answers) -> Result<()> {
        let (answer, step) = match packet {
            Packet::Publish(message) => {
                self.book.step(Step::Delivery, 1);
                self.arrive(&message)?;
                match message.qos {
                    QoS::AtLeastOnce => (Packet::PubAck(Ack::success(message.packet_id)), Step::Acked),
                    QoS::ExactlyOnce => (Packet::PubRec(Ack::success(message.packet_id)), Step::Received),
                    QoS::AtMostOnce => bail!("a message came with QoS 0"),
                }
            }
            Packet::PubRel(ack) => {
                self.book.step(Step::Released, 1);
                // After a restart it may come for one that was released before: answered again.
                let known = self.received.remove(&ack.packet_id).is_some();
                let reason = match self.version {
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

    fn arrive(&mut self, message: &Publish) -> Result<()> {
        let (lane, number) = self.book.read(message)?;
        let Publish { qos, packet_id, dup, .. } = *message;
        let topic = &self.book.lanes[lane].topic;
        let expected = self.book.lanes[lane].qos.min(self.qos);
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
        match self.sequences[lane].arrive(number) {
            Arrival::InOrder => {}
            Arrival::Duplicate if qos == QoS::AtLeastOnce => {}
            Arrival::Duplicate => bail!("{number} of {topic} came twice with QoS 2; now dup={dup} id={packet_id}"),
            Arrival::Reordered => bail!("{number} of {topic} came for the first time after a later one; dup={dup}"),
        }
        Ok(())
    }

    /// Whether the last message of every topic has come and nothing is half done.
    ///
    /// # Errors
    /// The last has come, and an earlier one has not.
    fn is_complete(&self) -> Result<bool> {
        for (lane, sequence) in self.book.lanes.iter().zip(&self.sequences).filter(|(lane, _)| !lane.retain) {
            let sent = lane.sent.load(Ordering::SeqCst);
            if sequence.next() < sent {
                return Ok(false);
            }
            ensure!(sequence.lost(sent, &[]) == 0, "the last of {} has come, and {}", lane.topic, self.missing());
        }
        Ok(self.received.is_empty())
    }

    fn missing(&self) -> String {
        let mut missing = String::new();
        for (lane, sequence) in self.book.lanes.iter().zip(&self.sequences).filter(|(lane, _)| !lane.retain) {
            let sent = lane.sent.load(Ordering::SeqCst);
            let absent: Vec<u64> = (0..sent).filter(|number| !sequence.has(*number)).collect();
            if let (Some(first), Some(last)) = (absent.first(), absent.last()) {
                missing.push_str(&format!("{} of {} are missing ({first} to {last}); ", absent.len(), lane.topic));
            }
        }
        format!("{missing}{} are not released", self.received.len())
    }
}
