//! Batch tasks: made, shown, stopped, and carried out by the node that the state chooses for each.

mod actor;
mod input;
mod run;
mod work;

use fulmar_broker::plane;
use fulmar_broker::plane::tasks::{Answer, Change, Head, Kind, Refusal, Stage, Status, TARGETS_MAX, Target, Task};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::registry::ObjectId;

use super::{COMMIT, Error, Operations, Page, Paging, apps, page};

pub use input::NewTask;
pub use run::TaskRun;

/// Bytes of targets in one command; more than these come in several.
const TARGETS_BYTES_MAX: usize = 24 * 1024;

/// The code of a target that is not at a stage to be stopped or done again.
const NOT_SO: &str = "FULMAR.000054";

/// Which tasks are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub app_id: Option<String>,
    pub kind: Option<Kind>,
    pub status: Option<Status>,
}

/// What became of a target that was to be stopped or done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redone {
    pub target: String,
    /// Code and text; `None`: it was done.
    pub error: Option<(&'static str, String)>,
}

/// What is done to targets by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    Stop,
    Retry,
}

impl Operations {
    /// Makes a task; it runs at once, or at its time.
    ///
    /// # Errors
    /// Something in it is unusable, or there are too many tasks.
    pub async fn create_task(&self, new: NewTask) -> Result<Task, Error> {
        self.has_room()?;
        let app_id =
            self.read(|registry| Ok::<_, Error>(apps::app_of(registry, new.app_id.as_deref())?.record.id.clone()))?;
        let targets = self.targets_of(&new)?;
        let total = u32::try_from(targets.len()).ok().filter(|total| (1..=TARGETS_MAX).contains(total));
        let total = total.ok_or_else(|| {
            Error::invalid("targets", format!("must be 1 to {TARGETS_MAX} devices; there are {}", targets.len()))
        })?;
        let head = Head {
            name: new.name.into(),
            kind: new.kind,
            app_id,
            document: new.document.into(),
            filter: new.filter.into(),
            version: new.version.into(),
            policy: new.policy,
            total,
        };
        let mut parts = parts(targets).into_iter();
        let first =
            Change::Create { head: Box::new(head), targets: parts.next().map(|(_, ids)| ids).unwrap_or_default() };
        let (mut answer, mut index) = self.change_task(first).await?;
        let Answer::Created(id) = answer else { return Err(refused(answer, ObjectId::default(), None)) };
        let mut rest = parts.peekable();
        while let Some((from, targets)) = rest.next() {
            let change = Change::Extend { id, from, targets };
            if rest.peek().is_some() {
                // The last one is waited for; it is refused if one before it was.
                self.dispatch.replica().propose(vec![command(change)], Box::new(|_| {}));
                continue;
            }
            (answer, index) = self.change_task(change).await?;
            if answer != Answer::Done {
                return Err(Error::Unavailable); // it took too long, and the task is gone
            }
        }
        self.known_to_all(index).await?;
        self.show_task(id)
    }

    /// Devices that a task is for: named, of a product, or those that its document makes.
    fn targets_of(&self, new: &NewTask) -> Result<Vec<Box<str>>, Error> {
        let Some(product) = &new.product_id else { return Ok(new.targets.clone()) };
        self.read(|registry| {
            if registry.product(product).is_none() {
                return Err(Error::invalid("targets_filter.product_id", "names no product"));
            }
            let of_product = registry.devices_where(None, |device| *device.product_id == **product);
            Ok(of_product.map(|(kept, _)| kept.record.id.clone()).take(TARGETS_MAX as usize + 1).collect())
        })
    }

    async fn change_task(&self, change: Change) -> Result<(Answer, u64), Error> {
        let commit = self.dispatch.replica().commit_at(vec![command(change)]);
        let (outcomes, index) = tokio::time::timeout(COMMIT, commit).await.map_err(|_| Error::Unavailable)?;
        match outcomes.ok().and_then(|outcomes| outcomes.into_iter().next()) {
            Some(Outcome::Plane(plane::Answer::Task(answer))) => Ok((answer, index)),
            _ => Err(Error::Unavailable),
        }
    }

    /// Waits until every live node has applied it.
    async fn known_to_all(&self, index: u64) -> Result<(), Error> {
        let stable = self.dispatch.replica().stable(index);
        let known =
            !self.dispatch.links().connected() || matches!(tokio::time::timeout(COMMIT, stable).await, Ok(true));
        if known { Ok(()) } else { Err(Error::Unavailable) }
    }

    /// Tasks as they are now; a clone costs nothing.
    fn tasks(&self) -> plane::tasks::Tasks {
        self.dispatch.replica().read().plane().tasks.clone()
    }

    /// # Errors
    /// It is not there.
    pub fn show_task(&self, id: ObjectId) -> Result<Task, Error> {
        let state = self.dispatch.replica().read();
        state.plane().tasks.get(id).cloned().ok_or_else(|| Error::NoTask(id.to_string()))
    }

    /// A page of tasks, newest first.
    #[must_use]
    pub fn list_tasks(&self, filter: &TaskFilter, paging: &Paging) -> Page<Task> {
        let tasks = self.tasks();
        let takes = |task: &&Task| {
            filter.app_id.as_deref().is_none_or(|app| app == &*task.head.app_id)
                && filter.kind.is_none_or(|kind| kind == task.head.kind)
                && filter.status.is_none_or(|status| status == task.status)
        };
        page(tasks.all().filter(takes).map(|task| (task.id, task.clone())), paging)
    }

    /// A page of a task's targets, in their order: those at a stage, and the one of a name, where these are given.
    #[must_use]
    pub fn list_targets(task: &Task, stage: Option<Stage>, target: Option<&str>, paging: &Paging) -> Page<Target> {
        // A list goes from large ids to small ones: so the first target has the largest.
        let numbered = task.targets.iter().zip((1..=u64::from(task.head.total)).rev());
        let takes = |target_of: &&Target| {
            stage.is_none_or(|stage| stage == target_of.stage) && target.is_none_or(|target| target == &*target_of.id)
        };
        let taken = numbered.filter(|(target, _)| takes(target));
        page(taken.map(|(target, number)| (ObjectId::new(task.id.seconds(), number), target.clone())), paging)
    }

    /// Begins nothing more of a task, or of these targets of it.
    ///
    /// # Errors
    /// It is not there, or not under way.
    pub async fn stop_task(&self, id: ObjectId, targets: Option<Vec<&str>>) -> Result<Vec<Redone>, Error> {
        self.by_hand(Hand::Stop, id, targets).await
    }

    /// Does a task's failed and stopped targets anew, or these of them.
    ///
    /// # Errors
    /// It is not there, or waits for its time, or is being stopped.
    pub async fn retry_task(&self, id: ObjectId, targets: Option<Vec<&str>>) -> Result<Vec<Redone>, Error> {
        self.by_hand(Hand::Retry, id, targets).await
    }

    /// Nothing waits to be confirmed: each target that is named is told so.
    ///
    /// # Errors
    /// The task is not there.
    pub fn confirm_task(&self, id: ObjectId, targets: Option<Vec<&str>>) -> Result<Vec<Redone>, Error> {
        self.show_task(id)?;
        let told = |target: &str| Redone {
            target: target.to_owned(),
            error: Some((NOT_SO, "waits for no confirmation".to_owned())),
        };
        Ok(targets.unwrap_or_default().into_iter().map(told).collect())
    }

    async fn by_hand(&self, hand: Hand, id: ObjectId, targets: Option<Vec<&str>>) -> Result<Vec<Redone>, Error> {
        let task = self.show_task(id)?;
        let named = targets.map(|targets| numbers(&task, &targets)).unwrap_or_default();
        let numbers: Vec<u32> = named.iter().filter_map(|(_, number)| *number).collect();
        if numbers.is_empty() && !named.is_empty() {
            // No number means all of them.
            return Ok(named.iter().map(|(target, _)| redone(hand, target, None, None)).collect());
        }
        let change = match hand {
            Hand::Stop => Change::Stop { id, targets: numbers },
            Hand::Retry => Change::Retry { id, targets: numbers },
        };
        let (answer, index) = self.change_task(change).await?;
        if answer != Answer::Done {
            return Err(refused(answer, id, Some(task.status)));
        }
        let after = self.show_task(id)?;
        self.known_to_all(index).await?;
        let stage = |task: &Task, number: u32| task.targets.get(number as usize).map(|target| target.stage);
        let told = |(target, number): &(&str, Option<u32>)| {
            let before = number.and_then(|number| stage(&task, number));
            redone(hand, target, before, number.and_then(|number| stage(&after, number)))
        };
        Ok(named.iter().map(told).collect())
    }

    /// # Errors
    /// It is not there, or is under way.
    pub async fn delete_task(&self, id: ObjectId) -> Result<(), Error> {
        let status = self.show_task(id)?.status;
        let (answer, index) = self.change_task(Change::Delete { id }).await?;
        if answer != Answer::Done {
            return Err(refused(answer, id, Some(status)));
        }
        self.known_to_all(index).await
    }
}

fn command(change: Change) -> Command {
    Command::Plane(Box::new(plane::Change::Task(change)))
}

/// Targets in parts that fit into a command each, with the number of the first of each.
fn parts(targets: Vec<Box<str>>) -> Vec<(u32, Vec<Box<str>>)> {
    let (mut parts, mut bytes) = (Vec::new(), usize::MAX);
    for (number, target) in (0..).zip(targets) {
        if bytes >= TARGETS_BYTES_MAX {
            parts.push((number, Vec::new()));
            bytes = 0;
        }
        bytes += target.len() + 4;
        if let Some((_, part)) = parts.last_mut() {
            part.push(target);
        }
    }
    parts
}

/// The numbers of targets that are named, where the task has them.
fn numbers<'t>(task: &Task, named: &[&'t str]) -> Vec<(&'t str, Option<u32>)> {
    let wanted: std::collections::BTreeSet<&str> = named.iter().copied().collect();
    let found: std::collections::BTreeMap<&str, u32> = task
        .targets
        .iter()
        .zip(0..)
        .filter(|(target, _)| wanted.contains(&*target.id))
        .map(|(target, number)| (&*target.id, number))
        .collect();
    named.iter().map(|target| (*target, found.get(target).copied())).collect()
}

fn redone(hand: Hand, target: &str, before: Option<Stage>, after: Option<Stage>) -> Redone {
    let done = match hand {
        Hand::Stop => after == Some(Stage::Stopped),
        Hand::Retry => matches!(before, Some(Stage::Fail | Stage::Stopped)),
    };
    let problem = match (hand, before) {
        (_, None) => "is no target of the task".to_owned(),
        (Hand::Stop, Some(stage)) => format!("is {}: only what waits can be stopped", stage.as_str()),
        (Hand::Retry, Some(stage)) => format!("is {}: only what has failed is done again", stage.as_str()),
    };
    Redone { target: target.to_owned(), error: (!done).then_some((NOT_SO, problem)) }
}

fn refused(answer: Answer, id: ObjectId, status: Option<Status>) -> Error {
    match answer {
        Answer::Refused(Refusal::Missing) => Error::NoTask(id.to_string()),
        Answer::Refused(Refusal::Full) => Error::Full,
        Answer::Refused(Refusal::Status) => {
            Error::TaskStatus { id: id.to_string(), status: status.map_or("", Status::as_str) }
        }
        _ => Error::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_all_targets_in_order() {
        assert!(parts(Vec::new()).is_empty());
        let targets: Vec<Box<str>> = (0..30_000).map(|number| format!("product_device-{number:06}").into()).collect();
        let parts = parts(targets.clone());
        assert!(parts.len() > 10);
        for ((from, part), next) in parts.iter().zip(parts.iter().skip(1)) {
            assert_eq!(from + u32::try_from(part.len()).unwrap(), next.0);
            assert!(part.iter().map(|target| target.len() + 4).sum::<usize>() < TARGETS_BYTES_MAX + 200);
        }
        let joined: Vec<Box<str>> = parts.into_iter().flat_map(|(_, part)| part).collect();
        assert_eq!(joined, targets);
    }

    #[test]
    fn each_target_is_told_what_became_of_it() {
        for (hand, before, after, wanted) in [
            (Hand::Stop, Some(Stage::Waitting), Some(Stage::Stopped), None),
            (
                Hand::Stop,
                Some(Stage::Processing),
                Some(Stage::Processing),
                Some("is Processing: only what waits can be stopped"),
            ),
            (Hand::Retry, Some(Stage::Fail), Some(Stage::Waitting), None),
            (Hand::Retry, Some(Stage::Fail), Some(Stage::Success), None),
            (
                Hand::Retry,
                Some(Stage::Success),
                Some(Stage::Success),
                Some("is Success: only what has failed is done again"),
            ),
            (Hand::Stop, None, None, Some("is no target of the task")),
        ] {
            let error = redone(hand, "d", before, after).error;
            assert_eq!(error.as_ref().map(|(_, text)| text.as_str()), wanted);
        }
    }
}
