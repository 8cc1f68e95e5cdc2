//! Synchronous commands and properties: REST on one node, the device on another.

mod answers;
mod calls;
mod faults;
mod refusals;

use cluster_tests::devices::Device;
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use fulmar_mqtt::packet::{Ack, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::devices::cluster_of;
use crate::support::SOON;

/// Three nodes that know these devices, and wait for their answers for so long.
async fn cluster(devices: &[Device], command_timeout: &str) -> (Cluster, Rest) {
    let config = format!("[platform]\ncommand_timeout = \"{command_timeout}\"\n");
    cluster_of(devices, ClusterOptions { config, ..ClusterOptions::default() }).await
}

/// A device that is connected.
pub(crate) struct Connected {
    device: Device,
    client: RawClient<TcpStream>,
}

impl Connected {
    pub(crate) async fn at(cluster: &Cluster, node: usize, device: &Device) -> Connected {
        let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
        let connack = client.handshake(device.connect(), SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
        Connected { device: device.clone(), client }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.send(&raw::subscribe(1, filter, qos)).await.unwrap();
        let granted = self.client.expect("SUBACK", SOON, |packet| match packet {
            Packet::SubAck(suback) => suback.reasons.first().copied(),
            _ => None,
        });
        assert!(!granted.await.unwrap().is_error(), "{filter}");
    }

    /// The next message that it gets; acknowledged if it wants to be.
    pub(crate) async fn asked(&mut self) -> (String, Value) {
        let message = self.message().await;
        let payload = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
        (message.topic.unwrap().as_str().to_owned(), payload)
    }

    async fn message(&mut self) -> Publish {
        let pick = |packet: &Packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        };
        let message = self.client.expect("PUBLISH", SOON, pick).await.unwrap();
        if message.qos == QoS::AtLeastOnce {
            let ack = Ack { packet_id: message.packet_id, reason: ReasonCode::Success, properties: None };
            self.client.send(&Packet::PubAck(ack)).await.unwrap();
        }
        message
    }

    async fn say(&mut self, topic: &str, payload: &Value) {
        let publish = raw::publish(0, topic, QoS::AtMostOnce, payload.to_string());
        self.client.send(&Packet::Publish(publish)).await.unwrap();
    }

    /// Answers a command of Huawei's that came on a topic.
    pub(crate) async fn answer(&mut self, topic: &str, payload: &Value) {
        let (_, id) = topic.split_once("request_id=").unwrap();
        let to = format!("$oc/devices/{}/sys/commands/response/request_id={id}", self.device.id());
        self.say(&to, payload).await;
    }
}

/// A request that is under way.
fn begin(rest: &Rest, method: &'static str, path: String, body: Value) -> JoinHandle<(u16, Value)> {
    let rest = rest.clone();
    let body = (!body.is_null()).then_some(body);
    tokio::spawn(async move { rest.ask(method, &path, body.as_ref()).await.unwrap() })
}

/// A command without a service, which no model is asked about.
fn command(rest: &Rest, device: &Device, number: u64) -> JoinHandle<(u16, Value)> {
    let body = json!({ "command_name": "count", "paras": { "number": number } });
    begin(rest, "POST", format!("/devices/{}/commands", device.id()), body)
}

/// The sum of a figure over all nodes.
async fn sum(cluster: &mut Cluster, parts: &[&str]) -> u64 {
    cluster.all_metrics().await.iter().map(|(_, metrics)| metrics.sum(parts)).sum()
}

/// Waits until that sum is so much.
async fn counted(cluster: &mut Cluster, parts: &[&str], wanted: u64) {
    let waited =
        cluster_tests::wait_for("a figure", SOON, async || (sum(cluster, parts).await == wanted).then_some(()));
    if let Err(error) = waited.await {
        panic!("{error:#}: {parts:?} is {}, not {wanted}", sum(cluster, parts).await);
    }
}

const DROPPED: &str = "fulmar_call_answers_dropped_total";
