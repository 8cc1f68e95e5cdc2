//! Names of things that outlive a connection: sessions, nodes, epochs, and the time that the log agrees on.

use std::sync::Arc;

use bytestring::ByteString;

/// Who a session belongs to: the authenticated identity, which is not always the client id. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    tenant: ByteString,
    dialect: ByteString,
    identity: ByteString,
}

impl SessionKey {
    /// Copies the three parts, so that the key pins no read buffer.
    #[must_use]
    pub fn new(tenant: &str, dialect: &str, identity: &str) -> SessionKey {
        SessionKey(Arc::new(Parts { tenant: tenant.into(), dialect: dialect.into(), identity: identity.into() }))
    }

    /// The project that the client belongs to; `default` for generic clients.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// The rules by which the client authenticated, for example `generic`.
    #[must_use]
    pub fn dialect(&self) -> &str {
        &self.0.dialect
    }

    /// The client id of a generic client, the device id of a device.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    /// Whether two handles share one allocation: a cheap yes before the full comparison.
    #[must_use]
    pub fn same(&self, other: &SessionKey) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self == other
    }
}

impl std::fmt::Display for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.0.tenant, self.0.dialect, self.0.identity)
    }
}

/// A node, for as long as its data directory lives. Random, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// One run of a node: a restarted node is another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// One claim of a session. A newer one has a larger number; whatever carries an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Milliseconds of log time: what every node agrees on, and the only time that the replicated state knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogTime(pub u64);

impl LogTime {
    /// This time plus some seconds, without overflow.
    #[must_use]
    pub fn plus_s(self, seconds: u64) -> LogTime {
        LogTime(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to this time; 0 if that lies in the future.
    #[must_use]
    pub fn since_ms(self, earlier: LogTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two times that a machine is told: one for waits on this node, one for what the cluster must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that only runs forward, from an arbitrary start: keep alive, pauses, cuts.
    pub mono_ms: u64,
    /// Log time as this node estimates it: expiries.
    pub log: LogTime,
}
