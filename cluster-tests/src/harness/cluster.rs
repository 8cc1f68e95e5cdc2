//! Several `fulmar serve` that are one cluster, each a process of its own with its data, and faults between and in them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use super::{Node, ServeOptions, free_port, http_ok};
use crate::metrics::Metrics;
use crate::proxy::Links;
use crate::wait::wait_for;

/// How long a node may take to answer for its figures.
const LOOK: Duration = Duration::from_secs(2);

/// How long a cluster may take to serve after a fault: a lease, an election, a start, and a slow machine.
pub const RECOVERY: Duration = Duration::from_secs(45);

/// How long a cluster may take to serve for the first time.
const FORMATION: Duration = Duration::from_secs(60);

/// How a cluster is started.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Whether there is a proxy in each link, so that links can fail.
    pub proxies: bool,
    /// The first node founds the cluster alone, and each further one is added when [`Cluster::add`] is called. Without
    /// it all that are started together found it together.
    pub alone_first: bool,
    /// Nodes that [`Cluster::add`] will add, whose addresses the others can know before: with proxies in between.
    pub later: usize,
    /// Whether each node has a door for REST, which [`crate::rest`] is let into.
    pub rest: bool,
    /// Added to each configuration.
    pub config: String,
    /// Added to each environment.
    pub env: Vec<(String, String)>,
    /// The binary; [`super::fulmar_binary`] if absent.
    pub binary: Option<PathBuf>,
    /// Where data and output lie, in a new directory that vanishes with the handle; among temporary files if absent.
    pub data_dir: Option<PathBuf>,
}

/// One node of it.
pub struct Member {
    pub node: Node,
    pub mqtt: SocketAddr,
    pub probes: SocketAddr,
    /// What it listens on for the others.
    pub peer: SocketAddr,
    pub admin: SocketAddr,
    /// Where REST is served, if it is.
    pub rest: SocketAddr,
    pub data_dir: PathBuf,
    /// SIGSTOP came last.
    pub frozen: bool,
}

/// Where a node is or will be.
#[derive(Debug, Clone, Copy)]
struct Place {
    mqtt: SocketAddr,
    probes: SocketAddr,
    peer: SocketAddr,
    admin: SocketAddr,
    rest: SocketAddr,
}

impl Place {
    fn find() -> Result<Place> {
        let at = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        Ok(Place { mqtt: at()?, probes: at()?, peer: at()?, admin: at()?, rest: at()? })
    }
}

/// A running cluster. Dropped, its nodes are killed.
pub struct Cluster {
    members: Vec<Member>,
    /// Of those that run and of those that will.
    places: Vec<Place>,
    founders: usize,
    pub links: Links,
    options: ClusterOptions,
    // Dropped last: holds data and output.
    dir: TempDir,
}

impl Cluster {
    /// Starts so many nodes and waits until all serve.
    ///
    /// # Errors
    /// They do not; the output of one that does not is shown.
    pub async fn start(nodes: usize, options: ClusterOptions) -> Result<Cluster> {
        let dir = match &options.data_dir {
            Some(parent) => tempfile::tempdir_in(parent).with_context(|| format!("in {}", parent.display()))?,
            None => tempfile::tempdir()?,
        };
        let places = (0..nodes + options.later).map(|_| Place::find()).collect::<Result<Vec<Place>>>()?;
        let founders = if options.alone_first { 1 } else { nodes };
        let mut cluster = Cluster { members: Vec::new(), places, founders, links: Links::default(), options, dir };
        for _ in 0..founders {
            cluster.spawn(founders).await?;
        }
        cluster.all_ready(FORMATION).await?;
        for _ in founders..nodes {
            cluster.add().await?;
        }
        Ok(cluster)
    }

    /// Writes the configuration of the next node and starts it; waits for nothing. It knows of so many.
    async fn spawn(&mut self, known: usize) -> Result<()> {
        let index = self.members.len();
        let dir = self.dir.path().join(format!("node-{index}"));
        let data_dir = dir.join("data");
        std::fs::create_dir_all(&dir)?;
        let mut dialled = Vec::new();
        if self.options.proxies {
            for (other, place) in self.places.iter().enumerate().filter(|(other, _)| *other != index) {
                dialled.push((place.peer, self.links.add(index, other, place.peer).await?));
            }
        }
        let Place { mqtt, probes, peer, admin, rest } = self.places[index];
        let config = dir.join("fulmar.toml");
        std::fs::write(&config, self.config(index, known, &data_dir, &dialled))?;
        let serve = ServeOptions {
            config,
            mqtt,
            probes: Some(probes),
            env: self.options.env.clone(),
            output_dir: dir,
            binary: self.options.binary.clone(),
        };
        let node = Node::start(serve)?;
        self.members.push(Member { node, mqtt, probes, peer, admin, rest, data_dir, frozen: false });
        Ok(())
    }

    fn config(&self, index: usize, known: usize, data_dir: &Path, dialled: &[(SocketAddr, SocketAddr)]) -> String {
        let Place { mqtt, probes, peer, admin, rest } = self.places[index];
        let peers: Vec<String> = self.places[..known].iter().map(|place| format!("\"{}\"", place.peer)).collect();
        let (bootstrap, peers) = match self.options.alone_first && index == 0 {
            true => ("single", String::new()),
            false => ("join", peers.join(", ")),
        };
        // Those that are started together wait for each other; whoever comes later finds a cluster.
        let expected = self.founders;
        let mut text = format!(
            "[node]\ndata_dir = {:?}\n[probes]\naddress = \"{probes}\"\n[auth]\nanonymous = \"allow\"\n\
             [[listener]]\naddress = \"{mqtt}\"\n[admin]\naddress = \"{admin}\"\ntoken = \"{ADMIN_TOKEN}\"\n\
             [cluster]\nbootstrap = \"{bootstrap}\"\npeers = [{peers}]\nexpected = {expected}\nlisten = \"{peer}\"\n\
             plaintext = true\n",
            data_dir.display().to_string(),
        );
        if !dialled.is_empty() {
            let pairs = dialled.iter().map(|(peer, proxy)| format!("\"{peer}\" = \"{proxy}\""));
            text.push_str(&format!("dial = {{ {} }}\n", pairs.collect::<Vec<_>>().join(", ")));
        }
        if self.options.rest {
            text.push_str(&crate::rest::config(rest));
        }
        text + &self.options.config
    }

    /// One more node, on no data, which joins those that run. Returns its index once it serves.
    ///
    /// # Errors
    /// It does not serve.
    pub async fn add(&mut self) -> Result<usize> {
        let index = self.add_unready().await?;
        self.ready(index, RECOVERY).await?;
        Ok(index)
    }

    /// As [`Cluster::add`], and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn add_unready(&mut self) -> Result<usize> {
        if self.members.len() == self.places.len() {
            // Those that run dial it as it is: their configuration was written before it had an address.
            self.places.push(Place::find()?);
        }
        self.spawn(self.members.len() + 1).await?;
        Ok(self.members.len() - 1)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// # Panics
    /// There is no such node.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.members[index].node
    }

    #[must_use]
    pub fn mqtt(&self, index: usize) -> SocketAddr {
        self.members[index].mqtt
    }

    /// Where clients come in, by node.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.mqtt).collect()
    }

    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.node.pid()).collect()
    }

    /// The nodes whose processes run and are not stopped.
    pub fn live(&mut self) -> Vec<usize> {
        let live = self.members.iter_mut().enumerate().filter_map(|(index, member)| {
            let runs = !member.frozen && member.node.alive();
            runs.then_some(index)
        });
        live.collect()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone before, or does not go.
    pub async fn kill(&mut self, index: usize) -> Result<()> {
        self.members[index].frozen = false;
        self.members[index].node.kill().await
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone before, or does not go.
    pub async fn terminate(&mut self, index: usize) -> Result<()> {
        self.members[index].node.terminate().await
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&mut self, index: usize) -> Result<()> {
        self.members[index].frozen = true;
        self.members[index].node.freeze()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&mut self, index: usize) -> Result<()> {
        self.members[index].frozen = false;
        self.members[index].node.thaw()
    }

    /// Starts it again on the same data; waits for nothing.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn start_again(&mut self, index: usize) -> Result<()> {
        self.members[index].node.start_again()
    }

    /// Starts a node that has ended on the same data and at another address for the others, behind the same name: what its
    /// proxies stand for. Waits for nothing.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn start_elsewhere(&mut self, index: usize) -> Result<()> {
        ensure!(!self.links.is_empty(), "without proxies a node's address is its name");
        let (name, place) = (self.places[index].peer, Place::find()?.peer);
        let config = self.dir.path().join(format!("node-{index}/fulmar.toml"));
        let text = std::fs::read_to_string(&config)?;
        let moved =
            text.replace(&format!("listen = \"{name}\""), &format!("listen = \"{place}\"\nadvertise = \"{name}\""));
        ensure!(moved != text, "{} has no listener at {name}", config.display());
        std::fs::write(&config, moved)?;
        self.links.aim(index, place);
        self.start_again(index)
    }

    /// Removes the data of a node that has ended.
    ///
    /// # Errors
    /// It still runs, or the data cannot be removed.
    pub fn wipe(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        ensure!(!member.node.alive(), "node {index} still runs");
        std::fs::remove_dir_all(&member.data_dir).with_context(|| format!("cannot wipe node {index}"))
    }

    /// Waits until a node serves.
    ///
    /// # Errors
    /// It does not, or has ended.
    pub async fn ready(&mut self, index: usize, deadline: Duration) -> Result<()> {
        let Member { node, probes, .. } = &mut self.members[index];
        let what = format!("/readyz of node {index}");
        let ready = wait_for(&what, deadline, async || {
            if !node.alive() {
                return Some(Err(anyhow!("node {index} has ended")));
            }
            http_ok(*probes, "/readyz").await.then_some(Ok(()))
        });
        let ready = ready.await.and_then(|ready| ready);
        ready.with_context(|| node.process().map_or_else(|error| error.to_string(), |process| process.tail()))
    }

    /// Waits until every node that runs serves and one of them leads.
    ///
    /// # Errors
    /// That does not come.
    pub async fn all_ready(&mut self, deadline: Duration) -> Result<usize> {
        for index in self.live() {
            self.ready(index, deadline).await?;
        }
        self.wait_for_leader(deadline).await
    }

    /// Whether `/readyz` says so at the moment.
    pub async fn is_ready(&self, index: usize) -> bool {
        http_ok(self.members[index].probes, "/readyz").await
    }

    /// A node's figures.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, index: usize) -> Result<Metrics> {
        Metrics::of(self.members[index].probes, LOOK).await
    }

    /// The figures of all nodes that run, by index.
    pub async fn all_metrics(&mut self) -> Vec<(usize, Metrics)> {
        let mut all = Vec::new();
        for index in self.live() {
            if let Ok(metrics) = self.metrics(index).await {
                all.push((index, metrics));
            }
        }
        all
    }

    /// The node that says it leads; of several the one with the highest term.
    pub async fn leader(&mut self) -> Option<usize> {
        let all = self.all_metrics().await;
        let leaders = all.iter().filter(|(_, metrics)| metrics.get(LEADER) == 1);
        leaders.max_by_key(|(_, metrics)| metrics.get(TERM)).map(|(index, _)| *index)
    }

    /// Waits until exactly one of the nodes that run says it leads.
    ///
    /// # Errors
    /// None or several do.
    pub async fn wait_for_leader(&mut self, deadline: Duration) -> Result<usize> {
        self.wait_for_leader_among(deadline, |_| true).await
    }

    /// Waits until exactly one of these nodes says it leads; what others believe counts for nothing.
    ///
    /// # Errors
    /// None or several do.
    pub async fn wait_for_leader_among(&mut self, deadline: Duration, among: impl Fn(usize) -> bool) -> Result<usize> {
        wait_for("one leader", deadline, async || {
            let all = self.all_metrics().await;
            let mut leaders = all.iter().filter(|(index, metrics)| among(*index) && metrics.get(LEADER) == 1);
            let (leader, _) = leaders.next()?;
            leaders.next().is_none().then_some(*leader)
        })
        .await
    }

    /// Waits until a figure is as wanted on every node that runs.
    ///
    /// # Errors
    /// It is not; the values are told.
    pub async fn everywhere(&mut self, name: &str, deadline: Duration, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let mut last = Vec::new();
        let waited = wait_for(name, deadline, async || {
            let (live, all) = (self.live().len(), self.all_metrics().await);
            last = all.iter().map(|(index, metrics)| (*index, metrics.get(name))).collect();
            (last.len() == live && last.iter().all(|(_, value)| wanted(*value))).then_some(())
        })
        .await;
        waited.with_context(|| format!("{name} by node: {last:?}"))
    }

    /// What nodes that run have not accounted for: durable and live obligations, and those between nodes.
    pub async fn unaccounted(&mut self) -> u64 {
        let all = self.all_metrics().await;
        all.iter().flat_map(|(_, metrics)| UNACCOUNTED.map(|name| metrics.get(name))).sum()
    }

    /// What all nodes printed last, for an error message.
    pub fn tails(&mut self) -> String {
        let tails = self.members.iter_mut().filter_map(|member| Some(member.node.process().ok()?.tail()));
        tails.collect::<Vec<_>>().join("\n")
    }
}

/// Of the admin door of every node.
pub const ADMIN_TOKEN: &str = "only-on-loopback";

/// 1 where the node believes that it leads.
pub const LEADER: &str = "fulmar_raft_leader";
pub const TERM: &str = "fulmar_raft_term";
pub const VOTERS: &str = "fulmar_cluster_voters";
pub const MEMBERS: &str = "fulmar_cluster_members";
pub const FROZEN: &str = "fulmar_frozen";
const UNACCOUNTED: [&str; 2] = ["fulmar_obligations_unaccounted", "fulmar_peer_obligations_unaccounted"];

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: usize, options: ClusterOptions) -> Cluster {
        let places = (0..nodes).map(|_| Place::find().unwrap()).collect();
        let (founders, dir) = (if options.alone_first { 1 } else { nodes }, tempfile::tempdir().unwrap());
        Cluster { members: Vec::new(), places, founders, links: Links::default(), options, dir }
    }

    #[test]
    fn configurations_name_all_peers_and_whom_to_dial_instead() {
        let three =
            cluster(3, ClusterOptions { config: "[store]\nlog_bytes = \"1MiB\"\n".into(), ..Default::default() });
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, 4));
        let text = three.config(0, 3, Path::new("/data"), &[(three.places[1].peer, proxy)]);
        let peers: Vec<String> = three.places.iter().map(|place| place.peer.to_string()).collect();
        let [one, two, three] = [&peers[0], &peers[1], &peers[2]];
        for wanted in [
            format!(
                "bootstrap = \"join\"\npeers = [\"{one}\", \"{two}\", \"{three}\"]\nexpected = 3\nlisten = \"{one}\""
            ),
            format!("plaintext = true\ndial = {{ \"{two}\" = \"{proxy}\" }}\n[store]\nlog_bytes"),
        ] {
            assert!(text.contains(&wanted), "{wanted}\nis not in\n{text}");
        }
        let alone = cluster(1, ClusterOptions { alone_first: true, ..Default::default() });
        let text = alone.config(0, 1, Path::new("/data"), &[]);
        assert!(text.contains("bootstrap = \"single\"\npeers = []\nexpected = 1\n"), "{text}");
    }
}
