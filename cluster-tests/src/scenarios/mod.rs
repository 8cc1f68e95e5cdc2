//! What a cluster promises under faults. Each scenario is one promise: it starts a cluster, loads it, breaks something again
//! and again, and is judged by the history of its clients and the books of its nodes. A seed decides all that is random.

pub(crate) mod clients;
mod devices;
mod joins;
mod kills;
mod partitions;
pub(crate) mod row;
mod shared;
mod stage;
mod stops;
mod subacks;
mod takeovers;
mod visible;
mod wills;

use std::path::PathBuf;
use std::pin::Pin;

use anyhow::Result;

use crate::harness::ClusterOptions;
pub use row::{Row, table};
pub use stage::Stage;

/// How a scenario is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long faults are made; what it takes to set up and to come to an end is added.
    pub seconds: f64,
    pub seed: u64,
    /// Repetitions of what is counted instead of timed.
    pub count: usize,
    /// Clients where there are to be many.
    pub clients: usize,
    /// The `fulmar` to start; else the one that the harness finds.
    pub binary: Option<PathBuf>,
    /// Added to the environment of every node.
    pub env: Vec<(String, String)>,
}

/// What a scenario does once its cluster serves.
type Act = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One promise.
pub struct Scenario {
    pub name: &'static str,
    pub promise: &'static str,
    nodes: usize,
    options: fn() -> ClusterOptions,
    act: Act,
}

impl Scenario {
    /// Runs it. What was violated is in the row.
    ///
    /// # Errors
    /// The cluster did not start.
    pub async fn run(&self, settings: &Settings) -> Result<Row> {
        let mut stage = Stage::open(self.name, settings, self.nodes, (self.options)()).await?;
        let acted = (self.act)(&mut stage).await;
        Ok(stage.finish(acted).await)
    }
}

/// Puts proxies into the links.
fn proxied() -> ClusterOptions {
    ClusterOptions { proxies: true, ..ClusterOptions::default() }
}

fn proxied_and_one_later() -> ClusterOptions {
    ClusterOptions { later: 1, ..proxied() }
}

/// A log so small that snapshots and purges happen all the time.
fn small_log() -> ClusterOptions {
    ClusterOptions { config: "[store]\nlog_bytes = \"1MiB\"\n".into(), ..ClusterOptions::default() }
}

fn with_rest() -> ClusterOptions {
    ClusterOptions { rest: true, ..ClusterOptions::default() }
}

fn alone_first() -> ClusterOptions {
    ClusterOptions { alone_first: true, ..ClusterOptions::default() }
}

macro_rules! scenarios {
    ($($name:literal $promise:literal $nodes:literal $options:expr, $act:path;)*) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            promise: $promise,
            nodes: $nodes,
            options: $options,
            act: |stage| Box::pin($act(stage)),
        },)*];
    };
}

scenarios! {
    "kill-any" "nothing acknowledged is lost when any node is killed at any step" 3 ClusterOptions::default, kills::any_node;
    "kill-leader" "nothing acknowledged is lost when the leader is killed" 3 ClusterOptions::default, kills::leader;
    "kill-leader-before-reply" "what was committed and not answered is taken once" 3 ClusterOptions::default, kills::leader_before_reply;
    "kill-qos2" "QoS 2 comes once through kills at its half-steps, with packet ids used again" 3 ClusterOptions::default, kills::qos2_half_steps;
    "kill-all" "a cluster that was killed comes back with everything, in whatever order" 3 ClusterOptions::default, kills::whole_cluster;
    "rolling-restart" "2,000 clients lose nothing while all nodes are restarted" 3 ClusterOptions::default, kills::rolling_restart;
    "wiped-volume" "a node that lost its data comes back empty and is filled" 3 small_log, kills::wiped_volume;
    "stop-past-lease" "a node that was stopped past its lease serves nobody who is elsewhere by then" 3 ClusterOptions::default, stops::past_lease;
    "stop-owner" "the same if it is stopped while its client is taken over" 3 ClusterOptions::default, stops::during_takeover;
    "partition" "the majority goes on, the minority is frozen" 3 proxied, partitions::majority;
    "partition-pair" "two nodes that do not reach each other lose nothing" 3 proxied, partitions::pair;
    "partition-leader-learner" "a leader that is alone with a learner is none" 3 proxied_and_one_later, partitions::leader_and_learner;
    "slow-links" "late, lossy and half-open links lose nothing" 3 proxied, partitions::slow_links;
    "takeover-ping-pong" "a client id that wanders has one owner at a time" 3 ClusterOptions::default, takeovers::ping_pong;
    "publish-after-suback" "after SUBACK on one node, a publish on another arrives" 3 ClusterOptions::default, visible::publish_after_suback;
    "retained-after-puback" "after PUBACK on one node, the others replay what was retained" 3 ClusterOptions::default, visible::retained_after_puback;
    "wills-of-killed" "a killed node's wills fly once, at their time, unless resumed" 3 ClusterOptions::default, wills::of_killed_node;
    "join-by-snapshot" "a node joins under load when the log's beginning is gone" 3 small_log, joins::by_snapshot;
    "grow" "one node becomes three and five while it serves" 1 alone_first, joins::grow;
    "shared-mixed" "a shared group of both kinds gets each message, whoever dies" 3 ClusterOptions::default, shared::mixed_group;
    "devices-of-killed" "devices of a killed node are ONLINE again within 30 s, and none is shown OFFLINE that is not" 3 with_rest, devices::of_killed_node;
    "suback-in-time" "SUBACK comes within 3 s across a node's and the leader's loss" 3 ClusterOptions::default, subacks::across_losses;
}

/// The one of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
