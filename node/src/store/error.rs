//! What can be wrong with a store: when it is opened, and while it is used.

use std::io;
use std::path::{Path, PathBuf};

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", file.display(), index.map(|index| format!(", entry {index}")).unwrap_or_default())]
pub struct Damage {
    pub file: PathBuf,
    /// Index of the log entry that is missing or damaged, if one can be named.
    pub index: Option<u64>,
    pub what: String,
}

/// Why a store does not open. Unless it says otherwise, nothing in the data directory was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was acknowledged is not there, or not what it was. The files are left as they are: they are evidence.
    #[error("damaged: {0}; nothing was changed, and `fulmar verify DATA_DIR` says more")]
    Damaged(Damage),
    /// Written by a newer release.
    #[error("{}: version {version}; this release reads versions up to {supported}", file.display())]
    Newer { file: PathBuf, version: u64, supported: u64 },
    /// Another process has it open.
    #[error("{}: in use by another process", file.display())]
    Locked { file: PathBuf },
    #[error("{}: {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
}

impl OpenError {
    pub(super) fn damaged(file: &Path, index: Option<u64>, what: impl Into<String>) -> Self {
        OpenError::Damaged(Damage { file: file.to_owned(), index, what: what.into() })
    }

    /// For `map_err`: names the file of an I/O error.
    pub(super) fn io(file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| OpenError::Io { file: file.to_owned(), error }
    }
}

/// Why a call on an open log was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A write, a sync or sled failed, now or earlier. Nothing is acknowledged any more, and the process should end.
    #[error("the log failed: {0}")]
    Failed(String),
    #[error("damaged: {0}")]
    Damaged(Damage),
    /// The entries do not continue the log, or are not in it.
    #[error("{0}")]
    Order(String),
    #[error("the log is closed")]
    Closed,
}
