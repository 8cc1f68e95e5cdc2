//! Messages that applications send devices: at most twenty each, with their states and clocks.
//!
//! A message waits until the connection of its device takes it: the owner of the connection has [`Became::Handed`] or
//! [`Became::Sent`] committed *before* it writes, under its epoch, so that no two owners send the same copy. With QoS 0 that
//! is the end. With QoS 1 it is delivered as far as applications see, and is sent again, in rounds, on later connections
//! until it is acknowledged or its time is over.

mod apply;
mod cached;
mod image;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fulmar_platform::message::Message;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use crate::key::{Epoch, LogTime};

pub use cached::{Cached, Failure, Phase, ROUNDS_MAX, Status};

/// Messages that are kept for one device, whatever their state; a newer one replaces the oldest.
pub const MESSAGES_MAX: usize = 20;

/// Bytes of all messages that are kept. Beyond it those that are finished give way, the oldest first; then new ones are
/// refused.
pub const MAIL_BYTES_MAX: u64 = 256 << 20;

/// Bytes that a message is counted with beside its own.
const MESSAGE_COST: u64 = 256;

/// Finished messages that give way to one new one, at most: what one command does is bounded.
const EVICTED_MAX: usize = 64;

/// Seconds that a finished message is still shown.
const KEPT_S: u64 = 7 * 86_400;

/// What may change it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A message for a device that is there. `ttl_min`: minutes that it waits for the device; 0: it is not kept for a device
    /// that is not connected.
    Create { device: Box<str>, message: Arc<Message>, ttl_min: u16 },
    /// What becomes of messages at the connection of this epoch.
    Note { epoch: Epoch, notes: Vec<Note> },
    /// Takes a message away, whatever its state.
    Delete { device: Box<str>, id: Box<str> },
    /// The time of a message is over, if it is.
    Expire { device: Box<str>, seq: u64 },
}

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub device: Box<str>,
    pub seq: u64,
    pub became: Became,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// About to be sent with QoS 0.
    Handed,
    /// About to be sent with QoS 1: for the first time, or once more in a further round.
    Sent,
    Acknowledged,
    /// The device is connected and has not subscribed to the topic.
    NotSubscribed,
    /// The last sends of the last round were not acknowledged.
    Unanswered,
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Create { device, message, .. } => device.len() + message.bytes() + 64,
            Change::Note { notes, .. } => notes.iter().map(|note| note.device.len() + 32).sum::<usize>() + 32,
            Change::Delete { device, id } => device.len() + id.len() + 32,
            Change::Expire { device, .. } => device.len() + 32,
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Created {
        seq: u64,
        at: LogTime,
        phase: Phase,
    },
    /// Of each note, whether it holds: what is about to be sent may be.
    Noted(Vec<bool>),
    Done,
    /// There is no such device.
    NoDevice,
    /// The device has no such message.
    NoMessage,
    /// The device has a message of this id.
    Duplicate,
    /// See [`MAIL_BYTES_MAX`].
    NoRoom,
}

/// A message is new, or its state has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub device: Arc<str>,
    pub cached: Cached,
    pub at: LogTime,
    /// Whether its status is new: applications are told.
    pub told: bool,
}

/// A piece of it, as a snapshot has it: the books first, then the messages of one device after the other, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    Books {
        books: Books,
        seq_last: u64,
    },
    Message {
        device: Box<str>,
        /// Whose connection it goes to.
        via: Box<str>,
        cached: Cached,
    },
}

/// What became of all messages since the cluster began:
/// `created = delivered + timed_out + failed + replaced + deleted + open`, where the last but one count what was open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub created: u64,
    /// Also those that no device has acknowledged yet, and of these those that go over to `timed_out` are taken off again.
    pub delivered: u64,
    pub timed_out: u64,
    pub failed: u64,
    /// Waiting ones that a newer one has replaced.
    pub replaced: u64,
    /// Waiting ones that were deleted, or whose device was.
    pub deleted: u64,
    /// Refused because there was no room.
    pub refused: u64,
    /// Finished ones that have made room, or were kept for long enough.
    pub forgotten: u64,
}

/// The messages of one device.
#[derive(Debug, Clone, PartialEq)]
struct Mailbox {
    /// Whose connection they go to: the device's, or that of the gateway at its top.
    via: Arc<str>,
    /// The oldest first.
    messages: Arc<Vec<Cached>>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mail {
    boxes: HashTrieMapSync<Arc<str>, Mailbox>,
    seq_last: u64,
    bytes: u64,
    books: Books,

    // Derived.
    /// Messages that are open, by whose connection they go to, the oldest first: which device they are for.
    awaited: HashTrieMapSync<Arc<str>, RedBlackTreeMapSync<u64, Arc<str>>>,
    /// Open ones by when their time is over.
    due: RedBlackTreeMapSync<(LogTime, u64), Arc<str>>,
    /// Finished ones by when they finished.
    finished: RedBlackTreeMapSync<(LogTime, u64), Arc<str>>,
}

impl Mail {
    /// The messages of a device, the oldest first.
    #[must_use]
    pub fn of(&self, device: &str) -> &[Cached] {
        self.boxes.get(device).map_or(&[], |mailbox| mailbox.messages.as_slice())
    }

    /// One message of a device, by its number.
    #[must_use]
    pub fn find(&self, device: &str, seq: u64) -> Option<&Cached> {
        let messages = self.of(device);
        messages.binary_search_by_key(&seq, |cached| cached.seq).ok().and_then(|at| messages.get(at))
    }

    /// Whether messages wait for the connection of this device, also those of its sub-devices.
    #[must_use]
    pub fn awaits(&self, connection: &str) -> bool {
        self.awaited.contains_key(connection)
    }

    /// Open messages for the connection of this device with a number above `after`, the oldest first.
    pub fn open(&self, connection: &str, after: u64) -> impl Iterator<Item = (&Arc<str>, &Cached)> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let awaited = self.awaited.get(connection).into_iter().flat_map(move |all| all.range(range));
        awaited.filter_map(|(seq, device)| Some((device, self.find(device, *seq)?)))
    }

    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Messages that are kept, whatever their state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.size() + self.finished.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages that wait, or await their acknowledgement.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.due.size()
    }

    /// Bytes of all messages, as they count against [`MAIL_BYTES_MAX`].
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub(super) fn due(&self, now: LogTime, most: usize) -> Vec<Change> {
        let late = self.due.iter().take_while(|((at, _), _)| *at <= now);
        let old = self.finished.iter().take_while(|((at, _), _)| at.plus_s(KEPT_S) <= now);
        let expire =
            |((_, seq), device): (&(LogTime, u64), &Arc<str>)| Change::Expire { device: (&**device).into(), seq: *seq };
        late.chain(old).take(most).map(expire).collect()
    }

    #[must_use]
    pub(super) fn next_due(&self) -> Option<LogTime> {
        let late = self.due.first().map(|((at, _), _)| *at);
        let old = self.finished.first().map(|((at, _), _)| at.plus_s(KEPT_S));
        late.into_iter().chain(old).min()
    }
}
