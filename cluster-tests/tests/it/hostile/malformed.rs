//! Bytes that are no MQTT, or MQTT that the standards forbid. MQTT 5 is told why; 3.x is closed.

use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::{ReasonCode, Version};

use crate::support::{SOON, VERSIONS, close_reason, raw_client, shared};

const MALFORMED: &[ReasonCode] = &[ReasonCode::MalformedPacket];
const PROTOCOL: &[ReasonCode] = &[ReasonCode::ProtocolError];
/// The standard leaves the choice, or says it in two ways.
const EITHER: &[ReasonCode] = &[ReasonCode::MalformedPacket, ReasonCode::ProtocolError];
const TOPIC: &[ReasonCode] = &[ReasonCode::TopicNameInvalid, ReasonCode::MalformedPacket];
const FILTER: &[ReasonCode] = &[ReasonCode::TopicFilterInvalid, ReasonCode::MalformedPacket];
const ALIAS: &[ReasonCode] = &[ReasonCode::TopicAliasInvalid, ReasonCode::ProtocolError];
const LARGE: &[ReasonCode] = &[ReasonCode::PacketTooLarge];

#[tokio::test]
async fn forbidden_bytes_after_connect_end_the_connection() {
    let server = shared().await;
    let both: &[(&str, &[u8], &[ReasonCode])] = &[
        ("packet type 0", &[0x00, 0x00], MALFORMED),
        ("PUBLISH of QoS 3", &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], MALFORMED),
        ("DUP with QoS 0", &[0x38, 0x03, 0x00, 0x01, b'a'], MALFORMED),
        ("SUBSCRIBE with flags 0", &[0x80, 0x06, 0x00, 0x01, 0x00, 0x01, b'a', 0x00], MALFORMED),
        ("UNSUBSCRIBE with flags 0", &[0xA0, 0x05, 0x00, 0x01, 0x00, 0x01, b'a'], MALFORMED),
        ("PUBREL with flags 0", &[0x60, 0x02, 0x00, 0x01], MALFORMED),
        ("PUBACK with flags", &[0x4F, 0x02, 0x00, 0x01], MALFORMED),
        ("PINGREQ with flags", &[0xC1, 0x00], MALFORMED),
        ("PINGREQ with content", &[0xC0, 0x01, 0x00], MALFORMED),
        ("a length of five bytes", &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], MALFORMED),
        ("a length longer than need be", &[0x30, 0x80, 0x00], MALFORMED),
        ("PUBLISH without a topic length", &[0x30, 0x01, 0x00], MALFORMED),
        ("a topic beyond the packet", &[0x30, 0x03, 0x00, 0x09, b'a'], MALFORMED),
        ("QoS 1 without a packet id", &[0x32, 0x03, 0x00, 0x01, b'a'], MALFORMED),
        ("packet id 0", &[0x32, 0x05, 0x00, 0x01, b'a', 0x00, 0x00], EITHER),
        ("a topic that is no UTF-8", &[0x30, 0x05, 0x00, 0x02, 0xC3, 0x28, 0x00], MALFORMED),
        ("a topic with a surrogate", &[0x30, 0x06, 0x00, 0x03, 0xED, 0xA0, 0x80, 0x00], MALFORMED),
        ("a topic with U+0000", &[0x30, 0x06, 0x00, 0x03, b'a', 0x00, b'b', 0x00], TOPIC_OR_MALFORMED),
        ("a topic with #", &[0x30, 0x06, 0x00, 0x03, b'a', b'/', b'#', 0x00], TOPIC),
        ("a topic with +", &[0x30, 0x04, 0x00, 0x01, b'+', 0x00], TOPIC),
        ("a second CONNECT", &[0x10, 0x0D, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'], PROTOCOL),
        ("CONNACK", &[0x20, 0x02, 0x00, 0x00], PROTOCOL),
        ("SUBACK", &[0x90, 0x03, 0x00, 0x01, 0x00], PROTOCOL),
        ("UNSUBACK", &[0xB0, 0x02, 0x00, 0x01], PROTOCOL),
        ("PINGRESP", &[0xD0, 0x00], PROTOCOL),
        ("SUBSCRIBE without filters", &[0x82, 0x02, 0x00, 0x01], EITHER),
        ("UNSUBSCRIBE without filters", &[0xA2, 0x02, 0x00, 0x01], EITHER),
        ("a length beyond the hard limit", &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], LARGE),
        ("a length beyond the listener's limit", &[0x32, 0x80, 0x80, 0x20], LARGE),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n", MALFORMED),
        ("TLS", &[0x16, 0x03, 0x01, 0x02, 0x00], PROTOCOL),
        ("all ones", &[0xFF; 64], MALFORMED),
    ];
    let only_3: &[(&str, &[u8])] = &[
        ("a filter with # inside", &[0x82, 0x08, 0, 1, 0, 3, b'#', b'/', b'a', 0]),
        ("an empty filter", &[0x82, 0x05, 0, 1, 0, 0, 0]),
        ("SUBSCRIBE with QoS 3", &[0x82, 0x06, 0, 1, 0, 1, b'a', 3]),
        ("an empty topic", &[0x30, 0x03, 0, 0, b'x']),
        ("AUTH", &[0xF0, 0x00]),
        ("PUBACK of three bytes", &[0x40, 0x03, 0, 1, 0]),
        ("DISCONNECT with a reason", &[0xE0, 0x01, 0x04]),
    ];
    let only_5: &[(&str, &[u8], &[ReasonCode])] = &[
        ("a filter with # inside", &[0x82, 0x09, 0, 1, 0, 0, 3, b'#', b'/', b'a', 0], FILTER),
        ("an empty filter", &[0x82, 0x06, 0, 1, 0, 0, 0, 0], FILTER),
        ("SUBSCRIBE with QoS 3", &[0x82, 0x07, 0, 1, 0, 0, 1, b'a', 3], EITHER),
        ("SUBSCRIBE with reserved bits", &[0x82, 0x07, 0, 1, 0, 0, 1, b'a', 0x40], MALFORMED),
        ("retain handling 3", &[0x82, 0x07, 0, 1, 0, 0, 1, b'a', 0x30], EITHER),
        (
            "no-local for a group",
            &[0x82, 15, 0, 1, 0, 0, 9, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', 4],
            EITHER_OR_FILTER,
        ),
        ("subscription identifier 0", &[0x82, 0x09, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0], PROTOCOL),
        ("a topic alias of 0", &[0x30, 0x07, 0, 1, b'a', 3, 0x23, 0, 0], ALIAS),
        ("an unknown topic alias", &[0x30, 0x06, 0, 0, 3, 0x23, 0, 5], ALIAS),
        ("no topic and no alias", &[0x30, 0x03, 0, 0, 0], PROTOCOL),
        ("two topic aliases", &[0x30, 0x0A, 0, 1, b'a', 6, 0x23, 0, 1, 0x23, 0, 2], PROTOCOL),
        ("an unknown property", &[0x30, 0x06, 0, 1, b'a', 2, 0x7F, 0], MALFORMED),
        ("a property of another packet", &[0x30, 0x09, 0, 1, b'a', 5, 0x11, 0, 0, 0, 1], EITHER),
        ("properties beyond the packet", &[0x30, 0x04, 0, 1, b'a', 9], MALFORMED),
        ("a subscription identifier from a client", &[0x30, 0x06, 0, 1, b'a', 2, 0x0B, 1], PROTOCOL),
        ("payload format 2", &[0x30, 0x06, 0, 1, b'a', 2, 0x01, 2], PROTOCOL),
        ("a response topic with #", &[0x30, 0x08, 0, 1, b'a', 4, 0x08, 0, 1, b'#'], TOPIC_OR_EITHER),
        ("AUTH without a method", &[0xF0, 0x00], PROTOCOL),
        ("a reason that PUBACK does not know", &[0x40, 0x03, 0, 1, 0x04], EITHER),
        ("a raised session expiry", &[0xE0, 0x07, 0x00, 0x05, 0x11, 0, 0, 0, 9], PROTOCOL),
        ("DISCONNECT with a server's reason", &[0xE0, 0x01, 0x8D], EITHER),
    ];
    for (what, bytes, reasons) in both.iter().chain(only_5) {
        let mut client = raw_client(server.mqtt(), Version::V5, "malformed").await;
        client.send_bytes(bytes).await.unwrap();
        let told = close_reason(&mut client).await;
        assert!(told.is_some_and(|told| reasons.contains(&told)), "MQTT 5, {what}: {told:?} of {reasons:?}");
    }
    for (what, bytes) in both.iter().map(|(what, bytes, _)| (what, bytes)).chain(only_3.iter().map(|(w, b)| (w, b))) {
        let mut client = raw_client(server.mqtt(), Version::V311, "malformed").await;
        client.send_bytes(bytes).await.unwrap();
        let packets = client.expect_close(SOON).await.unwrap_or_else(|error| panic!("3.1.1, {what}: {error:#}"));
        assert!(packets.is_empty(), "3.1.1, {what}: {packets:?}");
    }
}

const TOPIC_OR_MALFORMED: &[ReasonCode] = TOPIC;
const TOPIC_OR_EITHER: &[ReasonCode] =
    &[ReasonCode::TopicNameInvalid, ReasonCode::MalformedPacket, ReasonCode::ProtocolError];
const EITHER_OR_FILTER: &[ReasonCode] =
    &[ReasonCode::TopicFilterInvalid, ReasonCode::MalformedPacket, ReasonCode::ProtocolError];

/// What precedes a packet that is wrong still counts; what follows does not.
#[tokio::test]
async fn what_comes_before_a_wrong_packet_in_one_write_is_answered() {
    let server = shared().await;
    for version in VERSIONS {
        let mut client = raw_client(server.mqtt(), version, "before").await;
        client.send_bytes(&[0xC0, 0x00, 0xC0, 0x00, 0xFF, 0xC0, 0x00]).await.unwrap();
        let packets = client.expect_close(SOON).await.unwrap();
        let pings = packets.iter().filter(|packet| **packet == fulmar_mqtt::Packet::PingResp).count();
        assert_eq!(pings, 2, "{version:?}");
        assert_eq!(packets.len(), 2 + usize::from(version == Version::V5), "{packets:?}");
    }
}

#[tokio::test]
async fn a_connect_that_cannot_be_accepted_is_refused_or_closed() {
    let server = shared().await;
    let connect = |name: &[u8], level: u8, flags: u8, rest: &[u8]| {
        let mut body = vec![0, name.len() as u8];
        body.extend(name);
        body.extend([level, flags, 0, 60]);
        body.extend(rest);
        let mut bytes = vec![0x10, body.len() as u8];
        bytes.extend(body);
        bytes
    };
    let id = [0, 1, b'a'];
    // What must come before the close: nothing; or the beginning of a CONNACK with this code.
    let cases: [(&str, Vec<u8>, Option<u8>); 17] = [
        ("PUBLISH first", vec![0x30, 0x03, 0, 1, b'a'], None),
        ("PINGREQ first", vec![0xC0, 0x00], None),
        ("a server's packet first", vec![0x20, 0x02, 0, 0], None),
        ("HTTP first", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ("level 6", connect(b"MQTT", 6, 2, &[0, 0, 1, b'a']), Some(0x84)),
        ("level 3 with the new name", connect(b"MQTT", 3, 2, &id), Some(0x01)),
        ("level 4 with the old name", connect(b"MQIsdp", 4, 2, &id), Some(0x01)),
        ("another name", connect(b"MQTX", 4, 2, &id), Some(0x01)),
        ("the reserved flag", connect(b"MQTT", 4, 3, &id), None),
        ("will QoS 3", connect(b"MQTT", 4, 0x1E, &[0, 1, b'a', 0, 1, b't', 0, 0]), None),
        ("will QoS without a will", connect(b"MQTT", 4, 0x0A, &id), None),
        ("a password without a user", connect(b"MQTT", 4, 0x42, &[0, 1, b'a', 0, 1, b'p']), None),
        ("a client id that is no UTF-8", connect(b"MQTT", 4, 2, &[0, 1, 0xFF]), None),
        ("a client id beyond the packet", connect(b"MQTT", 4, 2, &[0, 9, b'a']), None),
        ("bytes after the end", connect(b"MQTT", 4, 2, &[0, 1, b'a', 0]), None),
        ("no id for a session to keep", connect(b"MQTT", 4, 0, &[0, 0]), Some(0x02)),
        ("a method of authentication", connect(b"MQTT", 5, 2, &[5, 0x15, 0, 2, b'X', b'Y', 0, 1, b'a']), Some(0x8C)),
    ];
    for (what, bytes, code) in cases {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(server.mqtt()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("{what}: it is not closed")).unwrap();
        match code {
            None => assert!(answer.is_empty(), "{what}: {answer:?}"),
            Some(code) => {
                assert_eq!(answer.first(), Some(&0x20), "{what}: {answer:?}");
                assert_eq!(answer.get(2..4), Some(&[0, code][..]), "{what}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_password_may_be_any_bytes() {
    let server = shared().await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut connect = raw::connect(version, "binary");
        connect.username = Some("nobody".into());
        connect.password = Some(vec![0xFF, 0x00, 0xC3, 0x28].into());
        let mut client = RawClient::tcp(server.mqtt(), version).await.unwrap();
        let connack = client.handshake(connect, SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword, "it was compared, not refused for its form");
    }
}
