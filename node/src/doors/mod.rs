//! Where bytes come in: only here are ports bound. Doors know sessions and dispatch, never each other.

pub mod admin;
pub mod console;
pub mod mqtt;
pub mod peer;
pub mod probes;
pub mod rest;

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::cluster::peers::{CONNECTION_WINDOW, PING_EVERY, PING_TIMEOUT, STREAM_WINDOW};
use crate::tls::{self, Tls};

/// What a listener serves over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Where devices get their credentials.
    pub device_auth: bool,
    /// The REST API.
    pub api: bool,
    /// The web console.
    pub console: bool,
}

/// How a request over HTTP came in; it is in the data of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub encrypted: bool,
    pub roles: Roles,
}

/// A door that speaks gRPC.
struct Grpc {
    /// Of the configuration, for errors.
    key: &'static str,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Grpc {
    /// Binds the address, and serves on the runtime that this is called on.
    ///
    /// # Errors
    /// If the address cannot be bound; the text names the key.
    fn open(self, routes: Routes) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let Grpc { key, address, tls } = self;
        let listener = TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))?;
        let address = listener.local_addr().context(key)?;
        listener.set_nonblocking(true).context(key)?;
        let listener = tokio::net::TcpListener::from_std(listener).context(key)?;
        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT));
        let incoming = tls::handshakes(TcpIncoming::from(listener).with_nodelay(Some(true)), tls);
        let served = tokio::spawn(async move {
            if let Err(error) = server.add_routes(routes).serve_with_incoming(incoming).await {
                tracing::error!(%error, key, "a door ended");
            }
        });
        Ok((address, served))
    }
}
