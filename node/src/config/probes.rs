//! `[probes]`: health and metrics for the platform that runs the node.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `/metrics`, `/livez`, `/readyz` and `/startupz` over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probes {
    /// Whether the door is opened. Default `true`.
    pub enabled: bool,
    /// IP address and port; port 0 lets the system choose. Default `0.0.0.0:9100`.
    #[serde(deserialize_with = "units::address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes { enabled: true, address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9100)) }
    }
}
