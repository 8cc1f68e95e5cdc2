//! `[registry]`: what is registered when a node starts.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Products, devices, applications and users that a cluster begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// TOML file with `[[app]]`, `[[product]]`, `[[device]]`, `[[sensoro_app]]`, `[[user]]` and `[[access_key]]` tables,
    /// whose keys are the members of the REST API, or end in `_file` and name a file with the value. What is not there is
    /// created at the start; what is there stays as it is. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<PathBuf>,
}
