//! How often something may be done from one address: devices of a product that register themselves, and calls of one
//! caller that return or change secrets.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::attempts::site;
use super::recent::Recent;

/// Pairs of product or caller, and address, that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Registrations in a row, as where a line of devices is switched on.
pub(super) const REGISTRATIONS: u64 = 100;

/// Milliseconds after which there may be one more.
pub(super) const REGISTRATION_EVERY_MS: u64 = 100;

/// Calls in a row that return or change secrets, and milliseconds after which there may be one more.
pub(super) const SENSITIVE: u64 = 100;
pub(super) const SENSITIVE_EVERY_MS: u64 = 200;

/// See the module. Holds, for each pair, the time by which all that was taken is paid for.
#[derive(Debug)]
pub(super) struct Pace {
    burst: u64,
    every_ms: u64,
    paid_by: Mutex<Recent<(Box<str>, IpAddr), u64>>,
}

impl Pace {
    /// So many in a row, and then one each so many milliseconds.
    pub(super) fn new(burst: u64, every_ms: u64) -> Pace {
        Pace { burst, every_ms, paid_by: Mutex::new(Recent::new(REMEMBERED_MAX)) }
    }

    /// Takes one, if there is one. `name`: a caller; or a product of the registry, empty for all that it does not know.
    pub(super) fn takes(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let (key, mut paid_by) = ((name.into(), site(address)), self.paid_by.lock());
        let next_ms = paid_by.get(&key).unwrap_or(0).max(now_ms) + self.every_ms;
        let takes = next_ms <= now_ms + self.burst * self.every_ms;
        if takes {
            paid_by.put(key, next_ms);
        }
        takes
    }

    /// Whether there is one to be taken.
    pub(super) fn has(&self, name: &str, address: IpAddr, now_ms: u64) -> bool {
        let paid_by = self.paid_by.lock().get(&(name.into(), site(address))).unwrap_or(0);
        paid_by.max(now_ms) + self.every_ms <= now_ms + self.burst * self.every_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_pace_for_each_product_and_address() {
        let pace = Pace::new(REGISTRATIONS, REGISTRATION_EVERY_MS);
        let [here, there] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let taken = |product: &str, address, now_ms| (0..200).filter(|_| pace.takes(product, address, now_ms)).count();
        assert_eq!(taken("p", here, 1_000_000), 100);
        assert_eq!(taken("p", here, 1_000_099), 0);
        assert!(!pace.has("p", here, 1_000_099) && pace.has("p", here, 1_000_100) && pace.has("p", there, 1_000_000));
        assert_eq!(taken("p", here, 1_000_350), 3);
        assert_eq!((taken("q", here, 1_000_350), taken("p", there, 1_000_350)), (100, 100));
        assert_eq!(taken("p", here, 2_000_000), 100, "no more than a burst gathers");
    }
}
