//! Ports that nobody listens on, below the range that the kernel gives to outgoing connections.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rand::Rng;

/// Ports between nodes of one `fulmar dev`.
pub(super) const PORTS_PER_NODE: u16 = 100;

/// Doors of a node: base + 1 to base + this.
const DOORS: u16 = 9;

const TRIES: usize = 200;

/// What this process was given: a port whose node is down is still that node's.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that was free a moment ago. Another process may take it before you do: then try again.
///
/// # Errors
/// None was found.
pub fn free_port() -> Result<u16> {
    find(free)
}

/// A base port for `fulmar dev` whose doors are all free for so many nodes.
pub(super) fn free_base(nodes: u16) -> Result<u16> {
    find(|base| (0..nodes).all(|node| (1..=DOORS).all(|door| free(base + node * PORTS_PER_NODE + door))))
}

fn find(fits: impl Fn(u16) -> bool) -> Result<u16> {
    let mut random = rand::rng();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = (0..TRIES).map(|_| random.random_range(12_000..30_000));
    let port = ports.find(|port| !given.contains(port) && fits(*port)).context("no free port was found")?;
    given.insert(port);
    Ok(port)
}

fn free(port: u16) -> bool {
    TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_ok()
}
