//! What lies in a data directory, and how it comes there.
//!
//! | name | what |
//! |---|---|
//! | `FORMAT` | `fulmar data 1`: how all of it is to be read |
//! | `node-id` | who the node is |
//! | `durable` | the mark: what has been acknowledged |
//! | `log/` | entries and metadata, in sled |
//! | `log.check/` | a copy that is tried before the log is opened; gone afterwards |
//! | `snapshots/` | snapshots of the state |
//! | `fulmar.pid` | which process serves it, locked by that one |
//!
//! They are made in the order mark, `FORMAT`, log, each with its name synced, so that what an interrupted start leaves
//! can be told from what was lost: a `FORMAT` without a mark, or a mark that promises something without a log, is damage.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::OpenError;
use super::mark::{self, Mark};
use super::{files, sled};

pub(super) const NODE_ID: &str = "node-id";
/// There only if the node was removed from its cluster; says so in words.
pub(super) const REMOVED: &str = "removed";
/// Which process serves the directory: see [`super::pid`].
pub(super) const PID: &str = "fulmar.pid";
pub(super) const FORMAT: &str = "FORMAT";
const FORMAT_PREFIX: &str = "fulmar data ";
const VERSION: u64 = 1;

pub(super) fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// A log that is being made.
fn new_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log.new")
}

/// The copy of the log that is tried first.
pub(super) fn check_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log.check")
}

pub(super) fn snapshot_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshots")
}

/// Reads `FORMAT`: whether there is one.
pub(super) fn read_format(data_dir: &Path) -> Result<bool, OpenError> {
    let path = data_dir.join(FORMAT);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        text => text.map_err(OpenError::io(&path))?,
    };
    let text = String::from_utf8_lossy(&text);
    let digits = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.strip_suffix('\n'));
    match digits.and_then(|digits| digits.parse::<u64>().ok().filter(|version| version.to_string() == digits)) {
        Some(VERSION) => Ok(true),
        Some(version) if version > VERSION => Err(OpenError::Newer { file: path, version, supported: VERSION }),
        _ => {
            Err(OpenError::damaged(&path, None, format!("says neither `{FORMAT_PREFIX}{VERSION}` nor a later version")))
        }
    }
}

/// Reads `node-id`, a hexadecimal number above 0; `None` if there is none.
pub(super) fn read_node_id(data_dir: &Path) -> Result<Option<u64>, OpenError> {
    let path = data_dir.join(NODE_ID);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(OpenError::io(&path))?,
    };
    let id = std::str::from_utf8(&text).ok().and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let id = id.filter(|id| *id != 0).ok_or_else(|| OpenError::damaged(&path, None, "holds no node id"))?;
    Ok(Some(id))
}

/// Holds `node-id` against the node that wrote the log, 0 if that is not known.
pub(super) fn check_writer(data_dir: &Path, writer: u64) -> Result<(), OpenError> {
    let id = read_node_id(data_dir)?;
    if writer == 0 || id == Some(writer) {
        return Ok(());
    }
    let what = id.map_or("is missing".to_owned(), |id| format!("says {id:016x}"));
    Err(OpenError::damaged(&data_dir.join(NODE_ID), None, format!("{what}, and the log is that of {writer:016x}")))
}

/// The mark of a data directory, and whether there is a log. `None` if the directory is not in use yet. Writes nothing.
pub(super) fn examine(data_dir: &Path) -> Result<Option<(Mark, bool)>, OpenError> {
    let formatted = read_format(data_dir)?;
    let log = log_dir(data_dir);
    let has_log = log.is_dir();
    let mark = mark::read(data_dir)?;
    if !formatted {
        let format = data_dir.join(FORMAT);
        if !files::is_empty(&log).map_err(OpenError::io(&log))? {
            return Err(OpenError::damaged(&format, None, "is missing, and there is a log"));
        }
        if mark.is_some_and(|mark| mark != Mark::default()) {
            return Err(OpenError::damaged(&format, None, "is missing, and the mark is not empty"));
        }
        return Ok(None);
    }
    let Some(mark) = mark else {
        return Err(OpenError::damaged(&data_dir.join(mark::FILE), None, "is missing"));
    };
    if !has_log && mark != Mark::default() {
        return Err(OpenError::damaged(&log, None, "is missing"));
    }
    Ok(Some((mark, has_log)))
}

/// Makes what is missing of a data directory that holds no promise yet.
pub(super) fn create(data_dir: &Path, segment_bytes: usize) -> Result<(), OpenError> {
    let examined = examine(data_dir)?;
    if examined.is_none() {
        mark::create(data_dir).map_err(OpenError::io(&data_dir.join(mark::FILE)))?;
        let path = data_dir.join(FORMAT);
        files::write_whole(&path, format!("{FORMAT_PREFIX}{VERSION}\n").as_bytes()).map_err(OpenError::io(&path))?;
    }
    if examined.is_some_and(|(_, has_log)| has_log) {
        return Ok(());
    }
    let (new, log) = (new_dir(data_dir), log_dir(data_dir));
    files::remove_dir(&new).map_err(OpenError::io(&new))?;
    let made = sled::Sled::open(&new, segment_bytes, 1 << 20, Duration::ZERO);
    drop(made.map_err(|broken| broken.at_open(&new))?);
    sled::sync_new(&new)
        .and_then(|()| fs::rename(&new, &log))
        .and_then(|()| files::sync_dir(data_dir))
        .map_err(OpenError::io(&log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_exactly_that() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!read_format(dir.path()).unwrap());
        let read = |text: &str| {
            fs::write(dir.path().join(FORMAT), text).unwrap();
            read_format(dir.path())
        };
        assert!(read("fulmar data 1\n").unwrap());
        assert!(matches!(read("fulmar data 2\n"), Err(OpenError::Newer { version: 2, supported: 1, .. })));
        for text in ["", "fulmar data 1", "fulmar data 0\n", "fulmar data 01\n", "fulmar data +2\n", "Fulmar data 1\n"]
        {
            assert!(matches!(read(text), Err(OpenError::Damaged(_))), "{text:?}");
        }
    }

    #[test]
    fn an_interrupted_start_goes_on_and_a_loss_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let has_log = || examine(path).map(|examined| examined.map(|(_, has_log)| has_log));
        assert_eq!(has_log().unwrap(), None);
        create(path, 1 << 16).unwrap();
        assert_eq!(has_log().unwrap(), Some(true));

        fs::remove_dir_all(log_dir(path)).unwrap();
        fs::create_dir(new_dir(path)).unwrap();
        assert_eq!(has_log().unwrap(), Some(false), "before the log had its name");
        fs::remove_file(path.join(FORMAT)).unwrap();
        assert_eq!(has_log().unwrap(), None, "before FORMAT was there");
        create(path, 1 << 16).unwrap();
        assert_eq!(has_log().unwrap(), Some(true));

        fs::rename(path.join(FORMAT), path.join("aside")).unwrap();
        assert!(matches!(has_log(), Err(OpenError::Damaged(_))), "a log without FORMAT");
        fs::rename(path.join("aside"), path.join(FORMAT)).unwrap();
        fs::remove_file(path.join(mark::FILE)).unwrap();
        assert!(matches!(has_log(), Err(OpenError::Damaged(_))), "FORMAT without a mark");
    }
}
