//! Bits that flip, files that are gone: the harm is none, or it is reported. `FULMAR_FLIPS=n` flips so many in sled's file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::scratch;
use super::log::{append, at, fatal, record};
use crate::store::log::{Log, Meta, OpenError, Options, Position, Record, Vote};
use crate::store::snapshots::{SnapshotHead, Snapshots};
use crate::store::verify::{Verdict, verify};
use crate::store::{layout, mark, sled};

const FLIPS: u64 = 400;

fn options() -> Options {
    Options { segment_bytes: 1 << 16, cache_bytes: 1 << 20, ..Options::default() }
}

/// All that a log says.
#[derive(Debug, PartialEq)]
struct Content {
    purged: Option<Position>,
    last: Option<Position>,
    records: Vec<Record>,
    vote: Option<Vote>,
    meta: Meta,
}

impl Content {
    fn of(log: &Log) -> Self {
        Content {
            purged: log.purged(),
            last: log.last(),
            records: log.read(0, u64::MAX, usize::MAX).unwrap(),
            vote: log.vote(),
            meta: log.meta(),
        }
    }
}

/// A data directory that has seen some life, and what its log holds.
fn lived_in(dir: &Path) -> Content {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(layout::NODE_ID), "00000000000000a5\n").unwrap();
    let (log, _) = Log::open(dir, options(), fatal()).unwrap();
    log.save_meta(|meta| *meta = Meta { cluster: Some(77), node: 0xa5, generation: 1, committed: None }).unwrap();
    for round in 0..8 {
        let first = log.last().map_or(0, |last| last.index + 1);
        append(&log, &(first..first + 40).map(|index| record(1, index, 50 * round + 20)).collect::<Vec<_>>()).unwrap();
        log.purge(at(1, first + 20)).unwrap();
        log.save_vote(Vote { term: round as u64, node: 3, committed: false }).unwrap();
    }
    let next = log.last().unwrap().index + 1;
    append(&log, &[record(1, next, 9_000), record(1, next + 1, 0)]).unwrap();
    let content = Content::of(&log);
    drop(log);
    let purged = content.purged.unwrap();
    let snapshots = Snapshots::open(layout::snapshot_dir(dir)).unwrap();
    let Position { term, leader, index } = purged;
    let head = SnapshotHead { term, leader, index, cluster: 77, ..SnapshotHead::default() };
    snapshots.create(&head).unwrap().finish().unwrap();
    content
}

/// All files under a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    all
}

/// Opens and verifies what has been changed in `dir`. Whether the harm was reported; otherwise there must be none.
fn reported(dir: &Path, whole: &Content, what: &str) -> bool {
    let before = files(dir);
    let verdict = verify(dir, &|_| Ok(())).verdict();
    assert!(before == files(dir), "{what}: verify has changed something");
    match Log::open(dir, options(), fatal()) {
        Ok((log, opened)) => {
            assert_eq!(&Content::of(&log), whole, "{what}");
            assert_eq!(opened.truncated, None, "{what}");
            assert_eq!(verdict, Verdict::Intact, "{what}");
            false
        }
        Err(OpenError::Damaged(_)) => {
            assert_eq!(verdict, Verdict::Damaged, "{what}");
            assert!(before == files(dir), "{what}: evidence was changed");
            true
        }
        Err(OpenError::Newer { .. }) => {
            assert_eq!(verdict, Verdict::Unreadable, "{what}");
            assert!(before == files(dir), "{what}: a newer one was changed");
            true
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Runs cases in parallel, each on a copy of a lived-in directory.
fn each_case(cases: u64, run: impl Fn(u64, &Path, &Content) + Sync) {
    let scratch = scratch();
    let original = scratch.path().join("original");
    let content = lived_in(&original);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::SeqCst);
                    if case >= cases {
                        return;
                    }
                    let dir = scratch.path().join(case.to_string());
                    sled::copy(&original, &dir).unwrap();
                    run(case, &dir, &content);
                    fs::remove_dir_all(dir).unwrap();
                }
            });
        }
    });
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_the_log_is_harmless_or_reported() {
    let cases = std::env::var("FULMAR_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(FLIPS);
    let found = AtomicU64::new(0);
    each_case(cases, |case, dir, content| {
        let path = layout::log_dir(dir).join(sled::DATA);
        let bit = StdRng::seed_from_u64(case).random_range(0..fs::metadata(&path).unwrap().len() * 8);
        flip(&path, bit);
        if reported(dir, content, &format!("bit {bit} of db")) {
            found.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert!(found.into_inner() > cases / 20, "much of the file is in use");
}

#[test]
fn a_flipped_bit_in_a_small_file_is_harmless_or_reported() {
    let names = [layout::FORMAT, layout::NODE_ID, mark::FILE, "log/conf"];
    // Of the mark, what is written in its two slots: the rest is zero, and stands for itself.
    let places: Vec<(&str, u64)> = names
        .into_iter()
        .flat_map(|name| {
            let bytes: Vec<u64> = match name {
                mark::FILE => (0..90).chain(4_080..4_190).chain(8_180..8_192).collect(),
                layout::FORMAT => (0..14).collect(),
                layout::NODE_ID => (0..17).collect(),
                _ => (0..60).collect(),
            };
            bytes.into_iter().map(move |byte| (name, byte))
        })
        .collect();
    each_case(places.len() as u64, |case, dir, content| {
        let (name, byte) = places[case as usize];
        flip(&dir.join(name), byte * 8 + case % 8);
        let was_reported = reported(dir, content, &format!("byte {byte} of {name}"));
        // One slot of the mark is enough, and a node's id may be written in capitals.
        assert!(was_reported || [mark::FILE, layout::NODE_ID].contains(&name), "byte {byte} of {name}");
    });
}

#[test]
fn a_file_that_is_gone_or_cut_short_is_reported() {
    let names = [layout::FORMAT, layout::NODE_ID, mark::FILE, "log/conf", "log/db", "log"];
    each_case(2 * names.len() as u64, |case, dir, content| {
        let name = names[case as usize / 2];
        let path = dir.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if case % 2 == 0 {
            fs::remove_file(&path).unwrap();
        } else {
            let length = fs::metadata(&path).unwrap().len();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
        }
        // Half of the mark is one slot. Half of an id is an id, but another.
        let enough = name == mark::FILE && case % 2 == 1;
        assert!(reported(dir, content, name) || enough, "{name}");
    });
}

#[test]
fn both_slots_of_the_mark_are_needed_for_nothing_and_one_for_all() {
    each_case(1, |_, dir, content| {
        for at in [8, 4_096 + 8] {
            flip(&dir.join(mark::FILE), at * 8);
        }
        assert!(reported(dir, content, "both slots"));
    });
}

#[test]
fn a_snapshot_must_reach_the_purged_entry() {
    each_case(3, |case, dir, _| {
        let snapshot = Snapshots::at(layout::snapshot_dir(dir)).list().unwrap().remove(0).path;
        match case {
            0 => fs::remove_file(&snapshot).unwrap(),
            1 => flip(&snapshot, 8 * 20),
            _ => fs::rename(&snapshot, snapshot.with_file_name(format!("{:016x}-{:016x}.snapshot", 5, 1))).unwrap(),
        }
        let report = verify(dir, &|_| Ok(()));
        assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
        assert!(report.to_string().contains("snapshots"), "{report}");
    });
}

#[test]
fn verify_says_what_there_is() {
    each_case(1, |_, dir, content| {
        let report = verify(dir, &|_| Ok(())).to_string();
        let bytes: usize = content.records.iter().map(|record| record.body.len()).sum();
        assert!(
            report.contains(&format!("{} entries, {bytes} bytes, up to entry 321 of term 1", content.records.len()))
        );
        for line in ["format    ok", "node      ok", "mark      ok", "metadata  ok", "snapshot  ok"] {
            assert!(report.contains(line), "{line}: {report}");
        }
        let check =
            |record: &Record| if record.position.index == 310 { Err("means nothing".to_owned()) } else { Ok(()) };
        let report = verify(dir, &check);
        assert_eq!(report.verdict(), Verdict::Damaged);
        assert!(report.to_string().contains("entry 310: means nothing"), "{report}");

        let (log, _) = Log::open(dir, options(), fatal()).unwrap();
        assert_eq!(verify(dir, &|_| Ok(())).verdict(), Verdict::Unreadable, "a node has it open");
        drop(log);
        assert_eq!(verify(&dir.join("absent"), &|_| Ok(())).verdict(), Verdict::Unreadable);
        assert_eq!(verify(&dir.join("snapshots"), &|_| Ok(())).verdict(), Verdict::Unreadable);
    });
}

#[test]
fn a_newer_version_is_refused_untouched() {
    each_case(1, |_, dir, content| {
        fs::write(dir.join(layout::FORMAT), "fulmar data 2\n").unwrap();
        assert!(reported(dir, content, "FORMAT"));
        assert!(matches!(Log::open(dir, options(), fatal()), Err(OpenError::Newer { version: 2, .. })));
    });
}
