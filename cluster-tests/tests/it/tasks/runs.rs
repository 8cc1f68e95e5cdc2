//! What becomes of tasks whose nodes all live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cluster_tests::devices::Vendor;

use super::*;

fn named(prefix: &str, count: usize) -> Vec<Device> {
    (0..count).map(|number| Device::new(Vendor::Huawei, format!("{prefix}{number}"))).collect()
}

fn command() -> Value {
    json!({ "command_name": "ON_OFF", "paras": { "value": "ON" } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_end_as_their_devices_answer() {
    let devices = named("d", 3);
    let (cluster, rest) = cluster(&devices, "command_timeout = \"1s\"").await;
    let seen = Seen::default();
    let _answering = device(&cluster, 1, &devices[0], &seen, Some(Duration::ZERO)).await;
    let _silent = device(&cluster, 2, &devices[1], &seen, None).await;
    let id = create(&rest, "createCommands", json!({ "targets": ids(&devices), "document": command() })).await;
    let elsewhere = rest.at(cluster.member(2).rest);
    let task = ended(&elsewhere, &id, SOON).await;
    assert_eq!(task["status"], "PartialSuccess");
    let progress = json!({
        "total": 3, "processing": 0, "success": 1, "fail": 2, "waitting": 0, "fail_wait_retry": 0, "stopped": 0, "removed": 0,
    });
    assert_eq!((&task["task_progress"], &task["targets"]), (&progress, &json!(ids(&devices))));
    assert_eq!((&task["document"], &task["status_desc"]), (&command(), &json!("1 of 3 succeeded")));
    let details = details(&elsewhere, &id).await;
    assert_eq!(details.iter().map(|detail| detail["target"].as_str().unwrap()).collect::<Vec<_>>(), ids(&devices));
    let output: Value = serde_json::from_str(details[0]["output"].as_str().unwrap()).unwrap();
    assert_eq!(output, json!({ "result_code": 0, "paras": { "of": devices[0].id() } }));
    let codes: Vec<_> = details.iter().map(|detail| detail["error"]["error_code"].as_str()).collect();
    assert_eq!(codes, [None, Some("IOTDA.014111"), Some("IOTDA.014016")]);
    assert_eq!((seen.of(&devices[0].id()), seen.of(&devices[1].id())), (1, 1));
    // Those of one status, and one of them.
    for (query, wanted) in [
        ("task_detail_status=Fail".to_owned(), 2),
        ("task_detail_status=Waitting".to_owned(), 0),
        ("task_detail_status=Removed".to_owned(), 0),
        (format!("target={}", devices[0].id()), 1),
        (format!("task_detail_status=Fail&target={}", devices[0].id()), 0),
    ] {
        let page = rest.call("GET", &format!("/batchtasks/{id}?{query}"), None).await.unwrap();
        let shown = page["task_details"].as_array().unwrap().len();
        assert_eq!((shown, page["page"]["count"].as_u64()), (wanted, Some(wanted as u64)), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_or_kept() {
    let devices = named("m", 2);
    let (cluster, rest) = cluster(&devices, "").await;
    let mut client = RawClient::tcp(cluster.mqtt(2), Version::V311).await.unwrap();
    client.handshake(devices[0].connect(), SOON).await.unwrap();
    let document = json!({ "name": "n", "message": "hello" });
    let id = create(&rest, "createMessages", json!({ "targets": ids(&devices), "document": document })).await;
    let task = ended(&rest, &id, SOON).await;
    assert_eq!((&task["status"], count(&task, "success")), (&json!("Success"), 2));
    let statuses: Vec<Value> = details(&rest, &id)
        .await
        .iter()
        .map(|detail| serde_json::from_str::<Value>(detail["output"].as_str().unwrap()).unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, ["DELIVERED", "PENDING"]);
    let content = |packet: &Packet| match packet {
        Packet::Publish(publish) => serde_json::from_slice::<Value>(&publish.payload).ok(),
        _ => None,
    };
    assert_eq!(client.expect("the message", SOON, content).await.unwrap()["content"], "hello");
    client.expect_silence(crate::support::QUIET).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_task_begins_nothing_more_and_is_done_anew_by_hand() {
    let devices = named("d", 4);
    let (cluster, rest) = cluster(&devices, "command_timeout = \"3s\"\nbatch_concurrency = 1").await;
    let seen = Seen::default();
    for (number, one) in devices.iter().enumerate() {
        let answers = (number > 0).then_some(Duration::ZERO);
        drop(device(&cluster, number % 3, one, &seen, answers).await);
    }
    let id = create(&rest, "createCommands", json!({ "targets": ids(&devices), "document": command() })).await;
    until(&rest, &id, SOON, |task| count(task, "processing") == 1).await;
    let one = json!({ "targets": [devices[2].id(), devices[0].id(), "nobody"] });
    let stopped = rest.call("POST", &format!("/batchtasks/{id}/stop"), Some(&one)).await.unwrap();
    let told: Vec<_> =
        stopped["targets"].as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["success", "failure", "failure"]);
    let all = rest.call("POST", &format!("/batchtasks/{id}/stop"), Some(&json!({}))).await.unwrap();
    assert_eq!(all, json!({ "targets": [] }));
    assert_eq!(show(&rest, &id).await["status"], "Stopping");
    let (status, error) = rest.ask("DELETE", &format!("/batchtasks/{id}"), None).await.unwrap();
    assert_eq!((status, error["error_code"].as_str()), (409, Some("FULMAR.000053")));
    let task = ended(&rest, &id, SOON).await;
    assert_eq!((&task["status"], count(&task, "stopped"), count(&task, "fail")), (&json!("Stopped"), 3, 1));
    assert_eq!(seen.total(), 1, "what had not begun was not done");
    let again = json!({ "targets": ids(&devices[1..]) });
    rest.call("POST", &format!("/batchtasks/{id}/retry"), Some(&again)).await.unwrap();
    let task = ended(&rest, &id, SOON).await;
    assert_eq!((&task["status"], count(&task, "success")), (&json!("PartialSuccess"), 3));
    assert_eq!((seen.total(), seen.of(&devices[0].id())), (4, 1));
    rest.call("DELETE", &format!("/batchtasks/{id}"), None).await.unwrap();
    let (status, _) = rest.ask("GET", &format!("/batchtasks/{id}"), None).await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_keep_their_time_and_try_again() {
    let devices = named("d", 2);
    let (cluster, rest) = cluster(&devices, "command_timeout = \"500ms\"").await;
    let seen = Seen::default();
    let _silent = device(&cluster, 1, &devices[0], &seen, None).await;
    let policy = json!({ "retry_count": 2, "retry_interval": 0 });
    let more = json!({ "targets": ids(&devices[..1]), "document": command(), "task_policy": policy });
    let id = create(&rest, "createCommands", more).await;
    let task = ended(&rest, &id, SOON).await;
    assert_eq!((&task["status"], seen.total()), (&json!("Fail"), 3));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |after: u64| text_of(now + after);
    let more = json!({ "targets": ids(&devices), "task_policy": { "schedule_time": at(4) } });
    let soon = create(&rest, "freezeDevices", more.clone()).await;
    assert_eq!(show(&rest, &soon).await["status"], "Waitting");
    let more = json!({ "targets": ids(&devices), "task_policy": { "schedule_time": at(3600) } });
    let late = create(&rest, "unfreezeDevices", more).await;
    let task = ended(&rest, &soon, SOON).await;
    assert_eq!((&task["status"], &task["task_policy"]["schedule_time"]), (&json!("Success"), &json!(at(4))));
    let ended_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(ended_at >= now + 4, "not before its time");
    assert_eq!(rest.status(&devices[1]).await.unwrap(), "FROZEN");
    let (waiting, ended) = (show(&rest, &late).await, show(&rest, &soon).await);
    assert_eq!((&waiting["status"], &ended["status"]), (&json!("Waitting"), &json!("Success")));
    let path = "/batchtasks?task_type=unfreezeDevices&status=Waitting";
    let listed = rest.call("GET", path, None).await.unwrap();
    assert_eq!((&listed["page"]["count"], &listed["batchtasks"][0]["task_id"]), (&json!(1), &json!(late)));
}

/// As in `20151212T121212Z`.
fn text_of(seconds: u64) -> String {
    fulmar_platform::dialect::time::compact(seconds * 1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_devices_are_made_and_frozen_beside_live_traffic() {
    const MANY: usize = 2_000;
    let publisher = Device::new(Vendor::Huawei, "live");
    let (cluster, rest) = cluster(std::slice::from_ref(&publisher), "").await;
    let mut client = RawClient::tcp(cluster.mqtt(1), Version::V311).await.unwrap();
    client.handshake(publisher.connect(), SOON).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = {
        let (stop, topic) = (stop.clone(), format!("$oc/devices/{}/sys/messages/up", publisher.id()));
        tokio::spawn(async move {
            let mut acknowledged = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                client.send(&Packet::Publish(raw::publish(1, &topic, QoS::AtLeastOnce, "{}"))).await.unwrap();
                let acked = |packet: &Packet| matches!(packet, Packet::PubAck(_)).then_some(());
                client.expect("PUBACK", SOON, acked).await.unwrap();
                acknowledged += 1;
            }
            acknowledged
        })
    };
    let product = Vendor::Huawei.other_product_id();
    let nodes: Vec<String> = (0..MANY).map(|number| format!("n{number:05}")).collect();
    let like = json!({ "product_id": product, "auth_info": { "secret": "0123456789abcdef" } });
    let id = create(&rest, "createDevices", json!({ "targets": nodes, "document": like })).await;
    let made = ended(&rest, &id, LONG).await;
    assert_eq!((&made["status"], count(&made, "success")), (&json!("Success"), MANY as u64));
    assert_eq!(made["document"], json!({ "product_id": product, "auth_info": {} }), "its secret is not shown");
    assert!(made["targets"].is_null(), "too many to be shown with it");
    let filter = json!({ "targets_filter": { "product_id": product } });
    let id = create(&rest, "freezeDevices", filter.clone()).await;
    let frozen = ended(&rest.at(cluster.member(1).rest), &id, LONG).await;
    assert_eq!((&frozen["status"], count(&frozen, "total")), (&json!("Success"), MANY as u64));
    assert_eq!(frozen["targets_filter"], json!({ "product_id": product }));
    let device = rest.call("GET", &format!("/devices/{product}_{}", nodes[MANY / 2]), None).await.unwrap();
    assert_eq!(device["status"], "FROZEN");
    let id = create(&rest, "deleteDevices", filter).await;
    assert_eq!(ended(&rest, &id, LONG).await["status"], "Success");
    let left = rest.call("GET", &format!("/devices?product_id={product}"), None).await.unwrap();
    assert_eq!(left["page"]["count"], 0);
    stop.store(true, Ordering::Relaxed);
    assert!(traffic.await.unwrap() > 0, "the device was served all the time");
}
