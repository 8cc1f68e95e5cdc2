//! What may change tasks, what that comes to, and what is told of it.

use fulmar_platform::registry::ObjectId;

use super::{Failure, Head, Kind, Status};
use crate::key::{Generation, LogTime, NodeId};

/// What may change it. Each says what it changes from, so that repeating it is harmless.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new task, with the first of its targets.
    Create { head: Box<Head>, targets: Vec<Box<str>> },
    /// More of its targets, from this number on. With the last one it begins, or waits for its time.
    Extend { id: ObjectId, from: u32, targets: Vec<Box<str>> },
    /// A run takes a task over that no live run has. What the one before had begun is done again where that is harmless,
    /// and else ends as failed: what became of it is not known.
    Claim { id: ObjectId, node: NodeId, generation: Generation },
    /// These are about to be done.
    Begin { id: ObjectId, epoch: u64, targets: Vec<u32> },
    /// These are done.
    Finish { id: ObjectId, epoch: u64, results: Vec<(u32, Outcome)> },
    /// A device tells how its upgrade ended.
    Told { id: ObjectId, target: u32, outcome: Outcome },
    /// Begins nothing more of these targets, or of all where none is named.
    Stop { id: ObjectId, targets: Vec<u32> },
    /// These targets, or all where none is named, are done anew where they have failed or were stopped.
    Retry { id: ObjectId, targets: Vec<u32> },
    /// Forgets it; one that runs must be stopped before.
    Delete { id: ObjectId },
    /// Its time has come: to begin, to end what takes too long, or to go, where its targets never came.
    Due { id: ObjectId },
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ids = |targets: &[Box<str>]| targets.iter().map(|id| id.len() + 4).sum::<usize>();
        match self {
            Change::Create { head, targets } => {
                128 + head.document.len() + head.filter.len() + head.name.len() + ids(targets)
            }
            Change::Extend { targets, .. } => 32 + ids(targets),
            Change::Begin { targets, .. } | Change::Stop { targets, .. } | Change::Retry { targets, .. } => {
                32 + 3 * targets.len()
            }
            Change::Finish { results, .. } => 32 + results.iter().map(|(_, outcome)| outcome.bytes()).sum::<usize>(),
            Change::Told { outcome, .. } => 32 + outcome.bytes(),
            Change::Claim { .. } | Change::Delete { .. } | Change::Due { .. } => 32,
        }
    }
}

/// What became of a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Success {
        output: Box<str>,
    },
    Fail {
        failure: Failure,
        /// Whether another try could help: then the policy says whether there is one.
        again: bool,
    },
}

impl Outcome {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Success { output } => 16 + output.len(),
            Outcome::Fail { failure, .. } => 32 + failure.message.len(),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such task.
    Missing,
    /// Another run has it.
    Stale,
    /// There is no room for another one.
    Full,
    /// Its status does not allow it.
    Status,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Created(ObjectId),
    /// With this epoch.
    Claimed(u64),
    /// Those of the targets that may be done.
    Begun(Vec<u32>),
    Done,
    Refused(Refusal),
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has another status.
    Status(Notice),
    /// There is more to do of a task whose status is the same.
    Work(ObjectId),
}

/// What is told of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub id: ObjectId,
    pub app_id: Box<str>,
    pub kind: Kind,
    pub status: Status,
    pub description: Box<str>,
    pub at: LogTime,
}
