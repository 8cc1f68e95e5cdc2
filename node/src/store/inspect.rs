//! Reads all of a log and holds it against the mark.

use std::collections::VecDeque;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::error::OpenError;
use super::layout;
use super::mark::Mark;
use super::record::{self, Flaw, INDEX_END, META_KEY, MetaRecord, Parts, Position, Record};
use super::sled::{self, Broken, Sled};

/// What is in a log whose promises are kept.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The last good entry.
    pub(super) last: Option<Position>,
    /// Bytes of the bodies of the good entries, in order.
    pub(super) sizes: VecDeque<u32>,
    pub(super) meta: MetaRecord,
    /// The index at which a torn tail begins: nothing from there on was acknowledged.
    pub(super) torn: Option<u64>,
    /// A purge was interrupted: there are keys at or below the purged entry.
    pub(super) leftovers: bool,
}

/// Looks at each good entry; an error makes it a damaged one.
pub(super) type Check<'c> = &'c dyn Fn(&Record) -> Result<(), String>;

/// Reads a whole log.
///
/// # Errors
/// If what the mark promises is not there: all entries above the purged one up to the last, and metadata no older than
/// its counter, or if `node-id` is not the node that wrote them. Or if `check` refuses an entry, or one was written by a newer release. Errors name files as if the log
/// lay in `data_dir`.
pub(super) fn inspect(sled: &Sled, mark: &Mark, data_dir: &Path, check: Check<'_>) -> Result<Found, OpenError> {
    let file = layout::log_dir(data_dir).join(sled::DATA);
    let newer = |version: u8| OpenError::Newer {
        file: file.clone(),
        version: version.into(),
        supported: record::VERSION.into(),
    };
    let broken = |broken: Broken| broken.at_open(&file);

    let mut found = Found::default();
    match sled.meta(META_KEY).map_err(broken)?.map(|value| MetaRecord::decode(&value)) {
        Some(Ok(meta)) if meta.counter >= mark.counter => found.meta = meta,
        Some(Ok(_)) => {
            return Err(OpenError::damaged(&file, None, "vote and metadata are older than was acknowledged"));
        }
        Some(Err(Flaw::Newer(version))) => return Err(newer(version)),
        Some(Err(Flaw::Damaged(what))) => {
            return Err(OpenError::damaged(&file, None, format!("vote and metadata: {what}")));
        }
        None if mark.counter == 0 => {}
        None => return Err(OpenError::damaged(&file, None, "vote and metadata are missing")),
    }

    layout::check_writer(data_dir, found.meta.meta.node)?;

    let promised = mark.last.map(|last| last.index);
    let mut next = mark.purged.map_or(0, |purged| purged.index + 1);
    let first = next;
    let mut outcome = Ok(());
    let mut last = mark.purged;
    each_record(sled, 0, INDEX_END, |index, record| {
        if index < first {
            found.leftovers = true;
            return ControlFlow::Continue(());
        }
        let what = match record {
            Err(Flaw::Newer(version)) => {
                outcome = Err(newer(version));
                return ControlFlow::Break(());
            }
            _ if index != next => "is missing".to_owned(),
            Err(Flaw::Damaged(what)) => what.to_owned(),
            Ok(record) => match accept(&record, last, mark).map_err(str::to_owned).and_then(|()| check(&record)) {
                Ok(()) => {
                    last = Some(record.position);
                    found.last = last;
                    found.sizes.push_back(u32::try_from(record.body.len()).unwrap_or(u32::MAX));
                    next += 1;
                    return ControlFlow::Continue(());
                }
                Err(what) => what,
            },
        };
        if promised.is_some_and(|promised| next <= promised) {
            outcome = Err(OpenError::damaged(&file, Some(next), what));
        } else {
            found.torn = Some(next);
        }
        ControlFlow::Break(())
    })
    .map_err(broken)?;
    outcome?;
    if promised.is_some_and(|promised| next <= promised) {
        return Err(OpenError::damaged(&file, Some(next), "is missing"));
    }
    Ok(found)
}

/// Whether an entry can stand where it stands.
fn accept(record: &Record, before: Option<Position>, mark: &Mark) -> Result<(), &'static str> {
    if before.is_some_and(|before| record.position.term < before.term) {
        return Err("its term is lower than that of the entry before it");
    }
    match mark.last {
        Some(last) if last.index == record.position.index && last != record.position => {
            Err("it is not the entry that was acknowledged")
        }
        _ => Ok(()),
    }
}

/// Shows all entries from index `from` to below `to` in order, good or not, until `each` breaks.
pub(super) fn each_record(
    sled: &Sled,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, Result<Record, Flaw>) -> ControlFlow<()>,
) -> Result<(), Broken> {
    let mut parts: Option<Parts> = None;
    let mut broke = false;
    sled.scan(&record::key(from, 0), &record::key(to, 0), |key, value| {
        let Some(index) = record::index_of(key) else {
            broke = true;
            return each(from, Err(Flaw::Damaged("there is a key that is no entry's")));
        };
        if parts.as_ref().is_some_and(|parts| parts.index() != index)
            && let Some(whole) = parts.take()
            && each(whole.index(), whole.finish()).is_break()
        {
            broke = true;
            return ControlFlow::Break(());
        }
        parts.get_or_insert_with(|| Parts::of(index)).push(key, value);
        ControlFlow::Continue(())
    })?;
    if let Some(whole) = parts.filter(|_| !broke) {
        let _ = each(whole.index(), whole.finish());
    }
    Ok(())
}

/// Opens a copy of the log in `copy`, which must not exist yet, and reads it. sled repairs what it opens, in its own
/// way: only a copy can be looked at without destroying evidence. The copy is left for the caller to remove.
pub(super) fn inspect_copy(
    data_dir: &Path,
    copy: &Path,
    cache_bytes: u64,
    mark: &Mark,
    check: Check<'_>,
) -> Result<Found, OpenError> {
    inspect(&open_copy(data_dir, copy, cache_bytes)?, mark, data_dir, check)
}

/// The copy alone, nothing of it read yet.
pub(super) fn open_copy(data_dir: &Path, copy: &Path, cache_bytes: u64) -> Result<Sled, OpenError> {
    let log = layout::log_dir(data_dir);
    let file = log.join(sled::DATA);
    let segment_bytes = sled::segment_bytes_of(&log)
        .map_err(OpenError::io(&log))?
        .ok_or_else(|| OpenError::damaged(&log.join("conf"), None, "sled's settings are not whole"))?;
    if !fs::exists(&file).map_err(OpenError::io(&file))? {
        return Err(OpenError::damaged(&file, None, "is missing"));
    }
    sled::copy(&log, copy).map_err(OpenError::io(copy))?;
    Sled::open(copy, segment_bytes, cache_bytes, Duration::ZERO).map_err(|broken| broken.at_open(&file))
}
