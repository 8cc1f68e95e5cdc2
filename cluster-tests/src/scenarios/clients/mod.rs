//! Clients of scenarios whose steps are all in the history: one by hand, subscribers and publishers that go on by
//! themselves, and those that only look at SUBACKs.

mod listener;
mod probes;
mod speaker;
mod voice;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use fulmar_mqtt::QoS;
use tokio::task::JoinSet;

use crate::history::{History, LaneId};
use crate::load::Doors;
use crate::wait_for;

pub(super) use listener::Listener;
pub(super) use probes::SubackProbes;
pub(super) use voice::{Came, Voice};

/// How long what was acknowledged may take to come to all who are owed it, once nothing is broken.
const SETTLE: Duration = Duration::from_secs(45);

/// Between two judgements of a long history.
const JUDGE_PAUSE: Duration = Duration::from_millis(300);

/// Listeners that subscribe at a time.
const BEGINNING_MAX: usize = 64;

/// A topic that is numbered through by whoever has it.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) lane: LaneId,
    pub(super) name: String,
    pub(super) qos: QoS,
    next: AtomicU64,
}

impl Topic {
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }
}

/// What all of them share.
pub(super) struct Shared {
    pub(super) history: Arc<History>,
    pub(super) doors: Arc<Doors>,
    /// Silence after which a node is left.
    pub(super) patience: Duration,
    /// Publishers are to come to their end.
    ending: AtomicBool,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn wrong(&self, problem: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
}

/// The ones that go on by themselves. Dropped, they end.
pub(super) struct Clients {
    pub(super) shared: Arc<Shared>,
    speakers: JoinSet<Result<()>>,
    listeners: JoinSet<()>,
}

impl Clients {
    pub(super) fn new(history: Arc<History>, doors: Arc<Doors>, patience: Duration) -> Clients {
        let (ending, problems) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { history, doors, patience, ending, problems });
        Clients { shared, speakers: JoinSet::new(), listeners: JoinSet::new() }
    }

    pub(super) fn topic(&self, name: &str, qos: QoS) -> Arc<Topic> {
        let lane = self.shared.history.lane(name, qos);
        Arc::new(Topic { lane, name: name.to_owned(), qos, next: AtomicU64::new(0) })
    }

    /// Subscribes, and listens from then on.
    pub(super) async fn listen(&mut self, listener: Listener) -> Result<()> {
        self.listen_all(vec![listener]).await
    }

    /// As [`Clients::listen`], for many.
    pub(super) async fn listen_all(&mut self, listeners: Vec<Listener>) -> Result<()> {
        let (mut beginning, mut listeners) = (JoinSet::new(), listeners.into_iter());
        loop {
            while beginning.len() < BEGINNING_MAX {
                let Some(mut listener) = listeners.next() else { break };
                let shared = self.shared.clone();
                beginning.spawn(async move { listener.begin(&shared).await.map(|()| listener) });
            }
            let Some(begun) = beginning.join_next().await else { return Ok(()) };
            self.listeners.spawn(begun.context("a listener panicked")??.run(self.shared.clone()));
        }
    }

    /// Publishes to these topics in turn, with a pause after each message, until the end.
    pub(super) fn speak(&mut self, client_id: &str, topics: Vec<Arc<Topic>>, pause: Duration) {
        self.speakers.spawn(speaker::run(self.shared.clone(), client_id.to_owned(), topics, pause));
    }

    /// Lets publishers end, and waits until nothing that was acknowledged is missing.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.shared.ending.store(true, Ordering::SeqCst);
        let joined = async {
            while let Some(ended) = self.speakers.join_next().await {
                ended.context("a publisher panicked")??;
            }
            Ok::<(), anyhow::Error>(())
        };
        tokio::time::timeout(SETTLE, joined).await.context("publishers do not come to their end")??;
        if self.listeners.is_empty() {
            return Ok(());
        }
        let history = self.shared.history.clone();
        // What is missing then is told by the verdict.
        let _ = wait_for("deliveries", SETTLE, async || {
            tokio::time::sleep(JUDGE_PAUSE).await;
            (history.judge().lost == 0).then_some(())
        })
        .await;
        Ok(())
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
