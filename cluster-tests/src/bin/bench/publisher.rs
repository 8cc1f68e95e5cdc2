//! A publisher: sends as its pace allows and books the acks.

use std::future::pending;
use std::io;
use std::rc::Rc;

use anyhow::Result;
use cluster_tests::sys::{Timer, monotonic_ns};
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS};

use crate::board::{Board, Lane, Underway};
use crate::link::{Link, Outgoing};
use crate::payload::{Header, Payloads};

/// Bytes that may wait for the socket before no more are encoded.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// What decides when the next message goes.
pub(crate) enum Pace {
    /// As many under way as may be unacknowledged and undelivered.
    Window,
    /// One every `interval_ns` from `start_ns` on, whatever the broker does.
    Rate { start_ns: u64, interval_ns: u64 },
}

pub(crate) struct Publisher {
    pub(crate) board: Rc<Board>,
    pub(crate) index: usize,
    pub(crate) link: Link,
    /// Unacknowledged messages of QoS 1 and 2; with a rate it bounds packet ids only.
    pub(crate) window: u16,
    /// Undelivered messages, if they are bounded.
    pub(crate) undelivered: Option<u64>,
    pub(crate) payloads: Rc<Payloads>,
    pub(crate) pace: Pace,
    /// The last packet id given out.
    pub(crate) packet_id: u16,
}

impl Publisher {
    /// Runs until the board says stop and everything is acknowledged.
    pub(crate) async fn run(mut self) -> Result<()> {
        let board = self.board.clone();
        let lane = &board.lanes[self.index];
        let timer = match self.pace {
            Pace::Window => None,
            Pace::Rate { start_ns, interval_ns } => Some(Timer::periodic(start_ns, interval_ns)?),
        };
        let mut due = 0;
        loop {
            let more = self.fill(due)?;
            self.link.flush()?;
            if more && self.link.pending() == 0 {
                continue;
            }
            if board.stop.get() && self.link.pending() == 0 && lane.inflight.borrow().is_empty() {
                return Ok(());
            }
            tokio::select! {
                turned = self.link.turn() => turned?,
                () = lane.wake.notified() => {}
                fired = expirations(timer.as_ref()) => due += fired?,
            }
            while let Some(packet) = self.link.next()? {
                self.take(packet)?;
            }
        }
    }

    /// Encodes what may go now. True if more may go as soon as this is written.
    fn fill(&mut self, due: u64) -> Result<bool> {
        let board = self.board.clone();
        let lane = &board.lanes[self.index];
        if board.stop.get() {
            return Ok(false);
        }
        if self.sleeps(lane) {
            return Ok(false);
        }
        let last = match (&self.pace, self.undelivered) {
            (Pace::Rate { .. }, _) => due,
            (Pace::Window, Some(undelivered)) => board.low(self.index) + undelivered,
            (Pace::Window, None) => u64::MAX,
        };
        while lane.sent.get() < last {
            if board.qos != QoS::AtMostOnce && lane.inflight.borrow().len() >= usize::from(self.window) {
                return Ok(false);
            }
            if self.link.pending() >= OUTPUT_BYTES_MAX {
                return Ok(true);
            }
            self.send(lane)?;
        }
        Ok(matches!(self.pace, Pace::Window) && !self.sleeps(lane))
    }

    /// Whether more than half of what may be undelivered is; then the lane is woken once it no longer is. In halves, so
    /// that many messages share a write.
    fn sleeps(&self, lane: &Lane) -> bool {
        let Some(undelivered) = self.undelivered else { return false };
        let awake_at = (lane.sent.get() + undelivered.div_ceil(2)).saturating_sub(undelivered);
        self.board.low(self.index) < awake_at && self.board.wake_at(self.index, awake_at)
    }

    fn send(&mut self, lane: &Lane) -> Result<()> {
        let sequence = lane.sent.get();
        let due_ns = match self.pace {
            Pace::Window => monotonic_ns(),
            Pace::Rate { start_ns, interval_ns } => start_ns + sequence * interval_ns,
        };
        let qos = self.board.qos;
        let mut packet_id = 0;
        if qos != QoS::AtMostOnce {
            let mut inflight = lane.inflight.borrow_mut();
            loop {
                self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
                if !inflight.contains_key(&self.packet_id) {
                    break;
                }
            }
            packet_id = self.packet_id;
            inflight.insert(packet_id, Underway { sequence, due_ns });
        }
        let payload = self.payloads.write(Header { publisher: self.index as u32, sequence, due_ns });
        lane.sent.set(sequence + 1);
        self.link.publish(Outgoing { topic: &lane.topic, qos, retain: false, packet_id, payload: &payload })
    }

    fn take(&mut self, packet: Packet) -> Result<()> {
        let lane = &self.board.lanes[self.index];
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => settle(&self.board, lane, &ack),
            Packet::PubRec(ack) if ack.reason.is_error() => settle(&self.board, lane, &ack),
            Packet::PubRec(ack) => self.link.push(&Packet::PubRel(Ack::success(ack.packet_id)))?,
            Packet::PingResp => {}
            other => anyhow::bail!("a publisher got {other:?}"),
        }
        Ok(())
    }
}

fn settle(board: &Board, lane: &Lane, ack: &Ack) {
    let Some(underway) = lane.inflight.borrow_mut().remove(&ack.packet_id) else { return };
    if ack.reason.is_error() {
        lane.refused.borrow_mut().push(underway.sequence);
    } else {
        board.acknowledge(underway.due_ns, monotonic_ns());
        lane.acknowledged.set(lane.acknowledged.get() + 1);
    }
}

/// How often the timer has fired; never, without one.
async fn expirations(timer: Option<&Timer>) -> io::Result<u64> {
    match timer {
        Some(timer) => timer.expirations().await,
        None => pending().await,
    }
}
