//! What other members ask of this one's Raft: their calls, checked and handed to openraft.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_proto::raft::v1 as wire;
use fulmar_proto::raft::v1::raft_server;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{LeaderId, Snapshot, Vote};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::contact::Contact;
use super::message::{from_position, from_vote, to_position, to_vote};
use super::{Entry, LogId, Raft, decode_body, machine, position};
use crate::cluster::lease::ELECTION_MS;
use crate::cluster::peers::Peers;
use crate::store::snapshots::{SnapshotError, SnapshotFile, SnapshotHead, Snapshots};

/// The one group there is.
const GROUP: u32 = 0;

/// Pieces of a snapshot that wait for the disk.
const SNAPSHOT_CHUNKS_AHEAD: usize = 4;

/// For openraft to say what it has voted.
const VOTE_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// Who answers whether a node may stand for election.
pub trait Gate: Send + Sync {
    /// Whether this node would let the sender stand. Called on a runtime: it must not wait.
    fn pre_vote(&self, request: wire::PreVoteRequest) -> wire::PreVoteResponse;

    /// The leader hands over to this node, which is about to stand in this term. `walls_ms`: the voters' wall clocks.
    fn succeed(&self, term: u64, walls_ms: &[u64]) {
        let _ = (term, walls_ms);
    }
}

/// See the module. A clone is another handle to the same.
#[derive(Clone)]
pub struct RaftService {
    pub peers: Arc<Peers>,
    /// Once it is there; until then callers are told to come again.
    pub raft: Arc<OnceLock<Raft>>,
    pub contact: Arc<Contact>,
    /// Where the machine of `raft` keeps its own.
    pub snapshots: Snapshots,
    pub gate: Arc<dyn Gate>,
    /// Held while one snapshot is received and installed.
    installing: Arc<Mutex<()>>,
}

impl std::fmt::Debug for RaftService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftService").field("peers", &self.peers).finish_non_exhaustive()
    }
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| Status::invalid_argument(format!("{name} is missing")))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft has stopped here: {error}"))
}

impl RaftService {
    #[must_use]
    pub fn new(
        peers: Arc<Peers>,
        raft: Arc<OnceLock<Raft>>,
        contact: Arc<Contact>,
        snapshots: Snapshots,
        gate: Arc<dyn Gate>,
    ) -> RaftService {
        RaftService { peers, raft, contact, snapshots, gate, installing: Arc::default() }
    }

    /// Whether a call is meant for this node as part of its cluster. A node that is in none refuses all of them, until it
    /// was adopted: then [`Peers::cluster`] says by which.
    fn admit(&self, address: Option<wire::Address>) -> Result<wire::Address, Status> {
        let address = required("address", address)?;
        let (ours, node) = (self.peers.cluster(), self.peers.node());
        if ours == 0 {
            return Err(Status::failed_precondition("this node is in no cluster yet"));
        }
        if address.cluster != ours {
            let what = format!("the node there is in the cluster {ours:016x}, not in {:016x}", address.cluster);
            return Err(Status::permission_denied(what));
        }
        if address.to != node || address.from == node {
            let what =
                format!("this node is {node:016x}; the call is from {:016x} to {:016x}", address.from, address.to);
            return Err(Status::permission_denied(what));
        }
        if address.group != GROUP {
            return Err(Status::not_found(format!("no group {}; there is {GROUP}", address.group)));
        }
        Ok(address)
    }

    fn raft(&self) -> Result<&Raft, Status> {
        self.raft.get().ok_or_else(|| Status::unavailable("this node is starting"))
    }

    async fn receive(
        &self,
        head: wire::SnapshotHead,
        mut stream: Streaming<wire::SnapshotChunk>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Vote<u64>, Status> {
        use wire::snapshot_chunk::Part;
        let vote = to_vote(required("head.vote", head.vote)?);
        let last = to_position(required("head.last", head.last)?);
        let raft = self.raft()?.clone();
        let ours = raft.metrics().borrow().vote;
        if vote < ours {
            return Ok(ours);
        }
        let (chunks, arriving) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let (snapshots, cluster) = (self.snapshots.clone(), self.peers.cluster());
        let expected = move |found: &SnapshotHead| {
            if found.cluster != cluster {
                return Err(format!("is of the cluster {:016x}", found.cluster));
            }
            let at = position(&last);
            let is = (found.term, found.leader, found.index);
            ((at.term, at.leader, at.index) == is).then_some(()).ok_or_else(|| format!("ends at entry {is:?}"))
        };
        let writing = tokio::task::spawn_blocking(move || write(&snapshots, head.bytes, arriving, expected));
        let broken = loop {
            match stream.message().await {
                Ok(Some(wire::SnapshotChunk { part: Some(Part::Data(data)) })) => {
                    if chunks.send(Some(data)).await.is_err() {
                        break None; // it has failed, and says why
                    }
                }
                Ok(Some(_)) => break Some(Status::invalid_argument("a head within a snapshot")),
                Ok(None) => {
                    let _ = chunks.send(None).await; // as above
                    break None;
                }
                Err(status) => break Some(status),
            }
        };
        drop(chunks);
        let written = writing.await.map_err(stopped)?;
        if let Some(broken) = broken {
            return Err(broken);
        }
        let (head, file) = written.map_err(|error| {
            tracing::warn!(%error, "snapshot not received");
            Status::data_loss(error.to_string())
        })?;
        let meta = machine::meta(&head).map_err(Status::data_loss)?;
        tracing::info!(index = file.index, bytes = file.bytes, "snapshot received");
        let snapshot = Snapshot { meta, snapshot: Box::new(file) };
        // Whoever sent it may go: what was begun is brought to its end.
        let installed = tokio::spawn(async move {
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            drop(turn);
            installed
        });
        Ok(installed.await.map_err(stopped)?.map_err(stopped)?.vote)
    }
}

/// Writes what arrives, up to the end, `None`: without one, the stream broke, and nothing is left.
fn write(
    snapshots: &Snapshots,
    bytes: u64,
    mut arriving: mpsc::Receiver<Option<wire::SnapshotData>>,
    expected: impl FnOnce(&SnapshotHead) -> Result<(), String>,
) -> Result<(SnapshotHead, SnapshotFile), SnapshotError> {
    let io = |error| SnapshotError::Io { file: snapshots.dir().to_owned(), error };
    let mut receiving = snapshots.receive(bytes).map_err(io)?;
    loop {
        match arriving.blocking_recv() {
            Some(Some(data)) => receiving.write(data.offset, data.crc, &data.bytes)?,
            Some(None) => return receiving.finish(expected),
            None => return Err(io(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Has a member vote for a node in a term before that one asks, although its leader was heard of a moment ago: openraft
/// has no hand-over, and refuses votes while a leader lives. What it always takes is that a message names a higher vote;
/// so this is one of the successor, which says what no log holds and so changes nothing else. It counts as a vote only
/// once the successor asks for it, with a log that is as long.
pub(in crate::cluster) async fn vote_for(raft: &Raft, term: u64, successor: u64) -> Result<(), String> {
    let vote = Vote::new(term, successor);
    let nowhere = LogId::new(LeaderId::new(term, successor), u64::MAX >> 1);
    let rpc = AppendEntriesRequest { vote, prev_log_id: Some(nowhere), entries: Vec::new(), leader_commit: None };
    match raft.append_entries(rpc).await.map_err(|error| error.to_string())? {
        AppendEntriesResponse::HigherVote(vote) => Err(format!("has voted in term {}", vote.leader_id.term)),
        _ => {
            // So that it is known here when the successor asks.
            let known = raft.wait(Some(VOTE_KNOWN_WITHIN)).metrics(|metrics| metrics.vote >= vote, "the vote").await;
            known.map(drop).map_err(|error| error.to_string())
        }
    }
}

/// The entries of a message, which must follow what it says is before them.
fn entries(request: &wire::AppendRequest) -> Result<Vec<Entry>, Status> {
    let first = request.previous.map_or(0, |previous| previous.index.saturating_add(1));
    let mut entries = Vec::with_capacity(request.entries.len());
    for (at, body) in request.entries.iter().enumerate() {
        let index = first.saturating_add(at as u64);
        let invalid = |what: String| Status::invalid_argument(format!("entry {index} {what}"));
        let entry = decode_body(body.clone()).map_err(invalid)?;
        if entry.log_id.index != index {
            return Err(invalid(format!("is entry {}", entry.log_id.index)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::AppendResponse>, Status> {
        use wire::append_response::Result as Answer;
        let mut request = request.into_inner();
        self.admit(request.address.take())?;
        let rpc = AppendEntriesRequest {
            vote: to_vote(required("vote", request.vote)?),
            prev_log_id: request.previous.map(to_position),
            entries: entries(&request)?,
            leader_commit: request.committed.map(to_position),
        };
        let answer = self.raft()?.append_entries(rpc).await.map_err(stopped)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.contact.stamp();
        }
        let answer = match answer {
            AppendEntriesResponse::Success => Answer::Success(true),
            AppendEntriesResponse::PartialSuccess(matching) => {
                Answer::Partial(wire::PartialSuccess { matching: matching.as_ref().map(from_position) })
            }
            AppendEntriesResponse::Conflict => Answer::Conflict(true),
            AppendEntriesResponse::HigherVote(vote) => Answer::HigherVote(from_vote(&vote)),
        };
        Ok(Response::new(wire::AppendResponse { result: Some(answer) }))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        self.admit(request.address)?;
        let rpc =
            VoteRequest { vote: to_vote(required("vote", request.vote)?), last_log_id: request.last.map(to_position) };
        // One that it was asked for by the leader itself it has given already: see `hand_over`.
        let given = self.raft()?.metrics().borrow().vote == rpc.vote;
        if !given && self.contact.age() < Duration::from_millis(ELECTION_MS) {
            // openraft forgets at a restart when it last heard of a leader; leases that count on it run on.
            return Err(Status::unavailable("a leader was heard of a moment ago"));
        }
        let answer = self.raft()?.vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(from_vote(&answer.vote)),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(from_position),
        }))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::PreVoteRequest>,
    ) -> Result<Response<wire::PreVoteResponse>, Status> {
        let request = request.into_inner();
        self.admit(request.address)?;
        self.raft()?;
        Ok(Response::new(self.gate.pre_vote(request)))
    }

    async fn hand_over(
        &self,
        request: Request<wire::HandOverRequest>,
    ) -> Result<Response<wire::HandOverResponse>, Status> {
        let request = request.into_inner();
        let address = self.admit(request.address)?;
        let raft = self.raft()?;
        let vote = raft.metrics().borrow().vote;
        if vote != Vote::new_committed(request.term, address.from) {
            let what = format!("{:016x} does not lead in term {} as this node knows", address.from, request.term);
            return Err(Status::failed_precondition(what));
        }
        let next = request.term + 1;
        if request.successor == self.peers.node() {
            self.gate.succeed(next, &request.walls_ms);
            raft.trigger().elect().await.map_err(stopped)?;
        } else {
            vote_for(raft, next, request.successor).await.map_err(Status::unavailable)?;
        }
        Ok(Response::new(wire::HandOverResponse {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        use wire::snapshot_chunk::Part;
        let mut stream = request.into_inner();
        let Some(wire::SnapshotChunk { part: Some(Part::Head(head)) }) = stream.message().await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.admit(head.address)?;
        let turn = self.installing.clone().try_lock_owned();
        let turn = turn.map_err(|_| Status::unavailable("another snapshot is being received"))?;
        let vote = self.receive(head, stream, turn).await?;
        Ok(Response::new(wire::SnapshotResponse { vote: Some(from_vote(&vote)) }))
    }
}
