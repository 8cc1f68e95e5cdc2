//! Which messages are traced, on every node: at most [`TRACES_MAX`] specifications, each until it ends by itself.

use fulmar_mqtt::TopicFilter;
use rpds::RedBlackTreeMapSync;

use crate::insight::hops::{PAYLOAD_BYTES_MAX, TRACES_MAX};
use crate::key::LogTime;

/// Seconds that a trace runs if nobody says how long, and at most.
pub const TRACE_S_DEFAULT: u64 = 10 * 60;
pub const TRACE_S_MAX: u64 = 24 * 60 * 60;

/// What is traced.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// What a client publishes, and what it is sent; by its identity.
    Client {
        client: Box<str>,
        sends: bool,
        receives: bool,
    },
    Topic(TopicFilter),
    /// What a rule looks at; by its id.
    Rule(Box<str>),
    /// One message of so many; not 0.
    Sample(u32),
}

/// One trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Never used again.
    pub number: u64,
    /// Which bit of a trace id is its own; below [`TRACES_MAX`].
    pub slot: u8,
    pub subject: Subject,
    pub started_at: LogTime,
    pub ends_at: LogTime,
    /// Bytes of a payload that are kept; 0: none.
    pub payload_bytes: u32,
    /// Who has started it.
    pub by: Box<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Runs for so many seconds, at least 1.
    Start {
        subject: Subject,
        seconds: u64,
        payload_bytes: u32,
        by: Box<str>,
    },
    Stop {
        number: u64,
    },
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Start { subject, by, .. } => {
                64 + by.len()
                    + match subject {
                        Subject::Client { client, .. } => client.len(),
                        Subject::Topic(filter) => filter.as_str().len(),
                        Subject::Rule(rule) => rule.len(),
                        Subject::Sample(_) => 0,
                    }
            }
            Change::Stop { .. } => 32,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With its number.
    Started(u64),
    Stopped,
    /// There is no such trace.
    Missing,
    /// As many run as may.
    Full,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    /// The last number that was given, not 0; first.
    Last(u64),
    Trace(Trace),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traces {
    by_slot: RedBlackTreeMapSync<u8, Trace>,
    last: u64,
}

impl Traces {
    /// Applies one change.
    pub fn apply(&mut self, change: &Change, now: LogTime) -> Answer {
        match change {
            Change::Start { subject, seconds, payload_bytes, by } => {
                self.end(now);
                let Some(slot) = self.free_slot() else { return Answer::Full };
                self.last += 1;
                let trace = Trace {
                    number: self.last,
                    slot,
                    subject: subject.clone(),
                    started_at: now,
                    ends_at: now.plus_s((*seconds).clamp(1, TRACE_S_MAX)),
                    payload_bytes: (*payload_bytes).min(u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX)),
                    by: by.clone(),
                };
                self.by_slot.insert_mut(slot, trace);
                Answer::Started(self.last)
            }
            Change::Stop { number } => {
                let slot = self.by_slot.values().find(|trace| trace.number == *number).map(|trace| trace.slot);
                match slot.is_some_and(|slot| self.by_slot.remove_mut(&slot)) {
                    true => Answer::Stopped,
                    false => Answer::Missing,
                }
            }
        }
    }

    fn end(&mut self, now: LogTime) {
        let ended: Vec<u8> =
            self.by_slot.values().filter(|trace| trace.ends_at <= now).map(|trace| trace.slot).collect();
        for slot in ended {
            self.by_slot.remove_mut(&slot);
        }
    }

    /// The free place that comes next in turn, so that a message of an ended trace does not soon show up in another one.
    fn free_slot(&self) -> Option<u8> {
        let places = TRACES_MAX as u64;
        let slots = (0..places).map(|step| ((self.last + step) % places) as u8);
        slots.into_iter().find(|slot| !self.by_slot.contains_key(slot))
    }

    /// Those that run at `now`.
    pub fn running(&self, now: LogTime) -> impl Iterator<Item = &Trace> {
        self.by_slot.values().filter(move |trace| trace.ends_at > now)
    }

    /// All of it, for a snapshot: the last number, if any was given, then the traces by their places.
    pub fn pieces(&self) -> impl Iterator<Item = Filed> {
        let last = (self.last > 0).then_some(Filed::Last(self.last));
        last.into_iter().chain(self.by_slot.values().cloned().map(Filed::Trace))
    }

    /// Takes the next piece of a snapshot.
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn restore(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        let trace = match filed {
            Filed::Last(last) if self.last == 0 && last > 0 => {
                self.last = last;
                return Ok(());
            }
            Filed::Last(_) => return Err(("last", "comes twice, or is 0".to_owned())),
            Filed::Trace(trace) => trace,
        };
        if trace.number == 0 || trace.number > self.last {
            return Err(("number", format!("is {}; the last one is {}", trace.number, self.last)));
        }
        if usize::from(trace.slot) >= TRACES_MAX {
            return Err(("slot", format!("is {}; there are {TRACES_MAX}", trace.slot)));
        }
        if self.by_slot.last().is_some_and(|(before, _)| *before >= trace.slot) {
            return Err(("slot", "is not in order".to_owned()));
        }
        self.by_slot.insert_mut(trace.slot, trace);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(seconds: u64) -> Change {
        Change::Start { subject: Subject::Sample(10), seconds, payload_bytes: 1 << 20, by: "u".into() }
    }

    #[test]
    fn traces_start_end_and_stop_within_their_bound() {
        let mut traces = Traces::default();
        for number in 1..=TRACES_MAX as u64 {
            assert_eq!(traces.apply(&start(number * 10), LogTime(0)), Answer::Started(number));
        }
        assert_eq!(traces.apply(&start(5), LogTime(0)), Answer::Full);
        assert_eq!(traces.running(LogTime(15_000)).count(), TRACES_MAX - 1);
        assert_eq!(traces.apply(&start(5), LogTime(15_000)), Answer::Started(17));
        assert_eq!(traces.apply(&Change::Stop { number: 3 }, LogTime(15_000)), Answer::Stopped);
        assert_eq!(traces.apply(&Change::Stop { number: 3 }, LogTime(15_000)), Answer::Missing);
        let longest = traces.apply(&start(u64::MAX), LogTime(15_000));
        assert_eq!(longest, Answer::Started(18));
        let trace = traces.running(LogTime(15_000)).find(|trace| trace.number == 18).expect("it runs");
        assert_eq!(trace.ends_at, LogTime(15_000).plus_s(TRACE_S_MAX));
        assert_eq!(trace.payload_bytes as usize, PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn a_snapshot_has_all_of_it() {
        let mut traces = Traces::default();
        for _ in 0..5 {
            traces.apply(&start(60), LogTime(0));
        }
        traces.apply(&Change::Stop { number: 5 }, LogTime(0));
        let mut restored = Traces::default();
        traces.pieces().for_each(|filed| restored.restore(filed).expect("in order"));
        assert_eq!(restored, traces);
        let first = traces.running(LogTime(0)).next().expect("one").clone();
        let refused = |filed| restored.clone().restore(filed).expect_err("it cannot be").0;
        assert_eq!(refused(Filed::Trace(first.clone())), "slot");
        assert_eq!(refused(Filed::Trace(Trace { slot: 16, ..first.clone() })), "slot");
        assert_eq!(refused(Filed::Trace(Trace { number: 6, ..first })), "number");
        assert_eq!(refused(Filed::Last(9)), "last");
    }
}
