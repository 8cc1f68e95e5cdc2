//! What is wrong, for as long as it is: raised and cleared by whoever notices it, and what was cleared lately. An alarm is
//! its name and what it is about: raising it twice is one alarm, and the first one's time counts.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Event as Happened;
use crate::key::{LogTime, NodeId};

/// Alarms at one time. A further one is refused, and its node counts that.
pub const ALARMS_MAX: usize = 1_000;

/// Cleared ones that are kept.
pub const HISTORY_MAX: usize = 500;

/// Bytes of one text of an alarm; who raises it cuts it.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The last run of a node has ended: raised and cleared where that is applied.
pub const NODE_DOWN: &str = "node_down";

/// A client is banned because it came too often: there for as long as the ban.
pub const FLAPPING_BAN: &str = "flapping_ban";

/// Who clears what the machine itself clears.
const CLUSTER: &str = "";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Critical,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub name: Box<str>,
    /// What it is about: a node, an action, a client id; empty for the whole cluster.
    pub subject: Box<str>,
    pub severity: Severity,
    pub message: Box<str>,
    pub since: LogTime,
    /// The node that has noticed it of itself: it is over when another run of that node begins.
    pub node: Option<NodeId>,
}

/// An alarm as whoever notices it tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    pub name: Box<str>,
    pub subject: Box<str>,
    pub severity: Severity,
    pub message: Box<str>,
    pub node: Option<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Raise(Raise),
    Clear {
        name: Box<str>,
        subject: Box<str>,
        /// A person; empty: whoever noticed that it is over.
        by: Box<str>,
    },
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Raise(raise) => raise.name.len() + raise.subject.len() + raise.message.len() + 48,
            Change::Clear { name, subject, by } => name.len() + subject.len() + by.len() + 32,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It is raised already.
    Before,
    /// There is no such alarm.
    NoAlarm,
    /// See [`ALARMS_MAX`].
    NoRoom,
}

/// An alarm that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// From 1, one more for each.
    pub seq: u64,
    pub alarm: Arc<Alarm>,
    pub cleared: LogTime,
    /// A person; empty: whoever noticed that it is over.
    pub by: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Raised(Arc<Alarm>),
    Cleared(Arc<Past>),
}

/// A piece of it: first those that are over, ascending by number, then the others by name and subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filed {
    Past(Past),
    Active(Alarm),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alarms {
    active: RedBlackTreeMapSync<(Box<str>, Box<str>), Arc<Alarm>>,
    history: RedBlackTreeMapSync<u64, Arc<Past>>,
}

impl Alarms {
    pub(super) fn apply(&mut self, change: &Change, now: LogTime, events: &mut Vec<Happened>) -> Answer {
        match change {
            Change::Raise(raise) => self.raise(raise, now, events),
            Change::Clear { name, subject, by } => self.clear(name, subject, by, now, events),
        }
    }

    fn raise(&mut self, raise: &Raise, now: LogTime, events: &mut Vec<Happened>) -> Answer {
        let key = (raise.name.clone(), raise.subject.clone());
        if self.active.contains_key(&key) {
            return Answer::Before;
        }
        if self.active.size() >= ALARMS_MAX {
            return Answer::NoRoom;
        }
        let Raise { name, subject, severity, message, node } = raise.clone();
        let alarm = Arc::new(Alarm { name, subject, severity, message, since: now, node });
        self.active.insert_mut(key, Arc::clone(&alarm));
        events.push(Happened::Alarm(Event::Raised(alarm)));
        Answer::Done
    }

    fn clear(&mut self, name: &str, subject: &str, by: &str, now: LogTime, events: &mut Vec<Happened>) -> Answer {
        let key = (name.into(), subject.into());
        let Some(alarm) = self.active.get(&key).cloned() else { return Answer::NoAlarm };
        self.active.remove_mut(&key);
        let seq = self.history.last().map_or(0, |(seq, _)| *seq) + 1;
        let past = Arc::new(Past { seq, alarm, cleared: now, by: by.into() });
        self.history.insert_mut(seq, Arc::clone(&past));
        if self.history.size() > HISTORY_MAX
            && let Some(oldest) = self.history.first().map(|(seq, _)| *seq)
        {
            self.history.remove_mut(&oldest);
        }
        events.push(Happened::Alarm(Event::Cleared(past)));
        Answer::Done
    }

    /// What earlier runs of a node have noticed is over, and it is not down.
    pub(super) fn node_up(&mut self, node: NodeId, now: LogTime, events: &mut Vec<Happened>) {
        let name = node_name(node);
        let over =
            |alarm: &&Arc<Alarm>| alarm.node == Some(node) || (*alarm.name == *NODE_DOWN && *alarm.subject == *name);
        let over: Vec<_> = self.active.values().filter(over).cloned().collect();
        for alarm in over {
            self.clear(&alarm.name, &alarm.subject, CLUSTER, now, events);
        }
    }

    pub(super) fn node_down(&mut self, node: NodeId, now: LogTime, events: &mut Vec<Happened>) {
        let subject = node_name(node);
        let message = format!("node {subject} has ended or does not answer").into();
        let (name, severity) = (NODE_DOWN.into(), Severity::Critical);
        self.raise(&Raise { name, subject: subject.into(), severity, message, node: None }, now, events);
    }

    // -- what others may ask

    /// By name and subject.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.active.values()
    }

    #[must_use]
    pub fn get(&self, name: &str, subject: &str) -> Option<&Arc<Alarm>> {
        self.active.get(&(name.into(), subject.into()))
    }

    /// Those that are over, the newest first.
    pub fn history(&self) -> impl Iterator<Item = &Arc<Past>> {
        self.history.iter().rev().map(|(_, past)| past)
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Filed> {
        let history = self.history.values().map(|past| Filed::Past((**past).clone()));
        history.chain(self.active.values().map(|alarm| Filed::Active((**alarm).clone())))
    }

    pub(super) fn restore(&mut self, piece: Filed) -> Result<(), (&'static str, String)> {
        match piece {
            Filed::Past(past) => {
                let last = self.history.last().map_or(0, |(seq, _)| *seq);
                if past.seq <= last || !self.active.is_empty() {
                    return Err(("seq", format!("{} is not in order", past.seq)));
                }
                if self.history.size() >= HISTORY_MAX {
                    return Err(("seq", format!("is one more than {HISTORY_MAX}")));
                }
                self.history.insert_mut(past.seq, Arc::new(past));
            }
            Filed::Active(alarm) => {
                let key = (alarm.name.clone(), alarm.subject.clone());
                if self.active.last().is_some_and(|(last, _)| *last >= key) {
                    return Err(("subject", format!("{} is not in order", alarm.subject)));
                }
                if self.active.size() >= ALARMS_MAX {
                    return Err(("name", format!("is one more than {ALARMS_MAX}")));
                }
                self.active.insert_mut(key, Arc::new(alarm));
            }
        }
        Ok(())
    }
}

/// How nodes are called.
fn node_name(node: NodeId) -> String {
    format!("{:016x}", node.0)
}
