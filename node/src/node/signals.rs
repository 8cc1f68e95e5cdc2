//! What a node is asked from outside while it runs: to leave (SIGTERM, SIGINT, an admin), or to let its clients go and
//! stay (SIGUSR1).

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::dispatch::Drain;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// By a signal; a second one means that it is in a hurry.
    Leave,
    /// By an admin, who may ask as often as he likes.
    SentAway,
    Drain,
}

/// See the module. Nothing that comes after it was made is lost.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    drain: Signal,
    /// An admin has this node leave.
    sent_away: Arc<Notify>,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            drain: signal(SignalKind::user_defined1()).context("SIGUSR1")?,
            sent_away: Arc::default(),
        })
    }

    /// What has this node leave as SIGTERM does; fine if it does already.
    pub(super) fn leaver(&self) -> Drain {
        let sent_away = self.sent_away.clone();
        Arc::new(move || sent_away.notify_one())
    }

    /// The next thing that is asked.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Leave,
            _ = self.interrupt.recv() => Asked::Leave,
            () = self.sent_away.notified() => Asked::SentAway,
            _ = self.drain.recv() => Asked::Drain,
        }
    }

    /// Until the node is to leave.
    pub(super) async fn leave(&mut self) {
        while self.next().await == Asked::Drain {}
    }
}
