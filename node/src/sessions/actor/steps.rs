//! What a session waits for: its proposals, in order, and what is done once the log has answered them.

use std::sync::Arc;

use fulmar_broker::session::{Input, PAUSE_MS_MAX, Token};
use fulmar_broker::state::command::{Command, Outcome, Subscription};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};

use super::{Answer, Hold, State, Work};
use crate::cluster::Committed;
use crate::dispatch::{Offer, Routes};

/// What is done once the log has answered. A step that proposed nothing waits only for those before it.
pub(super) enum Step {
    Run { run: Vec<Offer>, routes: Arc<Routes>, proposed: Option<Vec<usize>> },
    Released { packet_id: u16 },
    Subscribed { token: Token, subscriptions: Vec<Subscription>, known: Vec<bool> },
    Unsubscribed { token: Token, known: Vec<bool> },
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
                    tracing::error!(%key, %error, "end of connection not committed");
                }
            }),
        );
    }

    /// Has commands of this session committed; the step is taken when they are. `retained`: with the retained messages
    /// as of then.
    pub(super) fn propose(&mut self, commands: Vec<Command>, step: Step, retained: bool) {
        self.awaiting.push_back(step);
        let (receiver, dispatch) = (self.receiver.clone(), self.dispatch.clone());
        self.dispatch.replica().propose(
            commands,
            Box::new(move |committed| {
                // Nothing later is applied before this returns: the copy is that of the commit.
                let retained = retained.then(|| dispatch.replica().read().retained().clone());
                receiver.tell(|port| port.committed(committed, retained));
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
            self.take_step(step, Answer { committed: Ok(Vec::new()), retained: None }, work);
        }
    }

    fn take_step(&mut self, step: Step, answer: Answer, work: &mut Work) {
        let Answer { committed, retained } = answer;
        match step {
            Step::Run { run, routes, proposed } => {
                self.awaited_offers -= run.len();
                self.awaited_qos_0 -= run.iter().filter(|offer| offer.publication.qos == QoS::AtMostOnce).count();
                self.deliver(&run, &routes, &proposed.unwrap_or_default(), committed, work);
            }
            Step::Released { packet_id } => {
                if self.done(committed, work).is_some() {
                    self.input(Input::Released { packet_id }, work);
                }
            }
            Step::Subscribed { token, subscriptions, known } => {
                self.hold = Hold::Nothing;
                let Some(outcomes) = self.done(committed, work) else { return };
                let existed = match outcomes.into_iter().next() {
                    Some(Outcome::Subscribed(applied)) if self.session.persistent() => applied,
                    _ => known,
                };
                work.retained = retained;
                self.subscribed(token, &subscriptions, existed, work);
                work.retained = None;
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
                tracing::error!(key = %self.receiver.key(), %error, "command not committed");
                ReasonCode::UnspecifiedError
            }
        };
        self.input(Input::Close(failure), work);
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
        // A clean session's filters end with its socket; only shared ones must be known to all.
        let logged: Vec<Subscription> =
            subscriptions.iter().filter(|s| persistent || s.filter.shared().is_some()).cloned().collect();
        if logged.is_empty() {
            self.subscribed(token, &subscriptions, known, work);
            return;
        }
        self.hold = Hold::Commit;
        let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
        let command = Command::Subscribe { key, epoch, filters: logged };
        self.propose(vec![command], Step::Subscribed { token, subscriptions, known }, true);
    }

    /// Makes subscriptions live and answers with SUBACK.
    fn subscribed(&mut self, token: Token, subscriptions: &[Subscription], existed: Vec<bool>, work: &mut Work) {
        if self.session.ended() {
            return; // nobody would take the routes away again
        }
        // Until the retained messages are on their way, nothing live overtakes them.
        self.receiver.outbound().set_replaying(true);
        self.dispatch.subscribe(&self.receiver, subscriptions);
        work.versions = self.dispatch.route_versions();
        let mut outputs = Vec::new();
        self.session.handle(work.now, Input::Subscribed { token, existed }, &mut outputs);
        // SUBACK and replays, before what else is queued: that is how long live messages are held.
        for output in outputs {
            self.carry_out(output, work);
        }
        self.write_control(work);
        self.dispatch.release_hold(&self.receiver);
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
