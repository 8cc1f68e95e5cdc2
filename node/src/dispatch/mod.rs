//! A message's way from the publisher that accepted it to every receiver: a table, not an actor. Owns the live routes,
//! the local receivers and the node's own `$SYS` messages; carries out what applying commands asks for. Absent here:
//! sockets and protocol state.

pub mod announce;
pub mod calls;
pub mod consult;
pub mod downlink;
pub mod effects;
pub mod events;
pub mod freeze;
pub mod guests;
pub mod hearing;
mod herald;
pub mod insight;
pub mod journal;
pub mod mail;
pub mod memory;
pub mod own;
pub mod peers;
pub mod publish;
pub mod push;
pub mod receiver;
pub mod replay;
pub mod routes;
mod shares;
pub mod stage;
mod steer;
pub mod tasks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use fulmar_broker::insight::What;
use fulmar_broker::outbound::DropReason;
use fulmar_broker::retained::Retained;
use fulmar_broker::{Now, SessionKey};
use fulmar_mqtt::ReasonCode;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::cluster::calls::Desk;
use crate::cluster::links::{Ground, Links, Run};
use crate::cluster::{Listener, Replica};
use crate::telemetry::Metrics;
pub use announce::Announcing;
pub use calls::{CallId, Called};
pub use downlink::{Outgoing, Sent};
pub use guests::Guest;
pub use insight::{Insight, Passing};
pub use memory::{Memory, Shortage};
pub use publish::{Accepted, Admission, Durable, Offer, Ticket};
pub use receiver::{Port, Receiver, Since};
pub use routes::{RouteCache, Routes};
pub use stage::{Drain, Stage};

/// See the module.
pub struct Dispatch {
    pub(crate) replica: Replica,
    pub(crate) metrics: Arc<Metrics>,
    memory: memory::Memory,
    links: Arc<Links>,
    this: Weak<Dispatch>,
    /// Bytes of a payload that may be queued for a persistent session, or retained.
    durable_payload_bytes_max: usize,
    routes: RwLock<routes::Table>,
    /// Changes with the live routes; the durable ones have a version of their own.
    routes_version: AtomicU64,
    receivers: Mutex<HashMap<SessionKey, Arc<Receiver>>>,
    next_receiver: AtomicU64,
    /// Receivers that make publishers wait.
    stalled: Mutex<Vec<Arc<Receiver>>>,
    /// What this node says of itself under `$SYS`; never replicated.
    sys: Mutex<Retained>,
    /// Where the next shared subscription without a member here begins its turns.
    turns: AtomicUsize,
    /// What topics of frames resolve to, by where the frames come from.
    arrivals: Mutex<HashMap<Run, RouteCache>>,
    rules: OnceLock<Arc<dyn events::Rules>>,
    tasks: OnceLock<Arc<dyn tasks::Tasks>>,
    calls: calls::Calls,
    post: mail::Post,
    herald: herald::Herald,
    insight: insight::Insight,
    steering: Arc<steer::Steering>,
    journal: journal::Journal,
    consultant: OnceLock<Arc<dyn consult::Consultant>>,
    stage: watch::Sender<stage::Stage>,
    drain: OnceLock<stage::Drain>,
    /// When this process began to serve, in milliseconds of the monotonic clock.
    began_ms: u64,
    /// The lease is held again.
    thaw: Notify,
    /// When that was, in milliseconds of the monotonic clock.
    thawed_ms: AtomicU64,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

impl Dispatch {
    /// Must be called on the runtime that serves clients: what goes to other nodes and comes from them is served there.
    #[must_use]
    pub fn new(
        replica: Replica,
        metrics: Arc<Metrics>,
        durable_payload_bytes_max: usize,
        memory: memory::Memory,
    ) -> Arc<Dispatch> {
        let began_ms = replica.clock().now().mono_ms;
        let dispatch = Arc::new_cyclic(|this| Dispatch {
            links: replica.links().clone(),
            replica,
            metrics,
            memory,
            this: this.clone(),
            durable_payload_bytes_max,
            routes: RwLock::default(),
            routes_version: AtomicU64::new(1),
            receivers: Mutex::default(),
            next_receiver: AtomicU64::new(1),
            stalled: Mutex::default(),
            sys: Mutex::default(),
            turns: AtomicUsize::new(0),
            arrivals: Mutex::default(),
            rules: OnceLock::new(),
            tasks: OnceLock::new(),
            calls: calls::Calls::new(),
            post: mail::Post::default(),
            herald: herald::Herald::start(this.clone()),
            insight: insight::Insight::default(),
            steering: steer::Steering::start(this.clone()),
            journal: journal::Journal::default(),
            consultant: OnceLock::new(),
            stage: watch::Sender::new(stage::Stage::Serving),
            drain: OnceLock::new(),
            began_ms,
            thaw: Notify::new(),
            thawed_ms: AtomicU64::new(0),
        });
        let ground: Arc<dyn Ground> = dispatch.clone();
        dispatch.links.serve_for(Arc::downgrade(&ground));
        let listener: Arc<dyn Listener> = dispatch.clone();
        dispatch.replica.listen(Arc::downgrade(&listener));
        // Of what is being applied at this moment some may not have been told.
        dispatch.journal.begin(dispatch.replica.applied());
        let desk: Arc<dyn Desk> = dispatch.clone();
        dispatch.replica.carry_by(Arc::downgrade(&desk));
        if dispatch.replica.clustered() {
            dispatch.connect();
        }
        dispatch
    }

    /// The ways to other nodes and from them.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    #[must_use]
    pub fn now(&self) -> Now {
        self.replica.clock().now()
    }

    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What applied entries did.
    #[must_use]
    pub fn journal(&self) -> &journal::Journal {
        &self.journal
    }

    /// Milliseconds since this process began to serve.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        self.now().mono_ms.saturating_sub(self.began_ms)
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A number for a new receiver, unique in this run of the node.
    pub fn receiver_id(&self) -> u64 {
        self.next_receiver.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a receiver reachable by its session key. Of two whose claims crossed, the one with the older epoch is
    /// closed as taken over, whichever comes first.
    pub fn register(&self, receiver: &Arc<Receiver>) {
        let mut receivers = self.receivers.lock();
        let older = match receivers.get(receiver.key()) {
            Some(present) if present.epoch() > receiver.epoch() => Some(receiver.clone()),
            _ => receivers.insert(receiver.key().clone(), receiver.clone()),
        };
        drop(receivers);
        if self.memory.shortage() == Shortage::Shedding {
            self.set_short(receiver, true);
            if self.memory.shortage() != Shortage::Shedding {
                self.set_short(receiver, false); // that was over when all others were told
            }
        }
        if let Some(older) = older {
            self.take_over(&older);
        }
    }

    /// Closes a receiver whose session has a newer owner: from here on it acknowledges and delivers nothing
    /// [v5 MQTT-3.1.4-3].
    pub fn take_over(&self, receiver: &Receiver) {
        // Here, because the connection may end, and its actor with it, before the actor hears why.
        let (client, reason) = (receiver.key().identity(), ReasonCode::SessionTakenOver);
        self.insight.note(client, What::TakenOver, reason.text(), "", receiver.epoch().0);
        self.close_receiver(receiver, Some(reason), DropReason::SessionEnded);
        receiver.tell(|port| port.taken_over());
    }

    /// Sums up what receivers have counted and not yet said.
    pub fn collect_tallies(&self) {
        for receiver in self.receivers() {
            let tally = receiver.outbound().take_tally();
            self.metrics.add_tally(&tally);
            self.take_notes(&receiver);
        }
    }

    /// Forgets a receiver, unless a newer one has its key already.
    pub fn unregister(&self, receiver: &Receiver) {
        let mut receivers = self.receivers.lock();
        if receivers.get(receiver.key()).is_some_and(|current| current.id() == receiver.id()) {
            receivers.remove(receiver.key());
        }
    }

    /// The receiver that a session has on this node.
    #[must_use]
    pub fn receiver(&self, key: &SessionKey) -> Option<Arc<Receiver>> {
        self.receivers.lock().get(key).cloned()
    }

    /// All local receivers.
    #[must_use]
    pub fn receivers(&self) -> Vec<Arc<Receiver>> {
        self.receivers.lock().values().cloned().collect()
    }

    /// Cuts receivers that made publishers wait for too long. Called a few times a second.
    pub fn cut_stalled(&self) {
        if !self.replica.acts() {
            return; // nobody can take anything now
        }
        let now_ms = self.now().mono_ms;
        let acting_ms = now_ms.saturating_sub(self.thawed_ms.load(Ordering::Relaxed));
        self.stalled.lock().retain(|receiver| receiver.still_stalled(now_ms, acting_ms));
    }
}
