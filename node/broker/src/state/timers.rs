//! What must happen without anybody asking: sessions and routes of ended runs are let go, wills fire, sessions and messages
//! expire, devices that never connected are deleted. The machine only says what is due; its leader proposes it. Every such command checks again at apply, so
//! that repeating one is harmless.

use std::collections::BTreeMap;

use super::State;
use super::command::{Command, Release, Settlement};
use crate::key::{Epoch, Generation, LogTime, NodeId, SessionKey};

/// Commands per call of [`State::due`], whatever the caller allows: what a large node owned is settled in steps.
pub const DUE_MAX: usize = 256;

/// Where the timers keep a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Owned(NodeId, Generation, Epoch),
    Due(LogTime, Epoch),
    Nowhere,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Timers {
    owned: BTreeMap<(NodeId, Generation), BTreeMap<Epoch, SessionKey>>,
    due: BTreeMap<(LogTime, Epoch), SessionKey>,
}

impl Timers {
    pub(super) fn add(&mut self, slot: Slot, key: SessionKey) {
        match slot {
            Slot::Owned(node, generation, epoch) => {
                self.owned.entry((node, generation)).or_default().insert(epoch, key);
            }
            Slot::Due(at, epoch) => {
                self.due.insert((at, epoch), key);
            }
            Slot::Nowhere => {}
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match slot {
            Slot::Owned(node, generation, epoch) => {
                if let Some(run) = self.owned.get_mut(&(node, generation)) {
                    run.remove(&epoch);
                    if run.is_empty() {
                        self.owned.remove(&(node, generation));
                    }
                }
            }
            Slot::Due(at, epoch) => {
                self.due.remove(&(at, epoch));
            }
            Slot::Nowhere => {}
        }
    }

    pub(super) fn owns_nothing(&self, node: NodeId, generation: Generation) -> bool {
        !self.owned.contains_key(&(node, generation))
    }

    pub(super) fn owned_by(&self, node: NodeId, generation: Generation) -> impl Iterator<Item = (Epoch, &SessionKey)> {
        self.owned.get(&(node, generation)).into_iter().flatten().map(|(epoch, key)| (*epoch, key))
    }
}

impl State {
    /// Commands that are due at `now`, at most `commands_max` and never above [`DUE_MAX`]. The leader proposes them
    /// and asks again once they are applied; until then the same ones are due.
    #[must_use]
    pub fn due(&self, now: LogTime, commands_max: usize) -> Vec<Command> {
        if self.restoring() {
            return Vec::new();
        }
        let most = commands_max.min(DUE_MAX);
        let orphans = self.kept.origins.fallen().flat_map(|(node, generation)| self.owned_by(*node, *generation));
        let mut commands = self.due_expansions(most);
        let releases = orphans.take(most - commands.len()).map(|(epoch, key)| {
            Command::Release(Release { key: key.clone(), epoch, discard_will: false, expiry_s: None, sent_below: None })
        });
        commands.extend(releases);
        let forgotten = self.kept.live_routes.unwanted(&self.kept.origins);
        commands.extend(
            forgotten.take(most - commands.len()).map(|(node, generation)| Command::ForgetRoutes { node, generation }),
        );
        let timers = self.timers.due.iter().take_while(|((at, _), _)| *at <= now);
        commands.extend(timers.take(most - commands.len()).filter_map(|((_, epoch), key)| {
            let session = self.current(key, *epoch)?;
            let (key, epoch) = (key.clone(), *epoch);
            let reached = |at: Option<LogTime>| at.is_some_and(|at| at <= now);
            Some(if reached(session.ends_at()) {
                Command::ExpireSession { key, epoch }
            } else if reached(session.will_at()) {
                Command::FireWill { key, epoch }
            } else {
                Command::Settle(vec![Settlement::nothing(key, epoch)])
            })
        }));
        if commands.len() < most {
            let expired = self.kept.retained_due.keys().take_while(|(at, _)| *at <= now);
            let topics: Vec<_> = expired.take(most).map(|(_, topic)| topic.clone()).collect();
            if !topics.is_empty() {
                commands.push(Command::ExpireRetained(topics));
            }
        }
        let late = self.kept.registry.due(now.0, most - commands.len());
        commands.extend(late.into_iter().map(|change| Command::Registry(Box::new(change))));
        let late = self.kept.plane.due(now, most - commands.len());
        commands.extend(late.into_iter().map(|change| Command::Plane(Box::new(change))));
        let late = self.kept.steer.due(now, most - commands.len());
        commands.extend(late.into_iter().map(|change| Command::Steer(Box::new(change))));
        commands
    }

    /// When [`State::due`] next has something to say; not after now if it has already.
    #[must_use]
    pub fn next_due(&self) -> Option<LogTime> {
        if self.restoring() {
            return None;
        }
        let unwanted = self.kept.live_routes.unwanted(&self.kept.origins).next().is_some();
        if unwanted || !self.kept.expansions.is_empty() || self.kept.origins.fallen().next().is_some() {
            return Some(self.kept.now);
        }
        let session = self.timers.due.keys().next().map(|(at, _)| *at);
        let retained = self.kept.retained_due.first().map(|((at, _), ())| *at);
        let device = self.kept.registry.next_due().map(LogTime);
        let others = [self.kept.plane.next_due(), self.kept.steer.next_due()].into_iter().flatten();
        session.into_iter().chain(retained).chain(device).chain(others).min()
    }
}

impl Settlement {
    /// A settlement that acknowledges nothing: applied to a session without an owner, it ends what has expired.
    fn nothing(key: SessionKey, epoch: Epoch) -> Settlement {
        Settlement { key, epoch, floor: 0, settled: Vec::new(), received: Vec::new(), refused: Vec::new() }
    }
}
