//! Real processes under test: Fulmar as people run it, and mosquitto to compare with. Each is killed when its handle is
//! dropped, and what it printed is shown if a test fails.

mod binary;
mod cluster;
mod fulmar;
mod mosquitto;
mod ports;
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use fulmar_mqtt::{ReasonCode, Version};

pub use binary::fulmar_binary;
pub use cluster::{ADMIN_TOKEN, Cluster, ClusterOptions, FROZEN, LEADER, MEMBERS, Member, RECOVERY, TERM, VOTERS};
pub use fulmar::{DevOptions, Endpoints, Fulmar, Node, NodeEndpoints, ServeOptions};
pub use mosquitto::Mosquitto;
pub use ports::{free_address, free_base, free_port};
pub use process::Process;

use crate::raw::{self, RawClient};
use crate::wait::wait_for;

/// How long a broker may take to serve after its start.
pub const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long one look at a broker may take.
const LOOK: Duration = Duration::from_secs(2);

/// A broker that a bench can run against.
pub trait Broker {
    /// `fulmar` or `mosquitto`.
    fn name(&self) -> &'static str;
    /// Where it speaks MQTT over TCP.
    fn mqtt(&self) -> SocketAddr;
    /// The process that serves, for [`crate::proc`].
    fn pid(&self) -> u32;
}

/// Waits until something at `address` answers CONNECT with a CONNACK, whatever that says.
///
/// # Errors
/// It did not within `deadline`.
pub async fn wait_for_connack(address: SocketAddr, deadline: Duration) -> Result<()> {
    wait_for(&format!("a CONNACK from {address}"), deadline, async || {
        let mut client = RawClient::tcp(address, Version::V311).await.ok()?;
        client.handshake(raw::connect(Version::V311, "fact"), LOOK).await.ok()?;
        client.send(&raw::disconnect(ReasonCode::Success)).await.ok()
    })
    .await
}

/// Status and body of an HTTP GET; `None` if nobody answers in time.
pub async fn http_get(address: SocketAddr, path: &str, deadline: Duration) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    };
    tokio::time::timeout(deadline, ask).await.ok().flatten()
}

/// Whether an HTTP GET of `path` is answered 200.
pub async fn http_ok(address: SocketAddr, path: &str) -> bool {
    http_get(address, path, LOOK).await.is_some_and(|(status, _)| status == 200)
}
