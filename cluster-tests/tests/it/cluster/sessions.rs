//! Sessions on a cluster of real nodes, and one thing at a time that happens to them.

use std::time::Duration;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::harness::{Cluster, ClusterOptions};
use fulmar_mqtt::Version;

use super::CLUSTERS;
use crate::support::{SOON, client, persistent, raw_connect};

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
