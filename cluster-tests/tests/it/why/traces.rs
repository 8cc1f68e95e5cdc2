//! The path of a message over two nodes.

use super::*;

fn stages(message: &Value, node: &str) -> Vec<String> {
    let hops = message["hops"].as_array().unwrap().iter();
    hops.filter(|hop| hop["node"] == node).map(|hop| hop["stage"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_followed_over_two_nodes_hop_by_hop() {
    let cluster = cluster().await;
    let (here, elsewhere) = (admin(&cluster, 0), admin(&cluster, 2));
    let mut receiver = connect(&cluster, 1, v5("receiver")).await;
    receiver.subscribe("traced/#", 1).await.unwrap();
    let mut sender = connect(&cluster, 0, v5("sender")).await;
    sender.publish_acked("traced/before", 1, "x").await.unwrap();
    receiver.receive(SOON).await.unwrap();

    let started = here.call("Traces/Start", json!({ "client": "sender", "payload_bytes": 2 })).await.unwrap();
    let trace = started["trace"].as_u64().unwrap();
    sender.publish_acked("traced/live", 1, "payload").await.unwrap();
    receiver.receive(SOON).await.unwrap();

    let mut shown = Value::Null;
    let path = wait_for("a whole path", SOON, async || {
        shown = elsewhere.call("Traces/Show", json!({ "trace": trace })).await.unwrap();
        let message = shown["messages"][0].clone();
        let acked = message["hops"].as_array()?.iter().any(|hop| hop["stage"] == "ack");
        acked.then_some(message)
    })
    .await;
    let message = path.unwrap_or_else(|error| panic!("{error}: {shown:#}"));
    assert_eq!(
        (shown["messages"].as_array().unwrap().len(), &message["topic"]),
        (1, &json!("traced/live")),
        "{shown:#}"
    );
    let hops = message["hops"].as_array().unwrap();
    let node = |stage: &str| hops.iter().find(|hop| hop["stage"] == stage).unwrap()["node"].as_str().unwrap();
    let (accepting, delivering) = (node("in"), node("from"));
    assert_ne!(accepting, delivering);
    assert_eq!(stages(&message, accepting), ["in", "auth", "match", "forward"], "{message:#}");
    assert_eq!(stages(&message, delivering), ["from", "queue", "out", "ack"], "{message:#}");
    assert_eq!(hops[0]["payload"], "cGE=", "the first two bytes");
    assert!(hops.iter().all(|hop| hop["message"] == message["message"]));
    assert_eq!(hops.iter().find(|hop| hop["stage"] == "ack").unwrap()["client"], "receiver");

    // What is kept for a session goes by the log, and is followed there.
    let mut away = connect(&cluster, 1, v5("away").persistent(3600)).await;
    away.subscribe("kept/#", 1).await.unwrap();
    sender.publish_acked("kept/1", 1, "kept").await.unwrap();
    away.receive(SOON).await.unwrap();
    wait_for("the way by the log", SOON, async || {
        let shown = here.call("Traces/Show", json!({ "trace": trace })).await.unwrap();
        let message = shown["messages"].as_array()?.iter().find(|message| message["topic"] == "kept/1").cloned()?;
        let there = stages(&message, delivering);
        let committed = stages(&message, accepting).contains(&"commit".to_owned());
        (committed && there.contains(&"queue".to_owned()) && there.contains(&"out".to_owned())).then_some(())
    })
    .await
    .unwrap();
    let running = elsewhere.call("Traces/List", json!({})).await.unwrap();
    assert_eq!(running["traces"][0]["trace"], trace, "{running:#}");
    assert_eq!(elsewhere.call("Traces/Stop", json!({ "trace": trace })).await.unwrap()["stopped"], true);
    let running = here.call("Traces/List", json!({})).await.unwrap();
    assert!(running["traces"].as_array().is_none_or(Vec::is_empty), "{running:#}");
}
