//! `[session]`: what one client's session may hold, ask for and leave behind.

use fulmar_mqtt::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::{ByteCount, TimeSpan};

/// Bounds of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Longest time that a session outlives its connection; a client that asks for more gets this. Also the expiry of
    /// MQTT 3.x sessions without clean session. Default `7d`, 1s to 3650d.
    pub expiry_max: TimeSpan,
    /// Unacknowledged QoS 1 and 2 publishes that a client may have on their way to us, told to MQTT 5 clients as
    /// Receive Maximum. Default 128, 1 to 65535.
    pub receive_maximum: u16,
    /// Longest keep alive: an MQTT 5 client that asks for more, or for none, is told this as Server Keep Alive; an
    /// MQTT 3.x client, which cannot be told, keeps its own. Default `0s`: whatever the client asks for; up to 65535s.
    pub keep_alive_max: TimeSpan,
    /// Topic aliases that a client may use towards us, told to MQTT 5 clients. Default 16, 0 to 65535; 0 turns them
    /// off.
    pub topic_alias_maximum: u16,
    /// Levels of a topic name or filter; more are refused (0x90 and 0x8F in MQTT 5, close and 0x80 in 3.x). Default
    /// 128, 1 to 128.
    pub topic_levels_max: u16,
    /// Subscriptions of one session; one more is refused (0x97 in MQTT 5, 0x80 in 3.x). Default 1000, 1 to 1000.
    pub subscriptions_max: u32,
    /// Messages that wait for a connected client's socket. Beyond it the oldest of QoS 0 are dropped and counted, and
    /// publishers of QoS 1 and 2 wait. Default 1000, 1 to 1000000.
    pub live_queue_entries_max: u32,
    /// Bytes that wait for a connected client's socket, with the same effect. At least the largest `packet_bytes_max`.
    /// Default `4MiB`, up to 1GiB.
    pub live_queue_bytes_max: ByteCount,
    /// Messages queued for a persistent session. Beyond it the oldest are dropped and counted. Default 10000, 1 to
    /// 10000000.
    pub queue_entries_max: u32,
    /// Bytes queued for a persistent session, with the same effect. Default `64MiB`, 1MiB to 1TiB.
    pub queue_bytes_max: ByteCount,
    /// Time that a message which names no expiry of its own stays queued for a persistent session. Default `0s`: as
    /// long as the session lives; up to 3650d.
    pub queue_ttl: TimeSpan,
}

impl Default for Session {
    fn default() -> Session {
        Session {
            expiry_max: TimeSpan::s(7 * 86_400),
            receive_maximum: limits::RECEIVE_MAXIMUM_DEFAULT,
            keep_alive_max: TimeSpan::ZERO,
            topic_alias_maximum: 16,
            topic_levels_max: 128,
            subscriptions_max: 1000,
            live_queue_entries_max: 1000,
            live_queue_bytes_max: ByteCount::mib(4),
            queue_entries_max: 10_000,
            queue_bytes_max: ByteCount::mib(64),
            queue_ttl: TimeSpan::ZERO,
        }
    }
}

const _: () = assert!(limits::TOPIC_LEVELS_MAX == 128 && limits::SUBSCRIPTIONS_PER_SESSION_MAX == 1000);

impl Session {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.range("session.expiry_max", self.expiry_max, TimeSpan::s(1)..=TimeSpan::s(3650 * 86_400));
        problems.range("session.receive_maximum", self.receive_maximum, 1..=65_535);
        problems.range("session.keep_alive_max", self.keep_alive_max, TimeSpan::ZERO..=TimeSpan::s(65_535));
        problems.range("session.topic_levels_max", self.topic_levels_max, 1..=128);
        problems.range("session.subscriptions_max", self.subscriptions_max, 1..=1_000);
        problems.range("session.live_queue_entries_max", self.live_queue_entries_max, 1..=1_000_000);
        let live_bytes = ByteCount::kib(1)..=ByteCount::mib(1024);
        problems.range("session.live_queue_bytes_max", self.live_queue_bytes_max, live_bytes);
        problems.range("session.queue_entries_max", self.queue_entries_max, 1..=10_000_000);
        problems.range("session.queue_bytes_max", self.queue_bytes_max, ByteCount::mib(1)..=ByteCount::mib(1 << 20));
    }
}
