//! The log at its fail points: a process that ends between two steps, and a disk that refuses to sync.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use fail::FailScenario;
use fulmar::store::log::{Fatal, Log, Opened, Options, Position, Record, StoreError, Vote};

fn at(index: u64) -> Position {
    Position { term: 1, leader: 1, index }
}

fn records(indexes: std::ops::Range<u64>) -> Vec<Record> {
    indexes.map(|index| Record { position: at(index), body: Bytes::from(vec![index as u8; 100]) }).collect()
}

fn open(dir: &Path) -> (Log, Opened) {
    let options = Options { segment_bytes: 1 << 18, ..Options::default() };
    Log::open(dir, options, Arc::new(|what| panic!("fatal: {what}"))).expect("a log that is whole")
}

/// Appends, and waits for the answer.
fn append(log: &Log, indexes: std::ops::Range<u64>) -> Result<(), StoreError> {
    let (answer, answered) = mpsc::channel();
    log.append(&records(indexes), Box::new(move |result| answer.send(result).expect("we wait for it")))?;
    answered.recv().expect("it is always answered")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("its entry").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).expect("a copy");
        }
    }
}

/// Where a process ends: what is on disk when the point is reached for the first time is copied to a directory beside.
fn crash_at(point: &str, dir: &Path) -> PathBuf {
    let copied = dir.with_extension("crashed");
    let (from, to) = (dir.to_owned(), Mutex::new(Some(copied.clone())));
    let crash = move || {
        if let Some(to) = to.lock().expect("no panic before").take() {
            copy(&from, &to);
        }
    };
    fail::cfg_callback(point, crash).expect("an action");
    copied
}

#[test]
fn a_crash_before_the_mark_loses_nothing_acknowledged() {
    let scenario = FailScenario::setup();
    for point in ["log::after_append", "log::after_flush"] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        let (log, _) = open(&dir);
        let vote = Vote { term: 1, node: 1, committed: false };
        log.save_vote(vote).unwrap();
        append(&log, 0..10).unwrap();
        let crashed = crash_at(point, &dir);
        append(&log, 10..20).unwrap();
        fail::remove(point);

        let (log, opened) = open(&crashed);
        let read = log.read(0, 100, usize::MAX).unwrap();
        assert!(read.len() >= 10, "{point}: {} entries", read.len());
        assert_eq!(read, records(0..read.len() as u64), "{point}");
        assert_eq!((log.vote(), opened.truncated), (Some(vote), None), "{point}");
        if point == "log::after_flush" {
            assert_eq!(read.len(), 20, "what was flushed is kept");
        }
        append(&log, read.len() as u64..30).unwrap();
    }
    scenario.teardown();
}

#[test]
fn a_crash_inside_a_purge_is_made_good() {
    let scenario = FailScenario::setup();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let (log, _) = open(&dir);
    append(&log, 0..500).unwrap();
    let crashed = crash_at("log::before_purge", &dir);
    log.purge(at(399)).unwrap();

    let (log, opened) = open(&crashed);
    assert_eq!(opened, Opened { truncated: None, purge_finished: true });
    assert_eq!((log.purged(), log.last(), log.bytes()), (Some(at(399)), Some(at(499)), 10_000));
    assert_eq!(log.read(0, 1_000, usize::MAX).unwrap(), records(400..500));
    drop(log);
    assert_eq!(open(&crashed).1, Opened::default(), "it is finished");
    scenario.teardown();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let scenario = FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let fatal = Arc::new(AtomicUsize::new(0));
    let counted = fatal.clone();
    let count: Fatal = Arc::new(move |what| {
        assert!(what.contains("db"), "{what}");
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (log, _) = Log::open(dir.path(), Options::default(), count).unwrap();
    append(&log, 0..5).unwrap();
    let failed = |result| matches!(result, Err(StoreError::Failed(_)));
    fail::cfg("log::sync_error", "return").unwrap();
    let answers: Vec<_> = (5..8).map(|index| append(&log, index..index + 1)).collect();
    assert!(answers.into_iter().all(failed));
    // The disk seems well again: what it dropped meanwhile is not known.
    fail::remove("log::sync_error");
    assert!(failed(append(&log, 8..9)));
    assert!(failed(log.save_vote(Vote { term: 9, node: 1, committed: false })));
    assert!(failed(log.save_meta(|meta| meta.generation = 9)));
    assert!(failed(log.truncate(2)));
    assert!(failed(log.purge(at(2))));
    log.close();
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
    drop(log);

    let (log, _) = open(dir.path());
    let read = log.read(0, 100, usize::MAX).unwrap();
    assert_eq!(read, records(0..read.len() as u64));
    assert!(read.len() >= 5 && log.vote().is_none());
    scenario.teardown();
}
