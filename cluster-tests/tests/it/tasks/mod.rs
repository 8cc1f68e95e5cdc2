//! Batch tasks on three nodes: made at one, carried out by another, their devices anywhere.

mod api;
mod kills;
mod runs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::devices::Device;
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::devices::cluster_of;
use crate::support::SOON;

/// How long a task of many targets may take.
const LONG: Duration = Duration::from_secs(120);

/// Three nodes with products and these devices, and this in their `[platform]`.
async fn cluster(devices: &[Device], platform: &str) -> (Cluster, Rest) {
    let config = format!("[platform]\n{platform}\n");
    cluster_of(devices, ClusterOptions { config, ..ClusterOptions::default() }).await
}

/// How many commands each device has got.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, u32>>>);

impl Seen {
    fn add(&self, device: &str) {
        *self.0.lock().unwrap().entry(device.to_owned()).or_default() += 1;
    }

    fn of(&self, device: &str) -> u32 {
        self.0.lock().unwrap().get(device).copied().unwrap_or_default()
    }

    fn total(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }
}

/// Connects a device of Huawei's that counts the commands that it gets, and answers them after so long, if at all. It goes
/// when its node does.
async fn device(
    cluster: &Cluster,
    node: usize,
    device: &Device,
    seen: &Seen,
    answers_after: Option<Duration>,
) -> JoinHandle<()> {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(device.connect(), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
    let (seen, id) = (seen.clone(), device.id());
    tokio::spawn(async move {
        while let Ok(Some(packet)) = client.next_or_closed(LONG * 2).await {
            let Packet::Publish(publish) = packet else { continue };
            let topic = publish.topic.unwrap();
            let Some((_, request)) = topic.as_str().split_once("/sys/commands/request_id=") else { continue };
            seen.add(&id);
            if let Some(after) = answers_after {
                tokio::time::sleep(after).await; // as firmware takes its time
                let to = format!("$oc/devices/{id}/sys/commands/response/request_id={request}");
                let answer = json!({ "result_code": 0, "paras": { "of": id } }).to_string();
                let said = client.send(&Packet::Publish(raw::publish(0, &to, QoS::AtMostOnce, answer))).await;
                if said.is_err() {
                    return;
                }
            }
        }
    })
}

fn ids(devices: &[Device]) -> Vec<String> {
    devices.iter().map(Device::id).collect()
}

/// Makes a task of this type, with whatever else; gives its id.
async fn create(rest: &Rest, kind: &str, more: Value) -> String {
    let mut body = json!({ "task_name": "task", "task_type": kind });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let task = rest.call("POST", "/batchtasks", Some(&body)).await.unwrap();
    task["task_id"].as_str().unwrap().to_owned()
}

async fn show(rest: &Rest, id: &str) -> Value {
    rest.call("GET", &format!("/batchtasks/{id}"), None).await.unwrap()["batchtask"].clone()
}

/// Waits until a task is as wanted.
async fn until(rest: &Rest, id: &str, deadline: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waited = cluster_tests::wait_for("a task", deadline, async || {
        let (_, answer) = rest.ask("GET", &format!("/batchtasks/{id}"), None).await.ok()?;
        last = answer["batchtask"].clone();
        wanted(&last).then(|| last.clone())
    })
    .await;
    waited.unwrap_or_else(|error| panic!("{error:#}: {last}"))
}

/// Waits until a task has ended.
async fn ended(rest: &Rest, id: &str, deadline: Duration) -> Value {
    let over = ["Success", "PartialSuccess", "Fail", "Stopped"];
    until(rest, id, deadline, |task| task["status"].as_str().is_some_and(|status| over.contains(&status))).await
}

/// All of a task's targets, in their order.
async fn details(rest: &Rest, id: &str) -> Vec<Value> {
    let (mut all, mut marker) = (Vec::new(), "f".repeat(24));
    loop {
        let path = format!("/batchtasks/{id}?limit=50&marker={marker}");
        let page = rest.call("GET", &path, None).await.unwrap();
        let details = page["task_details"].as_array().unwrap().clone();
        if details.is_empty() {
            return all;
        }
        marker = page["page"]["marker"].as_str().unwrap().to_owned();
        all.extend(details);
    }
}

fn count(task: &Value, what: &str) -> u64 {
    task["task_progress"][what].as_u64().unwrap()
}
