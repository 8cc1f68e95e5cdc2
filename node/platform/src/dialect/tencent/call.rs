//! What the platform sends a device of its own accord. A device gets what it has subscribed to, and nothing else.

use bytes::Bytes;
use fulmar_mqtt::{QoS, TopicName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dialect::Downlink;
use crate::registry::Device;

/// A firmware that a device may download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Firmware<'a> {
    /// Bytes.
    pub file_size: u64,
    /// Lower-case hex.
    pub md5sum: &'a str,
    /// HTTPS.
    pub url: &'a str,
    /// 1 to 32 characters.
    pub version: &'a str,
}

#[derive(Serialize)]
struct Offer<'a> {
    r#type: &'a str,
    #[serde(flatten)]
    firmware: &'a Firmware<'a>,
}

fn downlink(before: &str, device: &Device, after: &str, payload: Bytes, qos: QoS) -> Option<Downlink> {
    let topic = TopicName::new(format!("{before}{}/{}{after}", device.product_id, device.node_id)).ok()?;
    Some(Downlink { topic, payload, qos })
}

/// Asks with any bytes; answered on `$rrpc/txd/.../{process_id}`, as [`crate::Told::Response`] with that id. `None` if it
/// is no one level of a topic.
#[must_use]
pub fn request(device: &Device, process_id: &str, payload: Bytes) -> Option<Downlink> {
    let is_level = !process_id.is_empty() && !process_id.contains('/');
    is_level.then(|| downlink("$rrpc/rxd/", device, &format!("/{process_id}"), payload, QoS::AtMostOnce))?
}

/// A message on the topic that is made for it.
#[must_use]
pub fn control(device: &Device, payload: Bytes) -> Option<Downlink> {
    downlink("", device, "/control", payload, QoS::AtLeastOnce)
}

/// A message that all devices of a product get.
#[must_use]
pub fn broadcast(device: &Device, payload: Bytes) -> Option<Downlink> {
    downlink("$broadcast/rxd/", device, "", payload, QoS::AtLeastOnce)
}

/// Tells of a firmware.
#[must_use]
pub fn offer_firmware(device: &Device, firmware: &Firmware<'_>) -> Option<Downlink> {
    let offer = serde_json::to_vec(&Offer { r#type: "update_firmware", firmware }).ok()?;
    downlink("$ota/update/", device, "", offer.into(), QoS::AtLeastOnce)
}

/// Tells what is desired and not reported so.
#[must_use]
pub fn shadow_delta(
    device: &Device,
    client_token: &str,
    wished: &Map<String, Value>,
    version: u64,
    now_ms: u64,
) -> Option<Downlink> {
    let delta = json!({
        "type": "delta",
        "clientToken": client_token,
        "payload": {"state": wished, "version": version, "timestamp": now_ms},
        "timestamp": now_ms / 1000,
    });
    downlink("$shadow/operation/result/", device, "", delta.to_string().into(), QoS::AtLeastOnce)
}
