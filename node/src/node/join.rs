//! A node's way into its cluster: what is on disk is opened, the door for other nodes too, and it becomes a member again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use fulmar_broker::state::command;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

use crate::cluster::peers::Peers;
use crate::cluster::raft::inbound::RaftService;
use crate::cluster::{self, Bootstrap, PeerService, Replica, StartError};
use crate::config::{self, Config};
use crate::doors::peer;
use crate::doors::probes::{Health, Phase};
use crate::store::identity;
use crate::store::log::{self, Damage, Fatal, Log, OpenError, StoreError};
use crate::store::pid::PidFile;
use crate::store::snapshots::Snapshots;
use crate::tls::Tls;

/// Between two tries to start on a full disk.
const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

/// How the process ends when its log cannot go on, as sysexits counts input and output errors.
const EXIT_STORE: i32 = 74;

/// One for the log and one for the state.
const CONSENSUS_THREADS: usize = 2;

/// How long one try to get the data directory waits for a process that is ending.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Between two tries to get a data directory that another process keeps.
const LOCKED_RETRY: Duration = Duration::from_secs(1);

/// A runtime of its own for Raft, its state machine and the batcher: what wakes them comes from other threads, and on
/// the threads that serve clients it would wait behind whatever those have to do.
pub(super) struct Consensus(Option<Runtime>);

impl Consensus {
    pub(super) fn start() -> std::io::Result<Consensus> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(CONSENSUS_THREADS).thread_name("raft").enable_all().build().map(Some).map(Consensus)
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().map(Runtime::handle).expect("there until it is dropped")
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        // A runtime must not be waited for where others run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a node does not take part in its cluster.
pub(super) enum Unjoined {
    Damaged(String),
    Failed(anyhow::Error),
}

/// Where a process says who serves its data directory, once that is its own.
pub(super) type Pid = Arc<OnceLock<PidFile>>;

/// What a node joins its cluster with.
pub(super) struct Joining<'n> {
    pub(super) config: &'n Config,
    /// For other nodes.
    pub(super) tls: Option<Tls>,
    pub(super) health: &'n Arc<Health>,
    pub(super) consensus: &'n Consensus,
    pub(super) pid: &'n Pid,
}

impl Joining<'_> {
    /// Opens what is on disk and brings the replica up to it. While the disk is full it waits for room, and while another
    /// process keeps the directory for the end of that: to be started again would help neither.
    pub(super) async fn join(&self) -> Result<Replica, Unjoined> {
        loop {
            let (wait, what) = match self.try_once().await {
                Err(Unjoined::Failed(error)) if disk_full(&error) => (DISK_FULL_RETRY, error),
                Err(Unjoined::Failed(error)) if locked(&error) => (LOCKED_RETRY, error),
                joined => return joined,
            };
            let what = format!("{what:#}");
            tracing::error!(what, "waiting to open the data directory");
            self.health.set(Phase::Starting(Some(what)));
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_once(&self) -> Result<Replica, Unjoined> {
        let (starting, door) = self.begin().await?;
        let started = starting.await.map_err(|error| Unjoined::Failed(error.into()))?;
        started.map_err(|error| {
            if let Some(door) = door {
                door.abort();
            }
            match error {
                StartError::Damaged(damage) | StartError::Store(StoreError::Damaged(damage)) => {
                    damaged(self.config, &damage)
                }
                error => Unjoined::Failed(anyhow::Error::new(error).context("cluster")),
            }
        })
    }

    /// Opens the store and the door for other nodes, and begins the rest.
    async fn begin(&self) -> Result<(Starting, Option<JoinHandle<()>>), Unjoined> {
        let Joining { config, tls, health, consensus, pid } = self;
        let data_dir = config.node.data_dir.clone();
        let fatal: Fatal = Arc::new(|what| {
            // Whatever is not acknowledged by now never will be; what is on disk is looked at by the next start.
            eprintln!("fulmar: {what}");
            tracing::error!(what, "the log cannot go on");
            std::process::exit(EXIT_STORE);
        });
        let failed = |error: anyhow::Error| Unjoined::Failed(error);
        let opening = {
            let (data_dir, fatal) = (data_dir.clone(), fatal.clone());
            let options = log::Options { lock_wait: LOCK_WAIT, ..log::Options::default() };
            move || Log::open(&data_dir, options, fatal)
        };
        let opened = tokio::task::spawn_blocking(opening).await.map_err(|error| failed(error.into()))?;
        let (log, opened) = opened.map_err(|error| match error {
            OpenError::Damaged(damage) => damaged(config, &damage),
            error => failed(anyhow::Error::new(error).context("node.data_dir")),
        })?;
        if let Some(from) = opened.truncated {
            tracing::warn!(from, "the log had a torn tail, which nobody was promised; it is cut off");
        }
        if pid.get().is_none() {
            let held = PidFile::hold(&data_dir).context("fulmar.pid").map_err(failed)?;
            // Nobody else sets it.
            let _ = pid.set(held);
        }
        let node = identity::load(&data_dir).map_err(failed)?;
        let directory = data_dir.join("snapshots");
        let snapshots = Snapshots::open(directory.clone())
            .with_context(|| format!("cannot open {}", directory.display()))
            .map_err(failed)?;
        let peers = Peers::new(node.0, tls.clone(), config.cluster.dial.clone().into_iter().collect());
        let doors = cluster::Doors {
            peers,
            raft: Arc::default(),
            contact: Arc::default(),
            service: PeerService::default(),
            waits: health.waits.clone(),
        };
        let _runtime = consensus.handle().enter(); // where the connections of other nodes are served
        let (address, door) = match config.cluster.listen {
            None => (String::new(), None),
            Some(listen) => {
                let gate = Arc::new(doors.service.clone());
                let raft = RaftService::new(
                    doors.peers.clone(),
                    doors.raft.clone(),
                    doors.contact.clone(),
                    snapshots.clone(),
                    gate,
                );
                let opened = peer::open(listen, tls.clone(), raft, doors.service.clone());
                let (bound, door) = opened.map_err(failed)?;
                tracing::info!(address = %bound, "listening for other nodes");
                (config.cluster.advertised(bound), Some(door))
            }
        };
        let settings = cluster::Settings {
            node,
            address,
            bootstrap: bootstrap(config),
            limits: replicated_limits(config),
            log_bytes: config.store.log_bytes.get(),
            disk_free_min: config.store.disk_free_min.get(),
            data_dir,
            steps: {
                let health = Arc::clone(health);
                Arc::new(move |step| health.steps(step))
            },
        };
        let starting = consensus.handle().spawn(cluster::start(settings, Arc::new(log), snapshots, doors, fatal));
        Ok((starting, door))
    }
}

fn damaged(config: &Config, damage: &Damage) -> Unjoined {
    Unjoined::Damaged(format!("damaged: {damage}; `fulmar verify {}` says more", config.node.data_dir.display()))
}

type Starting = JoinHandle<Result<Replica, StartError>>;

fn bootstrap(config: &Config) -> Bootstrap {
    match config.cluster.bootstrap {
        config::cluster::Bootstrap::Single => Bootstrap::Single,
        config::cluster::Bootstrap::Join => {
            Bootstrap::Join { peers: config.cluster.peers.clone(), expected: config.cluster.expected as usize }
        }
    }
}

/// Whether another process keeps the data directory.
fn locked(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref::<OpenError>(), Some(OpenError::Locked { .. })))
}

fn disk_full(error: &anyhow::Error) -> bool {
    let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    error.chain().any(|cause| match cause.downcast_ref::<OpenError>() {
        Some(OpenError::Io { error, .. }) => full(error),
        _ => cause.downcast_ref::<std::io::Error>().is_some_and(full),
    })
}

fn replicated_limits(config: &Config) -> command::Limits {
    command::Limits {
        replicated_bytes_max: config.limits.replicated_bytes_max.get(),
        queue_entries_max: config.session.queue_entries_max,
        queue_bytes_max: config.session.queue_bytes_max.get(),
        session_expiry_s_max: config.session.expiry_max.as_s(),
        sessions_max: config.limits.sessions_max,
        retained_max: config.limits.retained_max,
        queue_ttl_s: config.session.queue_ttl.as_s(),
        rule_backlog_bytes_max: config.limits.rule_backlog_bytes_max.get(),
    }
}
