//! Devices.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{AuthKind, Kind};
use futures_util::Stream;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call, page_json};
use super::streams;
use crate::operations::input::{FingerprintReset, Input};
use crate::operations::{DeviceChange, DeviceFilter, DeviceView, NewDevice, SecretReset, Watched, Which};

/// What a list shows of a device.
fn summary(view: &DeviceView) -> Value {
    let device = &view.device;
    let direct = device.gateway_id.is_empty();
    let tags = device.tags.iter().map(|(key, value)| json!({ "tag_key": key, "tag_value": value }));
    json!({
        "app_id": device.app_id,
        "app_name": view.app.as_ref().map(|app| &app.name),
        "device_id": device.id,
        "node_id": device.node_id,
        "gateway_id": if direct { &device.id } else { &device.gateway_id },
        "device_name": device.name,
        "node_type": if direct { "GATEWAY" } else { "ENDPOINT" },
        "description": device.description,
        "fw_version": device.fw_version,
        "sw_version": device.sw_version,
        "device_sdk_version": device.sdk_version,
        "product_id": device.product_id,
        "product_name": view.product.as_ref().map(|product| &product.name),
        "status": view.status(),
        "tags": tags.collect::<Vec<_>>(),
    })
}

/// All of a device but its secrets.
fn device_json(view: &DeviceView) -> Value {
    let (device, presence) = (&view.device, &view.presence);
    let mut json = summary(view);
    json["create_time"] = time::compact(device.created_ms).into();
    if presence.active_ms > 0 {
        json["connection_status_update_time"] = time::iso_ms(presence.changed_ms).into();
    }
    if presence.active_ms > 0 {
        json["active_time"] = time::iso_ms(presence.active_ms).into();
    }
    let auth = &device.auth;
    let mut info = json!({
        "auth_type": if auth.kind == AuthKind::Certificate { "CERTIFICATES" } else { "SECRET" },
        "secure_access": auth.secure_access,
        "timeout": auth.timeout_s,
    });
    for (member, fingerprint) in
        [("fingerprint", &auth.fingerprint), ("secondary_fingerprint", &auth.secondary_fingerprint)]
    {
        if let Some(fingerprint) = fingerprint {
            info[member] = (&**fingerprint).into();
        }
    }
    json["auth_info"] = info;
    json["modules"] = json!([]);
    if let Ok(info) = serde_json::from_str::<Value>(&device.extension_info) {
        json["extension_info"] = info;
    }
    if let Some(endpoint) = &device.endpoint {
        json["endpoint"] = json!({ "host": endpoint.host, "port": endpoint.port });
    }
    if !device.sensoro_app_id.is_empty() {
        json["sensoro_app_id"] = (&*device.sensoro_app_id).into();
    }
    json
}

fn which_name(which: Which) -> &'static str {
    match which {
        Which::Primary => "PRIMARY",
        Which::Secondary => "SECONDARY",
    }
}

pub(super) async fn add(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let view = call.operations().create_device(&NewDevice::read(&Input::of(&body)?)?).await?;
    let mut json = device_json(&view);
    if let Some(secret) = &view.device.auth.secret {
        json["auth_info"]["secret"] = secret.expose().into();
    }
    Answer::created(&view.device.id, json)
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let (from_ms, to_ms) = (call.time("start_time")?, call.time("end_time")?);
    if from_ms.zip(to_ms).is_some_and(|(from, to)| from > to) {
        return Err(Fault::time_order());
    }
    let filter = DeviceFilter {
        product_id: call.query_owned("product_id"),
        app_id: call.query_owned("app_id"),
        gateway_id: call.query_owned("gateway_id"),
        cascade: call.flag("is_cascade_query")?.unwrap_or(false),
        node_id: call.query_owned("node_id"),
        name: call.query_owned("device_name"),
        from_ms,
        // Whole seconds are given: the last one counts to its end.
        to_ms: to_ms.map(|to| to + 999),
    };
    let page = call.operations().list_devices(filter, call.paging()?).await?;
    let devices: Vec<Value> = page.items.iter().map(summary).collect();
    Answer::ok(json!({ "devices": devices, "page": page_json(&page) }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    Answer::ok(device_json(&call.operations().show_device(call.param("device_id"))?))
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let change = DeviceChange::read(&Input::of(&body)?)?;
    Answer::ok(device_json(&call.operations().update_device(call.param("device_id"), &change).await?))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete(Kind::Device, call.param("device_id")).await?;
    Answer::empty()
}

/// `POST /devices/{device_id}/action?action_id=resetSecret`
pub(super) async fn action(call: Call) -> Result<Answer, Fault> {
    if call.query("action_id") != Some("resetSecret") {
        return Err(Fault::invalid("action_id must be resetSecret"));
    }
    let body = call.json()?;
    let reset = SecretReset::read(&Input::of(&body)?)?;
    let id = call.param("device_id");
    let secret = call.operations().reset_secret(id, &reset).await?;
    Answer::ok(json!({ "device_id": id, "secret": secret.expose(), "secret_type": which_name(reset.which) }))
}

pub(super) async fn freeze(call: Call) -> Result<Answer, Fault> {
    call.operations().freeze(call.param("device_id"), true).await?;
    Answer::empty()
}

pub(super) async fn unfreeze(call: Call) -> Result<Answer, Fault> {
    call.operations().freeze(call.param("device_id"), false).await?;
    Answer::empty()
}

pub(super) async fn reset_fingerprint(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let reset = FingerprintReset::read(&Input::of(&body)?)?;
    let id = call.param("device_id");
    let operations = call.operations();
    let kept =
        operations.reset_fingerprint(id, reset.fingerprint.as_deref(), reset.which, reset.force_disconnect).await?;
    Answer::ok(json!({
        "device_id": id, "fingerprint": kept.unwrap_or_default(), "fingerprint_type": which_name(reset.which),
    }))
}

pub(super) async fn change_gateway(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let gateway = Input::of(&body)?.required("gateway_id")?;
    Answer::ok(device_json(&call.operations().change_gateway(call.param("device_id"), &gateway).await?))
}

/// `POST /devices/{device_id}/certificate`
pub(super) async fn issue_certificate(call: Call) -> Result<Answer, Fault> {
    let id = call.param("device_id");
    let issued = call.operations().issue_certificate(id).await?;
    let json = json!({
        "device_id": id,
        "certificate": issued.certificate_pem,
        "private_key": issued.key_pem.expose(),
        "ca_certificate": issued.ca_pem,
        "fingerprint": issued.fingerprint,
    });
    Answer::created(id, json)
}

pub(super) fn watch(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let watched = || {
        let document = call.document()?;
        let input = Input::of(&document)?;
        Ok(Watched::Devices { product_id: input.text("product_id")?, device_id: input.text("device_id")? })
    };
    let watched = watched();
    streams::watch(&call, watched)
}
