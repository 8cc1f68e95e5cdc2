//! What became of live deliveries, in counts.

/// Why an obligation was dropped. A closed list: these are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// QoS 0 beyond the live queue's bound, oldest first.
    QueueFull,
    /// The receiver took nothing for [`STALL_MS_MAX`] while publishers waited.
    SlowReceiver,
    /// The client's connection, and with it its clean session, ended.
    SessionEnded,
    /// Larger than the client's maximum packet size [v5 MQTT-3.1.2-25].
    PacketTooLarge,
    /// The client answered with an error.
    Refused,
    /// A shared message that was offered to another member, where it is a new obligation.
    Reassigned,
    /// QoS 0 that the node did not keep while it was short of memory, oldest first.
    MemoryHigh,
}

impl DropReason {
    /// As a label has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        DROP_REASONS.iter().find(|(reason, _)| *reason == self).map_or("", |(_, name)| name)
    }
}

/// Drop reasons in label order.
pub const DROP_REASONS: [(DropReason, &str); 7] = [
    (DropReason::QueueFull, "queue_full"),
    (DropReason::SlowReceiver, "slow_receiver"),
    (DropReason::SessionEnded, "session_ended"),
    (DropReason::PacketTooLarge, "packet_too_large"),
    (DropReason::Refused, "refused"),
    (DropReason::Reassigned, "reassigned"),
    (DropReason::MemoryHigh, "memory_high"),
];

/// What happened since it was last taken, in deliveries to live receivers. Taken by whoever sums the books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Obligations taken on, by QoS 0 and QoS > 0.
    pub created: [u64; 2],
    /// QoS 0: written; QoS > 0: acknowledged.
    pub delivered: [u64; 2],
    pub expired: [u64; 2],
    pub dropped: [[u64; DROP_REASONS.len()]; 2],
}

impl Tally {
    /// Live deliveries that nobody got, expired ones included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.expired.iter().chain(self.dropped.iter().flatten()).sum()
    }
}
