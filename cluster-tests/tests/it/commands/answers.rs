//! Answers that come late, twice, or from somebody else; and commands that nobody answers.

use std::time::Duration;

use cluster_tests::devices::{Device, Vendor};
use fulmar_mqtt::Packet;
use serde_json::{Value, json};

use super::{Connected, DROPPED, cluster, command, counted};
use crate::support::SOON;

const TIMEOUT: &str = "IOTDA.014111";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_dropped_and_does_not_pass_for_the_next_one() {
    let device = Device::new(Vendor::Huawei, "one");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), "2s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    let first = command(&rest, &device, 1);
    let (late, _) = connected.asked().await;
    let (status, body) = first.await.unwrap();
    // The vendor's timeout has the status of a success.
    assert_eq!((status, body["error_code"].as_str()), (200, Some(TIMEOUT)), "{body}");
    assert!(body["command_id"].is_string() && body["response"].is_null(), "{body}");

    let second = command(&rest, &device, 2);
    let (topic, _) = connected.asked().await;
    connected.answer(&late, &json!({"result_code": 1})).await;
    connected.answer(&topic, &json!({"result_code": 2})).await;
    connected.answer(&topic, &json!({"result_code": 3})).await;
    let (_, body) = second.await.unwrap();
    assert_eq!(body["response"], json!({"result_code": 2}));
    counted(&mut cluster, &[DROPPED, "late"], 1).await;
    counted(&mut cluster, &[DROPPED, "duplicate"], 1).await;
    counted(&mut cluster, &["fulmar_calls_total", "timeout"], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_cannot_answer_for_another_one() {
    let (device, other) = (Device::new(Vendor::Huawei, "one"), Device::new(Vendor::Huawei, "other"));
    let (mut cluster, rest) = cluster(&[device.clone(), other.clone()], "60s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    let pending = command(&rest, &device, 1);
    let (topic, _) = connected.asked().await;
    // At the node that waits, at the device's own, and at the third, which asks the one that waits.
    for node in 0..3 {
        let mut liar = Connected::at(&cluster, node, &other).await;
        liar.answer(&topic, &json!({"result_code": 6})).await;
        counted(&mut cluster, &[DROPPED, "foreign"], node as u64 + 1).await;
    }
    // What no node has given as an id is nobody's.
    for id in ["x", "77", "01234567-89ab-cdef-0123-456789abcdef"] {
        connected.answer(&format!("request_id={id}"), &json!({})).await;
    }
    counted(&mut cluster, &[DROPPED, "unknown"], 3).await;
    assert!(!pending.is_finished(), "it still waits");
    connected.answer(&topic, &json!({"result_code": 0})).await;
    assert_eq!(pending.await.unwrap().1["response"], json!({"result_code": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_has_moved_answers_from_where_it_is() {
    let device = Device::new(Vendor::Huawei, "one");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), "60s").await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    // To the third node, and to the one that waits.
    for node in [2, 0] {
        let pending = command(&rest, &device, 1);
        let (topic, _) = connected.asked().await;
        connected = Connected::at(&cluster, node, &device).await;
        connected.answer(&topic, &json!({"result_code": node})).await;
        assert_eq!(pending.await.unwrap().1["response"], json!({"result_code": node}));
    }
    counted(&mut cluster, &[DROPPED], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_never_sent_twice_however_the_device_moves() {
    const MOVES: usize = 30;
    let device = Device::new(Vendor::Huawei, "one");
    let (cluster, rest) = cluster(std::slice::from_ref(&device), "2s").await;
    let mut older = Connected::at(&cluster, 0, &device).await;
    let (mut seen, mut answered, mut pending) = (Vec::new(), 0, Vec::new());
    for number in 0..MOVES {
        pending.push(command(&rest.at(cluster.member(number % 3).rest), &device, number as u64));
        // While the command is on its way to where the device was.
        let mut newer = Connected::at(&cluster, (number + 1) % 3, &device).await;
        // What either has got by now is answered by the newer one.
        let mut got = Vec::new();
        while let Ok(Some(packet)) = older.client.next_or_closed(SOON).await {
            got.push(packet);
        }
        while let Ok(packet) = newer.client.next(Duration::from_millis(20)).await {
            got.push(packet);
        }
        for packet in got {
            let Packet::Publish(publish) = packet else { continue };
            let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
            seen.push(payload["paras"]["number"].as_u64().unwrap());
            newer.answer(publish.topic.unwrap().as_str(), &json!({"result_code": 0})).await;
        }
        older = newer;
    }
    for call in pending {
        let (status, body) = tokio::time::timeout(SOON, call).await.unwrap().unwrap();
        let code = body["error_code"].as_str().unwrap_or_default();
        // Answered; sent to a connection that was about to go; or not sent, as the device was on its way.
        assert!((status == 200 && matches!(code, "" | TIMEOUT)) || code == "FULMAR.000012", "{status} {body}");
        answered += usize::from(!body["response"].is_null());
    }
    let sent = seen.len();
    seen.sort_unstable();
    seen.dedup();
    println!("{MOVES} moves: {answered} commands answered, {sent} seen");
    assert_eq!(seen.len(), sent, "a command came twice: {seen:?}");
    assert!(answered > 0 && answered <= sent);
}
