//! Power loss at random moments: what was acknowledged is there, and nothing is that was never written.
//!
//! `FULMAR_POWER_SEED=n` runs one seed, `FULMAR_POWER_SEEDS=n` so many.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, scratch};
use super::log::{at, record};
use crate::store::log::{Log, OpenError, Options, Position, Record, StoreError, Vote};

const SEEDS: u64 = 1_000;
/// Power failures of one seed, each on what the one before has left.
const FAILURES: usize = 3;

/// What the log must hold.
#[derive(Default, Clone)]
struct Oracle {
    /// All entries that were handed over and not removed since.
    entries: BTreeMap<u64, Record>,
    purged: Option<Position>,
    /// Entries below it are acknowledged.
    acked: Arc<AtomicU64>,
    vote: Option<Vote>,
    generation: u64,
    under_way: Option<Op>,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Truncate(u64),
    Purge(Position),
    Vote(Vote),
    Generation(u64),
}

impl Oracle {
    fn next(&self) -> u64 {
        let purged = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries.last_key_value().map_or(purged, |(index, _)| index + 1)
    }

    fn term(&self) -> u64 {
        self.entries.last_key_value().map_or(self.purged, |(_, record)| Some(record.position)).map_or(1, |end| end.term)
    }

    /// Compares, and then goes on from what was found.
    fn check(&mut self, log: &Log) {
        let purged = log.purged();
        let may_purge = match self.under_way {
            Some(Op::Purge(upto)) => Some(upto),
            _ => self.purged,
        };
        assert!(purged == self.purged || purged == may_purge, "purged {purged:?}, not {:?}", self.purged);
        let first = purged.map_or(0, |purged| purged.index + 1);
        let next = log.last().map_or(0, |last| last.index + 1);
        let mut acked = self.acked.load(Ordering::SeqCst);
        if let Some(Op::Truncate(from)) = self.under_way {
            acked = acked.min(from);
        }
        assert!(next >= acked, "entries {next}..{acked} are lost; under way: {:?}", self.under_way);
        let read = log.read(0, u64::MAX, usize::MAX).unwrap();
        assert_eq!(read.len() as u64, next - first.min(next));
        for (index, record) in (first..).zip(&read) {
            assert_eq!(self.entries.get(&index), Some(record), "entry {index}");
        }
        let bytes: usize = read.iter().map(|record| record.body.len()).sum();
        assert_eq!(log.bytes(), bytes as u64);
        let may_vote = match self.under_way {
            Some(Op::Vote(vote)) => Some(vote),
            _ => self.vote,
        };
        assert!(log.vote() == self.vote || log.vote() == may_vote, "vote {:?}, not {:?}", log.vote(), self.vote);
        let generation = log.meta().generation;
        let may_be = if let Some(Op::Generation(generation)) = self.under_way { generation } else { self.generation };
        assert!(generation == self.generation || generation == may_be, "generation {generation}");

        self.under_way = None;
        (self.purged, self.vote, self.generation) = (purged, log.vote(), generation);
        self.entries = read.into_iter().map(|record| (record.position.index, record)).collect();
        self.acked = Arc::new(AtomicU64::new(next));
    }

    /// Does something to the log.
    fn step(&mut self, log: &Log, segment_bytes: usize, random: &mut StdRng) -> Result<(), StoreError> {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        match random.random_range(0..100) {
            0..70 => self.append(log, segment_bytes, random),
            70..76 if self.next() > first => {
                let from = random.random_range(first.max(self.next().saturating_sub(12))..self.next());
                self.under_way = Some(Op::Truncate(from));
                log.truncate(from)?;
                self.entries.split_off(&from);
                self.acked.fetch_min(from, Ordering::SeqCst);
                // What comes now is another's.
                self.append_term(log, segment_bytes, random, self.term() + 1)
            }
            76..86 => {
                let beyond = random.random_bool(0.05);
                let index = if beyond { self.next() + 3 } else { random.random_range(first..=self.next()) };
                let term = self.entries.get(&index).map_or(self.term(), |record| record.position.term);
                self.under_way = Some(Op::Purge(at(term, index)));
                log.purge(at(term, index))?;
                self.purged = Some(at(term, index));
                self.entries = self.entries.split_off(&(index + 1));
                self.acked.fetch_max(index + 1, Ordering::SeqCst);
                Ok(())
            }
            86..93 => {
                let vote = Vote { term: random.random(), node: random.random(), committed: random.random() };
                self.under_way = Some(Op::Vote(vote));
                log.save_vote(vote)?;
                self.vote = Some(vote);
                Ok(())
            }
            _ => {
                let generation = self.generation + 1;
                self.under_way = Some(Op::Generation(generation));
                log.save_meta(|meta| meta.generation = generation)?;
                self.generation = generation;
                Ok(())
            }
        }?;
        self.under_way = None;
        Ok(())
    }

    fn append(&mut self, log: &Log, segment_bytes: usize, random: &mut StdRng) -> Result<(), StoreError> {
        self.append_term(log, segment_bytes, random, self.term())
    }

    fn append_term(
        &mut self,
        log: &Log,
        segment_bytes: usize,
        random: &mut StdRng,
        term: u64,
    ) -> Result<(), StoreError> {
        let count = [1, 1, 1, 2, 5, 20][random.random_range(0..6)];
        let records: Vec<Record> = (self.next()..)
            .take(count)
            .map(|index| {
                let length = match random.random_range(0..10) {
                    0 => 0,
                    1..7 => random.random_range(0..300),
                    7..9 => random.random_range(0..segment_bytes / 30),
                    // Several values, and at the full size of a segment more than 60 KiB each.
                    _ => random.random_range(0..segment_bytes / 6),
                };
                record(term, index, length)
            })
            .collect();
        let end = self.next() + count as u64;
        self.entries.extend(records.iter().map(|record| (record.position.index, record.clone())));
        if let Some(Op::Truncate(_)) = self.under_way {
            // It has returned, and is not under way any more.
            self.under_way = None;
        }
        let acked = self.acked.clone();
        let done = move |result: Result<(), StoreError>| {
            if result.is_ok() {
                acked.fetch_max(end, Ordering::SeqCst);
            }
        };
        log.append(&records, Box::new(done))
    }
}

fn options(segment_bytes: usize) -> Options {
    Options { segment_bytes, cache_bytes: 4 << 20, lock_wait: Duration::from_secs(30) }
}

fn open(dir: &Path, segment_bytes: usize) -> Result<Log, OpenError> {
    Log::open(dir, options(segment_bytes), Arc::new(|_| ())).map(|(log, _)| log)
}

fn run(seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let segment_bytes = [1 << 16, 1 << 16, 1 << 16, 1 << 17, 1 << 18][random.random_range(0..5)];
    let scratch = scratch();
    let mut oracle = Oracle::default();
    let dir = |failure: usize| scratch.path().join(failure.to_string());
    drop(open(&dir(0), segment_bytes).unwrap());
    let mut before: Option<Arc<Disk>> = None;
    for failure in 0..FAILURES {
        let dir_now = dir(failure);
        // The first syncs are those of the open.
        let fails_at = if random.random_bool(0.1) { random.random_range(1..6) } else { random.random_range(4..90) };
        let disk = Disk::watch(&dir_now, fails_at, before.as_deref());
        match open(&dir_now, segment_bytes) {
            Ok(log) => {
                oracle.check(&log);
                while oracle.step(&log, segment_bytes, random).is_ok() {}
                log.close();
            }
            // The open has a torn tail to remove, and the power fails meanwhile.
            Err(OpenError::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // Sometimes only the process ends, and what it wrote is lost with a later failure, or never.
        let power = random.random_bool(0.8);
        disk.restart_into(&dir(failure + 1), segment_bytes, power, random);
        before = (!power).then_some(disk);
        std::fs::remove_dir_all(dir_now).unwrap();
    }
    oracle.check(&open(&dir(FAILURES), segment_bytes).unwrap());
}

#[test]
fn what_was_acknowledged_outlives_power_loss() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("FULMAR_POWER_SEED");
    let seeds = one.map_or(0..number("FULMAR_POWER_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().min(8));
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end {
                        return;
                    }
                    if std::panic::catch_unwind(|| run(seed)).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "seeds {failed:?} failed; FULMAR_POWER_SEED={} repeats one", failed[0]);
}
