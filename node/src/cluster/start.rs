//! From what is on disk to a replica that serves: the newest snapshot that can be read, the log after it, membership, the
//! announcement of this run, and a lease.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_broker::state::State;
use fulmar_broker::state::command::Limits;
use fulmar_broker::{Generation, NodeId};
use openraft::{Config, SnapshotPolicy};
use thiserror::Error;
use tokio::sync::watch;

use super::acks::Acks;
use super::batcher::Batcher;
use super::bootstrap::{self, Bootstrap};
use super::clock::Clock;
use super::context::Context;
use super::core::Core;
use super::disk::{self, Room};
use super::leader::{self, Leadership};
use super::lease::{ELECTION_MS, Holder};
use super::links::Links;
use super::peers::Peers;
use super::raft::Raft;
use super::raft::contact::Contact;
use super::raft::log_store::LogStore;
use super::raft::machine::{self, Machine};
use super::raft::network::Network;
use super::reach::{self, Reach};
use super::replica::{Error, Replica};
use super::service::PeerService;
use super::waits::Waits;
use super::{gate, member, membership};
use crate::store::identity;
use crate::store::log::{Damage, Fatal, Log, Position, StoreError, Vote};
use crate::store::snapshots::Snapshots;

/// openraft gives an AppendEntries exactly this long.
const HEARTBEAT_MS: u64 = 500;

/// openraft takes less than this for no election; ours are held by `gate`.
const ELECTION_MS_MIN: u64 = 1_000;

/// Entries that one message to a follower carries at most.
const PAYLOAD_ENTRIES_MAX: u64 = 300;

/// Between two tries of a node that is the only voter to lead.
const ELECT_EVERY: Duration = Duration::from_millis(100);

/// How far a node is that starts, once what is on disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It becomes a member, or waits for the others.
    Joining,
    /// It has this run of it committed, and what was committed before it applied.
    Announcing,
    /// It waits for its first lease.
    Leasing,
    /// It takes part, and opens its doors.
    Opening,
}

/// Told of each step.
pub type Steps = Arc<dyn Fn(Step) + Send + Sync>;

/// What a node brings to its cluster.
#[derive(Clone)]
pub struct Settings {
    pub node: NodeId,
    /// host:port that others reach it at; empty if it has no peer listener.
    pub address: String,
    /// What it does if it has no log.
    pub bootstrap: Bootstrap,
    /// Bounds of the replicated state.
    pub limits: Limits,
    /// Bytes that the log grows by before a snapshot is written.
    pub log_bytes: u64,
    /// Below so many free bytes of the disk, nothing is added that can be refused.
    pub disk_free_min: u64,
    pub data_dir: std::path::PathBuf,
    pub steps: Steps,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("node", &self.node).field("address", &self.address).finish_non_exhaustive()
    }
}

/// What connects a node with the others: the ways to them, and what they may ask. Made before there is a replica, so that
/// others can be answered while it starts.
#[derive(Clone)]
pub struct Doors {
    pub peers: Arc<Peers>,
    pub raft: Arc<OnceLock<Raft>>,
    pub contact: Arc<Contact>,
    pub service: PeerService,
    /// Told what a node waits for.
    pub waits: Waits,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// Why a node does not take part.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Damaged(Damage),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Removed(String),
    #[error("{0}")]
    Failed(String),
}

/// Brings the replica up to what was committed before, makes it a member if it is none, announces this run of the node,
/// and waits for its lease.
///
/// # Errors
/// What is on disk is damaged, or cannot be read or written; or the node was removed from its cluster.
pub async fn start(
    settings: Settings,
    log: Arc<Log>,
    snapshots: Snapshots,
    doors: Doors,
    fatal: Fatal,
) -> Result<Replica, StartError> {
    let failed = |what: &dyn std::fmt::Display| StartError::Failed(what.to_string());
    let Settings { node, data_dir, .. } = settings.clone();
    if let Some(what) = identity::removed(&data_dir).map_err(|error| failed(&error))? {
        let advice = "a removed node does not come back: empty the directory to join as a new one";
        return Err(StartError::Removed(format!("{}: {what}; {advice}", data_dir.display())));
    }
    let generation = Generation(log.meta().generation + 1);
    log.save_meta(|meta| {
        meta.node = node.0;
        meta.generation = generation.0;
    })?;
    let cluster = log.meta().cluster.unwrap_or_default();
    let Doors { peers, raft: raft_door, contact, service, waits } = doors;
    peers.set_cluster(cluster);
    let (state, origin) = match restore(&log, &snapshots, cluster)? {
        Some((state, origin)) => (state, Some(origin)),
        None => (State::new(Limits::default()), None),
    };
    // A leader that restarts begins a new term: what it appended and lost is never taken for what it appends now.
    if let Some(vote) = log.vote().filter(|vote| vote.committed && vote.node == node.0) {
        log.save_vote(Vote { committed: false, ..vote })?;
    }
    let holder = Arc::new(Holder::new());
    let core = Core::new((node, generation), state, holder.clone(), peers.clone());
    let machine = Machine::new(core.clone(), snapshots, peers.clone(), origin);
    let (shelf, acks) = (machine.shelf(), Arc::new(Acks::default()));
    let network = Network { peers: peers.clone(), acks: acks.clone() };
    let raft = Raft::new(node.0, config(), network, LogStore::new(log.clone(), fatal.clone()), machine).await;
    let raft = raft.map_err(|error| failed(&error))?;
    raft.runtime_config().elect(false);
    let clock = Clock::start(core.state().now());
    let context = Arc::new(Context {
        node,
        address: settings.address.clone(),
        data_dir: data_dir.clone(),
        clock,
        core,
        raft,
        log,
        peers,
        links: Links::new(),
        holder,
        acks,
        contact,
        waits,
        leadership: Leadership::new(),
        reach: Reach::default(),
        limits: settings.limits,
        fatal: fatal.clone(),
        desk: OnceLock::new(),
        examined: OnceLock::new(),
    });
    if context.log.last().is_none() && context.log.vote().is_none() && context.log.purged().is_none() {
        context.contact.never();
    }
    // A node is put together once.
    let _ = raft_door.set(context.raft.clone());
    service.begin(context.clone());
    (settings.steps)(Step::Joining);
    become_member(&context, &settings.bootstrap).await?;
    context.waits.note(None);
    let batcher = Batcher::new();
    let (stopped, is_stopped) = watch::channel(false);
    let room = Arc::new(Room::default());
    let mut background = vec![
        tokio::spawn(gate::run(context.clone())).abort_handle(),
        tokio::spawn(leader::run(context.clone())).abort_handle(),
        tokio::spawn(leader::timers(context.clone())).abort_handle(),
        tokio::spawn(membership::run(context.clone())).abort_handle(),
        tokio::spawn(member::run(context.clone())).abort_handle(),
        tokio::spawn(member::watch(context.clone())).abort_handle(),
        tokio::spawn(reach::run(context.clone())).abort_handle(),
    ];
    background.push(
        tokio::spawn(machine::compact(context.raft.clone(), context.core.clone(), shelf.clone(), settings.log_bytes))
            .abort_handle(),
    );
    let watching = disk::watch(context.clone(), data_dir, settings.disk_free_min, room.clone());
    background.push(tokio::spawn(watching).abort_handle());
    tokio::spawn(batcher.clone().run(context.clone(), fatal, stopped));
    let replica = Replica {
        context: context.clone(),
        batcher,
        shelf,
        room,
        background,
        stopped: is_stopped,
        retired: AtomicBool::new(false),
    };
    (settings.steps)(Step::Announcing);
    // No timeout: how long a replay, or a quorum, takes is known to nobody, and the probes say that it is under way.
    match replica.commit(vec![context.node_up()]).await {
        // Declared dead before it knew that it was up: its next run announces itself.
        Ok(_) | Err(Error::Ended) => {}
        Err(error) => return Err(failed(&error)),
    }
    (settings.steps)(Step::Leasing);
    let mut progress = context.core.progress();
    while !replica.acts() {
        // Whatever changes it, it is looked at soon.
        let _ = tokio::time::timeout(LOOK_AGAIN, progress.changed()).await;
    }
    (settings.steps)(Step::Opening);
    Ok(replica)
}

/// Between two looks at whether the first lease has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A node with a log is a member already; one that is the only voter leads at once.
async fn become_member(context: &Arc<Context>, how: &Bootstrap) -> Result<(), StartError> {
    let failed = |what: &dyn std::fmt::Display| StartError::Failed(what.to_string());
    let raft = &context.raft;
    if !raft.is_initialized().await.map_err(|error| failed(&error))? {
        bootstrap::begin(context, how).await?;
    }
    let only_voter = || {
        let membership = context.membership();
        membership.voter_ids().eq([context.node.0])
    };
    while only_voter() && raft.metrics().borrow().current_leader != Some(context.node.0) {
        raft.trigger().elect().await.map_err(|error| failed(&error))?;
        let leads = |metrics: &openraft::RaftMetrics<u64, super::raft::Member>| metrics.current_leader.is_some();
        // It is tried again.
        let _ = raft.wait(Some(ELECT_EVERY)).metrics(leads, "the only voter leads").await;
    }
    Ok(())
}

pub(super) type Restored = (State, machine::Origin);

/// The newest snapshot that can be read and that the log goes on from. Newer ones that cannot are put aside: they must
/// not be counted among those that are kept.
pub(super) fn restore(log: &Log, snapshots: &Snapshots, cluster: u64) -> Result<Option<Restored>, StartError> {
    let (usable, damaged) = newest(log.purged(), snapshots, cluster)?;
    if let Some((_, origin)) = &usable
        && let Some(at) = machine::reached(origin)
    {
        agree(log, at)?;
    }
    for Damage { file, .. } in damaged {
        let aside = file.with_extension("damaged");
        std::fs::rename(&file, &aside).map_err(|error| StartError::Failed(format!("{}: {error}", file.display())))?;
    }
    Ok(usable)
}

/// The newest snapshot of a cluster that can be read and that a log which is purged so far goes on from, and what is wrong
/// with those that are newer.
pub(super) fn newest(
    purged: Option<Position>,
    snapshots: &Snapshots,
    cluster: u64,
) -> Result<(Option<Restored>, Vec<Damage>), StartError> {
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
    Ok((usable, damaged))
}

/// A process that ended while it installed a snapshot from another node may have left a log that does not lead to it. What
/// is in the snapshot was committed; a log that says otherwise was not, and goes.
fn agree(log: &Log, at: Position) -> Result<(), StoreError> {
    let purged = log.purged();
    if purged.is_some_and(|purged| purged.index >= at.index) {
        return Ok(());
    }
    let there = log.read(at.index, at.index + 1, 0)?;
    let ends_before = log.last().is_none_or(|last| last.index < at.index && last.term <= at.term);
    if ends_before || there.first().is_some_and(|record| record.position == at) {
        return Ok(());
    }
    tracing::warn!(index = at.index, "the log disagrees with the snapshot, which was committed; it is cut off");
    log.truncate(purged.map_or(0, |purged| purged.index + 1))
}

pub(super) fn config() -> Arc<Config> {
    Arc::new(Config {
        cluster_name: "fulmar".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // Both are done by bytes, in `machine::compact`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    })
}
