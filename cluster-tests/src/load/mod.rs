//! A load that outlives the node: publishers and subscribers with persistent sessions, which resume after each loss of
//! the connection as the standards say, and judge what they get. Absent here: whoever stops and starts the node.

mod book;
mod doors;
mod link;
mod publisher;
mod subscriber;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use rand::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use book::{Book, Point, Step, payload, read};
pub use doors::Doors;
pub use link::Manner;

use crate::history::History;
use crate::raw::{self, RawClient};
use book::{Lane, Phase};
use link::Caller;
use publisher::Publisher;
use subscriber::{RECEIVE_MAXIMUM, Subscriber};

/// How long something that must come may take. Long, for machines that do much else; nothing is measured by it.
const SOON: Duration = Duration::from_secs(15);

/// What numbered messages are published under, and what the retained ones.
const QUEUED: &str = "numbered";
const RETAINED: &str = "kept";

/// How long the whole load may take to come to its end.
const FINISH: Duration = Duration::from_secs(90);

/// Who takes part.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Publishers; each has a topic of QoS 1 and one of QoS 2. Every second one speaks MQTT 5, as with the others.
    pub publishers: usize,
    /// Publishers of retained messages, three topics each.
    pub retainers: usize,
    /// Connected subscribers and such that come only at the end: the QoS they ask for.
    pub online: Vec<QoS>,
    pub offline: Vec<QoS>,
    /// Unacknowledged messages of each publisher.
    pub window: usize,
    /// Bytes of a payload, at most.
    pub payload_bytes_max: usize,
    /// What its clients make of a node that ends or is silent.
    pub manner: Manner,
}

impl Default for Plan {
    fn default() -> Plan {
        let (one, two) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
        Plan {
            publishers: 6,
            retainers: 2,
            online: vec![two, two, one, one],
            offline: vec![two, one],
            window: 32,
            payload_bytes_max: 1500,
            manner: Manner::Alone,
        }
    }
}

/// A running load.
pub struct Load {
    pub book: Arc<Book>,
    doors: Arc<Doors>,
    tasks: JoinSet<Result<()>>,
    phase: watch::Sender<Phase>,
}

fn version_of(index: usize) -> Version {
    if index.is_multiple_of(2) { Version::V311 } else { Version::V5 }
}

impl Load {
    /// Makes the sessions, subscribes, and lets everybody go.
    ///
    /// # Errors
    /// A session cannot be made.
    pub async fn start(doors: Arc<Doors>, history: Arc<History>, seed: u64, plan: &Plan) -> Result<Load> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lanes = Vec::new();
        let mut owners: Vec<(String, Version, Vec<usize>)> = Vec::new();
        for index in 0..plan.publishers {
            let own = [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| {
                lanes.push(Lane::new(&history, format!("{QUEUED}/{index}/{}", qos as u8), qos, false));
                lanes.len() - 1
            });
            owners.push((format!("publisher-{index}"), version_of(index), own.to_vec()));
        }
        for index in 0..plan.retainers {
            let own = [0, 1, 2].map(|topic| {
                let qos = if topic == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                lanes.push(Lane::new(&history, format!("{RETAINED}/{index}/{topic}"), qos, true));
                lanes.len() - 1
            });
            owners.push((format!("retainer-{index}"), version_of(index), own.to_vec()));
        }
        let book = Arc::new(Book::new(history, lanes, owners.len(), plan.manner));
        let (phase, phases) = watch::channel(Phase::Run);
        let caller = |attempt: usize, client_id: String, version: Version, receive_maximum: Option<u16>| {
            let (book, doors) = (book.clone(), doors.clone());
            Caller { book, doors, attempt, client_id, version, receive_maximum }
        };

        let mut subscribers = Vec::new();
        let wanted = plan.online.iter().map(|qos| (*qos, true)).chain(plan.offline.iter().map(|qos| (*qos, false)));
        for (index, (qos, online)) in wanted.enumerate() {
            // One node further than the publisher of the same number.
            let caller = caller(index + 1, format!("subscriber-{index}"), version_of(index), Some(RECEIVE_MAXIMUM));
            let mut subscriber = Subscriber::new(caller, qos, online, StdRng::seed_from_u64(random.random()));
            subscriber.subscribe(&format!("{QUEUED}/#")).await.context("no session with its subscription")?;
            subscribers.push(subscriber);
        }
        let mut tasks = JoinSet::new();
        for (index, (id, version, own)) in owners.into_iter().enumerate() {
            let random = StdRng::seed_from_u64(random.random());
            let mut publisher = Publisher::new(caller(index, id, version, None), own, plan, random);
            publisher.begin().await.context("no session")?;
            tasks.spawn(publisher.run(phases.clone()));
        }
        for subscriber in subscribers {
            tasks.spawn(subscriber.run(phases.clone()));
        }
        Ok(Load { book, doors, tasks, phase })
    }

    /// Waits for `fact`, which comes from outside, as long as all is well.
    ///
    /// # Errors
    /// Somebody got what should not be, or `fact` did not come.
    pub async fn until<T>(&mut self, what: &str, deadline: Duration, fact: impl Future<Output = T>) -> Result<T> {
        let answer = async {
            tokio::select! {
                value = fact => Ok(value),
                ended = self.tasks.join_next() => bail!("a client gave up: {}", told(ended)),
            }
        };
        let waited = timeout(deadline, answer).await.with_context(|| format!("waited {deadline:?} in vain for {what}"));
        waited.and_then(|answer| answer).with_context(|| self.book.to_string())
    }

    /// Waits until so many more messages have been acknowledged.
    ///
    /// # Errors
    /// As [`Load::until`].
    pub async fn acknowledged(&mut self, count: u64) -> Result<()> {
        let book = self.book.clone();
        let target = book.acknowledged() + count;
        let reached =
            crate::wait_for("acknowledgements", FINISH, async || (book.acknowledged() >= target).then_some(()));
        self.until("acknowledgements", FINISH, reached).await?
    }

    /// Publishes nothing new; waits until all that was sent is acknowledged and has come to every subscriber, also those
    /// that were away, whole and in order.
    ///
    /// # Errors
    /// Somebody got what should not be, or did not come to an end.
    pub async fn finish(&mut self) -> Result<()> {
        self.phase.send_replace(Phase::Finish);
        let end = Instant::now() + FINISH;
        while let Ok(ended) = tokio::time::timeout_at(end, self.tasks.join_next()).await {
            match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                other => bail!("a client gave up: {}\n{}", told(other), self.book),
            }
        }
        bail!("{} clients have not come to an end in {FINISH:?}\n{}", self.tasks.len(), self.book);
    }

    /// Asks a node for the retained messages: each topic holds a value that was sent, none older than the last that was
    /// acknowledged; nor, with QoS 2, than one that was seen.
    ///
    /// # Errors
    /// One does not, or they do not come.
    pub async fn check_retained(&mut self, node: usize) -> Result<()> {
        let least: BTreeMap<String, u64> = self.book.retained_least();
        let (_, address) = self.doors.at(node);
        let mut client = RawClient::tcp(address, Version::V5).await?;
        let connack = client.handshake(raw::connect(Version::V5, "reads-what-is-kept"), SOON).await?;
        ensure!(connack.reason == ReasonCode::Success, "{connack:?}");
        client.send(&raw::subscribe(1, &format!("{RETAINED}/#"), QoS::AtLeastOnce)).await?;
        client.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await?;
        let mut missing = least.clone();
        while !missing.is_empty() {
            let message = match client.next(SOON).await {
                Ok(Packet::Publish(message)) => message,
                other => {
                    bail!(
                        "{missing:?} are missing among the retained messages of node {node}: {other:?}\n{}",
                        self.book
                    )
                }
            };
            client.send(&Packet::PubAck(Ack::success(message.packet_id))).await?;
            if !message.retain {
                continue; // published just now
            }
            let (lane, number) = self.book.read(&message)?;
            let lane = &self.book.lanes[lane];
            let least = missing.remove(&lane.topic).unwrap_or(0);
            let sent = lane.sent.load(Ordering::SeqCst);
            ensure!(
                (least..sent).contains(&number),
                "{} holds {number} at node {node}; {least} was acknowledged or seen, {sent} are sent\n{}",
                lane.topic,
                self.book
            );
            lane.seen.fetch_max(number, Ordering::SeqCst);
        }
        client.send(&raw::disconnect(ReasonCode::Success)).await
    }
}

fn told(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> String {
    let result = ended.context("all have ended").and_then(|joined| joined.context("it panicked").and_then(|told| told));
    result.map_or_else(|error| format!("{error:#}"), |()| "it ended before its time".to_owned())
}
