//! The books of durable obligations, one obligation being one publication to one receiver: what was created is
//! delivered, queued, expired or dropped for a named reason. Live deliveries are booked by each node, not here.

/// Why a durable obligation was dropped. A closed list: these are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Dropped {
    /// The receiver's queue was full: the oldest entry went, or the new one where none could go.
    QueueFull,
    /// A will found the cluster's bytes exhausted.
    ClusterFull,
    /// The client asked for a clean start, or its session ended with its connection.
    SessionDiscarded,
    /// Nobody came back before the session's expiry.
    SessionExpired,
    /// The client answered with an error, or can never take the message [v5 MQTT-4.8.2-6].
    Refused,
    /// A shared delivery whose member was gone went to another member as QoS 0, outside these books.
    Downgraded,
}

/// Reasons in the order of their labels.
pub const DROPPED: [(Dropped, &str); 6] = [
    (Dropped::QueueFull, "queue_full"),
    (Dropped::ClusterFull, "cluster_full"),
    (Dropped::SessionDiscarded, "session_discarded"),
    (Dropped::SessionExpired, "session_expired"),
    (Dropped::Refused, "refused"),
    (Dropped::Downgraded, "downgraded"),
];

/// How an obligation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Settled by PUBACK or PUBCOMP.
    Delivered,
    Expired,
    Dropped(Dropped),
}

/// Counts since the cluster began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub created: u64,
    pub delivered: u64,
    /// Now in queues, or waiting for their turn to be put there.
    pub queued: u64,
    pub expired: u64,
    pub(super) dropped: [u64; DROPPED.len()],
}

impl Books {
    /// Obligations dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or_default()
    }

    /// Obligations dropped for whatever reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// What the books cannot account for: 0, always.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let ends = [self.delivered, self.queued, self.expired];
        i128::from(self.created) - ends.iter().chain(&self.dropped).copied().map(i128::from).sum::<i128>()
    }

    /// The same, with another count for one reason.
    #[must_use]
    pub fn with_dropped(mut self, reason: Dropped, count: u64) -> Books {
        if let Some(dropped) = self.dropped.get_mut(reason as usize) {
            *dropped = count;
        }
        self
    }

    /// Everything in queues goes with them.
    pub(super) fn emptied(mut self) -> Books {
        let queued = std::mem::take(&mut self.queued);
        if let Some(dropped) = self.dropped.get_mut(Dropped::SessionDiscarded as usize) {
            *dropped += queued;
        }
        self
    }

    /// Goes on from others as well, whose queued obligations are booked here already.
    pub(super) fn take_over(&mut self, others: &Books) {
        self.created += others.created - others.queued;
        self.delivered += others.delivered;
        self.expired += others.expired;
        self.dropped.iter_mut().zip(others.dropped).for_each(|(count, others)| *count += others);
    }

    pub(super) fn end(&mut self, fate: Fate) {
        match fate {
            Fate::Delivered => self.delivered += 1,
            Fate::Expired => self.expired += 1,
            Fate::Dropped(reason) => {
                if let Some(count) = self.dropped.get_mut(reason as usize) {
                    *count += 1;
                }
            }
        }
    }
}
