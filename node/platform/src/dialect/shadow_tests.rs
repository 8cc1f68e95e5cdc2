//! Shadows as the dialects speak of them.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::fixture::{Client, NOW_MS, alter_product, apply, registry, sent, tell};
use super::{Answers, Told, shadow};
use crate::Admission;
use crate::registry::{Change, Patch, Registry, Rejection, ShadowChange, ShadowPart, Versioning};

const SHADOW_GET: &str = "$oc/devices/prod1_node1/sys/shadow/get/request_id=7";
const ALIYUN: &str = "/shadow/update/a1B2c3D4e5F/sensor-001";
const TENCENT: &str = "$shadow/operation/ABCDE12345/dev001";

fn huawei(registry: &Registry) -> Admission {
    let password = "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a";
    Client::new("prod1_node1_0_0_2025041401", "prod1_node1", password).admit(registry).unwrap()
}

fn aliyun(registry: &Registry) -> Admission {
    let id = "a1B2c3D4e5F&sensor-001|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795227879|";
    Client::new(id, "sensor-001&a1B2c3D4e5F", "76d39a09e539933200263abe426eda68f3c48697").admit(registry).unwrap()
}

fn tencent(registry: &Registry) -> Admission {
    let username = "ABCDE12345dev001;12010126;abcde;4102444800";
    let password = "8b24f077480ec1e02bc1a945bc19c23d93cd41d8;hmacsha1";
    Client::new("ABCDE12345dev001", username, password).admit(registry).unwrap()
}

fn part(service: &str, reported: Value, desired: Value) -> ShadowPart {
    let patch = |value: Value| match value {
        Value::Object(members) => Patch::Merge(members),
        _ => Patch::Keep,
    };
    let version = if desired.is_null() { Versioning::Keep } else { Versioning::Next };
    ShadowPart { service: service.into(), reported: patch(reported), desired: patch(desired), version, reported_ms: 0 }
}

fn update(registry: &mut Registry, device: &str, part: ShadowPart) {
    apply(registry, &Change::Shadow { device: device.into(), change: ShadowChange::Update(vec![part]) });
}

/// Applies what was asked, and gives the answers to it.
fn settle(registry: &mut Registry, answers: Answers) -> Vec<(String, Value)> {
    let mut downlinks = answers.downlinks;
    for asked in answers.asked {
        let outcomes: Vec<Result<(), Rejection>> =
            asked.changes.iter().map(|change| registry.apply(change, NOW_MS, &mut Vec::new()).map(|_| ())).collect();
        downlinks.extend(asked.reply(&outcomes));
    }
    let json = |payload: &[u8]| serde_json::from_slice(payload).unwrap();
    downlinks.iter().map(|down| (down.topic.as_str().to_owned(), json(&down.payload))).collect()
}

#[test]
fn a_device_of_huawei_reads_its_shadow() {
    let mut registry = registry();
    let voice = huawei(&registry);
    let get = |registry: &Registry, payload: &str| -> Value {
        let answers = tell(&voice, registry, SHADOW_GET, payload.to_owned());
        let (topic, payload) = sent(&answers)[0];
        assert_eq!(topic, "$oc/devices/prod1_node1/sys/shadow/get/response/request_id=7");
        serde_json::from_str(payload).unwrap()
    };
    assert_eq!(get(&registry, "{}"), json!({"object_device_id": "prod1_node1", "shadow": []}));
    update(&mut registry, "prod1_node1", part("Meter", json!({"level": 1}), json!(null)));
    update(&mut registry, "prod1_node1", part("Other", json!(null), json!({"mode": "a"})));
    update(&mut registry, "prod1_sub1", part("Meter", json!({"level": 2}), json!(null)));
    let time = "20261121T013000Z";
    let nothing = json!({"properties": {}, "event_time": null});
    let meter = json!({
        "service_id": "Meter", "version": 0, "desired": nothing,
        "reported": {"properties": {"level": 1}, "event_time": time},
    });
    let other = json!({
        "service_id": "Other", "version": 1, "desired": {"properties": {"mode": "a"}, "event_time": time},
        "reported": nothing,
    });
    assert_eq!(get(&registry, "{}")["shadow"], json!([meter, other]));
    assert_eq!(get(&registry, r#"{"service_id":"","object_device_id":null}"#)["shadow"], json!([meter, other]));
    assert_eq!(get(&registry, r#"{"service_id":"Other"}"#)["shadow"], json!([other]));
    assert_eq!(get(&registry, r#"{"service_id":"none"}"#)["shadow"], json!([]));
    let of_sub = get(&registry, r#"{"object_device_id":"prod1_sub1"}"#);
    assert_eq!(of_sub["object_device_id"], "prod1_sub1");
    assert_eq!(of_sub["shadow"][0]["reported"]["properties"], json!({"level": 2}));
    let answers = tell(&voice, &registry, SHADOW_GET, r#"{"object_device_id":"prod1_node2"}"#);
    assert!(answers.downlinks.is_empty() && answers.problem.is_some());
}

#[test]
fn reports_become_parts() {
    let services = json!([
        {"service_id": "a", "properties": {"x": 1}, "event_time": "20151212T121212Z"},
        {"service_id": "b", "properties": {"x": 2}, "event_time": "2015-12-12T12:12:12.815Z"},
        {"service_id": "c", "properties": {"x": 3}},
    ]);
    let times: Vec<u64> = shadow::reported(&services, 5).iter().map(|part| part.reported_ms).collect();
    assert_eq!(times, [1_449_922_332_000, 1_449_922_332_815, 5]);
    let mut deep = json!(1);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    assert!(shadow::reported(&json!([{"service_id": "a", "properties": {"x": deep}}]), 5).is_empty());
    for nothing in
        [json!(null), json!([{}]), json!([{"service_id": "a"}]), json!([{"service_id": 1, "properties": {}}])]
    {
        assert!(shadow::reported(&nothing, 5).is_empty(), "{nothing}");
    }
}

#[test]
fn wishes_are_told_in_each_dialect() {
    let mut registry = registry();
    assert_eq!(shadow::push(&registry, "prod1_node1", "r", NOW_MS), None);
    alter_product(&mut registry, "prod1", |product| {
        let property = |name, method| json!({"property_name": name, "data_type": "int", "method": method});
        let properties = [property("level", "RW"), property("fixed", "R")];
        product.model = json!([{"service_id": "Meter", "properties": properties}]).to_string().into();
    });
    let wished = json!({"level": 1, "fixed": 2, "unknown": 3});
    for device in ["prod1_node1", "prod1_sub1"] {
        update(&mut registry, device, part("Meter", json!({"unknown": 4}), wished.clone()));
        let push = shadow::push(&registry, device, "r", NOW_MS).unwrap();
        assert_eq!(push.downlink.topic.as_str(), "$oc/devices/prod1_node1/sys/properties/set/request_id=r");
        let set: Value = serde_json::from_slice(&push.downlink.payload).unwrap();
        let services = json!([{"service_id": "Meter", "properties": {"level": 1, "unknown": 3}}]);
        assert_eq!(set, json!({"object_device_id": device, "services": services}));
        update(&mut registry, device, part("Meter", json!({"unknown": 3}), json!(null)));
        assert_ne!(shadow::push(&registry, device, "r", NOW_MS).unwrap().digest, push.digest);
        update(&mut registry, device, part("Meter", json!({"level": 1}), json!(null)));
        assert_eq!(shadow::push(&registry, device, "r", NOW_MS), None, "what may not be set is left");
    }
    update(&mut registry, "a1B2c3D4e5F_sensor-001", part("default", json!({"a": 0, "b": 1}), json!({"a": 1})));
    let push = shadow::push(&registry, "a1B2c3D4e5F_sensor-001", "r", NOW_MS).unwrap();
    assert_eq!(push.downlink.topic.as_str(), "/shadow/get/a1B2c3D4e5F/sensor-001");
    let control: Value = serde_json::from_slice(&push.downlink.payload).unwrap();
    assert_eq!(control["method"], "control");
    assert_eq!(control["payload"]["state"], json!({"reported": {"a": 0, "b": 1}, "desired": {"a": 1}}));
    assert_eq!((&control["version"], &control["timestamp"]), (&json!(1), &json!(NOW_MS / 1000)));
    update(&mut registry, "ABCDE12345_dev001", part("default", json!({"a": 0}), json!({"a": 1})));
    let push = shadow::push(&registry, "ABCDE12345_dev001", "r", NOW_MS).unwrap();
    assert_eq!(push.downlink.topic.as_str(), "$shadow/operation/result/ABCDE12345/dev001");
    let delta: Value = serde_json::from_slice(&push.downlink.payload).unwrap();
    assert_eq!((&delta["type"], &delta["payload"]["state"]), (&json!("delta"), &json!({"a": 1})));
    assert_eq!(delta["payload"]["version"], 1);
}

#[test]
fn a_device_of_aliyun_keeps_its_shadow() {
    let mut registry = registry();
    let voice = aliyun(&registry);
    let ask = |registry: &mut Registry, request: Value| -> (Value, bool) {
        let answers = tell(&voice, registry, ALIYUN, request.to_string());
        let reported = matches!(&*answers.reports, [report] if matches!(report.what, Told::Properties(_)));
        let mut answers = settle(registry, answers);
        assert_eq!(answers.len(), 1, "{request}");
        let (topic, reply) = answers.remove(0);
        assert_eq!((&*topic, &reply["method"]), ("/shadow/get/a1B2c3D4e5F/sensor-001", &json!("reply")));
        (reply["payload"].clone(), reported)
    };
    let refused = |code: &str, payload: &Value| {
        assert_eq!((&payload["status"], &payload["content"]["errorcode"]), (&json!("error"), &json!(code)));
    };
    assert_eq!(ask(&mut registry, json!({"method": "get"})).0, json!({"status": "success", "version": 0}));
    let update_to = |version: i64, reported: Value| json!({"method": "update", "state": {"reported": reported}, "version": version});
    let done = ask(&mut registry, update_to(3, json!({"a": 1, "b": 2})));
    assert_eq!(done, (json!({"status": "success", "version": 3}), true));
    let (conflict, reported) = ask(&mut registry, update_to(3, json!({"a": 9})));
    refused("409", &conflict);
    assert!(!reported, "nobody hears of what was refused");
    update(&mut registry, "a1B2c3D4e5F_sensor-001", part("default", json!(null), json!({"a": 5})));
    let (shown, _) = ask(&mut registry, json!({"method": "get"}));
    assert_eq!(shown["version"], 4);
    assert_eq!(shown["state"], json!({"reported": {"a": 1, "b": 2}, "desired": {"a": 5}}));
    assert_eq!(shown["metadata"]["desired"], json!({"a": {"timestamp": NOW_MS / 1000}}));
    let delete = json!({"method": "delete", "state": {"reported": {"b": "null", "a": 1}}, "version": 5});
    assert_eq!(ask(&mut registry, delete).0["version"], 5);
    let clear = json!({"method": "update", "state": {"desired": "null"}, "version": 6});
    assert_eq!(ask(&mut registry, clear).0["status"], "success");
    let (shown, _) = ask(&mut registry, json!({"method": "get"}));
    assert_eq!(shown["state"], json!({"reported": {"a": 1}, "desired": {}}));
    assert_eq!(ask(&mut registry, update_to(-1, json!({"c": 1}))).0, json!({"status": "success", "version": 0}));
    assert_eq!(ask(&mut registry, update_to(1, json!({"c": 2}))).0["version"], 1);
    let mut deep = json!(1);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    for (request, code) in [
        (json!([]), "400"),
        (json!({}), "401"),
        (json!({"method": "update"}), "402"),
        (json!({"method": "update", "state": {}}), "403"),
        (json!({"method": "update", "state": {"reported": 1}, "version": 9}), "404"),
        (json!({"method": "update", "state": {"reported": {"a": deep}}, "version": 9}), "408"),
        (json!({"method": "else"}), "406"),
        (update_to(9, json!({"a": "x".repeat(70_000)})), "408"),
    ] {
        refused(code, &ask(&mut registry, request).0);
    }
    let desired = "/sys/a1B2c3D4e5F/sensor-001/thing/property/desired/";
    update(&mut registry, "a1B2c3D4e5F_sensor-001", part("default", json!(null), json!({"x": 5, "y": 6})));
    let answers = tell(&voice, &registry, &format!("{desired}get"), r#"{"id":"1","params":["x","z"]}"#);
    let reply: Value = serde_json::from_str(sent(&answers)[0].1).unwrap();
    assert_eq!((&reply["code"], &reply["data"]), (&json!(200), &json!({"x": {"value": 5, "version": 2}})));
    let answers = tell(&voice, &registry, &format!("{desired}delete"), r#"{"id":"1","params":{"x":{"version":2}}}"#);
    answers.changes.iter().for_each(|change| apply(&mut registry, change));
    let left = shadow::document(&registry, "a1B2c3D4e5F_sensor-001").desired.properties();
    assert_eq!(Value::Object(left), json!({"y": 6}));
}

#[test]
fn a_device_of_tencent_keeps_its_shadow() {
    let mut registry = registry();
    let voice = tencent(&registry);
    let ask = |registry: &mut Registry, request: Value| -> Value {
        let mut answers = settle(registry, tell(&voice, registry, TENCENT, request.to_string()));
        assert_eq!(answers.len(), 1, "{request}");
        let (topic, reply) = answers.remove(0);
        assert_eq!(topic, "$shadow/operation/result/ABCDE12345/dev001");
        assert_eq!((&reply["type"], &reply["clientToken"]), (&request["type"], &request["clientToken"]));
        reply
    };
    let get = json!({"type": "get", "clientToken": "t-1"});
    let shown = ask(&mut registry, get.clone());
    assert_eq!((&shown["result"], &shown["payload"]["state"]), (&json!(0), &json!({"reported": {}})));
    assert_eq!((&shown["payload"]["version"], &shown["payload"]["timestamp"]), (&json!(0), &json!(NOW_MS)));
    let to = |state: Value| json!({"type": "update", "state": state, "clientToken": 2});
    let done = ask(&mut registry, to(json!({"reported": {"a": 1, "b": 2}})));
    assert_eq!((&done["result"], &done["payload"]["version"]), (&json!(0), &json!(1)));
    assert_eq!(done["payload"]["state"], json!({"reported": {"a": 1, "b": 2}}));
    let stale = json!({"type": "update", "state": {"reported": {"a": 9}}, "version": 0, "clientToken": "t"});
    let conflict = ask(&mut registry, stale);
    assert_eq!((&conflict["result"], &conflict["payload"]["version"]), (&json!(5005), &json!(1)));
    update(&mut registry, "ABCDE12345_dev001", part("default", json!(null), json!({"a": 5})));
    let both = json!({"reported": {"a": 1, "b": 2}, "desired": {"a": 5}});
    assert_eq!(ask(&mut registry, get.clone())["payload"]["state"], both);
    assert_eq!(ask(&mut registry, to(json!({"reported": {"a": 5, "b": null}, "desired": null})))["result"], 0);
    assert_eq!(ask(&mut registry, get)["payload"]["state"], json!({"reported": {"a": 5}}));
    assert_eq!(ask(&mut registry, to(json!({"reported": 1})))["result"], 400);
    assert_eq!(ask(&mut registry, to(json!({"reported": {"a": {"b": {"c": {"d": {"e": 1}}}}}})))["result"], 400);
    assert_eq!(ask(&mut registry, to(json!({"reported": {"a": "x".repeat(70_000)}})))["result"], 413);
    let answers = tell(&voice, &registry, TENCENT, r#"{"type":"delta"}"#);
    assert!(answers.problem.is_some() && answers.downlinks.is_empty());
}

proptest::proptest! {
    /// Whatever is said of a shadow or of sub-devices, it is no panic.
    #[test]
    fn any_payload_is_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), at in 0usize..8) {
        let registry = registry();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let kinds = ["add_sub_device_request", "delete_sub_device_request", "sub_device_update_status",
            "sub_device_sync_request"];
        let kind = kinds[at % 4];
        let event = |paras: &str| {
            format!(r#"{{"services":[{{"service_id":"$sub_device_manager","event_type":"{kind}","paras":{paras}}}]}}"#)
        };
        let quoted = serde_json::Value::String(text.clone()).to_string();
        for payload in [
            text.clone(),
            format!(r#"{{"method":{quoted},"state":{{"reported":{quoted}}},"version":1}}"#),
            format!(r#"{{"type":"update","state":{{"reported":{{{quoted}:1}}}}}}"#),
            event(&quoted),
            event(&format!(r#"{{"devices":[{{"node_id":{quoted},"product_id":"prod1"}}]}}"#)),
            event(&format!(r#"{{"devices":[{quoted}],"device_statuses":[{{"device_id":{quoted},"status":"ONLINE"}}]}}"#)),
        ] {
            let _ = tell(&huawei(&registry), &registry, SHADOW_GET, payload.clone());
            let _ = tell(&huawei(&registry), &registry, "$oc/devices/prod1_node1/sys/events/up", payload.clone());
            let _ = tell(&aliyun(&registry), &registry, ALIYUN, payload.clone());
            let _ = tell(&tencent(&registry), &registry, TENCENT, payload);
        }
    }
}
