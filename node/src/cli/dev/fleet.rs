//! The processes of the nodes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{Place, probe};

/// Between two looks at a node that is not ready yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Node {
    place: Place,
    child: Child,
    ended: Option<ExitStatus>,
    /// Its end was told.
    told: bool,
}

impl Node {
    fn look(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // Only the kernel could refuse, for a child that is not ours.
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    fn signal(&mut self, signal: Signal) {
        // A process that has not been waited for keeps its number.
        if self.look().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It may have ended in this moment.
            let _ = kill_process(pid, signal);
        }
    }
}

/// All nodes that were started. They die with it.
pub(super) struct Fleet(Vec<Node>);

impl Fleet {
    pub(super) fn start(places: &[Place]) -> anyhow::Result<Fleet> {
        let mut fleet = Fleet(Vec::with_capacity(places.len()));
        for place in places {
            let child = spawn(place)?;
            fleet.0.push(Node { place: place.clone(), child, ended: None, told: false });
        }
        Ok(fleet)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|node| node.child.id()).collect()
    }

    /// The numbers of the processes that run, for each node.
    pub(super) fn processes(&mut self) -> Vec<Option<u32>> {
        self.0.iter_mut().map(|node| node.look().is_none().then(|| node.child.id())).collect()
    }

    /// Waits until every node is ready, or says of the first that is not why.
    pub(super) async fn wait_until_ready(&mut self, within: Duration) -> Result<(), (u16, String)> {
        let by = Instant::now() + within;
        loop {
            let mut waiting = None;
            for node in &mut self.0 {
                // Another process may answer on that port while ours has failed to bind it: look at ours afterwards.
                let ready = probe::ready(node.place.probes).await;
                if let Some(status) = node.look() {
                    return Err((node.place.index, format!("node {} did not start: {status}", node.place.index)));
                }
                if !ready && waiting.is_none() {
                    waiting = Some(node.place.index);
                }
            }
            let Some(index) = waiting else { return Ok(()) };
            if Instant::now() > by {
                return Err((index, format!("node {index} was not ready within {} s", within.as_secs())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Nodes that have ended since this was asked last.
    pub(super) fn newly_ended(&mut self) -> Vec<(Place, u32, ExitStatus)> {
        let mut ended = Vec::new();
        for node in &mut self.0 {
            if let Some(status) = node.look()
                && !node.told
            {
                node.told = true;
                ended.push((node.place.clone(), node.child.id(), status));
            }
        }
        ended
    }

    pub(super) fn all_run(&mut self) -> bool {
        self.0.iter_mut().all(|node| node.look().is_none())
    }

    pub(super) fn all_ended(&mut self) -> bool {
        self.0.iter_mut().all(|node| node.look().is_some())
    }

    /// Asks all to leave; index and process of those that run.
    pub(super) fn terminate(&mut self) -> Vec<(u16, u32)> {
        let mut running = Vec::new();
        for node in &mut self.0 {
            if node.look().is_none() {
                node.signal(Signal::TERM);
                running.push((node.place.index, node.child.id()));
            }
        }
        running
    }

    pub(super) fn kill(&mut self) {
        self.0.iter_mut().for_each(|node| node.signal(Signal::KILL));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(place: &Place) -> anyhow::Result<Child> {
    let log = place.log();
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(place.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        // Ctrl-C is for us to pass on.
        .process_group(0)
        .spawn()
        .context("cannot start a node")
}

/// This program, as a shell finds it.
pub(super) fn program() -> String {
    std::env::current_exe().map_or_else(|_| "fulmar".into(), |path| path.display().to_string())
}

/// What starts a node again by hand.
pub(super) fn serve_command(place: &Place) -> String {
    format!("{} serve --config {}", program(), place.config().display())
}
