//! The supervisor of all rule actors of a node: has the rules run that are active, on this node those of them that it is
//! chosen for, and starts again what has failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar_broker::plane::{self, backlog};
use fulmar_broker::state::command::Command;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::Inner;
use super::compiled::{Compiled, Outlet};
use super::durable::{Owner, OwnerActor};
use super::live::{OutletActor, RuleActor, Running};

/// Pause before what has failed is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// For an actor to end.
const END: Duration = Duration::from_secs(5);

/// Compares what runs with what is to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refresh;

pub(super) struct Keeper;

/// What runs of one rule.
struct Standing {
    compiled: Arc<Compiled>,
    /// Of a live rule.
    actors: Vec<ActorCell>,
}

pub(super) struct State {
    inner: Arc<Inner>,
    rules: BTreeMap<Box<str>, Standing>,
}

impl Actor for Keeper {
    type Msg = Refresh;
    type State = State;
    type Arguments = Arc<Inner>;

    async fn pre_start(&self, _myself: ActorRef<Refresh>, inner: Arc<Inner>) -> Result<State, ActorProcessingErr> {
        Ok(State { inner, rules: BTreeMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Refresh>,
        _refresh: Refresh,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.inner.refreshing.store(false, Ordering::Release);
        state.refresh(&myself.get_cell()).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Refresh>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(who, error) = event else { return Ok(()) };
        tracing::error!(%error, "an actor of a rule has failed; it is started again");
        let failed = |actor: &ActorCell| actor.get_id() == who.get_id();
        for rule in state.rules.values_mut() {
            if rule.actors.iter().any(failed) {
                rule.actors.drain(..).for_each(|actor| actor.kill());
            }
        }
        state.inner.owners.lock().retain(|_, owner| !failed(&owner.0.actor.get_cell()));
        drop(myself.send_after(AGAIN, || Refresh)); // the timer goes on by itself
        Ok(())
    }
}

/// Has actors end, at whatever they wait for, and waits until they have: two of one rule would do things twice.
async fn end(actors: Vec<ActorCell>) {
    for actor in actors {
        if actor.kill_and_wait(Some(END)).await.is_err() {
            tracing::error!("an actor of a rule did not end in time");
        }
    }
}

impl State {
    async fn refresh(&mut self, supervisor: &ActorCell) {
        let wanted = self.inner.table.rules(&self.inner.dispatch);
        let gone: Vec<Box<str>> = self.rules.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            if let Some(rule) = self.rules.remove(&id) {
                end(rule.actors).await;
                self.drop_waiting(&rule.compiled);
            }
        }
        for (id, compiled) in wanted {
            match self.rules.get_mut(&id) {
                Some(standing) if Arc::ptr_eq(&standing.compiled, &compiled) => {}
                Some(standing) => {
                    end(std::mem::take(&mut standing.actors)).await;
                    standing.compiled = compiled;
                }
                None => {
                    self.rules.insert(id, Standing { compiled, actors: Vec::new() });
                }
            }
        }
        for id in self.rules.keys().cloned().collect::<Vec<_>>() {
            self.start(&id, supervisor).await;
        }
        self.own(supervisor).await;
    }

    /// Books what a live rule leaves behind that is not active any more.
    fn drop_waiting(&self, rule: &Compiled) {
        let metrics = self.inner.dispatch.metrics();
        metrics.rule_events.dropped.inc_by(rule.queue.settle(u64::MAX));
        for outlet in &rule.outlets {
            metrics.rule_actions.dropped.inc_by(outlet.queue.settle(u64::MAX));
        }
    }

    /// Starts the actors of a live rule, unless they run.
    async fn start(&mut self, id: &str, supervisor: &ActorCell) {
        let Some(rule) = self.rules.get_mut(id) else { return };
        if !rule.compiled.live() || !rule.actors.is_empty() {
            return;
        }
        let dispatch = &self.inner.dispatch;
        for outlet in &rule.compiled.outlets {
            let arguments = (outlet.clone(), dispatch.clone());
            match Actor::spawn_linked(None, OutletActor, arguments, supervisor.clone()).await {
                Ok((actor, _)) => rule.actors.push(actor.get_cell()),
                Err(error) => tracing::error!(%error, action = &*outlet.action.id, "an actor did not start"),
            }
        }
        let running = Running { rule: rule.compiled.clone(), dispatch: dispatch.clone() };
        match Actor::spawn_linked(None, RuleActor, running, supervisor.clone()).await {
            Ok((actor, _)) => rule.actors.push(actor.get_cell()),
            Err(error) => tracing::error!(%error, rule = id, "an actor did not start"),
        }
    }

    /// Has an owner for each backlog that this node is chosen for, and no other.
    async fn own(&mut self, supervisor: &ActorCell) {
        let inner = &self.inner;
        let durable = self.rules.values().filter(|rule| !rule.compiled.live());
        let mut outlets: HashMap<String, Arc<Outlet>> = durable
            .flat_map(|rule| rule.compiled.outlets.iter())
            .map(|outlet| (outlet.backlog(), outlet.clone()))
            .filter(|(name, _)| inner.dispatch.chosen(name))
            .collect();
        let mut leaving = Vec::new();
        inner.owners.lock().retain(|name, (owner, revision)| {
            let stays = outlets.get(name).is_some_and(|outlet| outlet.revision == *revision);
            if stays {
                outlets.remove(name);
            } else {
                leaving.push(owner.actor.get_cell());
            }
            stays
        });
        end(leaving).await;
        for (name, outlet) in outlets {
            let (woken, revision) = (Arc::new(AtomicBool::new(true)), outlet.revision);
            let arguments = (outlet, inner.dispatch.clone(), woken.clone());
            match Actor::spawn_linked(None, OwnerActor, arguments, supervisor.clone()).await {
                Ok((actor, _)) => {
                    inner.owners.lock().insert(name, (Owner::new(actor, woken), revision));
                }
                Err(error) => tracing::error!(%error, name, "an actor did not start"),
            }
        }
        self.let_go();
    }

    /// Releases backlogs of rules that this run has and nobody here owns.
    fn let_go(&self) {
        let dispatch = &self.inner.dispatch;
        let here = dispatch.replica().run();
        let owners = self.inner.owners.lock();
        let state = dispatch.replica().read();
        let idle: Vec<Command> = state
            .plane()
            .backlogs
            .views()
            .filter(|(name, _)| name.starts_with("rule/") && !owners.contains_key(&***name))
            .filter_map(|(name, view)| {
                let owner = view.owner.filter(|owner| (owner.node, owner.generation) == here)?;
                let release = backlog::Change::Release { name: (**name).into(), epoch: owner.epoch };
                Some(Command::Plane(Box::new(plane::Change::Backlog(release))))
            })
            .collect();
        drop((state, owners));
        if !idle.is_empty() {
            dispatch.replica().propose(
                idle,
                Box::new(|committed| {
                    if let Err(error) = committed {
                        tracing::warn!(%error, "backlogs not released");
                    }
                }),
            );
        }
    }
}
