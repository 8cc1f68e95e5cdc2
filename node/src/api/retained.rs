//! Retained messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fulmar_broker::Publication;
use fulmar_mqtt::{TopicFilter, TopicName};
use fulmar_platform::dialect::time;
use futures_util::Stream;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::streams;
use crate::operations::input::Input;

const LIMIT_MAX: u64 = 1_000;
const LIMIT_DEFAULT: u64 = 100;

fn message_json(message: &Publication, whole: bool) -> Value {
    let mut json = json!({
        "topic": message.topic.as_str(),
        "qos": message.qos as u8,
        "payload_bytes": message.payload.len(),
        "time": time::iso_ms(message.accepted_at.0),
        "expires_at": message.expires_at.map(|at| time::iso_ms(at.0)),
        "publisher": message.origin.as_ref().map(ToString::to_string),
    });
    if whole {
        json["payload"] = BASE64.encode(&message.payload).into();
        json["properties"] = BASE64.encode(message.forward.as_bytes()).into();
    }
    json
}

fn filter(input: &Input<'_>) -> Result<TopicFilter, Fault> {
    let text = input.text("filter")?.unwrap_or_else(|| "#".to_owned());
    let filter = TopicFilter::new(text).map_err(|error| Fault::invalid(&format!("filter {error}")))?;
    match filter.shared() {
        None => Ok(filter),
        Some(_) => Err(Fault::invalid("filter must not be shared: nothing is retained for groups")),
    }
}

fn topic(input: &Input<'_>) -> Result<TopicName, Fault> {
    let topic = input.required("topic")?;
    TopicName::new(topic).map_err(|error| Fault::invalid(&format!("topic {error}")))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let limit = input.number("limit", LIMIT_MAX)?.filter(|limit| *limit > 0).unwrap_or(LIMIT_DEFAULT);
    let (filter, marker) = (filter(&input)?, input.text("marker")?);
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = call.operations().list_retained(&filter, marker.as_deref(), limit);
    Answer::ok(json!({
        "messages": page.messages.iter().map(|message| message_json(message, false)).collect::<Vec<_>>(),
        "count": page.count,
        "marker": page.marker,
    }))
}

pub(super) async fn get(call: Call) -> Result<Answer, Fault> {
    let topic = topic(&Input::of(&*call.document()?)?)?;
    Answer::ok(message_json(&*call.operations().show_retained(&topic)?, true))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    let topic = topic(&Input::of(&*call.document()?)?)?;
    call.operations().delete_retained(&topic).await?;
    Answer::ok(json!({}))
}

pub(super) fn export(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let filter = || filter(&Input::of(&*call.document()?)?);
    filter().map_or_else(streams::refused, |filter| {
        streams::of(call.operations().export_retained(filter), |messages| {
            let messages = messages.iter().map(|message| message_json(message, true));
            Ok(json!({ "messages": messages.collect::<Vec<_>>() }))
        })
    })
}
