//! From a report to the applications that listen.

use std::collections::BTreeSet;

use super::*;
use crate::support::QUIET;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_pushed_across_nodes() {
    let (cluster, rest, device) = start().await;
    let code = Code::make(&rest, false).await.unwrap();
    let (at_1, at_2) = (rest.at(cluster.member(1).rest), rest.at(cluster.member(2).rest));
    let topic = json!({ "mqtt_forwarding": { "topic": "app/t1" } });
    let rule = rule(&at_2, json!({}), "MQTT_FORWARDING", topic).await;
    let mut application = open(&code, &cluster, 1, "app").await;
    application.listen("app/t1").await;
    let mut reporter = connect(&cluster, 0, &device).await;
    reporter.report(1).await;
    activate(&cluster, &at_1, &rule, true).await;
    reporter.report(2).await;
    let push = application.receive().await;
    assert_eq!((push.topic.as_ref().unwrap().as_str(), push.qos), ("app/t1", QoS::AtMostOnce));
    let event: Value = serde_json::from_slice(&push.payload).unwrap();
    assert_eq!(value(&event), 2, "what was reported before it was active is not pushed");
    assert_eq!((event["resource"].as_str(), event["event"].as_str()), (Some("device.property"), Some("report")));
    let header = &event["notify_data"]["header"];
    assert_eq!(
        (header["device_id"].as_str(), header["gateway_id"].as_str()),
        (Some(&*device.id()), Some(&*device.id()))
    );
    activate(&cluster, &at_2, &rule, false).await;
    reporter.report(3).await;
    application.client.expect_silence(QUIET).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharers_split_messages_without_loss_or_doubles() {
    const MESSAGES: usize = 100;
    let (cluster, rest, device) = start().await;
    let code = Code::make(&rest, false).await.unwrap();
    pushing(&cluster, &rest, "app/t1").await;
    let mut sharers = [open(&code, &cluster, 1, "one").await, open(&code, &cluster, 2, "two").await];
    for application in &mut sharers {
        application.listen("$share/g/app/t1").await;
    }
    // Plain subscriptions of one access key share as well; each group gets every message.
    let mut plain = open(&code, &cluster, 0, "plain").await;
    plain.listen("app/t1").await;
    let mut reporter = connect(&cluster, 0, &device).await;
    for number in 0..MESSAGES {
        reporter.report(number).await;
    }
    let mut alone = Vec::new();
    for _ in 0..MESSAGES {
        alone.push(value(&plain.json().await));
    }
    assert_eq!(alone, (0..MESSAGES).collect::<Vec<_>>(), "in order");
    let mut seen = Vec::new();
    for application in &mut sharers {
        let before = seen.len();
        while let Ok(Packet::Publish(publish)) = application.client.next(QUIET * 20).await {
            seen.push(value(&serde_json::from_slice(&publish.payload).unwrap()));
        }
        assert!(seen.len() > before, "one of two got nothing");
    }
    assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>().len()), (MESSAGES, MESSAGES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_listened_to_is_kept_and_handed_over_in_order() {
    const BEFORE: usize = 50;
    const AFTER: usize = 20;
    let (cluster, rest, device) = start().await;
    let code = Code::make(&rest, false).await.unwrap();
    pushing(&cluster, &rest, "app/t1").await;
    let mut reporter = connect(&cluster, 0, &device).await;
    for number in 0..BEFORE {
        reporter.report(number).await;
    }
    let mut application = open(&code, &cluster, 1, "app").await;
    application.listen("app/t1").await;
    for number in BEFORE..BEFORE + AFTER {
        reporter.report(number).await;
    }
    let mut seen = Vec::new();
    for _ in 0..BEFORE + AFTER {
        seen.push(value(&application.json().await));
    }
    assert_eq!(seen, (0..BEFORE + AFTER).collect::<Vec<_>>());
    // It goes, more comes, and it is back at another node.
    drop(application);
    reporter.report(1000).await;
    let mut application = open(&code, &cluster, 2, "app").await;
    application.listen("app/t1").await;
    reporter.report(1001).await;
    let mut seen = vec![value(&application.json().await)];
    while seen.last() != Some(&1001) {
        seen.push(value(&application.json().await));
    }
    assert!(seen == [1000, 1001] || seen == [1001], "{seen:?}");
}
