//! What a device and the platform's services tell each other under `sys/events`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sub_devices;
use super::uplink::{ENTRIES_MAX, Reading, event_time, parse};
use crate::dialect::Told;
use crate::dialect::time::compact;
use crate::registry::{Change, Device, Expect, Record};

const VERSION_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
struct Events {
    #[serde(default)]
    object_device_id: Value,
    services: Vec<Event>,
}

#[derive(Deserialize)]
pub(super) struct Event {
    pub(super) service_id: String,
    pub(super) event_type: String,
    #[serde(default)]
    event_time: Value,
    #[serde(default)]
    pub(super) event_id: Option<Value>,
    #[serde(default)]
    pub(super) paras: Value,
}

pub(super) fn read(reading: &mut Reading<'_>, payload: &[u8]) -> Result<(), &'static str> {
    let Events { object_device_id, services } = parse(payload)?;
    let device = reading.whose(&object_device_id)?;
    if services.len() > ENTRIES_MAX {
        return Err("more than 50 events in one message");
    }
    for event in services {
        match (&*event.service_id, &*event.event_type) {
            ("$time_sync", "time_sync_request") => time(reading, &device, event)?,
            ("$sdk_info", "sdk_info_report") | ("$ota", "version_report") => versions(reading, &device, &event.paras)?,
            ("$sub_device_manager", _) => sub_devices::read(reading, event)?,
            ("$ota", "upgrade_progress_report") => {
                reading.report(&device, Told::Upgrade(Bytes::from(event.paras.to_string())));
            }
            _ => {
                let Event { service_id, event_type, paras, .. } = &event;
                let mut told = json!({"service_id": service_id, "event_type": event_type, "paras": paras});
                if let Some(time) = event_time(&event.event_time) {
                    told["event_time"] = time.into();
                }
                reading.report(&device, Told::Event(told));
            }
        }
    }
    Ok(())
}

/// The device computes its own time from when it has asked and when it was answered.
fn time(reading: &mut Reading<'_>, device: &str, event: Event) -> Result<(), &'static str> {
    let now_ms = reading.uplink.now_ms;
    let mut paras = json!({"server_recv_time": now_ms, "server_send_time": now_ms});
    if let Some(sent) = event.paras.get("device_send_time") {
        paras["device_send_time"] = sent.clone();
    }
    let answer = down(device, ("$time_sync", "time_sync_response"), event.event_id, now_ms, &paras);
    reading.answer("sys/events/down", &answer)
}

/// An event that the platform sends: on `sys/events/down`.
pub(super) fn down(
    device: &str,
    (service_id, event_type): (&str, &str),
    event_id: Option<Value>,
    now_ms: u64,
    paras: &Value,
) -> Value {
    let mut event = json!({
        "service_id": service_id, "event_type": event_type, "event_time": compact(now_ms), "paras": paras,
    });
    if let Some(id) = event_id {
        event["event_id"] = id;
    }
    json!({"object_device_id": device, "services": [event]})
}

/// What it does not tell stays as it was.
fn versions(reading: &mut Reading<'_>, id: &str, paras: &Value) -> Result<(), &'static str> {
    let told = |name: &str| paras.get(name).and_then(Value::as_str).unwrap_or_default();
    let (firmware, software, sdk) = (told("fw_version"), told("sw_version"), told("device_sdk_version"));
    if [firmware, software, sdk].iter().any(|version| version.len() > VERSION_BYTES_MAX) {
        return Err("a version longer than 256 bytes");
    }
    if let Some((kept, _)) = reading.uplink.registry.device(id) {
        let mut device = Device::clone(&kept.record);
        let told =
            [(&mut device.fw_version, firmware), (&mut device.sw_version, software), (&mut device.sdk_version, sdk)];
        for (version, told) in told {
            if !told.is_empty() {
                *version = told.into();
            }
        }
        if device != *kept.record {
            let record = Record::Device(Arc::new(device));
            reading.answers.changes.push(Change::Put { record, expect: Expect::Revision(kept.revision) });
        }
    }
    reading.report(id, Told::Version { firmware: firmware.into(), software: software.into(), sdk: sdk.into() });
    Ok(())
}
