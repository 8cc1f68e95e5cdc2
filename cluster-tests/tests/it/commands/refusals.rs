//! What is refused, with which status and code, and what the text names.

use cluster_tests::devices::{Device, Vendor};
use serde_json::{Value, json};

use super::{Connected, cluster, command};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_by_name() {
    let names = ["on", "off", "frozen"];
    let devices: Vec<Device> = names.iter().map(|name| Device::new(Vendor::Huawei, *name)).collect();
    let aliyun = Device::new(Vendor::Aliyun, "on");
    let all: Vec<Device> = devices.iter().cloned().chain([aliyun.clone()]).collect();
    let (cluster, rest) = cluster(&all, "60s").await;
    let model = json!([{
        "service_id": "Meter",
        "properties": [
            {"property_name": "level", "data_type": "int", "max": "9", "method": "RW"},
            {"property_name": "seen", "data_type": "int", "method": "R"},
        ],
        "commands": [{"command_name": "turn", "paras": [
            {"para_name": "value", "data_type": "enum", "enum_list": ["ON", "OFF"], "required": true},
        ]}],
    }]);
    rest.call("PUT", "/products/prod1", Some(&json!({"service_capabilities": model}))).await.unwrap();
    rest.call("POST", "/devices/prod1_frozen/freeze", None).await.unwrap();
    let _connected = [Connected::at(&cluster, 1, &devices[0]).await, Connected::at(&cluster, 1, &aliyun).await];

    let (invalid, unknown, fixed) = ("IOTDA.000006", "IOTDA.013002", "IOTDA.000029");
    let turn =
        |service: &str, name: &str, paras: Value| json!({"service_id": service, "command_name": name, "paras": paras});
    let set = |properties: Value| json!({"services": [{"service_id": "Meter", "properties": properties}]});
    let to = |device: &str, rest: &str| format!("/devices/{device}{rest}");
    let on = |rest: &str| to("prod1_on", rest);
    let large = json!({"paras": {"text": "x".repeat(300 * 1024)}, "command_name": "c"});
    let cases: Vec<(&str, String, Value, u16, &str, &str)> = vec![
        ("POST", to("nobody", "/commands"), json!({"paras": {}}), 404, "IOTDA.014000", "nobody"),
        ("GET", to("nobody", "/properties"), Value::Null, 404, "IOTDA.014000", "nobody"),
        ("POST", to("prod1_off", "/commands"), json!({"paras": {}}), 403, "IOTDA.014016", "not online"),
        ("PUT", to("prod1_off", "/properties"), set(json!({"level": 1})), 403, "IOTDA.014016", "not online"),
        ("POST", to("prod1_frozen", "/commands"), json!({"paras": {}}), 403, "FULMAR.000013", "frozen"),
        ("POST", on("/commands"), json!({}), 400, invalid, "paras"),
        ("POST", on("/commands"), json!({"paras": null}), 400, invalid, "paras"),
        ("POST", on("/commands"), json!({"paras": []}), 400, invalid, "paras"),
        ("POST", on("/commands"), json!({"paras": "x"}), 400, invalid, "paras"),
        ("POST", on("/commands"), json!({"service_id": 1, "paras": {}}), 400, invalid, "service_id"),
        ("POST", on("/commands"), json!({"service_id": "s".repeat(65), "paras": {}}), 400, invalid, "service_id"),
        ("POST", on("/commands"), json!({"command_name": "c".repeat(129), "paras": {}}), 400, invalid, "command_name"),
        ("POST", on("/commands"), json!({"at_once": 1, "paras": {}}), 400, invalid, "at_once"),
        ("POST", on("/commands"), json!({"at_once": true, "paras": {}}), 400, invalid, "at_once"),
        ("POST", on("/commands"), json!([1]), 400, invalid, "body"),
        ("POST", on("/commands"), turn("None", "turn", json!({})), 400, unknown, "service_id"),
        ("POST", on("/commands"), turn("Meter", "none", json!({})), 400, unknown, "command_name"),
        ("POST", on("/commands"), turn("Meter", "turn", json!({})), 400, invalid, "paras.value"),
        ("POST", on("/commands"), turn("Meter", "turn", json!({"value": "UP"})), 400, invalid, "paras.value"),
        ("POST", on("/commands"), turn("Meter", "turn", json!({"value": 1})), 400, invalid, "paras.value"),
        ("POST", on("/commands"), turn("Meter", "turn", json!({"value": "ON", "x": 1})), 400, invalid, "paras.x"),
        ("POST", to(&aliyun.id(), "/commands"), large, 400, invalid, "paras"),
        ("POST", to(&aliyun.id(), "/commands"), json!({"paras": {}}), 400, invalid, "command_name"),
        ("PUT", on("/properties"), json!({}), 400, invalid, "services"),
        ("PUT", on("/properties"), json!({"services": []}), 400, invalid, "services"),
        ("PUT", on("/properties"), json!({"services": [1]}), 400, invalid, "services[0]"),
        ("PUT", on("/properties"), json!({"services": [{"properties": {}}]}), 400, invalid, "services[0].service_id"),
        (
            "PUT",
            on("/properties"),
            json!({"services": [{"service_id": "Meter"}]}),
            400,
            invalid,
            "services[0].properties",
        ),
        ("PUT", on("/properties"), set(json!({"level": 10})), 400, invalid, "services[0].properties.level"),
        ("PUT", on("/properties"), set(json!({"seen": 1})), 400, fixed, "services[0].properties.seen"),
        ("PUT", on("/properties"), set(json!({"none": 1})), 400, fixed, "services[0].properties.none"),
        ("GET", on("/properties?service_id=None"), Value::Null, 400, unknown, "service_id"),
        ("POST", on("/rrpc"), json!({"payload": "x"}), 400, invalid, "device_id"),
        ("POST", to(&aliyun.id(), "/rrpc"), json!({}), 400, invalid, "payload"),
        ("POST", to(&aliyun.id(), "/rrpc"), json!({"payload": 1}), 400, invalid, "payload"),
        ("POST", to(&aliyun.id(), "/rrpc"), json!({"payload": "?", "encoding": "base64"}), 400, invalid, "payload"),
        ("POST", to(&aliyun.id(), "/rrpc"), json!({"payload": "x", "encoding": "hex"}), 400, invalid, "encoding"),
        ("POST", to(&aliyun.id(), "/rrpc"), json!({"payload": "x", "reply": false}), 400, invalid, "reply"),
        ("POST", on("/async-commands"), json!({"paras": {}}), 400, invalid, "synchronous"),
        ("GET", on("/async-commands"), Value::Null, 400, invalid, "synchronous"),
        ("GET", on("/async-commands/1"), Value::Null, 400, invalid, "synchronous"),
        ("GET", to("nobody", "/async-commands"), Value::Null, 404, "IOTDA.014000", "nobody"),
        ("GET", on("/commands"), Value::Null, 405, "FULMAR.000405", "POST"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, status, code, named) in &cases {
        // By a node that does not have the connection.
        let (came, answer) = rest.ask(method, path, (!body.is_null()).then_some(body)).await.unwrap();
        let text = answer["error_msg"].as_str().unwrap_or_default();
        if came != *status || answer["error_code"] != *code || !text.contains(named) {
            let body: String = body.to_string().chars().take(100).collect();
            wrong.push(format!("{method} {path} {body}: {came} {answer}, not {status} {code} {named}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_one_device_is_bounded() {
    const AT_ONCE: u64 = 64;
    let devices = [Device::new(Vendor::Huawei, "one"), Device::new(Vendor::Huawei, "two")];
    let (cluster, rest) = cluster(&devices, "60s").await;
    let mut connected = Connected::at(&cluster, 1, &devices[0]).await;
    let mut other = Connected::at(&cluster, 1, &devices[1]).await;
    let mut waiting = Vec::new();
    let mut topics = Vec::new();
    for number in 0..AT_ONCE {
        waiting.push(command(&rest, &devices[0], number));
        topics.push(connected.asked().await.0);
    }
    let (status, body) = command(&rest, &devices[0], AT_ONCE).await.unwrap();
    assert_eq!((status, body["error_code"].as_str()), (503, Some("FULMAR.000011")), "{body}");
    // Another device is none the worse for it.
    let unharmed = command(&rest, &devices[1], 0);
    let (topic, _) = other.asked().await;
    other.answer(&topic, &json!({"result_code": 0})).await;
    assert_eq!(unharmed.await.unwrap().0, 200);
    for topic in topics {
        connected.answer(&topic, &json!({"result_code": 0})).await;
    }
    for call in waiting {
        assert_eq!(call.await.unwrap().1["response"], json!({"result_code": 0}));
    }
}
