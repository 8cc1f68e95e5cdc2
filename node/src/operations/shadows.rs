//! Device shadows: what is desired of devices and what they have reported; and what firmware there is for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use fulmar_platform::dialect::{aliyun, huawei, shadow, tencent};
use fulmar_platform::registry::{
    Change, Device, Kind, Patch, Registry, Rejection, SHADOW_BYTES_MAX, SHADOW_DEPTH_MAX, SHADOW_SERVICE,
    SHADOW_SERVICES_MAX, ShadowChange, ShadowPart, Versioning, is_shallow,
};
use fulmar_platform::{Dialect, Downlink};
use serde_json::{Map, Value, json};

use super::input::Input;
use super::{Error, Operations, Target, check, said};

const SERVICE_CHARS_MAX: usize = 64;

const VERSION_CHARS_MAX: usize = 256;

/// Bytes of what a device is told of a firmware, as JSON.
const OFFER_BYTES_MAX: usize = 8 * 1024;

/// What a body wishes: `{"shadow": [{"service_id", "desired", "version"?}]}`. An empty `desired` takes all wishes of the
/// service back, a member that is null one.
///
/// # Errors
/// The body cannot be so; the error names the member.
pub(super) fn wishes(dialect: Dialect, body: &Value) -> Result<Vec<ShadowPart>, Error> {
    let input = Input::of(body)?;
    let services = input.objects("shadow")?.ok_or_else(|| Error::invalid("shadow", "is required"))?;
    if services.is_empty() || services.len() > SHADOW_SERVICES_MAX {
        return Err(Error::invalid("shadow", format!("must have 1 to {SHADOW_SERVICES_MAX} elements")));
    }
    let mut seen = BTreeSet::new();
    let mut parts = Vec::with_capacity(services.len());
    for (at, service) in services.iter().enumerate() {
        let member = |name: &str| format!("shadow[{at}].{name}");
        let id = service.required("service_id")?;
        check::text(&member("service_id"), &id, 1, SERVICE_CHARS_MAX)?;
        if dialect != Dialect::Huawei && id != SHADOW_SERVICE {
            let problem = format!("must be {SHADOW_SERVICE}: devices of this product have no services");
            return Err(Error::invalid(&member("service_id"), problem));
        }
        if !seen.insert(id.clone()) {
            return Err(Error::invalid(&member("service_id"), format!("{id:?} is there twice")));
        }
        let desired = service.value("desired").ok_or_else(|| Error::invalid(&member("desired"), "is required"))?;
        let properties = desired.as_object();
        let properties = properties.ok_or_else(|| Error::invalid(&member("desired"), "must be an object"))?;
        if !is_shallow(desired, SHADOW_DEPTH_MAX) {
            let problem = format!("must have at most {SHADOW_DEPTH_MAX} levels");
            return Err(Error::invalid(&member("desired"), problem));
        }
        let version = service.number("version", u64::MAX)?;
        parts.push(ShadowPart {
            service: id.into(),
            reported: Patch::Keep,
            desired: if properties.is_empty() { Patch::Clear } else { Patch::Merge(properties.clone()) },
            version: version.map_or(Versioning::Next, Versioning::After),
            reported_ms: 0,
        });
    }
    Ok(parts)
}

fn found<'a>(registry: &'a Registry, id: &str) -> Result<(&'a Arc<Device>, Dialect), Error> {
    let (kept, _) = registry.device(id).ok_or_else(|| Error::missing(Kind::Device, id))?;
    Ok((&kept.record, registry.dialect_of(&kept.record).unwrap_or(Dialect::Huawei)))
}

impl Operations {
    /// `{"device_id", "shadow": [{"service_id", "desired", "reported", "version"}]}`
    ///
    /// # Errors
    /// There is no such device.
    pub fn show_shadow(&self, device: &str) -> Result<Value, Error> {
        self.read(|registry| {
            found(registry, device)?;
            Ok(json!({ "device_id": device, "shadow": shadow::services(registry, device, None) }))
        })
    }

    /// Changes what is desired of a device: the body of `PUT .../shadow`. Gives the shadow as `GET` shows it.
    ///
    /// # Errors
    /// There is no such device, or a version does not agree; the error names the member.
    pub async fn update_shadow(&self, device: &str, body: &Value) -> Result<Value, Error> {
        let dialect = self.read(|registry| found(registry, device).map(|(_, dialect)| dialect))?;
        self.wish(device, wishes(dialect, body)?).await?;
        self.show_shadow(device)
    }

    pub(super) async fn wish(&self, device: &str, parts: Vec<ShadowPart>) -> Result<(), Error> {
        let change = Change::Shadow { device: device.into(), change: ShadowChange::Update(parts) };
        self.commit(change).await?.map(|_| ()).map_err(|rejection| match rejection {
            Rejection::Conflict => Error::Version { id: device.to_owned() },
            Rejection::TooLarge => {
                let problem = format!("would make a shadow of more than {SHADOW_BYTES_MAX} bytes or 500 services");
                Error::invalid("shadow", problem)
            }
            other => said(&Target { kind: Kind::Device, id: device }, &other),
        })
    }

    /// Forgets what is desired of a device and what it has reported.
    ///
    /// # Errors
    /// There is no such device.
    pub async fn delete_shadow(&self, device: &str) -> Result<(), Error> {
        let change = Change::Shadow { device: device.into(), change: ShadowChange::Delete };
        let rejected = self.commit(change).await?;
        rejected.map(|_| ()).map_err(|rejection| said(&Target { kind: Kind::Device, id: device }, &rejection))
    }

    /// Tells a device of a firmware or software: `kind` is `firmware` or `software`; `document` has at least `version` and
    /// an https `url`. Done once the notice is on its way; how far the upgrade is comes as reports.
    ///
    /// # Errors
    /// There is no such device, it is not online, its dialect has no upgrades, or the document cannot be so.
    pub async fn offer_upgrade(&self, device: &str, kind: &str, document: &Value) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let offer = self.read(|registry| {
            let (record, dialect) = found(registry, device)?;
            let document = Offer::read(document)?;
            match (dialect, kind) {
                (_, kind) if !matches!(kind, "firmware" | "software") => {
                    Err(Error::invalid("type", "must be firmware or software"))
                }
                (Dialect::Huawei, kind) => {
                    let connected = registry.connected_through(device).unwrap_or(device);
                    document.huawei(connected, device, kind, now_ms)
                }
                (Dialect::Aliyun, _) => document.aliyun(record, now_ms),
                (Dialect::Tencent, "firmware") => document.tencent(record),
                _ => Err(Error::invalid("type", "is not one that devices of this product have")),
            }
        })?;
        self.tell(device, offer).await
    }

    /// Asks a device of Huawei's for the versions of its firmware and software; they come into its record.
    ///
    /// # Errors
    /// There is no such device, it is not online, or its dialect does not have that.
    pub async fn query_version(&self, device: &str) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let query = self.read(|registry| match found(registry, device)? {
            (_, Dialect::Huawei) => {
                let connected = registry.connected_through(device).unwrap_or(device);
                Ok(huawei::call::query_version(connected, device, now_ms))
            }
            _ => Err(Error::invalid("device_id", "names a device that cannot be asked: it tells by itself")),
        })?;
        self.tell(device, query).await
    }

    /// Has the node that a device is connected to send it something. It goes through the log, so that whichever node that
    /// is then sends it, and once.
    async fn tell(&self, device: &str, downlink: Option<Downlink>) -> Result<(), Error> {
        let downlink = downlink.ok_or_else(|| Error::invalid("device_id", "does not fit into a topic"))?;
        if downlink.payload.len() > OFFER_BYTES_MAX {
            return Err(Error::invalid("body", format!("must have at most {OFFER_BYTES_MAX} bytes as JSON")));
        }
        if self.dispatch.replica().read().device_owner(device).is_none() {
            return Err(Error::Offline);
        }
        match self.commit(Change::Tell { device: device.into(), downlink }).await? {
            Ok(_) => Ok(()),
            Err(Rejection::Conflict) => Err(Error::Offline),
            Err(rejection) => Err(said(&Target { kind: Kind::Device, id: device }, &rejection)),
        }
    }
}

/// A firmware or software as the document of an upgrade describes it.
struct Offer<'a> {
    input: Input<'a>,
    members: &'a Map<String, Value>,
    version: String,
    url: String,
}

impl<'a> Offer<'a> {
    fn read(document: &'a Value) -> Result<Offer<'a>, Error> {
        let input = Input::of(document)?;
        let members = document.as_object().ok_or_else(|| Error::invalid("body", "must be an object"))?;
        let (version, url) = (input.required("version")?, input.required("url")?);
        check::text("version", &version, 1, VERSION_CHARS_MAX)?;
        let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
        let plain = url.chars().all(|c| c.is_ascii_graphic());
        if host.is_none_or(str::is_empty) || !plain {
            return Err(Error::invalid("url", "must be an https URL: firmware is not fetched without TLS"));
        }
        Ok(Offer { input, members, version, url })
    }

    fn size(&self, names: [&'static str; 2]) -> Result<u64, Error> {
        let [name, other] = names;
        let size = match self.input.number(name, u64::MAX)? {
            None => self.input.number(other, u64::MAX)?,
            size => size,
        };
        size.filter(|size| *size > 0).ok_or_else(|| Error::invalid(name, "is required, in bytes"))
    }

    /// A text that must be there, under one of two names.
    fn text(&self, name: &'static str, other: &'static str) -> Result<String, Error> {
        let text = self.input.text(name)?.or(self.input.text(other)?).filter(|text| !text.is_empty());
        text.ok_or_else(|| Error::invalid(name, "is required"))
    }

    /// Any members, as they are; with `"v2": true` the form of packages that are elsewhere than at the platform.
    fn huawei(&self, connected: &str, device: &str, kind: &str, now_ms: u64) -> Result<Option<Downlink>, Error> {
        let form = if self.input.flag("v2")?.unwrap_or(false) { "_v2" } else { "" };
        let mut package = self.members.clone();
        package.retain(|name, _| name != "v2" && name != "type");
        Ok(huawei::call::offer_upgrade(connected, device, &format!("{kind}_upgrade{form}"), now_ms, package))
    }

    /// Firmware in the field drops a notice of which anything is missing.
    fn aliyun(&self, device: &Device, now_ms: u64) -> Result<Option<Downlink>, Error> {
        let sign_method = match &*self.text("sign_method", "signMethod")? {
            "Md5" => "Md5",
            "SHA256" => "SHA256",
            _ => return Err(Error::invalid("sign_method", "must be Md5 or SHA256")),
        };
        let sign = self.text("sign", "md5sum")?;
        let digits = if sign_method == "Md5" { 32 } else { 64 };
        if sign.len() != digits || !sign.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid("sign", format!("must be {digits} hexadecimal digits in lower case")));
        }
        let module = self.input.text("module")?;
        let firmware = aliyun::call::Firmware {
            size: self.size(["size", "file_size"])?,
            version: &self.version,
            url: &self.url,
            sign_method,
            sign: &sign,
            module: module.as_deref(),
        };
        Ok(aliyun::call::offer_firmware(device, now_ms, &firmware))
    }

    fn tencent(&self, device: &Device) -> Result<Option<Downlink>, Error> {
        if self.version.chars().count() > 32 {
            return Err(Error::invalid("version", "must have 1 to 32 characters"));
        }
        let md5sum = self.text("md5sum", "sign")?;
        let firmware = tencent::call::Firmware {
            file_size: self.size(["file_size", "size"])?,
            md5sum: &md5sum,
            url: &self.url,
            version: &self.version,
        };
        Ok(tencent::call::offer_firmware(device, &firmware))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong<T>(outcome: Result<T, Error>) -> String {
        outcome.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn wishes_are_read() {
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!([deep]);
        }
        for (body, error) in [
            (json!({}), "shadow is required"),
            (json!({"shadow": []}), "shadow must have 1 to 500 elements"),
            (json!({"shadow": {}}), "shadow must be a list"),
            (json!({"shadow": [1]}), "shadow[0] must be an object"),
            (json!({"shadow": [{"desired": {}}]}), "shadow[0].service_id is required"),
            (json!({"shadow": [{"service_id": 1}]}), "shadow[0].service_id must be a string"),
            (json!({"shadow": [{"service_id": ""}]}), "shadow[0].service_id must have 1 to 64 characters"),
            (json!({"shadow": [{"service_id": "a"}]}), "shadow[0].desired is required"),
            (json!({"shadow": [{"service_id": "a", "desired": 1}]}), "shadow[0].desired must be an object"),
            (
                json!({"shadow": [{"service_id": "a", "desired": {"x": deep}}]}),
                "shadow[0].desired must have at most 16",
            ),
            (
                json!({"shadow": [{"service_id": "a", "desired": {}, "version": -1}]}),
                "shadow[0].version must be a whole number",
            ),
            (
                json!({"shadow": [{"service_id": "a", "desired": {}}, {"service_id": "a", "desired": {}}]}),
                "shadow[1].service_id \"a\" is there twice",
            ),
        ] {
            let said = wrong(wishes(Dialect::Huawei, &body));
            assert!(said.starts_with(error), "{body}: {said}");
        }
        let body = json!({"shadow": [
            {"service_id": "a", "desired": {"x": null}, "version": 3}, {"service_id": "b", "desired": {}},
        ]});
        let parts = wishes(Dialect::Huawei, &body).unwrap();
        assert_eq!(parts.iter().map(|part| part.version).collect::<Vec<_>>(), [Versioning::After(3), Versioning::Next]);
        assert!(matches!(&parts[0].desired, Patch::Merge(members) if members["x"].is_null()));
        assert_eq!(parts[1].desired, Patch::Clear);
        assert!(wrong(wishes(Dialect::Tencent, &body)).starts_with("shadow[0].service_id must be default"));
    }

    #[test]
    fn offers_are_read() {
        let device = Device::new("p", "a", "n", 0);
        let md5 = "0123456789abcdef0123456789abcdef";
        let good = || json!({"version": "2", "url": "https://h/f.bin", "size": 3, "sign": md5, "sign_method": "Md5"});
        let with = |name: &str, value: Value| {
            let mut document = good();
            document[name] = value;
            document
        };
        let as_aliyun = |document: &Value| Offer::read(document)?.aliyun(&device, 7);
        let sent = as_aliyun(&good()).unwrap().unwrap();
        assert_eq!(sent.topic.as_str(), "/ota/device/upgrade/p/n");
        for (document, error) in [
            (json!([]), "body must be an object"),
            (with("version", json!(null)), "version is required"),
            (with("version", json!("")), "version must have 1 to 256"),
            (with("url", json!(null)), "url is required"),
            (with("url", json!("http://h/f.bin")), "url must be an https URL"),
            (with("url", json!("https:///f.bin")), "url must be an https URL"),
            (with("url", json!("https://h/f f")), "url must be an https URL"),
            (with("size", json!(0)), "size is required"),
            (with("size", json!("3")), "size must be a whole number"),
            (with("sign", json!("")), "sign is required"),
            (with("sign", json!("XY")), "sign must be 32 hexadecimal digits"),
            (with("sign_method", json!("SHA256")), "sign must be 64 hexadecimal digits"),
            (with("sign_method", json!("sha1")), "sign_method must be Md5 or SHA256"),
        ] {
            let said = wrong(as_aliyun(&document));
            assert!(said.starts_with(error), "{document}: {said}");
        }
        let as_tencent = |document: &Value| Offer::read(document)?.tencent(&device);
        assert_eq!(as_tencent(&good()).unwrap().unwrap().topic.as_str(), "$ota/update/p/n");
        assert!(wrong(as_tencent(&with("version", json!("x".repeat(33))))).starts_with("version must have 1 to 32"));
        let document = with("v2", json!(true));
        let sent = Offer::read(&document).unwrap().huawei("g", "p_n", "software", 0).unwrap().unwrap();
        let event: Value = serde_json::from_slice(&sent.payload).unwrap();
        assert_eq!(
            (&event["services"][0]["event_type"], &event["object_device_id"]),
            (&json!("software_upgrade_v2"), &json!("p_n"))
        );
        assert_eq!(event["services"][0]["paras"], good());
    }
}
