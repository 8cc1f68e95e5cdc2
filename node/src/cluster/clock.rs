//! The one place that reads a clock for the broker.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fulmar_broker::{LogTime, Now};

/// Monotonic time since the node started, and log time: the wall clock at the start plus what has elapsed since, so
/// that a wall clock that is set does not move it.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    start_log_ms: u64,
}

impl Clock {
    /// Starts both clocks; log time never begins before `last`, what was applied before.
    #[must_use]
    pub fn start(last: LogTime) -> Clock {
        let wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        Clock { start: Instant::now(), start_log_ms: wall_ms.max(last.0) }
    }

    /// Both times, read once.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, log: LogTime(self.start_log_ms.saturating_add(mono_ms)) }
    }

    /// The instant at which the monotonic clock shows `mono_ms`.
    #[must_use]
    pub fn instant(&self, mono_ms: u64) -> Instant {
        self.start + std::time::Duration::from_millis(mono_ms)
    }
}
