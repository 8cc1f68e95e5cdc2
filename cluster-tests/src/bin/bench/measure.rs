//! The broker under measurement, and meters for a section of time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cluster_tests::harness::{Broker, DevOptions, Fulmar, Mosquitto, Node};
use cluster_tests::proc::{self, CpuMeter};
use cluster_tests::sys;
use fulmar_mqtt::Version;
use tokio::task::JoinHandle;

use crate::options::{Kind, TargetOptions};

/// A broker, spawned or found.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) version: Version,
    /// Absent if it was not told: then there are no CPU and memory figures.
    pub(crate) pid: Option<u32>,
    /// Ends the process when the target goes.
    _broker: Option<Box<dyn Broker>>,
}

impl Target {
    pub(crate) async fn open(options: &TargetOptions) -> Result<Target> {
        match options.spawn {
            Some(kind) => Target::spawn(kind, options.fulmar_bin.clone(), options.version).await,
            None => Ok(Target {
                name: "external".into(),
                address: SocketAddr::from((options.host, options.port)),
                version: options.version,
                pid: options.pid,
                _broker: None,
            }),
        }
    }

    /// A node of ours that somebody else holds.
    pub(crate) fn of_node(node: &Node, version: Version) -> Target {
        Target { name: "fulmar".into(), address: node.mqtt(), version, pid: Some(node.pid()), _broker: None }
    }

    /// Starts a fresh one.
    pub(crate) async fn spawn(kind: Kind, fulmar_bin: Option<PathBuf>, version: Version) -> Result<Target> {
        let broker: Box<dyn Broker> = match kind {
            Kind::Fulmar => Box::new(Fulmar::dev(DevOptions { binary: fulmar_bin, ..DevOptions::default() }).await?),
            Kind::Mosquitto => Box::new(Mosquitto::start().await?),
        };
        let (name, address, pid) = (broker.name().to_owned(), broker.mqtt(), Some(broker.pid()));
        Ok(Target { name, address, version, pid, _broker: Some(broker) })
    }

    pub(crate) fn version_number(&self) -> u8 {
        match self.version {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    pub(crate) fn rss_bytes(&self) -> Result<Option<u64>> {
        Ok(self.pid.map(proc::rss_bytes).transpose()?)
    }
}

/// CPU time of broker and driver from a moment on.
pub(crate) struct Section {
    broker: Option<CpuMeter>,
    driver: Duration,
    start: Instant,
}

/// What a [`Section`] took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) broker: Option<Duration>,
    pub(crate) driver: Duration,
    pub(crate) wall: Duration,
}

impl Section {
    pub(crate) fn start(target: &Target) -> Result<Section> {
        let broker = target.pid.map(CpuMeter::start).transpose()?;
        Ok(Section { broker, driver: sys::own_cpu(), start: Instant::now() })
    }

    pub(crate) fn spent(&self) -> Result<Spent> {
        Ok(Spent {
            broker: self.broker.as_ref().map(CpuMeter::elapsed).transpose()?,
            driver: sys::own_cpu().saturating_sub(self.driver),
            wall: self.start.elapsed(),
        })
    }
}

/// CPU microseconds for each of `count`.
pub(crate) fn us_per(cpu: Option<Duration>, count: u64) -> Option<f64> {
    cpu.filter(|_| count > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / count as f64)
}

/// Errors of tasks that have ended with one, as text.
pub(crate) async fn failures(tasks: Vec<JoinHandle<Result<()>>>) -> Vec<String> {
    let mut failures = Vec::new();
    for task in tasks {
        match task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("{error:#}")),
            Err(error) if error.is_cancelled() => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures
}

/// Fails if a task has ended already.
pub(crate) fn all_run(tasks: &[JoinHandle<Result<()>>], what: &str) -> Result<()> {
    match tasks.iter().filter(|task| task.is_finished()).count() {
        0 => Ok(()),
        ended => bail!("{ended} of {} {what} have ended", tasks.len()),
    }
}
