//! Failed sign-ins, and who is locked for them: an address, and a user name as it is tried from one address. So nobody
//! locks another out, who comes from elsewhere. An attempt counts as failed from its beginning until it has gone well, so
//! that many at the same time are no more than as many one after the other.

use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use super::recent::Recent;

/// Names that are remembered, and addresses.
const REMEMBERED_MAX: usize = 10_000;

/// An address may belong to many users.
const ADDRESS_FACTOR: u32 = 4;

/// When a lock falls, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) failures_max: u32,
    pub(super) window_ms: u64,
    pub(super) lock_ms: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    since_ms: u64,
    locked_until_ms: u64,
}

impl Failures {
    /// As they count now.
    fn at(self, now_ms: u64, rules: &Rules) -> Failures {
        if self.locked_until_ms > now_ms || now_ms.saturating_sub(self.since_ms) <= rules.window_ms {
            self
        } else {
            Failures { since_ms: now_ms, ..Failures::default() }
        }
    }

    fn full(&self, most: u32, now_ms: u64) -> bool {
        self.locked_until_ms > now_ms || self.count >= most
    }

    /// Locks if there were too many. Returns whether it does so now.
    fn lock(&mut self, most: u32, now_ms: u64, rules: &Rules) -> bool {
        let locks = self.count >= most && self.locked_until_ms <= now_ms;
        if locks {
            *self = Failures { count: 0, since_ms: now_ms, locked_until_ms: now_ms.saturating_add(rules.lock_ms) };
        }
        locks
    }
}

#[derive(Debug)]
struct Tables {
    names: Recent<(Box<str>, IpAddr), Failures>,
    addresses: Recent<IpAddr, Failures>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    rules: Rules,
    tables: Mutex<Tables>,
}

/// What counts as one address: of IPv6 the network of a site, whose hosts choose the rest themselves.
pub(super) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

impl Rules {
    /// Of attempts without a name, which are an address's.
    pub(super) fn of_addresses(self) -> Rules {
        Rules { failures_max: self.failures_max.saturating_mul(ADDRESS_FACTOR), ..self }
    }
}

impl Attempts {
    #[must_use]
    pub(super) fn new(rules: Rules) -> Attempts {
        let tables = Tables { names: Recent::new(REMEMBERED_MAX), addresses: Recent::new(REMEMBERED_MAX) };
        Attempts { rules, tables: Mutex::new(tables) }
    }

    fn addresses_max(&self) -> u32 {
        self.rules.failures_max.saturating_mul(ADDRESS_FACTOR)
    }

    fn of(&self, tables: &Tables, name: &str, site: IpAddr, now_ms: u64) -> (Failures, Failures) {
        let by_name = tables.names.get(&(name.into(), site)).unwrap_or_default().at(now_ms, &self.rules);
        (by_name, tables.addresses.get(&site).unwrap_or_default().at(now_ms, &self.rules))
    }

    fn may(&self, by_name: &Failures, by_site: &Failures, now_ms: u64) -> bool {
        !by_name.full(self.rules.failures_max, now_ms) && !by_site.full(self.addresses_max(), now_ms)
    }

    /// Whether nothing is to be tried under this name from this address.
    #[must_use]
    pub(super) fn locked(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let (by_name, by_site) = self.of(&self.tables.lock(), name, site(address), now_ms);
        !self.may(&by_name, &by_site, now_ms)
    }

    /// A sign-in begins, if it may. It has failed until it is said to have gone well.
    #[must_use]
    pub(super) fn begin(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let (site, mut tables) = (site(address), self.tables.lock());
        let (mut by_name, mut by_site) = self.of(&tables, name, site, now_ms);
        let may = self.may(&by_name, &by_site, now_ms);
        if may {
            by_name.count += 1;
            by_site.count += 1;
            tables.names.put((name.into(), site), by_name);
            tables.addresses.put(site, by_site);
        }
        may
    }

    /// A sign-in that had begun has failed. Returns whether this one locks.
    pub(super) fn failed(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let (site, mut tables) = (site(address), self.tables.lock());
        let (mut by_name, mut by_site) = self.of(&tables, name, site, now_ms);
        let locks = by_name.lock(self.rules.failures_max, now_ms, &self.rules);
        let locks_site = by_site.lock(self.addresses_max(), now_ms, &self.rules);
        if locks {
            tables.names.put((name.into(), site), by_name);
        }
        if locks_site {
            tables.addresses.put(site, by_site);
        }
        locks || locks_site
    }

    /// A sign-in that had begun has gone well: the name's failures are forgotten, the address's others are not.
    pub(super) fn succeeded(&self, name: &str, address: IpAddr, now_ms: u64) {
        let (site, mut tables) = (site(address), self.tables.lock());
        let (_, mut by_site) = self.of(&tables, name, site, now_ms);
        tables.names.remove(&(name.into(), site));
        by_site.count = by_site.count.saturating_sub(1);
        tables.addresses.put(site, by_site);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const RULES: Rules = Rules { failures_max: 3, window_ms: 1_000, lock_ms: 5_000 };
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn fails(attempts: &Attempts, name: &str, address: IpAddr, now_ms: u64) -> bool {
        assert!(attempts.begin(name, address, now_ms), "{name} from {address} at {now_ms}");
        attempts.failed(name, address, now_ms)
    }

    #[test]
    fn a_name_is_locked_for_a_time_where_it_was_guessed_at_and_nowhere_else() {
        let attempts = Attempts::new(RULES);
        assert!(!fails(&attempts, "a", HERE, 10) && !fails(&attempts, "a", HERE, 20));
        assert!(!attempts.locked("a", HERE, 20));
        assert!(fails(&attempts, "a", HERE, 30));
        assert!(attempts.locked("a", HERE, 31) && attempts.locked("a", HERE, 5_029));
        assert!(!attempts.begin("a", HERE, 31));
        assert!(!attempts.locked("a", THERE, 31), "its owner is elsewhere, and comes in");
        assert!(!attempts.locked("b", HERE, 31) && !attempts.locked("a", HERE, 5_030));
    }

    #[test]
    fn failures_far_apart_or_before_a_success_do_not_add_up() {
        let attempts = Attempts::new(RULES);
        for at in [0, 900, 2_000, 2_900, 4_000] {
            assert!(!fails(&attempts, "a", HERE, at), "{at}");
        }
        fails(&attempts, "b", THERE, 0);
        fails(&attempts, "b", THERE, 1);
        assert!(attempts.begin("b", THERE, 2));
        attempts.succeeded("b", THERE, 2);
        assert!(!fails(&attempts, "b", THERE, 3));
    }

    #[test]
    fn attempts_at_the_same_time_are_as_many_as_one_after_the_other() {
        let attempts = Attempts::new(RULES);
        let begun = (0..100).filter(|_| attempts.begin("a", HERE, 10)).count();
        assert_eq!(begun, 3, "before any of them is known to have failed");
        assert!((0..begun).any(|_| attempts.failed("a", HERE, 11)));
        assert!(attempts.locked("a", HERE, 12));
    }

    #[test]
    fn an_address_that_tries_many_names_is_locked() {
        let attempts = Attempts::new(RULES);
        for at in 0..11 {
            assert!(!fails(&attempts, &format!("u{at}"), HERE, at));
        }
        assert!(fails(&attempts, "u11", HERE, 11));
        assert!(attempts.locked("somebody", HERE, 12) && !attempts.locked("u11", THERE, 12));
    }

    #[test]
    fn sign_ins_that_go_well_lock_no_address() {
        let attempts = Attempts::new(RULES);
        for at in 0..100 {
            assert!(attempts.begin("a", HERE, at));
            attempts.succeeded("a", HERE, at);
        }
        assert!(!attempts.locked("a", HERE, 100));
    }

    #[test]
    fn hosts_of_one_site_are_one_address() {
        let attempts = Attempts::new(RULES);
        let host = |low: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8_0000_0001 << 64) | low));
        for low in 1..=2 {
            assert!(!fails(&attempts, "a", host(low), 10));
        }
        assert!(fails(&attempts, "a", host(u128::from(u64::MAX)), 10));
        assert!(attempts.locked("a", host(77), 11));
        assert!(!attempts.locked("a", "2001:db8:0:2::1".parse().unwrap(), 11));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(site(mapped), THERE, "IPv4 stays what it is, however it is written");
    }
}
