//! Rules on three nodes: what they select, where they send it, and what of it survives a node.

mod durable;
mod live;
mod refusals;

use std::time::Duration;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::devices::cluster_of;
use crate::support::SOON;

/// Nodes apply what was made at another one before it is answered; a subscriber of the router's messages is in place
/// before its SUBACK.
async fn cluster(devices: &[Device], config: &str) -> (Cluster, Rest) {
    cluster_of(devices, ClusterOptions { config: config.to_owned(), ..ClusterOptions::default() }).await
}

/// A device that reports.
struct Reporter {
    device: Device,
    client: RawClient<TcpStream>,
    packet_id: u16,
}

impl Reporter {
    async fn connect(cluster: &Cluster, node: usize, device: &Device) -> Reporter {
        let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
        let connack = client.handshake(device.connect(), SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
        Reporter { device: device.clone(), client, packet_id: 0 }
    }

    /// Sends with QoS 1, and waits for the acknowledgement.
    async fn send(&mut self, suffix: &str, payload: &Value) {
        self.packet_id += 1;
        let topic = format!("$oc/devices/{}/sys/{suffix}", self.device.id());
        let publish = raw::publish(self.packet_id, &topic, QoS::AtLeastOnce, payload.to_string());
        self.client.send(&Packet::Publish(publish)).await.unwrap();
        let wanted = self.packet_id;
        let acked = |packet: &Packet| match packet {
            Packet::PubAck(ack) if ack.packet_id == wanted => Some(()),
            _ => None,
        };
        self.client.expect("PUBACK", SOON, acked).await.unwrap();
    }

    async fn report(&mut self, temperature: i64) {
        let services = json!([{ "service_id": "S", "properties": { "temperature": temperature } }]);
        self.send("properties/report", &json!({ "services": services })).await;
    }
}

async fn subscriber(cluster: &Cluster, node: usize, filter: &str) -> Client {
    let name = format!("app-{node}-{}", filter.replace(['/', '#'], "-"));
    let mut client = Client::connect(cluster.mqtt(node), Options::new(Protocol::V4, &name)).await.unwrap();
    client.subscribe(filter, 1).await.unwrap();
    client
}

async fn next(client: &mut Client) -> Value {
    serde_json::from_str(&client.receive(SOON).await.unwrap().text()).unwrap()
}

fn rule(resource: &str, event: &str, more: Value) -> Value {
    let mut body = json!({ "rule_name": "r", "subject": { "resource": resource, "event": event } });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A rule with one action that republishes; it is not active. Ids of both.
async fn make(rest: &Rest, rule: &Value, topic: &str, qos: u8) -> (String, String) {
    let made = rest.call("POST", "/routing-rule/rules", Some(rule)).await.unwrap();
    let rule_id = made["rule_id"].as_str().unwrap().to_owned();
    assert_eq!(made["active"], false);
    let detail = json!({ "mqtt_republishing": { "topic": topic, "qos": qos } });
    let body = json!({ "rule_id": rule_id, "channel": "MQTT_REPUBLISHING", "channel_detail": detail });
    let action = rest.call("POST", "/routing-rule/actions", Some(&body)).await.unwrap();
    assert_eq!(action["channel_detail"], detail);
    (rule_id, action["action_id"].as_str().unwrap().to_owned())
}

async fn activate(rest: &Rest, rule_id: &str, active: bool) {
    let put = rest.call("PUT", &format!("/routing-rule/rules/{rule_id}"), Some(&json!({ "active": active }))).await;
    assert_eq!(put.unwrap()["active"], active);
}

async fn status(rest: &Rest, rule_id: &str) -> Value {
    rest.call("GET", &format!("/routing-rule/rules/{rule_id}/status"), None).await.unwrap()
}

/// Waits until every node runs a rule, or none does.
async fn runs(cluster: &mut Cluster, rest: &Rest, rule_id: &str, active: bool) {
    for node in cluster.live() {
        let there = rest.at(cluster.member(node).rest);
        cluster_tests::wait_for("a rule that runs or not", SOON, async || {
            (status(&there, rule_id).await["matched"].is_number() == active).then_some(())
        })
        .await
        .unwrap();
    }
}

fn huawei(name: &str) -> Device {
    Device::new(Vendor::Huawei, name)
}

/// Longer than anything takes but a node's end.
const LONG: Duration = Duration::from_secs(60);
