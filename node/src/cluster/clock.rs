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
    let ms = elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    ms + ahead_s() * 1_000
}

/// As [`wall_ms`], in microseconds.
#[must_use]
pub fn wall_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let us = elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    us + ahead_s() * 1_000_000
}

/// Seconds by which a test wants this machine's wall clock to be ahead.
fn ahead_s() -> u64 {
    fail::fail_point!("clock::ahead_s", |seconds| seconds.and_then(|text| text.parse().ok()).unwrap_or(0));
    0
}

impl Clock {
    /// Starts both clocks; log time goes on from `last`, what was applied before. How long that was ago is for a leader
    /// to say: one wall clock alone must not move it. Only where nothing was applied yet it begins with this machine's.
    #[must_use]
    pub fn start(last: LogTime) -> Clock {
        let log_ms = if last.0 == 0 { wall_ms() } else { last.0 };
        Clock { start: Instant::now(), start_log_ms: Arc::new(AtomicU64::new(log_ms)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_goes_on_from_what_was_applied_whatever_the_wall_clock_shows() {
        for last in [1, 1_000_000, wall_ms() + 86_400_000] {
            let log = Clock::start(LogTime(last)).now().log.0;
            assert!((last..last + 60_000).contains(&log), "{last}: {log}");
        }
        let log = Clock::start(LogTime(0)).now().log.0;
        assert!(log.abs_diff(wall_ms()) < 60_000, "{log}");
    }
}
