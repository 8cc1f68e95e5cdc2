use serde_json::json;

use super::*;

const P: &str = "/sys/a1B2c3D4e5F/sensor-001";
const ID: &str = "a1B2c3D4e5F_sensor-001";

#[test]
fn replies_are_exact_and_echo_the_id() {
    let registry = registry();
    let voice = voice(&registry, true);
    for id in [
        r#""1""#,
        "1",
        "-7",
        "18446744073709551615",
        r#""""#,
        r#""1|exp-topic|/sys/x/y/thing/event/property/post_reply""#,
    ] {
        let request = format!(r#"{{"id":{id},"version":"1.0","params":{{"temp":23}},"method":"whatever"}}"#);
        let answers = send(&*voice, &registry, &format!("{P}/thing/event/property/post"), &request);
        let reply = format!(
            r#"{{"code":200,"data":{{}},"id":{id},"message":"success","method":"thing.event.property.post","version":"1.0"}}"#
        );
        assert_eq!(told(&answers), [(&*format!("{P}/thing/event/property/post_reply"), &*reply)]);
        assert_eq!(answers.downlinks[0].qos, fulmar_mqtt::QoS::AtMostOnce);
        assert_eq!((answers.reports.len(), answers.changes.len(), answers.problem), (1, 0, None));
    }
}

#[test]
fn no_reply_if_none_is_wanted() {
    let registry = registry();
    let voice = voice(&registry, true);
    for (sys, replies) in
        [(r#""sys":{"ack":0},"#, 0), (r#""sys":{"ack":1},"#, 1), (r#""sys":{},"#, 1), (r#""sys":7,"#, 1), ("", 1)]
    {
        for params in [r#"{"a":1}"#, "7"] {
            let request = format!(r#"{{"id":"1",{sys}"params":{params}}}"#);
            let answers = send(&*voice, &registry, &format!("{P}/thing/event/property/post"), &request);
            assert_eq!(answers.downlinks.len(), replies, "{request}");
        }
    }
}

#[test]
fn requests_and_their_outcomes() {
    let registry = registry();
    let voice = voice(&registry, true);
    let ok = |params: &str| format!(r#"{{"id":"5","version":"1.0","params":{params}}}"#);
    for (tail, payload, code, data) in [
        ("event/property/post", ok("{}"), 200, json!({})),
        ("event/property/post", ok("[1]"), 460, json!({})),
        ("event/property/post", "not JSON".to_owned(), 460, json!({})),
        ("event/property/post", "[]".to_owned(), 460, json!({})),
        ("event/property/post", String::new(), 460, json!({})),
        ("event/property/post", "[".repeat(10_000), 460, json!({})),
        ("event/alarm/post", ok(r#"{"value":{"level":1}}"#), 200, json!({})),
        ("event/alarm/post", ok("7"), 460, json!({})),
        ("event/property/batch/post", ok(r#"{"properties":{"a":[{"value":1,"time":1000}]}}"#), 200, json!({})),
        ("event/property/batch/post", ok(r#"{"properties":7}"#), 460, json!({})),
        ("property/desired/get", ok(r#"["a"]"#), 200, json!({})),
        ("property/desired/delete", ok(r#"{"a":{"version":1}}"#), 200, json!({})),
        ("config/get", ok(r#"{"configScope":"product","getType":"file"}"#), 6710, json!({})),
        ("ota/firmware/get", ok("{}"), 200, json!({})),
        ("topo/get", ok("{}"), 200, json!([])),
        ("log/post", ok("{}"), 404, json!({})),
    ] {
        let answers = send(&*voice, &registry, &format!("{P}/thing/{tail}"), &payload);
        assert_eq!(answers.downlinks[0].topic.as_str(), format!("{P}/thing/{tail}_reply"));
        let reply = json(&answers.downlinks[0]);
        let method = format!("thing.{}", tail.replace('/', "."));
        assert_eq!(
            (&reply["code"], &reply["data"], &reply["method"]),
            (&code.into(), &data, &method.into()),
            "{tail} {payload}"
        );
        for name in ["id", "message", "version"] {
            assert!(reply[name].is_string(), "{name}");
        }
        assert_eq!(answers.problem.is_some(), code != 200);
        assert!(code == 200 || answers.reports.is_empty());
    }
}

#[test]
fn what_is_reported() {
    let registry = registry();
    let voice = voice(&registry, false);
    let services = |properties: Value| Told::Properties(json!([{"service_id": "default", "properties": properties}]));
    let event = |paras: Value| Told::Event(json!({"service_id": "default", "event_type": "alarm", "paras": paras}));
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let generated = hex::encode([9; 16]);
    for (tail, payload, expected) in [
        ("event/property/post", r#"{"id":"5","params":{"t":1}}"#, Some(("5", services(json!({"t": 1}))))),
        ("event/property/post", r#"{"id":6,"params":{"t":{"value":1}}}"#, Some(("6", services(json!({"t": 1}))))),
        ("event/property/post", r#"{"params":{"t":1}}"#, Some((&generated, services(json!({"t": 1}))))),
        ("event/alarm/post", r#"{"id":"5","params":{"value":{"x":1}}}"#, Some(("5", event(json!({"x": 1}))))),
        ("event/alarm/post", r#"{"id":"5","params":{"x":1}}"#, Some(("5", event(json!({"x": 1}))))),
        (
            "service/property/set_reply",
            r#"{"id":"77","code":200,"data":{}}"#,
            Some(("77", Told::Response(bytes(r#"{"id":"77","code":200,"data":{}}"#)))),
        ),
        ("service/reboot_reply", r#"{"id":78}"#, Some(("78", Told::Response(bytes(r#"{"id":78}"#))))),
        ("service/reboot_reply", "no JSON", None),
        ("config/push_reply", r#"{"id":"1"}"#, Some(("1", Told::Response(bytes(r#"{"id":"1"}"#))))),
        ("model/down_raw_reply", "\u{1}\u{2}", Some((&generated, Told::Response(bytes("\u{1}\u{2}"))))),
        (
            "model/up_raw",
            "\u{1}",
            Some((
                &generated,
                Told::Message { topic: topic(&format!("{P}/thing/model/up_raw")), payload: bytes("\u{1}") },
            )),
        ),
    ] {
        let answers = send(&*voice, &registry, &format!("{P}/thing/{tail}"), payload);
        let expected: Vec<Report> = expected.into_iter().map(|(id, what)| report(ID, id, what)).collect();
        assert_eq!(answers.reports, expected, "{tail} {payload}");
        assert_eq!(answers.problem.is_some(), expected.is_empty(), "{tail} {payload}");
        let is_request = tail.ends_with("/post");
        assert_eq!(answers.downlinks.len(), usize::from(is_request), "{tail}: responses and bytes are not replied to");
    }
}

#[test]
fn tags_are_changed_within_bounds() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let mut ask = |tail: &str, params: &Value| {
        let request = json!({"id": "1", "params": params}).to_string();
        let answers = send(&*voice, &registry, &format!("{P}/thing/deviceinfo/{tail}"), &request);
        commit(&mut registry, &answers.changes);
        let tags = registry.device(ID).unwrap().0.record.tags.clone();
        let tags: Vec<(String, String)> = tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        (json(&answers.downlinks[0])["code"].as_u64().unwrap(), answers.changes.len(), tags)
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let two = json!([{"attrKey": "a", "attrValue": "1"}, {"attrKey": "b", "attrValue": "2"}]);
    assert_eq!(ask("update", &two), (200, 1, pairs(&[("a", "1"), ("b", "2")])));
    assert_eq!(ask("update", &two), (200, 0, pairs(&[("a", "1"), ("b", "2")])), "nothing to change");
    let of_sdk = json!([{"domain": "SYSTEM", "attrKey": "SYS_SDK_LANGUAGE", "attrValue": "Python"}]);
    assert_eq!(ask("update", &of_sdk), (200, 0, pairs(&[("a", "1"), ("b", "2")])));
    let three = json!([{"attrKey": "b", "attrValue": "3"}]);
    assert_eq!(ask("update", &three), (200, 1, pairs(&[("a", "1"), ("b", "3")])));
    assert_eq!(ask("delete", &json!([{"attrKey": "a"}, {"attrKey": "z"}])), (200, 1, pairs(&[("b", "3")])));
    let many: Vec<Value> = (0..100).map(|at| json!({"attrKey": format!("k{at}"), "attrValue": ""})).collect();
    for bad in [
        json!({}),
        json!([{"attrKey": "x"}]),
        json!([{"attrKey": "", "attrValue": "1"}]),
        json!([{"attrKey": "x".repeat(129), "attrValue": "1"}]),
        json!([{"attrKey": "x", "attrValue": "1".repeat(513)}]),
        json!(many),
    ] {
        assert_eq!(ask("update", &bad), (460, 0, pairs(&[("b", "3")])), "{bad}");
    }
    assert_eq!(ask("delete", &json!([7])).0, 460);
}
