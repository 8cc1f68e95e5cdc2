//! What a receiver's way out has to tell beside its books: what became of traced messages, what it has lost of which topic,
//! and how slow it was. Mostly nothing: then it takes no memory.

use fulmar_mqtt::{ReasonCode, TopicName};

use super::{DropReason, Outbound};
use crate::insight::slow::{SLOW_MS, Slowness};
use crate::publication::Publication;

/// Sights of traced messages, and topics of lost ones, that wait to be taken; further ones are counted only.
const SEEN_MAX: usize = 256;
const LOST_MAX: usize = 16;

/// What became of a traced message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saw {
    /// In the live queue, as the so-many-th.
    Queued(usize),
    /// No room in the queue: its publisher waits.
    Waits,
    /// Given to the writer.
    Written {
        packet_id: u16,
        dup: bool,
    },
    /// By PUBACK, PUBREC or PUBCOMP.
    Acknowledged {
        packet_id: u16,
        by: &'static str,
        reason: ReasonCode,
    },
    Dropped(DropReason),
    Expired,
}

/// Messages of one topic that were lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub topic: TopicName,
    /// `None`: expired.
    pub reason: Option<DropReason>,
    pub count: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    pub slowness: Slowness,
    /// By trace id, in order.
    pub seen: Vec<(u64, Saw)>,
    pub lost: Vec<Lost>,
    /// What found no room in the two above.
    pub missed: u64,
}

impl Outbound {
    fn notes(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    /// Takes what there is to tell since the last call.
    pub fn take_notes(&mut self) -> Option<Box<Notes>> {
        self.notes.take()
    }

    /// What became of a message, if it is traced.
    pub(super) fn saw(&mut self, trace: u64, saw: Saw) {
        if trace == 0 {
            return;
        }
        let notes = self.notes();
        if notes.seen.len() < SEEN_MAX {
            notes.seen.push((trace, saw));
        } else {
            notes.missed += 1;
        }
    }

    /// A message was lost. `reason`: `None` if it has expired.
    pub(super) fn lost(&mut self, publication: &Publication, reason: Option<DropReason>) {
        self.saw(publication.trace, reason.map_or(Saw::Expired, Saw::Dropped));
        let notes = self.notes();
        let same = |lost: &&mut Lost| lost.reason == reason && lost.topic == publication.topic;
        if let Some(same) = notes.lost.iter_mut().find(same) {
            same.count += 1;
        } else if notes.lost.len() < LOST_MAX {
            notes.lost.push(Lost { topic: publication.topic.detached(), reason, count: 1 });
        } else {
            notes.missed += 1;
        }
    }

    /// A delivery was written or acknowledged that was begun then; 0: nobody knows when.
    pub(super) fn took(&mut self, begun_ms: u64, now_ms: u64) {
        let took_ms = now_ms.saturating_sub(begun_ms);
        if begun_ms != 0 && took_ms >= SLOW_MS {
            self.notes().slowness.took(took_ms);
        }
    }
}
