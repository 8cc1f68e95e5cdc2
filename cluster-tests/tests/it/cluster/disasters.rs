//! The drills of the runbook: a quorum that is lost for good, and a disk that is damaged.

use std::path::Path;
use std::process::Command;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::harness::{Cluster, ClusterOptions, MEMBERS, RECOVERY, VOTERS, fulmar_binary};
use cluster_tests::wait_for;
use serde_json::Value;

use super::CLUSTERS;
use crate::support::{SOON, http_get};

/// Messages between two steps of a drill.
const BETWEEN: usize = 60;

/// Exit code and output of `fulmar`.
fn fulmar(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(fulmar_binary().unwrap()).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn recover(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    fulmar(&[&["ctl", "recover", "--data-dir", dir.to_str().unwrap()], more].concat())
}

/// What `fulmar verify` says, as JSON, and its exit code.
fn verify(dir: &Path) -> (Option<i32>, Value) {
    let (code, said, error) = fulmar(&["verify", dir.to_str().unwrap(), "--output", "json"]);
    (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}")))
}

fn last(dir: &Path) -> (u64, u64) {
    let (code, said) = verify(dir);
    assert!(matches!(code, Some(0 | 1)), "{said}");
    (said["last"]["term"].as_u64().unwrap(), said["last"]["index"].as_u64().unwrap())
}

fn away() -> Options {
    Options::new(Protocol::V5, "away").persistent(3_600)
}

/// A session that is away from here on, and has everything below `load/`.
async fn leave_a_session(cluster: &Cluster, node: usize) {
    let mut session = Client::connect(cluster.mqtt(node), away()).await.unwrap();
    session.subscribe("load/#", 1).await.unwrap();
    session.disconnect().await.unwrap();
}

/// Publishes so many messages to a node, each once the one before was acknowledged; one that was not is sent again, as a
/// machine that stalls costs nodes their leases.
async fn publish(cluster: &Cluster, node: usize, acked: &mut Vec<String>) {
    let first = acked.len();
    let (address, mut publisher) = (cluster.mqtt(node), None);
    wait_for("messages that are acknowledged", RECOVERY, async || {
        while acked.len() < first + BETWEEN {
            let text = format!("message {}", acked.len());
            if publisher.is_none() {
                let options = Options::new(Protocol::V5, &format!("publisher-{first}"));
                publisher = Some(Client::connect(address, options).await.ok()?);
            }
            let sent = publisher.as_mut()?.publish_acked("load/t", 1, text.clone()).await;
            if sent.is_err() {
                publisher = None;
                return None;
            }
            acked.push(text);
        }
        Some(())
    })
    .await
    .unwrap();
}

/// Publishes until nothing is acknowledged any more.
async fn publish_until_it_ends(at: std::net::SocketAddr, mut number: usize) -> Vec<String> {
    let mut acked = Vec::new();
    let Ok(mut publisher) = Client::connect(at, Options::new(Protocol::V5, "until-it-ends")).await else {
        return acked;
    };
    loop {
        let text = format!("message {number}");
        match publisher.publish_acked("load/t", 1, text.clone()).await {
            Ok(()) => acked.push(text),
            Err(_) => return acked,
        }
        number += 1;
    }
}

/// The session comes back to a node: everything that was acknowledged is there, in order. In between may be what came into
/// the log without its publisher being told.
async fn gets_all(cluster: &Cluster, node: usize, acked: &[String]) {
    let mut session = Client::connect(cluster.mqtt(node), away()).await.unwrap();
    assert!(session.session_present());
    let mut untold = 0;
    for wanted in acked {
        while session.receive(SOON).await.unwrap_or_else(|error| panic!("{wanted} is missing: {error:#}")).text()
            != *wanted
        {
            untold += 1;
            assert!(untold < BETWEEN / 4, "{wanted} is missing");
        }
    }
    session.disconnect().await.unwrap();
}

async fn readyz(cluster: &Cluster, node: usize, says: &str) -> String {
    let mut last = String::new();
    let probes = cluster.member(node).probes;
    let waited = wait_for("/readyz that says why", RECOVERY, async || {
        let (status, text) = http_get(probes, "/readyz").await?;
        last = text.clone();
        (status == 503 && text.contains(says)).then_some(text)
    });
    let waited = waited.await;
    waited.unwrap_or_else(|error| panic!("{error:#}: {last}, not {says}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_of_a_lost_quorum_becomes_a_cluster_that_others_join() {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    leave_a_session(&cluster, 1).await;
    let mut acked = Vec::new();
    publish(&cluster, 1, &mut acked).await;
    // One goes, then another under load: what was acknowledged in between is on both that were left.
    let (survivor, first, second) = (2, 0, 1);
    cluster.kill(first).await.unwrap();
    cluster.wait_for_leader(RECOVERY).await.unwrap();
    publish(&cluster, survivor, &mut acked).await;
    let under_load = tokio::spawn(publish_until_it_ends(cluster.mqtt(survivor), acked.len()));
    let before = cluster.metrics(survivor).await.unwrap().get("fulmar_durable_obligations_total");
    wait_for("messages under load", SOON, async || {
        let now = cluster.metrics(survivor).await.ok()?.get("fulmar_durable_obligations_total");
        (now > before + 20).then_some(())
    })
    .await
    .unwrap();
    cluster.kill(second).await.unwrap();

    // The survivor says what it lacks, also after a restart, and is not taken apart while it runs.
    cluster.kill(survivor).await.unwrap();
    acked.extend(under_load.await.unwrap());
    cluster.start_again(survivor).unwrap();
    readyz(&cluster, survivor, "1 of 3 voters answer").await;
    let dir = cluster.member(survivor).data_dir.clone();
    let (code, said, error) = recover(&dir, &["--yes"]);
    assert!(code == Some(1) && error.contains("in use"), "{said}{error}");
    cluster.kill(survivor).await.unwrap();
    assert!(last(&dir) > last(&cluster.member(first).data_dir), "the one that went first knows least");

    let (code, said, error) = recover(&dir, &[]);
    assert!(code == Some(1) && error.contains("nothing was changed"), "{said}{error}");
    assert!(said.matches("gives up").count() == 2 && said.contains("queued messages"), "{said}");
    let old = verify(&dir).1["cluster"].clone();
    let (code, said, error) = recover(&dir, &["--yes"]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("is a cluster of one now"), "{said}");
    let (code, after) = verify(&dir);
    assert!(code == Some(0) && after["cluster"] != old, "{after}");
    let (code, said, error) = recover(&dir, &["--yes"]);
    assert!(code == Some(1) && error.contains("only member"), "{said}{error}");

    cluster.start_again(survivor).unwrap();
    cluster.ready(survivor, RECOVERY).await.unwrap();
    gets_all(&cluster, survivor, &acked).await;

    // A lost member that comes back with what it has is told; emptied, it joins.
    cluster.start_again(second).unwrap();
    let told = readyz(&cluster, second, "refuses it: the node there is in the cluster").await;
    assert!(told.contains(after["cluster"].as_str().unwrap()), "{told}");
    let logged = cluster.node(second).process().unwrap().stderr();
    assert!(logged.contains("a node that its cluster went on without is to be emptied"), "{logged}");
    // The fresh one finds both, and joins the one that is there.
    cluster.wipe(first).unwrap();
    cluster.start_again(first).unwrap();
    cluster.ready(first, RECOVERY).await.unwrap();
    cluster.kill(second).await.unwrap();
    cluster.wipe(second).unwrap();
    cluster.start_again(second).unwrap();
    cluster.all_ready(RECOVERY).await.unwrap();
    for name in [MEMBERS, VOTERS] {
        cluster.everywhere(name, RECOVERY, |count| count == 3).await.unwrap();
    }
    let mut later = Vec::new();
    publish(&cluster, first, &mut later).await;
    gets_all(&cluster, second, &later).await;
    assert_eq!(cluster.unaccounted().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_damaged_says_so_and_is_replaced_by_an_empty_one() {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    leave_a_session(&cluster, 0).await;
    let mut acked = Vec::new();
    publish(&cluster, 0, &mut acked).await;
    let (damaged, other) = (1, 2);
    cluster.terminate(damaged).await.unwrap();
    let dir = cluster.member(damaged).data_dir.clone();
    let file = dir.join("log/db");
    let mut bytes = std::fs::read(&file).unwrap();
    let (needle, mut flipped) = (acked[20].as_bytes(), 0);
    for at in 0..bytes.len() - needle.len() {
        if bytes[at..].starts_with(needle) {
            bytes[at] ^= 1;
            flipped += 1;
        }
    }
    assert!(flipped > 0, "the message is in the log");
    std::fs::write(&file, &bytes).unwrap();

    cluster.start_again(damaged).unwrap();
    let said = readyz(&cluster, damaged, "fulmar verify").await;
    // sled may lose with the message what it wrote behind it: then it is the metadata that are not whole.
    assert!(said.contains("log/db"), "{said}");
    let at_entry = said.contains("log/db, entry ");
    assert_eq!(http_get(cluster.member(damaged).probes, "/livez").await.map(|(status, _)| status), Some(200));
    publish(&cluster, other, &mut acked).await;
    assert!(cluster.node(damaged).alive(), "it waits for a person");
    cluster.terminate(damaged).await.unwrap();
    let (code, report) = verify(&dir);
    assert!(code == Some(2) && report["last"]["index"].is_u64() == at_entry, "{report}");
    let (_, text, _) = fulmar(&["verify", dir.to_str().unwrap()]);
    assert!(text.contains("log/db, entry ") == at_entry && text.contains("damaged"), "{text}");
    // It is one of three: nobody should make a cluster of it, and without a word it is not done.
    let (code, said, error) = recover(&dir, &["--yes"]);
    assert!(code == Some(1) && (error.contains("--accept-damage") || !at_entry), "{said}{error}");

    cluster.wipe(damaged).unwrap();
    cluster.start_again(damaged).unwrap();
    cluster.all_ready(RECOVERY).await.unwrap();
    cluster.everywhere(VOTERS, RECOVERY, |count| count == 3).await.unwrap();
    cluster.everywhere(MEMBERS, RECOVERY, |count| count == 3).await.unwrap();
    publish(&cluster, damaged, &mut acked).await;
    gets_all(&cluster, damaged, &acked).await;
    assert_eq!(cluster.unaccounted().await, 0);
}
