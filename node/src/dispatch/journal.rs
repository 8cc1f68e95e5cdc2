//! What applied entries did, for whoever watches: a bounded ring, by index. The same on every node, so that a watch goes
//! on where it was on any of them. Filled on the thread that applies the log, in O(1) for each; read by watchers, each
//! from its own place. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use fulmar_broker::state::command::{Effect, SessionEvent};
use fulmar_broker::steer::{self, alarms};
use fulmar_broker::{Epoch, Generation, NodeId, SessionKey};
use fulmar_platform::registry::{Event, Status};
use parking_lot::Mutex;

use crate::cluster::Seat;

/// Facts, and bytes of facts, that are kept.
const FACTS_MAX: usize = 65_536;
const BYTES_MAX: usize = 16 << 20;

/// Facts of one reading; the last entry of it is whole.
const READ_MAX: usize = 512;

/// Something that an entry did.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Session(SessionEvent),
    /// The session and its subscriptions are gone.
    SessionEnded {
        key: SessionKey,
        epoch: Epoch,
    },
    Device(Status),
    NodeUp {
        node: NodeId,
        generation: Generation,
    },
    NodeDown {
        node: NodeId,
        generation: Generation,
    },
    Alarm(alarms::Event),
    /// Who the members are from here on.
    Members(Arc<[Seat]>),
}

impl Fact {
    /// What an effect is to those who watch.
    fn of(effect: &Effect) -> Option<Fact> {
        Some(match effect {
            Effect::Session(event) => Fact::Session(event.clone()),
            Effect::Ended { key, epoch } => Fact::SessionEnded { key: key.clone(), epoch: *epoch },
            Effect::Registry(Event::Status(status)) => Fact::Device(status.clone()),
            Effect::NodeUp { node, generation } => Fact::NodeUp { node: *node, generation: *generation },
            Effect::NodeDown { node, generation } => Fact::NodeDown { node: *node, generation: *generation },
            Effect::Steer(steer::Event::Alarm(event)) => Fact::Alarm(event.clone()),
            _ => return None,
        })
    }

    /// Bytes that it is counted with: its place, and what it may keep in memory.
    fn weight(&self) -> usize {
        let held = |key: &SessionKey| key.tenant().len() + key.dialect().len() + key.identity().len();
        let more = match self {
            Fact::Session(SessionEvent::Connected { key, .. } | SessionEvent::Disconnected { key, .. })
            | Fact::SessionEnded { key, .. } => held(key),
            // The record, should its device be deleted meanwhile.
            Fact::Device(_) | Fact::Alarm(_) => 512,
            Fact::NodeUp { .. } | Fact::NodeDown { .. } => 0,
            Fact::Members(members) => members.iter().map(|seat| size_of::<Seat>() + seat.address.len()).sum(),
        };
        size_of::<(u64, Fact)>() + more
    }
}

/// What was read: entries in order, each whole.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    pub entries: Vec<(u64, Vec<Fact>)>,
    /// Everything that was wanted up to this index is in it.
    pub through: u64,
}

/// Why nothing can be read after an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// What followed it is not kept any more, or never was.
    TooOld,
    /// A snapshot has taken the place of entries that this node has not seen.
    Installed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    facts: VecDeque<(u64, Fact)>,
    bytes: usize,
    /// Of entries up to this one not everything is here.
    floor: u64,
    /// The last entry that was skipped by a snapshot.
    installed: u64,
}

impl Journal {
    /// Everything that comes after this entry is noted.
    pub(super) fn begin(&self, index: u64) {
        let mut ring = self.0.lock();
        ring.floor = ring.floor.max(index);
    }

    /// Notes an effect of the entry of this index.
    pub(super) fn note(&self, index: u64, effect: &Effect) {
        if let Some(fact) = Fact::of(effect) {
            self.note_fact(index, fact);
        }
    }

    pub(super) fn note_fact(&self, index: u64, fact: Fact) {
        let mut ring = self.0.lock();
        ring.bytes += fact.weight();
        ring.facts.push_back((index, fact));
        while ring.facts.len() > FACTS_MAX || ring.bytes > BYTES_MAX {
            let Some((index, fact)) = ring.facts.pop_front() else { return };
            ring.bytes -= fact.weight();
            ring.floor = ring.floor.max(index);
        }
    }

    /// A snapshot stands at this entry: what led to it was never told.
    pub(super) fn installed(&self, index: u64) {
        let mut ring = self.0.lock();
        *ring = Ring { floor: ring.floor.max(index), installed: index, ..Ring::default() };
    }

    /// What is wanted of the entries behind `after`, up to `through`, some at a time.
    ///
    /// # Errors
    /// Not all of it is here.
    pub fn read(&self, after: u64, through: u64, wanted: impl Fn(&Fact) -> bool) -> Result<Reading, Lost> {
        let ring = self.0.lock();
        if after < ring.installed {
            return Err(Lost::Installed);
        }
        if after < ring.floor {
            return Err(Lost::TooOld);
        }
        let begin = ring.facts.partition_point(|(index, _)| *index <= after);
        let mut reading = Reading { entries: Vec::new(), through: after };
        let facts = ring.facts.range(begin..).take_while(|(index, _)| *index <= through);
        for (count, (index, fact)) in facts.enumerate() {
            if *index != reading.through && count >= READ_MAX {
                return Ok(reading);
            }
            reading.through = *index;
            if !wanted(fact) {
                continue;
            }
            match reading.entries.last_mut().filter(|(last, _)| last == index) {
                Some((_, facts)) => facts.push(fact.clone()),
                None => reading.entries.push((*index, vec![fact.clone()])),
            }
        }
        reading.through = through.max(after);
        Ok(reading)
    }

    /// Facts that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().facts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(generation: u64) -> Fact {
        Fact::NodeUp { node: NodeId(1), generation: Generation(generation) }
    }

    fn ended(name: &str) -> Fact {
        Fact::SessionEnded { key: SessionKey::new("default", "generic", name), epoch: Epoch(1) }
    }

    fn read(journal: &Journal, after: u64, through: u64) -> Result<Vec<u64>, Lost> {
        let reading = journal.read(after, through, |_| true)?;
        assert_eq!(reading.through, through.max(after));
        Ok(reading.entries.into_iter().map(|(index, _)| index).collect())
    }

    #[test]
    fn entries_are_read_whole_and_in_order_from_any_place() {
        let journal = Journal::default();
        journal.begin(10);
        for (index, fact) in [(11, up(1)), (11, ended("a")), (13, up(2)), (17, ended("b"))] {
            journal.note_fact(index, fact);
        }
        assert_eq!(read(&journal, 9, 20), Err(Lost::TooOld), "it began later");
        assert_eq!(read(&journal, 10, 20), Ok(vec![11, 13, 17]));
        assert_eq!(read(&journal, 11, 20), Ok(vec![13, 17]));
        assert_eq!(read(&journal, 12, 16), Ok(vec![13]), "what is being carried out is not read");
        assert_eq!(read(&journal, 17, 17), Ok(vec![]));
        assert_eq!(read(&journal, 30, 20), Ok(vec![]), "a place that is not reached yet");
        let sessions = journal.read(10, 20, |fact| matches!(fact, Fact::SessionEnded { .. })).unwrap();
        assert_eq!(sessions.entries, [(11, vec![ended("a")]), (17, vec![ended("b")])]);
    }

    #[test]
    fn a_reading_is_bounded_and_goes_on() {
        let journal = Journal::default();
        for index in 1..=1_000 {
            for part in 0..3 {
                journal.note_fact(index, up(part));
            }
        }
        let (mut after, mut seen) = (0, Vec::new());
        while after < 1_000 {
            let reading = journal.read(after, 1_000, |_| true).unwrap();
            assert!(reading.entries.len() <= READ_MAX && reading.through > after);
            assert!(reading.entries.iter().all(|(_, facts)| facts.len() == 3), "an entry is whole");
            seen.extend(reading.entries.iter().map(|(index, _)| *index));
            after = reading.through;
        }
        assert_eq!(seen, (1..=1_000).collect::<Vec<u64>>());
    }

    #[test]
    fn the_oldest_go_by_count_and_by_bytes_and_a_reader_behind_is_told() {
        let journal = Journal::default();
        let count = FACTS_MAX as u64 + 10;
        for index in 1..=count {
            journal.note_fact(index, up(index));
        }
        assert_eq!(journal.len(), FACTS_MAX);
        assert_eq!(read(&journal, 9, count), Err(Lost::TooOld));
        assert_eq!(journal.read(10, count, |_| true).unwrap().entries[0].0, 11);
        let long = "x".repeat(BYTES_MAX / 4);
        for index in count + 1..count + 10 {
            journal.note_fact(index, ended(&long));
        }
        assert_eq!(journal.len(), 3);
        assert_eq!(read(&journal, count + 6, count + 9), Ok(vec![count + 7, count + 8, count + 9]));
        assert_eq!(read(&journal, count, count + 9), Err(Lost::TooOld));
    }

    #[test]
    fn an_installed_snapshot_is_told_from_age() {
        let journal = Journal::default();
        journal.note_fact(5, up(1));
        journal.installed(90);
        journal.note_fact(91, up(2));
        assert_eq!(read(&journal, 5, 91), Err(Lost::Installed));
        assert_eq!(read(&journal, 90, 91), Ok(vec![91]));
    }
}
