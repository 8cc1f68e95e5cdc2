//! What other nodes ask of this one beside Raft.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use fulmar_broker::state::command::Batch;
use fulmar_broker::{Generation, NodeId};
use fulmar_proto::Message;
use fulmar_proto::peer::v1::peer_server::Peer;
use fulmar_proto::peer::v1::{
    AdoptRequest, AdoptResponse, AnswerRequest, AnswerResponse, CarryRequest, CarryResponse, ConsultRequest,
    ConsultResponse, ExamineRequest, ExamineResponse, Frame, FrameAck, Hello, IdentifyRequest, Identity, JoinRequest,
    JoinResponse, LeaseRequest, ProposeProblem, ProposeProblemKind as Kind, ProposeRequest, RemoveRequest,
    RemoveResponse, Renewal,
};
use fulmar_proto::raft::v1::{PreVoteRequest, PreVoteResponse};
use fulmar_proto::types::v1 as types;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::batcher::stream::{Trouble, submit};
use super::bootstrap::{adopt, removed_text};
use super::calls::{self, Answered, Carry, Desk, malformed};
use super::context::Context;
use super::membership::{self, Refused};
use super::raft::inbound::Gate;
use super::wire::Wire;

/// Answers that wait for a stream to be read.
const ANSWERS_MAX: usize = 64;

/// See the module. Answers once there is something to answer with.
#[derive(Debug, Clone, Default)]
pub struct PeerService(Arc<OnceLock<Arc<Context>>>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeerService {
    /// From here on it answers. Once.
    pub(super) fn begin(&self, context: Arc<Context>) {
        // A node is put together once.
        let _ = self.0.set(context);
    }

    #[allow(clippy::result_large_err)] // tonic's status is as large as it is
    fn context(&self) -> Result<&Arc<Context>, Status> {
        self.0.get().ok_or_else(|| Status::unavailable("this node is starting"))
    }

    /// A request about a device of somebody who may make it, and who takes it.
    #[allow(clippy::result_large_err)]
    fn called<T>(
        &self,
        mut request: T,
        hello: impl FnOnce(&mut T) -> Option<Hello>,
    ) -> Result<(T, Arc<dyn Desk>), Status> {
        let context = self.context()?;
        context.greet(hello(&mut request))?;
        let desk = context.desk().ok_or_else(|| Status::unavailable("this node is starting"))?;
        Ok((request, desk))
    }
}

impl Context {
    /// Who opens a stream, if it is meant for this node and this cluster.
    #[allow(clippy::result_large_err)]
    fn greet(&self, hello: Option<Hello>) -> Result<(NodeId, Generation), Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("the stream does not open with a hello"))?;
        let (cluster, own) = (self.peers.cluster(), self.node.0);
        if hello.cluster != cluster {
            let what = format!("this is the cluster {cluster:016x}, not {:016x}", hello.cluster);
            return Err(Status::failed_precondition(what));
        }
        if hello.to != 0 && hello.to != own {
            return Err(Status::failed_precondition(format!("this is node {own:016x}, not {:016x}", hello.to)));
        }
        if self.core.state().removed(NodeId(hello.from)) {
            return Err(Status::permission_denied(removed_text(hello.from, cluster)));
        }
        Ok((NodeId(hello.from), Generation(hello.generation)))
    }
}

impl Gate for PeerService {
    fn pre_vote(&self, request: PreVoteRequest) -> PreVoteResponse {
        // Nobody who has not read its log can say.
        self.0.get().map(|context| context.pre_vote(request)).unwrap_or_default()
    }

    fn succeed(&self, term: u64, walls_ms: &[u64]) {
        if let Some(context) = self.0.get() {
            context.leadership.note_walls(context, walls_ms);
            context.leadership.succeed(term);
        }
    }
}

fn not_leader() -> Status {
    Status::unavailable("this node does not lead")
}

#[tonic::async_trait]
impl Peer for PeerService {
    type LeaseStream = Answers<Renewal>;
    type ProposeStream = Answers<ProposeProblem>;
    type DeliverStream = Answers<FrameAck>;

    async fn identify(&self, _request: Request<IdentifyRequest>) -> Result<Response<Identity>, Status> {
        Ok(Response::new(self.context()?.identity()))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Result<Response<AdoptResponse>, Status> {
        let context = self.context()?;
        let request = request.into_inner();
        let empty = context.identity().empty;
        if empty {
            adopt(context, request.cluster).await.map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(Response::new(AdoptResponse { adopted: empty, identity: Some(context.identity()) }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let context = self.context()?;
        let request = request.into_inner();
        let cluster = context.peers.cluster();
        if request.cluster != 0 && request.cluster != cluster {
            return Err(Status::failed_precondition(format!("this is the cluster {cluster:016x}")));
        }
        match context.join(request).await {
            Ok(()) => Ok(Response::new(JoinResponse { cluster, refused: String::new() })),
            Err(Refused::Not(refused)) => Ok(Response::new(JoinResponse { cluster, refused })),
            Err(Refused::Removed(what)) => Err(Status::permission_denied(what)),
            Err(Refused::NotLeader) => Err(not_leader()),
        }
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let context = self.context()?;
        let request = request.into_inner();
        context.greet(request.hello)?;
        match context.remove(request).await {
            Ok(()) => Ok(Response::new(RemoveResponse { refused: String::new() })),
            Err(refused) => Ok(Response::new(RemoveResponse { refused })),
        }
    }

    async fn lease(&self, request: Request<Streaming<LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        let context = self.context()?.clone();
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::cancelled("nothing was asked"))?;
        let (from, generation) = context.greet(first.hello)?;
        let renewal = context.renew(&first, generation, from).ok_or_else(not_leader)?;
        let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            let mut stable = context.leadership.stable();
            let mut answer = Some(renewal);
            loop {
                if let Some(answer) = answer.take()
                    && answers.send(Ok(answer)).await.is_err()
                {
                    return;
                }
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        let Some(renewal) = context.renew(&request, generation, from) else {
                            // The other side may have gone already.
                            let _ = answers.send(Err(not_leader())).await;
                            return;
                        };
                        // A report is answered only by what it changes, to everybody.
                        answer = (renewal.number > 0).then_some(renewal);
                    }
                    changed = stable.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let (term, index) = *stable.borrow_and_update();
                        answer = Some(Renewal { term, stable: index, ..Renewal::default() });
                    }
                    () = answers.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn propose(
        &self,
        request: Request<Streaming<ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let context = self.context()?.clone();
        let mut batches = request.into_inner();
        let first = batches.message().await?.ok_or_else(|| Status::cancelled("nothing was proposed"))?;
        let (from, generation) = context.greet(first.hello)?;
        let (problems, outgoing) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            let mut next = Some(first);
            loop {
                let request = match next.take() {
                    Some(request) => request,
                    None => tokio::select! {
                        request = batches.message() => match request {
                            Ok(Some(request)) => request,
                            Ok(None) | Err(_) => return,
                        },
                        // Something was wrong: what comes behind it cannot be right.
                        () = problems.closed() => return,
                    },
                };
                if request.batch.is_empty() {
                    continue;
                }
                let problem = match context.take_batch((from, generation), request, problems.clone()).await {
                    Ok(()) => continue,
                    Err(problem) => problem,
                };
                // The other side may have gone already.
                let _ = problems.send(problem).await;
                return;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn deliver(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::DeliverStream>, Status> {
        let context = self.context()?;
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Status::cancelled("nothing was said"))?;
        let from = context.greet(first.hello)?;
        let acks = context.links.accept(from, frames).ok_or_else(|| Status::unavailable("this node is starting"))?;
        Ok(Response::new(Box::pin(acks)))
    }

    async fn carry(&self, request: Request<CarryRequest>) -> Result<Response<CarryResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (request, desk) = self.called(request, |request| request.hello.take())?;
        let carry = Carry::from_message(request).map_err(|error| malformed(&error))?;
        Ok(Response::new(calls::serving(&metadata, "carry", desk.carry(carry)).await.to_message()))
    }

    async fn consult(&self, request: Request<ConsultRequest>) -> Result<Response<ConsultResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (request, desk) = self.called(request, |request| request.hello.take())?;
        let answered = calls::serving(&metadata, "consult", desk.consult(request.question, request.document));
        let answer = match answered.await {
            Ok(document) => ConsultResponse { document, refused: String::new() },
            Err(refused) => ConsultResponse { document: Default::default(), refused },
        };
        Ok(Response::new(answer))
    }

    async fn answer(&self, request: Request<AnswerRequest>) -> Result<Response<AnswerResponse>, Status> {
        let (request, desk) = self.called(request.into_inner(), |request| request.hello.take())?;
        desk.answered(Answered::from_message(request).map_err(|error| malformed(&error))?);
        Ok(Response::new(AnswerResponse {}))
    }

    async fn examine(&self, request: Request<ExamineRequest>) -> Result<Response<ExamineResponse>, Status> {
        let context = self.context()?;
        let mut request = request.into_inner();
        context.greet(request.hello.take())?;
        let examined = context.examined.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        Ok(Response::new(examined.examine(request)))
    }
}

impl Context {
    /// A client for whoever leads.
    #[allow(clippy::result_large_err)]
    pub(super) fn leader_client(&self) -> Result<super::peers::DataClient, Status> {
        let leader = self.raft.metrics().borrow().current_leader.filter(|leader| *leader != self.node.0);
        leader.and_then(|leader| self.peers.data(leader)).ok_or_else(|| Status::unavailable("nobody leads"))
    }

    /// Makes a node a member, here or by whoever leads.
    async fn join(&self, request: JoinRequest) -> Result<(), Refused> {
        match membership::join(self, &request).await {
            Err(Refused::NotLeader) if !request.forwarded => {
                let told = |status: Status| match status.code() {
                    tonic::Code::PermissionDenied => Refused::Removed(status.message().to_owned()),
                    _ => Refused::Not(status.message().to_owned()),
                };
                let mut client = self.leader_client().map_err(told)?;
                let answer = client.join(JoinRequest { forwarded: true, ..request }).await.map_err(told)?.into_inner();
                if answer.refused.is_empty() { Ok(()) } else { Err(Refused::Not(answer.refused)) }
            }
            done => done,
        }
    }

    /// As the service does it; why not.
    pub(super) async fn admit(&self, request: JoinRequest) -> Result<(), String> {
        self.join(request).await.map_err(|refused| match refused {
            Refused::NotLeader => "nobody leads at this moment; try again".to_owned(),
            Refused::Removed(why) | Refused::Not(why) => why,
        })
    }

    /// Ends the membership of a node, here or by whoever leads; why not.
    pub(super) async fn remove(&self, request: RemoveRequest) -> Result<(), String> {
        match membership::remove(self, &request).await {
            Ok(()) => Ok(()),
            Err(Refused::Not(why) | Refused::Removed(why)) => Err(why),
            Err(Refused::NotLeader) if request.forwarded => Err("the leader has changed; try again".to_owned()),
            Err(Refused::NotLeader) => {
                let mut client = self.leader_client().map_err(|status| status.message().to_owned())?;
                let hello = Some(self.peers.hello(0, self.core.run().1));
                let request = RemoveRequest { hello, node: request.node, forwarded: true };
                let answer = client.remove(request).await.map_err(|status| status.message().to_owned())?.into_inner();
                if answer.refused.is_empty() { Ok(()) } else { Err(answer.refused) }
            }
        }
    }

    /// Has a batch of another node appended, stamped with this leader's log time.
    async fn take_batch(
        &self,
        from: (NodeId, Generation),
        request: ProposeRequest,
        problems: mpsc::Sender<Result<ProposeProblem, Status>>,
    ) -> Result<(), Result<ProposeProblem, Status>> {
        let invalid = |what: String| Err(Status::invalid_argument(what));
        if self.leads().is_none() || self.leadership.handing() {
            return Err(Ok(problem(Kind::Again)));
        }
        let message = types::Batch::decode(request.batch).map_err(|error| invalid(error.to_string()))?;
        let mut batch = Batch::from_message(message).map_err(|error| invalid(error.to_string()))?;
        if (batch.node, batch.generation) != from || batch.seq == 0 || batch.term.is_some() {
            return Err(invalid("the batch is not of the run that sends it".to_owned()));
        }
        batch.at = self.clock.now().log;
        let submitted = submit(self, Arc::new(batch), move |trouble| {
            let told = match trouble {
                Trouble::Again(_) => problem(Kind::Again),
                Trouble::Dead => problem(Kind::Dead),
                Trouble::Fatal(why) => {
                    tracing::warn!(node = format!("{:016x}", from.0.0), why, "a batch was refused");
                    problem(Kind::Removed)
                }
            };
            // A full channel has a problem in it already.
            let _ = problems.try_send(Ok(told));
        });
        submitted.await.map_err(|why| Err(Status::unavailable(why)))
    }
}

fn problem(kind: Kind) -> ProposeProblem {
    ProposeProblem { kind: kind.into() }
}
