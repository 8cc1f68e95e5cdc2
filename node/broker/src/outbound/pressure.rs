//! What a way out keeps while its node is short of memory: less than its bounds allow, for as long as that lasts.

use super::{DropReason, Outbound, Waiter};

/// Live messages, and bytes of them, that wait for one client while memory is short.
const SHORT_MESSAGES_MAX: usize = 64;
const SHORT_BYTES_MAX: usize = 64 * 1024;

impl Outbound {
    /// Live messages and bytes that may wait now.
    pub(super) fn bounds(&self) -> (usize, usize) {
        let (messages, bytes) = (self.settings.queue_messages_max, self.settings.queue_bytes_max);
        if self.short { (messages.min(SHORT_MESSAGES_MAX), bytes.min(SHORT_BYTES_MAX)) } else { (messages, bytes) }
    }

    /// What a message of QoS 0 that finds no room is booked as.
    pub(super) fn overflow(&self) -> DropReason {
        if self.short { DropReason::MemoryHigh } else { DropReason::QueueFull }
    }

    /// Memory is short, or is not any more. While it is, the oldest of QoS 0 go at once, down to what may wait; messages
    /// above QoS 0 stay, and make their publishers wait the sooner. Returns waiters whose messages have found room.
    pub fn set_short(&mut self, short: bool) -> Vec<Box<dyn Waiter>> {
        self.short = short;
        let (messages_max, bytes_max) = self.bounds();
        while self.live[0].len() + self.live[1].len() > messages_max || self.live_bytes > bytes_max {
            let Some(oldest) = self.live[0].pop_front() else { break };
            self.live_bytes -= oldest.delivery.publication.bytes();
            self.tally.dropped[0][self.overflow() as usize] += 1;
            self.lost(&oldest.delivery.publication, Some(self.overflow()));
        }
        for queue in &mut self.live {
            // What was emptied keeps its room otherwise.
            queue.shrink_to(queue.len());
        }
        self.admit_waiting()
    }

    /// Bytes of live messages that wait for the client.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        let waiting = self.waiting.iter().map(|waiting| waiting.queued.delivery.publication.bytes());
        self.live_bytes + waiting.sum::<usize>()
    }
}
