//! What the platform sends a device of its own accord. Answers come back as [`crate::Told::Response`] with the id of the
//! request: the `id` of Alink, or the message id where the topic carries one.

use bytes::Bytes;
use fulmar_mqtt::{QoS, TopicName};
use serde::Serialize;
use serde_json::{Map, Value};

use super::services::shadow_state;
use crate::dialect::Downlink;
use crate::registry::{Device, ShadowService};

/// In the order that the platform writes it.
#[derive(Serialize)]
struct Request<'a, P> {
    id: &'a str,
    version: &'a str,
    params: &'a P,
    /// Firmware finds out by its last part what is meant.
    method: String,
}

/// A firmware that a device may download. Firmware in the field drops a notice of which anything is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Firmware<'a> {
    /// Bytes.
    pub size: u64,
    pub version: &'a str,
    /// HTTPS.
    pub url: &'a str,
    /// `Md5` or `SHA256`, in that case.
    pub sign_method: &'a str,
    /// Lower-case hex.
    pub sign: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<&'a str>,
}

fn downlink(topic: String, payload: impl Into<Bytes>, qos: QoS) -> Option<Downlink> {
    Some(Downlink { topic: TopicName::new(topic).ok()?, payload: payload.into(), qos })
}

/// One level of a topic.
fn level(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

fn call(topic: String, service: &str, id: &str, params: &impl Serialize, qos: QoS) -> Option<Downlink> {
    let method = format!("thing.service.{}", service.replace('/', "."));
    let request = serde_json::to_string(&Request { id, version: "1.0", params, method }).ok()?;
    downlink(topic, request, qos)
}

fn service_topic(device: &Device, service: &str) -> String {
    format!("/sys/{}/{}/thing/service/{service}", device.product_id, device.node_id)
}

/// Sets properties, `{name: value}`; answered on `.../set_reply`.
#[must_use]
pub fn set_properties(device: &Device, id: &str, params: &Map<String, Value>) -> Option<Downlink> {
    call(service_topic(device, "property/set"), "property/set", id, params, QoS::AtLeastOnce)
}

/// Asks for properties by their names, or for all if there are none; answered on `.../get_reply`.
#[must_use]
pub fn get_properties(device: &Device, id: &str, names: &[String]) -> Option<Downlink> {
    call(service_topic(device, "property/get"), "property/get", id, &names, QoS::AtLeastOnce)
}

/// Calls a service, which may take its time; answered on `.../{service}_reply`. `None` if it is no one level of a topic.
#[must_use]
pub fn call_service(device: &Device, service: &str, id: &str, params: &Map<String, Value>) -> Option<Downlink> {
    call(service_topic(device, level(service)?), service, id, params, QoS::AtLeastOnce)
}

/// Calls a service that is answered at once, on the topic that the call comes on. `None` if `message_id` or the service is
/// no one level of a topic.
#[must_use]
pub fn call_service_at_once(
    device: &Device,
    message_id: &str,
    service: &str,
    params: &Map<String, Value>,
) -> Option<Downlink> {
    let topic = format!("/ext/rrpc/{}{}", level(message_id)?, service_topic(device, level(service)?));
    call(topic, service, message_id, params, QoS::AtMostOnce)
}

/// Asks with any bytes; answered on `.../rrpc/response/{message_id}`. `None` if that is no one level of a topic.
#[must_use]
pub fn request(device: &Device, message_id: &str, payload: Bytes) -> Option<Downlink> {
    let message_id = level(message_id)?;
    let topic = format!("/sys/{}/{}/rrpc/request/{message_id}", device.product_id, device.node_id);
    downlink(topic, payload, QoS::AtMostOnce)
}

/// Tells of a firmware.
#[must_use]
pub fn offer_firmware(device: &Device, id: u64, firmware: &Firmware<'_>) -> Option<Downlink> {
    let topic = format!("/ota/device/upgrade/{}/{}", device.product_id, device.node_id);
    let data = serde_json::to_string(firmware).ok()?;
    let payload = format!(r#"{{"code":"1000","data":{data},"id":{id},"message":"success"}}"#);
    downlink(topic, payload, QoS::AtLeastOnce)
}

/// Tells of a shadow in which something is desired.
#[must_use]
pub fn control_shadow(device: &Device, shadow: &ShadowService, now_ms: u64) -> Option<Downlink> {
    let mut payload = shadow_state(shadow);
    payload.insert("status".to_owned(), "success".into());
    let control = serde_json::json!({
        "method": "control", "payload": payload, "version": shadow.version, "timestamp": now_ms / 1000,
    });
    downlink(format!("/shadow/get/{}/{}", device.product_id, device.node_id), control.to_string(), QoS::AtLeastOnce)
}
