//! Receivers that take long over what they are sent: the slowest of a node, each with when it was slow last.

/// Receivers that are kept, and for how long after they were slow.
pub const SLOW_MAX: usize = 100;
pub const SLOW_KEPT_MS: u64 = 5 * 60 * 1000;

/// What is slow by default, in milliseconds from the queue to the acknowledgement, or to the socket at QoS 0.
pub const SLOW_MS: u64 = 500;

/// How slow a receiver was since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slowness {
    /// Deliveries that took at least [`SLOW_MS`].
    pub count: u64,
    /// What the slowest of them took.
    pub longest_ms: u64,
}

impl Slowness {
    /// Books one delivery that took so long.
    pub fn took(&mut self, ms: u64) {
        if ms >= SLOW_MS {
            self.count += 1;
            self.longest_ms = self.longest_ms.max(ms);
        }
    }
}

/// A receiver that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowReceiver {
    pub client: Box<str>,
    pub slowness: Slowness,
    /// Milliseconds of the clock that [`Slow::note`] was told.
    pub last_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Slow {
    receivers: Vec<SlowReceiver>,
}

impl Slow {
    /// A receiver was slow. Where there are too many, the one that was the least so makes room.
    pub fn note(&mut self, client: &str, slowness: Slowness, now_ms: u64) {
        self.receivers.retain(|kept| now_ms.saturating_sub(kept.last_ms) < SLOW_KEPT_MS);
        if let Some(kept) = self.receivers.iter_mut().find(|kept| *kept.client == *client) {
            kept.slowness.count += slowness.count;
            kept.slowness.longest_ms = kept.slowness.longest_ms.max(slowness.longest_ms);
            kept.last_ms = now_ms;
            return;
        }
        if self.receivers.len() >= SLOW_MAX {
            let least = self.receivers.iter().enumerate().min_by_key(|(_, kept)| kept.slowness.longest_ms);
            match least.map(|(at, kept)| (at, kept.slowness.longest_ms)) {
                Some((at, longest_ms)) if longest_ms < slowness.longest_ms => drop(self.receivers.swap_remove(at)),
                _ => return,
            }
        }
        self.receivers.push(SlowReceiver { client: client.into(), slowness, last_ms: now_ms });
    }

    /// The slowest first.
    #[must_use]
    pub fn read(&self, now_ms: u64) -> Vec<SlowReceiver> {
        let fresh = |kept: &&SlowReceiver| now_ms.saturating_sub(kept.last_ms) < SLOW_KEPT_MS;
        let mut receivers: Vec<SlowReceiver> = self.receivers.iter().filter(fresh).cloned().collect();
        receivers.sort_by_key(|kept| std::cmp::Reverse(kept.slowness.longest_ms));
        receivers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_stay_and_are_forgotten_in_time() {
        let mut slow = Slow::default();
        for number in 0..SLOW_MAX as u64 + 20 {
            slow.note(&format!("c{number}"), Slowness { count: 1, longest_ms: 1_000 + number }, 10);
        }
        slow.note("c119", Slowness { count: 2, longest_ms: 600 }, 20);
        slow.note("quick", Slowness { count: 1, longest_ms: 600 }, 20);
        let read = slow.read(20);
        assert_eq!(read.len(), SLOW_MAX);
        assert_eq!((&*read[0].client, read[0].slowness.count, read[0].slowness.longest_ms), ("c119", 3, 1_119));
        assert_eq!(slow.read(15 + SLOW_KEPT_MS).len(), 1);
        let mut none = Slowness::default();
        none.took(SLOW_MS - 1);
        assert_eq!(none, Slowness::default());
    }
}
