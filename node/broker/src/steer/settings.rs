//! Settings that are the same on every node and count at once: each stands for something that a node's configuration file
//! says, or has a default, for as long as it is not set. Every change has a version, one more than the last; the last
//! changes are kept. Which names there are, and what they may be set to, is [`table`]'s business: what is applied was
//! checked by whoever proposed it, and a name or value that means nothing here is kept without effect.

pub mod table;

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Event;
use crate::key::LogTime;
use crate::state::command::Limits;

/// Changes that are kept.
pub const HISTORY_MAX: usize = 100;

/// Settings that are set at one time; there are fewer names.
pub const SETTINGS_MAX: usize = 256;

/// Bytes of a value that is text.
pub const TEXT_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(u64),
    Text(Box<str>),
}

/// Sets a name, or, with `None`, has it be again what it is without a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: Box<str>,
    pub value: Option<Value>,
    pub by: Box<str>,
    /// Only if this is the version of the last change; `None`: in any case.
    pub version: Option<u64>,
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        let value = match &self.value {
            Some(Value::Text(text)) => text.len(),
            _ => 8,
        };
        self.name.len() + value + self.by.len() + 32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this version; that of the last change if it was so already.
    Set { version: u64 },
    /// The last change has this version.
    Conflict { version: u64 },
    /// See [`SETTINGS_MAX`].
    NoRoom,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    pub version: u64,
    pub at: LogTime,
    pub by: Box<str>,
    pub name: Box<str>,
    /// `None`: it was not set.
    pub from: Option<Value>,
    /// `None`: it is not set any more.
    pub to: Option<Value>,
}

/// A piece of it: first the changes, ascending by version, then what is set, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filed {
    Past(Past),
    Value { name: Box<str>, value: Value },
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    values: RedBlackTreeMapSync<Box<str>, Value>,
    /// By version, without gaps.
    history: RedBlackTreeMapSync<u64, Arc<Past>>,
}

impl Settings {
    pub(super) fn apply(&mut self, change: &Change, now: LogTime, events: &mut Vec<Event>) -> Answer {
        let version = self.version();
        if change.version.is_some_and(|expected| expected != version) {
            return Answer::Conflict { version };
        }
        let from = self.values.get(&change.name).cloned();
        if from == change.value {
            return Answer::Set { version };
        }
        if from.is_none() && self.values.size() >= SETTINGS_MAX {
            return Answer::NoRoom;
        }
        match &change.value {
            Some(value) => self.values.insert_mut(change.name.clone(), value.clone()),
            None => {
                self.values.remove_mut(&change.name);
            }
        }
        let Change { name, value: to, by, .. } = change.clone();
        let version = version + 1;
        let past = Arc::new(Past { version, at: now, by, name, from, to });
        self.history.insert_mut(version, Arc::clone(&past));
        if self.history.size() > HISTORY_MAX
            && let Some(oldest) = self.history.first().map(|(version, _)| *version)
        {
            self.history.remove_mut(&oldest);
        }
        events.push(Event::Setting(past));
        Answer::Set { version }
    }

    // -- what others may ask

    /// That of the last change; 0 if there was none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.history.last().map_or(0, |(version, _)| *version)
    }

    /// What a name is set to.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// What a name is set to, if that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// What a name is set to, if that is a flag.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// What a name is set to, if that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The newest first.
    pub fn history(&self) -> impl Iterator<Item = &Arc<Past>> {
        self.history.iter().rev().map(|(_, past)| past)
    }

    /// Limits with what is set of them in place of what is configured.
    #[must_use]
    pub fn over(&self, configured: Limits) -> Limits {
        let long = |name, otherwise| self.number(name).unwrap_or(otherwise);
        let short = |name, otherwise| self.number(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(otherwise);
        Limits {
            replicated_bytes_max: long(table::REPLICATED_BYTES_MAX, configured.replicated_bytes_max),
            queue_entries_max: short(table::QUEUE_ENTRIES_MAX, configured.queue_entries_max),
            queue_bytes_max: long(table::QUEUE_BYTES_MAX, configured.queue_bytes_max),
            session_expiry_s_max: short(table::SESSION_EXPIRY_S_MAX, configured.session_expiry_s_max),
            sessions_max: long(table::SESSIONS_MAX, configured.sessions_max),
            retained_max: long(table::RETAINED_MAX, configured.retained_max),
            queue_ttl_s: short(table::QUEUE_TTL_S, configured.queue_ttl_s),
            rule_backlog_bytes_max: long(table::RULE_BACKLOG_BYTES_MAX, configured.rule_backlog_bytes_max),
        }
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Filed> {
        let history = self.history.values().map(|past| Filed::Past((**past).clone()));
        let values = self.values.iter();
        history.chain(values.map(|(name, value)| Filed::Value { name: name.clone(), value: value.clone() }))
    }

    pub(super) fn restore(&mut self, piece: Filed) -> Result<(), (&'static str, String)> {
        match piece {
            Filed::Past(past) => {
                let follows = self.history.is_empty() && past.version > 0 || past.version == self.version() + 1;
                if !follows || !self.values.is_empty() {
                    return Err(("version", format!("{} is not in order", past.version)));
                }
                if self.history.size() >= HISTORY_MAX {
                    return Err(("version", format!("is one more than {HISTORY_MAX}")));
                }
                self.history.insert_mut(past.version, Arc::new(past));
            }
            Filed::Value { name, value } => {
                if self.values.last().is_some_and(|(last, _)| *last >= name) {
                    return Err(("name", format!("{name} is not in order")));
                }
                if self.values.size() >= SETTINGS_MAX {
                    return Err(("name", format!("is one more than {SETTINGS_MAX}")));
                }
                self.values.insert_mut(name, value);
            }
        }
        Ok(())
    }
}
