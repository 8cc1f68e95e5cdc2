//! What the platform sends a device of its own accord. `connected` is the device whose connection it goes to: the device
//! itself, or the gateway of a sub-device. Answers come back as [`crate::Told::Response`] with the id of the request.

use bytes::Bytes;
use fulmar_mqtt::{QoS, TopicName};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{events, sub_devices};
use crate::dialect::Downlink;
use crate::registry::Device;

/// What there is to download, as the vendor's upgrade notices have it: whatever members, of which `version` and `url`
/// are there.
pub type Package = serde_json::Map<String, Value>;

#[derive(Serialize)]
struct Command<'a> {
    object_device_id: &'a str,
    command_name: &'a str,
    service_id: &'a str,
    paras: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct SetProperties<'a> {
    object_device_id: &'a str,
    services: &'a [Value],
}

#[derive(Serialize)]
struct GetProperties<'a> {
    object_device_id: &'a str,
    /// Empty for all; some firmware does not take null.
    service_id: &'a str,
}

/// Some firmware takes a message with any other key for one of no form.
#[derive(Serialize)]
struct Message<'a> {
    object_device_id: &'a str,
    name: Option<&'a str>,
    id: &'a str,
    content: &'a Value,
}

fn downlink(connected: &str, rest: &str, payload: &impl Serialize) -> Option<Downlink> {
    let payload = serde_json::to_vec(payload).ok()?;
    let topic = TopicName::new(format!("$oc/devices/{connected}/{rest}")).ok()?;
    Some(Downlink { topic, payload: payload.into(), qos: QoS::AtLeastOnce })
}

/// Calls a command. `None` if the request id does not fit into a topic; so of the others.
#[must_use]
pub fn command(
    connected: &str,
    device: &str,
    request_id: &str,
    (service_id, command_name): (&str, &str),
    paras: &Map<String, Value>,
) -> Option<Downlink> {
    let command = Command { object_device_id: device, command_name, service_id, paras };
    downlink(connected, &format!("sys/commands/request_id={request_id}"), &command)
}

/// Sets properties: `services` is `[{"service_id", "properties"}]`.
#[must_use]
pub fn set_properties(connected: &str, device: &str, request_id: &str, services: &[Value]) -> Option<Downlink> {
    let set = SetProperties { object_device_id: device, services };
    downlink(connected, &format!("sys/properties/set/request_id={request_id}"), &set)
}

/// Asks for the properties of a service, or of all services if it is empty.
#[must_use]
pub fn get_properties(connected: &str, device: &str, request_id: &str, service_id: &str) -> Option<Downlink> {
    let get = GetProperties { object_device_id: device, service_id };
    downlink(connected, &format!("sys/properties/get/request_id={request_id}"), &get)
}

/// A message in its standard form, on the system's topic.
#[must_use]
pub fn message(connected: &str, device: &str, id: &str, name: Option<&str>, content: &Value) -> Option<Downlink> {
    let message = Message { object_device_id: device, name, id, content };
    downlink(connected, "sys/messages/down", &message)
}

/// Any bytes, on a topic of the product's: `suffix` is what follows `user/`. The device must have subscribed to it.
#[must_use]
pub fn custom(connected: &str, suffix: &str, payload: Bytes) -> Option<Downlink> {
    let topic = TopicName::new(format!("$oc/devices/{connected}/user/{suffix}")).ok()?;
    Some(Downlink { topic, payload, qos: QoS::AtLeastOnce })
}

/// An event of the platform's, on `sys/events/down`.
#[must_use]
pub fn event(connected: &str, device: &str, of: (&str, &str), now_ms: u64, paras: &Value) -> Option<Downlink> {
    downlink(connected, "sys/events/down", &events::down(device, of, None, now_ms, paras))
}

/// Tells of a firmware or software: `event_type` is `firmware_upgrade`, `software_upgrade`, or one of these with `_v2`.
#[must_use]
pub fn offer_upgrade(
    connected: &str,
    device: &str,
    event_type: &str,
    now_ms: u64,
    package: Package,
) -> Option<Downlink> {
    event(connected, device, ("$ota", event_type), now_ms, &Value::Object(package))
}

/// Asks for the versions of firmware and software; they come as [`crate::Told::Version`].
#[must_use]
pub fn query_version(connected: &str, device: &str, now_ms: u64) -> Option<Downlink> {
    event(connected, device, ("$ota", "version_query"), now_ms, &Value::Object(Package::new()))
}

/// Tells a gateway that a device behind it was added or deleted. `version` only grows.
#[must_use]
pub fn sub_device_notice(connected: &str, device: &Device, added: bool, version: u64, now_ms: u64) -> Option<Downlink> {
    let notice = sub_devices::notice(connected, [(device, false)].into_iter(), added, version, now_ms);
    downlink(connected, "sys/events/down", &notice)
}
