//! Connections that are evened out after a node has come back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::admin::{Admin, all};
use cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::SOON;

const CLIENTS: usize = 300;
const MESSAGES_MAX: u8 = 250;
const TOPIC: &str = "to/all";

/// A balancer that takes one node after the other, and what all clients have got.
struct Crowd {
    doors: Vec<SocketAddr>,
    next: AtomicUsize,
    got: Mutex<Vec<BTreeSet<u8>>>,
    /// Clients whose subscription was acknowledged.
    subscribed: AtomicUsize,
}

impl Crowd {
    /// Holds a session that persists, for ever, on whatever node lets it in.
    async fn client(self: Arc<Crowd>, number: usize) {
        let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
        let mut subscribed = false;
        loop {
            let door = self.doors[self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len()];
            if let Ok(mut client) = RawClient::tcp(door, version).await {
                // It ends as connections do; the next one goes on.
                let _ = self.serve(&mut client, version, number, &mut subscribed).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn serve(
        &self,
        client: &mut RawClient<tokio::net::TcpStream>,
        version: Version,
        number: usize,
        subscribed: &mut bool,
    ) -> anyhow::Result<()> {
        let connack = client.handshake(raw::persistent(version, &format!("crowd-{number}")), SOON).await?;
        anyhow::ensure!(connack.reason == ReasonCode::Success);
        anyhow::ensure!(connack.session_present || !*subscribed, "the session of client {number} is lost");
        if !*subscribed {
            client.send(&raw::subscribe(1, TOPIC, QoS::AtLeastOnce)).await?;
        }
        loop {
            // A client that nothing comes for pings.
            match client.next_or_closed(Duration::from_secs(20)).await {
                Ok(Some(Packet::Publish(publish))) => {
                    self.got.lock().unwrap()[number].insert(publish.payload[0]);
                    client.send(&Packet::PubAck(Ack::success(publish.packet_id))).await?;
                }
                Ok(Some(Packet::SubAck(_))) => {
                    *subscribed = true;
                    self.subscribed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if raw::is_late(&error) => client.send(&Packet::PingReq).await?,
                Err(error) => return Err(error),
            }
        }
    }
}

async fn connected(cluster: &mut Cluster) -> Vec<u64> {
    let all = cluster.all_metrics().await;
    all.iter().map(|(_, metrics)| metrics.get("fulmar_sessions_connected")).collect()
}

async fn everybody(cluster: &mut Cluster) {
    let mut last = Vec::new();
    let here = wait_for("everybody", RECOVERY, async || {
        last = connected(cluster).await;
        (last.iter().sum::<u64>() == CLIENTS as u64).then_some(())
    });
    here.await.unwrap_or_else(|error| panic!("{error}: {last:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_even_again_after_a_restart_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let (doors, next) = (cluster.addresses(), AtomicUsize::new(0));
    let crowd = Arc::new(Crowd {
        doors,
        next,
        got: Mutex::new(vec![BTreeSet::new(); CLIENTS]),
        subscribed: AtomicUsize::new(0),
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(crowd.clone().client(number));
    }
    everybody(&mut cluster).await;
    let subscribed = async || (crowd.subscribed.load(Ordering::Relaxed) == CLIENTS).then_some(());
    wait_for("every SUBACK", RECOVERY, subscribed).await.unwrap();
    cluster.terminate(2).await.unwrap();
    everybody(&mut cluster).await;
    cluster.start_again(2).unwrap();
    cluster.all_ready(RECOVERY).await.unwrap();
    assert_eq!(connected(&mut cluster).await[2], 0, "nobody has a reason to move");

    let admin = Admin::at(cluster.member(0).admin).unwrap();
    let planned = all(admin.stream("Cluster/Rebalance", json!({ "dry_run": true })).await.unwrap()).await.unwrap();
    assert_eq!(planned.len(), 1, "{planned:?}");
    assert_eq!(planned[0]["state"], "planned");
    let surplus = planned[0]["nodes"].as_array().unwrap().iter().map(|node| node["surplus"].as_u64().unwrap_or(0));
    assert_eq!(surplus.sum::<u64>(), 100, "{planned:?}");
    assert_eq!(connected(&mut cluster).await[2], 0, "a plan moves nobody");

    // On the node that has nobody, so that it stays; it goes on for as long as others move.
    let (at, even) = (cluster.mqtt(2), AtomicBool::new(false));
    let publishing = async {
        let mut publisher = RawClient::tcp(at, Version::V311).await?;
        publisher.handshake(raw::persistent(Version::V311, "publisher"), SOON).await?;
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        let mut sent = 0;
        while sent < MESSAGES_MAX && !even.load(Ordering::Relaxed) {
            pace.tick().await;
            sent += 1;
            publisher.send(&Packet::Publish(raw::publish(sent.into(), TOPIC, QoS::AtLeastOnce, vec![sent]))).await?;
            publisher.expect("PUBACK", SOON, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await?;
        }
        publisher.send(&raw::disconnect(ReasonCode::Success)).await?;
        anyhow::Ok(usize::from(sent))
    };
    let balancing = async {
        let mut steps = admin.stream("Cluster/Rebalance", json!({ "rate": 100 })).await?;
        steps.message().await?;
        let another = Admin::at(cluster.member(1).admin)?.stream("Cluster/Rebalance", json!({})).await?;
        let refused = all(another).await.err().map(|status| status.to_string()).unwrap_or_default();
        assert!(refused.contains("under way already"), "{refused}");
        let steps = all(steps).await;
        even.store(true, Ordering::Relaxed);
        steps
    };
    let (published, steps) = tokio::join!(publishing, balancing);
    let sent = published.unwrap();
    let steps = steps.unwrap();
    assert_eq!(steps.last().unwrap()["state"], "even", "{steps:?}");
    everybody(&mut cluster).await;
    let shares = connected(&mut cluster).await;
    assert!(shares.iter().all(|share| (80..=120).contains(share)), "{shares:?}: {steps:?}");
    let came = wait_for("every message at everybody", RECOVERY, async || {
        crowd.got.lock().unwrap().iter().all(|got| got.len() == sent).then_some(())
    });
    came.await.unwrap();
    clients.shutdown().await;
}
