//! Who a client is and what it may do: the registry of products and devices, the dialects of their firmware, and the
//! seam between CONNECT and the router. Pure: a decision that needs a slow password hash says so and is finished by the
//! caller. Absent here: clocks, files, sockets, randomness, password hashing.
//!
//! [`Platform::admit`] turns (CONNECT, peer, certificate) into a [`Decision`]; the [`Voice`] of an admission says which
//! publishes never reach the router, and answers them.

pub mod acl;
pub mod dialect;
pub mod event;
pub mod filter;
mod generic;
pub mod message;
pub mod model;
pub mod registry;
mod secret;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::ReasonCode;
use fulmar_mqtt::packet::{Connect, OversizePolicy};

pub use acl::{Access, Action, Pattern, PatternError, Permissions, Rule, Who};
pub use dialect::{Answers, Asked, Dialect, Downlink, Publishing, Report, Subscribing, Told, Uplink, Voice};
pub use generic::{Generic, GenericOptions};
pub use secret::Secret;

use registry::{Change, Registry};

/// The tenant of every client: there is one project in a cluster.
pub const TENANT: &str = "default";

/// What a client presents when it connects.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    pub connect: &'a Connect,
    /// The client id in force: that of CONNECT or, where it was empty, the one that the server has assigned.
    pub client_id: &'a str,
    pub peer: SocketAddr,
    /// Whether the client came over TLS.
    pub encrypted: bool,
    /// The host name that the client asked for, by SNI or in the upgrade to WebSocket; without port.
    pub host: Option<&'a str>,
    /// What the client showed in the TLS handshake. It has proven that the key is its own.
    pub certificate: Option<&'a Shown>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Random, for secrets and ids.
    pub entropy: [u8; 32],
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// DER.
    pub certificate: Bytes,
    /// Ids of the authorities of the registry that vouch for it, and are in their time.
    pub authorities: Vec<Box<str>>,
    /// An authority of the listener's configuration vouches for it.
    pub trusted: bool,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// For CONNACK; MQTT 3.x through [`ReasonCode::connack_v3`].
    pub reason: ReasonCode,
    /// For the log; never sent to the client, who might learn from it.
    pub detail: &'static str,
}

/// How a session is held to MQTT, where dialects differ from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// A PUBLISH above it ends the connection, in MQTT 5 with 0x9B.
    pub qos_max: fulmar_mqtt::QoS,
    /// A will is accepted and never published.
    pub no_will: bool,
    /// The retain flag of a PUBLISH counts for nothing.
    pub no_retain: bool,
    /// Seconds of the keep alive in force; `None`: that of CONNECT.
    pub keep_alive_s: Option<u16>,
    /// What is added to the keep alive before a silent client is cut; `None`: half of it, as MQTT has it.
    pub keep_alive_grace_s: Option<u16>,
    /// An oversized PUBLISH that is read past is not acknowledged either.
    pub mute_oversize: bool,
    /// The session ends with its connection, whatever CONNECT says.
    pub clean: bool,
    /// Filters that it may hold; `None`: as many as the node allows anybody.
    pub subscriptions_max: Option<usize>,
    /// What topics of its messages begin with inside of the router, and are written without; see [`Voice::routed`].
    pub topic_prefix: &'static str,
}

impl Default for Manners {
    /// MQTT's.
    fn default() -> Manners {
        Manners {
            qos_max: fulmar_mqtt::QoS::ExactlyOnce,
            no_will: false,
            no_retain: false,
            keep_alive_s: None,
            keep_alive_grace_s: None,
            mute_oversize: false,
            clean: false,
            subscriptions_max: None,
            topic_prefix: "",
        }
    }
}

/// A client that is let in. Holds no part of the read buffer.
#[derive(Debug, Clone)]
pub struct Admission {
    pub tenant: ByteString,
    pub dialect: Dialect,
    /// With tenant and dialect the key of the session: the client id of generic clients and of Sensoro's, access key and
    /// client id of applications, else the id of the device in the registry.
    pub identity: ByteString,
    pub voice: Arc<dyn Voice>,
    pub manners: Manners,
    /// Bytes of a whole packet, and what happens to a larger PUBLISH; `None` leaves the listener's.
    pub oversize: Option<(u32, OversizePolicy)>,
    /// A device of the same product that is connected with this client id is cut.
    pub exclusive_client_id: Option<ByteString>,
    /// Committed in the registry before CONNACK; if one is rejected the client is not let in (0x87).
    pub changes: Vec<Change>,
    /// Sent right after CONNACK, as if subscribed to.
    pub greeting: Vec<Downlink>,
}

/// What became of a CONNECT.
#[derive(Debug)]
pub enum Decision {
    Admit(Box<Admission>),
    Refuse(Refusal),
    /// A password must be verified first. That is slow on purpose (argon2): away from the threads that serve.
    VerifyPassword(Box<Verification>),
}

/// A decision that waits for a password. The outcome is fixed; the verification can only spoil it.
#[derive(Debug)]
pub struct Verification {
    pub(crate) hash: Arc<str>,
    pub(crate) password: Vec<u8>,
    pub(crate) outcome: Result<Admission, Refusal>,
    /// For a wrong password or an unknown user.
    pub(crate) wrong: Refusal,
}

impl Verification {
    /// The PHC string to verify against. For a user that does not exist it is another's, or a dummy: the work is done
    /// all the same, so that time does not tell which users exist.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    #[must_use]
    pub fn password(&self) -> &[u8] {
        &self.password
    }

    /// Ends the decision with what the verification said.
    ///
    /// # Errors
    /// For a wrong password or an unknown user 0x86, or 0x87 if the client may be one of Sensoro's; else what else was
    /// wrong with the CONNECT.
    pub fn finish(self, verified: bool) -> Result<Admission, Refusal> {
        match self.outcome {
            Ok(admission) if verified => Ok(admission),
            Err(refusal) if verified => Err(refusal),
            _ => Err(self.wrong),
        }
    }
}

impl Decision {
    /// Ends the decision in one step, verifying with `verify(hash, password)` if need be. Blocks as long as that does.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub fn settle(self, verify: impl FnOnce(&str, &[u8]) -> bool) -> Result<Admission, Refusal> {
        match self {
            Decision::Admit(admission) => Ok(*admission),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::VerifyPassword(verification) => {
                let verified = verify(verification.hash(), verification.password());
                verification.finish(verified)
            }
        }
    }
}

/// What the configuration says about the dialects of devices.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub huawei: dialect::huawei::Options,
    pub aliyun: dialect::aliyun::Options,
    pub tencent: dialect::tencent::Options,
    pub sensoro: dialect::sensoro::Options,
    pub application: dialect::application::Options,
}

/// All dialects of a node.
#[derive(Debug, Clone)]
pub struct Platform {
    generic: Generic,
    settings: Arc<Settings>,
}

impl Platform {
    #[must_use]
    pub fn new(generic: Generic, settings: Settings) -> Platform {
        Platform { generic, settings: Arc::new(settings) }
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Decides about a CONNECT on a listener that accepts these dialects: see [`Platform::decide`].
    #[must_use]
    pub fn admit(&self, request: &ConnectRequest<'_>, registry: &Registry, accepted: &[Dialect]) -> Decision {
        self.decide(request, registry, accepted).1
    }

    /// Decides about a CONNECT on a listener that accepts these dialects, and says by which of them: the first that takes
    /// it for one of its own, or generic, which takes the rest.
    #[must_use]
    pub fn decide(
        &self,
        request: &ConnectRequest<'_>,
        registry: &Registry,
        accepted: &[Dialect],
    ) -> (Dialect, Decision) {
        // [v5 4.12] enhanced authentication is refused: no dialect has a method.
        if request.connect.properties.authentication_method.is_some() {
            let reason = ReasonCode::BadAuthenticationMethod;
            let refusal = Refusal { reason, detail: "enhanced authentication is not supported" };
            return (Dialect::Generic, Decision::Refuse(refusal));
        }
        let of_device = accepted.iter().find_map(|dialect| {
            let outcome = match dialect {
                Dialect::Generic => None,
                Dialect::Huawei => dialect::huawei::admit(request, registry, &self.settings.huawei),
                Dialect::Aliyun => dialect::aliyun::admit(request, registry, &self.settings.aliyun),
                Dialect::Tencent => dialect::tencent::admit(request, registry, &self.settings.tencent),
                Dialect::Sensoro => dialect::sensoro::admit(request, registry, &self.settings.sensoro),
                Dialect::Application => dialect::application::admit(request, registry, &self.settings.application),
            };
            outcome.map(|outcome| (*dialect, outcome))
        });
        match of_device {
            Some((dialect, outcome)) => {
                let outcome = outcome.and_then(|admission| right_host(request, registry, admission));
                let admitted = |admission| Decision::Admit(Box::new(admission));
                (dialect, outcome.map_or_else(Decision::Refuse, admitted))
            }
            None => {
                // Sensoro's clients know one code for an AppID that is not there. Users of such names get it too, or
                // it would tell which names are users'.
                let may_be_sensoro = accepted.contains(&Dialect::Sensoro) && dialect::sensoro::seems_ours(request);
                let wrong = if may_be_sensoro { dialect::sensoro::UNKNOWN } else { generic::WRONG_PASSWORD };
                let decision = if accepted.contains(&Dialect::Generic) {
                    self.generic.admit(request, registry, wrong)
                } else {
                    Decision::Refuse(if may_be_sensoro { wrong } else { OF_NO_DIALECT })
                };
                (Dialect::Generic, decision)
            }
        }
    }
}

const OF_NO_DIALECT: Refusal = Refusal {
    reason: ReasonCode::BadUserNameOrPassword,
    detail: "not a client of a dialect that this listener accepts",
};

/// Any host name will do, except one that is another product's.
fn right_host(request: &ConnectRequest<'_>, registry: &Registry, admission: Admission) -> Result<Admission, Refusal> {
    match registry.device(&admission.identity) {
        Some((device, _)) if asks_for_another(request, registry, &device.record.product_id) => Err(WRONG_HOST),
        _ => Ok(admission),
    }
}

pub(crate) const WRONG_HOST: Refusal =
    Refusal { reason: ReasonCode::NotAuthorized, detail: "the host name is that of another product" };

/// Whether the host name is one that its vendor gives to the devices of one product, and that product is not this one.
pub(crate) fn asks_for_another(request: &ConnectRequest<'_>, registry: &Registry, product: &str) -> bool {
    let label = request.host.and_then(product_label);
    let meant = label.and_then(|(label, dialect)| Some((registry.product_by_label(label)?, dialect)));
    meant.is_some_and(|(meant, dialect)| meant.record.dialect == dialect && *meant.record.id != *product)
}

/// The label of a host name that stands for a product, and whose product: `{pk}.iot-as-mqtt.{region}...` is Aliyun's,
/// `{pid}.iotcloud...` and `{pid}.{region}.iotcloud...` are Tencent's. Other names and addresses say nothing of products.
fn product_label(host: &str) -> Option<(&str, Dialect)> {
    let mut labels = host.split('.');
    let (label, second, third) = (labels.next()?, labels.next()?, labels.next()?);
    let is = |label: &str, known: &str| label.eq_ignore_ascii_case(known);
    if is(second, "iot-as-mqtt") {
        // Where devices are sent by pre-authentication, whatever their product.
        return (!is(label, "public")).then_some((label, Dialect::Aliyun));
    }
    (is(second, "iotcloud") || is(third, "iotcloud")).then_some((label, Dialect::Tencent))
}
