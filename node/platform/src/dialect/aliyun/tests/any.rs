//! Nothing that a client sends may panic a node.

use proptest::prelude::*;

use super::super::http::{pre_authenticate, register};
use super::*;

/// Text of pieces that mean something somewhere, and of any characters.
fn text(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => ".{0,4}"];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

const CLIENT_ID: &[&str] = &[
    "dev-cid",
    "|",
    ",",
    "=",
    "signmethod=",
    "hmacsha1",
    "timestamp=",
    "authType=",
    "register",
    "regnwl",
    "connwl",
    "_ss=1",
    "random=",
    " ",
    "\n",
    "é",
];
const USERNAME: &[&str] = &["sensor-001", "&", "a1B2c3D4e5F", "b1Open00000", "0123456789abcdef01234567", "fresh"];
const TOPIC: &[&str] = &[
    "/",
    "sys",
    "/sys/a1B2c3D4e5F/sensor-001/thing/",
    "event/",
    "property/",
    "post",
    "_reply",
    "service/",
    "ext/rrpc/",
    "/ext/rrpc/1/a1B2c3D4e5F/sensor-001/",
    "/ext/session/a1B2c3D4e5F/sensor-001/combine/",
    "login",
    "batch_login",
    "/ota/device/inform/a1B2c3D4e5F/sensor-001",
    "/shadow/update/a1B2c3D4e5F/sensor-001",
    "topo/add",
    "deviceinfo/update",
    "/ext/ntp/a1B2c3D4e5F/sensor-001/request",
    "é",
    "sub/register",
    "proxy/provisioning/product_register",
    "batch/",
];
const PAYLOAD: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"id\":1",
    "\"id\"",
    "\"params\":",
    "\"sys\":{\"ack\":0}",
    "\"deviceList\"",
    "null",
    "{\"id\":\"1\",\"params\":{\"a\":1}}",
    "\"method\":\"update\"",
    "\"productKey\":\"a1B2c3D4e5F\"",
    "1e999",
    "-1",
    "\"é\"",
];
const FIELDS: &[&str] =
    &["productKey", "deviceName", "clientId", "sign", "signMethod", "random", PK, DN, "hmacsha1", "00"];

proptest! {
    #[test]
    fn any_connect_is_decided(
        client_id in text(CLIENT_ID), username in text(USERNAME), password in ".{0,70}", keep_alive_s: u16, now_ms: u64,
    ) {
        let registry = registry();
        let iot_id = registry.device(&format!("{PK}_{DN}")).unwrap().0.oid.to_string();
        for username in [username.as_str(), iot_id.as_str()] {
            let coming =
                Coming { client_id: &client_id, username, password: &password, keep_alive_s, now_ms, ..Coming::default() };
            let admitted = coming.at(&registry, &Options::default()).is_some_and(|outcome| outcome.is_ok());
            prop_assert!(!admitted, "nobody knows a secret");
        }
    }

    #[test]
    fn any_form_is_answered(fields in prop::collection::vec((text(FIELDS), text(FIELDS)), 0..8), now_ms: u64) {
        let registry = registry();
        let answers = [
            pre_authenticate(&fields, &registry, &Options::default(), now_ms),
            register(&fields, &registry, now_ms, [1; 32]).body,
        ];
        for answer in answers {
            prop_assert_eq!(&serde_json::from_str::<Value>(&answer).unwrap()["code"], 400);
        }
    }

    #[test]
    fn any_topic_and_payload_are_borne(text in text(TOPIC), payload in text(PAYLOAD)) {
        let registry = registry();
        let voice = voice(&registry, true);
        if let Ok(name) = TopicName::new(text.as_str()) {
            let becomes = voice.publishing(&name);
            voice.implicit(&name);
            let answers = send(&*voice, &registry, &text, &payload);
            for downlink in &answers.downlinks {
                prop_assert!(serde_json::from_slice::<Value>(&downlink.payload).is_ok());
                prop_assert!(voice.implicit(&downlink.topic).is_some(), "{} on {}", downlink.topic, text);
            }
            prop_assert!(becomes == crate::dialect::Publishing::Platform || answers.downlinks.is_empty());
        }
        if let Ok(filter) = TopicFilter::new(text.as_str()) {
            voice.subscribing(&filter);
        }
    }
}
