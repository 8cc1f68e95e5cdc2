//! The life of a pod: how a node lets its clients go and ends, who leads then, and how one waits for its data directory.

mod rebalance;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::admin::{Admin, next};
use cluster_tests::harness::{Cluster, ClusterOptions, Process, RECOVERY, fulmar_binary, http_get as get};
use cluster_tests::history::History;
use cluster_tests::load::{Doors, Load, Manner, Plan};
use cluster_tests::sys::Signal;
use cluster_tests::{raw, wait_for};
use fulmar_mqtt::packet::Publish;
use fulmar_mqtt::{Packet, QoS, Version};
use serde_json::json;

use crate::support::{OPEN, SOON, Server, http_get, raw_client, raw_publish, raw_subscribe, seed};

/// How long the books of all nodes may take to close once nothing is under way.
const BOOKS: Duration = Duration::from_secs(20);

/// `fulmar drain` of a data directory: exit code and standard output.
async fn drain(arguments: &[&str], at: &Path) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.arg("drain").args(arguments).arg(at);
    let mut process = Process::spawn("drain", command, dir.path()).unwrap();
    let status = process.exited(RECOVERY).await.unwrap();
    (status.code(), process.stdout())
}

/// Publishes what has to be committed, one message after the other, until `done`; the longest wait for a PUBACK.
async fn longest_puback(at: SocketAddr, done: &AtomicBool) -> Duration {
    let mut client = raw_client(at, Version::V311, "writes").await;
    let mut longest = Duration::ZERO;
    for number in 0u64.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let publish = raw::publish(1, "written", QoS::AtLeastOnce, number.to_string());
        let sent = Instant::now();
        client.send(&Packet::Publish(Publish { retain: true, ..publish })).await.unwrap();
        client.expect("PUBACK", SOON, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await.unwrap();
        longest = longest.max(sent.elapsed());
    }
    longest
}

#[tokio::test]
async fn a_drained_node_stays_until_it_is_ended() {
    let config = format!("[shutdown]\nserver_reference = \"elsewhere:8883\"\n{OPEN}");
    let mut server = Server::start(&config).await;
    let mut told = raw_client(server.mqtt(), Version::V5, "told").await;
    let mut closed = raw_client(server.mqtt(), Version::V311, "closed").await;
    let path = server.dir.path().join("fulmar.toml");
    assert_eq!(drain(&["--config"], &path).await, (Some(0), "drained\n".to_owned()));
    let last = told.expect_close(SOON).await.unwrap();
    let [Packet::Disconnect(disconnect)] = last.as_slice() else { panic!("{last:?}") };
    assert_eq!(disconnect.reason, fulmar_mqtt::ReasonCode::UseAnotherServer);
    assert_eq!(disconnect.server_reference.as_deref(), Some("elsewhere:8883"));
    assert!(closed.expect_close(SOON).await.unwrap().is_empty());
    assert_eq!(http_get(server.probes, "/readyz").await, Some((503, "drained\n".to_owned())));
    for path in ["/livez", "/startupz"] {
        assert_eq!(http_get(server.probes, path).await.unwrap().0, 200, "{path}");
    }
    assert_eq!(server.metrics().await.get("fulmar_draining"), 1);
    // A second time it is done already; and it still stays.
    let data_dir = server.dir.path().join("data");
    assert_eq!(drain(&["--data-dir"], &data_dir).await, (Some(0), "drained\n".to_owned()));
    assert!(server.node.alive());
    server.node.signal(Signal::Terminate).unwrap();
    assert_eq!(server.node.process().unwrap().exited(SOON).await.unwrap().code(), Some(0));
    let (code, said) = drain(&["--data-dir"], &data_dir).await;
    assert!(code == Some(0) && said.starts_with("no process serves "), "{said}");
    // The number of the process is still in its file, and nobody is taken for it.
    assert!(data_dir.join("fulmar.pid").exists());
}

#[tokio::test]
async fn clients_come_in_while_balancers_are_waited_for() {
    let config = format!("[shutdown]\nbalancer_wait = \"9m\"\ngrace = \"10m\"\n{OPEN}");
    let mut server = Server::start(&config).await;
    let _early = raw_client(server.mqtt(), Version::V5, "early").await;
    for signal in [Signal::Drain, Signal::Drain, Signal::Terminate] {
        server.node.signal(signal).unwrap();
        wait_for("an unready node", SOON, async || {
            let (status, text) = http_get(server.probes, "/readyz").await?;
            (status == 503 && text.starts_with("draining: ")).then_some(())
        })
        .await
        .unwrap();
        raw_client(server.mqtt(), Version::V5, "late").await;
    }
    let (code, _) = drain(&["--timeout", "0s", "--data-dir"], &server.dir.path().join("data")).await;
    assert_eq!(code, Some(1), "it takes longer than that");
    // The second one hurries.
    server.node.signal(Signal::Terminate).unwrap();
    assert_eq!(server.node.process().unwrap().exited(SOON).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn only_a_second_signal_hurries_however_often_an_admin_asks() {
    let config = "[shutdown]\nbalancer_wait = \"9m\"\ngrace = \"10m\"\n".to_owned();
    let mut cluster = Cluster::start(1, ClusterOptions { config, ..ClusterOptions::default() }).await.unwrap();
    let admin = Admin::at(cluster.member(0).admin).unwrap();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let mut leaving = admin.stream("Cluster/Drain", json!({})).await.unwrap();
        while next(&mut leaving).await.unwrap()["stage"] != "draining" {}
        asked.push(leaving);
        raw_client(cluster.mqtt(0), Version::V5, "late").await;
    }
    cluster.node(0).signal(Signal::Terminate).unwrap();
    for _ in 0..20 {
        raw_client(cluster.mqtt(0), Version::V5, "later").await;
    }
    cluster.node(0).signal(Signal::Terminate).unwrap();
    let ended = cluster.node(0).process().unwrap().exited(SOON).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_start_waits_for_the_process_that_keeps_the_data() {
    let mut first = Server::open().await;
    let mut second = Server::begin(OPEN, Some(&first.dir.path().join("data")), None);
    let waits = wait_for("a start that waits", SOON, async || {
        let (status, text) = http_get(second.probes, "/readyz").await?;
        (status == 503 && text.contains("another process")).then_some(text)
    });
    let text = waits.await.unwrap();
    assert!(text.starts_with("starting: "), "{text}");
    assert_eq!(http_get(second.probes, "/livez").await.unwrap().0, 200);
    assert_eq!(http_get(second.probes, "/startupz").await.unwrap().0, 503);
    first.node.terminate().await.unwrap();
    second.node.wait_until_ready(SOON).await.unwrap();
    raw_client(second.mqtt(), Version::V5, "a").await;
    assert!(second.node.alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_drains_under_load_hands_over_and_loses_nothing() {
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let (history, doors) = (Arc::new(History::default()), Arc::new(Doors::of(&cluster.addresses())));
    let plan = Plan {
        manner: Manner::Moves { patience: Duration::from_secs(4) },
        window: 16,
        payload_bytes_max: 600,
        ..Plan::default()
    };
    let seed = seed("a_leader_that_drains");
    let mut load = Load::start(doors.clone(), history.clone(), seed, &plan).await.unwrap();
    load.acknowledged(300).await.unwrap();
    let leader = cluster.wait_for_leader(RECOVERY).await.unwrap();
    let term = cluster.metrics(leader).await.unwrap().get("fulmar_raft_term");

    doors.set_out(leader, true);
    let (data_dir, done) = (cluster.member(leader).data_dir.clone(), AtomicBool::new(false));
    let draining = async {
        let drained = drain(&["--data-dir"], &data_dir).await;
        done.store(true, Ordering::Relaxed);
        drained
    };
    let (drained, pause) = tokio::join!(draining, longest_puback(cluster.mqtt((leader + 1) % 3), &done));
    assert_eq!(drained, (Some(0), "drained\n".to_owned()));
    println!("the longest wait for a PUBACK while the leader went: {} ms", pause.as_millis());
    let metrics = cluster.metrics(leader).await.unwrap();
    assert_eq!((metrics.get("fulmar_connections"), metrics.get("fulmar_raft_leader")), (0, 0));
    assert_eq!(metrics.get("fulmar_raft_term"), term + 1, "one election, which nobody lost");
    assert!(cluster.node(leader).process().unwrap().stderr().contains("leadership is handed over"));
    load.acknowledged(300).await.unwrap();
    // It still votes and keeps the log: that of the others goes on in it.
    assert!(cluster.node(leader).alive());
    let said = get(cluster.member(leader).probes, "/readyz", SOON).await;
    assert_eq!(said, Some((503, "drained\n".to_owned())));
    cluster.node(leader).signal(Signal::Terminate).unwrap();
    let status = cluster.node(leader).process().unwrap().exited(SOON).await.unwrap();
    assert_eq!(status.code(), Some(0));
    cluster.start_again(leader).unwrap();
    cluster.all_ready(RECOVERY).await.unwrap();
    doors.set_out(leader, false);

    load.finish().await.unwrap();
    assert_eq!(load.book.problems(), Vec::<String>::new(), "with FULMAR_TEST_SEED={seed}");
    let verdict = history.judge();
    assert!(verdict.is_good(), "with FULMAR_TEST_SEED={seed}: {verdict:?}");
    let closed = wait_for("closed books", BOOKS, async || (cluster.unaccounted().await == 0).then_some(()));
    closed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_found_at_its_name_wherever_it_is() {
    let mut cluster = Cluster::start(3, ClusterOptions { proxies: true, ..ClusterOptions::default() }).await.unwrap();
    let leader = cluster.wait_for_leader(RECOVERY).await.unwrap();
    // One that follows, and the one that leads.
    for moved in [(leader + 1) % 3, leader] {
        cluster.terminate(moved).await.unwrap();
        cluster.start_elsewhere(moved).unwrap();
        cluster.all_ready(RECOVERY).await.unwrap();
        let other = (moved + 1) % 3;
        let mut subscriber = raw_client(cluster.mqtt(moved), Version::V311, "s").await;
        raw_subscribe(&mut subscriber, "t", QoS::AtLeastOnce).await;
        let mut publisher = raw_client(cluster.mqtt(other), Version::V311, "p").await;
        publisher.send(&Packet::Publish(raw::publish(1, "t", QoS::AtLeastOnce, "x"))).await.unwrap();
        assert_eq!(raw_publish(&mut subscriber).await.payload, "x");
        let mut back = raw_client(cluster.mqtt(other), Version::V311, "s2").await;
        raw_subscribe(&mut back, "back", QoS::AtLeastOnce).await;
        subscriber.send(&Packet::Publish(raw::publish(1, "back", QoS::AtLeastOnce, "y"))).await.unwrap();
        assert_eq!(raw_publish(&mut back).await.payload, "y");
    }
}
