//! A process that ends between two steps of its own, at places which the program names and which a build for tests can be
//! made to end at.

use std::time::Duration;

use cluster_tests::load::{Manner, Plan};
use cluster_tests::wait_for;
use rand::prelude::*;
use tokio::sync::OnceCell;

use super::{data_dir, load, serve, small_log, verify};
use crate::support::{SOON, Server, http_get, seed};

/// How long a load may take to come to a place.
const REACHED: Duration = Duration::from_secs(90);

/// Where the binary reads which places do what.
pub(crate) const FAILPOINTS: &str = "FAILPOINTS";

/// Whether the binary has such places. The one that the harness builds for tests must have them; one that was given from
/// outside is tried.
pub(crate) async fn has_failpoints(test: &str) -> bool {
    static HAS: OnceCell<bool> = OnceCell::const_new();
    let has = *HAS.get_or_init(async || std::env::var_os("FULMAR_BIN").is_none() || dies_when_told().await).await;
    if !has {
        println!("SKIPPED {test}: the binary of FULMAR_BIN has no fail points");
    }
    has
}

async fn dies_when_told() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, probes) = serve(dir.path(), &dir.path().join("data"), &[(FAILPOINTS, "log::after_append=panic")]);
    wait_for("an end, or a node that serves", SOON, async || match process.status().unwrap() {
        Some(_) => Some(true),
        None => http_get(probes, "/readyz").await.filter(|(status, _)| *status == 200).map(|_| false),
    })
    .await
    .unwrap()
}

/// Starts a node whose place `point` does `action`, has it loaded until it ends, and looks at what the next one knows.
async fn ends_and_nothing_is_lost(point: &str, action: &str) {
    if !has_failpoints(point).await {
        return;
    }
    let mut random = StdRng::seed_from_u64(seed(point));
    let mut server: Server = small_log().await;
    let plan = Plan { publishers: 4, retainers: 1, manner: Manner::Fails, ..Plan::default() };
    let mut load = load(&server, random.random(), &plan).await;
    load.acknowledged(300).await.unwrap();
    server.node.terminate().await.unwrap();
    for _ in 0..2 {
        server.node.set_env(&[(FAILPOINTS, &format!("{point}={action}"))]);
        server.node.start_again().unwrap();
        let gone = server.node.wait_until_gone(REACHED);
        load.until(&format!("the end at {point}"), REACHED, gone).await.unwrap().unwrap();
        let status = server.node.process().unwrap().status().unwrap().unwrap();
        assert!(!status.success(), "{point}: {status}");

        server.node.set_env(&[]);
        server.node.restart().await.unwrap();
        assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0, "{point}");
        load.check_retained(0).await.unwrap();
        load.acknowledged(100).await.unwrap();
        server.node.kill().await.unwrap();
    }
    server.node.restart().await.unwrap();
    load.finish().await.unwrap();
    load.check_retained(0).await.unwrap();
    server.node.terminate().await.unwrap();
    let (code, text) = verify(&[&data_dir(&server)]).await;
    assert_eq!(code, Some(0), "{point}: {text}");
}

#[tokio::test]
async fn entries_are_written_and_not_flushed() {
    ends_and_nothing_is_lost("log::after_append", "100*off->panic").await;
}

#[tokio::test]
async fn entries_are_flushed_and_not_marked() {
    ends_and_nothing_is_lost("log::after_flush", "100*off->panic").await;
}

#[tokio::test]
async fn a_sync_of_the_disk_fails() {
    ends_and_nothing_is_lost("log::sync_error", "100*off->return").await;
}

#[tokio::test]
async fn a_purge_is_marked_and_not_done() {
    ends_and_nothing_is_lost("log::before_purge", "panic").await;
}

#[tokio::test]
async fn a_snapshot_is_half_written() {
    ends_and_nothing_is_lost("snapshot::half_written", "panic").await;
}

#[tokio::test]
async fn a_snapshot_is_written_and_has_no_name() {
    ends_and_nothing_is_lost("snapshot::before_rename", "panic").await;
}
