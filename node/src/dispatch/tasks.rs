//! Batch tasks, on their way between the log, whoever carries them out, and devices that tell how their upgrades go.

use std::sync::Arc;

use fulmar_broker::plane;
use fulmar_broker::plane::tasks::{Change, Event, Failure, Kind, Outcome, Task};
use fulmar_broker::state::command::Command;
use fulmar_platform::upgrade::{self, Progress};
use fulmar_platform::{Report, Told};

use super::Dispatch;

/// The code of a device that has not upgraded.
const UPGRADE_FAILED: &str = "FULMAR.000052";

/// Whoever carries tasks out. Told on the threads that apply the log: it must not wait.
pub trait Tasks: Send + Sync {
    fn happened(&self, event: &Event);
    /// Who is alive, or which tasks there are, may be other than before.
    fn look(&self);
}

impl Dispatch {
    /// Names who carries tasks out. Once; until then nobody does.
    pub fn employ(&self, tasks: Arc<dyn Tasks>) {
        // There is one in the life of a node.
        let _ = self.tasks.set(tasks);
    }

    pub(super) fn task_happened(&self, event: &Event) {
        if let Some(tasks) = self.tasks.get() {
            tasks.happened(event);
        }
    }

    pub(super) fn look_at_tasks(&self) {
        if let Some(tasks) = self.tasks.get() {
            tasks.look();
        }
    }

    /// Has the log take in what a device's report says of its upgrades, if a task waits for that. Nobody waits for it: a
    /// device goes on telling, and at last its version says so.
    pub fn upgrade_told(&self, report: &Report) {
        if !matches!(report.what, Told::Upgrade(_) | Told::Version { .. }) {
            return;
        }
        let state = self.replica.read();
        let tasks = &state.plane().tasks;
        if !tasks.upgrading() {
            return;
        }
        let ended: Vec<Command> = tasks
            .upgrades_of(&report.device)
            .filter_map(|(task, target)| Some((task.id, target, outcome(task, &report.what)?)))
            .map(|(id, target, outcome)| plane::Change::Task(Change::Told { id, target, outcome }))
            .map(|change| Command::Plane(Box::new(change)))
            .collect();
        drop(state);
        if !ended.is_empty() {
            let device = report.device.clone();
            self.replica.propose(
                ended,
                Box::new(move |committed| {
                    if let Err(error) = committed {
                        tracing::error!(%error, %device, "the end of an upgrade was not committed");
                    }
                }),
            );
        }
    }
}

/// How a device's upgrade has ended, if it has.
fn outcome(task: &Task, told: &Told) -> Option<Outcome> {
    match told {
        Told::Version { firmware, software, .. } => {
            let version = if task.head.kind == Kind::FirmwareUpgrade { firmware } else { software };
            (!version.is_empty() && *version == task.head.version).then(|| Outcome::Success { output: version.clone() })
        }
        Told::Upgrade(payload) => match upgrade::read(payload)? {
            Progress::Going => None,
            Progress::Done => Some(Outcome::Success { output: String::from_utf8_lossy(payload).into_owned().into() }),
            Progress::Failed { code, words } => {
                let message = format!("the device has given up with code {code}: {words}").into();
                let failure = Failure { code: UPGRADE_FAILED.into(), message };
                Some(Outcome::Fail { failure, again: true })
            }
        },
        _ => None,
    }
}
