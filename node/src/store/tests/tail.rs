//! Entries that are missing or wrong: above the mark they are a torn tail, at or below it damage.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::disk::scratch;
use super::log::{append, at, fatal, open, options, record};
use crate::store::log::{Log, OpenError, Record};
use crate::store::record::{Key, VERSION, key};
use crate::store::sled::Sled;
use crate::store::verify::{Verdict, verify};
use crate::store::{layout, mark};

/// A log of entries 0 to 19, the last of which take several values; its mark promises those below `promised`.
fn log_of_twenty(dir: &Path, promised: u64) {
    let (log, _) = open(dir);
    append(&log, &(0..promised).map(|index| record(1, index, 100)).collect::<Vec<_>>()).unwrap();
    drop(log);
    let mark = fs::read(dir.join(mark::FILE)).unwrap();
    let (log, _) = open(dir);
    append(&log, &(promised..20).map(|index| record(1, index, 9_000)).collect::<Vec<_>>()).unwrap();
    drop(log);
    fs::write(dir.join(mark::FILE), mark).unwrap();
}

/// Changes what is in sled.
fn change(dir: &Path, key: &Key, value: Option<Vec<u8>>) {
    let sled = Sled::open(&layout::log_dir(dir), 1 << 19, 1 << 20, Duration::from_secs(20)).unwrap();
    sled.apply(vec![(key.to_vec(), value)]).unwrap();
    sled.sync().unwrap();
}

/// A value that claims to be of a version, with a checksum that is right.
fn of_version(key: &Key, version: u8) -> Vec<u8> {
    let rest = [0; 20];
    let mut hasher = crc32fast::Hasher::new();
    [&key[..], &[version], &rest].into_iter().for_each(|bytes| hasher.update(bytes));
    [&[version], &hasher.finalize().to_be_bytes()[..], &rest].concat()
}

#[test]
fn above_the_mark_a_torn_tail_is_cut_off() {
    for (index, part, value) in
        [(15, 0, None), (15, 1, None), (19, 2, None), (10, 0, None), (15, 0, Some(vec![])), (15, 0, Some(vec![7; 50]))]
    {
        let dir = scratch();
        log_of_twenty(dir.path(), 10);
        change(dir.path(), &key(index, part), value);
        let report = verify(dir.path(), &|_| Ok(()));
        assert_eq!(report.verdict(), Verdict::TornTail, "{report}");
        assert!(report.to_string().contains(&format!("torn from entry {index} on")), "{report}");

        let (log, opened) = open(dir.path());
        assert_eq!((opened.truncated, log.last()), (Some(index), Some(at(1, index - 1))));
        append(&log, &[record(2, index, 10)]).unwrap();
        drop(log);
        let (log, opened) = open(dir.path());
        assert_eq!(opened.truncated, None);
        assert_eq!(log.last(), Some(at(2, index)), "what was cut off does not come back");
    }
}

#[test]
fn at_or_below_the_mark_it_is_damage() {
    for (index, part, value) in [(15, 0, None), (19, 2, None), (0, 0, None), (15, 1, Some(vec![7; 50]))] {
        let dir = scratch();
        log_of_twenty(dir.path(), 10);
        drop(open(dir.path()));
        change(dir.path(), &key(index, part), value);
        let report = verify(dir.path(), &|_| Ok(()));
        assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
        let Err(OpenError::Damaged(damage)) = Log::open(dir.path(), options(), fatal()) else {
            panic!("it opened");
        };
        assert_eq!(damage.index, Some(index), "{damage}");
        assert!(damage.to_string().contains(&format!("log/db, entry {index}: ")), "{damage}");
    }
}

#[test]
fn an_entry_of_a_newer_release_is_refused_wherever_it_stands() {
    for index in [5, 15] {
        let dir = scratch();
        log_of_twenty(dir.path(), 10);
        change(dir.path(), &key(index, 0), Some(of_version(&key(index, 0), VERSION + 1)));
        let before = fs::read(layout::log_dir(dir.path()).join("db")).unwrap();
        let opened = Log::open(dir.path(), options(), fatal());
        assert!(matches!(opened, Err(OpenError::Newer { version: 2, supported: 1, .. })));
        assert_eq!(verify(dir.path(), &|_| Ok(())).verdict(), Verdict::Unreadable);
        assert!(before == fs::read(layout::log_dir(dir.path()).join("db")).unwrap());
    }
}

#[test]
fn an_entry_that_is_not_the_acknowledged_one_is_damage() {
    let dir = scratch();
    log_of_twenty(dir.path(), 20);
    let mark = fs::read(dir.path().join(mark::FILE)).unwrap();
    let (log, _) = open(dir.path());
    log.truncate(19).unwrap();
    append(&log, &[record(2, 19, 100)]).unwrap();
    drop(log);
    fs::write(dir.path().join(mark::FILE), mark).unwrap();
    let Err(OpenError::Damaged(damage)) = Log::open(dir.path(), options(), fatal()) else { panic!("it opened") };
    assert_eq!((damage.index, damage.what.as_str()), (Some(19), "it is not the entry that was acknowledged"));
}

#[test]
fn damage_found_while_reading_names_the_entry() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let records: Vec<Record> = (0..5).map(|index| record(1, index, 9_000)).collect();
    append(&log, &records).unwrap();
    log.lose(&key(3, 1));
    assert_eq!(log.read(0, 3, usize::MAX).unwrap(), records[..3]);
    let error = log.read(0, 5, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("entry 3: a part is missing"), "{error}");
}
