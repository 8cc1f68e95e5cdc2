//! When a leader was last heard of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NEVER: u64 = u64::MAX;

/// Stamped each time that this node does what a leader tells it, and as a leader each time that a quorum hears it.
#[derive(Debug)]
pub struct Contact {
    start: Instant,
    last_ms: AtomicU64,
}

impl Default for Contact {
    /// As if a leader had been heard of just now.
    fn default() -> Contact {
        Contact { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Contact {
    /// A leader was heard of now.
    pub fn stamp(&self) {
        self.stamp_ago(0);
    }

    /// A leader was heard of so many milliseconds ago.
    pub fn stamp_ago(&self, ms: u64) {
        let at_ms = self.elapsed_ms().saturating_sub(ms);
        let later = |last_ms| (last_ms == NEVER || last_ms < at_ms).then_some(at_ms);
        // Another stamp was later: that is as good.
        let _ = self.last_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// No leader has ever been heard of: this node has no log yet.
    pub fn never(&self) {
        self.last_ms.store(NEVER, Ordering::Release);
    }

    /// How long ago that was, to the millisecond.
    #[must_use]
    pub fn age(&self) -> Duration {
        if self.last_ms.load(Ordering::Acquire) == NEVER {
            return Duration::MAX;
        }
        Duration::from_millis(self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Acquire)))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_of_last_counts() {
        let contact = Contact::default();
        std::thread::sleep(Duration::from_millis(20));
        contact.stamp_ago(10);
        let age = contact.age();
        assert!(age >= Duration::from_millis(10), "{age:?}");
        contact.stamp();
        contact.stamp_ago(10);
        assert!(contact.age() < age, "what is older changes nothing");
        contact.never();
        assert_eq!(contact.age(), Duration::MAX);
        contact.stamp_ago(5);
        assert!(contact.age() < Duration::MAX);
    }
}
