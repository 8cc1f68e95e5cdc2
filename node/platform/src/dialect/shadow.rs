//! Shadows as devices hear of them, whatever the dialect: what of a report goes into one, what of it is shown, and what
//! is still wished for.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::time::{compact, parse_iso_ms};
use super::{Dialect, Downlink, aliyun, huawei, tencent};
use crate::model::Model;
use crate::registry::{
    Patch, Product, Registry, SHADOW_DEPTH_MAX, SHADOW_SERVICE, Section, ShadowPart, ShadowService, Versioning,
    is_shallow,
};

/// What a report, in the form of [`crate::Told::Properties`], makes of the reported side. Nothing of services that are
/// too deep.
#[must_use]
pub fn reported(services: &Value, now_ms: u64) -> Vec<ShadowPart> {
    let part = |service: &Value| {
        let id = service.get("service_id")?.as_str()?;
        let properties = service.get("properties").filter(|properties| is_shallow(properties, SHADOW_DEPTH_MAX))?;
        let time = service.get("event_time").and_then(Value::as_str).and_then(parse_iso_ms);
        Some(ShadowPart {
            service: id.into(),
            reported: Patch::Merge(properties.as_object()?.clone()),
            desired: Patch::Keep,
            version: Versioning::Keep,
            reported_ms: time.unwrap_or(now_ms),
        })
    };
    services.as_array().into_iter().flatten().filter_map(part).collect()
}

/// `{"properties", "event_time"}`
fn section(section: &Section) -> Value {
    let time = (section.event_ms > 0).then(|| compact(section.event_ms));
    json!({ "properties": section.properties(), "event_time": time })
}

/// The services of a shadow as `[{"service_id", "desired", "reported", "version"}]`: that of this name, or all. Empty for
/// a device without one.
#[must_use]
pub fn services(registry: &Registry, device: &str, service_id: Option<&str>) -> Value {
    let show = |service: &ShadowService| {
        json!({
            "service_id": service.id,
            "desired": section(&service.desired),
            "reported": section(&service.reported),
            "version": service.version,
        })
    };
    let services = registry.shadow(device).map_or(&[][..], |shadow| &shadow.services);
    services.iter().filter(|service| service_id.is_none_or(|wanted| *service.id == *wanted)).map(show).collect()
}

/// The document of a device whose dialect has no services.
pub(crate) fn document(registry: &Registry, device: &str) -> ShadowService {
    registry.shadow(device).and_then(|shadow| shadow.service(SHADOW_SERVICE)).cloned().unwrap_or_default()
}

/// Whether a property may be set, as far as the product says: what its model does not have may be.
fn writable(model: &Model, service: &str, name: &str) -> bool {
    let property = model.service(service).and_then(|service| service.properties.iter().find(|it| it.name == name));
    property.is_none_or(|property| property.writable)
}

/// What is desired of a device, not reported so, and may be set: by service.
fn wishes(registry: &Registry, device: &str, product: &Product) -> Vec<(Box<str>, Map<String, Value>)> {
    let Some(shadow) = registry.shadow(device).filter(|shadow| shadow.differs()) else { return Vec::new() };
    let model = serde_json::from_str(&product.model).ok().and_then(|model| Model::read(&model).ok());
    let model = model.unwrap_or_default();
    let wish = |service: &ShadowService| {
        let mut wished = service.difference();
        wished.retain(|name, _| writable(&model, &service.id, name));
        (!wished.is_empty()).then(|| (service.id.clone(), wished))
    };
    shadow.services.iter().filter_map(wish).collect()
}

/// Something that a device is told of its shadow.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    pub downlink: Downlink,
    /// Of what is wished: another one for other wishes. It need not be told twice on one connection.
    pub digest: u64,
}

/// What a device is to be told because it is desired and not reported. `None`: nothing is, or it has no such device. The
/// answer comes as [`crate::Told::Response`] with this request id, if the dialect has one for it.
#[must_use]
pub fn push(registry: &Registry, device: &str, request_id: &str, now_ms: u64) -> Option<Push> {
    let (kept, _) = registry.device(device)?;
    let product = &registry.product(&kept.record.product_id)?.record;
    let wishes = wishes(registry, device, product);
    if wishes.is_empty() {
        return None;
    }
    let mut digest = DefaultHasher::new();
    for (service, properties) in &wishes {
        service.hash(&mut digest);
        serde_json::to_string(properties).ok()?.hash(&mut digest);
    }
    let downlink = match product.dialect {
        Dialect::Huawei => {
            let set = |(service, properties)| json!({ "service_id": service, "properties": properties });
            let services: Vec<Value> = wishes.into_iter().map(set).collect();
            huawei::call::set_properties(registry.connected_through(device)?, device, request_id, &services)
        }
        Dialect::Aliyun => aliyun::call::control_shadow(&kept.record, &document(registry, device), now_ms),
        Dialect::Tencent => {
            let (_, wished) = wishes.into_iter().find(|(service, _)| **service == *SHADOW_SERVICE)?;
            let version = document(registry, device).version;
            tencent::call::shadow_delta(&kept.record, request_id, &wished, version, now_ms)
        }
        Dialect::Generic | Dialect::Sensoro | Dialect::Application => None,
    };
    Some(Push { downlink: downlink?, digest: digest.finish() })
}
