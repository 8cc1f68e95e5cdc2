//! `[cluster]`: how this node finds the others, and how they find it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units;

/// How the node becomes part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// What a node without data does: `single` starts a cluster of its own; `join` becomes part of the cluster of its
    /// peers, or starts one with them if none of them is in one. Default `single`.
    pub bootstrap: Bootstrap,
    /// Where other nodes listen for their peers, each `host:port`. A name may stand for several addresses; this node may
    /// be among them. `join` needs at least one. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// How many nodes a new cluster begins with, for `join`; better odd. Default 1, at least 1.
    pub expected: u32,
    /// IP address and port of the listener for other nodes. Needs `tls` or `plaintext`. Default none: a cluster of one
    /// for ever.
    #[serde(deserialize_with = "units::optional_address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// `host:port` at which other nodes reach this one. Default: `listen`, unless that stands for all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Other addresses to dial for some nodes, by the `host:port` that they advertise: through a translating network, or
    /// a proxy. Default none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dial: BTreeMap<String, String>,
    /// Whether nodes talk to each other without TLS. Default `false`.
    pub plaintext: bool,
    /// Mutual TLS between nodes. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
}

/// What a node without data does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// Starts a cluster of its own.
    #[default]
    Single,
    /// Becomes part of the cluster of its peers.
    Join,
}

/// Mutual TLS between nodes: who signs all of them, and what this one shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// PEM file of the authorities that sign the certificates of all nodes. Required.
    pub ca: PathBuf,
    /// PEM file of this node's certificate, then those between it and the authority. It is shown to nodes that dial this
    /// one, so it is for the host in their `peers` and in `advertise`, and to those that this one dials. Required.
    pub cert: PathBuf,
    /// PEM file of the certificate's private key. Required.
    pub key: PathBuf,
    /// PEM file of revocation lists, each signed by an authority of `ca`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            bootstrap: Bootstrap::Single,
            peers: Vec::new(),
            expected: 1,
            listen: None,
            advertise: None,
            dial: BTreeMap::new(),
            plaintext: false,
            tls: None,
        }
    }
}

impl Cluster {
    /// host:port at which others reach a listener that is bound to `bound`.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| bound.to_string())
    }

    /// What is allowed and yet probably not meant.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.expected.is_multiple_of(2)).then(|| {
            let (even, odd) = (self.expected, self.expected.saturating_sub(1));
            let lost = match odd / 2 {
                0 => "no node".to_owned(),
                1 => "1 node".to_owned(),
                more => format!("{more} nodes"),
            };
            format!("cluster.expected is {even}, which is even: it survives the loss of {lost}, as many as {odd} would")
        })
    }

    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        for (index, peer) in self.peers.iter().enumerate() {
            if let Err(allowed) = units::check_host_port(peer) {
                problems.add(&format!("cluster.peers.{index}"), format!("is {peer:?}; allowed: {allowed}"));
            }
        }
        for (advertised, dialled) in &self.dial {
            for address in [advertised, dialled] {
                if let Err(allowed) = units::check_host_port(address) {
                    problems.add("cluster.dial", format!("has {address:?}; allowed: {allowed}"));
                }
            }
        }
        match (self.bootstrap, self.expected) {
            (_, 0) => problems.add("cluster.expected", "is 0; allowed: at least 1"),
            (Bootstrap::Single, 2..) => problems.add(
                "cluster.expected",
                format!("is {}, but bootstrap is \"single\"; allowed: 1, or any number with \"join\"", self.expected),
            ),
            _ => {}
        }
        if self.bootstrap == Bootstrap::Join {
            for (key, absent) in [("peers", self.peers.is_empty()), ("listen", self.listen.is_none())] {
                if absent {
                    problems.add("cluster.bootstrap", format!("is \"join\", which needs cluster.{key}"));
                }
            }
        }
        if self.plaintext && self.tls.is_some() {
            problems.add("cluster.plaintext", "is true beside cluster.tls; choose one");
        }
        if let Some(listen) = self.listen {
            if !self.plaintext && self.tls.is_none() {
                let message = format!("is {listen}, which needs cluster.tls, or cluster.plaintext = true without TLS");
                problems.add("cluster.listen", message);
            }
            if listen.ip().is_unspecified() && self.advertise.is_none() {
                problems.add(
                    "cluster.listen",
                    format!("is {listen}, all addresses, which needs cluster.advertise, the host:port for other nodes"),
                );
            }
        }
        if let Some(advertise) = &self.advertise {
            if let Err(allowed) = units::check_host_port(advertise) {
                problems.add("cluster.advertise", format!("is {advertise:?}; allowed: {allowed}"));
            } else if advertise.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified()) {
                problems.add("cluster.advertise", format!("is {advertise:?}, all addresses; allowed: one of them"));
            }
        }
    }

    /// Reads the files of `tls`, and finds out whether they fit together.
    pub(super) fn read_tls(&self, now: i64, problems: &mut Problems<'_>) {
        if let Some(tls) = &self.tls {
            tls.paths().read(Some(now), problems);
        }
    }
}
