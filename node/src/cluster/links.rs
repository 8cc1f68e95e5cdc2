//! Publications between nodes: a stream of frames from each run of a node to every other, in both directions one. What
//! was given to a link is taken by the other run, or ends as lost once that run was declared dead; each exactly once.
//!
//! A pair of runs numbers its frames from 1. The sender keeps each until it is acknowledged and sends those left again on
//! a new stream; the receiver hands each up once. A frame is acknowledged by itself, not those before it with it: one slow
//! receiver does not hold up the others' publishers. Nothing is sent or acknowledged while the node holds no lease.

mod inbox;
mod inlet;
mod link;
mod outbox;
pub mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use fulmar_broker::{Generation, NodeId};
use fulmar_proto::peer::v1 as proto;
use fulmar_proto::peer::v1::peer_client::PeerClient;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use self::inlet::Inlet;
pub use self::link::{Link, Obligation, Pushing};
pub use self::outbox::{Books, Ended, FULL_BYTES, Pushed};
use super::peers::Peers;
use super::replica::{Listener, Taken};

/// Acknowledgements that wait for a stream to be read.
const ACKS_MAX: usize = 64;

/// One run of a node.
pub type Run = (NodeId, Generation);

/// What links need of the node that they belong to.
pub trait Ground: Listener {
    /// This run of the node.
    fn run(&self) -> Run;
    /// Whether it holds its lease now, by the clock.
    fn acts(&self) -> bool;
    /// Calls `then` if a run is known here and has not been declared dead; until it returns, it is not. It must not wait.
    fn while_alive(&self, run: Run, then: &mut dyn FnMut());
}

/// Where streams to other nodes begin.
pub trait Dial: Send + Sync {
    /// A client for publications to this node; `None` while nobody knows where it is.
    fn data(&self, node: NodeId) -> Option<PeerClient<Channel>>;
    /// What a stream to it opens with.
    fn hello(&self, to: NodeId, generation: Generation) -> proto::Hello;
}

impl Dial for Peers {
    fn data(&self, node: NodeId) -> Option<PeerClient<Channel>> {
        Peers::data(self, node.0)
    }

    fn hello(&self, to: NodeId, generation: Generation) -> proto::Hello {
        Peers::hello(self, to.0, generation)
    }
}

struct Wire {
    dial: Arc<dyn Dial>,
    runtime: Handle,
}

#[derive(Default)]
struct Counts {
    frames_received: AtomicU64,
    frames_repeated: AtomicU64,
}

/// What links come to at one moment. Records and books count QoS > 0, but for `queue_full`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs that there is a link to, and streams to them that are up.
    pub links: u64,
    pub up: u64,
    /// Unacknowledged bytes.
    pub bytes: u64,
    pub books: Books,
    pub open: u64,
    /// Of links that are not closed, frames given to streams.
    pub frames_sent: u64,
    pub frames_received: u64,
    /// Frames that had come before.
    pub frames_repeated: u64,
    /// Frames whose records wait for receivers here.
    pub frames_pending: u64,
}

impl Figures {
    /// Records that are neither confirmed, dropped nor open: never other than 0.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let Books { forwarded, confirmed, gone, node_lost, .. } = self.books;
        i128::from(forwarded) - i128::from(confirmed) - i128::from(gone) - i128::from(node_lost) - i128::from(self.open)
    }
}

/// See the module.
#[derive(Default)]
pub struct Links {
    ground: OnceLock<Weak<dyn Ground>>,
    wire: OnceLock<Wire>,
    runs: Mutex<Runs>,
    /// The lease was lost or is held again.
    lease: Notify,
    counts: Counts,
}

#[derive(Default)]
struct Runs {
    out: BTreeMap<Run, Arc<Link>>,
    into: BTreeMap<Run, Arc<Inlet>>,
    /// Of links that are closed.
    closed: Books,
    closed_frames: u64,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// None yet, and none at all in a cluster of one.
    #[must_use]
    pub fn new() -> Arc<Links> {
        Arc::new(Links::default())
    }

    /// Names the node that they belong to. Once.
    pub fn serve_for(&self, ground: Weak<dyn Ground>) {
        // A node has one dispatch in its life.
        let _ = self.ground.set(ground);
    }

    /// Says how other nodes are reached. Once; streams run on the runtime that this is called from.
    pub fn connect(&self, dial: Arc<dyn Dial>) {
        let _ = self.wire.set(Wire { dial, runtime: Handle::current() });
    }

    /// Whether this node may ever have peers.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.wire.get().is_some()
    }

    fn ground(&self) -> Option<Arc<dyn Ground>> {
        self.ground.get().and_then(Weak::upgrade)
    }

    fn acts(&self) -> bool {
        self.ground().is_some_and(|ground| ground.acts())
    }

    fn dial(&self, to: NodeId, own: Run) -> Option<(PeerClient<Channel>, proto::Hello)> {
        let dial = &self.wire.get()?.dial;
        Some((dial.data(to)?, dial.hello(to, own.1)))
    }

    fn deliver(&self, from: Run, frame: Bytes, taken: Taken) {
        if let Some(ground) = self.ground() {
            ground.delivered(from, frame, taken);
        }
    }

    /// Until the lease is held.
    async fn thawed(&self) {
        loop {
            let changed = self.lease.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.acts() {
                return;
            }
            changed.await;
        }
    }

    /// The lease was lost or is held again.
    pub fn lease_changed(&self) {
        self.lease.notify_waiters();
    }

    /// The link to a live run of another node, made if it is new. Called while the state is read that says that it is
    /// alive: so none is made for a run that was declared dead.
    #[must_use]
    pub fn to(self: &Arc<Self>, run: Run) -> Option<Arc<Link>> {
        let wire = self.wire.get()?;
        let own = self.ground()?.run();
        if own.0 == run.0 {
            return None;
        }
        let mut runs = self.runs.lock();
        if let Some(link) = runs.out.get(&run).filter(|link| link.own == own) {
            return Some(link.clone());
        }
        let link = Link::new(own, run);
        if let Some(older) = runs.out.insert(run, link.clone()) {
            // Of a run of this node that has ended. Told elsewhere: the caller reads the state.
            let ended = close(&mut runs, &older);
            wire.runtime.spawn(async move { tell(ended) });
        }
        drop(runs);
        wire.runtime.spawn(link.clone().keep(self.clone()));
        Some(link)
    }

    /// Ends the links from and to a run that was declared dead: what it has not acknowledged is lost, once.
    pub fn down(&self, node: NodeId, generation: Generation) {
        let run = (node, generation);
        let mut runs = self.runs.lock();
        let link = runs.out.remove(&run);
        let ended = link.map(|link| close(&mut runs, &link)).unwrap_or_default();
        let inlet = runs.into.remove(&run);
        drop(runs);
        if let Some(inlet) = inlet {
            inlet.close();
        }
        tell(ended);
    }

    /// Has links to exactly these runs: those that are alive.
    pub fn keep_only(self: &Arc<Self>, alive: &[Run]) {
        let gone: Vec<Run> = {
            let runs = self.runs.lock();
            runs.out.keys().chain(runs.into.keys()).filter(|run| !alive.contains(run)).copied().collect()
        };
        gone.into_iter().for_each(|(node, generation)| self.down(node, generation));
        for run in alive {
            let _ = self.to(*run);
        }
    }

    /// This run of the node was declared dead: all links of it end.
    pub fn fenced(&self) {
        let all: Vec<Run> = {
            let runs = self.runs.lock();
            runs.out.keys().chain(runs.into.keys()).copied().collect()
        };
        all.into_iter().for_each(|(node, generation)| self.down(node, generation));
    }

    /// Serves a stream of frames from another run, whose greeting fits; what it is answered, and what is wrong with it.
    /// `None` as long as there are no links.
    #[must_use]
    pub fn accept<S>(self: &Arc<Self>, from: Run, frames: S) -> Option<ReceiverStream<Result<proto::FrameAck, Status>>>
    where
        S: Stream<Item = Result<proto::Frame, Status>> + Unpin + Send + 'static,
    {
        let (acks, answers) = mpsc::channel(ACKS_MAX);
        let links = self.clone();
        self.wire.get()?.runtime.spawn(async move {
            let served = match links.inlet(from) {
                Some(inlet) => inlet.serve(&links, frames, &acks).await,
                None => Err(Status::failed_precondition("the run that sends is not alive here")),
            };
            if let Err(status) = served {
                tracing::debug!(?from, %status, "the stream of a peer has ended");
                // Whoever would read it may be what has ended.
                let _ = acks.send(Err(status)).await;
            }
        });
        Some(ReceiverStream::new(answers))
    }

    /// What this run has had from another; `None` for one that is not alive as far as this node knows. Whoever ends the
    /// links of a run that is declared dead finds it: it is there before that is applied.
    fn inlet(&self, from: Run) -> Option<Arc<Inlet>> {
        let ground = self.ground()?;
        let own = ground.run();
        if own.0 == from.0 {
            return None;
        }
        let mut found = None;
        ground.while_alive(from, &mut || {
            let mut runs = self.runs.lock();
            let known = runs.into.get(&from).filter(|inlet| inlet.own == own).cloned();
            let inlet = known.unwrap_or_else(|| {
                let inlet = Inlet::new(own, from);
                if let Some(older) = runs.into.insert(from, inlet.clone()) {
                    older.close();
                }
                inlet
            });
            found = Some(inlet);
        });
        found
    }

    /// All figures as of one moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let runs = self.runs.lock();
        let mut figures = Figures {
            links: runs.out.len() as u64,
            books: runs.closed,
            frames_sent: runs.closed_frames,
            frames_received: self.counts.frames_received.load(Ordering::Relaxed),
            frames_repeated: self.counts.frames_repeated.load(Ordering::Relaxed),
            frames_pending: runs.into.values().map(|inlet| inlet.pending() as u64).sum(),
            ..Figures::default()
        };
        for link in runs.out.values() {
            let (books, open) = link.books();
            figures.books.add(books);
            figures.open += open;
            figures.bytes += link.bytes() as u64;
            figures.up += u64::from(link.up());
            figures.frames_sent += link.frames();
        }
        figures
    }
}

type EndedAll = Vec<(Box<dyn Obligation>, Ended)>;

/// Closes a link that was taken out, and moves its books.
fn close(runs: &mut Runs, link: &Link) -> EndedAll {
    let mut ended = Vec::new();
    let books = link.close(&mut ended);
    runs.closed.add(books);
    runs.closed_frames += link.frames();
    ended
}

fn tell(ended: EndedAll) {
    ended.into_iter().for_each(|(obligation, how)| obligation.ended(how));
}
