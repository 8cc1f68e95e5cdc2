//! A backup that is made under load, of a cluster that is then destroyed, brings everything back in another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cluster_tests::admin::Admin;
use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions, free_port, fulmar_binary};
use cluster_tests::raw::RawClient;
use cluster_tests::rest::Rest;
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, ReasonCode, Version};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{SOON, client};

/// Sessions that are away, and publishers to each.
const AWAY: usize = 3;

const RETAINED: usize = 20;

/// Reports that wait for a sink that is not there.
const REPORTS: u64 = 5;

/// Bytes of a part of an upload.
const PART_BYTES: usize = 300_000;

async fn start() -> (Cluster, Admin) {
    let cluster = Cluster::start(3, ClusterOptions { rest: true, ..ClusterOptions::default() }).await.unwrap();
    let admin = Admin::at(cluster.member(0).admin).unwrap();
    (cluster, admin)
}

fn away(number: usize) -> Options {
    Options::new(Protocol::V5, &format!("away-{number}")).persistent(3600)
}

/// A backup: its head, the file, and its end.
async fn create(admin: &Admin) -> (Value, Vec<u8>, Value) {
    let mut pieces = admin.stream("Backups/Create", json!({})).await.unwrap();
    let (mut head, mut end, mut file) = (Value::Null, Value::Null, Vec::new());
    while let Some(piece) = pieces.message().await.unwrap() {
        if let Some(content) = piece["content"].as_str() {
            file.extend(BASE64.decode(content).unwrap());
        }
        for (name, to) in [("head", &mut head), ("end", &mut end)] {
            if piece[name].is_object() {
                *to = piece[name].clone();
            }
        }
        assert_eq!(piece["bytes"].as_u64().unwrap_or(0), file.len() as u64);
    }
    (head, file, end)
}

fn parts(file: &[u8], replace: bool) -> Vec<Value> {
    let mut parts: Vec<Value> = file.chunks(PART_BYTES).map(|part| json!({ "content": BASE64.encode(part) })).collect();
    if replace {
        parts.insert(0, json!({ "replace": true }));
    }
    parts
}

/// What `fulmar verify` says of a file.
fn verify(file: &[u8]) -> Option<i32> {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(scratch.path(), file).unwrap();
    let output = std::process::Command::new(fulmar_binary().unwrap()).arg("verify").arg(scratch.path()).output();
    output.unwrap().status.code()
}

/// A device's message that waits, and a rule whose sink is not there with reports that wait for it. The id of the rule.
async fn fill_the_plane(cluster: &Cluster, rest: &Rest, waits: &Device, reports: &Device) -> String {
    rest.add_products().await.unwrap();
    rest.add(&[waits.clone(), reports.clone()]).await.unwrap();
    let body = json!({ "message_id": "m1", "message": "while you were away" });
    let sent = rest.call("POST", &format!("/devices/{}/messages", waits.id()), Some(&body)).await.unwrap();
    assert_eq!(sent["result"]["status"], "PENDING", "{sent}");
    let subject = json!({ "resource": "device.property", "event": "report" });
    let rule = json!({ "rule_name": "r", "subject": subject, "guarantee": "durable" });
    let made = rest.call("POST", "/routing-rule/rules", Some(&rule)).await.unwrap();
    let rule_id = made["rule_id"].as_str().unwrap().to_owned();
    let url = format!("http://127.0.0.1:{}/nobody", free_port().unwrap());
    let detail = json!({ "http_forwarding": { "url": url } });
    let action = json!({ "rule_id": rule_id, "channel": "HTTP_FORWARDING", "channel_detail": detail });
    rest.call("POST", "/routing-rule/actions", Some(&action)).await.unwrap();
    let path = format!("/routing-rule/rules/{rule_id}");
    rest.call("PUT", &path, Some(&json!({ "active": true }))).await.unwrap();
    let status = format!("{path}/status");
    wait_for("a rule that runs", SOON, async || {
        rest.call("GET", &status, None).await.ok()?["matched"].is_number().then_some(())
    })
    .await
    .unwrap();
    let mut reporter = connect(cluster, 0, reports).await;
    for number in 1..=REPORTS {
        let services = json!([{ "service_id": "S", "properties": { "temperature": number } }]);
        let topic = format!("$oc/devices/{}/sys/properties/report", reports.id());
        let payload = json!({ "services": services }).to_string();
        let id = u16::try_from(number).unwrap();
        let publish = cluster_tests::raw::publish(id, &topic, fulmar_mqtt::QoS::AtLeastOnce, payload);
        reporter.send(&Packet::Publish(publish)).await.unwrap();
        let acked = |packet: &Packet| matches!(packet, Packet::PubAck(ack) if ack.packet_id == id).then_some(());
        reporter.expect("PUBACK", SOON, acked).await.unwrap();
    }
    wait_for("reports that wait", SOON, async || (waiting(rest, &rule_id).await == REPORTS).then_some(()))
        .await
        .unwrap();
    rule_id
}

/// What waits for the sink of a rule.
async fn waiting(rest: &Rest, rule_id: &str) -> u64 {
    let status = rest.call("GET", &format!("/routing-rule/rules/{rule_id}/status"), None).await.unwrap();
    status["actions"][0]["backlog"]["entries"].as_u64().unwrap_or(0)
}

async fn connect(cluster: &Cluster, node: usize, device: &Device) -> RawClient<tokio::net::TcpStream> {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(device.connect(), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_cluster_comes_back_from_its_backup() {
    let (cluster, admin) = start().await;
    let rest = Rest::sign_in(cluster.member(1).rest).await.unwrap();
    let (waits, reports) = (Device::new(Vendor::Huawei, "waits"), Device::new(Vendor::Huawei, "reports"));
    let rule_id = fill_the_plane(&cluster, &rest, &waits, &reports).await;
    for number in 0..AWAY {
        let mut session = Client::connect(cluster.mqtt(number), away(number)).await.unwrap();
        session.subscribe(&format!("load/{number}/#"), 1).await.unwrap();
        session.disconnect().await.unwrap();
    }
    let mut keeper = client(cluster.mqtt(2), Protocol::V5, "keeper").await;
    for number in 0..RETAINED {
        let ticket = keeper.publish(&format!("kept/{number}"), 1, true, number.to_string()).await.unwrap();
        keeper.acked(ticket, SOON).await.unwrap();
    }

    // Publishers go on while the backup is made.
    let over = Arc::new(AtomicBool::new(false));
    let acked: Vec<Arc<AtomicU64>> = (0..AWAY).map(|_| Arc::default()).collect();
    let mut publishers = Vec::new();
    for number in 0..AWAY {
        let mut publisher = client(cluster.mqtt((number + 1) % 3), Protocol::V5, &format!("publisher-{number}")).await;
        let (over, acked) = (over.clone(), acked[number].clone());
        publishers.push(tokio::spawn(async move {
            let topic = format!("load/{number}/t");
            while !over.load(Ordering::Relaxed) {
                let next = acked.load(Ordering::Relaxed);
                publisher.publish_acked(&topic, 1, next.to_string()).await.unwrap();
                acked.store(next + 1, Ordering::Relaxed);
            }
        }));
    }
    wait_for("messages in all queues", SOON, async || {
        acked.iter().all(|acked| acked.load(Ordering::Relaxed) >= 30).then_some(())
    })
    .await
    .unwrap();
    let before: Vec<u64> = acked.iter().map(|acked| acked.load(Ordering::Relaxed)).collect();
    let (head, file, end) = create(&admin).await;
    wait_for("more messages", SOON, async || {
        acked.iter().zip(&before).all(|(acked, before)| acked.load(Ordering::Relaxed) > before + 10).then_some(())
    })
    .await
    .unwrap();
    over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    println!("{head} {end}, {before:?} acknowledged before");
    assert_eq!(end["bytes"], file.len());
    assert!(head["queued"].as_u64() >= Some(before.iter().sum()), "{head}");
    assert_eq!((verify(&file), verify(&file[..file.len() - 1])), (Some(0), Some(2)));
    drop((cluster, admin, keeper));

    // Files that are not whole change nothing.
    let (mut cluster, admin) = start().await;
    let mut damaged = file.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (what, file) in [("truncated", &file[..file.len() - 10]), ("damaged", &damaged), ("no backup", b"x".as_slice())]
    {
        let refused = admin.upload("Backups/Restore", parts(file, false)).await.expect_err(what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
        assert!(refused.message().contains("nothing was changed"), "{what}: {refused}");
    }
    assert!(cluster.is_ready(0).await);
    drop(client(cluster.mqtt(0), Protocol::V5, "early").await);
    wait_for("no sessions", SOON, async || (cluster.metrics(0).await.ok()?.get("fulmar_sessions") == 0).then_some(()))
        .await
        .unwrap();

    let restored = admin.upload("Backups/Restore", parts(&file, false)).await.unwrap();
    println!("{restored}");
    assert_eq!((&restored["head"], &restored["end"]), (&head, &end));
    assert_eq!((restored["queued"].as_u64(), restored["devices"].as_u64()), (head["queued"].as_u64(), Some(2)));
    for node in 0..3 {
        assert!(cluster.is_ready(node).await, "node {node}");
    }
    assert_eq!(cluster.unaccounted().await, 0);
    let refused = admin.upload("Backups/Restore", parts(&file, false)).await.expect_err("there is data");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("devices"), "{refused}");

    everything_is_there(&cluster, &before, &waits, &rule_id).await;
    cluster.everywhere("fulmar_durable_queued", SOON, |queued| queued == 0).await.unwrap();
    assert_eq!(cluster.unaccounted().await, 0);

    // Again, over data and connections.
    let mut connected = client(cluster.mqtt(1), Protocol::V5, "connected").await;
    admin.upload("Backups/Restore", parts(&file, true)).await.unwrap();
    connected.closed(SOON).await.unwrap();
    everything_is_there(&cluster, &before, &waits, &rule_id).await;
    assert_eq!(cluster.unaccounted().await, 0);
}

/// What was acknowledged before the backup, and perhaps some that was acknowledged after it, is there, once each and in
/// order. `before`: how many messages of each session.
async fn everything_is_there(cluster: &Cluster, before: &[u64], waits: &Device, rule_id: &str) {
    let rest = Rest::sign_in(cluster.member(2).rest).await.unwrap();
    assert_eq!(waiting(&rest, rule_id).await, REPORTS);
    let rules = rest.call("GET", "/routing-rule/rules", None).await.unwrap();
    assert_eq!(rules["rules"][0]["active"], true, "{rules}");

    let mut reader = client(cluster.mqtt(0), Protocol::V5, "reader").await;
    reader.subscribe("kept/#", 1).await.unwrap();
    let mut kept: Vec<String> =
        reader.collect(RETAINED, SOON).await.unwrap().iter().map(|message| message.text()).collect();
    kept.sort_unstable();
    let mut wanted: Vec<String> = (0..RETAINED).map(|number| number.to_string()).collect();
    wanted.sort_unstable();
    assert_eq!(kept, wanted);

    let mut device = connect(cluster, 1, waits).await;
    let topic = format!("$oc/devices/{}/sys/messages/down", waits.id());
    device.send(&cluster_tests::raw::subscribe(1, &topic, fulmar_mqtt::QoS::AtMostOnce)).await.unwrap();
    let message = loop {
        match device.next(SOON).await.unwrap() {
            Packet::Publish(publish) => break String::from_utf8_lossy(&publish.payload).into_owned(),
            Packet::SubAck(_) => {}
            other => panic!("{other:?} instead of the message that waited"),
        }
    };
    assert!(message.contains("while you were away"), "{message}");

    for (number, before) in before.iter().enumerate() {
        // What is published now comes after all that waited.
        reader.publish_acked(&format!("load/{number}/last"), 1, "last").await.unwrap();
        let mut session = Client::connect(cluster.mqtt((number + 1) % 3), away(number)).await.unwrap();
        assert!(session.session_present());
        let mut next = 0;
        loop {
            let text = session.receive(SOON).await.unwrap().text();
            if text == "last" {
                break;
            }
            assert_eq!(text, next.to_string(), "session {number}");
            next += 1;
        }
        assert!(next >= *before, "session {number} has {next} of {before}");
        session.disconnect().await.unwrap();
    }
}
