//! The fixed header: packet type, flags, remaining length; and reading past a PUBLISH that is too large.

use bytes::{Buf, BytesMut};

use super::DecodeError;
use crate::packet::{QoS, SkippedPublish, Version};

pub(super) const CONNECT: u8 = 1;
pub(super) const CONNACK: u8 = 2;
pub(super) const PUBLISH: u8 = 3;
pub(super) const PUBACK: u8 = 4;
pub(super) const PUBREC: u8 = 5;
pub(super) const PUBREL: u8 = 6;
pub(super) const PUBCOMP: u8 = 7;
pub(super) const SUBSCRIBE: u8 = 8;
pub(super) const SUBACK: u8 = 9;
pub(super) const UNSUBSCRIBE: u8 = 10;
pub(super) const UNSUBACK: u8 = 11;
pub(super) const PINGREQ: u8 = 12;
pub(super) const PINGRESP: u8 = 13;
pub(super) const DISCONNECT: u8 = 14;
pub(super) const AUTH: u8 = 15;

/// DUP in the first byte of a PUBLISH, and in 3.1 of a PUBREL, SUBSCRIBE and UNSUBSCRIBE.
pub(super) const DUP: u8 = 0x08;
/// RETAIN in the first byte of a PUBLISH.
pub(super) const RETAIN: u8 = 0x01;

/// Reads a variable byte integer: its value and how many bytes it took, 1 to 4. `None` means that it is cut short.
///
/// # Errors
/// Malformed if it is longer than four bytes or than it need be [v5 MQTT-1.5.5-1].
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err(DecodeError::malformed("a variable byte integer is longer than it need be"));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::malformed("a variable byte integer is longer than four bytes"));
    }
    Ok(None)
}

/// Checks the low four bits of the first byte [v5 MQTT-2.1.3-1].
///
/// # Errors
/// Malformed if they are not what the packet type prescribes.
#[inline]
pub(super) fn check_flags(first: u8, version: Option<Version>) -> Result<(), DecodeError> {
    let flags = first & 0x0F;
    match first >> 4 {
        PUBLISH => {
            // [v5 MQTT-3.3.1-4]
            let Some(qos) = QoS::from_bits(flags >> 1 & 3) else {
                return Err(DecodeError::malformed("a PUBLISH has QoS 3"));
            };
            // [v5 MQTT-3.3.1-2]
            if qos == QoS::AtMostOnce && flags & DUP != 0 {
                return Err(DecodeError::malformed("a PUBLISH with QoS 0 has DUP set"));
            }
        }
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => {
            // 3.1 lets these carry DUP; from 3.1.1 on the bits are reserved.
            let legal = flags == 0x02 || flags == 0x02 | DUP && version == Some(Version::V31);
            if !legal {
                return Err(DecodeError::malformed("the reserved bits of the fixed header are wrong"));
            }
        }
        _ if flags != 0 => {
            return Err(DecodeError::malformed("the reserved bits of the fixed header are wrong"));
        }
        _ => {}
    }
    Ok(())
}

/// A PUBLISH that is being read past: fed the buffer as it fills, it empties it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skip {
    report: SkippedPublish,
    stage: Stage,
    /// Bytes of the packet that have not been consumed yet.
    left: u32,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    TopicLength,
    /// Bytes of the topic still to come.
    Topic(u32),
    PacketId,
    Rest,
}

impl Skip {
    /// A skip whose fixed header has been consumed: `left` bytes follow.
    pub(super) fn new(qos: QoS, size: u32, left: u32) -> Skip {
        Skip { report: SkippedPublish { qos, packet_id: 0, size }, stage: Stage::TopicLength, left }
    }

    /// Consumes what it can; at most one byte stays in `buffer` while it asks for more.
    ///
    /// # Errors
    /// Malformed if topic and packet id do not fit into the packet, or the id is 0.
    pub(super) fn feed(&mut self, buffer: &mut BytesMut) -> Result<Option<SkippedPublish>, DecodeError> {
        loop {
            match self.stage {
                Stage::TopicLength => {
                    if self.left < 2 {
                        return Err(BEYOND);
                    }
                    if buffer.len() < 2 {
                        return Ok(None);
                    }
                    let topic = u32::from(buffer.get_u16());
                    let id = if self.report.qos == QoS::AtMostOnce { 0 } else { 2 };
                    self.left -= 2;
                    if topic + id > self.left {
                        return Err(BEYOND);
                    }
                    self.stage = Stage::Topic(topic);
                }
                Stage::Topic(topic) => {
                    let have = drop_front(buffer, topic);
                    self.left -= have;
                    self.stage = match topic - have {
                        0 if self.report.qos == QoS::AtMostOnce => Stage::Rest,
                        0 => Stage::PacketId,
                        rest => {
                            self.stage = Stage::Topic(rest);
                            return Ok(None);
                        }
                    };
                }
                Stage::PacketId => {
                    if buffer.len() < 2 {
                        return Ok(None);
                    }
                    self.report.packet_id = buffer.get_u16();
                    self.left -= 2;
                    if self.report.packet_id == 0 {
                        return Err(DecodeError::malformed("a packet identifier is 0"));
                    }
                    self.stage = Stage::Rest;
                }
                Stage::Rest => {
                    self.left -= drop_front(buffer, self.left);
                    return Ok((self.left == 0).then_some(self.report));
                }
            }
        }
    }
}

const BEYOND: DecodeError = DecodeError::malformed("a field reaches beyond the end of the packet");

/// Drops up to `bytes_max` bytes from the front and says how many.
fn drop_front(buffer: &mut BytesMut, bytes_max: u32) -> u32 {
    let have = bytes_max.min(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
    buffer.advance(have as usize);
    have
}
