//! Tencent IoT Hub: devices that sign in as `{ProductId}{DeviceName}` with a token over their user name, or with a
//! certificate, and talk on `{ProductId}/{DeviceName}/...` and `$.../{ProductId}/{DeviceName}`.

pub mod call;
pub mod http;
#[cfg(test)]
mod register_tests;
mod shadow;
#[cfg(test)]
mod tests;
mod topics;
mod uplink;

use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fulmar_mqtt::{QoS, ReasonCode};

use super::certificate::{is_named, is_registered, is_vouched_for};
use super::crypto::{Digest, hex_is, hmac};
use crate::registry::{Auth, AuthKind, Device, Product, Registry};
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal};

/// What the configuration says about Tencent's devices.
#[derive(Debug, Clone, Default)]
pub struct Options {}

/// Seconds; 0 for no keep alive.
const KEEP_ALIVE: RangeInclusive<u16> = 0..=900;

/// A message of 16 KiB, and what a packet needs beside it: a topic of at most 255 bytes, and its header.
pub(super) const PACKET_BYTES_MAX: u32 = 16 * 1024 + 512;

const PRODUCT_ID_BYTES: usize = 10;

const KEEP_ALIVE_RANGE: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the keep alive is above 900 s" };
const USER_NAME: Refusal = Refusal {
    reason: ReasonCode::BadUserNameOrPassword,
    detail: "the user name is not {client id};{sdkappid};{connid};{expiry}",
};
const UNKNOWN: Refusal = Refusal { reason: ReasonCode::NotAuthorized, detail: "unknown device" };
const EXPIRED: Refusal = Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "the user name has expired" };
const TOKEN: Refusal = Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "wrong token" };
const CERTIFICATE: Refusal = Refusal { reason: ReasonCode::NotAuthorized, detail: "no certificate of this device" };

/// `{ProductId}{DeviceName};{sdkappid};{connid};{expiry}`.
#[derive(Debug, Clone, Copy)]
struct UserName<'a> {
    client_id: &'a str,
    /// Seconds since 1970. Firmware puts in milliseconds, or all nines that fit.
    expiry: u64,
}

impl UserName<'_> {
    fn parse(text: &str) -> Option<UserName<'_>> {
        let mut fields = text.split(';');
        let (client_id, app, connection, expiry) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let well_formed = fields.next().is_none()
            && client_id.len() > PRODUCT_ID_BYTES
            && is_number(app)
            && !connection.is_empty()
            && is_number(expiry);
        // All digits: what does not fit is too far away to matter.
        well_formed.then(|| UserName { client_id, expiry: expiry.parse().unwrap_or(u64::MAX) })
    }
}

/// Decides about a CONNECT; `None` if it is not one of this dialect: neither has the user name the form of a device's,
/// nor is the client id that of a device.
pub(crate) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    _options: &Options,
) -> Option<Result<Admission, Refusal>> {
    let username = request.connect.username.as_deref().and_then(UserName::parse);
    let ours = username.is_some() || find(registry, request.client_id).is_some();
    ours.then(|| judge(request, username, registry))
}

fn find<'a>(registry: &'a Registry, client_id: &str) -> Option<(&'a Arc<Product>, &'a Arc<Device>)> {
    let (product, name) = client_id.split_at_checked(PRODUCT_ID_BYTES)?;
    let product = &registry.product(product)?.record;
    let (device, _) = registry.device_of(&product.id, name)?;
    (product.dialect == Dialect::Tencent).then_some((product, &device.record))
}

fn judge(
    request: &ConnectRequest<'_>,
    username: Option<UserName<'_>>,
    registry: &Registry,
) -> Result<Admission, Refusal> {
    if !KEEP_ALIVE.contains(&request.connect.keep_alive_s) {
        return Err(KEEP_ALIVE_RANGE);
    }
    let username = username.filter(|name| name.client_id == request.client_id).ok_or(USER_NAME)?;
    let (product, device) = find(registry, username.client_id).ok_or(UNKNOWN)?;
    if !device.gateway_id.is_empty() {
        return Err(super::SUB_DEVICE);
    }
    match device.auth.kind {
        AuthKind::Secret => check_token(request, username, &device.auth)?,
        AuthKind::Certificate => check_certificate(request, device, registry)?,
    }
    super::may_connect(device, request)?;
    let manners = Manners {
        qos_max: QoS::AtLeastOnce,
        no_will: true,
        no_retain: true,
        mute_oversize: true,
        ..Manners::default()
    };
    let voice = Arc::new(topics::Connected::new(product.clone(), &device.node_id));
    let admission = Admission::of_device(Dialect::Tencent, device, voice, manners, PACKET_BYTES_MAX);
    Ok(admission)
}

/// The token is an HMAC of the user name, in hexadecimal; after it the password says which.
fn check_token(request: &ConnectRequest<'_>, username: UserName<'_>, auth: &Auth) -> Result<(), Refusal> {
    let password = request.connect.password.as_deref().unwrap_or_default();
    let mut parts = password.rsplitn(2, |byte| *byte == b';');
    let digest = match parts.next() {
        Some(b"hmacsha1") => Digest::Sha1,
        Some(b"hmacsha256") => Digest::Sha256,
        _ => return Err(TOKEN),
    };
    let token = parts.next().ok_or(TOKEN)?;
    let signed = request.connect.username.as_deref().unwrap_or_default();
    let is_right = auth.secret.iter().chain(&auth.secondary_secret).any(|secret| {
        let key = BASE64.decode(secret.expose());
        key.is_ok_and(|key| hex_is(&hmac(digest, &key, signed.as_bytes()), token))
    });
    if !is_right {
        return Err(TOKEN);
    }
    if username.expiry < request.now_ms / 1000 { Err(EXPIRED) } else { Ok(()) }
}

/// The certificate must be the registered one or, where none is registered, name the device. The password counts for
/// nothing.
fn check_certificate(request: &ConnectRequest<'_>, device: &Device, registry: &Registry) -> Result<(), Refusal> {
    let shown = request.certificate.filter(|_| request.encrypted).ok_or(CERTIFICATE)?;
    let is_bound = is_registered(shown, &device.auth).unwrap_or_else(|| is_named(shown, request.client_id));
    if is_bound && is_vouched_for(shown, registry, &device.product_id) { Ok(()) } else { Err(CERTIFICATE) }
}
