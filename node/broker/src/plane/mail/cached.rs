//! One message, and how far it is.

use std::sync::Arc;

use fulmar_platform::message::Message;

use super::{Became, MESSAGE_COST};
use crate::key::LogTime;

/// Rounds in which an unacknowledged message is sent again.
pub const ROUNDS_MAX: u8 = 5;

/// Seconds in which the connection of a connected device takes a message that is not kept.
const HANDOVER_S: u64 = 5;

/// Seconds after its first send in which a message may be acknowledged, also if its time is over: three sends, two seconds
/// apart, and the last one's answer.
const ANSWER_S: u64 = 10;

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Cached {
    /// Grows by one with each message of the cluster.
    pub seq: u64,
    pub created: LogTime,
    /// Minutes that it waits; 0: it is not kept for a device that is not connected.
    pub ttl_min: u16,
    pub phase: Phase,
    pub message: Arc<Message>,
}

/// How far a message is. [`Status`] is what applications see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `parked`: the device is connected, or was, without having subscribed to the topic.
    Waiting {
        parked: bool,
    },
    /// Sent with QoS 1 for the first time then, in so many further rounds since, and not acknowledged.
    Sent {
        at: LogTime,
        rounds: u8,
    },
    Delivered {
        at: LogTime,
    },
    TimedOut {
        at: LogTime,
    },
    Failed {
        at: LogTime,
        why: Failure,
    },
}

/// What applications see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Delivered,
    Timeout,
    Failed,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "PENDING",
            Status::Delivered => "DELIVERED",
            Status::Timeout => "TIMEOUT",
            Status::Failed => "FAILED",
        }
    }
}

/// Why a message that is not kept was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Offline,
    NotSubscribed,
}

impl Failure {
    /// The vendor's code and text.
    #[must_use]
    pub fn error(self) -> (&'static str, &'static str) {
        match self {
            Failure::Offline => ("IOTDA.014016", "Operation not allowed. The device is not online."),
            Failure::NotSubscribed => ("IOTDA.014112", "Send to device failed, device not subscribe topic."),
        }
    }
}

impl Phase {
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Phase::Waiting { .. } => Status::Pending,
            Phase::Sent { .. } | Phase::Delivered { .. } => Status::Delivered,
            Phase::TimedOut { .. } => Status::Timeout,
            Phase::Failed { .. } => Status::Failed,
        }
    }

    /// Since when it has its status, unless that is PENDING.
    #[must_use]
    pub fn finished(self) -> Option<LogTime> {
        match self {
            Phase::Waiting { .. } => None,
            Phase::Sent { at, .. } | Phase::Delivered { at } | Phase::TimedOut { at } | Phase::Failed { at, .. } => {
                Some(at)
            }
        }
    }

    #[must_use]
    pub fn failure(self) -> Option<Failure> {
        match self {
            Phase::Failed { why, .. } => Some(why),
            _ => None,
        }
    }

    /// Whether the device's connection still has something to do with it.
    #[must_use]
    pub fn open(self) -> bool {
        matches!(self, Phase::Waiting { .. } | Phase::Sent { .. })
    }
}

impl Cached {
    /// What it counts against the bound of all messages.
    pub(super) fn cost(&self) -> u64 {
        self.message.bytes() as u64 + MESSAGE_COST
    }

    /// When its time is over, while it is open.
    pub(super) fn due_at(&self) -> Option<LogTime> {
        let ends = self.created.plus_s(u64::from(self.ttl_min) * 60);
        match self.phase {
            Phase::Waiting { .. } => Some(ends.max(self.created.plus_s(HANDOVER_S))),
            Phase::Sent { at, .. } => Some(ends.max(at.plus_s(ANSWER_S))),
            _ => None,
        }
    }

    /// What it is after that, or `None` if it cannot become so.
    pub(super) fn after(&self, became: Became, now: LogTime) -> Option<Phase> {
        Some(match (self.phase, became) {
            (Phase::Waiting { .. }, Became::Handed) => Phase::Delivered { at: now },
            (Phase::Waiting { .. }, Became::Sent) => Phase::Sent { at: now, rounds: 0 },
            (Phase::Waiting { .. }, Became::NotSubscribed) if self.ttl_min == 0 => {
                Phase::Failed { at: now, why: Failure::NotSubscribed }
            }
            (Phase::Waiting { .. }, Became::NotSubscribed) => Phase::Waiting { parked: true },
            (Phase::Sent { at, rounds }, Became::Sent) if rounds < ROUNDS_MAX && self.ttl_min > 0 => {
                Phase::Sent { at, rounds: rounds + 1 }
            }
            // It has been acknowledged, or the device takes it with QoS 0 now.
            (Phase::Sent { at, .. }, Became::Acknowledged | Became::Handed) => Phase::Delivered { at },
            (Phase::Sent { rounds, .. }, Became::Unanswered) if rounds >= ROUNDS_MAX || self.ttl_min == 0 => {
                Phase::TimedOut { at: now }
            }
            _ => return None,
        })
    }

    /// What it is when its time is over.
    pub(super) fn expired(&self, now: LogTime) -> Phase {
        match self.phase {
            Phase::Waiting { .. } if self.ttl_min == 0 => Phase::Failed { at: now, why: Failure::Offline },
            _ => Phase::TimedOut { at: now },
        }
    }
}
