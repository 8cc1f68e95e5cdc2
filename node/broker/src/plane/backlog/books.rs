//! What became of entries.

use crate::state::command::Owner;

/// Why entries are gone that no sink has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// A bound was reached.
    Full,
    Expired,
    /// The backlog was discarded.
    Discarded,
}

/// Entries since a backlog, or the cluster, began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub appended: u64,
    /// Taken by the sink.
    pub settled: u64,
    /// Refused by the sink for good.
    pub refused: u64,
    pub full: u64,
    pub expired: u64,
    pub discarded: u64,
}

impl Counts {
    /// Entries that must still be there.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let gone = [self.settled, self.refused, self.full, self.expired, self.discarded];
        gone.iter().fold(self.appended, |left, gone| left.saturating_sub(*gone))
    }

    pub(super) fn drop(&mut self, reason: Dropped, entries: u64) {
        *match reason {
            Dropped::Full => &mut self.full,
            Dropped::Expired => &mut self.expired,
            Dropped::Discarded => &mut self.discarded,
        } += entries;
    }
}

/// What can be told about a backlog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Who claimed it last and did not release it, alive or not.
    pub owner: Option<Owner>,
    pub entries: usize,
    pub bytes: u64,
    /// Milliseconds since 1970 of the first event that waits.
    pub oldest_ms: Option<u64>,
    pub counts: Counts,
}
