use fulmar_mqtt::packet::{OversizePolicy, Version};
use fulmar_mqtt::{QoS, ReasonCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::call::{Firmware, broadcast, control, offer_firmware, request};
use crate::dialect::fixture::{
    CERTIFICATE_SHA1, Client, NOW_MS, alter, apply, certificate_only, may_subscribe, publishing, registry, sent, shown,
    shown_alternative, tell,
};
use crate::dialect::{Publishing, Told};
use crate::registry::Registry;
use crate::{Admission, Dialect, Secret};

const ID: &str = "ABCDE12345dev001";
const USER: &str = "ABCDE12345dev001;12010126;abcde;4102444800";
const SHA256: &str = "0c141eb1a62dc19abf2b081286b57375fc2efd50b9d8f64e5432b6d795ffcb00;hmacsha256";
const SHA1: &str = "8b24f077480ec1e02bc1a945bc19c23d93cd41d8;hmacsha1";

fn dev001() -> Client {
    Client::new(ID, USER, SHA256)
}

fn admitted(registry: &Registry) -> Admission {
    dev001().admit(registry).unwrap()
}

#[test]
fn vectors() {
    let registry = registry();
    let tencent = Ok(Dialect::Tencent);
    let of = |user: &str, password: &str| Client::new(ID, user, password);
    let past = "ABCDE12345dev001;12010126;abcde;1500000000";
    let signed = |digest, user: &str| {
        let name = if digest == super::Digest::Sha1 { "hmacsha1" } else { "hmacsha256" };
        let token = hex::encode(super::hmac(digest, b"0123456789abcdef", user.as_bytes()));
        Client::new(ID, user, &format!("{token};{name}"))
    };
    let at = |now_s: u64, client: Client| Client { now_ms: now_s * 1000, ..client };
    let python =
        of("ABCDE12345dev001;21010406;KHyv6;1795228077430", "67e2583b37cf5ff95b6345d0515b9f75539ba280;hmacsha1");
    let c = "ABCDE12345dev001;21010406;cg0mF;92233720368547758";
    for (what, client, outcome) in [
        ("Python over TCP", Client { version: Version::V31, ..python }, tencent),
        (
            "Python over WS",
            of("ABCDE12345dev001;21010406;A0QnL;1795228081222", "477434282cf0d531c6d33e0a7aeb819839d06fad;hmacsha1"),
            tencent,
        ),
        (
            "Python with certificate, by its token",
            of("ABCDE12345dev001;21010406;cj2IY;1795228085029", "7c767952c67b15eeaba70985bf703aa1a8e4d884;hmacsha1"),
            tencent,
        ),
        ("C over TCP", of(c, "0ded0027dc0661e2a8ecc7c19eeef8663e565f72;hmacsha1"), tencent),
        (
            "C over WS",
            of(
                "ABCDE12345dev001;21010406;3Eu0l;92233720368547758",
                "cb65b4d86c313aa44848bbee78b29c782394f0dd;hmacsha1",
            ),
            tencent,
        ),
        ("SHA-256", of(USER, SHA256), tencent),
        ("SHA-1", of(USER, SHA1), tencent),
        (
            "upper case",
            of(
                USER,
                &SHA1.replace("8b24f077480ec1e02bc1a945bc19c23d93cd41d8", "8B24F077480EC1E02BC1A945BC19C23D93CD41D8"),
            ),
            tencent,
        ),
        ("MQTT 5", Client { version: Version::V5, ..dev001() }, tencent),
        (
            "expiry beyond 64 bits",
            signed(super::Digest::Sha256, "ABCDE12345dev001;1;a;99999999999999999999999999"),
            tencent,
        ),
        ("not yet expired", at(1_500_000_000, signed(super::Digest::Sha1, past)), tencent),
        ("expired", at(1_500_000_001, signed(super::Digest::Sha1, past)), Err(4)),
        ("expired", signed(super::Digest::Sha1, past), Err(4)),
        ("another connid", of("ABCDE12345dev001;12010126;abcdf;4102444800", SHA256), Err(4)),
        ("the other digest", of(USER, &SHA1.replace("sha1", "sha256")), Err(4)),
        ("wrong key", signed(super::Digest::Sha1, USER).with_password(|token| token.replacen('8', "9", 1)), Err(4)),
        ("no digest", of(USER, "8b24f077480ec1e02bc1a945bc19c23d93cd41d8"), Err(4)),
        ("an RSA signature", of(USER, "8b24;rsa-sha256"), Err(4)),
        ("no password", Client { password: None, ..dev001() }, Err(4)),
        ("an empty one", of(USER, ""), Err(4)),
        ("no user name", Client { username: None, ..dev001() }, Err(4)),
        ("three fields", of("ABCDE12345dev001;12010126;abcde", SHA256), Err(4)),
        ("five fields", of("ABCDE12345dev001;12010126;abcde;1;1", SHA256), Err(4)),
        ("an expiry that is no number", of("ABCDE12345dev001;12010126;abcde;soon", SHA256), Err(4)),
        ("a foreign client id", Client::new("ABCDE12345dev002", USER, SHA256), Err(4)),
        ("a client id that means nothing", Client::new("x", USER, SHA256), Err(4)),
        ("unknown device", Client::new("ABCDE12345dev009", "ABCDE12345dev009;1;a;4102444800", SHA256), Err(5)),
        ("unknown product", Client::new("ABCDE12346dev001", "ABCDE12346dev001;1;a;4102444800", SHA256), Err(5)),
        ("keep alive of 0", Client { keep_alive_s: 0, ..dev001() }, tencent),
        ("keep alive of 900", Client { keep_alive_s: 900, ..dev001() }, tencent),
        ("keep alive of 901", Client { keep_alive_s: 901, ..dev001() }, Err(2)),
        ("a generic client", Client::new("ABCDE12345", "ann", "ann's"), Ok(Dialect::Generic)),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{what}: {client:?}");
    }
}

#[test]
fn the_device_decides() {
    let mut registry = registry();
    alter(&mut registry, "ABCDE12345_dev001", |device| device.auth.secure_access = true);
    assert_eq!(dev001().outcome(&registry), Err(5));
    let encrypted = Client { encrypted: true, ..dev001() };
    assert_eq!(encrypted.outcome(&registry), Ok(Dialect::Tencent));
    alter(&mut registry, "ABCDE12345_dev001", |device| device.frozen = true);
    assert_eq!(encrypted.outcome(&registry), Err(5));
    alter(&mut registry, "ABCDE12345_dev001", |device| {
        device.frozen = false;
        device.gateway_id = "ABCDE12345_dev002".into();
    });
    assert_eq!(encrypted.outcome(&registry), Err(5));
    alter(&mut registry, "ABCDE12345_dev001", |device| {
        device.gateway_id = "".into();
        device.auth.secret = Some(Secret::new("no base64!"));
    });
    assert_eq!(encrypted.outcome(&registry), Err(4));
}

#[test]
fn certificates() {
    let mut registry = registry();
    alter(&mut registry, "ABCDE12345_dev001", |device| device.auth = certificate_only());
    let with = |shown| Client { password: None, encrypted: true, shown, ..dev001() };
    for (what, client, outcome) in [
        ("common name", with(Some(shown(&["any"]))), Ok(Dialect::Tencent)),
        ("alternative name", with(Some(shown_alternative())), Ok(Dialect::Tencent)),
        (
            "the password is not looked at",
            Client { password: Some("x;y".into()), ..with(Some(shown(&["any"]))) },
            Ok(Dialect::Tencent),
        ),
        ("vouched for by nobody", with(Some(shown(&[]))), Err(5)),
        ("by another product's authority", with(Some(shown(&["of prod1"]))), Err(5)),
        ("none", with(None), Err(5)),
        ("a token instead", Client { encrypted: true, ..dev001() }, Err(5)),
        ("no TLS", Client { encrypted: false, ..with(Some(shown(&["any"]))) }, Err(5)),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{what}");
    }
    assert_eq!(with(None).admit(&registry).unwrap_err().reason, ReasonCode::NotAuthorized);
    // Another device's, which names this one's: the registered one counts.
    for (fingerprint, outcome) in [(CERTIFICATE_SHA1, Ok(Dialect::Tencent)), ("00", Err(5))] {
        alter(&mut registry, "ABCDE12345_dev001", |device| device.auth.fingerprint = Some(fingerprint.into()));
        assert_eq!(with(Some(shown(&["any"]))).outcome(&registry), outcome);
    }
    // Named after another device.
    alter(&mut registry, "ABCDE12345_dev002", |device| device.auth = certificate_only());
    let user = "ABCDE12345dev002;1;a;4102444800";
    let other =
        Client { client_id: "ABCDE12345dev002".into(), username: Some(user.into()), ..with(Some(shown(&["any"]))) };
    assert_eq!(other.outcome(&registry), Err(5));
}

#[test]
fn manners() {
    let admission = admitted(&registry());
    let manners = admission.manners;
    assert_eq!((&*admission.identity, manners.qos_max), ("ABCDE12345_dev001", QoS::AtLeastOnce));
    assert!(manners.no_will && manners.no_retain && manners.mute_oversize && !manners.clean);
    let (bytes, policy) = admission.oversize.unwrap();
    assert!((16 * 1024..17 * 1024).contains(&bytes) && policy == OversizePolicy::Skip);
}

#[test]
fn permissions() {
    use Publishing::{Deny, Platform, Route};
    let admission = admitted(&registry());
    let rows = [
        ("{}/control", Deny, true),
        ("{}/event", Platform, false),
        ("{}/data", Route, true),
        ("{}/info", Route, false),
        ("{}/set/a", Deny, true),
        ("{}/both", Route, true),
        ("{}/other", Deny, false),
        ("{}/set/a/b", Deny, false),
        ("{}", Deny, false),
        ("{}/", Deny, false),
        ("/{}/data", Deny, false),
        ("$shadow/operation/{}", Platform, false),
        ("$shadow/operation/result/{}", Deny, true),
        ("$ota/report/{}", Platform, false),
        ("$ota/update/{}", Deny, true),
        ("$sys/operation/{}", Platform, false),
        ("$sys/operation/result/{}", Deny, true),
        ("$rrpc/rxd/{}/17", Deny, true),
        ("$rrpc/txd/{}/17", Platform, false),
        ("$rrpc/txd/{}", Deny, false),
        ("$rrpc/txd/{}/", Deny, false),
        ("$rrpc/txd/{}/1/7", Deny, false),
        ("$broadcast/rxd/{}", Deny, true),
        ("$config/operation/{}", Platform, false),
        ("$config/operation/result/{}", Deny, true),
        ("$log/operation/{}", Platform, false),
        ("$log/operation/result/{}", Deny, true),
        ("$gateway/operation/{}", Platform, false),
        ("$gateway/operation/result/{}", Deny, true),
        ("$resource/up/service/{}", Platform, false),
        ("$resource/down/service/{}", Deny, true),
        ("$template/operation/{}", Platform, false),
        ("$template/operation/result/{}", Deny, true),
        ("$thing/up/property/{}", Platform, false),
        ("$thing/up/event/{}", Platform, false),
        ("$thing/up/action/{}", Platform, false),
        ("$thing/up/service/{}", Platform, false),
        ("$thing/up/raw/{}", Platform, false),
        ("$thing/up/other/{}", Deny, false),
        ("$thing/down/property/{}", Deny, true),
        ("$thing/down/event/{}", Deny, true),
        ("$thing/down/action/{}", Deny, true),
        ("$thing/down/service/{}", Deny, true),
        ("$thing/down/raw/{}", Deny, true),
        ("$SYS/broker", Deny, false),
        ("$oc/devices/prod1_node1/sys/messages/down", Deny, false),
        ("rooms/1", Deny, false),
        ("users/foobar/devices", Deny, false),
        ("/sys/a1B2c3D4e5F/sensor-001/thing/service/property/set", Deny, false),
    ];
    for (topic, becomes, granted) in rows {
        let own = topic.replace("{}", "ABCDE12345/dev001");
        assert_eq!((publishing(&admission, &own), may_subscribe(&admission, &own)), (becomes, granted), "{own}");
        if topic.contains("{}") {
            // Longer names, other devices and other products are not this device.
            for other in ["ABCDE12345/dev002", "ABCDE12345/dev0011", "ABCDE12345/dev00", "ABCDE12346/dev001"] {
                let other = topic.replace("{}", other);
                assert_eq!(
                    (publishing(&admission, &other), may_subscribe(&admission, &other)),
                    (Deny, false),
                    "{other}"
                );
            }
        }
    }
    for (filter, granted) in [
        ("$rrpc/rxd/ABCDE12345/dev001/+", true),
        ("ABCDE12345/dev001/set/+", true),
        ("$rrpc/rxd/ABCDE12345/dev001/#", false),
        ("$rrpc/rxd/ABCDE12345/+/+", false),
        ("$rrpc/rxd/+/dev001/1", false),
        ("$sys/operation/result/#", false),
        ("$share/g/ABCDE12345/dev001/data", false),
        ("ABCDE12345/dev001/#", false),
        ("ABCDE12345/dev001/+", false),
        ("ABCDE12345/+/data", false),
        ("+/dev001/data", false),
        ("ABCDE12345/#", false),
        ("+/+/data", false),
        ("#", false),
    ] {
        assert_eq!(may_subscribe(&admission, filter), granted, "{filter}");
    }
}

#[test]
fn time() {
    let registry = registry();
    let admission = admitted(&registry);
    let topic = "$sys/operation/ABCDE12345/dev001";
    let answers = tell(&admission, &registry, topic, r#"{"type":"get","resource":["time"]}"#);
    let [(topic_of_answer, answer)] = sent(&answers)[..] else { panic!("one answer") };
    assert_eq!(topic_of_answer, "$sys/operation/result/ABCDE12345/dev001");
    assert_eq!(
        serde_json::from_str::<Value>(answer).unwrap(),
        json!({"type": "get", "time": NOW_MS / 1000, "ntptime1": NOW_MS, "ntptime2": NOW_MS})
    );
    assert!(answers.problem.is_none());
    for bad in ["", "{}", r#"{"type":"get","resource":[]}"#, r#"{"type":"set","resource":["time"]}"#] {
        let answers = tell(&admission, &registry, topic, bad);
        assert!(answers.problem.is_some() && answers.downlinks.is_empty(), "{bad}");
    }
}

#[test]
fn firmware() {
    let mut registry = registry();
    let admission = admitted(&registry);
    let topic = "$ota/report/ABCDE12345/dev001";
    let report = r#"{"type":"report_version","report":{"version":"1.0.0"}}"#;
    let answers = tell(&admission, &registry, topic, report);
    let [(topic_of_answer, answer)] = sent(&answers)[..] else { panic!("one answer") };
    assert_eq!(topic_of_answer, "$ota/update/ABCDE12345/dev001");
    assert_eq!(
        serde_json::from_str::<Value>(answer).unwrap(),
        json!({"type": "report_version_rsp", "result_code": 0, "result_msg": "success", "version": "1.0.0"})
    );
    let told = Told::Version { firmware: "1.0.0".into(), software: "".into(), sdk: "".into() };
    assert_eq!((&answers.reports[0].what, &*answers.reports[0].device), (&told, "ABCDE12345_dev001"));
    apply(&mut registry, &answers.changes[0]);
    assert_eq!(&*registry.device("ABCDE12345_dev001").unwrap().0.record.fw_version, "1.0.0");
    assert!(tell(&admission, &registry, topic, report).changes.is_empty());
    let progress = r#"{"type":"report_progress","report":{"progress":{"state":"downloading"},"version":"1.3.0"}}"#;
    let answers = tell(&admission, &registry, topic, progress);
    assert_eq!((&answers.reports[0].what, answers.downlinks.len()), (&Told::Upgrade(progress.into()), 0));
    let long = format!(r#"{{"type":"report_version","report":{{"version":"{}"}}}}"#, "1".repeat(33));
    for bad in ["", r#"{"type":"report_version"}"#, &long, r#"{"type":"other"}"#] {
        assert!(tell(&admission, &registry, topic, bad.to_owned()).problem.is_some(), "{bad}");
    }
}

#[test]
fn messages_and_responses() {
    let registry = registry();
    let admission = admitted(&registry);
    for topic in ["ABCDE12345/dev001/event", "$thing/up/property/ABCDE12345/dev001"] {
        let answers = tell(&admission, &registry, topic, &b"\xFFanything"[..]);
        let Told::Message { topic: told, payload } = &answers.reports[0].what else { panic!("a message") };
        assert_eq!((told.as_str(), &payload[..], answers.downlinks.len()), (topic, &b"\xFFanything"[..], 0));
    }
    let answers = tell(&admission, &registry, "$rrpc/txd/ABCDE12345/dev001/17", "ok");
    let report = &answers.reports[0];
    assert_eq!((&*report.request_id, &report.what), ("17", &Told::Response("ok".into())));
    let long = format!("$rrpc/txd/ABCDE12345/dev001/{}", "1".repeat(257));
    assert!(tell(&admission, &registry, &long, "ok").problem.is_some());
    let gone = Registry::default();
    assert!(tell(&admission, &gone, "ABCDE12345/dev001/event", "x").problem.is_some());
}

#[test]
fn calls() {
    let registry = registry();
    let admission = admitted(&registry);
    let device = &registry.device("ABCDE12345_dev001").unwrap().0.record;
    let firmware = Firmware { file_size: 9, md5sum: "ab", url: "https://example.com/f", version: "1.3.0" };
    let offer =
        r#"{"type":"update_firmware","file_size":9,"md5sum":"ab","url":"https://example.com/f","version":"1.3.0"}"#;
    for (down, topic, payload) in [
        (request(device, "17", "ask".into()), "$rrpc/rxd/ABCDE12345/dev001/17", "ask"),
        (control(device, "go".into()), "ABCDE12345/dev001/control", "go"),
        (broadcast(device, "all".into()), "$broadcast/rxd/ABCDE12345/dev001", "all"),
        (offer_firmware(device, &firmware), "$ota/update/ABCDE12345/dev001", offer),
    ] {
        let down = down.unwrap();
        assert_eq!((down.topic.as_str(), &down.payload[..]), (topic, payload.as_bytes()));
        assert!(may_subscribe(&admission, topic) && publishing(&admission, topic) == Publishing::Deny, "{topic}");
        assert_eq!(admission.voice.implicit(&down.topic), None);
    }
    for bad in ["", "a/b", "+"] {
        assert_eq!(request(device, bad, "ask".into()), None, "{bad}");
    }
}

/// A registry, and a device of it that was let in.
fn connected() -> (Registry, Admission) {
    let registry = registry();
    let admission = admitted(&registry);
    (registry, admission)
}

proptest! {
    #[test]
    fn no_connect_panics(
        id in "(ABCDE12345dev001|[A-Zé]{0,12})\\PC{0,3}",
        name in "((ABCDE12345dev001|\\PC{0,6});[0-9]{0,3};a;[0-9]{0,40}|\\PC{0,9})",
        password in "\\PC{0,20}(;hmacsha1)?",
    ) {
        let _ = Client::new(&id, &name, &password).outcome(&registry());
    }

    #[test]
    fn no_uplink_panics(
        topic in prop_oneof![
            Just("$sys/operation/ABCDE12345/dev001".to_owned()),
            Just("$ota/report/ABCDE12345/dev001".to_owned()),
            "(\\$rrpc/txd/)?ABCDE12345/dev001[^+#\\x00]{0,9}"],
        payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..60),
            "\\{\"type\":\"(get|report_version)\"[,\"a-z:{}\\[\\]]{0,30}".prop_map(String::into_bytes)],
    ) {
        thread_local!(static FIXTURE: (Registry, Admission) = connected());
        FIXTURE.with(|(registry, admission)| {
            if publishing(admission, &topic) == Publishing::Platform {
                let _ = tell(admission, registry, &topic, payload);
            }
        });
    }
}
