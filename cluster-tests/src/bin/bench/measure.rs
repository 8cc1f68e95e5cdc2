//! The broker under measurement, and meters for a section of time.

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cluster_tests::harness::{Broker, Cluster, ClusterOptions, DevOptions, Fulmar, Mosquitto};
use cluster_tests::proc::{self, CpuMeter};
use cluster_tests::sys;
use fulmar_mqtt::Version;
use tokio::task::JoinHandle;

use crate::options::{Kind, TargetOptions};
use crate::own::WIDE;

/// A broker, spawned or found; of several nodes, if it is a cluster.
pub(crate) struct Target {
    pub(crate) name: String,
    /// Where each node lets clients in.
    addresses: Vec<SocketAddr>,
    pub(crate) version: Version,
    /// Empty if it was not told: then there are no CPU and memory figures.
    pids: Vec<u32>,
    /// Ends the processes when the target goes.
    _held: Option<Box<dyn Any>>,
}

/// Nodes of a cluster that is spawned.
const NODES: usize = 3;

impl Target {
    pub(crate) async fn open(options: &TargetOptions) -> Result<Target> {
        match options.spawn {
            Some(kind) => Target::spawn(kind, options.fulmar_bin.clone(), options.version).await,
            None => Ok(Target {
                name: "external".into(),
                addresses: vec![SocketAddr::from((options.host, options.port))],
                version: options.version,
                pids: options.pid.into_iter().collect(),
                _held: None,
            }),
        }
    }

    /// Nodes of ours that somebody else holds.
    pub(crate) fn of_nodes(name: &str, nodes: &[(SocketAddr, u32)], version: Version) -> Target {
        let (addresses, pids) = nodes.iter().copied().unzip();
        Target { name: name.to_owned(), addresses, version, pids, _held: None }
    }

    /// Starts a fresh one.
    pub(crate) async fn spawn(kind: Kind, fulmar_bin: Option<PathBuf>, version: Version) -> Result<Target> {
        let broker: Box<dyn Broker> = match kind {
            Kind::Fulmar => Box::new(Fulmar::dev(DevOptions { binary: fulmar_bin, ..DevOptions::default() }).await?),
            Kind::Mosquitto => Box::new(Mosquitto::start().await?),
            Kind::FulmarCluster => {
                let options = ClusterOptions { binary: fulmar_bin, config: WIDE.into(), ..ClusterOptions::default() };
                let cluster = Cluster::start(NODES, options).await?;
                let (addresses, pids) = (cluster.addresses(), cluster.pids());
                let name = format!("fulmar x {NODES}");
                return Ok(Target { name, addresses, version, pids, _held: Some(Box::new(cluster)) });
            }
        };
        let (name, addresses, pids) = (broker.name().to_owned(), vec![broker.mqtt()], vec![broker.pid()]);
        Ok(Target { name, addresses, version, pids, _held: Some(Box::new(broker)) })
    }

    /// Where clients come in, for tasks of their own.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses(self.addresses.clone().into())
    }

    pub(crate) fn version_number(&self) -> u8 {
        match self.version {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// Over all nodes.
    pub(crate) fn rss_bytes(&self) -> Result<Option<u64>> {
        let bytes: Vec<u64> = self.pids.iter().map(|pid| proc::rss_bytes(*pid)).collect::<std::io::Result<_>>()?;
        Ok((!bytes.is_empty()).then(|| bytes.iter().sum()))
    }

    /// Over all nodes; `None` if the kernel does not say.
    pub(crate) fn pss_bytes(&self) -> Option<u64> {
        self.sum(|pid| proc::pss_bytes(pid).ok())
    }

    /// As [`Target::pss_bytes`].
    pub(crate) fn open_fds(&self) -> Option<u64> {
        self.sum(|pid| proc::open_fds(pid).ok().map(|count| count as u64))
    }

    fn sum(&self, of: impl Fn(u32) -> Option<u64>) -> Option<u64> {
        let figures = self.pids.iter().map(|pid| of(*pid)).collect::<Option<Vec<u64>>>()?;
        (!figures.is_empty()).then(|| figures.iter().sum())
    }
}

/// Where clients come in.
#[derive(Clone)]
pub(crate) struct Addresses(Rc<[SocketAddr]>);

impl Addresses {
    /// Where a client of this number comes in: the nodes take turns.
    pub(crate) fn at(&self, number: usize) -> SocketAddr {
        self.0[number % self.0.len()]
    }
}

/// CPU time of all nodes and of the driver from a moment on.
pub(crate) struct Section {
    nodes: Vec<CpuMeter>,
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
        let nodes = target.pids.iter().map(|pid| CpuMeter::start(*pid)).collect::<std::io::Result<Vec<CpuMeter>>>()?;
        Ok(Section { nodes, driver: sys::own_cpu(), start: Instant::now() })
    }

    pub(crate) fn spent(&self) -> Result<Spent> {
        Ok(Spent {
            broker: (!self.nodes.is_empty())
                .then(|| self.nodes.iter().map(CpuMeter::elapsed).sum::<std::io::Result<Duration>>())
                .transpose()?,
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
