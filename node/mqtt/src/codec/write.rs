//! Writing a packet: a first pass counts and checks, a second one appends, both by the same code. So the remaining
//! length is exact, and what cannot be written leaves the buffer as it was.

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;

use super::EncodeError;
use crate::limits::{FIELD_BYTES_MAX, VARINT_MAX};

pub(crate) struct Writer<'a> {
    /// `None` while counting.
    out: Option<&'a mut BytesMut>,
    count: usize,
}

/// Appends a packet that is always the same.
pub(super) fn fixed<const N: usize>(out: &mut BytesMut, bytes: [u8; N]) -> Result<(), EncodeError> {
    out.put_slice(&bytes);
    Ok(())
}

/// Appends a packet: first byte, remaining length, and what `body` writes. `body` runs twice and must do the same.
pub(super) fn packet(
    first: u8,
    out: &mut BytesMut,
    body: impl Fn(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let remaining = checked_varint(count(&body)?, "the packet is larger than MQTT can express")?;
    out.reserve(1 + varint_len(remaining) + remaining as usize);
    let start = out.len();
    out.put_u8(first);
    put_varint(out, remaining);
    let mut writer = Writer { out: Some(out), count: 0 };
    let result = body(&mut writer);
    debug_assert!(result.is_ok() && writer.count == remaining as usize, "both passes write the same");
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// How many bytes `body` writes.
pub(crate) fn count(body: &impl Fn(&mut Writer<'_>) -> Result<(), EncodeError>) -> Result<usize, EncodeError> {
    let mut writer = Writer { out: None, count: 0 };
    body(&mut writer)?;
    Ok(writer.count)
}

/// Bytes of a variable byte integer: 1 to 4.
#[inline]
pub(crate) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u32) {
    debug_assert!(value <= VARINT_MAX);
    while value > 0x7F {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// `value` as a variable byte integer can hold it.
#[inline]
pub(crate) fn checked_varint(value: usize, what: &'static str) -> Result<u32, EncodeError> {
    match u32::try_from(value) {
        Ok(value) if value <= VARINT_MAX => Ok(value),
        _ => Err(EncodeError(what)),
    }
}

impl<'a> Writer<'a> {
    /// A writer without a counting pass: for what is not a packet.
    pub(crate) fn appending(out: &'a mut BytesMut) -> Writer<'a> {
        Writer { out: Some(out), count: 0 }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count += bytes.len();
        if let Some(out) = &mut self.out {
            out.put_slice(bytes);
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn varint(&mut self, value: u32) -> Result<(), EncodeError> {
        checked_varint(value as usize, "a number is larger than a variable byte integer")?;
        self.count += varint_len(value);
        if let Some(out) = &mut self.out {
            put_varint(out, value);
        }
        Ok(())
    }

    /// A packet identifier: not 0.
    pub(crate) fn packet_id(&mut self, id: u16) -> Result<(), EncodeError> {
        if id == 0 {
            return Err(EncodeError("the packet identifier is 0"));
        }
        self.u16(id);
        Ok(())
    }

    /// A binary field: two length bytes and content.
    pub(crate) fn field(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        const _: () = assert!(FIELD_BYTES_MAX == u16::MAX as usize);
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError("a field is longer than 65535 bytes"))?;
        self.u16(length);
        self.bytes(bytes);
        Ok(())
    }

    /// A UTF-8 string without U+0000.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        if text.as_bytes().contains(&0) {
            return Err(EncodeError("a string contains U+0000"));
        }
        self.field(text.as_bytes())
    }

    /// A name and a value.
    pub(crate) fn pair(&mut self, (name, value): &(ByteString, ByteString)) -> Result<(), EncodeError> {
        self.text(name)?;
        self.text(value)
    }
}
