//! Generated packets survive encoding and decoding, however the bytes are cut; arbitrary bytes never panic.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::codec::{Decoder, Role, encode};
use crate::fuzz;
use crate::packet::*;
use crate::property::{ForwardProperties, ForwardProperty, PublishProperties};
use crate::reason::ReasonCode;
use crate::topic::{TopicFilter, TopicName};

fn text() -> impl Strategy<Value = ByteString> {
    "[^\\x00]{0,12}".prop_map(ByteString::from)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[^\\x00+#]{1,12}".prop_map(|text| TopicName::new(text).unwrap())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof!["[a-zé日]{0,4}", Just("+".to_owned())];
    let filter =
        (vec(level, 1..4), any::<bool>()).prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" });
    let shared =
        (any::<bool>(), filter).prop_map(|(shared, filter)| if shared { format!("$share/g/{filter}") } else { filter });
    shared.prop_filter_map("well formed", |text| TopicFilter::new(text).ok())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    select(codes).prop_map(|byte| ReasonCode::from_byte(byte).unwrap())
}

fn user() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()), 0..3)
}

fn reason_properties() -> impl Strategy<Value = ReasonProperties> {
    (of(text()), user()).prop_map(|(reason_string, user)| ReasonProperties { reason_string, user })
}

fn forward() -> impl Strategy<Value = ForwardProperties> {
    (of(any::<bool>()), of(text()), of(topic()), of(binary()), user()).prop_map(
        |(format, content, response, data, user)| {
            let mut all: Vec<ForwardProperty> = Vec::new();
            all.extend(format.map(ForwardProperty::PayloadFormat));
            all.extend(content.map(ForwardProperty::ContentType));
            all.extend(user.into_iter().map(|(name, value)| ForwardProperty::User(name, value)));
            all.extend(response.map(ForwardProperty::ResponseTopic));
            all.extend(data.map(ForwardProperty::CorrelationData));
            ForwardProperties::from_properties(&all).unwrap()
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Packet> {
    let properties = (of(any::<u32>()), of(id()), vec(1..=268_435_455u32, 0..4), forward());
    (qos(), any::<(bool, bool)>(), topic(), any::<bool>(), id(), properties, binary()).prop_map(
        move |(qos, (dup, retain), topic, named, packet_id, properties, payload)| {
            let (message_expiry_s, topic_alias, ids, forward) = properties;
            let properties = PublishProperties { message_expiry_s, topic_alias, subscription_ids: ids.into(), forward };
            let properties = if version == Version::V5 { properties } else { PublishProperties::default() };
            Packet::Publish(Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: (named || properties.topic_alias.is_none()).then_some(topic),
                packet_id: if qos == QoS::AtMostOnce { 0 } else { packet_id },
                properties,
                payload,
            })
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (topic(), binary(), qos(), any::<bool>(), any::<u32>(), of(any::<u32>()), forward()).prop_map(
        move |(topic, payload, qos, retain, delay_s, message_expiry_s, forward)| {
            let properties = PublishProperties { message_expiry_s, forward, ..PublishProperties::default() };
            let (delay_s, properties) = if version == Version::V5 { (delay_s, properties) } else { Default::default() };
            Will { topic, payload, qos, retain, delay_s, properties }
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Packet> {
    let flags = (of(any::<u32>()), of(id()), of(1..=u32::MAX), of(any::<u16>()), of(any::<bool>()), of(any::<bool>()));
    let properties = (flags, user(), of((text(), of(binary()))));
    (any::<bool>(), any::<u16>(), text(), of(will(version)), of(text()), of(binary()), properties).prop_map(
        move |(clean_start, keep_alive_s, client_id, will, username, password, (flags, user, authentication))| {
            let v5 = version == Version::V5;
            let (method, data) = authentication.unzip();
            let properties = ConnectProperties {
                session_expiry_s: flags.0,
                receive_maximum: flags.1,
                maximum_packet_size: flags.2,
                topic_alias_maximum: flags.3,
                request_response_information: flags.4,
                request_problem_information: flags.5,
                user,
                authentication_method: method,
                authentication_data: data.flatten(),
            };
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive_s,
                client_id: if client_id.is_empty() && !v5 { "c".into() } else { client_id },
                will,
                password: password.filter(|_| v5 || username.is_some()),
                username,
                properties: if v5 { properties } else { ConnectProperties::default() },
            }))
        },
    )
}

fn connack(version: Version) -> BoxedStrategy<Packet> {
    let of_packet = |session_present, reason, properties| {
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
    };
    if version != Version::V5 {
        let reason = reason(&[0, 0x84, 0x85, 0x88, 0x86, 0x87]);
        return (any::<bool>(), reason)
            .prop_map(move |(session, reason)| {
                let session = session && reason == ReasonCode::Success && version == Version::V311;
                of_packet(session, reason, ConnAckProperties::default())
            })
            .boxed();
    }
    let numbers = (of(any::<u32>()), of(id()), of(1..=u32::MAX), of(any::<u16>()), of(any::<u16>()));
    let flags = any::<[Option<bool>; 5]>();
    let texts = (of(text()), of(text()), of(text()), of(text()), of(text()), of(binary()));
    (any::<bool>(), reason(&[0, 0, 0x80, 0x87, 0x9F]), numbers, flags, texts, user())
        .prop_map(move |(session, reason, numbers, flags, texts, user)| {
            let properties = ConnAckProperties {
                session_expiry_s: numbers.0,
                receive_maximum: numbers.1,
                maximum_packet_size: numbers.2,
                topic_alias_maximum: numbers.3,
                server_keep_alive_s: numbers.4,
                maximum_qos: flags[0].map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                retain_available: flags[1],
                wildcard_subscription_available: flags[2],
                subscription_ids_available: flags[3],
                shared_subscription_available: flags[4],
                assigned_client_id: texts.0,
                reason_string: texts.1,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method: texts.4,
                authentication_data: texts.5,
                user,
            };
            of_packet(session && reason == ReasonCode::Success, reason, properties)
        })
        .boxed()
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack> {
    (id(), reason(codes), of(reason_properties())).prop_map(move |(packet_id, reason, properties)| {
        if version != Version::V5 {
            return Ack::success(packet_id);
        }
        // Present and empty is read as absent.
        let properties = properties.filter(|all| *all != ReasonProperties::default()).map(Box::new);
        Ack { packet_id, reason, properties }
    })
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = select(vec![RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never]);
    (qos(), any::<(bool, bool)>(), handling).prop_map(move |(qos, (no_local, retain_as_published), retain_handling)| {
        match version {
            Version::V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
            _ => SubscriptionOptions { qos, ..SubscriptionOptions::default() },
        }
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet> {
    let filter = (filter(), options(version)).prop_map(|(filter, mut options)| {
        options.no_local &= filter.shared().is_none();
        SubscribeFilter { filter, options }
    });
    (id(), vec(filter, 1..4), of(1..=268_435_455u32), user()).prop_map(move |(packet_id, filters, number, user)| {
        let v5 = version == Version::V5;
        let (subscription_id, user) = if v5 { (number, user) } else { (None, Vec::new()) };
        Packet::Subscribe(Box::new(Subscribe { packet_id, filters, subscription_id, user }))
    })
}

fn suback(version: Version) -> impl Strategy<Value = Packet> {
    let codes: &'static [u8] = match version {
        Version::V31 => &[0, 1, 2],
        Version::V311 => &[0, 1, 2, 0x80],
        Version::V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
    };
    (id(), vec(reason(codes), 1..4), reason_properties()).prop_map(move |(packet_id, reasons, properties)| {
        let properties = if version == Version::V5 { properties } else { ReasonProperties::default() };
        Packet::SubAck(Box::new(SubAck { packet_id, reasons, properties }))
    })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet> {
    (id(), vec(filter(), 1..4), user()).prop_map(move |(packet_id, filters, user)| {
        let user = if version == Version::V5 { user } else { Vec::new() };
        Packet::Unsubscribe(Box::new(Unsubscribe { packet_id, filters, user }))
    })
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet> {
    let codes = vec(reason(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]), 1..4);
    (id(), codes, reason_properties()).prop_map(move |(packet_id, reasons, properties)| {
        let (reasons, properties) = if version == Version::V5 { (reasons, properties) } else { Default::default() };
        Packet::UnsubAck(Box::new(UnsubAck { packet_id, reasons, properties }))
    })
}

/// Reasons and properties that both sides may send, so that one packet suits either.
fn disconnect(version: Version) -> impl Strategy<Value = Packet> {
    (reason(&[0, 0x80, 0x81, 0x82, 0x95]), of(text()), reason_properties()).prop_map(
        move |(reason, server_reference, properties)| {
            let (reason, server_reference, properties) = match version {
                Version::V5 => (reason, server_reference, properties),
                _ => (ReasonCode::Success, None, ReasonProperties::default()),
            };
            Packet::Disconnect(Box::new(Disconnect { reason, session_expiry_s: None, server_reference, properties }))
        },
    )
}

fn auth() -> impl Strategy<Value = Packet> {
    (text(), of(binary()), reason_properties()).prop_map(|(method, data, properties)| {
        let reason = ReasonCode::ContinueAuthentication;
        Packet::Auth(Box::new(Auth { reason, method: Some(method), data, properties }))
    })
}

const PUBACK: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL: &[u8] = &[0, 0x92];

/// A packet and the side that reads it.
fn packet(version: Version) -> impl Strategy<Value = (Role, Packet)> {
    let server = prop_oneof![
        connect(version),
        subscribe(version),
        unsubscribe(version),
        Just(Packet::PingReq),
        disconnect(version),
        if version == Version::V5 { auth().boxed() } else { Just(Packet::PingReq).boxed() },
    ];
    let client = prop_oneof![
        connack(version),
        publish(version),
        suback(version),
        unsuback(version),
        Just(Packet::PingResp),
        ack(version, PUBACK).prop_map(Packet::PubAck),
        ack(version, PUBACK).prop_map(Packet::PubRec),
        ack(version, PUBREL).prop_map(Packet::PubRel),
        ack(version, PUBREL).prop_map(Packet::PubComp),
    ];
    prop_oneof![server.prop_map(|packet| (Role::Server, packet)), client.prop_map(|packet| (Role::Client, packet))]
}

fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V31, Version::V311, Version::V5])
}

fn decoder(role: Role, version: Version, packet: &Packet) -> Decoder {
    match packet {
        Packet::Connect(_) => Decoder::new(role, u32::MAX),
        Packet::ConnAck(_) => {
            let mut decoder = Decoder::new(role, u32::MAX);
            decoder.set_version(version);
            decoder
        }
        _ => Decoder::opened(role, version, u32::MAX),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_survive((version, (role, packet)) in version().prop_flat_map(|v| (Just(v), packet(v)))) {
        let mut out = BytesMut::new();
        prop_assert_eq!(encode(&packet, version, &mut out), Ok(()));
        if let Packet::Publish(publish) = &packet {
            prop_assert_eq!(publish.as_ref().encoded_len(version), out.len());
        }
        let found = decoder(role, version, &packet).decode(&mut out);
        prop_assert_eq!(found, Ok(Some(Decoded::Packet(packet))));
        prop_assert!(out.is_empty());
    }

    #[test]
    fn any_cut_gives_the_same(
        (version, packets) in version().prop_flat_map(|v| (Just(v), vec(packet(v), 1..6))),
        cuts in vec(1..30usize, 1..20),
    ) {
        // One direction only, and nothing that opens a connection.
        let sent: Vec<Packet> = packets
            .into_iter()
            .filter(|(role, packet)| *role == Role::Client && !matches!(packet, Packet::ConnAck(_)))
            .map(|(_, packet)| packet)
            .collect();
        let mut stream = BytesMut::new();
        for packet in &sent {
            prop_assert_eq!(encode(packet, version, &mut stream), Ok(()));
        }
        let mut decoder = Decoder::opened(Role::Client, version, u32::MAX);
        let (mut buffer, mut found, mut cuts) = (BytesMut::new(), Vec::new(), cuts.into_iter().cycle());
        while !stream.is_empty() {
            let cut = cuts.next().unwrap_or(1).min(stream.len());
            buffer.extend_from_slice(&stream.split_to(cut));
            while let Some(Decoded::Packet(packet)) = decoder.decode(&mut buffer).unwrap() {
                found.push(packet);
            }
        }
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn arbitrary_bytes(data in vec(any::<u8>(), 0..200)) {
        fuzz::decode_stream(&data);
        fuzz::round_trip(&data);
        fuzz::forward_properties(&data);
    }

    /// Bytes that get further than random ones: a valid packet with a few bytes changed.
    #[test]
    fn mutated_packets(
        (version, (role, packet)) in version().prop_flat_map(|v| (Just(v), packet(v))),
        changes in vec((any::<u16>(), any::<u8>()), 0..4),
        selector in any::<u8>(),
    ) {
        let start = (!matches!(packet, Packet::Connect(_) | Packet::ConnAck(_))).then_some(version);
        let mut data = BytesMut::from(&[fuzz::selector(start, role, OversizePolicy::Close, 0, 0) | selector & 0xC0][..]);
        prop_assert_eq!(encode(&packet, version, &mut data), Ok(()));
        for (at, byte) in changes {
            let at = 1 + usize::from(at) % (data.len() - 1);
            data[at] = byte;
        }
        fuzz::decode_stream(&data);
        fuzz::round_trip(&data);
    }
}
