//! Ports that nobody listens on, below the range that the kernel gives to outgoing connections. A port is given to one
//! process of the tests only, for as long as that lives: between the look at it and the listening of the node that it is
//! for, and while that node is down, it would look free to the tests beside it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rand::Rng;

/// Ports between nodes of one `fulmar dev`.
pub(super) const PORTS_PER_NODE: u16 = 100;

/// Doors of a node: base + 1 to base + this.
const DOORS: u16 = 9;

const TRIES: usize = 200;

/// What this process was given, each with the claim that keeps other processes from it.
static GIVEN: Mutex<BTreeMap<u16, UnixDatagram>> = Mutex::new(BTreeMap::new());

/// The same for addresses.
static ADDRESSES: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port that is this process's until it ends. One that is no test of Fulmar's may still take it.
///
/// # Errors
/// None was found.
pub fn free_port() -> Result<u16> {
    find(|port| vec![port])
}

/// A base port for `fulmar dev` whose doors are all free for so many nodes.
///
/// # Errors
/// None was found.
pub fn free_base(nodes: u16) -> Result<u16> {
    find(|base| (0..nodes).flat_map(|node| (1..=DOORS).map(move |door| base + node * PORTS_PER_NODE + door)).collect())
}

/// A number for which all of these ports can be had.
fn find(ports: impl Fn(u16) -> Vec<u16>) -> Result<u16> {
    let mut random = rand::rng();
    for number in (0..TRIES).map(|_| random.random_range(12_000..30_000)) {
        let ports = ports(number);
        let claims: Option<Vec<_>> = ports.iter().map(|port| claim(*port)).collect();
        if let Some(claims) = claims {
            GIVEN.lock().unwrap_or_else(PoisonError::into_inner).extend(ports.into_iter().zip(claims));
            return Ok(number);
        }
    }
    None.context("no free port was found")
}

/// An address of this machine alone, other than 127.0.0.1, on which nobody listens at these ports: this process's until it
/// ends.
///
/// # Errors
/// None was found.
pub fn free_address(ports: &[u16]) -> Result<Ipv4Addr> {
    let mut random = rand::rng();
    for _ in 0..TRIES {
        let address = Ipv4Addr::new(127, random.random_range(64..192), random.random(), random.random_range(1..255));
        let claimed = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("fulmar-test-{address}"))?);
        let free = |port: &u16| TcpListener::bind((address, *port)).is_ok();
        if let (Ok(claim), true) = (claimed, ports.iter().all(free)) {
            ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            return Ok(address);
        }
    }
    None.context("no free address was found")
}

/// The port's name among abstract sockets: one process has it, and the kernel takes it back however that ends.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("fulmar-test-port-{port}")).ok()?;
    let claim = UnixDatagram::bind_addr(&name).ok()?;
    // Claimed first: whoever had it before may still have listened until then.
    TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_ok().then_some(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_ports_free() {
        let (one, other) = (free_address(&[1883, 9100]).unwrap(), free_address(&[1883, 9100]).unwrap());
        assert!(one.is_loopback() && one != other);
        TcpListener::bind((one, 1883)).unwrap();
    }

    #[test]
    fn a_port_is_given_once_though_nobody_listens() {
        let port = free_port().unwrap();
        assert!(claim(port).is_none());
        let base = free_base(2).unwrap();
        for door in [1, DOORS, PORTS_PER_NODE + 1, PORTS_PER_NODE + DOORS] {
            assert!(claim(base + door).is_none(), "door {door}");
        }
    }
}
