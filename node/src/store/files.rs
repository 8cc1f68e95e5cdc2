//! The few things that a store does with files besides writing into them: locking, copying, making them last.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Between two attempts at a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// A lock on a directory, held until it is dropped. It leaves no file.
#[derive(Debug)]
pub(super) struct Lock {
    _dir: File,
}

impl Lock {
    /// Keeps every other process out. Waits as long as `wait` for one that is ending; `None` if it does not end.
    pub(super) fn exclusive(dir: &Path, wait: Duration) -> io::Result<Option<Self>> {
        let until = Instant::now() + wait;
        let mut said = false;
        loop {
            match Self::attempt(dir, FlockOperation::NonBlockingLockExclusive)? {
                None if Instant::now() < until => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(directory = %dir.display(), ?wait, "waiting for the process that holds it to end");
                    }
                    thread::sleep(LOCK_RETRY);
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Keeps out whoever would write; `None` if there is one.
    pub(super) fn shared(dir: &Path) -> io::Result<Option<Self>> {
        Self::attempt(dir, FlockOperation::NonBlockingLockShared)
    }

    fn attempt(dir: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        let dir = File::open(dir)?;
        match flock(&dir, operation) {
            Ok(()) => Ok(Some(Lock { _dir: dir })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes the content of a file last, and its length.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if super::tests::disk::intercept(path)? {
        return Ok(());
    }
    let _ = path;
    file.sync_data()
}

/// Makes the names in a directory last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::disk::dir_synced(dir)?;
    File::open(dir)?.sync_all()
}

/// Makes a directory that lasts, and those above it that are missing.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(above)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(above)
}

/// Makes a file that is there whole or not at all: written beside, synced, renamed.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes a directory with all that is in it, if there is one.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a directory is absent or has nothing in it.
pub(super) fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut names) => Ok(names.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
