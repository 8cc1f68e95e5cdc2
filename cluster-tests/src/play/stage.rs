//! What every scenario under load stands on: a cluster of the manifests, devices, and one end for all.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::prelude::*;
use serde_json::Value;
use tokio::time::sleep;

use super::Settings;
use super::fleet::Fleet;
use super::manifest::Manifest;
use super::row::Row;
use super::world::World;
use crate::harness::{FROZEN, LEADER, MEMBERS};
use crate::history::What;
use crate::wait_for;

/// For all pods to be as applied: each takes up to its grace period to leave.
pub(super) const ROLLOUT: Duration = Duration::from_secs(600);

/// How long the books of all nodes may take to close once nothing is under way.
const BOOKS: Duration = Duration::from_secs(30);

/// How long the load may take to go on.
const PROGRESS: Duration = Duration::from_secs(120);

/// Between two looks at a long history.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

const UNACCOUNTED: [&str; 2] = ["fulmar_obligations_unaccounted", "fulmar_peer_obligations_unaccounted"];

/// Reconnects in a second beyond the drain's rate: clients wait for a random time, so that some of one second come in the
/// next.
const JITTER: f64 = 1.25;
const STRAY: u64 = 25;

/// See the module.
pub(super) struct Stage<'a> {
    pub(super) world: World,
    pub(super) fleet: Fleet,
    pub(super) random: StdRng,
    pub(super) settings: &'a Settings,
    row: Row,
    begun: Instant,
    restarts_allowed: bool,
}

impl<'a> Stage<'a> {
    /// Starts a cluster of these manifests, and connects the devices.
    pub(super) async fn open(settings: &'a Settings, manifest: &Manifest, binary: &Path) -> Result<Stage<'a>> {
        let begun = Instant::now();
        let world = World::open(manifest, binary, settings.pace, settings.aloud).await?;
        world.formed().await?;
        let mut random = StdRng::seed_from_u64(settings.seed);
        let fleet = Fleet::start(world.doors.clone(), settings.devices, random.random()).await;
        let fleet = fleet.with_context(|| world.tails())?;
        world.notes.say(format!("{} devices are connected", settings.devices));
        let planned = (manifest.disconnect_rate()? as f64 * JITTER) as u64 + STRAY;
        let row =
            Row { devices: settings.devices, seed: settings.seed, reconnects_per_s_max: planned, ..Row::default() };
        let mut stage = Stage { world, fleet, random, settings, row, begun, restarts_allowed: false };
        stage.progress(200).await?;
        Ok(stage)
    }

    pub(super) fn note(&mut self, note: String) {
        self.row.notes.push(note);
    }

    /// Containers may end by themselves here.
    pub(super) fn allow_restarts(&mut self) {
        self.restarts_allowed = true;
    }

    /// Waits until so many more messages were acknowledged.
    pub(super) async fn progress(&mut self, count: u64) -> Result<()> {
        let target = self.fleet.acknowledged() + count;
        let waited = wait_for("acknowledgements", PROGRESS, async || {
            sleep(LOOK_PAUSE).await;
            (self.fleet.acknowledged() >= target).then_some(())
        });
        waited.await.with_context(|| format!("{:?}\n{}", self.fleet.problems(), self.world.tails()))
    }

    /// Clients whose connection is to this pod may come back at once: it is about to be lost.
    pub(super) fn storm_allowed(&mut self, ordinal: usize) {
        let records = self.fleet.history.so_far();
        let mut open = BTreeSet::new();
        for event in &records.events {
            match event.what {
                What::Opened if records.connections[event.connection as usize].node == ordinal => {
                    open.insert(event.connection);
                }
                What::Closed => drop(open.remove(&event.connection)),
                _ => {}
            }
        }
        let planned = self.row.reconnects_per_s_max;
        self.row.reconnects_per_s_max = planned.max((self.settings.devices.min(open.len()) as u64) + planned);
    }

    /// Members of the cluster on every node, as many as there are pods.
    pub(super) async fn all_members(&self) -> Result<()> {
        let replicas = self.world.manifest().replicas as u64;
        self.everywhere(MEMBERS, |members| members == replicas).await
    }

    async fn everywhere(&self, name: &str, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let mut last = Vec::new();
        let waited = wait_for(name, BOOKS, async || {
            let all = self.world.all_metrics().await.ok()?;
            last = all.iter().map(|metrics| metrics.get(name)).collect();
            (!last.is_empty() && last.iter().all(|value| wanted(*value))).then_some(())
        });
        waited.await.with_context(|| format!("{name} by pod: {last:?}\n{}", self.world.tails()))
    }

    /// Waits for a whole cluster, lets all clients come to their end, and judges.
    pub(super) async fn finish(mut self, acted: Result<()>) -> Row {
        let ended = match acted {
            Ok(()) => self.end().await,
            Err(error) => Err(error),
        };
        let finished = ended.is_ok();
        if let Err(error) = ended {
            self.row.problems.push(format!("it did not come to its end: {error:#}"));
        }
        let restarts = self.world.restarts();
        if restarts > 0 && !self.restarts_allowed {
            self.row.problems.push(format!("containers were started again {restarts} times"));
        }
        self.row.problems.extend(self.world.notes.problems());
        self.row.problems.extend(self.fleet.problems());
        (self.row.verdict, self.row.felt) = self.fleet.judge(finished);
        self.row.leave = self.world.notes.longest_leave();
        self.row.took = self.begun.elapsed();
        if !self.row.is_good() {
            eprintln!("{}", self.world.tails());
        }
        self.row
    }

    async fn end(&mut self) -> Result<()> {
        self.world.rolled_out(ROLLOUT).await?;
        self.world.notes.say("clients come to their end".into());
        self.fleet.settle().await?;
        self.all_members().await?;
        self.everywhere(FROZEN, |frozen| frozen == 0).await?;
        one_cluster(&self.world).await?;
        let open = async || {
            let all = self.world.all_metrics().await.ok()?;
            Some(all.iter().flat_map(|metrics| UNACCOUNTED.map(|name| metrics.get(name))).sum::<u64>())
        };
        let closed = wait_for("closed books", BOOKS, async || open().await.filter(|open| *open == 0)).await;
        if closed.is_err() {
            self.row.unaccounted = open().await.context("a pod does not answer")?;
        }
        Ok(())
    }
}

/// That all pods are members of one cluster, with one leader: each names the same cluster and the same members. Returns the
/// members as one of them shows them.
pub(super) async fn one_cluster(world: &World) -> Result<Value> {
    let replicas = world.manifest().replicas;
    let mut seen = Vec::new();
    for ordinal in 0..replicas {
        seen.push(members(world, ordinal).await?);
    }
    let ids = |members: &Value| -> BTreeSet<String> {
        let all = members["members"].as_array().into_iter().flatten();
        all.filter_map(|member| member["node"].as_str().map(str::to_owned)).collect()
    };
    let (clusters, members): (BTreeSet<String>, BTreeSet<BTreeSet<String>>) =
        seen.iter().map(|members| (members["cluster"].to_string(), ids(members))).unzip();
    ensure!(clusters.len() == 1, "there are {} clusters: {clusters:?}", clusters.len());
    ensure!(members.len() == 1 && members.iter().all(|all| all.len() == replicas), "members differ: {members:?}");
    let leaders = world.all_metrics().await?.iter().filter(|metrics| metrics.get(LEADER) == 1).count();
    ensure!(leaders == 1, "{leaders} nodes believe that they lead");
    seen.pop().context("there are no pods")
}

/// `fulmar ctl cluster members` in a pod.
pub(super) async fn members(world: &World, ordinal: usize) -> Result<Value> {
    let shown = ctl(world, ordinal, &["cluster", "members", "--output", "json"]).await?;
    serde_json::from_str(&shown).with_context(|| format!("`members` printed {shown}"))
}

/// `kubectl exec fulmar-N -- fulmar ctl ...`, with the token of the configuration.
pub(super) async fn ctl(world: &World, ordinal: usize, words: &[&str]) -> Result<String> {
    let token = world.manifest().token_file()?;
    let words: Vec<&str> = ["fulmar", "ctl", "--token-file", &token].iter().chain(words).copied().collect();
    world.exec(ordinal, &words).await
}
