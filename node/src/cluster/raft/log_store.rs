//! The log that openraft writes and reads: entries of ours in [`Log`], and the latest of them in memory, so that what is
//! applied or sent to a follower soon after it was appended is not read back.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::{
    Entry, LogId, StorageResult, TypeConfig, decode_entry, encode_entry, log_id, position, raft_vote, read_error,
    stored_vote, write_error,
};
use crate::store::log::{Damage, Fatal, Log, StoreError};

/// Bytes of entries that are kept in memory, as they are on disk.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// Entries between two notes of how far the log is committed: a start replays what is below the note in small steps.
const COMMITTED_EVERY: u64 = 1_024;

/// Bytes that one read of the log decodes at most, beyond its first entry.
const READ_BYTES_MAX: usize = 8 << 20;

/// See the module. A clone is another handle to the same log.
#[derive(Clone)]
pub struct LogStore(pub(super) Arc<Inner>);

pub(super) struct Inner {
    log: Arc<Log>,
    fatal: Fatal,
    pub(super) recent: Mutex<Recent>,
    committed_noted: AtomicU64,
}

/// The end of the log, contiguous.
#[derive(Default)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl LogStore {
    #[must_use]
    pub fn new(log: Arc<Log>, fatal: Fatal) -> LogStore {
        LogStore(Arc::new(Inner { log, fatal, recent: Mutex::default(), committed_noted: AtomicU64::new(0) }))
    }

    /// Entries of a range, as many as there are.
    #[allow(clippy::result_large_err)] // openraft's error is as large as it is
    fn entries(&self, from: u64, to: u64) -> StorageResult<Vec<Entry>> {
        if let Some(found) = self.0.recent.lock().range(from, to) {
            return Ok(found);
        }
        let mut found: Vec<Entry> = Vec::new();
        let mut next = from;
        while next < to {
            let records = self.0.log.read(next, to, READ_BYTES_MAX).map_err(|error| read_error(&error))?;
            let Some(last) = records.last() else { break };
            next = last.position.index + 1;
            for record in &records {
                let entry = decode_entry(record).map_err(|what| {
                    let index = Some(record.position.index);
                    read_error(&StoreError::Damaged(Damage { file: "log".into(), index, what }))
                })?;
                found.push(entry);
            }
        }
        Ok(found)
    }
}

impl Recent {
    fn add(&mut self, entry: Entry, bytes: usize) {
        if self.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
            self.clear();
        }
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.bytes > CACHE_BYTES_MAX && self.entries.len() > 1 {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
            }
        }
    }

    fn clear(&mut self) {
        *self = Recent::default();
    }

    /// Entries of a range that lies wholly in memory, up to the end of the log.
    fn range(&self, from: u64, to: u64) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.0.log_id.index;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let count = usize::try_from(to.saturating_sub(from)).ok()?;
        (skip < self.entries.len())
            .then(|| self.entries.iter().skip(skip).take(count).map(|(entry, _)| entry.clone()).collect())
    }

    pub(super) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|(last, _)| last.log_id.index >= from) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
    }

    fn purge(&mut self, upto: u64) {
        while self.entries.front().is_some_and(|(first, _)| first.log_id.index <= upto) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}

/// Runs what waits for the disk where it holds up nobody else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Closed),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> StorageResult<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> StorageResult<LogState<TypeConfig>> {
        let log = &self.0.log;
        Ok(LogState { last_purged_log_id: log.purged().map(log_id), last_log_id: log.last().map(log_id) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &openraft::Vote<u64>) -> StorageResult<()> {
        let (log, vote) = (self.0.log.clone(), stored_vote(vote));
        blocking(move || log.save_vote(vote)).await.map_err(|error| write_error(&error))
    }

    async fn read_vote(&mut self) -> StorageResult<Option<openraft::Vote<u64>>> {
        Ok(self.0.log.vote().map(raft_vote))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> StorageResult<()> {
        let Some(committed) = committed else { return Ok(()) };
        let noted = self.0.committed_noted.load(Ordering::Relaxed);
        if committed.index.saturating_sub(noted) < COMMITTED_EVERY {
            return Ok(());
        }
        self.0.committed_noted.store(committed.index, Ordering::Relaxed);
        let log = self.0.log.clone();
        // Nobody waits for it; if it fails, the log itself has, and says so.
        tokio::task::spawn_blocking(move || log.save_meta(|meta| meta.committed = Some(position(&committed))));
        Ok(())
    }

    async fn read_committed(&mut self) -> StorageResult<Option<LogId>> {
        Ok(self.0.log.meta().committed.map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> StorageResult<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records: Vec<_> = entries.iter().map(encode_entry).collect();
        let done = Box::new(|result: Result<(), StoreError>| {
            callback.log_io_completed(result.map_err(std::io::Error::other));
        });
        self.0.log.append(&records, done).map_err(|error| write_error(&error))?;
        let mut recent = self.0.recent.lock();
        for (entry, record) in entries.into_iter().zip(&records) {
            recent.add(entry, record.body.len());
        }
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> StorageResult<()> {
        self.0.recent.lock().truncate(from.index);
        let log = self.0.log.clone();
        blocking(move || log.truncate(from.index)).await.map_err(|error| write_error(&error))
    }

    async fn purge(&mut self, upto: LogId) -> StorageResult<()> {
        self.0.recent.lock().purge(upto.index);
        let (log, fatal, upto) = (self.0.log.clone(), self.0.fatal.clone(), position(&upto));
        let begun = {
            let log = log.clone();
            blocking(move || log.begin_purge(upto)).await.map_err(|error| write_error(&error))?
        };
        if let Some(from) = begun {
            // Openraft waits for this: what takes long is done beside it.
            let removal = tokio::task::spawn_blocking(move || log.finish_purge(from, upto));
            tokio::spawn(async move {
                if removal.await.is_err_and(|error| error.is_panic()) {
                    fatal("the removal of purged entries has panicked");
                }
            });
        }
        Ok(())
    }
}
