//! Nodes that break a rule on purpose, at a fail point that only builds for tests have: the judges must say so.

use cluster_tests::scenarios::{Row, named};

use super::{CLUSTERS, settings};
use crate::durability::has_failpoints;
use crate::support::seed;

/// Seeds that are tried: a broken rule shows only if something falls into its gap.
const TRIES: usize = 12;

/// Runs a scenario against nodes that break a rule, until `seen` finds what must come of it.
async fn is_found_out(point: &str, scenario: &str, seen: impl Fn(&Row) -> bool) {
    if !has_failpoints(point).await {
        return;
    }
    let _turn = CLUSTERS.acquire().await.unwrap();
    let first = seed(point);
    let mut rows = Vec::new();
    for seed in (0..TRIES as u64).map(|index| first.wrapping_add(index)) {
        let mut settings = settings(seed);
        settings.env = vec![("FAILPOINTS".to_owned(), format!("{point}=return"))];
        let row = named(scenario).unwrap().run(&settings).await.unwrap();
        println!("{point}, {scenario}: {:?}", row.violations());
        if seen(&row) {
            return;
        }
        rows.push(row);
    }
    panic!("{point} was not found out by {scenario} in {TRIES} runs: {rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_acts_without_a_lease() {
    is_found_out("lease::ignore", "stop-past-lease", |row| row.verdict.owners > 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_before_the_commit() {
    is_found_out("ack::before_commit", "kill-any", |row| row.verdict.lost > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_for_nobody() {
    is_found_out("claim::no_wait", "takeover-ping-pong", |row| row.verdict.owners > 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_forgotten() {
    is_found_out("dispatch::forget_frame", "publish-after-suback", |row| !row.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suback_that_does_not_wait_for_the_others() {
    is_found_out("stable::ignore", "publish-after-suback", |row| !row.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_id_that_is_forgotten() {
    is_found_out("qos2::forget", "kill-qos2", |row| row.verdict.duplicated > 0).await;
}
