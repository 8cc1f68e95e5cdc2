//! Who has changed what, or tried to: the last entries, the oldest of which give way.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::key::{LogTime, NodeId};

/// Entries that are kept.
pub const ENTRIES_MAX: usize = 10_000;

/// Bytes of all of them.
pub const AUDIT_BYTES_MAX: u64 = 8 << 20;

/// Bytes of one text of an entry; who appends cuts it.
pub const TEXT_BYTES_MAX: usize = 512;

/// One call that changed something, or was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the node that answered it knew the time.
    pub at: LogTime,
    pub node: NodeId,
    /// Who called; empty where nobody is known.
    pub user: Box<str>,
    /// Empty where nobody is known.
    pub role: Box<str>,
    pub address: Box<str>,
    /// Through which door: `rest`, `grpc` or `console`.
    pub door: Box<str>,
    /// The call's name.
    pub operation: Box<str>,
    /// What it was about.
    pub about: Box<str>,
    /// As HTTP counts it.
    pub status: u16,
    /// Of an error; else empty.
    pub code: Box<str>,
    pub request_id: Box<str>,
}

impl Entry {
    /// Bytes that it is counted with.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.user, &self.role, &self.address, &self.door, &self.operation];
        let more = [&self.about, &self.code, &self.request_id];
        texts.into_iter().chain(more).map(|text| text.len()).sum::<usize>() + 96
    }
}

/// A piece of it: ascending by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// From 1.
    pub seq: u64,
    pub entry: Entry,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// By number, without gaps.
    entries: RedBlackTreeMapSync<u64, Arc<Entry>>,
    // Derived.
    bytes: u64,
}

impl Audit {
    pub(super) fn append(&mut self, entries: &[Entry]) -> u64 {
        let mut seq = self.last();
        for entry in entries {
            seq += 1;
            self.bytes += entry.bytes() as u64;
            self.entries.insert_mut(seq, Arc::new(entry.clone()));
            while (self.entries.size() > ENTRIES_MAX || self.bytes > AUDIT_BYTES_MAX) && self.entries.size() > 1 {
                self.forget_oldest();
            }
        }
        seq
    }

    fn forget_oldest(&mut self) {
        let Some((seq, entry)) = self.entries.first().map(|(seq, entry)| (*seq, Arc::clone(entry))) else { return };
        self.entries.remove_mut(&seq);
        self.bytes -= entry.bytes() as u64;
    }

    /// The number of the newest; 0 for none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.entries.last().map_or(0, |(seq, _)| *seq)
    }

    /// The newest first, of those with a number below `before`.
    pub fn newest(&self, before: u64) -> impl Iterator<Item = (u64, &Arc<Entry>)> {
        self.entries.range(..before).rev().map(|(seq, entry)| (*seq, entry))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Filed> {
        self.entries.iter().map(|(seq, entry)| Filed { seq: *seq, entry: (**entry).clone() })
    }

    pub(super) fn restore(&mut self, Filed { seq, entry }: Filed) -> Result<(), (&'static str, String)> {
        let follows = if self.entries.is_empty() { seq > 0 } else { seq == self.last() + 1 };
        if !follows {
            return Err(("seq", format!("is {seq}, after {}", self.last())));
        }
        self.bytes += entry.bytes() as u64;
        if self.entries.size() >= ENTRIES_MAX || (self.bytes > AUDIT_BYTES_MAX && !self.entries.is_empty()) {
            return Err(("seq", "is one more than there is room for".to_owned()));
        }
        self.entries.insert_mut(seq, Arc::new(entry));
        Ok(())
    }
}
