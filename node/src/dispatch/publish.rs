//! Accepting publications: durable receivers by one proposal, live ones by one push each, and the word to the
//! publisher once all that must take a message have taken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_broker::outbound::{Group, Orphan, Pushed, Waiter};
use fulmar_broker::session::Token;
use fulmar_broker::state::command::{Command, Outcome, PublishCommand};
use fulmar_broker::{Delivery, Epoch, Publication, SessionKey};
use fulmar_mqtt::{QoS, ReasonCode};

use super::Dispatch;
use super::receiver::Receiver;
use super::routes::{Routes, Share, Target};
use crate::cluster::Committed;

/// A publication on offer, with what its publisher waits for.
#[derive(Debug)]
pub struct Offer {
    pub publication: Arc<Publication>,
    pub token: Option<Token>,
    /// QoS 2 from a persistent session: the packet id that joins its receive set with the message.
    pub received: Option<(SessionKey, Epoch, u16)>,
    /// The bound that does not let it be kept. At QoS 0 it still goes to live receivers.
    pub refused: Option<ReasonCode>,
}

/// What is known at once about an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Everyone has taken it, or it was refused.
    Now(ReasonCode),
    /// The publisher's port is told later; never, if the log has stopped.
    Later,
}

/// Counts the receivers that a publication still waits for.
pub struct Ticket {
    publisher: Arc<Receiver>,
    token: Token,
    left: AtomicUsize,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Ticket {
    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.publisher.tell(|port| port.accepted(self.token));
        }
    }
}

struct Waits(Arc<Ticket>);

impl Waiter for Waits {
    fn taken(&self) {
        self.0.one_less();
    }
}

/// For what nobody waits for: wills, `$SYS`, shared messages offered again.
pub(super) struct Nobody;

impl Waiter for Nobody {
    fn taken(&self) {}
}

/// One offer while it is being routed.
struct Routing {
    reason: ReasonCode,
    reached: bool,
    ticket: Option<Arc<Ticket>>,
}

/// Whether a message may be kept for durable receivers, or retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// A bound is reached, of the message itself or of what would keep it.
    Refused(ReasonCode),
    /// The log takes nothing for the moment.
    Congested,
}

/// What of a run must be committed before it is delivered to live receivers and answered.
#[derive(Debug, Default)]
pub struct Durable {
    pub commands: Vec<Command>,
    /// Which offer each command is of.
    pub of: Vec<usize>,
}

impl Dispatch {
    /// Asks once for each publication, before it is offered. `received`: its packet id joins a receive set, so that the
    /// log takes it in any case.
    #[must_use]
    pub fn admit(&self, routes: &Routes, publication: &Publication, received: bool) -> Admission {
        let matched = routes.durable_for(publication);
        if !matched && !publication.retain && !received {
            return Admission::Open;
        }
        if publication.payload.len() > self.durable_payload_bytes_max {
            return Admission::Refused(ReasonCode::PacketTooLarge);
        }
        if self.replica.congested() && !publication.payload.is_empty() {
            return Admission::Congested;
        }
        if matched {
            let state = self.replica.read();
            let admitted =
                state.admit(&publication.topic, publication.qos, publication.origin.as_ref(), publication.bytes());
            if let Err(reason) = admitted {
                return Admission::Refused(reason);
            }
        }
        Admission::Open
    }

    /// What the log must have of a run: durable matches, retained messages, QoS 2 packet ids of persistent sessions.
    #[must_use]
    pub fn durable(&self, publisher: &Receiver, routes: &Routes, offers: &[Offer]) -> Durable {
        let mut durable = Durable::default();
        for (at, offer) in offers.iter().enumerate() {
            let publication = &offer.publication;
            if offer.refused.is_some() {
                if publication.qos == QoS::AtMostOnce {
                    self.metrics.retained_refused.inc();
                }
                continue;
            }
            let retained = publication.retain && publication.qos != QoS::AtMostOnce;
            let command = if routes.durable_for(publication) || offer.received.is_some() || retained {
                let received = offer.received.clone();
                // Detached: the log remembers it for a while, and must not pin what it was read with.
                let publication = Arc::new(publication.detached());
                let epoch = Some(publisher.epoch());
                Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch }))
            } else if publication.retain {
                Command::SetRetained(Arc::new(publication.detached()))
            } else {
                continue;
            };
            durable.commands.push(command);
            durable.of.push(at);
        }
        durable
    }

    /// Delivers a run to live receivers, in order, after what it proposed has been committed. Leaves one answer per
    /// offer. `of` and `committed` are those of [`Dispatch::durable`]'s commands.
    pub fn offer(
        &self,
        publisher: &Arc<Receiver>,
        routes: &Arc<Routes>,
        offers: &[Offer],
        of: &[usize],
        committed: Committed,
        answers: &mut Vec<Accepted>,
    ) {
        let outcomes = match committed {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // Nobody knows whether the log has them, so nobody is told anything: the publishers ask again.
                tracing::error!(%error, "publishes not committed");
                answers.extend(offers.iter().map(|_| Accepted::Later));
                return;
            }
        };
        let refused = |offer: &Offer| offer.refused.filter(|_| offer.publication.qos != QoS::AtMostOnce);
        let begin =
            |offer| Routing { reason: refused(offer).unwrap_or(ReasonCode::Success), reached: false, ticket: None };
        let mut routing: Vec<Routing> = offers.iter().map(begin).collect();
        self.take_outcomes(offers, of, outcomes, &mut routing);
        // A subscriber that came in between has its route, but its copy of the retained messages may be older than what
        // was just set: it gets the message live. All of a run have one topic.
        let fresh = match offers.first() {
            Some(offer) if !of.is_empty() && !routes.current(self.route_versions()) => {
                self.routes_for(&offer.publication.topic)
            }
            _ => routes.clone(),
        };
        let routes = &fresh;
        let now_ms = self.now().mono_ms;
        for target in &routes.targets {
            self.push_run(target, publisher, offers, &mut routing, now_ms);
        }
        for shared in &routes.shared {
            for (offer, routing) in offers.iter().zip(&mut routing) {
                if (shared.durable && offer.publication.qos != QoS::AtMostOnce) || routing.reason.is_error() {
                    continue;
                }
                for member in shared.in_turn() {
                    if self.push_one(member, publisher, offer, routing, (Some(shared.filter.clone()), now_ms)) {
                        break;
                    }
                }
            }
        }
        answers.extend(routing.into_iter().map(|routing| match routing.ticket {
            Some(ticket) => {
                ticket.one_less();
                Accepted::Later
            }
            None if routing.reached || routing.reason.is_error() => Accepted::Now(routing.reason),
            None => Accepted::Now(ReasonCode::NoMatchingSubscribers),
        }));
    }

    fn take_outcomes(&self, offers: &[Offer], of: &[usize], outcomes: Vec<Outcome>, routing: &mut [Routing]) {
        for (at, outcome) in of.iter().zip(outcomes) {
            match outcome {
                Outcome::Published { receivers } => routing[*at].reached |= receivers > 0,
                // A publisher of QoS 0 cannot be told, and its message still goes to live receivers.
                Outcome::Refused(_) if offers[*at].publication.qos == QoS::AtMostOnce => {
                    self.metrics.retained_refused.inc();
                }
                Outcome::Refused(reason) => routing[*at].reason = reason,
                Outcome::Stale => routing[*at].reason = ReasonCode::SessionTakenOver,
                _ => {}
            }
        }
    }

    /// Pushes a run of publications to one receiver under one lock.
    fn push_run(
        &self,
        target: &Target,
        publisher: &Arc<Receiver>,
        offers: &[Offer],
        routing: &mut [Routing],
        now_ms: u64,
    ) {
        let mut outbound = target.receiver.outbound();
        let mut pushed_any = false;
        let mut waiting = false;
        for (offer, routing) in offers.iter().zip(routing) {
            if routing.reason.is_error() {
                continue;
            }
            let Some(delivery) = target.delivery(&offer.publication) else { continue };
            let pushed = outbound.push(delivery, None, now_ms, || waiter(publisher, offer, routing));
            pushed_any |= pushed != Pushed::Gone;
            waiting |= pushed == Pushed::Waiting;
            routing.reached |= pushed != Pushed::Gone;
        }
        drop(outbound);
        if waiting {
            self.note_stalled(&target.receiver);
        }
        if pushed_any {
            target.receiver.signal();
        }
    }

    fn push_one(
        &self,
        target: &Target,
        publisher: &Arc<Receiver>,
        offer: &Offer,
        routing: &mut Routing,
        (group, now_ms): (Group, u64),
    ) -> bool {
        let delivery = target.shared_delivery(&offer.publication);
        let pushed = target.receiver.outbound().push(delivery, group, now_ms, || waiter(publisher, offer, routing));
        self.note_pushed(&target.receiver, &pushed);
        routing.reached |= pushed != Pushed::Gone;
        pushed != Pushed::Gone
    }

    /// Has a receiver look at what was pushed, and watches it if somebody waits.
    pub(super) fn note_pushed(&self, receiver: &Arc<Receiver>, pushed: &Pushed) {
        if *pushed == Pushed::Waiting {
            self.note_stalled(receiver);
        }
        if *pushed != Pushed::Gone {
            receiver.signal();
        }
    }

    fn note_stalled(&self, receiver: &Arc<Receiver>) {
        if receiver.begin_stall() {
            self.stalled.lock().push(receiver.clone());
        }
    }

    /// Offers a shared message to whichever live member takes it; `false` if none does.
    pub(super) fn push_to_group(&self, routes: &Routes, orphan: &Orphan) -> bool {
        let now_ms = self.now().mono_ms;
        let groups = routes.shared.iter().filter(|shared| shared.filter == orphan.filter);
        for member in groups.flat_map(|shared| shared.in_turn()) {
            let delivery = member.shared_delivery(&orphan.publication);
            if member.receiver.persistent() && delivery.qos != QoS::AtMostOnce {
                // Its packet ids belong to its durable queue.
                continue;
            }
            let group = Some(orphan.filter.clone());
            let pushed = member.receiver.outbound().push(delivery, group, now_ms, || Box::new(Nobody));
            self.note_pushed(&member.receiver, &pushed);
            if pushed != Pushed::Gone {
                return true;
            }
        }
        false
    }

    /// Serves this node's live receivers with a message that has no publisher here: a will, or `$SYS`.
    pub fn publish_live(&self, publication: &Arc<Publication>) {
        let routes = self.routes_for(&publication.topic);
        let now_ms = self.now().mono_ms;
        for target in &routes.targets {
            if let Some(delivery) = target.delivery(publication) {
                let pushed = target.receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
                self.note_pushed(&target.receiver, &pushed);
            }
        }
        for shared in &routes.shared {
            if !shared.durable || publication.qos == QoS::AtMostOnce {
                self.push_to_group(
                    &routes,
                    &Orphan { filter: shared.filter.clone(), publication: publication.clone() },
                );
            }
        }
    }
}

fn waiter(publisher: &Arc<Receiver>, offer: &Offer, routing: &mut Routing) -> Box<dyn Waiter> {
    let Some(token) = offer.token else { return Box::new(Nobody) };
    let ticket = routing.ticket.get_or_insert_with(|| {
        // One for the router itself, given back when all receivers have been offered the message.
        Arc::new(Ticket { publisher: publisher.clone(), token, left: AtomicUsize::new(1) })
    });
    ticket.left.fetch_add(1, Ordering::AcqRel);
    Box::new(Waits(ticket.clone()))
}

impl Target {
    /// This receiver's live share of a publication; `None` where it gets it from the durable queue, or not at all.
    fn delivery(&self, publication: &Arc<Publication>) -> Option<Delivery> {
        let own = || publication.origin.as_ref().is_some_and(|origin| origin.same(self.receiver.key()));
        let share = match &self.own {
            // [v5 MQTT-3.8.3-3] what a client publishes itself counts only for its subscriptions that are not no-local.
            Some(share) if own() => share.as_ref()?,
            _ => &self.all,
        };
        let delivery = share.delivery(publication);
        let durable = self.receiver.persistent() && delivery.qos != QoS::AtMostOnce;
        (!durable).then_some(delivery)
    }

    /// A member's share: shared subscriptions are never no-local [v5 MQTT-3.8.3-4].
    fn shared_delivery(&self, publication: &Arc<Publication>) -> Delivery {
        self.all.delivery(publication)
    }
}

impl Share {
    fn delivery(&self, publication: &Arc<Publication>) -> Delivery {
        Delivery {
            publication: publication.clone(),
            qos: self.qos.min(publication.qos),
            // [v5 MQTT-3.3.1-12], [v5 MQTT-3.3.1-13]
            retain: publication.retain && self.retain_as_published,
            subscription_ids: self.subscription_ids.clone(),
        }
    }
}
