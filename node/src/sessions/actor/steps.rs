//! What a session waits for: its proposals, in order, and what is done once the log has answered them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fulmar_broker::Now;
use fulmar_broker::retained::Retained;
use fulmar_broker::session::{Input, PAUSE_MS_MAX, Token};
use fulmar_broker::state::command::{Command, LiveRoutes, Outcome, Subscription};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};

use super::{Answer, Hold, State, Work};
use crate::cluster::Committed;
use crate::dispatch::{Announcing, Offer, Routes};

/// What is done once the log has answered. A step that proposed nothing waits only for those before it.
pub(super) enum Step {
    Run { run: Vec<Offer>, routes: Arc<Routes>, proposed: Option<Vec<usize>> },
    Released { packet_id: u16 },
    Subscribed { subscribed: Box<Subscribed>, announcing: Announcing },
    Unsubscribed { token: Token, known: Vec<bool> },
}

/// A subscribe on its way to its SUBACK.
pub(super) struct Subscribed {
    token: Token,
    subscriptions: Vec<Subscription>,
    /// For each, whether the session had it before.
    existed: Vec<bool>,
    /// As of its commit.
    retained: Option<Retained>,
}

impl Step {
    pub(super) fn proposed(&self) -> bool {
        !matches!(self, Step::Run { proposed: None, .. })
    }
}

impl State {
    /// Tries the publication that found no room again; once it has waited for as long as a client may be, it is refused,
    /// and so is what follows and finds none.
    pub(super) fn look_for_room(&mut self, work: &mut Work) {
        let Hold::Room(since_ms) = self.hold else { return };
        self.session.heard(work.now);
        let over = work.now.mono_ms.saturating_sub(since_ms) >= PAUSE_MS_MAX;
        let held = self.queue.len();
        loop {
            self.hold = Hold::Nothing;
            work.gives_up = over;
            self.carry_out_all(work);
            match &mut self.hold {
                Hold::Room(_) if over => {}
                Hold::Room(at_ms) => {
                    if self.queue.len() >= held {
                        *at_ms = since_ms; // it is still the same one that waits
                    }
                    return;
                }
                _ => return,
            }
        }
    }

    /// Ends the connection in the log, once nothing before it is awaited.
    pub(super) fn propose_last(&mut self) {
        let Some(release) = self.last.take() else { return };
        let key = release.key.clone();
        self.dispatch.replica().propose(
            vec![Command::Release(release)],
            Box::new(move |committed| {
                if let Err(error) = committed {
                    tracing::error!(client = %key, %error, "end of connection not committed");
                }
            }),
        );
        // Now, for whoever does not find it claims the session behind that.
        self.dispatch.unregister(&self.receiver);
    }

    /// Has commands of this session committed; the step is taken when they are. `retained`: with the retained messages
    /// as of then.
    pub(super) fn propose(&mut self, commands: Vec<Command>, step: Step, retained: bool) {
        self.awaiting.push_back(step);
        let (receiver, dispatch) = (self.receiver.clone(), self.dispatch.clone());
        self.dispatch.replica().propose(
            commands,
            Box::new(move |committed| {
                // Nothing later is applied before this returns: index and copy are those of the commit.
                let index = dispatch.replica().applied();
                let retained = retained.then(|| dispatch.replica().read().retained().clone());
                receiver.tell(|port| port.committed(committed, index, retained));
            }),
        );
    }

    /// The log has answered the first step that asked it; those behind it that did not ask are taken too.
    pub(super) fn committed(&mut self, answer: Answer, work: &mut Work) {
        debug_assert!(self.awaiting.front().is_some_and(Step::proposed), "only who asked is answered");
        if let Some(step) = self.awaiting.pop_front() {
            self.take_step(step, answer, work);
        }
        while self.awaiting.front().is_some_and(|step| !step.proposed())
            && let Some(step) = self.awaiting.pop_front()
        {
            self.take_step(step, Answer { committed: Ok(Vec::new()), index: 0, retained: None }, work);
        }
    }

    fn take_step(&mut self, step: Step, answer: Answer, work: &mut Work) {
        let Answer { committed, index, retained } = answer;
        match step {
            Step::Run { run, routes, proposed } => {
                self.awaited_offers -= run.len();
                self.awaited_qos_0 -= run.iter().filter(|offer| offer.publication.qos == QoS::AtMostOnce).count();
                self.deliver(&run, &routes, &proposed.unwrap_or_default(), (committed, index), work);
            }
            Step::Released { packet_id } => {
                if self.done(committed, work).is_some() {
                    self.input(Input::Released { packet_id }, work);
                }
            }
            Step::Subscribed { mut subscribed, announcing } => {
                let Some(outcomes) = self.done(committed, work) else {
                    self.hold = Hold::Nothing;
                    return;
                };
                if let Some(Outcome::Subscribed(applied)) = outcomes.into_iter().next()
                    && self.session.persistent()
                {
                    subscribed.existed = applied;
                }
                subscribed.retained = retained;
                self.dispatch.announced(&announcing, index);
                self.settle(subscribed, index.max(announcing.index), work);
            }
            Step::Unsubscribed { token, known } => {
                self.hold = Hold::Nothing;
                let Some(outcomes) = self.done(committed, work) else { return };
                let existed = match outcomes.into_iter().next() {
                    Some(Outcome::Unsubscribed(applied)) if self.session.persistent() => applied,
                    _ => known,
                };
                self.unsubscribed(token, existed, work);
            }
        }
    }

    /// What commands came to; a failure ends the connection, so that nothing is acknowledged.
    fn done(&mut self, committed: Committed, work: &mut Work) -> Option<Vec<Outcome>> {
        let failure = match committed {
            Ok(outcomes) => match outcomes.iter().find_map(refusal) {
                None => return Some(outcomes),
                Some(reason) => reason,
            },
            Err(error) => {
                tracing::error!(client = %self.receiver.key(), %error, "command not committed");
                ReasonCode::UnspecifiedError
            }
        };
        if failure == ReasonCode::SessionTakenOver {
            self.dispatch.metrics().stale_refused.inc();
            self.input(Input::TakenOver, work);
        } else {
            self.input(Input::Close(failure), work);
        }
        None
    }

    pub(super) fn subscribe(
        &mut self,
        token: Token,
        subscriptions: Vec<Subscription>,
        known: Vec<bool>,
        work: &mut Work,
    ) {
        let persistent = self.session.persistent();
        let clustered = self.dispatch.links().connected();
        // A clean session's filters end with its socket; only shared ones are in the state by themselves.
        let logged: Vec<Subscription> =
            subscriptions.iter().filter(|s| persistent || s.filter.shared().is_some()).cloned().collect();
        let mut announcing = Announcing::default();
        if clustered && !persistent {
            // The routes first: a message that another node sends as soon as it knows of them finds them here. That holds
            // for shared ones too: whoever is alone in a group is nobody's second choice.
            self.dispatch.hold(&self.receiver);
            announcing = self.dispatch.announce(&self.receiver, &subscriptions);
        }
        let subscribed = Box::new(Subscribed { token, subscriptions, existed: known, retained: None });
        let mut commands = Vec::new();
        if !logged.is_empty() {
            let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
            commands.push(Command::Subscribe { key, epoch, filters: logged });
        }
        if !announcing.add.is_empty() {
            let ((node, generation), add) = (self.dispatch.replica().run(), announcing.add.clone());
            commands.push(Command::LiveRoutes(Box::new(LiveRoutes { node, generation, add, remove: Vec::new() })));
        }
        if commands.is_empty() {
            self.settle(subscribed, announcing.index, work);
            return;
        }
        self.hold = Hold::Commit;
        self.propose(commands, Step::Subscribed { subscribed, announcing }, true);
    }

    /// Answers a subscribe once every node has applied its entry: what is published after the SUBACK, wherever, comes
    /// here.
    fn settle(&mut self, subscribed: Box<Subscribed>, index: u64, work: &mut Work) {
        self.hold = Hold::Commit;
        self.settling = Some(subscribed);
        if !self.dispatch.links().connected() {
            return self.stable(work);
        }
        // Whoever comes second goes on: mostly that is here.
        let first = Arc::new(AtomicBool::new(true));
        let (receiver, told) = (self.receiver.clone(), first.clone());
        let then = Box::new(move || {
            if !told.swap(false, Ordering::AcqRel) {
                receiver.tell(|port| port.stable());
            }
        });
        self.dispatch.replica().when_stable(index, then);
        if !first.swap(false, Ordering::AcqRel) {
            self.stable(work);
        }
    }

    /// Every node has what the subscribe waited for.
    pub(super) fn stable(&mut self, work: &mut Work) {
        let Some(subscribed) = self.settling.take() else { return };
        self.hold = Hold::Nothing;
        let Subscribed { token, subscriptions, existed, retained } = *subscribed;
        work.retained = retained;
        self.subscribed(token, &subscriptions, existed, work);
        work.retained = None;
    }

    /// Nobody could be heard until now, and nothing was taken: all that is counted begins anew.
    pub(super) fn thawed(&mut self, now: Now) {
        self.session.thawed(now);
        self.thaw_mail(now);
        if let Hold::Room(since_ms) = &mut self.hold {
            *since_ms = now.mono_ms;
        }
    }

    /// Nothing that is awaited will be answered.
    pub(super) fn abandon(&mut self) {
        self.awaiting.clear();
        (self.awaited_offers, self.awaited_qos_0) = (0, 0);
        self.settling = None;
        self.hold = Hold::Nothing;
    }

    /// Makes subscriptions live and answers with SUBACK.
    fn subscribed(&mut self, token: Token, subscriptions: &[Subscription], existed: Vec<bool>, work: &mut Work) {
        if self.session.ended() {
            return; // nobody would take the routes away again
        }
        // Until the retained messages are on their way, nothing live overtakes them.
        self.dispatch.hold(&self.receiver);
        if self.dispatch.links().connected() && !self.session.persistent() {
            // The others have their routes.
            let shared: Vec<Subscription> =
                subscriptions.iter().filter(|s| s.filter.shared().is_some()).cloned().collect();
            self.dispatch.subscribe(&self.receiver, &shared);
        } else {
            self.dispatch.subscribe(&self.receiver, subscriptions);
        }
        work.versions = self.dispatch.route_versions();
        let mut outputs = Vec::new();
        self.session.handle(work.now, Input::Subscribed { token, existed }, &mut outputs);
        // SUBACK and replays, before what else is queued: that is how long live messages are held.
        for output in outputs {
            self.carry_out(output, work);
        }
        self.write_control(work);
        self.dispatch.release_hold(&self.receiver);
        self.look_again_for_mail(work.now);
        self.heard_more(work);
    }

    pub(super) fn unsubscribe(&mut self, token: Token, filters: Vec<TopicFilter>, known: Vec<bool>, work: &mut Work) {
        let persistent = self.session.persistent();
        self.dispatch.unsubscribe(self.receiver.id(), &filters);
        let logged: Vec<TopicFilter> =
            filters.into_iter().filter(|filter| persistent || filter.shared().is_some()).collect();
        if logged.is_empty() {
            self.unsubscribed(token, known, work);
            return;
        }
        self.hold = Hold::Commit;
        let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
        let command = Command::Unsubscribe { key, epoch, filters: logged };
        self.propose(vec![command], Step::Unsubscribed { token, known }, false);
    }

    fn unsubscribed(&mut self, token: Token, existed: Vec<bool>, work: &mut Work) {
        work.versions = self.dispatch.route_versions();
        self.input(Input::Unsubscribed { token, existed }, work);
    }
}

fn refusal(outcome: &Outcome) -> Option<ReasonCode> {
    match outcome {
        Outcome::Refused(reason) => Some(*reason),
        Outcome::Stale => Some(ReasonCode::SessionTakenOver),
        _ => None,
    }
}
