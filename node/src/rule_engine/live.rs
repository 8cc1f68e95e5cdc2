//! The actors of a live rule: one that evaluates, and one for each action, so that a sink that is down holds up nothing
//! but itself. They wait inside a handler: what is sent to them meanwhile is one wake at most.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::compiled::{Compiled, Outlet};
use super::queue::Wake;
use super::sink::Sink;
use crate::cluster::clock::wall_ms;
use crate::dispatch::Dispatch;

/// Events that are evaluated before others have their turn.
const EVENTS_A_TURN: usize = 256;

/// Parcels that a sink is handed at once.
pub(super) const PARCELS_A_TURN: usize = 256;

/// The first pause after a sink has not taken everything; each further one is twice as long, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pauses between tries, which grow until one succeeds.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    tries: u32,
    /// How many have failed at their last try.
    failing: Gauge,
}

impl Pauses {
    pub(super) fn new(dispatch: &Dispatch) -> Pauses {
        Pauses { tries: 0, failing: dispatch.metrics().rule_sinks_failing.clone() }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.tries.min(16)).min(PAUSE_MAX);
        if self.tries == 0 {
            self.failing.inc();
        }
        self.tries = self.tries.saturating_add(1);
        pause
    }

    pub(super) fn reset(&mut self) {
        if self.tries > 0 {
            self.failing.dec();
        }
        self.tries = 0;
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Evaluates a live rule.
pub(super) struct RuleActor;

pub(super) struct Running {
    pub(super) rule: Arc<Compiled>,
    pub(super) dispatch: Arc<Dispatch>,
}

impl Actor for RuleActor {
    type Msg = Wake;
    type State = Running;
    type Arguments = Running;

    async fn pre_start(&self, myself: ActorRef<Wake>, arguments: Running) -> Result<Running, ActorProcessingErr> {
        arguments.rule.queue.attend(myself);
        Ok(arguments)
    }

    async fn handle(&self, myself: ActorRef<Wake>, _wake: Wake, state: &mut Running) -> Result<(), ActorProcessingErr> {
        let Running { rule, dispatch } = state;
        let (first, samples) = rule.queue.read(EVENTS_A_TURN);
        if samples.is_empty() {
            return Ok(());
        }
        let (metrics, now_ms) = (dispatch.metrics(), wall_ms());
        for sample in &samples {
            let Some(body) = rule.evaluate_traced(sample, dispatch, now_ms) else { continue };
            for (outlet, parcel) in rule.parcels(sample, &body) {
                let cost = 128 + parcel.body.len() + parcel.key.len();
                let dropped = outlet.queue.push(parcel, cost);
                if dropped > 0 {
                    outlet.figures.dropped.add(dropped);
                    metrics.rule_actions.dropped.inc_by(dropped);
                }
            }
        }
        rule.queue.settle(first + samples.len() as u64);
        // An actor that is stopped meanwhile is sent nothing more.
        let _ = myself.cast(Wake);
        Ok(())
    }
}

/// Hands what a live rule makes to the sink of one action.
pub(super) struct OutletActor;

pub(super) struct Handing {
    outlet: Arc<Outlet>,
    dispatch: Arc<Dispatch>,
    sink: Option<Sink>,
    pauses: Pauses,
}

impl Actor for OutletActor {
    type Msg = Wake;
    type State = Handing;
    type Arguments = (Arc<Outlet>, Arc<Dispatch>);

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        (outlet, dispatch): Self::Arguments,
    ) -> Result<Handing, ActorProcessingErr> {
        outlet.queue.attend(myself);
        let pauses = Pauses::new(&dispatch);
        Ok(Handing { outlet, dispatch, sink: None, pauses })
    }

    async fn handle(&self, myself: ActorRef<Wake>, _wake: Wake, state: &mut Handing) -> Result<(), ActorProcessingErr> {
        let Handing { outlet, dispatch, sink, pauses } = state;
        let (first, parcels) = outlet.queue.read(PARCELS_A_TURN);
        if parcels.is_empty() {
            return Ok(());
        }
        let sink = match sink {
            Some(sink) => sink,
            None => match Sink::open(&outlet.action, dispatch) {
                Ok(opened) => sink.insert(opened),
                Err(error) => {
                    outlet.figures.error.set(&error, wall_ms());
                    again_later(&myself, outlet, dispatch, pauses);
                    return Ok(());
                }
            },
        };
        let handed = sink.hand_over(&parcels).await;
        let done = handed.done.min(parcels.len());
        // What was dropped meanwhile to make room is counted as that.
        let settled = outlet.queue.settle(first + done as u64);
        let refused = (handed.refused.iter().filter(|at| **at < done).count() as u64).min(settled);
        note(outlet, dispatch, settled - refused, refused, handed.problem.as_deref());
        if done < parcels.len() {
            if done > 0 {
                pauses.reset();
            }
            again_later(&myself, outlet, dispatch, pauses);
        } else {
            pauses.reset();
            let _ = myself.cast(Wake);
        }
        Ok(())
    }
}

/// Books what a sink has taken and refused.
pub(super) fn note(outlet: &Outlet, dispatch: &Dispatch, passed: u64, refused: u64, problem: Option<&str>) {
    outlet.figures.passed.add(passed);
    outlet.figures.refused.add(refused);
    let metrics = &dispatch.metrics().rule_actions;
    metrics.passed.inc_by(passed);
    metrics.refused.inc_by(refused);
    if let Some(problem) = problem {
        outlet.figures.error.set(problem, wall_ms());
        tracing::debug!(action = &*outlet.action.id, rule = &*outlet.action.rule_id, problem, "sink");
    }
}

fn again_later(myself: &ActorRef<Wake>, outlet: &Outlet, dispatch: &Dispatch, pauses: &mut Pauses) {
    outlet.figures.retried.add(1);
    dispatch.metrics().rule_actions.retried.inc();
    drop(myself.send_after(pauses.next(), || Wake)); // the timer goes on by itself
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_again() {
        let mut pauses = Pauses::default();
        let first: Vec<u128> = (0..4).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800]);
        assert_eq!(pauses.failing.get(), 1, "one sink fails, however often");
        let longest = (0..40).map(|_| pauses.next()).max();
        assert_eq!(longest, Some(PAUSE_MAX));
        pauses.reset();
        assert_eq!(pauses.failing.get(), 0);
        assert_eq!(pauses.next(), PAUSE_FIRST);
    }
}
