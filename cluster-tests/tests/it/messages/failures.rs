//! Nodes that end, and clocks that go on.

use cluster_tests::harness::RECOVERY;

use super::*;
use crate::durability::has_failpoints;

async fn restart_all(cluster: &mut Cluster, env: &[(&str, &str)]) {
    for node in 0..3 {
        cluster.kill(node).await.unwrap();
    }
    for node in 0..3 {
        cluster.node(node).set_env(env);
        cluster.start_again(node).unwrap();
    }
    cluster.all_ready(RECOVERY).await.unwrap();
}

/// Asks until somebody takes it: after a failure the cluster may need a moment.
async fn signed_in(cluster: &Cluster, node: usize) -> Rest {
    let address = cluster.member(node).rest;
    wait_for("a token", RECOVERY, async || Rest::sign_in(address).await.ok()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_nodes_changes_nothing() {
    let device = huawei("d");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    assert_eq!(send(&rest, &device, "failed", json!({ "message": "x", "ttl": 0 })).await, "FAILED");
    let mut client = Client::connect(&cluster, 1, &device).await;
    assert_eq!(send_text(&rest, &device, "delivered").await, "DELIVERED");
    assert_eq!(client.ids(1).await, ["delivered"]);
    client.subscribe("$oc/devices/prod1_d/sys/messages/down", QoS::AtLeastOnce).await;
    client.0.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await.unwrap();
    assert_eq!(send_text(&rest, &device, "unanswered").await, "DELIVERED");
    assert_eq!(id(&client.message().await), "unanswered");
    assert_eq!(send(&rest, &device, "unheard", json!({ "message": "x", "topic": "custom" })).await, "PENDING");
    leave(&rest, &device, client).await;
    assert_eq!(send_text(&rest, &device, "pending").await, "PENDING");
    let before = list(&rest, &device).await;
    assert_eq!(before.len(), 5);
    restart_all(&mut cluster, &[]).await;
    let rest = signed_in(&cluster, 0).await;
    for node in 0..3 {
        assert_eq!(list(&rest.at(cluster.member(node).rest), &device).await, before, "node {node}");
    }
    let mut client = Client::connect(&cluster, 2, &device).await;
    assert_eq!(client.ids(2).await, ["unanswered", "pending"]);
    nothing_else(&rest, &device, &mut client).await;
    client.subscribe("$oc/devices/prod1_d/user/custom", QoS::AtMostOnce).await;
    assert_eq!(client.message().await.payload, "x");
    until_status(&rest, &device, "unheard", "DELIVERED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_outlives_the_node_that_took_it() {
    let device = huawei("d");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    assert_eq!(send_text(&rest, &device, "m").await, "PENDING");
    cluster.kill(0).await.unwrap();
    cluster.wait_for_leader_among(RECOVERY, |node| node != 0).await.unwrap();
    let rest = signed_in(&cluster, 2).await;
    let mut client = Client::connect(&cluster, 1, &device).await;
    assert_eq!(client.ids(1).await, ["m"]);
    nothing_else(&rest, &device, &mut client).await;
    assert_eq!(show(&rest, &device, "m").await["status"], "DELIVERED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_outlives_the_node_of_its_device() {
    let device = huawei("d");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let client = Client::connect(&cluster, 1, &device).await;
    assert_eq!(send(&rest, &device, "m", json!({ "message": "x", "topic": "custom" })).await, "PENDING");
    cluster.kill(1).await.unwrap();
    drop(client);
    cluster.wait_for_leader_among(RECOVERY, |node| node != 1).await.unwrap();
    let rest = signed_in(&cluster, 0).await;
    // Sent while nobody knows yet that the device is gone, or already.
    let later = send(&rest, &device, "later", json!({ "message": "later" })).await;
    assert_eq!(later, "PENDING");
    let mut client = Client::connect(&cluster, 2, &device).await;
    assert_eq!(client.ids(1).await, ["later"]);
    client.subscribe("$oc/devices/prod1_d/user/#", QoS::AtMostOnce).await;
    assert_eq!(client.message().await.payload, "x");
    nothing_else(&rest, &device, &mut client).await;
    for id in ["m", "later"] {
        assert_eq!(show(&rest, &device, id).await["status"], "DELIVERED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_times_out_while_nobody_runs() {
    if !has_failpoints("a message times out").await {
        return;
    }
    let device = huawei("d");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    assert_eq!(send(&rest, &device, "short", json!({ "message": "x", "ttl": 5 })).await, "PENDING");
    assert_eq!(send(&rest, &device, "long", json!({ "message": "x", "ttl": 60 })).await, "PENDING");
    // Six minutes later.
    restart_all(&mut cluster, &[("FAILPOINTS", "clock::ahead_s=return(360)")]).await;
    let rest = signed_in(&cluster, 1).await;
    let shown = until_status(&rest, &device, "short", "TIMEOUT").await;
    assert!(shown["finished_time"].is_string() && shown["error_info"].is_null(), "{shown}");
    let mut client = Client::connect(&cluster, 2, &device).await;
    assert_eq!(client.ids(1).await, ["long"]);
    nothing_else(&rest, &device, &mut client).await;
}
