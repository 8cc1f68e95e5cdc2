//! This node's part in the cluster as the rooms above see it: proposing, reading what is applied, and whether it may act.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fulmar_broker::state::State;
use fulmar_broker::state::command::{Command, Effect, Outcome};
use fulmar_broker::{Generation, NodeId};
use parking_lot::RwLockReadGuard;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::batcher::Batcher;
use super::clock::Clock;
use super::context::Context;
use super::disk::Room;
use super::links::Links;
use super::peers::Peers;
use super::raft::machine::Shelf;
use super::{handover, member};
use crate::telemetry::metrics::Durations;
use crate::telemetry::spans::{self, Kind};

/// Why commands were not committed. The caller acknowledges nothing that depended on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    #[error("the replicated log has stopped")]
    Stopped,
    #[error("this run of the node was declared dead")]
    Ended,
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
    /// The entry of this index has changed who the members are.
    fn members_changed(&self, index: u64, members: Vec<Seat>) {
        let _ = (index, members);
    }
    /// A frame of another run came in: once each, in the order in which it was sent.
    fn delivered(&self, from: (NodeId, Generation), frame: Bytes, taken: Taken);
}

/// A member, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub node: NodeId,
    /// host:port of its peer listener, when it became a member.
    pub address: String,
    pub votes: bool,
}

/// Told once everything in a frame was taken by its receivers, or has ended under a name. Shared messages whose chosen
/// member was gone are named by their places in the frame.
pub type Taken = Box<dyn FnOnce(Vec<u32>) + Send>;

/// Told once.
pub type Then = Box<dyn FnOnce() + Send>;

/// Between two looks at the lease of a node that ends.
const LEASE_LOOK: Duration = Duration::from_millis(50);

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
    /// Whether a sync of the log has taken too long within the last minute.
    pub disk_slow: bool,
}

/// This node's part in the cluster: proposes, and reads what is applied.
pub struct Replica {
    pub(super) context: Arc<Context>,
    pub(super) batcher: Arc<Batcher>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) room: Arc<Room>,
    /// What runs beside it until it is closed.
    pub(super) background: Vec<AbortHandle>,
    pub(super) stopped: watch::Receiver<bool>,
    /// See [`Replica::retire`].
    pub(super) retired: AtomicBool,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("node", &self.context.node).finish_non_exhaustive()
    }
}

impl Replica {
    /// This run of the node. Once it was declared dead another one begins, in the same process.
    #[must_use]
    pub fn run(&self) -> (NodeId, Generation) {
        self.context.core.run()
    }

    /// Whether this node holds its lease now, by the clock: only then may it read from clients, write to them,
    /// acknowledge, and take or send frames.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.context.holder.acts()
    }

    /// Index of the last entry whose commands are applied; within a reply, that of its own entry.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.context.core.applied()
    }

    /// Has something done once every live node has applied this entry or has lost its lease: at once if they have.
    /// Never, if this run of the node is declared dead before.
    pub fn when_stable(&self, index: u64, then: Then) {
        self.context.holder.when_stable(index, then);
    }

    /// Reads the state, with the index of the entry at which it stands. Held only for as long as the read takes.
    pub fn read_at<T>(&self, read: impl FnOnce(&State, u64) -> T) -> T {
        let state = self.context.core.state();
        read(&state, self.context.core.applied())
    }

    /// Index of the last entry that is applied and whose effects are carried out, as it grows.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.context.core.progress()
    }

    /// Other nodes that this one reaches.
    #[must_use]
    pub fn reached(&self) -> Vec<NodeId> {
        self.context.reach.reached().into_iter().map(NodeId).collect()
    }

    /// The leader that this node knows of, and the term, as they change.
    #[must_use]
    pub fn leader(&self) -> (Option<NodeId>, u64) {
        let metrics = self.context.raft.metrics();
        let metrics = metrics.borrow();
        (metrics.current_leader.map(NodeId), metrics.current_term)
    }

    /// The ways to other nodes.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.context.peers
    }

    /// The ways of publications to other nodes and from them.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.context.links
    }

    /// Whether there may ever be other nodes: this one has a listener for them.
    #[must_use]
    pub fn clustered(&self) -> bool {
        !self.context.address.is_empty()
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.context.clock
    }

    /// The cluster, as this node sees it.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Names who carries out effects from here on. Once.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        // There is one dispatch in the life of a node.
        let _ = self.context.core.listener.set(listener);
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
        self.commit_at(commands).await.0
    }

    /// As [`Replica::commit`]; also says which entry they are in, 0 if none.
    pub async fn commit_at(&self, commands: Vec<Command>) -> (Committed, u64) {
        let mut span = spans::part("log commit", Kind::Internal);
        span.set("fulmar.commands", commands.len() as u64);
        let (done, outcome) = oneshot::channel();
        let core = self.context.core.clone();
        self.propose(
            commands,
            Box::new(move |committed| {
                // Within the reply that is the index of their own entry. Whoever asked may have gone meanwhile.
                let _ = done.send((committed, core.applied()));
            }),
        );
        let (committed, index) = outcome.await.unwrap_or((Err(Error::Stopped), 0));
        span.set("fulmar.log_index", index);
        if committed.is_err() {
            span.fail("not committed");
        }
        (committed, index)
    }

    /// Waits until every live node has applied this entry, or has lost its lease. `false`: this run was declared dead
    /// before, and it is not known any more.
    pub async fn stable(&self, index: u64) -> bool {
        let (stable, everywhere) = oneshot::channel();
        let then = Box::new(move || {
            // Whoever asked may have gone meanwhile.
            let _ = stable.send(());
        });
        self.when_stable(index, then);
        everywhere.await.is_ok()
    }

    /// Has settlements committed soon, with others of their session as one; nobody is told.
    pub fn settle(&self, settlement: fulmar_broker::state::command::Settlement) {
        self.batcher.settle(settlement);
    }

    /// Whether nothing should be added to the log now: too much waits to be committed, or the disk is nearly full.
    #[must_use]
    pub fn congested(&self) -> bool {
        !self.has_room() || self.batcher.full()
    }

    /// Whether the disks have room for what can be refused: this node's own, and those of a majority of the voters.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.room.low() && !self.room.scarce()
    }

    /// Room on the disks.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Changes whenever durable routes do.
    #[must_use]
    pub fn subscriptions_version(&self) -> u64 {
        self.context.core.subscriptions_version.load(Ordering::Acquire)
    }

    /// What the log and the snapshots come to at this moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let metrics = self.context.raft.metrics().borrow().clone();
        let (log, snapshots) = (self.context.log.stats(), &self.shelf.stats);
        Figures {
            term: metrics.current_term,
            leads: metrics.current_leader == Some(metrics.id),
            last_index: self.context.log.last().map_or(0, |last| last.index),
            applied_index: self.context.core.applied(),
            purged_index: self.context.log.purged().map_or(0, |purged| purged.index),
            log_bytes: self.context.log.bytes(),
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
            disk_low: self.room.low(),
            disk_slow: log.slow(),
        }
    }

    /// How long group commits have waited for the disk.
    #[must_use]
    pub fn syncs(&self) -> &Durations {
        &self.context.log.stats().sync_took
    }

    /// How long it took from the numbering of a batch of this node to its being applied here.
    #[must_use]
    pub fn commits(&self) -> &Durations {
        &self.context.core.commits
    }

    /// Looks at how far applying is behind the log: every second.
    pub fn look_at_lag(&self) {
        let (last, applied) = (self.context.log.last().map_or(0, |last| last.index), self.applied());
        self.context.core.lag.lock().look(last, applied, Instant::now());
    }

    /// For how long at least the oldest entry that is not applied has been in this node's log; zero if all are.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.context.core.lag.lock().lasts(self.applied(), Instant::now())
    }

    /// The state for reading. Held only for as long as the read takes.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.context.core.state()
    }

    /// From here on this node would rather not lead. If it does, another voter takes over, unless none can: then it goes
    /// on. Bounded to a few seconds. Who leads then, if leadership moved.
    pub async fn hand_over(&self) -> Option<NodeId> {
        self.context.leadership.leave();
        handover::hand_over(&self.context).await
    }

    /// Waits until everything that was proposed has been answered, takes nothing more, and gives the lease back: this
    /// run ends for all other nodes. It still votes, and keeps the log. Once; nothing the second time.
    pub async fn retire(&self) {
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        self.batcher.close();
        let mut stopped = self.stopped.clone();
        // Without a lease nothing that is proposed may be answered any more.
        while self.acts() {
            // The sender goes with the task that ends.
            if tokio::time::timeout(LEASE_LOOK, stopped.wait_for(|stopped| *stopped)).await.is_ok() {
                break;
            }
        }
        member::give_back(&self.context).await;
        self.retired.store(true, Ordering::Release);
    }

    /// As [`Replica::retire`], and ends this node's part in the cluster.
    pub async fn close(&self) {
        self.retire().await;
        self.background.iter().for_each(AbortHandle::abort);
        // openraft's own task has nothing to lose: what was answered is on disk.
        let _ = self.context.raft.shutdown().await;
        let (log, shelf) = (self.context.log.clone(), self.shelf.clone());
        let ended = tokio::task::spawn_blocking(move || {
            shelf.settle();
            log.close();
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "the log was not closed");
        }
    }
}
