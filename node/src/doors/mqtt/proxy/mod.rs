//! Connections that a balancer makes, and whose they are: the header of the PROXY protocol is read before anything else,
//! TLS included, and not a byte beyond it.

mod header;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use crate::telemetry::metrics::Turned;
use header::{HEADER_BYTES_MAX, Malformed, Seen, look};

/// Before the beginning of a header is looked at again: bytes that were only looked at wake nobody when more come. A
/// header is made to fit into one segment, so that this is rare.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why there is nobody to be served.
#[derive(Debug)]
pub(super) enum NoClient {
    /// It ended without a byte of a client's: a balancer that looks whether the port is open.
    Check,
    Turned(Turned),
}

/// Reads the header of a connection from a balancer at `balancer`. Returns the client's address; that of the balancer
/// where it speaks for itself, cannot say for whom, or, unless `required`, sends no header: what comes then is a client's.
/// The caller bounds the time.
///
/// # Errors
/// There is no client, or none that may come in.
pub(super) async fn client(
    socket: &mut TcpStream,
    balancer: SocketAddr,
    required: bool,
) -> Result<SocketAddr, NoClient> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let source = loop {
        let ready = socket.ready(Interest::READABLE).await.map_err(lost)?;
        let count = socket.peek(&mut bytes).await.map_err(lost)?;
        match look(bytes.get(..count).unwrap_or_default()) {
            Ok(Seen::Header { len, source }) => {
                socket.read_exact(bytes.get_mut(..len).unwrap_or_default()).await.map_err(lost)?;
                break source;
            }
            Ok(Seen::Nothing) if !required => break None,
            Ok(Seen::Nothing) => {
                tracing::info!(%balancer, "a connection without PROXY header");
                return Err(NoClient::Turned(Turned::ProxyMissing));
            }
            Ok(Seen::Part) if count == 0 => return Err(NoClient::Check),
            Ok(Seen::Part) if ready.is_read_closed() => return Err(malformed(balancer, "a header that is cut off")),
            Ok(Seen::Part) => tokio::time::sleep(LOOK_AGAIN).await,
            Err(Malformed(why)) => return Err(malformed(balancer, why)),
        }
    };
    let Some(client) = source else {
        // It is a client only once it says something.
        let said = socket.peek(&mut [0]).await.map_err(lost)?;
        return if said > 0 { Ok(balancer) } else { Err(NoClient::Check) };
    };
    Ok(client)
}

fn malformed(balancer: SocketAddr, why: &str) -> NoClient {
    tracing::info!(%balancer, why, "a malformed PROXY header");
    NoClient::Turned(Turned::ProxyMalformed)
}

/// A connection that was reset before it was anybody's.
fn lost(_: io::Error) -> NoClient {
    NoClient::Check
}
