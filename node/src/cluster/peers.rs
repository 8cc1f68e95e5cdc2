//! Other nodes: where each is, and the gRPC channels to it. Raft has a channel of its own, so that a heartbeat never waits
//! behind publications. Channels connect when they are first used, and again after each loss; a name is looked up again
//! each time.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fulmar_broker::Generation;
use fulmar_proto::peer::v1::Hello;
use fulmar_proto::peer::v1::peer_client::PeerClient;
use fulmar_proto::raft::v1::Address;
use fulmar_proto::raft::v1::raft_client::RaftClient;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::{Dialler, Tls};

/// The largest message, either way.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What one stream, and all of a connection together, may have sent before the receiver has taken it.
pub const STREAM_WINDOW: u32 = 2 << 20;
pub const CONNECTION_WINDOW: u32 = 4 << 20;

/// Between two pings on a connection, used or not, and how long one may stay unanswered.
pub const PING_EVERY: Duration = Duration::from_secs(1);
pub const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// From a name to a connection, the handshake of TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// One address to dial, and the host that the certificate found there must be for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// host:port
    address: String,
    host: String,
}

impl From<&str> for Target {
    fn from(address: &str) -> Target {
        Target { address: address.to_owned(), host: host(address).to_owned() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Of host:port, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Everything that a host:port stands for now.
///
/// # Errors
/// The name cannot be resolved.
pub async fn resolve(address: &str) -> io::Result<Vec<Target>> {
    let found = tokio::net::lookup_host(address).await?;
    let mut targets: Vec<Target> = Vec::new();
    for address_found in found {
        let target = Target { address: address_found.to_string(), host: host(address).to_owned() };
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// A way to a node for everything but Raft.
pub type DataClient = PeerClient<Channel>;

/// See the module.
pub struct Peers {
    node: u64,
    tls: Option<Tls>,
    /// By host:port: where it is really dialled.
    detours: HashMap<String, String>,
    cluster: AtomicU64,
    known: Mutex<HashMap<u64, Known>>,
}

struct Known {
    address: String,
    /// Once they were asked for.
    raft: Option<Channel>,
    data: Option<Channel>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.lock();
        let known: Vec<_> = known.iter().map(|(node, known)| (format!("{node:016x}"), &known.address)).collect();
        f.debug_struct("Peers").field("known", &known).finish_non_exhaustive()
    }
}

impl Peers {
    /// Nobody is known yet. Without TLS, nodes talk in plain text. `detours`: other addresses for some, by host:port.
    #[must_use]
    pub fn new(node: u64, tls: Option<Tls>, detours: HashMap<String, String>) -> Arc<Peers> {
        Arc::new(Peers { node, tls, detours, cluster: AtomicU64::new(0), known: Mutex::default() })
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Names the cluster that this node is part of from here on.
    pub fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    /// 0: none yet.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    /// Says where a node is, as host:port. If that is news, what is under way to where it was goes on, and all that comes
    /// after it goes there.
    pub fn set_address(&self, node: u64, address: &str) {
        let mut known = self.known.lock();
        if known.get(&node).is_none_or(|known| known.address != address) {
            known.insert(node, Known { address: address.to_owned(), raft: None, data: None });
        }
    }

    /// host:port of a node, if it is known.
    #[must_use]
    pub fn address(&self, node: u64) -> Option<String> {
        self.known.lock().get(&node).map(|known| known.address.clone())
    }

    /// Lets go of a node and of the channels to it.
    pub fn forget(&self, node: u64) {
        self.known.lock().remove(&node);
    }

    /// The way to a node for Raft, if its address is known. The first call decides on which runtime the connection lives,
    /// so it must come from within one.
    #[must_use]
    pub fn raft(&self, node: u64) -> Option<RaftClient<Channel>> {
        let channel = self.channel(node, |known| &mut known.raft)?;
        let client = RaftClient::new(channel);
        Some(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The way to a node for everything else; as [`Peers::raft`].
    #[must_use]
    pub fn data(&self, node: u64) -> Option<PeerClient<Channel>> {
        self.channel(node, |known| &mut known.data).map(peer_client)
    }

    /// A way to whoever is there, outside of what is known. Must be called within a runtime. What is no address is found
    /// out when it is used.
    pub fn dial(&self, target: impl Into<Target>) -> PeerClient<Channel> {
        peer_client(self.connect(&target.into()))
    }

    /// What a call of Raft to this node opens with.
    #[must_use]
    pub fn raft_address(&self, to: u64, group: u32) -> Address {
        Address { cluster: self.cluster(), group, from: self.node, to }
    }

    /// What any other call or stream opens with; `to` is 0 for whoever is there.
    #[must_use]
    pub fn hello(&self, to: u64, generation: Generation) -> Hello {
        Hello { cluster: self.cluster(), from: self.node, generation: generation.0, to }
    }

    fn channel(&self, node: u64, which: impl Fn(&mut Known) -> &mut Option<Channel>) -> Option<Channel> {
        let mut known = self.known.lock();
        let known = known.get_mut(&node)?;
        if let Some(channel) = which(known) {
            return Some(channel.clone());
        }
        let channel = self.connect(&Target::from(known.address.as_str()));
        *which(known) = Some(channel.clone());
        Some(channel)
    }

    fn connect(&self, target: &Target) -> Channel {
        let address = self.detours.get(&target.address).unwrap_or(&target.address);
        self.lazy(address, &target.host).unwrap_or_else(|error| {
            tracing::error!(error, address = target.address, "no address to dial");
            // The port that nobody listens on: calls fail as they do for a node that is away.
            Endpoint::from_static("http://127.0.0.1:0").connect_lazy()
        })
    }

    fn lazy(&self, address: &str, host: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else { return Ok(endpoint.connect_lazy()) };
        let dialler = Dialler::new(tls.clone(), host, CONNECT_TIMEOUT).map_err(|error| error.to_string())?;
        // The scheme that requests name; that of the endpoint is for tonic, which would do TLS itself.
        let origin = Uri::from_str(&format!("https://{address}")).map_err(|error| error.to_string())?;
        Ok(endpoint.origin(origin).connect_with_connector_lazy(dialler))
    }
}

fn peer_client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}
