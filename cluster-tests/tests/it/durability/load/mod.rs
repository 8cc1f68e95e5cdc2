//! A load that outlives the node: publishers and subscribers with persistent sessions, which resume after each loss of
//! the connection as the standards say, and judge what they get. Absent here: whoever stops and starts the node.

mod book;
mod link;
mod publisher;
mod subscriber;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster_tests::raw;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, Version};
use rand::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub(super) use book::{Book, Point, Step};

use crate::support::{SOON, raw_client, raw_subscribe};
use book::{Lane, Phase};
use publisher::Publisher;
use subscriber::Subscriber;

/// What numbered messages are published under, and what the retained ones.
const QUEUED: &str = "numbered";
const RETAINED: &str = "kept";

/// How long the whole load may take to come to its end.
const FINISH: Duration = Duration::from_secs(90);

/// Who takes part.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Publishers; each has a topic of QoS 1 and one of QoS 2. Every second one speaks MQTT 5, as with the others.
    pub(super) publishers: usize,
    /// Publishers of retained messages, three topics each.
    pub(super) retainers: usize,
    /// Connected subscribers and such that come only at the end: the QoS they ask for.
    pub(super) online: Vec<QoS>,
    pub(super) offline: Vec<QoS>,
    /// Unacknowledged messages of each publisher.
    pub(super) window: usize,
    /// Bytes of a payload, at most.
    pub(super) payload_bytes_max: usize,
    /// The node ends by a failure of its own, and may tell its clients so with DISCONNECT.
    pub(super) node_fails: bool,
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
            node_fails: false,
        }
    }
}

/// A running load.
pub(super) struct Load {
    pub(super) book: Arc<Book>,
    address: SocketAddr,
    tasks: JoinSet<Result<()>>,
    phase: watch::Sender<Phase>,
}

fn version_of(index: usize) -> Version {
    if index.is_multiple_of(2) { Version::V311 } else { Version::V5 }
}

impl Load {
    /// Makes the sessions, subscribes, and lets everybody go.
    pub(super) async fn start(address: SocketAddr, seed: u64, plan: &Plan) -> Load {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lanes = Vec::new();
        let mut owners: Vec<(String, Version, Vec<usize>)> = Vec::new();
        for index in 0..plan.publishers {
            let own = [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| {
                lanes.push(Lane::new(format!("{QUEUED}/{index}/{}", qos as u8), qos, false));
                lanes.len() - 1
            });
            owners.push((format!("publisher-{index}"), version_of(index), own.to_vec()));
        }
        for index in 0..plan.retainers {
            let own = [0, 1, 2].map(|topic| {
                let qos = if topic == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                lanes.push(Lane::new(format!("{RETAINED}/{index}/{topic}"), qos, true));
                lanes.len() - 1
            });
            owners.push((format!("retainer-{index}"), version_of(index), own.to_vec()));
        }
        let book = Arc::new(Book::new(lanes, owners.len(), plan.node_fails));
        let (phase, phases) = watch::channel(Phase::Run);

        let mut subscribers = Vec::new();
        let wanted = plan.online.iter().map(|qos| (*qos, true)).chain(plan.offline.iter().map(|qos| (*qos, false)));
        for (index, (qos, online)) in wanted.enumerate() {
            let id = format!("subscriber-{index}");
            let mut subscriber = Subscriber::new(
                book.clone(),
                address,
                id,
                version_of(index),
                qos,
                online,
                StdRng::seed_from_u64(random.random()),
            );
            subscriber.subscribe(&format!("{QUEUED}/#")).await.expect("a session with its subscription");
            subscribers.push(subscriber);
        }
        let mut tasks = JoinSet::new();
        for (id, version, own) in owners {
            let random = StdRng::seed_from_u64(random.random());
            let mut publisher = Publisher::new(book.clone(), address, id, version, own, plan, random);
            publisher.begin().await.expect("a session");
            tasks.spawn(publisher.run(phases.clone()));
        }
        for subscriber in subscribers {
            tasks.spawn(subscriber.run(phases.clone()));
        }
        Load { book, address, tasks, phase }
    }

    /// Waits for `fact`, which comes from outside, as long as all is well.
    ///
    /// # Panics
    /// Somebody got what should not be.
    pub(super) async fn until<T>(&mut self, what: &str, deadline: Duration, fact: impl Future<Output = T>) -> T {
        let answer = async {
            tokio::select! {
                value = fact => Ok(value),
                ended = self.tasks.join_next() => bail!("a client gave up: {}", told(ended)),
            }
        };
        match timeout(deadline, answer).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => panic!("{error:#}\n{}", self.book),
            Err(_) => panic!("waited {deadline:?} in vain for {what}\n{}", self.book),
        }
    }

    /// Waits until so many more messages have been acknowledged.
    pub(super) async fn acknowledged(&mut self, count: u64) {
        let book = self.book.clone();
        let target = book.acknowledged() + count;
        let reached =
            cluster_tests::wait_for("acknowledgements", FINISH, async || (book.acknowledged() >= target).then_some(()));
        self.until("acknowledgements", FINISH, reached).await.unwrap();
    }

    /// Publishes nothing new; waits until all that was sent is acknowledged and has come to every subscriber, also those
    /// that were away, whole and in order.
    pub(super) async fn finish(&mut self) {
        self.phase.send_replace(Phase::Finish);
        let end = Instant::now() + FINISH;
        while let Ok(ended) = tokio::time::timeout_at(end, self.tasks.join_next()).await {
            match ended {
                None => return,
                Some(Ok(Ok(()))) => {}
                other => panic!("a client gave up: {}\n{}", told(other), self.book),
            }
        }
        panic!("{} clients have not come to an end in {FINISH:?}\n{}", self.tasks.len(), self.book);
    }

    /// Asks for the retained messages: each topic holds a value that was sent, none older than the last that was
    /// acknowledged; nor, with QoS 2, than one that was seen.
    pub(super) async fn check_retained(&mut self) {
        let least: BTreeMap<String, u64> = self.book.retained_least();
        let mut client = raw_client(self.address, Version::V5, "reads-what-is-kept").await;
        raw_subscribe(&mut client, &format!("{RETAINED}/#"), QoS::AtLeastOnce).await;
        let mut missing = least.clone();
        while !missing.is_empty() {
            let message = match client.next(SOON).await {
                Ok(Packet::Publish(message)) => message,
                other => panic!("{missing:?} are missing among the retained messages: {other:?}\n{}", self.book),
            };
            client.send(&Packet::PubAck(Ack::success(message.packet_id))).await.unwrap();
            if !message.retain {
                continue; // published just now
            }
            let (lane, number) = self.book.read(&message).unwrap();
            let lane = &self.book.lanes[lane];
            let least = missing.remove(&lane.topic).unwrap_or(0);
            let sent = lane.sent.load(Ordering::SeqCst);
            assert!(
                (least..sent).contains(&number),
                "{} holds {number}; {least} was acknowledged or seen, {sent} are sent\n{}",
                lane.topic,
                self.book
            );
            lane.seen.fetch_max(number, Ordering::SeqCst);
        }
        client.send(&raw::disconnect(fulmar_mqtt::ReasonCode::Success)).await.unwrap();
    }
}

fn told(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> String {
    let result = ended.context("all have ended").and_then(|joined| joined.context("it panicked").and_then(|told| told));
    result.map_or_else(|error| format!("{error:#}"), |()| "it ended before its time".to_owned())
}
