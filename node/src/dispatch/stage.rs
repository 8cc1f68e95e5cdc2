//! How far this node is in leaving, for those who wait for it.

use tokio::sync::watch;

use super::Dispatch;

/// Has this node leave, as SIGTERM does.
pub type Drain = std::sync::Arc<dyn Fn() + Send + Sync>;

/// Where a node stands between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Serving,
    /// It lets its clients go.
    Draining,
    /// They are gone, and its lease is given back: it waits to be ended.
    Drained,
    /// The process is about to end.
    Ending,
}

impl Stage {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Serving => "serving",
            Stage::Draining => "draining",
            Stage::Drained => "drained",
            Stage::Ending => "ending",
        }
    }
}

impl Dispatch {
    /// As it changes; it only goes forward.
    #[must_use]
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// As [`Dispatch::stage`], at this moment.
    #[must_use]
    pub fn stage_now(&self) -> Stage {
        *self.stage.borrow()
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Names what has this node leave. Once.
    pub fn drain_by(&self, drain: Drain) {
        // A node is put together once.
        let _ = self.drain.set(drain);
    }

    /// Has this node leave; fine if it does already.
    pub fn leave(&self) {
        if let Some(drain) = self.drain.get() {
            drain();
        }
    }
}
