//! Snapshot files: runs of records that this room does not look into. A file has its name once it is whole and synced;
//! until then it ends in `.tmp`, and is removed at the next start.
//!
//! `<index>-<term>.snapshot`, each as 16 hexadecimal digits. All numbers in it are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FULMSNAP` |
//! | 4 | format version, from 1 |
//! | 4 | CRC-32 of the 12 bytes before |
//! | ... | chunks, up to the end of the file |
//!
//! | bytes of a chunk | what |
//! |---|---|
//! | 4 | CRC-32 of the chunk's number (from 0, 8 bytes), which is not stored, and of all of it that follows |
//! | 1 | kind: 1 head, 2 records, 3 end |
//! | 4 | bytes of its content, at most [`CONTENT_BYTES_MAX`] |
//! | ... | content |
//!
//! | kind | which chunks | content |
//! |---|---|---|
//! | head | the first | term, leader, index, cluster: 8 bytes each; 1 byte: whether the membership has a position; its term, leader and index, or zeros: 8 bytes each; the membership |
//! | records | any number, about 256 KiB each | records, each after its length in 4 bytes |
//! | end | the last | how many records there are, 8 bytes; length of the file before this chunk, 8 bytes; CRC-32 of the file before this chunk, 4 bytes |

mod read;
mod receive;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;

use super::files::sync_dir;
pub use read::{SnapshotReader, verify_file};
pub use receive::Receiving;
pub use write::SnapshotWriter;

const MAGIC: &[u8; 8] = b"FULMSNAP";
const VERSION: u32 = 1;
const PREAMBLE_BYTES: usize = 16;
const CHUNK_HEADER_BYTES: usize = 9;

/// What a chunk of records is filled up to.
const CHUNK_BYTES: usize = 256 * 1024;

/// The largest record.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// The largest content of a chunk: one record that is alone in it. A reader allocates nothing for a larger one.
pub const CONTENT_BYTES_MAX: usize = RECORD_BYTES_MAX + LENGTH_BYTES;

const LENGTH_BYTES: usize = 4;
const HEAD_FIXED_BYTES: usize = 4 * 8 + 1 + 3 * 8;
const END_BYTES: usize = 8 + 8 + 4;

/// Written bytes after which they are synced, so that a large snapshot never makes the log's sync wait for all of it.
const SYNC_BYTES: u64 = 16 << 20;

const ENDING: &str = ".snapshot";
const UNFINISHED: &str = ".tmp";

mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const RECORDS: u8 = 2;
    pub(super) const END: u8 = 3;
}

/// A directory of snapshot files.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

/// Where in the log a snapshot stands, and what must be known before it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Of the last entry in it.
    pub term: u64,
    pub leader: u64,
    pub index: u64,
    /// As the caller encodes it, at most [`RECORD_BYTES_MAX`] less what stands before it.
    pub membership: Bytes,
    /// Term, leader and index of the entry that the membership comes from.
    pub membership_position: Option<(u64, u64, u64)>,
    /// Id of the cluster.
    pub cluster: u64,
}

/// A finished snapshot, by its name: what is in it has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub term: u64,
    pub index: u64,
    pub bytes: u64,
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not what was written: `offset` is where the part of the file begins that is wrong.
    #[error("{}, offset {offset}: {what}", file.display())]
    Damaged { file: PathBuf, offset: u64, what: String },
    #[error("{}: version {version}; this release reads versions up to {VERSION}", file.display())]
    Newer { file: PathBuf, version: u32 },
    #[error("{}: {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
}

impl Snapshots {
    /// Opens a directory, or makes it, and removes what an interrupted writer left.
    ///
    /// # Errors
    /// If the directory cannot be made, read or changed.
    pub fn open(dir: PathBuf) -> io::Result<Snapshots> {
        fs::create_dir_all(&dir)?;
        dir.parent().filter(|parent| *parent != Path::new("")).map_or(Ok(()), sync_dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(Snapshots { dir })
    }

    /// A directory as it is: nothing is made or removed.
    #[must_use]
    pub fn at(dir: PathBuf) -> Snapshots {
        Snapshots { dir }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Finished snapshots, the newest first: by index, then by term.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<SnapshotFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some((index, term)) = entry.file_name().to_str().and_then(parse_name) else { continue };
            match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // pruned meanwhile
                metadata => files.push(SnapshotFile { path: entry.path(), term, index, bytes: metadata?.len() }),
            }
        }
        files.sort_unstable_by_key(|file| std::cmp::Reverse((file.index, file.term)));
        Ok(files)
    }

    /// Begins a snapshot. One of the same index and term is replaced when the new one is finished.
    ///
    /// # Errors
    /// If the file cannot be made: also while the same snapshot is being written.
    pub fn create(&self, head: &SnapshotHead) -> io::Result<SnapshotWriter> {
        let name = name(head);
        SnapshotWriter::begin(head, self.dir.join(&name), self.dir.join(name + UNFINISHED))
    }

    /// Begins a snapshot that comes from elsewhere, of so many bytes.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn receive(&self, bytes: u64) -> io::Result<Receiving> {
        Receiving::begin(&self.dir, bytes)
    }

    /// A file for reading and writing that has no name, and is gone when it is closed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn scratch(&self) -> io::Result<fs::File> {
        let path = self.dir.join(format!("{:016x}{UNFINISHED}", rand::random::<u64>()));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(path)?;
        Ok(file)
    }

    /// Removes snapshots but for the `keep` newest, of which there is always one.
    ///
    /// # Errors
    /// If the directory cannot be read or changed.
    pub fn prune(&self, keep: usize) -> io::Result<()> {
        for file in self.list()?.into_iter().skip(keep.max(1)) {
            fs::remove_file(file.path)?;
        }
        Ok(())
    }
}

fn name(head: &SnapshotHead) -> String {
    format!("{:016x}-{:016x}{ENDING}", head.index, head.term)
}

/// Index and term.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_suffix(ENDING)?.split_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(digits, 16).ok().filter(|_| plain)
    };
    Some((number(index)?, number(term)?))
}

fn chunk_crc(number: u64, rest: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    rest.iter().for_each(|bytes| crc.update(bytes));
    crc.finalize()
}
