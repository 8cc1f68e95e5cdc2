//! The ordered store under the log. This is the only file that names sled, and it holds what has to be known about
//! sled 0.34:
//!
//! - `flush` only asks the kernel to write (`sync_file_range`). What has to last is synced here, on the file itself.
//! - It reuses a segment of its file once what was in it stands elsewhere, *written but perhaps not synced*, and at the
//!   next open it joins what it finds on both sides of a tear. Both are safe as long as less than a segment is written
//!   between two syncs: [`Sled::apply`] sees to that.
//! - A page above a quarter of a segment goes into a file of its own that is never synced. A leaf page holds up to 17
//!   values, so values are kept below [`PARTS_PER_SEGMENT`].
//! - It opens over damage in silence, and zeroes what it does not understand. So it is tried on a copy first.
//! - It may panic instead of returning an error, and its errors are final.
//! - Its thread that flushes now and then is off: it would sync at times that are not ours.
//! - An open zeroes and reuses segments without live pages at once, even the last but one, which the last one's header
//!   refers to. From then on the `snap.*` file that the open has written is needed: without it the next open finds
//!   nothing at all. But its name is not synced. So it is taken from the copy, and made to last, before the open.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::OpenError;
use super::files;

/// sled's names inside its directory.
pub(super) const DATA: &str = "db";
const SETTINGS: &str = "conf";
const SNAPSHOT_PREFIX: &str = "snap.";

/// A value takes at most this part of a segment: 17 of them stay below its quarter, with room for keys and links.
pub(super) const PARTS_PER_SEGMENT: usize = 140;

/// What may be handed to sled between two syncs: an eighth of a segment, because sled writes pages again as they grow,
/// split and move.
const UNSYNCED_PER_SEGMENT: u64 = 8;

/// What one write counts for besides its bytes: a share of the pages that sled may write again on its account.
const WRITES_PER_SEGMENT: u64 = 2048;

const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why sled did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("sled: {0}")]
    Sled(String),
    #[error("sled panicked: {0}")]
    Panic(String),
    /// The system refused something, which says nothing of what the files hold.
    #[error("{}: {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
}

impl Broken {
    /// sled says no more than this of a lock that another process holds.
    fn is_lock(&self) -> bool {
        matches!(self, Broken::Sled(text) if text.contains("could not acquire lock"))
    }

    /// What it means for the open of a store whose data is `file`.
    pub(super) fn at_open(self, file: &Path) -> OpenError {
        match self {
            Broken::Io { file, error } => OpenError::Io { file, error },
            broken if broken.is_lock() => OpenError::Locked { file: file.to_owned() },
            broken => OpenError::damaged(file, None, broken.to_string()),
        }
    }
}

/// Keys to set, or to remove (`None`).
pub(super) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug)]
pub(super) struct Sled {
    db: sled::Db,
    meta: sled::Tree,
    file: File,
    path: PathBuf,
    segment_bytes: u64,
    /// Handed to sled since the last sync, as [`Sled::apply`] counts.
    unsynced: AtomicU64,
    /// Held through a sync; true once one has failed. The kernel reports a failed write once, so a second sync would
    /// succeed without what was lost.
    lost: Mutex<bool>,
}

impl Sled {
    /// Opens or makes the store in `dir`. What sled's recovery wrote is synced before anything else is written.
    /// Waits as long as `lock_wait` for another process to let go of it.
    pub(super) fn open(
        dir: &Path,
        segment_bytes: usize,
        cache_bytes: u64,
        lock_wait: Duration,
    ) -> Result<Self, Broken> {
        let until = Instant::now() + lock_wait;
        let db = loop {
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(cache_bytes)
                .segment_size(segment_bytes)
                .flush_every_ms(None)
                .mode(sled::Mode::LowSpace);
            match attempt(dir, || config.open()) {
                Err(broken) if broken.is_lock() && Instant::now() < until => thread::sleep(LOCK_RETRY),
                answer => break answer?,
            }
        };
        let path = dir.join(DATA);
        let file = File::open(&path).map_err(broken_io(&path))?;
        files::sync_data(&file, &path).map_err(broken_io(&path))?;
        let meta = attempt(dir, || db.open_tree("meta"))?;
        Ok(Sled {
            db,
            meta,
            file,
            path,
            segment_bytes: segment_bytes as u64,
            unsynced: AtomicU64::new(0),
            lost: Mutex::new(false),
        })
    }

    pub(super) fn segment_bytes(&self) -> usize {
        self.segment_bytes as usize
    }

    /// Shows all keys from `from` to below `to` in order, until `each` breaks.
    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Broken> {
        attempt(&self.path, || {
            for pair in self.db.range(from..to) {
                let (key, value) = pair?;
                if each(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Sets keys, or removes them (`None`), in order. That is durable after the next [`Sled::sync`]; where too much has
    /// been written since the last one, this syncs in between.
    pub(super) fn apply(&self, writes: Writes) -> Result<(), Broken> {
        for (key, value) in writes {
            if self.unsynced.load(Ordering::Acquire) >= self.segment_bytes / UNSYNCED_PER_SEGMENT {
                self.sync()?;
            }
            let bytes = value.as_ref().map_or(0, Vec::len);
            let old = attempt(&self.path, || match value {
                Some(value) => self.db.insert(key, value),
                None => self.db.remove(key),
            })?;
            self.count(bytes.max(old.map_or(0, |old| old.len())));
        }
        Ok(())
    }

    /// Counts one write of so many bytes.
    fn count(&self, bytes: usize) {
        self.unsynced.fetch_add(bytes as u64 + self.segment_bytes / WRITES_PER_SEGMENT, Ordering::AcqRel);
    }

    pub(super) fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        attempt(&self.path, || Ok(self.meta.get(key)?.map(|value| value.to_vec())))
    }

    /// Durable after the next [`Sled::sync`].
    pub(super) fn set_meta(&self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        self.count(value.len());
        attempt(&self.path, || self.meta.insert(key, value).map(drop))
    }

    /// Makes all changes that were made before it durable.
    pub(super) fn sync(&self) -> Result<(), Broken> {
        let mut lost = self.lost.lock();
        if *lost {
            return Err(Broken::Io { file: self.path.clone(), error: io::Error::other("an earlier sync failed") });
        }
        let covered = self.unsynced.load(Ordering::Acquire);
        let synced = self.flush_and_sync();
        *lost = synced.is_err();
        if synced.is_ok() {
            self.unsynced.fetch_sub(covered, Ordering::AcqRel);
        }
        synced
    }

    fn flush_and_sync(&self) -> Result<(), Broken> {
        attempt(&self.path, || self.db.flush().map(drop))?;
        fail::fail_point!("log::sync_error", |_| Err(Broken::Io {
            file: self.path.clone(),
            error: io::Error::other("fail point log::sync_error"),
        }));
        files::sync_data(&self.file, &self.path).map_err(broken_io(&self.path))
    }
}

/// Calls into sled; a panic becomes an error. sled's own complaints about its files are I/O errors too, but not the
/// system's.
fn attempt<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Broken> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(sled::Error::Io(error))) if error.raw_os_error().is_some() || error.kind() == ErrorKind::StorageFull => {
            Err(Broken::Io { file: path.to_owned(), error })
        }
        Ok(Err(error)) => Err(Broken::Sled(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Broken::Panic(text.unwrap_or_else(|| "without a text".to_owned())))
        }
    }
}

fn broken_io(file: &Path) -> impl FnOnce(io::Error) -> Broken {
    move |error| Broken::Io { file: file.to_owned(), error }
}

/// The names of the `snap.*` files in a directory. Unfinished ones, which sled would take for whole, are not among them.
fn snapshots(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for name in fs::read_dir(dir)? {
        let name = name?.file_name();
        if is_snapshot(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_snapshot(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(SNAPSHOT_PREFIX));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Copies what counts of a store. Where the file system can share blocks, it does.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in fs::read_dir(from)? {
        let name = name?;
        let target = to.join(name.file_name());
        if name.file_type()?.is_dir() {
            copy(&name.path(), &target)?;
        } else if !name.file_name().to_string_lossy().starts_with(SNAPSHOT_PREFIX) || is_snapshot(&name.file_name()) {
            fs::copy(name.path(), target)?;
        }
    }
    Ok(())
}

/// Readies a store to be opened: what its file holds is made to last, then the `snap.*` file that the open of a copy has
/// left, then what else has such a name is removed.
pub(super) fn take_snapshot(copy: &Path, dir: &Path) -> io::Result<()> {
    let data = dir.join(DATA);
    files::sync_data(&File::open(&data)?, &data)?;
    let newest = snapshots(copy)?.into_iter().max();
    let has = snapshots(dir)?;
    if let Some(newest) = newest.as_ref().filter(|newest| !has.contains(newest)) {
        let beside = dir.join("new-snap");
        fs::copy(copy.join(newest), &beside)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, dir.join(newest))?;
    }
    // Also where it was there: whoever gave it its name may have ended before that lasted.
    files::sync_dir(dir)?;
    for name in fs::read_dir(dir)? {
        let name = name?;
        if name.file_name().to_string_lossy().starts_with(SNAPSHOT_PREFIX) && newest.as_ref() != Some(&name.file_name())
        {
            fs::remove_file(name.path())?;
        }
    }
    Ok(())
}

/// Makes the files of a new store last: sled itself syncs neither its settings nor any name.
pub(super) fn sync_new(dir: &Path) -> io::Result<()> {
    for name in [DATA, SETTINGS] {
        File::open(dir.join(name))?.sync_all()?;
    }
    files::sync_dir(dir)
}

/// The segment size that a store was made with, out of its settings: lines of text and their CRC-32, which sled only
/// warns about. `None` if they are not whole.
pub(super) fn segment_bytes_of(dir: &Path) -> io::Result<Option<usize>> {
    let bytes = match fs::read(dir.join(SETTINGS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    Ok(bytes.split_last_chunk::<4>().and_then(|(text, crc)| {
        let whole = crc32fast::hash(text) == u32::from_le_bytes(*crc);
        let text = std::str::from_utf8(text).ok().filter(|_| whole)?;
        text.lines().find_map(|line| line.strip_prefix("segment_size: "))?.parse().ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_scanned_in_order_and_outlives_a_close() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Sled::open(dir.path(), 1 << 16, 1 << 20, Duration::from_secs(9)).unwrap();
        let store = open();
        store.apply(vec![(vec![2], Some(vec![20])), (vec![1], Some(vec![10])), (vec![3], Some(vec![30]))]).unwrap();
        store.apply(vec![(vec![2], None)]).unwrap();
        store.set_meta(b"m", b"x").unwrap();
        store.sync().unwrap();
        drop(store);
        let store = open();
        let mut seen = Vec::new();
        store
            .scan(&[0], &[9], |key, value| {
                seen.push((key[0], value[0]));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [(1, 10), (3, 30)]);
        assert_eq!(store.meta(b"m").unwrap().unwrap(), b"x");
    }

    #[test]
    fn one_snapshot_is_taken_and_the_others_go() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(to.path().join(DATA), "").unwrap();
        let names = ["snap.00000000000000FF", "snap.0000000000000100", "snap.0000000000000100.generating"];
        for name in names {
            fs::write(from.path().join(name), name).unwrap();
        }
        for name in ["snap.00000000000000FF", "snap.0000000000000101.generating"] {
            fs::write(to.path().join(name), name).unwrap();
        }
        for _ in 0..2 {
            take_snapshot(from.path(), to.path()).unwrap();
            assert_eq!(snapshots(to.path()).unwrap(), [names[1]]);
            assert_eq!(fs::read_to_string(to.path().join(names[1])).unwrap(), names[1]);
            assert_eq!(fs::read_dir(to.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn settings_are_read_only_if_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(segment_bytes_of(dir.path()).unwrap(), None);
        drop(Sled::open(dir.path(), 1 << 17, 1 << 20, Duration::ZERO).unwrap());
        assert_eq!(segment_bytes_of(dir.path()).unwrap(), Some(1 << 17));
        let settings = fs::read(dir.path().join(SETTINGS)).unwrap();
        for at in 0..settings.len() {
            let mut flipped = settings.clone();
            flipped[at] ^= 4;
            fs::write(dir.path().join(SETTINGS), &flipped).unwrap();
            assert_eq!(segment_bytes_of(dir.path()).unwrap(), None, "byte {at}");
        }
    }
}
