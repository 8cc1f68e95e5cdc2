//! Bytes to packets and back. Framing and what is true of every version is here and in `frame`; PUBLISH and CONNECT,
//! which differ little between versions, are read in one place each; the other packets are in `v3` and `v5`.

mod connect;
mod decoder;
mod frame;
mod publish;
pub(crate) mod read;
mod v3;
pub(crate) mod v5;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use bytes::BytesMut;
use thiserror::Error;

pub use decoder::Decoder;
pub use publish::PublishRef;

use crate::packet::{Packet, Version};
use crate::reason::ReasonCode;

/// What a peer sent that MQTT does not allow. The connection ends; on MQTT 5 the reason is sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason}: {detail}")]
pub struct DecodeError {
    pub reason: ReasonCode,
    /// What was wrong and where, for the log and the reason string; never bytes of the peer.
    pub detail: &'static str,
}

impl DecodeError {
    pub(crate) const fn new(reason: ReasonCode, detail: &'static str) -> DecodeError {
        DecodeError { reason, detail }
    }

    /// 0x81: the bytes are no packet.
    #[cold]
    pub(crate) const fn malformed(detail: &'static str) -> DecodeError {
        DecodeError::new(ReasonCode::MalformedPacket, detail)
    }

    /// 0x82: a packet, but not one that may be sent here.
    #[cold]
    pub(crate) const fn protocol(detail: &'static str) -> DecodeError {
        DecodeError::new(ReasonCode::ProtocolError, detail)
    }
}

/// What cannot be written: a field beyond its length, or a packet id that is missing. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot encode: {0}")]
pub struct EncodeError(pub &'static str);

/// Which side of the connection is read from: a server refuses packets that only a server sends, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads what clients send.
    Server,
    /// Reads what servers send.
    Client,
}

/// Appends one whole packet to `out`, in the form of `version`. What the version cannot express is left out: 3.x has
/// no properties, no reason in acknowledgements, no codes in UNSUBACK.
///
/// # Errors
/// When the packet would not be one that a strict peer accepts: a string or binary field over 65,535 bytes or with
/// U+0000, a packet id 0, no filters or codes, a reason that the packet may not carry, a property value out of range,
/// a CONNECT of another version, AUTH or a DISCONNECT with a reason in 3.x. `out` is then as it was.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::Publish(publish) => publish.as_ref().encode(version, out),
        Packet::Connect(connect) => connect::write(connect, version, out),
        Packet::PingReq => write::fixed(out, [0xC0, 0]),
        Packet::PingResp => write::fixed(out, [0xD0, 0]),
        packet if version == Version::V5 => v5::write(packet, out),
        packet => v3::write(packet, version, out),
    }
}
