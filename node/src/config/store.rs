//! `[store]`: how the log and its snapshots use the disk.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::ByteCount;

/// The replicated log on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Bytes that the log grows by before a snapshot is written; the size of the newest snapshot, if that is more. Two
    /// snapshots are kept, and the log since the older one. Default `64MiB`, 1MiB to 16GiB.
    pub log_bytes: ByteCount,
    /// Free bytes of the disk below which durable publishes and retained messages are refused, so that what must be
    /// written still can be. Default `128MiB`, 0B to 1TiB.
    pub disk_free_min: ByteCount,
}

impl Default for Store {
    fn default() -> Store {
        Store { log_bytes: ByteCount::mib(64), disk_free_min: ByteCount::mib(128) }
    }
}

impl Store {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.range("store.log_bytes", self.log_bytes, ByteCount::mib(1)..=ByteCount::mib(16 << 10));
        problems.range("store.disk_free_min", self.disk_free_min, ByteCount::mib(0)..=ByteCount::mib(1 << 20));
    }
}
