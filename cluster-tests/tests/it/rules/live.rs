//! Live rules: on every node, for what comes in there.

use serde_json::json;

use super::*;
use crate::support::QUIET;

const SELECT: &str = "notify_data.header.device_id AS device_id, notify_data.body.content";
const WHERE: &str = "notify_data.body.content.temperature > 38";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_selects_on_every_node_what_it_republishes_to_all() {
    let devices = [huawei("l0"), huawei("l1"), huawei("l2")];
    let (mut cluster, rest) = cluster(&devices, "").await;
    let body = rule("device.message", "report", json!({ "select": SELECT, "where": WHERE }));
    let (rule_id, _) = make(&rest, &body, "out/live", 1).await;
    let mut app = subscriber(&cluster, 2, "out/#").await;
    let mut reporters = Vec::new();
    for (node, device) in devices.iter().enumerate() {
        reporters.push(Reporter::connect(&cluster, node, device).await);
    }
    reporters[0].send("messages/up", &json!({ "temperature": 40 })).await;
    // Activated at another node, it is at every one.
    let other = rest.at(cluster.member(1).rest);
    activate(&other, &rule_id, true).await;
    runs(&mut cluster, &rest, &rule_id, true).await;
    for reporter in &mut reporters {
        reporter.send("messages/up", &json!({ "temperature": 38 })).await;
        reporter.send("messages/up", &json!({ "temperature": 39, "of": reporter.device.id() })).await;
        let id = reporter.device.id();
        let content = json!({ "temperature": 39, "of": id });
        assert_eq!(next(&mut app).await, json!({ "device_id": id, "notify_data.body.content": content }));
    }
    for node in 0..3 {
        let there = rest.at(cluster.member(node).rest);
        cluster_tests::wait_for("the books of the rule", SOON, async || {
            let status = status(&there, &rule_id).await;
            let passed = &status["actions"][0]["passed"];
            (status["matched"] == 1 && status["unmatched"] == 1 && *passed == 1).then_some(())
        })
        .await
        .unwrap();
    }
    activate(&rest, &rule_id, false).await;
    runs(&mut cluster, &rest, &rule_id, false).await;
    reporters[1].send("messages/up", &json!({ "temperature": 50 })).await;
    app.expect_silence(QUIET).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_have_the_form_of_the_vendor_and_rules_their_scope() {
    let device = huawei("s0");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), "").await;
    let app_id = rest.call("POST", "/apps", Some(&json!({ "app_name": "other" }))).await.unwrap()["app_id"].clone();
    let scope = json!({ "app_type": "APP", "app_id": app_id });
    let (elsewhere, _) = make(&rest, &rule("device.property", "report", scope), "out/elsewhere", 0).await;
    let (here, _) = make(&rest, &rule("device.property", "report", json!({ "app_type": "APP" })), "out/here", 0).await;
    let (presence, _) = make(&rest, &rule("device.status", "update", json!({})), "out/status", 0).await;
    let (deleted, _) = make(&rest, &rule("device", "delete", json!({})), "out/deleted", 0).await;
    for rule_id in [&elsewhere, &here, &presence, &deleted] {
        activate(&rest, rule_id, true).await;
        runs(&mut cluster, &rest, rule_id, true).await;
    }
    let mut app = subscriber(&cluster, 1, "out/#").await;
    let mut reporter = Reporter::connect(&cluster, 2, &device).await;
    let online = next(&mut app).await;
    assert_eq!((&online["resource"], &online["event"]), (&json!("device.status"), &json!("update")));
    assert_eq!(online["notify_data"]["body"]["status"], "ONLINE");
    reporter.report(21).await;
    let report = next(&mut app).await;
    assert_eq!((&report["resource"], &report["event"]), (&json!("device.property"), &json!("report")));
    let header = &report["notify_data"]["header"];
    let id = device.id();
    assert_eq!((&header["device_id"], &header["gateway_id"]), (&json!(id), &json!(id)));
    let service = &report["notify_data"]["body"]["services"][0];
    assert_eq!((&service["service_id"], &service["properties"]), (&json!("S"), &json!({ "temperature": 21 })));
    for (value, length) in [
        (&report["event_time"], 16),
        (&report["event_time_ms"], 24),
        (&report["request_id"], 36),
        (&service["event_time"], 16),
    ] {
        assert_eq!(value.as_str().map(str::len), Some(length), "{report}");
    }
    drop(reporter);
    assert_eq!(next(&mut app).await["notify_data"]["body"]["status"], "OFFLINE");
    rest.call("DELETE", &format!("/devices/{id}"), None).await.unwrap();
    let gone = next(&mut app).await;
    assert_eq!((&gone["event"], &gone["notify_data"]["header"]["device_id"]), (&json!("delete"), &json!(id)));
    assert_eq!(status(&rest, &elsewhere).await["matched"], 0);
    rest.call("DELETE", &format!("/routing-rule/rules/{here}"), None).await.unwrap();
    let left = rest.call("GET", "/routing-rule/actions", None).await.unwrap();
    assert_eq!(left["count"], 3, "a rule takes its actions with it: {left}");
}
