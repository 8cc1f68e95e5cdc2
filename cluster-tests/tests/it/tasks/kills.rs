//! The node that carries a task out dies in the middle of it.

use cluster_tests::devices::Vendor;
use cluster_tests::harness::RECOVERY;
use fulmar_mqtt::Version;

use super::*;

/// The node that carries a task out.
async fn runner(cluster: &mut Cluster) -> usize {
    cluster_tests::wait_for("a node that runs the task", SOON, async || {
        let all = cluster.all_metrics().await;
        all.iter().find(|(_, metrics)| metrics.get("fulmar_batch_tasks_running") > 0).map(|(node, _)| *node)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_reaches_no_device_twice() {
    const MANY: usize = 90;
    let devices: Vec<Device> = (0..MANY).map(|number| Device::new(Vendor::Huawei, format!("k{number}"))).collect();
    let (mut cluster, rest) = cluster(&devices, "command_timeout = \"5s\"\nbatch_concurrency = 4").await;
    let seen = Seen::default();
    for (number, one) in devices.iter().enumerate() {
        drop(device(&cluster, number % 3, one, &seen, Some(Duration::from_millis(100))).await);
    }
    let document = json!({ "command_name": "count", "paras": {} });
    let policy = json!({ "retry_count": 0 });
    let more = json!({ "targets": ids(&devices), "document": document, "task_policy": policy });
    let id = create(&rest, "createCommands", more).await;
    let killed = runner(&mut cluster).await;
    cluster_tests::wait_for("some to be done", SOON, async || (seen.total() >= 12).then_some(())).await.unwrap();
    cluster.kill(killed).await.unwrap();
    let before = seen.total();
    assert!((before as usize) < MANY, "the task was not over");
    let survivor = rest.at(cluster.member((killed + 1) % 3).rest);
    let task = ended(&survivor, &id, RECOVERY).await;
    assert_eq!((count(&task, "total"), count(&task, "success") + count(&task, "fail")), (MANY as u64, MANY as u64));
    let (mut lost, mut succeeded) = (0, 0);
    for (number, detail) in details(&survivor, &id).await.iter().enumerate() {
        let times = seen.of(&devices[number].id());
        assert!(times <= 1, "{detail}: {times} times");
        match detail["error"]["error_code"].as_str() {
            None => {
                assert_eq!((times, &detail["status"]), (1, &json!("Success")), "{detail}");
                succeeded += 1;
            }
            Some("FULMAR.000050") => lost += 1,
            // Devices of the node that was killed.
            Some("IOTDA.014016" | "FULMAR.000010" | "FULMAR.000012") => assert_eq!(number % 3, killed, "{detail}"),
            _ => panic!("{detail}"),
        }
    }
    println!("{before} before the kill, {succeeded} succeeded, of {lost} it is not known");
    assert!(lost <= 4, "no more than were under way");
    assert!(succeeded > before as usize - 5, "others were done after the kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_harmless_is_finished_by_another_node() {
    const MANY: usize = 600;
    let (mut cluster, rest) = cluster(&[], "batch_concurrency = 2").await;
    let product = Vendor::Huawei.product_id();
    let nodes: Vec<String> = (0..MANY).map(|number| format!("n{number}")).collect();
    let made = create(&rest, "createDevices", json!({ "targets": nodes, "document": { "product_id": product } })).await;
    assert_eq!(ended(&rest, &made, LONG).await["status"], "Success");
    let id = create(&rest, "deleteDevices", json!({ "targets_filter": { "product_id": product } })).await;
    let killed = runner(&mut cluster).await;
    cluster.kill(killed).await.unwrap();
    let survivor = rest.at(cluster.member((killed + 1) % 3).rest);
    let task = ended(&survivor, &id, LONG).await;
    assert_eq!((&task["status"], count(&task, "success")), (&json!("Success"), MANY as u64));
    let left = survivor.call("GET", &format!("/devices?product_id={product}"), None).await.unwrap();
    assert_eq!(left["page"]["count"], 0);
    // It comes back and knows as much.
    cluster.start_again(killed).unwrap();
    cluster.ready(killed, RECOVERY).await.unwrap();
    let back = show(&rest.at(cluster.member(killed).rest), &id).await;
    assert_eq!((&back["status"], count(&back, "success")), (&json!("Success"), MANY as u64));
    let client = RawClient::tcp(cluster.mqtt(killed), Version::V311).await;
    assert!(client.is_ok(), "it serves clients");
}
