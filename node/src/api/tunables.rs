//! Settings that are the same on every node and count at once.

use fulmar_broker::steer::settings::{Value as Setting, table};
use fulmar_platform::dialect::time::iso_ms;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;

fn value_json(value: &Setting) -> Value {
    match value {
        Setting::Flag(flag) => (*flag).into(),
        Setting::Number(number) => (*number).into(),
        Setting::Text(text) => (**text).into(),
    }
}

fn read_value(value: &Value) -> Option<Setting> {
    match value {
        Value::Bool(flag) => Some(Setting::Flag(*flag)),
        Value::Number(number) => number.as_u64().map(Setting::Number),
        Value::String(text) => Some(Setting::Text(text.as_str().into())),
        _ => None,
    }
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let (steer, _) = call.operations().steer();
    let settings = table::SETTINGS.iter().map(|spec| {
        let mut json = json!({ "name": spec.name, "description": spec.describes });
        json["type"] = match spec.kind {
            table::Kind::Flag => "flag",
            table::Kind::Number { min, max } => {
                (json["min"], json["max"]) = (min.into(), max.into());
                "number"
            }
            table::Kind::Text => "text",
        }
        .into();
        if let Some(value) = steer.settings.get(spec.name) {
            json["value"] = value_json(value);
        }
        if let Some(value) = spec.default() {
            json["default"] = value_json(&value);
        }
        json
    });
    Answer::ok(json!({ "version": steer.settings.version(), "settings": settings.collect::<Vec<_>>() }))
}

async fn change(call: &Call, name: &str, value: Option<Setting>, version: Option<u64>) -> Result<Answer, Fault> {
    let version = call.operations().set(name, value, &call.caller.name, version).await?;
    Answer::changed(name, json!({ "version": version }))
}

pub(super) async fn set(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let (name, version) = (input.required("name")?, input.number("version", u64::MAX)?);
    let value = input.value("value").ok_or_else(|| Fault::missing("value"))?;
    let value = read_value(value)
        .ok_or_else(|| Fault::invalid("value must be true, false, a whole number of 0 or more, or text"))?;
    change(&call, &name, Some(value), version).await
}

pub(super) async fn reset(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let (name, version) = (input.required("name")?, input.number("version", u64::MAX)?);
    change(&call, &name, None, version).await
}

pub(super) async fn history(call: Call) -> Result<Answer, Fault> {
    let (steer, _) = call.operations().steer();
    let changes = steer.settings.history().map(|past| {
        let mut json = json!({ "version": past.version, "at": iso_ms(past.at.0), "by": past.by, "name": past.name });
        // What is absent is absent: null would be a value.
        for (member, value) in [("from", &past.from), ("to", &past.to)] {
            if let Some(value) = value {
                json[member] = value_json(value);
            }
        }
        json
    });
    Answer::ok(json!({ "changes": changes.collect::<Vec<_>>() }))
}
