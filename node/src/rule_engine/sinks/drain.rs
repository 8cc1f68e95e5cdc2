//! Hands over what has waited for applications, once somebody listens: from the topic's backlog, in order, by one run of
//! a node at a time, at the pace at which listeners take it. What a run had read when it died is pushed again by the next.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fulmar_broker::plane::{self, Answer, backlog};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::{Epoch, Publication};
use fulmar_mqtt::QoS;
use parking_lot::Mutex;

use super::push::NAME;
use crate::dispatch::Dispatch;
use crate::dispatch::push::push_topic;

/// Between two looks at the backlogs, and at listeners that have no room.
const LOOK: Duration = Duration::from_millis(50);
const ROOM: Duration = Duration::from_millis(2);

/// What is read and settled in one step.
const STEP_ENTRIES: usize = 128;
const STEP_BYTES: u64 = 512 * 1024;

/// Begins to hand over, for as long as the node lives.
pub fn start(dispatch: &Arc<Dispatch>) {
    let dispatch = Arc::downgrade(dispatch);
    tokio::spawn(async move {
        // Those that are being handed over: each in a task of its own, so that no listener holds up another's.
        let busy: Arc<Mutex<HashSet<Arc<str>>>> = Arc::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(dispatch) = dispatch.upgrade() else { return };
            if dispatch.replica().acts() {
                look(&dispatch, &busy).await;
            }
        }
    });
}

/// Topics with something that waits; those that no action pushes to any more are let go of.
async fn look(dispatch: &Arc<Dispatch>, busy: &Arc<Mutex<HashSet<Arc<str>>>>) {
    let (mut waiting, mut unwanted) = (Vec::new(), Vec::new());
    {
        let state = dispatch.replica().read();
        let topics = state.registry().push_topics();
        for (name, view) in state.plane().backlogs.views() {
            let Some(topic) = name.strip_prefix(NAME) else { continue };
            if !topics.contains(topic) {
                if state.chosen(name) == Some(dispatch.replica().run()) {
                    unwanted.push(name.clone());
                }
            } else if view.entries > 0 {
                waiting.push(name.clone());
            }
        }
    }
    for name in unwanted {
        let discard = backlog::Change::Discard { name: (*name).into() };
        if let Err(problem) = commit(dispatch, discard).await {
            tracing::warn!(name = &*name, problem, "a backlog that nobody can get was not discarded");
        }
    }
    for name in waiting {
        if !busy.lock().insert(name.clone()) {
            continue;
        }
        let (dispatch, busy) = (Arc::downgrade(dispatch), busy.clone());
        tokio::spawn(async move {
            if let Err(problem) = drain(&dispatch, &name).await {
                tracing::warn!(name = &*name, problem, "what has waited was not handed over");
            }
            busy.lock().remove(&name);
        });
    }
}

async fn commit(dispatch: &Dispatch, change: backlog::Change) -> Result<backlog::Answer, String> {
    let command = Command::Plane(Box::new(plane::Change::Backlog(change)));
    let outcomes = dispatch.replica().commit(vec![command]).await.map_err(|error| error.to_string())?;
    match outcomes.into_iter().next() {
        Some(Outcome::Plane(Answer::Backlog(answer))) => Ok(answer),
        _ => Err("the log has answered something else".to_owned()),
    }
}

/// Hands one backlog over, if that is this node's to do, and lets go of it.
async fn drain(dispatch: &Weak<Dispatch>, name: &str) -> Result<(), String> {
    let mut held: Option<(Epoch, u64)> = None;
    let drained = hand_over(dispatch, name, &mut held).await;
    if let (Some((epoch, _)), Some(dispatch)) = (held, dispatch.upgrade()) {
        // Stale, or missing: it is another's by now, or empty and gone.
        commit(&dispatch, backlog::Change::Release { name: name.into(), epoch }).await?;
    }
    drained
}

/// Whether another run that lives has the backlog: that one settles what it has pushed, and lets go of it.
fn is_anothers(dispatch: &Dispatch, name: &str) -> bool {
    let (here, state) = (dispatch.replica().run(), dispatch.replica().read());
    let owner = state.plane().backlogs.view(name).and_then(|view| view.owner);
    owner
        .map(|owner| (owner.node, owner.generation))
        .is_some_and(|owner| owner != here && state.runs().any(|run| run.alive && (run.node, run.generation) == owner))
}

/// Ends when it is empty, nobody listens, or it is another's turn.
async fn hand_over(dispatch: &Weak<Dispatch>, name: &str, held: &mut Option<(Epoch, u64)>) -> Result<(), String> {
    let Some(topic) = name.strip_prefix(NAME).and_then(push_topic) else { return Ok(()) };
    loop {
        let Some(dispatch) = dispatch.upgrade() else { return Ok(()) };
        let Some(routes) = dispatch.listeners(&topic) else { return Ok(()) };
        if !dispatch.replica().acts() || !dispatch.hands_over(&routes) {
            return Ok(());
        }
        let (epoch, from) = match *held {
            Some(held) => held,
            None if is_anothers(&dispatch, name) => return Ok(()),
            None => {
                let (node, generation) = dispatch.replica().run();
                let claim = backlog::Change::Claim { name: name.into(), node, generation };
                let backlog::Answer::Claimed { epoch, floor } = commit(&dispatch, claim).await? else { return Ok(()) };
                *held.insert((epoch, floor))
            }
        };
        if !dispatch.roomy(&routes) {
            tokio::time::sleep(ROOM).await;
            continue;
        }
        let entries = dispatch.replica().read().plane().backlogs.read(name, from, STEP_ENTRIES, STEP_BYTES);
        if entries.is_empty() {
            return Ok(());
        }
        let (now, mut floor, mut pushed) = (dispatch.now().log, from, 0);
        for (seq, entry) in entries {
            if entry.expires_at > now {
                let publication = Publication::of_server(topic.clone(), entry.body, QoS::AtLeastOnce, now);
                if !dispatch.push(&routes, &Arc::new(publication)) {
                    break; // whoever listened has gone: it waits for the next one
                }
                pushed += 1;
            }
            floor = seq + 1;
        }
        dispatch.metrics().pushed("drained", pushed);
        if floor == from {
            return Ok(());
        }
        let settle = backlog::Change::Settle { name: name.into(), epoch, floor, refused: 0 };
        if commit(&dispatch, settle).await? != backlog::Answer::Done {
            *held = None;
            return Ok(()); // it is another's
        }
        *held = Some((epoch, floor));
    }
}
