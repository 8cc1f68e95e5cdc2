//! What is not Alink: time, answers to requests of the platform, firmware versions, the shadow.

use serde_json::{Map, Value, json};

use super::alink::{self, Request, downlink};
use super::told;
use super::voice::Space;
use crate::dialect::{Answers, Report, Told, Uplink};

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

/// `/shadow/update/{pk}/{dn}`. Reported state is passed on; but none is kept, so that getting it finds none, and whoever
/// wants it changed or deleted is told so.
pub(super) fn shadow(uplink: &Uplink<'_>, space: &Space, answers: &mut Answers) {
    let request = serde_json::from_slice::<Map<String, Value>>(uplink.payload).ok();
    let method = request.as_ref().map(|request| request.get("method").and_then(Value::as_str));
    let state = || request.as_ref().and_then(|request| request.get("state"));
    let refused = match method {
        None => Some(("400", "not a JSON object")),
        Some(None) => Some(("401", "no method")),
        Some(Some("get")) => None,
        Some(Some("update" | "delete")) if !state().is_some_and(Value::is_object) => Some(("402", "no state")),
        Some(Some("update")) => {
            let reported = state().and_then(|state| state.get("reported")).and_then(told::properties);
            let request_id = hex::encode(uplink.entropy);
            answers.reports.extend(reported.map(|told| report(space, &request_id, Told::Properties(told))));
            Some(("500", "the shadow is not kept"))
        }
        Some(Some("delete")) => Some(("500", "the shadow is not kept")),
        Some(Some(_)) => Some(("406", "no such method")),
    };
    let payload = match refused {
        None => json!({"status": "success", "version": 0}),
        Some((code, message)) => {
            json!({"status": "error", "content": {"errorcode": code, "errormessage": message}})
        }
    };
    answers.problem = refused.map(|(_, message)| message);
    let reply = json!({"method": "reply", "payload": payload, "timestamp": uplink.now_ms / 1000});
    let topic = format!("/shadow/get/{}/{}", space.product.id, space.device.node_id);
    answers.downlinks.extend(downlink(&topic, reply.to_string()));
}
