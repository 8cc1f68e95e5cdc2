//! Retained messages, by topic, in an order that lets a wildcard skip what it cannot match.
//! Absent here: expiry, permissions, pace. A walk is a value; the caller decides when the next step is due.

mod order;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::{TopicFilter, TopicName};
use rpds::RedBlackTreeMapSync;

use crate::publication::Publication;
use order::{Held, Place, Text};
use walk::{Pattern, Walk};

/// One message per topic. A clone is O(1) and unaffected by what happens to the others.
///
/// The map's order is by levels, as if `/` were the lowest character, so all topics below a level are neighbours.
#[derive(Clone, Default)]
pub struct Retained {
    map: RedBlackTreeMapSync<Held, ()>,
}

/// Where a walk goes on: the first text, in map order, that it has not passed. Meaningful in any clone and any later
/// state of the map; a walk that goes on in a changed map finds what is there ahead of the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(ByteString);

/// What one step of a walk found. May be empty and yet not the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub found: Vec<Arc<Publication>>,
    /// Where the next step begins; `None` when the walk is over.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// The cursor as text, to be carried in a command or a frame. Not always a valid topic.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cursor of that text. Any text is a place to go on from.
    #[must_use]
    pub fn at(text: &str) -> Cursor {
        Cursor(text.into())
    }
}

impl Retained {
    #[must_use]
    pub fn get(&self, topic: &TopicName) -> Option<&Arc<Publication>> {
        self.held(topic.as_str())
    }

    /// Keeps the message as its topic's; returns the one it replaces. That an empty payload clears [v5 MQTT-3.3.1-6]
    /// is the caller's decision.
    pub fn set(&mut self, publication: Arc<Publication>) -> Option<Arc<Publication>> {
        let replaced = self.get(&publication.topic).cloned();
        self.map.insert_mut(Held(publication), ());
        replaced
    }

    /// Removes the topic's message and returns it.
    pub fn clear(&mut self, topic: &TopicName) -> Option<Arc<Publication>> {
        let removed = self.get(topic).cloned()?; // first: removing what is absent would copy part of the tree
        self.map.remove_mut(&Text(topic.as_str()) as &dyn Place);
        Some(removed)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.map.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All messages in map order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.map.keys().map(|held| &held.0)
    }

    /// One step of a walk over the messages whose topics match, from the start or from where a cursor stands. It looks
    /// at no more than `steps_max` entries (at least 1), seeks included. The pages of a walk over one state of the map
    /// together have each match once, in map order.
    #[must_use]
    pub fn walk(&self, filter: &TopicFilter, after: Option<&Cursor>, steps_max: usize) -> Page {
        let pattern = Pattern::of(filter);
        let start = pattern.literals(0, String::new());
        if pattern.wild() {
            let from = after.map_or_else(|| start.into(), |cursor| cursor.0.clone());
            let (found, next) = Walk::new(self, pattern, steps_max.max(1)).from(from);
            return Page { found, next: next.map(Cursor) };
        }
        let ahead = after.is_none_or(|cursor| order::compare(cursor.as_str(), &start).is_le());
        Page { found: self.held(&start).filter(|_| ahead).cloned().into_iter().collect(), next: None }
    }

    fn held(&self, topic: &str) -> Option<&Arc<Publication>> {
        self.map.get_key_value(&Text(topic) as &dyn Place).map(|(held, ())| &held.0)
    }
}
