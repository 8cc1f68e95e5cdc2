//! The same identity at two nodes: the older connection goes.

use std::time::{Duration, Instant};

use cluster_tests::devices::{Device, Vendor};

use super::{cluster, connect};

/// How long the older connection may stay once the newer was welcomed.
const PROMISED: Duration = Duration::from_secs(1);

/// Of each dialect.
const TAKEOVERS: usize = 100;

/// Takeovers of one device: far fewer than where the bound on them is.
const EACH: usize = 4;

/// Takes devices over from node to node, one after the other; gives how long the older connections stayed.
async fn take_over(cluster: &cluster_tests::harness::Cluster, devices: &[Device]) -> Vec<Duration> {
    let mut stayed = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let mut older = connect(cluster, number % 3, device).await;
        for step in 1..=EACH {
            let newer = connect(cluster, (number + step) % 3, device).await;
            let welcomed = Instant::now();
            let closed = older.expect_close(PROMISED * 5).await;
            assert!(closed.is_ok(), "{device:?}: {closed:?}");
            stayed.push(welcomed.elapsed());
            older = newer;
        }
    }
    stayed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_connection_is_closed_within_a_second_in_every_dialect() {
    let of = |vendor| -> Vec<Device> {
        (0..TAKEOVERS / EACH).map(|number| Device::new(vendor, format!("t{number}"))).collect()
    };
    let all = Vendor::ALL.map(of);
    let (cluster, rest) = cluster(&all.concat()).await;
    for devices in &all {
        let stayed = take_over(&cluster, devices).await;
        let late: Vec<&Duration> = stayed.iter().filter(|time| **time > PROMISED).collect();
        let worst = stayed.iter().max().unwrap();
        println!("{}: {} takeovers, worst {worst:?}", devices[0].vendor.name(), stayed.len());
        assert!(stayed.len() == TAKEOVERS && late.is_empty(), "{:?}: {late:?}", devices[0].vendor);
    }
    // The last connection of each is gone by now, and was the newest: nobody is shown ONLINE by an older one's end.
    for vendor in Vendor::OF_DEVICES {
        let device = Device::new(vendor, "t0");
        cluster_tests::wait_for("OFFLINE", crate::support::SOON, async || {
            (rest.status(&device).await.ok()? == "OFFLINE").then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_taken_over_is_shown_online_on_every_node() {
    let devices: Vec<Device> = Vendor::OF_DEVICES.map(|vendor| Device::new(vendor, "s")).into();
    let (cluster, rest) = cluster(&devices).await;
    for device in &devices {
        let mut older = connect(&cluster, 0, device).await;
        for node in [1, 2, 0, 1] {
            let newer = connect(&cluster, node, device).await;
            older.expect_close(PROMISED).await.unwrap();
            for node in 0..3 {
                let there = rest.at(cluster.member(node).rest);
                cluster_tests::wait_for("ONLINE", PROMISED, async || {
                    (there.status(device).await.ok()? == "ONLINE").then_some(())
                })
                .await
                .unwrap();
            }
            older = newer;
        }
    }
}
