//! Who may propose: one ordered stream of batches per run of a node, each applied once. Its results are kept a while,
//! for an origin that lost the answer.

use std::sync::Arc;

use bytestring::ByteString;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};
use thiserror::Error;

use super::command::{Batch, Outcome};
use super::live::NodeRun;
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
    #[error("comes from a node that was removed")]
    Removed,
    #[error("comes from a node that was never heard of, and has no number")]
    Unknown,
    /// Told by whoever knows the term of the entry; never by the state machine.
    #[error("was meant for another term")]
    OtherTerm,
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
    /// Where others reach it; empty if that is not known.
    pub(super) address: ByteString,
}

impl Run {
    fn new(generation: Generation, alive: bool, address: ByteString) -> Run {
        Run { generation, alive, applied: 0, results: Vec::new(), address }
    }

    pub(super) fn view(&self, node: NodeId) -> NodeRun {
        NodeRun { node, generation: self.generation, alive: self.alive, address: self.address.clone() }
    }
}

/// What the announcement of a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    /// It has ended already, or a newer one has begun, or the node was removed.
    Stale,
    /// It had begun before.
    Before,
    /// It had begun before, at another address.
    Moved,
    /// It begins, and this older one, if any was alive, has ended.
    Begun(Option<Generation>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Origins {
    runs: HashTrieMapSync<NodeId, Run>,
    /// Ended runs that still own sessions, and when they ended. Each leaves when its last session has been let go.
    fallen: RedBlackTreeMapSync<(NodeId, Generation), LogTime>,
    /// Nodes whose ids never come back.
    removed: RedBlackTreeSetSync<NodeId>,
}

impl Origins {
    pub(super) fn alive(&self, node: NodeId, generation: Generation) -> bool {
        self.runs.get(&node).is_some_and(|run| run.alive && run.generation == generation)
    }

    /// When a run that still owns sessions ended.
    pub(super) fn fell_at(&self, node: NodeId, generation: Generation) -> Option<LogTime> {
        self.fallen.get(&(node, generation)).copied()
    }

    pub(super) fn removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// In order.
    pub(super) fn removed_all(&self) -> impl Iterator<Item = NodeId> {
        self.removed.iter().copied()
    }

    /// Whether this run has begun, whatever became of it.
    pub(super) fn has_begun(&self, node: NodeId, generation: Generation) -> bool {
        self.removed(node) || self.generation_of(node).is_some_and(|newest| generation <= newest)
    }

    /// The run, if it is the newest one of its node.
    pub(super) fn run(&self, node: NodeId, generation: Generation) -> Option<&Run> {
        self.runs.get(&node).filter(|run| run.generation == generation)
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

    pub(super) fn restore_removed(&mut self, node: NodeId) {
        self.removed.insert_mut(node);
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

    /// Results of a batch that was applied before, `None` for the one that is next, and for one without number.
    pub(super) fn check(&self, batch: &Batch) -> Result<Option<Vec<Outcome>>, BatchError> {
        if self.removed(batch.node) {
            return Err(BatchError::Removed);
        }
        if batch.seq == 0 {
            return if self.runs.contains_key(&batch.node) { Ok(None) } else { Err(BatchError::Unknown) };
        }
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
        Ok(Some(kept(results, applied, batch.seq).ok_or(BatchError::Forgotten)?.clone()))
    }

    /// What a batch came to that was applied before, while it is kept.
    pub(super) fn outcomes_of(&self, node: NodeId, generation: Generation, seq: u64) -> Option<&Vec<Outcome>> {
        let run = self.run(node, generation).filter(|run| (1..=run.applied).contains(&seq))?;
        kept(&run.results, run.applied, seq)
    }

    pub(super) fn applied(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        if batch.seq == 0 {
            return;
        }
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

    /// A run begins, and with it older ones end.
    pub(super) fn up(&mut self, node: NodeId, generation: Generation, address: &str, now: LogTime) -> Announced {
        if self.removed(node) {
            return Announced::Stale;
        }
        let newest = self.runs.get(&node).map(|run| (run.generation, run.alive));
        if let Some((newest, alive)) = newest.filter(|(newest, _)| generation <= *newest) {
            if generation < newest || !alive {
                return Announced::Stale;
            }
            let moves = |run: &&mut Run| !address.is_empty() && *run.address != *address;
            return match self.runs.get_mut(&node).filter(moves) {
                Some(run) => {
                    run.address = address.into();
                    Announced::Moved
                }
                None => Announced::Before,
            };
        }
        if let Some((older, _)) = newest {
            self.down(node, older, now);
        }
        self.runs.insert_mut(node, Run::new(generation, true, address.into()));
        Announced::Begun(newest.filter(|(_, alive)| *alive).map(|(older, _)| older))
    }

    /// The node's runs end and its id is never taken again. `None` if it was removed before; else which run was alive.
    pub(super) fn remove(&mut self, node: NodeId, now: LogTime) -> Option<Option<Generation>> {
        if self.removed(node) {
            return None;
        }
        let newest = self.runs.get(&node).map(|run| run.generation);
        let ended = newest.filter(|generation| self.down(node, *generation, now));
        self.runs.remove_mut(&node);
        self.removed.insert_mut(node);
        Some(ended)
    }

    /// A run ends. `false` if it had ended before.
    pub(super) fn down(&mut self, node: NodeId, generation: Generation, now: LogTime) -> bool {
        if self.removed(node) {
            return false;
        }
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
                self.runs.insert_mut(node, Run::new(generation, false, ByteString::new()));
            }
        }
        self.fallen.insert_mut((node, generation), now);
        true
    }
}

/// Of the last batches' results, those of one of them.
fn kept(results: &[Arc<Vec<Outcome>>], applied: u64, seq: u64) -> Option<&Vec<Outcome>> {
    let age = usize::try_from(applied - seq).unwrap_or(usize::MAX);
    results.iter().rev().nth(age).map(Arc::as_ref)
}
