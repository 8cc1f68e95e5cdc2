//! CONNECT, keep alive, and the ways in which a connection ends.

use fulmar_mqtt::DecodeError;
use fulmar_mqtt::packet::{Auth, Disconnect, ReasonProperties, Will};

use super::super::will;
use super::*;

fn disconnect(reason: ReasonCode, session_expiry_s: Option<u32>) -> Packet {
    Packet::Disconnect(Box::new(Disconnect {
        reason,
        session_expiry_s,
        server_reference: None,
        properties: ReasonProperties::default(),
    }))
}

#[test]
fn expiry_follows_version_and_bound() {
    let rows = [
        (Version::V311, true, None, 0),
        (Version::V311, false, None, 1000),
        (Version::V31, false, None, 1000),
        (Version::V5, false, None, 0),
        (Version::V5, true, Some(5), 5),
        (Version::V5, true, Some(u32::MAX), 1000),
    ];
    for (version, clean_start, wanted, expected) in rows {
        let mut connect = connect(version);
        connect.clean_start = clean_start;
        connect.properties.session_expiry_s = wanted;
        assert_eq!(
            expiry_s(&connect, &Manners::default(), &limits()),
            expected,
            "{version:?} {clean_start} {wanted:?}"
        );
    }
}

#[test]
fn connack_tells_an_mqtt_5_client_its_bounds() {
    let mut wants = connect(Version::V5);
    wants.properties.session_expiry_s = Some(5000);
    let talk = Talk::new(&wants);
    let Packet::ConnAck(connack) = talk.connack else { panic!() };
    assert_eq!(connack.properties.session_expiry_s, Some(1000), "the bound, as it differs from the wish");
    assert_eq!(connack.properties.receive_maximum, Some(4));
    assert_eq!(connack.properties.maximum_packet_size, Some(1024));
    assert_eq!(connack.properties.topic_alias_maximum, Some(3));
    let Packet::ConnAck(connack) = Talk::v311().connack else { panic!() };
    assert_eq!(connack.properties, Default::default());
}

#[test]
fn while_nobody_could_be_heard_no_time_passes() {
    let mut talk = Talk::v5();
    talk.now.mono_ms += 60_000;
    talk.session.thawed(talk.now);
    assert_eq!(talk.say(Input::Tick), []);
    assert_eq!(talk.session.deadline(), Some(talk.now.mono_ms + 15_000));
}

#[test]
fn keep_alive_is_one_and_a_half_times_and_packets_renew_it() {
    let mut talk = Talk::v5();
    assert_eq!(talk.session.deadline(), Some(talk.now.mono_ms + 15_000));
    talk.now.mono_ms += 14_999;
    assert_eq!(talk.packet(Packet::PingReq), [Output::Send(Packet::PingResp)]);
    talk.now.mono_ms += 14_999;
    assert_eq!(talk.say(Input::Tick), []);
    talk.session.heard(talk.now);
    talk.now.mono_ms += 15_000;
    assert_eq!(ended(&talk.say(Input::Tick)), Some(ReasonCode::KeepAliveTimeout));
    assert_eq!(talk.session.deadline(), None);
}

#[test]
fn the_server_may_shorten_the_keep_alive_of_an_mqtt_5_client() {
    let limits = Limits { keep_alive_s_max: 5, ..limits() };
    for (keep_alive_s, told, effective_ms) in [(10, Some(5), 7_500), (0, Some(5), 7_500), (4, None, 6_000)] {
        let connect = Connect { keep_alive_s, ..connect(Version::V5) };
        let talk = Talk::with(&connect, &limits);
        let Packet::ConnAck(connack) = talk.connack else { panic!() };
        assert_eq!(connack.properties.server_keep_alive_s, told);
        assert_eq!(talk.session.deadline(), Some(1_000 + effective_ms));
    }
    let talk = Talk::with(&Connect { keep_alive_s: 0, ..connect(Version::V311) }, &limits);
    assert_eq!(talk.session.deadline(), None, "a 3.x client cannot be told");
}

#[test]
fn only_a_normal_disconnect_discards_the_will() {
    for (reason, discarded) in [(ReasonCode::Success, true), (ReasonCode::DisconnectWithWill, false)] {
        let outputs = Talk::v5().packet(disconnect(reason, None));
        assert_eq!(outputs, [Output::End { discard_will: discarded, expiry_s: None, reason, taken_over: false }]);
    }
    let outputs = Talk::v311().say(Input::Disconnected);
    assert!(matches!(&outputs[..], [Output::End { discard_will: false, .. }]));
}

#[test]
fn disconnect_may_change_the_expiry_but_not_from_zero() {
    let outputs = Talk::persistent(Version::V5).packet(disconnect(ReasonCode::Success, Some(5000)));
    assert!(matches!(&outputs[..], [Output::End { expiry_s: Some(1000), .. }]));
    let outputs = Talk::v5().packet(disconnect(ReasonCode::Success, Some(5)));
    assert_eq!(ended(&outputs), Some(ReasonCode::ProtocolError));
}

#[test]
fn what_ends_a_connection_is_told_on_mqtt_5_only() {
    let malformed = DecodeError { reason: ReasonCode::MalformedPacket, detail: "bad" };
    let auth =
        Auth { reason: ReasonCode::ReAuthenticate, method: None, data: None, properties: ReasonProperties::default() };
    let rows = [
        (Input::TakenOver, ReasonCode::SessionTakenOver),
        (Input::Close(ReasonCode::ServerShuttingDown), ReasonCode::ServerShuttingDown),
        (Input::Malformed(malformed), ReasonCode::MalformedPacket),
        (Input::Packet(Packet::Auth(Box::new(auth))), ReasonCode::ProtocolError),
        (Input::Packet(Packet::PingResp), ReasonCode::ProtocolError),
    ];
    for (input, reason) in rows {
        assert_eq!(ended(&Talk::v5().say(input.clone())), Some(reason), "{input:?}");
        assert_eq!(ended(&Talk::v311().say(input)), None);
    }
}

#[test]
fn who_is_sent_elsewhere_is_told_where() {
    for (reason, wanted) in
        [(ReasonCode::UseAnotherServer, Some("elsewhere:8883")), (ReasonCode::ServerShuttingDown, None)]
    {
        let outputs = Talk::v5().say(Input::Close(reason));
        let Output::Send(Packet::Disconnect(disconnect)) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(disconnect.server_reference.as_deref(), wanted, "{reason}");
    }
}

#[test]
fn a_reason_string_is_sent_only_to_who_wants_it() {
    let malformed = Input::Malformed(DecodeError { reason: ReasonCode::MalformedPacket, detail: "bad" });
    for (wanted, expected) in [(None, Some("bad")), (Some(true), Some("bad")), (Some(false), None)] {
        let mut connect = connect(Version::V5);
        connect.properties.request_problem_information = wanted;
        let outputs = Talk::new(&connect).say(malformed.clone());
        let Output::Send(Packet::Disconnect(disconnect)) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(disconnect.properties.reason_string.as_deref(), expected);
    }
}

#[test]
fn after_the_end_nothing_is_answered() {
    let mut talk = Talk::v5();
    talk.say(Input::TakenOver);
    assert_eq!(talk.publish("a", QoS::AtLeastOnce, 1), []);
    assert_eq!(talk.say(Input::Disconnected), []);
}

#[test]
fn only_a_session_with_a_newer_owner_is_not_released() {
    for (input, taken) in [
        (Input::TakenOver, true),
        (Input::Close(ReasonCode::SessionTakenOver), false),
        (Input::Close(ReasonCode::AdministrativeAction), false),
    ] {
        let mut talk = Talk::v5();
        let outputs = talk.say(input.clone());
        let [Output::Send(Packet::Disconnect(_)), Output::End { taken_over, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(*taken_over, taken, "{input:?}");
    }
}

#[test]
fn a_will_is_checked_at_connect() {
    let with = |topic: &str, bytes: usize| {
        let mut connect = connect(Version::V5);
        connect.will = Some(Will {
            topic: TopicName::new(topic.to_owned()).unwrap(),
            payload: Bytes::from(vec![0; bytes]),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_s: 3,
            properties: PublishProperties::default(),
        });
        will(&connect, &NoSecrets, &Manners::default(), &limits(), LogTime(1))
    };
    assert_eq!(with("a", 16).unwrap().unwrap().delay_s, 3);
    assert_eq!(with("secret", 1).unwrap_err(), ReasonCode::NotAuthorized);
    assert_eq!(with("a", 17).unwrap_err(), ReasonCode::PacketTooLarge);
    assert_eq!(with(&"/".repeat(9), 1).unwrap_err(), ReasonCode::TopicNameInvalid);
    assert_eq!(will(&connect(Version::V5), &NoSecrets, &Manners::default(), &limits(), LogTime(1)), Ok(None));
}
