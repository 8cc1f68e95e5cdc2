//! Dynamic registration: a device that knows the secret of its product gets one of its own, or a token.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};
use serde_json::json;

use super::Options;
use super::connect::{self, ClientId, WRONG};
use crate::dialect::crypto::{Digest, hex_is, hmac, random_text, sha256};
use crate::dialect::{Downlink, Publishing, Subscribing, Voice};
use crate::registry::{Change, Device, Expect, Product, Record, Registration, Registry};
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal, Secret, TENANT, WRONG_HOST, asks_for_another};

/// Characters of secrets and tokens that are made here: 160 bits.
const SECRET_CHARS: usize = 32;

/// Characters of a device name that a device may choose for itself.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 4..=32;

/// What a device asks for over MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `authType=register`: its secret.
    Secret,
    /// `authType=regnwl`: a token.
    Token,
}

impl Kind {
    pub(super) fn parse(auth_type: &str) -> Option<Kind> {
        match auth_type {
            "register" => Some(Kind::Secret),
            "regnwl" => Some(Kind::Token),
            _ => None,
        }
    }

    fn topic(self) -> &'static str {
        match self {
            Kind::Secret => "/ext/register",
            Kind::Token => "/ext/regnwl",
        }
    }
}

/// Why a device that has proven its product is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It must be in the registry before.
    Unknown,
    /// Its product does not let devices register themselves.
    Off,
    /// It was connected already.
    Active,
    Frozen,
    /// It is a sub-device, and this is not its gateway.
    SubDevice,
    /// A new device may not be named so.
    Name,
}

/// Whether the product's secret made this signature over device and random text.
pub(super) fn signed(product: &Product, name: &str, random: &str, digest: Digest, sign: &[u8]) -> bool {
    let content = format!("deviceName{name}productKey{}random{random}", product.id);
    product.secret.as_ref().is_some_and(|secret| {
        !secret.expose().is_empty() && hex_is(&hmac(digest, secret.expose().as_bytes(), content.as_bytes()), sign)
    })
}

/// The device that may register itself under this name: as it is in the registry, or a new one. `gateway`: the id of the
/// gateway that it registers through; a sub-device does so only through its own.
pub(super) fn candidate(
    registry: &Registry,
    product: &Product,
    name: &str,
    gateway: Option<&str>,
    now_ms: u64,
) -> Result<(Device, Expect), Why> {
    if product.registration == Registration::Off {
        return Err(Why::Off);
    }
    let Some((kept, presence)) = registry.device_of(&product.id, name) else {
        return match product.registration {
            Registration::Open if is_name(name) => {
                Ok((Device::new(&product.id, &product.app_id, name, now_ms), Expect::Absent))
            }
            Registration::Open => Err(Why::Name),
            Registration::Known | Registration::Off => Err(Why::Unknown),
        };
    };
    if kept.record.frozen {
        Err(Why::Frozen)
    } else if !kept.record.gateway_id.is_empty() && gateway != Some(&*kept.record.gateway_id) {
        Err(Why::SubDevice)
    } else if presence.active_ms != 0 {
        Err(Why::Active)
    } else {
        Ok(((*kept.record).clone(), Expect::Revision(kept.revision)))
    }
}

/// The device's secret, and the change that gives it one if it has none.
pub(super) fn secret_of(mut device: Device, expect: Expect, entropy: &[u8; 32]) -> (Secret, Option<Change>) {
    if let (Some(secret), Expect::Revision(_)) = (&device.auth.secret, expect) {
        return (secret.clone(), None);
    }
    let secret = Secret::new(&random_text(entropy, SECRET_CHARS));
    device.auth.secret = Some(secret.clone());
    (secret, Some(Change::Put { record: Record::Device(Arc::new(device)), expect }))
}

fn is_name(name: &str) -> bool {
    NAME_CHARS.contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte))
}

/// A CONNECT that registers.
pub(super) struct Asked<'a> {
    pub(super) kind: Kind,
    pub(super) client_id: ClientId<'a>,
    pub(super) digest: Digest,
    pub(super) product: &'a Product,
    pub(super) name: &'a str,
}

/// Lets a device in that may do nothing but hear its answer. The session is nobody's: a live one of the device stays.
pub(super) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
    asked: &Asked<'_>,
) -> Result<Admission, Refusal> {
    let refused = |detail| Refusal { reason: ReasonCode::NotAuthorized, detail };
    let Asked { kind, client_id, digest, product, name } = *asked;
    let password = request.connect.password.as_deref().unwrap_or_default();
    let random = client_id.parameter("random").unwrap_or_default();
    if !signed(product, name, random, digest, password) {
        return Err(WRONG);
    }
    if !request.encrypted && !options.plain_auth {
        return Err(refused("devices register over TLS only"));
    }
    // It has no device yet by which the host would be judged.
    if asks_for_another(request, registry, &product.id) {
        return Err(WRONG_HOST);
    }
    let (mut device, expect) = candidate(registry, product, name, None, request.now_ms).map_err(|why| match why {
        Why::Unknown | Why::Name => WRONG,
        Why::Off => refused("devices of the product may not register themselves"),
        Why::Active => refused("the device was connected before and is not registered again"),
        Why::Frozen => refused("the device is disabled"),
        Why::SubDevice => refused("a sub-device is registered through its gateway"),
    })?;
    let (answer, changes) = match kind {
        Kind::Secret => {
            let (secret, change) = secret_of(device, expect, &request.entropy);
            (json!({"productKey": product.id, "deviceName": name, "deviceSecret": secret.expose()}), change)
        }
        Kind::Token => {
            let token = random_text(&request.entropy, SECRET_CHARS);
            device.auth.token = Some(Secret::new(&token));
            let answer =
                json!({"clientId": client_id.id, "productKey": product.id, "deviceName": name, "deviceToken": token});
            (answer, Some(Change::Put { record: Record::Device(Arc::new(device)), expect }))
        }
    };
    let topic = TopicName::new(kind.topic()).map_err(|_| WRONG)?;
    // The secret is made of the entropy: the identity, which everyone may see, must not tell it.
    let unique = hex::encode(&sha256(&[b"identity".as_slice(), &request.entropy].concat())[..16]);
    Ok(Admission {
        tenant: ByteString::from_static(TENANT),
        dialect: Dialect::Aliyun,
        identity: ByteString::from(format!("register/{name}&{}/{unique}", product.id)),
        voice: Arc::new(Silent),
        manners: Manners { clean: true, ..connect::manners(request, options)? },
        oversize: None,
        exclusive_client_id: None,
        changes: changes.into_iter().collect(),
        greeting: vec![Downlink { topic, payload: Bytes::from(answer.to_string()), qos: QoS::AtMostOnce }],
    })
}

/// A device that registers: it has no rights, and hears its answer without having asked.
#[derive(Debug)]
struct Silent;

impl Voice for Silent {
    fn publishing(&self, _topic: &TopicName) -> Publishing {
        Publishing::Deny
    }

    fn subscribing(&self, _filter: &TopicFilter) -> Subscribing {
        Subscribing::Deny
    }

    fn implicit(&self, topic: &TopicName) -> Option<QoS> {
        [Kind::Secret, Kind::Token].iter().any(|kind| kind.topic() == topic.as_str()).then_some(QoS::AtLeastOnce)
    }
}
