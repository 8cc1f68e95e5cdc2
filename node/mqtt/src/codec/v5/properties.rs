//! The property table of MQTT 5 [v5 2.2.2.2], and reading and writing by it.

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::read::Reader;
use crate::codec::write::{self, Writer};
use crate::codec::{DecodeError, EncodeError};
use crate::packet::UserProperty;
use crate::reason::ReasonCode;
use crate::topic::is_topic_name;

/// Where properties stand, as bits of a set.
pub(crate) mod place {
    pub(crate) const CONNECT: u16 = 1;
    pub(crate) const WILL: u16 = 1 << 1;
    pub(crate) const CONNACK: u16 = 1 << 2;
    pub(crate) const PUBLISH: u16 = 1 << 3;
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    pub(crate) const ACK: u16 = 1 << 4;
    pub(crate) const SUBSCRIBE: u16 = 1 << 5;
    pub(crate) const SUBACK: u16 = 1 << 6;
    pub(crate) const UNSUBSCRIBE: u16 = 1 << 7;
    pub(crate) const UNSUBACK: u16 = 1 << 8;
    pub(crate) const DISCONNECT: u16 = 1 << 9;
    pub(crate) const AUTH: u16 = 1 << 10;
    /// Not a packet: what a server forwards unaltered.
    pub(crate) const FORWARD: u16 = 1 << 11;
    pub(super) const NONE: u16 = 0;
    pub(super) const ALL: u16 = u16::MAX;
}

/// What a property holds, and the range of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One byte, 0 or 1.
    Bool,
    U16,
    NonZeroU16,
    U32,
    NonZeroU32,
    NonZeroVarInt,
    Text,
    /// Text that is a topic name.
    Topic,
    Binary,
    Pair,
}

struct Spec {
    kind: Kind,
    places: u16,
    /// The places where it may stand more than once.
    repeats: u16,
}

macro_rules! properties {
    ($($id:literal $name:ident $kind:ident in $($place:ident)|+, repeats in $repeats:ident;)*) => {
        /// Property identifiers.
        pub(crate) mod id {
            $(pub(crate) const $name: u8 = $id;)*
        }

        #[inline]
        fn spec(id: u8) -> Option<Spec> {
            Some(match id {
                $($id => Spec { kind: Kind::$kind, places: $(place::$place)|+, repeats: place::$repeats },)*
                _ => return None,
            })
        }

        #[cfg(test)]
        pub(crate) const ALL_IDS: &[u8] = &[$($id),*];
    };
}

properties! {
    0x01 PAYLOAD_FORMAT                  Bool          in PUBLISH | WILL | FORWARD, repeats in NONE;
    0x02 MESSAGE_EXPIRY                  U32           in PUBLISH | WILL, repeats in NONE;
    0x03 CONTENT_TYPE                    Text          in PUBLISH | WILL | FORWARD, repeats in NONE;
    0x08 RESPONSE_TOPIC                  Topic         in PUBLISH | WILL | FORWARD, repeats in NONE;
    0x09 CORRELATION_DATA                Binary        in PUBLISH | WILL | FORWARD, repeats in NONE;
    0x0B SUBSCRIPTION_ID                 NonZeroVarInt in PUBLISH | SUBSCRIBE, repeats in PUBLISH;
    0x11 SESSION_EXPIRY                  U32           in CONNECT | CONNACK | DISCONNECT, repeats in NONE;
    0x12 ASSIGNED_CLIENT_ID              Text          in CONNACK, repeats in NONE;
    0x13 SERVER_KEEP_ALIVE               U16           in CONNACK, repeats in NONE;
    0x15 AUTHENTICATION_METHOD           Text          in CONNECT | CONNACK | AUTH, repeats in NONE;
    0x16 AUTHENTICATION_DATA             Binary        in CONNECT | CONNACK | AUTH, repeats in NONE;
    0x17 REQUEST_PROBLEM_INFORMATION     Bool          in CONNECT, repeats in NONE;
    0x18 WILL_DELAY                      U32           in WILL, repeats in NONE;
    0x19 REQUEST_RESPONSE_INFORMATION    Bool          in CONNECT, repeats in NONE;
    0x1A RESPONSE_INFORMATION            Text          in CONNACK, repeats in NONE;
    0x1C SERVER_REFERENCE                Text          in CONNACK | DISCONNECT, repeats in NONE;
    0x1F REASON_STRING                   Text          in CONNACK | ACK | SUBACK | UNSUBACK | DISCONNECT | AUTH, repeats in NONE;
    0x21 RECEIVE_MAXIMUM                 NonZeroU16    in CONNECT | CONNACK, repeats in NONE;
    0x22 TOPIC_ALIAS_MAXIMUM             U16           in CONNECT | CONNACK, repeats in NONE;
    0x23 TOPIC_ALIAS                     NonZeroU16    in PUBLISH, repeats in NONE;
    0x24 MAXIMUM_QOS                     Bool          in CONNACK, repeats in NONE;
    0x25 RETAIN_AVAILABLE                Bool          in CONNACK, repeats in NONE;
    0x26 USER                            Pair          in ALL, repeats in ALL;
    0x27 MAXIMUM_PACKET_SIZE             NonZeroU32    in CONNECT | CONNACK, repeats in NONE;
    0x28 WILDCARD_SUBSCRIPTION_AVAILABLE Bool          in CONNACK, repeats in NONE;
    0x29 SUBSCRIPTION_IDS_AVAILABLE      Bool          in CONNACK, repeats in NONE;
    0x2A SHARED_SUBSCRIPTION_AVAILABLE   Bool          in CONNACK, repeats in NONE;
}

/// A property's value, borrowed from the packet and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Bool (0 or 1), two- and four-byte and variable integers.
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Property<'a> {
    pub(crate) id: u8,
    pub(crate) value: Value<'a>,
    /// Where it stands in the frame, identifier included.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Reads the properties of one place, one at a time.
pub(crate) struct Properties<'a> {
    reader: Reader<'a>,
    place: u16,
    /// One bit per identifier that has been read; all are below 64.
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Reads the property length and takes that many bytes from `reader`: no property reaches beyond them.
    pub(crate) fn open(reader: &mut Reader<'a>, place: u16) -> Result<Properties<'a>, DecodeError> {
        let length = reader.varint()? as usize;
        Ok(Properties::new(reader.split(length)?, place))
    }

    /// Reads `reader`, which holds properties and nothing else.
    pub(crate) fn new(reader: Reader<'a>, place: u16) -> Properties<'a> {
        Properties { reader, place, seen: 0 }
    }

    /// The next property; `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let start = self.reader.position();
        let id = self.reader.u8()?;
        // Identifiers are variable byte integers, but all that are defined take one byte.
        let Some(spec) = spec(id) else {
            return Err(DecodeError::malformed("a property identifier is not defined"));
        };
        if spec.places & self.place == 0 {
            return Err(DecodeError::protocol("a property that this packet may not carry"));
        }
        let bit = 1 << id;
        if self.seen & bit != 0 && spec.repeats & self.place == 0 {
            return Err(DecodeError::protocol("a property that may stand once is repeated"));
        }
        self.seen |= bit;
        let value = read_value(&mut self.reader, spec.kind)?;
        if let Value::Number(number) = value
            && !in_range(spec.kind, number)
        {
            return Err(out_of_range(id));
        }
        Ok(Some(Property { id, value, start, end: self.reader.position() }))
    }

    /// Text of a property as a slice of the frame.
    pub(crate) fn own_text(&self, text: &'a str) -> Result<ByteString, DecodeError> {
        self.reader.own_text(text)
    }

    /// Binary data of a property as a slice of the frame.
    pub(crate) fn own(&self, bytes: &'a [u8]) -> Bytes {
        self.reader.own(bytes)
    }

    /// A user property as slices of the frame.
    pub(crate) fn own_pair(&self, name: &'a str, value: &'a str) -> Result<UserProperty, DecodeError> {
        Ok((self.own_text(name)?, self.own_text(value)?))
    }
}

fn read_value<'a>(reader: &mut Reader<'a>, kind: Kind) -> Result<Value<'a>, DecodeError> {
    Ok(match kind {
        Kind::Bool => Value::Number(u32::from(reader.u8()?)),
        Kind::U16 | Kind::NonZeroU16 => Value::Number(u32::from(reader.u16()?)),
        Kind::U32 | Kind::NonZeroU32 => Value::Number(reader.u32()?),
        Kind::NonZeroVarInt => Value::Number(reader.varint()?),
        Kind::Text => Value::Text(reader.text_ref()?),
        Kind::Topic => {
            let text = reader.text_ref()?;
            // [v5 MQTT-3.3.2-14]
            if is_topic_name(text.as_bytes()).is_err() {
                return Err(DecodeError::protocol("a response topic is empty or contains a wildcard"));
            }
            Value::Text(text)
        }
        Kind::Binary => Value::Binary(reader.field()?),
        Kind::Pair => Value::Pair(reader.text_ref()?, reader.text_ref()?),
    })
}

fn in_range(kind: Kind, number: u32) -> bool {
    match kind {
        Kind::Bool => number <= 1,
        Kind::NonZeroU16 => number > 0 && number <= u32::from(u16::MAX),
        Kind::U16 => number <= u32::from(u16::MAX),
        Kind::NonZeroU32 | Kind::NonZeroVarInt => number > 0,
        _ => true,
    }
}

#[cold]
fn out_of_range(id: u8) -> DecodeError {
    match id {
        id::TOPIC_ALIAS => DecodeError::new(ReasonCode::TopicAliasInvalid, "the topic alias is 0"), // [v5 MQTT-3.3.2-8]
        id::RECEIVE_MAXIMUM => DecodeError::protocol("the receive maximum is 0"),
        id::MAXIMUM_PACKET_SIZE => DecodeError::protocol("the maximum packet size is 0"),
        id::SUBSCRIPTION_ID => DecodeError::protocol("a subscription identifier is 0"),
        id::PAYLOAD_FORMAT => DecodeError::protocol("the payload format is neither 0 nor 1"),
        _ => DecodeError::protocol("a property is neither 0 nor 1"),
    }
}

/// Writes the property length and what `body` writes.
pub(crate) fn write_properties(
    w: &mut Writer<'_>,
    body: impl Fn(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let length = write::checked_varint(write::count(&body)?, "the properties are too long")?;
    w.varint(length)?;
    body(w)
}

/// Writes the property if there is one.
pub(crate) fn number(w: &mut Writer<'_>, id: u8, value: Option<impl Into<u32>>) -> Result<(), EncodeError> {
    let Some(value) = value.map(Into::into) else {
        return Ok(());
    };
    let kind = spec(id).map_or(Kind::U32, |spec| spec.kind);
    if !in_range(kind, value) {
        return Err(EncodeError("a property is out of range"));
    }
    w.u8(id);
    match kind {
        Kind::Bool => w.u8(value as u8),
        Kind::U16 | Kind::NonZeroU16 => w.u16(value as u16),
        Kind::NonZeroVarInt => w.varint(value)?,
        _ => w.u32(value),
    }
    Ok(())
}

/// Writes the property if there is one.
pub(crate) fn text(w: &mut Writer<'_>, id: u8, value: Option<&ByteString>) -> Result<(), EncodeError> {
    value.map_or(Ok(()), |value| {
        w.u8(id);
        w.text(value)
    })
}

/// Writes the property if there is one.
pub(crate) fn binary(w: &mut Writer<'_>, id: u8, value: Option<&Bytes>) -> Result<(), EncodeError> {
    value.map_or(Ok(()), |value| {
        w.u8(id);
        w.field(value)
    })
}

/// Writes user properties in their order.
pub(crate) fn user(w: &mut Writer<'_>, properties: &[UserProperty]) -> Result<(), EncodeError> {
    properties.iter().try_for_each(|property| {
        w.u8(id::USER);
        w.pair(property)
    })
}
