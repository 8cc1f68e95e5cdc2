//! Changes of tasks. Every change of a target's stage goes through [`Hand::set`], which keeps what is derived.

use std::sync::Arc;

use fulmar_platform::registry::ObjectId;
use rpds::RedBlackTreeMapSync;

use super::{
    Answer, BYTES_MAX, Change, DOCUMENT_BYTES_MAX, Event, Failure, Head, LOST, MESSAGE_BYTES_MAX, Notice, OPEN_MAX,
    OUTPUT_BYTES_MAX, OVERDUE, OVERDUE_STEP_MAX, Outcome, Refusal, Stage, Status, TARGETS_KEPT_MAX, TARGETS_MAX,
    TASKS_MAX, TEXT_BYTES_MAX, Target, Task, Tasks, head_bytes,
};
use crate::key::LogTime;
use crate::plane::{self, Ground};

/// A task that is being changed, and what is derived from it.
struct Hand<'a> {
    task: &'a mut Task,
    upgrades: &'a mut RedBlackTreeMapSync<(Arc<str>, ObjectId), u32>,
    bytes: &'a mut u64,
    now: LogTime,
}

/// At most so many bytes, up to the end of a character.
pub(super) fn cut(text: &str, bytes_max: usize) -> Box<str> {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().into()
}

impl Hand<'_> {
    /// Changes a target, and counts it anew.
    fn set(&mut self, number: u32, change: impl FnOnce(&mut Target)) {
        let Some(target) = self.task.targets.get_mut(number as usize) else { return };
        let (before, text_before) = (target.stage, target.text_bytes());
        change(target);
        let (after, text_after) = (target.stage, target.text_bytes());
        *self.task.progress.of(before) -= 1;
        *self.task.progress.of(after) += 1;
        self.task.text_bytes = self.task.text_bytes - text_before + text_after;
        *self.bytes = *self.bytes - text_before + text_after;
        if self.task.head.kind.upgrades() && before != after {
            let key = (target.id.clone(), self.task.id);
            match (before, after) {
                (_, Stage::Processing) => self.upgrades.insert_mut(key, number),
                (Stage::Processing, _) => {
                    self.upgrades.remove_mut(&key);
                }
                _ => {}
            }
        }
    }

    fn stage(&self, number: u32) -> Option<Stage> {
        self.task.targets.get(number as usize).map(|target| target.stage)
    }

    /// Targets at one of these stages: of those that are named, or of all where none is.
    fn at(&self, named: &[u32], stages: &[Stage]) -> Vec<u32> {
        let is_at = |number: &u32| self.stage(*number).is_some_and(|stage| stages.contains(&stage));
        if named.is_empty() {
            let all = self.task.targets.iter().zip(0..).filter(|(target, _)| stages.contains(&target.stage));
            return all.map(|(_, number)| number).collect();
        }
        named.iter().copied().filter(is_at).collect()
    }

    /// Ends a target that has begun.
    fn finish(&mut self, number: u32, outcome: &Outcome) {
        if self.stage(number) != Some(Stage::Processing) {
            return;
        }
        let policy = self.task.head.policy;
        let goes_on = self.task.status == Status::Processing;
        let room = (TEXT_BYTES_MAX.saturating_sub(self.task.text_bytes)).min(BYTES_MAX.saturating_sub(*self.bytes));
        let mut left_out = false;
        let mut kept = |text: &str, bytes_max: usize| {
            let text = cut(text, bytes_max);
            left_out = text.len() as u64 > room;
            if left_out { "".into() } else { text }
        };
        let now = self.now;
        match outcome {
            Outcome::Success { output } => {
                let output = kept(output, OUTPUT_BYTES_MAX);
                self.set(number, |target| {
                    (target.stage, target.output, target.failure) = (Stage::Success, output, None);
                });
            }
            Outcome::Fail { failure, again } => {
                let message = kept(&failure.message, MESSAGE_BYTES_MAX);
                let failure = Arc::new(Failure { code: cut(&failure.code, 64), message });
                self.set(number, |target| {
                    let tries_left = target.tries <= policy.retry_count;
                    target.failure = Some(failure);
                    if *again && goes_on && tries_left {
                        target.stage = Stage::FailWaitRetry;
                        target.next_try = now.plus_s(policy.retry_interval_s.into());
                    } else {
                        target.stage = Stage::Fail;
                    }
                });
            }
        }
        self.task.cropped |= left_out;
    }

    fn fail(&mut self, number: u32, code: &str, message: &str) {
        let failure = Failure { code: code.into(), message: message.into() };
        self.finish(number, &Outcome::Fail { failure, again: false });
    }

    /// What a lost run had begun.
    fn take_over(&mut self) {
        if self.task.progress.processing == 0 || self.task.head.kind.upgrades() {
            return; // devices that are upgrading go on telling how far they are
        }
        for number in self.at(&[], &[Stage::Processing]) {
            match (self.task.head.kind.repeatable(), self.task.status) {
                (true, Status::Stopping) => self.set(number, |target| target.stage = Stage::Stopped),
                (true, _) => self.set(number, |target| {
                    // Without the failure of an earlier try: by that it is known to have been begun by a lost run.
                    (target.stage, target.failure) = (Stage::Waitting, None);
                }),
                (false, _) => {
                    self.fail(number, LOST, "the node that did it was lost: whether it was done is not known");
                }
            }
        }
    }

    fn extend(&mut self, targets: &[Box<str>]) {
        for id in targets {
            self.task.targets.push_back_mut(Target::new(id));
            self.task.progress.waitting += 1;
        }
        if self.task.targets.len() as u64 >= u64::from(self.task.head.total) {
            let later = self.task.head.policy.schedule_at.is_some_and(|at| at > self.now);
            self.task.status = if later { Status::Waitting } else { Status::Processing };
        }
    }

    fn begin(&mut self, targets: &[u32]) -> Vec<u32> {
        if self.task.status != Status::Processing {
            return Vec::new();
        }
        // One that is named twice begins once.
        let mut begun = Vec::with_capacity(targets.len());
        for number in targets {
            if matches!(self.stage(*number), Some(Stage::Waitting | Stage::FailWaitRetry)) {
                self.set(*number, |target| {
                    target.stage = Stage::Processing;
                    target.tries = target.tries.saturating_add(1);
                });
                begun.push(*number);
            }
        }
        if !begun.is_empty() {
            self.task.begun = self.now;
        }
        begun
    }

    fn stop(&mut self, targets: &[u32]) -> Answer {
        if !matches!(self.task.status, Status::Waitting | Status::Processing | Status::Stopping) {
            return Answer::Refused(Refusal::Status);
        }
        let mut stages = vec![Stage::Waitting, Stage::FailWaitRetry];
        if self.task.head.kind.upgrades() {
            stages.push(Stage::Processing); // whose end need not be waited for
        }
        for number in self.at(targets, &stages) {
            self.set(number, |target| target.stage = Stage::Stopped);
        }
        if targets.is_empty() {
            self.task.status = Status::Stopping;
        }
        Answer::Done
    }

    /// Whether anything is to be done anew.
    fn retry(&mut self, targets: &[u32]) -> bool {
        let again = self.at(targets, &[Stage::Fail, Stage::Stopped]);
        for number in &again {
            self.set(*number, |target| *target = Target { id: target.id.clone(), ..Target::new("") });
        }
        if !again.is_empty() {
            self.task.status = Status::Processing;
        }
        !again.is_empty()
    }

    /// Its time has come; see [`Task::due`].
    fn due(&mut self) {
        if self.task.due().is_none_or(|at| at > self.now) {
            return;
        }
        match self.task.status {
            Status::Waitting => self.task.status = Status::Processing,
            Status::Processing => {
                for number in self.at(&[], &[Stage::Processing]).into_iter().take(OVERDUE_STEP_MAX) {
                    self.fail(number, OVERDUE, "the device has not told in time how its upgrade ended");
                }
            }
            _ => {}
        }
    }

    /// Ends a task of which nothing is left to do.
    fn conclude(&mut self) {
        if !matches!(self.task.status, Status::Waitting | Status::Processing | Status::Stopping)
            || !self.task.complete()
        {
            return;
        }
        let (progress, total) = (self.task.progress, self.task.head.total);
        self.task.owner = None;
        self.task.status = match self.task.status {
            _ if progress.success == total => Status::Success,
            Status::Stopping => Status::Stopped,
            _ if progress.success > 0 => Status::PartialSuccess,
            _ if progress.fail > 0 => Status::Fail,
            _ => Status::Stopped,
        };
    }
}

impl Tasks {
    pub(in crate::plane) fn apply(
        &mut self,
        change: &Change,
        ground: &dyn Ground,
        events: &mut Vec<plane::Event>,
    ) -> Answer {
        match change {
            Change::Create { head, targets } => self.create(head, targets, ground.now(), events),
            Change::Delete { id } => self.delete(*id),
            Change::Due { id } => {
                let late = |task: &Task| task.status == Status::Initializing;
                if self.get(*id).is_some_and(|task| late(task) && task.due() <= Some(ground.now())) {
                    self.remove(*id);
                    return Answer::Done;
                }
                self.change(*id, ground, events, |hand| {
                    hand.due();
                    Answer::Done
                })
            }
            Change::Extend { id, from, targets } => self.change(*id, ground, events, |hand| {
                let expected = hand.task.targets.len() == *from as usize;
                let all = *from as usize + targets.len();
                if !expected || hand.task.status != Status::Initializing || all > hand.task.head.total as usize {
                    return Answer::Refused(Refusal::Stale);
                }
                hand.extend(targets);
                Answer::Done
            }),
            Change::Claim { id, node, generation } => self.change(*id, ground, events, |hand| {
                let (own, task) = ((*node, *generation), &mut *hand.task);
                let taken = task.owner.is_some_and(|owner| owner != own && ground.alive(owner.0, owner.1));
                if !task.status.runs() || taken || !ground.alive(*node, *generation) {
                    return Answer::Refused(Refusal::Stale);
                }
                task.epoch += 1;
                task.owner = Some(own);
                let epoch = task.epoch;
                hand.take_over();
                Answer::Claimed(epoch)
            }),
            Change::Begin { id, epoch, targets } => self.change(*id, ground, events, |hand| {
                if hand.task.epoch != *epoch || hand.task.owner.is_none() {
                    return Answer::Refused(Refusal::Stale);
                }
                Answer::Begun(hand.begin(targets))
            }),
            Change::Finish { id, epoch, results } => self.change(*id, ground, events, |hand| {
                if hand.task.epoch != *epoch || hand.task.owner.is_none() {
                    return Answer::Refused(Refusal::Stale);
                }
                results.iter().for_each(|(number, outcome)| hand.finish(*number, outcome));
                Answer::Done
            }),
            Change::Told { id, target, outcome } => self.change(*id, ground, events, |hand| {
                if !hand.task.head.kind.upgrades() {
                    return Answer::Refused(Refusal::Stale);
                }
                hand.finish(*target, outcome);
                Answer::Done
            }),
            Change::Stop { id, targets } => self.change(*id, ground, events, |hand| hand.stop(targets)),
            Change::Retry { id, targets } => self.retry(*id, targets, ground, events),
        }
    }

    /// Changes a task, and keeps what is derived from it.
    fn change(
        &mut self,
        id: ObjectId,
        ground: &dyn Ground,
        events: &mut Vec<plane::Event>,
        change: impl FnOnce(&mut Hand<'_>) -> Answer,
    ) -> Answer {
        let Some(task) = self.tasks.get_mut(&id) else { return Answer::Refused(Refusal::Missing) };
        let (status, due) = (task.status, task.due());
        let mut hand = Hand { task, upgrades: &mut self.upgrades, bytes: &mut self.bytes, now: ground.now() };
        let answer = change(&mut hand);
        hand.conclude();
        let task = hand.task;
        if task.due() != due {
            if let Some(at) = due {
                self.due.remove_mut(&(at, id));
            }
            if let Some(at) = task.due() {
                self.due.insert_mut((at, id), ());
            }
        }
        if task.status != status {
            if task.status.open() {
                self.open.insert_mut(id, ());
            } else {
                self.open.remove_mut(&id);
            }
            events.push(told(task, ground.now()));
        }
        answer
    }

    fn create(&mut self, head: &Head, targets: &[Box<str>], now: LogTime, events: &mut Vec<plane::Event>) -> Answer {
        let sound = (1..=TARGETS_MAX).contains(&head.total)
            && targets.len() <= head.total as usize
            && head.document.len() <= DOCUMENT_BYTES_MAX;
        if !sound || self.open.size() >= OPEN_MAX || !self.make_room(head) {
            return Answer::Refused(Refusal::Full);
        }
        self.last += 1;
        let id = ObjectId::new(u32::try_from(now.0 / 1000).unwrap_or(u32::MAX), self.last);
        let mut task = Task::new(id, Arc::new(head.clone()), now);
        let mut hand = Hand { task: &mut task, upgrades: &mut self.upgrades, bytes: &mut self.bytes, now };
        hand.extend(targets);
        self.targets_kept += u64::from(head.total);
        self.bytes += task.fixed_bytes();
        self.open.insert_mut(id, ());
        if let Some(at) = task.due() {
            self.due.insert_mut((at, id), ());
        }
        if task.status != Status::Initializing {
            events.push(told(&task, now));
        }
        self.tasks.insert_mut(id, task);
        Answer::Created(id)
    }

    /// Lets finished tasks go, the oldest first, until another one fits.
    fn make_room(&mut self, head: &Head) -> bool {
        loop {
            let fits = self.tasks.size() < TASKS_MAX
                && self.targets_kept + u64::from(head.total) <= TARGETS_KEPT_MAX
                && self.bytes + head_bytes(head) <= BYTES_MAX;
            if fits {
                return true;
            }
            let Some(oldest) = self.tasks.values().find(|task| !task.status.open()).map(|task| task.id) else {
                return false;
            };
            self.remove(oldest);
            self.evicted += 1;
        }
    }

    fn retry(&mut self, id: ObjectId, targets: &[u32], ground: &dyn Ground, events: &mut Vec<plane::Event>) -> Answer {
        let Some(task) = self.get(id) else { return Answer::Refused(Refusal::Missing) };
        match task.status {
            Status::Initializing | Status::Waitting | Status::Stopping => return Answer::Refused(Refusal::Status),
            Status::Processing => {}
            _ if self.open.size() >= OPEN_MAX => return Answer::Refused(Refusal::Full),
            _ => {}
        }
        let (status, mut more) = (task.status, false);
        let answer = self.change(id, ground, events, |hand| {
            more = hand.retry(targets);
            Answer::Done
        });
        if more && status == Status::Processing {
            events.push(plane::Event::Task(Event::Work(id)));
        }
        answer
    }

    fn delete(&mut self, id: ObjectId) -> Answer {
        match self.get(id).map(|task| task.status) {
            None => Answer::Refused(Refusal::Missing),
            Some(Status::Initializing | Status::Processing | Status::Stopping) => Answer::Refused(Refusal::Status),
            Some(_) => {
                self.remove(id);
                Answer::Done
            }
        }
    }

    fn remove(&mut self, id: ObjectId) {
        let Some(task) = self.tasks.get(&id) else { return };
        self.targets_kept -= u64::from(task.head.total);
        self.bytes -= task.fixed_bytes() + task.text_bytes;
        if let Some(at) = task.due() {
            self.due.remove_mut(&(at, id));
        }
        self.open.remove_mut(&id);
        self.tasks.remove_mut(&id);
    }
}

fn told(task: &Task, at: LogTime) -> plane::Event {
    plane::Event::Task(Event::Status(Notice {
        id: task.id,
        app_id: task.head.app_id.clone(),
        kind: task.head.kind,
        status: task.status,
        description: task.description().into(),
        at,
    }))
}
