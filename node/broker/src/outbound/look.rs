//! What a way out holds, for people.

use fulmar_mqtt::{QoS, Version};

use super::Outbound;

/// See [`Outbound::look`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub version: Version,
    /// Live messages in the queue, and their bytes.
    pub queued: usize,
    pub queued_bytes: usize,
    /// Publications whose publishers wait for room.
    pub waiting: usize,
    /// Deliveries of QoS 1 and 2 that are not acknowledged, and how many the client allows.
    pub inflight: usize,
    pub receive_maximum: u16,
    /// The first of them, by packet id.
    pub unacknowledged: Vec<Unacknowledged>,
    /// Live deliveries since it connected: written or acknowledged; and expired or dropped.
    pub delivered: u64,
    pub dropped: u64,
}

/// A delivery that awaits its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unacknowledged {
    pub packet_id: u16,
    pub qos: QoS,
    /// PUBREC has come: PUBCOMP is what remains.
    pub received: bool,
    /// Sequence number in the session's durable queue, if it came from there.
    pub seq: Option<u64>,
}

impl Outbound {
    /// What it holds now, with at most so many deliveries by name.
    #[must_use]
    pub fn look(&self, unacknowledged_max: usize) -> Look {
        let unacknowledged = self.inflight.iter().take(unacknowledged_max).map(|(packet_id, entry)| Unacknowledged {
            packet_id: *packet_id,
            qos: entry.qos,
            received: entry.received,
            seq: entry.seq,
        });
        Look {
            version: self.settings.version,
            queued: self.live[0].len() + self.live[1].len() + self.replay.len(),
            queued_bytes: self.live_bytes,
            waiting: self.waiting.len(),
            inflight: self.inflight.len(),
            receive_maximum: self.settings.receive_maximum,
            unacknowledged: unacknowledged.collect(),
            delivered: self.delivered + self.tally.delivered.iter().sum::<u64>(),
            dropped: self.dropped + self.tally.lost(),
        }
    }
}
