//! The replicated state as this node holds it: what is applied to it, who is told, and who waits for what was proposed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use fulmar_broker::state::command::{Batch, Command, Effect, Outcome};
use fulmar_broker::state::{BatchError, State};
use fulmar_broker::{Generation, NodeId};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;

use super::batcher::{Batcher, weight};
use super::clock::Clock;
use super::raft::Raft;
use super::raft::machine::Shelf;
use crate::store::log::Log;

/// Why commands were not committed. The caller acknowledges nothing that depended on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    #[error("the replicated log has stopped")]
    Stopped,
    #[error("the replicated state refused a batch: it {0}")]
    Refused(BatchError),
}

/// What commands came to, in their order.
pub type Committed = Result<Vec<Outcome>, Error>;

/// Told once, after the commands are applied and their effects carried out, and before anything later is applied; in the
/// order of the proposals. Never, if the log stops or was closed before. It must not wait, nor propose and wait.
pub type Reply = Box<dyn FnOnce(Committed) + Send>;

/// Who carries out what applying commands asks of this node.
pub trait Listener: Send + Sync {
    fn carry_out(&self, effect: Effect);
    /// [`Replica::acts`] may say something else than before: the lease was lost, or is held again.
    fn lease_changed(&self);
    /// This run of the node was declared dead: every connection of it ends, without a word to the log. What is opened
    /// from here on belongs to the next run.
    fn fenced(&self);
    /// The state was replaced by that of an installed snapshot: effects in between were never told.
    fn installed(&self);
    /// A frame of another run came in: once each, in the order in which it was sent.
    fn delivered(&self, from: (NodeId, Generation), frame: Bytes, taken: Taken);
}

/// Told once everything in a frame was taken by its receivers, or has ended under a name. Shared messages whose chosen
/// member was gone are named by their places in the frame.
pub type Taken = Box<dyn FnOnce(Vec<u32>) + Send>;

/// Told once.
pub type Then = Box<dyn FnOnce() + Send>;

/// Bytes of batches between two looks at whether the log is to be shortened.
const GROWN_BYTES: u64 = 256 << 10;

/// Replies for one proposed batch: each with how many commands were its own.
pub(super) struct Waiting {
    pub(super) seq: u64,
    /// Commands before the first reply's, which nobody waits for.
    pub(super) skip: usize,
    pub(super) replies: Vec<(usize, Reply)>,
}

/// What entries are applied to.
pub struct Core {
    node: NodeId,
    generation: Generation,
    state: RwLock<State>,
    /// As the state has it, for reading without its lock.
    subscriptions_version: AtomicU64,
    /// Index of the last applied entry.
    applied: AtomicU64,
    /// Bytes of all batches that this run has applied.
    applied_bytes: AtomicU64,
    /// Told each time that they have grown by [`GROWN_BYTES`].
    grown: Notify,
    listener: OnceLock<Weak<dyn Listener>>,
    /// Batches of this run that are not applied yet, in order.
    waiting: Mutex<VecDeque<Waiting>>,
}

impl Core {
    #[must_use]
    pub fn new(node: NodeId, generation: Generation, state: State) -> Arc<Core> {
        let subscriptions_version = AtomicU64::new(state.subscriptions_version());
        Arc::new(Core {
            node,
            generation,
            state: RwLock::new(state),
            subscriptions_version,
            applied: AtomicU64::new(0),
            applied_bytes: AtomicU64::new(0),
            grown: Notify::new(),
            listener: OnceLock::new(),
            waiting: Mutex::default(),
        })
    }

    /// This run of the node.
    pub(super) fn run(&self) -> (NodeId, Generation) {
        (self.node, self.generation)
    }

    /// The state for reading. Held only for as long as the read takes.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Applies one batch, has its effects carried out, and tells whoever proposed it on this node.
    pub(super) fn apply(&self, index: u64, batch: &Batch) -> Result<(), BatchError> {
        let mut effects = Vec::new();
        let outcomes = {
            let mut state = self.state.write();
            let outcomes = state.apply(batch, &mut effects);
            self.subscriptions_version.store(state.subscriptions_version(), Ordering::Release);
            outcomes
        };
        self.applied.store(index, Ordering::Release);
        let bytes = batch.commands.iter().map(weight).sum::<usize>() as u64;
        let before = self.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / GROWN_BYTES != (before + bytes) / GROWN_BYTES {
            self.grown.notify_one();
        }
        if let Some(listener) = self.listener.get().and_then(Weak::upgrade) {
            effects.into_iter().for_each(|effect| listener.carry_out(effect));
        }
        let outcomes = outcomes?;
        if (batch.node, batch.generation) == (self.node, self.generation) {
            self.answer(batch.seq, outcomes);
        }
        Ok(())
    }

    fn answer(&self, seq: u64, outcomes: Vec<Outcome>) {
        let waiting = {
            let mut all = self.waiting.lock();
            // A batch that was sent twice is applied once, and answered once.
            if all.front().is_none_or(|first| first.seq != seq) {
                return;
            }
            all.pop_front()
        };
        let Some(waiting) = waiting else { return };
        let mut outcomes = outcomes.into_iter().skip(waiting.skip);
        for (count, reply) in waiting.replies {
            reply(Ok(outcomes.by_ref().take(count).collect()));
        }
    }

    pub(super) fn await_batch(&self, waiting: Waiting) {
        self.waiting.lock().push_back(waiting);
    }

    /// Tells everyone who waits that it was in vain.
    pub(super) fn fail_all(&self, error: Error) {
        let all = std::mem::take(&mut *self.waiting.lock());
        for (_, reply) in all.into_iter().flat_map(|waiting| waiting.replies) {
            reply(Err(error));
        }
    }

    pub(super) fn note_applied(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    pub(super) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is notably more in the log.
    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }

    /// Puts another state in the place of this one: that of an installed snapshot.
    pub(super) fn replace(&self, state: State) {
        let mut current = self.state.write();
        self.subscriptions_version.store(state.subscriptions_version(), Ordering::Release);
        *current = state;
    }
}

/// What the log, its disk and the snapshots come to. Counts and times are since the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub term: u64,
    pub leads: bool,
    pub last_index: u64,
    pub applied_index: u64,
    pub purged_index: u64,
    /// Of the entries that are in the log now.
    pub log_bytes: u64,
    pub written_bytes: u64,
    pub entries: u64,
    /// Group commits: each waits for the disk once for the log and once for its mark.
    pub syncs: u64,
    /// Microseconds of all group commits together, and of the longest.
    pub sync_us: u64,
    pub sync_us_max: u64,
    /// Of commands that wait to be proposed.
    pub backlog_bytes: u64,
    pub snapshots: u64,
    pub snapshots_failed: u64,
    /// Of the newest snapshot.
    pub snapshot_bytes: u64,
    pub snapshot_ms: u64,
    /// Whether durable publishes are refused because the disk is nearly full.
    pub disk_low: bool,
}

/// This node's part in the cluster: proposes, and reads what is applied.
pub struct Replica {
    core: Arc<Core>,
    clock: Clock,
    batcher: Arc<Batcher>,
    raft: Raft,
    log: Arc<Log>,
    shelf: Arc<Shelf>,
    /// Whether the disk is so full that nothing should be added.
    disk_low: Arc<AtomicBool>,
    /// What runs beside it until it is closed.
    background: Vec<AbortHandle>,
    stopped: watch::Receiver<bool>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("node", &self.core.node).finish_non_exhaustive()
    }
}

impl Replica {
    #[allow(clippy::too_many_arguments)] // its parts, put together in one place
    pub(super) fn new(
        core: Arc<Core>,
        clock: Clock,
        batcher: Arc<Batcher>,
        raft: Raft,
        log: Arc<Log>,
        shelf: Arc<Shelf>,
        disk_low: Arc<AtomicBool>,
        background: Vec<AbortHandle>,
        stopped: watch::Receiver<bool>,
    ) -> Replica {
        Replica { core, clock, batcher, raft, log, shelf, disk_low, background, stopped }
    }

    /// This run of the node. Once it was declared dead another one begins, in the same process.
    #[must_use]
    pub fn run(&self) -> (NodeId, Generation) {
        self.core.run()
    }

    /// Whether this node holds its lease now, by the clock: only then may it read from clients, write to them,
    /// acknowledge, and take or send frames.
    #[must_use]
    pub fn acts(&self) -> bool {
        true
    }

    /// Index of the last entry whose commands are applied; within a reply, that of its own entry.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.core.applied.load(Ordering::Acquire)
    }

    /// Has something done once every live node has applied this entry or has lost its lease: at once if they have.
    pub fn when_stable(&self, _index: u64, then: Then) {
        then();
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Names who carries out effects from here on. Once.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        // There is one dispatch in the life of a node.
        let _ = self.core.listener.set(listener);
    }

    /// Has the commands committed together, in the order of the calls. A batch is at most 256 KiB or one call's commands.
    pub fn propose(&self, commands: Vec<Command>, reply: Reply) {
        self.batcher.propose(commands, reply);
    }

    /// As [`Replica::propose`], waiting for it.
    ///
    /// # Errors
    /// They were not committed.
    pub async fn commit(&self, commands: Vec<Command>) -> Committed {
        let (done, outcome) = oneshot::channel();
        self.propose(
            commands,
            Box::new(move |committed| {
                // Whoever asked may have gone meanwhile.
                let _ = done.send(committed);
            }),
        );
        outcome.await.unwrap_or(Err(Error::Stopped))
    }

    /// Has settlements committed soon, with others of their session as one; nobody is told.
    pub fn settle(&self, settlement: fulmar_broker::state::command::Settlement) {
        self.batcher.settle(settlement);
    }

    /// Whether nothing should be added to the log now: too much waits to be committed, or the disk is nearly full.
    #[must_use]
    pub fn congested(&self) -> bool {
        self.disk_low.load(Ordering::Relaxed) || self.batcher.full()
    }

    /// Changes whenever durable routes do.
    #[must_use]
    pub fn subscriptions_version(&self) -> u64 {
        self.core.subscriptions_version.load(Ordering::Acquire)
    }

    /// What the log and the snapshots come to at this moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let metrics = self.raft.metrics().borrow().clone();
        let (log, snapshots) = (self.log.stats(), &self.shelf.stats);
        Figures {
            term: metrics.current_term,
            leads: metrics.current_leader == Some(metrics.id),
            last_index: self.log.last().map_or(0, |last| last.index),
            applied_index: self.core.applied.load(Ordering::Acquire),
            purged_index: self.log.purged().map_or(0, |purged| purged.index),
            log_bytes: self.log.bytes(),
            written_bytes: log.bytes_written.load(Ordering::Relaxed),
            entries: log.entries.load(Ordering::Relaxed),
            syncs: log.syncs.load(Ordering::Relaxed),
            sync_us: log.sync_micros.load(Ordering::Relaxed),
            sync_us_max: log.sync_micros_max.load(Ordering::Relaxed),
            backlog_bytes: self.batcher.bytes() as u64,
            snapshots: snapshots.written.load(Ordering::Relaxed),
            snapshots_failed: snapshots.failed.load(Ordering::Relaxed),
            snapshot_bytes: snapshots.bytes.load(Ordering::Relaxed),
            snapshot_ms: snapshots.took_ms.load(Ordering::Relaxed),
            disk_low: self.disk_low.load(Ordering::Relaxed),
        }
    }

    /// The state for reading. Held only for as long as the read takes.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.core.state()
    }

    /// Waits until everything that was proposed has been answered, and then takes nothing more.
    pub async fn close(&self) {
        self.batcher.close();
        let mut stopped = self.stopped.clone();
        // The sender goes with the task that ends.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        self.background.iter().for_each(AbortHandle::abort);
        // openraft's own task has nothing to lose: what was answered is on disk.
        let _ = self.raft.shutdown().await;
        let (log, shelf) = (self.log.clone(), self.shelf.clone());
        let ended = tokio::task::spawn_blocking(move || {
            shelf.settle();
            log.close();
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "the log was not closed");
        }
    }
}
