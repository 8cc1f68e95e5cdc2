//! The plane in the state: what it may ask of the rest, and how its changes are applied.

use fulmar_platform::registry::Registry;

use super::command::{Effect, Outcome, Owner};
use super::{Out, State};
use crate::key::{Generation, LogTime, NodeId};
use crate::plane::{Change, Ground};

impl Ground for State {
    fn now(&self) -> LogTime {
        self.kept.now
    }

    fn registry(&self) -> &Registry {
        &self.kept.registry
    }

    fn owner_of(&self, device: &str) -> Option<Owner> {
        self.device_owner(device)
    }

    fn alive(&self, node: NodeId, generation: Generation) -> bool {
        self.kept.origins.alive(node, generation)
    }

    fn backlog_bytes_max(&self) -> u64 {
        self.kept.limits.rule_backlog_bytes_max
    }
}

impl State {
    pub(super) fn change_plane(&mut self, change: &Change, out: &mut Out<'_>) -> Outcome {
        let mut plane = std::mem::take(&mut self.kept.plane);
        let mut events = Vec::new();
        let answer = plane.apply(change, self, &mut events);
        self.kept.plane = plane;
        out.effects.extend(events.into_iter().map(Effect::Plane));
        Outcome::Plane(answer)
    }

    // -- what others may ask

    /// The run that does what only one node is to do about something of this name: the same on every node that has
    /// applied as much, another one once that run has ended. `None`: no run is alive.
    #[must_use]
    pub fn chosen(&self, name: &str) -> Option<(NodeId, Generation)> {
        let weight = |node: NodeId| {
            // FNV-1a of the name, mixed with the node: rendezvous hashing, so that few move when a node comes or goes.
            let hash = name
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            let mut mixed = hash ^ node.0;
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            mixed ^ (mixed >> 33)
        };
        let alive = self.runs().filter(|run| run.alive);
        alive.map(|run| (run.node, run.generation)).max_by_key(|(node, _)| (weight(*node), *node))
    }
}
