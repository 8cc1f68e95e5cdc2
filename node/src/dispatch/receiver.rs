//! A connected session as publishers and its own connection see it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use fulmar_broker::outbound::{DropReason, Orphan, Outbound, REPLAY_QUEUED_MAX, STALL_MS_MAX, Tally, Waiter};
use fulmar_broker::retained::Retained;
use fulmar_broker::session::Token;
use fulmar_broker::state::command::{News, Subscription};
use fulmar_broker::{Epoch, Now, SessionKey};
use fulmar_mqtt::packet::{Disconnect, ReasonProperties};
use fulmar_mqtt::{Packet, ReasonCode, Version, encode};
use fulmar_platform::Downlink;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::Dispatch;
use super::downlink::Outgoing;
use super::guests::Guest;
use super::replay::Replay;
use crate::cluster::Committed;

/// Bytes of the durable queue that are read ahead at one time.
const PULL_BYTES_MAX: usize = 128 * 1024;

/// Batches of packets that may wait for their session at one time.
pub const BATCHES_MAX: u32 = 2;

/// Requests to send something that may wait for their session at one time.
const ASKED_MAX: u32 = 256;

/// Since when a publisher waits, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Milliseconds of the monotonic clock.
    pub at_ms: u64,
    /// The log must have something of its run.
    pub durable: bool,
}

/// What a lower room may tell a session.
pub trait Port: Send + Sync {
    /// A publication that waited has been taken by all its receivers; an uplink, by all that were to have it. `since`: of a
    /// publication, since when its publisher waits.
    fn accepted(&self, token: Token, since: Option<Since>);
    /// What the session proposed first, of what it was not told of yet, is committed by the entry of this index; or
    /// nothing will be. `retained`: the retained messages as of that commit, where they were asked for.
    fn committed(&self, committed: Committed, index: u64, retained: Option<Retained>);
    /// Every node has applied what the session waits for.
    fn stable(&self);
    /// A newer claim owns the session.
    fn taken_over(&self);
    /// The run of the node has ended: the session ends here, and nothing that it waits for will be answered.
    fn fenced(&self);
    /// The connection must end, for this reason.
    fn close(&self, reason: ReasonCode);
    /// The client is to be sent something.
    fn downlink(&self, outgoing: Box<Outgoing>);
    /// Messages may wait for the client.
    fn mail(&self);
    /// What is said of messages that the session has noted is committed, or not.
    fn noted(&self, committed: Committed);
    /// Something has become of its device.
    fn news(&self, news: News);
    /// What the client has asked to be changed is committed, and this is what it is told. `about`: devices that were added
    /// or deleted for it.
    fn replies(&self, downlinks: Vec<Downlink>, about: Vec<Box<str>>);
    /// A newer connection of the client waits until what this one has already said is dealt with; dropping `dealt_with`
    /// tells it so.
    fn hear_out(&self, dealt_with: oneshot::Sender<()>);
    /// Somebody wants to know what the client has subscribed to.
    fn subscriptions(&self, then: Box<dyn FnOnce(Vec<Subscription>) + Send>);
}

/// Subscriptions, with the retained messages as of their commits.
type Queueing = VecDeque<(Subscription, Retained)>;

/// See the module. Shared by the session's actor, its connection, the routes, and the publishers that wait for it.
pub struct Receiver {
    id: u64,
    key: SessionKey,
    epoch: Epoch,
    persistent: bool,
    port: OnceLock<Box<dyn Port>>,
    outbound: Mutex<Outbound>,
    replays: Mutex<Option<Box<Replay>>>,
    /// Subscriptions whose retained messages are still to be queued, while somebody queues them.
    queueing: Mutex<Option<Box<Queueing>>>,
    /// Wakes the connection: something to write, room for a batch, a new deadline.
    waker: AtomicWaker,
    signalled: AtomicBool,
    batches: AtomicU32,
    /// Requests to send something that the session has not looked at.
    asked: AtomicU32,
    /// The session was told of messages and has not looked yet.
    mail: AtomicBool,
    /// Whether dispatch watches it for a stall.
    stalled: AtomicBool,
    /// A subscribe is on its way through the cluster: live messages wait until it is answered.
    held: AtomicBool,
    /// The session wants to know when nothing more is there to be read.
    hearing_out: AtomicBool,
    /// The run of the node that it belongs to has ended.
    cut: AtomicBool,
    deadline_ms: AtomicU64,
    pub(super) guest: Guest,
    /// Publications that have come from the client.
    pub(super) received: AtomicU64,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("key", &self.key).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Receiver {
    #[must_use]
    pub fn new(id: u64, key: SessionKey, epoch: Epoch, persistent: bool, outbound: Outbound, guest: Guest) -> Receiver {
        Receiver {
            id,
            key,
            epoch,
            persistent,
            port: OnceLock::new(),
            outbound: Mutex::new(outbound),
            replays: Mutex::new(None),
            queueing: Mutex::new(None),
            waker: AtomicWaker::new(),
            signalled: AtomicBool::new(false),
            batches: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            mail: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            held: AtomicBool::new(false),
            hearing_out: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            deadline_ms: AtomicU64::new(u64::MAX),
            guest,
            received: AtomicU64::new(0),
        }
    }

    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// Gives the receiver its session's port, before anybody can reach it.
    pub fn attach(&self, port: Box<dyn Port>) {
        // A receiver has one session for all its life.
        let _ = self.port.set(port);
    }

    /// Tells the session something.
    pub fn tell(&self, what: impl FnOnce(&dyn Port)) {
        if let Some(port) = self.port.get() {
            what(&**port);
        }
    }

    /// The way out, locked. Never held over an await.
    pub fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock()
    }

    pub(super) fn replays(&self) -> MutexGuard<'_, Option<Box<Replay>>> {
        self.replays.lock()
    }

    pub(super) fn queueing(&self) -> MutexGuard<'_, Option<Box<Queueing>>> {
        self.queueing.lock()
    }

    /// Has the connection look again.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Where the connection's task leaves its waker before it looks; takes back earlier signals.
    pub fn listen(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
        // A swap, not a store: it sees what every signaller before it had written.
        self.signalled.swap(false, Ordering::AcqRel);
    }

    /// Whether the session takes another batch.
    #[must_use]
    pub fn takes_batch(&self) -> bool {
        self.batches.load(Ordering::Acquire) < BATCHES_MAX
    }

    pub fn batch_sent(&self) {
        self.batches.fetch_add(1, Ordering::AcqRel);
    }

    pub fn batch_done(&self) {
        if self.batches.fetch_sub(1, Ordering::AcqRel) == BATCHES_MAX {
            self.signal();
        }
    }

    /// Has the connection read what is there, and say when that was all.
    pub fn hear_out(&self) {
        self.hearing_out.store(true, Ordering::Release);
        self.signal();
    }

    /// Whether the session is to be told, once, that nothing more is there to be read. `quiet`: whether that is so; asked
    /// only if somebody waits for it.
    pub fn heard_out(&self, quiet: impl FnOnce() -> bool) -> bool {
        self.hearing_out.load(Ordering::Acquire) && quiet() && self.hearing_out.swap(false, Ordering::AcqRel)
    }

    /// Books one more request to send something; `false`: too many wait for the session.
    pub(super) fn asks(&self) -> bool {
        let more = |asked: u32| (asked < ASKED_MAX).then_some(asked + 1);
        self.asked.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// The session looks at a request to send something.
    pub fn heard(&self) {
        self.asked.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has the session look for messages; once for however many there are.
    pub fn tell_of_mail(&self) {
        if !self.mail.swap(true, Ordering::AcqRel) {
            self.tell(|port| port.mail());
        }
    }

    /// The session looks for messages from here on.
    pub fn looks_for_mail(&self) {
        self.mail.store(false, Ordering::Release);
    }

    /// Milliseconds of the monotonic clock at which the session wants a tick; `u64::MAX` never.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms.load(Ordering::Acquire)
    }

    /// Sets the deadline. The connection's timer runs to the old one at the latest, and an earlier one wakes it.
    pub fn set_deadline_ms(&self, deadline_ms: Option<u64>) {
        let deadline_ms = deadline_ms.unwrap_or(u64::MAX);
        if self.deadline_ms.swap(deadline_ms, Ordering::AcqRel) > deadline_ms {
            self.signal();
        }
    }

    /// Notes that publishers wait; `true` if that was not known.
    pub(super) fn begin_stall(&self) -> bool {
        !self.stalled.swap(true, Ordering::AcqRel)
    }

    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether the run of the node that it belongs to has ended: nothing of it may be acknowledged any more.
    #[must_use]
    pub fn cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Whether publishers wait for this receiver; one that took nothing for too long is told to go. `acting_ms`: for how
    /// long it could have.
    pub(super) fn still_stalled(&self, now_ms: u64, acting_ms: u64) -> bool {
        // Taken back first: a publisher that begins to wait after the look notes it again.
        self.stalled.store(false, Ordering::Release);
        let stalled_ms = self.outbound().stalled_ms(now_ms);
        if stalled_ms.is_some_and(|ms| ms.min(acting_ms) >= STALL_MS_MAX) {
            self.tell(|port| port.close(ReasonCode::QuotaExceeded));
        }
        stalled_ms.is_some() && self.begin_stall()
    }
}

/// What a drain left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// There may be more at once.
    pub again: bool,
    /// Everything is out, and the connection is to be closed.
    pub finished: bool,
}

impl Dispatch {
    /// Moves what may be written now to `out`, up to about `bytes_max` bytes.
    pub fn drain(&self, receiver: &Arc<Receiver>, now: Now, out: &mut BytesMut, bytes_max: usize) -> Drained {
        let replaying = self.step_replay(receiver);
        let under_way = receiver.replays().is_some();
        let mut outbound = receiver.outbound();
        self.pull(receiver, &mut outbound);
        let waiters = outbound.fill(now, out, bytes_max);
        let tally = outbound.take_tally();
        let drained = Drained {
            again: replaying
                || outbound.ready()
                || outbound.wants().is_some()
                || (under_way && outbound.replay_room() >= REPLAY_QUEUED_MAX / 2),
            finished: outbound.finished(),
        };
        let settled = outbound.has_settled();
        let notes = outbound.take_notes();
        drop(outbound);
        self.metrics.add_tally(&tally);
        if let Some(notes) = notes {
            self.insight.take(receiver, &notes, now.mono_ms);
        }
        waiters.iter().for_each(|waiter| waiter.taken());
        if settled {
            // The fill passes over entries that the client can never take.
            self.settle(receiver);
        }
        drained
    }

    /// Reads on in the durable queue, where there is room for it.
    fn pull(&self, receiver: &Receiver, outbound: &mut Outbound) {
        while let Some((from, room)) = outbound.wants() {
            let state = self.replica.read();
            let entries = state.read_queue(receiver.key(), receiver.epoch(), from, room, PULL_BYTES_MAX);
            drop(state);
            outbound.feed(entries);
        }
    }

    /// Closes the way out after `reason` has been told to an MQTT 5 client, and settles the books.
    pub fn close_receiver(&self, receiver: &Receiver, told: Option<ReasonCode>, booked: DropReason) {
        let mut outbound = receiver.outbound();
        let last = told.map(|reason| farewell(outbound.version(), reason)).unwrap_or_default();
        let closed = outbound.close(&last, booked);
        let tally = outbound.take_tally();
        drop(outbound);
        self.closed(receiver, closed, &tally);
    }

    /// Ends a receiver of a run of this node that has ended: what it has acknowledged and not written is not said any
    /// more, and the log is not told.
    pub(super) fn cut(&self, receiver: &Receiver) {
        let mut outbound = receiver.outbound();
        receiver.cut.store(true, Ordering::Release);
        outbound.unsay();
        let last = farewell(outbound.version(), ReasonCode::ServerShuttingDown);
        let closed = outbound.close(&last, DropReason::SessionEnded);
        let tally = outbound.take_tally();
        // Under the lock: the session hears it before its connection can end.
        receiver.tell(|port| port.fenced());
        drop(outbound);
        self.closed(receiver, closed, &tally);
    }

    fn closed(&self, receiver: &Receiver, (waiters, orphans): (Vec<Box<dyn Waiter>>, Vec<Orphan>), tally: &Tally) {
        *receiver.replays() = None;
        self.metrics.add_tally(tally);
        self.take_notes(receiver);
        waiters.iter().for_each(|waiter| waiter.taken());
        self.offer_again(orphans);
        receiver.signal();
    }
}

/// A DISCONNECT with nothing but a reason, for whom it is made.
fn farewell(version: Version, reason: ReasonCode) -> BytesMut {
    let mut last = BytesMut::new();
    if version == Version::V5 {
        let properties = ReasonProperties::default();
        let packet = Disconnect { reason, session_expiry_s: None, server_reference: None, properties };
        // It always fits.
        let _ = encode(&Packet::Disconnect(Box::new(packet)), Version::V5, &mut last);
    }
    last
}
