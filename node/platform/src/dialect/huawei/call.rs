//! What the platform sends a device of its own accord. `connected` is the device whose connection it goes to: the device
//! itself, or the gateway of a sub-device. Answers come back as [`crate::Told::Response`] with the id of the request.

use bytes::Bytes;
use fulmar_mqtt::{QoS, TopicName};
use serde::Serialize;
use serde_json::Value;

use crate::dialect::Downlink;

#[derive(Serialize)]
struct Command<'a> {
    object_device_id: &'a str,
    command_name: &'a str,
    service_id: &'a str,
    paras: &'a Value,
}

#[derive(Serialize)]
struct SetProperties<'a> {
    object_device_id: &'a str,
    services: &'a Value,
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
    paras: &Value,
) -> Option<Downlink> {
    let command = Command { object_device_id: device, command_name, service_id, paras };
    downlink(connected, &format!("sys/commands/request_id={request_id}"), &command)
}

/// Sets properties: `services` is `[{"service_id", "properties"}]`.
#[must_use]
pub fn set_properties(connected: &str, device: &str, request_id: &str, services: &Value) -> Option<Downlink> {
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
