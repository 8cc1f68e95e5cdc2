//! What the log promises while nothing goes wrong.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::disk::scratch;
use crate::store::log::{Fatal, Log, OpenError, Opened, Options, Position, Record, StoreError, Vote};

pub(super) fn options() -> Options {
    Options { segment_bytes: 1 << 19, cache_bytes: 8 << 20, lock_wait: Duration::from_secs(20) }
}

/// No failure is expected.
pub(super) fn fatal() -> Fatal {
    Arc::new(|what| panic!("fatal: {what}"))
}

pub(super) fn open(dir: &Path) -> (Log, Opened) {
    Log::open(dir, options(), fatal()).unwrap()
}

pub(super) fn at(term: u64, index: u64) -> Position {
    Position { term, leader: term * 10, index }
}

pub(super) fn record(term: u64, index: u64, length: usize) -> Record {
    let mut body = vec![0; length];
    StdRng::seed_from_u64(index << 8 | term).fill_bytes(&mut body);
    Record { position: at(term, index), body: Bytes::from(body) }
}

/// Appends, and waits until it is durable.
pub(super) fn append(log: &Log, records: &[Record]) -> Result<(), StoreError> {
    let (answer, answered) = mpsc::channel();
    log.append(records, Box::new(move |result| answer.send(result).unwrap()))?;
    answered.recv().unwrap()
}

fn indexes(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.position.index).collect()
}

#[test]
fn what_is_appended_is_read_back_after_a_reopen() {
    let dir = scratch();
    let records: Vec<Record> =
        [0, 1, 3_700, 1 << 20, 70_000, 200].iter().enumerate().map(|(i, len)| record(1, i as u64, *len)).collect();
    let (log, opened) = open(dir.path());
    assert_eq!((log.last(), log.purged(), log.vote(), opened), (None, None, None, Opened::default()));
    append(&log, &records).unwrap();
    let vote = Vote { term: 4, node: 7, committed: true };
    log.save_vote(vote).unwrap();
    log.save_meta(|meta| meta.cluster = Some(9)).unwrap();
    for _ in 0..2 {
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), records);
    }
    drop(log);
    let (log, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), records);
    assert_eq!((log.last(), log.vote(), log.meta().cluster), (Some(at(1, 5)), Some(vote), Some(9)));
    assert_eq!(log.bytes(), records.iter().map(|record| record.body.len() as u64).sum::<u64>());
}

#[test]
fn reads_are_bounded_by_bytes() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let records: Vec<Record> = (0..20).map(|index| record(1, index, 100)).collect();
    append(&log, &records).unwrap();
    for (from, to, bytes, wanted) in [
        (0, 20, 350, vec![0, 1, 2]),
        (5, 8, 1000, vec![5, 6, 7]),
        (5, 9, 0, vec![5]),
        (19, 50, 1000, vec![19]),
        (20, 50, 1000, vec![]),
        (9, 9, 1000, vec![]),
        (9, 3, 1000, vec![]),
    ] {
        assert_eq!(indexes(&log.read(from, to, bytes).unwrap()), wanted, "{from}..{to}, {bytes} bytes");
    }
}

#[test]
fn entries_out_of_order_are_refused() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let order = |records: &[Record]| matches!(append(&log, records), Err(StoreError::Order(_)));
    assert!(order(&[record(1, 1, 1)]), "the first is 0");
    append(&log, &[record(2, 0, 1), record(2, 1, 1)]).unwrap();
    assert!(order(&[record(2, 1, 1)]), "overwritten");
    assert!(order(&[record(2, 3, 1)]), "a gap");
    assert!(order(&[record(1, 2, 1)]), "a lower term");
    assert!(order(&[record(2, 2, 1), record(2, 4, 1)]), "a gap inside");
    assert_eq!(log.last(), Some(at(2, 1)));
    append(&log, &[record(2, 2, 1)]).unwrap();
    append(&log, &[]).unwrap();
}

#[test]
fn a_truncated_end_is_written_anew() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    append(&log, &(0..10).map(|index| record(1, index, 5_000)).collect::<Vec<_>>()).unwrap();
    log.truncate(20).unwrap();
    log.truncate(4).unwrap();
    assert_eq!((log.last(), log.bytes()), (Some(at(1, 3)), 20_000));
    append(&log, &[record(2, 4, 10), record(2, 5, 10)]).unwrap();
    let wanted = log.read(0, 100, usize::MAX).unwrap();
    assert_eq!(indexes(&wanted), [0, 1, 2, 3, 4, 5]);
    drop(log);
    let (log, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), wanted);
    assert_eq!(wanted[4], record(2, 4, 10));
    log.truncate(0).unwrap();
    assert_eq!((log.last(), log.bytes()), (None, 0));
    append(&log, &[record(3, 0, 1)]).unwrap();
    drop(log);
    assert_eq!(open(dir.path()).0.last(), Some(at(3, 0)));
}

#[test]
fn a_purge_may_go_beyond_the_end() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    append(&log, &(0..300).map(|index| record(1, index, 50)).collect::<Vec<_>>()).unwrap();
    log.purge(at(1, 99)).unwrap();
    log.purge(at(1, 20)).unwrap();
    assert_eq!((log.purged(), log.last(), log.bytes()), (Some(at(1, 99)), Some(at(1, 299)), 10_000));
    assert_eq!(log.read(0, 102, usize::MAX).unwrap(), [record(1, 100, 50), record(1, 101, 50)]);
    assert!(matches!(log.truncate(50), Err(StoreError::Order(_))));
    log.purge(at(2, 1_000)).unwrap();
    assert_eq!((log.purged(), log.last(), log.bytes()), (Some(at(2, 1_000)), Some(at(2, 1_000)), 0));
    assert_eq!(log.read(0, 2_000, usize::MAX).unwrap(), []);
    assert!(append(&log, &[record(2, 300, 1)]).is_err());
    append(&log, &[record(2, 1_001, 1)]).unwrap();
    drop(log);
    let (log, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    assert_eq!((log.purged(), log.last(), log.bytes()), (Some(at(2, 1_000)), Some(at(2, 1_001)), 1));
}

#[test]
fn a_closed_log_says_so() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    append(&log, &[record(1, 0, 1)]).unwrap();
    log.close();
    assert_eq!(append(&log, &[record(1, 1, 1)]), Err(StoreError::Closed));
    assert_eq!(log.truncate(0), Err(StoreError::Closed));
    assert_eq!(log.purge(at(1, 0)), Err(StoreError::Closed));
    assert_eq!(log.save_vote(Vote { term: 1, node: 1, committed: false }), Err(StoreError::Closed));
    assert_eq!(log.read(0, 9, 9).unwrap(), [record(1, 0, 1)]);
}

#[test]
fn a_second_open_waits_and_then_gives_up() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let impatient = Options { lock_wait: Duration::from_millis(100), ..options() };
    assert!(matches!(Log::open(dir.path(), impatient, fatal()), Err(OpenError::Locked { .. })));
    let path = dir.path().to_owned();
    let waiter = std::thread::spawn(move || open(&path).0.last());
    append(&log, &[record(1, 0, 1)]).unwrap();
    drop(log);
    assert_eq!(waiter.join().unwrap(), Some(at(1, 0)));
}
