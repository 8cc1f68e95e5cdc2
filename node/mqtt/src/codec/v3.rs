//! The packets of 3.1 and 3.1.1 other than CONNECT and PUBLISH. mqttbytes reads them, after we have checked what it
//! does not: reserved bits, packet id 0, empty lists, exact lengths. Its own `check`, `matches` and `valid_*` are not used.

use bytes::BytesMut;
use mqttbytes::{FixedHeader, v4};

use super::read::{Reader, topic_filter_error};
use super::{DecodeError, EncodeError, frame, write};
use crate::packet::{
    Ack, ConnAck, ConnAckProperties, Disconnect, Packet, QoS, ReasonProperties, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, UnsubAck, Unsubscribe, Version,
};
use crate::reason::ReasonCode;
use crate::topic::TopicFilter;

/// Reads the packet whose first byte has been admitted; `reader` stands behind its fixed header.
pub(super) fn read(
    first: u8,
    header_bytes: usize,
    version: Version,
    reader: &mut Reader<'_>,
) -> Result<Packet, DecodeError> {
    let header = FixedHeader::new(first, header_bytes - 1, reader.len());
    let frame = || reader.frame().clone();
    let packet = match first >> 4 {
        frame::CONNACK => {
            check_length(reader, 2)?;
            check_connack(reader.rest(), version)?;
            let connack = v4::ConnAck::read(header, frame()).map_err(failed)?;
            Packet::ConnAck(Box::new(ConnAck {
                // 3.1 has a reserved byte in this place.
                session_present: connack.session_present && version == Version::V311,
                reason: ReasonCode::from_connack_v3(connack.code as u8).unwrap_or(ReasonCode::UnspecifiedError),
                properties: ConnAckProperties::default(),
            }))
        }
        frame::PUBACK => Packet::PubAck(Ack::success(v4::PubAck::read(header, ack(reader)?).map_err(failed)?.pkid)),
        frame::PUBREC => Packet::PubRec(Ack::success(v4::PubRec::read(header, ack(reader)?).map_err(failed)?.pkid)),
        frame::PUBREL => Packet::PubRel(Ack::success(v4::PubRel::read(header, ack(reader)?).map_err(failed)?.pkid)),
        frame::PUBCOMP => Packet::PubComp(Ack::success(v4::PubComp::read(header, ack(reader)?).map_err(failed)?.pkid)),
        frame::SUBSCRIBE => {
            check_filters(reader.clone(), true)?;
            subscribe(v4::Subscribe::read(header, frame()).map_err(failed)?)?
        }
        frame::SUBACK => {
            reader.clone().packet_id()?;
            let suback = v4::SubAck::read(header, frame()).map_err(failed)?;
            Packet::SubAck(Box::new(SubAck {
                packet_id: suback.pkid,
                reasons: suback.return_codes.iter().map(suback_reason).collect(),
                properties: ReasonProperties::default(),
            }))
        }
        frame::UNSUBSCRIBE => {
            check_filters(reader.clone(), false)?;
            let unsubscribe = v4::Unsubscribe::read(header, frame()).map_err(failed)?;
            let filters: Result<_, DecodeError> = unsubscribe.topics.into_iter().map(filter).collect();
            Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id: unsubscribe.pkid,
                filters: filters?,
                user: Vec::new(),
            }))
        }
        frame::UNSUBACK => {
            let packet_id = v4::UnsubAck::read(header, ack(reader)?).map_err(failed)?.pkid;
            let properties = ReasonProperties::default();
            Packet::UnsubAck(Box::new(UnsubAck { packet_id, reasons: Vec::new(), properties }))
        }
        frame::DISCONNECT => {
            check_length(reader, 0)?;
            Packet::Disconnect(Box::new(Disconnect {
                reason: ReasonCode::Success,
                session_expiry_s: None,
                server_reference: None,
                properties: ReasonProperties::default(),
            }))
        }
        _ => return Err(DecodeError::malformed("the packet type is reserved")),
    };
    // The readers take the whole frame; what they leave unread has been refused above.
    reader.take(reader.len())?;
    Ok(packet)
}

/// Whatever a reader of mqttbytes says, also "insufficient bytes": the frame was complete, so it is malformed.
#[cold]
fn failed(error: mqttbytes::Error) -> DecodeError {
    DecodeError::malformed(match error {
        mqttbytes::Error::TopicNotUtf8 => "a string is not UTF-8",
        mqttbytes::Error::InvalidQoS(_) => "a subscription asks for QoS 3",
        mqttbytes::Error::InvalidSubscribeReasonCode(_) => "a SUBACK has a code that is reserved",
        mqttbytes::Error::InvalidConnectReturnCode(_) => "a CONNACK has a code that is reserved",
        _ => "a field reaches beyond the end of the packet",
    })
}

/// The frame of a packet that is a packet identifier and nothing else.
fn ack(reader: &Reader<'_>) -> Result<bytes::Bytes, DecodeError> {
    check_length(reader, 2)?;
    reader.clone().packet_id()?;
    Ok(reader.frame().clone())
}

fn check_length(reader: &Reader<'_>, length: usize) -> Result<(), DecodeError> {
    if reader.len() == length { Ok(()) } else { Err(DecodeError::malformed("the remaining length is wrong")) }
}

fn check_connack(body: &[u8], version: Version) -> Result<(), DecodeError> {
    match body {
        _ if version == Version::V31 => Ok(()),
        [0, _] | [1, 0] => Ok(()),
        [1, _] => Err(DecodeError::protocol("a CONNACK refuses with a session present")), // [v3.1.1 MQTT-3.2.2-4]
        _ => Err(DecodeError::malformed("a CONNACK has reserved flags set")),
    }
}

/// Checks what the readers of SUBSCRIBE and UNSUBSCRIBE do not: the id, that there is a filter, reserved option bits.
fn check_filters(mut reader: Reader<'_>, options: bool) -> Result<(), DecodeError> {
    reader.packet_id()?;
    if reader.is_empty() {
        // [v3.1.1 MQTT-3.8.3-3], [v3.1.1 MQTT-3.10.3-2]
        return Err(DecodeError::protocol("a SUBSCRIBE or UNSUBSCRIBE has no topic filter"));
    }
    while !reader.is_empty() {
        reader.field()?;
        // [v3.1.1 MQTT-3-8.3-4]
        if options && reader.u8()? & !0x03 != 0 {
            return Err(DecodeError::malformed("a subscription has reserved option bits set"));
        }
    }
    Ok(())
}

fn filter(text: String) -> Result<TopicFilter, DecodeError> {
    TopicFilter::new(text).map_err(topic_filter_error)
}

fn subscribe(subscribe: v4::Subscribe) -> Result<Packet, DecodeError> {
    let filters: Result<_, DecodeError> = subscribe
        .filters
        .into_iter()
        .map(|wanted| {
            let qos = match wanted.qos {
                mqttbytes::QoS::AtMostOnce => QoS::AtMostOnce,
                mqttbytes::QoS::AtLeastOnce => QoS::AtLeastOnce,
                mqttbytes::QoS::ExactlyOnce => QoS::ExactlyOnce,
            };
            let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
            Ok(SubscribeFilter { filter: filter(wanted.path)?, options })
        })
        .collect();
    Ok(Packet::Subscribe(Box::new(Subscribe {
        packet_id: subscribe.pkid,
        filters: filters?,
        subscription_id: None,
        user: Vec::new(),
    })))
}

fn suback_reason(code: &v4::SubscribeReasonCode) -> ReasonCode {
    match code {
        v4::SubscribeReasonCode::Success(mqttbytes::QoS::AtMostOnce) => ReasonCode::Success,
        v4::SubscribeReasonCode::Success(mqttbytes::QoS::AtLeastOnce) => ReasonCode::GrantedQoS1,
        v4::SubscribeReasonCode::Success(mqttbytes::QoS::ExactlyOnce) => ReasonCode::GrantedQoS2,
        v4::SubscribeReasonCode::Failure => ReasonCode::UnspecifiedError,
    }
}

/// Appends a packet of 3.x.
pub(super) fn write(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut id_only = |first, id| write::packet(first, out, |w| w.packet_id(id));
    match packet {
        Packet::PubAck(ack) => id_only(0x40, ack.packet_id),
        Packet::PubRec(ack) => id_only(0x50, ack.packet_id),
        Packet::PubRel(ack) => id_only(0x62, ack.packet_id),
        Packet::PubComp(ack) => id_only(0x70, ack.packet_id),
        Packet::UnsubAck(ack) => id_only(0xB0, ack.packet_id),
        Packet::ConnAck(connack) => {
            if connack.session_present && connack.reason != ReasonCode::Success {
                return Err(EncodeError("a CONNACK refuses with a session present"));
            }
            // 3.1 has a reserved byte in this place.
            let session_present = connack.session_present && version == Version::V311;
            write::fixed(out, [0x20, 2, u8::from(session_present), connack.reason.connack_v3()])
        }
        Packet::Subscribe(subscribe) => write::packet(0x82, out, |w| {
            w.packet_id(subscribe.packet_id)?;
            if subscribe.filters.is_empty() {
                return Err(EncodeError("SUBSCRIBE has no topic filter"));
            }
            subscribe.filters.iter().try_for_each(|wanted| {
                w.text(wanted.filter.as_str())?;
                w.u8(wanted.options.qos as u8);
                Ok(())
            })
        }),
        Packet::SubAck(suback) => write::packet(0x90, out, |w| {
            w.packet_id(suback.packet_id)?;
            if suback.reasons.is_empty() {
                return Err(EncodeError("SUBACK has no code"));
            }
            suback.reasons.iter().try_for_each(|reason| {
                w.u8(suback_code(*reason, version)?);
                Ok(())
            })
        }),
        Packet::Unsubscribe(unsubscribe) => write::packet(0xA2, out, |w| {
            w.packet_id(unsubscribe.packet_id)?;
            if unsubscribe.filters.is_empty() {
                return Err(EncodeError("UNSUBSCRIBE has no topic filter"));
            }
            unsubscribe.filters.iter().try_for_each(|filter| w.text(filter.as_str()))
        }),
        Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::Success => write::fixed(out, [0xE0, 0]),
        Packet::Disconnect(_) => Err(EncodeError("DISCONNECT has no reason before MQTT 5")),
        Packet::Auth(_) => Err(EncodeError("there is no AUTH before MQTT 5")),
        Packet::Connect(_) | Packet::Publish(_) | Packet::PingReq | Packet::PingResp => {
            Err(EncodeError("the packet is not written here")) // `encode` has taken these
        }
    }
}

/// 3.1.1 knows one failure, 0x80; 3.1 knows none and grants QoS 0 instead.
fn suback_code(reason: ReasonCode, version: Version) -> Result<u8, EncodeError> {
    match reason {
        ReasonCode::Success | ReasonCode::GrantedQoS1 | ReasonCode::GrantedQoS2 => Ok(reason.byte()),
        reason if reason.is_error() => Ok(if version == Version::V31 { 0 } else { 0x80 }),
        _ => Err(EncodeError("SUBACK has a code that it may not carry")),
    }
}
