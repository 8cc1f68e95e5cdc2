//! Nodes of ours: one with a data directory that outlives its process, or a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster_tests::harness::{Cluster, ClusterOptions, Node, RECOVERY, ServeOptions, free_port};
use cluster_tests::metrics::Metrics;
use cluster_tests::proc;
use fulmar_mqtt::Version;
use tempfile::TempDir;

use crate::measure::Target;
use crate::options::NodeOptions;

/// How long a start may take with much to read.
const READY: Duration = Duration::from_secs(900);

/// How long an answer of the probes may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Bounds wide enough for what the bench puts into nodes.
pub(crate) const WIDE: &str = "[limits]\nreplicated_bytes_max = \"16GiB\"\nretained_max = 100000000\n\
                               sessions_max = 100000000\n[session]\nqueue_entries_max = 10000000\n\
                               queue_bytes_max = \"4GiB\"\n";

/// See the module. Dropped, process and data go.
pub(crate) struct Own {
    pub(crate) node: Node,
    pub(crate) version: Version,
    probes: SocketAddr,
    data: PathBuf,
    dir: TempDir,
}

impl Own {
    /// Starts a node on no data, with bounds wide enough for what the bench puts into it.
    pub(crate) async fn start(options: &NodeOptions) -> Result<Own> {
        Own::start_with(options, "").await
    }

    /// As [`Own::start`], with more configuration at its end.
    pub(crate) async fn start_with(options: &NodeOptions, more: &str) -> Result<Own> {
        let dir = match &options.data_dir {
            Some(parent) => tempfile::tempdir_in(parent).with_context(|| format!("in {}", parent.display()))?,
            None => tempfile::tempdir()?,
        };
        let at = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let (mqtt, probes, data) = (at()?, at()?, dir.path().join("data"));
        let config = dir.path().join("fulmar.toml");
        let text = format!(
            "[node]\ndata_dir = {:?}\n[probes]\naddress = \"{probes}\"\n[store]\nlog_bytes = {:?}\n{WIDE}[auth]\nanonymous = \"allow\"\n[[listener]]\naddress = \"{mqtt}\"\n{more}",
            data.display().to_string(),
            options.log_bytes,
        );
        std::fs::write(&config, text)?;
        let binary = options.fulmar_bin.clone();
        let output_dir = dir.path().to_owned();
        let serve = ServeOptions { config, mqtt, probes: Some(probes), env: Vec::new(), output_dir, binary };
        let node = Node::serve(serve).await?;
        Ok(Own { node, version: options.version, probes, data, dir })
    }

    pub(crate) fn target(&self) -> Target {
        Target::of_nodes("fulmar", &[(self.node.mqtt(), self.node.pid())], self.version)
    }

    /// On the file system of the data, and not part of it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        Metrics::of(self.probes, ANSWER).await
    }

    /// Bytes of all files of the data.
    pub(crate) fn data_bytes(&self) -> u64 {
        bytes_below(&self.data)
    }

    /// Starts the process again and says how long it took until `/readyz` was 200.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.node.start_again()?;
        self.node.wait_until_ready(READY).await?;
        Ok(begun.elapsed())
    }
}

/// Several nodes of ours that are one cluster.
pub(crate) struct OwnCluster {
    pub(crate) cluster: Cluster,
    pub(crate) version: Version,
    dir: TempDir,
}

impl OwnCluster {
    pub(crate) async fn start(options: &NodeOptions, nodes: usize) -> Result<OwnCluster> {
        let dir = match &options.data_dir {
            Some(parent) => tempfile::tempdir_in(parent).with_context(|| format!("in {}", parent.display()))?,
            None => tempfile::tempdir()?,
        };
        let cluster = ClusterOptions {
            rest: true,
            config: format!("[store]\nlog_bytes = {:?}\n{WIDE}", options.log_bytes),
            binary: options.fulmar_bin.clone(),
            data_dir: Some(dir.path().to_owned()),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(nodes, cluster).await?;
        Ok(OwnCluster { cluster, version: options.version, dir })
    }
}

/// What `durable` runs on.
pub(crate) enum Ours {
    One(Own),
    /// With the one whose log is looked at.
    Several(OwnCluster, usize),
}

impl Ours {
    pub(crate) async fn start(options: &NodeOptions, nodes: usize) -> Result<Ours> {
        if nodes == 1 {
            return Ok(Ours::One(Own::start(options).await?));
        }
        let mut own = OwnCluster::start(options, nodes).await?;
        let leader = own.cluster.wait_for_leader(RECOVERY).await?;
        Ok(Ours::Several(own, leader))
    }

    pub(crate) fn target(&self) -> Target {
        match self {
            Ours::One(own) => own.target(),
            Ours::Several(own, _) => {
                let nodes: Vec<_> = own.cluster.addresses().into_iter().zip(own.cluster.pids()).collect();
                Target::of_nodes(&format!("fulmar x {}", nodes.len()), &nodes, own.version)
            }
        }
    }

    /// On the file system of the data.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Ours::One(own) => own.dir(),
            Ours::Several(own, _) => own.dir.path(),
        }
    }

    /// The figures of the node, or of the one that led at the start.
    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        match self {
            Ours::One(own) => own.metrics().await,
            Ours::Several(own, leader) => own.cluster.metrics(*leader).await,
        }
    }

    /// Over all nodes.
    pub(crate) fn written_bytes(&self) -> Result<u64> {
        let pids = match self {
            Ours::One(own) => vec![own.node.pid()],
            Ours::Several(own, _) => own.cluster.pids(),
        };
        Ok(pids.into_iter().map(proc::written_bytes).sum::<std::io::Result<u64>>()?)
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0, // gone since
    });
    sizes.sum()
}
