//! Clients of scenarios whose steps are all in the history: one by hand, subscribers and publishers that go on by
//! themselves, and those that only look at SUBACKs.

mod device;
mod listener;
mod probes;
mod speaker;
mod voice;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use fulmar_mqtt::packet::Connect;
use fulmar_mqtt::{QoS, Version};
use tokio::task::JoinSet;

use crate::history::{History, LaneId};
use crate::load::Doors;
use crate::raw;
use crate::wait_for;

pub(crate) use device::Device;
pub(crate) use listener::Listener;
pub(crate) use probes::SubackProbes;
pub(crate) use voice::{Came, Voice};

/// How long what was acknowledged may take to come to all who are owed it, once nothing is broken.
const SETTLE: Duration = Duration::from_secs(45);

/// Between two judgements of a long history.
const JUDGE_PAUSE: Duration = Duration::from_millis(300);

/// Listeners that subscribe at a time.
const BEGINNING_MAX: usize = 64;

/// A topic that is numbered through by whoever has it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) lane: LaneId,
    pub(crate) name: String,
    pub(crate) qos: QoS,
    next: AtomicU64,
}

impl Topic {
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }
}

/// What all of them share.
pub(crate) struct Shared {
    pub(crate) history: Arc<History>,
    pub(crate) doors: Arc<Doors>,
    /// Silence after which a node is left.
    pub(crate) patience: Duration,
    /// User name and password of all clients; none are anonymous.
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    /// Publishers are to come to their end.
    ending: AtomicBool,
    /// Messages of devices that are on their way.
    open: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    /// The CONNECT of a client.
    fn connect(&self, version: Version, client_id: &str, persistent: bool) -> Connect {
        let mut connect = match persistent {
            true => raw::persistent(version, client_id),
            false => raw::connect(version, client_id),
        };
        if let Some((user, password)) = self.credentials {
            connect.username = Some(user.into());
            connect.password = Some(Bytes::from_static(password.as_bytes()));
        }
        connect
    }

    pub(crate) fn wrong(&self, problem: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
}

/// The ones that go on by themselves. Dropped, they end.
pub(crate) struct Clients {
    pub(crate) shared: Arc<Shared>,
    speakers: JoinSet<Result<()>>,
    listeners: JoinSet<()>,
}

impl Clients {
    pub(crate) fn new(history: Arc<History>, doors: Arc<Doors>, patience: Duration) -> Clients {
        Clients::with(history, doors, patience, None)
    }

    /// As [`Clients::new`], with a user name and its password.
    pub(crate) fn with(
        history: Arc<History>,
        doors: Arc<Doors>,
        patience: Duration,
        credentials: Option<(&'static str, &'static str)>,
    ) -> Clients {
        let (ending, open, problems) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { history, doors, patience, credentials, ending, open, problems });
        Clients { shared, speakers: JoinSet::new(), listeners: JoinSet::new() }
    }

    pub(crate) fn topic(&self, name: &str, qos: QoS) -> Arc<Topic> {
        let lane = self.shared.history.lane(name, qos);
        Arc::new(Topic { lane, name: name.to_owned(), qos, next: AtomicU64::new(0) })
    }

    /// Subscribes, and listens from then on.
    pub(crate) async fn listen(&mut self, listener: Listener) -> Result<()> {
        self.listen_all(vec![listener]).await
    }

    /// As [`Clients::listen`], for many.
    pub(crate) async fn listen_all(&mut self, listeners: Vec<Listener>) -> Result<()> {
        let begin = |mut listener: Listener, shared: Arc<Shared>| async move {
            listener.begin(&shared).await.map(|()| listener)
        };
        self.begin_all(listeners, begin, |listener, shared| listener.run(shared)).await
    }

    /// Subscribes all of these devices, and lets them go on by themselves.
    pub(crate) async fn devices(&mut self, devices: Vec<Device>) -> Result<()> {
        let begin =
            |mut device: Device, shared: Arc<Shared>| async move { device.begin(&shared).await.map(|()| device) };
        self.begin_all(devices, begin, |device, shared| device.run(shared)).await
    }

    async fn begin_all<C, B, R>(
        &mut self,
        clients: Vec<C>,
        begin: impl Fn(C, Arc<Shared>) -> B,
        run: impl Fn(C, Arc<Shared>) -> R,
    ) -> Result<()>
    where
        C: Send + 'static,
        B: Future<Output = Result<C>> + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (mut beginning, mut clients) = (JoinSet::new(), clients.into_iter());
        loop {
            while beginning.len() < BEGINNING_MAX {
                let Some(client) = clients.next() else { break };
                beginning.spawn(begin(client, self.shared.clone()));
            }
            let Some(begun) = beginning.join_next().await else { return Ok(()) };
            self.listeners.spawn(run(begun.context("a client panicked")??, self.shared.clone()));
        }
    }

    /// Publishes to these topics in turn, with a pause after each message, until the end.
    pub(crate) fn speak(&mut self, client_id: &str, topics: Vec<Arc<Topic>>, pause: Duration) {
        self.speakers.spawn(speaker::run(self.shared.clone(), client_id.to_owned(), topics, pause));
    }

    /// Lets publishers end, and waits until nothing that was acknowledged is missing.
    pub(crate) async fn settle(&mut self) -> Result<()> {
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
        let (history, shared) = (self.shared.history.clone(), self.shared.clone());
        let seen_through = async || (shared.open.load(Ordering::SeqCst) == 0).then_some(());
        wait_for("the PUBACKs of devices", SETTLE, seen_through).await?;
        // What is missing then is told by the verdict.
        let _ = wait_for("deliveries", SETTLE, async || {
            tokio::time::sleep(JUDGE_PAUSE).await;
            (history.judge().lost == 0).then_some(())
        })
        .await;
        Ok(())
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
