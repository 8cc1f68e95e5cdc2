//! MQTT 5: acknowledgements, SUBSCRIBE and its kin, DISCONNECT. The property table is in `properties`.

mod connect;
pub(crate) mod properties;
mod publish;
mod reasons;

use bytes::{BufMut, BytesMut};

pub(super) use connect::{read_connect_properties, write_connect_properties};
pub(super) use properties::id;
use properties::{Properties, Value, number, place, text, user, write_properties};
pub(super) use publish::{read_publish_properties, read_will_properties, write_will_properties};
use reasons::reason;

use super::read::Reader;
use super::write::{self, Writer};
use super::{DecodeError, EncodeError, Role, frame};
use crate::packet::{
    Ack, Disconnect, Packet, QoS, ReasonProperties, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, UnsubAck, Unsubscribe,
};
use crate::reason::ReasonCode;

/// Reads the packet of type `kind` that `role` received; `reader` stands behind its fixed header.
pub(super) fn read(kind: u8, role: Role, reader: &mut Reader<'_>) -> Result<Packet, DecodeError> {
    Ok(match kind {
        frame::CONNACK => Packet::ConnAck(Box::new(connect::read_connack(reader)?)),
        frame::PUBACK => Packet::PubAck(read_ack(reader, reasons::PUBACK)?),
        frame::PUBREC => Packet::PubRec(read_ack(reader, reasons::PUBACK)?),
        frame::PUBREL => Packet::PubRel(read_ack(reader, reasons::PUBREL)?),
        frame::PUBCOMP => Packet::PubComp(read_ack(reader, reasons::PUBREL)?),
        frame::SUBSCRIBE => Packet::Subscribe(Box::new(read_subscribe(reader)?)),
        frame::SUBACK => {
            let (packet_id, properties, reasons) = read_codes(reader, place::SUBACK, reasons::SUBACK)?;
            Packet::SubAck(Box::new(SubAck { packet_id, reasons, properties }))
        }
        frame::UNSUBSCRIBE => Packet::Unsubscribe(Box::new(read_unsubscribe(reader)?)),
        frame::UNSUBACK => {
            let (packet_id, properties, reasons) = read_codes(reader, place::UNSUBACK, reasons::UNSUBACK)?;
            Packet::UnsubAck(Box::new(UnsubAck { packet_id, reasons, properties }))
        }
        frame::DISCONNECT => Packet::Disconnect(Box::new(read_disconnect(reader, role)?)),
        frame::AUTH => Packet::Auth(Box::new(connect::read_auth(reader, role)?)),
        _ => return Err(DecodeError::malformed("the packet type is reserved")),
    })
}

/// Appends a packet other than CONNECT, PUBLISH and the pings.
pub(super) fn write(packet: &Packet, out: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::ConnAck(connack) => connect::write_connack(connack, out),
        Packet::PubAck(ack) => write_ack(0x40, ack, reasons::PUBACK, out),
        Packet::PubRec(ack) => write_ack(0x50, ack, reasons::PUBACK, out),
        Packet::PubRel(ack) => write_ack(0x62, ack, reasons::PUBREL, out),
        Packet::PubComp(ack) => write_ack(0x70, ack, reasons::PUBREL, out),
        Packet::Subscribe(subscribe) => write_subscribe(subscribe, out),
        Packet::SubAck(a) => write_codes(0x90, (a.packet_id, &a.properties, &a.reasons), reasons::SUBACK, out),
        Packet::Unsubscribe(unsubscribe) => write_unsubscribe(unsubscribe, out),
        Packet::UnsubAck(a) => write_codes(0xB0, (a.packet_id, &a.properties, &a.reasons), reasons::UNSUBACK, out),
        Packet::Disconnect(disconnect) => write_disconnect(disconnect, out),
        Packet::Auth(auth) => connect::write_auth(auth, out),
        Packet::Connect(_) | Packet::Publish(_) | Packet::PingReq | Packet::PingResp => {
            Err(EncodeError("the packet is not written here")) // `encode` has taken these
        }
    }
}

/// The properties of a packet that carries reason string and user properties only.
fn read_reason_properties(reader: &mut Reader<'_>, place: u16) -> Result<ReasonProperties, DecodeError> {
    let mut all = ReasonProperties::default();
    let mut properties = Properties::open(reader, place)?;
    while let Some(property) = properties.next()? {
        match property.value {
            Value::Text(text) => all.reason_string = Some(properties.own_text(text)?),
            Value::Pair(name, value) => all.user.push(properties.own_pair(name, value)?),
            _ => return Err(DecodeError::protocol("a property that this packet may not carry")),
        }
    }
    Ok(all)
}

fn write_reason_properties(w: &mut Writer<'_>, all: &ReasonProperties) -> Result<(), EncodeError> {
    write_properties(w, |w| {
        text(w, id::REASON_STRING, all.reason_string.as_ref())?;
        user(w, &all.user)
    })
}

/// Two bytes are success; three have a reason and no property length [v5 3.4.2.1].
fn read_ack(reader: &mut Reader<'_>, allowed: reasons::Set) -> Result<Ack, DecodeError> {
    let mut ack = Ack::success(reader.packet_id()?);
    if !reader.is_empty() {
        ack.reason = reason(reader.u8()?, allowed)?;
    }
    if !reader.is_empty() {
        let properties = read_reason_properties(reader, place::ACK)?;
        ack.properties = (properties != ReasonProperties::default()).then(|| Box::new(properties));
    }
    Ok(ack)
}

fn write_ack(first: u8, ack: &Ack, allowed: reasons::Set, out: &mut BytesMut) -> Result<(), EncodeError> {
    reasons::check(ack.reason, allowed)?;
    let Some(properties) = &ack.properties else {
        if ack.packet_id == 0 {
            return Err(EncodeError("the packet identifier is 0"));
        }
        let [high, low] = ack.packet_id.to_be_bytes();
        match ack.reason {
            ReasonCode::Success => out.put_slice(&[first, 2, high, low]),
            reason => out.put_slice(&[first, 4, high, low, reason.byte(), 0]),
        }
        return Ok(());
    };
    write::packet(first, out, |w| {
        w.packet_id(ack.packet_id)?;
        w.u8(ack.reason.byte());
        write_reason_properties(w, properties)
    })
}

fn read_subscribe(reader: &mut Reader<'_>) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let mut subscribe = Subscribe { packet_id, filters: Vec::new(), subscription_id: None, user: Vec::new() };
    let mut properties = Properties::open(reader, place::SUBSCRIBE)?;
    while let Some(property) = properties.next()? {
        match property.value {
            Value::Number(id) => subscribe.subscription_id = Some(id),
            Value::Pair(name, value) => subscribe.user.push(properties.own_pair(name, value)?),
            _ => return Err(DecodeError::protocol("a property that SUBSCRIBE may not carry")),
        }
    }
    while !reader.is_empty() {
        let filter = reader.filter()?;
        let options = read_options(reader.u8()?)?;
        // [v5 MQTT-3.8.3-4]
        if options.no_local && filter.shared().is_some() {
            return Err(DecodeError::protocol("a shared subscription has No Local set"));
        }
        subscribe.filters.push(SubscribeFilter { filter, options });
    }
    // [v5 MQTT-3.8.3-2]
    if subscribe.filters.is_empty() {
        return Err(DecodeError::protocol("a SUBSCRIBE has no topic filter"));
    }
    Ok(subscribe)
}

fn read_options(byte: u8) -> Result<SubscriptionOptions, DecodeError> {
    // [v5 MQTT-3.8.3-5]
    if byte & 0xC0 != 0 {
        return Err(DecodeError::malformed("a subscription has reserved option bits set"));
    }
    let Some(qos) = QoS::from_bits(byte & 3) else {
        return Err(DecodeError::protocol("a subscription asks for QoS 3"));
    };
    let retain_handling = match byte >> 4 & 3 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::protocol("a subscription has retain handling 3")),
    };
    Ok(SubscriptionOptions { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
}

fn write_subscribe(subscribe: &Subscribe, out: &mut BytesMut) -> Result<(), EncodeError> {
    if subscribe.filters.is_empty() {
        return Err(EncodeError("SUBSCRIBE has no topic filter"));
    }
    if subscribe.filters.iter().any(|wanted| wanted.options.no_local && wanted.filter.shared().is_some()) {
        return Err(EncodeError("a shared subscription has No Local set"));
    }
    write::packet(0x82, out, |w| {
        w.packet_id(subscribe.packet_id)?;
        write_properties(w, |w| {
            number(w, id::SUBSCRIPTION_ID, subscribe.subscription_id)?;
            user(w, &subscribe.user)
        })?;
        subscribe.filters.iter().try_for_each(|SubscribeFilter { filter, options }| {
            w.text(filter.as_str())?;
            let flags = u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3;
            w.u8(options.qos as u8 | flags | (options.retain_handling as u8) << 4);
            Ok(())
        })
    })
}

fn read_unsubscribe(reader: &mut Reader<'_>) -> Result<Unsubscribe, DecodeError> {
    let mut unsubscribe = Unsubscribe { packet_id: reader.packet_id()?, filters: Vec::new(), user: Vec::new() };
    let mut properties = Properties::open(reader, place::UNSUBSCRIBE)?;
    while let Some(property) = properties.next()? {
        match property.value {
            Value::Pair(name, value) => unsubscribe.user.push(properties.own_pair(name, value)?),
            _ => return Err(DecodeError::protocol("a property that UNSUBSCRIBE may not carry")),
        }
    }
    while !reader.is_empty() {
        unsubscribe.filters.push(reader.filter()?);
    }
    // [v5 MQTT-3.10.3-2]
    if unsubscribe.filters.is_empty() {
        return Err(DecodeError::protocol("an UNSUBSCRIBE has no topic filter"));
    }
    Ok(unsubscribe)
}

fn write_unsubscribe(unsubscribe: &Unsubscribe, out: &mut BytesMut) -> Result<(), EncodeError> {
    if unsubscribe.filters.is_empty() {
        return Err(EncodeError("UNSUBSCRIBE has no topic filter"));
    }
    write::packet(0xA2, out, |w| {
        w.packet_id(unsubscribe.packet_id)?;
        write_properties(w, |w| user(w, &unsubscribe.user))?;
        unsubscribe.filters.iter().try_for_each(|filter| w.text(filter.as_str()))
    })
}

/// SUBACK and UNSUBACK: id, properties, one code per filter.
fn read_codes(
    reader: &mut Reader<'_>,
    place: u16,
    allowed: reasons::Set,
) -> Result<(u16, ReasonProperties, Vec<ReasonCode>), DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = read_reason_properties(reader, place)?;
    let codes: Result<Vec<ReasonCode>, DecodeError> =
        reader.take(reader.len())?.iter().map(|byte| reason(*byte, allowed)).collect();
    match codes? {
        codes if codes.is_empty() => Err(DecodeError::protocol("a SUBACK or UNSUBACK has no code")),
        codes => Ok((packet_id, properties, codes)),
    }
}

fn write_codes(
    first: u8,
    (packet_id, properties, codes): (u16, &ReasonProperties, &[ReasonCode]),
    allowed: reasons::Set,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if codes.is_empty() {
        return Err(EncodeError("SUBACK or UNSUBACK has no code"));
    }
    write::packet(first, out, |w| {
        w.packet_id(packet_id)?;
        write_reason_properties(w, properties)?;
        codes.iter().try_for_each(|code| {
            reasons::check(*code, allowed)?;
            w.u8(code.byte());
            Ok(())
        })
    })
}

/// No bytes are a normal disconnection; one has a reason and no property length [v5 3.14.2.1].
fn read_disconnect(reader: &mut Reader<'_>, role: Role) -> Result<Disconnect, DecodeError> {
    let mut disconnect = normal_disconnect();
    let allowed = match role {
        Role::Server => reasons::DISCONNECT_FROM_CLIENT,
        Role::Client => reasons::DISCONNECT_FROM_SERVER,
    };
    if !reader.is_empty() {
        disconnect.reason = reason(reader.u8()?, allowed)?;
    }
    if reader.is_empty() {
        return Ok(disconnect);
    }
    let mut properties = Properties::open(reader, place::DISCONNECT)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            // [v5 MQTT-3.14.2-2]
            (id::SESSION_EXPIRY, _) if role == Role::Client => {
                return Err(DecodeError::protocol("a server sent a session expiry in a DISCONNECT"));
            }
            (id::SESSION_EXPIRY, Value::Number(seconds)) => disconnect.session_expiry_s = Some(seconds),
            (id::SERVER_REFERENCE, Value::Text(t)) => disconnect.server_reference = Some(properties.own_text(t)?),
            (id::REASON_STRING, Value::Text(t)) => disconnect.properties.reason_string = Some(properties.own_text(t)?),
            (id::USER, Value::Pair(name, value)) => disconnect.properties.user.push(properties.own_pair(name, value)?),
            _ => return Err(DecodeError::protocol("a property that DISCONNECT may not carry")),
        }
    }
    Ok(disconnect)
}

fn normal_disconnect() -> Disconnect {
    Disconnect {
        reason: ReasonCode::Success,
        session_expiry_s: None,
        server_reference: None,
        properties: ReasonProperties::default(),
    }
}

fn write_disconnect(disconnect: &Disconnect, out: &mut BytesMut) -> Result<(), EncodeError> {
    reasons::check(disconnect.reason, reasons::DISCONNECT_FROM_CLIENT | reasons::DISCONNECT_FROM_SERVER)?;
    if *disconnect == normal_disconnect() {
        return write::fixed(out, [0xE0, 0]);
    }
    write::packet(0xE0, out, |w| {
        w.u8(disconnect.reason.byte());
        write_properties(w, |w| {
            number(w, id::SESSION_EXPIRY, disconnect.session_expiry_s)?;
            text(w, id::SERVER_REFERENCE, disconnect.server_reference.as_ref())?;
            text(w, id::REASON_STRING, disconnect.properties.reason_string.as_ref())?;
            user(w, &disconnect.properties.user)
        })
    })
}
