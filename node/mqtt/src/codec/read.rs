//! A cursor over one packet, or over the properties of one. It never reads beyond its end: there the packet is
//! malformed, never incomplete.

use bytes::Bytes;
use bytestring::ByteString;

use super::{DecodeError, frame};
use crate::topic::{TopicError, TopicFilter, TopicName};

#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads `frame` from byte `at` on.
    pub(crate) fn new(frame: &'a Bytes, at: usize) -> Reader<'a> {
        debug_assert!(at <= frame.len());
        Reader { frame, at, end: frame.len() }
    }

    /// Cuts off the next `length` bytes as a reader of their own.
    pub(crate) fn split(&mut self, length: usize) -> Result<Reader<'a>, DecodeError> {
        let at = self.at;
        self.take(length)?;
        Ok(Reader { frame: self.frame, at, end: at + length })
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Bytes that have not been read.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.at
    }

    /// Where the next byte is, counted from the start of the frame.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The frame from `start` to `end`, sharing its memory.
    #[inline]
    pub(crate) fn slice(&self, start: usize, end: usize) -> Bytes {
        self.frame.slice(start..end)
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let frame: &'a [u8] = self.frame;
        if length > self.end - self.at {
            return Err(DecodeError::malformed("a field reaches beyond the end of the packet"));
        }
        let taken = &frame[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    /// What has not been read, without moving.
    pub(crate) fn rest(&self) -> &'a [u8] {
        let frame: &'a [u8] = self.frame;
        &frame[self.at..self.end]
    }

    /// The whole frame, header included.
    pub(crate) fn frame(&self) -> &'a Bytes {
        self.frame
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let Some((value, length)) = frame::varint(self.rest())? else {
            return Err(DecodeError::malformed("a variable byte integer is cut short"));
        };
        self.at += length;
        Ok(value)
    }

    /// A packet identifier: not 0 [v5 MQTT-2.2.1-3].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::malformed("a packet identifier is 0")),
            id => Ok(id),
        }
    }

    /// A field of two length bytes and content.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A binary field as a slice of the frame.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.field()?.len();
        Ok(self.frame.slice(self.at - length..self.at))
    }

    /// A UTF-8 string: well formed [v5 MQTT-1.5.4-1], without U+0000 [v5 MQTT-1.5.4-2].
    pub(crate) fn text(&mut self) -> Result<ByteString, DecodeError> {
        let text = ByteString::try_from(self.binary()?).map_err(|_| NOT_UTF8)?;
        if text.as_bytes().contains(&0) { Err(NUL) } else { Ok(text) }
    }

    /// As [`Reader::text`], borrowed.
    pub(crate) fn text_ref(&mut self) -> Result<&'a str, DecodeError> {
        let field = self.field()?;
        let text = std::str::from_utf8(field).map_err(|_| NOT_UTF8)?;
        if field.contains(&0) { Err(NUL) } else { Ok(text) }
    }

    /// A topic name; 0x90 if it is ill-formed.
    #[inline]
    pub(crate) fn topic(&mut self) -> Result<TopicName, DecodeError> {
        TopicName::from_bytes(self.binary()?).map_err(topic_name_error)
    }

    /// A topic filter; 0x8F if it is ill-formed.
    pub(crate) fn filter(&mut self) -> Result<TopicFilter, DecodeError> {
        TopicFilter::from_bytes(self.binary()?).map_err(topic_filter_error)
    }

    /// Borrowed text of this frame as a slice of it.
    pub(crate) fn own_text(&self, text: &'a str) -> Result<ByteString, DecodeError> {
        ByteString::try_from(self.own(text.as_bytes())).map_err(|_| NOT_UTF8)
    }

    /// Borrowed bytes of this frame as a slice of it.
    pub(crate) fn own(&self, bytes: &'a [u8]) -> Bytes {
        self.frame.slice_ref(bytes)
    }
}

const NOT_UTF8: DecodeError = DecodeError::malformed("a string is not UTF-8");
const NUL: DecodeError = DecodeError::malformed("a string contains U+0000");

#[cold]
pub(crate) fn topic_name_error(error: TopicError) -> DecodeError {
    use crate::reason::ReasonCode::TopicNameInvalid;
    match error {
        TopicError::NotUtf8 => NOT_UTF8,
        TopicError::Nul => NUL,
        TopicError::Empty => DecodeError::new(TopicNameInvalid, "a topic name is empty"),
        TopicError::Wildcard => DecodeError::new(TopicNameInvalid, "a topic name contains a wildcard"),
        _ => DecodeError::new(TopicNameInvalid, "a topic name is ill-formed"),
    }
}

#[cold]
pub(crate) fn topic_filter_error(error: TopicError) -> DecodeError {
    use crate::reason::ReasonCode::TopicFilterInvalid;
    match error {
        TopicError::NotUtf8 => NOT_UTF8,
        TopicError::Nul => NUL,
        TopicError::Empty => DecodeError::new(TopicFilterInvalid, "a topic filter is empty"),
        TopicError::MultiLevel => {
            DecodeError::new(TopicFilterInvalid, "a topic filter has a '#' that is not alone in the last level")
        }
        TopicError::SingleLevel => {
            DecodeError::new(TopicFilterInvalid, "a topic filter has a '+' that is not alone in its level")
        }
        TopicError::Share => DecodeError::new(TopicFilterInvalid, "a shared subscription is ill-formed"),
        _ => DecodeError::new(TopicFilterInvalid, "a topic filter is ill-formed"),
    }
}
