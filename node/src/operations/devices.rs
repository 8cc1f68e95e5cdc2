//! Devices: adding, finding, changing; their secrets and fingerprints.

use std::sync::Arc;

use fulmar_broker::state::State;
use fulmar_platform::registry::{
    App, Auth, AuthKind, Device, Endpoint, Kept, Kind, ObjectId, Presence, Product, Record, Registry,
};
use fulmar_platform::{Dialect, Secret};

use super::apps::app_of;
use super::{Error, Operations, Page, Target, check, page, secrets};

/// Levels of gateways above a device.
const GATEWAYS_MAX: usize = 2;

/// A device to add.
#[derive(Debug, Clone, Default)]
pub struct NewDevice {
    /// Huawei's only; `{product_id}_{node_id}` where it is missing.
    pub id: Option<String>,
    pub node_id: String,
    pub product_id: String,
    pub app_id: Option<String>,
    pub gateway_id: Option<String>,
    pub certificate: bool,
    pub secret: Option<Secret>,
    pub fingerprint: Option<String>,
    /// What is desired of it: `[{"service_id", "desired"}]`.
    pub shadow: Option<serde_json::Value>,
    pub settings: DeviceChange,
}

/// What may be said of a device; what is missing stays, or has its default.
#[derive(Debug, Clone, Default)]
pub struct DeviceChange {
    pub name: Option<String>,
    pub description: Option<String>,
    /// JSON text; empty: none.
    pub extension_info: Option<String>,
    pub secure_access: Option<bool>,
    /// Seconds in which it must have connected once; 0: no such time.
    pub timeout_s: Option<u32>,
    /// `Some(None)` takes it away.
    pub endpoint: Option<Option<(String, u16)>>,
    /// The application of Sensoro's push service that gets its records; empty: none.
    pub sensoro_app_id: Option<String>,
}

/// Which of two secrets or fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    #[default]
    Primary,
    Secondary,
}

/// A new secret of a device. One that is missing is made up.
#[derive(Debug, Clone, Default)]
pub struct SecretReset {
    pub secret: Option<Secret>,
    pub which: Which,
    /// Closes the device's connection.
    pub force_disconnect: bool,
}

/// Which devices are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    pub product_id: Option<String>,
    pub app_id: Option<String>,
    pub gateway_id: Option<String>,
    /// Also those of gateways behind the gateway.
    pub cascade: bool,
    pub node_id: Option<String>,
    /// Part of the name.
    pub name: Option<String>,
    /// Milliseconds since 1970, of the creation; both included.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    pub limit: usize,
    /// Only what is older.
    pub marker: ObjectId,
    /// How many of these are passed over.
    pub offset: usize,
}

/// A device with what it belongs to.
#[derive(Debug, Clone)]
pub struct DeviceView {
    pub oid: ObjectId,
    pub device: Arc<Device>,
    pub presence: Presence,
    pub app: Option<Arc<App>>,
    pub product: Option<Arc<Product>>,
}

impl DeviceView {
    fn of(registry: &Registry, kept: &Kept<Device>, presence: &Presence) -> DeviceView {
        DeviceView {
            oid: kept.oid,
            device: kept.record.clone(),
            presence: presence.clone(),
            app: registry.app(&kept.record.app_id).map(|app| app.record.clone()),
            product: registry.product(&kept.record.product_id).map(|product| product.record.clone()),
        }
    }

    /// Online only where a node that is alive has its connection; the registry alone does not know.
    fn seen_by(mut self, state: &State) -> DeviceView {
        self.presence.online = state.device_online(&self.device.id);
        self
    }

    /// `FROZEN`, `INACTIVE`, `ONLINE` or `OFFLINE`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match &self.presence {
            _ if self.device.frozen => "FROZEN",
            presence if presence.online => "ONLINE",
            presence if presence.active_ms == 0 => "INACTIVE",
            _ => "OFFLINE",
        }
    }
}

/// Whether devices of a dialect may authenticate by certificate.
pub(super) fn has_certificates(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Huawei | Dialect::Tencent)
}

fn check_node_id(dialect: Dialect, node_id: &str) -> Result<(), Error> {
    match dialect {
        Dialect::Aliyun => check::word("node_id", node_id, 64, ".@:"),
        Dialect::Tencent => check::word("node_id", node_id, 48, ":"),
        _ => check::word("node_id", node_id, 64, ""),
    }
}

impl DeviceChange {
    fn apply(&self, device: &mut Device) -> Result<(), Error> {
        if let Some(name) = &self.name {
            check::text("device_name", name, 0, 256)?;
            device.name = name.as_str().into();
        }
        if let Some(description) = &self.description {
            check::text("description", description, 0, check::DESCRIPTION_CHARS_MAX)?;
            device.description = description.as_str().into();
        }
        if let Some(info) = &self.extension_info {
            if info.len() > check::EXTENSION_BYTES_MAX {
                let problem = format!("must have at most {} bytes as JSON", check::EXTENSION_BYTES_MAX);
                return Err(Error::invalid("extension_info", problem));
            }
            device.extension_info = info.as_str().into();
        }
        device.auth.secure_access = self.secure_access.unwrap_or(device.auth.secure_access);
        device.auth.timeout_s = self.timeout_s.unwrap_or(device.auth.timeout_s);
        match &self.endpoint {
            Some(Some((host, port))) => {
                check::endpoint("endpoint", host, *port)?;
                device.endpoint = Some(Endpoint { host: host.as_str().into(), port: *port });
            }
            Some(None) => device.endpoint = None,
            None => {}
        }
        if let Some(app) = &self.sensoro_app_id {
            device.sensoro_app_id = app.as_str().into();
        }
        Ok(())
    }
}

/// Walks from a gateway up to the device that connects by itself.
///
/// # Errors
/// A gateway is missing, there are too many, or they are each other's.
fn check_gateway(registry: &Registry, device: &str, gateway: &str) -> Result<(), Error> {
    let mut at = gateway.to_owned();
    for _ in 0..GATEWAYS_MAX {
        if at == device {
            return Err(Error::invalid("gateway_id", "would make the device its own gateway"));
        }
        let (kept, _) = registry.device(&at).ok_or_else(|| Error::missing(Kind::Device, &at))?;
        if kept.record.gateway_id.is_empty() {
            return Ok(());
        }
        at = kept.record.gateway_id.to_string();
    }
    Err(Error::invalid("gateway_id", format!("is behind {GATEWAYS_MAX} gateways already")))
}

impl Operations {
    /// Its secret is in the answer.
    ///
    /// # Errors
    /// The id is taken, something that it refers to is missing, or something is unusable.
    pub async fn create_device(&self, new: &NewDevice) -> Result<DeviceView, Error> {
        let (product, app_id) = self.read(|registry| {
            let product = registry
                .product(&new.product_id)
                .ok_or_else(|| Error::missing(Kind::Product, &new.product_id))?
                .record
                .clone();
            let app = match new.app_id.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => app_of(registry, Some(id))?.record.id.clone(),
                None => product.app_id.clone(),
            };
            Ok::<_, Error>((product, app))
        })?;
        check_node_id(product.dialect, &new.node_id)?;
        let usual = format!("{}_{}", product.id, new.node_id);
        let id = match &new.id {
            Some(id) if product.dialect == Dialect::Huawei => {
                check::word("device_id", id, 128, "")?;
                id.clone()
            }
            Some(id) if *id != usual => {
                return Err(Error::invalid("device_id", "is {product_id}_{node_id} for devices of this product"));
            }
            _ => usual,
        };
        let gateway = new.gateway_id.clone().unwrap_or_default();
        if !gateway.is_empty() && gateway != id {
            self.read(|registry| check_gateway(registry, &id, &gateway))?;
        }
        let fingerprint =
            new.fingerprint.as_deref().map(|text| check::fingerprint("auth_info.fingerprint", text)).transpose()?;
        if let Some(secret) = &new.secret {
            secrets::check_device_secret("auth_info.secret", product.dialect, secret.expose())?;
        }
        let secret = match &new.secret {
            Some(secret) => Some(secret.clone()),
            None => (!new.certificate).then(|| Secret::new(&secrets::device_secret(product.dialect))),
        };
        let mut device = Device {
            id: id.as_str().into(),
            gateway_id: if gateway == id { "".into() } else { gateway.as_str().into() },
            auth: Auth {
                kind: if new.certificate { AuthKind::Certificate } else { AuthKind::Secret },
                secret,
                fingerprint,
                ..Auth::default()
            },
            ..Device::new(&product.id, &app_id, &new.node_id, self.now_ms())
        };
        if new.certificate && !has_certificates(product.dialect) {
            return Err(Error::invalid("auth_info.auth_type", "must be SECRET for devices of this product"));
        }
        new.settings.apply(&mut device)?;
        let body = new.shadow.as_ref().map(|shadow| serde_json::json!({ "shadow": shadow }));
        let wishes = body.map(|body| super::shadows::wishes(product.dialect, &body)).transpose()?;
        self.create(Target { kind: Kind::Device, id: &id }, Record::Device(Arc::new(device))).await?;
        if let Some(wishes) = wishes {
            self.wish(&id, wishes).await?;
        }
        self.show_device(&id)
    }

    /// # Errors
    /// It is not there.
    pub fn show_device(&self, id: &str) -> Result<DeviceView, Error> {
        let state = self.dispatch.replica().read();
        let registry = state.registry();
        let (kept, presence) = registry.device(id).ok_or_else(|| Error::missing(Kind::Device, id))?;
        Ok(DeviceView::of(registry, kept, presence).seen_by(&state))
    }

    /// A page of devices, newest first. With a filter all of them are looked at, away from the threads that serve.
    ///
    /// # Errors
    /// The node is ending.
    pub async fn list_devices(&self, filter: DeviceFilter, paging: Paging) -> Result<Page<DeviceView>, Error> {
        // A clone costs nothing, and nobody waits for it.
        let registry = self.read(Registry::clone);
        if filter == DeviceFilter::default() {
            let listed = registry.devices(Some(paging.marker)).skip(paging.offset).take(paging.limit);
            let items: Vec<_> = listed.map(|(kept, presence)| DeviceView::of(&registry, kept, presence)).collect();
            let page = Page { count: registry.device_count(), marker: items.last().map(|last| last.oid), items };
            return Ok(self.seen(page));
        }
        let list = move || {
            let listed = registry.devices(None).filter(|(kept, _)| filter.takes(&registry, &kept.record));
            let found = page(listed.map(|both| (both.0.oid, both)), &paging);
            let views = found.items.into_iter().map(|(kept, presence)| DeviceView::of(&registry, kept, presence));
            Page { items: views.collect(), count: found.count, marker: found.marker }
        };
        tokio::task::spawn_blocking(list).await.map(|page| self.seen(page)).map_err(|_| Error::Unavailable)
    }

    fn seen(&self, mut page: Page<DeviceView>) -> Page<DeviceView> {
        let state = self.dispatch.replica().read();
        page.items = page.items.into_iter().map(|view| view.seen_by(&state)).collect();
        page
    }

    /// # Errors
    /// It is not there, or something is unusable.
    pub async fn update_device(&self, id: &str, change: &DeviceChange) -> Result<DeviceView, Error> {
        self.change_device(id, |_, device| change.apply(device)).await?;
        self.show_device(id)
    }

    /// The secret is in the answer.
    ///
    /// # Errors
    /// The device is not there, or the secret is unusable.
    pub async fn reset_secret(&self, id: &str, reset: &SecretReset) -> Result<Secret, Error> {
        let dialect = self.read(|registry| {
            let (kept, _) = registry.device(id).ok_or_else(|| Error::missing(Kind::Device, id))?;
            Ok::<_, Error>(registry.dialect_of(&kept.record).unwrap_or(Dialect::Huawei))
        })?;
        let secret = reset.secret.clone().unwrap_or_else(|| Secret::new(&secrets::device_secret(dialect)));
        secrets::check_device_secret("secret", dialect, secret.expose())?;
        self.change_device(id, |_, device| {
            let kept = match reset.which {
                Which::Primary => &mut device.auth.secret,
                Which::Secondary => &mut device.auth.secondary_secret,
            };
            *kept = Some(secret.clone());
            // What it was given instead of a secret ends with it.
            device.auth.token = None;
            Ok(())
        })
        .await?;
        if reset.force_disconnect {
            self.disconnect(id).await?;
        }
        Ok(secret)
    }

    /// Without a fingerprint the next certificate that the device connects with is pinned.
    ///
    /// # Errors
    /// The device is not there, or the fingerprint is none.
    pub async fn reset_fingerprint(
        &self,
        id: &str,
        fingerprint: Option<&str>,
        which: Which,
        force_disconnect: bool,
    ) -> Result<Option<Box<str>>, Error> {
        let fingerprint = fingerprint.map(|text| check::fingerprint("fingerprint", text)).transpose()?;
        self.change_device(id, |_, device| {
            let kept = match which {
                Which::Primary => &mut device.auth.fingerprint,
                Which::Secondary => &mut device.auth.secondary_fingerprint,
            };
            kept.clone_from(&fingerprint);
            Ok(())
        })
        .await?;
        if force_disconnect {
            self.disconnect(id).await?;
        }
        Ok(fingerprint)
    }

    /// Cuts a device and lets it connect no more, or lets it again.
    ///
    /// # Errors
    /// It is not there, or is behind a gateway and not one of Aliyun's: those log in with a signature of their own, directly
    /// or through their gateway, and are refused it.
    pub async fn freeze(&self, id: &str, frozen: bool) -> Result<(), Error> {
        self.change_device(id, |registry, device| {
            if !device.gateway_id.is_empty() && registry.dialect_of(device) != Some(Dialect::Aliyun) {
                return Err(Error::invalid(
                    "device_id",
                    "names a device behind a gateway; only direct ones are frozen",
                ));
            }
            device.frozen = frozen;
            Ok(())
        })
        .await
    }

    /// # Errors
    /// The device or the gateway is not there, or it could not be a gateway of the device.
    pub async fn change_gateway(&self, id: &str, gateway: &str) -> Result<DeviceView, Error> {
        self.change_device(id, |registry, device| {
            if device.gateway_id.is_empty() {
                return Err(Error::invalid("device_id", "names a device that is not behind a gateway"));
            }
            check_gateway(registry, id, gateway)?;
            device.gateway_id = gateway.into();
            Ok(())
        })
        .await?;
        self.show_device(id)
    }

    pub(super) async fn change_device(
        &self,
        id: &str,
        change: impl Fn(&Registry, &mut Device) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.revise(Target { kind: Kind::Device, id }, |registry| {
            let (kept, _) = registry.device(id).ok_or_else(|| Error::missing(Kind::Device, id))?;
            let mut device = (*kept.record).clone();
            change(registry, &mut device)?;
            Ok((Record::Device(Arc::new(device)), kept.revision, ()))
        })
        .await
    }
}

impl DeviceFilter {
    fn takes(&self, registry: &Registry, device: &Device) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.product_id, &device.product_id)
            && is(&self.app_id, &device.app_id)
            && is(&self.node_id, &device.node_id)
            && self.name.as_deref().is_none_or(|part| device.name.contains(part))
            && self.from_ms.is_none_or(|from| device.created_ms >= from)
            && self.to_ms.is_none_or(|to| device.created_ms <= to)
            && self.gateway_id.as_deref().is_none_or(|gateway| self.behind(registry, device, gateway))
    }

    fn behind(&self, registry: &Registry, device: &Device, gateway: &str) -> bool {
        let mut at = device.gateway_id.to_string();
        for _ in 0..GATEWAYS_MAX {
            if at == gateway {
                return true;
            }
            let above = registry.device(&at).filter(|_| self.cascade).map(|(kept, _)| &kept.record.gateway_id);
            match above {
                Some(above) if !above.is_empty() => at = above.to_string(),
                _ => return false,
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
