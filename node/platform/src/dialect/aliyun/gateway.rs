//! Gateways: the topology of their sub-devices, and for which of these the gateway's connection speaks.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::alink::{self, BAD_PARAMETERS, Failure, NO_SESSION};
use super::voice::{SUB_DEVICES_MAX, Space, Spoken};
use super::{connect, register};
use crate::dialect::crypto::sha256;
use crate::dialect::{Answers, Uplink};
use crate::registry::{Change, Device, Kept, Kind, Registration, Registry};

/// Sub-devices of one request, as the platform documents it.
const BATCH_MAX: usize = 50;

const NOT_FOUND: Failure = (6100, "device not found");
const DISABLED: Failure = (6204, "the device is disabled");
const WRONG_SIGNATURE: Failure = (6287, "invalid sign");
const ITSELF: Failure = (6402, "a device is no sub-device of itself");
const TOO_MANY: Failure = (428, "too many sub-devices");
const FORBIDDEN: Failure = (403, "request forbidden");

/// A text, or a number as text: a timestamp comes as either.
fn text(fields: &Value, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn names(fields: &Value) -> Result<(String, String), Failure> {
    text(fields, "productKey").zip(text(fields, "deviceName")).ok_or(BAD_PARAMETERS)
}

fn batch(list: &Value) -> Result<&[Value], Failure> {
    list.as_array().filter(|list| (1..=BATCH_MAX).contains(&list.len())).map(Vec::as_slice).ok_or(BAD_PARAMETERS)
}

fn sign_method(fields: &Value) -> Option<String> {
    text(fields, "signMethod").or_else(|| text(fields, "signmethod"))
}

/// The sub-device that has signed these fields. `params` say the digest where the fields do not.
fn signed_by(
    registry: &Registry,
    gateway: &Device,
    params: &Value,
    fields: &Value,
) -> Result<(Space, Kept<Device>), Failure> {
    let (product_key, name) = names(fields)?;
    let (client_id, sign) = text(fields, "clientId").zip(text(fields, "sign")).ok_or(BAD_PARAMETERS)?;
    let digest = connect::digest(sign_method(fields).or_else(|| sign_method(params)).as_deref());
    let digest = digest.ok_or(BAD_PARAMETERS)?;
    let product = connect::product(registry, &product_key).ok_or(NOT_FOUND)?;
    let (kept, _) = registry.device_of(&product_key, &name).ok_or(NOT_FOUND)?;
    let content = connect::content(&client_id, &name, &product_key, text(fields, "timestamp").as_deref());
    if !connect::signed(&kept.record, digest, &content, sign.as_bytes()) {
        return Err(WRONG_SIGNATURE);
    }
    if kept.record.id == gateway.id {
        return Err(ITSELF);
    }
    if kept.record.frozen {
        return Err(DISABLED);
    }
    let space = Space::new(product.clone(), kept.record.clone()).ok_or(BAD_PARAMETERS)?;
    Ok((space, kept.clone()))
}

/// Serves `/ext/session/{pk}/{dn}/{tail}`. A sub-device is let in by its own signature: the topology, which may still be
/// on its way into the registry, is not asked for. A batch succeeds as a whole or not at all.
pub(super) fn session(voice: &Spoken, uplink: &Uplink<'_>, tail: &str, answers: &mut Answers) {
    let gateway = &voice.own.device;
    alink::serve(uplink, tail.replace('/', "."), answers, |request, answers| {
        let params = &request.params;
        let one = std::slice::from_ref(params);
        let (list, login) = match tail {
            "combine/login" => (one, true),
            "combine/batch_login" => (batch(params.get("deviceList").unwrap_or(params))?, true),
            "combine/logout" => (one, false),
            _ => (batch(params.get("deviceList").unwrap_or(params))?, false),
        };
        if login {
            let spaces: Result<Vec<Space>, Failure> = list
                .iter()
                .map(|fields| signed_by(uplink.registry, gateway, params, fields).map(|(space, _)| space))
                .collect();
            let spaces = spaces?;
            let ids: Vec<_> = spaces.iter().map(|space| space.device.id.clone()).collect();
            if !voice.log_in(spaces) {
                return Err(TOO_MANY);
            }
            answers.changes.extend(ids.into_iter().filter_map(|id| there(uplink.registry, gateway, id, true)));
        } else {
            let all: Result<Vec<(String, String)>, Failure> = list.iter().map(names).collect();
            let all = all?;
            if !all.iter().all(|(product_key, name)| voice.is_logged_in(product_key, name)) {
                return Err(NO_SESSION);
            }
            for (product_key, name) in &all {
                voice.log_out(product_key, name);
                if let Some((sub, _)) = uplink.registry.device_of(product_key, name) {
                    answers.changes.extend(there(uplink.registry, gateway, sub.record.id.clone(), false));
                }
            }
        }
        let echo =
            |fields: &Value| json!({"productKey": fields.get("productKey"), "deviceName": fields.get("deviceName")});
        Ok(if list.as_ptr() == one.as_ptr() { echo(params) } else { list.iter().map(echo).collect() })
    });
}

/// Says that a sub-device has come or gone.
fn there(registry: &Registry, gateway: &Device, device: Box<str>, online: bool) -> Option<Change> {
    let (_, presence) = registry.device(&gateway.id)?;
    Some(Change::SubDevice { device, epoch: presence.epoch, online })
}

/// `[{"deviceName", "productKey"}]` of the gateway's sub-devices.
pub(super) fn topology(registry: &Registry, gateway: &Device) -> Value {
    let subs = registry.sub_devices(&gateway.id);
    let names = subs.map(|(sub, _)| json!({"deviceName": sub.record.node_id, "productKey": sub.record.product_id}));
    names.take(SUB_DEVICES_MAX).collect()
}

/// Makes devices that have signed it sub-devices of the gateway. One of another gateway changes over.
pub(super) fn add(
    voice: &Spoken,
    registry: &Registry,
    gateway: &Device,
    params: &Value,
    answers: &mut Answers,
) -> Result<Value, Failure> {
    if voice.own.device.id != gateway.id {
        return Err(FORBIDDEN);
    }
    let subs: Result<Vec<_>, Failure> =
        batch(params)?.iter().map(|fields| signed_by(registry, gateway, params, fields)).collect();
    let subs = subs?;
    let count = usize::try_from(registry.uses(Kind::Device, &gateway.id, Kind::Device)).unwrap_or(usize::MAX);
    let more = subs.iter().filter(|(_, sub)| sub.record.gateway_id != gateway.id).count();
    if count.saturating_add(more) > SUB_DEVICES_MAX {
        return Err(TOO_MANY);
    }
    for (_, sub) in &subs {
        alink::put(registry, &sub.record, answers, |sub| sub.gateway_id = gateway.id.clone());
    }
    Ok(Value::Object(Map::new()))
}

/// Ends the relation to sub-devices, and their logins.
pub(super) fn delete(
    voice: &Spoken,
    registry: &Registry,
    gateway: &Device,
    params: &Value,
    answers: &mut Answers,
) -> Result<Value, Failure> {
    if voice.own.device.id != gateway.id {
        return Err(FORBIDDEN);
    }
    let all: Result<Vec<(String, String)>, Failure> = batch(params)?.iter().map(names).collect();
    for (product_key, name) in all? {
        voice.log_out(&product_key, &name);
        if let Some((sub, _)) = registry.device_of(&product_key, &name)
            && sub.record.gateway_id == gateway.id
        {
            alink::put(registry, &sub.record, answers, |sub| sub.gateway_id = Box::default());
        }
    }
    Ok(Value::Object(Map::new()))
}

/// `[{"productKey", "deviceName"}]` of sub-devices that have no secret yet: gives those the secret whose gateway this is.
/// No secret of theirs is shown for it, so no others.
pub(super) fn register(
    uplink: &Uplink<'_>,
    gateway: &Device,
    params: &Value,
    answers: &mut Answers,
) -> Result<Value, Failure> {
    let mut given = Vec::new();
    for fields in batch(params)? {
        let (product_key, name) = names(fields)?;
        let product = connect::product(uplink.registry, &product_key).ok_or(NOT_FOUND)?;
        let (sub, _) = uplink.registry.device_of(&product_key, &name).ok_or(NOT_FOUND)?;
        if sub.record.gateway_id != gateway.id || product.registration == Registration::Off {
            return Err(FORBIDDEN);
        }
        let (device, expect) = register::candidate(uplink.registry, product, &name, Some(&gateway.id), uplink.now_ms)
            .map_err(|_| FORBIDDEN)?;
        let (secret, change) = register::secret_of(device, expect, &seed(uplink, &product_key, &name));
        answers.changes.extend(change);
        given.push(json!({
            "deviceName": name, "deviceSecret": secret.expose(), "iotId": sub.oid.to_string(), "productKey": product_key,
        }));
    }
    Ok(Value::Array(given))
}

/// `{"proxieds": [{"productKey", "deviceName", "random", "sign", "signMethod"}]}`, signed with the secrets of products:
/// devices register themselves through the gateway.
pub(super) fn register_by_proxy(
    uplink: &Uplink<'_>,
    gateway: &Device,
    params: &Value,
    answers: &mut Answers,
) -> Result<Value, Failure> {
    let mut seen = BTreeSet::new();
    let (mut successes, mut failures) = (Vec::new(), Vec::new());
    for fields in batch(params.get("proxieds").unwrap_or(&Value::Null))? {
        let (product_key, name) = names(fields)?;
        if !seen.insert((product_key.clone(), name.clone())) {
            return Err(BAD_PARAMETERS);
        }
        match by_proxy(uplink, gateway, fields, &product_key, &name) {
            Ok((secret, change)) => {
                answers.changes.extend(change);
                successes.push(json!({"deviceName": name, "deviceSecret": secret, "productKey": product_key}));
            }
            Err((code, message)) => {
                failures.push(json!({"code": code, "deviceName": name, "message": message, "productKey": product_key}));
            }
        }
    }
    Ok(json!({"failures": failures, "successes": successes}))
}

fn by_proxy(
    uplink: &Uplink<'_>,
    gateway: &Device,
    fields: &Value,
    product_key: &str,
    name: &str,
) -> Result<(String, Option<Change>), Failure> {
    let (random, sign) = text(fields, "random").zip(text(fields, "sign")).ok_or(BAD_PARAMETERS)?;
    let digest = connect::digest(sign_method(fields).as_deref()).ok_or(BAD_PARAMETERS)?;
    let product = connect::product(uplink.registry, product_key).ok_or(NOT_FOUND)?;
    if !register::signed(product, name, &random, digest, sign.as_bytes()) {
        return Err(WRONG_SIGNATURE);
    }
    let (device, expect) = register::candidate(uplink.registry, product, name, Some(&gateway.id), uplink.now_ms)
        .map_err(|why| match why {
            register::Why::Unknown | register::Why::Name => NOT_FOUND,
            register::Why::Frozen => DISABLED,
            register::Why::Off | register::Why::Active | register::Why::SubDevice => FORBIDDEN,
        })?;
    let (secret, change) = register::secret_of(device, expect, &seed(uplink, product_key, name));
    Ok((secret.expose().to_owned(), change))
}

/// What the secret of one device among several is made of.
fn seed(uplink: &Uplink<'_>, product_key: &str, name: &str) -> [u8; 32] {
    sha256(&[&uplink.entropy, product_key.as_bytes(), b"/", name.as_bytes()].concat())
}
