//! What the log says of its own work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets of [`Stats::sync_buckets`], microseconds. The last bucket has none.
pub const SYNC_BUCKETS: [u64; 12] =
    [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 500_000, 2_000_000];

/// Counters since the open.
#[derive(Debug, Default)]
pub struct Stats {
    /// Group commits.
    pub syncs: AtomicU64,
    /// Microseconds spent in them, from the flush to the mark.
    pub sync_micros: AtomicU64,
    /// The longest.
    pub sync_micros_max: AtomicU64,
    /// How many took how long, by [`SYNC_BUCKETS`]; not cumulative.
    pub sync_buckets: [AtomicU64; SYNC_BUCKETS.len() + 1],
    /// Bytes handed to sled: keys and values of entries.
    pub bytes_written: AtomicU64,
    /// Entries appended.
    pub entries: AtomicU64,
}

impl Stats {
    pub(super) fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
        let bucket = SYNC_BUCKETS.iter().position(|end| micros <= *end).unwrap_or(SYNC_BUCKETS.len());
        if let Some(count) = self.sync_buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
