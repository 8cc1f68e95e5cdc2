//! Aliyun IoT Platform: devices that sign with their own secret, with a token, or register themselves with the secret of
//! their product; Alink JSON on `/sys/...`, and gateways that speak for sub-devices.

mod alink;
pub mod call;
mod connect;
mod gateway;
pub mod http;
mod register;
mod services;
#[cfg(test)]
mod tests;
mod token;
mod told;
mod topics;
mod voice;

pub(crate) use self::connect::PACKET_BYTES_MAX;
use crate::dialect::Dialect;
use crate::registry::{Device, Endpoint, ObjectId, Registry};
use crate::{Admission, ConnectRequest, Refusal};

/// What the configuration says about Aliyun's devices.
#[derive(Debug, Clone)]
pub struct Options {
    pub keep_alive_grace: Grace,
    /// A connection is closed by another device of its product that comes with the same client id.
    pub exclusive_client_id: bool,
    /// What pre-authentication tells devices to connect to, where neither device nor product says it; without it
    /// `localhost:1883`, which serves devices on the node's own machine only.
    pub endpoint: Option<Endpoint>,
    /// Pre-authentication and registration are answered without TLS too.
    pub plain_auth: bool,
}

/// How long after its keep alive a silent device is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Half of the keep alive, as MQTT has it.
    Half,
    Seconds(u16),
}

impl Default for Options {
    fn default() -> Options {
        Options { keep_alive_grace: Grace::Seconds(5), exclusive_client_id: true, endpoint: None, plain_auth: false }
    }
}

/// Decides about a CONNECT; `None` if it is not one of this dialect: a user name with `&` whose product is Aliyun's or
/// whose client id has parameters, or a user name that is the id of an Aliyun device (`iotId`).
pub(crate) fn admit(
    request: &ConnectRequest<'_>,
    registry: &Registry,
    options: &Options,
) -> Option<Result<Admission, Refusal>> {
    let username = request.connect.username.as_deref()?;
    // A product key has no `&`, a device name may.
    if let Some((name, product_key)) = username.rsplit_once('&') {
        let known = registry.product(product_key).is_some_and(|product| product.record.dialect == Dialect::Aliyun);
        return (known || request.client_id.contains('|'))
            .then(|| connect::with_signature(request, registry, options, product_key, name));
    }
    let (device, _) = ObjectId::parse(username).and_then(|id| registry.device_by_oid(id))?;
    let product = registry.product(&device.record.product_id)?;
    (product.record.dialect == Dialect::Aliyun)
        .then(|| connect::with_token(request, registry, options, &product.record, device))
}

/// Whether a topic names this device, and no other.
pub(crate) fn is_topic_of(device: &Device, topic: &str) -> bool {
    topics::Place::parse(topic)
        .is_some_and(|place| *place.product_key == *device.product_id && *place.name == *device.node_id)
}

/// Whether devices of a product that defines no custom topics may subscribe to this one.
pub(crate) fn hears_by_default(custom: &str) -> bool {
    topics::DEFAULT_SUBSCRIBE.contains(&custom)
}
