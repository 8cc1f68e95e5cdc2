//! Failed sign-ins, and who is locked for them: by user or access key, and by address. Bounded: where a table is full the
//! oldest entry makes room.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

/// Users and addresses that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Bytes of a name that is remembered; a longer one is nobody's.
const NAME_BYTES_MAX: usize = 128;

/// An address may belong to many users.
const ADDRESS_FACTOR: u32 = 4;

/// When a lock falls, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) failures_max: u32,
    pub(super) window_ms: u64,
    pub(super) lock_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Name(Box<str>),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    since_ms: u64,
    locked_until_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    rules: Rules,
    failures: Mutex<HashMap<Whose, Failures>>,
}

fn both(name: &str, address: IpAddr) -> [Whose; 2] {
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NAME_BYTES_MAX).last();
    let name: &str = name.get(..end.unwrap_or(0)).unwrap_or_default();
    [Whose::Name(name.into()), Whose::Address(address.to_canonical())]
}

impl Attempts {
    #[must_use]
    pub(super) fn new(rules: Rules) -> Attempts {
        Attempts { rules, failures: Mutex::default() }
    }

    /// Whether this name or address is locked.
    #[must_use]
    pub(super) fn locked(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let failures = self.failures.lock();
        both(name, address).iter().any(|whose| failures.get(whose).is_some_and(|f| f.locked_until_ms > now_ms))
    }

    /// A sign-in has failed. Returns whether this one locks.
    pub(super) fn failed(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let mut table = self.failures.lock();
        let mut locks = false;
        for (whose, factor) in both(name, address).into_iter().zip([1, ADDRESS_FACTOR]) {
            if table.len() >= REMEMBERED_MAX && !table.contains_key(&whose) {
                let oldest =
                    table.iter().min_by_key(|(_, f)| f.since_ms.max(f.locked_until_ms)).map(|(k, _)| k.clone());
                oldest.and_then(|oldest| table.remove(&oldest));
            }
            let failures = table.entry(whose).or_default();
            if now_ms.saturating_sub(failures.since_ms) > self.rules.window_ms {
                *failures = Failures { since_ms: now_ms, ..Failures::default() };
            }
            failures.count += 1;
            if failures.count >= self.rules.failures_max.saturating_mul(factor) {
                *failures = Failures { count: 0, since_ms: now_ms, locked_until_ms: now_ms + self.rules.lock_ms };
                locks = true;
            }
        }
        locks
    }

    /// A sign-in has gone well: the name's failures are forgotten, the address's are not.
    pub(super) fn succeeded(&self, name: &str, address: IpAddr) {
        let [name, _] = both(name, address);
        self.failures.lock().remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const RULES: Rules = Rules { failures_max: 3, window_ms: 1_000, lock_ms: 5_000 };
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_name_is_locked_from_wherever_it_comes_and_for_a_time() {
        let attempts = Attempts::new(RULES);
        assert!(!attempts.failed("a", HERE, 10) && !attempts.failed("a", THERE, 20));
        assert!(!attempts.locked("a", HERE, 20));
        assert!(attempts.failed("a", HERE, 30));
        assert!(attempts.locked("a", THERE, 31) && attempts.locked("a", HERE, 5_029));
        assert!(!attempts.locked("b", HERE, 31) && !attempts.locked("a", HERE, 5_030));
    }

    #[test]
    fn failures_far_apart_or_before_a_success_do_not_add_up() {
        let attempts = Attempts::new(RULES);
        for at in [0, 900, 2_000, 2_900, 4_000] {
            assert!(!attempts.failed("a", HERE, at), "{at}");
        }
        attempts.failed("b", THERE, 0);
        attempts.failed("b", THERE, 1);
        attempts.succeeded("b", THERE);
        assert!(!attempts.failed("b", THERE, 2));
    }

    #[test]
    fn an_address_that_tries_many_names_is_locked() {
        let attempts = Attempts::new(RULES);
        for at in 0..11 {
            assert!(!attempts.failed(&format!("u{at}"), HERE, at));
        }
        assert!(attempts.failed("u11", HERE, 11));
        assert!(attempts.locked("somebody", HERE, 12) && !attempts.locked("u11", THERE, 12));
    }

    #[test]
    fn the_table_is_bounded() {
        let attempts = Attempts::new(Rules { failures_max: 1_000_000, ..RULES });
        for number in 0..30_000_u32 {
            attempts.failed("é".repeat(200).as_str(), IpAddr::V4(Ipv4Addr::from(number)), u64::from(number));
        }
        assert!(attempts.failures.lock().len() <= REMEMBERED_MAX);
    }
}
