//! Members of a cluster, each with a runtime of its own, over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::state::State;
use fulmar_broker::state::command::{Batch, Command, Limits};
use fulmar_broker::{Generation, LogTime, NodeId, Publication, Via};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicName};
use fulmar_proto::peer::v1 as peer;
use fulmar_proto::raft::v1 as wire;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::core::Core;
use crate::cluster::lease::Holder;
use crate::cluster::peers::Peers;
use crate::cluster::raft::contact::Contact;
use crate::cluster::raft::inbound::{Gate, RaftService};
use crate::cluster::raft::log_store::LogStore;
use crate::cluster::raft::machine::Machine;
use crate::cluster::raft::network::Network;
use crate::cluster::raft::{Member, Proposal, Raft};
use crate::cluster::start::{config, restore};
use crate::cluster::wire::image::encode_part;
use crate::doors;
use crate::store::log::{Log, Options};
use crate::store::snapshots::{SnapshotFile, Snapshots};
use crate::tls::Tls;

pub(super) const CLUSTER: u64 = 0xc1;
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Lets everybody stand, and has nothing else to say.
pub(super) struct Open;

impl Gate for Open {
    fn pre_vote(&self, request: wire::PreVoteRequest) -> wire::PreVoteResponse {
        wire::PreVoteResponse { granted: true, last: request.last, ..wire::PreVoteResponse::default() }
    }
}

/// Who answers nothing but Raft.
pub(super) struct Silent;

pub(super) fn silence<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl peer::peer_server::Peer for Silent {
    type LeaseStream = tokio_stream::Empty<Result<peer::Renewal, Status>>;
    type ProposeStream = tokio_stream::Empty<Result<peer::ProposeProblem, Status>>;
    type DeliverStream = tokio_stream::Empty<Result<peer::FrameAck, Status>>;

    async fn identify(&self, _: Request<peer::IdentifyRequest>) -> Result<Response<peer::Identity>, Status> {
        Ok(Response::new(peer::Identity { node: 77, ..peer::Identity::default() }))
    }

    async fn adopt(&self, _: Request<peer::AdoptRequest>) -> Result<Response<peer::AdoptResponse>, Status> {
        silence()
    }

    async fn join(&self, _: Request<peer::JoinRequest>) -> Result<Response<peer::JoinResponse>, Status> {
        silence()
    }

    async fn remove(&self, _: Request<peer::RemoveRequest>) -> Result<Response<peer::RemoveResponse>, Status> {
        silence()
    }

    async fn lease(&self, _: Request<Streaming<peer::LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        silence()
    }

    async fn propose(
        &self,
        _: Request<Streaming<peer::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        silence()
    }

    async fn deliver(&self, _: Request<Streaming<peer::Frame>>) -> Result<Response<Self::DeliverStream>, Status> {
        silence()
    }

    async fn carry(&self, _: Request<peer::CarryRequest>) -> Result<Response<peer::CarryResponse>, Status> {
        silence()
    }

    async fn consult(&self, _: Request<peer::ConsultRequest>) -> Result<Response<peer::ConsultResponse>, Status> {
        silence()
    }

    async fn examine(&self, _: Request<peer::ExamineRequest>) -> Result<Response<peer::ExamineResponse>, Status> {
        silence()
    }

    async fn answer(&self, _: Request<peer::AnswerRequest>) -> Result<Response<peer::AnswerResponse>, Status> {
        silence()
    }
}

pub(super) struct Node {
    pub(super) id: u64,
    pub(super) runtime: Runtime,
    pub(super) raft: Raft,
    pub(super) core: Arc<Core>,
    pub(super) log: Arc<Log>,
    pub(super) peers: Arc<Peers>,
    pub(super) contact: Arc<Contact>,
    pub(super) snapshots: Snapshots,
    pub(super) address: SocketAddr,
}

impl Node {
    pub(super) async fn start(id: u64, dir: &Path, tls: Option<Tls>) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let peers = Peers::new(id, tls.clone(), HashMap::new());
        peers.set_cluster(CLUSTER);
        let (dir, within) = (dir.to_owned(), peers.clone());
        let started = runtime.spawn(async move {
            let fatal = Arc::new(|what: &str| panic!("{what}"));
            let options = Options { segment_bytes: 512 << 10, ..Options::default() };
            let (log, _) = Log::open(&dir, options, fatal.clone()).expect("the log opens");
            let log = Arc::new(log);
            let snapshots = Snapshots::open(dir.join("snapshots")).expect("snapshots open");
            let (state, origin) = match restore(&log, &snapshots, CLUSTER).expect("what was kept") {
                Some((state, origin)) => (state, Some(origin)),
                None => (State::new(Limits::default()), None),
            };
            let core = Core::new((NodeId(id), Generation(1)), state, Arc::new(Holder::new()), within.clone());
            let machine = Machine::new(core.clone(), snapshots.clone(), within.clone(), origin);
            let (raft, contact) = (Arc::new(OnceLock::new()), Arc::new(Contact::default()));
            let service =
                RaftService::new(within.clone(), raft.clone(), contact.clone(), snapshots.clone(), Arc::new(Open));
            let local = "127.0.0.1:0".parse().expect("an address");
            let (address, _) = doors::peer::open(local, tls, service, Silent).expect("a free port");
            let made = Raft::new(
                id,
                config(),
                Network { peers: within, acks: Arc::default() },
                LogStore::new(log.clone(), fatal),
                machine,
            )
            .await;
            let made = raft.get_or_init(|| made.expect("Raft starts")).clone();
            (made, core, log, contact, snapshots, address)
        });
        let (raft, core, log, contact, snapshots, address) = started.await.expect("it starts");
        Node { id, runtime, raft, core, log, peers, contact, snapshots, address }
    }

    pub(super) async fn stop(self) {
        self.raft.shutdown().await.expect("Raft ends");
        self.runtime.shutdown_background();
        self.log.close();
    }

    pub(super) fn member(&self) -> Member {
        Member { address: self.address.to_string() }
    }

    /// Proposes one batch, the `seq`-th of a run that is nobody's, and says where it is.
    pub(super) async fn write(&self, seq: u64, commands: Vec<Command>) -> u64 {
        let batch = Batch { node: NodeId(9), generation: Generation(1), seq, at: LogTime(seq), term: None, commands };
        let written = tokio::time::timeout(DEADLINE, self.raft.client_write(Proposal(Arc::new(batch)))).await;
        let written = written.expect("in time").expect("committed");
        written.data.expect("applied");
        written.log_id.index
    }

    pub(super) async fn applies(&self, index: u64) {
        let wait = self.raft.wait(Some(DEADLINE)).applied_index_at_least(Some(index), "replicated").await;
        wait.unwrap_or_else(|error| panic!("node {}: {error}", self.id));
    }

    /// The whole state, as it would be written.
    pub(super) fn image(&self) -> Vec<Bytes> {
        let snapshot = self.core.state().snapshot();
        let mut parts: Vec<Bytes> = snapshot.parts().map(|part| encode_part(&part)).collect();
        parts.sort();
        parts
    }

    /// Has a snapshot written of all that is applied.
    pub(super) async fn snapshot(&self) -> SnapshotFile {
        let last = self.raft.metrics().borrow().last_applied;
        self.raft.trigger().snapshot().await.expect("Raft runs");
        let written = |metrics: &openraft::RaftMetrics<u64, Member>| metrics.snapshot >= last;
        self.raft.wait(Some(DEADLINE)).metrics(written, "snapshot").await.expect("a snapshot");
        self.snapshots.list().expect("a list").remove(0)
    }

    pub(super) fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.snapshots.dir()).expect("a directory");
        names.map(|name| name.expect("a name").file_name().into_string().expect("ASCII")).collect()
    }

    /// A way to Raft of this node as that of `peers`.
    pub(super) fn reached_by(&self, peers: &Peers) -> wire::raft_client::RaftClient<tonic::transport::Channel> {
        peers.set_address(self.id, &self.address.to_string());
        peers.raft(self.id).expect("its address is known")
    }
}

pub(super) fn up() -> Vec<Command> {
    vec![Command::NodeUp { node: NodeId(9), generation: Generation(1), address: bytestring::ByteString::new() }]
}

pub(super) fn retain(at: u64, bytes: usize) -> Vec<Command> {
    vec![Command::SetRetained(Arc::new(Publication {
        topic: TopicName::new(format!("t/{at}")).expect("a topic"),
        payload: Bytes::from(vec![u8::try_from(at % 251).expect("small"); bytes]),
        qos: QoS::AtLeastOnce,
        retain: true,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at: LogTime::default(),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    }))]
}

pub(super) fn dirs<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| tempfile::tempdir().expect("a directory"))
}

pub(super) async fn leads(node: &Node) {
    let leads = |metrics: &openraft::RaftMetrics<u64, Member>| metrics.current_leader == Some(node.id);
    node.raft.wait(Some(DEADLINE)).metrics(leads, "leads").await.expect("a leader");
}

pub(super) fn append(address: wire::Address) -> wire::AppendRequest {
    let vote = wire::Vote { term: 1, node: 5, committed: true };
    wire::AppendRequest { address: Some(address), vote: Some(vote), ..wire::AppendRequest::default() }
}
