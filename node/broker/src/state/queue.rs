//! One session's queue: entries by sequence number, from the first unsettled one on. Settled out of order, bounded by
//! count, bytes and the span of packet ids.

use std::sync::Arc;

use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::{QoS, TopicFilter};
use rpds::RedBlackTreeMapSync;

use super::books::{Dropped, Fate};
use super::command::{Limits, Phase, QueueEntry};
use super::ledger::{ENTRY_BYTES, Ledger, body_bytes};
use crate::key::LogTime;
use crate::publication::{Delivery, Publication};

/// Sequence numbers between the first unsettled entry and the next one. Packet ids are `1 + seq % 65,535`: within the
/// span no two are the same.
pub(super) const SPAN_MAX: u64 = 65_534;
const _: () = assert!(SPAN_MAX < 65_535);

/// Entries from the oldest on that are looked at for one that may be dropped; those that the client has received may not.
const DROP_SEARCH_MAX: usize = 64;

/// For an entry that never expires.
pub(super) const NEVER: LogTime = LogTime(u64::MAX);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) publication: Arc<Publication>,
    /// The ledger's number of the message; 0 if this entry alone refers to it.
    pub(super) body: u64,
    /// The message's own expiry, or the bound on queued ones; [`NEVER`] if there is neither.
    pub(super) expires_at: LogTime,
    pub(super) subscription_ids: SubscriptionIds,
    /// The shared subscription that chose this session.
    pub(super) group: Option<Arc<TopicFilter>>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) phase: Phase,
}

impl Entry {
    pub(super) fn cost(&self) -> u64 {
        ENTRY_BYTES + body_bytes(&self.publication)
    }
}

/// The first few messages that a step has lost, and whether each has expired.
#[derive(Debug, Default)]
pub(super) struct Lost(pub(super) Vec<(Arc<Publication>, bool)>);

/// Lost messages that one step tells of.
const LOST_TOLD_MAX: usize = 16;

impl Lost {
    fn note(&mut self, entry: &Entry, expired: bool) {
        if self.0.len() < LOST_TOLD_MAX {
            self.0.push((Arc::clone(&entry.publication), expired));
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Queue {
    entries: RedBlackTreeMapSync<u64, Entry>,
    pub(super) next_seq: u64,
    /// Entries below may have been sent by an earlier owner.
    pub(super) offered: u64,
    pub(super) bytes: u64,
    /// No entry that may expire does so earlier.
    pub(super) expires_next: LogTime,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { entries: RedBlackTreeMapSync::new_sync(), next_seq: 0, offered: 0, bytes: 0, expires_next: NEVER }
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.size()
    }

    /// The first unsettled sequence number.
    pub(super) fn floor(&self) -> u64 {
        self.entries.first().map_or(self.next_seq, |(seq, _)| *seq)
    }

    /// Whether so many entries of this cost together fit without dropping others.
    pub(super) fn fits(&self, limits: &Limits, entries: u64, cost: u64) -> bool {
        self.len() as u64 + entries <= u64::from(limits.queue_entries_max)
            && self.bytes.saturating_add(cost) <= limits.queue_bytes_max
            && self.next_seq - self.floor() + entries <= SPAN_MAX
    }

    /// Drops the oldest until an entry of this cost fits; `false` if it cannot be made to. The first few that go are told in
    /// `lost`.
    pub(super) fn make_room(&mut self, limits: &Limits, cost: u64, ledger: &mut Ledger, lost: &mut Lost) -> bool {
        if cost > limits.queue_bytes_max || limits.queue_entries_max == 0 {
            return false;
        }
        while !self.fits(limits, 1, cost) {
            // Only the first entry's going narrows the span.
            let span_full = self.next_seq - self.floor() >= SPAN_MAX;
            let search = if span_full { 1 } else { DROP_SEARCH_MAX };
            let mut oldest = self.entries.iter().take(search);
            let Some(seq) = oldest.find_map(|(seq, entry)| (entry.phase == Phase::Queued).then_some(*seq)) else {
                return false;
            };
            if let Some(entry) = self.take(seq) {
                ledger.settled(&entry, Fate::Dropped(Dropped::QueueFull));
                lost.note(&entry, false);
            }
        }
        true
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        self.expires_next = self.expires_next.min(entry.expires_at);
        self.entries.insert_mut(self.next_seq, entry);
        self.next_seq += 1;
    }

    /// Removes one entry, whose obligation the caller ends.
    pub(super) fn take(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.get(&seq)?.clone();
        self.entries.remove_mut(&seq);
        self.bytes -= entry.cost();
        Some(entry)
    }

    /// Ends everything below `floor`. What had expired there and was not settled by name was never sent.
    pub(super) fn settle_below(&mut self, floor: u64, now: LogTime, ledger: &mut Ledger) {
        while let Some((seq, entry)) = self.entries.first() {
            let seq = *seq;
            if seq >= floor {
                break;
            }
            let fate = if self.lapsed(seq, entry, now) { Fate::Expired } else { Fate::Delivered };
            if let Some(entry) = self.take(seq) {
                ledger.settled(&entry, fate);
            }
        }
    }

    pub(super) fn settle(&mut self, seq: u64, fate: Fate, ledger: &mut Ledger) {
        if let Some(entry) = self.take(seq) {
            ledger.settled(&entry, fate);
        }
    }

    /// The client has acknowledged the receipt of a QoS 2 entry: PUBREL is what remains.
    pub(super) fn received(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get_mut(&seq).filter(|entry| entry.qos == QoS::ExactlyOnce) {
            entry.phase = Phase::Received;
        }
    }

    /// Whether expiry may end the entry at all: not where a QoS 2 delivery may have begun, for the packet id would
    /// stay taken at the client.
    fn perishable(&self, seq: u64, entry: &Entry) -> bool {
        entry.phase == Phase::Queued && !(entry.qos == QoS::ExactlyOnce && seq < self.offered)
    }

    fn lapsed(&self, seq: u64, entry: &Entry, now: LogTime) -> bool {
        entry.expires_at <= now && self.perishable(seq, entry)
    }

    /// Ends what has expired, where no owner may be sending it. The first few that go are told in `lost`.
    pub(super) fn purge(&mut self, now: LogTime, ledger: &mut Ledger, lost: &mut Lost) {
        if self.expires_next > now {
            return;
        }
        let lapsed: Vec<u64> =
            self.entries.iter().filter(|(seq, entry)| self.lapsed(**seq, entry, now)).map(|(seq, _)| *seq).collect();
        for seq in lapsed {
            if let Some(entry) = self.take(seq) {
                ledger.settled(&entry, Fate::Expired);
                lost.note(&entry, true);
            }
        }
        let left = self.entries.iter().filter(|(seq, entry)| self.perishable(**seq, entry));
        self.expires_next = left.map(|(_, entry)| entry.expires_at).min().unwrap_or(NEVER);
    }

    /// Unsettled entries from `from_seq` on, without those that have expired. At least one, if there is one.
    pub(super) fn read(&self, from_seq: u64, entries_max: usize, bytes_max: usize, now: LogTime) -> Vec<QueueEntry> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for (seq, entry) in self.entries.range(from_seq..) {
            if self.lapsed(*seq, entry, now) {
                continue;
            }
            bytes += entry.publication.bytes();
            if found.len() >= entries_max || (!found.is_empty() && bytes > bytes_max) {
                break;
            }
            found.push(QueueEntry {
                seq: *seq,
                delivery: Delivery {
                    publication: Arc::clone(&entry.publication),
                    qos: entry.qos,
                    retain: entry.retain,
                    subscription_ids: entry.subscription_ids.clone(),
                },
                phase: entry.phase,
                before_claim: *seq < self.offered,
            });
        }
        found
    }

    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = (&u64, &Entry)> {
        self.entries.range(seq..)
    }

    /// A queue of a snapshot, to be filled in order.
    pub(super) fn restored(next_seq: u64, offered: u64, expires_next: LogTime) -> Queue {
        Queue { next_seq, offered, expires_next, ..Queue::default() }
    }

    pub(super) fn put(&mut self, seq: u64, entry: Entry) {
        self.bytes += entry.cost();
        self.entries.insert_mut(seq, entry);
    }

    /// The first and the last sequence number in it.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        self.entries.first().zip(self.entries.last()).map(|((first, _), (last, _))| (*first, *last))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Entry)> {
        self.entries.iter()
    }
}
