//! Messages to devices: from any node to any node, kept while a device is away, each delivered as often as its QoS says.

mod delivery;
mod failures;
mod forms;

use std::time::Duration;

use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::Cluster;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use cluster_tests::wait_for;
use fulmar_mqtt::packet::{Ack, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::SOON;

/// Time for what comes in rounds of ten seconds.
const ROUND: Duration = Duration::from_secs(40);

fn huawei(name: &str) -> Device {
    Device::new(Vendor::Huawei, name)
}

/// Three nodes that know these devices; the product of Huawei's has one custom topic, `custom`.
async fn cluster(devices: &[Device]) -> (Cluster, Rest) {
    let (cluster, rest) = crate::devices::cluster(devices).await;
    let topics = json!({ "topics": [{ "topic": "custom", "access": "all" }] });
    rest.call("PUT", "/products/prod1/topics", Some(&topics)).await.unwrap();
    (cluster, rest)
}

/// A device's connection.
struct Client(RawClient<TcpStream>);

impl Client {
    async fn connect(cluster: &Cluster, node: usize, device: &Device) -> Client {
        Client::with_version(cluster, node, device, Version::V311).await
    }

    async fn with_version(cluster: &Cluster, node: usize, device: &Device, version: Version) -> Client {
        let mut client = RawClient::tcp(cluster.mqtt(node), version).await.unwrap();
        let connect = fulmar_mqtt::packet::Connect { version, ..device.connect() };
        let connack = client.handshake(connect, SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
        Client(client)
    }

    /// Asks, and does not wait for the answer: messages may come before it.
    async fn subscribe(&mut self, topic: &str, qos: QoS) {
        self.0.send(&raw::subscribe(1, topic, qos)).await.unwrap();
    }

    /// The next message; an answer to a SUBSCRIBE may come before it.
    async fn message_within(&mut self, deadline: Duration) -> Publish {
        loop {
            match self.0.next(deadline).await.unwrap() {
                Packet::Publish(publish) => return publish,
                Packet::SubAck(_) => {}
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    async fn message(&mut self) -> Publish {
        self.message_within(SOON).await
    }

    /// The ids of so many messages in the standard form, acknowledged where that is asked for.
    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let message = self.message().await;
            self.acknowledge(&message).await;
            ids.push(id(&message));
        }
        ids
    }

    async fn acknowledge(&mut self, message: &Publish) {
        if message.qos == QoS::AtLeastOnce {
            self.0.send(&Packet::PubAck(Ack::success(message.packet_id))).await.unwrap();
        }
    }
}

fn topic(message: &Publish) -> &str {
    message.topic.as_ref().expect("a topic").as_str()
}

fn body(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// Of a message in the standard form.
fn id(message: &Publish) -> String {
    body(message)["id"].as_str().unwrap().to_owned()
}

fn path(device: &Device) -> String {
    format!("/devices/{}/messages", device.id())
}

/// Sends a message; gives the status that is answered.
async fn send(rest: &Rest, device: &Device, id: &str, mut message: Value) -> String {
    message["message_id"] = id.into();
    let answer = rest.call("POST", &path(device), Some(&message)).await.unwrap();
    assert_eq!(answer["message_id"], id);
    assert!(answer["result"]["created_time"].is_string(), "{answer}");
    answer["result"]["status"].as_str().unwrap().to_owned()
}

async fn send_text(rest: &Rest, device: &Device, id: &str) -> String {
    send(rest, device, id, json!({ "message": id })).await
}

/// What a refused call says: status and body.
async fn refusal(rest: &Rest, method: &str, path: &str, body: &Value) -> String {
    rest.call(method, path, Some(body)).await.expect_err("it is refused").to_string()
}

async fn show(rest: &Rest, device: &Device, id: &str) -> Value {
    rest.call("GET", &format!("{}/{id}", path(device)), None).await.unwrap()
}

/// Ids of a device's messages, the oldest first, with their statuses.
async fn list(rest: &Rest, device: &Device) -> Vec<(String, String)> {
    let listed = rest.call("GET", &path(device), None).await.unwrap();
    assert_eq!(listed["device_id"], device.id());
    let text = |message: &Value, name: &str| message[name].as_str().unwrap().to_owned();
    let messages = listed["messages"].as_array().unwrap().iter().rev();
    messages.map(|message| (text(message, "message_id"), text(message, "status"))).collect()
}

async fn until_status(rest: &Rest, device: &Device, id: &str, wanted: &str) -> Value {
    let what = format!("{id} is {wanted}");
    wait_for(&what, ROUND, async || Some(show(rest, device, id).await).filter(|message| message["status"] == wanted))
        .await
        .unwrap()
}

/// Ends a device's connection, and waits until all know.
async fn leave(rest: &Rest, device: &Device, client: Client) {
    drop(client);
    wait_for("OFFLINE", SOON, async || (rest.status(device).await.ok()? == "OFFLINE").then_some(())).await.unwrap();
}

/// Nothing but one more message comes: whatever else was on its way would have come before it.
async fn nothing_else(rest: &Rest, device: &Device, client: &mut Client) {
    let last = format!("last-{}", rand::random::<u32>());
    assert_eq!(send_text(rest, device, &last).await, "DELIVERED");
    assert_eq!(client.ids(1).await, [last]);
}
