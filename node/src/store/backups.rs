//! The form of backup files: one head and a run of records, none of which this room looks into, as a stream that is
//! written and read from beginning to end. All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FULMBKUP` |
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
//! | head | the first | as the caller encodes it |
//! | records | any number, about 256 KiB each | records, each after its length in 4 bytes |
//! | end | the last | how many records there are, 8 bytes; length of the file before this chunk, 8 bytes; SHA-256 of the file before this chunk, 32 bytes |

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes};
use sha2::{Digest, Sha256};

use super::snapshots::{CONTENT_BYTES_MAX, RECORD_BYTES_MAX};

const MAGIC: &[u8; 8] = b"FULMBKUP";

/// Of the form of the file.
pub const VERSION: u32 = 1;

/// Bytes of the file by which its form is known.
pub const PREAMBLE_BYTES: usize = 16;

const CHUNK_HEADER_BYTES: usize = 9;
const LENGTH_BYTES: usize = 4;
const DIGEST_BYTES: usize = 32;

/// What a chunk of records is filled up to.
const CHUNK_BYTES: usize = 256 * 1024;

mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const RECORDS: u8 = 2;
    pub(super) const END: u8 = 3;
}

/// What the last chunk says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    pub records: u64,
    /// Of the whole file.
    pub bytes: u64,
    /// Of all before the last chunk.
    pub sha256: [u8; DIGEST_BYTES],
}

impl End {
    /// The digest in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why a file is no backup, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// `offset` is where the part of the file begins that is wrong.
    #[error("offset {offset}: {what}")]
    Damaged { offset: u64, what: String },
    /// A record, counted from 0, that the file has whole and that cannot be.
    #[error("record {number}: {what}")]
    Record { number: u64, what: String },
    #[error("version {0}; this release reads versions up to {VERSION}")]
    Newer(u32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn damaged(offset: u64, what: impl Into<String>) -> BackupError {
    BackupError::Damaged { offset, what: what.into() }
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    digest: Sha256,
    /// Records of the chunk that is being filled.
    chunk: Vec<u8>,
    chunks: u64,
    written: End,
}

impl<W: Write> Writer<W> {
    /// Begins with what the caller calls the head.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(to: W, head: &[u8]) -> io::Result<Writer<W>> {
        let mut writer = Writer { to, digest: Sha256::new(), chunk: Vec::new(), chunks: 0, written: End::default() };
        let mut preamble = Vec::with_capacity(PREAMBLE_BYTES);
        preamble.put_slice(MAGIC);
        preamble.put_u32_le(VERSION);
        preamble.put_u32_le(crc32fast::hash(&preamble));
        writer.put(&preamble)?;
        writer.put_chunk(kind::HEAD, head)?;
        Ok(writer)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If it is larger than [`RECORD_BYTES_MAX`], or cannot be written.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).ok().filter(|_| record.len() <= RECORD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a record is too large"))?;
        if !self.chunk.is_empty() && self.chunk.len() + LENGTH_BYTES + record.len() > CHUNK_BYTES {
            self.flush()?;
        }
        self.chunk.put_u32_le(length);
        self.chunk.put_slice(record);
        self.written.records += 1;
        Ok(())
    }

    /// Ends it; gives what it says at its end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<(W, End)> {
        self.flush()?;
        self.written.sha256 = self.digest.clone().finalize().into();
        let mut content = Vec::new();
        content.put_u64_le(self.written.records);
        content.put_u64_le(self.written.bytes);
        content.put_slice(&self.written.sha256);
        self.put_chunk(kind::END, &content)?;
        Ok((self.to, self.written)) // with the bytes of this chunk, too
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        self.put_chunk(kind::RECORDS, &chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    fn put_chunk(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut header = Vec::with_capacity(CHUNK_HEADER_BYTES);
        header.put_u32_le(chunk_crc(self.chunks, &[&[kind], &length.to_le_bytes(), content]));
        header.put_u8(kind);
        header.put_u32_le(length);
        self.chunks += 1;
        self.put(&header)?;
        self.put(content)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.digest.update(bytes);
        self.written.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a backup from its beginning, and checks it as it goes.
pub struct Reader<R> {
    from: R,
    offset: u64,
    digest: Sha256,
    chunks: u64,
    records: u64,
    head: Bytes,
    /// What is left of a chunk of records.
    chunk: Bytes,
    end: Option<End>,
}

/// Whether a file that begins with these bytes, [`PREAMBLE_BYTES`] of them, is a backup.
///
/// # Errors
/// It is not, or a newer program wrote it.
pub fn check_preamble(preamble: &[u8]) -> Result<(), BackupError> {
    let Some((mut fields, mut sum)) = preamble.split_at_checked(PREAMBLE_BYTES - LENGTH_BYTES) else {
        return Err(damaged(0, "ends too early"));
    };
    if sum.try_get_u32_le().ok() != Some(crc32fast::hash(fields)) || !fields.starts_with(MAGIC) {
        return Err(damaged(0, "not the beginning of a backup"));
    }
    fields.advance(MAGIC.len());
    match fields.get_u32_le() {
        VERSION => Ok(()),
        0 => Err(damaged(0, "has version 0")),
        version => Err(BackupError::Newer(version)),
    }
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a file, up to its head.
    ///
    /// # Errors
    /// It is not what it must be.
    pub fn open(from: R) -> Result<Reader<R>, BackupError> {
        let (digest, head, chunk) = (Sha256::new(), Bytes::new(), Bytes::new());
        let mut reader = Reader { from, offset: 0, digest, chunks: 0, records: 0, head, chunk, end: None };
        let mut preamble = [0; PREAMBLE_BYTES];
        reader.read_exact(&mut preamble)?;
        check_preamble(&preamble)?;
        let begin = reader.offset;
        match reader.read_chunk()? {
            (kind::HEAD, head) => reader.head = head,
            _ => return Err(damaged(begin, "not the head of a backup")),
        }
        Ok(reader)
    }

    #[must_use]
    pub fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// What the file says at its end; once all of it was read.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next record, a slice of about 256 KiB that were read at once. `None` only at the end of a file that is whole:
    /// the number of records, the length and the digest are right, and nothing follows.
    ///
    /// # Errors
    /// If the file is not what was written. There is no use in reading on.
    #[expect(clippy::should_implement_trait, reason = "what can fail for good is no iterator")]
    pub fn next(&mut self) -> Result<Option<Bytes>, BackupError> {
        while self.chunk.is_empty() {
            if self.end.is_some() {
                return Ok(None);
            }
            let (begin, digest) = (self.offset, self.digest.clone());
            match self.read_chunk()? {
                (kind::RECORDS, content) if !content.is_empty() => self.chunk = content,
                (kind::END, content) => self.ended(content, begin, digest.finalize().into())?,
                (kind, _) => return Err(damaged(begin, format!("a chunk of kind {kind} has no place here"))),
            }
        }
        let at = self.offset - self.chunk.len() as u64;
        let length = self.chunk.try_get_u32_le().ok().and_then(|length| usize::try_from(length).ok());
        match length.filter(|length| *length <= self.chunk.len()) {
            Some(length) => {
                self.records += 1;
                Ok(Some(self.chunk.split_to(length)))
            }
            None => Err(damaged(at, "a record does not fit into its chunk")),
        }
    }

    /// Checks the last chunk; `begin` and `digest` are those of the file before it.
    fn ended(&mut self, mut content: Bytes, begin: u64, digest: [u8; DIGEST_BYTES]) -> Result<(), BackupError> {
        if content.len() != 16 + DIGEST_BYTES {
            return Err(damaged(begin, "not the end of a backup"));
        }
        let (records, bytes) = (content.get_u64_le(), content.get_u64_le());
        if (records, bytes) != (self.records, begin) || content.as_ref() != digest {
            let what = format!("the end of another file: {records} records in {bytes} bytes, not {}", self.records);
            return Err(damaged(begin, what));
        }
        if self.from.read(&mut [0])? != 0 {
            return Err(damaged(self.offset, "goes on after its end"));
        }
        self.end = Some(End { records, bytes: self.offset, sha256: digest });
        Ok(())
    }

    /// Kind and content of the next chunk. No more is allocated than has come.
    fn read_chunk(&mut self) -> Result<(u8, Bytes), BackupError> {
        let begin = self.offset;
        let mut header = [0; CHUNK_HEADER_BYTES];
        self.read_exact(&mut header)?;
        let mut fields = header.as_slice();
        let (crc, covered) = (fields.get_u32_le(), fields);
        let (kind, length) = (fields.get_u8(), fields.get_u32_le() as usize);
        if length > CONTENT_BYTES_MAX {
            return Err(damaged(begin, format!("a chunk of {length} bytes, more than there can be")));
        }
        let mut content = vec![0; length];
        self.read_exact(&mut content)?;
        if chunk_crc(self.chunks, &[covered, &content]) != crc {
            return Err(damaged(begin, "a chunk fails its CRC"));
        }
        self.chunks += 1;
        Ok((kind, content.into()))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        if let Err(error) = self.from.read_exact(bytes) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged(self.offset, "ends too early"),
                _ => BackupError::Io(error),
            });
        }
        self.digest.update(&*bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn chunk_crc(number: u64, rest: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    rest.iter().for_each(|bytes| crc.update(bytes));
    crc.finalize()
}
