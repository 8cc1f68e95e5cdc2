//! Fulmar as people run it: `fulmar dev` with its nodes, or one `fulmar serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use super::{Broker, Process, START_DEADLINE, fulmar_binary, http_ok, ports, wait_for_connack};
use crate::proc::ProcessId;
use crate::sys::Signal;
use crate::wait::wait_for;

/// Times that a start is tried again because another process took a port in between.
const START_TRIES: usize = 3;

/// How long a node may take to leave after SIGTERM, and how long the kernel after SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// `endpoints.json`, as `fulmar dev` writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoints {
    pub version: u32,
    /// The certificate that signs every node's.
    pub ca: Option<PathBuf>,
    pub nodes: Vec<NodeEndpoints>,
    /// By kind: `generic`, `rest`, `application`, `admin`, `devices`.
    #[serde(default)]
    pub credentials: serde_json::Value,
}

/// One node of it. A door that is not built or disabled is `None`.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeEndpoints {
    pub node: u32,
    pub pid: u32,
    pub config: PathBuf,
    pub data_dir: PathBuf,
    pub mqtt: SocketAddr,
    pub mqtts: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
    pub rest: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    pub probes: Option<SocketAddr>,
}

/// How `fulmar dev` is started.
#[derive(Debug, Clone)]
pub struct DevOptions {
    pub nodes: u16,
    /// Node i on 127.0.0.(1+i) with the default ports, instead of free ports on 127.0.0.1.
    pub host_per_node: bool,
    /// Whether it plays a device of its own.
    pub meter: bool,
    /// Where its data stays; a directory that vanishes with the handle if absent.
    pub data_dir: Option<PathBuf>,
    /// Added to its environment: `FULMAR__SECTION__KEY`.
    pub env: Vec<(String, String)>,
    /// The binary; [`fulmar_binary`] if absent.
    pub binary: Option<PathBuf>,
}

impl Default for DevOptions {
    fn default() -> DevOptions {
        DevOptions { nodes: 1, host_per_node: false, meter: false, data_dir: None, env: Vec::new(), binary: None }
    }
}

/// A running `fulmar dev` and its nodes, each a process of its own.
pub struct Fulmar {
    nodes: Vec<Node>,
    dev: Process,
    endpoints: Endpoints,
    // Dropped last: holds data and output.
    _dir: TempDir,
}

impl Fulmar {
    /// Starts it and waits until every node serves.
    ///
    /// # Errors
    /// It does not; its output is shown.
    pub async fn dev(options: DevOptions) -> Result<Fulmar> {
        let binary = options.binary.clone().map_or_else(fulmar_binary, Ok)?;
        let mut outcome = Fulmar::start(&binary, &options).await;
        for _ in 1..START_TRIES {
            let taken = matches!(&outcome, Err(error) if format!("{error:#}").contains("in use"));
            if !taken || options.host_per_node {
                break;
            }
            outcome = Fulmar::start(&binary, &options).await;
        }
        outcome
    }

    async fn start(binary: &Path, options: &DevOptions) -> Result<Fulmar> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(binary);
        command.args(["dev", "--nodes", &options.nodes.to_string(), "--data-dir"]);
        command.arg(options.data_dir.clone().unwrap_or_else(|| dir.path().join("dev")));
        match options.host_per_node {
            true => command.arg("--host-per-node"),
            false => command.args(["--base-port", &ports::free_base(options.nodes)?.to_string()]),
        };
        if !options.meter {
            command.arg("--no-meter");
        }
        // Not among the contexts of whoever runs this.
        command.env("FULMAR_CONFIG", dir.path().join("contexts.toml"));
        command.envs(options.env.iter().cloned());
        let mut dev = Process::spawn("dev", command, dir.path())?;
        let endpoints = match read_endpoints(&mut dev).await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                // Only it knows which nodes it has started; it ends them if asked.
                let _ = dev.signal(Signal::Terminate);
                let _ = dev.exited(STOP_DEADLINE).await;
                return Err(error.context(dev.tail()));
            }
        };
        // From here on the nodes are known, and die with what holds them.
        let nodes = endpoints.nodes.iter().map(|node| Node::of_dev(node, binary, dir.path()));
        let nodes = nodes.collect::<Result<Vec<Node>>>().with_context(|| dev.tail())?;
        ensure!(nodes.len() == usize::from(options.nodes), "{} nodes in {endpoints:?}", nodes.len());
        let fulmar = Fulmar { nodes, dev, endpoints, _dir: dir };
        for node in &fulmar.nodes {
            node.wait_until_ready(START_DEADLINE).await.with_context(|| fulmar.dev.tail())?;
        }
        Ok(fulmar)
    }

    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// # Panics
    /// There is no such node.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The process of `fulmar dev` itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.dev
    }
}

impl Broker for Fulmar {
    fn name(&self) -> &'static str {
        "fulmar"
    }

    fn mqtt(&self) -> SocketAddr {
        self.nodes[0].mqtt()
    }

    fn pid(&self) -> u32 {
        self.nodes[0].pid()
    }
}

async fn read_endpoints(dev: &mut Process) -> Result<Endpoints> {
    let path = wait_for("the line `endpoints: PATH`", START_DEADLINE, async || {
        if let Ok(Some(status)) = dev.status() {
            return Some(Err(anyhow::anyhow!("fulmar dev ended: {status}")));
        }
        let text = dev.stdout();
        let (line, _) = text.split_once('\n')?;
        let path = line.strip_prefix("endpoints: ").map(|path| PathBuf::from(path.trim_end()));
        Some(path.with_context(|| format!("the first line is {line:?}")))
    })
    .await??;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let endpoints: Endpoints = serde_json::from_str(&text).with_context(|| format!("{} is {text}", path.display()))?;
    ensure!(endpoints.version == 1, "endpoints.json of version {}", endpoints.version);
    Ok(endpoints)
}

/// How one `fulmar serve` is started.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    pub config: PathBuf,
    /// Where the configuration lets it listen for MQTT.
    pub mqtt: SocketAddr,
    /// Where its probes are, if it has them.
    pub probes: Option<SocketAddr>,
    pub env: Vec<(String, String)>,
    /// Where its output goes.
    pub output_dir: PathBuf,
    /// The binary; [`fulmar_binary`] if absent.
    pub binary: Option<PathBuf>,
}

/// One node: a process that `fulmar dev` started, or that we did.
pub struct Node {
    binary: PathBuf,
    options: ServeOptions,
    owner: Owner,
}

enum Owner {
    /// A child of `fulmar dev`.
    Dev(ProcessId),
    Us(Process),
}

impl Node {
    /// Starts `fulmar serve` and waits until it serves.
    ///
    /// # Errors
    /// It does not; its output is shown.
    pub async fn serve(options: ServeOptions) -> Result<Node> {
        let node = Node::start(options)?;
        node.wait_until_ready(START_DEADLINE).await?;
        Ok(node)
    }

    /// Starts `fulmar serve` and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(options: ServeOptions) -> Result<Node> {
        let binary = options.binary.clone().map_or_else(fulmar_binary, Ok)?;
        let owner = Owner::Us(spawn(&binary, &options)?);
        Ok(Node { binary, options, owner })
    }

    fn of_dev(endpoints: &NodeEndpoints, binary: &Path, output_dir: &Path) -> Result<Node> {
        let options = ServeOptions {
            config: endpoints.config.clone(),
            mqtt: endpoints.mqtt,
            probes: endpoints.probes,
            env: Vec::new(),
            output_dir: output_dir.to_owned(),
            binary: None,
        };
        let id = ProcessId::of(endpoints.pid).with_context(|| format!("node {} is gone", endpoints.node))?;
        Ok(Node { binary: binary.to_owned(), options, owner: Owner::Dev(id) })
    }

    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.options.mqtt
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.owner {
            Owner::Dev(id) => id.pid,
            Owner::Us(process) => process.pid(),
        }
    }

    /// Whether the process runs; a stopped one does.
    pub fn alive(&mut self) -> bool {
        match &mut self.owner {
            Owner::Dev(id) => id.alive(),
            Owner::Us(process) => process.status().is_ok_and(|status| status.is_none()),
        }
    }

    /// # Errors
    /// The node is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        match &mut self.owner {
            Owner::Dev(id) => Ok(id.signal(signal)?),
            Owner::Us(process) => process.signal(signal),
        }
    }

    /// SIGSTOP: it freezes with its sockets open.
    ///
    /// # Errors
    /// The node is gone.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::Stop)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The node is gone.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone before, or does not go.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.wait_until_gone(STOP_DEADLINE).await
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone before, or does not go.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::Terminate)?;
        self.wait_until_gone(STOP_DEADLINE).await
    }

    /// Starts it again with the same configuration, as our own child, and waits until it serves.
    ///
    /// # Errors
    /// It still runs, or does not serve.
    pub async fn restart(&mut self) -> Result<()> {
        self.start_again()?;
        self.wait_until_ready(START_DEADLINE).await
    }

    /// Starts it again with the same configuration, as our own child, and waits for nothing.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.alive(), "the node still runs");
        self.owner = Owner::Us(spawn(&self.binary, &self.options)?);
        Ok(())
    }

    /// What is added to the environment of the next start, instead of what was added before.
    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.options.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Waits until `/readyz` says 200, or, without probes, until CONNECT is answered.
    ///
    /// # Errors
    /// Neither came.
    pub async fn wait_until_ready(&self, deadline: Duration) -> Result<()> {
        let ready = match self.options.probes {
            None => wait_for_connack(self.mqtt(), deadline).await,
            Some(probes) => {
                let what = format!("/readyz of {probes}");
                wait_for(&what, deadline, async || http_ok(probes, "/readyz").await.then_some(())).await
            }
        };
        match &self.owner {
            Owner::Us(process) => ready.with_context(|| process.tail()),
            Owner::Dev(_) => ready,
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// It has not.
    pub async fn wait_until_gone(&mut self, deadline: Duration) -> Result<()> {
        let what = format!("the end of the node with pid {}", self.pid());
        wait_for(&what, deadline, async || (!self.alive()).then_some(())).await
    }

    /// What it printed, if it is our own child.
    ///
    /// # Errors
    /// `fulmar dev` started it and has its output.
    pub fn process(&mut self) -> Result<&mut Process> {
        match &mut self.owner {
            Owner::Us(process) => Ok(process),
            Owner::Dev(_) => bail!("fulmar dev has this node's output"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Our own child dies with its handle. One of `fulmar dev` would outlive it: it has its own process group.
        if let Owner::Dev(id) = &self.owner {
            let _ = id.signal(Signal::Kill);
        }
    }
}

fn spawn(binary: &Path, options: &ServeOptions) -> Result<Process> {
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(&options.config).envs(options.env.iter().cloned());
    Process::spawn(&format!("serve-{}", options.mqtt.port()), command, &options.output_dir)
}
