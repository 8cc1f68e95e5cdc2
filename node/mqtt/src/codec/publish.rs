//! PUBLISH of every version: the hot path.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::{self, DUP, RETAIN};
use super::read::{Reader, topic_name_error};
use super::{DecodeError, EncodeError, Role, v5, write};
use crate::limits::{FIELD_BYTES_MAX, VARINT_MAX};
use crate::packet::{Publish, QoS, Version};
use crate::property::{ForwardProperties, PublishProperties};
use crate::topic::{TopicError, TopicName, is_topic_name};

/// A PUBLISH about to be written, borrowed: the hot path of delivery.
#[derive(Debug, Clone, Copy)]
pub struct PublishRef<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only with `topic_alias` on MQTT 5.
    pub topic: &'a str,
    /// 1..=65,535 when `qos` > 0, ignored otherwise.
    pub packet_id: u16,
    /// The rest is ignored in 3.x.
    pub topic_alias: Option<u16>,
    pub message_expiry_s: Option<u32>,
    pub subscription_ids: &'a [u32],
    pub forward: &'a ForwardProperties,
    pub payload: &'a Bytes,
}

/// Reads a PUBLISH whose flags have been checked. The frame itself becomes the payload: one reference less to count.
#[inline]
pub(super) fn read(
    mut frame: Bytes,
    header_bytes: usize,
    first: u8,
    version: Version,
    role: Role,
) -> Result<Publish, DecodeError> {
    let mut reader = Reader::new(&frame, header_bytes);
    let topic = reader.binary()?;
    let qos = QoS::from_bits(first >> 1 & 3).unwrap_or_default(); // `check_flags` has refused 3
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id()? };
    let properties = match version {
        Version::V5 => v5::read_publish_properties(&mut reader, role)?,
        Version::V31 | Version::V311 => PublishProperties::default(),
    };
    let payload_at = reader.position();
    let topic = if topic.is_empty() && version == Version::V5 {
        if properties.topic_alias.is_none() {
            return Err(DecodeError::protocol("a PUBLISH has neither topic nor topic alias"));
        }
        None
    } else {
        Some(TopicName::from_bytes(topic).map_err(topic_name_error)?)
    };
    let payload = if payload_at == frame.len() {
        Bytes::new() // pins no buffer
    } else {
        frame.advance(payload_at);
        frame
    };
    Ok(Publish { dup: first & DUP != 0, qos, retain: first & RETAIN != 0, topic, packet_id, properties, payload })
}

impl PublishRef<'_> {
    /// Appends the whole packet to `out`.
    ///
    /// # Errors
    /// An ill-formed topic, an empty one without alias or before MQTT 5; packet id 0 with QoS > 0; DUP with QoS 0; topic
    /// alias 0; a subscription identifier outside 1..=268,435,455; a packet beyond what MQTT can express. Nothing was
    /// appended then.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let acknowledged = self.qos != QoS::AtMostOnce;
        if self.dup && !acknowledged {
            return Err(EncodeError("DUP is set on a PUBLISH with QoS 0"));
        }
        if self.packet_id == 0 && acknowledged {
            return Err(EncodeError("the packet identifier is 0"));
        }
        match is_topic_name(self.topic.as_bytes()) {
            Ok(()) => {}
            Err(TopicError::Empty) if version == Version::V5 && self.topic_alias.is_some() => {}
            Err(TopicError::Empty) => return Err(EncodeError("the topic is empty")),
            Err(TopicError::TooLong) => return Err(EncodeError("the topic is longer than 65535 bytes")),
            Err(_) => return Err(EncodeError("the topic is ill-formed")),
        }
        const _: () = assert!(FIELD_BYTES_MAX == u16::MAX as usize); // so the topic's length is a u16
        let mut remaining = 2 + self.topic.len() + if acknowledged { 2 } else { 0 } + self.payload.len();
        let mut properties = 0;
        if version == Version::V5 {
            self.check_properties()?;
            properties = write::checked_varint(self.property_bytes(), "the properties are too long")?;
            remaining += write::varint_len(properties) + properties as usize;
        }
        let remaining = write::checked_varint(remaining, "the packet is larger than MQTT can express")?;

        out.reserve(1 + write::varint_len(remaining) + remaining as usize);
        let flags = ((self.qos as u8) << 1) | if self.dup { DUP } else { 0 } | if self.retain { RETAIN } else { 0 };
        out.put_u8(frame::PUBLISH << 4 | flags);
        write::put_varint(out, remaining);
        out.put_u16(self.topic.len() as u16);
        out.put_slice(self.topic.as_bytes());
        if acknowledged {
            out.put_u16(self.packet_id);
        }
        if version == Version::V5 {
            write::put_varint(out, properties);
            if properties > 0 {
                self.put_properties(out);
            }
        }
        out.put_slice(self.payload);
        Ok(())
    }

    /// Bytes of the whole packet, as [`PublishRef::encode`] would append if it can.
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> usize {
        let id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let mut remaining = 2 + self.topic.len() + id + self.payload.len();
        if version == Version::V5 {
            let properties = self.property_bytes();
            remaining += varint_len(properties) + properties;
        }
        1 + varint_len(remaining) + remaining
    }

    fn check_properties(&self) -> Result<(), EncodeError> {
        if self.topic_alias == Some(0) {
            return Err(EncodeError("the topic alias is 0"));
        }
        if self.subscription_ids.iter().any(|id| *id == 0 || *id > VARINT_MAX) {
            return Err(EncodeError("a subscription identifier is out of range"));
        }
        Ok(())
    }

    fn property_bytes(&self) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|id| 1 + write::varint_len(*id)).sum();
        let expiry = if self.message_expiry_s.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        expiry + alias + ids + self.forward.as_bytes().len()
    }

    /// The interpreted ones come first, so that the receiver finds the forwarded ones in one piece.
    fn put_properties(&self, out: &mut BytesMut) {
        if let Some(seconds) = self.message_expiry_s {
            out.put_u8(v5::id::MESSAGE_EXPIRY);
            out.put_u32(seconds);
        }
        if let Some(alias) = self.topic_alias {
            out.put_u8(v5::id::TOPIC_ALIAS);
            out.put_u16(alias);
        }
        for id in self.subscription_ids {
            out.put_u8(v5::id::SUBSCRIPTION_ID);
            write::put_varint(out, *id);
        }
        out.put_slice(self.forward.as_bytes());
    }
}

fn varint_len(value: usize) -> usize {
    write::varint_len(u32::try_from(value).unwrap_or(u32::MAX))
}

impl Publish {
    /// This packet, borrowed for encoding.
    #[must_use]
    pub fn as_ref(&self) -> PublishRef<'_> {
        PublishRef {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_ref().map_or("", TopicName::as_str),
            packet_id: self.packet_id,
            topic_alias: self.properties.topic_alias,
            message_expiry_s: self.properties.message_expiry_s,
            subscription_ids: &self.properties.subscription_ids,
            forward: &self.properties.forward,
            payload: &self.payload,
        }
    }
}
