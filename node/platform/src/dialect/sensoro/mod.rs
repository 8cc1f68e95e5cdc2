//! Sensoro's push service: applications that listen for the records of their sensors. They are no devices of the
//! registry; one AppID may have many clients.

mod push;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};

pub use push::{Unencryptable, push, record_topic};

use super::{Publishing, Subscribing, Voice};
use crate::registry::Registry;
use crate::{Admission, ConnectRequest, Dialect, Manners, Refusal, TENANT};

/// What the configuration says about Sensoro's clients.
#[derive(Debug, Clone, Default)]
pub struct Options {}

/// After the AppID and `/`.
const SUFFIX_BYTES_MAX: usize = 36;

pub(crate) const UNKNOWN: Refusal =
    Refusal { reason: ReasonCode::NotAuthorized, detail: "unknown AppID or user, or wrong password" };
const SECRET: Refusal = Refusal { reason: ReasonCode::NotAuthorized, detail: "wrong AppSecret" };
const CLIENT_ID: Refusal = Refusal {
    reason: ReasonCode::NotAuthorized,
    detail: "the client id is not {AppID} or {AppID}/{0 to 36 characters}",
};
const APP_ID: Refusal = Refusal {
    reason: ReasonCode::NotAuthorized,
    detail: "the AppID is no level of a topic, so that no client id says whose it is",
};

/// Decides about a CONNECT; `None` if its user name is no AppID: whether one that only looks like it is refused as one,
/// [`seems_ours`] says.
pub(crate) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    _options: &Options,
) -> Option<Result<Admission, Refusal>> {
    let app = &registry.sensoro_app(request.connect.username.as_deref()?)?.record;
    let judge = || {
        if !app.secret.is(request.connect.password.as_deref().unwrap_or_default()) {
            return Err(SECRET);
        }
        if app.id.is_empty() || app.id.contains(['/', '+', '#', '$']) {
            return Err(APP_ID);
        }
        if !belongs(request.client_id, &app.id) {
            return Err(CLIENT_ID);
        }
        Ok(Admission {
            tenant: ByteString::from_static(TENANT),
            dialect: Dialect::Sensoro,
            identity: ByteString::from(request.client_id),
            voice: Arc::new(Listener { app: app.id.clone() }),
            manners: Manners { qos_max: QoS::AtLeastOnce, no_will: true, no_retain: true, ..Manners::default() },
            oversize: None,
            exclusive_client_id: None,
            changes: Vec::new(),
            greeting: Vec::new(),
        })
    };
    Some(judge())
}

/// Whether a client that nobody knows may be one of an AppID that is not there (yet): its client id begins with its
/// user name. It is then told so in the way that such clients understand, whether or not there is a user of that name.
pub(crate) fn seems_ours(request: &ConnectRequest<'_>) -> bool {
    request.connect.username.as_deref().is_some_and(|name| {
        request.client_id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether the client id is the AppID, or the AppID, `/` and at most 36 letters, digits, `-` and `_`.
fn belongs(client_id: &str, app: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    client_id.strip_prefix(app).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('/')
                .is_some_and(|suffix| suffix.len() <= SUFFIX_BYTES_MAX && suffix.bytes().all(is_letter))
    })
}

/// A client that was let in. It may listen for the records of its own AppID, and nothing else.
#[derive(Debug)]
struct Listener {
    app: Box<str>,
}

impl Voice for Listener {
    fn publishing(&self, _topic: &TopicName) -> Publishing {
        Publishing::Deny
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        if push::app_of(filter.as_str()) == Some(&*self.app) {
            Subscribing::Grant(QoS::AtLeastOnce)
        } else {
            Subscribing::Deny
        }
    }
}
