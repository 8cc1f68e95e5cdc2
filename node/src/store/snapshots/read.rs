//! Snapshot files as they are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::{
    CHUNK_HEADER_BYTES, CONTENT_BYTES_MAX, END_BYTES, HEAD_FIXED_BYTES, MAGIC, PREAMBLE_BYTES, SnapshotError,
    SnapshotHead, VERSION, chunk_crc, kind,
};

/// Reads a snapshot from its beginning, and checks it as it goes.
#[derive(Debug)]
pub struct SnapshotReader {
    file: File,
    path: PathBuf,
    /// Length of the file, and what has been read of it.
    length: u64,
    offset: u64,
    digest: crc32fast::Hasher,
    chunks: u64,
    records: u64,
    head: SnapshotHead,
    /// What is left of a chunk of records.
    chunk: Bytes,
    ended: bool,
}

impl SnapshotReader {
    /// Opens a file and reads its head.
    ///
    /// # Errors
    /// If the file or its beginning is not what it must be.
    pub fn open(path: &Path) -> Result<SnapshotReader, SnapshotError> {
        let io = |error| SnapshotError::Io { file: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut reader = SnapshotReader {
            file,
            path: path.to_owned(),
            length,
            offset: 0,
            digest: crc32fast::Hasher::new(),
            chunks: 0,
            records: 0,
            head: SnapshotHead::default(),
            chunk: Bytes::new(),
            ended: false,
        };
        reader.preamble()?;
        reader.read_head()?;
        Ok(reader)
    }

    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// The next record, a slice of about 256 KiB that were read at once. `None` only at the end of a file that is whole:
    /// the number of records, the length and the digest are right, and nothing follows.
    ///
    /// # Errors
    /// If the file is not what was written. There is no use in reading on.
    #[expect(clippy::should_implement_trait, reason = "what can fail for good is no iterator")]
    pub fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        while self.chunk.is_empty() {
            if self.ended {
                return Ok(None);
            }
            let (begin, digest) = (self.offset, self.digest.clone());
            let (kind, content) = self.read_chunk()?;
            match kind {
                kind::RECORDS if !content.is_empty() => self.chunk = content,
                kind::END => self.end(content, begin, digest.finalize())?,
                _ => return Err(self.damaged(begin, format!("a chunk of kind {kind} has no place here"))),
            }
        }
        let at = self.offset - self.chunk.len() as u64;
        let length = self.chunk.try_get_u32_le().ok().and_then(|length| usize::try_from(length).ok());
        match length.filter(|length| *length <= self.chunk.len()) {
            Some(length) => {
                self.records += 1;
                Ok(Some(self.chunk.split_to(length)))
            }
            None => Err(self.damaged(at, "a record does not fit into its chunk")),
        }
    }

    fn preamble(&mut self) -> Result<(), SnapshotError> {
        let preamble: [u8; PREAMBLE_BYTES] = self.read_array()?;
        let (mut fields, mut sum) = preamble.split_at(PREAMBLE_BYTES - 4);
        if sum.get_u32_le() != crc32fast::hash(fields) || !fields.starts_with(MAGIC) {
            return Err(self.damaged(0, "not the beginning of a snapshot"));
        }
        fields.advance(MAGIC.len());
        match fields.get_u32_le() {
            VERSION => Ok(()),
            0 => Err(self.damaged(0, "has version 0")),
            version => Err(SnapshotError::Newer { file: self.path.clone(), version }),
        }
    }

    fn read_head(&mut self) -> Result<(), SnapshotError> {
        let begin = self.offset;
        let (kind, mut content) = self.read_chunk()?;
        if kind != kind::HEAD || content.len() < HEAD_FIXED_BYTES {
            return Err(self.damaged(begin, "not the head of a snapshot"));
        }
        let [term, leader, index, cluster] = [(); 4].map(|()| content.get_u64_le());
        let has_position = content.get_u8() != 0;
        let [at_term, at_leader, at_index] = [(); 3].map(|()| content.get_u64_le());
        let membership_position = has_position.then_some((at_term, at_leader, at_index));
        self.head = SnapshotHead { term, leader, index, membership: content, membership_position, cluster };
        Ok(())
    }

    /// Checks the last chunk; `begin` and `digest` are those of the file before it.
    fn end(&mut self, mut content: Bytes, begin: u64, digest: u32) -> Result<(), SnapshotError> {
        if content.len() != END_BYTES {
            return Err(self.damaged(begin, "not the end of a snapshot"));
        }
        let (records, bytes) = (content.get_u64_le(), content.get_u64_le());
        if (records, bytes, content.get_u32_le()) != (self.records, begin, digest) {
            let what = format!("the end of another file: {records} records in {bytes} bytes, not {}", self.records);
            return Err(self.damaged(begin, what));
        }
        if self.offset != self.length {
            return Err(self.damaged(self.offset, "goes on after its end"));
        }
        self.ended = true;
        Ok(())
    }

    /// Kind and content of the next chunk.
    fn read_chunk(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        let begin = self.offset;
        let header: [u8; CHUNK_HEADER_BYTES] = self.read_array()?;
        let mut fields = header.as_slice();
        let (crc, covered) = (fields.get_u32_le(), fields);
        let (kind, length) = (fields.get_u8(), fields.get_u32_le() as usize);
        if length > CONTENT_BYTES_MAX || length as u64 > self.length.saturating_sub(self.offset) {
            return Err(self.damaged(begin, format!("a chunk of {length} bytes, more than there can be")));
        }
        let mut content = vec![0; length];
        self.read_exact(&mut content)?;
        if chunk_crc(self.chunks, &[covered, &content]) != crc {
            return Err(self.damaged(begin, "a chunk fails its CRC"));
        }
        self.chunks += 1;
        Ok((kind, content.into()))
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        if let Err(error) = self.file.read_exact(bytes) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => self.damaged(self.offset, "ends too early"),
                _ => SnapshotError::Io { file: self.path.clone(), error },
            });
        }
        self.digest.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn damaged(&self, offset: u64, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { file: self.path.clone(), offset, what: what.into() }
    }
}

/// Reads all of a snapshot, for nothing but its head.
///
/// # Errors
/// See [`SnapshotReader::next`].
pub fn verify_file(path: &Path) -> Result<SnapshotHead, SnapshotError> {
    let mut reader = SnapshotReader::open(path)?;
    while reader.next()?.is_some() {}
    Ok(reader.head)
}
