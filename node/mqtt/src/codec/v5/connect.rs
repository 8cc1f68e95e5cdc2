//! Properties of CONNECT; CONNACK and AUTH.

use bytes::BytesMut;

use super::properties::{Properties, Value, binary, id, number, place, text, user, write_properties};
use super::reasons::{self, reason};
use crate::codec::read::Reader;
use crate::codec::write::{self, Writer};
use crate::codec::{DecodeError, EncodeError, Role};
use crate::packet::{Auth, ConnAck, ConnAckProperties, ConnectProperties, QoS, ReasonProperties};
use crate::reason::ReasonCode;

/// A number that the table has already found to fit.
fn narrow(number: u32) -> Option<u16> {
    u16::try_from(number).ok()
}

pub(crate) fn read_connect_properties(reader: &mut Reader<'_>) -> Result<ConnectProperties, DecodeError> {
    let mut all = ConnectProperties::default();
    let mut properties = Properties::open(reader, place::CONNECT)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::SESSION_EXPIRY, Value::Number(n)) => all.session_expiry_s = Some(n),
            (id::RECEIVE_MAXIMUM, Value::Number(n)) => all.receive_maximum = narrow(n),
            (id::MAXIMUM_PACKET_SIZE, Value::Number(n)) => all.maximum_packet_size = Some(n),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Number(n)) => all.topic_alias_maximum = narrow(n),
            (id::REQUEST_RESPONSE_INFORMATION, Value::Number(n)) => all.request_response_information = Some(n == 1),
            (id::REQUEST_PROBLEM_INFORMATION, Value::Number(n)) => all.request_problem_information = Some(n == 1),
            (id::USER, Value::Pair(name, value)) => all.user.push(properties.own_pair(name, value)?),
            (id::AUTHENTICATION_METHOD, Value::Text(t)) => all.authentication_method = Some(properties.own_text(t)?),
            (id::AUTHENTICATION_DATA, Value::Binary(b)) => all.authentication_data = Some(properties.own(b)),
            _ => return Err(DecodeError::protocol("a property that CONNECT may not carry")),
        }
    }
    if all.authentication_data.is_some() && all.authentication_method.is_none() {
        return Err(DecodeError::protocol("CONNECT has authentication data without a method"));
    }
    Ok(all)
}

pub(crate) fn write_connect_properties(w: &mut Writer<'_>, all: &ConnectProperties) -> Result<(), EncodeError> {
    if all.authentication_data.is_some() && all.authentication_method.is_none() {
        return Err(EncodeError("CONNECT has authentication data without a method"));
    }
    write_properties(w, |w| {
        number(w, id::SESSION_EXPIRY, all.session_expiry_s)?;
        number(w, id::RECEIVE_MAXIMUM, all.receive_maximum)?;
        number(w, id::MAXIMUM_PACKET_SIZE, all.maximum_packet_size)?;
        number(w, id::TOPIC_ALIAS_MAXIMUM, all.topic_alias_maximum)?;
        number(w, id::REQUEST_RESPONSE_INFORMATION, all.request_response_information)?;
        number(w, id::REQUEST_PROBLEM_INFORMATION, all.request_problem_information)?;
        user(w, &all.user)?;
        text(w, id::AUTHENTICATION_METHOD, all.authentication_method.as_ref())?;
        binary(w, id::AUTHENTICATION_DATA, all.authentication_data.as_ref())
    })
}

pub(super) fn read_connack(reader: &mut Reader<'_>) -> Result<ConnAck, DecodeError> {
    let session_present = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::malformed("a CONNACK has reserved flags set")), // [v5 MQTT-3.2.2-1]
    };
    let reason = reason(reader.u8()?, reasons::CONNACK)?;
    // [v5 MQTT-3.2.2-6]
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::protocol("a CONNACK refuses with a session present"));
    }
    let mut all = ConnAckProperties::default();
    let mut properties = Properties::open(reader, place::CONNACK)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::SESSION_EXPIRY, Value::Number(n)) => all.session_expiry_s = Some(n),
            (id::RECEIVE_MAXIMUM, Value::Number(n)) => all.receive_maximum = narrow(n),
            (id::MAXIMUM_QOS, Value::Number(n)) => {
                all.maximum_qos = Some(if n == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce });
            }
            (id::RETAIN_AVAILABLE, Value::Number(n)) => all.retain_available = Some(n == 1),
            (id::MAXIMUM_PACKET_SIZE, Value::Number(n)) => all.maximum_packet_size = Some(n),
            (id::ASSIGNED_CLIENT_ID, Value::Text(t)) => all.assigned_client_id = Some(properties.own_text(t)?),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Number(n)) => all.topic_alias_maximum = narrow(n),
            (id::REASON_STRING, Value::Text(t)) => all.reason_string = Some(properties.own_text(t)?),
            (id::USER, Value::Pair(name, value)) => all.user.push(properties.own_pair(name, value)?),
            (id::WILDCARD_SUBSCRIPTION_AVAILABLE, Value::Number(n)) => {
                all.wildcard_subscription_available = Some(n == 1);
            }
            (id::SUBSCRIPTION_IDS_AVAILABLE, Value::Number(n)) => all.subscription_ids_available = Some(n == 1),
            (id::SHARED_SUBSCRIPTION_AVAILABLE, Value::Number(n)) => all.shared_subscription_available = Some(n == 1),
            (id::SERVER_KEEP_ALIVE, Value::Number(n)) => all.server_keep_alive_s = narrow(n),
            (id::RESPONSE_INFORMATION, Value::Text(t)) => all.response_information = Some(properties.own_text(t)?),
            (id::SERVER_REFERENCE, Value::Text(t)) => all.server_reference = Some(properties.own_text(t)?),
            (id::AUTHENTICATION_METHOD, Value::Text(t)) => all.authentication_method = Some(properties.own_text(t)?),
            (id::AUTHENTICATION_DATA, Value::Binary(b)) => all.authentication_data = Some(properties.own(b)),
            _ => return Err(DecodeError::protocol("a property that CONNACK may not carry")),
        }
    }
    Ok(ConnAck { session_present, reason, properties: all })
}

pub(super) fn write_connack(connack: &ConnAck, out: &mut BytesMut) -> Result<(), EncodeError> {
    reasons::check(connack.reason, reasons::CONNACK)?;
    if connack.session_present && connack.reason != ReasonCode::Success {
        return Err(EncodeError("a CONNACK refuses with a session present"));
    }
    let all = &connack.properties;
    // QoS 2 is what the absence of the property says; the property cannot.
    let maximum_qos = all.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce).map(|qos| qos as u8);
    write::packet(0x20, out, |w| {
        w.u8(u8::from(connack.session_present));
        w.u8(connack.reason.byte());
        write_properties(w, |w| {
            number(w, id::SESSION_EXPIRY, all.session_expiry_s)?;
            number(w, id::RECEIVE_MAXIMUM, all.receive_maximum)?;
            number(w, id::MAXIMUM_QOS, maximum_qos)?;
            number(w, id::RETAIN_AVAILABLE, all.retain_available)?;
            number(w, id::MAXIMUM_PACKET_SIZE, all.maximum_packet_size)?;
            text(w, id::ASSIGNED_CLIENT_ID, all.assigned_client_id.as_ref())?;
            number(w, id::TOPIC_ALIAS_MAXIMUM, all.topic_alias_maximum)?;
            text(w, id::REASON_STRING, all.reason_string.as_ref())?;
            user(w, &all.user)?;
            number(w, id::WILDCARD_SUBSCRIPTION_AVAILABLE, all.wildcard_subscription_available)?;
            number(w, id::SUBSCRIPTION_IDS_AVAILABLE, all.subscription_ids_available)?;
            number(w, id::SHARED_SUBSCRIPTION_AVAILABLE, all.shared_subscription_available)?;
            number(w, id::SERVER_KEEP_ALIVE, all.server_keep_alive_s)?;
            text(w, id::RESPONSE_INFORMATION, all.response_information.as_ref())?;
            text(w, id::SERVER_REFERENCE, all.server_reference.as_ref())?;
            text(w, id::AUTHENTICATION_METHOD, all.authentication_method.as_ref())?;
            binary(w, id::AUTHENTICATION_DATA, all.authentication_data.as_ref())
        })
    })
}

pub(super) fn read_auth(reader: &mut Reader<'_>, role: Role) -> Result<Auth, DecodeError> {
    let allowed = match role {
        Role::Server => reasons::AUTH_FROM_CLIENT,
        Role::Client => reasons::AUTH_FROM_SERVER,
    };
    let mut auth = empty_auth();
    // Success without properties may leave out everything.
    if reader.is_empty() {
        auth.reason = reason(ReasonCode::Success.byte(), allowed)?;
        return Ok(auth);
    }
    auth.reason = reason(reader.u8()?, allowed)?;
    let mut properties = Properties::open(reader, place::AUTH)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::AUTHENTICATION_METHOD, Value::Text(t)) => auth.method = Some(properties.own_text(t)?),
            (id::AUTHENTICATION_DATA, Value::Binary(b)) => auth.data = Some(properties.own(b)),
            (id::REASON_STRING, Value::Text(t)) => auth.properties.reason_string = Some(properties.own_text(t)?),
            (id::USER, Value::Pair(name, value)) => auth.properties.user.push(properties.own_pair(name, value)?),
            _ => return Err(DecodeError::protocol("a property that AUTH may not carry")),
        }
    }
    if auth.method.is_none() {
        return Err(DecodeError::protocol("AUTH has no authentication method"));
    }
    Ok(auth)
}

fn empty_auth() -> Auth {
    Auth { reason: ReasonCode::Success, method: None, data: None, properties: ReasonProperties::default() }
}

pub(super) fn write_auth(auth: &Auth, out: &mut BytesMut) -> Result<(), EncodeError> {
    reasons::check(auth.reason, reasons::AUTH_FROM_CLIENT | reasons::AUTH_FROM_SERVER)?;
    if *auth == empty_auth() {
        return write::fixed(out, [0xF0, 0]);
    }
    if auth.method.is_none() {
        return Err(EncodeError("AUTH has no authentication method"));
    }
    write::packet(0xF0, out, |w| {
        w.u8(auth.reason.byte());
        write_properties(w, |w| {
            text(w, id::AUTHENTICATION_METHOD, auth.method.as_ref())?;
            binary(w, id::AUTHENTICATION_DATA, auth.data.as_ref())?;
            text(w, id::REASON_STRING, auth.properties.reason_string.as_ref())?;
            user(w, &auth.properties.user)
        })
    })
}
