//! One session as it is replicated: its owner or the moment it lost one, and what outlives the connection.

use std::sync::Arc;

use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};

use super::command::{Owner, Subscription, Will};
use super::queue::Queue;
use super::subscriptions::Route;
use super::timers::Slot;
use crate::key::{Epoch, Generation, LogTime, NodeId};

/// A session expiry that never comes [v5 3.1.2.11.2].
const EXPIRY_NEVER_S: u32 = u32::MAX;

/// Who holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A connection holds it, on this run of a node; which may have ended.
    Owned { node: NodeId, generation: Generation },
    /// Its connection ended then.
    Released { at: LogTime },
}

/// Exists a million times: what most sessions do not have is behind a pointer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) epoch: Epoch,
    pub(super) place: Place,
    /// Seconds that it outlives its connection; 0 makes it a clean one.
    pub(super) expiry_s: u32,
    /// Why the connection of this epoch is to be closed, if it is.
    pub(super) cut: Option<ReasonCode>,
    /// The will that has not fired.
    pub(super) will: Option<Arc<Will>>,
    /// Sorted by filter.
    subscriptions: Option<Arc<Vec<Subscription>>>,
    depot: Option<Arc<Depot>>,
}

const _: () = assert!(size_of::<Session>() <= 64);

/// Messages on their way out, and packet ids of those on their way in.
#[derive(Debug, Clone, Default, PartialEq)]
struct Depot {
    queue: Queue,
    /// Sorted packet ids of QoS 2 publishes whose PUBREL has not come.
    received: Vec<u16>,
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Who holds its connection, if anybody alive does.
    pub owner: Option<Owner>,
    /// Why the owner has no right to go on, if it has none.
    pub cut: Option<ReasonCode>,
    pub epoch: Epoch,
    /// Seconds that it outlives its connection; 0 makes it a clean one.
    pub expiry_s: u32,
    /// When it ends if nobody claims it; `None` while it is connected.
    pub ends_at: Option<LogTime>,
    pub has_will: bool,
    pub subscriptions: usize,
    pub queue_entries: usize,
    pub queue_bytes: u64,
    /// First unsettled sequence number, and the next one to be given.
    pub queue_floor: u64,
    pub queue_next: u64,
}

impl Session {
    pub(super) fn new(epoch: Epoch, node: NodeId, generation: Generation, expiry_s: u32) -> Session {
        let place = Place::Owned { node, generation };
        Session { epoch, place, expiry_s, cut: None, will: None, subscriptions: None, depot: None }
    }

    /// A session of a snapshot, without what [`Session::refill`] brings.
    pub(super) fn restored(epoch: Epoch, place: Place, expiry_s: u32, will: Option<Arc<Will>>) -> Session {
        Session { epoch, place, expiry_s, cut: None, will, subscriptions: None, depot: None }
    }

    /// Subscriptions sorted by filter; a queue, and the sorted packet ids of its receive set.
    pub(super) fn refill(&mut self, subscriptions: Vec<Subscription>, depot: Option<(Queue, Vec<u16>)>) {
        self.subscriptions = (!subscriptions.is_empty()).then(|| Arc::new(subscriptions));
        self.depot = depot.map(|(queue, received)| Arc::new(Depot { queue, received }));
    }

    pub(super) fn persistent(&self) -> bool {
        self.expiry_s > 0
    }

    /// The owner, alive or not.
    pub(super) fn owner(&self) -> Option<Owner> {
        match self.place {
            Place::Owned { node, generation } => Some(Owner { node, generation, epoch: self.epoch }),
            Place::Released { .. } => None,
        }
    }

    /// When the will fires: after its delay or with the session, whichever is first [v5 MQTT-3.1.3-9].
    pub(super) fn will_at(&self) -> Option<LogTime> {
        let Place::Released { at } = self.place else {
            return None;
        };
        self.will.as_ref().map(|will| at.plus_s(u64::from(will.delay_s.min(self.expiry_s))))
    }

    pub(super) fn ends_at(&self) -> Option<LogTime> {
        match self.place {
            Place::Released { at } if self.expiry_s != EXPIRY_NEVER_S => Some(at.plus_s(u64::from(self.expiry_s))),
            _ => None,
        }
    }

    /// When the first queued entry of a session without an owner expires.
    pub(super) fn queue_at(&self) -> Option<LogTime> {
        let Place::Released { .. } = self.place else {
            return None;
        };
        self.queue().map(|queue| queue.expires_next).filter(|at| *at != super::queue::NEVER)
    }

    /// Where the timers keep it.
    pub(super) fn slot(&self) -> Slot {
        match self.place {
            Place::Owned { node, generation } => Slot::Owned(node, generation, self.epoch),
            Place::Released { .. } => {
                let due = [self.will_at(), self.ends_at(), self.queue_at()].into_iter().flatten().min();
                due.map_or(Slot::Nowhere, |at| Slot::Due(at, self.epoch))
            }
        }
    }

    pub(super) fn subscriptions(&self) -> &[Subscription] {
        self.subscriptions.as_ref().map_or(&[], |all| all.as_slice())
    }

    pub(super) fn subscription(&self, filter: &TopicFilter) -> Option<&Subscription> {
        let all = self.subscriptions();
        all.binary_search_by(|have| have.filter.cmp(filter)).ok().and_then(|at| all.get(at))
    }

    /// Adds or replaces; gives what it replaced.
    pub(super) fn set_subscription(&mut self, subscription: Subscription) -> Option<Subscription> {
        let all = Arc::make_mut(self.subscriptions.get_or_insert_default());
        match all.binary_search_by(|have| have.filter.cmp(&subscription.filter)) {
            Ok(at) => all.get_mut(at).map(|have| std::mem::replace(have, subscription)),
            Err(at) => {
                if all.len() < 4 {
                    all.reserve_exact(1); // most sessions have few, for ever
                }
                all.insert(at, subscription);
                None
            }
        }
    }

    pub(super) fn clear_subscription(&mut self, filter: &TopicFilter) -> Option<Subscription> {
        let at = self.subscriptions().binary_search_by(|have| have.filter.cmp(filter)).ok()?;
        let all = Arc::make_mut(self.subscriptions.as_mut()?);
        let had = all.remove(at);
        if all.is_empty() {
            self.subscriptions = None;
        }
        Some(had)
    }

    /// What its subscriptions add to the durable routes: those of a persistent session that are neither shared nor QoS 0.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&TopicFilter, Route)> {
        let durable = |sub: &&Subscription| sub.filter.shared().is_none() && sub.options.qos > QoS::AtMostOnce;
        let all = if self.persistent() { self.subscriptions() } else { &[] };
        all.iter().filter(durable).map(|sub| (&sub.filter, Route::of(sub)))
    }

    /// Filters by which a persistent session gets messages live, past its queue: granted QoS 0, and not shared.
    pub(super) fn live_filters(&self) -> impl Iterator<Item = &TopicFilter> {
        let live = |sub: &&Subscription| sub.filter.shared().is_none() && sub.options.qos == QoS::AtMostOnce;
        let all = if self.persistent() { self.subscriptions() } else { &[] };
        all.iter().filter(live).map(|sub| &sub.filter)
    }

    pub(super) fn queue(&self) -> Option<&Queue> {
        self.depot.as_ref().map(|depot| &depot.queue)
    }

    /// Its queue, made if it never had one.
    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut Arc::make_mut(self.depot.get_or_insert_default()).queue
    }

    /// Its queue, if it ever had one.
    pub(super) fn queue_if_any(&mut self) -> Option<&mut Queue> {
        self.depot.as_mut().map(|depot| &mut Arc::make_mut(depot).queue)
    }

    /// Packet ids of QoS 2 publishes whose PUBREL has not come, sorted.
    pub(super) fn received(&self) -> &[u16] {
        self.depot.as_ref().map_or(&[], |depot| depot.received.as_slice())
    }

    pub(super) fn add_received(&mut self, packet_id: u16) {
        let received = &mut Arc::make_mut(self.depot.get_or_insert_default()).received;
        if let Err(at) = received.binary_search(&packet_id) {
            received.insert(at, packet_id);
        }
    }

    pub(super) fn remove_received(&mut self, packet_id: u16) {
        if let Ok(at) = self.received().binary_search(&packet_id)
            && let Some(depot) = self.depot.as_mut()
        {
            Arc::make_mut(depot).received.remove(at);
        }
    }

    pub(super) fn view(&self, owner: Option<Owner>) -> SessionView {
        let queue = self.queue();
        SessionView {
            owner,
            cut: self.cut,
            epoch: self.epoch,
            expiry_s: self.expiry_s,
            ends_at: self.ends_at(),
            has_will: self.will.is_some(),
            subscriptions: self.subscriptions().len(),
            queue_entries: queue.map_or(0, Queue::len),
            queue_bytes: queue.map_or(0, |queue| queue.bytes),
            queue_floor: queue.map_or(0, Queue::floor),
            queue_next: queue.map_or(0, |queue| queue.next_seq),
        }
    }
}
