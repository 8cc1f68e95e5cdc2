//! Backlogs of durable rules: what their sinks have not taken yet, in order, within bounds of their own.
//!
//! | bound | what happens at it |
//! |---|---|
//! | [`ENTRIES_MAX`], [`BYTES_MAX`] of one backlog | its oldest entries are dropped |
//! | [`Limits::rule_backlog_bytes_max`](crate::state::command::Limits) of all | those of the largest backlog are, so that a sink that is down costs the others nothing |
//! | [`BACKLOGS_MAX`] | what would make one more is dropped |
//! | the expiry of an entry | it is dropped |
//!
//! Whatever is dropped is counted by its reason: what was appended is what waits, what was settled, and what was dropped.

mod books;
mod image;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::TopicName;
use rpds::RedBlackTreeMapSync;

pub use books::{Counts, Dropped, View};

use super::Ground;
use crate::key::{Epoch, Generation, LogTime, NodeId};
use crate::state::command::Owner;

/// Entries of one backlog.
pub const ENTRIES_MAX: usize = 100_000;

/// Bytes of one backlog, [`ENTRY_BYTES`] for each entry included.
pub const BYTES_MAX: u64 = 64 << 20;

/// Backlogs. There is one for each durable action and for each topic that applications get pushes on.
pub const BACKLOGS_MAX: usize = 20_000;

/// What an entry takes beside what is in it.
pub const ENTRY_BYTES: u64 = 160;

/// What the name of an action's backlog begins with; its id follows.
pub const ACTION_PREFIX: &str = "rule/";

/// Entries that expire in one change; the rest stays due.
const EXPIRED_MAX: usize = 1000;

/// What may change it. A backlog is named by whom it is for: `rule/{action id}`, or `push/{topic}` for what waits until an
/// application subscribes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Adds to the end, making the backlog if there is none. At a bound the oldest goes, and is counted.
    Append { name: Box<str>, entries: Vec<Entry> },
    /// A run of a node takes over; the one that had it before settles nothing more. Stale if the run is not alive.
    Claim { name: Box<str>, node: NodeId, generation: Generation },
    /// Everything below is done with. `refused` of it are entries that the sink has refused for good.
    Settle { name: Box<str>, epoch: Epoch, floor: u64, refused: u32 },
    /// Who has it leaves it to another one.
    Release { name: Box<str>, epoch: Epoch },
    /// Nobody wants it any more.
    Discard { name: Box<str> },
    /// Drops entries whose time has passed.
    Expire { name: Box<str> },
}

/// One thing that a sink is to take.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Receivers tell repetitions by it.
    pub key: Box<str>,
    pub body: Bytes,
    /// The topic that the event came on, if a device published it.
    pub topic: Option<TopicName>,
    /// Milliseconds since 1970 of the event.
    pub at_ms: u64,
    /// It is not wanted after that. A backlog is ordered by it: an entry never goes before the one in front of it.
    pub expires_at: LogTime,
}

impl Entry {
    /// Bytes that it counts for.
    #[must_use]
    pub fn cost(&self) -> u64 {
        let topic = self.topic.as_ref().map_or(0, |topic| topic.as_str().len());
        ENTRY_BYTES + (self.key.len() + self.body.len() + topic) as u64
    }

    /// The same in memory of its own: what came in pins the buffer that it was read from.
    fn detached(&self) -> Entry {
        Entry {
            key: self.key.clone(),
            body: Bytes::copy_from_slice(&self.body),
            topic: self.topic.as_ref().map(TopicName::detached),
            ..*self
        }
    }
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Append { entries, .. } => entries.iter().map(|entry| entry.body.len() + 128).sum(),
            _ => 64,
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Done,
    /// So many entries were dropped to make room, of whatever backlog.
    Appended {
        dropped: u64,
    },
    /// What the new owner settles with, and the first entry that waits.
    Claimed {
        epoch: Epoch,
        floor: u64,
    },
    /// The epoch is not the current one, or the run is not alive: nothing was done.
    Stale,
    /// There is no backlog of this name: nothing was done.
    Missing,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// There is more for whoever has it; if no live run has, its chosen one is to claim it.
    Grown { name: Arc<str>, owner: Option<Owner> },
    /// Nobody has it any more: its chosen one is to claim it.
    Released { name: Arc<str> },
    /// So much is gone without having been delivered.
    Dropped { name: Arc<str>, reason: Dropped, entries: u64, bytes: u64 },
}

/// A piece of it, as a snapshot has it: the head, then each backlog by name, each followed by its entries in pages.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    Head { last: u64, counts: Counts },
    Backlog { name: Box<str>, owner: Option<Owner>, counts: Counts },
    Entries(Vec<(u64, Entry)>),
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Backlog {
    entries: RedBlackTreeMapSync<u64, Entry>,
    bytes: u64,
    owner: Option<Owner>,
    counts: Counts,
}

impl Backlog {
    /// Where the indexes have it: its bytes, and when its first entry expires.
    fn slot(&self) -> (u64, Option<LogTime>) {
        (self.bytes, self.entries.first().map(|(_, entry)| entry.expires_at))
    }

    fn floor(&self, last: u64) -> u64 {
        self.entries.first().map_or(last + 1, |(seq, _)| *seq)
    }

    /// Adds to the end; the bounds are the caller's matter.
    fn push(&mut self, seq: u64, mut entry: Entry) {
        if let Some((_, before)) = self.entries.last() {
            entry.expires_at = entry.expires_at.max(before.expires_at);
        }
        self.bytes += entry.cost();
        self.entries.insert_mut(seq, entry);
    }

    /// Takes the first entry if it is as wanted, and says what it cost.
    fn pop_if(&mut self, wanted: impl FnOnce(u64, &Entry) -> bool) -> Option<u64> {
        let (seq, entry) = self.entries.first()?;
        if !wanted(*seq, entry) {
            return None;
        }
        let (seq, cost) = (*seq, entry.cost());
        self.entries.remove_mut(&seq);
        self.bytes -= cost;
        Some(cost)
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backlogs {
    backlogs: RedBlackTreeMapSync<Arc<str>, Backlog>,
    /// The last number that was given: to an entry of any backlog, or as an epoch.
    last: u64,
    /// Of all backlogs that ever were.
    counts: Counts,

    // Derived.
    bytes: u64,
    by_bytes: RedBlackTreeMapSync<(u64, Arc<str>), ()>,
    due: RedBlackTreeMapSync<(LogTime, Arc<str>), ()>,
}

impl Backlogs {
    pub(super) fn apply(&mut self, change: &Change, ground: &dyn Ground, events: &mut Vec<super::Event>) -> Answer {
        let before = events.len();
        let answer = match change {
            Change::Append { name, entries } => self.append(name, entries, ground, events),
            Change::Claim { name, node, generation } => self.claim(name, *node, *generation, ground),
            Change::Settle { name, epoch, floor, refused } => self.settle(name, *epoch, *floor, *refused),
            Change::Release { name, epoch } => self.release(name, *epoch, events),
            Change::Discard { name } => self.discard(name, events),
            Change::Expire { name } => self.expire(name, ground.now(), events),
        };
        self.book(events.get(before..).unwrap_or_default());
        answer
    }

    /// Counts what was dropped.
    fn book(&mut self, events: &[super::Event]) {
        for event in events {
            if let super::Event::Backlog(Event::Dropped { reason, entries, .. }) = event {
                self.counts.drop(*reason, *entries);
            }
        }
    }

    fn append(&mut self, name: &str, entries: &[Entry], ground: &dyn Ground, events: &mut Vec<super::Event>) -> Answer {
        self.counts.appended += entries.len() as u64;
        if !self.backlogs.contains_key(name) {
            // An action that was deleted in between wants nothing more.
            let action = name.strip_prefix(ACTION_PREFIX);
            let unwanted = action.is_some_and(|id| ground.registry().rule_action(id).is_none());
            if unwanted || self.backlogs.size() >= BACKLOGS_MAX {
                let reason = if unwanted { Dropped::Discarded } else { Dropped::Full };
                let (count, bytes) = (entries.len() as u64, entries.iter().map(Entry::cost).sum());
                events.push(dropped(name.into(), reason, count, bytes));
                return Answer::Appended { dropped: count };
            }
            self.backlogs.insert_mut(name.into(), Backlog::default());
            self.by_bytes.insert_mut((0, name.into()), ());
        }
        let mut last = self.last;
        let pushed = self.change(name, |backlog| {
            let (mut gone, mut bytes) = (0, 0);
            for entry in entries {
                last += 1;
                backlog.counts.appended += 1;
                let cost = entry.cost();
                if cost > BYTES_MAX {
                    (gone, bytes) = (gone + 1, bytes + cost);
                    continue;
                }
                backlog.push(last, entry.detached());
                while backlog.entries.size() > ENTRIES_MAX || backlog.bytes > BYTES_MAX {
                    let Some(cost) = backlog.pop_if(|_, _| true) else { break };
                    (gone, bytes) = (gone + 1, bytes + cost);
                }
            }
            backlog.counts.drop(Dropped::Full, gone);
            (gone, bytes, backlog.owner)
        });
        self.last = last;
        let Some((name, (mut gone, bytes, owner))) = pushed else { return Answer::Missing };
        if gone > 0 {
            events.push(dropped(Arc::clone(&name), Dropped::Full, gone, bytes));
        }
        gone += self.make_room(ground.backlog_bytes_max(), events);
        let owner = owner.filter(|owner| ground.alive(owner.node, owner.generation));
        events.push(super::Event::Backlog(Event::Grown { name, owner }));
        Answer::Appended { dropped: gone }
    }

    /// Drops the oldest of the largest until all together are within a bound. Says how many.
    fn make_room(&mut self, bytes_max: u64, events: &mut Vec<super::Event>) -> u64 {
        let mut gone = 0;
        while self.bytes > bytes_max {
            let Some(largest) = self.by_bytes.last().map(|((_, name), ())| Arc::clone(name)) else { break };
            let popped = self.change(&largest, |backlog| {
                let cost = backlog.pop_if(|_, _| true)?;
                backlog.counts.drop(Dropped::Full, 1);
                Some(cost)
            });
            let Some((name, Some(cost))) = popped else { break };
            gone += 1;
            match events.last_mut() {
                Some(super::Event::Backlog(Event::Dropped { name: last, reason: Dropped::Full, entries, bytes }))
                    if *last == name =>
                {
                    (*entries, *bytes) = (*entries + 1, *bytes + cost);
                }
                _ => events.push(dropped(name, Dropped::Full, 1, cost)),
            }
        }
        gone
    }

    fn claim(&mut self, name: &str, node: NodeId, generation: Generation, ground: &dyn Ground) -> Answer {
        if !ground.alive(node, generation) {
            return Answer::Stale;
        }
        let last = self.last + 1;
        let epoch = Epoch(last);
        let claimed = self.change(name, |backlog| {
            backlog.owner = Some(Owner { node, generation, epoch });
            backlog.floor(last)
        });
        let Some((_, floor)) = claimed else { return Answer::Missing };
        self.last = last;
        Answer::Claimed { epoch, floor }
    }

    fn settle(&mut self, name: &str, epoch: Epoch, floor: u64, refused: u32) -> Answer {
        if let Some(answer) = self.refuses(name, epoch) {
            return answer;
        }
        let settled = self.change(name, |backlog| {
            let mut done = 0;
            while backlog.pop_if(|seq, _| seq < floor).is_some() {
                done += 1;
            }
            let refused = u64::from(refused).min(done);
            backlog.counts.settled += done - refused;
            backlog.counts.refused += refused;
            (done, refused)
        });
        let (done, refused) = settled.map(|(_, settled)| settled).unwrap_or_default();
        self.counts.settled += done - refused;
        self.counts.refused += refused;
        Answer::Done
    }

    fn release(&mut self, name: &str, epoch: Epoch, events: &mut Vec<super::Event>) -> Answer {
        if let Some(answer) = self.refuses(name, epoch) {
            return answer;
        }
        if let Some((name, ())) = self.change(name, |backlog| backlog.owner = None) {
            events.push(super::Event::Backlog(Event::Released { name }));
        }
        Answer::Done
    }

    fn discard(&mut self, name: &str, events: &mut Vec<super::Event>) -> Answer {
        let Some((name, backlog)) = self.backlogs.get_key_value(name) else { return Answer::Missing };
        let (name, bytes, due) = (Arc::clone(name), backlog.bytes, backlog.slot().1);
        let entries = backlog.entries.size() as u64;
        self.backlogs.remove_mut(&name);
        self.by_bytes.remove_mut(&(bytes, Arc::clone(&name)));
        if let Some(at) = due {
            self.due.remove_mut(&(at, Arc::clone(&name)));
        }
        self.bytes -= bytes;
        if entries > 0 {
            events.push(dropped(name, Dropped::Discarded, entries, bytes));
        }
        Answer::Done
    }

    fn expire(&mut self, name: &str, now: LogTime, events: &mut Vec<super::Event>) -> Answer {
        let expired = self.change(name, |backlog| {
            let (mut gone, mut bytes) = (0, 0);
            while let Some(cost) =
                (gone < EXPIRED_MAX as u64).then(|| backlog.pop_if(|_, entry| entry.expires_at <= now)).flatten()
            {
                (gone, bytes) = (gone + 1, bytes + cost);
            }
            backlog.counts.drop(Dropped::Expired, gone);
            (gone, bytes)
        });
        let Some((name, (gone, bytes))) = expired else { return Answer::Missing };
        if gone > 0 {
            events.push(dropped(name, Dropped::Expired, gone, bytes));
        }
        Answer::Done
    }

    /// An action is no more: what waits for its sink is wanted by nobody.
    pub(super) fn action_deleted(&mut self, id: &str, events: &mut Vec<super::Event>) {
        let before = events.len();
        self.discard(&format!("{ACTION_PREFIX}{id}"), events);
        self.book(events.get(before..).unwrap_or_default());
    }

    /// The answer to one who says that this is its epoch, if it is not.
    fn refuses(&self, name: &str, epoch: Epoch) -> Option<Answer> {
        let Some(backlog) = self.backlogs.get(name) else { return Some(Answer::Missing) };
        (backlog.owner.map(|owner| owner.epoch) != Some(epoch)).then_some(Answer::Stale)
    }

    /// Changes a backlog, and the indexes with it.
    fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut Backlog) -> R) -> Option<(Arc<str>, R)> {
        let name = Arc::clone(self.backlogs.get_key_value(name)?.0);
        let backlog = self.backlogs.get_mut(&*name)?;
        let before = backlog.slot();
        let result = change(backlog);
        let after = backlog.slot();
        if before.0 != after.0 {
            self.by_bytes.remove_mut(&(before.0, Arc::clone(&name)));
            self.by_bytes.insert_mut((after.0, Arc::clone(&name)), ());
            self.bytes = self.bytes - before.0 + after.0;
        }
        if before.1 != after.1 {
            if let Some(at) = before.1 {
                self.due.remove_mut(&(at, Arc::clone(&name)));
            }
            if let Some(at) = after.1 {
                self.due.insert_mut((at, Arc::clone(&name)), ());
            }
        }
        Some((name, result))
    }

    #[must_use]
    pub(super) fn due(&self, now: LogTime, most: usize) -> Vec<Change> {
        let due = self.due.keys().take_while(|(at, _)| *at <= now);
        due.take(most).map(|(_, name)| Change::Expire { name: (**name).into() }).collect()
    }

    #[must_use]
    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.due.first().map(|((at, _), ())| *at)
    }

    // -- what others may ask

    /// Entries from `from` on with their numbers, for the owner: at least one if there is one, else within both bounds.
    #[must_use]
    pub fn read(&self, name: &str, from: u64, entries_max: usize, bytes_max: u64) -> Vec<(u64, Entry)> {
        let Some(backlog) = self.backlogs.get(name) else { return Vec::new() };
        let mut bytes = 0;
        let within = |(_, entry): &(&u64, &Entry)| {
            let first = bytes == 0;
            bytes += entry.cost();
            first || bytes <= bytes_max
        };
        let entries = backlog.entries.range(from..).take(entries_max).take_while(within);
        entries.map(|(seq, entry)| (*seq, entry.clone())).collect()
    }

    #[must_use]
    pub fn view(&self, name: &str) -> Option<View> {
        self.backlogs.get(name).map(view)
    }

    /// All of them, by name.
    pub fn views(&self) -> impl Iterator<Item = (&Arc<str>, View)> {
        self.backlogs.iter().map(|(name, backlog)| (name, view(backlog)))
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of all backlogs that ever were.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn view(backlog: &Backlog) -> View {
    View {
        owner: backlog.owner,
        entries: backlog.entries.size(),
        bytes: backlog.bytes,
        oldest_ms: backlog.entries.first().map(|(_, entry)| entry.at_ms),
        counts: backlog.counts,
    }
}

fn dropped(name: Arc<str>, reason: Dropped, entries: u64, bytes: u64) -> super::Event {
    super::Event::Backlog(Event::Dropped { name, reason, entries, bytes })
}
