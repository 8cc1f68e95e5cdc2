//! What every scenario stands on: a cluster, clients that load it, and one end for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::prelude::*;

use super::Settings;
use super::clients::{Clients, SubackProbes};
use super::row::Row;
use crate::harness::{Cluster, ClusterOptions, FROZEN, RECOVERY};
use crate::history::History;
use crate::load::{Doors, Load, Manner, Plan, Point};
use crate::wait_for;

/// A client that hears nothing for so long goes to the next node: longer than a lease and an election take.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long the books of all nodes may take to close once nothing is under way.
const BOOKS: Duration = Duration::from_secs(20);

/// How long the load may take to come to a step, or a process to be gone.
const STEP: Duration = Duration::from_secs(60);

/// Bounds that nothing here comes to: at them the oldest messages of a queue go, and publishes are refused.
const WIDE: &str = "[session]\nqueue_entries_max = 10000000\nqueue_bytes_max = \"4GiB\"\n\
                    [limits]\nreplicated_bytes_max = \"16GiB\"\n";

/// Unless a scenario says otherwise.
pub(super) fn plan() -> Plan {
    Plan { manner: Manner::Moves { patience: PATIENCE }, window: 16, payload_bytes_max: 600, ..Plan::default() }
}

/// See the module.
pub struct Stage {
    pub(super) cluster: Cluster,
    pub(super) history: Arc<History>,
    pub(super) doors: Arc<Doors>,
    pub(super) random: StdRng,
    pub(super) settings: Settings,
    pub(super) clients: Clients,
    load: Option<Load>,
    probes: SubackProbes,
    row: Row,
    begun: Instant,
}

impl Stage {
    /// Starts a cluster and looks at its SUBACKs from then on.
    pub(super) async fn open(
        name: &str,
        settings: &Settings,
        nodes: usize,
        mut options: ClusterOptions,
    ) -> Result<Stage> {
        options.binary = settings.binary.clone();
        options.env = settings.env.clone();
        options.config.push_str(WIDE);
        let cluster = Cluster::start(nodes, options).await.with_context(|| format!("{name}: no cluster"))?;
        let (history, doors) = (Arc::new(History::default()), Arc::new(Doors::of(&cluster.addresses())));
        let mut probes = SubackProbes::new(doors.clone());
        (0..nodes).for_each(|node| probes.add(node));
        let row = Row { name: name.to_owned(), seed: settings.seed, ..Row::default() };
        let clients = Clients::new(history.clone(), doors.clone(), PATIENCE);
        let (random, settings, begun) = (StdRng::seed_from_u64(settings.seed), settings.clone(), Instant::now());
        Ok(Stage { cluster, history, doors, random, settings, clients, load: None, probes, row, begun })
    }

    /// Lets publishers and subscribers go.
    pub(super) async fn load(&mut self, plan: &Plan) -> Result<()> {
        let seed = self.random.random();
        self.load = Some(Load::start(self.doors.clone(), self.history.clone(), seed, plan).await?);
        self.progress(100).await
    }

    /// Whether there is time for one more fault.
    pub(super) fn time_left(&self) -> bool {
        self.begun.elapsed().as_secs_f64() < self.settings.seconds
    }

    /// Waits until so many more messages were acknowledged to the load.
    pub(super) async fn progress(&mut self, count: u64) -> Result<()> {
        match &mut self.load {
            Some(load) => load.acknowledged(count).await,
            None => Ok(()),
        }
    }

    /// Has a node killed when the load comes to this point, and waits until it is gone.
    pub(super) async fn kill_at(&mut self, node: usize, point: Point) -> Result<()> {
        let Some(load) = &mut self.load else { return self.kill(node).await };
        self.doors.set_out(node, true);
        let book = load.book.clone();
        book.arm(self.cluster.node(node).pid(), point);
        load.until(&format!("a kill at {point:?}"), STEP, book.killed()).await?;
        self.cluster.node(node).wait_until_gone(STEP).await
    }

    pub(super) async fn kill(&mut self, node: usize) -> Result<()> {
        self.doors.set_out(node, true);
        self.cluster.kill(node).await
    }

    pub(super) fn freeze(&mut self, node: usize) -> Result<()> {
        self.doors.set_out(node, true);
        self.cluster.freeze(node)
    }

    /// Starts a node that is gone, and waits until it serves.
    pub(super) async fn start_again(&mut self, node: usize) -> Result<()> {
        self.cluster.start_again(node)?;
        self.serves_again(node).await
    }

    pub(super) async fn serves_again(&mut self, node: usize) -> Result<()> {
        self.cluster.ready(node, RECOVERY).await?;
        self.doors.set_out(node, false);
        Ok(())
    }

    /// One more node, known to all clients from then on.
    pub(super) async fn add(&mut self) -> Result<usize> {
        let node = self.cluster.add().await?;
        self.doors.add(self.cluster.mqtt(node));
        self.probes.add(node);
        Ok(node)
    }

    /// A node of those that run, by chance.
    pub(super) fn any(&mut self) -> usize {
        self.random.random_range(0..self.cluster.count())
    }

    /// Waits until so much time has passed since then: what is asked about is time itself.
    pub(super) async fn elapse(&self, since: Instant, time: Duration) -> Result<()> {
        let passed = async || (since.elapsed() >= time).then_some(());
        wait_for("time to pass", time + STEP, passed).await
    }

    /// All links healed, all nodes run and serve.
    pub(super) async fn recover(&mut self) -> Result<()> {
        self.cluster.links.heal();
        for node in 0..self.cluster.count() {
            if self.cluster.member(node).frozen {
                self.cluster.thaw(node)?;
            }
            if !self.cluster.node(node).alive() {
                self.cluster.start_again(node)?;
            }
        }
        self.cluster.all_ready(RECOVERY).await?;
        for node in 0..self.cluster.count() {
            self.doors.set_out(node, false);
        }
        Ok(())
    }

    pub(super) fn wrong(&mut self, problem: String) {
        self.row.problems.push(problem);
    }

    pub(super) fn note(&mut self, note: String) {
        self.row.notes.push(note);
    }

    /// What the probes have seen so far.
    pub(super) fn suback_worst(&self) -> Duration {
        Duration::from_nanos(self.probes.seen().max())
    }

    /// Heals everything, lets all clients come to their end, and judges.
    pub(super) async fn finish(mut self, acted: Result<()>) -> Row {
        let ended = match acted {
            Ok(()) => self.end().await,
            Err(error) => Err(error),
        };
        let finished = ended.is_ok();
        if let Err(error) = ended {
            self.row.problems.push(format!("it did not come to its end: {error:#}"));
        }
        if let Some(load) = &self.load {
            self.row.problems.extend(load.book.problems());
        }
        self.row.problems.extend(self.clients.problems());
        self.row.verdict = if finished { self.history.judge() } else { self.history.judge_unfinished() };
        self.row.suback = self.probes.seen();
        self.row.took = self.begun.elapsed();
        if !self.row.is_good() {
            eprintln!("{}", self.cluster.tails());
        }
        self.row
    }

    async fn end(&mut self) -> Result<()> {
        self.recover().await?;
        if let Some(load) = &mut self.load {
            load.finish().await?;
            for node in 0..self.cluster.count() {
                load.check_retained(node).await?;
            }
        }
        self.clients.settle().await?;
        self.probes.stop().await;
        self.cluster.everywhere(FROZEN, BOOKS, |frozen| frozen == 0).await?;
        let closed = wait_for("closed books", BOOKS, async || (self.cluster.unaccounted().await == 0).then_some(()));
        if closed.await.is_err() {
            self.row.unaccounted = self.cluster.unaccounted().await;
        }
        Ok(())
    }
}
