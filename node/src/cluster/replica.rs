//! Proposes command batches and applies them: exactly once, in order, under one lock.

use fulmar_broker::state::State;
use fulmar_broker::state::command::{Batch, Command, Effect, Limits, Outcome};
use fulmar_broker::{Generation, NodeId};
use parking_lot::{RwLock, RwLockReadGuard};
use thiserror::Error;

use super::clock::Clock;

/// Why a batch was not applied. The caller acknowledges nothing that depended on it.
#[derive(Debug, Error)]
pub enum Error {
    #[error("the replicated state refused a batch: {0}")]
    Refused(String),
}

/// This node's copy of the replicated state.
pub struct Replica {
    node: NodeId,
    generation: Generation,
    clock: Clock,
    inner: RwLock<Inner>,
}

struct Inner {
    state: State,
    seq: u64,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Replica {
    /// An empty state under these limits, with this node up.
    ///
    /// # Errors
    /// If the state refuses the first batch.
    pub fn start(node: NodeId, generation: Generation, clock: Clock, limits: Limits) -> Result<Replica, Error> {
        let inner = RwLock::new(Inner { state: State::new(limits), seq: 0 });
        let replica = Replica { node, generation, clock, inner };
        replica.propose(vec![Command::NodeUp { node, generation }])?;
        Ok(replica)
    }

    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Applies the commands as one batch. Outcomes are in their order; effects are for the caller to carry out.
    ///
    /// # Errors
    /// If the batch was refused as a whole.
    pub fn propose(&self, commands: Vec<Command>) -> Result<(Vec<Outcome>, Vec<Effect>), Error> {
        let mut effects = Vec::new();
        let mut inner = self.inner.write();
        // Stamped under the lock, so that log time never runs backwards from batch to batch.
        let at = self.clock.now().log;
        let seq = inner.seq + 1;
        let batch = Batch { node: self.node, generation: self.generation, seq, at, commands };
        let outcomes = inner.state.apply(&batch, &mut effects).map_err(|error| Error::Refused(format!("{error:?}")))?;
        inner.seq = seq;
        Ok((outcomes, effects))
    }

    /// The state for reading. Held only for as long as the read takes.
    pub fn read(&self) -> StateRef<'_> {
        StateRef(self.inner.read())
    }
}

/// A read lock on the state.
pub struct StateRef<'a>(RwLockReadGuard<'a, Inner>);

impl std::fmt::Debug for StateRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateRef")
    }
}

impl std::ops::Deref for StateRef<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0.state
    }
}
