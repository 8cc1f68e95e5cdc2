//! Where clients come in: the addresses of all nodes, and which of these nobody may count on at the moment; or a balancer
//! before them, which gives each connection to the next node that is ready.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// What chooses the node of a connection as it is opened, round robin and without stickiness.
#[derive(Debug)]
struct Balancer {
    /// Where connections go while no node is ready: nobody listens there.
    nowhere: SocketAddr,
    /// Nodes that are ready, by their index.
    endpoints: Mutex<Vec<(usize, SocketAddr)>>,
    turn: AtomicUsize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Mutex<Vec<Door>>,
    balancer: Option<Balancer>,
}

impl Doors {
    #[must_use]
    pub fn of(addresses: &[SocketAddr]) -> Doors {
        let doors = addresses.iter().map(|address| Door { address: *address, out: false, changes: 0 });
        Doors { doors: Mutex::new(doors.collect()), balancer: None }
    }

    /// A balancer; whoever comes while it has no endpoints is sent to `nowhere`.
    #[must_use]
    pub fn balanced(nowhere: SocketAddr) -> Doors {
        let balancer = Balancer { nowhere, endpoints: Mutex::default(), turn: AtomicUsize::new(0) };
        Doors { doors: Mutex::default(), balancer: Some(balancer) }
    }

    /// The nodes that the balancer chooses among from now on; without one, this changes nothing.
    pub fn set_endpoints(&self, endpoints: Vec<(usize, SocketAddr)>) {
        if let Some(balancer) = &self.balancer {
            *balancer.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
        }
    }

    /// What was set there last.
    #[must_use]
    pub fn endpoints(&self) -> Vec<(usize, SocketAddr)> {
        let endpoints = |balancer: &Balancer| balancer.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.balancer.as_ref().map(endpoints).unwrap_or_default()
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
        if let Some(Balancer { nowhere, endpoints, turn }) = &self.balancer {
            let endpoints = endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            let next = turn.fetch_add(1, Ordering::Relaxed) % endpoints.len().max(1);
            return endpoints.get(next).copied().unwrap_or((usize::MAX, *nowhere));
        }
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
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_takes_turns_among_those_that_are_ready() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let doors = Doors::balanced(address(9));
        assert_eq!(doors.at(0).1, address(9));
        doors.set_endpoints(vec![(0, address(1)), (2, address(2))]);
        let chosen: Vec<usize> = (0..4).map(|_| doors.at(0).0).collect();
        assert_eq!(chosen.iter().filter(|node| **node == 0).count(), 2, "{chosen:?}");
    }

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
