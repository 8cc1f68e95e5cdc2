//! Bounds of the wire format, and the defaults of what a listener or a session may narrow.

/// The longest UTF-8 string or binary field: its length is two bytes [v5 1.5.4], [v3.1.1 1.5.3].
pub const FIELD_BYTES_MAX: usize = 65_535;

/// The largest value of a variable byte integer [v5 1.5.5], [v3.1.1 2.2.3].
pub const VARINT_MAX: u32 = 268_435_455;

/// Bytes of a whole packet that no configuration can raise.
pub const PACKET_BYTES_HARD_MAX: u32 = 1024 * 1024;

/// Bytes of a whole packet accepted from generic clients unless configured otherwise.
pub const PACKET_BYTES_MAX_DEFAULT: u32 = 256 * 1024;

/// Levels of a topic name or filter: what a `/`-separated name may be cut into.
pub const TOPIC_LEVELS_MAX: usize = 128;

/// Filters that one session may hold.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1_000;

/// Unacknowledged QoS 1 and 2 publishes that a session accepts, unless configured otherwise.
pub const RECEIVE_MAXIMUM_DEFAULT: u16 = 128;

const _: () = assert!(PACKET_BYTES_MAX_DEFAULT <= PACKET_BYTES_HARD_MAX);
const _: () = assert!(PACKET_BYTES_HARD_MAX <= VARINT_MAX);
