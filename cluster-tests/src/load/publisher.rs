//! A publisher with a persistent session: what is not acknowledged when its connection ends, it sends again, in order and
//! under the same packet ids; QoS 2 goes on at the half-step it had reached.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode};
use rand::prelude::*;
use tokio::sync::watch;

use super::Plan;
use super::book::{Phase, Step};
use super::link::{Caller, Heard, Link};
use crate::history::What;
use crate::raw;

/// One in so many acknowledgements, the publisher itself loses its connection.
const DROPS: u32 = 1500;

/// Packet ids that are used again and again: so few that each is soon another message's.
const IDS: u16 = 100;

/// A message that is not acknowledged to the end.
struct Flight {
    packet_id: u16,
    lane: usize,
    number: u64,
    bytes: usize,
    /// PUBREC has come.
    received: bool,
}

pub(super) struct Publisher {
    caller: Caller,
    lanes: Vec<usize>,
    window: usize,
    payload_bytes_max: usize,
    random: StdRng,
    /// In the order in which they were first sent.
    flights: VecDeque<Flight>,
    last_id: u16,
}

impl Publisher {
    pub(super) fn new(caller: Caller, lanes: Vec<usize>, plan: &Plan, random: StdRng) -> Publisher {
        let (window, payload_bytes_max) = (plan.window, plan.payload_bytes_max);
        Publisher { caller, lanes, window, payload_bytes_max, random, flights: VecDeque::new(), last_id: 0 }
    }

    /// Makes the session.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.caller.resume(false).await?.leave().await
    }

    /// Publishes until the end is announced and everything is acknowledged.
    pub(super) async fn run(mut self, phase: watch::Receiver<Phase>) -> Result<()> {
        loop {
            let link = self.caller.resume(true).await?;
            let client_id = self.caller.client_id.clone();
            if self.converse(link, &phase).await.with_context(|| client_id)? {
                self.caller.book.publishing.fetch_sub(1, Ordering::SeqCst);
                return Ok(());
            }
            self.caller.lost();
        }
    }

    /// True at the end, false if the connection is lost.
    async fn converse(&mut self, mut link: Link, phase: &watch::Receiver<Phase>) -> Result<bool> {
        // [v5 MQTT-4.4.0-1, v3.1.1 MQTT-4.4.0-1] all that is open, in order.
        let (mut bytes, mut publishes) = (BytesMut::new(), 0);
        for flight in &self.flights {
            if flight.received {
                link.encode(&Packet::PubRel(Ack::success(flight.packet_id)), &mut bytes)?;
            } else {
                link.encode(&self.publish(&link, flight, true), &mut bytes)?;
                publishes += 1;
            }
        }
        if !self.write(&mut link, &bytes, publishes).await? {
            return Ok(false);
        }
        loop {
            if *phase.borrow() == Phase::Run {
                if !self.fill(&mut link).await? {
                    return Ok(false);
                }
            } else if self.flights.is_empty() {
                link.leave().await?;
                return Ok(true);
            }
            let manner = self.caller.book.manner;
            match link.next(manner.patience()).await? {
                Heard::Lost => return Ok(false),
                Heard::Nothing if manner.moves() => return Ok(false),
                Heard::Nothing => bail!("{} messages are open, and nothing comes", self.flights.len()),
                Heard::Packet(packet) => {
                    if !self.take(packet, &mut link).await? || self.random.random_ratio(1, DROPS) {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn publish(&self, link: &Link, flight: &Flight, dup: bool) -> Packet {
        let lane = &self.caller.book.lanes[flight.lane];
        let payload = self.caller.book.payload(flight.lane, flight.number, flight.bytes);
        link.record(What::Sent { lane: lane.id, number: flight.number });
        let publish = raw::publish(flight.packet_id, &lane.topic, lane.qos, payload);
        Packet::Publish(fulmar_mqtt::packet::Publish { dup, retain: lane.retain, ..publish })
    }

    /// Sends as much as the window allows, in bursts of some.
    async fn fill(&mut self, link: &mut Link) -> Result<bool> {
        if self.flights.len() > self.window - self.window / 4 {
            return Ok(true);
        }
        let (mut bytes, mut publishes) = (BytesMut::new(), 0);
        while self.flights.len() < self.window {
            let lane = *self.lanes.choose(&mut self.random).context("a publisher without a topic")?;
            let number = self.caller.book.send(lane);
            let size = self.random.random_range(1..=self.payload_bytes_max);
            let flight = Flight { packet_id: self.free_id(), lane, number, bytes: size, received: false };
            link.encode(&self.publish(link, &flight, false), &mut bytes)?;
            self.flights.push_back(flight);
            publishes += 1;
        }
        self.write(link, &bytes, publishes).await
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % IDS + 1;
            if self.flights.iter().all(|flight| flight.packet_id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Writes PUBLISH packets; a kill may come in the middle of them. False if the connection is lost.
    async fn write(&self, link: &mut Link, bytes: &[u8], publishes: usize) -> Result<bool> {
        if publishes == 0 {
            return link.send(bytes).await;
        }
        let cut = self.caller.book.cut(publishes);
        let part = cut.map_or(bytes, |cut| &bytes[..bytes.len() * cut / 256]);
        let sent = link.send(part).await?;
        self.caller.book.step(Step::Publish, publishes);
        // Nothing can follow half a packet, also where another node than this client's is killed.
        Ok(sent && cut.is_none())
    }

    /// False if the connection is lost.
    async fn take(&mut self, packet: Packet, link: &mut Link) -> Result<bool> {
        match packet {
            Packet::PubAck(ack) => {
                self.caller.book.step(Step::PubAck, 1);
                let at = self.first(&ack, QoS::AtLeastOnce)?;
                self.acknowledge(link, at);
                self.flights.remove(at);
                self.caller.book.complete();
            }
            Packet::PubRec(ack) => {
                self.caller.book.step(Step::PubRec, 1);
                let at = self.first(&ack, QoS::ExactlyOnce)?;
                self.acknowledge(link, at);
                self.flights[at].received = true;
                let released = link.send(&link.encoded(&Packet::PubRel(Ack::success(ack.packet_id)))?).await?;
                self.caller.book.step(Step::PubRel, 1);
                return Ok(released);
            }
            Packet::PubComp(ack) => {
                self.caller.book.step(Step::PubComp, 1);
                let at = self.flights.iter().position(|flight| flight.packet_id == ack.packet_id && flight.received);
                let at = at.with_context(|| format!("PUBCOMP {ack:?} answers no PUBREL"))?;
                // [v5 3.7.2.1] Not found: the node had completed it before, and that answer was lost.
                let good = [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound].contains(&ack.reason);
                ensure!(good, "PUBREL was refused: {ack:?}");
                self.flights.remove(at);
                self.caller.book.complete();
            }
            other => bail!("a publisher got {other:?}"),
        }
        Ok(true)
    }

    fn acknowledge(&self, link: &Link, at: usize) {
        let flight = &self.flights[at];
        link.record(What::Acknowledged { lane: self.caller.book.lanes[flight.lane].id, number: flight.number });
        self.caller.book.ack(flight.lane, flight.number);
    }

    /// The message that the next PUBACK or PUBREC must be about: they come in the order of the PUBLISHes.
    /// [v5 MQTT-4.6.0-2, -3]
    fn first(&self, ack: &Ack, qos: QoS) -> Result<usize> {
        let good = [ReasonCode::Success, ReasonCode::NoMatchingSubscribers].contains(&ack.reason);
        ensure!(good, "a publish was refused: {ack:?}");
        let first =
            self.flights.iter().position(|flight| self.caller.book.lanes[flight.lane].qos == qos && !flight.received);
        let first = first.with_context(|| format!("{ack:?} acknowledges nothing"))?;
        let expected = self.flights[first].packet_id;
        ensure!(ack.packet_id == expected, "{ack:?} came before that of packet id {expected}");
        Ok(first)
    }
}
