//! Who carries tasks out on this node: one supervisor, which starts an actor for each task that this node has or is chosen
//! for, and tells the rules of each task's status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::plane::tasks::{Event, Notice};
use fulmar_broker::state::State;
use fulmar_platform::event::{self, Subject};
use fulmar_platform::registry::ObjectId;
use ractor::{Actor, ActorRef, ActorStatus};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::super::Operations;
use super::actor::{Arguments, Message, TaskActor};
use crate::dispatch::{Dispatch, tasks};

/// Between two looks at which tasks there are, where nothing happens to them: also what finds that a retry is due.
const LOOK: Duration = Duration::from_secs(1);

/// What the threads that apply the log leave for the supervisor.
struct Bell {
    dispatch: std::sync::Weak<Dispatch>,
    look: Arc<Notify>,
}

impl tasks::Tasks for Bell {
    fn happened(&self, event: &Event) {
        if let Event::Status(notice) = event
            && let Some(dispatch) = self.dispatch.upgrade()
        {
            tell(&dispatch, notice);
        }
        self.look.notify_one();
    }

    fn look(&self) {
        self.look.notify_one();
    }
}

impl Operations {
    /// Begins to carry tasks out: at most so many targets at one time. Must be called once, on the runtime that serves
    /// clients.
    pub fn run_tasks(&self, concurrency: usize) -> TaskRun {
        let look = Arc::new(Notify::new());
        let bell = Bell { dispatch: Arc::downgrade(&self.dispatch), look: look.clone() };
        self.dispatch.employ(Arc::new(bell));
        let room = Arc::new(Semaphore::new(concurrency));
        let supervisor = Supervisor { operations: self.clone(), room: room.clone(), actors: HashMap::new() };
        tokio::spawn(supervisor.run(look));
        TaskRun(room)
    }
}

/// This node's work on tasks.
#[derive(Debug)]
pub struct TaskRun(Arc<Semaphore>);

impl TaskRun {
    /// Begins nothing more: what is begun when the node ends would have no known end. Another node goes on.
    pub fn leave(&self) {
        self.0.close();
    }
}

struct Supervisor {
    operations: Operations,
    room: Arc<Semaphore>,
    actors: HashMap<ObjectId, ActorRef<Message>>,
}

impl Supervisor {
    async fn run(mut self, look: Arc<Notify>) {
        loop {
            // Whichever comes first: time passes also where nothing happens.
            let _ = tokio::time::timeout(LOOK, look.notified()).await;
            self.actors.retain(|_, actor| actor.get_status() < ActorStatus::Stopping);
            self.operations.dispatch.metrics().tasks_running.set(i64::try_from(self.actors.len()).unwrap_or(i64::MAX));
            if !self.operations.serves() {
                continue;
            }
            for id in self.own() {
                match self.actors.get(&id) {
                    // One that ends at this moment is replaced at the next look.
                    Some(actor) => drop(actor.cast(Message::Look)),
                    None => self.start(id).await,
                }
            }
        }
    }

    /// Tasks that are under way and this run's own, or nobody's, and it is chosen for them.
    fn own(&self) -> Vec<ObjectId> {
        let replica = self.operations.dispatch.replica();
        let (state, run) = (replica.read(), replica.run());
        let alive = |state: &State, owner| state.runs().any(|one| one.alive && (one.node, one.generation) == owner);
        let open = state.plane().tasks.open().filter(|task| task.status.runs());
        let own = open.filter(|task| match task.owner.filter(|owner| alive(&state, *owner)) {
            Some(owner) => owner == run,
            None => state.chosen(&task.id.to_string()) == Some(run),
        });
        own.map(|task| task.id).collect()
    }

    async fn start(&mut self, id: ObjectId) {
        let arguments = Arguments { operations: self.operations.clone(), room: self.room.clone(), id };
        match Actor::spawn(None, TaskActor, arguments).await {
            Ok((actor, _)) => {
                self.actors.insert(id, actor);
            }
            Err(error) => tracing::error!(%error, task = %id, "the actor of a batch task did not start"),
        }
    }
}

/// Has the rules told what has become of a task, where this node is the one to.
fn tell(dispatch: &Dispatch, notice: &Notice) {
    tracing::info!(task = %notice.id, kind = notice.kind.as_str(), status = notice.status.as_str(), "batch task");
    let id = notice.id.to_string();
    if dispatch.chosen(&id) {
        dispatch.proclaim(Subject::BatchTaskUpdate, &notice.app_id, || Some(update(&id, notice)));
    }
}

/// The event `batchtask:update`.
fn update(id: &str, notice: &Notice) -> event::Event {
    let Notice { app_id, kind, status, description, at, .. } = notice;
    event::Event {
        subject: Subject::BatchTaskUpdate,
        app_id: app_id.clone(),
        device: None,
        // The same on every node, so that one which tells it again is found out.
        request_id: format!("{id}-{}-{}", status.as_str(), at.0).into(),
        at_ms: at.0,
        body: Arc::new(json!({
            "app_id": app_id,
            "task_id": id,
            "task_type": kind.as_str(),
            "status": status.as_str(),
            "status_desc": description,
        })),
        flat: Arc::new(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use fulmar_broker::LogTime;
    use fulmar_broker::plane::tasks::{Kind, Status};

    use super::*;

    #[test]
    fn a_status_is_told_without_a_header() {
        let notice = Notice {
            id: ObjectId::new(1, 2),
            app_id: "a".into(),
            kind: Kind::CreateCommands,
            status: Status::PartialSuccess,
            description: "1 of 3 succeeded".into(),
            at: LogTime(1_449_922_332_815),
        };
        let id = notice.id.to_string();
        let told = update(&id, &notice).json();
        assert_eq!((&told["resource"], &told["event"]), (&json!("batchtask"), &json!("update")));
        let body = json!({
            "app_id": "a", "task_id": "000000010000000000000002", "task_type": "createCommands",
            "status": "PartialSuccess", "status_desc": "1 of 3 succeeded",
        });
        assert_eq!(told["notify_data"], json!({ "body": body }));
        assert_eq!(told["request_id"], "000000010000000000000002-PartialSuccess-1449922332815");
    }
}
