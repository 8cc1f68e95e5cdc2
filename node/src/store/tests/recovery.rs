//! A stopped node's log, read for a recovery: all that is whole, and nothing is changed until something is written.

use std::path::Path;

use super::disk::scratch;
use super::log::{append, at, open, record};
use crate::store::log::{Log, OpenError, Record};
use crate::store::record::key;
use crate::store::recovery::Survey;
use crate::store::verify::{Verdict, verify};

/// A log of entries 0 to 9, of which entry 6 is lost if that is asked for.
fn log(dir: &Path, whole: bool) -> Vec<Record> {
    let (log, _) = open(dir);
    let records: Vec<Record> = (0..10).map(|index| record(2, index, 500)).collect();
    append(&log, &records).unwrap();
    log.save_meta(|meta| meta.cluster = Some(5)).unwrap();
    if !whole {
        log.lose(&key(6, 0));
        log.save_meta(|meta| meta.generation = 4).unwrap();
    }
    log.close();
    records
}

fn seen(survey: &Survey, from: u64) -> Vec<Record> {
    let mut seen = Vec::new();
    survey
        .each(from, |record| {
            seen.push(record.clone());
            Ok(())
        })
        .unwrap();
    seen
}

#[test]
fn all_that_is_whole_is_shown_and_nobody_else_opens_it_meanwhile() {
    let dir = scratch();
    let records = log(dir.path(), true);
    {
        let _open = open(dir.path());
        assert!(matches!(Survey::open(dir.path(), false), Err(OpenError::Locked { .. })), "a node has it");
    }
    let survey = Survey::open(dir.path(), false).unwrap();
    assert_eq!((survey.last(), survey.acknowledged(), survey.purged()), (Some(at(2, 9)), Some(at(2, 9)), None));
    assert_eq!((seen(&survey, 0), survey.meta().cluster), (records.clone(), Some(5)));
    assert_eq!(seen(&survey, 7), records[7..]);
    assert_eq!(survey.each(0, |_| Err("it is nothing".to_owned())), Err("entry 0: it is nothing".to_owned()));
    assert_eq!(verify(dir.path(), &|_| Ok(())).verdict(), Verdict::Unreadable, "in use");
    drop(survey);
    let report = verify(dir.path(), &|_| Ok(()));
    assert_eq!((report.verdict(), report.last, report.cluster), (Verdict::Intact, Some(at(2, 9)), Some(5)));
    assert_eq!(open(dir.path()).0.last(), Some(at(2, 9)));
}

#[test]
fn what_comes_before_an_acknowledged_entry_that_is_lost_is_kept_once_that_is_accepted() {
    let dir = scratch();
    let records = log(dir.path(), false);
    let Err(OpenError::Damaged(damage)) = Survey::open(dir.path(), false) else { panic!("entry 6 is missing") };
    assert_eq!(damage.index, Some(6));
    let report = verify(dir.path(), &|_| Ok(()));
    assert_eq!((report.verdict(), report.last, report.cluster), (Verdict::Damaged, Some(at(2, 5)), Some(5)));

    let survey = Survey::open(dir.path(), true).unwrap();
    assert_eq!((survey.last(), survey.acknowledged()), (Some(at(2, 5)), Some(at(2, 9))));
    assert_eq!((seen(&survey, 0), survey.damage()), (records[..6].to_vec(), Some(&damage)));
    drop(survey);
    let still = Log::open(dir.path(), super::log::options(), super::log::fatal());
    assert!(matches!(still, Err(OpenError::Damaged(_))), "looking has changed nothing");

    let up_to = || {
        let last = Some(at(2, 5));
        Log::open_up_to(dir.path(), last, super::log::options(), super::log::fatal()).unwrap()
    };
    let (log, opened) = up_to();
    assert_eq!((log.last(), opened.truncated), (Some(at(2, 5)), Some(6)));
    drop(log);
    let still = Log::open(dir.path(), super::log::options(), super::log::fatal());
    assert!(matches!(still, Err(OpenError::Damaged(_))), "nor has opening it, before anything is written");
    let (log, opened) = up_to();
    log.save_meta(|meta| meta.cluster = Some(6)).unwrap();
    log.repair(&opened).unwrap();
    drop(log);
    let (log, opened) = open(dir.path());
    assert_eq!((log.last(), log.meta().cluster, opened.truncated), (Some(at(2, 5)), Some(6), None));
}

#[test]
fn there_is_nothing_to_read_where_no_log_is() {
    let dir = scratch();
    assert!(matches!(Survey::open(dir.path(), false), Err(OpenError::Io { .. })));
    assert!(matches!(Survey::open(&dir.path().join("absent"), false), Err(OpenError::Io { .. })));
}
