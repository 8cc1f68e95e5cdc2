//! What admins see of clients from any node: watches that go on at another node, and sessions of nodes that are not asked.

mod looks;

use std::collections::BTreeMap;

use cluster_tests::admin::{Admin, Answers};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, RECOVERY};
use cluster_tests::raw::{RawClient, disconnect};
use fulmar_mqtt::{ReasonCode, Version};
use serde_json::{Value, json};

/// The API of a node.
fn admin(cluster: &Cluster, node: usize) -> Admin {
    Admin::at(cluster.member(node).admin).unwrap()
}

/// A watch, and what it has told since it was in step.
struct Follower {
    news: Answers,
    /// The last one that was told.
    revision: u64,
    changed: Vec<(u64, Vec<Value>)>,
}

impl Follower {
    /// From what is there, which is passed over.
    async fn start(admin: &Admin, method: &str) -> Follower {
        let news = admin.stream(method, json!({})).await.unwrap();
        let mut follower = Follower { news, revision: 0, changed: Vec::new() };
        while follower.next().await.unwrap() != "synced" {}
        follower
    }

    /// At another node, from where it is.
    async fn resume(&mut self, admin: &Admin, method: &str) {
        self.news = admin.stream(method, json!({ "revision": self.revision })).await.unwrap();
    }

    /// Takes the next document; its kind, or `None` if there is none any more.
    async fn next(&mut self) -> Option<String> {
        let message =
            tokio::time::timeout(RECOVERY, self.news.message()).await.expect("a watch is never silent so long");
        let document = message.ok()??;
        let (kind, revision) = (document["kind"].as_str().unwrap(), document["revision"].as_u64().unwrap());
        match kind {
            "changed" => {
                assert!(revision > self.revision, "each entry once and in order: {document}");
                self.changed.push((revision, document["events"].as_array().unwrap().clone()));
            }
            "reset" => panic!("nothing was missing: {document}"),
            _ => assert!(revision >= self.revision, "{document}"),
        }
        self.revision = revision;
        Some(kind.to_owned())
    }

    fn events(&self) -> usize {
        self.changed.iter().map(|(_, events)| events.len()).sum()
    }
}

/// Connects a device and disconnects it again.
async fn visit(cluster: &Cluster, node: usize, device: &Device) {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(device.connect(), RECOVERY).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
    client.send(&disconnect(ReasonCode::Success)).await.unwrap();
    client.expect_close(RECOVERY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_node_without_a_gap() {
    const VISITS: usize = 40;
    const METHOD: &str = "Devices/Watch";
    let devices: Vec<Device> = (0..4).map(|number| Device::new(Vendor::Huawei, format!("w{number}"))).collect();
    let (mut cluster, _rest) = crate::devices::cluster(&devices).await;
    let admins = [admin(&cluster, 0), admin(&cluster, 1), admin(&cluster, 2)];
    let mut follower = Follower::start(&admins[0], METHOD).await;
    let mut control = Follower::start(&admins[2], METHOD).await;
    for number in 0..VISITS {
        if number == VISITS / 2 {
            // It has told some of what came before, and not the rest.
            while follower.events() < number {
                follower.next().await.unwrap();
            }
            cluster.kill(0).await.unwrap();
        }
        visit(&cluster, 1 + number % 2, &devices[number % devices.len()]).await;
    }
    while follower.next().await.is_some() {}
    follower.resume(&admins[1], METHOD).await;
    for watch in [&mut follower, &mut control] {
        while watch.events() < 2 * VISITS {
            watch.next().await.unwrap();
        }
    }
    assert_eq!(follower.changed, control.changed, "who moved has seen the same as who stayed");
    let mut statuses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in follower.changed.iter().flat_map(|(_, events)| events) {
        let of = statuses.entry(event["device_id"].as_str().unwrap().to_owned()).or_default();
        of.push(event["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(statuses.len(), devices.len());
    for (device, statuses) in statuses {
        let in_turn = ["ONLINE", "OFFLINE"].into_iter().cycle().take(2 * VISITS / devices.len());
        assert_eq!(statuses, in_turn.collect::<Vec<_>>(), "{device}");
    }
}
