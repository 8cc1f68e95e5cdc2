//! The log under Raft: entries by index, this node's vote, and metadata. An entry's body is opaque here.
//!
//! Changes are made in the caller's thread and are visible at once. One thread, the flusher, makes them durable in
//! groups: flush, sync, then the mark, then the callbacks. Nothing is acknowledged before its mark is on disk.

mod changes;
mod commit;
mod open;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use super::error::{Damage, OpenError, StoreError};
use super::files::Lock;
use super::mark::MarkFile;
pub use super::record::{Meta, Position, Record, Vote};
use super::sled::Sled;
pub use super::stats::Stats;
use super::workers::Watcher;

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a segment of sled's file, a power of two from 64 KiB to 16 MiB. A log that exists keeps its own.
    pub segment_bytes: usize,
    /// Bytes of pages that sled keeps in memory. It is a goal, not a limit.
    pub cache_bytes: u64,
    /// How long to wait for another process that has the directory: the one before, while it ends.
    pub lock_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: 8 << 20, cache_bytes: 32 << 20, lock_wait: Duration::from_secs(60) }
    }
}

/// Called once, with what happened, when a write, a sync or sled fails after the open. It ends the process: what the disk
/// holds is then known only to the next open. It must not call the log.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Called from the flusher's thread, once what it stands for is durable or has failed. It must not block, nor
/// call what waits for the flusher.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What the open found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The index at which a torn tail began, which was removed. Nothing from there on was acknowledged.
    pub truncated: Option<u64>,
    /// A purge that had been interrupted was finished.
    pub purge_finished: bool,
}

/// The log of one data directory. Methods block, most for a moment; those that return "once durable" for a sync.
pub struct Log {
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
    /// Makes a panic of sled's threads a failure.
    _watcher: Watcher,
}

/// Locks are taken in the order `writer`, `mark`, `view`.
struct Shared {
    sled: Sled,
    /// Held through each change, so that they are made in one order.
    writer: Mutex<()>,
    /// Held through each group commit.
    mark: Mutex<MarkFile>,
    /// Never held while anything blocks.
    view: Mutex<View>,
    /// Signalled when the flusher has something to do.
    work: Condvar,
    part_bytes: usize,
    stats: Stats,
    fatal: Fatal,
    /// The files' paths, for errors.
    data_path: PathBuf,
    mark_path: PathBuf,
    _lock: Lock,
}

/// The log as it is with all changes made, durable or not.
#[derive(Default)]
struct View {
    purged: Option<Position>,
    /// The last entry; `None` if there is none above `purged`.
    last: Option<Position>,
    /// Bytes of the bodies of all entries, in order.
    sizes: VecDeque<u32>,
    bytes: u64,
    meta: super::record::MetaRecord,
    waiting: Vec<Done>,
    closing: bool,
    failed: Option<String>,
}

impl View {
    fn end(&self) -> Option<Position> {
        self.last.or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.end().map_or(0, |end| end.index + 1)
    }

    /// The index of the first entry, if there is one.
    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    fn contains(&self, index: u64) -> bool {
        (self.first_index()..self.next_index()).contains(&index)
    }

    fn forget_front(&mut self, upto: u64) {
        let count = (upto + 1).saturating_sub(self.first_index());
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.sizes.len());
        self.bytes -= self.sizes.drain(..count).map(u64::from).sum::<u64>();
    }

    /// Forgets the sizes from index `from` on, which is not below the first.
    fn forget_back(&mut self, from: u64) {
        let kept = usize::try_from(from - self.first_index()).unwrap_or(usize::MAX).min(self.sizes.len());
        self.bytes -= self.sizes.drain(kept..).map(u64::from).sum::<u64>();
    }

    fn sound(&self) -> Result<(), StoreError> {
        self.failed.as_ref().map_or(Ok(()), |what| Err(StoreError::Failed(what.clone())))
    }

    fn usable(&self) -> Result<(), StoreError> {
        self.sound()?;
        if self.closing { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl Log {
    /// The last entry removed from the front.
    pub fn purged(&self) -> Option<Position> {
        self.shared.view.lock().purged
    }

    /// The last entry; if there is none, the purged one.
    pub fn last(&self) -> Option<Position> {
        self.shared.view.lock().end()
    }

    pub fn vote(&self) -> Option<Vote> {
        self.shared.view.lock().meta.vote
    }

    pub fn meta(&self) -> Meta {
        self.shared.view.lock().meta.meta
    }

    /// Bytes of the bodies of the entries now in the log.
    pub fn bytes(&self) -> u64 {
        self.shared.view.lock().bytes
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Makes everything durable and ends the flusher. From then on the log takes no changes. The directory is free for
    /// the next open when the last reference to the log is gone.
    pub fn close(&self) {
        self.shared.view.lock().closing = true;
        self.shared.work.notify_all();
        let flusher = self.flusher.lock().take();
        // A callback may hold the last reference.
        if let Some(flusher) = flusher.filter(|flusher| flusher.thread().id() != thread::current().id()) {
            // It panics only if a callback does.
            let _ = flusher.join();
        }
    }
}

#[cfg(test)]
impl Log {
    /// Loses a value behind the log's back.
    pub(in crate::store) fn lose(&self, key: &super::record::Key) {
        self.shared.sled.apply(vec![(key.to_vec(), None)]).unwrap();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}
