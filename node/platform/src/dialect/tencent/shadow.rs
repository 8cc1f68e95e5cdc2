//! The shadow of a device: one document, whose version grows with each change.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::uplink::{Read, downlink, parse};
use crate::dialect::shadow::document;
use crate::dialect::{Answers, Report, Told, Uplink, uuid};
use crate::registry::{
    Change, Device, Kept, Patch, Rejection, SHADOW_SERVICE, ShadowChange, ShadowPart, ShadowService, Versioning,
    is_shallow,
};

/// Levels of objects in a state, as the vendor documents it.
const DEPTH_MAX: usize = 5;

/// What `result` says.
const DONE: u32 = 0;
const MALFORMED: u32 = 400;
const TOO_LARGE: u32 = 413;
const FAILED: u32 = 500;
/// The version is another one.
const CONFLICT: u32 = 5005;

#[derive(Deserialize)]
struct Request {
    r#type: String,
    #[serde(default, rename = "clientToken")]
    client_token: Value,
    #[serde(default)]
    state: Value,
    #[serde(default)]
    version: Option<u64>,
}

/// `$shadow/operation/{own}`, answered on `$shadow/operation/result/{own}`: `get`, or `update` with what is reported, or
/// with `desired` null once the device has done it. A change is answered once it is in the log.
pub(super) fn read(own: &str, device: &Kept<Device>, uplink: &Uplink<'_>, answers: &mut Answers) -> Read<()> {
    let Request { r#type, client_token, state, version } = parse(uplink.payload)?;
    let id = &device.record.id;
    let before = document(uplink.registry, id);
    let now_ms = uplink.now_ms;
    let reply = {
        let (own, kind) = (own.to_owned(), r#type.clone());
        move |result: u32, payload: Value| {
            let reply = json!({
                "type": kind, "result": result, "timestamp": now_ms / 1000, "clientToken": client_token,
                "payload": payload,
            });
            downlink("$shadow/operation/result/", &own, &reply)
        }
    };
    match &*r#type {
        "get" => answers.downlinks.push(reply(DONE, shown(&before, now_ms))?),
        "update" => {
            let Ok((reported, desired)) = patches(&state) else {
                answers.downlinks.push(reply(MALFORMED, json!({}))?);
                return Err("a state that is none");
            };
            if version.is_some_and(|version| version != before.version) {
                answers.downlinks.push(reply(CONFLICT, shown(&before, now_ms))?);
                return Err("another version of the shadow");
            }
            if let Patch::Merge(properties) = &reported
                && !properties.is_empty()
            {
                let told = json!([{"service_id": SHADOW_SERVICE, "properties": properties}]);
                let request_id = uuid(uplink.entropy).into();
                answers.reports.push(Report { device: id.clone(), request_id, what: Told::Properties(told) });
            }
            answers.shadowed = true;
            let state = state_of(&state);
            let part = ShadowPart {
                service: SHADOW_SERVICE.into(),
                reported,
                desired,
                version: Versioning::After(before.version),
                reported_ms: 0,
            };
            let change = Change::Shadow { device: id.clone(), change: ShadowChange::Update(vec![part]) };
            answers.ask(vec![change], move |outcomes| {
                let sent = match outcomes.first() {
                    Some(Ok(())) => {
                        let version = before.version.saturating_add(1);
                        reply(DONE, json!({"state": state, "timestamp": now_ms, "version": version}))
                    }
                    Some(Err(Rejection::Conflict)) => reply(CONFLICT, shown(&before, now_ms)),
                    Some(Err(Rejection::TooLarge)) => reply(TOO_LARGE, json!({})),
                    _ => reply(FAILED, json!({})),
                };
                sent.into_iter().collect()
            });
        }
        _ => return Err("neither get nor update of a shadow"),
    }
    Ok(())
}

/// `{"state": {"reported", "desired"?}, "timestamp", "version"}`
fn shown(shadow: &ShadowService, now_ms: u64) -> Value {
    let mut state = json!({"reported": shadow.reported.properties()});
    let desired = shadow.desired.properties();
    if !desired.is_empty() {
        state["desired"] = desired.into();
    }
    let time = shadow.reported.event_ms.max(shadow.desired.event_ms);
    json!({"state": state, "timestamp": if time > 0 { time } else { now_ms }, "version": shadow.version})
}

/// What is echoed of an update.
fn state_of(state: &Value) -> Value {
    let side = |name: &str| state.get(name).map(|side| (name.to_owned(), side.clone()));
    Value::Object(["reported", "desired"].into_iter().filter_map(side).collect())
}

/// What becomes of reported and of desired.
fn patches(state: &Value) -> Result<(Patch, Patch), ()> {
    let state = state.as_object().filter(|_| is_shallow(state, DEPTH_MAX)).ok_or(())?;
    let side = |name: &str| match state.get(name) {
        None => Ok(Patch::Keep),
        Some(Value::Null) => Ok(Patch::Clear),
        Some(Value::Object(properties)) => Ok(Patch::Merge(properties.clone())),
        Some(_) => Err(()),
    };
    // What is desired is the applications' to say; a device takes wishes away.
    let taken = |properties: Map<String, Value>| {
        Patch::Merge(properties.into_iter().filter(|(_, value)| value.is_null()).collect())
    };
    let desired = match side("desired")? {
        Patch::Merge(properties) => taken(properties),
        desired => desired,
    };
    Ok((side("reported")?, desired))
}
