//! Reads what a device says to the platform, and answers what the hub answers by itself.

use std::sync::Arc;

use fulmar_mqtt::{QoS, TopicName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::shadow;
use super::topics::Use;
use crate::dialect::{Answers, Downlink, Report, Told, Uplink, uuid};
use crate::registry::{Change, Device, Expect, Kept, Record};

const VERSION_CHARS_MAX: usize = 32;

const PROCESS_ID_BYTES_MAX: usize = 256;

pub(super) type Read<T> = Result<T, &'static str>;

#[derive(Deserialize)]
struct HubRequest {
    r#type: String,
    #[serde(default)]
    resource: Vec<String>,
}

#[derive(Deserialize)]
struct Firmware {
    r#type: String,
    #[serde(default)]
    report: Value,
}

/// `own` is `{ProductId}/{DeviceName}`; `last` the last level of the topic where that is free.
pub(super) fn read(own: &str, product_id: &str, usage: Use, last: &str, uplink: &Uplink<'_>) -> Answers {
    let mut answers = Answers::default();
    let name = own.strip_prefix(product_id).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let outcome = match uplink.registry.device_of(product_id, name) {
        Some((device, _)) => understand(own, device, usage, last, uplink, &mut answers),
        None => Err("the device is not in the registry any more"),
    };
    answers.problem = outcome.err();
    answers
}

fn understand(
    own: &str,
    device: &Kept<Device>,
    usage: Use,
    last: &str,
    uplink: &Uplink<'_>,
    answers: &mut Answers,
) -> Read<()> {
    let report = |request_id: &str, what: Told| Report {
        device: device.record.id.clone(),
        request_id: if request_id.is_empty() { uuid(uplink.entropy).into() } else { request_id.into() },
        what,
    };
    match usage {
        Use::Down | Use::Shared => return Err("not a topic of the platform"),
        Use::Message => {
            let message = Told::Message { topic: uplink.topic.clone(), payload: uplink.payload.clone() };
            answers.reports.push(report("", message));
        }
        Use::Called if last.len() > PROCESS_ID_BYTES_MAX => return Err("a process id too long"),
        Use::Called => answers.reports.push(report(last, Told::Response(uplink.payload.clone()))),
        Use::Hub => {
            let request: HubRequest = parse(uplink.payload)?;
            if request.r#type != "get" || !request.resource.iter().any(|resource| resource == "time") {
                return Err("not a request for the time");
            }
            let (s, ms) = (uplink.now_ms / 1000, uplink.now_ms);
            let answer = json!({"type": "get", "time": s, "ntptime1": ms, "ntptime2": ms});
            answers.downlinks.push(downlink("$sys/operation/result/", own, &answer)?);
        }
        Use::Shadow => shadow::read(own, device, uplink, answers)?,
        Use::Firmware => {
            let told: Firmware = parse(uplink.payload)?;
            match &*told.r#type {
                "report_progress" => answers.reports.push(report("", Told::Upgrade(uplink.payload.clone()))),
                "report_version" => {
                    let version = told.report.get("version").and_then(Value::as_str).unwrap_or_default();
                    if !(1..=VERSION_CHARS_MAX).contains(&version.chars().count()) {
                        return Err("no version of 1 to 32 characters");
                    }
                    if *device.record.fw_version != *version {
                        let told = Device { fw_version: version.into(), ..Device::clone(&device.record) };
                        let record = Record::Device(Arc::new(told));
                        answers.changes.push(Change::Put { record, expect: Expect::Revision(device.revision) });
                    }
                    let told = Told::Version { firmware: version.into(), software: "".into(), sdk: "".into() };
                    answers.reports.push(report("", told));
                    let answer = json!({
                        "type": "report_version_rsp", "result_code": 0, "result_msg": "success", "version": version,
                    });
                    answers.downlinks.push(downlink("$ota/update/", own, &answer)?);
                }
                _ => return Err("neither a version nor a progress"),
            }
        }
    }
    Ok(())
}

pub(super) fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Read<T> {
    serde_json::from_slice(payload).map_err(|_| "not the JSON that belongs on this topic")
}

pub(super) fn downlink(before: &str, own: &str, answer: &Value) -> Read<Downlink> {
    let topic = TopicName::new(format!("{before}{own}")).map_err(|_| "a topic that is none")?;
    Ok(Downlink { topic, payload: answer.to_string().into(), qos: QoS::AtLeastOnce })
}
