//! The state of one connection's decoding: role, version, limit, and what is being skipped.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{self, Skip};
use super::read::Reader;
use super::{DecodeError, Role, connect, publish, v3, v5};
use crate::limits::PACKET_BYTES_HARD_MAX;
use crate::packet::{Decoded, OversizePolicy, Packet, QoS, Version};
use crate::reason::ReasonCode;

/// Cuts a byte stream into packets. One per connection; holds no buffer of its own.
#[derive(Debug, Clone)]
pub struct Decoder {
    role: Role,
    version: Option<Version>,
    /// CONNECT named MQTT with a level above 5.
    newer: bool,
    /// The packet that opens the connection has been read.
    open: bool,
    packet_bytes_max: u32,
    policy: OversizePolicy,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Ready,
    Skipping(Skip),
    Failed(DecodeError),
}

impl Decoder {
    /// A decoder for a connection on which nothing has been read. Packets over `packet_bytes_max` bytes (the whole
    /// packet, and never more than [`PACKET_BYTES_HARD_MAX`]) end it, until [`Decoder::set_limit`] says otherwise.
    #[must_use]
    pub fn new(role: Role, packet_bytes_max: u32) -> Decoder {
        Decoder {
            role,
            version: None,
            newer: false,
            open: false,
            packet_bytes_max: packet_bytes_max.min(PACKET_BYTES_HARD_MAX),
            policy: OversizePolicy::Close,
            state: State::Ready,
        }
    }

    /// A decoder for the middle of a connection: CONNECT (or CONNACK) has been seen elsewhere.
    #[must_use]
    pub fn opened(role: Role, version: Version, packet_bytes_max: u32) -> Decoder {
        Decoder { version: Some(version), open: true, ..Decoder::new(role, packet_bytes_max) }
    }

    /// The version that CONNECT named or [`Decoder::set_version`] set. It is known as soon as the protocol level has
    /// been read, so also after a CONNECT that is malformed further on. `None` for a level that is not supported.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version in whose form a CONNECT is refused: its own where it is supported; MQTT 5 for a higher level of
    /// `MQTT`, which keeps that form of CONNACK if it keeps anything; otherwise 3.1.1.
    #[must_use]
    pub fn refusal_version(&self) -> Version {
        self.version.unwrap_or(if self.newer { Version::V5 } else { Version::V311 })
    }

    /// Sets the version. A client must do so before the first packet arrives; its first packet is still CONNACK (or
    /// AUTH). For a server it stands for CONNECT, which may then not come any more.
    pub fn set_version(&mut self, version: Version) {
        self.version = Some(version);
        self.open |= self.role == Role::Server;
    }

    /// Sets what holds after CONNECT: packets of more than `packet_bytes_max` bytes are treated as `policy` says if
    /// they are PUBLISH, and end the connection otherwise. [`PACKET_BYTES_HARD_MAX`] always ends it.
    pub fn set_limit(&mut self, packet_bytes_max: u32, policy: OversizePolicy) {
        self.packet_bytes_max = packet_bytes_max.min(PACKET_BYTES_HARD_MAX);
        self.policy = policy;
    }

    /// Takes the next packet from the front of `buffer`. `Ok(None)` means that more bytes are needed. Payloads, topics
    /// and strings are slices of what was in `buffer`; nothing is copied.
    ///
    /// A PUBLISH that is skipped leaves at most one byte in `buffer` after each call and is reported when its last byte
    /// has come. What it would have set (a topic alias) is not seen.
    ///
    /// # Errors
    /// What the peer did wrong. Every further call returns the same error.
    #[inline]
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Decoded>, DecodeError> {
        let result = match self.state {
            State::Ready => self.next(buffer),
            State::Skipping(skip) => self.skip(skip, buffer),
            State::Failed(error) => return Err(error),
        };
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    #[inline]
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Decoded>, DecodeError> {
        let Some((&first, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        self.admit(first)?;
        let Some((remaining, length_bytes)) = frame::varint(rest)? else {
            return Ok(None);
        };
        let header_bytes = 1 + length_bytes;
        let size = header_bytes + remaining as usize;
        if size > self.packet_bytes_max as usize {
            return self.oversize(first, header_bytes, size, buffer);
        }
        if buffer.len() < size {
            return Ok(None);
        }
        let frame = buffer.split_to(size).freeze();
        let packet = if first >> 4 == frame::PUBLISH {
            // Only an open connection gets here, and that has a version.
            let version = self.version.unwrap_or(Version::V311);
            Packet::Publish(publish::read(frame, header_bytes, first, version, self.role)?)
        } else {
            self.body(first, header_bytes, &frame)?
        };
        Ok(Some(Decoded::Packet(packet)))
    }

    /// Everything that the first byte alone decides.
    #[inline]
    fn admit(&self, first: u8) -> Result<(), DecodeError> {
        let kind = first >> 4;
        if !self.open {
            let opens = match self.role {
                Role::Server => kind == frame::CONNECT, // [v5 MQTT-3.1.0-1]
                Role::Client if self.version.is_none() => {
                    return Err(DecodeError::protocol("a packet came before the version was set"));
                }
                Role::Client => kind == frame::CONNACK || kind == frame::AUTH && self.version == Some(Version::V5),
            };
            if !opens {
                return Err(DecodeError::protocol(match self.role {
                    Role::Server => "the first packet is not CONNECT",
                    Role::Client => "the first packet is not CONNACK",
                }));
            }
        } else if kind != frame::PUBLISH {
            self.admit_control(kind)?;
        }
        frame::check_flags(first, self.version)
    }

    fn admit_control(&self, kind: u8) -> Result<(), DecodeError> {
        let v5 = self.version == Some(Version::V5);
        match (self.role, kind) {
            (_, 0) => Err(DecodeError::malformed("packet type 0 is reserved")),
            (_, frame::AUTH) if !v5 => Err(DecodeError::malformed("packet type 15 is reserved before MQTT 5")),
            (Role::Server, frame::CONNECT) => Err(DecodeError::protocol("a second CONNECT")), // [v5 MQTT-3.1.0-2]
            (Role::Client, frame::CONNACK) => Err(DecodeError::protocol("a second CONNACK")),
            (Role::Server, frame::CONNACK | frame::SUBACK | frame::UNSUBACK | frame::PINGRESP) => {
                Err(DecodeError::protocol("a packet that only a server sends"))
            }
            (Role::Client, frame::CONNECT | frame::SUBSCRIBE | frame::UNSUBSCRIBE | frame::PINGREQ) => {
                Err(DecodeError::protocol("a packet that only a client sends"))
            }
            (Role::Client, frame::DISCONNECT) if !v5 => {
                Err(DecodeError::protocol("a DISCONNECT from a server before MQTT 5"))
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn oversize(
        &mut self,
        first: u8,
        header_bytes: usize,
        size: usize,
        buffer: &mut BytesMut,
    ) -> Result<Option<Decoded>, DecodeError> {
        let size = match u32::try_from(size) {
            Ok(size) if size <= PACKET_BYTES_HARD_MAX => size,
            _ => {
                return Err(DecodeError::new(ReasonCode::PacketTooLarge, "the packet is over the hard limit"));
            }
        };
        if self.policy == OversizePolicy::Close || first >> 4 != frame::PUBLISH {
            return Err(DecodeError::new(ReasonCode::PacketTooLarge, "the packet is over the limit"));
        }
        buffer.advance(header_bytes);
        let qos = QoS::from_bits(first >> 1 & 3).unwrap_or_default(); // `check_flags` has refused 3
        let left = size - header_bytes as u32;
        self.skip(Skip::new(qos, size, left), buffer)
    }

    fn skip(&mut self, mut skip: Skip, buffer: &mut BytesMut) -> Result<Option<Decoded>, DecodeError> {
        let report = skip.feed(buffer)?;
        self.state = if report.is_some() { State::Ready } else { State::Skipping(skip) };
        Ok(report.map(Decoded::Skipped))
    }

    fn body(&mut self, first: u8, header_bytes: usize, frame: &Bytes) -> Result<Packet, DecodeError> {
        let kind = first >> 4;
        let mut reader = Reader::new(frame, header_bytes);
        let packet = match kind {
            frame::CONNECT => {
                let version = match connect::read_protocol(&mut reader)? {
                    connect::Protocol::Supported(version) => version,
                    connect::Protocol::Unsupported { newer } => {
                        self.newer = newer;
                        return Err(DecodeError::new(
                            ReasonCode::UnsupportedProtocolVersion,
                            "CONNECT names a protocol or level that is not supported",
                        ));
                    }
                };
                self.version = Some(version);
                Packet::Connect(Box::new(connect::read(&mut reader, version)?))
            }
            frame::PINGREQ => Packet::PingReq,
            frame::PINGRESP => Packet::PingResp,
            _ if self.version == Some(Version::V5) => v5::read(kind, self.role, &mut reader)?,
            _ => v3::read(first, header_bytes, self.version.unwrap_or(Version::V311), &mut reader)?,
        };
        if !reader.is_empty() {
            return Err(DecodeError::malformed("bytes follow the end of the packet's content"));
        }
        self.open |= matches!(packet, Packet::Connect(_) | Packet::ConnAck(_));
        Ok(packet)
    }
}
