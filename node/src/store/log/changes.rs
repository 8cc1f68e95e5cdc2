//! Appending, reading, truncating, purging; vote and metadata.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::super::error::Damage;
use super::super::inspect::each_record;
use super::super::mark::Mark;
use super::super::record::{self, Flaw, INDEX_END, META_KEY, MetaRecord, Position, Record};
use super::super::sled::{Broken, Writes};
use super::{Done, Log, Meta, Shared, StoreError, Vote};

/// Keys that are removed in one step; other changes get their turn between two.
const REMOVED_AT_ONCE: usize = 64;

impl Log {
    /// Appends entries, whose indexes continue the log; the first index of all is 0, and terms do not fall. They can be
    /// read at once. `done` is called when they are durable, or have failed.
    ///
    /// # Errors
    /// If they do not continue the log, or it is closed or has failed; then `done` is not called.
    pub fn append(&self, records: &[Record], done: Done) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let _writer = shared.writer.lock();
        let (mut next, mut term) = {
            let view = shared.view.lock();
            view.usable()?;
            (view.next_index(), view.end().map_or(0, |end| end.term))
        };
        for Record { position, .. } in records {
            if position.index != next || position.term < term || next >= INDEX_END - 1 {
                return Err(StoreError::Order(format!(
                    "entry {} of term {} cannot follow: entry {next} of term {term} or later is next",
                    position.index, position.term
                )));
            }
            (next, term) = (next + 1, position.term);
        }
        for record in records {
            shared.write(record)?;
        }
        shared.enqueue(done)
    }

    /// Reads the entries from index `from` to below `to` that are in the log, in order: as many as have at most
    /// `bytes_max` bytes of bodies, and one at least if there is one.
    ///
    /// # Errors
    /// If an entry that should be there is missing or damaged; the error names its index.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Record>, StoreError> {
        let shared = &*self.shared;
        let (from, to) = {
            let view = shared.view.lock();
            (from.max(view.first_index()), to.min(view.next_index()))
        };
        let mut records = Vec::new();
        if from >= to {
            return Ok(records);
        }
        let (mut next, mut bytes, mut flaw) = (from, 0, None);
        let scanned = each_record(&shared.sled, from, to, |index, record| {
            match record {
                Ok(record) if index == next => {
                    bytes += record.body.len();
                    if bytes > bytes_max && !records.is_empty() {
                        return ControlFlow::Break(());
                    }
                    records.push(record);
                    next += 1;
                    return if next < to && bytes < bytes_max {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    };
                }
                Ok(_) => flaw = Some("is missing".to_owned()),
                Err(Flaw::Damaged(what)) => flaw = Some(what.to_owned()),
                Err(Flaw::Newer(version)) => flaw = Some(format!("is of version {version}")),
            }
            ControlFlow::Break(())
        });
        scanned.map_err(|broken| shared.fail(&broken))?;
        if flaw.is_none() && records.is_empty() {
            flaw = Some("is missing".to_owned());
        }
        match flaw {
            // Meanwhile it may have been purged or truncated, which is no damage.
            Some(what) if shared.view.lock().contains(next) => {
                Err(StoreError::Damaged(Damage { file: shared.data_path.clone(), index: Some(next), what }))
            }
            _ => Ok(records),
        }
    }

    /// Removes all entries from index `from` on. Returns once that is durable.
    ///
    /// # Errors
    /// If the log is closed or has failed, or an entry at or below the purged one would go.
    pub fn truncate(&self, from: u64) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let _writer = shared.writer.lock();
        let first = {
            let view = shared.view.lock();
            view.usable()?;
            if from >= view.next_index() {
                return Ok(());
            }
            view.first_index()
        };
        if from < first {
            return Err(StoreError::Order(format!("entries below {first} are purged: cannot truncate from {from}")));
        }
        let last = if from == first { None } else { self.read(from - 1, from, 0)?.pop().map(|record| record.position) };
        {
            let mut mark = shared.mark.lock();
            let end = {
                let mut view = shared.view.lock();
                let end = view.next_index();
                view.last = last;
                view.forget_back(from);
                end
            };
            // First the promise is taken back, then what it was about is removed.
            let promised = mark.mark();
            if promised.last.is_some_and(|promised| promised.index >= from) {
                shared.mark(&mut mark, Mark { last, ..promised })?;
            }
            drop(mark);
            shared.remove(from, end)?;
        }
        shared.wait_durable()
    }

    /// Removes all entries up to `upto`, which may lie beyond the last one, as it does after an installed snapshot: then
    /// the log is empty, and goes on after `upto`. Returns once they are removed; a crash on the way is made good by the
    /// next open.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn purge(&self, upto: Position) -> Result<(), StoreError> {
        match self.begin_purge(upto)? {
            Some(from) => self.finish_purge(from, upto),
            None => Ok(()),
        }
    }

    /// The part of a purge that counts: the entries are gone once this returns, durably. `Some` is the index from which
    /// on their keys are to be removed, by [`Log::finish_purge`] or by the next open.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn begin_purge(&self, upto: Position) -> Result<Option<u64>, StoreError> {
        let shared = &*self.shared;
        let from;
        {
            let _writer = shared.writer.lock();
            let mut mark = shared.mark.lock();
            {
                let mut view = shared.view.lock();
                view.usable()?;
                if view.purged.is_some_and(|purged| purged.index >= upto.index) {
                    return Ok(None);
                }
                from = view.first_index();
                view.forget_front(upto.index);
                view.last = view.last.filter(|last| last.index > upto.index);
                view.purged = Some(upto);
            }
            let promised = mark.mark();
            let last = promised.last.filter(|last| last.index > upto.index);
            shared.mark(&mut mark, Mark { purged: Some(upto), last, ..promised })?;
        }
        Ok(Some(from))
    }

    /// Removes the keys of purged entries, some at a time: others have their turn in between.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn finish_purge(&self, mut from: u64, upto: Position) -> Result<(), StoreError> {
        let shared = &*self.shared;
        fail::fail_point!("log::before_purge");
        while let Some(next) = {
            let _writer = shared.writer.lock();
            shared.remove_some(from, upto.index + 1)?
        } {
            from = next;
        }
        shared.wait_durable()
    }

    /// Keeps whom this node voted for. Returns once it is durable.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn save_vote(&self, vote: Vote) -> Result<(), StoreError> {
        self.shared.change(|record| record.vote = Some(vote))
    }

    /// Makes the log that of another cluster, in one step: from here on its entries count for nothing, and the node begins
    /// with a snapshot of that cluster. Returns once it is durable.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn change_cluster(&self, cluster: u64, vote: Vote) -> Result<(), StoreError> {
        self.shared.change(|record| {
            record.vote = Some(vote);
            record.meta = Meta { cluster: Some(cluster), committed: None, ..record.meta };
        })
    }

    /// Changes the metadata. Returns once it is durable.
    ///
    /// # Errors
    /// If the log is closed or has failed.
    pub fn save_meta(&self, change: impl FnOnce(&mut Meta)) -> Result<(), StoreError> {
        self.shared.change(|record| change(&mut record.meta))
    }
}

impl Shared {
    /// Writes one entry, as one change.
    fn write(&self, record: &Record) -> Result<(), StoreError> {
        let size = u32::try_from(record.body.len()).ok();
        let (Some(size), Some(parts)) = (size, record::encode(record, self.part_bytes)) else {
            return Err(StoreError::Order(format!("entry {} is too long", record.position.index)));
        };
        let bytes: u64 = parts.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let writes = parts.into_iter().map(|(key, value)| (key.to_vec(), Some(value))).collect();
        self.sled.apply(writes).map_err(|broken| self.fail(&broken))?;
        let mut view = self.view.lock();
        view.last = Some(record.position);
        view.sizes.push_back(size);
        view.bytes += u64::from(size);
        self.stats.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.stats.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn mark(&self, file: &mut super::MarkFile, mark: Mark) -> Result<(), StoreError> {
        file.write(mark).map_err(|error| self.fail(&Broken::Io { file: self.mark_path.clone(), error }))
    }

    /// Removes all keys of the entries from index `from` to below `to`.
    pub(super) fn remove(&self, mut from: u64, to: u64) -> Result<(), StoreError> {
        while let Some(next) = self.remove_some(from, to)? {
            from = next;
        }
        Ok(())
    }

    /// Removes some keys of the entries from index `from` to below `to`: the index to go on from, if there are more.
    fn remove_some(&self, from: u64, to: u64) -> Result<Option<u64>, StoreError> {
        let (mut writes, mut more) = (Writes::new(), None);
        let scanned = self.sled.scan(&record::key(from, 0), &record::key(to, 0), |key, _| {
            if writes.len() >= REMOVED_AT_ONCE {
                more = Some(record::index_of(key).unwrap_or(from));
                return ControlFlow::Break(());
            }
            writes.push((key.to_vec(), None));
            ControlFlow::Continue(())
        });
        let removed = scanned.and_then(|()| self.sled.apply(writes));
        removed.map_err(|broken| self.fail(&broken))?;
        Ok(more)
    }

    fn change(&self, change: impl FnOnce(&mut MetaRecord)) -> Result<(), StoreError> {
        {
            let _writer = self.writer.lock();
            let mut record = {
                let view = self.view.lock();
                view.usable()?;
                view.meta
            };
            change(&mut record);
            record.counter += 1;
            self.sled.set_meta(META_KEY, &record.encode()).map_err(|broken| self.fail(&broken))?;
            self.view.lock().meta = record;
        }
        self.wait_durable()
    }
}
