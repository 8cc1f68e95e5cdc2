//! CONNECT of every version. Read by ourselves for 3.x too: mqttbytes knows no 3.1, takes a password for text, loses an
//! empty user name, and reads a level it does not know as if it did.

use bytes::BytesMut;

use super::read::Reader;
use super::write::{self, Writer};
use super::{DecodeError, EncodeError, frame, v5};
use crate::packet::{Connect, ConnectProperties, QoS, Version, Will};
use crate::reason::ReasonCode;

const USERNAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// What protocol name and level say.
pub(super) enum Protocol {
    Supported(Version),
    /// `newer`: the name is `MQTT` and the level, without the bridge bit, above 5.
    Unsupported {
        newer: bool,
    },
}

/// Reads protocol name and level. A level with the bridge bit 0x80 of some brokers is not supported.
pub(super) fn read_protocol(reader: &mut Reader<'_>) -> Result<Protocol, DecodeError> {
    let name = reader.field()?;
    let level = reader.u8()?;
    Ok(match (name, level) {
        (b"MQIsdp", 3) => Protocol::Supported(Version::V31),
        (b"MQTT", 4) => Protocol::Supported(Version::V311),
        (b"MQTT", 5) => Protocol::Supported(Version::V5),
        (name, level) => Protocol::Unsupported { newer: name == b"MQTT" && (6..0x80).contains(&level) },
    })
}

/// Reads what follows the protocol level.
pub(super) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Connect, DecodeError> {
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let keep_alive_s = reader.u16()?;
    let properties = match version {
        Version::V5 => v5::read_connect_properties(reader)?,
        Version::V31 | Version::V311 => ConnectProperties::default(),
    };
    let client_id = reader.text()?;
    let clean_start = flags & CLEAN_START != 0;
    let may_be_assigned = match version {
        Version::V31 => false,
        Version::V311 => clean_start, // [v3.1.1 MQTT-3.1.3-8]
        Version::V5 => true,
    };
    if client_id.is_empty() && !may_be_assigned {
        return Err(DecodeError::new(ReasonCode::ClientIdentifierNotValid, "CONNECT has an empty client identifier"));
    }
    let will = if flags & WILL != 0 { Some(read_will(reader, flags, version)?) } else { None };
    // 3.1: "the Remaining Length takes precedence over the User Name flag", so a missing field is an absent one.
    let present = |reader: &Reader<'_>, flag| flags & flag != 0 && !(version == Version::V31 && reader.is_empty());
    let username = if present(reader, USERNAME) { Some(reader.text()?) } else { None };
    let password = if present(reader, PASSWORD) { Some(reader.binary()?) } else { None };
    Ok(Connect { version, clean_start, keep_alive_s, client_id, will, username, password, properties })
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // [v5 MQTT-3.1.2-3]
    if flags & RESERVED != 0 {
        return Err(DecodeError::malformed("CONNECT has its reserved flag set"));
    }
    // 3.1 disregards will QoS and will retain without a will.
    if version == Version::V31 && flags & WILL == 0 {
        return check_login_flags(flags, version);
    }
    // [v5 MQTT-3.1.2-12]
    if QoS::from_bits((flags & WILL_QOS) >> 3).is_none() {
        return Err(DecodeError::malformed("CONNECT has will QoS 3"));
    }
    // [v5 MQTT-3.1.2-11], [v5 MQTT-3.1.2-13]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed("CONNECT has will QoS or will retain without a will"));
    }
    check_login_flags(flags, version)
}

fn check_login_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // [v3.1.1 MQTT-3.1.2-22]; MQTT 5 allows it.
    if flags & USERNAME == 0 && flags & PASSWORD != 0 && version != Version::V5 {
        return Err(DecodeError::malformed("CONNECT has a password without a user name"));
    }
    Ok(())
}

fn read_will(reader: &mut Reader<'_>, flags: u8, version: Version) -> Result<Will, DecodeError> {
    let (delay_s, properties) = match version {
        Version::V5 => v5::read_will_properties(reader)?,
        Version::V31 | Version::V311 => Default::default(),
    };
    Ok(Will {
        topic: reader.topic()?,
        payload: reader.binary()?,
        qos: QoS::from_bits((flags & WILL_QOS) >> 3).unwrap_or_default(),
        retain: flags & WILL_RETAIN != 0,
        delay_s,
        properties,
    })
}

/// Appends a CONNECT.
pub(super) fn write(connect: &Connect, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    if connect.version != version {
        return Err(EncodeError("CONNECT names another version than the connection's"));
    }
    let clean = connect.clean_start;
    if connect.client_id.is_empty() && (version == Version::V31 || version == Version::V311 && !clean) {
        return Err(EncodeError("CONNECT has an empty client identifier"));
    }
    if connect.password.is_some() && connect.username.is_none() && version != Version::V5 {
        return Err(EncodeError("CONNECT has a password without a user name"));
    }
    let mut flags = if clean { CLEAN_START } else { 0 };
    if let Some(will) = &connect.will {
        flags |= WILL | (will.qos as u8) << 3 | if will.retain { WILL_RETAIN } else { 0 };
    }
    flags |= if connect.username.is_some() { USERNAME } else { 0 };
    flags |= if connect.password.is_some() { PASSWORD } else { 0 };
    let (name, level): (&str, u8) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    write::packet(frame::CONNECT << 4, out, |w| {
        w.text(name)?;
        w.u8(level);
        w.u8(flags);
        w.u16(connect.keep_alive_s);
        if version == Version::V5 {
            v5::write_connect_properties(w, &connect.properties)?;
        }
        w.text(&connect.client_id)?;
        if let Some(will) = &connect.will {
            write_will(w, will, version)?;
        }
        if let Some(username) = &connect.username {
            w.text(username)?;
        }
        if let Some(password) = &connect.password {
            w.field(password)?;
        }
        Ok(())
    })
}

fn write_will(w: &mut Writer<'_>, will: &Will, version: Version) -> Result<(), EncodeError> {
    if version == Version::V5 {
        v5::write_will_properties(w, will)?;
    }
    w.text(will.topic.as_str())?;
    w.field(&will.payload)
}
