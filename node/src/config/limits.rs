//! `[limits]`: what the node, and the state that nodes share, may hold in all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::ByteCount;

/// Bounds of the whole node and of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all listeners at a time; beyond it new ones are closed at once. Default 0: derived from the
    /// system's limit on open files and from the memory.
    pub connections_max: u32,
    /// New connections a second, of all listeners together, and as many at once after a quiet second; beyond it they are
    /// closed at once, before any TLS, so that clients which come back all together leave time for those that are there.
    /// Default 0: no bound.
    pub connect_rate_max: u32,
    /// Bytes of memory that the process may use: above 85 % of it new connections are refused, above 92 % what waits for
    /// connected clients is cut down. Default `0B`: the limit of its cgroup, or the memory of the machine; up to 1TiB.
    pub memory_max: ByteCount,
    /// Bytes of queued messages, retained messages and wills together. Above 80 % of it durable publishes are refused:
    /// 0x97 in MQTT 5, a withheld PUBACK in 3.x. Default `1GiB`, 1MiB to 1TiB.
    pub replicated_bytes_max: ByteCount,
    /// Retained messages; one more is refused (0x97 in MQTT 5). Default 2000000, 1 to 1000000000.
    pub retained_max: u64,
    /// Persistent sessions; one more is refused at CONNECT (0x97 in MQTT 5). Default 2000000, 1 to 1000000000.
    pub sessions_max: u64,
    /// Bytes of a payload that may be queued for persistent sessions or retained; a larger one ends the connection (0x95
    /// in MQTT 5). Default `256KiB`, 1KiB to 1MiB.
    pub durable_payload_bytes_max: ByteCount,
    /// Bytes of what waits for the sinks of durable rules and for applications that are away. Beyond it the oldest entries
    /// of the largest backlog are dropped and counted. Default `256MiB`, 1MiB to 1TiB.
    pub rule_backlog_bytes_max: ByteCount,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 0,
            connect_rate_max: 0,
            memory_max: ByteCount::mib(0),
            replicated_bytes_max: ByteCount::mib(1024),
            retained_max: 2_000_000,
            sessions_max: 2_000_000,
            durable_payload_bytes_max: ByteCount::kib(256),
            rule_backlog_bytes_max: ByteCount::mib(256),
        }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        let replicated = ByteCount::mib(1)..=ByteCount::mib(1 << 20);
        problems.range("limits.replicated_bytes_max", self.replicated_bytes_max, replicated.clone());
        problems.range("limits.rule_backlog_bytes_max", self.rule_backlog_bytes_max, replicated);
        problems.range("limits.retained_max", self.retained_max, 1..=1_000_000_000);
        problems.range("limits.sessions_max", self.sessions_max, 1..=1_000_000_000);
        problems.range("limits.memory_max", self.memory_max, ByteCount::mib(0)..=ByteCount::mib(1 << 20));
        let payload = ByteCount::kib(1)..=ByteCount::mib(1);
        problems.range("limits.durable_payload_bytes_max", self.durable_payload_bytes_max, payload);
    }
}
