//! Sessions on a cluster of real nodes, and one thing at a time that happens to them.

use std::time::Duration;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw;
use fulmar_mqtt::packet::{Disconnect, ReasonProperties};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};

use super::CLUSTERS;
use crate::support::{SOON, client, persistent, raw_client, raw_connect, with_will};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_resumed_to_end_with_its_socket_is_heard_of_everywhere() {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let cluster = Cluster::start(2, ClusterOptions::default()).await.unwrap();
    let keeper = Options::new(Protocol::V5, "keeper").persistent(3600);
    let mut publisher = client(cluster.mqtt(1), Protocol::V5, "publisher").await;
    for round in 0..20 {
        let mut first = Client::connect(cluster.mqtt(0), Options { clean: true, ..keeper.clone() }).await.unwrap();
        first.subscribe(&format!("resumed/{round}/#"), 1).await.unwrap();
        first.disconnect().await.unwrap();
        let mut again =
            Client::connect(cluster.mqtt(0), Options { session_expiry_s: None, ..keeper.clone() }).await.unwrap();
        assert!(again.session_present());
        publisher.publish_acked(&format!("resumed/{round}/t"), 1, round.to_string()).await.unwrap();
        assert_eq!(again.receive(SOON).await.unwrap().text(), round.to_string());
        again.disconnect().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_at_one_node_counts_before_the_next_connection_at_another() {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let mut witness = client(cluster.mqtt(0), Protocol::V5, "witness").await;
    witness.subscribe("roams/#", 1).await.unwrap();
    for round in 0..60 {
        // From each node to each other one, one of which leads.
        let (from, to) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let version = if round % 2 == 0 { Version::V311 } else { Version::V5 };
        let mut connect = with_will(persistent(version, "roams"), "roams/will", 0);
        if version == Version::V311 {
            connect.clean_start = true;
        }
        let (mut leaving, _) = raw_connect(cluster.mqtt(from), connect).await;
        let session_expiry_s = (version == Version::V5).then_some(0);
        let properties = ReasonProperties::default();
        let disconnect =
            Disconnect { reason: ReasonCode::Success, session_expiry_s, server_reference: None, properties };
        leaving.send(&Packet::Disconnect(Box::new(disconnect))).await.unwrap();
        if round % 4 < 2 {
            leaving.expect_close(SOON).await.unwrap();
        }
        let mut again = raw::connect(version, "roams");
        again.clean_start = false;
        let (_, connack) = raw_connect(cluster.mqtt(to), again).await;
        assert!(!connack.session_present, "round {round}: its session had ended");
        drop(leaving);
        let mut over = raw_client(cluster.mqtt(to), version, "roams").await;
        over.send(&Packet::Publish(raw::publish(0, "roams/on", QoS::AtMostOnce, ""))).await.unwrap();
        over.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
        over.expect_close(SOON).await.unwrap();
        assert_eq!(witness.receive(SOON).await.unwrap().topic, "roams/on", "round {round}: no will before it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stays_frozen_lets_its_clients_go_without_a_word() {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let (mut kept, _) = raw_connect(cluster.mqtt(2), persistent(Version::V5, "kept")).await;
    cluster.freeze(0).unwrap();
    cluster.freeze(1).unwrap();
    // A pause of a few seconds costs nobody a connection.
    kept.expect_silence(Duration::from_secs(8)).await.unwrap();
    let last = kept.expect_close(Duration::from_secs(12)).await.unwrap();
    assert!(last.is_empty(), "{last:?}");
}
