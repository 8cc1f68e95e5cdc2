//! Two runs over real streams on the loopback, which break and freeze as they are told.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fulmar_broker::state::command::Effect;
use fulmar_broker::{Generation, NodeId};
use fulmar_mqtt::QoS;
use fulmar_proto::peer::v1 as proto;
use fulmar_proto::peer::v1::peer_client::PeerClient;
use fulmar_proto::peer::v1::peer_server::{Peer, PeerServer};
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::publication;
use crate::cluster::links::record::Records;
use crate::cluster::links::{Dial, Ended, Ground, Links, Obligation, Pushed, Run};
use crate::cluster::{Listener, Taken};

const DEADLINE: Duration = Duration::from_secs(30);

/// A node of which only the links are real.
struct Node {
    id: u64,
    links: Arc<Links>,
    generation: AtomicU64,
    acts: AtomicBool,
    alive: Mutex<Vec<Run>>,
    /// Payloads that came in, as numbers.
    seen: Mutex<Vec<u64>>,
    /// Frames that are not taken, while this node keeps them.
    kept: Mutex<Option<Vec<Taken>>>,
    /// Each change ends all streams that it serves.
    broken: watch::Sender<u64>,
}

impl Listener for Node {
    fn carry_out(&self, _effect: Effect) {}

    fn lease_changed(&self) {}

    fn fenced(&self) {}

    fn installed(&self) {}

    fn delivered(&self, _from: Run, frame: Bytes, taken: Taken) {
        for record in Records::new(frame).unwrap() {
            let payload = record.unwrap().publication.payload.clone();
            self.seen.lock().push(u64::from_be_bytes(payload[..].try_into().unwrap()));
        }
        match &mut *self.kept.lock() {
            Some(kept) => kept.push(taken),
            None => taken(Vec::new()),
        }
    }
}

impl Ground for Node {
    fn run(&self) -> Run {
        (NodeId(self.id), Generation(self.generation.load(Ordering::SeqCst)))
    }

    fn acts(&self) -> bool {
        self.acts.load(Ordering::SeqCst)
    }

    fn while_alive(&self, run: Run, then: &mut dyn FnMut()) {
        let alive = self.alive.lock();
        if alive.contains(&run) {
            then();
        }
    }
}

/// Where the nodes are, as one of them knows it.
struct Book {
    own: u64,
    channels: BTreeMap<NodeId, Channel>,
}

impl Dial for Book {
    fn data(&self, node: NodeId) -> Option<PeerClient<Channel>> {
        self.channels.get(&node).cloned().map(PeerClient::new)
    }

    fn hello(&self, to: NodeId, generation: Generation) -> proto::Hello {
        proto::Hello { cluster: 77, from: self.own, generation: generation.0, to: to.0 }
    }
}

struct Service(Arc<Node>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Service {
    type LeaseStream = Answers<proto::Renewal>;
    type ProposeStream = Answers<proto::ProposeProblem>;
    type DeliverStream = Answers<proto::FrameAck>;

    async fn deliver(
        &self,
        request: Request<Streaming<proto::Frame>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let node = self.0.clone();
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Status::invalid_argument("no greeting"))?;
        let hello = first.hello.unwrap_or_default();
        let mut broken = node.broken.subscribe();
        let breaks = async move {
            // Its sender outlives every stream.
            let _ = broken.changed().await;
        };
        let from = (NodeId(hello.from), Generation(hello.generation));
        let frames = frames.take_until(Box::pin(breaks));
        Ok(Response::new(node.links.accept(from, frames).unwrap().boxed()))
    }

    async fn identify(&self, _: Request<proto::IdentifyRequest>) -> Result<Response<proto::Identity>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn adopt(&self, _: Request<proto::AdoptRequest>) -> Result<Response<proto::AdoptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn join(&self, _: Request<proto::JoinRequest>) -> Result<Response<proto::JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove(&self, _: Request<proto::RemoveRequest>) -> Result<Response<proto::RemoveResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lease(&self, _: Request<Streaming<proto::LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn propose(
        &self,
        _: Request<Streaming<proto::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn carry(&self, _: Request<proto::CarryRequest>) -> Result<Response<proto::CarryResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn consult(&self, _: Request<proto::ConsultRequest>) -> Result<Response<proto::ConsultResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn examine(&self, _: Request<proto::ExamineRequest>) -> Result<Response<proto::ExamineResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn answer(&self, _: Request<proto::AnswerRequest>) -> Result<Response<proto::AnswerResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Node {
    fn freeze(&self, frozen: bool) {
        self.acts.store(!frozen, Ordering::SeqCst);
        self.links.lease_changed();
    }

    fn run(&self) -> Run {
        Ground::run(self)
    }

    fn set_alive(&self, alive: &[Run]) {
        *self.alive.lock() = alive.to_vec();
        self.links.keep_only(alive);
    }
}

/// Two nodes that know each other.
async fn pair() -> (Arc<Node>, Arc<Node>) {
    let mut nodes = Vec::new();
    let mut addresses = BTreeMap::new();
    for id in [1, 2] {
        let node = Arc::new(Node {
            id,
            links: Links::new(),
            generation: AtomicU64::new(1),
            acts: AtomicBool::new(true),
            alive: Mutex::default(),
            seen: Mutex::default(),
            kept: Mutex::default(),
            broken: watch::Sender::new(0),
        });
        let ground: Arc<dyn Ground> = node.clone();
        let weak: Weak<dyn Ground> = Arc::downgrade(&ground);
        node.links.serve_for(weak);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.insert(NodeId(id), listener.local_addr().unwrap());
        let service = PeerServer::new(Service(node.clone()));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        nodes.push(node);
    }
    let channels: BTreeMap<NodeId, Channel> = addresses
        .iter()
        .map(|(node, address)| (*node, Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()))
        .collect();
    for node in &nodes {
        node.links.connect(Arc::new(Book { own: node.id, channels: channels.clone() }));
    }
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    for node in [&one, &two] {
        node.set_alive(&[one.run(), two.run()]);
    }
    (one, two)
}

/// Who waits for a record.
struct Waits(u64, Arc<Mutex<Vec<(u64, Ended)>>>);

impl Obligation for Waits {
    fn ended(self: Box<Self>, how: Ended) {
        self.1.lock().push((self.0, how));
    }
}

fn push(node: &Node, to: Run, number: u64, ended: &Arc<Mutex<Vec<(u64, Ended)>>>) -> Pushed {
    let link = node.links.to(to).unwrap();
    let message = publication("t", &number.to_be_bytes(), QoS::AtLeastOnce);
    link.begin().push(&message, None, || Some(Box::new(Waits(number, ended.clone()))))
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let by = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < by, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_streams_that_break_each_message_comes_once_in_order() {
    let (one, two) = pair().await;
    let ended = Arc::default();
    for number in 0..2_000u64 {
        assert_eq!(push(&one, two.run(), number, &ended), Pushed::Taken);
        if number % 97 == 0 {
            until("some of it came", || two.seen.lock().len() as u64 * 2 >= number).await;
            two.broken.send_modify(|broken| *broken += 1);
        }
    }
    until("all are acknowledged", || ended.lock().len() == 2_000).await;
    assert_eq!(*two.seen.lock(), numbers(0..2_000));
    assert!(ended.lock().iter().all(|(_, how)| *how == Ended::Taken));
    let figures = one.links.figures();
    assert_eq!((figures.books.confirmed, figures.open, figures.bytes, figures.unaccounted()), (2_000, 0, 0, 0));
    assert!(two.links.figures().frames_repeated + one.links.figures().frames_sent > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_neither_sends_nor_takes_nor_acknowledges() {
    let (one, two) = pair().await;
    let ended = Arc::default();
    push(&one, two.run(), 0, &ended);
    until("the first is acknowledged", || ended.lock().len() == 1).await;

    *two.kept.lock() = Some(Vec::new());
    push(&one, two.run(), 1, &ended);
    until("it came", || two.seen.lock().len() == 2).await;
    two.freeze(true);
    let kept = two.kept.lock().take().unwrap();
    kept.into_iter().for_each(|taken| taken(Vec::new()));
    push(&one, two.run(), 2, &ended);
    let sent = one.links.figures().frames_sent;
    until("it was sent", || one.links.figures().frames_sent == sent.max(3)).await;
    assert_eq!((two.seen.lock().len(), ended.lock().len()), (2, 1));
    two.freeze(false);
    until("all are acknowledged", || ended.lock().len() == 3).await;

    one.freeze(true);
    push(&one, two.run(), 3, &ended);
    assert_eq!(one.links.figures().frames_sent, 3);
    one.freeze(false);
    until("what waited was sent", || ended.lock().len() == 4).await;
    assert_eq!(*two.seen.lock(), numbers(0..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_run_has_not_acknowledged_is_lost_once_and_the_next_run_counts_anew() {
    let (one, two) = pair().await;
    let ended = Arc::default();
    *two.kept.lock() = Some(Vec::new());
    let (old, new) = (two.run(), (NodeId(2), Generation(2)));
    let link = one.links.to(old).unwrap();
    (0..5).for_each(|number| assert_eq!(push(&one, old, number, &ended), Pushed::Taken));
    until("they came", || two.seen.lock().len() == 5).await;
    // It is declared dead, and says nothing more under its old name.
    two.links.fenced();
    two.generation.store(2, Ordering::SeqCst);
    one.set_alive(&[one.run(), new]);
    assert_eq!(ended.lock().iter().filter(|(_, how)| *how == Ended::NodeLost).count(), 5);
    assert_eq!(link.begin().push(&publication("t", b"late", QoS::AtLeastOnce), None, || None), Pushed::Gone);
    let kept = two.kept.lock().take().unwrap();
    kept.into_iter().for_each(|taken| taken(Vec::new()));
    two.set_alive(&[one.run(), new]);
    (5..9).for_each(|number| assert_eq!(push(&one, new, number, &ended), Pushed::Taken));
    until("the next run takes them", || ended.lock().len() == 9).await;
    assert_eq!(*two.seen.lock(), numbers(0..9));
    let figures = one.links.figures();
    assert_eq!((figures.books.node_lost, figures.books.confirmed, figures.unaccounted()), (5, 4, 0));
    assert_eq!(figures.up, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_comes_too_early_does_not_end_the_link_to_its_run() {
    let (one, two) = pair().await;
    let (ended, early) = (Arc::default(), (two.run().0, Generation(2)));
    // It comes up between the refusal and what follows from it.
    assert_eq!(push(&one, early, 0, &ended), Pushed::Taken);
    let mut answers = one.links.accept(early, tokio_stream::pending()).unwrap();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(push(&one, early, 1, &ended), Pushed::Taken);
    assert_eq!(*ended.lock(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_alive_is_refused() {
    let (one, two) = pair().await;
    for from in [(NodeId(1), Generation(2)), (NodeId(3), Generation(1)), two.run()] {
        let mut answers = two.links.accept(from, tokio_stream::pending()).unwrap();
        let refused = answers.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{from:?}");
    }
    let mut frame = proto::Frame { seq: 1, ..proto::Frame::default() };
    for (batch, code) in [
        (&[9][..], tonic::Code::FailedPrecondition),
        (&[1, 7, 1], tonic::Code::FailedPrecondition),
        (&[1, 1], tonic::Code::FailedPrecondition),
    ] {
        frame.batch = Bytes::copy_from_slice(batch);
        let mut answers = two.links.accept(one.run(), tokio_stream::once(Ok(frame.clone()))).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), code, "{batch:?}");
    }
    frame.seq = 2;
    frame.batch = Bytes::from_static(&[1, 1, 1]);
    let mut answers = two.links.accept(one.run(), tokio_stream::once(Ok(frame))).unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::OutOfRange);
}
