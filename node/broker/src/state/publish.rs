//! Publications: matched against the replicated subscriptions in the order of the log, and put into queues.

use std::sync::Arc;

use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};

use super::books::{Dropped, Fate};
use super::command::{Effect, Outcome, PublishCommand, Subscription};
use super::expansion::Expansion;
use super::ledger::{ENTRY_BYTES, body_bytes};
use super::queue::{Entry, Lost, NEVER};
use super::session::Session;
use super::subscriptions::{Route, RouteKey};
use super::{Out, State};
use crate::key::{Epoch, SessionKey};
use crate::publication::{Delivery, Publication, Via};

/// A session that a publication goes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Receiver {
    pub(super) key: SessionKey,
    /// The lower of the published and the highest granted one.
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) subscription_ids: SubscriptionIds,
    /// The shared subscription that chose it.
    pub(super) group: Option<Arc<TopicFilter>>,
}

impl Receiver {
    fn durable(&self) -> bool {
        self.qos > QoS::AtMostOnce
    }

    pub(super) fn delivery(&self, publication: &Arc<Publication>) -> Delivery {
        Delivery {
            publication: Arc::clone(publication),
            qos: self.qos,
            // [v5 MQTT-3.3.1-12], [v5 MQTT-3.3.1-13]
            retain: publication.retain && self.retain_as_published,
            subscription_ids: self.subscription_ids.clone(),
        }
    }

    /// A receiver with its first durable route, and with what its QoS 0 subscriptions add to the one delivery.
    fn first(
        key: &SessionKey,
        session: &Session,
        route: &Route,
        topic: &TopicName,
        published: QoS,
        own: bool,
    ) -> Receiver {
        let (key, subscription_ids) = (key.clone(), SubscriptionIds::new());
        let mut receiver =
            Receiver { key, qos: QoS::AtMostOnce, retain_as_published: false, subscription_ids, group: None };
        receiver.add(route, published);
        let live = |sub: &&Subscription| sub.options.qos == QoS::AtMostOnce && sub.filter.shared().is_none();
        for sub in session.subscriptions().iter().filter(live) {
            if !(sub.options.no_local && own) && sub.filter.matches(topic) {
                receiver.add(&Route::of(sub), published);
            }
        }
        receiver
    }

    /// Takes one more matching subscription into account.
    fn add(&mut self, route: &Route, published: QoS) {
        self.qos = self.qos.max(route.options.qos.min(published));
        self.retain_as_published |= route.options.retain_as_published;
        self.subscription_ids.extend(route.id);
    }
}

/// The shared subscriptions that chose receivers.
fn groups_of(receivers: &[Receiver]) -> Vec<Arc<TopicFilter>> {
    receivers.iter().filter_map(|receiver| receiver.group.clone()).collect()
}

fn published(receivers: u32, groups: Vec<Arc<TopicFilter>>) -> Outcome {
    if groups.is_empty() { Outcome::Published { receivers } } else { Outcome::Shared { receivers, groups } }
}

impl State {
    pub(super) fn publish(&mut self, command: &PublishCommand, out: &mut Out<'_>) -> Outcome {
        if let Some((key, epoch, packet_id)) = &command.received {
            let Some(session) = self.current(key, *epoch) else {
                return Outcome::Stale;
            };
            if session.received().binary_search(packet_id).is_ok() {
                // [v5 MQTT-4.3.3-10] sent again: it has its receivers.
                return published(0, groups_of(&self.receivers(&command.publication)));
            }
        }
        let publication = &command.publication;
        if let (Some(origin), Some(epoch)) = (&publication.origin, command.epoch)
            && self.current(origin, epoch).is_none()
        {
            return Outcome::Stale;
        }
        let receivers = match &command.only {
            Some(key) => self.only_receiver(key, publication.qos),
            None => self.receivers(publication),
        };
        let retain = publication.retain && command.only.is_none();
        if let Err(reason) = self.publish_room(publication, &receivers, command.only.is_some()) {
            return Outcome::Refused(reason);
        }
        if retain && let Err(reason) = self.retain_room(publication) {
            return Outcome::Refused(reason);
        }
        if let Some((key, _, packet_id)) = &command.received {
            self.change(key, |session, _, _| session.add_received(*packet_id));
        }
        if !retain && receivers.is_empty() {
            return Outcome::Published { receivers: 0 };
        }
        let publication = Arc::new(publication.detached());
        if retain {
            self.set_retained(&publication);
        }
        let groups = groups_of(&receivers);
        published(self.deliver(&publication, receivers, out), groups)
    }

    pub(super) fn release_received(&mut self, key: &SessionKey, epoch: Epoch, packet_id: u16) -> Outcome {
        if self.current(key, epoch).is_none() {
            return Outcome::Stale;
        }
        self.change(key, |session, _, _| session.remove_received(packet_id));
        Outcome::Done
    }

    fn only_receiver(&mut self, key: &SessionKey, qos: QoS) -> Vec<Receiver> {
        if !self.kept.sessions.contains_key(key) {
            return Vec::new();
        }
        self.purge_released(key);
        let key = self.stored_key(key);
        let (subscription_ids, group) = (SubscriptionIds::new(), None);
        vec![Receiver { key, qos, retain_as_published: false, subscription_ids, group }]
    }

    pub(super) fn receivers(&self, publication: &Publication) -> Vec<Receiver> {
        self.receivers_of(&publication.topic, publication.qos, publication.origin.as_ref())
    }

    /// Who gets a message through the log: sessions by their claims, then one member of each durable shared group.
    pub(super) fn receivers_of(&self, topic: &TopicName, qos: QoS, origin: Option<&SessionKey>) -> Vec<Receiver> {
        // [v5 MQTT-3.8.3-3] no-local goes by identity, wherever the publisher is connected.
        let own = |key: &SessionKey| origin.is_some_and(|origin| origin.same(key));
        let mut hits: Vec<(&Session, &SessionKey, Route)> = Vec::new();
        let mut groups: Vec<Arc<TopicFilter>> = Vec::new();
        self.routes.for_each_match(topic, |key, route| match key {
            RouteKey::Session(key) if qos > QoS::AtMostOnce && !(route.options.no_local && own(key)) => {
                if let Some((key, session)) = self.kept.sessions.get_key_value(key) {
                    hits.push((session, key, *route));
                }
            }
            RouteKey::Session(_) => {}
            RouteKey::Group(filter) => groups.push(Arc::clone(filter)),
        });
        hits.sort_unstable_by_key(|(session, _, route)| (session.epoch, route.id));
        groups.sort_unstable();
        let mut receivers: Vec<Receiver> = Vec::with_capacity(hits.len() + groups.len());
        for (session, key, route) in hits {
            match receivers.last_mut().filter(|last| last.key.same(key)) {
                Some(last) => last.add(&route, qos),
                None => receivers.push(Receiver::first(key, session, &route, topic, qos, own(key))),
            }
        }
        receivers.extend(groups.iter().filter_map(|filter| self.shared_receiver(filter, qos, 0)));
        receivers
    }

    /// Puts a message into the queues of its receivers, once for all of them, or has it wait for its turn; QoS 0 goes to
    /// the owner at once. Gives how many got it, or will.
    pub(super) fn deliver(
        &mut self,
        publication: &Arc<Publication>,
        receivers: Vec<Receiver>,
        out: &mut Out<'_>,
    ) -> u32 {
        let (durable, live): (Vec<_>, Vec<_>) = receivers.into_iter().partition(Receiver::durable);
        let mut reached = 0;
        for receiver in live {
            let delivery = receiver.delivery(publication);
            let owner = self.kept.sessions.get(&receiver.key).and_then(|session| self.owner(session));
            if let Some(owner) = owner {
                out.effects.push(Effect::Deliver { key: receiver.key, owner, delivery });
                reached += 1;
            }
        }
        let Some(entries) = u32::try_from(durable.len()).ok().filter(|entries| *entries > 0) else {
            return reached;
        };
        if publication.expired(self.kept.now) {
            self.kept.ledger.never_held(entries, Fate::Expired);
            return reached;
        }
        let needed = body_bytes(publication).saturating_add(ENTRY_BYTES.saturating_mul(u64::from(entries)));
        let exhausted = self.bytes().saturating_add(needed) > self.kept.limits.replicated_bytes_max;
        if publication.via == Via::Will && exhausted {
            self.kept.ledger.never_held(entries, Fate::Dropped(Dropped::ClusterFull));
            return reached;
        }
        let retained = self.kept.retained.get(&publication.topic).is_some_and(|held| Arc::ptr_eq(held, publication));
        let body = self.kept.ledger.hold(publication, entries, retained);
        let ttl = Some(self.kept.limits.queue_ttl_s).filter(|s| *s > 0).map(|s| self.kept.now.plus_s(u64::from(s)));
        let expires_at = publication.expires_at.or(ttl).unwrap_or(NEVER);
        let publication = Arc::clone(publication);
        let expansion = Expansion { publication, body, expires_at, receivers: Arc::default() };
        if self.must_wait(durable.len()) {
            self.expand_later(expansion, durable);
            return reached + entries;
        }
        for receiver in durable {
            let entry = expansion.entry(&receiver);
            reached += u32::from(self.enqueue(&receiver, entry, false, out));
        }
        reached
    }

    /// Appends to a session's queue, dropping its oldest entries for want of room. `moved`: the obligation comes from
    /// another queue. `false` if there was no room at all, or no such session: then the obligation has ended.
    pub(super) fn enqueue(&mut self, receiver: &Receiver, entry: Entry, moved: bool, out: &mut Out<'_>) -> bool {
        let now = self.kept.now;
        let (publication, mut lost) = (Arc::clone(&entry.publication), Lost::default());
        let mut depth = 0;
        let pushed = self.change(&receiver.key, |session, ledger, limits| {
            let (owned, cost) = (session.owner().is_some(), entry.cost());
            let queue = session.queue_mut();
            if !owned && !queue.fits(limits, 1, cost) {
                queue.purge(now, ledger, &mut lost);
            }
            if !queue.make_room(limits, cost, ledger, &mut lost) {
                return Err(entry);
            }
            queue.push(entry);
            depth = queue.len();
            if !moved {
                ledger.queued();
            }
            Ok(session.owner())
        });
        if matches!(pushed, Some(Err(_))) {
            lost.0.push((Arc::clone(&publication), false));
        } else if publication.trace != 0 {
            self.tell_queued(&receiver.key, publication, depth, out);
        }
        self.tell_lost(&receiver.key, lost, out);
        match pushed {
            Some(Ok(owner)) => {
                if let Some(owner) = owner {
                    out.wakes.insert(owner.epoch, (receiver.key.clone(), owner));
                }
                true
            }
            Some(Err(entry)) => {
                let fate = Fate::Dropped(Dropped::QueueFull);
                if moved {
                    self.kept.ledger.settled(&entry, fate);
                } else {
                    self.kept.ledger.turned_away(&entry, fate);
                }
                false
            }
            None => {
                debug_assert!(false, "a receiver is a session");
                false
            }
        }
    }

    /// Tells of messages that a queue has lost.
    pub(super) fn tell_lost(&self, key: &SessionKey, lost: Lost, out: &mut Out<'_>) {
        if lost.0.is_empty() {
            return;
        }
        let Some(session) = self.kept.sessions.get(key) else { return };
        let (owner, epoch) = (self.owner(session), session.epoch);
        let lost = lost.0.into_iter();
        out.effects.extend(lost.map(|(publication, expired)| Effect::Lost {
            key: key.clone(),
            owner,
            epoch,
            publication,
            expired,
        }));
    }

    fn tell_queued(&self, key: &SessionKey, publication: Arc<Publication>, depth: usize, out: &mut Out<'_>) {
        if let Some(session) = self.kept.sessions.get(key) {
            let (key, owner, epoch) = (key.clone(), self.owner(session), session.epoch);
            out.effects.push(Effect::Queued { key, owner, epoch, publication, depth });
        }
    }

    /// Whether a publish is within the bounds of the cluster and, if it is addressed to one session, of its queue.
    pub(super) fn publish_room(
        &self,
        publication: &Publication,
        receivers: &[Receiver],
        addressed: bool,
    ) -> Result<(), ReasonCode> {
        let durable = receivers.iter().filter(|receiver| receiver.durable()).count() as u64;
        if durable == 0 {
            return Ok(());
        }
        let body = body_bytes(publication);
        self.durable_room(body.saturating_add(durable.saturating_mul(ENTRY_BYTES)))?;
        match receivers {
            [receiver] if addressed => self.queue_room(&receiver.key, ENTRY_BYTES.saturating_add(body)),
            _ => Ok(()),
        }
    }
}
