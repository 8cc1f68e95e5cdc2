//! What is not Alink: time, answers to requests of the platform, firmware versions, the shadow.

use serde_json::{Map, Value, json};

use super::alink::{self, Request, downlink};
use super::told;
use super::voice::Space;
use crate::dialect::shadow::document;
use crate::dialect::{Answers, Downlink, Report, Told, Uplink};
use crate::registry::{
    Change, Patch, Rejection, SHADOW_DEPTH_MAX, SHADOW_SERVICE, ShadowChange, ShadowPart, ShadowService, Versioning,
    is_shallow,
};

/// Bytes of a version with the name of its module.
const VERSION_BYTES_MAX: usize = 256;

fn report(space: &Space, request_id: &str, what: Told) -> Report {
    Report { device: space.device.id.clone(), request_id: request_id.into(), what }
}

/// The answer to the request of this id, as it came.
pub(super) fn response(uplink: &Uplink<'_>, space: &Space, id: &str, answers: &mut Answers) {
    answers.reports.push(report(space, id, Told::Response(uplink.payload.clone())));
}

/// `{"deviceSendTime"}`: gives the device its own time back, and two of the platform's, in milliseconds as text.
pub(super) fn ntp(uplink: &Uplink<'_>, space: &Space, answers: &mut Answers) {
    let sent = serde_json::from_slice::<Value>(uplink.payload);
    let sent = sent.ok().and_then(|request| request.get("deviceSendTime").cloned());
    let Some(sent) = sent.filter(|time| time.is_string() || time.is_number()) else {
        answers.problem = Some("a request for the time without deviceSendTime");
        return;
    };
    let now = uplink.now_ms;
    let payload = format!(r#"{{"deviceSendTime":{sent},"serverRecvTime":"{now}","serverSendTime":"{now}"}}"#);
    let topic = format!("/ext/ntp/{}/{}/response", space.product.id, space.device.node_id);
    answers.downlinks.extend(downlink(&topic, payload));
}

/// `/ota/device/{kind}/{pk}/{dn}`: the version of a module, the progress of an upgrade, or whether there is one.
pub(super) fn ota(uplink: &Uplink<'_>, space: &Space, kind: &str, answers: &mut Answers) {
    let Some(request) = Request::parse(uplink.payload) else {
        answers.problem = Some("no JSON object");
        return;
    };
    match kind {
        "inform" => {
            let text = |name| request.params.get(name).and_then(Value::as_str).unwrap_or_default();
            let (version, module) = (text("version"), text("module"));
            if version.is_empty() || version.len() + module.len() > VERSION_BYTES_MAX {
                answers.problem = Some("no version, or one that is too long");
                return;
            }
            // The firmware is the module that is not named; of others name and version are told.
            let (firmware, software): (Box<str>, Box<str>) = match module {
                "" | "default" => (version.into(), Box::default()),
                _ => (Box::default(), format!("{module} {version}").into()),
            };
            alink::put(uplink.registry, &space.device, answers, |device| {
                for (known, told) in [(&mut device.fw_version, &firmware), (&mut device.sw_version, &software)] {
                    if !told.is_empty() {
                        *known = told.clone();
                    }
                }
            });
            let what = Told::Version { firmware, software, sdk: Box::default() };
            answers.reports.push(report(space, &request.id_text(uplink), what));
        }
        "progress" => {
            let what = Told::Upgrade(uplink.payload.clone());
            answers.reports.push(report(space, &request.id_text(uplink), what));
        }
        _ => {
            let reply = json!({"code": "1000", "data": {}, "id": request.id, "message": "success"});
            answers.downlinks.extend(downlink(uplink.topic.as_str(), reply.to_string()));
        }
    }
}

/// A code and its text.
type Refusal = (&'static str, &'static str);

const CONFLICT: Refusal = ("409", "the version is not larger than that of the shadow");

/// `state` and `metadata` of a shadow. Properties have no times of their own: each has that of its side.
pub(super) fn shadow_state(shadow: &ShadowService) -> Map<String, Value> {
    let (mut state, mut metadata) = (Map::new(), Map::new());
    for (name, side) in [("reported", &shadow.reported), ("desired", &shadow.desired)] {
        let properties = side.properties();
        let times = properties.keys().map(|name| (name.clone(), json!({"timestamp": side.event_ms / 1000})));
        metadata.insert(name.to_owned(), Value::Object(times.collect()));
        state.insert(name.to_owned(), Value::Object(properties));
    }
    Map::from_iter([("state".to_owned(), state.into()), ("metadata".to_owned(), metadata.into())])
}

/// `/shadow/update/{pk}/{dn}`, answered on `/shadow/get/{pk}/{dn}`. A change is answered once it is in the log.
pub(super) fn shadow(uplink: &Uplink<'_>, space: &Space, answers: &mut Answers) {
    let topic = format!("/shadow/get/{}/{}", space.product.id, space.device.node_id);
    let now_s = uplink.now_ms / 1000;
    let reply = move |payload: Value| -> Option<Downlink> {
        let reply = json!({"method": "reply", "payload": payload, "timestamp": now_s});
        downlink(&topic, reply.to_string())
    };
    let before = document(uplink.registry, &space.device.id);
    match change_shadow(uplink, &before) {
        Ok(None) => {
            let mut payload = Map::new();
            if uplink.registry.shadow(&space.device.id).is_some() {
                payload = shadow_state(&before);
            }
            payload.insert("status".to_owned(), "success".into());
            payload.insert("version".to_owned(), before.version.into());
            answers.downlinks.extend(reply(Value::Object(payload)));
        }
        Ok(Some((part, version))) => {
            if let Patch::Merge(properties) = &part.reported
                && let Some(told) = told::properties(&Value::Object(properties.clone()))
                && !properties.values().any(Value::is_null)
            {
                answers.reports.push(report(space, &hex::encode(uplink.entropy), Told::Properties(told)));
            }
            answers.shadowed = true;
            let change = Change::Shadow { device: space.device.id.clone(), change: ShadowChange::Update(vec![part]) };
            answers.ask(vec![change], move |outcomes| {
                let payload = match outcomes.first() {
                    Some(Ok(())) => json!({"status": "success", "version": version}),
                    Some(Err(Rejection::Conflict)) => refused(CONFLICT),
                    Some(Err(Rejection::TooLarge)) => refused(("408", "the shadow would be too large")),
                    _ => refused(("500", "the shadow could not be changed")),
                };
                reply(payload).into_iter().collect()
            });
        }
        Err(refusal) => {
            answers.problem = Some(refusal.1);
            answers.downlinks.extend(reply(refused(refusal)));
        }
    }
}

fn refused((code, message): Refusal) -> Value {
    json!({"status": "error", "content": {"errorcode": code, "errormessage": message}})
}

/// What a request makes of a shadow, and its version then; `None`: it only asks for it.
fn change_shadow(uplink: &Uplink<'_>, before: &ShadowService) -> Result<Option<(ShadowPart, u64)>, Refusal> {
    let request: Map<String, Value> =
        serde_json::from_slice(uplink.payload).map_err(|_| ("400", "not a JSON object"))?;
    let method = request.get("method").and_then(Value::as_str).ok_or(("401", "no method"))?;
    match method {
        "get" => return Ok(None),
        "update" | "delete" => {}
        _ => return Err(("406", "no such method")),
    }
    let state = request.get("state").and_then(Value::as_object).ok_or(("402", "no state"))?;
    let (version, after) = match request.get("version").map(|version| (version.as_u64(), version.as_i64())) {
        Some((Some(version), _)) => (Versioning::Set(version), version),
        Some((None, Some(-1))) => (Versioning::Reset, 0),
        _ => return Err(("403", "no version that is a number")),
    };
    if matches!(version, Versioning::Set(version) if version <= before.version) {
        return Err(CONFLICT);
    }
    // Clients write the word null where they mean null.
    let is_null = |value: &Value| value.is_null() || *value == "null";
    let patch = |side: Option<&Value>| match side {
        None => Ok(Patch::Keep),
        Some(side) if is_null(side) => Ok(Patch::Clear),
        Some(Value::Object(properties)) if !is_shallow(&Value::Object(properties.clone()), SHADOW_DEPTH_MAX) => {
            Err(("408", "the state is too deep"))
        }
        Some(Value::Object(properties)) if method == "delete" => {
            let named = properties.iter().filter(|(_, value)| is_null(value));
            Ok(Patch::Merge(named.map(|(name, _)| (name.clone(), Value::Null)).collect()))
        }
        Some(Value::Object(properties)) => Ok(Patch::Merge(properties.clone())),
        Some(_) => Err(("404", "a state that is no object")),
    };
    // A device says what it is, and that it has done what was desired; it desires nothing.
    let reported = patch(state.get("reported"))?;
    let desired = match patch(state.get("desired"))? {
        Patch::Merge(properties) if properties.values().any(|value| !value.is_null()) => Patch::Keep,
        desired => desired,
    };
    let part = ShadowPart { service: SHADOW_SERVICE.into(), reported, desired, version, reported_ms: 0 };
    Ok(Some((part, after)))
}
