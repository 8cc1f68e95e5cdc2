//! What admins decide at one node counts at all: bans, settings, alarms, and the audit of it.

use cluster_tests::admin::{Admin, next};
use cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY};
use cluster_tests::raw::{RawClient, connect, persistent};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::SOON;

fn admin(cluster: &Cluster, node: usize) -> Admin {
    Admin::at(cluster.member(node).admin).unwrap()
}

async fn ask(cluster: &Cluster, node: usize, method: &str, document: Value) -> Value {
    admin(cluster, node).call(method, document).await.unwrap()
}

/// The reason of a node's CONNACK, and the connection.
async fn try_connect(
    cluster: &Cluster,
    node: usize,
    version: Version,
    client_id: &str,
) -> (ReasonCode, RawClient<TcpStream>) {
    let mut client = RawClient::tcp(cluster.mqtt(node), version).await.unwrap();
    let connack = client.handshake(connect(version, client_id), RECOVERY).await.unwrap();
    (connack.reason, client)
}

/// Waits for the DISCONNECT of a client, and gives its reason.
async fn cut(client: &mut RawClient<TcpStream>) -> ReasonCode {
    let disconnected = client.expect("DISCONNECT", SOON, |packet| match packet {
        Packet::Disconnect(disconnect) => Some(disconnect.reason),
        _ => None,
    });
    disconnected.await.unwrap()
}

fn names(alarms: &Value) -> Vec<(String, String)> {
    let text = |alarm: &Value, name: &str| alarm[name].as_str().unwrap_or_default().to_owned();
    alarms["alarms"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|alarm| (text(alarm, "name"), text(alarm, "subject")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_at_one_node_cuts_and_refuses_at_the_others_and_ends() {
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let mut client = RawClient::tcp(cluster.mqtt(1), Version::V5).await.unwrap();
    client.handshake(persistent(Version::V5, "b"), RECOVERY).await.unwrap();
    let (reason, mut other) = try_connect(&cluster, 2, Version::V5, "c").await;
    assert_eq!(reason, ReasonCode::Success);
    let ban = ask(&cluster, 0, "Bans/Create", json!({ "client_id": "b", "reason": "why" })).await;
    assert_eq!((ban["client_id"].as_str(), ban["by"].as_str()), (Some("b"), Some("admin-token")), "{ban}");
    assert_eq!(cut(&mut client).await, ReasonCode::AdministrativeAction);
    for (node, version, wanted) in [
        (1, Version::V5, ReasonCode::Banned),
        (2, Version::V5, ReasonCode::Banned),
        (2, Version::V311, ReasonCode::NotAuthorized),
    ] {
        assert_eq!(try_connect(&cluster, node, version, "b").await.0, wanted, "node {node}");
    }
    cluster.kill(0).await.unwrap();
    cluster.start_again(0).unwrap();
    cluster.ready(0, RECOVERY).await.unwrap();
    assert_eq!(try_connect(&cluster, 0, Version::V5, "b").await.0, ReasonCode::Banned, "after its restart");
    ask(&cluster, 1, "Bans/Delete", json!({ "client_id": "b" })).await;
    assert_eq!(try_connect(&cluster, 0, Version::V5, "b").await.0, ReasonCode::Success);

    ask(&cluster, 1, "Bans/Create", json!({ "client_id": "c", "for_s": 1 })).await;
    assert_eq!(cut(&mut other).await, ReasonCode::AdministrativeAction);
    let over = wait_for("the end of a ban", SOON, async || {
        (try_connect(&cluster, 0, Version::V5, "c").await.0 == ReasonCode::Success).then_some(())
    });
    over.await.unwrap();
    let gone = wait_for("the ban to be gone", SOON, async || {
        let bans = ask(&cluster, 2, "Bans/List", json!({})).await;
        (bans["bans"].as_array().is_none_or(Vec::is_empty)).then_some(())
    });
    gone.await.unwrap();

    ask(&cluster, 0, "Bans/Create", json!({ "address": "127.0.0.0/8" })).await;
    let mut shut = RawClient::tcp(cluster.mqtt(2), Version::V5).await.unwrap();
    assert_eq!(shut.expect_close(SOON).await.unwrap(), vec![], "closed without a word");
    assert!(cluster.metrics(2).await.unwrap().get("fulmar_banned_total{kind=\"address\"}") > 0);
    ask(&cluster, 1, "Bans/Delete", json!({ "address": "127.0.0.0/8" })).await;
    assert_eq!(try_connect(&cluster, 2, Version::V5, "d").await.0, ReasonCode::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_one_node_count_at_the_others() {
    let cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let set = async |node, name: &str, value: Value| {
        ask(&cluster, node, "Settings/Set", json!({ "name": name, "value": value })).await["version"].as_u64()
    };
    assert_eq!(set(0, "flapping.connects_max", json!(3)).await, Some(1));
    assert_eq!(set(1, "flapping.enabled", json!(true)).await, Some(2));
    assert_eq!(set(2, "limits.replicated_bytes_max", json!(33_554_432)).await, Some(3));
    for node in 0..3 {
        let max = cluster.metrics(node).await.unwrap().get("fulmar_replicated_bytes_max");
        assert_eq!(max, 33_554_432, "node {node}");
    }
    let stale = json!({ "name": "topics.sample", "value": 5, "version": 2 });
    let error = admin(&cluster, 0).call("Settings/Set", stale).await.unwrap_err();
    assert!(error.message().contains("version is 3"), "{error}");
    for (name, value, wanted) in [
        ("flapping.enable", json!(true), "flapping.enabled"),
        ("topics.sample", json!(0), "from 1 to"),
        ("topics.sample", json!("x"), "whole number"),
        ("log.level", json!("fulmar=nonsense"), "log.level"),
    ] {
        let document = json!({ "name": name, "value": value });
        let error = admin(&cluster, 1).call("Settings/Set", document).await.unwrap_err();
        assert!(error.message().contains(wanted), "{name}: {error}");
    }
    for _ in 0..3 {
        assert_eq!(try_connect(&cluster, 1, Version::V5, "f").await.0, ReasonCode::Success);
    }
    assert_eq!(try_connect(&cluster, 1, Version::V5, "f").await.0, ReasonCode::Banned);
    let banned = wait_for("the ban at another node", SOON, async || {
        let bans = ask(&cluster, 2, "Bans/List", json!({})).await;
        bans["bans"].as_array().is_some_and(|bans| bans.len() == 1 && bans[0]["automatic"] == true).then_some(())
    });
    banned.await.unwrap();
    assert_eq!(try_connect(&cluster, 2, Version::V5, "f").await.0, ReasonCode::Banned);
    let raised = ("flapping_ban".to_owned(), "f".to_owned());
    let alarmed = wait_for("the alarm at a third node", SOON, async || {
        names(&ask(&cluster, 0, "Alarms/List", json!({})).await).contains(&raised).then_some(())
    });
    alarmed.await.unwrap();
    for (node, set_s, told_s) in [(1, 60, Some(60)), (2, 1_000_000, None)] {
        set(0, "session.expiry_s_max", json!(set_s)).await;
        let mut client = RawClient::tcp(cluster.mqtt(node), Version::V5).await.unwrap();
        let mut connect = persistent(Version::V5, "kept");
        connect.properties.session_expiry_s = Some(900_000);
        let connack = client.handshake(connect, RECOVERY).await.unwrap();
        assert_eq!(connack.properties.session_expiry_s, told_s, "{set_s} is set, 604,800 configured");
    }
    ask(&cluster, 0, "Settings/Reset", json!({ "name": "limits.replicated_bytes_max" })).await;
    assert_eq!(cluster.metrics(2).await.unwrap().get("fulmar_replicated_bytes_max"), 1 << 30, "as configured");
    let history = ask(&cluster, 0, "Settings/History", json!({})).await;
    assert_eq!(history["changes"].as_array().unwrap().len(), 6);
    for node in [1, 2] {
        assert_eq!(ask(&cluster, node, "Settings/History", json!({})).await, history, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_an_alarm_and_the_audit_is_the_same_on_all() {
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let mut watch = admin(&cluster, 1).stream("Alarms/Watch", json!({})).await.unwrap();
    let mut next = async || loop {
        let news = next(&mut watch).await.unwrap();
        if news["kind"] == "changed" {
            let event = &news["events"][0];
            break (event["what"].clone(), event["alarm"]["name"].clone());
        }
    };
    cluster.kill(2).await.unwrap();
    assert_eq!(next().await, (json!("raised"), json!("node_down")));
    let down = async |cluster: &Cluster| {
        let alarms = names(&ask(cluster, 0, "Alarms/List", json!({})).await);
        alarms.iter().any(|(name, _)| name == "node_down")
    };
    wait_for("the alarm", RECOVERY, async || down(&cluster).await.then_some(())).await.unwrap();
    assert_eq!(cluster.metrics(1).await.unwrap().get("fulmar_alarms_active{name=\"node_down\"}"), 1);
    cluster.start_again(2).unwrap();
    cluster.ready(2, RECOVERY).await.unwrap();
    wait_for("its end", RECOVERY, async || (!down(&cluster).await).then_some(())).await.unwrap();
    assert_eq!(next().await, (json!("cleared"), json!("node_down")));
    let history = ask(&cluster, 2, "Alarms/List", json!({ "history": true })).await;
    assert!(names(&history).iter().any(|(name, _)| name == "node_down"), "{history}");

    for node in 0..3 {
        ask(&cluster, node, "Bans/Create", json!({ "user_name": format!("u{node}") })).await;
    }
    let refused = admin(&cluster, 1).call("Bans/Delete", json!({ "user_name": "nobody" })).await;
    assert!(refused.unwrap_err().message().contains("nobody"));
    let wanted = json!({ "operation": "bans.", "limit": 3 });
    let audited = wait_for("the audit", SOON, async || {
        let all = ask(&cluster, 0, "Audit/List", json!({ "operation": "bans." })).await;
        all["entries"].as_array().filter(|entries| entries.len() == 4).cloned()
    });
    let audited = audited.await.unwrap();
    assert!(audited.iter().all(|entry| entry["user"] == "admin-token" && entry["door"] == "grpc"), "{audited:?}");
    let of = |about: &str| audited.iter().find(|entry| entry["about"] == about).unwrap();
    assert_eq!(of("user_name u1")["operation"], "bans.create");
    assert!(audited.iter().any(|entry| entry["operation"] == "bans.delete" && entry["status"] == 404), "{audited:?}");
    for node in 0..3 {
        let first = wait_for("the same audit", SOON, async || {
            let page = ask(&cluster, node, "Audit/List", wanted.clone()).await;
            (page["entries"].as_array().is_some_and(|entries| entries[..] == audited[..3])).then_some(page)
        });
        let next = first.await.unwrap()["next"].clone();
        let rest = ask(&cluster, node, "Audit/List", json!({ "operation": "bans.", "before": next })).await;
        assert_eq!(rest["entries"].as_array().unwrap()[..], audited[3..], "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_the_right_to_it() {
    let cluster = Cluster::start(2, ClusterOptions::default()).await.unwrap();
    let user = json!({ "name": "eyes", "password": "12345678", "role": "viewer" });
    ask(&cluster, 0, "People/CreateUser", json!({ "body": user })).await;
    let eyes = Admin::of_user(cluster.member(1).admin, "eyes", "12345678").await.unwrap();
    let mut theirs = eyes.stream("Alarms/Watch", json!({})).await.unwrap();
    next(&mut theirs).await.unwrap();
    ask(&cluster, 0, "People/DeleteUser", json!({ "user_name": "eyes" })).await;
    let ended = async {
        loop {
            if let Err(status) = theirs.message().await {
                break status;
            }
        }
    };
    let status = tokio::time::timeout(RECOVERY, ended).await.expect("the end of the watch");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
}
