//! Accepting publications: durable receivers by one proposal, live ones by one push each, and the word to the
//! publisher once all that must take a message have taken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_broker::insight::What;
use fulmar_broker::outbound::{Group, Orphan, Pushed, Waiter};
use fulmar_broker::session::Token;
use fulmar_broker::state::command::{Command, Outcome, PublishCommand};
use fulmar_broker::{Epoch, Publication, SessionKey};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};

use super::Dispatch;
use super::peers::Choice;
use super::receiver::{Receiver, Since};
use super::routes::{Away, Member, Routes, Share, Target};
use crate::cluster::Committed;
use crate::cluster::links::{self, Ended, Link, Obligation};

/// A publication on offer, with what its publisher waits for.
#[derive(Debug)]
pub struct Offer {
    pub publication: Arc<Publication>,
    pub token: Option<Token>,
    /// QoS 2 from a persistent session: the packet id that joins its receive set with the message.
    pub received: Option<(SessionKey, Epoch, u16)>,
    /// The bound that does not let it be kept. At QoS 0 it still goes to live receivers.
    pub refused: Option<ReasonCode>,
    pub since: Since,
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
    since: Since,
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
            self.publisher.tell(|port| port.accepted(self.token, Some(self.since)));
        }
    }
}

struct Waits(Arc<Ticket>);

impl Waiter for Waits {
    fn taken(&self) {
        self.0.one_less();
    }
}

impl Obligation for Waits {
    /// Taken or lost with its node, the publisher waits no longer.
    fn ended(self: Box<Self>, _how: Ended) {
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
    /// Shared subscriptions of which a member has got it through the log.
    served: Vec<Arc<TopicFilter>>,
    ticket: Option<Arc<Ticket>>,
}

/// Whether a message may be kept for durable receivers, or retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// A bound is reached, of the message itself or of what would keep it.
    Refused(ReasonCode),
    /// The log takes nothing for the moment, or another node that it goes to.
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
        if publication.qos != QoS::AtMostOnce && routes.full() {
            return Admission::Congested;
        }
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
    /// offer. `of` and `committed` are those of [`Dispatch::durable`]'s commands, with the index of their entry.
    pub fn offer(
        &self,
        publisher: &Arc<Receiver>,
        routes: &Arc<Routes>,
        offers: &[Offer],
        of: &[usize],
        (committed, index): (Committed, u64),
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
        let reason = |offer| refused(offer).unwrap_or(ReasonCode::Success);
        let begin = |offer| Routing { reason: reason(offer), reached: false, served: Vec::new(), ticket: None };
        let mut routing: Vec<Routing> = offers.iter().map(begin).collect();
        self.note_outcomes(offers, of, &outcomes, index);
        self.take_outcomes(offers, of, outcomes, &mut routing);
        self.note_refused(publisher, offers, &routing);
        if !of.is_empty() && self.links().connected() {
            self.await_stable(publisher, offers, of, index, &mut routing);
        }
        // A subscriber that came in between has its route, but its copy of the retained messages may be older than what
        // was just set: it gets the message live. All of a run have one topic.
        let fresh = match offers.first() {
            Some(offer) if !of.is_empty() && !routes.current(self.route_versions()) => {
                self.routes_for(&offer.publication.topic)
            }
            _ => routes.clone(),
        };
        let (routes, now_ms) = (&fresh, self.now().mono_ms);
        if let Some(first) = offers.first() {
            let bytes = || offers.iter().map(|offer| offer.publication.bytes() as u64).sum();
            self.insight.used(&first.publication.topic, offers.len() as u64, bytes, now_ms);
        }
        for target in &routes.targets {
            self.push_run(target, publisher, offers, &mut routing, now_ms);
        }
        for link in routes.all_peers() {
            self.push_run_away(link, publisher, routes, offers, &mut routing);
        }
        for shared in &routes.shared {
            for (offer, routing) in offers.iter().zip(&mut routing) {
                // What the log has decided counts, not what the group is by now.
                if routing.served.contains(&shared.filter) || routing.reason.is_error() {
                    continue;
                }
                for member in shared.in_turn() {
                    let taken = match member {
                        Member::Here(target) => {
                            self.push_one(target, publisher, offer, routing, (Some(shared.filter.clone()), now_ms))
                        }
                        Member::There(away) => self.push_one_away(away, publisher, offer, routing),
                    };
                    if taken {
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
                Outcome::Shared { receivers, groups } => {
                    (routing[*at].reached, routing[*at].served) = (receivers > 0, groups)
                }
                // A publisher of QoS 0 cannot be told, and its message still goes to live receivers.
                Outcome::Refused(_) if offers[*at].publication.qos == QoS::AtMostOnce => {
                    self.metrics.retained_refused.inc();
                }
                Outcome::Refused(reason) => routing[*at].reason = reason,
                Outcome::Stale => {
                    self.metrics.stale_refused.inc();
                    routing[*at].reason = ReasonCode::SessionTakenOver;
                }
                _ => {}
            }
        }
    }

    /// Writes down what a publisher was refused: rare, and for whoever asks why.
    fn note_refused(&self, publisher: &Receiver, offers: &[Offer], routing: &[Routing]) {
        for (offer, routing) in offers.iter().zip(routing) {
            if routing.reason.is_error() {
                let (reason, topic) = (routing.reason.text(), offer.publication.topic.as_str());
                let (client, epoch) = (publisher.key().identity(), publisher.epoch().0);
                self.insight.note(client, What::PublishRefused, reason, topic, epoch);
                self.insight.dropped(offer.publication.trace, client, epoch, reason);
            }
        }
    }

    /// Has what was retained wait until every node has it: whoever subscribes from then on, wherever, is sent it.
    fn await_stable(
        &self,
        publisher: &Arc<Receiver>,
        offers: &[Offer],
        of: &[usize],
        index: u64,
        routing: &mut [Routing],
    ) {
        let mut waiters: Vec<Box<dyn Waiter>> = Vec::new();
        for at in of {
            let (offer, routing) = (&offers[*at], &mut routing[*at]);
            if offer.publication.retain && offer.token.is_some() && !routing.reason.is_error() {
                waiters.push(waiter(publisher, offer, routing));
            }
        }
        if !waiters.is_empty() {
            let told = Box::new(move || waiters.iter().for_each(|waiter| waiter.taken()));
            self.replica.when_stable(index, told);
        }
    }

    /// Gives a run of publications to another node under one lock.
    fn push_run_away(
        &self,
        link: &Arc<Link>,
        publisher: &Arc<Receiver>,
        routes: &Routes,
        offers: &[Offer],
        routing: &mut [Routing],
    ) {
        // To some nodes only QoS 0 goes: what has more comes to their sessions through the log.
        let above_0 = routes.peers(QoS::AtLeastOnce).iter().any(|peer| Arc::ptr_eq(peer, link));
        let mut pushing = link.begin();
        for (offer, routing) in offers.iter().zip(routing) {
            let at_most_once = offer.publication.qos == QoS::AtMostOnce;
            if routing.reason.is_error() || !(at_most_once || above_0) {
                continue;
            }
            let obligation =
                || waits(publisher, offer, routing).map(|waits| -> Box<dyn Obligation> { Box::new(waits) });
            let pushed = pushing.push(&offer.publication, None, obligation);
            routing.reached |= pushed != links::Pushed::Gone;
            if pushed != links::Pushed::Gone {
                self.forwarded(&offer.publication, link.to().0);
            }
        }
    }

    fn push_one_away(&self, away: &Away, publisher: &Arc<Receiver>, offer: &Offer, routing: &mut Routing) -> bool {
        let choice = || {
            let waiter = waits(publisher, offer, routing).map(|waits| -> Box<dyn Waiter> { Box::new(waits) });
            Choice { tried: Vec::new(), waiter }
        };
        let taken = self.push_away(away, &offer.publication, choice);
        routing.reached |= taken;
        taken
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
        let notes = outbound.take_notes();
        drop(outbound);
        if let Some(notes) = notes {
            self.insight.take(&target.receiver, &notes, now_ms);
        }
        self.note_run(&target.receiver, pushed_any, waiting);
    }

    /// As [`Dispatch::note_pushed`], after several pushes: whether any was taken, and whether any waits.
    pub(super) fn note_run(&self, receiver: &Arc<Receiver>, any: bool, waiting: bool) {
        if waiting {
            self.note_stalled(receiver);
        }
        if any {
            receiver.signal();
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
        if target.receiver.persistent() && delivery.qos != QoS::AtMostOnce {
            return false; // it came after the message: its packet ids belong to its durable queue
        }
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

    /// Serves this node's live receivers with a message that has no publisher here, and that no other node has: `$SYS`.
    pub fn publish_live(&self, publication: &Arc<Publication>) {
        let routes = self.routes_for(&publication.topic);
        self.push_to_targets(&routes, publication);
        let now_ms = self.now().mono_ms;
        for shared in &routes.shared {
            for target in shared.in_turn().filter_map(Member::here) {
                let (delivery, group) = (target.shared_delivery(publication), Some(shared.filter.clone()));
                let pushed = target.receiver.outbound().push(delivery, group, now_ms, || Box::new(Nobody));
                self.note_pushed(&target.receiver, &pushed);
                if pushed != Pushed::Gone {
                    break;
                }
            }
        }
    }

    /// As [`Dispatch::publish_live`], for what every node publishes by the same entry of the log: a will. Of a shared
    /// subscription all nodes choose the same member, and only its own node serves it.
    pub(super) fn publish_applied(&self, publication: &Arc<Publication>) {
        self.push_to_targets(&self.routes_for(&publication.topic), publication);
        let turn =
            self.replica.applied().wrapping_add(u64::from(crc32fast::hash(publication.topic.as_str().as_bytes())));
        let chosen: Vec<_> = {
            let state = self.replica.read();
            // Groups with a persistent member are served by apply itself.
            let groups = state.live_groups(&publication.topic, QoS::AtLeastOnce).into_iter();
            let choose = |filter: Arc<TopicFilter>| {
                let mut members = state.shared_members(&filter);
                let count = u64::try_from(members.len()).ok().filter(|count| *count > 0)?;
                let at = usize::try_from(turn % count).unwrap_or_default();
                Some((filter, members.swap_remove(at)))
            };
            groups.filter_map(choose).collect()
        };
        for (filter, member) in chosen {
            let Some(receiver) = self.owned(&member.key, member.owner) else { continue };
            let share = Share {
                qos: member.options.qos,
                retain_as_published: member.options.retain_as_published,
                subscription_ids: member.id.into_iter().collect(),
            };
            let now_ms = self.now().mono_ms;
            let delivery = share.delivery(publication);
            let pushed = receiver.outbound().push(delivery, Some(filter.clone()), now_ms, || Box::new(Nobody));
            self.note_pushed(&receiver, &pushed);
            if pushed == Pushed::Gone {
                let choice = Choice { tried: vec![member.key], waiter: None };
                self.choose_again(&Orphan { filter, publication: publication.clone() }, choice);
            }
        }
    }

    pub(super) fn push_to_targets(&self, routes: &Routes, publication: &Arc<Publication>) {
        let now_ms = self.now().mono_ms;
        for target in &routes.targets {
            if let Some(delivery) = target.delivery(publication) {
                let pushed = target.receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
                self.note_pushed(&target.receiver, &pushed);
            }
        }
    }
}

/// One more receiver that the publisher of an offer waits for, if it waits at all.
fn waits(publisher: &Arc<Receiver>, offer: &Offer, routing: &mut Routing) -> Option<Waits> {
    let token = offer.token?;
    let ticket = routing.ticket.get_or_insert_with(|| {
        // One for the router itself, given back when all receivers have been offered the message.
        Arc::new(Ticket { publisher: publisher.clone(), token, since: offer.since, left: AtomicUsize::new(1) })
    });
    ticket.left.fetch_add(1, Ordering::AcqRel);
    Some(Waits(ticket.clone()))
}

fn waiter(publisher: &Arc<Receiver>, offer: &Offer, routing: &mut Routing) -> Box<dyn Waiter> {
    match waits(publisher, offer, routing) {
        Some(waits) => Box::new(waits),
        None => Box::new(Nobody),
    }
}
