//! What applications have devices told, and what rules keep for their sinks: messages with their states, batch tasks, and
//! backlogs of durable rules. One deterministic part of the replicated state, changed by commands, in persistent maps, so
//! that a clone is O(1). It knows only log time, and of the rest of the state what [`Ground`] tells.

pub mod backlog;
pub mod mail;
pub mod tasks;

use fulmar_platform::registry::Registry;

use crate::key::{Generation, LogTime, NodeId};
use crate::state::command::{Limits, Owner};

/// What the rest of the state says while a change is applied.
pub trait Ground {
    fn now(&self) -> LogTime;
    fn registry(&self) -> &Registry;
    /// Who holds the connection of a device, if a live run does.
    fn owner_of(&self, device: &str) -> Option<Owner>;
    /// Whether a run of a node is alive.
    fn alive(&self, node: NodeId, generation: Generation) -> bool;
    /// Bytes that all backlogs together may have.
    fn backlog_bytes_max(&self) -> u64 {
        Limits::default().rule_backlog_bytes_max
    }
}

/// What may change it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Mail(mail::Change),
    Task(tasks::Change),
    Backlog(backlog::Change),
}

impl Change {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Mail(change) => change.bytes(),
            Change::Task(change) => change.bytes(),
            Change::Backlog(change) => change.bytes(),
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Mail(mail::Answer),
    Task(tasks::Answer),
    Backlog(backlog::Answer),
}

/// What happened: told to every node, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Mail(mail::Event),
    Task(tasks::Event),
    Backlog(backlog::Event),
}

/// A piece of it, as a snapshot has it: ascending by kind, and as each module says within its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Filed {
    Mail(mail::Filed),
    Task(tasks::Filed),
    Backlog(backlog::Filed),
}

impl Filed {
    /// Whether it only has numbers that go on from there, and nothing that waits.
    #[must_use]
    pub fn only_counts(&self) -> bool {
        let numbers =
            matches!(self, Filed::Mail(mail::Filed::Books { .. }) | Filed::Task(tasks::Filed::Numbers { .. }));
        numbers || matches!(self, Filed::Backlog(backlog::Filed::Head { .. }))
    }

    /// The same, held by no run: those that held it are not those of the cluster that it comes to.
    #[must_use]
    pub fn unowned(mut self) -> Filed {
        match &mut self {
            Filed::Task(tasks::Filed::Task(task)) => task.owner = None,
            Filed::Backlog(backlog::Filed::Backlog { owner, .. }) => *owner = None,
            _ => {}
        }
        self
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plane {
    pub mail: mail::Mail,
    pub tasks: tasks::Tasks,
    pub backlogs: backlog::Backlogs,
}

impl Plane {
    /// Applies one change.
    pub fn apply(&mut self, change: &Change, ground: &dyn Ground, events: &mut Vec<Event>) -> Answer {
        match change {
            Change::Mail(change) => Answer::Mail(self.mail.apply(change, ground, events)),
            Change::Task(change) => Answer::Task(self.tasks.apply(change, ground, events)),
            Change::Backlog(change) => Answer::Backlog(self.backlogs.apply(change, ground, events)),
        }
    }

    /// A device is no more: so is what was meant for it.
    pub fn device_deleted(&mut self, device: &str) {
        self.mail.device_deleted(device);
    }

    /// A device was put: it may be reached through the connection of another one than before.
    pub fn device_put(&mut self, device: &str, registry: &Registry) {
        if let Some(via) = registry.connected_through(device) {
            self.mail.device_moved(device, via);
        }
    }

    /// An action of a rule is no more: so is what waits for its sink.
    pub fn action_deleted(&mut self, action: &str, events: &mut Vec<Event>) {
        self.backlogs.action_deleted(action, events);
    }

    /// Changes that are due at `now`, at most so many. The leader proposes them, and asks again once they are applied;
    /// each checks again at apply, so that repeating it is harmless.
    #[must_use]
    pub fn due(&self, now: LogTime, most: usize) -> Vec<Change> {
        let mut due: Vec<Change> = self.mail.due(now, most).into_iter().map(Change::Mail).collect();
        due.extend(self.tasks.due(now, most - due.len()).into_iter().map(Change::Task));
        due.extend(self.backlogs.due(now, most - due.len()).into_iter().map(Change::Backlog));
        due
    }

    /// When [`Plane::due`] next has something to say.
    #[must_use]
    pub fn next_due(&self) -> Option<LogTime> {
        [self.mail.next_due(), self.tasks.next_due(), self.backlogs.next_due()].into_iter().flatten().min()
    }

    /// Puts back one piece of [`Plane::pieces`], in their order.
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn restore(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        match filed {
            Filed::Mail(piece) => self.mail.restore(piece),
            Filed::Task(piece) => self.tasks.restore(piece),
            Filed::Backlog(piece) => self.backlogs.restore(piece),
        }
    }

    /// Once every piece has come.
    ///
    /// # Errors
    /// Pieces are missing.
    pub fn restored(&mut self) -> Result<(), (&'static str, String)> {
        self.tasks.restored()?;
        self.backlogs.check()
    }

    /// Everything, for a snapshot.
    pub fn pieces(&self) -> impl Iterator<Item = Filed> {
        self.mail
            .pieces()
            .map(Filed::Mail)
            .chain(self.tasks.pieces().map(Filed::Task))
            .chain(self.backlogs.pieces().map(Filed::Backlog))
    }
}

/// A plane that is being put together. Takes what [`Plane::pieces`] gives, in that order.
#[derive(Debug, Default)]
pub struct Restoring {
    plane: Plane,
    kind: u8,
}

impl Restoring {
    /// Takes the next piece.
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn add(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        let kind = match &filed {
            Filed::Mail(_) => 0,
            Filed::Task(_) => 1,
            Filed::Backlog(_) => 2,
        };
        if kind < self.kind {
            return Err(("kind", "is not in order".to_owned()));
        }
        self.kind = kind;
        self.plane.restore(filed)
    }

    /// The plane as far as it has come.
    #[must_use]
    pub fn unfinished(self) -> Plane {
        self.plane
    }

    /// The plane.
    ///
    /// # Errors
    /// Pieces are missing.
    pub fn finish(mut self) -> Result<Plane, (&'static str, String)> {
        self.plane.restored()?;
        Ok(self.plane)
    }
}
