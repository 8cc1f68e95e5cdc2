//! What a cluster of real nodes promises under faults: the scenarios of `faults`, each for a short time, with fewer clients
//! and repetitions. What they judge by is shown to find something in [`broken`].

mod broken;
mod disasters;
mod sessions;

use cluster_tests::scenarios::{Settings, named, table};
use tokio::sync::Semaphore;

use crate::support::seed;

/// Seconds of faults of each scenario.
const SECONDS: f64 = 8.0;

/// Clusters at a time: each is several nodes and their clients, and what they promise has deadlines.
static CLUSTERS: Semaphore = Semaphore::const_new(1);

fn settings(seed: u64) -> Settings {
    let seconds = std::env::var("FULMAR_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    Settings { seconds, seed, count: 400, clients: 200, binary: None, env: Vec::new() }
}

/// Runs a scenario, which must keep its promise.
async fn keeps(name: &str) {
    let _turn = CLUSTERS.acquire().await.unwrap();
    let scenario = named(name).unwrap();
    let row = scenario.run(&settings(seed(name))).await.unwrap();
    println!("{}\n{}", row.notes.join("; "), table(std::slice::from_ref(&row)));
    assert!(
        row.is_good(),
        "{name}: {}\nis broken, with FULMAR_TEST_SEED={}:\n{}",
        scenario.promise,
        row.seed,
        row.violations().join("\n")
    );
}

macro_rules! promises {
    ($($test:ident $name:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            keeps($name).await;
        }
    )*};
}

promises! {
    nothing_is_lost_when_any_node_is_killed "kill-any";
    nothing_is_lost_when_the_leader_is_killed "kill-leader";
    what_was_committed_and_not_answered_is_taken_once "kill-leader-before-reply";
    qos_2_comes_once_through_kills_at_its_half_steps "kill-qos2";
    a_cluster_that_was_killed_comes_back "kill-all";
    clients_lose_nothing_by_a_rolling_restart "rolling-restart";
    a_wiped_node_is_filled_again "wiped-volume";
    a_node_that_was_stopped_serves_nobody_who_is_elsewhere "stop-past-lease";
    nor_one_that_was_stopped_during_the_takeover "stop-owner";
    a_minority_is_frozen "partition";
    a_cut_pair_loses_nothing "partition-pair";
    a_leader_alone_with_a_learner_is_none "partition-leader-learner";
    bad_links_lose_nothing "slow-links";
    a_client_id_that_wanders_has_one_owner "takeover-ping-pong";
    a_subscription_is_everywhere_after_its_suback "publish-after-suback";
    a_retained_message_is_everywhere_after_its_puback "retained-after-puback";
    wills_of_a_killed_node_fly_once "wills-of-killed";
    a_node_joins_by_snapshot "join-by-snapshot";
    a_cluster_grows_while_it_serves "grow";
    a_mixed_group_gets_each_message "shared-mixed";
    devices_of_a_killed_node_are_online_again "devices-of-killed";
    suback_comes_in_time_across_losses "suback-in-time";
}
