//! Huawei IoTDA: devices that sign in with `{device_id}_0_{sign}_{timestamp}` and talk under
//! `$oc/devices/{device_id}/`.

pub mod call;
#[cfg(test)]
mod call_tests;
mod events;
mod sub_devices;
#[cfg(test)]
mod sub_devices_tests;
#[cfg(test)]
mod tests;
mod topics;
mod uplink;
#[cfg(test)]
mod uplink_tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use fulmar_mqtt::{QoS, ReasonCode};

use super::certificate::{fingerprint, is_registered, is_vouched_for};
use super::crypto::{Digest, hex_is, hmac};
use super::spaces::Spaces;
use super::time::hour;
use crate::registry::{Auth, AuthKind, Change, Device, Expect, Kept, Record, Registry};
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal};

/// What the configuration says about Huawei's devices.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hours by which the timestamp of a client id with sign 1 may be away from now, either way.
    pub timestamp_tolerance_h: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options { timestamp_tolerance_h: 1 }
    }
}

/// Seconds.
const KEEP_ALIVE: RangeInclusive<u16> = 30..=1200;

pub(super) const PACKET_BYTES_MAX: u32 = 1 << 20;

const HOUR_MS: u64 = 3_600_000;

const CLIENT_ID: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the client id is not {device_id}_0_{0|1}_{hour}" };
const KEEP_ALIVE_RANGE: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the keep alive is not 30 to 1200 s" };
const USER_NAME: Refusal = Refusal {
    reason: ReasonCode::BadUserNameOrPassword,
    detail: "the user name is not the device id of the client id",
};
const UNKNOWN: Refusal = Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "unknown device" };
const TIMESTAMP: Refusal =
    Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "the timestamp of the client id is not the time" };
const PASSWORD: Refusal = Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "wrong password" };
const CERTIFICATE: Refusal = Refusal { reason: ReasonCode::NotAuthorized, detail: "no certificate of this device" };

/// `{device_id}_0_{sign}_{timestamp}`; the device id may have `_` in it.
#[derive(Debug, Clone, Copy)]
struct ClientId<'a> {
    device: &'a str,
    sign: &'a str,
    timestamp: &'a str,
}

impl ClientId<'_> {
    fn parse(text: &str) -> Option<ClientId<'_>> {
        let mut parts = text.rsplitn(4, '_');
        let (timestamp, sign, kind, device) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let well_formed = kind == "0" && matches!(sign, "0" | "1" | "2") && !timestamp.is_empty() && !device.is_empty();
        well_formed.then_some(ClientId { device, sign, timestamp })
    }

    fn has_hour(&self) -> bool {
        self.timestamp.len() == 10 && self.timestamp.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// Whether it is a device that asks to be provisioned: `{id}_0_{scope}` without a password, or
/// `{id}_0_{scope}_{sign}_{hour}`.
fn bootstraps(request: &ConnectRequest<'_>, username: Option<&str>) -> bool {
    let scope = username
        .and_then(|name| request.client_id.strip_prefix(name))
        .and_then(|rest| rest.strip_prefix("_0_"))
        .filter(|scope| !scope.is_empty());
    let signed = |scope: &str| {
        let mut parts = scope.rsplitn(3, '_');
        let hour = parts.next().is_some_and(|hour| hour.len() == 10 && hour.bytes().all(|byte| byte.is_ascii_digit()));
        hour && parts.next().is_some_and(|sign| matches!(sign, "0" | "1" | "2")) && parts.next().is_some()
    };
    scope.is_some_and(|scope| request.connect.password.is_none() || signed(scope))
}

/// Decides about a CONNECT; `None` if it is not one of this dialect: neither is the user name that of a device, nor has
/// the client id the form of one's.
pub(crate) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
) -> Option<Result<Admission, Refusal>> {
    let username = request.connect.username.as_deref();
    let client_id = ClientId::parse(request.client_id);
    let ours = client_id.is_some_and(|id| id.has_hour() || username == Some(id.device))
        || username.is_some_and(|name| device(registry, name).is_some())
        || bootstraps(request, username);
    ours.then(|| judge(request, client_id, registry, options))
}

fn device<'a>(registry: &'a Registry, id: &str) -> Option<&'a Kept<Device>> {
    let (device, _) = registry.device(id)?;
    (registry.dialect_of(&device.record) == Some(Dialect::Huawei)).then_some(device)
}

fn judge(
    request: &ConnectRequest<'_>,
    client_id: Option<ClientId<'_>>,
    registry: &Registry,
    options: &Options,
) -> Result<Admission, Refusal> {
    // Sign 2 would be HMAC-SM3.
    let client_id = client_id.filter(|id| id.sign != "2").ok_or(CLIENT_ID)?;
    if !KEEP_ALIVE.contains(&request.connect.keep_alive_s) {
        return Err(KEEP_ALIVE_RANGE);
    }
    if request.connect.username.as_deref() != Some(client_id.device) {
        return Err(USER_NAME);
    }
    let kept = device(registry, client_id.device).ok_or(UNKNOWN)?;
    let device = &kept.record;
    if !device.gateway_id.is_empty() {
        return Err(super::SUB_DEVICE);
    }
    let changes = match device.auth.kind {
        AuthKind::Secret => {
            check_password(request, client_id, &device.auth, options)?;
            Vec::new()
        }
        AuthKind::Certificate => check_certificate(request, kept, registry)?,
    };
    super::may_connect(device, request)?;
    let manners =
        Manners { qos_max: QoS::AtLeastOnce, no_will: true, no_retain: true, clean: true, ..Manners::default() };
    let voice = Arc::new(topics::Connected { device: device.id.clone(), spaces: Spaces::of(registry) });
    let admission = Admission::of_device(Dialect::Huawei, device, voice, manners, PACKET_BYTES_MAX);
    Ok(Admission { changes, ..admission })
}

/// The password is an HMAC of the secret, under the timestamp of the client id.
fn check_password(
    request: &ConnectRequest<'_>,
    client_id: ClientId<'_>,
    auth: &Auth,
    options: &Options,
) -> Result<(), Refusal> {
    if client_id.sign == "1" {
        let tolerance = i64::from(options.timestamp_tolerance_h);
        let is_hour = |away: i64| {
            let ms = i64::try_from(HOUR_MS).unwrap_or(i64::MAX).saturating_mul(away);
            hour(request.now_ms.saturating_add_signed(ms)) == client_id.timestamp
        };
        if !(-tolerance..=tolerance).any(is_hour) {
            return Err(TIMESTAMP);
        }
    }
    let password = request.connect.password.as_deref().ok_or(PASSWORD)?;
    let is_right = auth.secret.iter().chain(&auth.secondary_secret).any(|secret| {
        let key = client_id.timestamp.as_bytes();
        hex_is(&hmac(Digest::Sha256, key, secret.expose().as_bytes()), password)
    });
    if is_right { Ok(()) } else { Err(PASSWORD) }
}

/// The certificate must be the registered one. A device that has none registered keeps the first one that it comes
/// with.
fn check_certificate(
    request: &ConnectRequest<'_>,
    kept: &Kept<Device>,
    registry: &Registry,
) -> Result<Vec<Change>, Refusal> {
    let device = &kept.record;
    let shown = request.certificate.filter(|_| request.encrypted).ok_or(CERTIFICATE)?;
    if !is_vouched_for(shown, registry, &device.product_id) {
        return Err(CERTIFICATE);
    }
    match is_registered(shown, &device.auth) {
        Some(true) => Ok(Vec::new()),
        Some(false) => Err(CERTIFICATE),
        None => {
            let mut pinned = Device::clone(device);
            pinned.auth.fingerprint = Some(fingerprint(shown));
            let record = Record::Device(Arc::new(pinned));
            Ok(vec![Change::Put { record, expect: Expect::Revision(kept.revision) }])
        }
    }
}
