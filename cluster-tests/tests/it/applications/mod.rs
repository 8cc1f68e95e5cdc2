//! Applications that take what rules push, on three nodes: the device at one, the application at another, rules made at a
//! third.

mod connections;
mod pushes;
mod receivers;
mod sensoro;

use cluster_tests::applications::Code;
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::Cluster;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use fulmar_mqtt::packet::Publish;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::SOON;

/// What CONNACK says at a node, and the connection.
async fn try_open(code: &Code, cluster: &Cluster, node: usize, client_id: &str) -> (ReasonCode, Application) {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(code.connect(client_id), SOON).await.unwrap();
    (connack.reason, Application { client, packet_id: 0 })
}

async fn open(code: &Code, cluster: &Cluster, node: usize, client_id: &str) -> Application {
    let (reason, application) = try_open(code, cluster, node, client_id).await;
    assert_eq!(reason, ReasonCode::Success, "{client_id} at node {node}");
    application
}

/// A connected application.
struct Application {
    client: RawClient<TcpStream>,
    packet_id: u16,
}

impl Application {
    /// What SUBACK says.
    async fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        self.packet_id += 1;
        self.client.send(&raw::subscribe(self.packet_id, filter, qos)).await.unwrap();
        let suback = self.client.expect("an answer", SOON, |packet| match packet {
            Packet::SubAck(suback) => Some(suback.reasons[0]),
            _ => None,
        });
        suback.await.unwrap()
    }

    async fn listen(&mut self, filter: &str) {
        let reason = self.subscribe(filter, QoS::AtMostOnce).await;
        assert_eq!(reason, ReasonCode::Success, "{filter}");
    }

    async fn receive(&mut self) -> Publish {
        let publish = self.client.expect("an answer", SOON, |packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        });
        publish.await.unwrap()
    }

    /// The next push as JSON.
    async fn json(&mut self) -> Value {
        serde_json::from_slice(&self.receive().await.payload).unwrap()
    }
}

/// Three nodes with a device that is known to all of them.
async fn start() -> (Cluster, Rest, Device) {
    let device = Device::new(Vendor::Huawei, "meter");
    let (cluster, rest) = crate::devices::cluster(std::slice::from_ref(&device)).await;
    (cluster, rest, device)
}

/// A rule about property reports, with one action. Not active yet.
async fn rule(rest: &Rest, more: Value, channel: &str, detail: Value) -> String {
    let mut body = json!({
        "rule_name": channel.to_lowercase(), "app_type": "GLOBAL",
        "subject": { "resource": "device.property", "event": "report" },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let made = rest.call("POST", "/routing-rule/rules", Some(&body)).await.unwrap();
    let id = made["rule_id"].as_str().unwrap().to_owned();
    let action = json!({ "rule_id": id, "channel": channel, "channel_detail": detail });
    rest.call("POST", "/routing-rule/actions", Some(&action)).await.unwrap();
    id
}

/// Until every node runs it, or none does.
async fn activate(cluster: &Cluster, rest: &Rest, rule: &str, active: bool) {
    let path = format!("/routing-rule/rules/{rule}");
    rest.call("PUT", &path, Some(&json!({ "active": active }))).await.unwrap();
    for node in 0..cluster.count() {
        let there = rest.at(cluster.member(node).rest);
        cluster_tests::wait_for("a rule that runs or not", SOON, async || {
            let status = there.call("GET", &format!("{path}/status"), None).await.unwrap();
            (status["matched"].is_number() == active).then_some(())
        })
        .await
        .unwrap();
    }
}

/// A rule that pushes to a topic, active.
async fn pushing(cluster: &Cluster, rest: &Rest, topic: &str) -> String {
    let rule = rule(rest, json!({}), "MQTT_FORWARDING", json!({ "mqtt_forwarding": { "topic": topic } })).await;
    activate(cluster, rest, &rule, true).await;
    rule
}

/// A device's connection to a node.
async fn connect(cluster: &Cluster, node: usize, device: &Device) -> Reporter {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(device.connect(), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success);
    Reporter { client, topic: format!("$oc/devices/{}/sys/properties/report", device.id()), packet_id: 0 }
}

/// A device that reports.
struct Reporter {
    client: RawClient<TcpStream>,
    topic: String,
    packet_id: u16,
}

impl Reporter {
    /// Reports a value with QoS 1, and waits for its PUBACK.
    async fn report(&mut self, value: usize) {
        let body = json!({ "services": [{ "service_id": "Meter", "properties": { "value": value } }] });
        self.packet_id = self.packet_id % 60_000 + 1;
        let publish = raw::publish(self.packet_id, &self.topic, QoS::AtLeastOnce, body.to_string());
        self.client.send(&Packet::Publish(publish)).await.unwrap();
        let acknowledged = self.client.expect("an answer", SOON, |packet| match packet {
            Packet::PubAck(ack) => Some(ack.packet_id),
            _ => None,
        });
        assert_eq!(acknowledged.await.unwrap(), self.packet_id);
    }
}

/// The value that an event tells of.
fn value(event: &Value) -> usize {
    let value = &event["notify_data"]["body"]["services"][0]["properties"]["value"];
    usize::try_from(value.as_u64().unwrap_or_else(|| panic!("{event}"))).unwrap()
}
