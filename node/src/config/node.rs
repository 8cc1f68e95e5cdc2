//! `[node]`: who this node is and where it keeps its data.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::TimeSpan;

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Directory of everything that this node keeps, its identity included. Created if absent; never shared by two
    /// nodes. A relative path starts at the working directory. Default `data`.
    pub data_dir: PathBuf,
    /// Name in logs and metrics. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time between two publications of each `$SYS/broker/...` topic. Default `10s`; `0s` turns them off.
    pub sys_interval: TimeSpan,
}

impl Default for Node {
    fn default() -> Node {
        Node { data_dir: PathBuf::from("data"), name: None, sys_interval: TimeSpan::s(10) }
    }
}

impl Node {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        if self.data_dir.as_os_str().is_empty() {
            problems.add("node.data_dir", "is empty; allowed: the path of a directory");
        }
        if let Some(name) = &self.name {
            problems.label("node.name", name);
        }
        if !self.sys_interval.is_zero() {
            problems.range("node.sys_interval", self.sys_interval, TimeSpan::s(1)..=TimeSpan::s(86_400));
        }
    }
}
