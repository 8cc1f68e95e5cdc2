//! What is no rule, and how that is said.

use serde_json::json;

use super::*;

async fn refused(rest: &Rest, method: &str, path: &str, body: &Value) -> String {
    match rest.call(method, path, Some(body)).await {
        Ok(answer) => panic!("{method} {path} {body}: {answer}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_name_member_and_column() {
    let (_cluster, rest) = cluster(&[], "").await;
    let rules = "/routing-rule/rules";
    let report = |more| rule("device.property", "report", more);
    for (body, wanted) in [
        (json!({}), "400 subject is required"),
        (json!({ "subject": "x" }), "400 subject must be an object"),
        (json!({ "subject": { "resource": "device" } }), "400 subject.event is required"),
        (rule("nothing", "report", json!({})), "400 subject.resource must be device or"),
        (rule("device", "report", json!({})), "400 subject.event is none of device"),
        (report(json!({ "where": "a >" })), "400 where at column 4: expected a value, found the end"),
        (report(json!({ "where": "a = '\u{e9}'" })), "400 where at column 6: only ASCII is allowed"),
        (report(json!({ "where": "x".repeat(2501) })), "400 where at column 2501: longer than 2500 characters"),
        (report(json!({ "select": "1" })), "400 select at column 2: a constant or function needs a name"),
        (report(json!({ "select": 1 })), "400 select must be a string"),
        (report(json!({ "rule_name": "x".repeat(257) })), "400 rule_name must have 0 to 256 characters"),
        (report(json!({ "app_type": "ONE" })), "400 app_type must be GLOBAL or APP"),
        (report(json!({ "app_type": "APP", "app_id": "nowhere" })), "403 resource space nowhere does not exist"),
        (report(json!({ "guarantee": "some" })), "400 guarantee must be live or durable"),
    ] {
        said(&refused(&rest, "POST", rules, &body).await, wanted);
    }
    let (rule_id, action_id) = make(&rest, &report(json!({ "where": "a = 1" })), "out/x", 0).await;
    let path = format!("{rules}/{rule_id}");
    for (body, wanted) in [
        (json!({ "select": "*" }), "400 where is required: select and where are changed together"),
        (json!({ "where": "" }), "400 select is required"),
        (json!({ "active": "yes" }), "400 active must be true or false"),
        (json!({ "subject": { "resource": "device", "event": "create" } }), "400 subject cannot be changed"),
        (json!({ "guarantee": "durable" }), "400 guarantee cannot be changed"),
    ] {
        said(&refused(&rest, "PUT", &path, &body).await, wanted);
    }
    let actions = "/routing-rule/actions";
    let detail = json!({ "mqtt_republishing": { "topic": "a" } });
    for (body, wanted) in [
        (json!({}), "400 rule_id is required"),
        (json!({ "rule_id": rule_id }), "400 channel is required"),
        (json!({ "rule_id": rule_id, "channel": "MQTT_REPUBLISHING" }), "400 channel_detail is required"),
        (json!({ "rule_id": rule_id, "channel": "X", "channel_detail": {} }), "400 channel must be MQTT_FORWARDING or"),
        (
            json!({ "rule_id": rule_id, "channel": "OBS_FORWARDING", "channel_detail": {} }),
            "400 channel OBS_FORWARDING is unsupported",
        ),
        (
            json!({ "rule_id": rule_id, "channel": "MQTT_REPUBLISHING", "channel_detail": {} }),
            "400 channel_detail.mqtt_republishing must be an object",
        ),
        (
            json!({ "rule_id": "nowhere", "channel": "MQTT_REPUBLISHING", "channel_detail": detail }),
            "404 rule nowhere does not exist",
        ),
    ] {
        said(&refused(&rest, "POST", actions, &body).await, wanted);
    }
    for (method, path) in [("GET", "rules/x"), ("DELETE", "rules/x"), ("GET", "actions/x"), ("DELETE", "actions/x")] {
        let path = format!("/routing-rule/{path}");
        let error = rest.call(method, &path, None).await.expect_err(&path).to_string();
        assert!(error.contains(": 404 "), "{error}");
    }
    let trial = |more: Value| json!({ "event": { "a": 1, "b": { "c": [2] } } , "where": more });
    let path = format!("{path}/test");
    let tried = rest.call("POST", &path, Some(&trial(Value::Null))).await.unwrap();
    assert_eq!(tried, json!({ "matched": true, "output": { "a": 1, "b": { "c": [2] } }, "error": null }));
    let tried = rest.call("POST", &path, Some(&trial(json!("b.c[0] < 2")))).await.unwrap();
    assert_eq!(tried, json!({ "matched": false, "output": null, "error": null }));
    let other = json!({ "event": { "resource": "device", "event": "create" } });
    let tried = rest.call("POST", &path, Some(&other)).await.unwrap();
    assert_eq!(
        (&tried["matched"], &tried["error"]),
        (&json!(false), &json!("the rule listens to device.property:report"))
    );
    let body = json!({ "event": { "a": 1 }, "select": "a AS b" });
    let tried = rest.call("POST", "/routing-rule/test", Some(&body)).await.unwrap();
    assert_eq!(tried["output"], json!({ "b": 1 }));
    said(&refused(&rest, "POST", &path, &json!({})).await, "400 event must be an object");
    said(&refused(&rest, "POST", &path, &trial(json!("b >"))).await, "400 where at column 4: expected a value");
    // Lists have their count beside them, and pages.
    for _ in 0..3 {
        rest.call("POST", rules, Some(&rule("device", "create", json!({})))).await.unwrap();
    }
    let page = rest.call("GET", &format!("{rules}?limit=2&resource=device"), None).await.unwrap();
    assert_eq!((&page["count"], page["rules"].as_array().unwrap().len()), (&json!(3), 2), "{page}");
    let marker = page["marker"].as_str().unwrap();
    let page = rest.call("GET", &format!("{rules}?limit=2&resource=device&marker={marker}"), None).await.unwrap();
    assert_eq!((&page["count"], page["rules"].as_array().unwrap().len()), (&json!(3), 1), "{page}");
    let page = rest.call("GET", &format!("{actions}?rule_id={rule_id}"), None).await.unwrap();
    assert_eq!((&page["count"], &page["actions"][0]["action_id"]), (&json!(1), &json!(action_id)));
}

/// The status, and what the message says after its fixed beginning.
fn said(error: &str, wanted: &str) {
    let (status, text) = wanted.split_once(' ').unwrap();
    assert!(error.contains(&format!(": {status} ")) && error.contains(text), "{error}, wanted {wanted}");
}
