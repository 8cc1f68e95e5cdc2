//! Where dialects differ from MQTT, and what ends in the platform.

use fulmar_mqtt::packet::{Disconnect, ReasonProperties, SkippedPublish, Will};

use super::super::will;
use super::*;

fn held_to(version: Version, manners: Manners) -> Talk {
    let mut connect = connect(version);
    connect.clean_start = false;
    connect.properties.session_expiry_s = Some(100);
    Talk::held_to(&connect, &limits(), manners)
}

fn connack(talk: &Talk) -> &fulmar_mqtt::packet::ConnAckProperties {
    let Packet::ConnAck(connack) = &talk.connack else { panic!("{:?}", talk.connack) };
    &connack.properties
}

#[test]
fn an_uplink_is_for_the_platform_alone_and_acknowledged_in_turn() {
    for mut talk in [Talk::v311(), Talk::v5()] {
        let first = token(&talk.publish("a", QoS::AtLeastOnce, 1));
        let outputs = talk.publish("up/x", QoS::AtLeastOnce, 2);
        let [Output::Uplink { token: Some(second), topic, payload }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((topic.as_str(), &payload[..]), ("up/x", &b"x"[..]));
        assert_eq!(talk.accept(*second), [], "behind the first");
        assert_eq!(talk.accept(first), [puback(1), puback(2)]);
        let outputs = talk.publish("up/x", QoS::AtMostOnce, 0);
        assert!(matches!(&outputs[..], [Output::Uplink { token: None, .. }]), "{outputs:?}");
        let outputs = talk.publish("up/x", QoS::ExactlyOnce, 3);
        let [Output::Uplink { token: Some(third), .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(talk.publish("up/x", QoS::ExactlyOnce, 3), [], "not read twice");
        assert_eq!(talk.accept(*third), [pubrec(3), pubrec(3)]);
    }
}

#[test]
fn a_publish_above_the_qos_of_the_dialect_ends_the_connection() {
    let manners = Manners { qos_max: QoS::AtLeastOnce, ..Manners::default() };
    for (version, told) in [(Version::V31, None), (Version::V311, None), (Version::V5, Some(0x9b))] {
        for topic in ["a", "up/x", "secret"] {
            let mut talk = held_to(version, manners);
            assert_eq!(talk.publish("a", QoS::AtLeastOnce, 1).len(), 1);
            let outputs = talk.publish(topic, QoS::ExactlyOnce, 2);
            assert!(!outputs.iter().any(|one| matches!(one, Output::Send(Packet::PubRec(_)))), "{outputs:?}");
            assert_eq!(ended(&outputs).map(|reason| reason as u8), told, "{version:?} {topic}");
        }
        let mut talk = held_to(version, manners);
        let skipped = SkippedPublish { qos: QoS::ExactlyOnce, packet_id: 2, size: 9999 };
        assert_eq!(ended(&talk.say(Input::Skipped(skipped))).map(|reason| reason as u8), told, "{version:?}");
    }
    let said = |manners| connack(&held_to(Version::V5, manners)).maximum_qos;
    assert_eq!((said(manners), said(Manners::default())), (Some(QoS::AtLeastOnce), None));
    assert_eq!(connack(&held_to(Version::V311, manners)).maximum_qos, None);
}

#[test]
fn retain_counts_for_nothing_where_there_is_none() {
    for (no_retain, version) in
        [(true, Version::V5), (true, Version::V311), (false, Version::V5), (false, Version::V311)]
    {
        let mut talk = held_to(version, Manners { no_retain, ..Manners::default() });
        let told = (version == Version::V5 && no_retain).then_some(false);
        assert_eq!(connack(&talk).retain_available, told, "{version:?}");
        let Packet::Publish(mut packet) = publish("a", QoS::AtMostOnce, 0) else { unreachable!() };
        packet.retain = true;
        let outputs = talk.packet(Packet::Publish(packet));
        let [Output::Publish { publication, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(publication.retain, !no_retain, "{version:?}");
    }
}

#[test]
fn a_will_is_held_to_the_manners() {
    let with = |topic: &str, qos, manners: Manners| {
        let mut connect = connect(Version::V311);
        connect.will = Some(Will {
            topic: TopicName::new(topic.to_owned()).unwrap(),
            payload: Bytes::from_static(b"x"),
            qos,
            retain: true,
            delay_s: 0,
            properties: PublishProperties::default(),
        });
        will(&connect, &NoSecrets, &manners, &limits(), LogTime(1)).map(|will| will.map(|w| w.publication.retain))
    };
    let plain = Manners::default();
    for (topic, qos, manners, expected) in [
        ("a", QoS::ExactlyOnce, plain, Ok(Some(true))),
        ("up/x", QoS::AtMostOnce, plain, Err(ReasonCode::NotAuthorized)),
        ("secret", QoS::ExactlyOnce, Manners { no_will: true, ..plain }, Ok(None)),
        ("a", QoS::AtLeastOnce, Manners { no_retain: true, ..plain }, Ok(Some(false))),
        ("a", QoS::ExactlyOnce, Manners { qos_max: QoS::AtLeastOnce, ..plain }, Err(ReasonCode::QoSNotSupported)),
    ] {
        assert_eq!(with(topic, qos, manners), expected, "{topic} {manners:?}");
    }
}

#[test]
fn keep_alive_and_its_grace_are_those_of_the_dialect() {
    let plain = Manners::default();
    for (manners, silence_ms, told) in [
        (plain, Some(15_000), None),
        (Manners { keep_alive_grace_s: Some(5), ..plain }, Some(15_000), None),
        (Manners { keep_alive_grace_s: Some(0), ..plain }, Some(10_000), None),
        (Manners { keep_alive_s: Some(30), ..plain }, Some(45_000), Some(30)),
        (Manners { keep_alive_s: Some(30), keep_alive_grace_s: Some(5), ..plain }, Some(35_000), Some(30)),
        (Manners { keep_alive_s: Some(10), ..plain }, Some(15_000), None),
        (Manners { keep_alive_s: Some(0), keep_alive_grace_s: Some(5), ..plain }, None, Some(0)),
    ] {
        for version in [Version::V311, Version::V5] {
            let talk = held_to(version, manners);
            let deadline = silence_ms.map(|silence| talk.now.mono_ms + silence);
            assert_eq!(talk.session.deadline(), deadline, "{version:?} {manners:?}");
            let told = told.filter(|_| version == Version::V5);
            assert_eq!(connack(&talk).server_keep_alive_s, told, "{version:?} {manners:?}");
        }
    }
}

#[test]
fn a_muted_oversize_publish_is_not_acknowledged() {
    for version in [Version::V311, Version::V5] {
        let mut talk = held_to(version, Manners { mute_oversize: true, ..Manners::default() });
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(talk.say(Input::Skipped(SkippedPublish { qos, packet_id: 2, size: 9999 })), [], "{version:?}");
        }
        assert_eq!(talk.publish("a", QoS::AtLeastOnce, 3).len(), 1, "it goes on");
    }
}

#[test]
fn a_clean_session_ends_with_its_connection_whatever_the_client_says() {
    let clean = Manners { clean: true, ..Manners::default() };
    for version in [Version::V311, Version::V5] {
        let mut talk = held_to(version, clean);
        assert!(!talk.session.persistent(), "{version:?}");
        assert_eq!(connack(&talk).session_expiry_s, (version == Version::V5).then_some(0));
        let properties = ReasonProperties::default();
        let session_expiry_s = (version == Version::V5).then_some(50);
        let leaves = Disconnect { reason: ReasonCode::Success, session_expiry_s, server_reference: None, properties };
        let outputs = talk.packet(Packet::Disconnect(Box::new(leaves)));
        let [Output::End { expiry_s, reason, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((*expiry_s, *reason), (None, ReasonCode::Success), "{version:?}");
    }
}

/// Hears `app/...` as `$push/app/...` of a group, and says nothing.
#[derive(Debug)]
struct Apart(&'static str);

impl Voice for Apart {
    fn publishing(&self, _topic: &TopicName) -> Publishing {
        Publishing::Close
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        let granted = filter.as_str().starts_with(self.0);
        if granted { Subscribing::Grant(QoS::AtMostOnce) } else { Subscribing::Deny }
    }

    fn routed(&self, filter: &TopicFilter) -> Option<TopicFilter> {
        TopicFilter::new(format!("$share/g/$push/{filter}")).ok()
    }
}

#[test]
fn filters_are_known_to_the_router_by_another_name() {
    let manners = Manners { subscriptions_max: Some(2), ..Manners::default() };
    let mut talk = held_to(Version::V311, manners);
    talk.session.speak(Arc::new(Apart("app/")));
    let outputs = talk.packet(subscribe(1, &["app/a", "else", "app/b", "app/c"]));
    let (lowered, outputs): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|output| matches!(output, Output::Denied(Denial::Lowered { .. })));
    assert_eq!(lowered.len(), 2, "QoS 0 is less than was asked for");
    let [Output::Denied(Denial::Subscribe(denied)), Output::Subscribe { token, subscriptions, .. }] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert_eq!(denied.as_str(), "else", "by the client's own");
    let routed: Vec<&str> = subscriptions.iter().map(|one| one.filter.as_str()).collect();
    assert_eq!(routed, ["$share/g/$push/app/a", "$share/g/$push/app/b"]);
    let outputs = talk.say(Input::Subscribed { token: *token, existed: vec![false, false] });
    let [Output::Send(Packet::SubAck(suback))] = &outputs[..] else { panic!("{outputs:?}") };
    let granted = ReasonCode::Success;
    let reasons = [granted, ReasonCode::NotAuthorized, granted, ReasonCode::QuotaExceeded];
    assert_eq!(suback.reasons, reasons, "a bound of the dialect, below the session's");
    let filters = vec![TopicFilter::new("app/a").unwrap()];
    let unsubscribe = fulmar_mqtt::packet::Unsubscribe { packet_id: 2, filters, user: Vec::new() };
    let outputs = talk.packet(Packet::Unsubscribe(Box::new(unsubscribe)));
    let [Output::Unsubscribe { filters, existed, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((filters[0].as_str(), &existed[..]), ("$share/g/$push/app/a", &[true][..]));
    // A later voice decides about what is asked from then on.
    talk.session.speak(Arc::new(Apart("new/")));
    let outputs = talk.packet(subscribe(3, &["app/a"]));
    assert!(matches!(&outputs[..], [Output::Denied(_), Output::Send(Packet::SubAck(_))]), "{outputs:?}");
}

#[test]
fn a_publish_of_who_may_say_nothing_ends_the_connection() {
    for (version, told) in [(Version::V311, None), (Version::V5, Some(ReasonCode::NotAuthorized))] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut talk = held_to(version, Manners::default());
            talk.session.speak(Arc::new(Apart("app/")));
            let outputs = talk.publish("app/a", qos, 1);
            assert!(matches!(&outputs[0], Output::Denied(Denial::Publish(_))), "{outputs:?}");
            assert!(!outputs.contains(&puback(1)), "{outputs:?}");
            assert_eq!(ended(&outputs), told);
        }
    }
}
