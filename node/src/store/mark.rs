//! The mark: what has been acknowledged, in a file of two slots that are written in turn. A write that power loss tears
//! leaves the other slot; and what is missing at or below the mark was lost, whereas above it it was never promised.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::files;
use super::record::{Flaw, Position, Reader, put_position, put_u64};

pub(super) const FILE: &str = "durable";

/// A slot has a page of its own, so that no write touches both.
const SLOT_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"flmrmark";
const VERSION: u8 = 1;

/// What is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The last entry; `None` if there is none above `purged`.
    pub(super) last: Option<Position>,
    /// The last entry that was removed from the front.
    pub(super) purged: Option<Position>,
    /// The counter of the metadata record; 0 before there is one.
    pub(super) counter: u64,
}

/// Head: magic, version, sequence, mark, CRC-32 of the rest of the slot, which is zero after it.
fn encode(sequence: u64, mark: &Mark) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend_from_slice(&MAGIC);
    slot.push(VERSION);
    put_u64(&mut slot, sequence);
    put_position(&mut slot, mark.last);
    put_position(&mut slot, mark.purged);
    put_u64(&mut slot, mark.counter);
    slot.resize(SLOT_BYTES - 4, 0);
    let crc = crc32fast::hash(&slot);
    slot.extend_from_slice(&crc.to_be_bytes());
    slot
}

fn decode(slot: &[u8]) -> Result<(u64, Mark), Flaw> {
    let (content, crc) = slot.split_last_chunk::<4>().ok_or(Flaw::Damaged("a slot is cut short"))?;
    let (head, rest) = content.split_at_checked(MAGIC.len() + 1).ok_or(Flaw::Damaged("a slot is cut short"))?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(content) || !head.starts_with(&MAGIC) {
        return Err(Flaw::Damaged("a checksum is wrong"));
    }
    match head.last() {
        Some(&version) if version > VERSION => return Err(Flaw::Newer(version)),
        _ => {}
    }
    let mut rest = Reader(rest);
    let sequence = rest.u64()?;
    Ok((sequence, Mark { last: rest.position()?, purged: rest.position()?, counter: rest.u64()? }))
}

/// The mark in the file's bytes: that of the slot with the higher sequence. One bad slot is what a torn write leaves.
fn newest(path: &Path, bytes: &[u8]) -> Result<(u64, Mark), OpenError> {
    let mut newest: Option<(u64, Mark)> = None;
    for slot in bytes.chunks_exact(SLOT_BYTES).take(2) {
        match decode(slot) {
            Ok(read) if newest.is_none_or(|(sequence, _)| sequence < read.0) => newest = Some(read),
            Ok(_) | Err(Flaw::Damaged(_)) => {}
            Err(Flaw::Newer(version)) => {
                return Err(OpenError::Newer {
                    file: path.to_owned(),
                    version: version.into(),
                    supported: VERSION.into(),
                });
            }
        }
    }
    newest.ok_or_else(|| OpenError::damaged(path, None, "neither of its two slots is whole"))
}

/// Reads the mark of a data directory; `None` if the file is absent. Writes nothing.
pub(super) fn read(data_dir: &Path) -> Result<Option<Mark>, OpenError> {
    let path = data_dir.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => newest(&path, &bytes).map(|(_, mark)| Some(mark)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(&path)(error)),
    }
}

/// Makes the file, with an empty mark.
pub(super) fn create(data_dir: &Path) -> io::Result<()> {
    let mut bytes = encode(0, &Mark::default());
    bytes.resize(2 * SLOT_BYTES, 0);
    files::write_whole(&data_dir.join(FILE), &bytes)
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    path: PathBuf,
    sequence: u64,
    mark: Mark,
}

impl MarkFile {
    pub(super) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(OpenError::io(&path))?;
        let (sequence, mark) = newest(&path, &bytes)?;
        let file = OpenOptions::new().write(true).open(&path).map_err(OpenError::io(&path))?;
        // What a process wrote that was killed may not be on disk. The next write relies on this slot, not on the other.
        files::sync_data(&file, &path).map_err(OpenError::io(&path))?;
        Ok(MarkFile { file, path, sequence, mark })
    }

    /// What was written last.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Writes the slot whose turn it is, and syncs it.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let at = (sequence % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&encode(sequence, &mark), at)?;
        files::sync_data(&self.file, &self.path)?;
        self.sequence = sequence;
        self.mark = mark;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> [Mark; 2] {
        let at = |index| Some(Position { term: 3, leader: 9, index });
        [Mark { last: at(7), purged: None, counter: 1 }, Mark { last: at(9), purged: at(4), counter: 2 }]
    }

    fn file(dir: &Path) -> (MarkFile, PathBuf) {
        create(dir).unwrap();
        (MarkFile::open(dir).unwrap(), dir.join(FILE))
    }

    #[test]
    fn the_last_write_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = file(dir.path());
        assert_eq!(read(dir.path()).unwrap(), Some(Mark::default()));
        for mark in marks().into_iter().cycle().take(5) {
            file.write(mark).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Some(mark));
            assert_eq!(MarkFile::open(dir.path()).unwrap().mark(), mark);
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, path) = file(dir.path());
        file.write(marks()[0]).unwrap();
        let before = std::fs::read(&path).unwrap();
        file.write(marks()[1]).unwrap();
        let after = std::fs::read(&path).unwrap();
        for torn in 0..SLOT_BYTES {
            let bytes = [&after[..torn], &before[torn..]].concat();
            let (_, mark) = newest(&path, &bytes).unwrap();
            assert!(marks().contains(&mark), "torn at {torn}: {mark:?}");
        }
    }

    #[test]
    fn two_bad_slots_are_damage_and_a_newer_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, path) = file(dir.path());
        for mark in marks() {
            file.write(mark).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for bytes in [&[][..], &whole[..100], &[0; 2 * SLOT_BYTES]] {
            assert!(matches!(newest(&path, bytes), Err(OpenError::Damaged(_))));
        }
        let mut newer = whole.clone();
        newer[MAGIC.len()] = VERSION + 1;
        let crc = crc32fast::hash(&newer[..SLOT_BYTES - 4]);
        newer[SLOT_BYTES - 4..SLOT_BYTES].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(newest(&path, &newer), Err(OpenError::Newer { version: 2, supported: 1, .. })));
        assert_eq!(read(&dir.path().join("absent")).unwrap(), None);
    }
}
