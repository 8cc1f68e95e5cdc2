//! The owner of the backlog of one durable action: an actor on the node that is chosen for it. It claims the backlog,
//! hands it over in order, and settles what the sink has taken. What it does not know to be settled the next owner hands
//! over again, with the same keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fulmar_broker::Epoch;
use fulmar_broker::plane::{self, backlog};
use fulmar_broker::state::command::{Command, Outcome};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::compiled::Outlet;
use super::live::{PARCELS_A_TURN, Pauses, note};
use super::sink::{Parcel, Sink};
use crate::cluster::clock::wall_ms;
use crate::dispatch::Dispatch;

/// Bytes that a sink is handed at once, if it is more than one entry.
const BYTES_A_TURN: u64 = 1 << 20;

/// Time that another owner, which lives, is given to let go.
const RELEASE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// There may be something to do.
    Wake,
}

/// An owner, from outside.
pub(super) struct Owner {
    pub(super) actor: ActorRef<Message>,
    woken: Arc<AtomicBool>,
}

impl Owner {
    pub(super) fn new(actor: ActorRef<Message>, woken: Arc<AtomicBool>) -> Owner {
        Owner { actor, woken }
    }

    /// Has it look. Many calls are one message.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // One that has ended is followed by another one, which looks by itself.
            let _ = self.actor.cast(Message::Wake);
        }
    }
}

pub(super) struct OwnerActor;

pub(super) struct State {
    name: Box<str>,
    outlet: Arc<Outlet>,
    dispatch: Arc<Dispatch>,
    woken: Arc<AtomicBool>,
    sink: Option<Sink>,
    /// The claim, and the first entry that is not settled.
    claim: Option<(Epoch, u64)>,
    /// Since when another one that lives has it.
    waits: Option<Instant>,
    pauses: Pauses,
    /// Until then the sink is left alone, whatever comes.
    rests: Option<Instant>,
}

/// What a turn came to.
enum Next {
    /// Something will wake it.
    Idle,
    More,
    /// After so long, or when something wakes it.
    Later(Duration),
    /// After so long, and not before.
    Rest(Duration),
}

impl Actor for OwnerActor {
    type Msg = Message;
    type State = State;
    type Arguments = (Arc<Outlet>, Arc<Dispatch>, Arc<AtomicBool>);

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        (outlet, dispatch, woken): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        myself.cast(Message::Wake)?;
        let name = outlet.backlog().into();
        let (sink, claim, waits, pauses) = (None, None, None, Pauses::new(&dispatch));
        Ok(State { name, outlet, dispatch, woken, sink, claim, waits, pauses, rests: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        _wake: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.woken.store(false, Ordering::Release);
        if state.rests.is_some_and(|rests| Instant::now() < rests) {
            return Ok(());
        }
        match state.turn().await {
            Next::Idle => {}
            Next::More => {
                if !state.woken.swap(true, Ordering::AcqRel) {
                    myself.cast(Message::Wake)?;
                }
            }
            Next::Later(pause) => {
                drop(myself.send_after(pause, || Message::Wake)); // the timer goes on by itself
            }
            Next::Rest(pause) => {
                state.rests = Some(Instant::now() + pause);
                drop(myself.send_after(pause, || Message::Wake)); // the timer goes on by itself
            }
        }
        Ok(())
    }
}

impl State {
    async fn turn(&mut self) -> Next {
        let (epoch, floor) = match self.claim {
            Some(claim) => claim,
            None => match self.claim().await {
                Ok(claim) => claim,
                Err(next) => return next,
            },
        };
        let entries =
            self.dispatch.replica().read().plane().backlogs.read(&self.name, floor, PARCELS_A_TURN, BYTES_A_TURN);
        if entries.is_empty() {
            return Next::Idle;
        }
        if self.sink.is_none() {
            match Sink::open(&self.outlet.action, &self.dispatch) {
                Ok(sink) => self.sink = Some(sink),
                Err(error) => {
                    self.outlet.figures.error.set(&error, wall_ms());
                    return self.again_later();
                }
            }
        }
        let Some(sink) = &mut self.sink else { return Next::Idle };
        let (numbers, parcels): (Vec<u64>, Vec<Parcel>) = entries
            .into_iter()
            .map(|(number, entry)| {
                let backlog::Entry { key, body, topic, at_ms, .. } = entry;
                (number, Parcel { key, body, topic, at_ms })
            })
            .unzip();
        let handed = sink.hand_over(&parcels).await;
        let done = handed.done.min(parcels.len());
        let refused = handed.refused.iter().filter(|at| **at < done).count();
        note(&self.outlet, &self.dispatch, (done - refused) as u64, refused as u64, handed.problem.as_deref());
        if let Some(last) = done.checked_sub(1).and_then(|last| numbers.get(last)) {
            self.pauses.reset();
            let (name, floor) = (self.name.clone(), last + 1);
            let refused = u32::try_from(refused).unwrap_or(u32::MAX);
            let settle = backlog::Change::Settle { name, epoch, floor, refused };
            match self.commit(settle).await {
                Some(backlog::Answer::Done) => self.claim = Some((epoch, floor)),
                // Taken over, or discarded: whoever is to have it now claims it.
                Some(_) => self.claim = None,
                None => return self.again_later(),
            }
        }
        if done < parcels.len() { self.again_later() } else { Next::More }
    }

    /// Claims the backlog, unless another run that lives has it: that one is about to let go of it.
    async fn claim(&mut self) -> Result<(Epoch, u64), Next> {
        let here = self.dispatch.replica().run();
        let (there, live) = {
            let state = self.dispatch.replica().read();
            let view = state.plane().backlogs.view(&self.name);
            let owner = view.and_then(|view| view.owner).map(|owner| (owner.node, owner.generation));
            let live = owner.is_some_and(|owner| {
                owner != here && state.runs().any(|run| run.alive && (run.node, run.generation) == owner)
            });
            (view.is_some(), live)
        };
        if !there {
            return Err(Next::Idle);
        }
        if live {
            let since = *self.waits.get_or_insert_with(Instant::now);
            if since.elapsed() < RELEASE {
                return Err(Next::Later(RELEASE.saturating_sub(since.elapsed())));
            }
        }
        self.waits = None;
        let (node, generation) = here;
        let claimed = self.commit(backlog::Change::Claim { name: self.name.clone(), node, generation }).await;
        match claimed {
            Some(backlog::Answer::Claimed { epoch, floor }) => {
                tracing::info!(backlog = &*self.name, epoch = epoch.0, "backlog claimed");
                self.claim = Some((epoch, floor));
                Ok((epoch, floor))
            }
            Some(backlog::Answer::Missing) => Err(Next::Idle),
            _ => Err(self.again_later()),
        }
    }

    /// `None`: nobody knows whether it was done.
    async fn commit(&self, change: backlog::Change) -> Option<backlog::Answer> {
        let command = Command::Plane(Box::new(plane::Change::Backlog(change)));
        match self.dispatch.replica().commit(vec![command]).await {
            Ok(outcomes) => outcomes.into_iter().find_map(|outcome| match outcome {
                Outcome::Plane(plane::Answer::Backlog(answer)) => Some(answer),
                _ => None,
            }),
            Err(error) => {
                tracing::warn!(backlog = &*self.name, %error, "backlog not changed");
                None
            }
        }
    }

    fn again_later(&mut self) -> Next {
        self.outlet.figures.retried.add(1);
        self.dispatch.metrics().rule_actions.retried.inc();
        Next::Rest(self.pauses.next())
    }
}
