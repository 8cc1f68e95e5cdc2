//! What all clients of a load share: how far each topic is, and the point at which the node is killed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fulmar_mqtt::QoS;
use fulmar_mqtt::packet::Publish;
use rand::prelude::*;
use tokio::sync::Notify;

use super::link::Manner;
use crate::history::{History, LaneId};
use crate::sys::{self, Signal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Run,
    Finish,
}

/// Problems that are kept.
const PROBLEMS_MAX: usize = 12;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One topic, which one publisher numbers through.
#[derive(Debug)]
pub(super) struct Lane {
    /// In the history, and in payloads.
    pub(super) id: LaneId,
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// How many were sent, whether or not they arrived.
    pub(super) sent: AtomicU64,
    /// One past the highest that PUBACK or PUBREC named.
    pub(super) acked: AtomicU64,
    /// The highest that was read as a retained message.
    pub(super) seen: AtomicU64,
}

impl Lane {
    pub(super) fn new(history: &History, topic: String, qos: QoS, retain: bool) -> Lane {
        let zero = AtomicU64::default;
        Lane { id: history.lane(&topic, qos), topic, qos, retain, sent: zero(), acked: zero(), seen: zero() }
    }
}

/// A half-step of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A client was welcomed.
    Connack,
    /// A publisher wrote a PUBLISH, got one of these, or wrote PUBREL.
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    /// A subscriber got a PUBLISH, wrote one of these, or got PUBREL.
    Delivery,
    Acked,
    Received,
    Released,
    Completed,
}

const STEPS: [Step; 11] = [
    Step::Connack,
    Step::Publish,
    Step::PubAck,
    Step::PubRec,
    Step::PubRel,
    Step::PubComp,
    Step::Delivery,
    Step::Acked,
    Step::Received,
    Step::Released,
    Step::Completed,
];

/// When the node is killed: at the `left`-th step of this kind from now.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub step: Step,
    left: usize,
    /// How much of the write with that PUBLISH goes out before, in 256ths.
    cut: usize,
}

impl Point {
    /// At the `left`-th step of this kind, with all bytes of a write gone out.
    #[must_use]
    pub fn at(step: Step, left: usize) -> Point {
        Point { step, left, cut: 256 }
    }

    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// One of all points; `clients` connect after each start.
    pub fn random(random: &mut StdRng, clients: usize) -> Point {
        let step = *STEPS.choose(random).expect("there are some");
        let most = match step {
            Step::Connack => clients,
            Step::Delivery => 1500,
            _ => 400,
        };
        Point { step, left: random.random_range(1..=most), cut: random.random_range(0..=256) }
    }
}

#[derive(Debug, Default)]
struct Trigger {
    pid: u32,
    point: Option<Point>,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    pub(super) lanes: Vec<Lane>,
    pub(super) history: Arc<History>,
    pub(super) manner: Manner,
    /// Publishers that have not come to their end.
    pub(super) publishing: AtomicUsize,
    acknowledged: AtomicU64,
    /// Sent, and not acknowledged to the end (PUBACK, PUBCOMP).
    open: AtomicU64,
    trigger: Mutex<Trigger>,
    killed: Notify,
    /// What was open at the kill.
    open_then: AtomicU64,
    /// What clients saw that should not be, where that does not end them.
    problems: Mutex<Vec<String>>,
}

impl Book {
    pub(super) fn new(history: Arc<History>, lanes: Vec<Lane>, publishers: usize, manner: Manner) -> Book {
        Book {
            lanes,
            history,
            manner,
            problems: Mutex::default(),
            publishing: AtomicUsize::new(publishers),
            acknowledged: AtomicU64::default(),
            open: AtomicU64::default(),
            trigger: Mutex::default(),
            killed: Notify::new(),
            open_then: AtomicU64::default(),
        }
    }

    /// Messages acknowledged by PUBACK or PUBREC so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.sent.load(Ordering::SeqCst)).sum()
    }

    /// Messages sent, and not acknowledged to the end.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    /// Something is as it should not be. Of a lone node that ends the load at once; a cluster's is judged by its history.
    pub(super) fn wrong(&self, text: String) -> Result<()> {
        ensure!(self.manner.moves(), text);
        let mut problems = lock(&self.problems);
        if problems.len() < PROBLEMS_MAX {
            problems.push(text);
        }
        Ok(())
    }

    /// What was as it should not be.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    /// The next message of a lane: its number.
    pub(super) fn send(&self, lane: usize) -> u64 {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.lanes[lane].sent.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn ack(&self, lane: usize, number: u64) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        self.lanes[lane].acked.fetch_max(number + 1, Ordering::SeqCst);
    }

    pub(super) fn complete(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// For each retained topic that has been acknowledged: the lowest number that it may hold. With QoS 1, one that was
    /// seen and not acknowledged may be followed by an older one, which is sent again; with QoS 2 it may not.
    pub(super) fn retained_least(&self) -> BTreeMap<String, u64> {
        let kept = self.lanes.iter().filter(|lane| lane.retain);
        let least = kept.filter_map(|lane| {
            let acked = lane.acked.load(Ordering::SeqCst).checked_sub(1)?;
            let seen = if lane.qos == QoS::ExactlyOnce { lane.seen.load(Ordering::SeqCst) } else { 0 };
            Some((lane.topic.clone(), acked.max(seen)))
        });
        least.collect()
    }

    /// Has the node of this process killed at a point.
    pub fn arm(&self, pid: u32, point: Point) {
        *lock(&self.trigger) = Trigger { pid, point: Some(point) };
    }

    /// Waits for the kill; says how many messages were open then.
    pub async fn killed(&self) -> u64 {
        self.killed.notified().await;
        self.open_then.load(Ordering::SeqCst)
    }

    /// `count` steps are done.
    pub(super) fn step(&self, step: Step, count: usize) {
        let mut trigger = lock(&self.trigger);
        let Some(point) = trigger.point.as_mut().filter(|point| point.step == step) else { return };
        point.left = point.left.saturating_sub(count);
        if point.left == 0 {
            self.fire(&mut trigger);
        }
    }

    /// A write with so many PUBLISH packets is to begin: how much of it goes out, in 256ths, if the kill is to come
    /// within it; then [`Book::step`] kills.
    pub(super) fn cut(&self, count: usize) -> Option<usize> {
        let trigger = lock(&self.trigger);
        trigger.point.filter(|point| point.step == Step::Publish && point.left <= count).map(|point| point.cut)
    }

    fn fire(&self, trigger: &mut Trigger) {
        // A node that is gone by itself is found out by whoever waits for the kill.
        let _ = sys::signal(trigger.pid, Signal::Kill);
        trigger.point = None;
        self.open_then.store(self.open(), Ordering::SeqCst);
        self.killed.notify_one();
    }

    /// The payload of a message: says what it is, in full.
    pub(super) fn payload(&self, lane: usize, number: u64, bytes: usize) -> Bytes {
        payload(self.lanes[lane].id, number, bytes)
    }

    /// Index of the lane, and number, of a message that came.
    pub(super) fn read(&self, message: &Publish) -> Result<(usize, u64)> {
        let (id, number) = read(&message.payload)?;
        let lane = self.lanes.iter().position(|lane| lane.id == id).context("a message of no lane")?;
        let lane_of = &self.lanes[lane];
        let topic = message.topic.as_ref().map(|topic| topic.as_str());
        ensure!(topic == Some(lane_of.topic.as_str()), "message {number} of {} came as {topic:?}", lane_of.topic);
        ensure!(number < lane_of.sent.load(Ordering::SeqCst), "message {number} of {topic:?} was never sent");
        Ok((lane, number))
    }
}

/// A payload that says which message it is; at least so many bytes, if that is not more.
#[must_use]
pub fn payload(lane: LaneId, number: u64, bytes: usize) -> Bytes {
    let mut payload = format!("{lane} {number} {bytes} ").into_bytes();
    let filler = (number % 251) as u8;
    payload.resize(bytes.max(payload.len()), filler);
    payload.into()
}

/// Lane and number of a [`payload`].
///
/// # Errors
/// It is none, or is not whole.
pub fn read(bytes: &[u8]) -> Result<(LaneId, u64)> {
    let mut fields = bytes.split(|byte| *byte == b' ');
    let mut field = || -> Option<u64> { std::str::from_utf8(fields.next()?).ok()?.parse().ok() };
    let (lane, number, size) = (|| Some((LaneId::try_from(field()?).ok()?, field()?, field()? as usize)))()
        .context("a message that nobody sent")?;
    ensure!(payload(lane, number, size) == bytes, "message {number} of lane {lane} came mutilated");
    Ok((lane, number))
}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} acknowledged, {} open; by topic, sent and acknowledged:", self.acknowledged(), self.open())?;
        for Lane { topic, sent, acked, .. } in &self.lanes {
            writeln!(f, "  {topic}: {} {}", sent.load(Ordering::SeqCst), acked.load(Ordering::SeqCst))?;
        }
        Ok(())
    }
}
