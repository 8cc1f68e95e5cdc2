//! `fulmar.admin.v1` over gRPC, for people and programs that look after the cluster: every call of the table, to whoever
//! shows a token. Health and reflection are there too, for everybody whom TLS lets in: they say what the software is and
//! whether it serves, and nothing of what it holds.

mod calls;
mod connections;
mod health;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fulmar_proto::document::DESCRIPTORS;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use crate::api::Api;
use crate::config::units::Secret;
use crate::telemetry::Metrics;
use crate::tls::{self, Tls};

/// Requests of a connection that wait for their answer at a time.
const REQUESTS_MAX: usize = 8;

/// Requests and streams of a connection at a time.
const STREAMS_MAX: u32 = 64;

/// Bytes of a request's headers: a token of `iam.create_token` is the longest that there is.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Between two pings of a connection, and until one that stays unanswered ends it.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the node serves: not while it starts or leaves, nor without its lease.
pub type Serving = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the door needs.
pub struct Door {
    /// `None`: no TLS.
    pub tls: Option<Tls>,
    /// Of the configuration; who shows it may everything.
    pub token: Secret,
    pub api: Arc<Api>,
    pub metrics: Arc<Metrics>,
    pub serving: Serving,
}

/// Opens the port.
///
/// # Errors
/// It cannot be listened on; the text names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("admin.address: cannot listen on {address}"))
}

/// Serves until `closed` says so; requests that are under way then are answered, streams end.
///
/// # Errors
/// The port cannot be served any more.
pub async fn run(door: Door, listener: TcpListener, closed: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Door { tls, token, api, metrics, serving } = door;
    let mut server = Server::builder()
        .concurrency_limit_per_connection(REQUESTS_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    let incoming = tls::handshakes(connections::bounded(listener, metrics.clone()), tls);
    let mut until = closed.clone();
    let until = async move {
        // The sender goes with the node.
        let _ = until.wait_for(|closed| *closed).await;
    };
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let health = HealthServer::new(health::Answers::new(serving, closed.clone()));
    let calls = calls::Calls::new(api, token, metrics, closed);
    let routes = Routes::new(described().build_v1().context("reflection")?)
        .add_service(described().build_v1alpha().context("reflection")?)
        .add_service(health)
        .into_axum_router()
        .fallback_service(calls);
    server.add_routes(Routes::from(routes)).serve_with_incoming_shutdown(incoming, until).await.context("admin.address")
}
