//! The causes that the issue names, each on a node of its own choice.

use super::*;

/// Asks until this is the likeliest cause: what happened on one node is soon, not at once, known at another.
async fn because(admin: &Admin, question: Value, cause: &str) -> Value {
    because_of(admin, question, cause, None).await
}

/// As [`because`], until so many are counted.
async fn because_of(admin: &Admin, question: Value, cause: &str, count: Option<u64>) -> Value {
    let mut last = Value::Null;
    let found = wait_for(cause, SOON, async || {
        last = admin.call("Diagnosis/Why", question.clone()).await.unwrap();
        let first = last["findings"][0].clone();
        let counted = count.is_none_or(|count| first["evidence"][0]["count"] == count);
        (first["cause"] == cause && counted).then_some(first)
    })
    .await;
    let first = found.unwrap_or_else(|error| panic!("{question}: {error}: {last:#}"));
    assert!(first["sentence"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{first:#}");
    assert!(first["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{first:#}");
    first
}

async fn publish(cluster: &Cluster, node: usize, name: &str, topic: &str, count: usize) {
    let mut publisher = connect(cluster, node, v5(name)).await;
    for number in 0..count {
        publisher.publish_acked(topic, 1, format!("{number}")).await.unwrap();
    }
}

/// A session that outlives its connection, subscribes, and goes.
async fn leave_session(cluster: &Cluster, node: usize, name: &str, filter: &str, qos: u8) {
    let mut client = connect(cluster, node, v5(name).persistent(3600)).await;
    client.subscribe(filter, qos).await.unwrap();
    client.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cause_is_named_at_another_node_than_where_it_is() {
    let cluster = cluster().await;
    let elsewhere = admin(&cluster, 2);

    leave_session(&cluster, 0, "away", "cached/#", 1).await;
    publish(&cluster, 1, "p1", "cached/1", 3).await;
    let question = json!({ "client": "away", "topic": "cached/1" });
    because_of(&elsewhere, question, "offline_and_cached", Some(3)).await;

    leave_session(&cluster, 0, "hoarder", "full/#", 1).await;
    // Where only one session would get it, a message is refused instead.
    leave_session(&cluster, 1, "another", "full/+", 1).await;
    publish(&cluster, 1, "p2", "full/1", 8).await;
    let question = json!({ "client": "hoarder", "topic": "full/1" });
    because_of(&elsewhere, question, "queue_full", Some(3)).await;

    let mut nosy = connect(&cluster, 0, v5("nosy")).await;
    assert_ne!(nosy.try_subscribe("secret/#", 1).await.unwrap(), "1");
    because(&elsewhere, json!({ "client": "nosy", "topic": "secret/1" }), "no_permission").await;

    let mut deaf = connect(&cluster, 1, v5("deaf")).await;
    deaf.subscribe("something/else", 1).await.unwrap();
    because(&elsewhere, json!({ "client": "deaf", "topic": "news/1" }), "not_subscribed").await;

    leave_session(&cluster, 0, "late", "brief/#", 1).await;
    let mut hasty = RawClient::tcp(cluster.mqtt(1), Version::V5).await.unwrap();
    hasty.handshake(raw::connect(Version::V5, "hasty"), SOON).await.unwrap();
    let mut brief = raw::publish(1, "brief/1", QoS::AtLeastOnce, "x");
    brief.properties.message_expiry_s = Some(1);
    hasty.send(&Packet::Publish(brief)).await.unwrap();
    hasty.expect("PUBACK", SOON, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await.unwrap();
    let question = json!({ "client": "late", "topic": "brief/1" });
    wait_for("a message that has expired when its session is claimed", SOON, async || {
        // Whether or not it comes, it is not acknowledged: as long as it lives it stays.
        let mut late = RawClient::tcp(cluster.mqtt(0), Version::V5).await.unwrap();
        late.handshake(raw::persistent(Version::V5, "late"), SOON).await.unwrap();
        late.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
        let why = elsewhere.call("Diagnosis/Why", question.clone()).await.unwrap();
        (why["findings"][0]["cause"] == "expired").then_some(())
    })
    .await
    .unwrap();

    let mut original = connect(&cluster, 0, v5("twice").persistent(3600)).await;
    original.subscribe("t/#", 1).await.unwrap();
    let _second = connect(&cluster, 1, v5("twice").persistent(3600)).await;
    original.closed(SOON).await.unwrap();
    let found = because(&elsewhere, json!({ "client": "twice", "topic": "t/1" }), "superseded_owner").await;
    assert!(found["evidence"][0]["epoch"].as_u64() > Some(0), "{found:#}");

    leave_session(&cluster, 0, "casual", "often/#", 0).await;
    publish(&cluster, 1, "p3", "often/1", 1).await;
    because(&elsewhere, json!({ "client": "casual", "topic": "often/1" }), "qos_downgrade").await;

    because(&elsewhere, json!({ "client": "nobody" }), "unknown_client").await;
    let refused = elsewhere.call("Diagnosis/Why", json!({ "client": "c", "topic": "a/#" })).await.unwrap_err();
    assert!(refused.message().contains("topic"), "{refused}");

    rules_and_devices(&cluster, &elsewhere).await;

    let top = elsewhere.call("Topics/Top", json!({ "limit": 50 })).await.unwrap();
    let full = top["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == "full/1").cloned();
    assert_eq!(full.unwrap()["messages"], 8, "{top:#}");
}

/// What has to do with devices and rules: filtered, a sink that is down, frozen, never connected, banned.
async fn rules_and_devices(cluster: &Cluster, elsewhere: &Admin) {
    let rest = Rest::sign_in(cluster.member(0).rest).await.unwrap();
    rest.add_products().await.unwrap();
    let devices = ["r0", "frozen", "new"].map(|name| Device::new(Vendor::Huawei, name));
    rest.add(&devices).await.unwrap();
    let make = async |filter: &str, url: &str| {
        let subject = json!({ "resource": "device.message", "event": "report" });
        let body = json!({ "rule_name": "r", "subject": subject, "where": filter });
        let made = rest.call("POST", "/routing-rule/rules", Some(&body)).await.unwrap();
        let rule_id = made["rule_id"].as_str().unwrap().to_owned();
        let detail = json!({ "http_forwarding": { "url": url } });
        let body = json!({ "rule_id": rule_id, "channel": "HTTP_FORWARDING", "channel_detail": detail });
        rest.call("POST", "/routing-rule/actions", Some(&body)).await.unwrap();
        let path = format!("/routing-rule/rules/{rule_id}");
        rest.call("PUT", &path, Some(&json!({ "active": true }))).await.unwrap();
        rule_id
    };
    // Nobody listens there.
    let dead = "http://127.0.0.1:9/x";
    let filtered = make("notify_data.body.content.t > 100", dead).await;
    let down = make("notify_data.body.content.t > 1", dead).await;
    let mut reporter = RawClient::tcp(cluster.mqtt(1), Version::V311).await.unwrap();
    let connack = reporter.handshake(devices[0].connect(), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success);
    let topic = format!("$oc/devices/{}/sys/messages/up", devices[0].id());
    let report = raw::publish(1, &topic, QoS::AtLeastOnce, json!({ "t": 7 }).to_string());
    let mut sent = 0;
    // A rule runs on a node a moment after it is active.
    wait_for("a rule that has seen a report", SOON, async || {
        sent += 1;
        let report = fulmar_mqtt::packet::Publish { packet_id: sent, ..report.clone() };
        reporter.send(&Packet::Publish(report)).await.unwrap();
        let acked = |packet: &Packet| matches!(packet, Packet::PubAck(_)).then_some(());
        reporter.expect("PUBACK", SOON, acked).await.unwrap();
        let why = elsewhere.call("Diagnosis/Why", json!({ "rule": filtered })).await.unwrap();
        (why["findings"][0]["cause"] == "rule_filtered").then_some(())
    })
    .await
    .unwrap();
    because(elsewhere, json!({ "rule": down }), "sink_down").await;
    because(elsewhere, json!({ "rule": "none" }), "rule_missing").await;
    because(elsewhere, json!({ "client": devices[2].id() }), "never_connected").await;
    let path = format!("/devices/{}/freeze", devices[1].id());
    rest.call("POST", &path, None).await.unwrap();
    because(elsewhere, json!({ "client": devices[1].id() }), "frozen_device").await;
}
