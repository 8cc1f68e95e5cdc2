//! The actor of a task: claims it, has targets noted as begun before anything is done to them, does it, and has noted what
//! came of it. What is ready at one time goes into the log as one command. Whenever it is not the owner any more, it ends.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use fulmar_broker::LogTime;
use fulmar_broker::plane;
use fulmar_broker::plane::tasks::{Answer, Change, Failure, LOST, Outcome, Stage, Status, Task};
use fulmar_broker::state::command::Outcome as Applied;
use fulmar_platform::registry::ObjectId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::Operations;
use super::command;
use super::work::Work;
use crate::cluster::Committed;

/// Targets that one command begins or ends.
const TOGETHER_MAX: usize = 256;

/// Bytes of results in one command, beyond the first.
const RESULTS_BYTES_MAX: usize = 24 * 1024;

/// The code of a target of which it is not known whether it was done, because the node's work on it broke off.
const BROKEN: &str = LOST;

pub(super) struct TaskActor;

pub(super) struct Arguments {
    pub(super) operations: Operations,
    /// Of all tasks of this node.
    pub(super) room: Arc<Semaphore>,
    pub(super) id: ObjectId,
}

pub(super) enum Message {
    /// Something may have changed, or a time has come.
    Look,
    Claimed(Committed),
    /// Room for one target, perhaps for more.
    Room(OwnedSemaphorePermit),
    Begun(Committed),
    /// With the room that it took. `None`: how it ends the device will tell.
    Done(u32, Option<Outcome>, Option<OwnedSemaphorePermit>),
    Finished(Committed),
}

pub(super) struct State {
    operations: Operations,
    room: Arc<Semaphore>,
    id: ObjectId,
    /// Of the claim; `None` while it is under way.
    epoch: Option<u64>,
    work: Option<Arc<Work>>,
    /// Numbers of targets that are to be done, in order.
    pending: VecDeque<u32>,
    /// Those that have failed and are done again at their time.
    later: BTreeSet<(LogTime, u32)>,
    /// Room was asked for and has not come yet.
    asking: bool,
    /// Room for those that are being noted as begun.
    beginning: Option<Vec<OwnedSemaphorePermit>>,
    /// Begun, and not ended here yet.
    running: usize,
    /// They keep their room until it is noted in the log what came of them: so a node that dies leaves no more targets of
    /// unknown end than there is room for.
    results: VecDeque<(u32, Outcome, Option<OwnedSemaphorePermit>)>,
    /// Failed ones whose end is being noted: they may be due again later.
    failing: Vec<u32>,
    /// Room of those whose end is being noted.
    finishing: Option<Vec<OwnedSemaphorePermit>>,
}

impl Actor for TaskActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { operations, room, id } = arguments;
        let (node, generation) = operations.dispatch.replica().run();
        propose(&operations, Change::Claim { id, node, generation }, &myself, Message::Claimed);
        Ok(State {
            operations,
            room,
            id,
            epoch: None,
            work: None,
            pending: VecDeque::new(),
            later: BTreeSet::new(),
            asking: false,
            beginning: None,
            running: 0,
            results: VecDeque::new(),
            failing: Vec::new(),
            finishing: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if state.take(message, &myself).is_none() {
            myself.stop(None);
        }
        Ok(())
    }
}

/// Proposes a change; what comes of it is cast back.
fn propose(operations: &Operations, change: Change, actor: &ActorRef<Message>, say: fn(Committed) -> Message) {
    let actor = actor.clone();
    // An actor that has ended need not know.
    operations.dispatch.replica().propose(vec![command(change)], Box::new(move |done| drop(actor.cast(say(done)))));
}

fn answer(committed: Committed) -> Option<Answer> {
    match committed.ok()?.pop()? {
        Applied::Plane(plane::Answer::Task(answer)) => Some(answer),
        _ => None,
    }
}

impl State {
    /// Takes one message; `None` once there is nothing more to do for this actor.
    fn take(&mut self, message: Message, myself: &ActorRef<Message>) -> Option<()> {
        match message {
            Message::Look => self.look()?,
            Message::Claimed(committed) => {
                let Answer::Claimed(epoch) = answer(committed)? else { return None };
                self.epoch = Some(epoch);
                self.look()?;
            }
            Message::Room(permit) => {
                self.asking = false;
                self.begin(permit, myself);
            }
            Message::Begun(committed) => {
                let permits = self.beginning.take().unwrap_or_default();
                let Answer::Begun(begun) = answer(committed)? else { return None };
                self.execute(begun, permits, myself)?;
            }
            Message::Done(target, outcome, permit) => {
                self.running = self.running.saturating_sub(1);
                self.results.extend(outcome.map(|outcome| (target, outcome, permit)));
            }
            Message::Finished(committed) => {
                self.finishing = None;
                if answer(committed)? != Answer::Done {
                    return None;
                }
                self.finished()?;
            }
        }
        self.finish(myself);
        self.ask(myself);
        Some(())
    }

    /// The task, if it is under way and this actor's.
    fn task(&self) -> Option<Task> {
        let task = self.operations.show_task(self.id).ok()?;
        let own = Some(task.epoch) == self.epoch && task.owner == Some(self.operations.dispatch.replica().run());
        (own && task.status.runs()).then_some(task)
    }

    /// Looks whether the task goes on, and what is to be done.
    fn look(&mut self) -> Option<()> {
        if self.epoch.is_none() {
            return Some(());
        }
        let task = self.task()?;
        if task.status == Status::Stopping {
            self.pending.clear();
            self.later.clear();
            return Some(());
        }
        self.work.get_or_insert_with(|| Arc::new(work(&task)));
        let now = self.operations.dispatch.now().log;
        while let Some((at, number)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, number));
            self.pending.push_back(number);
        }
        let progress = task.progress();
        let unknown = progress.waitting > 0 || (progress.fail_wait_retry > 0 && self.later.is_empty());
        if unknown
            && self.pending.is_empty()
            && self.beginning.is_none()
            && self.finishing.is_none()
            && self.results.is_empty()
        {
            // At the start, and when some are to be done anew.
            for (target, number) in task.targets.iter().zip(0..) {
                match target.stage {
                    Stage::Waitting => self.pending.push_back(number),
                    Stage::FailWaitRetry => drop(self.later.insert((target.next_try, number))),
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// Asks for room, if there is something to begin and the log is not behind: those who publish come first.
    fn ask(&mut self, myself: &ActorRef<Message>) {
        let idle = !self.asking && self.beginning.is_none();
        if !idle || self.pending.is_empty() || self.epoch.is_none() || self.operations.dispatch.replica().congested() {
            return;
        }
        self.asking = true;
        let (room, actor) = (self.room.clone(), myself.clone());
        tokio::spawn(async move {
            if let Ok(permit) = room.acquire_owned().await {
                // Room that nobody takes is free again.
                let _ = actor.cast(Message::Room(permit));
            }
        });
    }

    /// Has as many targets noted as begun as there is room for.
    fn begin(&mut self, permit: OwnedSemaphorePermit, myself: &ActorRef<Message>) {
        let Some(epoch) = self.epoch else { return };
        let mut permits = vec![permit];
        while permits.len() < self.pending.len().min(TOGETHER_MAX)
            && let Ok(permit) = self.room.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
        let targets: Vec<u32> = self.pending.drain(..permits.len().min(self.pending.len())).collect();
        if targets.is_empty() {
            return;
        }
        self.beginning = Some(permits);
        propose(&self.operations, Change::Begin { id: self.id, epoch, targets }, myself, Message::Begun);
    }

    /// Does what is noted as begun.
    fn execute(
        &mut self,
        begun: Vec<u32>,
        permits: Vec<OwnedSemaphorePermit>,
        myself: &ActorRef<Message>,
    ) -> Option<()> {
        if begun.is_empty() {
            return self.look();
        }
        let task = self.operations.show_task(self.id).ok()?;
        let work = self.work.clone()?;
        for (number, permit) in begun.into_iter().zip(permits) {
            let Some(target) = task.targets.get(number as usize) else { continue };
            // It has been begun before without an end only by a run that was lost.
            let (id, again) = (target.id.clone(), target.tries > 1 && target.failure.is_none());
            let (operations, work, actor) = (self.operations.clone(), work.clone(), myself.clone());
            self.running += 1;
            tokio::spawn(async move {
                let mut report = Report { actor, number, outcome: Some(broken("it broke off")), permit: Some(permit) };
                report.outcome = work.execute(&operations, number, &id, again).await;
            });
        }
        Some(())
    }

    /// Has noted what has ended, if nothing of that is under way: what ends meanwhile goes together.
    fn finish(&mut self, myself: &ActorRef<Message>) {
        let Some(epoch) = self.epoch.filter(|_| self.finishing.is_none() && !self.results.is_empty()) else { return };
        let (mut results, mut permits, mut bytes) = (Vec::new(), Vec::new(), 0);
        while results.len() < TOGETHER_MAX
            && bytes < RESULTS_BYTES_MAX
            && let Some((number, outcome, permit)) = self.results.pop_front()
        {
            bytes += outcome.bytes();
            self.operations.dispatch.metrics().target_done(match &outcome {
                Outcome::Success { .. } => "success",
                Outcome::Fail { again, .. } => {
                    if *again {
                        self.failing.push(number);
                    }
                    "fail"
                }
            });
            results.push((number, outcome));
            permits.extend(permit);
        }
        self.finishing = Some(permits);
        propose(&self.operations, Change::Finish { id: self.id, epoch, results }, myself, Message::Finished);
    }

    /// What had ended is noted.
    fn finished(&mut self) -> Option<()> {
        let failing = std::mem::take(&mut self.failing);
        let task = self.task()?;
        for number in failing {
            if let Some(target) =
                task.targets.get(number as usize).filter(|target| target.stage == Stage::FailWaitRetry)
            {
                self.later.insert((target.next_try, number));
            }
        }
        self.look()
    }
}

/// Says what came of a target, also where what does it breaks off.
struct Report {
    actor: ActorRef<Message>,
    number: u32,
    outcome: Option<Outcome>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Report {
    fn drop(&mut self) {
        // An actor that has ended is not the task's owner any more.
        let _ = self.actor.cast(Message::Done(self.number, self.outcome.take(), self.permit.take()));
    }
}

fn broken(why: &str) -> Outcome {
    Outcome::Fail { failure: Failure { code: BROKEN.into(), message: why.into() }, again: false }
}

/// What the document says, which was read once when the task was made.
fn work(task: &Task) -> Work {
    let document = serde_json::from_slice(&task.head.document).ok();
    Work::read(task.head.kind, document.as_ref()).unwrap_or_else(|error| Work::Unreadable(error.to_string()))
}
