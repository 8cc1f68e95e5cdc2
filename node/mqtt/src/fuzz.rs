//! What must hold for any input, as functions that panic where it does not. The fuzz targets and a stable test over the
//! kept corpus call them. No part of the interface.

use bytes::{Bytes, BytesMut};

use crate::codec::{DecodeError, Decoder, PublishRef, Role, encode};
use crate::limits::PACKET_BYTES_HARD_MAX;
use crate::packet::{Decoded, OversizePolicy, Packet, QoS, Version};
use crate::property::{ForwardProperties, ForwardProperty};
use crate::reason::ReasonCode;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const LIMITS: [u32; 4] = [PACKET_BYTES_HARD_MAX, 256, 64, 16];
const CHUNKS: [usize; 4] = [1, 2, 7, 64];

/// The first byte chooses a decoder and a chunk size, the rest is its stream. Bits 0 and 1: 3.1, 3.1.1, 5, or a
/// connection on which nothing was read; bit 2: role; bit 3: policy; bits 4 and 5: limit; bits 6 and 7: chunk size.
#[must_use]
pub fn selector(start: Option<Version>, role: Role, policy: OversizePolicy, limit: usize, chunk: usize) -> u8 {
    let start = start.map_or(3, |version| version as u8);
    let role = u8::from(role == Role::Client) << 2;
    let policy = u8::from(policy == OversizePolicy::Skip) << 3;
    start | role | policy | (limit as u8 & 3) << 4 | (chunk as u8 & 3) << 6
}

fn choose(selector: u8) -> (Decoder, Role, usize) {
    let role = if selector & 4 == 0 { Role::Server } else { Role::Client };
    let limit = LIMITS[usize::from(selector >> 4 & 3)];
    let mut decoder = match VERSIONS.get(usize::from(selector & 3)) {
        Some(version) => Decoder::opened(role, *version, limit),
        None => Decoder::new(role, limit),
    };
    if selector & 3 == 3 && role == Role::Client {
        decoder.set_version(Version::V5);
    }
    decoder.set_limit(limit, if selector & 8 == 0 { OversizePolicy::Close } else { OversizePolicy::Skip });
    (decoder, role, CHUNKS[usize::from(selector >> 6)])
}

/// Any stream decodes the same however it is cut; what was decoded can be encoded and decoded to the same.
pub fn decode_stream(data: &[u8]) {
    let Some((selector, stream)) = data.split_first() else {
        return;
    };
    let (decoder, role, chunk) = choose(*selector);
    let (version, whole) = drain(decoder.clone(), stream, stream.len().max(1));
    let (_, chunked) = drain(decoder, stream, chunk);
    assert_eq!(whole, chunked, "the same packets however the stream is cut");
    for decoded in whole.iter().flatten() {
        let (Decoded::Packet(packet), Some(version)) = (decoded, version) else {
            continue;
        };
        let mut out = BytesMut::new();
        assert_eq!(encode(packet, version, &mut out), Ok(()), "{packet:?} can be encoded");
        if let Packet::Publish(publish) = packet {
            assert_eq!(publish.as_ref().encoded_len(version), out.len());
        }
        let again = decode_one(&out, role, version).expect("what was encoded can be decoded");
        // 3.1 has no failure in SUBACK, so that one changes.
        if !matches!((packet, version), (Packet::SubAck(_), Version::V31)) {
            assert_eq!(&again, packet);
        }
    }
}

/// Feeds `stream` in pieces of `chunk` bytes and collects what comes out, up to the first error.
fn drain(mut decoder: Decoder, stream: &[u8], chunk: usize) -> (Option<Version>, Vec<Result<Decoded, DecodeError>>) {
    let mut buffer = BytesMut::new();
    let mut all = Vec::new();
    for piece in stream.chunks(chunk) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(decoded)) => all.push(Ok(decoded)),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.reason.is_error());
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "an error stays");
                    all.push(Err(error));
                    return (decoder.version(), all);
                }
            }
        }
        assert!(buffer.len() < PACKET_BYTES_HARD_MAX as usize, "an incomplete packet is below the limit");
    }
    (decoder.version(), all)
}

/// Decodes exactly one packet.
fn decode_one(bytes: &[u8], role: Role, version: Version) -> Result<Packet, DecodeError> {
    let mut decoder = match (bytes.first().map_or(0, |first| first >> 4), role) {
        (1, Role::Server) => Decoder::new(role, u32::MAX),
        (2, Role::Client) => {
            let mut decoder = Decoder::new(role, u32::MAX);
            decoder.set_version(version);
            decoder
        }
        _ => Decoder::opened(role, version, u32::MAX),
    };
    let mut buffer = BytesMut::from(bytes);
    match decoder.decode(&mut buffer)? {
        Some(Decoded::Packet(packet)) => {
            assert!(buffer.is_empty(), "one packet is all of it");
            Ok(packet)
        }
        other => panic!("{other:?} is not one packet"),
    }
}

/// Whatever was decoded, in whatever version it is encoded: that fails and appends nothing, or the result decodes, and
/// encodes to the same bytes again.
pub fn round_trip(data: &[u8]) {
    let Some((selector, stream)) = data.split_first() else {
        return;
    };
    let (decoder, _, _) = choose(*selector);
    let (_, packets) = drain(decoder, stream, stream.len().max(1));
    for decoded in packets.into_iter().flatten() {
        let Decoded::Packet(mut packet) = decoded else { continue };
        for version in VERSIONS {
            if let Packet::Connect(connect) = &mut packet {
                connect.version = version;
            }
            let mut out = BytesMut::from(&b"before"[..]);
            if encode(&packet, version, &mut out).is_err() {
                assert_eq!(&out[..], b"before", "an error appends nothing");
                continue;
            }
            let encoded = out.split_off(6);
            assert_eq!(&out[..], b"before", "what was there stays");
            let again = decode_one(&encoded, Role::Server, version)
                .or_else(|_| decode_one(&encoded, Role::Client, version))
                .expect("what was encoded can be decoded by the other side");
            let mut twice = BytesMut::new();
            assert_eq!(encode(&again, version, &mut twice), Ok(()));
            assert_eq!(encoded, twice, "an encoded packet has one form");
        }
    }
}

/// Properties that are accepted survive taking apart, putting together, copying and a PUBLISH.
pub fn forward_properties(data: &[u8]) {
    let forward = match ForwardProperties::from_encoded(Bytes::copy_from_slice(data)) {
        Ok(forward) => forward,
        Err(error) => {
            assert!(matches!(error.reason, ReasonCode::MalformedPacket | ReasonCode::ProtocolError));
            return;
        }
    };
    assert_eq!(forward.as_bytes(), data);
    assert_eq!(forward.is_empty(), data.is_empty());
    let properties: Vec<ForwardProperty> = forward.iter().collect();
    let again = ForwardProperties::from_properties(&properties).expect("what was taken apart can be put together");
    assert_eq!(again, forward);
    assert_eq!(forward.detached(), forward);
    let publish = PublishRef {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: 0,
        topic_alias: None,
        message_expiry_s: Some(1),
        subscription_ids: &[1, 300],
        forward: &forward,
        payload: &Bytes::from_static(b"payload"),
    };
    if publish.encoded_len(Version::V5) > PACKET_BYTES_HARD_MAX as usize {
        return;
    }
    let mut out = BytesMut::new();
    assert_eq!(publish.encode(Version::V5, &mut out), Ok(()));
    match decode_one(&out, Role::Client, Version::V5) {
        Ok(Packet::Publish(decoded)) => {
            assert_eq!(decoded.properties.forward, forward);
            assert_eq!(decoded.properties.subscription_ids.as_slice(), [1, 300]);
        }
        other => panic!("{other:?} is not the PUBLISH"),
    }
}
