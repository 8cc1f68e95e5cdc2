//! The replicated state as openraft's state machine: entries are applied in order, snapshots are written beside the
//! work from a copy that costs nothing, and read back at a start.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar_broker::NodeId;
use fulmar_broker::state::State;
use fulmar_broker::state::image::Builder;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Applied, Entry, LogId, Member, Proposal, StorageResult, StoredMembership, TypeConfig, decode_membership,
    encode_membership, log_id, position,
};
use crate::cluster::core::Core;
use crate::cluster::peers::Peers;
use crate::cluster::replica::Seat;
use crate::cluster::wire::image::{decode_part, encode_part};
use crate::store::log::Position;
use crate::store::snapshots::{SnapshotError, SnapshotFile, SnapshotHead, SnapshotReader, Snapshots};

/// Snapshots that are kept: should the newest not be readable, the one before it and the log make it good.
pub const KEPT: usize = 2;

/// How much the thread that writes a snapshot yields to all others, as `nice` counts.
const SNAPSHOT_NICENESS: i32 = 10;

/// A snapshot's name, as openraft has it.
type Meta = SnapshotMeta<u64, Member>;

/// The snapshot that a state was restored from.
pub type Origin = (Meta, SnapshotFile);

/// What writing snapshots has cost.
#[derive(Debug, Default)]
pub struct SnapshotStats {
    pub written: AtomicU64,
    /// That could not be written.
    pub failed: AtomicU64,
    /// Of the newest one.
    pub bytes: AtomicU64,
    /// Milliseconds that the newest one took.
    pub took_ms: AtomicU64,
}

/// See the module.
pub struct Machine {
    core: Arc<Core>,
    shelf: Arc<Shelf>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// The snapshots on disk, and the newest of them.
pub struct Shelf {
    snapshots: Snapshots,
    current: Mutex<Option<(Meta, SnapshotFile)>>,
    /// Which knows the cluster's id.
    peers: Arc<Peers>,
    /// Held while one is being written.
    writing: Mutex<()>,
    pub stats: SnapshotStats,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("current", &self.current.lock()).finish_non_exhaustive()
    }
}

/// A state that was read back, and where in the log it stands.
pub struct Restored {
    pub state: State,
    meta: Meta,
    file: SnapshotFile,
    cluster: u64,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    File(#[from] SnapshotError),
    #[error("{}: {what}", file.display())]
    Content { file: PathBuf, what: String },
}

impl ReadError {
    /// Whether a newer program wrote it.
    #[must_use]
    pub fn newer(&self) -> bool {
        matches!(self, ReadError::File(SnapshotError::Newer { .. }))
    }
}

/// The last entry that is in a snapshot.
#[must_use]
pub fn reached((meta, _): &Origin) -> Option<Position> {
    meta.last_log_id.as_ref().map(position)
}

impl Restored {
    /// The last entry that is in it.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.meta.last_log_id.as_ref().map(position)
    }

    /// The cluster that it is of.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        self.cluster
    }
}

/// Reads one snapshot back, whole.
///
/// # Errors
/// It is damaged, of a newer version, or cannot be read; the text names the file.
pub fn read(file: &SnapshotFile) -> Result<Restored, ReadError> {
    let content = |what: String| ReadError::Content { file: file.path.clone(), what };
    let mut reader = SnapshotReader::open(&file.path)?;
    let head = reader.head().clone();
    let mut builder = Builder::default();
    while let Some(record) = reader.next()? {
        let part = decode_part(record).map_err(|error| content(error.to_string()))?;
        builder.add(part).map_err(|error| content(error.to_string()))?;
    }
    let snapshot = builder.finish().map_err(|error| content(error.to_string()))?;
    let meta = meta(&head).map_err(content)?;
    Ok(Restored { state: State::restore(snapshot), meta, file: file.clone(), cluster: head.cluster })
}

pub(super) fn meta(head: &SnapshotHead) -> Result<Meta, String> {
    let last = Position { term: head.term, leader: head.leader, index: head.index };
    let at = head.membership_position.map(|(term, leader, index)| log_id(Position { term, leader, index }));
    let membership = StoredMembership::new(at, decode_membership(head.membership.clone())?);
    Ok(Meta { last_log_id: Some(log_id(last)), last_membership: membership, snapshot_id: snapshot_id(&last) })
}

fn snapshot_id(last: &Position) -> String {
    format!("{}-{}", last.term, last.index)
}

impl Machine {
    /// A machine over what was restored, or over an empty state that `core` holds already.
    #[must_use]
    pub(in crate::cluster) fn new(
        core: Arc<Core>,
        snapshots: Snapshots,
        peers: Arc<Peers>,
        restored: Option<Origin>,
    ) -> Machine {
        let applied = restored.as_ref().and_then(|(meta, _)| meta.last_log_id);
        let membership = restored.as_ref().map(|(meta, _)| meta.last_membership.clone()).unwrap_or_default();
        let shelf = Shelf {
            snapshots,
            current: Mutex::new(restored),
            peers,
            writing: Mutex::new(()),
            stats: SnapshotStats::default(),
        };
        let machine = Machine { core, shelf: Arc::new(shelf), applied, membership };
        machine.note_members();
        machine
    }

    fn note_members(&self) {
        let nodes = self.membership.nodes();
        self.core.note_members(nodes.map(|(node, member)| (*node, member.address.clone())));
    }

    /// The members, as the latest entry that says so has them.
    fn seats(&self) -> Vec<Seat> {
        let membership = self.membership.membership();
        let seat = |(node, member): (&u64, &Member)| Seat {
            node: NodeId(*node),
            address: member.address.clone(),
            votes: membership.voter_ids().any(|voter| voter == *node),
        };
        membership.nodes().map(seat).collect()
    }

    #[must_use]
    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.clone()
    }
}

impl Restored {
    /// The state, and what the machine must know of where it comes from.
    #[must_use]
    pub fn take(self) -> (State, Origin) {
        (self.state, (self.meta, self.file))
    }
}

impl Shelf {
    /// Position of the oldest snapshot that a start may fall back to: the log after it must stay.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn oldest(&self) -> std::io::Result<Option<u64>> {
        let files = self.snapshots.list()?;
        Ok((files.len() >= KEPT).then(|| files.get(KEPT - 1).map(|file| file.index)).flatten())
    }

    /// See [`crate::cluster::Replica::scratch`].
    pub(in crate::cluster) fn scratch(&self) -> std::io::Result<std::fs::File> {
        self.snapshots.scratch()
    }

    /// Blocks until no snapshot is being written.
    pub fn settle(&self) {
        drop(self.writing.lock());
    }

    fn current(&self) -> Option<Snapshot<TypeConfig>> {
        let current = self.current.lock();
        let (meta, file) = current.as_ref()?;
        Some(Snapshot { meta: meta.clone(), snapshot: Box::new(file.clone()) })
    }

    fn write(
        &self,
        state: &fulmar_broker::state::Snapshot,
        last: &LogId,
        membership: &StoredMembership,
    ) -> std::io::Result<SnapshotFile> {
        let _turn = self.writing.lock();
        let began = Instant::now();
        let file = write_file(&self.snapshots, self.peers.cluster(), state, last, membership)?;
        self.snapshots.prune(KEPT)?;
        self.stats.written.fetch_add(1, Ordering::Relaxed);
        self.stats.bytes.store(file.bytes, Ordering::Relaxed);
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.stats.took_ms.store(took_ms, Ordering::Relaxed);
        tracing::info!(index = file.index, bytes = file.bytes, took_ms, "snapshot written");
        Ok(file)
    }
}

/// Writes a state as it was at one entry, whole or not at all.
pub(in crate::cluster) fn write_file(
    snapshots: &Snapshots,
    cluster: u64,
    state: &fulmar_broker::state::Snapshot,
    last: &LogId,
    membership: &StoredMembership,
) -> std::io::Result<SnapshotFile> {
    let last = position(last);
    let head = SnapshotHead {
        term: last.term,
        leader: last.leader,
        index: last.index,
        membership: encode_membership(membership.membership()),
        membership_position: membership.log_id().map(|id| {
            let at = position(&id);
            (at.term, at.leader, at.index)
        }),
        cluster,
    };
    let mut writer = snapshots.create(&head)?;
    for part in state.parts() {
        writer.write(&encode_part(&part))?;
    }
    writer.finish()
}

/// A state as it was at one entry, about to be written.
pub struct SnapshotBuilder {
    state: Option<fulmar_broker::state::Snapshot>,
    last: Option<LogId>,
    membership: StoredMembership,
    shelf: Arc<Shelf>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> StorageResult<Snapshot<TypeConfig>> {
        let error = |error: std::io::Error| -> StorageError<u64> {
            StorageIOError::write_snapshot(None, AnyError::new(&error)).into()
        };
        let (Some(state), Some(last)) = (self.state.take(), self.last) else {
            // Nothing has been applied: there is nothing to write.
            return Ok(Snapshot { meta: Meta::default(), snapshot: Box::new(no_file()) });
        };
        let (membership, shelf) = (self.membership.clone(), self.shelf.clone());
        let (done, written) = oneshot::channel();
        // A thread of its own, because how nice it is cannot be taken back.
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                be_nice();
                let written = shelf.write(&state, &last, &membership);
                drop(state);
                // The receiver is gone only if the node is.
                let _ = done.send(written);
            })
            .map_err(error)?;
        // A panic is no want of space: it ends the node, as any other does that the state goes through.
        let written = written.await.map_err(|_| error(std::io::Error::other("the snapshot's thread has panicked")))?;
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                // The log has everything: a snapshot is only late. The next one is tried when the log has grown again.
                tracing::error!(%error, "snapshot not written");
                self.shelf.stats.failed.fetch_add(1, Ordering::Relaxed);
                let nothing = Snapshot { meta: Meta::default(), snapshot: Box::new(no_file()) };
                return Ok(self.shelf.current().unwrap_or(nothing));
            }
        };
        let meta = Meta {
            last_log_id: Some(last),
            last_membership: self.membership.clone(),
            snapshot_id: snapshot_id(&position(&last)),
        };
        *self.shelf.current.lock() = Some((meta.clone(), file.clone()));
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}

fn no_file() -> SnapshotFile {
    SnapshotFile { path: PathBuf::new(), term: 0, index: 0, bytes: 0 }
}

/// Lets every other thread of the machine go first.
pub(in crate::cluster) fn be_nice() {
    let this_thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this_thread), SNAPSHOT_NICENESS) {
        tracing::debug!(%error, "snapshots are written at normal priority");
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> StorageResult<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> StorageResult<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Ok(()),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.note_members();
                    self.core.members_changed(entry.log_id.index, self.seats());
                    Ok(())
                }
                EntryPayload::Normal(Proposal(batch)) => {
                    self.core.apply((entry.log_id.leader_id.term, entry.log_id.index), &batch)
                }
            });
            self.core.note_applied(entry.log_id.index);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: Some(self.core.state().snapshot()),
            last: self.applied,
            membership: self.membership.clone(),
            shelf: self.shelf.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> StorageResult<Box<SnapshotFile>> {
        // What arrives is written by whoever receives it; this only holds its place.
        Ok(Box::new(no_file()))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<SnapshotFile>) -> StorageResult<()> {
        let error = |error: &(dyn std::error::Error + 'static)| -> StorageError<u64> {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::error(error)).into()
        };
        // It lies where this node's own do since it was received, and is one of them from now on.
        let read = tokio::task::spawn_blocking(move || read(&snapshot)).await.map_err(|e| error(&e))?;
        let (state, (_, file)) = read.map_err(|e| error(&e))?.take();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.shelf.stats.bytes.store(file.bytes, Ordering::Relaxed);
        *self.shelf.current.lock() = Some((meta.clone(), file));
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.core.replace(state, index);
        self.core.note_applied(index);
        self.note_members();
        if let Err(error) = self.shelf.snapshots.prune(KEPT) {
            tracing::warn!(%error, "older snapshots stay");
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> StorageResult<Option<Snapshot<TypeConfig>>> {
        Ok(self.shelf.current())
    }
}

/// Between two looks at whether a snapshot is due.
const COMPACTION_EVERY: Duration = Duration::from_millis(500);

/// Has a snapshot written once the log has grown by `log_bytes`, or by the size of the newest snapshot if that is more,
/// and lets go of the log before the oldest snapshot that is kept. Ends with Raft.
pub async fn compact(raft: super::Raft, core: Arc<Core>, shelf: Arc<Shelf>, log_bytes: u64) {
    let mut ticks = tokio::time::interval(COMPACTION_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut purged = None;
    let mut asked_at = 0; // what this start has replayed counts
    loop {
        tokio::select! {
            _ = ticks.tick() => {} // a snapshot may have been finished
            () = core.grown() => {}
        }
        let since = core.applied_bytes().saturating_sub(asked_at);
        if since >= log_bytes.max(shelf.stats.bytes.load(Ordering::Relaxed)) {
            asked_at = core.applied_bytes();
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        match shelf.oldest() {
            Ok(oldest) if oldest > purged => {
                purged = oldest;
                if let Some(upto) = oldest
                    && raft.trigger().purge_log(upto).await.is_err()
                {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "snapshots cannot be listed; the log is not shortened"),
        }
    }
}
