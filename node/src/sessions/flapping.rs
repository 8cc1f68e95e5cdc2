//! Clients that connect again and again. Each node counts for itself those that it has let in, so that nobody can have
//! another one's client id banned without being able to connect as it.

use std::collections::HashMap;

use bytestring::ByteString;
use parking_lot::Mutex;

/// Client ids that are counted at one time; when there are as many, those that came before the newer half are forgotten.
const WATCHED_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy)]
struct Window {
    since_ms: u64,
    connects: u64,
}

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<ByteString, Window>,
    older: HashMap<ByteString, Window>,
}

/// What counts as too often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) connects_max: u64,
    pub(super) window_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flapping(Mutex<Halves>);

impl Flapping {
    /// Counts one more connect. Returns whether it is one too many within the window.
    pub(super) fn connects(&self, client_id: &ByteString, rule: Rule, now_ms: u64) -> bool {
        let mut halves = self.0.lock();
        let before = halves.newer.get(client_id).or_else(|| halves.older.get(client_id)).copied();
        let current = before.filter(|window| now_ms.saturating_sub(window.since_ms) < rule.window_ms);
        let mut window = current.unwrap_or(Window { since_ms: now_ms, connects: 0 });
        window.connects += 1;
        if halves.newer.len() >= WATCHED_MAX / 2 && !halves.newer.contains_key(client_id) {
            halves.older = std::mem::take(&mut halves.newer);
        }
        if let Some(known) = halves.newer.get_mut(client_id) {
            *known = window;
        } else {
            // A copy of its own, so that it pins no read buffer.
            halves.newer.insert(ByteString::from(&**client_id), window);
        }
        window.connects > rule.connects_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { connects_max: 3, window_ms: 1_000 };

    #[test]
    fn one_more_than_may_come_within_the_window_is_too_many() {
        let (flapping, one, other) = (Flapping::default(), ByteString::from("a"), ByteString::from("b"));
        for at in 0..3 {
            assert!(!flapping.connects(&one, RULE, 10 + at));
        }
        assert!(flapping.connects(&one, RULE, 1_009) && !flapping.connects(&other, RULE, 1_009));
        assert!(!flapping.connects(&one, RULE, 1_010), "the window is over");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let flapping = Flapping::default();
        for at in 0..3 * WATCHED_MAX {
            assert!(!flapping.connects(&ByteString::from(at.to_string()), RULE, 0));
        }
        let halves = flapping.0.lock();
        assert!(halves.newer.len() + halves.older.len() <= WATCHED_MAX);
    }
}
