//! What the machine gives a node, looked at before it takes anything: open files and memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::config::budget::Budget;
use crate::telemetry::resources::{self, MemoryLimit};

/// Descriptors that are not for clients: files, listeners, runtimes.
const DESCRIPTORS_RESERVED: u64 = 256;

/// What a node may take.
pub(super) struct Means {
    pub(super) connections_max: u32,
    /// Bytes; `u64::MAX` if nobody knows.
    pub(super) memory: u64,
}

/// Raises the limit on open files as far as it may be, and says what the bounds of the configuration come to.
pub(super) fn look(config: &Config) -> Means {
    let files = raise_open_files();
    let limit = match config.limits.memory_max.get() {
        0 => resources::memory_limit(),
        bytes => Some(MemoryLimit { bytes, source: "limits.memory_max".to_owned() }),
    };
    let memory = limit.as_ref().map_or(u64::MAX, |limit| limit.bytes);
    let budget = Budget::of(config, memory, files.saturating_sub(DESCRIPTORS_RESERVED).max(1));
    for warning in &budget.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        memory,
        source = limit.map_or_else(String::new, |limit| limit.source),
        empty = budget.empty,
        state = budget.state,
        connections = budget.connections,
        connections_max = budget.connections_max,
        open_files = files,
        "memory, and what the bounds may take of it, in bytes"
    );
    Means { connections_max: budget.connections_max, memory }
}

fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit on open files was not raised");
    }
    resources::open_files_max()
}
