//! Snapshot files as they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::BufMut;

use super::{
    CHUNK_BYTES, CHUNK_HEADER_BYTES, CONTENT_BYTES_MAX, LENGTH_BYTES, MAGIC, PREAMBLE_BYTES, RECORD_BYTES_MAX,
    SYNC_BYTES, SnapshotFile, SnapshotHead, VERSION, chunk_crc, kind,
};
use crate::store::files::sync_dir;

/// A snapshot that is being written. Dropped before [`SnapshotWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct SnapshotWriter {
    file: File,
    /// Until it has its name.
    unfinished: Option<PathBuf>,
    finished: SnapshotFile,
    /// Of all that was written.
    digest: crc32fast::Hasher,
    /// The chunk that is being filled, its header still empty.
    chunk: Vec<u8>,
    /// Written so far, and records begun.
    chunks: u64,
    records: u64,
    /// How much is known to be on the disk.
    synced: u64,
}

impl SnapshotWriter {
    pub(super) fn begin(head: &SnapshotHead, path: PathBuf, unfinished: PathBuf) -> io::Result<SnapshotWriter> {
        let mut writer = SnapshotWriter {
            file: File::create_new(&unfinished)?,
            unfinished: Some(unfinished),
            finished: SnapshotFile { path, term: head.term, index: head.index, bytes: 0 },
            digest: crc32fast::Hasher::new(),
            chunk: chunk(),
            chunks: 0,
            records: 0,
            synced: 0,
        };
        writer.put_head(head)?;
        Ok(writer)
    }

    fn put_head(&mut self, head: &SnapshotHead) -> io::Result<()> {
        let mut preamble = Vec::with_capacity(PREAMBLE_BYTES);
        preamble.put_slice(MAGIC);
        preamble.put_u32_le(VERSION);
        preamble.put_u32_le(crc32fast::hash(&preamble));
        self.put(&preamble)?;
        for number in [head.term, head.leader, head.index, head.cluster] {
            self.chunk.put_u64_le(number);
        }
        let (term, leader, index) = head.membership_position.unwrap_or_default();
        self.chunk.put_u8(head.membership_position.is_some().into());
        for number in [term, leader, index] {
            self.chunk.put_u64_le(number);
        }
        self.chunk.put_slice(&head.membership);
        self.put_chunk(kind::HEAD)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If it is larger than [`RECORD_BYTES_MAX`], or the disk refuses it.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).ok().filter(|_| record.len() <= RECORD_BYTES_MAX);
        let length = length.ok_or_else(|| too_large("a record", record.len()))?;
        if self.chunk.len() > CHUNK_HEADER_BYTES && self.chunk.len() + LENGTH_BYTES + record.len() > CHUNK_BYTES {
            self.put_records()?;
        }
        self.chunk.put_u32_le(length);
        self.chunk.put_slice(record);
        self.records += 1;
        Ok(())
    }

    /// Bytes of the file so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.finished.bytes
    }

    /// Makes the snapshot last, and gives it its name.
    ///
    /// # Errors
    /// If the disk refuses; then there is no such snapshot, unless only the last step, making the name last, failed.
    pub fn finish(mut self) -> io::Result<SnapshotFile> {
        if self.chunk.len() > CHUNK_HEADER_BYTES {
            self.put_records()?;
        }
        self.chunk.put_u64_le(self.records);
        self.chunk.put_u64_le(self.finished.bytes);
        self.chunk.put_u32_le(self.digest.clone().finalize());
        self.put_chunk(kind::END)?;
        self.file.sync_all()?;
        fail::fail_point!("snapshot::before_rename", |_| Err(io::Error::other("fail point")));
        if let Some(unfinished) = &self.unfinished {
            fs::rename(unfinished, &self.finished.path)?;
            self.unfinished = None;
        }
        self.finished.path.parent().map_or(Ok(()), sync_dir)?;
        Ok(self.finished.clone())
    }

    fn put_records(&mut self) -> io::Result<()> {
        self.put_chunk(kind::RECORDS)?;
        fail::fail_point!("snapshot::half_written", |_| Err(io::Error::other("fail point")));
        if self.finished.bytes - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.finished.bytes;
        }
        Ok(())
    }

    fn put_chunk(&mut self, kind: u8) -> io::Result<()> {
        let mut chunk = std::mem::replace(&mut self.chunk, chunk());
        let bytes = chunk.len() - CHUNK_HEADER_BYTES;
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= CONTENT_BYTES_MAX);
        let length = length.ok_or_else(|| too_large("a chunk", bytes))?;
        let (header, content) = chunk.split_at_mut(CHUNK_HEADER_BYTES);
        let (crc, mut fields) = header.split_at_mut(4);
        fields.put_u8(kind);
        fields.put_u32_le(length);
        let sum = chunk_crc(self.chunks, &[&[kind], &length.to_le_bytes(), content]);
        crc.copy_from_slice(&sum.to_le_bytes());
        self.put(&chunk)?;
        self.chunks += 1;
        chunk.truncate(CHUNK_HEADER_BYTES);
        self.chunk = chunk;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.finished.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = fs::remove_file(unfinished); // what stays is removed at the next start
        }
    }
}

/// A chunk without content yet.
fn chunk() -> Vec<u8> {
    vec![0; CHUNK_HEADER_BYTES]
}

fn too_large(what: &str, bytes: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} of {bytes} bytes; at most {RECORD_BYTES_MAX}"))
}
