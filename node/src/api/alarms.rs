//! What is wrong, for as long as it is.

use futures_util::Stream;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::{Fault, streams};
use crate::operations::input::Input;
use crate::operations::{Watched, alarm_json, past_json};

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let history = Input::of(&body)?.flag("history")?.unwrap_or(false);
    let (steer, revision) = call.operations().steer();
    let alarms: Vec<Value> = if history {
        steer.alarms.history().map(|past| past_json(past)).collect()
    } else {
        steer.alarms.active().map(|alarm| alarm_json(alarm)).collect()
    };
    Answer::ok(json!({ "alarms": alarms, "revision": revision }))
}

pub(super) async fn clear(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let (name, subject) = (input.required("name")?, input.text("subject")?.unwrap_or_default());
    call.operations().clear_alarm(&name, &subject, &call.caller.name).await?;
    Answer::changed(&format!("{name} {subject}"), Value::Object(Map::new()))
}

pub(super) fn watch(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    streams::watch(&call, Ok(Watched::Alarms))
}
