//! The property table of MQTT 5: identifiers, places, repeats, ranges.

use bytes::{BufMut, Bytes, BytesMut};

use super::Expect::{Accept, Refuse, Same};
use super::On::{Client, Fresh, FreshClient, Server};
use super::{MALFORMED, PROTOCOL, Row, bytes, check, decode};
use crate::codec::v5::properties::{ALL_IDS, Properties, place};
use crate::packet::Packet;
use crate::packet::Version::V5;
use crate::property::{ForwardProperties, ForwardProperty};
use crate::reason::ReasonCode;
use crate::topic::TopicName;

const SERVER: super::On = Server(V5);
const CLIENT: super::On = Client(V5);
const ALIAS: super::Expect = Refuse(ReasonCode::TopicAliasInvalid);

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Lengths and identifiers
    ("undefined identifier 0", SERVER, "30 ~ 'a' [00 00]", MALFORMED),
    ("undefined identifier 4", SERVER, "30 ~ 'a' [04 00]", MALFORMED),
    ("undefined identifier 0x7f", SERVER, "30 ~ 'a' [7f 00]", MALFORMED),
    ("identifier of two bytes", SERVER, "30 ~ 'a' [81 01 00]", MALFORMED),
    ("identifier 1 in two bytes", SERVER, "30 ~ 'a' [81 00 00]", MALFORMED),
    ("property length in two bytes for 0", SERVER, "30 ~ 'a' 80 00", MALFORMED),
    ("property length in five bytes", SERVER, "30 ~ 'a' 80 80 80 80 00", MALFORMED),
    ("property length cut short", SERVER, "30 ~ 'a' 80", MALFORMED),
    ("property without value", SERVER, "30 ~ 'a' [02] 00000001", MALFORMED),
    ("property with half a value", SERVER, "30 ~ 'a' [02 0000] 0001", MALFORMED),
    ("text beyond the properties", SERVER, "30 ~ 'a' [03 0002 61] 62", MALFORMED),
    ("user property without value", SERVER, "30 ~ 'a' [26 'k'] 'v'", MALFORMED),
    ("subscription id in two bytes for 1", CLIENT, "30 ~ 'a' [0b 81 00]", MALFORMED),
    ("subscription id in five bytes", CLIENT, "30 ~ 'a' [0b ffffffff 01]", MALFORMED),
    ("text that is not UTF-8", SERVER, "30 ~ 'a' [03 0001 ff]", MALFORMED),
    ("text with U+0000", SERVER, "30 ~ 'a' [03 0001 00]", MALFORMED),
    ("user property with U+0000", SERVER, "30 ~ 'a' [26 'k' 0001 00]", MALFORMED),
    ("user property that is not UTF-8", SERVER, "30 ~ 'a' [26 0001 80 'v']", MALFORMED),
    ("empty user property", SERVER, "30 ~ 'a' [26 '' '']", Same),
    ("empty content type and correlation data", SERVER, "30 ~ 'a' [03 '' 09 '']", Same),
    // Repeats
    ("PUBLISH: payload format twice", SERVER, "30 ~ 'a' [01 00 01 00]", PROTOCOL),
    ("PUBLISH: expiry twice", SERVER, "30 ~ 'a' [02 00000001 02 00000001]", PROTOCOL),
    ("PUBLISH: alias twice", SERVER, "30 ~ 'a' [23 0001 23 0001]", PROTOCOL),
    ("PUBLISH: response topic twice", SERVER, "30 ~ 'a' [08 'r' 08 'r']", PROTOCOL),
    ("PUBLISH: correlation data twice", SERVER, "30 ~ 'a' [09 'r' 09 'r']", PROTOCOL),
    ("PUBLISH: content type twice", SERVER, "30 ~ 'a' [03 'r' 03 'r']", PROTOCOL),
    ("SUBSCRIBE: two subscription ids", SERVER, "82 ~ 0001 [0b 01 0b 02] 'a' 00", PROTOCOL),
    ("CONNECT: session expiry twice", Fresh, "10 ~ 'MQTT' 05 02 003c [11 00000001 11 00000001] 'c'", PROTOCOL),
    ("CONNECT: receive maximum twice", Fresh, "10 ~ 'MQTT' 05 02 003c [21 0001 21 0001] 'c'", PROTOCOL),
    ("CONNECT: method twice", Fresh, "10 ~ 'MQTT' 05 02 003c [15 'm' 15 'm'] 'c'", PROTOCOL),
    ("will: delay twice", Fresh, "10 ~ 'MQTT' 05 06 003c [] 'c' [18 00000001 18 00000001] 'w' 'x'", PROTOCOL),
    ("PUBACK: reason string twice", SERVER, "40 ~ 0001 00 [1f 'a' 1f 'a']", PROTOCOL),
    // Ranges
    ("CONNECT: receive maximum 0", Fresh, "10 ~ 'MQTT' 05 02 003c [21 0000] 'c'", PROTOCOL),
    ("CONNECT: maximum packet size 0", Fresh, "10 ~ 'MQTT' 05 02 003c [27 00000000] 'c'", PROTOCOL),
    ("CONNECT: request problem information 2", Fresh, "10 ~ 'MQTT' 05 02 003c [17 02] 'c'", PROTOCOL),
    ("CONNECT: request response information 2", Fresh, "10 ~ 'MQTT' 05 02 003c [19 02] 'c'", PROTOCOL),
    ("CONNECT: alias maximum 0", Fresh, "10 ~ 'MQTT' 05 02 003c [22 0000] 'c'", Same),
    ("CONNECT: data without method", Fresh, "10 ~ 'MQTT' 05 02 003c [16 0001 00] 'c'", PROTOCOL),
    ("CONNECT: data before method", Fresh, "10 ~ 'MQTT' 05 02 003c [16 0001 00 15 'm'] 'c'", Accept),
    ("CONNECT: everything", Fresh, "10 ~ 'MQTT' 05 02 003c [11 ffffffff 21 ffff 27 ffffffff 22 ffff 19 01 17 00 26 'k' 'v' 15 'm' 16 0001 00] 'c'", Same),
    ("CONNACK: maximum QoS 2", FreshClient(V5), "20 ~ 00 00 [24 02]", PROTOCOL),
    ("CONNACK: retain available 2", FreshClient(V5), "20 ~ 00 00 [25 02]", PROTOCOL),
    ("CONNACK: wildcards available 2", FreshClient(V5), "20 ~ 00 00 [28 02]", PROTOCOL),
    ("CONNACK: subscription ids available 2", FreshClient(V5), "20 ~ 00 00 [29 02]", PROTOCOL),
    ("CONNACK: shares available 2", FreshClient(V5), "20 ~ 00 00 [2a 02]", PROTOCOL),
    ("CONNACK: receive maximum 0", FreshClient(V5), "20 ~ 00 00 [21 0000]", PROTOCOL),
    ("CONNACK: everything", FreshClient(V5), "20 ~ 00 00 [11 00000001 21 0001 24 01 25 00 27 00000001 12 'id' 22 0000 1f 'why' 26 'k' 'v' 28 00 29 01 2a 00 13 0000 1a 'info' 1c 'other' 15 'm' 16 0000]", Same),
    ("PUBLISH: payload format 2", SERVER, "30 ~ 'a' [01 02]", PROTOCOL),
    ("PUBLISH: payload format 9", SERVER, "30 ~ 'a' [01 09]", PROTOCOL),
    ("PUBLISH: alias 0", SERVER, "30 ~ 'a' [23 0000]", ALIAS),
    ("PUBLISH: expiry 0", SERVER, "30 ~ 'a' [02 00000000]", Same),
    ("PUBLISH: subscription id 0", CLIENT, "30 ~ 'a' [0b 00]", PROTOCOL),
    ("PUBLISH: response topic with '#'", SERVER, "30 ~ 'a' [08 'r/#']", PROTOCOL),
    ("PUBLISH: response topic with '+'", SERVER, "30 ~ 'a' [08 '+']", PROTOCOL),
    ("PUBLISH: response topic empty", SERVER, "30 ~ 'a' [08 '']", PROTOCOL),
    ("PUBLISH: response topic with U+0000", SERVER, "30 ~ 'a' [08 0001 00]", MALFORMED),
    ("SUBSCRIBE: subscription id 0", SERVER, "82 ~ 0001 [0b 00] 'a' 00", PROTOCOL),
    ("SUBSCRIBE: the largest subscription id", SERVER, "82 ~ 0001 [0b ffffff7f] 'a' 00", Same),
    ("will: response topic with a wildcard", Fresh, "10 ~ 'MQTT' 05 06 003c [] 'c' [08 '#'] 'w' 'x'", PROTOCOL),
    ("will: forwarded properties between others", Fresh, "10 ~ 'MQTT' 05 06 003c [] 'c' [01 01 18 00000001 26 'k' 'v'] 'w' 'x'", Accept),
];

#[test]
fn table() {
    check(ROWS);
}

/// The smallest legal value of a property.
fn value(id: u8) -> Vec<u8> {
    match id {
        0x01 | 0x0B | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => vec![1],
        0x13 | 0x21..=0x23 => vec![0, 1],
        0x02 | 0x11 | 0x18 | 0x27 => vec![0, 0, 0, 1],
        0x26 => vec![0, 1, b'k', 0, 0],
        _ => vec![0, 1, b'a'],
    }
}

/// Where each property may stand, copied from the standard's table and not from ours.
const PLACES: &[(u16, &[u8])] = &[
    (place::CONNECT, &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
    (place::WILL, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
    (
        place::CONNACK,
        &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A],
    ),
    (place::PUBLISH, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]),
    (place::ACK, &[0x1F, 0x26]),
    (place::SUBSCRIBE, &[0x0B, 0x26]),
    (place::SUBACK, &[0x1F, 0x26]),
    (place::UNSUBSCRIBE, &[0x26]),
    (place::UNSUBACK, &[0x1F, 0x26]),
    (place::DISCONNECT, &[0x11, 0x1C, 0x1F, 0x26]),
    (place::AUTH, &[0x15, 0x16, 0x1F, 0x26]),
    (place::FORWARD, &[0x01, 0x03, 0x08, 0x09, 0x26]),
];

#[test]
fn every_property_in_every_place_once_and_twice() {
    assert_eq!(ALL_IDS.len(), 27);
    for (place, allowed) in PLACES {
        for id in 0..=u8::MAX {
            for repeats in [1, 2] {
                let mut encoded = BytesMut::new();
                for _ in 0..repeats {
                    encoded.put_u8(id);
                    encoded.put_slice(&value(id));
                }
                let frame = encoded.freeze();
                let mut properties = Properties::new(super::super::read::Reader::new(&frame, 0), *place);
                let found = loop {
                    match properties.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(error) => break Some(error.reason),
                    }
                };
                let repeatable = id == 0x26 || id == 0x0B && *place == place::PUBLISH;
                let expect = match (ALL_IDS.contains(&id), allowed.contains(&id), repeats == 1 || repeatable) {
                    (false, _, _) => Some(ReasonCode::MalformedPacket),
                    (true, true, true) => None,
                    _ => Some(ReasonCode::ProtocolError),
                };
                assert_eq!(found, expect, "property {id:#x} in {place:#b}, {repeats} times");
            }
        }
    }
}

fn forwarded(text: &str) -> (ForwardProperties, Bytes) {
    let frame = Bytes::from(bytes(text));
    match decode(CLIENT, &frame) {
        Ok(Some(Packet::Publish(publish))) => (publish.properties.forward, frame),
        other => panic!("{other:?} is not a PUBLISH"),
    }
}

#[test]
fn forwarded_properties_keep_their_bytes_and_order() {
    let rows: &[(&str, &str)] = &[
        ("30 ~ 'a' []", ""),
        ("30 ~ 'a' [02 00000001]", ""),
        ("30 ~ 'a' [26 'k' 'v' 01 01]", "26 'k' 'v' 01 01"),
        ("30 ~ 'a' [02 00000001 23 0001 26 'k' 'v']", "26 'k' 'v'"),
        ("30 ~ 'a' [26 'k' 'v' 02 00000001 23 0001]", "26 'k' 'v'"),
        ("30 ~ 'a' [26 'b' '' 02 00000001 26 'a' '' 23 0001 01 01]", "26 'b' '' 26 'a' '' 01 01"),
        ("30 ~ 'a' [0b 01 09 'x' 0b 02 08 'y' 0b 03]", "09 'x' 08 'y'"),
    ];
    for (publish, expect) in rows {
        assert_eq!(forwarded(publish).0.as_bytes(), &bytes(expect), "{publish}");
    }
}

#[test]
fn forwarded_properties_are_a_slice_where_they_stand_together() {
    let mut buffer = BytesMut::from(&bytes("30 ~ 'a' [02 00000001 26 'k' 'v']")[..]);
    let span = buffer.as_ptr_range();
    let mut decoder = SERVER.decoder();
    match decoder.decode(&mut buffer) {
        Ok(Some(crate::packet::Decoded::Packet(Packet::Publish(publish)))) => {
            assert!(span.contains(&publish.properties.forward.as_bytes().as_ptr()), "not copied");
            assert!(!span.contains(&publish.properties.forward.detached().as_bytes().as_ptr()), "copied");
        }
        other => panic!("{other:?} is not a PUBLISH"),
    }
}

#[test]
fn forwarded_properties_are_iterated_and_built() {
    let all = [
        ForwardProperty::User("k".into(), "1".into()),
        ForwardProperty::PayloadFormat(true),
        ForwardProperty::ContentType("text".into()),
        ForwardProperty::ResponseTopic(TopicName::new("r/s").unwrap()),
        ForwardProperty::CorrelationData(Bytes::from_static(&[0, 255])),
        ForwardProperty::User("k".into(), "2".into()),
    ];
    let forward = ForwardProperties::from_properties(&all).unwrap();
    assert_eq!(forward.as_bytes(), &bytes("26 'k' '1' 01 01 03 'text' 08 'r/s' 09 0002 00ff 26 'k' '2'"));
    assert_eq!(forward.iter().collect::<Vec<_>>(), all);
    assert_eq!(ForwardProperties::from_encoded(forward.as_bytes().clone()), Ok(forward));
    assert!(ForwardProperties::default().is_empty());
}

#[test]
fn forwarded_properties_that_cannot_be() {
    let twice = [ForwardProperty::PayloadFormat(true), ForwardProperty::PayloadFormat(true)];
    let long = [ForwardProperty::ContentType("x".repeat(65_536).into())];
    let nul = [ForwardProperty::User("a\0".into(), "".into())];
    for properties in [&twice[..], &long[..], &nul[..]] {
        assert!(ForwardProperties::from_properties(properties).is_err());
    }
    for (text, reason) in [
        ("02 00000001", ReasonCode::ProtocolError),
        ("23 0001", ReasonCode::ProtocolError),
        ("0b 01", ReasonCode::ProtocolError),
        ("01 01 01 01", ReasonCode::ProtocolError),
        ("08 '#'", ReasonCode::ProtocolError),
        ("01", ReasonCode::MalformedPacket),
        ("ff", ReasonCode::MalformedPacket),
    ] {
        let error = ForwardProperties::from_encoded(Bytes::from(bytes(text))).unwrap_err();
        assert_eq!(error.reason, reason, "{text}");
    }
}
