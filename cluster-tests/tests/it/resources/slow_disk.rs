//! A disk that takes its time.

use cluster_tests::client::Protocol;
use cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY};
use fulmar_mqtt::{QoS, ReasonCode, Version};

use crate::durability::{FAILPOINTS, has_failpoints};
use crate::support::{client, raw_ack, raw_client, raw_subscribe};

/// Each sync of the log takes so much longer: more than what a node that is to lead may need.
const SLOW: &str = "log::after_flush=sleep(700)";

const ALARM: &str = "fulmar_alarms_active{name=\"slow_disk\"}";

#[tokio::test]
async fn a_slow_disk_holds_up_nobody_and_does_not_lead() {
    if !has_failpoints("a_slow_disk_holds_up_nobody_and_does_not_lead").await {
        return;
    }
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let leader = cluster.wait_for_leader(RECOVERY).await.unwrap();
    let (slow, good) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.terminate(slow).await.unwrap();
    cluster.node(slow).set_env(&[(FAILPOINTS, SLOW)]);
    cluster.start_again(slow).unwrap();
    cluster.ready(slow, RECOVERY).await.unwrap();
    cluster.everywhere(ALARM, RECOVERY, |raised| raised == 1).await.unwrap();

    // What must be durable waits for the other two, and what need not be for nobody: also by way of the slow node.
    let mut keeper = raw_client(cluster.mqtt(good), Version::V5, "live").await;
    raw_subscribe(&mut keeper, "live/#", QoS::AtLeastOnce).await;
    let mut kept = cluster_tests::raw::RawClient::tcp(cluster.mqtt(good), Version::V5).await.unwrap();
    kept.handshake(cluster_tests::raw::persistent(Version::V5, "kept"), RECOVERY).await.unwrap();
    raw_subscribe(&mut kept, "kept/#", QoS::AtLeastOnce).await;
    let mut publisher = raw_client(cluster.mqtt(slow), Version::V5, "publisher").await;
    for id in 1..=20 {
        let topic = if id % 4 == 0 { "kept/t" } else { "live/t" };
        let publish = cluster_tests::raw::publish(id, topic, QoS::AtLeastOnce, "word");
        publisher.send(&fulmar_mqtt::Packet::Publish(publish)).await.unwrap();
        assert_eq!(raw_ack(&mut publisher).await, ("PUBACK", id, ReasonCode::Success));
    }

    // Of the two that are left the one with the good disk leads.
    cluster.kill(leader).await.unwrap();
    let next = cluster.wait_for_leader_among(RECOVERY, |node| node != leader).await.unwrap();
    assert_eq!(next, good);
    cluster.ready(slow, RECOVERY).await.unwrap();
    let mut after = client(cluster.mqtt(slow), Protocol::V5, "after").await;
    after.subscribe("after/#", 1).await.unwrap();
    after.publish_acked("after/t", 1, "word").await.unwrap();
    assert_eq!(after.receive(RECOVERY).await.unwrap().text(), "word");
}
