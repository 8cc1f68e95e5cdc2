//! The rendered manifests, played with real processes: the scenarios of `play` that say most, with few devices and with the
//! times of Kubernetes cut short.

use cluster_tests::harness::fulmar_binary;
use cluster_tests::play::{Settings, golden, named, table};
use tokio::sync::Semaphore;

use crate::support::seed;

/// Probe periods and back-offs are this much shorter.
const PACE: f64 = 5.0;

/// Clusters at a time.
static CLUSTERS: Semaphore = Semaphore::const_new(1);

/// Plays a scenario, which must keep its promise.
async fn keeps(name: &str) {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let scenario = named(name).unwrap();
    let settings = Settings {
        devices: 150,
        times: 3,
        seed: seed(name),
        manifest: golden("three").unwrap(),
        binary: fulmar_binary().unwrap(),
        old: None,
        pace: PACE,
        aloud: false,
    };
    let row = scenario.run(&settings).await.unwrap();
    println!("{}\n{}", row.notes.join("; "), table(std::slice::from_ref(&row)));
    assert!(
        row.is_good(),
        "{name}: {}\nis broken, with FULMAR_TEST_SEED={}:\n{}",
        scenario.promise,
        row.seed,
        row.violations().join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_start_together_form_one_cluster() {
    keeps("first-start").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    keeps("rolling-restart").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_stops_at_the_first_pod() {
    keeps("bad-config").await;
}
