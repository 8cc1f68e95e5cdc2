//! The drill of a full disk: on a small file system of its own, and of one and two nodes of three by fail points.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use cluster_tests::wait_for;
use fulmar_mqtt::packet::Publish;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::json;
use tokio::net::TcpStream;

use crate::durability::{FAILPOINTS, has_failpoints};
use crate::support::{MIB, SOON, raw_ack, raw_client, raw_publish, raw_subscribe};

/// A publisher of MQTT 3.1.1 is closed after 5 s at most; the rest is for a slow machine.
const CLOSED: Duration = Duration::from_secs(20);

/// A file system in memory, unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn free(&self) -> u64 {
        let output = Command::new("df").args(["-B1", "--output=avail"]).arg(self.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap()
    }

    /// Adds to a file until so many bytes are free.
    fn fill(&self, free: u64) {
        let mut file = std::fs::File::options().append(true).create(true).open(self.ballast()).unwrap();
        while self.free() > free {
            let bytes = (self.free() - free).min(8 * MIB);
            file.write_all(&vec![0xA5; usize::try_from(bytes).unwrap()]).unwrap();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have files there.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn keeper(cluster: &Cluster, node: usize) -> RawClient<TcpStream> {
    let mut keeper = RawClient::tcp(cluster.mqtt(node), Version::V5).await.unwrap();
    let connack = keeper.handshake(raw::persistent(Version::V5, "keeper"), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success);
    raw_subscribe(&mut keeper, "kept/#", QoS::AtLeastOnce).await;
    keeper
}

/// What a node answers to a durable publish.
async fn answer(cluster: &Cluster, node: usize) -> ReasonCode {
    let mut publisher = raw_client(cluster.mqtt(node), Version::V5, &format!("publisher-{node}")).await;
    publisher.send(&Packet::Publish(raw::publish(1, "kept/t", QoS::AtLeastOnce, "word"))).await.unwrap();
    raw_ack(&mut publisher).await.2
}

async fn answers(cluster: &Cluster, node: usize, wanted: ReasonCode) {
    let what = format!("node {node} to answer {wanted:?}");
    wait_for(&what, RECOVERY, async || (answer(cluster, node).await == wanted).then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_what_must_last_and_serves_all_else() {
    let Some(disk) = SmallDisk::mount(384 * MIB) else {
        println!("SKIPPED a_full_disk_refuses_what_must_last_and_serves_all_else: no file system can be mounted here");
        return;
    };
    let options = ClusterOptions {
        rest: true,
        config: "[store]\ndisk_free_min = \"64MiB\"\n".to_owned(),
        data_dir: Some(disk.path().to_owned()),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(3, options).await.unwrap();
    let rest = Rest::sign_in(cluster.member(0).rest).await.unwrap();
    rest.add_products().await.unwrap();
    let mut kept = keeper(&cluster, 0).await;
    let mut listener = raw_client(cluster.mqtt(1), Version::V311, "listener").await;
    raw_subscribe(&mut listener, "live/#", QoS::AtLeastOnce).await;
    let mut publisher = raw_client(cluster.mqtt(2), Version::V5, "publisher").await;
    let retained = Publish { retain: true, ..raw::publish(1, "shown/t", QoS::AtLeastOnce, "shown") };
    publisher.send(&Packet::Publish(retained)).await.unwrap();
    raw_ack(&mut publisher).await;

    disk.fill(40 * MIB);
    cluster.everywhere("fulmar_disk_low", SOON, |low| low == 1).await.unwrap();
    cluster.everywhere("fulmar_alarms_active{name=\"disk_nearly_full\"}", SOON, |raised| raised == 3).await.unwrap();
    // Durable publishes: MQTT 5 is told why, MQTT 3.1.1 has no word for it, and REST has a code.
    publisher.send(&Packet::Publish(raw::publish(2, "kept/t", QoS::AtLeastOnce, "refused"))).await.unwrap();
    let refused = publisher.expect("PUBACK", CLOSED, |packet| match packet {
        Packet::PubAck(ack) => Some(ack.clone()),
        _ => None,
    });
    let refused = refused.await.unwrap();
    assert_eq!((refused.packet_id, refused.reason), (2, ReasonCode::QuotaExceeded));
    let text = refused.properties.unwrap().reason_string.unwrap();
    assert!(text.contains("disk"), "{text}");
    let mut closed = raw_client(cluster.mqtt(1), Version::V311, "closed").await;
    closed.send(&Packet::Publish(raw::publish(1, "kept/t", QoS::AtLeastOnce, "refused"))).await.unwrap();
    assert!(closed.expect_close(CLOSED).await.unwrap().is_empty());
    let product = json!({ "name": "one more", "device_type": "t", "protocol_type": "MQTT", "data_format": "json", "service_capabilities": [] });
    let (status, body) = rest.ask("POST", "/products", Some(&product)).await.unwrap();
    assert_eq!((status, &body["error_code"]), (503, &json!("FULMAR.000008")), "{body}");
    // Live messages of both kinds, retained ones, new clients and their subscriptions.
    for (id, qos) in [(0, QoS::AtMostOnce), (3, QoS::AtLeastOnce)] {
        publisher.send(&Packet::Publish(raw::publish(id, "live/t", qos, "live"))).await.unwrap();
        assert_eq!(raw_publish(&mut listener).await.payload, "live");
    }
    let mut reader = raw_client(cluster.mqtt(0), Version::V5, "reader").await;
    raw_subscribe(&mut reader, "shown/#", QoS::AtMostOnce).await;
    assert_eq!(raw_publish(&mut reader).await.payload, "shown");

    // The last part is for those that are there.
    disk.fill(8 * MIB);
    let refused = wait_for("new clients to be refused", SOON, async || {
        let (_, connack) = crate::support::raw_connect(cluster.mqtt(0), raw::connect(Version::V5, "new")).await;
        (connack.reason == ReasonCode::QuotaExceeded).then_some(())
    });
    refused.await.unwrap();
    publisher.send(&Packet::Publish(raw::publish(0, "live/t", QoS::AtMostOnce, "still"))).await.unwrap();
    assert_eq!(raw_publish(&mut listener).await.payload, "still");

    // Room, and nothing else, makes all well again.
    std::fs::remove_file(disk.ballast()).unwrap();
    cluster.everywhere("fulmar_disk_low", SOON, |low| low == 0).await.unwrap();
    cluster.everywhere("fulmar_alarms_active{name=\"disk_nearly_full\"}", SOON, |raised| raised == 0).await.unwrap();
    for node in 0..3 {
        answers(&cluster, node, ReasonCode::Success).await;
        assert_eq!(raw_publish(&mut kept).await.payload, "word");
    }
    assert_eq!(cluster.unaccounted().await, 0);
}

#[tokio::test]
async fn one_full_disk_stops_its_own_node_and_two_stop_all() {
    if !has_failpoints("one_full_disk_stops_its_own_node_and_two_stop_all").await {
        return;
    }
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let leader = cluster.wait_for_leader(RECOVERY).await.unwrap();
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let _kept = keeper(&cluster, third).await;
    fill(&mut cluster, follower, true).await;
    answers(&cluster, follower, ReasonCode::QuotaExceeded).await;
    for node in [leader, third] {
        answers(&cluster, node, ReasonCode::Success).await;
    }
    // What the third still took would fill the other two, and without them there is no quorum.
    fill(&mut cluster, leader, true).await;
    cluster.everywhere("fulmar_disk_scarce", RECOVERY, |scarce| scarce == 1).await.unwrap();
    answers(&cluster, third, ReasonCode::QuotaExceeded).await;
    fill(&mut cluster, leader, false).await;
    cluster.everywhere("fulmar_disk_scarce", RECOVERY, |scarce| scarce == 0).await.unwrap();
    for node in [leader, third] {
        answers(&cluster, node, ReasonCode::Success).await;
    }
}

/// Starts a node again with a disk that is nearly full, or is not.
async fn fill(cluster: &mut Cluster, node: usize, full: bool) {
    cluster.terminate(node).await.unwrap();
    // Less than what durable publishes need, and more than what clients need.
    let env = [(FAILPOINTS, "disk::free_bytes=return(100000000)")];
    cluster.node(node).set_env(if full { &env } else { &[] });
    cluster.start_again(node).unwrap();
    cluster.ready(node, RECOVERY).await.unwrap();
    let probes = cluster.member(node).probes;
    wait_for("what the disk says", SOON, async || {
        let metrics = cluster_tests::metrics::Metrics::of(probes, SOON).await.ok()?;
        (metrics.get("fulmar_disk_low") == u64::from(full)).then_some(())
    })
    .await
    .unwrap();
}
