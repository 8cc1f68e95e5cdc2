//! Where clients come in: the addresses of all nodes, and which of these nobody may count on at the moment.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A node's address, by its index in the cluster.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    /// A fault holds the node back.
    out: bool,
    /// Grows whenever a fault begins or ends.
    changes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Doors(Mutex<Vec<Door>>);

impl Doors {
    #[must_use]
    pub fn of(addresses: &[SocketAddr]) -> Doors {
        let doors = addresses.iter().map(|address| Door { address: *address, out: false, changes: 0 });
        Doors(Mutex::new(doors.collect()))
    }

    /// One more node.
    pub fn add(&self, address: SocketAddr) {
        self.doors().push(Door { address, out: false, changes: 0 });
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.doors().len()
    }

    /// The node whose turn it is at a client that counts its attempts, and its address. Clients know of no faults: they
    /// find out.
    #[must_use]
    pub fn at(&self, attempt: usize) -> (usize, SocketAddr) {
        let doors = self.doors();
        let index = attempt % doors.len();
        (index, doors[index].address)
    }

    /// Notes that a fault of a node begins or ends.
    pub fn set_out(&self, node: usize, out: bool) {
        let mut doors = self.doors();
        doors[node].out = out;
        doors[node].changes += 1;
    }

    /// A number that stays the same as long as the node is without a fault; `None` while it has one.
    #[must_use]
    pub fn steady(&self, node: usize) -> Option<u64> {
        self.doors().get(node).filter(|door| !door.out).map(|door| door.changes)
    }

    fn doors(&self) -> MutexGuard<'_, Vec<Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_seen_by_whoever_measures() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let doors = Doors::of(&[address(1), address(2)]);
        assert_eq!((doors.at(3), doors.count()), ((1, address(2)), 2));
        let before = doors.steady(1);
        assert_eq!(before, Some(0));
        doors.set_out(1, true);
        assert_eq!(doors.steady(1), None);
        doors.set_out(1, false);
        assert_ne!(doors.steady(1), before);
        doors.add(address(3));
        assert_eq!(doors.at(2), (2, address(3)));
    }
}
