//! Short of memory: above a mark new clients are refused, above a higher one what waits for connected ones is cut down.
//! Marks are of resident memory, which counts what is shared once; a sum over queues would not.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Dispatch;
use super::receiver::Receiver;
use crate::config::budget::HIGH_PERCENT;

/// How short of memory the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    None,
    /// New clients are refused.
    Refusing,
    /// And live queues are cut down: QoS 0 is dropped oldest first, and publishers above QoS 0 wait the sooner.
    Shedding,
}

/// Percent of the limit at which each begins, and below which it is over again.
const REFUSING: (u64, u64) = (HIGH_PERCENT, 80);
const SHEDDING: (u64, u64) = (92, 87);

impl Shortage {
    /// What follows on this one, at so many resident bytes.
    fn next(self, resident: u64, limit: u64) -> Shortage {
        let above = |percent: u64| resident > limit / 100 * percent;
        let holds = |(from, until): (u64, u64), was: bool| above(if was { until } else { from });
        if holds(SHEDDING, self == Shortage::Shedding) {
            Shortage::Shedding
        } else if holds(REFUSING, self >= Shortage::Refusing) {
            Shortage::Refusing
        } else {
            Shortage::None
        }
    }
}

/// The node's memory, as it was last looked at.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    resident: AtomicU64,
    shortage: AtomicU8,
}

impl Memory {
    /// `limit`: bytes that the process may use.
    #[must_use]
    pub fn new(limit: u64) -> Memory {
        Memory { limit, resident: AtomicU64::new(0), shortage: AtomicU8::new(0) }
    }

    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn shortage(&self) -> Shortage {
        match self.shortage.load(Ordering::Acquire) {
            0 => Shortage::None,
            1 => Shortage::Refusing,
            _ => Shortage::Shedding,
        }
    }
}

impl Dispatch {
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes note of how many bytes are resident, and does what that asks for.
    pub fn weigh(&self, resident: u64) {
        let memory = &self.memory;
        memory.resident.store(resident, Ordering::Relaxed);
        let was = memory.shortage();
        let is = was.next(resident, memory.limit);
        if is == was {
            return;
        }
        // First, so that a receiver that is registered meanwhile is seen by one of both.
        memory.shortage.store(is as u8, Ordering::Release);
        let limit = memory.limit;
        match is {
            Shortage::None => tracing::info!(resident, limit, "there is memory again"),
            Shortage::Refusing => tracing::warn!(resident, limit, "memory is short: new clients are refused"),
            Shortage::Shedding => {
                tracing::error!(resident, limit, "memory is very short: what waits for clients is cut down");
            }
        }
        let (shed, sheds) = (was == Shortage::Shedding, is == Shortage::Shedding);
        if shed != sheds {
            self.receivers().iter().for_each(|receiver| self.set_short(receiver, sheds));
        }
    }

    /// Has a receiver keep less, or as much as ever.
    pub(super) fn set_short(&self, receiver: &Receiver, short: bool) {
        let mut outbound = receiver.outbound();
        let waiters = outbound.set_short(short);
        let tally = outbound.take_tally();
        drop(outbound);
        self.metrics.add_tally(&tally);
        self.take_notes(receiver);
        waiters.iter().for_each(|waiter| waiter.taken());
        receiver.signal();
    }

    /// Bytes of messages that wait for clients, each message as often as it waits.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.receivers().iter().map(|receiver| receiver.outbound().live_bytes() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Shortage::{None, Refusing, Shedding};

    #[test]
    fn marks_are_passed_upwards_at_once_and_left_a_little_below() {
        for (was, percent, is) in [
            (None, 85, None),
            (None, 86, Refusing),
            (None, 93, Shedding),
            (Refusing, 81, Refusing),
            (Refusing, 80, None),
            (Refusing, 92, Refusing),
            (Refusing, 93, Shedding),
            (Shedding, 88, Shedding),
            (Shedding, 87, Refusing),
            (Shedding, 80, None),
        ] {
            assert_eq!(was.next(percent * 1_000, 100_000), is, "{was:?} at {percent} %");
            assert_eq!(was.next(percent * 1_000, u64::MAX), None, "without a limit");
        }
    }
}
