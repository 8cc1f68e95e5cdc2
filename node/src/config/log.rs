//! `[log]`: what is written to standard error, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::problem::Problems;

/// Logs of the node, written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text`, for people, or `json`, one object a line. Default `text`.
    pub format: Format,
    /// Least severity written: `error`, `warn`, `info`, `debug` or `trace`, also by module, as in
    /// `info,fulmar::doors=debug`. Default `info`.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: Format::Text, level: "info".into() }
    }
}

impl Log {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        // A bare word parses as the name of a module, which would turn "inof" into silence.
        let named = self.level.split(',').map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level).trim());
        let known = |level: &str| {
            ["off", "error", "warn", "info", "debug", "trace"].iter().any(|name| name.eq_ignore_ascii_case(level))
        };
        if !named.into_iter().all(known) || EnvFilter::try_new(&self.level).is_err() {
            let allowed = "off, error, warn, info, debug or trace, also by module, as in \"info,fulmar::doors=debug\"";
            problems.add("log.level", format!("is {:?}; allowed: {allowed}", self.level));
        }
    }
}
