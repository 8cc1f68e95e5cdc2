//! Properties of a PUBLISH. The ones that a server interprets are fields; the ones that it only forwards (payload
//! format, content type, response topic, correlation data, user properties) stay in their encoded form, in the order
//! in which they came [v5 3.3.2.3], so that forwarding is one copy.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::codec::read::Reader;
use crate::codec::v5::properties::{self, Properties, Property, Value, id, place};
use crate::codec::write::{self, Writer};
use crate::codec::{DecodeError, EncodeError};
use crate::packet::SubscriptionIds;
use crate::topic::TopicName;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Seconds of life left.
    pub message_expiry_s: Option<u32>,
    /// 1..=65,535.
    pub topic_alias: Option<u16>,
    /// Only from server to client.
    pub subscription_ids: SubscriptionIds,
    pub forward: ForwardProperties,
}

/// Validated, encoded properties that are forwarded unaltered. Empty in 3.x.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardProperties(pub(crate) Bytes);

/// One property that is forwarded. All but user properties stand at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardProperty {
    /// Whether the payload is said to be UTF-8.
    PayloadFormat(bool),
    ContentType(ByteString),
    ResponseTopic(TopicName),
    /// 0 to 65,535 bytes.
    CorrelationData(Bytes),
    /// Name and value; may repeat.
    User(ByteString, ByteString),
}

impl ForwardProperties {
    /// Takes encoded properties, without their length, as [`ForwardProperties::as_bytes`] gave them. Keeps the bytes.
    ///
    /// # Errors
    /// As in a PUBLISH: malformed, or a protocol error for a repeated property or one that is not forwarded.
    pub fn from_encoded(bytes: Bytes) -> Result<ForwardProperties, DecodeError> {
        let mut properties = Properties::new(Reader::new(&bytes, 0), place::FORWARD);
        while properties.next()?.is_some() {}
        Ok(ForwardProperties(bytes))
    }

    /// Encodes properties in their order.
    ///
    /// # Errors
    /// Text or data over 65,535 bytes, U+0000 in text, a property other than a user property twice, or more bytes in
    /// all than MQTT can express.
    pub fn from_properties<'a>(
        properties: impl IntoIterator<Item = &'a ForwardProperty>,
    ) -> Result<ForwardProperties, EncodeError> {
        let mut out = BytesMut::new();
        let mut seen = 0u64;
        for property in properties {
            let id = property.id();
            if id != id::USER && seen & 1 << id != 0 {
                return Err(EncodeError("a property that may stand once is repeated"));
            }
            seen |= 1 << id;
            property.write(&mut Writer::appending(&mut out))?;
        }
        write::checked_varint(out.len(), "the properties are too long")?;
        Ok(ForwardProperties(out.freeze()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The encoded properties, without their length.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The properties in their order; strings and data are slices of the encoded form.
    pub fn iter(&self) -> impl Iterator<Item = ForwardProperty> + '_ {
        let mut properties = Properties::new(Reader::new(&self.0, 0), place::FORWARD);
        // They were validated when they came to be, so neither error can happen.
        std::iter::from_fn(move || {
            let property = properties.next().ok()??;
            ForwardProperty::of(&properties, property).ok()
        })
    }

    /// A copy that owns its bytes and pins no read buffer.
    #[must_use]
    pub fn detached(&self) -> ForwardProperties {
        ForwardProperties(Bytes::copy_from_slice(&self.0))
    }
}

impl ForwardProperty {
    fn of<'a>(properties: &Properties<'a>, property: Property<'a>) -> Result<ForwardProperty, DecodeError> {
        Ok(match (property.id, property.value) {
            (id::PAYLOAD_FORMAT, Value::Number(n)) => ForwardProperty::PayloadFormat(n == 1),
            (id::CONTENT_TYPE, Value::Text(text)) => ForwardProperty::ContentType(properties.own_text(text)?),
            (id::RESPONSE_TOPIC, Value::Text(text)) => ForwardProperty::ResponseTopic(
                TopicName::new(properties.own_text(text)?)
                    .map_err(|_| DecodeError::protocol("a response topic is ill-formed"))?,
            ),
            (id::CORRELATION_DATA, Value::Binary(data)) => ForwardProperty::CorrelationData(properties.own(data)),
            (_, Value::Pair(name, value)) => {
                let (name, value) = properties.own_pair(name, value)?;
                ForwardProperty::User(name, value)
            }
            _ => return Err(DecodeError::protocol("a property that is not forwarded")),
        })
    }

    fn id(&self) -> u8 {
        match self {
            ForwardProperty::PayloadFormat(_) => id::PAYLOAD_FORMAT,
            ForwardProperty::ContentType(_) => id::CONTENT_TYPE,
            ForwardProperty::ResponseTopic(_) => id::RESPONSE_TOPIC,
            ForwardProperty::CorrelationData(_) => id::CORRELATION_DATA,
            ForwardProperty::User(..) => id::USER,
        }
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        let id = self.id();
        match self {
            ForwardProperty::PayloadFormat(utf8) => properties::number(w, id, Some(*utf8)),
            ForwardProperty::ContentType(text) => properties::text(w, id, Some(text)),
            ForwardProperty::CorrelationData(data) => properties::binary(w, id, Some(data)),
            ForwardProperty::ResponseTopic(topic) => {
                w.u8(id);
                w.text(topic.as_str())
            }
            ForwardProperty::User(name, value) => {
                w.u8(id);
                w.text(name)?;
                w.text(value)
            }
        }
    }
}
