//! Tasks taken apart for a snapshot, and put together again. What is derived is not in the pieces.

use std::sync::Arc;

use fulmar_platform::registry::ObjectId;

use super::{Head, Stage, Status, Target, Task, Tasks};
use crate::key::{Generation, LogTime, NodeId};

/// Bytes of targets in one piece, roughly.
const PIECE_BYTES: usize = if cfg!(test) { 200 } else { 48 * 1024 };

/// A piece of it, as a snapshot has it: numbers first, then each task, ascending by id, followed by its targets.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    Numbers {
        last: u64,
        evicted: u64,
    },
    Task(Box<FiledTask>),
    /// More targets of the task before.
    Targets(Vec<Target>),
}

/// A task without its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct FiledTask {
    pub id: ObjectId,
    pub head: Arc<Head>,
    pub created: LogTime,
    pub status: Status,
    pub epoch: u64,
    pub owner: Option<(NodeId, Generation)>,
    pub begun: LogTime,
    pub cropped: bool,
}

impl Tasks {
    pub(in crate::plane) fn pieces(&self) -> impl Iterator<Item = Filed> {
        let numbers = Filed::Numbers { last: self.last, evicted: self.evicted };
        let numbers = (self.last > 0).then_some(numbers).into_iter();
        numbers.chain(self.tasks.values().flat_map(|task| std::iter::once(filed(task)).chain(targets(task))))
    }

    pub(in crate::plane) fn restore(&mut self, piece: Filed) -> Result<(), (&'static str, String)> {
        match piece {
            Filed::Numbers { last, evicted } => {
                if self.last > 0 || last == 0 {
                    return Err(("last", "is there twice, or is 0".to_owned()));
                }
                (self.last, self.evicted) = (last, evicted);
                Ok(())
            }
            Filed::Task(filed) => {
                self.finish_task()?;
                self.add(*filed)
            }
            Filed::Targets(targets) => self.add_targets(targets),
        }
    }

    /// Once every piece has come.
    pub(in crate::plane) fn restored(&mut self) -> Result<(), (&'static str, String)> {
        self.finish_task()
    }

    fn newest(&self) -> Option<ObjectId> {
        self.tasks.last().map(|(id, _)| *id)
    }

    fn add(&mut self, filed: FiledTask) -> Result<(), (&'static str, String)> {
        let FiledTask { id, head, created, status, epoch, owner, begun, cropped } = filed;
        if self.newest().is_some_and(|newest| newest >= id) || id.number() > self.last {
            return Err(("id", "is not in order".to_owned()));
        }
        self.targets_kept += u64::from(head.total);
        let task = Task { status, epoch, owner, begun, cropped, ..Task::new(id, head, created) };
        self.bytes += task.fixed_bytes();
        if status.open() {
            self.open.insert_mut(id, ());
        }
        self.tasks.insert_mut(id, task);
        Ok(())
    }

    fn add_targets(&mut self, targets: Vec<Target>) -> Result<(), (&'static str, String)> {
        let task = self.newest().and_then(|id| self.tasks.get_mut(&id));
        let task = task.ok_or_else(|| ("targets", "are of no task".to_owned()))?;
        if task.targets.len() + targets.len() > task.head.total as usize {
            return Err(("targets", "are more than the task has".to_owned()));
        }
        for target in targets {
            if task.head.kind.upgrades() && target.stage == Stage::Processing {
                let number = u32::try_from(task.targets.len()).unwrap_or(u32::MAX);
                self.upgrades.insert_mut((target.id.clone(), task.id), number);
            }
            *task.progress.of(target.stage) += 1;
            task.text_bytes += target.text_bytes();
            self.bytes += target.text_bytes();
            task.targets.push_back_mut(target);
        }
        Ok(())
    }

    /// The last task has all that it will have.
    fn finish_task(&mut self) -> Result<(), (&'static str, String)> {
        let Some(task) = self.newest().and_then(|id| self.tasks.get(&id)) else { return Ok(()) };
        if task.status != Status::Initializing && task.targets.len() != task.head.total as usize {
            return Err(("targets", "are fewer than the task has".to_owned()));
        }
        if let Some(at) = task.due() {
            self.due.insert_mut((at, task.id), ());
        }
        Ok(())
    }
}

fn filed(task: &Task) -> Filed {
    let Task { id, head, created, status, epoch, owner, begun, cropped, .. } = task;
    Filed::Task(Box::new(FiledTask {
        id: *id,
        head: head.clone(),
        created: *created,
        status: *status,
        epoch: *epoch,
        owner: *owner,
        begun: *begun,
        cropped: *cropped,
    }))
}

fn targets(task: &Task) -> impl Iterator<Item = Filed> {
    let mut rest = task.targets.iter();
    std::iter::from_fn(move || {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(target) = rest.next()
        {
            bytes += 32 + target.id.len() + target.output.len();
            bytes += target.failure.as_ref().map_or(0, |failure| failure.code.len() + failure.message.len());
            piece.push(target.clone());
        }
        (!piece.is_empty()).then_some(Filed::Targets(piece))
    })
}
