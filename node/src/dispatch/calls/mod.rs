//! Requests to devices, whose answers somebody waits for: from any node to the one that has the device's connection, and
//! back. One hop each way; a request is sent at most once.

mod id;
mod table;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::state::command::Owner;
use fulmar_broker::{Epoch, LogTime, SessionKey};
use fulmar_platform::Downlink;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

pub use id::CallId;
use id::Named;
use table::{End, Found, Place, Table};

use super::{Dispatch, Sent};
use crate::cluster::calls::{Answered, Carried, Carry, Consulting, Desk};
use crate::cluster::links::Run;
use crate::telemetry::spans::{self, Kind};

/// How long a connection that is moving is looked for: its claim is committed, and it is not found yet, or the claim is
/// known elsewhere and not here.
const MOVING: Duration = Duration::from_millis(500);

/// Between two such looks.
const LOOK: Duration = Duration::from_millis(10);

/// For a request that nothing answers to be on its way.
const SEND: Duration = Duration::from_secs(5);

/// Answers that are on their way to other nodes at one time.
const FORWARDED_MAX: usize = 256;

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    Answered(Bytes),
    /// It is on its way; nothing answers it.
    Sent,
    /// It was sent, and no answer came in time.
    Timeout,
    /// No node has a connection of the device.
    Offline,
    /// The device has not subscribed to the topic, and does not get it unasked.
    NotSubscribed,
    /// Too many wait, or the device does not take what it is sent.
    Busy,
    /// The connection is not where it should be, or its node does nothing now. Nothing was sent.
    Unreached,
    /// The node of the connection was lost, or this one: the device may have got it.
    Lost,
}

impl Called {
    /// For metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Called::Answered(_) => "answered",
            Called::Sent => "sent",
            Called::Timeout => "timeout",
            Called::Offline => "offline",
            Called::NotSubscribed => "not_subscribed",
            Called::Busy => "busy",
            Called::Unreached => "unreached",
            Called::Lost => "lost",
        }
    }
}

/// What the calls of this node, and those to its devices, share.
#[derive(Debug)]
pub(super) struct Calls {
    table: Arc<Mutex<Table>>,
    next: AtomicU64,
    forwarding: Arc<Semaphore>,
    /// Where connections to other nodes are served.
    runtime: Handle,
}

impl Calls {
    /// Must be called on the runtime that serves clients.
    pub(super) fn new() -> Calls {
        Calls {
            table: Arc::default(),
            // Not where an earlier process began: ids of a generation that comes again (they wrap) differ.
            next: AtomicU64::new(rand::random()),
            forwarding: Arc::new(Semaphore::new(FORWARDED_MAX)),
            runtime: Handle::current(),
        }
    }

    /// Where connections to other nodes are served.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Calls that are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.table.lock().len()
    }

    /// Ends waits; `lost` is asked with the run that the answer was to come from, `None` for this one.
    pub(super) fn lose(&self, lost: impl Fn(Option<Run>) -> bool) {
        self.table.lock().lose(lost);
    }
}

/// Counts a call as given up if it is dropped before anything came of it.
struct Counted<'a> {
    dispatch: &'a Dispatch,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.dispatch.metrics.called(self.outcome);
    }
}

impl Dispatch {
    /// An id for a call. Each is used once.
    #[must_use]
    pub fn call_id(&self) -> CallId {
        CallId::new(self.replica.run(), self.calls.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a request over the connection of a session, wherever that is, and waits for its answer for so long; not at
    /// all without `within`. The id is in the request already. To drop the future is to stop waiting.
    pub async fn call(&self, id: CallId, key: &SessionKey, downlink: Downlink, within: Option<Duration>) -> Called {
        let mut counted = Counted { dispatch: self, outcome: "abandoned" };
        tracing::debug!(request = id.uuid(), client = %key, topic = downlink.topic.as_str(), "call");
        let mut span = spans::part("device call", Kind::Client);
        let called = span.during(self.called(id, key, downlink, within)).await;
        counted.outcome = called.name();
        if span.recorded() {
            span.set("fulmar.request", id.uuid().to_string().as_str());
            span.set("fulmar.outcome", called.name());
        }
        tracing::debug!(request = id.uuid(), client = %key, outcome = called.name(), "call ended");
        called
    }

    async fn called(&self, id: CallId, key: &SessionKey, downlink: Downlink, within: Option<Duration>) -> Called {
        let deadline = Instant::now() + within.unwrap_or(SEND);
        if self.owner(key).is_none() {
            return Called::Offline;
        }
        let Some(mut place) = Place::book(&self.calls.table, id, key) else { return Called::Busy };
        let mut tried = None;
        for last in [false, true] {
            let Some(owner) = self.owner_after(key, tried).await else { return Called::Offline };
            let at = (owner.node, owner.generation);
            let here = at == self.replica.run();
            place.waits_on((!here).then_some(at));
            // From here on its end is told. It may have ended just before.
            let carried = if self.owner(key) != Some(owner) {
                Carried::NotHere
            } else if here {
                self.carry_here((key, owner.epoch), downlink.clone(), within.map(|_| deadline), &mut place).await
            } else {
                let within = within.map(|_| deadline.saturating_duration_since(Instant::now()));
                let carry = Carry {
                    key: key.clone(),
                    epoch: owner.epoch,
                    request: id.to_bytes(),
                    downlink: downlink.clone(),
                    within,
                };
                self.carry_there(at, &carry, deadline, &mut place).await
            };
            return match carried {
                Carried::NotHere if !last => {
                    tried = Some(owner);
                    continue;
                }
                Carried::NotHere | Carried::Frozen => Called::Unreached,
                Carried::Answered(answer) => Called::Answered(answer),
                Carried::Sent => Called::Sent,
                Carried::Timeout => Called::Timeout,
                Carried::NotSubscribed => Called::NotSubscribed,
                Carried::Busy => Called::Busy,
                Carried::Lost => Called::Lost,
            };
        }
        Called::Unreached
    }

    /// Who has the connection of a session, if a live run has.
    fn owner(&self, key: &SessionKey) -> Option<Owner> {
        self.replica.read().device_owner(key.identity())
    }

    /// The same; where one was asked in vain, another one if there soon is.
    async fn owner_after(&self, key: &SessionKey, tried: Option<Owner>) -> Option<Owner> {
        let end = Instant::now() + MOVING;
        loop {
            let owner = self.owner(key);
            if tried.is_none() || owner != tried || Instant::now() >= end {
                return owner;
            }
            sleep(LOOK).await;
        }
    }

    /// Sends a request over a connection of this node, and waits for its answer.
    async fn carry_here(
        &self,
        (key, epoch): (&SessionKey, Epoch),
        downlink: Downlink,
        deadline: Option<Instant>,
        place: &mut Place,
    ) -> Carried {
        let mut span = spans::part("device downlink", Kind::Producer);
        span.set("messaging.destination.name", downlink.topic.as_str());
        let expires_at = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            LogTime(self.now().log.0.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
        });
        let end = Instant::now() + MOVING;
        let sent = loop {
            let sent = self.send(key, Some(epoch), vec![downlink.clone()], expires_at).await;
            // The claim may be applied and the connection not be ready for it.
            let comes = || self.owner_epoch(key) == Some(epoch) && Instant::now() < end;
            if sent != Sent::NotHere || !comes() {
                break sent;
            }
            sleep(LOOK).await;
        };
        match (sent, deadline) {
            (Sent::Sent(_), None) => Carried::Sent,
            (Sent::Sent(_), Some(deadline)) => match timeout_at(deadline, &mut place.end).await {
                Ok(Ok(End::Answered(answer))) => Carried::Answered(answer),
                Ok(Ok(End::Lost) | Err(_)) => Carried::Lost,
                Err(_) => Carried::Timeout,
            },
            (Sent::NotSubscribed, _) => Carried::NotSubscribed,
            (Sent::Busy, _) => Carried::Busy,
            (Sent::Frozen, _) => Carried::Frozen,
            (Sent::NotHere, _) => Carried::NotHere,
        }
    }

    /// Has another node send a request, and waits for its answer, which may come from a third one.
    async fn carry_there(&self, at: Run, carry: &Carry, deadline: Instant, place: &mut Place) -> Carried {
        tokio::select! {
            carried = self.replica.carry(at.0, carry, &self.calls.runtime) => carried.unwrap_or_else(|problem| {
                let (node, request) = (format!("{:016x}", at.0.0), CallId::from_bytes(carry.request).uuid());
                tracing::warn!(node, request, client = %carry.key, problem, "a call was lost");
                Carried::Lost
            }),
            end = &mut place.end => match end {
                Ok(End::Answered(answer)) => Carried::Answered(answer),
                Ok(End::Lost) | Err(_) => Carried::Lost,
            },
            () = tokio::time::sleep_until(deadline) => {
                // Without a word of it from there, whether it was sent is not known.
                if carry.within.is_some() { Carried::Timeout } else { Carried::Lost }
            }
        }
    }

    /// A device has answered a request. Whoever waits for it may be on another node.
    pub fn answered(&self, key: &SessionKey, request: &str, answer: &Bytes) {
        let Some(named) = Named::parse(request) else { return self.not_taken(key, request, "unknown") };
        let found = self.calls.table.lock().answer(key, named, answer.clone());
        if found != Found::Unknown {
            return self.found(key, request, found);
        }
        let own = self.replica.run();
        let state = self.replica.read();
        let alive = state.runs().filter(|run| run.alive).map(|run| (run.node, run.generation));
        let origins: Vec<Run> = alive.filter(|run| *run != own && named.may_be_of(*run)).collect();
        drop(state);
        if origins.is_empty() {
            return self.not_taken(key, request, "unknown");
        }
        let answered = Answered { key: key.clone(), request: request.into(), answer: answer.clone() };
        for origin in origins {
            self.forward(origin, answered.clone());
        }
    }

    fn forward(&self, origin: Run, answered: Answered) {
        let (Ok(permit), Some(dispatch)) = (self.calls.forwarding.clone().try_acquire_owned(), self.this.upgrade())
        else {
            return self.not_taken(&answered.key, &answered.request, "too_many");
        };
        self.calls.runtime.spawn(async move {
            if let Err(problem) = dispatch.replica.answer(origin, &answered, &dispatch.calls.runtime).await {
                let node = format!("{:016x}", origin.0.0);
                tracing::info!(node, request = &*answered.request, problem, "an answer did not reach its origin");
                dispatch.not_taken(&answered.key, &answered.request, "unreached");
            }
            drop(permit);
        });
    }

    fn found(&self, key: &SessionKey, request: &str, found: Found) {
        match found {
            Found::Taken => tracing::debug!(client = %key, request, "answered"),
            Found::Late => self.not_taken(key, request, "late"),
            Found::Duplicate => self.not_taken(key, request, "duplicate"),
            Found::Foreign => self.not_taken(key, request, "foreign"),
            Found::Unknown => self.not_taken(key, request, "unknown"),
        }
    }

    fn not_taken(&self, key: &SessionKey, request: &str, reason: &'static str) {
        self.metrics.answer_dropped(reason);
        tracing::debug!(client = %key, request, reason, "an answer was dropped");
    }

    /// Calls that this node waits for, and those that others wait for and that are answered here.
    #[must_use]
    pub fn calls_waiting(&self) -> usize {
        self.calls.waiting()
    }
}

impl Desk for Dispatch {
    fn carry(&self, carry: Carry) -> Pin<Box<dyn Future<Output = Carried> + Send>> {
        let Some(dispatch) = self.this.upgrade() else { return Box::pin(async { Carried::Lost }) };
        Box::pin(async move {
            if !dispatch.acts() {
                return Carried::Frozen;
            }
            let Carry { key, epoch, request, downlink, within } = carry;
            let id = CallId::from_bytes(request);
            tracing::debug!(request = id.uuid(), client = %key, topic = downlink.topic.as_str(), "call of another node");
            let Some(mut place) = Place::book(&dispatch.calls.table, id, &key) else { return Carried::Busy };
            let deadline = within.map(|within| Instant::now() + within);
            dispatch.carry_here((&key, epoch), downlink, deadline, &mut place).await
        })
    }

    fn consult(&self, question: String, document: Bytes) -> Consulting {
        self.consulted_by_peer(&question, &document)
    }

    fn answered(&self, answered: Answered) {
        let Answered { key, request, answer } = answered;
        let found = Named::parse(&request).map(|named| self.calls.table.lock().answer(&key, named, answer));
        self.found(&key, &request, found.unwrap_or(Found::Unknown));
    }
}
