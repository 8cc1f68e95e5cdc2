//! A node is lost while a command waits. The command may have run: the caller is told so, and soon.

use std::time::Instant;

use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::RECOVERY;
use serde_json::json;

use super::{Connected, cluster, command, counted};

const LOST: &str = "FULMAR.000010";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_node_is_killed_while_a_command_waits() {
    let devices = [Device::new(Vendor::Huawei, "one"), Device::new(Vendor::Huawei, "two")];
    let (mut cluster, rest) = cluster(&devices, "60s").await;
    let [mut lost, mut kept] =
        [Connected::at(&cluster, 1, &devices[0]).await, Connected::at(&cluster, 2, &devices[1]).await];
    let (waits, unharmed) = (command(&rest, &devices[0], 1), command(&rest, &devices[1], 2));
    lost.asked().await;
    let (topic, _) = kept.asked().await;
    cluster.kill(1).await.unwrap();
    let killed = Instant::now();
    let (status, body) = waits.await.unwrap();
    println!("told {:?} after the kill", killed.elapsed());
    assert_eq!((status, body["error_code"].as_str()), (503, Some(LOST)), "{body}");
    // What waits for other nodes waits on.
    kept.answer(&topic, &json!({"result_code": 0})).await;
    assert_eq!(unharmed.await.unwrap().1["response"], json!({"result_code": 0}));

    // Elsewhere the device is commanded as before.
    let mut again = Connected::at(&cluster, 2, &devices[0]).await;
    let next = command(&rest, &devices[0], 3);
    let (topic, payload) = again.asked().await;
    assert_eq!(payload["paras"]["number"], 3);
    again.answer(&topic, &json!({"result_code": 0})).await;
    assert_eq!(next.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_node_freezes_while_a_command_waits() {
    let device = Device::new(Vendor::Huawei, "one");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), "60s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    let (waits, mut sent) = (command(&rest, &device, 1), 1);
    connected.asked().await;
    cluster.freeze(1).unwrap();
    let frozen = Instant::now();
    let (status, body) = waits.await.unwrap();
    println!("told {:?} after it froze", frozen.elapsed());
    assert_eq!((status, body["error_code"].as_str()), (503, Some(LOST)), "{body}");
    // Once its run is declared dead nothing is sent there any more.
    let offline = cluster_tests::wait_for("offline", RECOVERY, async || {
        let (status, body) = command(&rest, &device, 2).await.ok()?;
        sent += 1;
        (status == 403 && body["error_code"] == "IOTDA.014016").then_some(())
    });
    offline.await.unwrap();
    cluster.thaw(1).unwrap();
    cluster.ready(1, RECOVERY).await.unwrap();
    // What lay in its sockets while it was frozen was not handed on.
    let left = connected.client.expect_close(RECOVERY).await.unwrap();
    assert!(left.is_empty(), "{left:?} after {sent} commands");
    counted(&mut cluster, &["fulmar_call_waiters"], 0).await;
}
