use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use fulmar_mqtt::{QoS, TopicName};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::admitted;
use crate::Admission;
use crate::dialect::fixture::{NOW_MS, alter, apply, publishing, registry, sent, tell};
use crate::dialect::{Publishing, Told};
use crate::registry::Registry;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn properties() {
    let registry = registry();
    let admission = admitted(&registry);
    let topic = |query: &str| format!("$oc/devices/prod1_node1/sys/properties/report{query}");
    let payload = json!({"services": [
        {"service_id": "a", "properties": {"x": 1}, "event_time": "20151212T121212Z"},
        {"service_id": "b", "properties": {}, "event_time": null, "more": 1},
        {"service_id": "c", "properties": {}, "event_time": "2015-12-12T12:12:12.000Z"},
        {"service_id": "d", "properties": {}, "event_time": "yesterday"},
    ]});
    let expected = json!([
        {"service_id": "a", "properties": {"x": 1}, "event_time": "20151212T121212Z"},
        {"service_id": "b", "properties": {}},
        {"service_id": "c", "properties": {}, "event_time": "2015-12-12T12:12:12.000Z"},
        {"service_id": "d", "properties": {}},
    ]);
    let payload = payload.to_string();
    for (query, payload) in [
        ("?request_id=abc", payload.clone().into_bytes()),
        ("?request_id=abc&encoding=gzip", gzip(payload.as_bytes())),
        ("?encoding=gzip&request_id=abc", gzip(payload.as_bytes())),
    ] {
        let answers = tell(&admission, &registry, &topic(query), payload);
        assert_eq!((answers.problem, answers.downlinks.len(), answers.changes.len()), (None, 0, 0), "{query}");
        let report = &answers.reports[..];
        assert!(
            matches!(report, [report] if report.request_id == "abc".into() && report.device == "prod1_node1".into())
        );
        assert_eq!(report[0].what, Told::Properties(expected.clone()), "{query}");
    }
    // Its own id where it names none.
    let answers = tell(&admission, &registry, &topic(""), payload);
    assert_eq!(&*answers.reports[0].request_id, "09090909-0909-4909-8909-090909090909");
    for bad in ["", "{", "[]", "null", r#"{"services":{}}"#, r#"{"services":[{"service_id":"a"}]}"#, "\u{0}"] {
        let answers = tell(&admission, &registry, &topic(""), bad.to_owned());
        assert!(answers.problem.is_some() && answers.reports.is_empty(), "{bad}");
    }
    for query in ["?encoding=gzip", "?encoding=zip"] {
        assert!(tell(&admission, &registry, &topic(query), r#"{"services":[]}"#).problem.is_some(), "{query}");
    }
}

#[test]
fn a_bomb_is_not_inflated() {
    let registry = registry();
    let admission = admitted(&registry);
    let topic = "$oc/devices/prod1_node1/sys/messages/up?encoding=gzip";
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let problem = tell(&admission, &registry, topic, bomb).problem;
    assert_eq!(problem, Some("the payload inflates to more than 1 MiB"));
    let answers = tell(&admission, &registry, topic, gzip(&vec![b' '; 1 << 20]));
    assert!(matches!(&answers.reports[0].what, Told::Message { payload, .. } if payload.len() == 1 << 20));
}

#[test]
fn gateways_speak_for_their_sub_devices() {
    let mut registry = registry();
    let admission = admitted(&registry);
    let topic = "$oc/devices/prod1_node1/sys/gateway/sub_devices/properties/report";
    let services = json!([{"service_id": "a", "properties": {"x": 1}}]);
    let of = |ids: &[&str]| {
        let devices: Vec<_> = ids.iter().map(|id| json!({"device_id": id, "services": services})).collect();
        json!({ "devices": devices }).to_string()
    };
    let told = |registry: &Registry, ids: &[&str]| {
        let answers = tell(&admission, registry, topic, of(ids));
        let devices: Vec<_> = answers.reports.iter().map(|report| report.device.to_string()).collect();
        (devices, answers.problem.is_some())
    };
    assert_eq!(told(&registry, &["prod1_sub1"]), (vec!["prod1_sub1".to_owned()], false));
    assert_eq!(told(&registry, &["prod1_node2", "prod1_sub1"]), (vec!["prod1_sub1".to_owned()], true));
    assert_eq!(told(&registry, &["nobody"]), (vec![], true));
    assert_eq!(told(&registry, &["prod1_sub1"; 51]), (vec![], true));
    // A sub-device of a sub-device.
    alter(&mut registry, "prod1_node2", |device| device.gateway_id = "prod1_sub1".into());
    assert_eq!(told(&registry, &["prod1_node2"]), (vec!["prod1_node2".to_owned()], false));
}

#[test]
fn messages() {
    let registry = registry();
    let admission = admitted(&registry);
    let up = "$oc/devices/prod1_node1/sys/messages/up";
    let custom = "$oc/devices/prod1_node1/user/wpy";
    for (topic, payload, device) in [
        (up, &b"\xFF\x00"[..], "prod1_node1"),
        (up, b"", "prod1_node1"),
        (up, br#"{"object_device_id":"","name":"n","id":"1","content":"c"}"#, "prod1_node1"),
        (up, br#"{"object_device_id":null}"#, "prod1_node1"),
        (up, br#"{"object_device_id":"prod1_node1"}"#, "prod1_node1"),
        (up, br#"{"object_device_id":"prod1_sub1"}"#, "prod1_sub1"),
        (custom, br#"{"object_device_id":"prod1_node2"}"#, "prod1_node1"),
    ] {
        let answers = tell(&admission, &registry, &format!("{topic}?request_id=r"), payload);
        let report = &answers.reports[0];
        assert_eq!((&*report.device, &*report.request_id, answers.problem), (device, "r", None));
        let topic = TopicName::new(topic).unwrap();
        assert_eq!(report.what, Told::Message { topic, payload: Bytes::copy_from_slice(payload) });
    }
    let answers = tell(&admission, &registry, up, r#"{"object_device_id":"prod1_node2"}"#);
    assert!(answers.reports.is_empty() && answers.problem.is_some());
}

#[test]
fn responses() {
    let registry = registry();
    let admission = admitted(&registry);
    for rest in ["commands", "properties/set", "properties/get"] {
        let topic = |id: &str| format!("$oc/devices/prod1_node1/sys/{rest}/response/request_id={id}");
        let payload = r#"{"result_code":0,"response_name":"R","paras":{}}"#;
        let answers = tell(&admission, &registry, &topic("a/b=c"), payload);
        let report = &answers.reports[0];
        assert_eq!((&*report.request_id, &report.what), ("a/b=c", &Told::Response(payload.into())));
        assert!(tell(&admission, &registry, &topic(""), payload).problem.is_some());
        assert!(tell(&admission, &registry, &topic(&"x".repeat(257)), payload).problem.is_some());
        assert!(tell(&admission, &registry, &topic("1"), "no JSON").problem.is_some());
    }
}

#[test]
fn a_device_without_a_shadow() {
    let registry = registry();
    let admission = admitted(&registry);
    let topic = "$oc/devices/prod1_node1/sys/shadow/get/request_id=7";
    for (payload, device) in [
        ("{}", "prod1_node1"),
        (r#"{"object_device_id":"","service_id":null}"#, "prod1_node1"),
        (r#"{"object_device_id":"prod1_sub1"}"#, "prod1_sub1"),
    ] {
        let answers = tell(&admission, &registry, topic, payload);
        let answer = format!(r#"{{"object_device_id":"{device}","shadow":[]}}"#);
        let topic = "$oc/devices/prod1_node1/sys/shadow/get/response/request_id=7";
        assert_eq!(sent(&answers), [(topic, &*answer)]);
        assert_eq!(answers.downlinks[0].qos, QoS::AtLeastOnce);
    }
}

fn event(service: &str, kind: &str, paras: &Value) -> String {
    let event = json!({"service_id": service, "event_type": kind, "event_time": null, "event_id": "", "paras": paras});
    json!({"object_device_id": "", "services": [event]}).to_string()
}

const EVENTS: &str = "$oc/devices/prod1_node1/sys/events/up";

#[test]
fn time() {
    let registry = registry();
    let admission = admitted(&registry);
    for sent_time in [json!("1582685678789"), json!(1_582_685_678_789_u64)] {
        let payload = event("$time_sync", "time_sync_request", &json!({"device_send_time": sent_time}));
        let answers = tell(&admission, &registry, EVENTS, payload);
        let expected = format!(
            "{{\"object_device_id\":\"prod1_node1\",\"services\":[{{\"event_id\":\"\",\"event_time\":\"20261121T013000Z\",\
             \"event_type\":\"time_sync_response\",\"paras\":{{\"device_send_time\":{sent_time},\
             \"server_recv_time\":{NOW_MS},\"server_send_time\":{NOW_MS}}},\"service_id\":\"$time_sync\"}}]}}"
        );
        let [(topic, answer)] = sent(&answers)[..] else { panic!("one answer") };
        assert_eq!(topic, "$oc/devices/prod1_node1/sys/events/down");
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parse(answer), parse(&expected));
        assert!(answers.reports.is_empty() && answers.problem.is_none());
    }
}

#[test]
fn versions() {
    let mut registry = registry();
    let admission = admitted(&registry);
    let paras = json!({"device_sdk_version": "JAVA_1.2.1", "sw_version": "v1", "fw_version": null});
    let answers = tell(&admission, &registry, EVENTS, event("$sdk_info", "sdk_info_report", &paras));
    let told = Told::Version { firmware: "".into(), software: "v1".into(), sdk: "JAVA_1.2.1".into() };
    assert_eq!((&answers.reports[0].what, answers.changes.len()), (&told, 1));
    apply(&mut registry, &answers.changes[0]);
    let device = registry.device("prod1_node1").unwrap().0.record.clone();
    assert_eq!((&*device.sdk_version, &*device.sw_version, &*device.fw_version), ("JAVA_1.2.1", "v1", ""));
    // Said again, nothing has changed.
    let answers = tell(&admission, &registry, EVENTS, event("$sdk_info", "sdk_info_report", &paras));
    assert_eq!((answers.reports.len(), answers.changes.len()), (1, 0));
    let paras = json!({"fw_version": "f2", "sw_version": "v1"});
    let answers = tell(&admission, &registry, EVENTS, event("$ota", "version_report", &paras));
    assert_eq!((answers.reports.len(), answers.changes.len()), (1, 1));
    let paras = json!({"fw_version": "f".repeat(257)});
    let answers = tell(&admission, &registry, EVENTS, event("$ota", "version_report", &paras));
    assert!(answers.problem.is_some() && answers.changes.is_empty());
}

#[test]
fn other_events() {
    let registry = registry();
    let admission = admitted(&registry);
    let paras = json!({"result_code": 0, "progress": 50, "version": "v2", "description": ""});
    let answers = tell(&admission, &registry, EVENTS, event("$ota", "upgrade_progress_report", &paras));
    assert_eq!(answers.reports[0].what, Told::Upgrade(paras.to_string().into()));
    let paras = json!({"timestamp": "1", "type": "DEVICE_STATUS", "content": "login"});
    let answers = tell(&admission, &registry, EVENTS, event("$log", "log_report", &paras));
    let told = json!({"service_id": "$log", "event_type": "log_report", "paras": paras});
    assert_eq!(answers.reports[0].what, Told::Event(told));
    let many = json!({"services": vec![json!({"service_id": "s", "event_type": "e"}); 51]}).to_string();
    assert!(tell(&admission, &registry, EVENTS, many).problem.is_some());
    let foreign = json!({"object_device_id": "prod1_node2", "services": []}).to_string();
    assert!(tell(&admission, &registry, EVENTS, foreign).problem.is_some());
}

/// A registry, and a device of it that was let in.
fn connected() -> (Registry, Admission) {
    let registry = registry();
    let admission = admitted(&registry);
    (registry, admission)
}

proptest! {
    #[test]
    fn no_uplink_panics(
        rest in prop_oneof![Just("sys/events/up"), Just("sys/properties/report"), Just("sys/shadow/get/request_id=1"),
            Just("sys/messages/up?encoding=gzip"), Just("sys/gateway/sub_devices/properties/report?request_id=&&=?")],
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "(\\{\"(services|devices|object_device_id)\":)?[\\[\\]{}\":,a-z0-9]{0,40}".prop_map(String::into_bytes),
        ],
        topic in "\\$oc/devices/(prod1_node1/)?[^+#\\x00]{0,20}",
    ) {
        thread_local!(static FIXTURE: (Registry, Admission) = connected());
        FIXTURE.with(|(registry, admission)| {
            let _ = tell(admission, registry, &format!("$oc/devices/prod1_node1/{rest}"), payload.clone());
            if publishing(admission, &topic) == Publishing::Platform {
                let _ = tell(admission, registry, &topic, payload);
            }
        });
    }
}
