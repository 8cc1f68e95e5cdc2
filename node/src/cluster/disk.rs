//! Room on the disks: this node's own, and whether a majority of the voters has any.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fulmar_broker::NodeId;

use super::context::Context;
use crate::store::disk;

/// The alarm of a node whose disk is nearly full. By it the other nodes know.
pub const DISK_NEARLY_FULL: &str = "disk_nearly_full";

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// Below this part of `store.disk_free_min` no session is claimed any more: what is left is for those that are there.
const LAST_PART: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub struct Room {
    free: AtomicU64,
    low: AtomicBool,
    full: AtomicBool,
    scarce: AtomicBool,
}

impl Room {
    /// Free bytes of this node's disk when it was last looked at.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// This node's disk is nearly full: what can be refused is.
    #[must_use]
    pub fn low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Its last part is being used: new sessions are refused too.
    #[must_use]
    pub fn full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Fewer than a majority of the voters are up and have room. What is added now could fill so many disks that nothing is
    /// committed any more, and without that no node may act.
    #[must_use]
    pub fn scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    fn look(&self, free: u64, free_min: u64) {
        let was = self.low();
        let below = |bound: u64, was: bool| free < if was { bound + bound / 10 } else { bound };
        let is = below(free_min, was);
        self.free.store(free, Ordering::Relaxed);
        self.low.store(is, Ordering::Relaxed);
        self.full.store(below(free_min / LAST_PART, self.full()), Ordering::Relaxed);
        match (was, is) {
            (false, true) => tracing::error!(free, free_min, "the disk is nearly full: durable publishes are refused"),
            (true, false) => tracing::info!(free, "the disk has room again"),
            _ => {}
        }
    }
}

impl Context {
    /// Whether too few voters are up and have room.
    fn scarce(&self) -> bool {
        let membership = self.membership();
        let state = self.core.state();
        let alarms = &state.steer().alarms;
        let runs: Vec<_> = state.runs().filter(|run| run.alive).map(|run| run.node).collect();
        let has_room = |voter: &u64| {
            runs.contains(&NodeId(*voter)) && alarms.get(DISK_NEARLY_FULL, &format!("{voter:016x}")).is_none()
        };
        let low = |voter: &u64| alarms.get(DISK_NEARLY_FULL, &format!("{voter:016x}")).is_some();
        let too_few = |set: &std::collections::BTreeSet<u64>| {
            set.iter().any(low) && set.iter().filter(|voter| has_room(voter)).count() <= set.len() / 2
        };
        membership.get_joint_config().iter().any(too_few)
    }
}

/// Looks at the disk for as long as the node runs.
pub(super) async fn watch(context: Arc<Context>, data_dir: PathBuf, free_min: u64, room: Arc<Room>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match disk::free_bytes(&data_dir) {
            Ok(free) => room.look(free, free_min),
            Err(error) => tracing::warn!(%error, "free space unknown"),
        }
        let (was, is) = (room.scarce(), context.scarce());
        room.scarce.store(is, Ordering::Relaxed);
        match (was, is) {
            (false, true) => {
                tracing::error!("too few voters have room on their disks: durable publishes are refused everywhere");
            }
            (true, false) => tracing::info!("enough voters have room on their disks"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_low_and_then_full_until_there_is_a_tenth_more() {
        let room = Room::default();
        for (free, low, full) in [
            (1_000, false, false),
            (999, true, false),
            (1_099, true, false),
            (249, true, true),
            (274, true, true),
            (275, true, false),
            (1_100, false, false),
            (0, true, true),
            (5_000, false, false),
        ] {
            room.look(free, 1_000);
            assert_eq!((room.low(), room.full(), room.free()), (low, full, free));
        }
        room.look(0, 0);
        assert!(!room.low() && !room.full(), "without a bound nothing is refused");
    }
}
