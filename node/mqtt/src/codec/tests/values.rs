//! What is in decoded packets, and what cannot be encoded.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::On::{Client, Fresh, FreshClient, Server};
use super::{bytes, decode};
use crate::codec::{EncodeError, PublishRef, encode};
use crate::limits::VARINT_MAX;
use crate::packet::Version::{self, V5, V31, V311};
use crate::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, Decoded, Disconnect, Packet, Publish, QoS, ReasonProperties,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe, Will,
};
use crate::property::{ForwardProperties, PublishProperties};
use crate::reason::ReasonCode;
use crate::topic::{TopicFilter, TopicName};

fn packet(on: super::On, text: &str) -> Packet {
    decode(on, &bytes(text)).unwrap().expect("a whole packet")
}

fn connect(text: &str) -> Connect {
    match packet(Fresh, text) {
        Packet::Connect(connect) => *connect,
        other => panic!("{other:?} is not CONNECT"),
    }
}

#[test]
fn connect_fields() {
    let all = connect("10 ~ 'MQTT' 05 ee 1234 [11 0000000a] 'cid' [18 00000005 02 00000009 01 01] 'w/t' 'pay' 'u' 'p'");
    assert_eq!((all.version, all.clean_start, all.keep_alive_s), (V5, true, 0x1234));
    assert_eq!((&*all.client_id, all.username.as_deref()), ("cid", Some("u")));
    assert_eq!(all.password.as_deref(), Some(&b"p"[..]));
    assert_eq!(all.properties.session_expiry_s, Some(10));
    let will = all.will.unwrap();
    assert_eq!((will.topic.as_str(), &will.payload[..]), ("w/t", &b"pay"[..]));
    assert_eq!((will.qos, will.retain, will.delay_s), (QoS::AtLeastOnce, true, 5));
    assert_eq!(will.properties.message_expiry_s, Some(9));
    assert_eq!(will.properties.forward.as_bytes(), &bytes("01 01"));

    let old = connect("10 0f 0006 4d5149736470 03 02 003c 0001 63");
    assert_eq!((old.version, &*old.client_id, old.username), (V31, "c", None));
    let binary = connect("10 ~ 'MQTT' 04 c2 003c 'c' 'u' 0002 fffe");
    assert_eq!(binary.password.as_deref(), Some(&[0xFF, 0xFE][..]));
    // Present and empty is not absent.
    let empty = connect("10 ~ 'MQTT' 04 c2 003c 'c' '' ''");
    assert_eq!((empty.username.as_deref(), empty.password.as_deref()), (Some(""), Some(&b""[..])));
    let missing = connect("10 ~ 'MQIsdp' 03 c2 003c 'c'");
    assert_eq!((missing.username, missing.password), (None, None));
}

#[test]
fn publish_fields() {
    let Packet::Publish(publish) = packet(Client(V5), "3b ~ 'a/b' 0102 [02 00000007 0b 01 0b ac02 23 0009 01 01] 6869")
    else {
        panic!("a PUBLISH")
    };
    assert_eq!((publish.dup, publish.qos, publish.retain), (true, QoS::AtLeastOnce, true));
    assert_eq!((publish.topic.unwrap().as_str(), publish.packet_id), ("a/b", 0x0102));
    assert_eq!(&publish.payload[..], b"hi");
    let properties = publish.properties;
    assert_eq!((properties.message_expiry_s, properties.topic_alias), (Some(7), Some(9)));
    assert_eq!(properties.subscription_ids.as_slice(), [1, 300]);
    assert_eq!(properties.forward.as_bytes(), &bytes("01 01"));
    let Packet::Publish(aliased) = packet(Server(V5), "30 ~ '' [23 0001] 68") else { panic!("a PUBLISH") };
    assert_eq!((aliased.topic, aliased.properties.topic_alias), (None, Some(1)));
}

#[test]
fn publish_is_not_copied() {
    for (version, text) in [(V311, "30 ~ 'a/b' 6869"), (V5, "30 ~ 'a/b' [] 6869")] {
        let mut buffer = BytesMut::from(&bytes(text)[..]);
        let span = buffer.as_ptr_range();
        match Server(version).decoder().decode(&mut buffer) {
            Ok(Some(Decoded::Packet(Packet::Publish(publish)))) => {
                assert!(span.contains(&publish.payload.as_ptr()));
                assert!(span.contains(&publish.topic.unwrap().as_str().as_ptr()));
            }
            other => panic!("{other:?} is not a PUBLISH"),
        }
    }
}

#[test]
fn subscribe_fields() {
    let Packet::Subscribe(all) = packet(Server(V5), "82 ~ 0102 [0b 07 26 'k' 'v'] 'a/+' 2e '$share/g/b' 11") else {
        panic!("a SUBSCRIBE")
    };
    assert_eq!((all.packet_id, all.subscription_id, all.user.len()), (0x0102, Some(7), 1));
    let first = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
    };
    assert_eq!((all.filters[0].filter.as_str(), all.filters[0].options), ("a/+", first));
    assert_eq!(all.filters[1].filter.shared(), Some(("g", "b")));
    assert_eq!(all.filters[1].options.retain_handling, RetainHandling::IfNew);
}

#[test]
fn acknowledgement_fields() {
    let ack = |text| match packet(Server(V5), text) {
        Packet::PubAck(ack) => ack,
        other => panic!("{other:?} is not PUBACK"),
    };
    assert_eq!(ack("4002 0001"), Ack::success(1));
    assert_eq!(ack("4003 0001 10"), Ack::with_reason(1, ReasonCode::NoMatchingSubscribers));
    assert_eq!(ack("4004 0001 00 00"), Ack::success(1));
    let reason = ack("40 ~ 0001 80 [1f 'why' 26 'k' 'v']").properties.unwrap();
    assert_eq!(reason.reason_string.as_deref(), Some("why"));
    assert_eq!(reason.user, [("k".into(), "v".into())]);
}

fn hex(packet: &Packet, version: Version) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::from(&b"before"[..]);
    match encode(packet, version, &mut out) {
        Ok(()) => Ok(out[6..].to_vec()),
        Err(error) => {
            assert_eq!(&out[..], b"before", "an error appends nothing");
            Err(error)
        }
    }
}

#[test]
fn versions_write_what_they_can_express() {
    let suback = |reasons: &[ReasonCode]| {
        Packet::SubAck(Box::new(SubAck {
            packet_id: 1,
            reasons: reasons.to_vec(),
            properties: ReasonProperties { reason_string: Some("why".into()), user: Vec::new() },
        }))
    };
    let refused = suback(&[ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]);
    assert_eq!(hex(&refused, V31).unwrap(), bytes("9004 0001 01 00"));
    assert_eq!(hex(&refused, V311).unwrap(), bytes("9004 0001 01 80"));
    assert_eq!(hex(&refused, V5).unwrap(), bytes("90 ~ 0001 [1f 'why'] 01 87"));

    let ack = Packet::PubAck(Ack::with_reason(1, ReasonCode::QuotaExceeded));
    assert_eq!(hex(&ack, V311).unwrap(), bytes("4002 0001"));
    assert_eq!(hex(&ack, V5).unwrap(), bytes("4004 0001 97 00"));

    let unsuback = UnsubAck {
        packet_id: 1,
        reasons: vec![ReasonCode::NoSubscriptionExisted],
        properties: ReasonProperties::default(),
    };
    let unsuback = Packet::UnsubAck(Box::new(unsuback));
    assert_eq!(hex(&unsuback, V31).unwrap(), bytes("b002 0001"));
    assert_eq!(hex(&unsuback, V5).unwrap(), bytes("b0 ~ 0001 [] 11"));

    let connack = |session_present, reason| {
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties: ConnAckProperties::default() }))
    };
    assert_eq!(hex(&connack(true, ReasonCode::Success), V31).unwrap(), bytes("2002 0000"));
    assert_eq!(hex(&connack(true, ReasonCode::Success), V311).unwrap(), bytes("2002 0100"));
    assert_eq!(hex(&connack(true, ReasonCode::Success), V5).unwrap(), bytes("20 ~ 01 00 []"));
    assert_eq!(hex(&connack(false, ReasonCode::UnsupportedProtocolVersion), V311).unwrap(), bytes("2002 0001"));
    assert!(hex(&connack(true, ReasonCode::NotAuthorized), V5).is_err());
    assert!(hex(&connack(true, ReasonCode::NotAuthorized), V311).is_err());
}

#[test]
fn properties_none_still_write_their_length() {
    let taken_over = Disconnect {
        reason: ReasonCode::SessionTakenOver,
        session_expiry_s: None,
        server_reference: None,
        properties: ReasonProperties::default(),
    };
    assert_eq!(hex(&Packet::Disconnect(Box::new(taken_over.clone())), V5).unwrap(), bytes("e002 8e 00"));
    assert!(hex(&Packet::Disconnect(Box::new(taken_over)), V311).is_err());
    let empty = Ack { packet_id: 1, reason: ReasonCode::Success, properties: Some(Box::default()) };
    assert_eq!(hex(&Packet::PubRec(empty), V5).unwrap(), bytes("5004 0001 00 00"));
}

fn publish() -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(TopicName::new("t").unwrap()),
        packet_id: 1,
        properties: PublishProperties::default(),
        payload: Bytes::new(),
    }
}

#[test]
fn publish_that_cannot_be_encoded() {
    let refused = |version, change: &dyn Fn(&mut Publish)| {
        let mut publish = publish();
        change(&mut publish);
        hex(&Packet::Publish(publish), version).is_err()
    };
    for version in [V31, V311, V5] {
        assert!(!refused(version, &|_| {}));
        assert!(refused(version, &|p| p.packet_id = 0));
        assert!(refused(version, &|p| p.topic = None));
        assert!(refused(version, &|p| {
            p.dup = true;
            p.qos = QoS::AtMostOnce;
        }));
        assert!(refused(version, &|p| p.payload = Bytes::from(vec![0; VARINT_MAX as usize])));
    }
    let alias = |p: &mut Publish| {
        p.topic = None;
        p.properties.topic_alias = Some(1);
    };
    assert!(refused(V311, &alias));
    assert!(!refused(V5, &alias));
    assert!(refused(V5, &|p| p.properties.topic_alias = Some(0)));
    assert!(refused(V5, &|p| p.properties.subscription_ids.push(0)));
    assert!(refused(V5, &|p| p.properties.subscription_ids.push(VARINT_MAX + 1)));
    let (long, payload, forward) = ("x".repeat(65_536), Bytes::new(), ForwardProperties::default());
    for topic in [long.as_str(), "a\0", "a/#", "+"] {
        let publish = PublishRef {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: 0,
            topic_alias: None,
            message_expiry_s: None,
            subscription_ids: &[],
            forward: &forward,
            payload: &payload,
        };
        let mut out = BytesMut::new();
        assert!(publish.encode(V5, &mut out).is_err() && out.is_empty());
    }
}

#[test]
fn others_that_cannot_be_encoded() {
    let base = || connect("10 ~ 'MQTT' 05 c6 003c [] 'c' [] 'w' 'x' 'u' 'p'");
    let refused = |version, change: &dyn Fn(&mut Connect)| {
        let mut connect = base();
        connect.version = version;
        change(&mut connect);
        hex(&Packet::Connect(Box::new(connect)), version).is_err()
    };
    let long = || ByteString::from("x".repeat(65_536));
    for version in [V31, V311, V5] {
        assert!(!refused(version, &|_| {}));
        assert!(refused(version, &|c| c.client_id = long()));
        assert!(refused(version, &|c| c.client_id = "a\0".into()));
        assert!(refused(version, &|c| c.username = Some(long())));
        assert!(refused(version, &|c| c.password = Some(long().into_bytes())));
        assert_eq!(refused(version, &|c| c.username = None), version != V5);
    }
    assert!(refused(V311, &|c| c.version = V5));
    assert!(refused(V31, &|c| c.client_id = "".into()));
    assert!(refused(V5, &|c| c.properties.receive_maximum = Some(0)));
    assert!(refused(V5, &|c| c.properties.maximum_packet_size = Some(0)));
    assert!(refused(V5, &|c| c.properties.authentication_data = Some(Bytes::new())));
    assert!(refused(V5, &|c| c.properties.user = vec![(long(), "".into())]));
    let with_will = |c: &mut Connect, change: &dyn Fn(&mut Will)| change(c.will.as_mut().unwrap());
    assert!(refused(V5, &|c| with_will(c, &|w| w.properties.topic_alias = Some(1))));
    assert!(refused(V5, &|c| with_will(c, &|w| w.payload = long().into_bytes())));

    let filter = || TopicFilter::new("$share/g/a").unwrap();
    let subscribe = |packet_id, filters: usize, no_local, subscription_id| {
        let options = SubscriptionOptions { no_local, ..SubscriptionOptions::default() };
        let filters = vec![SubscribeFilter { filter: filter(), options }; filters];
        Packet::Subscribe(Box::new(Subscribe { packet_id, filters, subscription_id, user: Vec::new() }))
    };
    let unsubscribe = |packet_id, filters: usize| {
        let filters = vec![filter(); filters];
        Packet::Unsubscribe(Box::new(Unsubscribe { packet_id, filters, user: Vec::new() }))
    };
    let suback = |packet_id, reasons: &[ReasonCode]| {
        let properties = ReasonProperties::default();
        Packet::SubAck(Box::new(SubAck { packet_id, reasons: reasons.to_vec(), properties }))
    };
    for version in [V311, V5] {
        assert!(hex(&subscribe(0, 1, false, None), version).is_err());
        assert!(hex(&subscribe(1, 0, false, None), version).is_err());
        assert!(hex(&unsubscribe(0, 1), version).is_err());
        assert!(hex(&unsubscribe(1, 0), version).is_err());
        assert!(hex(&suback(1, &[]), version).is_err());
        assert!(hex(&suback(0, &[ReasonCode::Success]), version).is_err());
        assert!(hex(&suback(1, &[ReasonCode::NoSubscriptionExisted]), version).is_err());
        assert!(hex(&Packet::PubAck(Ack::success(0)), version).is_err());
    }
    assert!(hex(&subscribe(1, 1, true, None), V5).is_err());
    assert!(hex(&subscribe(1, 1, false, Some(0)), V5).is_err());
    assert!(hex(&subscribe(1, 1, false, Some(VARINT_MAX + 1)), V5).is_err());
    assert!(hex(&Packet::PubRel(Ack::with_reason(1, ReasonCode::QuotaExceeded)), V5).is_err());
    let auth = |reason, method: Option<&str>| {
        let properties = ReasonProperties::default();
        Packet::Auth(Box::new(Auth { reason, method: method.map(Into::into), data: None, properties }))
    };
    assert!(hex(&auth(ReasonCode::ContinueAuthentication, None), V5).is_err());
    assert!(hex(&auth(ReasonCode::NotAuthorized, Some("m")), V5).is_err());
    assert!(hex(&auth(ReasonCode::Success, Some("m")), V311).is_err());
}

#[test]
fn a_connack_of_3x_gives_a_reason() {
    for (code, reason) in [
        (1, ReasonCode::UnsupportedProtocolVersion),
        (2, ReasonCode::ClientIdentifierNotValid),
        (3, ReasonCode::ServerUnavailable),
        (4, ReasonCode::BadUserNameOrPassword),
        (5, ReasonCode::NotAuthorized),
    ] {
        match packet(FreshClient(V311), &format!("2002 00 0{code}")) {
            Packet::ConnAck(connack) => assert_eq!(connack.reason, reason),
            other => panic!("{other:?} is not CONNACK"),
        }
        assert_eq!(reason.connack_v3(), code);
    }
}
