//! The fixed header, the order of packets, limits and skipping.

use bytes::{BufMut, BytesMut};

use super::Expect::{More, Same};
use super::On::{Client, Fresh, FreshClient, Server};
use super::{MALFORMED, PROTOCOL, Row, TOO_LARGE, bytes, check};
use crate::codec::write::put_varint;
use crate::codec::{Decoder, Role};
use crate::limits::PACKET_BYTES_HARD_MAX;
use crate::packet::Version::{V5, V31, V311};
use crate::packet::{Decoded, OversizePolicy, Packet, QoS, SkippedPublish, Version};
use crate::reason::ReasonCode;

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    ("nothing", Fresh, "", More),
    ("one byte", Server(V311), "c0", More),
    ("half a remaining length", Server(V311), "30 80", More),
    ("a body that is not there", Server(V311), "30 05", More),
    ("a body that is not all there", Server(V311), "30 05 0001", More),
    ("remaining length in two bytes for 0", Server(V311), "c0 80 00", MALFORMED),
    ("remaining length in two bytes for 2", Server(V311), "40 82 00 0001", MALFORMED),
    ("remaining length in four bytes for 2", Server(V311), "40 82 80 80 00 0001", MALFORMED),
    ("remaining length in five bytes", Server(V311), "30 ff ff ff ff 7f", MALFORMED),
    ("remaining length with four continuation bits", Server(V5), "30 80 80 80 80", MALFORMED),
    ("CONNECT with a long form of its length", Fresh, "10 8d 00 'MQTT' 04 02 003c 'c'", MALFORMED),
    ("the largest remaining length", Server(V311), "30 ff ff ff 7f", TOO_LARGE),
    ("above the hard limit", Server(V5), "30 fd ff 3f", TOO_LARGE),
    ("at the hard limit", Server(V5), "30 fc ff 3f", More),
    ("PINGREQ before CONNECT", Fresh, "c000", PROTOCOL),
    ("PUBLISH before CONNECT", Fresh, "30 ~ 'a'", PROTOCOL),
    ("CONNACK before CONNECT", Fresh, "2002 0000", PROTOCOL),
    ("type 0 before CONNECT", Fresh, "00", PROTOCOL),
    ("AUTH before CONNECT", Fresh, "f000", PROTOCOL),
    ("TLS before CONNECT", Fresh, "16 03 01 00", MALFORMED),
    ("HTTP before CONNECT", Fresh, "47 45 54 20", PROTOCOL),
    ("second CONNECT", Server(V311), "10 ~ 'MQTT' 04 02 003c 'c'", PROTOCOL),
    ("second CONNECT, v5", Server(V5), "10 ~ 'MQTT' 05 02 003c 00 'c'", PROTOCOL),
    ("second CONNACK", Client(V311), "2002 0000", PROTOCOL),
    ("PUBLISH before CONNACK", FreshClient(V311), "30 ~ 'a'", PROTOCOL),
    ("AUTH before CONNACK", FreshClient(V5), "f0 ~ 18 [15 'm']", Same),
    ("AUTH before CONNACK in 3.1.1", FreshClient(V311), "f000", PROTOCOL),
    ("CONNACK to a server", Server(V311), "2002 0000", PROTOCOL),
    ("SUBACK to a server", Server(V311), "9003 0001 00", PROTOCOL),
    ("UNSUBACK to a server", Server(V31), "b002 0001", PROTOCOL),
    ("PINGRESP to a server", Server(V5), "d000", PROTOCOL),
    ("CONNECT to a client", Client(V5), "10 ~ 'MQTT' 05 02 003c 00 'c'", PROTOCOL),
    ("SUBSCRIBE to a client", Client(V5), "82 ~ 0001 00 'a' 00", PROTOCOL),
    ("UNSUBSCRIBE to a client", Client(V311), "a2 ~ 0001 'a'", PROTOCOL),
    ("PINGREQ to a client", Client(V311), "c000", PROTOCOL),
];

#[test]
fn table() {
    check(ROWS);
}

#[test]
fn a_client_without_a_version_reads_nothing() {
    let error = Decoder::new(Role::Client, 100).decode(&mut BytesMut::from(&[0x20, 2, 0, 0][..])).unwrap_err();
    assert_eq!(error.reason, ReasonCode::ProtocolError);
}

#[test]
fn an_error_stays() {
    let mut decoder = Server(V311).decoder();
    let mut buffer = BytesMut::from(&[0xC1, 0][..]);
    let error = decoder.decode(&mut buffer).unwrap_err();
    let mut good = BytesMut::from(&[0xC0, 0][..]);
    assert_eq!(decoder.decode(&mut good), Err(error));
}

#[test]
fn the_version_is_known_when_the_level_is() {
    let rows: &[(&str, Option<Version>, Version)] = &[
        ("10 ~ 'MQTT' 04 02 003c 'c'", Some(V311), V311),
        ("10 ~ 'MQIsdp' 03 02 003c 'c'", Some(V31), V31),
        ("10 ~ 'MQTT' 05 02 003c 00 'c'", Some(V5), V5),
        ("10 ~ 'MQTT' 05 03 003c 00 'c'", Some(V5), V5),
        ("10 ~ 'MQTT' 04 00 003c ''", Some(V311), V311),
        ("10 ~ 'MQTT' 06 02 003c 00 'c'", None, V5),
        ("10 ~ 'MQTT' 84 02 003c 'c'", None, V311),
        ("10 ~ 'MQTT' 85 02 003c 00 'c'", None, V311),
        ("10 ~ 'OTHER' 06 02 003c 'c'", None, V311),
        ("c000", None, V311),
    ];
    for (text, version, refusal) in rows {
        let mut decoder = Fresh.decoder();
        let _ = decoder.decode(&mut BytesMut::from(&bytes(text)[..]));
        assert_eq!((decoder.version(), decoder.refusal_version()), (*version, *refusal), "{text}");
    }
}

/// A PUBLISH of `size` bytes in all.
fn publish(first: u8, id: Option<u16>, size: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(first);
    let length_bytes = (1..=4).find(|n| size - 1 - n < 1 << (7 * n)).unwrap();
    put_varint(&mut out, (size - 1 - length_bytes) as u32);
    out.put_slice(b"\x00\x05topic");
    if let Some(id) = id {
        out.put_u16(id);
    }
    out.resize(size, b'x');
    out.to_vec()
}

#[test]
fn the_limit_counts_the_whole_packet() {
    // 130 and 16,387 cannot be: the remaining length would not be minimal.
    for size in [20, 127, 128, 129, 131, 16_386, 16_388, 16_389] {
        let packet = publish(0x30, None, size);
        let mut decoder = Decoder::opened(Role::Server, V311, size as u32);
        assert!(matches!(decoder.decode(&mut BytesMut::from(&packet[..])), Ok(Some(_))), "{size}");
        let mut decoder = Decoder::opened(Role::Server, V311, size as u32 - 1);
        // The header alone decides.
        let error = decoder.decode(&mut BytesMut::from(&packet[..4])).unwrap_err();
        assert_eq!(error.reason, ReasonCode::PacketTooLarge, "{size}");
    }
}

#[test]
fn connect_is_limited_whatever_the_policy() {
    let mut decoder = Decoder::new(Role::Server, 10);
    decoder.set_limit(10, OversizePolicy::Skip);
    let error = decoder.decode(&mut BytesMut::from(&[0x10, 9][..])).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
}

#[test]
fn only_publish_is_skipped_and_only_below_the_hard_limit() {
    let rows: &[(&[u8], Option<ReasonCode>)] = &[
        (&[0x30, 0x80, 0x01], None),
        (&[0x82, 0x80, 0x01], Some(ReasonCode::PacketTooLarge)),
        (&[0x30, 0xFC, 0xFF, 0x3F], None),
        (&[0x30, 0xFD, 0xFF, 0x3F], Some(ReasonCode::PacketTooLarge)),
    ];
    for (header, expect) in rows {
        let mut decoder = Decoder::opened(Role::Server, V5, 64);
        decoder.set_limit(64, OversizePolicy::Skip);
        let found = decoder.decode(&mut BytesMut::from(*header)).err().map(|error| error.reason);
        assert_eq!(found, *expect, "{header:02x?}");
    }
}

#[test]
fn a_skipped_publish_is_reported_in_order_and_never_buffered() {
    for (first, id, qos) in
        [(0x30, None, QoS::AtMostOnce), (0x32, Some(7), QoS::AtLeastOnce), (0x3D, Some(9), QoS::ExactlyOnce)]
    {
        for chunk in [1, 2, 3, 5, 64, 4096, 1 << 20] {
            let size = 70_000;
            let mut stream = vec![0xC0, 0];
            stream.extend(publish(first, id, size));
            stream.extend([0xC0, 0]);
            let mut decoder = Decoder::opened(Role::Server, V5, 64);
            decoder.set_limit(64, OversizePolicy::Skip);
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for piece in stream.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Some(decoded) = decoder.decode(&mut buffer).unwrap() {
                    found.push(decoded);
                }
                assert!(buffer.len() < 5, "{} bytes are kept", buffer.len());
            }
            let skipped = SkippedPublish { qos, packet_id: id.unwrap_or(0), size: size as u32 };
            let ping = Decoded::Packet(Packet::PingReq);
            assert_eq!(found, [ping.clone(), Decoded::Skipped(skipped), ping], "chunks of {chunk}");
        }
    }
}

#[test]
fn a_skipped_publish_must_still_hold_together() {
    let rows: &[(&str, &str)] = &[
        ("topic beyond the packet", "30 14 0013"),
        ("topic that leaves no room for the id", "32 14 0011"),
        ("id 0", "32 14 0001 61 0000"),
    ];
    for (name, text) in rows {
        let mut decoder = Decoder::opened(Role::Server, V311, 8);
        decoder.set_limit(8, OversizePolicy::Skip);
        let error = decoder.decode(&mut BytesMut::from(&bytes(text)[..])).unwrap_err();
        assert_eq!(error.reason, ReasonCode::MalformedPacket, "{name}");
    }
    let mut decoder = Decoder::opened(Role::Server, V311, 1);
    decoder.set_limit(1, OversizePolicy::Skip);
    let error = decoder.decode(&mut BytesMut::from(&[0x30, 0, 0, 0][..])).unwrap_err();
    assert_eq!(error.reason, ReasonCode::MalformedPacket, "no room for a topic length");
}

#[test]
fn the_hard_limit_cannot_be_raised() {
    let mut decoder = Decoder::opened(Role::Server, V311, 64);
    decoder.set_limit(u32::MAX, OversizePolicy::Close);
    let packet = publish(0x30, None, PACKET_BYTES_HARD_MAX as usize);
    assert!(matches!(decoder.decode(&mut BytesMut::from(&packet[..])), Ok(Some(_))));
    let packet = publish(0x30, None, PACKET_BYTES_HARD_MAX as usize + 1);
    let error = decoder.decode(&mut BytesMut::from(&packet[..])).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
}
