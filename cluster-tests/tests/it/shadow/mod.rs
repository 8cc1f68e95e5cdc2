//! Shadows of devices, and the services around them, on three nodes: the device at one, whoever asks at another.

mod gateway;
mod upgrade;
mod wishes;

use std::time::Duration;

use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::Cluster;
use cluster_tests::raw::{RawClient, publish, subscribe};
use cluster_tests::rest::Rest;
use cluster_tests::wait::wait_for;
use fulmar_mqtt::{Packet, QoS};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::devices::{cluster, connect};

/// For what takes a commit, or the end of a node.
const DEADLINE: Duration = Duration::from_secs(20);

type Client = RawClient<TcpStream>;

/// Says something to the platform.
async fn say(client: &mut Client, topic: &str, payload: &Value) {
    let said = publish(7, topic, QoS::AtLeastOnce, payload.to_string());
    client.send(&Packet::Publish(said)).await.unwrap();
}

/// What comes next on a topic that starts so; what comes on others is passed over.
async fn hear(client: &mut Client, prefix: &str) -> (String, Value) {
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let packet = client.next(left).await.unwrap_or_else(|error| panic!("nothing on {prefix}: {error}"));
        let Packet::Publish(publish) = packet else { continue };
        let topic = publish.topic.as_ref().unwrap().as_str().to_owned();
        if topic.starts_with(prefix) {
            return (topic, serde_json::from_slice(&publish.payload).unwrap());
        }
    }
}

/// Subscribes, and waits until that is so.
async fn listen(client: &mut Client, filter: &str) {
    client.send(&subscribe(9, filter, QoS::AtMostOnce)).await.unwrap();
    let granted = |packet: &Packet| matches!(packet, Packet::SubAck(_)).then_some(());
    client.expect("SUBACK", DEADLINE, granted).await.unwrap();
}

/// The shadow of a device at some node, once it is as wanted.
async fn shadow_when(rest: &Rest, device: &Device, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/devices/{}/shadow", device.id());
    wait_for(what, DEADLINE, async || {
        let shown = rest.call("GET", &path, None).await.ok()?;
        wanted(&shown["shadow"]).then(|| shown["shadow"].clone())
    })
    .await
    .unwrap()
}

/// Sets what is desired of the service `Meter`, or of the whole document.
async fn desire(rest: &Rest, device: &Device, desired: Value, version: Option<u64>) -> anyhow::Result<Value> {
    let service = if device.vendor == Vendor::Huawei { "Meter" } else { "default" };
    let body = json!({"shadow": [{"service_id": service, "desired": desired, "version": version}]});
    rest.call("PUT", &format!("/devices/{}/shadow", device.id()), Some(&body)).await
}

/// The same caller at another node.
fn at(cluster: &Cluster, rest: &Rest, node: usize) -> Rest {
    rest.at(cluster.member(node).rest)
}
