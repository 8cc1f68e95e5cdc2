//! How a node lets its clients go: unready, a wait for balancers, leadership away, no more connections, clients told at a
//! pace that the other nodes can take, the lease given back. Asked for by SIGUSR1 it stays afterwards; by SIGTERM it ends,
//! within the grace time. What was begun is gone on with, whoever asks next.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_mqtt::ReasonCode;
use tokio::sync::watch;
use tokio::time::Instant;

use super::signals::{Asked, Signals};
use crate::config::shutdown::Shutdown;
use crate::dispatch::{Dispatch, Receiver, Stage};
use crate::doors::probes::{Health, Phase};
use crate::operations::TaskRun;
use crate::sessions::open::Sessions;
use crate::store::pid::PidFile;

/// Between two steps of telling clients, two looks at those that are left, and two words of how far it is.
const TICK: Duration = Duration::from_millis(20);
const TELL_EVERY: Duration = Duration::from_millis(200);
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Of the grace time, kept for the last clients to take what they are sent, and for the log.
const RESERVE: Duration = Duration::from_secs(2);

/// For connections to end once all clients were told; each of them has less time for its last bytes. What is still asked
/// by HTTP then, as a backup that is being read, is cut off with the process.
const LAST_WITHIN: Duration = Duration::from_secs(10);

/// For what is still proposed when the clients are gone.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);

/// Says in `fulmar.pid` how far this process is.
pub(super) fn tell(pid: &OnceLock<PidFile>, stage: Stage, connections: u64) {
    if let Some(Err(error)) = pid.get().map(|pid| pid.say(stage.name(), connections)) {
        tracing::warn!(%error, "fulmar.pid not written");
    }
}

/// See the module.
pub(super) struct Draining {
    pub(super) shutdown: Shutdown,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) health: Arc<Health>,
    /// True: no more connections.
    pub(super) stop: watch::Sender<bool>,
    pub(super) tasks: TaskRun,
    pub(super) pid: Arc<OnceLock<PidFile>>,
}

impl Draining {
    /// Drains, and goes on until the process is to end.
    pub(super) async fn see_through(&self, first: Asked, signals: &mut Signals) {
        let by = watch::Sender::new(None);
        let leave_by = || Instant::now() + self.shutdown.grace.duration();
        if first != Asked::Drain {
            by.send_replace(Some(leave_by()));
        }
        let mut signalled = first == Asked::Leave;
        tracing::info!(connections = self.connections(), stays = first == Asked::Drain, "draining");
        let mut drained = false;
        let mut draining = std::pin::pin!(self.drain(by.subscribe()));
        loop {
            let leaving = *by.borrow();
            tokio::select! {
                () = &mut draining, if !drained => {
                    drained = true;
                    tracing::info!("drained");
                    if leaving.is_some() {
                        return;
                    }
                }
                asked = signals.next() => match asked {
                    Asked::Drain => {} // it does
                    Asked::Leave if signalled => {
                        tracing::warn!(connections = self.connections(), "hurried");
                        return;
                    }
                    Asked::Leave | Asked::SentAway if drained => return,
                    Asked::Leave | Asked::SentAway => {
                        signalled |= asked == Asked::Leave;
                        if leaving.is_none() {
                            by.send_replace(Some(leave_by()));
                        }
                    }
                },
                () = tokio::time::sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => {
                    tracing::warn!(connections = self.connections(), "grace time is over");
                    return;
                }
            }
        }
    }

    fn connections(&self) -> u64 {
        u64::try_from(self.dispatch.metrics().connections.get()).unwrap_or_default()
    }

    /// All steps; `by`: when the process ends at the latest, once that is known.
    async fn drain(&self, by: watch::Receiver<Option<Instant>>) {
        self.health.set(Phase::Draining);
        self.dispatch.set_stage(Stage::Draining);
        let steps = async {
            tokio::time::sleep(self.shutdown.balancer_wait.duration()).await;
            self.dispatch.replica().hand_over().await;
            self.stop.send_replace(true);
            self.tasks.leave();
            self.sessions.leave();
            self.tell_clients(by).await;
            if tokio::time::timeout(LAST_WITHIN, self.last_gone()).await.is_err() {
                tracing::warn!(connections = self.connections(), "some connections do not end");
            }
            if tokio::time::timeout(RETIRE_WITHIN, self.dispatch.replica().retire()).await.is_err() {
                tracing::warn!("the lease was not given back in time; it runs out by itself");
            }
        };
        tokio::select! {
            () = steps => {}
            () = self.report() => {}
        }
        self.health.set(Phase::Drained);
        self.dispatch.set_stage(Stage::Drained);
        tell(&self.pid, Stage::Drained, self.connections());
    }

    /// Says how far it is, for ever.
    async fn report(&self) {
        let mut logged = Instant::now();
        loop {
            tell(&self.pid, Stage::Draining, self.connections());
            if logged.elapsed() >= LOG_EVERY {
                tracing::info!(connections = self.connections(), "draining");
                logged = Instant::now();
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    /// Where a client is to go: to another server, or anywhere.
    fn reason(&self) -> ReasonCode {
        match self.shutdown.server_reference {
            Some(_) => ReasonCode::UseAnotherServer,
            None => ReasonCode::ServerShuttingDown,
        }
    }

    /// Tells those who are connected to go, in no order: their map has none.
    async fn tell_clients(&self, by: watch::Receiver<Option<Instant>>) {
        let mut waiting = self.dispatch.receivers();
        let mut pace = Pace::new(self.shutdown.disconnect_rate, Instant::now());
        while !waiting.is_empty() {
            let count = pace.due(waiting.len(), Instant::now(), *by.borrow());
            let rest = waiting.len() - count;
            waiting.drain(rest..).for_each(|receiver| close(&receiver, self.reason()));
            if !waiting.is_empty() {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Until no connection is left. Those that were opening when the others were told are told too; the last bytes of a
    /// session that has ended are written by its connection.
    async fn last_gone(&self) {
        while self.connections() > 0 {
            self.dispatch.receivers().iter().for_each(|receiver| close(receiver, self.reason()));
            tokio::time::sleep(TICK).await;
        }
    }
}

fn close(receiver: &Receiver, reason: ReasonCode) {
    receiver.tell(|port| port.close(reason));
}

/// How many clients are told at a time.
struct Pace {
    /// A second; 0: all at once.
    rate: u32,
    last: Instant,
    /// Clients that may be told by now, and a part of one.
    earned: f64,
}

impl Pace {
    fn new(rate: u32, now: Instant) -> Pace {
        Pace { rate, last: now, earned: 1.0 }
    }

    /// Of `waiting` clients, those to tell now, so that the rate holds, or, where that would take too long, all are told
    /// by `by` and less the reserve. At least one if there is no rate left to keep.
    fn due(&mut self, waiting: usize, now: Instant, by: Option<Instant>) -> usize {
        let passed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        if self.rate == 0 {
            return waiting;
        }
        let left_s = by.map(|by| by.saturating_duration_since(now).saturating_sub(RESERVE).as_secs_f64());
        let needed = left_s.map_or(0.0, |left_s| waiting as f64 / left_s.max(TICK.as_secs_f64()));
        self.earned += passed * needed.max(f64::from(self.rate));
        if left_s.is_some_and(|left_s| left_s <= TICK.as_secs_f64()) {
            return waiting;
        }
        let count = (self.earned as usize).min(waiting);
        self.earned -= count as f64;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds until all are told, by steps of a tick.
    fn takes_ms(rate: u32, clients: usize, grace_ms: Option<u64>) -> u64 {
        let start = Instant::now();
        let by = grace_ms.map(|ms| start + Duration::from_millis(ms));
        let (mut pace, mut left, mut ms) = (Pace::new(rate, start), clients, 0);
        loop {
            left -= pace.due(left, start + Duration::from_millis(ms), by);
            if left == 0 {
                return ms;
            }
            ms += 20;
        }
    }

    #[test]
    fn clients_are_told_at_the_rate_unless_the_grace_time_is_shorter() {
        assert_eq!(takes_ms(0, 100_000, None), 0);
        assert_eq!(takes_ms(1_000, 1, None), 0);
        for clients in [500, 5_000] {
            let ms = takes_ms(1_000, clients, None);
            assert!(ms.abs_diff(clients as u64) <= 40, "{clients} in {ms} ms");
            assert_eq!(takes_ms(1_000, clients, Some(60_000)), ms, "there is time enough");
        }
        let ms = takes_ms(1_000, 50_000, Some(10_000));
        assert!((7_900..=8_100).contains(&ms), "two seconds are kept: {ms} ms");
        assert_eq!(takes_ms(1, 50_000, Some(1_000)), 0, "no time is left");
    }
}
