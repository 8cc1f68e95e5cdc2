//! `fulmar.admin.v1.Cluster` over gRPC, for people who look after the cluster and hold its token.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fulmar_broker::NodeId;
use fulmar_proto::admin::v1 as admin;
use fulmar_proto::admin::v1::cluster_server::{Cluster, ClusterServer};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::cluster::Role;
use crate::config::units::{Secret, check_host_port};
use crate::dispatch::Dispatch;

/// Bytes of a request: an address is the longest that there is.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Requests of a connection at a time.
const REQUESTS_MAX: usize = 8;

/// For the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// For one request; a change of the members waits for the log.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Between two pings of a connection, and until one that stays unanswered ends it.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Has this node leave, as SIGTERM does.
pub type Drain = Arc<dyn Fn() + Send + Sync>;

/// What the door needs.
pub struct Door {
    /// Certificate and key, each as PEM; `None`: no TLS.
    pub tls: Option<[Vec<u8>; 2]>,
    /// What every request must show.
    pub token: Secret,
    pub dispatch: Arc<Dispatch>,
    pub drain: Drain,
}

/// Opens the port.
///
/// # Errors
/// It cannot be listened on; the text names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("admin.address: cannot listen on {address}"))
}

/// Serves until `stopped` says so; requests that are under way then are answered.
///
/// # Errors
/// Certificate and key cannot be used.
pub async fn run(door: Door, listener: TcpListener, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Door { tls, token, dispatch, drain } = door;
    let mut server = Server::builder()
        .concurrency_limit_per_connection(REQUESTS_MAX)
        .timeout(ANSWER_WITHIN)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    if let Some([cert, key]) = tls {
        let identity = Identity::from_pem(cert, key);
        let config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
        server = server.tls_config(config).context("admin.tls")?;
    }
    let service = ClusterServer::new(Admin { dispatch, drain }).max_decoding_message_size(REQUEST_BYTES_MAX);
    let guarded = tonic::service::interceptor::InterceptedService::new(service, move |request| shown(&token, request));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let until = async move {
        // The sender goes with the node.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    server.add_service(guarded).serve_with_incoming_shutdown(incoming, until).await.context("admin.address")
}

/// Lets a request in that shows the token.
#[allow(clippy::result_large_err)] // tonic's status is as large as it is
fn shown(token: &Secret, request: Request<()>) -> Result<Request<()>, Status> {
    let given = request.metadata().get("authorization").map(|value| value.as_bytes());
    let Some(given) = given.and_then(|value| value.strip_prefix(b"Bearer ")) else {
        return Err(Status::unauthenticated("`authorization: Bearer TOKEN` is missing"));
    };
    if bool::from(given.ct_eq(token.expose().as_bytes())) {
        Ok(request)
    } else {
        Err(Status::unauthenticated("the token is not the one of this node"))
    }
}

/// The service behind the token.
struct Admin {
    dispatch: Arc<Dispatch>,
    drain: Drain,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Cluster for Admin {
    async fn list_members(
        &self,
        _request: Request<admin::ListMembersRequest>,
    ) -> Result<Response<admin::ListMembersResponse>, Status> {
        let replica = self.dispatch.replica();
        let view = replica.view();
        let members = view.members.into_iter().map(|member| admin::Member {
            node: member.node.0,
            address: member.address,
            role: role(member.role).to_owned(),
            alive: member.alive,
            generation: member.generation.0,
            sessions: member.sessions,
            lag: member.lag,
        });
        Ok(Response::new(admin::ListMembersResponse {
            cluster: view.cluster,
            leader: view.leader.map_or(0, |leader| leader.0),
            term: view.term,
            applied: view.applied,
            members: members.collect(),
            node: replica.run().0.0,
        }))
    }

    async fn join(&self, request: Request<admin::JoinRequest>) -> Result<Response<admin::JoinResponse>, Status> {
        let address = request.into_inner().address;
        if let Err(allowed) = check_host_port(&address) {
            return Err(Status::invalid_argument(format!("address is {address:?}; allowed: {allowed}")));
        }
        let node = self.dispatch.replica().admit(&address).await.map_err(Status::failed_precondition)?;
        tracing::info!(node = format!("{:016x}", node.0), address, "an admin had a node join");
        Ok(Response::new(admin::JoinResponse { node: node.0 }))
    }

    async fn remove(&self, request: Request<admin::RemoveRequest>) -> Result<Response<admin::RemoveResponse>, Status> {
        let node = request.into_inner().node;
        if node == 0 {
            return Err(Status::invalid_argument("node is 0; allowed: the id of a member"));
        }
        self.dispatch.replica().remove(NodeId(node)).await.map_err(Status::failed_precondition)?;
        tracing::info!(node = format!("{node:016x}"), "an admin removed a node");
        Ok(Response::new(admin::RemoveResponse {}))
    }

    async fn drain(&self, _request: Request<admin::DrainRequest>) -> Result<Response<admin::DrainResponse>, Status> {
        tracing::info!("an admin drains this node");
        (self.drain)();
        Ok(Response::new(admin::DrainResponse {}))
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_lets_in() {
        let token = Secret::new("0123456789abcdef");
        let asked = |value: Option<&str>| {
            let mut request = Request::new(());
            if let Some(value) = value {
                request.metadata_mut().insert("authorization", value.parse().expect("a header"));
            }
            shown(&token, request).map(drop).map_err(|status| status.code())
        };
        assert_eq!(asked(Some("Bearer 0123456789abcdef")), Ok(()));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer 0123456789abcde"),
            Some("Bearer 0123456789abcdef0"),
            Some("0123456789abcdef"),
            Some("bearer 0123456789abcdef"),
            Some("Bearer 0123456789abcdeF"),
        ] {
            assert_eq!(asked(wrong), Err(tonic::Code::Unauthenticated), "{wrong:?}");
        }
    }
}
