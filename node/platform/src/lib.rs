//! Who a client is and what it may do: the seam between CONNECT and the router, and the one for publishes that end in
//! the platform. Pure: a decision that needs a slow password hash says so and is finished by the caller.
//! Absent here: clocks, files, sockets, randomness, hashing.
//!
//! [`Platform::admit`] turns (CONNECT, peer, certificate) into a [`Decision`]; [`terminates`] says which publishes never
//! reach the router. Further dialects are asked inside these two.

pub mod acl;
pub mod filter;
mod generic;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::packet::{Connect, OversizePolicy, SubscribeFilter};
use fulmar_mqtt::{ReasonCode, TopicName};

pub use acl::{Access, Action, Pattern, PatternError, Permissions, Rule, Who};
pub use generic::{Generic, GenericOptions, TENANT_GENERIC};

/// What a client presents when it connects.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    pub connect: &'a Connect,
    /// The client id in force: that of CONNECT or, where it was empty, the one that the server has assigned.
    pub client_id: &'a str,
    pub peer: SocketAddr,
    /// The certificate in DER that the client showed in the TLS handshake, verified by it. Generic clients are not
    /// judged by it.
    pub certificate: Option<&'a Bytes>,
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

/// The rules by which a client speaks and authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Plain MQTT: users, passwords and an access list from the configuration.
    Generic,
}

impl Dialect {
    /// As session keys, logs and metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Generic => "generic",
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How messages are delivered to a client, where dialects differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryOptions {
    /// Whether unacknowledged messages are sent again on a live connection, which [v5 MQTT-4.4.0-1] forbids.
    pub resend_on_live: bool,
}

/// A client that is let in. Holds no part of the read buffer.
#[derive(Debug, Clone)]
pub struct Admission {
    pub tenant: ByteString,
    pub dialect: Dialect,
    /// With tenant and dialect the key of the session; the client id of generic clients.
    pub identity: ByteString,
    pub permissions: Permissions,
    /// Made for the client as if it had subscribed; not subject to its permissions.
    pub implicit_subscriptions: Vec<SubscribeFilter>,
    pub delivery: DeliveryOptions,
    /// Bytes of a whole packet, and what happens to a larger PUBLISH; `None` leaves the listener's.
    pub oversize: Option<(u32, OversizePolicy)>,
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
    /// 0x86 for a wrong password or an unknown user; else what else was wrong with the CONNECT.
    pub fn finish(self, verified: bool) -> Result<Admission, Refusal> {
        match self.outcome {
            Ok(admission) if verified => Ok(admission),
            Err(refusal) if verified => Err(refusal),
            _ => Err(generic::WRONG_PASSWORD),
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

/// All dialects of a node.
#[derive(Debug, Clone)]
pub struct Platform {
    generic: Generic,
}

impl Platform {
    #[must_use]
    pub fn new(generic: Generic) -> Platform {
        Platform { generic }
    }

    /// Decides about a CONNECT.
    #[must_use]
    pub fn admit(&self, request: &ConnectRequest<'_>) -> Decision {
        // [v5 4.12] enhanced authentication is refused: no dialect has a method.
        if request.connect.properties.authentication_method.is_some() {
            return Decision::Refuse(Refusal {
                reason: ReasonCode::BadAuthenticationMethod,
                detail: "enhanced authentication is not supported",
            });
        }
        self.generic.admit(request)
    }
}

/// A publish that ends here instead of being routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminated {
    /// It is acknowledged with this reason; in MQTT 3.x, which has none, it is dropped and acknowledged.
    Refused(ReasonCode),
}

/// Whether a client's publish, which its permissions would allow, ends in the platform. Topics that start with `$` are
/// the server's [v5 4.7.2]: a generic client publishes to none of them.
#[must_use]
pub fn terminates(dialect: Dialect, topic: &TopicName) -> Option<Terminated> {
    match dialect {
        Dialect::Generic => topic.as_str().starts_with('$').then_some(Terminated::Refused(ReasonCode::NotAuthorized)),
    }
}
