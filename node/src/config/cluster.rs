//! `[cluster]`: how this node finds the others. This version runs single nodes only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;

const NOT_YET: &str = "clustering is not in this version, which runs single nodes only";

/// How the node becomes part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// What a node without data does: `single` starts a cluster of its own. `join`, to become part of the cluster of
    /// its peers, is refused: clustering is not in this version. Default `single`.
    pub bootstrap: Bootstrap,
    /// Addresses of the other nodes as `host:7400`. Must be empty in this version. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Number of nodes that the cluster starts with. Must be 1 in this version. Default 1.
    pub expected: u32,
}

/// What a node without data does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// Starts a cluster of its own.
    #[default]
    Single,
    /// Becomes part of the cluster of its peers.
    Join,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster { bootstrap: Bootstrap::Single, peers: Vec::new(), expected: 1 }
    }
}

impl Cluster {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        if self.bootstrap == Bootstrap::Join {
            problems.add("cluster.bootstrap", format!("is \"join\", but {NOT_YET}; allowed: \"single\""));
        }
        if !self.peers.is_empty() {
            problems.add("cluster.peers", format!("names peers, but {NOT_YET}; allowed: []"));
        }
        if self.expected != 1 {
            problems.add("cluster.expected", format!("is {}, but {NOT_YET}; allowed: 1", self.expected));
        }
    }
}
