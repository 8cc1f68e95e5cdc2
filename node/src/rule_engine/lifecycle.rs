//! Events that follow from the log: devices and products that come, change and go, and devices that connect and leave.
//! Every node hears of them; the one that is chosen for the device or product tells its rules.

use fulmar_platform::dialect::time;
use fulmar_platform::event::{Event, Subject};
use fulmar_platform::registry::{self, AuthKind, Device, Product, Record, Registry, Status};
use serde_json::{Value, json};

/// What a change of the registry is to rules, and the name by which the node is chosen that tells them.
pub(super) fn subject(event: &registry::Event) -> Option<(Subject, &str)> {
    use registry::Event as E;
    Some(match event {
        E::Created(Record::Device(device)) => (Subject::DeviceCreate, &device.id),
        E::Updated(Record::Device(device)) => (Subject::DeviceUpdate, &device.id),
        E::Deleted(Record::Device(device)) => (Subject::DeviceDelete, &device.id),
        E::Created(Record::Product(product)) => (Subject::ProductCreate, &product.id),
        E::Updated(Record::Product(product)) => (Subject::ProductUpdate, &product.id),
        E::Deleted(Record::Product(product)) => (Subject::ProductDelete, &product.id),
        E::Status(status) => (Subject::StatusUpdate, &status.device.id),
        E::Created(_) | E::Updated(_) | E::Deleted(_) | E::Desired(_) | E::Told(..) => return None,
    })
}

/// The resource space that a change of the registry is in.
pub(super) fn app_id(event: &registry::Event) -> &str {
    use registry::Event as E;
    match event {
        E::Created(record) | E::Updated(record) | E::Deleted(record) => match record {
            Record::Device(device) => &device.app_id,
            Record::Product(product) => &product.app_id,
            _ => "",
        },
        E::Status(status) => &status.device.app_id,
        E::Desired(device) | E::Told(device, _) => &device.app_id,
    }
}

/// A change of the registry as rules see it.
pub(super) fn event(change: &registry::Event, registry: &Registry, now_ms: u64, request_id: &str) -> Option<Event> {
    use registry::Event as E;
    let (subject, _) = subject(change)?;
    let (device, at_ms, body) = match change {
        E::Created(record) | E::Updated(record) | E::Deleted(record) => match record {
            Record::Device(device) if subject == Subject::DeviceDelete => (Some(device), now_ms, json!({})),
            Record::Device(device) => (Some(device), now_ms, device_body(device, registry)),
            Record::Product(product) => (None, now_ms, product_body(product, registry)),
            _ => return None,
        },
        E::Status(status) => (Some(&status.device), status.at_ms, status_body(status)),
        E::Desired(_) | E::Told(..) => return None,
    };
    Some(Event {
        subject,
        app_id: app_id(change).into(),
        device: device.cloned(),
        request_id: request_id.into(),
        at_ms,
        body: body.into(),
        flat: Value::Null.into(),
    })
}

fn status_body(status: &Status) -> Value {
    let (at, name) = (status.at_ms, if status.online { "ONLINE" } else { "OFFLINE" });
    let mut body = json!({ "status": name, "status_update_time": time::iso_ms(at) });
    if status.online {
        body["last_online_time"] = time::compact(at).into();
    }
    body
}

/// Without anything that a device shows to be itself.
fn device_body(device: &Device, registry: &Registry) -> Value {
    let status = match registry.device(&device.id) {
        _ if device.frozen => "FROZEN",
        Some((_, presence)) if presence.online => "ONLINE",
        Some((_, presence)) if presence.active_ms > 0 => "OFFLINE",
        _ => "INACTIVE",
    };
    let tags = device.tags.iter().map(|(key, value)| json!({ "tag_key": key, "tag_value": value }));
    let app_name = registry.app(&device.app_id).map(|app| app.record.name.clone());
    let product_name = registry.product(&device.product_id).map(|product| product.record.name.clone());
    json!({
        "app_id": device.app_id,
        "app_name": app_name,
        "device_id": device.id,
        "node_id": device.node_id,
        "gateway_id": if device.gateway_id.is_empty() { &device.id } else { &device.gateway_id },
        "device_name": device.name,
        "node_type": if device.gateway_id.is_empty() { "GATEWAY" } else { "ENDPOINT" },
        "description": device.description,
        "fw_version": device.fw_version,
        "sw_version": device.sw_version,
        "auth_info": {
            "auth_type": match device.auth.kind {
                AuthKind::Secret => "SECRET",
                AuthKind::Certificate => "CERTIFICATES",
            },
            "secure_access": device.auth.secure_access,
            "timeout": device.auth.timeout_s,
        },
        "product_id": device.product_id,
        "product_name": product_name,
        "status": status,
        "create_time": time::compact(device.created_ms),
        "tags": tags.collect::<Value>(),
    })
}

fn product_body(product: &Product, registry: &Registry) -> Value {
    json!({
        "app_id": product.app_id,
        "app_name": registry.app(&product.app_id).map(|app| app.record.name.clone()),
        "product_id": product.id,
        "name": product.name,
        "device_type": product.device_type,
        "protocol_type": product.protocol_type,
        "data_format": product.data_format,
        "manufacturer_name": product.manufacturer_name,
        "industry": product.industry,
        "description": product.description,
        "create_time": time::compact(product.created_ms),
    })
}
