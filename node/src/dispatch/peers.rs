//! Publications to other nodes and from them: what is given to a link for whom, what a frame that came in brings to the
//! receivers here, and whom a shared message goes to when its first choice is gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use fulmar_broker::outbound::{DropReason, Orphan, Pushed, Tally, Waiter};
use fulmar_broker::{Publication, SessionKey};
use fulmar_mqtt::QoS;
use parking_lot::Mutex;

use super::Dispatch;
use super::publish::Nobody;
use super::routes::{Away, Member, RouteCache, Routes, Target};
use crate::cluster::Taken;
use crate::cluster::links::record::{self, Record, Records};
use crate::cluster::links::{self, Ended, Ground, Obligation, Run};
use crate::telemetry::metrics::{Kind, Reading};

impl Ground for Dispatch {
    fn run(&self) -> Run {
        self.replica.run()
    }

    fn acts(&self) -> bool {
        self.replica.acts()
    }

    fn while_alive(&self, run: Run, then: &mut dyn FnMut()) {
        let state = self.replica.read();
        if state.runs().any(|known| known.alive && (known.node, known.generation) == run) {
            then();
        }
        drop(state);
    }
}

/// A shared message that was given to a member on another node. If that does not take it, it may go to another one.
struct Chosen {
    dispatch: Weak<Dispatch>,
    orphan: Orphan,
    qos: QoS,
    choice: Choice,
}

/// Who has been tried, and who waits for the message to be taken.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) tried: Vec<SessionKey>,
    pub(super) waiter: Option<Box<dyn Waiter>>,
}

impl Choice {
    fn taken(self) {
        if let Some(waiter) = self.waiter {
            waiter.taken();
        }
    }
}

/// Whether a shared message that ended so may go to another member: one that no member was given may, and one of QoS 1
/// that a lost node may have given away [v5 MQTT-4.8.2-4]; of QoS 2 that is no other's [v5 MQTT-4.8.2-5].
fn is_offered_again(how: Ended, qos: QoS) -> bool {
    match how {
        Ended::Taken => false,
        Ended::Gone => true,
        Ended::NodeLost => qos == QoS::AtLeastOnce,
    }
}

impl Obligation for Chosen {
    fn ended(self: Box<Self>, how: Ended) {
        let Chosen { dispatch, orphan, qos, choice } = *self;
        match dispatch.upgrade().filter(|_| is_offered_again(how, qos)) {
            Some(dispatch) => dispatch.choose_again(&orphan, choice),
            None => choice.taken(),
        }
    }
}

/// A frame whose records wait for receivers here.
struct Arrival {
    left: AtomicUsize,
    ending: Mutex<Option<(Taken, Vec<u32>)>>,
}

impl Arrival {
    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some((taken, gone)) = self.ending.lock().take()
        {
            taken(gone);
        }
    }

    fn waiter(self: &Arc<Self>) -> Box<dyn Waiter> {
        self.left.fetch_add(1, Ordering::AcqRel);
        Box::new(Arrives(self.clone()))
    }

    fn gone(&self, place: u32) {
        if let Some((_, gone)) = &mut *self.ending.lock() {
            gone.push(place);
        }
    }
}

struct Arrives(Arc<Arrival>);

impl Waiter for Arrives {
    fn taken(&self) {
        self.0.one_less();
    }
}

impl Dispatch {
    /// Gives a shared message to a member on another node; `false` if that node's run has ended.
    pub(super) fn push_away(
        &self,
        away: &Away,
        publication: &Arc<Publication>,
        choice: impl FnOnce() -> Choice,
    ) -> bool {
        let qos = publication.qos.min(away.granted);
        let obligation = || -> Option<Box<dyn Obligation>> {
            if publication.qos == QoS::AtMostOnce {
                return None;
            }
            let mut choice = choice();
            choice.tried.push(away.member.key.clone());
            let orphan = Orphan { filter: away.member.filter.clone(), publication: publication.clone() };
            Some(Box::new(Chosen { dispatch: self.this.clone(), orphan, qos, choice }))
        };
        let taken = away.link.begin().push(publication, Some(&away.member), obligation) != links::Pushed::Gone;
        if taken {
            self.forwarded(publication, away.link.to().0);
        }
        taken
    }

    /// Offers messages of shared subscriptions whose receiver is gone to other members.
    pub(crate) fn offer_again(&self, orphans: Vec<Orphan>) {
        for orphan in orphans {
            self.choose_again(&orphan, Choice::default());
        }
    }

    /// Offers a shared message to a member that was not tried; if there is none, that is its end.
    pub(super) fn choose_again(&self, orphan: &Orphan, mut choice: Choice) {
        let routes = self.routes_for(&orphan.publication.topic);
        if !self.push_to_group(&routes, orphan, &mut choice) {
            if choice.tried.is_empty() {
                // It was booked as reassigned, and there is nobody: the loss gets its name.
                let mut tally = Tally::default();
                tally.created[1] = 1;
                tally.dropped[1][DropReason::SessionEnded as usize] = 1;
                self.metrics.add_tally(&tally);
            }
            choice.taken();
        }
    }

    /// Offers a shared message to whichever live member takes it, and leaves the choice with it; `false` if none does.
    pub(super) fn push_to_group(&self, routes: &Routes, orphan: &Orphan, choice: &mut Choice) -> bool {
        let now_ms = self.now().mono_ms;
        let group = routes.shared.iter().find(|shared| shared.filter == orphan.filter);
        for member in group.into_iter().flat_map(|shared| shared.in_turn()) {
            if choice.tried.contains(member.key()) {
                continue;
            }
            match member {
                Member::Here(target) => {
                    if self.push_here(target, orphan, choice, now_ms) {
                        return true;
                    }
                }
                Member::There(away) => {
                    if self.push_away(away, &orphan.publication, || std::mem::take(choice)) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn push_here(&self, target: &Target, orphan: &Orphan, choice: &mut Choice, now_ms: u64) -> bool {
        let delivery = target.shared_delivery(&orphan.publication);
        if target.receiver.persistent() && delivery.qos != QoS::AtMostOnce {
            // Its packet ids belong to its durable queue.
            return false;
        }
        let group = Some(orphan.filter.clone());
        let waiter = || choice.waiter.take().unwrap_or_else(|| Box::new(Nobody));
        let pushed = target.receiver.outbound().push(delivery, group, now_ms, waiter);
        self.note_pushed(&target.receiver, &pushed);
        if pushed == Pushed::Taken {
            std::mem::take(choice).taken();
        }
        pushed != Pushed::Gone
    }

    /// Gives what a frame brings to the receivers here; it is taken when all of QoS > 0 have a place for it.
    pub(super) fn deliver_frame(&self, from: Run, frame: Bytes, taken: Taken) {
        let forgotten = || -> bool {
            fail::fail_point!("dispatch::forget_frame", |_| true);
            false
        };
        if forgotten() {
            return taken(Vec::new());
        }
        let records = match Records::new(frame) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(?from, %error, "a frame cannot be read");
                return;
            }
        };
        let ending = Mutex::new(Some((taken, Vec::new())));
        // One for the frame itself, given back when all receivers have been offered everything.
        let arrival = Arc::new(Arrival { left: AtomicUsize::new(1), ending });
        // One stream at a time comes from a run, so nobody misses its cache.
        let mut cache = self.arrivals.lock().remove(&from).unwrap_or_default();
        let versions = self.route_versions();
        let mut run: Vec<Arc<Publication>> = Vec::new();
        for (place, record) in (0u32..).zip(records) {
            match record {
                Ok(Record { publication, member: None }) => {
                    self.came_from(&publication, from.0);
                    if run.first().is_some_and(|first| first.topic != publication.topic) {
                        self.deliver_run(&mut run, &arrival, &mut cache, versions);
                    }
                    run.push(publication);
                }
                Ok(Record { publication, member: Some(member) }) => {
                    self.came_from(&publication, from.0);
                    self.deliver_run(&mut run, &arrival, &mut cache, versions);
                    let routes = self.routes_cached(&mut cache, versions, &publication.topic);
                    if !self.deliver_to_member(&routes, &publication, &member, &arrival) {
                        arrival.gone(place);
                    }
                }
                Err(error) => {
                    tracing::error!(?from, %error, "a frame cannot be read to its end");
                    break;
                }
            }
        }
        self.deliver_run(&mut run, &arrival, &mut cache, versions);
        self.arrivals.lock().insert(from, cache);
        arrival.one_less();
    }

    /// Messages of one topic, to every live receiver here that matches; shared ones were chosen where they came from.
    fn deliver_run(
        &self,
        run: &mut Vec<Arc<Publication>>,
        arrival: &Arc<Arrival>,
        cache: &mut RouteCache,
        versions: (u64, u64),
    ) {
        let Some(first) = run.first() else { return };
        let routes = self.routes_cached(cache, versions, &first.topic);
        let now_ms = self.now().mono_ms;
        for target in &routes.targets {
            let mut outbound = target.receiver.outbound();
            let (mut any, mut waiting) = (false, false);
            for publication in &*run {
                let Some(delivery) = target.delivery(publication) else { continue };
                let pushed = outbound.push(delivery, None, now_ms, || arrival.waiter());
                any |= pushed != Pushed::Gone;
                waiting |= pushed == Pushed::Waiting;
            }
            let notes = outbound.take_notes();
            drop(outbound);
            if let Some(notes) = notes {
                self.insight.take(&target.receiver, &notes, now_ms);
            }
            self.note_run(&target.receiver, any, waiting);
        }
        run.clear();
    }

    /// A shared message for one member; `false` if it is not connected here under that claim, or subscribes no more.
    fn deliver_to_member(
        &self,
        routes: &Routes,
        publication: &Arc<Publication>,
        member: &record::Member,
        arrival: &Arc<Arrival>,
    ) -> bool {
        let group = routes.shared.iter().find(|shared| shared.filter == member.filter);
        let is_meant =
            |target: &&Target| target.receiver.epoch() == member.epoch && target.receiver.key().same(&member.key);
        let found = group.and_then(|group| group.members.iter().filter_map(Member::here).find(is_meant));
        let Some(target) = found else { return false };
        let delivery = target.shared_delivery(publication);
        if target.receiver.persistent() && delivery.qos != QoS::AtMostOnce {
            return false; // the group has become durable since: its packet ids belong to its queue
        }
        let now_ms = self.now().mono_ms;
        let group = Some(member.filter.clone());
        let pushed = target.receiver.outbound().push(delivery, group, now_ms, || arrival.waiter());
        self.note_pushed(&target.receiver, &pushed);
        pushed != Pushed::Gone
    }

    /// Begins to reach other nodes. Once; not in a cluster that stays of one node.
    pub(super) fn connect(&self) {
        self.links.connect(self.replica.peers().clone());
        // Held meanwhile: no run ends that a link is made to.
        let state = self.replica.read();
        for run in state.runs().filter(|run| run.alive) {
            // Whoever sends to it finds it there.
            let _ = self.links.to((run.node, run.generation));
        }
        drop(state);
        self.routes_changed();
    }

    pub(super) fn forget_arrivals(&self, from: Run) {
        self.arrivals.lock().remove(&from);
    }

    /// Has links to exactly the runs that are alive. Called where entries are applied.
    pub(super) fn link_up(&self) {
        let alive: Vec<Run> = {
            let state = self.replica.read();
            state.runs().filter(|run| run.alive).map(|run| (run.node, run.generation)).collect()
        };
        self.links.keep_only(&alive);
        self.arrivals.lock().retain(|run, _| alive.contains(run));
    }

    /// What links come to, for `/metrics`.
    #[must_use]
    pub fn peer_readings(&self) -> Vec<Reading> {
        let figures = self.links.figures();
        let dropped = [
            ("node_lost", figures.books.node_lost),
            ("gone", figures.books.gone),
            ("queue_full", figures.books.queue_full),
        ];
        vec![
            Reading::new("announced_filters", "Filters that other nodes are told of", self.announced_count() as u64),
            Reading::new("peer_links", "Runs of other nodes that messages may go to", figures.links),
            Reading::new("peer_streams_up", "Runs of other nodes that are reached", figures.up),
            Reading::new("peer_bytes", "Bytes that other nodes have not acknowledged", figures.bytes),
            Reading::counter("peer_frames_sent", "Frames given to streams, also again", figures.frames_sent),
            Reading::counter("peer_frames_received", "Frames of other nodes", figures.frames_received),
            Reading::counter("peer_frames_repeated", "Frames that had come before", figures.frames_repeated),
            Reading::new("peer_frames_pending", "Frames that wait for receivers here", figures.frames_pending),
            Reading::counter("peer_forwarded", "Messages of QoS 1 and 2 given to other nodes", figures.books.forwarded),
            Reading::counter(
                "peer_confirmed",
                "Messages of QoS 1 and 2 that other nodes have taken",
                figures.books.confirmed,
            ),
            Reading::by(
                "reason",
                (
                    "peer_dropped",
                    Kind::Counter,
                    "Messages for other nodes that were lost or dropped; queue_full are messages of QoS 0",
                ),
                dropped,
            ),
            Reading::new(
                "peer_open",
                "Messages of QoS 1 and 2 given to other nodes and not acknowledged",
                figures.open,
            ),
            Reading::new(
                "peer_obligations_unaccounted",
                "Messages given to other nodes that are neither confirmed, dropped nor open; never other than 0",
                u64::try_from(figures.unaccounted().unsigned_abs()).unwrap_or(u64::MAX),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_member_was_given_goes_to_another_one() {
        use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        for (qos, node_lost) in [(AtMostOnce, false), (AtLeastOnce, true), (ExactlyOnce, false)] {
            assert!(is_offered_again(Ended::Gone, qos));
            assert!(!is_offered_again(Ended::Taken, qos));
            assert_eq!(is_offered_again(Ended::NodeLost, qos), node_lost);
        }
    }
}
