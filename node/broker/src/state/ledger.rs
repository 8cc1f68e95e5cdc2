//! What replicated messages cost: bytes by fixed rules, never by measurement, so that every node counts the same; each
//! message once, however many queues refer to it. And with them the books.

use rpds::HashTrieMapSync;

use fulmar_mqtt::TopicName;

use super::books::{Books, Fate};
use super::command::Will;
use super::queue::Entry;
use crate::publication::Publication;

/// Bytes counted for a queue entry beside its message.
pub(super) const ENTRY_BYTES: u64 = 128;

/// Bytes counted for a retained message beside topic, payload and properties.
pub(super) const RETAINED_BYTES: u64 = 128;

/// Bytes counted for a will beside topic, payload and properties.
pub(super) const WILL_BYTES: u64 = 64;

/// The message is counted by its only entry and has no number.
pub(super) const SOLE: u64 = 0;

/// A message that more than one holder refers to: queue entries, and perhaps the retained store.
#[derive(Debug, Clone, PartialEq)]
struct Body {
    /// Queue entries.
    entries: u32,
    /// The retained store holds it too, and counts its bytes.
    retained: bool,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Ledger {
    pub(super) books: Books,
    pub(super) bytes: u64,
    bodies: HashTrieMapSync<u64, Body>,
    bodies_made: u64,
    /// Retained messages that queues refer to.
    replayed: HashTrieMapSync<TopicName, u64>,
}

pub(super) fn body_bytes(publication: &Publication) -> u64 {
    publication.bytes() as u64
}

pub(super) fn will_bytes(will: &Will) -> u64 {
    WILL_BYTES + body_bytes(&will.publication)
}

impl Ledger {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: u64) {
        debug_assert!(self.bytes >= bytes, "bytes are given back once");
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Counts a message for `entries` queue entries that are about to refer to it, and gives its number.
    pub(super) fn hold(&mut self, publication: &Publication, entries: u32, retained: bool) -> u64 {
        debug_assert!(entries > 0, "a message is held for somebody");
        if !retained {
            self.add(body_bytes(publication));
            if entries == 1 {
                return SOLE;
            }
        } else if let Some(number) = self.replayed.get(&publication.topic).copied() {
            if let Some(body) = self.bodies.get_mut(&number) {
                body.entries += entries;
            }
            return number;
        }
        self.bodies_made += 1;
        let number = self.bodies_made;
        self.bodies.insert_mut(number, Body { entries, retained });
        if retained {
            self.replayed.insert_mut(publication.topic.clone(), number);
        }
        number
    }

    /// One entry less refers to a message.
    fn let_go(&mut self, number: u64, publication: &Publication) {
        if number != SOLE {
            let Some(body) = self.bodies.get_mut(&number) else {
                debug_assert!(false, "a shared body is counted");
                return;
            };
            body.entries = body.entries.saturating_sub(1);
            if body.entries > 0 {
                return;
            }
            let retained = body.retained;
            self.bodies.remove_mut(&number);
            if retained {
                self.replayed.remove_mut(&publication.topic);
                return;
            }
        }
        self.subtract(body_bytes(publication));
    }

    /// A new obligation has entered a queue.
    pub(super) fn queued(&mut self) {
        self.books.created += 1;
        self.books.queued += 1;
        self.add(ENTRY_BYTES);
    }

    /// A new obligation found no room.
    pub(super) fn turned_away(&mut self, entry: &Entry, fate: Fate) {
        self.books.created += 1;
        self.books.end(fate);
        self.let_go(entry.body, &entry.publication);
    }

    /// New obligations that end before anything was held for them.
    pub(super) fn never_held(&mut self, obligations: u32, fate: Fate) {
        for _ in 0..obligations {
            self.books.created += 1;
            self.books.end(fate);
        }
    }

    /// An entry has left its queue for good.
    pub(super) fn settled(&mut self, entry: &Entry, fate: Fate) {
        self.books.queued -= 1;
        self.books.end(fate);
        self.subtract(ENTRY_BYTES);
        self.let_go(entry.body, &entry.publication);
    }

    pub(super) fn will_set(&mut self, will: &Will) {
        self.add(will_bytes(will));
    }

    pub(super) fn will_gone(&mut self, will: &Will) {
        self.subtract(will_bytes(will));
    }

    pub(super) fn retained_set(&mut self, publication: &Publication) {
        self.add(RETAINED_BYTES + body_bytes(publication));
    }

    pub(super) fn retained_gone(&mut self, publication: &Publication) {
        self.subtract(RETAINED_BYTES + body_bytes(publication));
        let Some(number) = self.replayed.get(&publication.topic).copied() else {
            return;
        };
        self.replayed.remove_mut(&publication.topic);
        if let Some(body) = self.bodies.get_mut(&number) {
            // Queues still refer to it, and count it from here on.
            body.retained = false;
            self.add(body_bytes(publication));
        }
    }

    /// The number of a retained message that queues refer to; [`SOLE`] if none does.
    pub(super) fn number_of(&self, publication: &Publication) -> u64 {
        self.replayed.get(&publication.topic).copied().unwrap_or(SOLE)
    }

    pub(super) fn bodies_made(&self) -> u64 {
        self.bodies_made
    }

    // -- a restore counts anew

    /// A retained message, whose number its first mention gives.
    pub(super) fn restore_retained(&mut self, publication: &Publication, number: u64) {
        self.retained_set(publication);
        if number != SOLE {
            self.bodies.insert_mut(number, Body { entries: 0, retained: true });
            self.replayed.insert_mut(publication.topic.clone(), number);
        }
    }

    pub(super) fn restore_entry(&mut self, publication: &Publication, number: u64) {
        self.books.queued += 1;
        self.add(ENTRY_BYTES);
        if number == SOLE {
            self.add(body_bytes(publication));
        } else if let Some(body) = self.bodies.get_mut(&number) {
            body.entries = body.entries.saturating_add(1);
        } else {
            self.add(body_bytes(publication));
            self.bodies.insert_mut(number, Body { entries: 1, retained: false });
        }
    }

    /// An entry of a backup, which these books have not heard of.
    pub(super) fn adopt_entry(&mut self, publication: &Publication, number: u64) {
        self.books.created += 1;
        self.restore_entry(publication, number);
    }

    /// Nothing is held any more.
    pub(super) fn emptied(&self, bodies_made: u64) -> Ledger {
        Ledger { books: self.books.emptied(), bodies_made, ..Ledger::default() }
    }

    /// A number that no entry has; the smallest.
    pub(super) fn unheld(&self) -> Option<u64> {
        self.bodies.iter().filter(|(_, body)| body.entries == 0).map(|(number, _)| *number).min()
    }

    pub(super) fn restored(&mut self, books: Books, bodies_made: u64) {
        (self.books, self.bodies_made) = (books, bodies_made);
    }

    /// Messages with more than one holder; for the audit.
    #[cfg(test)]
    pub(super) fn bodies(&self) -> usize {
        self.bodies.size()
    }
}
