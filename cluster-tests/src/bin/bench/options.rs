//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fulmar_mqtt::{QoS, Version};

use crate::connections;
use crate::load::{self, Shape};
use crate::measure::Target;
use crate::payload::HEADER_BYTES;
use crate::report::Report;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures an MQTT broker: CPU per message, latency, memory, losses")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    #[command(flatten)]
    Run(Scenario),
    /// Fulmar and mosquitto in turn, every scenario, medians and ratios
    Compare(CompareOptions),
    /// QoS 1 to persistent sessions of one Fulmar, as fast as it goes and at half of that: the log and the disk too
    Durable(DurableOptions),
    /// One client id after the other is wanted at the next of three nodes: how long CONNACK takes
    Takeover(TakeoverOptions),
    /// Reports of devices at one node, pushed by a rule to an application at another: how many, and how late
    Push(PushOptions),
    /// The leader of three nodes is killed again and again: how long publishers and its clients wait
    Failover(FailoverOptions),
    /// One Fulmar with much in it: memory of each thing, snapshots, and how long it is away
    Restart(RestartOptions),
    /// Memory and disk of each connection, session, subscription, message and device, and the formula for a node's size
    Sizes(SizesOptions),
    /// Messages to devices that are away, on three nodes: memory of each, and how fast they come once the devices do
    Messages(MessagesOptions),
    /// A registry of many devices in this process: memory of each, and how fast one is found
    Registry(RegistryOptions),
    /// Commands by REST to devices that answer at once, on another of three nodes and on the same one: how long they take
    Commands(CommandsOptions),
    /// A rule in this process, and one on nodes that republishes what a device reports: how many events a second
    Rules(RulesOptions),
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Scenario {
    /// N publishers, N subscribers, a topic for each pair
    Pairs(LoadOptions),
    /// One publisher, N subscribers of its topic
    FanOut(LoadOptions),
    /// N publishers with a topic each, one subscriber of all
    FanIn(LoadOptions),
    /// Pairs at a fixed total rate; latency counts from when each message should have been sent
    OpenLoop(LoadOptions),
    /// N connections that do nothing: memory of each, CPU of all
    Idle(IdleOptions),
    /// Connect, CONNACK, DISCONNECT, close, as fast as it goes
    Connects(ConnectsOptions),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TargetOptions {
    /// Address of a broker that runs already
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    #[arg(long, default_value_t = 1883)]
    pub(crate) port: u16,
    /// Its process, for CPU and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Start this broker instead, on a free port, and end it afterwards
    #[arg(long, conflicts_with_all = ["host", "port", "pid"])]
    pub(crate) spawn: Option<Kind>,
    /// The fulmar binary to start; else FULMAR_BIN, else the one that cargo builds beside this program
    #[arg(long)]
    pub(crate) fulmar_bin: Option<PathBuf>,
    /// MQTT version: 4 (3.1.1) or 5
    #[arg(long = "version", default_value = "4", value_parser = parse_version)]
    pub(crate) version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Fulmar,
    /// Three nodes on this machine
    FulmarCluster,
    Mosquitto,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LoadOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[arg(long, default_value = "0", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    /// Pairs, or subscribers of fan-out, or publishers of fan-in
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Length of the measured section
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// End the measured section early, at so many deliveries
    #[arg(long)]
    pub(crate) messages: Option<u64>,
    /// Seconds of load before the measured section
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Bytes; the first 20 are the bench's own
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..))]
    pub(crate) payload: u32,
    /// Messages under way per publisher: QoS 1 and 2 unacknowledged (default 32), QoS 0 undelivered (default 256)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: Option<u16>,
    /// QoS 1 and 2: also bound what is undelivered per publisher, so that a broker that acks early is not overrun
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) undelivered: Option<u64>,
    /// Messages a second in total, open loop only
    #[arg(long, default_value_t = 5000)]
    pub(crate) rate: u64,
    /// Seed of padding and of the publishers' phases
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IdleOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// How long CPU is measured
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Each also holds a subscription to a topic of its own
    #[arg(long)]
    pub(crate) subscribe: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectsOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    /// Connections under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Sessions that stay, and are resumed by each connection after the first
    #[arg(long)]
    pub(crate) persistent: bool,
}

/// A Fulmar that the bench starts with a configuration of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeOptions {
    /// The fulmar binary to start; else FULMAR_BIN, else the one that cargo builds beside this program
    #[arg(long)]
    pub(crate) fulmar_bin: Option<PathBuf>,
    /// Where the data lies, in a new directory that is removed afterwards; else among temporary files
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Bytes that the log grows by before a snapshot is written
    #[arg(long, default_value = "64MiB")]
    pub(crate) log_bytes: String,
    /// MQTT version: 4 (3.1.1) or 5
    #[arg(long = "version", default_value = "4", value_parser = parse_version)]
    pub(crate) version: Version,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DurableOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// 1, or as many as are to be one cluster; clients come in at all of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Persistent subscribers, connected; each gets its share of the publishers' messages
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// Unacknowledged messages of each publisher
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// Also bound what is undelivered per publisher
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) undelivered: Option<u64>,
    /// Messages a second of the open loop; else half of what was reached
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// Length of each measured section
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Bytes; the first 20 are the bench's own
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..))]
    pub(crate) payload: u32,
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TakeoverOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Takeovers that are measured
    #[arg(long, default_value_t = 1_000)]
    pub(crate) count: u32,
    /// Client ids, each wanted in its turn
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PushOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) devices: u32,
    /// Reports a second, of all devices together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Which events the rule wants; all of them if it is empty
    #[arg(long = "where", default_value = "")]
    pub(crate) filter: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FailoverOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Leaders that are killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Clients of each leader, which connect to another node when theirs is gone
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MessagesOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Messages in all, twenty for each device
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(20..=2_000_000))]
    pub(crate) count: u32,
    /// Bytes of each
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: u32,
    /// Requests at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) window: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RestartOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Retained messages
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) retained: u64,
    /// Persistent sessions with a subscription each, not connected
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sessions: u64,
    /// Messages that wait for these
    #[arg(long, default_value_t = 100_000)]
    pub(crate) queued: u64,
    /// Bytes of each retained and queued message
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SizesOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Connections of each kind
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub(crate) count: u32,
    /// Of each kind that the log keeps: sessions, messages, devices
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) kept: u32,
    /// Bytes of each queued and retained message
    #[arg(long, default_value_t = 256)]
    pub(crate) payload: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryOptions {
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub(crate) devices: u32,
    /// Devices that are looked for, at random
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lookups: u32,
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CommandsOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Callers with a connection each, that command a device each, one command after the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) callers: u32,
    /// Length of each measured section
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RulesOptions {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// The device is at the first, the subscriber at the last
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) evaluations: u32,
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reports: u32,
    /// Reports on their way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) window: u16,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareOptions {
    /// One short round of each: shows that everything works, not how well
    #[arg(long)]
    pub(crate) quick: bool,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// The fulmar binary to start; else FULMAR_BIN, else the one that cargo builds beside this program
    #[arg(long)]
    pub(crate) fulmar_bin: Option<PathBuf>,
    /// File to which every run's JSON line is appended
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Which brokers take turns
    #[arg(long, value_delimiter = ',', default_values_t = [Kind::Fulmar, Kind::Mosquitto], value_enum)]
    pub(crate) brokers: Vec<Kind>,
    /// Only the scenarios whose name contains this
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// MQTT version: 4 (3.1.1) or 5
    #[arg(long = "version", default_value = "4", value_parser = parse_version)]
    pub(crate) version: Version,
}

impl Scenario {
    pub(crate) fn target(&self) -> &TargetOptions {
        match self {
            Scenario::Pairs(options) | Scenario::FanOut(options) => &options.target,
            Scenario::FanIn(options) | Scenario::OpenLoop(options) => &options.target,
            Scenario::Idle(options) => &options.target,
            Scenario::Connects(options) => &options.target,
        }
    }

    pub(crate) async fn measure(&self, target: &Target) -> Result<Report> {
        match self {
            Scenario::Pairs(options) => load::measure(Shape::Pairs, options, target).await,
            Scenario::FanOut(options) => load::measure(Shape::FanOut, options, target).await,
            Scenario::FanIn(options) => load::measure(Shape::FanIn, options, target).await,
            Scenario::OpenLoop(options) => load::measure(Shape::OpenLoop, options, target).await,
            Scenario::Idle(options) => connections::idle(options, target).await,
            Scenario::Connects(options) => connections::connects(options, target).await,
        }
    }
}

impl TargetOptions {
    /// For runs whose broker is chosen elsewhere.
    pub(crate) fn unused(version: Version) -> TargetOptions {
        let host = IpAddr::from([127, 0, 0, 1]);
        TargetOptions { host, port: 0, pid: None, spawn: None, fulmar_bin: None, version }
    }
}

impl LoadOptions {
    pub(crate) fn window(&self) -> u16 {
        self.window.unwrap_or(if self.qos == QoS::AtMostOnce { 256 } else { 32 })
    }

    pub(crate) fn undelivered(&self) -> Option<u64> {
        if self.qos == QoS::AtMostOnce { Some(self.window().into()) } else { self.undelivered }
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "4" => Ok(Version::V311),
        "5" => Ok(Version::V5),
        _ => Err("4 or 5".into()),
    }
}

fn parse_qos(text: &str) -> Result<QoS, String> {
    let bits = text.parse().map_err(|_| "0, 1 or 2".to_owned())?;
    QoS::from_bits(bits).ok_or_else(|| "0, 1 or 2".to_owned())
}
