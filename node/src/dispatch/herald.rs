//! Events that follow from the log, on their way to the rules: from the thread that applies it, which must not work for them,
//! through a bounded queue to a task that does.

use std::sync::Weak;

use fulmar_platform::event::{Event, Subject};
use tokio::sync::mpsc;

use super::Dispatch;

/// Events that wait for the rules; further ones are dropped and counted.
const EVENTS_MAX: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub(super) struct Herald(mpsc::Sender<Event>);

impl Herald {
    /// Must be called on a runtime.
    pub(super) fn start(dispatch: Weak<Dispatch>) -> Herald {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Some(dispatch) = dispatch.upgrade() else { return };
                dispatch.happened(&event);
            }
        });
        Herald(sender)
    }
}

impl Dispatch {
    /// Has an event offered to the rules, soon, in the order of the calls; it is made only if a rule wants one of its
    /// subject and resource space. Never waits. Must not be called with the state held.
    pub fn proclaim(&self, subject: Subject, app_id: &str, event: impl FnOnce() -> Option<Event>) {
        if self.rules_want(subject, app_id)
            && let Some(event) = event()
            && self.herald.0.try_send(event).is_err()
        {
            self.metrics.events_dropped.inc();
        }
    }
}
