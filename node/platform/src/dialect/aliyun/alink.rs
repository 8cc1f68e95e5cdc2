//! Alink JSON: requests of the thing model, and their replies.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::{QoS, TopicName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::topics::{Up, up};
use super::voice::{Space, Spoken};
use super::{gateway, told};
use crate::dialect::shadow::document;
use crate::dialect::{Answers, Downlink, Report, Told, Uplink};
use crate::registry::{
    Change, Device, Expect, Patch, Record, Registry, SHADOW_SERVICE, ShadowChange, ShadowPart, Versioning,
};

/// Tags of a device, and bytes of a key and of a value.
const TAGS_MAX: usize = 100;
const TAG_KEY_BYTES_MAX: usize = 128;
const TAG_VALUE_BYTES_MAX: usize = 512;

/// Devices of one history, and sets of properties or events of each.
const HISTORY_MAX: usize = 100;

/// What a request is answered with if it fails: a code and its text.
pub(super) type Failure = (u32, &'static str);

pub(super) const NO_SESSION: Failure = (520, "device no session");
pub(super) const BAD_PARAMETERS: Failure = (460, "request parameter error");
const NOT_SERVED: Failure = (404, "request not found");
const NO_CONFIGURATION: Failure = (6710, "no data");

/// A request. What it lacks is empty: devices leave out a lot.
pub(super) struct Request {
    /// A text or a number, as it came.
    pub(super) id: Value,
    pub(super) params: Value,
    /// It wants a reply.
    ack: bool,
}

impl Request {
    /// `None` if it is no JSON object.
    pub(super) fn parse(payload: &[u8]) -> Option<Request> {
        let mut fields = serde_json::from_slice::<Map<String, Value>>(payload).ok()?;
        let id = fields.remove("id").filter(|id| id.is_string() || id.is_number());
        let ack = fields.get("sys").and_then(|sys| sys.get("ack")).and_then(Value::as_u64);
        Some(Request {
            id: id.unwrap_or_else(no_id),
            params: fields.remove("params").unwrap_or_default(),
            ack: ack != Some(0),
        })
    }

    /// The id as text; a new one if there is none.
    pub(super) fn id_text(&self, uplink: &Uplink<'_>) -> Box<str> {
        match &self.id {
            Value::String(text) if text.is_empty() => hex::encode(uplink.entropy).into(),
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        }
    }
}

fn no_id() -> Value {
    Value::String(String::new())
}

/// In the order that the platform writes it.
#[derive(Serialize)]
struct Reply<'a> {
    code: u32,
    data: Value,
    id: Value,
    message: &'a str,
    method: String,
    version: &'a str,
}

/// A message of the platform to the device.
pub(super) fn downlink(topic: &str, payload: String) -> Option<Downlink> {
    // Whoever asked is connected; a reply to one who is not would come too late.
    Some(Downlink { topic: TopicName::new(topic).ok()?, payload: Bytes::from(payload), qos: QoS::AtMostOnce })
}

/// Reads a request, has it served and replies on `{topic}_reply`. The method of the reply is that of the topic.
pub(super) fn serve(
    uplink: &Uplink<'_>,
    method: String,
    answers: &mut Answers,
    serve: impl FnOnce(&Request, &mut Answers) -> Result<Value, Failure>,
) {
    let request = Request::parse(uplink.payload);
    let outcome = request.as_ref().ok_or(BAD_PARAMETERS).and_then(|request| serve(request, answers));
    let (code, message, data) = match outcome {
        Ok(data) => (200, "success", data),
        Err((code, message)) => {
            // Whoever is told that it failed has changed nothing.
            *answers = Answers { problem: Some(message), ..Answers::default() };
            (code, message, Value::Object(Map::new()))
        }
    };
    if request.as_ref().is_some_and(|request| !request.ack) {
        return;
    }
    let id = request.map_or_else(no_id, |request| request.id);
    let reply = Reply { code, data, id, message, method, version: "1.0" };
    let reply = serde_json::to_string(&reply).ok();
    answers.downlinks.extend(reply.and_then(|reply| downlink(&format!("{}_reply", uplink.topic), reply)));
}

/// Serves `/sys/{pk}/{dn}/thing/{tail}`.
pub(super) fn thing(voice: &Spoken, uplink: &Uplink<'_>, space: &Space, tail: &str, answers: &mut Answers) {
    let device = &space.device;
    let report = |request_id, what| Report { device: device.id.clone(), request_id, what };
    let Some(up) = up(tail) else {
        answers.problem = Some("not for the platform");
        return;
    };
    match up {
        Up::Raw => {
            let message = Told::Message { topic: uplink.topic.detached(), payload: uplink.payload.clone() };
            answers.reports.push(report(hex::encode(uplink.entropy).into(), message));
            return;
        }
        Up::RawResponse => {
            let id = hex::encode(uplink.entropy).into();
            answers.reports.push(report(id, Told::Response(uplink.payload.clone())));
            return;
        }
        Up::Response => {
            match Request::parse(uplink.payload) {
                Some(request) => {
                    let what = Told::Response(uplink.payload.clone());
                    answers.reports.push(report(request.id_text(uplink), what));
                }
                None => answers.problem = Some("the response is no JSON object"),
            }
            return;
        }
        _ => {}
    }
    let method = format!("thing.{}", tail.replace('/', "."));
    serve(uplink, method, answers, |request, answers| {
        let empty = Ok(Value::Object(Map::new()));
        let params = &request.params;
        let mut tell = |what| answers.reports.push(report(request.id_text(uplink), what));
        match up {
            Up::Properties => tell(Told::Properties(told::properties(params).ok_or(BAD_PARAMETERS)?)),
            Up::Event(event) => tell(Told::Event(told::event(event, params).ok_or(BAD_PARAMETERS)?)),
            Up::Batch => told::batch(params).ok_or(BAD_PARAMETERS)?.into_iter().for_each(tell),
            Up::UpdateTags => return update_tags(uplink.registry, device, params, answers),
            Up::DeleteTags => return delete_tags(uplink.registry, device, params, answers),
            Up::History => {
                // What was once so is not what is so now.
                answers.shadowed = true;
                return history(voice, uplink, request, answers);
            }
            Up::GetDesired => return desired(uplink.registry, device, params),
            Up::DeleteDesired => return delete_desired(uplink.registry, device, params, answers),
            // Firmware is offered to devices that are there, and not kept for later.
            Up::GetFirmware => {}
            Up::GetConfig => return Err(NO_CONFIGURATION),
            Up::GetTopology => return Ok(gateway::topology(uplink.registry, device)),
            Up::AddTopology => return gateway::add(voice, uplink.registry, device, params, answers),
            Up::DeleteTopology => return gateway::delete(voice, uplink.registry, device, params, answers),
            Up::RegisterSubDevices => return gateway::register(uplink, device, params, answers),
            Up::RegisterByProxy => return gateway::register_by_proxy(uplink, device, params, answers),
            Up::Unknown | Up::Raw | Up::RawResponse | Up::Response => return Err(NOT_SERVED),
        }
        empty
    });
}

/// `[{"identity": {"productKey", "deviceName"}, "properties": [{name: {"value", "time"}}], "events": [...]}]`, of the
/// device or of sub-devices that are logged in.
fn history(voice: &Spoken, uplink: &Uplink<'_>, request: &Request, answers: &mut Answers) -> Result<Value, Failure> {
    let list = request.params.as_array().filter(|list| list.len() <= HISTORY_MAX).ok_or(BAD_PARAMETERS)?;
    for entry in list {
        let named = |name| entry.get("identity").and_then(|identity| identity.get(name)).and_then(Value::as_str);
        let (product_key, name) = named("productKey").zip(named("deviceName")).ok_or(BAD_PARAMETERS)?;
        let own = &voice.own;
        let is_own = *own.product.id == *product_key && *own.device.node_id == *name;
        if !is_own && !voice.may_speak_for(product_key, name, uplink.registry) {
            return Err(NO_SESSION);
        }
        let (kept, _) = uplink.registry.device_of(product_key, name).ok_or(BAD_PARAMETERS)?;
        let list = |name| match entry.get(name) {
            None => Ok([].iter()),
            Some(list) => {
                let list = list.as_array().filter(|list| list.len() <= HISTORY_MAX).ok_or(BAD_PARAMETERS)?;
                Ok::<_, Failure>(list.iter())
            }
        };
        let mut told = Vec::new();
        for properties in list("properties")? {
            told.push(Told::Properties(told::properties(properties).ok_or(BAD_PARAMETERS)?));
        }
        for events in list("events")? {
            for (name, params) in events.as_object().ok_or(BAD_PARAMETERS)? {
                told.push(Told::Event(told::event(name, params).ok_or(BAD_PARAMETERS)?));
            }
        }
        let report = |what| Report { device: kept.record.id.clone(), request_id: request.id_text(uplink), what };
        answers.reports.extend(told.into_iter().map(report));
    }
    Ok(Value::Object(Map::new()))
}

/// What is desired of the properties of these names, or of all: `{name: {"value", "version"}}`.
fn desired(registry: &Registry, device: &Device, params: &Value) -> Result<Value, Failure> {
    let names = params.as_array().ok_or(BAD_PARAMETERS)?;
    let shadow = document(registry, &device.id);
    let mut desired = shadow.desired.properties();
    desired.retain(|name, _| names.is_empty() || names.iter().any(|wanted| wanted.as_str() == Some(name)));
    let with_version = |(name, value)| (name, json!({"value": value, "version": shadow.version}));
    Ok(Value::Object(desired.into_iter().map(with_version).collect()))
}

/// `{name: {"version"?}}`: takes back what is desired of these, unless it has another version by now; of all if empty.
fn delete_desired(
    registry: &Registry,
    device: &Device,
    params: &Value,
    answers: &mut Answers,
) -> Result<Value, Failure> {
    let named = params.as_object().ok_or(BAD_PARAMETERS)?;
    let shadow = document(registry, &device.id);
    let desired = shadow.desired.properties();
    let meant = |(name, what): (&String, &Value)| {
        let version = what.get("version").and_then(Value::as_u64);
        let is_it = desired.contains_key(name) && version.is_none_or(|version| version == shadow.version);
        is_it.then(|| (name.clone(), Value::Null))
    };
    let patch = if named.is_empty() { Patch::Clear } else { Patch::Merge(named.iter().filter_map(meant).collect()) };
    if desired.is_empty() || patch == Patch::Merge(Map::new()) {
        return Ok(Value::Object(Map::new()));
    }
    let part = ShadowPart {
        service: SHADOW_SERVICE.into(),
        reported: Patch::Keep,
        desired: patch,
        version: Versioning::After(shadow.version),
        reported_ms: 0,
    };
    answers.changes.push(Change::Shadow { device: device.id.clone(), change: ShadowChange::Update(vec![part]) });
    Ok(Value::Object(Map::new()))
}

/// `[{"attrKey", "attrValue", "domain"?}]`. What an SDK says about itself, in the domain `SYSTEM`, is no tag.
fn update_tags(registry: &Registry, device: &Device, params: &Value, answers: &mut Answers) -> Result<Value, Failure> {
    let given = params.as_array().filter(|given| given.len() <= TAGS_MAX).ok_or(BAD_PARAMETERS)?;
    let mut tags = registry.device(&device.id).map_or_else(Vec::new, |(kept, _)| kept.record.tags.clone());
    for tag in given.iter().filter(|tag| tag.get("domain").and_then(Value::as_str) != Some("SYSTEM")) {
        let text = |name, most| tag.get(name).and_then(Value::as_str).filter(|text: &&str| text.len() <= most);
        let key = text("attrKey", TAG_KEY_BYTES_MAX).filter(|key| !key.is_empty()).ok_or(BAD_PARAMETERS)?;
        let value = text("attrValue", TAG_VALUE_BYTES_MAX).ok_or(BAD_PARAMETERS)?;
        match tags.iter_mut().find(|(known, _)| **known == *key) {
            Some((_, known)) => *known = value.into(),
            None => tags.push((key.into(), value.into())),
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(BAD_PARAMETERS);
    }
    put(registry, device, answers, |device| device.tags = tags);
    Ok(Value::Object(Map::new()))
}

/// `[{"attrKey"}]`
fn delete_tags(registry: &Registry, device: &Device, params: &Value, answers: &mut Answers) -> Result<Value, Failure> {
    let given = params.as_array().filter(|given| given.len() <= TAGS_MAX).ok_or(BAD_PARAMETERS)?;
    let keys: Option<Vec<&str>> = given.iter().map(|tag| tag.get("attrKey")?.as_str()).collect();
    let keys = keys.ok_or(BAD_PARAMETERS)?;
    put(registry, device, answers, |device| device.tags.retain(|(key, _)| !keys.contains(&&**key)));
    Ok(Value::Object(Map::new()))
}

/// Changes the device's record, unless that leaves it as it is.
pub(super) fn put(registry: &Registry, device: &Device, answers: &mut Answers, change: impl FnOnce(&mut Device)) {
    let Some((kept, _)) = registry.device(&device.id) else { return };
    let mut changed = (*kept.record).clone();
    change(&mut changed);
    if changed != *kept.record {
        let expect = Expect::Revision(kept.revision);
        answers.changes.push(Change::Put { record: Record::Device(Arc::new(changed)), expect });
    }
}
