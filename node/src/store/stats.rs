//! What the log says of its own work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Durations;

/// Counters since the open.
#[derive(Debug)]
pub struct Stats {
    /// Group commits.
    pub syncs: AtomicU64,
    /// Microseconds spent in them, from the flush to the mark.
    pub sync_micros: AtomicU64,
    /// The longest.
    pub sync_micros_max: AtomicU64,
    /// How many took how long.
    pub sync_took: Durations,
    /// When the latest one took very long, in milliseconds since the store was opened; 0 never.
    slow_at_ms: AtomicU64,
    opened: Opened,
    /// Bytes handed to sled: keys and values of entries.
    pub bytes_written: AtomicU64,
    /// Entries appended.
    pub entries: AtomicU64,
}

/// A sync that takes longer marks the disk as slow for a while.
const SLOW: Duration = Duration::from_millis(500);

/// For how long.
const SLOW_FOR_MS: u64 = 60_000;

#[derive(Debug)]
struct Opened(Instant);

impl Default for Opened {
    fn default() -> Opened {
        Opened(Instant::now())
    }
}

impl Opened {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            syncs: AtomicU64::new(0),
            sync_micros: AtomicU64::new(0),
            sync_micros_max: AtomicU64::new(0),
            sync_took: Durations::of_disk(),
            slow_at_ms: AtomicU64::new(0),
            opened: Opened::default(),
            bytes_written: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        }
    }
}

impl Stats {
    /// Whether a sync took very long a short time ago: this node should rather not lead.
    #[must_use]
    pub fn slow(&self) -> bool {
        let at_ms = self.slow_at_ms.load(Ordering::Relaxed);
        at_ms > 0 && self.opened.elapsed_ms() < at_ms + SLOW_FOR_MS
    }

    pub(super) fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
        if took > SLOW {
            self.slow_at_ms.store(self.opened.elapsed_ms().max(1), Ordering::Relaxed);
        }
        self.sync_took.note(took);
    }
}
