//! How often devices of a product may register themselves from one address.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::attempts::site;
use super::recent::Recent;

/// Pairs of product and address that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Registrations in a row, as where a line of devices is switched on.
const BURST: u64 = 100;

/// Milliseconds after which there may be one more.
const EVERY_MS: u64 = 100;

/// See the module. Holds, for each pair, the time by which all that was taken is paid for.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Recent<(Box<str>, IpAddr), u64>>);

impl Pace {
    pub(super) fn new() -> Pace {
        Pace(Mutex::new(Recent::new(REMEMBERED_MAX)))
    }

    /// Takes one, if there is one. `product`: of the registry; empty for all that it does not know.
    pub(super) fn takes(&self, product: &str, address: IpAddr, now_ms: u64) -> bool {
        let (key, mut paid_by) = ((product.into(), site(address)), self.0.lock());
        let next_ms = paid_by.get(&key).unwrap_or(0).max(now_ms) + EVERY_MS;
        let takes = next_ms <= now_ms + BURST * EVERY_MS;
        if takes {
            paid_by.put(key, next_ms);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_pace_for_each_product_and_address() {
        let pace = Pace::new();
        let [here, there] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let taken = |product: &str, address, now_ms| (0..200).filter(|_| pace.takes(product, address, now_ms)).count();
        assert_eq!(taken("p", here, 1_000_000), 100);
        assert_eq!(taken("p", here, 1_000_099), 0);
        assert_eq!(taken("p", here, 1_000_350), 3);
        assert_eq!((taken("q", here, 1_000_350), taken("p", there, 1_000_350)), (100, 100));
        assert_eq!(taken("p", here, 2_000_000), 100, "no more than a burst gathers");
    }
}
