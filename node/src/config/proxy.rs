//! `[[listener]] proxy`: balancers that say, in the PROXY protocol, whom they connect for.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use fulmar_broker::steer::bans::Network;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use super::problem::Problems;

/// Entries of `trusted`: each new connection is compared with them in turn.
const TRUSTED_MAX: usize = 256;

const ALLOWED: &str = "an IP address, or a network as in \"10.0.0.0/8\" or \"fd00::/8\"";

/// Balancers in front of a listener, which begin each connection with a PROXY header, version 1 or 2. The client's address
/// in it then is what bans, limits, logs and sessions see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Addresses of the balancers, or networks that they are in. Whoever comes from elsewhere is closed at once. 1 to 256;
    /// required.
    pub trusted: Vec<Cidr>,
    /// Whether each of their connections must begin with a header. With `false` one that begins with anything else is
    /// taken as the client's own; then nobody but balancers and known clients may be in `trusted`, since whoever is can
    /// send a header that names another address. Default true.
    #[serde(default = "required")]
    pub required: bool,
}

fn required() -> bool {
    true
}

impl Proxy {
    /// Whether headers from this address are believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|Cidr(network)| network.contains(address))
    }

    pub(super) fn check(&self, key: &str, problems: &mut Problems<'_>) {
        let count = self.trusted.len();
        if count == 0 {
            let message = "is empty, so that nobody could connect; name the balancers, as in [\"10.0.0.0/8\"]";
            problems.add(&format!("{key}.trusted"), message);
        } else if count > TRUSTED_MAX {
            problems.add(&format!("{key}.trusted"), format!("has {count} entries; allowed: 1 to {TRUSTED_MAX}"));
        }
    }
}

/// Addresses with the same first bits: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(pub Network);

struct CidrVisitor;

impl Visitor<'_> for CidrVisitor {
    type Value = Cidr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALLOWED)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Cidr, E> {
        let network = Network::parse(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self));
        network.map(Cidr)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        deserializer.deserialize_str(CidrVisitor)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": ALLOWED, "type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]+)?$" })
    }
}
