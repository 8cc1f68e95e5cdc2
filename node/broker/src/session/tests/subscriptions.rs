//! SUBSCRIBE and UNSUBSCRIBE.

use fulmar_mqtt::packet::{ReasonProperties, RetainHandling, SubAck, UnsubAck, Unsubscribe};

use super::*;
use crate::state::command::Subscription;

fn suback(packet_id: u16, reasons: &[ReasonCode]) -> Output {
    let properties = ReasonProperties::default();
    Output::Send(Packet::SubAck(Box::new(SubAck { packet_id, reasons: reasons.to_vec(), properties })))
}

/// A claim of a session that has subscribed to these.
fn claimed(filters: &[&str]) -> Claimed {
    let subscription = |filter: &&str| Subscription {
        filter: TopicFilter::new((*filter).to_owned()).unwrap(),
        options: SubscriptionOptions::default(),
        id: None,
    };
    Claimed {
        epoch: Epoch(1),
        session_present: true,
        previous: None,
        subscriptions: filters.iter().map(subscription).collect(),
        received: Vec::new(),
        queue_floor: 0,
    }
}

#[test]
fn what_is_resumed_is_judged_again() {
    let mut resumed = claimed(&["a", "down/a", "secret/a", "z"]);
    let revoked = crate::session::revoke(&mut resumed, &NoSecrets);
    assert_eq!(revoked.iter().map(TopicFilter::as_str).collect::<Vec<_>>(), ["secret/a"]);
    assert_eq!(resumed, claimed(&["a", "down/a", "z"]));
    assert!(crate::session::revoke(&mut resumed, &NoSecrets).is_empty());
}

/// Answers the subscribe among the outputs, with what the machine itself knows.
fn stand(talk: &mut Talk, outputs: &[Output]) -> Vec<Output> {
    let [.., Output::Subscribe { token, existed, .. }] = outputs else { panic!("expected a subscribe: {outputs:?}") };
    talk.say(Input::Subscribed { token: *token, existed: existed.clone() })
}

#[test]
fn suback_waits_for_the_routes_and_comes_before_retained_messages() {
    let mut talk = Talk::v5();
    let outputs = talk.packet(subscribe(1, &["a", "b/#"]));
    let outputs = stand(&mut talk, &outputs);
    assert_eq!(outputs[0], suback(1, &[ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1]));
    assert_eq!(outputs[1..].iter().filter(|output| matches!(output, Output::Replay(_))).count(), 2);
}

#[test]
fn each_filter_gets_its_own_answer() {
    let mut talk = Talk::v5();
    let deep = "a/".repeat(9);
    let outputs = talk.packet(subscribe(1, &["a", "secret/#", &deep, "b", "c", "d"]));
    let denied = |filter: &str| Output::Denied(Denial::Subscribe(TopicFilter::new(filter.to_owned()).unwrap()));
    assert_eq!((outputs.len(), &outputs[0]), (2, &denied("secret/#")));
    let reasons = [
        ReasonCode::GrantedQoS1,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS1,
        ReasonCode::QuotaExceeded,
    ];
    assert_eq!(stand(&mut talk, &outputs)[0], suback(1, &reasons));
    let outputs = talk.packet(subscribe(2, &["secret/a"]));
    let answered = suback(2, &[ReasonCode::NotAuthorized]);
    assert_eq!(outputs, [denied("secret/a"), answered], "nothing to route, answered at once");
    let outputs = talk.packet(subscribe(3, &["a"]));
    assert_eq!(stand(&mut talk, &outputs)[0], suback(3, &[ReasonCode::GrantedQoS1]), "a known filter is no new one");
}

#[test]
fn retain_handling_decides_about_the_replay() {
    let rows = [
        (RetainHandling::Always, [true, true]),
        (RetainHandling::IfNew, [true, false]),
        (RetainHandling::Never, [false, false]),
    ];
    for (handling, replays) in rows {
        let mut talk = Talk::v5();
        for expected in replays {
            let Packet::Subscribe(mut packet) = subscribe(1, &["a"]) else { unreachable!() };
            packet.filters[0].options.retain_handling = handling;
            let outputs = talk.packet(Packet::Subscribe(packet));
            let outputs = stand(&mut talk, &outputs);
            assert_eq!(outputs.iter().any(|output| matches!(output, Output::Replay(_))), expected, "{handling:?}");
        }
    }
}

#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    let mut talk = Talk::v311();
    let outputs = talk.packet(subscribe(1, &["$share/g/a"]));
    assert_eq!(stand(&mut talk, &outputs).len(), 1);
}

#[test]
fn unsuback_says_what_there_was() {
    for (mut talk, expected) in
        [(Talk::v5(), vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted]), (Talk::v311(), vec![])]
    {
        let outputs = talk.packet(subscribe(1, &["a"]));
        stand(&mut talk, &outputs);
        let filters = ["a", "z"].map(|filter| TopicFilter::new(filter.to_owned()).unwrap()).to_vec();
        let packet = Unsubscribe { packet_id: 2, filters, user: Vec::new() };
        let outputs = talk.packet(Packet::Unsubscribe(Box::new(packet)));
        let [Output::Unsubscribe { token, existed, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(existed, &[true, false]);
        let outputs = talk.say(Input::Unsubscribed { token: *token, existed: existed.clone() });
        let properties = ReasonProperties::default();
        let unsuback = UnsubAck { packet_id: 2, reasons: expected, properties };
        assert_eq!(outputs, [Output::Send(Packet::UnsubAck(Box::new(unsuback)))]);
        assert_eq!(talk.session.filters().count(), 0);
    }
}

#[test]
fn a_voice_may_grant_less_than_was_asked_for() {
    for (filter, granted) in [("down/#", ReasonCode::Success), ("up/#", ReasonCode::GrantedQoS1)] {
        let mut talk = Talk::v5();
        let outputs = talk.packet(subscribe(1, &[filter]));
        let (lowered, outputs): (Vec<_>, Vec<_>) =
            outputs.into_iter().partition(|output| matches!(output, Output::Denied(Denial::Lowered { .. })));
        assert_eq!(lowered.len(), usize::from(granted == ReasonCode::Success), "{filter}");
        let [Output::Subscribe { subscriptions, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(ReasonCode::granted(subscriptions[0].options.qos), granted, "{filter}");
        assert_eq!(stand(&mut talk, &outputs)[0], suback(1, &[granted]), "{filter}");
    }
}

#[test]
fn what_is_granted_on_a_topic_is_the_most_of_its_filters() {
    let topic = |text: &str| TopicName::new(text.to_owned()).unwrap();
    let mut talk = Talk::v311();
    talk.packet(subscribe(1, &["down/+", "$share/g/down/x/y", "a/b"]));
    for (name, granted) in [
        ("down/x", Some(QoS::AtMostOnce)),
        ("down/x/y", None),
        ("a/b", Some(QoS::AtLeastOnce)),
        ("a", None),
        ("b", None),
    ] {
        assert_eq!(talk.session.granted(&topic(name)), granted, "{name}");
    }
    talk.packet(subscribe(2, &["a/#", "#"]));
    assert_eq!(talk.session.granted(&topic("a/b")), Some(QoS::AtLeastOnce));
}

#[test]
fn an_answer_that_the_client_does_not_take_is_not_sent() {
    let unsubscribe = |filters: &[&str]| {
        let filters = filters.iter().map(|filter| TopicFilter::new((*filter).to_owned()).unwrap()).collect();
        Packet::Unsubscribe(Box::new(Unsubscribe { packet_id: 2, filters, user: Vec::new() }))
    };
    let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // The whole SUBACK or UNSUBACK: a header of 2 or 3 bytes, the packet id, no properties, and the reasons.
    for (filters, bytes) in [(&many[..1], 6), (&many[..124], 129), (&many[..125], 131), (&many[..200], 206)] {
        for packet in [subscribe(1, filters), unsubscribe(filters)] {
            for (most, taken) in [(bytes, true), (bytes - 1, false)] {
                let mut connect = connect(Version::V5);
                connect.properties.maximum_packet_size = Some(most);
                let outputs = Talk::new(&connect).packet(packet.clone());
                match taken {
                    true => assert!(!outputs.iter().any(|output| matches!(output, Output::End { .. })), "{outputs:?}"),
                    false => assert_eq!(ended(&outputs), Some(ReasonCode::PacketTooLarge)),
                }
            }
        }
    }
}
