//! From what is on disk to a replica that serves: the newest snapshot that can be read, the log after it, leadership,
//! and the announcement of this run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar_broker::state::State;
use fulmar_broker::state::command::{Command, Limits};
use fulmar_broker::{Generation, NodeId};
use openraft::{Config, ServerState, SnapshotPolicy};
use thiserror::Error;
use tokio::sync::watch;

use super::batcher::Batcher;
use super::clock::Clock;
use super::raft::log_store::LogStore;
use super::raft::machine::{self, Machine};
use super::raft::peers::NoPeers;
use super::raft::{Member, Raft};
use super::replica::{Core, Replica};
use crate::store::disk;
use crate::store::log::{Damage, Fatal, Log, StoreError, Vote};
use crate::store::snapshots::Snapshots;

/// openraft gives an AppendEntries exactly this long.
const HEARTBEAT_MS: u64 = 500;

/// A leader that was not heard of for so long is replaced.
const ELECTION_MS: (u64, u64) = (1_000, 1_500);

/// Entries that one message to a follower carries at most.
const PAYLOAD_ENTRIES_MAX: u64 = 300;

/// Between two looks at the free space of the disk.
const DISK_EVERY: Duration = Duration::from_millis(200);

/// What a node brings to its cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    pub node: NodeId,
    /// Bounds of the replicated state.
    pub limits: Limits,
    /// Bytes that the log grows by before a snapshot is written.
    pub log_bytes: u64,
    /// Below so many free bytes of the disk, nothing is added that can be refused.
    pub disk_free_min: u64,
    pub data_dir: std::path::PathBuf,
}

/// Why a node does not take part.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Damaged(Damage),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Failed(String),
}

/// Brings the replica up to what was committed before, and announces this run of the node.
///
/// # Errors
/// What is on disk is damaged, or cannot be read or written.
pub async fn start(
    settings: Settings,
    log: Arc<Log>,
    snapshots: Snapshots,
    fatal: Fatal,
) -> Result<Replica, StartError> {
    let failed = |what: &dyn std::fmt::Display| StartError::Failed(what.to_string());
    let node = settings.node;
    let fresh = log.meta().cluster.is_none();
    let generation = Generation(log.meta().generation + 1);
    log.save_meta(|meta| {
        meta.node = node.0;
        meta.generation = generation.0;
        // Chosen once; every stream between members opens with it.
        meta.cluster.get_or_insert_with(|| rand::random::<u64>().max(1));
    })?;
    let cluster = log.meta().cluster.unwrap_or_default();
    let restored = restore(&log, &snapshots, cluster)?;
    let (state, origin) = match restored {
        Some((state, origin)) => (state, Some(origin)),
        None => (State::new(Limits::default()), None),
    };
    // A leader that restarts begins a new term: what it appended and lost is never taken for what it appends now.
    if let Some(vote) = log.vote().filter(|vote| vote.committed) {
        log.save_vote(Vote { committed: false, ..vote })?;
    }
    let core = Core::new(node, generation, state);
    let machine = Machine::new(core.clone(), snapshots, cluster, origin);
    let shelf = machine.shelf();
    let raft = Raft::new(node.0, config(), NoPeers, LogStore::new(log.clone(), fatal.clone()), machine).await;
    let raft = raft.map_err(|error| failed(&error))?;
    let last = log.last().map(|last| last.index);
    if !raft.is_initialized().await.map_err(|error| failed(&error))? {
        if !fresh {
            tracing::info!("the first start did not come to its end; it is done again");
        }
        let alone = std::collections::BTreeMap::from([(node.0, Member::default())]);
        raft.initialize(alone).await.map_err(|error| failed(&error))?;
    } else {
        raft.trigger().elect().await.map_err(|error| failed(&error))?;
    }
    // No timeout: how long a replay takes is known to nobody, and the probes say that it is under way.
    let leads_and_applied = |metrics: &openraft::RaftMetrics<u64, Member>| {
        metrics.state == ServerState::Leader && metrics.last_applied.map(|id| id.index) >= last
    };
    let wait = raft.wait(None);
    wait.metrics(leads_and_applied, "replay").await.map_err(|error| failed(&error))?;
    let clock = Clock::start(core.state().now());
    let batcher = Batcher::new();
    let (stopped, is_stopped) = watch::channel(false);
    tokio::spawn(batcher.clone().run(core.clone(), clock.clone(), raft.clone(), fatal, stopped));
    let disk_low = Arc::new(AtomicBool::new(false));
    let background = vec![
        tokio::spawn(machine::compact(raft.clone(), core.clone(), shelf.clone(), settings.log_bytes)).abort_handle(),
        tokio::spawn(watch_disk(settings.data_dir, settings.disk_free_min, disk_low.clone())).abort_handle(),
    ];
    let replica = Replica::new(core, clock, batcher, raft, log, shelf, disk_low, background, is_stopped);
    let mut commands = vec![Command::NodeUp { node, generation, address: Default::default() }];
    if *replica.read().limits() != settings.limits {
        commands.push(Command::SetLimits(settings.limits));
    }
    replica.commit(commands).await.map_err(|error| failed(&error))?;
    Ok(replica)
}

type Restored = (State, machine::Origin);

/// The newest snapshot that can be read and that the log goes on from. Newer ones that cannot are put aside: they must
/// not be counted among those that are kept.
fn restore(log: &Log, snapshots: &Snapshots, cluster: u64) -> Result<Option<Restored>, StartError> {
    let purged = log.purged();
    let files = snapshots.list().map_err(|error| StartError::Failed(format!("snapshots: {error}")))?;
    let mut damaged: Vec<Damage> = Vec::new();
    let mut usable = None;
    // What an older one lacks than the purged entries is nowhere any more.
    for file in files.iter().take_while(|file| purged.is_none_or(|purged| file.index >= purged.index)) {
        let what = match machine::read(file) {
            Ok(restored) if restored.cluster() == cluster => {
                usable = Some(restored.take());
                break;
            }
            Ok(restored) => format!("is of the cluster {:016x}, not of {cluster:016x}", restored.cluster()),
            Err(error) if error.newer() => return Err(StartError::Failed(error.to_string())),
            Err(error) => error.to_string(),
        };
        tracing::error!(file = %file.path.display(), what, "snapshot not usable; the one before it and the log are tried");
        damaged.push(Damage { file: file.path.clone(), index: Some(file.index), what });
    }
    match (purged, damaged.first()) {
        (Some(_), Some(damage)) if usable.is_none() => return Err(StartError::Damaged(damage.clone())),
        (Some(purged), None) if usable.is_none() => {
            let what = format!("has no snapshot that reaches entry {}, up to which the log was let go", purged.index);
            let file = snapshots.dir().to_owned();
            return Err(StartError::Damaged(Damage { file, index: Some(purged.index), what }));
        }
        _ => {} // without a snapshot, the log has everything from the first entry on
    }
    for Damage { file, .. } in damaged {
        let aside = file.with_extension("damaged");
        std::fs::rename(&file, &aside).map_err(|error| StartError::Failed(format!("{}: {error}", file.display())))?;
    }
    Ok(usable)
}

fn config() -> Arc<Config> {
    Arc::new(Config {
        cluster_name: "fulmar".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // Both are done by bytes, in `machine::compact`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    })
}

/// Watches the free space: below the bound, and until there is a tenth more, durable publishes wait or are refused.
async fn watch_disk(data_dir: std::path::PathBuf, free_min: u64, low: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(DISK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let was = low.load(Ordering::Relaxed);
        let free = match disk::free_bytes(&data_dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "free space unknown");
                continue;
            }
        };
        let is = free < if was { free_min + free_min / 10 } else { free_min };
        if is != was {
            low.store(is, Ordering::Relaxed);
            if is {
                tracing::error!(free, free_min, "the disk is nearly full: durable publishes are refused");
            } else {
                tracing::info!(free, "the disk has room again");
            }
        }
    }
}
