//! Messages to devices, and broadcasts.

use std::sync::Arc;

use fulmar_broker::plane::mail::{Cached, Failure};
use fulmar_platform::dialect::time;
use fulmar_platform::message::Form;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::NewMessage;

fn message_json(cached: &Cached) -> Value {
    let Cached { created, phase, message, .. } = cached;
    let content = match message.object {
        true => serde_json::from_str(&message.content).unwrap_or_default(),
        false => Value::from(&*message.content),
    };
    let mut json = json!({
        "message_id": message.id,
        "name": message.name,
        "message": content,
        "encoding": if message.form == Form::Base64 { "base64" } else { "none" },
        "payload_format": if message.form == Form::Raw { "raw" } else { "standard" },
        "status": phase.status().as_str(),
        "created_time": time::compact(created.0),
    });
    if let Some(topic) = message.to.asked() {
        json["topic"] = topic.into();
    }
    if let Some(at) = phase.finished() {
        json["finished_time"] = time::compact(at.0).into();
    }
    if let Some((code, text)) = phase.failure().map(Failure::error) {
        json["error_info"] = json!({ "error_code": code, "error_msg": text });
    }
    if let Some(properties) = &message.properties {
        let user = properties.user.iter().map(|(key, value)| json!({ "prop_key": key, "prop_value": value }));
        json["properties"] = json!({
            "response_topic": properties.response_topic,
            "correlation_data": properties.correlation_data,
            "user_properties": user.collect::<Vec<_>>(),
        });
    }
    json
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let message = NewMessage { body: Arc::new(call.json()?) };
    let sent = call.operations().create_message(call.param("device_id"), &message).await?;
    let mut result = json!({ "status": sent.status, "created_time": time::compact(sent.created_ms) });
    if let Some(at_ms) = sent.finished_ms {
        result["finished_time"] = time::compact(at_ms).into();
    }
    if let Some((code, text)) = sent.error {
        result["error_info"] = json!({ "error_code": code, "error_msg": text });
    }
    Answer::created(&sent.id, json!({ "message_id": sent.id, "result": result }))
}

/// Newest first.
pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let device = call.param("device_id");
    let messages = call.operations().list_messages(device)?;
    let messages: Vec<Value> = messages.iter().rev().map(message_json).collect();
    Answer::ok(json!({ "device_id": device, "messages": messages }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    Answer::ok(message_json(&call.operations().show_message(call.param("device_id"), call.param("message_id"))?))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_message(call.param("device_id"), call.param("message_id")).await?;
    Answer::empty()
}

pub(super) async fn broadcast(call: Call) -> Result<Answer, Fault> {
    let sent = call.operations().broadcast(&call.json()?).await?;
    let json = json!({
        "app_id": sent.app_id,
        "topic_full_name": sent.topic,
        "message_id": sent.id,
        "created_time": time::compact(sent.created_ms),
    });
    Answer::created(&sent.id, json)
}
