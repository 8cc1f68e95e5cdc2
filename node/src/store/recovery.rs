//! The log of a stopped node, read without changing it: what a new cluster could be made of. sled repairs what it opens, so
//! a copy is read, in `log.check/`, which the next start removes too.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Damage, OpenError};
use super::files::{self, Lock};
use super::inspect::{Found, each_record, inspect, open_copy};
use super::layout;
use super::log::{Meta, Position, Record, Vote};
use super::mark::Mark;
use super::sled::Sled;

/// Bytes of pages in memory while the log is read.
const CACHE_BYTES: u64 = 32 << 20;

/// What a stopped node's log holds. While it lives no process can open the directory.
pub struct Survey {
    data_dir: PathBuf,
    mark: Mark,
    found: Found,
    /// What is wrong at or below the mark, if that was to be passed over: entries from there on are not in this.
    damage: Option<Damage>,
    /// Closed before the copy is removed.
    sled: Option<Sled>,
    _lock: Lock,
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey").field("mark", &self.mark).field("damage", &self.damage).finish_non_exhaustive()
    }
}

impl Survey {
    /// Reads the log. With `salvage` it ends before the first entry that is missing or damaged, acknowledged or not;
    /// without, an acknowledged one that is not whole is an error. A torn tail, which nobody was promised, ends it in any case.
    ///
    /// # Errors
    /// Another process has the directory, it holds no log, the log is damaged (with `salvage`: beyond its entries), of a
    /// newer release, or cannot be read. The directory is as before.
    pub fn open(data_dir: &Path, salvage: bool) -> Result<Survey, OpenError> {
        let format = data_dir.join(layout::FORMAT);
        layout::read_format(data_dir)?;
        let lock = Lock::exclusive(data_dir, Duration::ZERO)
            .map_err(OpenError::io(data_dir))?
            .ok_or_else(|| OpenError::Locked { file: data_dir.to_owned() })?;
        let Some((mark, true)) = layout::examine(data_dir)? else {
            return Err(OpenError::Io { file: format, error: std::io::Error::other("there is no log of a node here") });
        };
        let copy = layout::check_dir(data_dir);
        files::remove_dir(&copy).map_err(OpenError::io(&copy))?;
        let read = (|| {
            let sled = open_copy(data_dir, &copy, CACHE_BYTES)?;
            match inspect(&sled, &mark, data_dir, &|_| Ok(())) {
                Ok(found) => Ok((sled, found, None)),
                Err(OpenError::Damaged(damage)) if salvage && damage.index.is_some() => {
                    let found = inspect(&sled, &Mark { last: None, ..mark }, data_dir, &|_| Ok(()))?;
                    Ok((sled, found, Some(damage)))
                }
                Err(error) => Err(error),
            }
        })();
        match read {
            Ok((sled, found, damage)) => {
                Ok(Survey { data_dir: data_dir.to_owned(), mark, found, damage, sled: Some(sled), _lock: lock })
            }
            Err(error) => {
                files::remove_dir(&copy).map_err(OpenError::io(&copy))?;
                Err(error)
            }
        }
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The last entry that was let go of at the front.
    #[must_use]
    pub fn purged(&self) -> Option<Position> {
        self.mark.purged
    }

    /// The last entry that is whole, with all before it; if there is none, the purged one.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.found.last.or(self.mark.purged)
    }

    /// The last entry that was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Position> {
        self.mark.last.or(self.mark.purged)
    }

    #[must_use]
    pub fn meta(&self) -> Meta {
        self.found.meta.meta
    }

    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.found.meta.vote
    }

    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Shows all whole entries from index `from` on, in order.
    ///
    /// # Errors
    /// The first that `each` says, or that the copy cannot be read.
    pub fn each(&self, from: u64, mut each: impl FnMut(&Record) -> Result<(), String>) -> Result<(), String> {
        let (Some(sled), Some(last)) = (&self.sled, self.found.last) else { return Ok(()) };
        let first = self.mark.purged.map_or(0, |purged| purged.index + 1).max(from);
        let mut outcome = Ok(());
        let scanned = each_record(sled, first, last.index + 1, |index, record| {
            outcome = match record {
                Ok(record) => each(&record).map_err(|what| format!("entry {index}: {what}")),
                Err(_) => Err(format!("entry {index} was whole a moment ago")),
            };
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(|broken| broken.to_string())?;
        outcome
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.sled = None;
        // The next start removes what stays.
        let _ = files::remove_dir(&layout::check_dir(&self.data_dir));
    }
}
