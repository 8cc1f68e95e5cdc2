//! The one place that reads a clock for the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fulmar_broker::{LogTime, Now};

/// Monotonic time since the node started, and log time: what a leader gave plus what has elapsed since, so that a wall
/// clock that is set does not move it. A clone is another handle to the same clock.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    /// Log time at the start, as it is known now.
    start_log_ms: Arc<AtomicU64>,
}

/// Milliseconds of this machine's wall clock since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// Starts both clocks; log time begins with this machine's, but never before `last`, what was applied before.
    #[must_use]
    pub fn start(last: LogTime) -> Clock {
        Clock { start: Instant::now(), start_log_ms: Arc::new(AtomicU64::new(wall_ms().max(last.0))) }
    }

    /// Both times, read once.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, log: LogTime(self.start_log_ms.load(Ordering::Relaxed).saturating_add(mono_ms)) }
    }

    /// Log time is `log` at this moment.
    pub fn set_log(&self, log: LogTime) {
        self.start_log_ms.store(log.0.saturating_sub(self.now().mono_ms), Ordering::Relaxed);
    }

    /// The instant at which the monotonic clock shows `mono_ms`.
    #[must_use]
    pub fn instant(&self, mono_ms: u64) -> Instant {
        self.start + std::time::Duration::from_millis(mono_ms)
    }
}
