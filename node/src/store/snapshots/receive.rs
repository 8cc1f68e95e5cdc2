//! Snapshot files as they come from another node.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{SYNC_BYTES, SnapshotError, SnapshotFile, SnapshotHead, UNFINISHED, name, verify_file};
use crate::store::files::sync_dir;

/// A snapshot that is being received. Dropped before [`Receiving::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Receiving {
    file: File,
    /// Until it has its name.
    unfinished: Option<PathBuf>,
    /// That there are to be, that have come, and that are known to be on the disk.
    bytes: u64,
    written: u64,
    synced: u64,
}

impl Receiving {
    pub(super) fn begin(dir: &Path, bytes: u64) -> io::Result<Receiving> {
        let mut number = 0u64;
        let (file, path) = loop {
            let path = dir.join(format!("received-{number}{UNFINISHED}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                file => break (file?, path),
            }
        };
        Ok(Receiving { file, unfinished: Some(path), bytes, written: 0, synced: 0 })
    }

    /// Takes the next piece: where it begins, and the CRC-32 that it was sent with.
    ///
    /// # Errors
    /// If it is not the next one, not what was sent or more than there is to be, or the disk refuses it. There is no use
    /// in going on.
    pub fn write(&mut self, offset: u64, crc: u32, piece: &[u8]) -> Result<(), SnapshotError> {
        if offset != self.written {
            return Err(self.damaged(format!("the next piece begins at {offset}")));
        }
        if crc32fast::hash(piece) != crc {
            return Err(self.damaged("a piece fails its CRC"));
        }
        if piece.len() as u64 > self.bytes - self.written {
            return Err(self.damaged(format!("more than the {} bytes that were announced", self.bytes)));
        }
        let written = self.file.write_all(piece);
        written.map_err(|error| self.io(error))?;
        self.written += piece.len() as u64;
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data().map_err(|error| self.io(error))?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Reads the whole of what has come, makes it last, and gives it its name, if `expected` finds nothing wrong with its
    /// head: from then on it is as if it had been written here. One of the same index and term is replaced.
    ///
    /// # Errors
    /// If it is no whole snapshot, is not what was expected, or the disk refuses; then there is no such snapshot, unless
    /// only the last step, making the name last, failed.
    pub fn finish(
        mut self,
        expected: impl FnOnce(&SnapshotHead) -> Result<(), String>,
    ) -> Result<(SnapshotHead, SnapshotFile), SnapshotError> {
        if self.written != self.bytes {
            return Err(self.damaged(format!("ends before the {} bytes that were announced", self.bytes)));
        }
        self.file.sync_all().map_err(|error| self.io(error))?;
        let unfinished = self.path();
        let head = verify_file(&unfinished)?;
        expected(&head).map_err(|what| self.damaged(what))?;
        let path = unfinished.with_file_name(name(&head));
        fs::rename(&unfinished, &path).map_err(|error| self.io(error))?;
        self.unfinished = None;
        path.parent().map_or(Ok(()), sync_dir).map_err(|error| SnapshotError::Io { file: path.clone(), error })?;
        let file = SnapshotFile { path, term: head.term, index: head.index, bytes: self.bytes };
        Ok((head, file))
    }

    fn path(&self) -> PathBuf {
        self.unfinished.clone().unwrap_or_default()
    }

    fn io(&self, error: io::Error) -> SnapshotError {
        SnapshotError::Io { file: self.path(), error }
    }

    fn damaged(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { file: self.path(), offset: self.written, what: what.into() }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = fs::remove_file(unfinished); // what stays is removed at the next start
        }
    }
}
