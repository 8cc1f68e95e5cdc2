//! Raft's way to other members: openraft's calls as ours, over gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fulmar_proto::raft::v1 as wire;
use fulmar_proto::raft::v1::raft_client::RaftClient;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot, Vote};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::message::{from_position, from_vote, to_position, to_vote};
use super::{Member, TypeConfig, encode_entry, membership_message};
use crate::cluster::acks::Acks;
use crate::cluster::peers::Peers;
use crate::store::snapshots::SnapshotFile;

/// Bytes of entries that one message carries, unless the first alone is larger. What a follower is behind by goes in
/// several, so that none of them outlasts a heartbeat.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// After a failed call, before the next one to that node. Short, so that a node that comes back is served soon.
const BACKOFF: Duration = Duration::from_millis(200);

/// What a message of a snapshot carries.
const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Chunks that are read ahead of the connection.
const SNAPSHOT_CHUNKS_AHEAD: usize = 2;

/// How long a receiver may take no further chunk.
const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the ways to members.
#[derive(Debug, Clone)]
pub struct Network {
    pub peers: Arc<Peers>,
    /// Told what followers have taken.
    pub acks: Arc<Acks>,
}

/// The way to one member.
#[derive(Debug)]
pub struct Link {
    peers: Arc<Peers>,
    acks: Arc<Acks>,
    target: u64,
}

type RpcError = RPCError<u64, Member, RaftError<u64>>;
type SnapshotError = StreamingError<TypeConfig, Fatal<u64>>;

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        // What someone has heard since is newer than what the membership says.
        if self.peers.address(target).is_none() && !node.address.is_empty() {
            self.peers.set_address(target, &node.address);
        }
        Link { peers: self.peers.clone(), acks: self.acks.clone(), target }
    }
}

/// Whether a call ran out of its time. Any other failure is one that would come back at once if it were tried again at
/// once: nobody is there, or whoever is there refuses.
fn is_late(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

impl Link {
    fn client(&self) -> Result<RaftClient<Channel>, Unreachable> {
        let unknown = || Unreachable::new(&std::io::Error::other("the address of this node is not known"));
        self.peers.raft(self.target).ok_or_else(unknown)
    }

    fn address(&self) -> Option<wire::Address> {
        Some(self.peers.raft_address(self.target, 0))
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<u64> {
        Timeout { action, id: self.peers.node(), target: self.target, timeout }
    }

    fn failed(&self, action: RPCTypes, option: &RPCOption, status: &Status) -> RpcError {
        if is_late(status) {
            RPCError::Timeout(self.timeout(action, option.hard_ttl()))
        } else {
            RPCError::Unreachable(Unreachable::new(status))
        }
    }
}

fn request<T>(message: T, option: &RPCOption) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(option.hard_ttl());
    request
}

/// A peer that answers what cannot be is not asked again at once.
fn senseless(what: &str) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other(format!("the answer {what}"))))
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        use wire::append_response::Result as Answer;
        let mut entries: Vec<Bytes> = Vec::new();
        let (mut bytes, mut last) = (0, rpc.prev_log_id);
        for entry in &rpc.entries {
            let body = encode_entry(entry).body;
            if !entries.is_empty() && bytes + body.len() > APPEND_BYTES_MAX {
                break;
            }
            bytes += body.len();
            last = Some(entry.log_id);
            entries.push(body);
        }
        let whole = entries.len() == rpc.entries.len();
        let message = wire::AppendRequest {
            address: self.address(),
            vote: Some(from_vote(&rpc.vote)),
            previous: rpc.prev_log_id.as_ref().map(from_position),
            committed: rpc.leader_commit.as_ref().map(from_position),
            entries,
        };
        let sent_ms = self.acks.now();
        let answer = self.client()?.append(request(message, &option)).await;
        let answer = answer.map_err(|status| self.failed(RPCTypes::AppendEntries, &option, &status))?;
        let answer = answer.into_inner().result.ok_or_else(|| senseless("is empty"))?;
        if !matches!(answer, Answer::HigherVote(_)) {
            self.acks.note(self.target, rpc.vote.leader_id.term, sent_ms);
        }
        Ok(match answer {
            Answer::Success(_) if whole => AppendEntriesResponse::Success,
            Answer::Success(_) => AppendEntriesResponse::PartialSuccess(last),
            Answer::Partial(partial) => AppendEntriesResponse::PartialSuccess(partial.matching.map(to_position)),
            Answer::Conflict(_) => AppendEntriesResponse::Conflict,
            Answer::HigherVote(vote) => AppendEntriesResponse::HigherVote(to_vote(vote)),
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        let message = wire::VoteRequest {
            address: self.address(),
            vote: Some(from_vote(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(from_position),
        };
        let answer = self.client()?.vote(request(message, &option)).await;
        let answer = answer.map_err(|status| self.failed(RPCTypes::Vote, &option, &status))?.into_inner();
        Ok(VoteResponse {
            vote: to_vote(answer.vote.ok_or_else(|| senseless("has no vote"))?),
            vote_granted: answer.granted,
            last_log_id: answer.last.map(to_position),
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, SnapshotError> {
        let membership = &snapshot.meta.last_membership;
        let head = wire::SnapshotHead {
            address: self.address(),
            vote: Some(from_vote(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(from_position),
            membership: Some(membership_message(membership.membership())),
            membership_position: membership.log_id().as_ref().map(from_position),
            bytes: snapshot.snapshot.bytes,
        };
        let mut client = self.client()?;
        let (chunks, stream) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let late = self.timeout(RPCTypes::InstallSnapshot, SNAPSHOT_CHUNK_TIMEOUT);
        let feeding = async {
            feed(&snapshot.snapshot, head, chunks, late.clone()).await?;
            // The answer takes as long as the receiver needs to read what it got; whether it is still there is for the
            // pings of the connection to find out.
            Ok(std::future::pending::<Infallible>().await)
        };
        let error = tokio::select! {
            answer = client.install_snapshot(ReceiverStream::new(stream)) => match answer {
                Ok(answer) => {
                    let vote = answer.into_inner().vote;
                    let without = || Unreachable::new(&std::io::Error::other("the answer has no vote"));
                    return Ok(SnapshotResponse::new(to_vote(vote.ok_or_else(without)?)));
                }
                Err(status) if is_late(&status) => StreamingError::Timeout(late),
                Err(status) => StreamingError::Unreachable(Unreachable::new(&status)),
            },
            Err(error) = feeding => error,
            closed = cancel => StreamingError::Closed(closed),
        };
        Err(error)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// Hands over a file, piece by piece, as the connection takes it. Ends early if the call has ended.
async fn feed(
    file: &SnapshotFile,
    head: wire::SnapshotHead,
    chunks: mpsc::Sender<wire::SnapshotChunk>,
    late: Timeout<u64>,
) -> Result<(), SnapshotError> {
    use wire::snapshot_chunk::Part;
    // A snapshot that is gone has been replaced by a newer one, which is sent when this is tried again. What cannot be
    // read is no reason to end this node, whose own log is whole.
    let unread = |error: std::io::Error| {
        tracing::warn!(%error, file = %file.path.display(), "snapshot not sent");
        StreamingError::Unreachable(Unreachable::new(&error))
    };
    let mut source = tokio::fs::File::open(&file.path).await.map_err(unread)?;
    let mut part = Part::Head(head);
    let mut offset = 0;
    loop {
        let chunk = wire::SnapshotChunk { part: Some(part) };
        match tokio::time::timeout(SNAPSHOT_CHUNK_TIMEOUT, chunks.send(chunk)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(StreamingError::Timeout(late)),
        }
        let mut bytes = BytesMut::with_capacity(SNAPSHOT_CHUNK_BYTES);
        while bytes.len() < SNAPSHOT_CHUNK_BYTES && source.read_buf(&mut bytes).await.map_err(unread)? > 0 {}
        if bytes.is_empty() {
            return Ok(());
        }
        let (bytes, begin) = (bytes.freeze(), offset);
        offset += bytes.len() as u64;
        let crc = crc32fast::hash(&bytes);
        part = Part::Data(wire::SnapshotData { offset: begin, bytes, crc });
    }
}
