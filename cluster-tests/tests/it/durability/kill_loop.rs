//! SIGKILL at points of all kinds, time and again, under a load that knows what was acknowledged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_tests::load::{Plan, Point, Step};
use cluster_tests::sys::Signal;
use cluster_tests::wait_for;
use rand::prelude::*;

use super::{data_dir, given, load, small_log, verify};
use crate::support::{SOON, Server, http_get, seed};

/// How long a round may take: the load must come to the kill's point.
const ROUND: Duration = Duration::from_secs(60);

/// How long a process may take to be gone.
const GONE: Duration = Duration::from_secs(30);

/// Of so many starts, one is killed too.
const STARTS: u32 = 4;

/// Clients of the load that connect after each start.
const CLIENTS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kills_at_any_point() {
    let kills = given("FULMAR_TEST_KILLS", 32);
    let seed = seed("nothing_acknowledged_is_lost_by_kills_at_any_point");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = small_log().await;
    let mut load = load(&server, random.random(), &Plan::default()).await;
    let sessions = server.metrics().await.get("fulmar_sessions");
    let (mut open, mut starts, mut snapshots) = (0, 0, BTreeSet::new());
    let mut restarts = Vec::new();

    let mut next = Point::random(&mut random, CLIENTS);
    load.acknowledged(100).await.unwrap();
    if kills > 0 {
        load.book.arm(server.node.pid(), next);
    }
    for round in 0..kills {
        let book = load.book.clone();
        open += load.until(&format!("kill {round} at {next:?}"), ROUND, book.killed()).await.unwrap();
        server.node.wait_until_gone(GONE).await.unwrap();
        snapshots.extend(names(&data_dir(&server).join("snapshots")));
        if random.random_ratio(1, STARTS) {
            server.node.start_again().unwrap();
            kill_within_start(&mut server, &mut random).await;
            starts += 1;
        }
        next = Point::random(&mut random, CLIENTS);
        if round + 1 < kills && next.step == Step::Connack {
            // The clients come back as soon as there is a node.
            server.node.start_again().unwrap();
            load.book.arm(server.node.pid(), next);
            continue;
        }
        let begun = Instant::now();
        server.node.restart().await.unwrap();
        restarts.push(begun.elapsed().as_secs_f64());
        assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0, "after kill {round}");
        server.metric("fulmar_sessions", |n| n == sessions).await;
        load.check_retained(0).await.unwrap();
        if round + 1 < kills {
            load.book.arm(server.node.pid(), next);
        }
    }
    println!(
        "{kills} kills and {starts} within a start; {open} messages open at the kills; {} sent, {} acknowledged by then; \
         {} snapshots seen; ready after {:.1} s on average, {:.1} s at most",
        load.book.sent(),
        load.book.acknowledged(),
        snapshots.len(),
        restarts.iter().sum::<f64>() / restarts.len().max(1) as f64,
        restarts.iter().copied().fold(0.0, f64::max)
    );

    load.finish().await.unwrap();
    load.check_retained(0).await.unwrap();
    // All is settled, and that is remembered too.
    server.metric("fulmar_durable_queued", |n| n == 0).await;
    assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0);
    server.node.terminate().await.unwrap();
    let (code, text) = verify(&[&data_dir(&server)]).await;
    assert_eq!(code, Some(0), "{text}");
    server.node.restart().await.unwrap();
    let metrics = server.metrics().await;
    for (name, value) in
        [("fulmar_durable_queued", 0), ("fulmar_obligations_unaccounted", 0), ("fulmar_sessions", sessions)]
    {
        assert_eq!(metrics.get(name), value, "{name} after a clean stop");
    }
    load.check_retained(0).await.unwrap();
    if kills >= 30 {
        assert!(open >= 1000, "the kills met too little: {open}");
        assert!(snapshots.len() >= 3, "the load is too small for the log: {snapshots:?}");
    }
}

/// Kills a node that is starting: at once, when it is looking at its log, or when it begins to answer.
async fn kill_within_start(server: &mut Server, random: &mut StdRng) {
    let (until, check, probes) = (random.random_range(0..3), data_dir(server).join("log.check"), server.probes);
    wait_for("signs of a start", SOON, async || {
        let answers = async || http_get(probes, "/livez").await.is_some();
        let come = match until {
            0 => true,
            1 => check.exists() || answers().await,
            _ => answers().await,
        };
        come.then_some(())
    })
    .await
    .unwrap();
    server.node.signal(Signal::Kill).unwrap();
    server.node.wait_until_gone(GONE).await.unwrap();
}

fn names(dir: &std::path::Path) -> Vec<std::ffi::OsString> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()
}
