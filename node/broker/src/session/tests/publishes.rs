//! PUBLISH and its acknowledgements.

use bytestring::ByteString;
use fulmar_mqtt::packet::{ReasonProperties, SkippedPublish};

use super::*;

/// What an MQTT 5 client is told.
fn no_room(packet_id: u16) -> Ack {
    let text = "there is no room for it: packet size, queue, replicated bytes or disk";
    let properties = ReasonProperties { reason_string: Some(ByteString::from_static(text)), user: Vec::new() };
    Ack { properties: Some(Box::new(properties)), ..Ack::with_reason(packet_id, ReasonCode::QuotaExceeded) }
}

#[test]
fn what_the_platform_reads_may_take_a_right_away() {
    /// May publish until something was for the platform.
    #[derive(Debug, Default)]
    struct Once(std::sync::atomic::AtomicBool);
    impl Voice for Once {
        fn publishing(&self, topic: &TopicName) -> Publishing {
            let gone = self.0.fetch_or(topic.as_str() == "up", std::sync::atomic::Ordering::AcqRel);
            match topic.as_str() {
                "up" => Publishing::Platform,
                _ if gone => Publishing::Deny,
                _ => Publishing::Route,
            }
        }
        fn subscribing(&self, _filter: &TopicFilter) -> Subscribing {
            Subscribing::Deny
        }
    }
    let mut talk = Talk::v5();
    talk.session.voice = Arc::new(Once::default());
    for (topic, routed, denied) in
        [("a", true, false), ("a", true, false), ("up", false, false), ("a", false, true), ("a", false, true)]
    {
        let outputs = talk.publish(topic, QoS::AtMostOnce, 0);
        assert_eq!(outputs.iter().any(|output| matches!(output, Output::Publish { .. })), routed, "{outputs:?}");
        assert_eq!(outputs.iter().any(|output| matches!(output, Output::Denied(_))), denied, "{outputs:?}");
    }
}

#[test]
fn qos_1_is_acknowledged_when_it_has_been_taken() {
    for mut talk in [Talk::v311(), Talk::v5()] {
        let outputs = talk.publish("a", QoS::AtLeastOnce, 7);
        assert_eq!(talk.accept(token(&outputs)), [puback(7)]);
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_their_publishes() {
    let mut talk = Talk::v5();
    let first = token(&talk.publish("a", QoS::AtLeastOnce, 1));
    let second = token(&talk.publish("a", QoS::ExactlyOnce, 2));
    let third = token(&talk.publish("a", QoS::AtLeastOnce, 3));
    assert_eq!(talk.accept(third), []);
    assert_eq!(talk.accept(second), []);
    assert_eq!(talk.accept(first), [puback(1), pubrec(2), puback(3)]);
}

#[test]
fn qos_2_is_published_once_however_often_it_comes() {
    let mut talk = Talk::v311();
    let first = token(&talk.publish("a", QoS::ExactlyOnce, 9));
    assert_eq!(talk.accept(first), [pubrec(9)]);
    assert_eq!(talk.publish("a", QoS::ExactlyOnce, 9), [pubrec(9)]);
    assert_eq!(talk.packet(Packet::PubRel(Ack::success(9))), [pubcomp(9)]);
    let again = talk.publish("a", QoS::ExactlyOnce, 9);
    assert_eq!(talk.accept(token(&again)), [pubrec(9)]);
}

#[test]
fn qos_2_that_is_still_being_taken_is_not_published_again() {
    let mut talk = Talk::persistent(Version::V311);
    let first = token(&talk.publish("a", QoS::ExactlyOnce, 9));
    assert_eq!(talk.publish("a", QoS::ExactlyOnce, 9), []);
    assert_eq!(talk.accept(first), [pubrec(9), pubrec(9)]);
}

#[test]
fn a_persistent_session_commits_before_pubcomp() {
    let mut talk = Talk::persistent(Version::V5);
    let first = token(&talk.publish("a", QoS::ExactlyOnce, 9));
    talk.accept(first);
    assert_eq!(talk.packet(Packet::PubRel(Ack::success(9))), [Output::ReleaseReceived { packet_id: 9 }]);
    assert_eq!(talk.say(Input::Released { packet_id: 9 }), [pubcomp(9)]);
}

#[test]
fn an_unknown_pubrel_is_answered() {
    let outputs = Talk::v5().packet(Packet::PubRel(Ack::success(5)));
    assert_eq!(outputs, [Output::Send(Packet::PubComp(Ack::with_reason(5, ReasonCode::PacketIdentifierNotFound)))]);
    assert_eq!(Talk::v311().packet(Packet::PubRel(Ack::success(5))), [pubcomp(5)]);
}

#[test]
fn an_mqtt_5_client_beyond_receive_maximum_is_cut() {
    let mut talk = Talk::v5();
    for id in 1..=4 {
        talk.publish("a", QoS::AtLeastOnce, id);
    }
    assert_eq!(talk.publish("a", QoS::AtMostOnce, 0).len(), 1, "QoS 0 takes no slot");
    assert_eq!(ended(&talk.publish("a", QoS::AtLeastOnce, 5)), Some(ReasonCode::ReceiveMaximumExceeded));
    assert!(talk.session.ended());
}

#[test]
fn unreleased_qos_2_counts_towards_receive_maximum() {
    let mut talk = Talk::v5();
    for id in 1..=4 {
        let taken = token(&talk.publish("a", QoS::ExactlyOnce, id));
        talk.accept(taken);
    }
    assert_eq!(talk.publish("a", QoS::ExactlyOnce, 4), [pubrec(4)], "a resent one takes no further slot");
    assert_eq!(ended(&talk.publish("a", QoS::AtLeastOnce, 5)), Some(ReasonCode::ReceiveMaximumExceeded));
}

#[test]
fn a_3_x_client_with_a_full_ring_waits_and_goes_on_in_order() {
    let mut talk = Talk::v311();
    let tokens: Vec<Token> = (1..=4).map(|id| token(&talk.publish("a", QoS::AtLeastOnce, id))).collect();
    assert_eq!(talk.publish("b", QoS::AtLeastOnce, 5), []);
    assert!(talk.session.paused());
    assert_eq!(talk.publish("c", QoS::AtMostOnce, 0), [], "nothing overtakes what is held");
    assert_eq!(talk.packet(Packet::PingReq), [Output::Send(Packet::PingResp)]);
    let outputs = talk.accept(tokens[0]);
    assert_eq!(outputs[0], puback(1));
    let topics: Vec<&str> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Publish { publication, .. } => Some(publication.topic.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(topics, ["b", "c"]);
    assert!(!talk.session.paused());
}

#[test]
fn a_3_x_client_that_waits_too_long_is_closed() {
    let mut talk = Talk::v311();
    for id in 1..=5 {
        talk.publish("a", QoS::AtLeastOnce, id);
    }
    let deadline = talk.session.deadline().unwrap();
    assert_eq!(deadline, talk.now.mono_ms + super::super::PAUSE_MS_MAX);
    talk.now.mono_ms = deadline - 1;
    assert_eq!(talk.say(Input::Tick), []);
    talk.now.mono_ms = deadline;
    assert_eq!(ended(&talk.say(Input::Tick)), None, "3.x has no DISCONNECT from the server");
}

#[test]
fn a_topic_alias_stands_for_the_topic_it_was_given() {
    let mut talk = Talk::v5();
    let with_alias = |topic: &str, alias| {
        let Packet::Publish(mut packet) = publish(topic, QoS::AtMostOnce, 0) else { unreachable!() };
        packet.properties.topic_alias = Some(alias);
        Packet::Publish(packet)
    };
    talk.packet(with_alias("a/b", 3));
    let outputs = talk.packet(with_alias("", 3));
    assert!(matches!(&outputs[..], [Output::Publish { publication, .. }] if publication.topic.as_str() == "a/b"));
    talk.packet(with_alias("c", 3));
    let outputs = talk.packet(with_alias("", 3));
    assert!(matches!(&outputs[..], [Output::Publish { publication, .. }] if publication.topic.as_str() == "c"));
    assert_eq!(ended(&talk.packet(with_alias("", 2))), Some(ReasonCode::TopicAliasInvalid));
    assert_eq!(ended(&Talk::v5().packet(with_alias("a", 4))), Some(ReasonCode::TopicAliasInvalid));
}

#[test]
fn what_is_not_allowed_is_refused_as_the_version_can() {
    let mut v5 = Talk::v5();
    let refused = Output::Send(Packet::PubAck(Ack::with_reason(3, ReasonCode::NotAuthorized)));
    let denied = Output::Denied(Denial::Publish(TopicName::new("secret/x").unwrap()));
    assert_eq!(v5.publish("secret/x", QoS::AtLeastOnce, 3), [denied.clone(), refused]);
    assert_eq!(v5.publish("secret/x", QoS::AtMostOnce, 0), std::slice::from_ref(&denied));
    let mut v311 = Talk::v311();
    assert_eq!(v311.publish("secret/x", QoS::AtLeastOnce, 3), [denied, puback(3)]);
    let deep = "/".repeat(8);
    assert_eq!(
        v5.publish(&deep, QoS::AtLeastOnce, 4),
        [Output::Send(Packet::PubAck(Ack::with_reason(4, ReasonCode::TopicNameInvalid)))]
    );
    assert_eq!(ended(&v5.publish(&deep, QoS::AtMostOnce, 0)), Some(ReasonCode::TopicNameInvalid));
    assert_eq!(ended(&v311.publish(&deep, QoS::AtLeastOnce, 4)), None);
}

#[test]
fn a_refusal_reaches_an_mqtt_5_client_and_closes_a_3_x_client_unacknowledged() {
    let quota = |token| Input::Accepted { token, reason: ReasonCode::QuotaExceeded };
    let mut v5 = Talk::v5();
    let taken = token(&v5.publish("a", QoS::AtLeastOnce, 1));
    let expected = Output::Send(Packet::PubAck(no_room(1)));
    assert_eq!(v5.say(quota(taken)), [expected]);
    let mut v311 = Talk::v311();
    let taken = token(&v311.publish("a", QoS::AtLeastOnce, 1));
    let outputs = v311.say(quota(taken));
    assert!(matches!(&outputs[..], [Output::End { .. }]), "{outputs:?}");
}

#[test]
fn what_is_too_large_to_keep_ends_the_connection() {
    let mut talk = Talk::v5();
    let taken = token(&talk.publish("a", QoS::AtLeastOnce, 1));
    let outputs = talk.say(Input::Accepted { token: taken, reason: ReasonCode::PacketTooLarge });
    assert_eq!(ended(&outputs), Some(ReasonCode::PacketTooLarge));
}

#[test]
fn a_refused_qos_2_publish_leaves_its_packet_id_free() {
    let mut talk = Talk::v5();
    let taken = token(&talk.publish("a", QoS::ExactlyOnce, 1));
    talk.say(Input::Accepted { token: taken, reason: ReasonCode::QuotaExceeded });
    token(&talk.publish("a", QoS::ExactlyOnce, 1));
}

#[test]
fn a_skipped_publish_is_answered() {
    let skipped = |qos, packet_id| Input::Skipped(SkippedPublish { qos, packet_id, size: 9999 });
    let mut v5 = Talk::v5();
    let too_large = no_room(2);
    assert_eq!(v5.say(skipped(QoS::AtMostOnce, 0)), []);
    assert_eq!(v5.say(skipped(QoS::AtLeastOnce, 2)), [Output::Send(Packet::PubAck(too_large.clone()))]);
    assert_eq!(v5.say(skipped(QoS::ExactlyOnce, 2)), [Output::Send(Packet::PubRec(too_large))]);
    let mut v311 = Talk::v311();
    assert_eq!(v311.say(skipped(QoS::ExactlyOnce, 2)), [pubrec(2)]);
    assert_eq!(v311.packet(Packet::PubRel(Ack::success(2))), [pubcomp(2)]);
}

#[test]
fn message_expiry_becomes_a_point_of_log_time() {
    let mut talk = Talk::v5();
    let Packet::Publish(mut packet) = publish("a", QoS::AtMostOnce, 0) else { unreachable!() };
    packet.properties.message_expiry_s = Some(5);
    let outputs = talk.packet(Packet::Publish(packet));
    let [Output::Publish { publication, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(publication.expires_at, Some(LogTime(55_000)));
    assert_eq!(publication.expiry_left_s(LogTime(51_001)), Some(4));
}
