//! What admins decide for the whole cluster, and what the cluster tells them: bans, settings, alarms and the audit. One
//! deterministic part of the replicated state, changed by commands, in persistent maps, so that a clone is O(1). It knows
//! only log time. Every list has a bound.

pub mod alarms;
pub mod audit;
pub mod bans;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod traces;

use crate::key::{LogTime, NodeId};

/// What may change it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Ban(bans::Change),
    Setting(settings::Change),
    Alarm(alarms::Change),
    /// What was done, the oldest first.
    Audit(Vec<audit::Entry>),
    Trace(traces::Change),
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Ban(change) => change.bytes(),
            Change::Setting(change) => change.bytes(),
            Change::Alarm(change) => change.bytes(),
            Change::Audit(entries) => entries.iter().map(audit::Entry::bytes).sum(),
            Change::Trace(change) => change.bytes(),
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ban(bans::Answer),
    Setting(settings::Answer),
    Alarm(alarms::Answer),
    /// The number of the last entry.
    Audit(u64),
    Trace(traces::Answer),
}

/// What happened: told to every node, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Ban(bans::Event),
    Setting(std::sync::Arc<settings::Past>),
    Alarm(alarms::Event),
    /// Other messages are traced from here on.
    Traces,
}

/// A piece of it, as a snapshot has it: ascending by kind, and as each module says within its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    Ban(bans::Ban),
    Setting(settings::Filed),
    Alarm(alarms::Filed),
    Audit(audit::Filed),
    Trace(traces::Filed),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steer {
    pub bans: bans::Bans,
    pub settings: settings::Settings,
    pub alarms: alarms::Alarms,
    pub audit: audit::Audit,
    pub traces: traces::Traces,
}

impl Steer {
    /// Applies one change.
    pub fn apply(&mut self, change: &Change, now: LogTime, events: &mut Vec<Event>) -> Answer {
        match change {
            Change::Ban(change) => {
                let before = events.len();
                let answer = Answer::Ban(self.bans.apply(change, now, events));
                self.tell_of_flapping(before, now, events);
                answer
            }
            Change::Setting(change) => Answer::Setting(self.settings.apply(change, now, events)),
            Change::Alarm(change) => Answer::Alarm(self.alarms.apply(change, now, events)),
            Change::Audit(entries) => Answer::Audit(self.audit.append(entries)),
            Change::Trace(change) => {
                events.push(Event::Traces);
                Answer::Trace(self.traces.apply(change, now))
            }
        }
    }

    /// A ban that a node has set by itself is an alarm for as long as it lasts.
    fn tell_of_flapping(&mut self, from: usize, now: LogTime, events: &mut Vec<Event>) {
        let bans: Vec<_> = events
            .iter()
            .skip(from)
            .filter_map(|event| match event {
                Event::Ban(event) => Some(event.clone()),
                _ => None,
            })
            .collect();
        for event in bans {
            let change = match &event {
                bans::Event::Set(ban) if ban.automatic => alarms::Change::Raise(alarms::Raise {
                    name: alarms::FLAPPING_BAN.into(),
                    subject: ban.target.text().into(),
                    severity: alarms::Severity::Warning,
                    message: ban.reason.clone(),
                    node: None,
                }),
                // Somebody has taken it over, or it is over.
                bans::Event::Set(ban) | bans::Event::Lifted(ban) => alarms::Change::Clear {
                    name: alarms::FLAPPING_BAN.into(),
                    subject: ban.target.text().into(),
                    by: "".into(),
                },
            };
            self.alarms.apply(&change, now, events);
        }
    }

    /// A run of a node has begun: what earlier ones have noticed of themselves is over.
    pub fn node_up(&mut self, node: NodeId, now: LogTime, events: &mut Vec<Event>) {
        self.alarms.node_up(node, now, events);
    }

    /// The last run of a node has ended.
    pub fn node_down(&mut self, node: NodeId, now: LogTime, events: &mut Vec<Event>) {
        self.alarms.node_down(node, now, events);
    }

    /// A node is no more.
    pub fn node_removed(&mut self, node: NodeId, now: LogTime, events: &mut Vec<Event>) {
        self.alarms.node_up(node, now, events);
    }

    /// Changes that are due at `now`, at most so many. The leader proposes them, and asks again once they are applied;
    /// each checks again at apply, so that repeating it is harmless.
    #[must_use]
    pub fn due(&self, now: LogTime, most: usize) -> Vec<Change> {
        self.bans.due(now).take(most).map(Change::Ban).collect()
    }

    /// When [`Steer::due`] next has something to say.
    #[must_use]
    pub fn next_due(&self) -> Option<LogTime> {
        self.bans.next_due()
    }

    /// Takes back the next of [`Steer::pieces`].
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn restore(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        match filed {
            Filed::Ban(ban) => self.bans.restore(ban),
            Filed::Setting(piece) => self.settings.restore(piece),
            Filed::Alarm(piece) => self.alarms.restore(piece),
            Filed::Audit(piece) => self.audit.restore(piece),
            Filed::Trace(piece) => self.traces.restore(piece),
        }
    }

    /// Everything, for a snapshot.
    pub fn pieces(&self) -> impl Iterator<Item = Filed> {
        self.bans
            .iter()
            .map(|ban| Filed::Ban((**ban).clone()))
            .chain(self.settings.pieces().map(Filed::Setting))
            .chain(self.alarms.pieces().map(Filed::Alarm))
            .chain(self.audit.pieces().map(Filed::Audit))
            .chain(self.traces.pieces().map(Filed::Trace))
    }
}

/// One that is being put together. Takes what [`Steer::pieces`] gives, in that order.
#[derive(Debug, Default)]
pub struct Restoring {
    steer: Steer,
    kind: u8,
}

impl Restoring {
    /// Takes the next piece.
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn add(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        let kind = match &filed {
            Filed::Ban(_) => 0,
            Filed::Setting(_) => 1,
            Filed::Alarm(_) => 2,
            Filed::Audit(_) => 3,
            Filed::Trace(_) => 4,
        };
        if kind < self.kind {
            return Err(("kind", "is not in order".to_owned()));
        }
        self.kind = kind;
        self.steer.restore(filed)
    }

    #[must_use]
    pub fn finish(self) -> Steer {
        self.steer
    }
}
