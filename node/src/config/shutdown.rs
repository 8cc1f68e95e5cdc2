//! `[shutdown]`: how long a node takes to leave.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::TimeSpan;

/// The end of a node after SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Time for clients to be told and queues to be flushed; then what is left is cut. A second SIGTERM cuts at once.
    /// Default `10s`, 0s to 10m.
    pub grace: TimeSpan,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { grace: TimeSpan::s(10) }
    }
}

impl Shutdown {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.range("shutdown.grace", self.grace, TimeSpan::ZERO..=TimeSpan::s(600));
    }
}
