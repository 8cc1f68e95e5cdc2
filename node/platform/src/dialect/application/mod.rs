//! Applications that take what rules push: clients that sign in with an access key and its code, over MQTT 3.1.1, and
//! subscribe to topics of rule actions. They publish nothing.

#[cfg(test)]
mod tests;
mod topics;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::{Connect, OversizePolicy, Version};
use fulmar_mqtt::{QoS, ReasonCode};

pub use topics::{PREFIX, TOPIC_BYTES_MAX, is_push_topic, is_reserved};

use crate::registry::Registry;
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal, TENANT};

/// What the configuration says about applications.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What `instanceId` of a user name must be, where it is given at all; `None`: anything.
    pub instance_id: Option<Box<str>>,
}

/// Connections of one access key in the whole cluster.
pub const CONNECTIONS_MAX: usize = 10;

/// Bytes of an access code.
pub const ACCESS_CODE_BYTES_MAX: usize = 256;

/// Seconds.
const KEEP_ALIVE: RangeInclusive<u16> = 30..=1200;

/// Milliseconds by which the timestamp of a user name may be away from now, either way.
const TIMESTAMP_TOLERANCE_MS: u64 = 300_000;

const TIMESTAMP_DIGITS: usize = 13;

const SUBSCRIPTIONS_MAX: usize = 100;

/// An application sends nothing that is long.
const PACKET_BYTES_MAX: u32 = 64 * 1024;

/// What a user name of an application begins with, in the order in which everybody writes it.
const MARK: &str = "accessKey=";

const VERSION: Refusal =
    Refusal { reason: ReasonCode::UnsupportedProtocolVersion, detail: "applications speak MQTT 3.1.1" };
const KEEP_ALIVE_RANGE: Refusal =
    Refusal { reason: ReasonCode::ClientIdentifierNotValid, detail: "the keep alive is not 30 to 1200 s" };
const USER_NAME: Refusal = Refusal {
    reason: ReasonCode::BadUserNameOrPassword,
    detail: "the user name is not accessKey={key}|timestamp={13 digits}[|instanceId={id}]",
};
const TIMESTAMP: Refusal = Refusal {
    reason: ReasonCode::BadUserNameOrPassword,
    detail: "the timestamp of the user name is not within 5 minutes of now",
};
const INSTANCE: Refusal =
    Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "the instance of the user name is not this one" };
const CODE: Refusal =
    Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "unknown access key or wrong access code" };

/// `accessKey=..|timestamp=..|instanceId=..`, in any order, with whatever else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UserName<'a> {
    access_key: &'a str,
    timestamp: &'a str,
    instance_id: &'a str,
}

impl UserName<'_> {
    /// `None` if a pair is none, or one that counts is there twice, or a mandatory one is missing or empty.
    fn parse(text: &str) -> Option<UserName<'_>> {
        let (mut access_key, mut timestamp, mut instance_id) = (None, None, None);
        for pair in text.split('|').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            let place = match key {
                "accessKey" => &mut access_key,
                "timestamp" => &mut timestamp,
                "instanceId" => &mut instance_id,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let access_key = access_key.filter(|key| !key.is_empty())?;
        Some(UserName { access_key, timestamp: timestamp?, instance_id: instance_id.unwrap_or_default() })
    }

    /// Milliseconds since 1970.
    fn signed_ms(&self) -> Option<u64> {
        let digits = self.timestamp.len() == TIMESTAMP_DIGITS && self.timestamp.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| self.timestamp.parse().ok()).flatten()
    }
}

/// Decides about a CONNECT; `None` if its user name is not that of an application.
pub(crate) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
) -> Option<Result<Admission, Refusal>> {
    let name = request.connect.username.as_deref().filter(|name| name.starts_with(MARK))?;
    Some(judge(request, name, registry, options))
}

fn judge(
    request: &ConnectRequest<'_>,
    name: &str,
    registry: &Registry,
    options: &Options,
) -> Result<Admission, Refusal> {
    let connect: &Connect = request.connect;
    if connect.version != Version::V311 {
        return Err(VERSION);
    }
    if !KEEP_ALIVE.contains(&connect.keep_alive_s) {
        return Err(KEEP_ALIVE_RANGE);
    }
    let name = UserName::parse(name).ok_or(USER_NAME)?;
    let signed_ms = name.signed_ms().ok_or(USER_NAME)?;
    if signed_ms.abs_diff(request.now_ms) > TIMESTAMP_TOLERANCE_MS {
        return Err(TIMESTAMP);
    }
    let elsewhere = |own: &str| !name.instance_id.is_empty() && name.instance_id != own;
    if options.instance_id.as_deref().is_some_and(elsewhere) {
        return Err(INSTANCE);
    }
    let password = connect.password.as_deref().unwrap_or_default();
    let code = registry.access_code("MQTT").filter(|code| *code.record.access_key == *name.access_key).ok_or(CODE)?;
    if password.len() > ACCESS_CODE_BYTES_MAX || !code.record.access_code.is(password) {
        return Err(CODE);
    }
    let access_key = code.record.access_key.clone();
    let manners = Manners {
        qos_max: QoS::AtMostOnce,
        no_will: true,
        no_retain: true,
        clean: true,
        subscriptions_max: Some(SUBSCRIPTIONS_MAX),
        topic_prefix: PREFIX,
        ..Manners::default()
    };
    Ok(Admission {
        tenant: ByteString::from_static(TENANT),
        dialect: Dialect::Application,
        identity: ByteString::from(format!("{access_key}/{}", request.client_id)),
        voice: Arc::new(topics::Listener::new(access_key, registry)),
        manners,
        oversize: Some((PACKET_BYTES_MAX, OversizePolicy::Close)),
        exclusive_client_id: None,
        changes: Vec::new(),
        greeting: Vec::new(),
    })
}

/// The access key of a session of this dialect, by the identity in its key.
#[must_use]
pub fn access_key_of(identity: &str) -> Option<&str> {
    identity.split_once('/').map(|(access_key, _)| access_key)
}
