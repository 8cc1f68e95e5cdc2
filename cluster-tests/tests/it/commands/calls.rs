//! What goes to devices of each dialect, and what comes back.

use cluster_tests::devices::{Device, Vendor};
use fulmar_mqtt::QoS;
use serde_json::{Value, json};

use super::{Connected, begin, cluster, command, counted};
use crate::support::QUIET;

/// One request: method and path after the device, body; the topic and payload that the device gets, with ID for the id;
/// the topic that it answers on and its answer; and the answer of the API.
struct Case {
    method: &'static str,
    path: &'static str,
    body: Value,
    topic: &'static str,
    asked: Value,
    answer_on: &'static str,
    answer: Value,
    response: Value,
}

fn huawei() -> Vec<Case> {
    vec![
        Case {
            method: "POST",
            path: "/commands",
            body: json!({"command_name": "ON_OFF", "paras": {"value": "ON"}}),
            topic: "$oc/devices/DEVICE/sys/commands/request_id=ID",
            asked: json!({"object_device_id": "DEVICE", "command_name": "ON_OFF", "service_id": "", "paras": {"value": "ON"}}),
            answer_on: "$oc/devices/DEVICE/sys/commands/response/request_id=ID",
            answer: json!({"result_code": 3, "response_name": "R", "paras": {"x": [1]}}),
            response: json!({"result_code": 3, "response_name": "R", "paras": {"x": [1]}}),
        },
        Case {
            method: "PUT",
            path: "/properties",
            body: json!({"services": [{"service_id": "Meter", "properties": {"level": 4}}]}),
            topic: "$oc/devices/DEVICE/sys/properties/set/request_id=ID",
            asked: json!({"object_device_id": "DEVICE", "services": [{"service_id": "Meter", "properties": {"level": 4}}]}),
            answer_on: "$oc/devices/DEVICE/sys/properties/set/response/request_id=ID",
            answer: json!({"result_code": 0, "result_desc": "success"}),
            response: json!({"result_code": 0, "result_desc": "success"}),
        },
        Case {
            method: "GET",
            path: "/properties?service_id=Meter",
            body: Value::Null,
            topic: "$oc/devices/DEVICE/sys/properties/get/request_id=ID",
            asked: json!({"object_device_id": "DEVICE", "service_id": "Meter"}),
            answer_on: "$oc/devices/DEVICE/sys/properties/get/response/request_id=ID",
            answer: json!({"services": [{"service_id": "Meter", "properties": {"level": 4}}]}),
            response: json!({"services": [{"service_id": "Meter", "properties": {"level": 4}}]}),
        },
    ]
}

fn aliyun() -> Vec<Case> {
    let service =
        |method: &str, params: Value| json!({"id": "ID", "version": "1.0", "params": params, "method": method});
    let done = |data: Value| json!({"id": "ID", "code": 200, "data": data});
    vec![
        Case {
            method: "POST",
            path: "/commands",
            body: json!({"service_id": "default", "command_name": "reboot", "paras": {"in": 1}}),
            topic: "/sys/PRODUCT/NAME/thing/service/reboot",
            asked: service("thing.service.reboot", json!({"in": 1})),
            answer_on: "/sys/PRODUCT/NAME/thing/service/reboot_reply",
            answer: done(json!({"ok": true})),
            response: json!({"result_code": 0, "response_name": "reboot", "paras": {"ok": true}}),
        },
        Case {
            method: "POST",
            path: "/commands",
            body: json!({"command_name": "reboot", "paras": {"in": 1}, "at_once": true}),
            topic: "/ext/rrpc/ID/sys/PRODUCT/NAME/thing/service/reboot",
            asked: service("thing.service.reboot", json!({"in": 1})),
            answer_on: "/ext/rrpc/ID/sys/PRODUCT/NAME/thing/service/reboot",
            answer: done(json!({})),
            response: json!({"result_code": 0, "response_name": "reboot", "paras": {}}),
        },
        Case {
            method: "PUT",
            path: "/properties",
            body: json!({"services": [{"service_id": "default", "properties": {"level": 4}}]}),
            topic: "/sys/PRODUCT/NAME/thing/service/property/set",
            asked: service("thing.service.property.set", json!({"level": 4})),
            answer_on: "/sys/PRODUCT/NAME/thing/service/property/set_reply",
            answer: json!({"id": "ID", "code": 460, "data": {}, "message": "no"}),
            response: json!({"result_code": 460, "result_desc": "no"}),
        },
        Case {
            method: "GET",
            path: "/properties",
            body: Value::Null,
            topic: "/sys/PRODUCT/NAME/thing/service/property/get",
            asked: service("thing.service.property.get", json!([])),
            answer_on: "/sys/PRODUCT/NAME/thing/service/property/get_reply",
            answer: done(json!({"level": 4})),
            response: json!({"services": [{"service_id": "default", "properties": {"level": 4}}]}),
        },
        Case {
            method: "POST",
            path: "/rrpc",
            body: json!({"payload": "WzFd", "encoding": "base64"}),
            topic: "/sys/PRODUCT/NAME/rrpc/request/ID",
            asked: json!([1]),
            answer_on: "/sys/PRODUCT/NAME/rrpc/response/ID",
            answer: json!([2]),
            response: json!({"payload": "[2]", "encoding": "none"}),
        },
    ]
}

fn tencent() -> Vec<Case> {
    let case = |method, path, body, asked: Value, response: Value| Case {
        method,
        path,
        body,
        topic: "$rrpc/rxd/PRODUCT/NAME/ID",
        asked,
        answer_on: "$rrpc/txd/PRODUCT/NAME/ID",
        answer: json!({"code": 0}),
        response,
    };
    let services = json!([{"service_id": "s", "properties": {"level": 4}}]);
    vec![
        case(
            "POST",
            "/commands",
            json!({"command_name": "on", "paras": {}}),
            json!({"type": "command", "service_id": "", "command_name": "on", "paras": {}}),
            json!({"code": 0}),
        ),
        case(
            "PUT",
            "/properties",
            json!({"services": services}),
            json!({"type": "set_properties", "services": services}),
            json!({"code": 0}),
        ),
        case(
            "GET",
            "/properties",
            Value::Null,
            json!({"type": "get_properties", "service_id": ""}),
            json!({"code": 0}),
        ),
        case(
            "POST",
            "/rrpc",
            json!({"payload": "[3]"}),
            json!([3]),
            json!({"payload": "{\"code\":0}", "encoding": "none"}),
        ),
    ]
}

fn written(text: &str, device: &Device, id: &str) -> String {
    let text = text.replace("DEVICE", &device.id()).replace("PRODUCT", device.product_id);
    text.replace("NAME", &device.name).replace("ID", id)
}

/// The id in a topic or in a payload.
fn id_of(pattern: &str, topic: &str, payload: &Value, device: &Device) -> String {
    let pattern = written(pattern, device, "\0");
    let Some((before, after)) = pattern.split_once('\0') else {
        return payload["id"].as_str().unwrap().to_owned();
    };
    let id = topic.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    id.unwrap_or_else(|| panic!("{topic} is not {pattern:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_is_asked_from_any_node_and_answers() {
    let devices: Vec<Device> = Vendor::OF_DEVICES.map(|vendor| Device::new(vendor, "one")).into();
    let (mut cluster, rest) = cluster(&devices, "60s").await;
    let model = json!([{"service_id": "Meter", "properties": [
        {"property_name": "level", "data_type": "int", "method": "RW"},
    ]}]);
    rest.call("PUT", "/products/prod1", Some(&json!({"service_capabilities": model}))).await.unwrap();
    let mut calls = 0;
    for (device, cases) in devices.iter().zip([huawei(), aliyun(), tencent()]) {
        let mut connected = Connected::at(&cluster, 1, device).await;
        if device.vendor == Vendor::Tencent {
            connected.subscribe(&written("$rrpc/rxd/PRODUCT/NAME/+", device, ""), QoS::AtLeastOnce).await;
        }
        for case in cases {
            // From another node, and from the device's own.
            for node in [0, 1, 2] {
                let there = rest.at(cluster.member(node).rest);
                let path = format!("/devices/{}{}", device.id(), case.path);
                let answer = begin(&there, case.method, path, case.body.clone());
                let (topic, payload) = connected.asked().await;
                let id = id_of(case.topic, &topic, &payload, device);
                assert_eq!(topic, written(case.topic, device, &id));
                let asked: Value = serde_json::from_str(&written(&case.asked.to_string(), device, &id)).unwrap();
                assert_eq!(payload, asked, "{topic}");
                let answered: Value = serde_json::from_str(&written(&case.answer.to_string(), device, &id)).unwrap();
                connected.say(&written(case.answer_on, device, &id), &answered).await;
                let (status, body) = answer.await.unwrap();
                assert_eq!((status, &body["response"]), (200, &case.response), "{topic}: {body}");
                let shown = if case.path == "/commands" { &body["command_id"] } else { &body["request_id"] };
                assert_eq!(shown.as_str().map(str::len), Some(36), "{body}");
                calls += 1;
            }
        }
    }
    counted(&mut cluster, &["fulmar_calls_total", "answered"], calls).await;
    counted(&mut cluster, &["fulmar_call_waiters"], 0).await;
    counted(&mut cluster, &[super::DROPPED], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_gets_one_copy_and_never_its_own_answer() {
    let device = Device::new(Vendor::Huawei, "one");
    let (cluster, rest) = cluster(std::slice::from_ref(&device), "60s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    connected.subscribe(&format!("$oc/devices/{}/sys/commands/#", device.id()), QoS::AtLeastOnce).await;
    for number in 0..3 {
        let answer = command(&rest, &device, number);
        let message = connected.message().await;
        // With the QoS of its own subscription.
        assert_eq!(message.qos, QoS::AtLeastOnce);
        let payload: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(payload["paras"]["number"], number, "anything else would have come before it");
        connected.answer(message.topic.unwrap().as_str(), &json!({"result_code": 0})).await;
        assert_eq!(answer.await.unwrap().0, 200);
    }
    connected.client.expect_silence(QUIET).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sub_device_is_reached_over_its_gateway() {
    let gateway = Device::new(Vendor::Huawei, "gateway");
    let (cluster, rest) = cluster(std::slice::from_ref(&gateway), "60s").await;
    let sub = json!({"product_id": gateway.product_id, "node_id": "sub", "gateway_id": gateway.id()});
    rest.call("POST", "/devices", Some(&sub)).await.unwrap();
    let sub = Device::new(Vendor::Huawei, "sub");
    let (status, body) = command(&rest, &sub, 0).await.unwrap();
    assert_eq!((status, body["error_code"].as_str()), (400, Some("IOTDA.014028")), "{body}");

    let mut connected = Connected::at(&cluster, 2, &gateway).await;
    let answer = command(&rest, &sub, 7);
    let (topic, payload) = connected.asked().await;
    assert!(topic.starts_with(&format!("$oc/devices/{}/sys/commands/request_id=", gateway.id())), "{topic}");
    assert_eq!((&payload["object_device_id"], &payload["paras"]["number"]), (&json!(sub.id()), &json!(7)));
    connected.answer(&topic, &json!({"result_code": 0})).await;
    assert_eq!(answer.await.unwrap().1["response"], json!({"result_code": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_answers_is_on_its_way() {
    let device = Device::new(Vendor::Tencent, "one");
    let (cluster, rest) = cluster(std::slice::from_ref(&device), "60s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    let path = format!("/devices/{}/rrpc", device.id());
    let body = json!({"payload": "{\"a\":1}", "reply": false});
    // It has not subscribed: nothing is sent.
    let (status, refused) = rest.ask("POST", &path, Some(&body)).await.unwrap();
    assert_eq!((status, refused["error_code"].as_str()), (403, Some("IOTDA.014112")), "{refused}");
    connected.subscribe(&written("PRODUCT/NAME/control", &device, ""), QoS::AtLeastOnce).await;
    let (status, sent) = rest.ask("POST", &path, Some(&body)).await.unwrap();
    assert_eq!((status, &sent["response"]), (200, &Value::Null), "{sent}");
    assert_eq!(connected.asked().await, (written("PRODUCT/NAME/control", &device, ""), json!({"a": 1})));
}
