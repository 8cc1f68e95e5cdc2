//! CONNECT: the client id with its parameters, the signature, and what a device is let in with.

use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::{QoS, ReasonCode};

use super::{Grace, Options, register, token, voice};
use crate::dialect::crypto::{Digest, hex_is, hmac};
use crate::registry::{Device, Kept, Product, Registry};
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal};

/// Characters of a client id before its parameters. The platform documents 64; an older SDK for Node appends 25 to
/// product key and device name, which alone may have 44.
const CLIENT_ID_CHARS_MAX: usize = 128;

/// Seconds of keep alive: below, a device is refused; above, it is held to the most.
const KEEP_ALIVE_S: std::ops::RangeInclusive<u16> = 30..=1200;

/// Bytes of a whole packet. A larger PUBLISH is dropped, and acknowledged: devices would send it again for ever.
pub(crate) const PACKET_BYTES_MAX: u32 = 256 * 1024;

const MALFORMED: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the client id or its parameters are malformed" };
const KEEP_ALIVE: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the keep alive is below 30 seconds" };
pub(super) const WRONG: Refusal =
    Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "unknown product or device, or a wrong signature" };
const NAME: Refusal =
    Refusal { reason: ReasonCode::NotAuthorized, detail: "product key or device name cannot stand in a topic" };

/// `{cid}|k1=v1,k2=v2,...|`, leniently: white space around keys and values, unknown keys, any order, and a missing last
/// `|` are borne.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientId<'a> {
    /// As it stands, white space and all: it is signed.
    pub(super) id: &'a str,
    parameters: &'a str,
}

impl<'a> ClientId<'a> {
    /// `None` without an id, with one that is too long, with something that is no `k=v`.
    pub(super) fn parse(text: &'a str) -> Option<ClientId<'a>> {
        let (id, rest) = text.split_once('|').unwrap_or((text, ""));
        let rest = rest.trim();
        let client_id = ClientId { id, parameters: rest.strip_suffix('|').unwrap_or(rest) };
        let fits = !id.is_empty() && id.chars().nth(CLIENT_ID_CHARS_MAX).is_none();
        (fits && client_id.pairs().all(|pair| pair.is_some())).then_some(client_id)
    }

    fn pairs(&self) -> impl Iterator<Item = Option<(&'a str, &'a str)>> {
        let pairs = self.parameters.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())))
    }

    /// Of two parameters of one name the first counts.
    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.pairs().flatten().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// The digest of a `signmethod`: MD5 where none is named. `None` for one that is not known.
pub(super) fn digest(name: Option<&str>) -> Option<Digest> {
    match name.map(str::to_ascii_lowercase).as_deref() {
        None | Some("hmacmd5") => Some(Digest::Md5),
        Some("hmacsha1") => Some(Digest::Sha1),
        Some("hmacsha256" | "sha256") => Some(Digest::Sha256),
        Some(_) => None,
    }
}

/// What a device signs: names and values in alphabetical order of the names.
pub(super) fn content(client_id: &str, name: &str, product_key: &str, timestamp: Option<&str>) -> String {
    let mut content = format!("clientId{client_id}deviceName{name}productKey{product_key}");
    if let Some(timestamp) = timestamp {
        content.push_str("timestamp");
        content.push_str(timestamp);
    }
    content
}

/// Whether one of the device's secrets made this signature.
pub(super) fn signed(device: &Device, digest: Digest, content: &str, sign: &[u8]) -> bool {
    let secrets = [&device.auth.secret, &device.auth.secondary_secret];
    secrets.into_iter().flatten().any(|secret| {
        !secret.expose().is_empty() && hex_is(&hmac(digest, secret.expose().as_bytes(), content.as_bytes()), sign)
    })
}

/// The product of this key, if it is one of this dialect.
pub(super) fn product<'a>(registry: &'a Registry, key: &str) -> Option<&'a Arc<Product>> {
    registry.product(key).map(|product| &product.record).filter(|product| product.dialect == Dialect::Aliyun)
}

/// Seconds of keep alive in force where they are not those of CONNECT.
fn keep_alive(seconds: u16) -> Result<Option<u16>, Refusal> {
    if seconds < *KEEP_ALIVE_S.start() {
        return Err(KEEP_ALIVE);
    }
    Ok((seconds > *KEEP_ALIVE_S.end()).then_some(*KEEP_ALIVE_S.end()))
}

/// User name `{dn}&{pk}`: a device with its secret or with the token of an earlier registration, or one that registers.
pub(super) fn with_signature(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
    product_key: &str,
    name: &str,
) -> Result<Admission, Refusal> {
    let client_id = ClientId::parse(request.client_id).ok_or(MALFORMED)?;
    let digest = digest(client_id.parameter("signmethod")).ok_or(MALFORMED)?;
    let manners = manners(request, options)?;
    let product = product(registry, product_key).ok_or(WRONG)?;
    let password = request.connect.password.as_deref().unwrap_or_default();
    let auth_type = client_id.parameter("authType");
    if let Some(kind) = auth_type.and_then(register::Kind::parse) {
        return register::admit(
            request,
            registry,
            options,
            &register::Asked { kind, client_id, digest, product, name },
        );
    }
    let (device, _) = registry.device_of(product_key, name).ok_or(WRONG)?;
    let proven = if auth_type == Some("connwl") {
        !password.is_empty() && device.record.auth.token.as_ref().is_some_and(|token| token.is(password))
    } else {
        let content = content(client_id.id, name, product_key, client_id.parameter("timestamp"));
        signed(&device.record, digest, &content, password)
    };
    if !proven {
        return Err(WRONG);
    }
    let auto = client_id.parameter("_ss") == Some("1");
    admission(request, options, product, &device.record, Coming { client_id, manners, auto })
}

/// User name `iotId`, password `iotToken`: a device after pre-authentication.
pub(super) fn with_token(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
    product: &Arc<Product>,
    device: &Kept<Device>,
) -> Result<Admission, Refusal> {
    let client_id = ClientId::parse(request.client_id).ok_or(MALFORMED)?;
    let manners = manners(request, options)?;
    let password = request.connect.password.as_deref().unwrap_or_default();
    if !registry.key().is_some_and(|key| token::is_valid(key, device, password, request.now_ms)) {
        return Err(Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "the token is wrong or too old" });
    }
    let auto = client_id.parameter("_ss") == Some("1");
    admission(request, options, product, &device.record, Coming { client_id, manners, auto })
}

/// How a device comes that has proven who it is.
struct Coming<'a> {
    client_id: ClientId<'a>,
    manners: Manners,
    auto: bool,
}

pub(super) fn manners(request: &ConnectRequest<'_>, options: &Options) -> Result<Manners, Refusal> {
    Ok(Manners {
        qos_max: QoS::AtLeastOnce,
        no_will: true,
        no_retain: true,
        keep_alive_s: keep_alive(request.connect.keep_alive_s)?,
        keep_alive_grace_s: match options.keep_alive_grace {
            Grace::Half => None,
            Grace::Seconds(seconds) => Some(seconds),
        },
        ..Manners::default()
    })
}

fn admission(
    request: &ConnectRequest<'_>,
    options: &Options,
    product: &Arc<Product>,
    device: &Arc<Device>,
    coming: Coming<'_>,
) -> Result<Admission, Refusal> {
    super::super::may_connect(device, request)?;
    let voice = voice::Spoken::new(product.clone(), device.clone(), coming.auto).ok_or(NAME)?;
    let admission = Admission::of_device(Dialect::Aliyun, device, Arc::new(voice), coming.manners, PACKET_BYTES_MAX);
    let exclusive_client_id = options.exclusive_client_id.then(|| ByteString::from(coming.client_id.id));
    Ok(Admission { exclusive_client_id, ..admission })
}
