//! `$sub_device_manager`: what a gateway asks about the devices behind it, and is told of them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::events::{Event, down};
use super::uplink::{ENTRIES_MAX, Reading};
use crate::Dialect;
use crate::registry::{Auth, Change, Device, Expect, Kind, Record, Rejection};

const SERVICE: &str = "$sub_device_manager";

/// Devices that a gateway is told of when it asks for all.
const SYNCED_MAX: usize = 2000;

const NODE_ID_CHARS_MAX: usize = 64;
const DEVICE_ID_CHARS_MAX: usize = 128;
const NAME_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 2048;
const EXTENSION_BYTES_MAX: usize = 1024;

/// A code and its text.
type Failure = (&'static str, String);

#[derive(Deserialize)]
struct Adding {
    devices: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    parent_device_id: Value,
    #[serde(default)]
    node_id: String,
    #[serde(default)]
    device_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    product_id: String,
    #[serde(default)]
    extension_info: Value,
}

#[derive(Deserialize)]
struct Deleting {
    devices: Vec<String>,
}

#[derive(Deserialize)]
struct Statuses {
    device_statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    device_id: String,
    status: String,
}

fn paras<'a, T: Deserialize<'a>>(paras: &'a Value) -> Result<T, &'static str> {
    T::deserialize(paras).map_err(|_| "an event of the gateway without what belongs to it")
}

pub(super) fn read(reading: &mut Reading<'_>, event: Event) -> Result<(), &'static str> {
    match &*event.event_type {
        "add_sub_device_request" => add(reading, event),
        "delete_sub_device_request" => delete(reading, event),
        "sub_device_update_status" => statuses(reading, event),
        "sub_device_sync_request" => sync(reading),
        _ => Err("no event of a gateway"),
    }
}

/// Answers by what each change came to; what was refused before is in `failed` already.
fn answer<T: Send + 'static>(
    reading: &mut Reading<'_>,
    event: Event,
    kind: &'static str,
    (asked, mut failed): (Vec<(T, Option<Change>)>, Vec<Value>),
    succeeds: impl Fn(&T) -> Value + Send + 'static,
    fails: impl Fn(&T, Failure) -> Value + Send + 'static,
) {
    let (own, now_ms) = (Box::<str>::from(reading.own), reading.uplink.now_ms);
    let (asked, changes): (Vec<_>, Vec<_>) =
        asked.into_iter().map(|(about, change)| ((about, change.is_some()), change)).unzip();
    let changes: Vec<Change> = changes.into_iter().flatten().collect();
    reading.ask(changes, move |outcomes| {
        let mut outcomes = outcomes.iter();
        let mut successful = Vec::new();
        for (about, changes) in &asked {
            match outcomes.by_ref().take(usize::from(*changes)).next() {
                Some(Err(rejection)) => failed.push(fails(about, failure(rejection))),
                _ => successful.push(succeeds(about)),
            }
        }
        let paras = json!({"successful_devices": successful, "failed_devices": failed});
        down(&own, (SERVICE, kind), event.event_id, now_ms, &paras)
    });
}

fn failure(rejection: &Rejection) -> Failure {
    let code = match rejection {
        Rejection::Exists => "IOTDA.014031",
        Rejection::Missing => "IOTDA.014000",
        Rejection::InUse(_) => "FULMAR.000003",
        Rejection::Conflict => "FULMAR.000004",
        Rejection::Full => "FULMAR.000006",
        Rejection::Dangling(_) | Rejection::TooLarge => "IOTDA.000006",
    };
    (code, format!("The device {rejection}."))
}

fn invalid(problem: &str) -> Failure {
    ("IOTDA.000006", format!("Invalid input data. {problem}"))
}

fn unknown() -> Failure {
    ("IOTDA.014000", "The device does not exist, or is not behind this gateway.".to_owned())
}

fn add(reading: &mut Reading<'_>, event: Event) -> Result<(), &'static str> {
    let Adding { devices } = paras(&event.paras)?;
    if devices.len() > ENTRIES_MAX {
        return Err("more than 50 devices in one request");
    }
    let fails = |node_id: &str, product_id: &str, (code, text): Failure| json!({"node_id": node_id, "product_id": product_id, "error_code": code, "error_msg": text});
    let (mut asked, mut failed) = (Vec::new(), Vec::new());
    for added in devices {
        let (node_id, product_id) = (added.node_id.clone(), added.product_id.clone());
        match device(reading, added) {
            Ok((device, change)) => asked.push((device, change)),
            Err(failure) => failed.push(fails(&node_id, &product_id, failure)),
        }
    }
    let succeeds = |device: &Arc<Device>| info(device, false);
    let fails = move |device: &Arc<Device>, failure: Failure| fails(&device.node_id, &device.product_id, failure);
    answer(reading, event, "add_sub_device_response", (asked, failed), succeeds, fails);
    Ok(())
}

/// The device that a gateway describes, and what adds it; one that is there already, behind the same gateway, stays.
fn device(reading: &Reading<'_>, added: Added) -> Result<(Arc<Device>, Option<Change>), Failure> {
    let registry = reading.uplink.registry;
    let is_word = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let gateway =
        reading.whose(&added.parent_device_id).map_err(|_| invalid("parent_device_id is not of this gateway."))?;
    if !is_word(&added.node_id, NODE_ID_CHARS_MAX) {
        return Err(invalid("node_id must be 1 to 64 letters, digits or signs of _ -."));
    }
    let product = registry.product(&added.product_id).filter(|product| product.record.dialect == Dialect::Huawei);
    let product = product.ok_or_else(|| invalid("product_id names no product."))?;
    let usual = Device::new(&product.record.id, &product.record.app_id, &added.node_id, reading.uplink.now_ms);
    let id = added.device_id.filter(|id| !id.is_empty()).map_or_else(|| usual.id.clone(), Into::into);
    if !is_word(&id, DEVICE_ID_CHARS_MAX) {
        return Err(invalid("device_id must be 1 to 128 letters, digits or signs of _ -."));
    }
    let (name, description) = (added.name.unwrap_or_default(), added.description.unwrap_or_default());
    let extension_info = match &added.extension_info {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        info @ Value::Object(_) => info.to_string(),
        _ => return Err(invalid("extension_info must be an object.")),
    };
    if name.chars().count() > NAME_CHARS_MAX
        || description.chars().count() > DESCRIPTION_CHARS_MAX
        || extension_info.len() > EXTENSION_BYTES_MAX
    {
        return Err(invalid("name, description or extension_info is too long."));
    }
    if let Some((known, _)) = registry.device(&id)
        && known.record.gateway_id == gateway
        && *known.record.product_id == *added.product_id
        && *known.record.node_id == *added.node_id
    {
        return Ok((known.record.clone(), None));
    }
    let device = Arc::new(Device {
        id,
        name: if name.is_empty() { usual.name.clone() } else { name.into() },
        description: description.into(),
        gateway_id: gateway,
        auth: Auth::default(),
        extension_info: extension_info.into(),
        ..usual
    });
    let change = Change::Put { record: Record::Device(device.clone()), expect: Expect::Absent };
    Ok((device, Some(change)))
}

fn of_device(id: &str, (code, text): Failure) -> Value {
    json!({"device_id": id, "error_code": code, "error_msg": text})
}

fn delete(reading: &mut Reading<'_>, event: Event) -> Result<(), &'static str> {
    let Deleting { devices } = paras(&event.paras)?;
    if devices.len() > ENTRIES_MAX {
        return Err("more than 50 devices in one request");
    }
    let (mut asked, mut failed) = (Vec::new(), Vec::new());
    for id in devices {
        if is_behind(reading, &id) {
            let change = Change::Delete { kind: Kind::Device, id: id.as_str().into(), expect: Expect::Anything };
            asked.push((id, Some(change)));
        } else {
            failed.push(of_device(&id, unknown()));
        }
    }
    let fails = |id: &String, failure: Failure| of_device(id, failure);
    answer(reading, event, "delete_sub_device_response", (asked, failed), |id| json!(id), fails);
    Ok(())
}

fn statuses(reading: &mut Reading<'_>, event: Event) -> Result<(), &'static str> {
    let Statuses { device_statuses } = paras(&event.paras)?;
    if device_statuses.len() > ENTRIES_MAX {
        return Err("more than 50 devices in one request");
    }
    let epoch = reading.uplink.registry.device(reading.own).map_or(0, |(_, presence)| presence.epoch);
    let (mut asked, mut failed) = (Vec::new(), Vec::new());
    for Status { device_id, status } in device_statuses {
        let online = match &*status {
            "ONLINE" => true,
            "OFFLINE" => false,
            _ => {
                failed.push(of_device(&device_id, invalid("status must be ONLINE or OFFLINE.")));
                continue;
            }
        };
        if is_behind(reading, &device_id) {
            let change = Change::SubDevice { device: device_id.as_str().into(), epoch, online };
            asked.push(((device_id, status), Some(change)));
        } else {
            failed.push(of_device(&device_id, unknown()));
        }
    }
    let succeeds = |(id, status): &(String, String)| json!({"device_id": id, "status": status});
    let fails = |(id, _): &(String, String), failure: Failure| of_device(id, failure);
    answer(reading, event, "sub_device_update_status_response", (asked, failed), succeeds, fails);
    Ok(())
}

/// A gateway that has been away is told of all devices behind it. What was deleted meanwhile is not kept.
fn sync(reading: &mut Reading<'_>) -> Result<(), &'static str> {
    if !reading.answers.downlinks.is_empty() {
        return Err("asks for all sub-devices beside something else");
    }
    let (registry, own, now_ms) = (reading.uplink.registry, reading.own, reading.uplink.now_ms);
    let direct: Vec<_> = registry.sub_devices(own).take(SYNCED_MAX).collect();
    let deeper = direct.iter().flat_map(|(sub, _)| registry.sub_devices(&sub.record.id));
    let all: Vec<_> = direct.iter().copied().chain(deeper).take(SYNCED_MAX).collect();
    let version = registry.last_revision();
    for some in all.chunks(ENTRIES_MAX) {
        let devices = some.iter().map(|(sub, presence)| (&*sub.record, presence.online));
        reading.answer("sys/events/down", &notice(own, devices, true, version, now_ms))?;
    }
    if all.is_empty() {
        reading.answer("sys/events/down", &notice(own, std::iter::empty(), true, version, now_ms))?;
    }
    Ok(())
}

fn is_behind(reading: &Reading<'_>, id: &str) -> bool {
    reading.whose(&Value::String(id.to_owned())).is_ok_and(|device| *device != *reading.own)
}

/// A device with whether it is online, as gateways hear of it.
fn info(device: &Device, online: bool) -> Value {
    json!({
        "parent_device_id": device.gateway_id,
        "node_id": device.node_id,
        "device_id": device.id,
        "name": device.name,
        "description": device.description,
        "manufacturer_id": "",
        "model": "",
        "product_id": device.product_id,
        "fw_version": device.fw_version,
        "sw_version": device.sw_version,
        "status": if online { "ONLINE" } else { "OFFLINE" },
        "extension_info": extension(device),
    })
}

fn extension(device: &Device) -> Value {
    serde_json::from_str(&device.extension_info).unwrap_or_default()
}

/// Tells of devices that were added, or deleted, behind a gateway.
pub(super) fn notice<'a>(
    gateway: &str,
    devices: impl Iterator<Item = (&'a Device, bool)>,
    added: bool,
    version: u64,
    now_ms: u64,
) -> Value {
    let devices: Vec<Value> = devices.map(|(device, online)| info(device, online)).collect();
    let kind = if added { "add_sub_device_notify" } else { "delete_sub_device_notify" };
    down(gateway, (SERVICE, kind), None, now_ms, &json!({"devices": devices, "version": version}))
}
