//! A water meter that `fulmar dev` plays itself, so that a command has someone to answer it: a device of Huawei's dialect,
//! connected to whichever node takes it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use fulmar_mqtt::codec::{Decoder, Role, encode};
use fulmar_mqtt::packet::{Ack, Connect, ConnectProperties, Decoded, Packet, Publish, Version};
use fulmar_mqtt::property::PublishProperties;
use fulmar_mqtt::{QoS, ReasonCode, TopicName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::Place;

/// Seconds.
const KEEP_ALIVE: u16 = 60;

/// Between two tries to connect.
const RETRY: Duration = Duration::from_secs(1);

const PACKET_BYTES_MAX: u32 = 1 << 20;

/// The meter, for as long as it is kept.
pub(super) struct Meter(AbortHandle);

impl Drop for Meter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How the meter signs in.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) device: String,
    pub(super) client_id: String,
    pub(super) password: String,
}

/// Plays the meter on the second node, and on the others in turn when that is gone.
pub(super) fn play(places: &[Place], identity: Identity) -> Meter {
    let nodes: Vec<SocketAddr> = places.iter().map(|place| place.mqtt).collect();
    let task = tokio::spawn(async move {
        let mut meter = State { identity, value: json!(0), on: false };
        for node in nodes.iter().cycle().skip(1) {
            // Whoever stops or kills a node sees it on the screen; the meter only looks for another.
            let _ = meter.serve(*node).await;
            tokio::time::sleep(RETRY).await;
        }
    });
    Meter(task.abort_handle())
}

struct State {
    identity: Identity,
    value: Value,
    on: bool,
}

impl State {
    /// One connection, until it ends.
    async fn serve(&mut self, node: SocketAddr) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(node).await?;
        let mut decoder = Decoder::new(Role::Client, PACKET_BYTES_MAX);
        decoder.set_version(Version::V311);
        send(&mut stream, &self.connect()).await?;
        let (mut buffer, mut pings) = (BytesMut::new(), tokio::time::interval(Duration::from_secs(30)));
        pings.tick().await;
        loop {
            while let Some(decoded) = decoder.decode(&mut buffer)? {
                match decoded {
                    Decoded::Packet(Packet::ConnAck(connack)) if connack.reason != ReasonCode::Success => {
                        bail!("refused: {}", connack.reason)
                    }
                    Decoded::Packet(Packet::Publish(publish)) => self.hear(&mut stream, publish).await?,
                    _ => {}
                }
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                _ = pings.tick() => send(&mut stream, &Packet::PingReq).await?,
            }
        }
    }

    fn connect(&self) -> Packet {
        Packet::Connect(Box::new(Connect {
            version: Version::V311,
            clean_start: true,
            keep_alive_s: KEEP_ALIVE,
            client_id: ByteString::from(self.identity.client_id.as_str()),
            will: None,
            username: Some(ByteString::from(self.identity.device.as_str())),
            password: Some(Bytes::from(self.identity.password.clone())),
            properties: ConnectProperties::default(),
        }))
    }

    async fn hear(&mut self, stream: &mut TcpStream, publish: Publish) -> anyhow::Result<()> {
        if publish.qos == QoS::AtLeastOnce {
            send(stream, &Packet::PubAck(Ack::success(publish.packet_id))).await?;
        }
        let topic = publish.topic.as_ref().context("a topic")?.as_str();
        let asked: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
        let Some((kind, request)) = topic.split_once("/request_id=") else { return Ok(()) };
        let Some(answer) = self.answer(kind, &asked) else { return Ok(()) };
        let topic = TopicName::new(format!("{kind}/response/request_id={request}"))?;
        send(stream, &said(topic, &answer)).await?;
        if kind.ends_with("properties/set") || kind.ends_with("commands") {
            let topic = TopicName::new(format!("$oc/devices/{}/sys/properties/report", self.identity.device))?;
            send(stream, &said(topic, &json!({ "services": self.services() }))).await?;
        }
        Ok(())
    }

    fn services(&self) -> Value {
        json!([{ "service_id": "WaterMeter", "properties": { "value": self.value } }])
    }

    fn answer(&mut self, kind: &str, asked: &Value) -> Option<Value> {
        if kind.ends_with("/commands") {
            self.on = asked["paras"]["value"] == "ON";
            let valve = if self.on { "open" } else { "closed" };
            return Some(json!({ "result_code": 0, "response_name": "ON_OFF_RESPONSE", "paras": { "valve": valve } }));
        }
        if kind.ends_with("/properties/get") {
            return Some(json!({ "services": self.services() }));
        }
        if kind.ends_with("/properties/set") {
            let value = asked["services"].as_array()?.iter().find_map(|service| service["properties"].get("value"));
            self.value = value.unwrap_or(&self.value).clone();
            return Some(json!({ "result_code": 0, "result_desc": "success" }));
        }
        None
    }
}

fn said(topic: TopicName, what: &Value) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(topic),
        packet_id: 0,
        properties: PublishProperties::default(),
        payload: what.to_string().into(),
    })
}

async fn send(stream: &mut TcpStream, packet: &Packet) -> anyhow::Result<()> {
    let mut bytes = BytesMut::new();
    encode(packet, Version::V311, &mut bytes)?;
    Ok(stream.write_all(&bytes).await?)
}
