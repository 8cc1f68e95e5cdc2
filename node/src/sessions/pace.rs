//! How often a session may be taken over: two devices with one identity would otherwise take it from each other for ever,
//! each time with an entry of the log.

use std::collections::HashMap;

use fulmar_broker::SessionKey;
use parking_lot::Mutex;

/// Takeovers of one session in a row.
const BURST: u64 = 2_000;

/// Milliseconds after which one more is allowed.
const ONE_MORE_MS: u64 = 200;

/// Sessions that are watched at one time. Beyond, those that come new are not.
const WATCHED_MAX: usize = 10_000;

/// See the module. Of claims on this node.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all takeovers so far will be forgotten, in milliseconds of the monotonic clock.
    forgotten_ms: Mutex<HashMap<SessionKey, u64>>,
}

impl Pace {
    /// Whether the session may be taken over once more.
    pub(super) fn admits(&self, key: &SessionKey, now_ms: u64) -> bool {
        let watched = self.forgotten_ms.lock();
        watched.get(key).is_none_or(|forgotten_ms| *forgotten_ms <= now_ms + (BURST - 1) * ONE_MORE_MS)
    }

    /// It was taken over.
    pub(super) fn note(&self, key: &SessionKey, now_ms: u64) {
        let mut watched = self.forgotten_ms.lock();
        if watched.len() >= WATCHED_MAX {
            watched.retain(|_, forgotten_ms| *forgotten_ms > now_ms);
        }
        if watched.len() < WATCHED_MAX || watched.contains_key(key) {
            let forgotten_ms = watched.entry(key.clone()).or_insert(now_ms);
            *forgotten_ms = (*forgotten_ms).max(now_ms) + ONE_MORE_MS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_a_steady_pace() {
        let (pace, one, other) =
            (Pace::default(), SessionKey::new("t", "generic", "a"), SessionKey::new("t", "generic", "b"));
        for _ in 0..BURST {
            assert!(pace.admits(&one, 1_000));
            pace.note(&one, 1_000);
        }
        assert!(!pace.admits(&one, 1_000));
        assert!(pace.admits(&other, 1_000), "each session by itself");
        assert!(!pace.admits(&one, 1_000 + ONE_MORE_MS - 1));
        assert!(pace.admits(&one, 1_000 + ONE_MORE_MS));
        pace.note(&one, 1_000 + ONE_MORE_MS);
        assert!(!pace.admits(&one, 1_000 + ONE_MORE_MS));
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let pace = Pace::default();
        for number in 0..2 * WATCHED_MAX {
            pace.note(&SessionKey::new("t", "generic", &number.to_string()), 0);
        }
        assert_eq!(pace.forgotten_ms.lock().len(), WATCHED_MAX);
        pace.note(&SessionKey::new("t", "generic", "later"), 10_000);
        assert_eq!(pace.forgotten_ms.lock().len(), 1);
    }
}
