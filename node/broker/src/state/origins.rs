//! Who may propose: one ordered stream of batches per run of a node, each applied once. Its results are kept a while,
//! for an origin that lost the answer.

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use thiserror::Error;

use super::command::{Batch, Outcome};
use crate::key::{Generation, LogTime, NodeId};

/// Batches of one origin whose results are kept.
pub const RESULTS_KEPT: usize = 8;

/// Why a batch was not applied. The state is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    #[error("comes from a run of a node that has ended")]
    Dead,
    #[error("leaves a gap: batch {expected} is next")]
    Gap { expected: u64 },
    #[error("was applied too long ago for its results to be known")]
    Forgotten,
}

/// The newest run of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) generation: Generation,
    pub(super) alive: bool,
    /// The last batch that was applied.
    pub(super) applied: u64,
    /// Of the last batches, the newest last.
    pub(super) results: Vec<Arc<Vec<Outcome>>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Origins {
    runs: HashTrieMapSync<NodeId, Run>,
    /// Ended runs that still own sessions, and when they ended. Each leaves when its last session has been let go.
    fallen: RedBlackTreeMapSync<(NodeId, Generation), LogTime>,
}

impl Origins {
    pub(super) fn alive(&self, node: NodeId, generation: Generation) -> bool {
        self.runs.get(&node).is_some_and(|run| run.alive && run.generation == generation)
    }

    /// When a run that still owns sessions ended.
    pub(super) fn fell_at(&self, node: NodeId, generation: Generation) -> Option<LogTime> {
        self.fallen.get(&(node, generation)).copied()
    }

    pub(super) fn generation_of(&self, node: NodeId) -> Option<Generation> {
        self.runs.get(&node).map(|run| run.generation)
    }

    /// In no order.
    pub(super) fn runs(&self) -> impl Iterator<Item = (NodeId, &Run)> {
        self.runs.iter().map(|(node, run)| (*node, run))
    }

    /// Ended runs that still own sessions, in order, and when they ended.
    pub(super) fn fallen_at(&self) -> impl Iterator<Item = (NodeId, Generation, LogTime)> {
        self.fallen.iter().map(|((node, generation), at)| (*node, *generation, *at))
    }

    pub(super) fn restore_run(&mut self, node: NodeId, run: Run) {
        self.runs.insert_mut(node, run);
    }

    pub(super) fn restore_fallen(&mut self, node: NodeId, generation: Generation, at: LogTime) {
        self.fallen.insert_mut((node, generation), at);
    }

    pub(super) fn fallen(&self) -> impl Iterator<Item = &(NodeId, Generation)> {
        self.fallen.keys()
    }

    /// Nobody's session is owned by this run any more.
    pub(super) fn forget_fallen(&mut self, node: NodeId, generation: Generation) {
        self.fallen.remove_mut(&(node, generation));
    }

    /// Results of a batch that was applied before, `None` for the one that is next.
    pub(super) fn check(&self, batch: &Batch) -> Result<Option<Vec<Outcome>>, BatchError> {
        let (applied, results) = match self.runs.get(&batch.node) {
            Some(run) if batch.generation < run.generation => return Err(BatchError::Dead),
            Some(run) if batch.generation == run.generation && !run.alive => return Err(BatchError::Dead),
            Some(run) if batch.generation == run.generation => (run.applied, run.results.as_slice()),
            _ => (0, [].as_slice()),
        };
        if batch.seq == applied + 1 {
            return Ok(None);
        }
        if batch.seq > applied {
            return Err(BatchError::Gap { expected: applied + 1 });
        }
        let age = usize::try_from(applied - batch.seq).unwrap_or(usize::MAX);
        let kept = results.iter().rev().nth(age).ok_or(BatchError::Forgotten)?;
        Ok(Some(kept.as_ref().clone()))
    }

    pub(super) fn applied(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        let Some(run) = self.runs.get_mut(&batch.node) else {
            return;
        };
        if run.generation != batch.generation {
            return; // the batch itself began a newer run
        }
        run.applied = batch.seq;
        if run.results.len() == RESULTS_KEPT {
            run.results.remove(0);
        }
        run.results.push(Arc::new(outcomes.to_vec()));
    }

    /// A run begins, and with it older ones end. `false` if this or a newer one has ended already.
    pub(super) fn up(&mut self, node: NodeId, generation: Generation, now: LogTime) -> bool {
        if let Some(run) = self.runs.get(&node) {
            if generation <= run.generation {
                return generation == run.generation && run.alive;
            }
            self.down(node, run.generation, now);
        }
        self.runs.insert_mut(node, Run { generation, alive: true, applied: 0, results: Vec::new() });
        true
    }

    /// A run ends. `false` if it had ended before.
    pub(super) fn down(&mut self, node: NodeId, generation: Generation, now: LogTime) -> bool {
        let known = self.runs.get(&node).map(|run| (run.generation, run.alive));
        match known {
            Some((newest, alive)) if generation < newest || (generation == newest && !alive) => return false,
            Some((newest, _)) if generation == newest => {
                if let Some(run) = self.runs.get_mut(&node) {
                    run.alive = false;
                    run.results = Vec::new();
                }
            }
            _ => {
                if let Some((older, _)) = known {
                    self.down(node, older, now);
                }
                self.runs.insert_mut(node, Run { generation, alive: false, applied: 0, results: Vec::new() });
            }
        }
        self.fallen.insert_mut((node, generation), now);
        true
    }
}
