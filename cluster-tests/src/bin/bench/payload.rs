//! What a message of the bench says: who sent it, which one it is, when it was due. Big endian, then padding.

use bytes::{BufMut, Bytes, BytesMut};
use rand::prelude::*;

/// Publisher (4), sequence (8), due time (8).
pub(crate) const HEADER_BYTES: usize = 20;

/// The bench's part of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) publisher: u32,
    pub(crate) sequence: u64,
    /// When it should have been sent, by the monotonic clock.
    pub(crate) due_ns: u64,
}

impl Header {
    /// `None` if it is not one of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Header> {
        let (publisher, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (due_ns, _) = rest.split_first_chunk()?;
        Some(Header {
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            due_ns: u64::from_be_bytes(*due_ns),
        })
    }
}

/// Makes payloads of one size.
pub(crate) struct Payloads {
    padding: Vec<u8>,
}

impl Payloads {
    /// `size` is at least [`HEADER_BYTES`].
    pub(crate) fn new(size: usize, seed: u64) -> Payloads {
        let mut padding = vec![0; size.saturating_sub(HEADER_BYTES)];
        StdRng::seed_from_u64(seed).fill_bytes(&mut padding);
        Payloads { padding }
    }

    pub(crate) fn write(&self, header: Header) -> Bytes {
        let mut payload = BytesMut::with_capacity(HEADER_BYTES + self.padding.len());
        payload.put_u32(header.publisher);
        payload.put_u64(header.sequence);
        payload.put_u64(header.due_ns);
        payload.put_slice(&self.padding);
        payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        let header = Header { publisher: 7, sequence: u64::MAX - 1, due_ns: 1 << 40 };
        let payload = Payloads::new(256, 1).write(header);
        assert_eq!((payload.len(), Header::read(&payload)), (256, Some(header)));
        assert_eq!(Header::read(&payload[..HEADER_BYTES]), Some(header));
        assert_eq!(Header::read(&payload[..HEADER_BYTES - 1]), None);
    }
}
