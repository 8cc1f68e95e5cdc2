//! One pod as a kubelet runs it: its process is started, asked by its probes, started again with growing pauses when it
//! ends or is found dead, and ended as the manifests say: preStop, SIGTERM, and SIGKILL when the grace period is over.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::manifest::{Ask, Probe, Template};
use super::notes::Notes;
use super::sandbox::Sandbox;
use crate::harness::{Process, http_get};
use crate::sys::Signal;

/// Between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Before a container that ended is started again: at first, and at most.
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// What a container has left for SIGTERM if its preStop hook took all of the grace period.
const GRACE_LEAST: Duration = Duration::from_secs(2);

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// It is deleted.
    Terminate,
    /// Its machine is gone.
    Vanish,
}

/// What others see of a pod.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ready: AtomicBool,
    pub(super) gone: AtomicBool,
    pub(super) restarts: AtomicU32,
}

/// See the module.
pub(super) struct Kubelet {
    pub(super) template: Template,
    pub(super) sandbox: Sandbox,
    pub(super) dir: PathBuf,
    pub(super) state: Arc<State>,
    pub(super) notes: Arc<Notes>,
    /// Probes and back-offs are so many times faster.
    pub(super) pace: f64,
}

enum End {
    Exited(ExitStatus),
    /// By a probe of this name.
    Unhealthy(&'static str),
    Ordered(Order),
}

impl Kubelet {
    /// Runs the pod until it is gone.
    pub(super) async fn run(self, mut orders: watch::Receiver<Order>) {
        if let Err(error) = self.restart_until(&mut orders).await {
            self.notes.wrong(format!("{}: {error:#}", self.sandbox.pod));
        }
        self.state.ready.store(false, Ordering::SeqCst);
        self.state.gone.store(true, Ordering::SeqCst);
        self.notes.say(format!("{} is gone", self.sandbox.pod));
    }

    async fn restart_until(&self, orders: &mut watch::Receiver<Order>) -> Result<()> {
        let mut back_off = BACK_OFF;
        loop {
            self.notes.say(format!("{} starts at {}", self.sandbox.pod, self.sandbox.address));
            let command = self.sandbox.command(&self.template.command);
            let mut process = Process::spawn(&self.sandbox.pod, command, &self.dir)?;
            let end = tokio::select! {
                name = self.probes() => End::Unhealthy(name),
                status = exit_of(&mut process) => End::Exited(status?),
                order = ordered(orders) => End::Ordered(order),
            };
            self.state.ready.store(false, Ordering::SeqCst);
            let pod = &self.sandbox.pod;
            match end {
                End::Ordered(Order::Terminate) => return self.terminate(&mut process).await,
                End::Ordered(_) => return process.kill().map(drop),
                End::Exited(status) => self.notes.say(format!("{pod} has ended: {status}")),
                End::Unhealthy(name) => {
                    self.notes.say(format!("{pod} is killed: its {name} failed"));
                    self.terminate(&mut process).await?;
                }
            }
            self.state.restarts.fetch_add(1, Ordering::SeqCst);
            if timeout(back_off.div_f64(self.pace), ordered(orders)).await.is_ok() {
                return Ok(());
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// Asks until the container is to be killed for its answers; says by which probe.
    async fn probes(&self) -> &'static str {
        let startup = async {
            match &self.template.startup {
                Some(probe) => self.ask(probe, |good| good).await,
                None => true,
            }
        };
        if !startup.await {
            return "startupProbe";
        }
        let liveness = async {
            match &self.template.liveness {
                Some(probe) => self.ask(probe, |_| false).await,
                None => pending().await,
            }
        };
        let readiness = async {
            let Some(probe) = &self.template.readiness else {
                self.ready(true);
                return pending::<()>().await;
            };
            loop {
                self.ask(probe, |good| {
                    if good {
                        self.ready(true);
                    }
                    false
                })
                .await;
                self.ready(false);
            }
        };
        tokio::select! {
            _ = liveness => "livenessProbe",
            () = readiness => "readinessProbe",
        }
    }

    fn ready(&self, ready: bool) {
        if self.state.ready.swap(ready, Ordering::SeqCst) != ready {
            self.notes.say(format!("{} is {}", self.sandbox.pod, if ready { "ready" } else { "unready" }));
        }
    }

    /// Asks with a probe's period. True as soon as `enough` says so of the successes; false once it has failed as often as
    /// is too often.
    async fn ask(&self, probe: &Probe, enough: impl Fn(bool) -> bool) -> bool {
        sleep(probe.delay.div_f64(self.pace)).await;
        let (mut successes, mut failures) = (0, 0);
        loop {
            let asked = Instant::now();
            match self.answer(probe).await {
                true => (successes, failures) = (successes + 1, 0),
                false => (successes, failures) = (0, failures + 1),
            }
            if enough(successes >= probe.successes) {
                return true;
            }
            if failures >= probe.failures {
                return false;
            }
            sleep(probe.period.div_f64(self.pace).saturating_sub(asked.elapsed())).await;
        }
    }

    async fn answer(&self, probe: &Probe) -> bool {
        match &probe.ask {
            Ask::Http { port, path } => {
                let address = SocketAddr::from((self.sandbox.address, *port));
                let answer = http_get(address, path, probe.timeout).await;
                answer.is_some_and(|(status, _)| (200..400).contains(&status))
            }
            Ask::Exec(command) => {
                let command = self.sandbox.command(command);
                let Ok(mut process) = Process::spawn(&format!("{}-probe", self.sandbox.pod), command, &self.dir) else {
                    return false;
                };
                let ended = timeout(probe.timeout, exit_of(&mut process)).await;
                ended.is_ok_and(|status| status.is_ok_and(|status| status.success()))
            }
        }
    }

    /// preStop, SIGTERM, SIGKILL. That the last is needed, or that the process does not end with 0, is a problem.
    async fn terminate(&self, process: &mut Process) -> Result<()> {
        let (begun, pod) = (Instant::now(), &self.sandbox.pod);
        let left = || self.template.grace.saturating_sub(begun.elapsed());
        if let Some(command) = &self.template.pre_stop {
            let command = self.sandbox.command(command);
            let mut hook = Process::spawn(&format!("{pod}-pre-stop"), command, &self.dir)?;
            match timeout(left(), exit_of(&mut hook)).await {
                Ok(status) => {
                    let status = status?;
                    self.notes.say(format!("{pod}: preStop took {:.1} s: {status}", begun.elapsed().as_secs_f64()));
                    if !status.success() {
                        self.notes.wrong(format!("{pod}: preStop ended with {status}: {}", hook.tail()));
                    }
                }
                Err(_) => self.notes.wrong(format!("{pod}: preStop took all of the grace period: {}", hook.tail())),
            }
        }
        if process.status()?.is_none() {
            process.signal(Signal::Terminate)?;
        }
        let Ok(status) = timeout(left().max(GRACE_LEAST), exit_of(process)).await else {
            process.kill()?;
            self.notes.wrong(format!("{pod} was killed at the end of its grace period: {}", process.tail()));
            return Ok(());
        };
        let status = status?;
        self.notes.say(format!("{pod} has left in {:.1} s: {status}", begun.elapsed().as_secs_f64()));
        self.notes.left(begun.elapsed());
        if !status.success() {
            self.notes.wrong(format!("{pod} ended with {status}: {}", process.tail()));
        }
        Ok(())
    }
}

async fn exit_of(process: &mut Process) -> Result<ExitStatus> {
    loop {
        if let Some(status) = process.status()? {
            return Ok(status);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until the pod is not to run any more.
async fn ordered(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.wait_for(|order| *order != Order::Run).await {
        Ok(order) => *order,
        Err(_) => Order::Vanish,
    }
}

/// Runs a command in a pod, as `kubectl exec` does; what it printed.
///
/// # Errors
/// It fails, or takes too long.
pub(super) async fn exec(sandbox: &Sandbox, words: &[String], deadline: Duration) -> Result<String> {
    let mut command = tokio::process::Command::from(sandbox.command(words));
    command.kill_on_drop(true);
    let output = timeout(deadline, command.output()).await.with_context(|| format!("{words:?} does not end"))??;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{words:?} in {}: {}: {out}{error}", sandbox.pod, output.status);
    Ok(out.into_owned())
}

/// Where a pod's process listens at a port.
pub(super) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}
