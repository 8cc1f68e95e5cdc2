//! The door for other nodes: Raft, and what else they say to each other, over gRPC with mutual TLS.

use std::net::SocketAddr;

use fulmar_proto::peer::v1::peer_server::{Peer, PeerServer};
use fulmar_proto::raft::v1::raft_server::{Raft, RaftServer};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use super::Grpc;
use crate::cluster::peers::MESSAGE_BYTES_MAX;
use crate::tls::Tls;

/// Opens the door; it is served on the runtime that this is called on, until the returned task is aborted: connections
/// that are open then end with that runtime, or with whoever is on the other side.
///
/// # Errors
/// If the address cannot be bound; the text names the key.
pub fn open(
    address: SocketAddr,
    tls: Option<Tls>,
    raft: impl Raft,
    peer: impl Peer,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let raft =
        RaftServer::new(raft).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let peer =
        PeerServer::new(peer).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let door = Grpc { key: "cluster.listen", address, tls };
    door.open(Routes::new(raft).add_service(peer))
}
