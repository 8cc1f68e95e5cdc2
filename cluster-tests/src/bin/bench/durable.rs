//! `bench durable`: QoS 1 to persistent sessions on one node, as fast as it goes and at half of that; what the log wrote
//! and how often it synced; and what the disk itself took at that time.

use std::time::Duration;

use anyhow::Result;
use cluster_tests::disk::DiskProbe;
use cluster_tests::histogram::Histogram;
use cluster_tests::metrics::Metrics;
use fulmar_mqtt::QoS;
use serde::Serialize;

use crate::load::{self, Shape};
use crate::options::{DurableOptions, LoadOptions, TargetOptions};
use crate::own::Ours;
use crate::report::{Latency, Report, round};
use crate::table::{Row, figure, plain};

/// Between two writes of the probe that runs beside the load: seldom, to be no load of its own.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// How long the idle disk is measured.
const IDLE: Duration = Duration::from_secs(2);

/// What is promised: messages a second over three nodes, and p99 at half load as a multiple of the disk's own.
const RATE_LEAST: f64 = 20_000.0;
const P99_US_MOST: f64 = 25_000.0;
const P99_TIMES_DISK: f64 = 3.0;

/// A load, and what the disk saw of it.
#[derive(Debug, Serialize)]
struct Run {
    #[serde(flatten)]
    report: Report,
    /// fdatasync of 4 KiB by the bench itself, at the same time.
    disk_us: Option<Latency>,
    commits_per_s: f64,
    messages_per_commit: f64,
    commit_us: f64,
    /// Keys and values of entries.
    log_bytes_per_message: f64,
    /// All that the process had written, snapshots and sled's own work too.
    disk_bytes_per_message: f64,
    snapshots: u64,
}

pub(crate) async fn run(options: &DurableOptions) -> Result<()> {
    let own = Ours::start(&options.node, options.nodes.into()).await?;
    let probe = DiskProbe::start(own.dir(), Duration::ZERO)?;
    tokio::time::sleep(IDLE).await;
    let idle = Latency::of(&probe.finish()?);

    let subscribers = options.subscribers.min(options.publishers) as usize;
    let closed = measure(&own, &load(options, 0), Shape::Durable { subscribers, open_loop: false }).await?;
    let rate = options.rate.unwrap_or((closed.report.msgs_per_s.unwrap_or(0.0) / 2.0) as u64).max(1);
    let half = measure(&own, &load(options, rate), Shape::Durable { subscribers, open_loop: true }).await?;
    for run in [&closed, &half] {
        println!("{}", serde_json::to_string(run)?);
        run.report.errors.iter().for_each(|error| eprintln!("  {error}"));
    }
    println!("{}", plain(&rows(idle, &closed, &half, rate)));
    Ok(())
}

fn load(options: &DurableOptions, rate: u64) -> LoadOptions {
    LoadOptions {
        target: TargetOptions::unused(options.node.version),
        qos: QoS::AtLeastOnce,
        count: options.publishers,
        seconds: options.seconds,
        messages: None,
        warmup: options.warmup,
        payload: options.payload,
        window: Some(options.window),
        undelivered: options.undelivered,
        rate,
        seed: options.seed,
    }
}

async fn measure(own: &Ours, load: &LoadOptions, shape: Shape) -> Result<Run> {
    let probe = DiskProbe::start(own.dir(), PROBE_PAUSE)?;
    let (before, written) = (own.metrics().await?, own.written_bytes()?);
    let report = load::measure(shape, load, &own.target()).await?;
    let (after, written) = (own.metrics().await?, own.written_bytes()? - written);
    Ok(run_of(report, &before, &after, written, &probe.finish()?))
}

/// The log's figures are of the whole run, and so related to all its messages; a rate is theirs times the section's.
fn run_of(report: Report, before: &Metrics, after: &Metrics, written: u64, disk: &Histogram) -> Run {
    let messages = report.acknowledged.unwrap_or(0).max(1) as f64;
    let commits = after.since(before, "fulmar_log_sync_seconds_count").max(1) as f64;
    let per_commit = messages / commits;
    Run {
        disk_us: Latency::of(disk),
        commits_per_s: round(report.msgs_per_s.unwrap_or(0.0) / per_commit),
        messages_per_commit: round(per_commit),
        commit_us: round(after.seconds_since(before, "fulmar_log_sync_seconds_sum") * 1e6 / commits),
        log_bytes_per_message: round(after.since(before, "fulmar_log_written_bytes_total") as f64 / messages),
        disk_bytes_per_message: round(written as f64 / messages),
        snapshots: after.since(before, "fulmar_snapshots_total"),
        report,
    }
}

fn rows(idle: Option<Latency>, closed: &Run, half: &Run, rate: u64) -> Vec<Row> {
    let quantiles = |latency: Option<Latency>| {
        latency.map_or_else(|| "-".into(), |l| format!("{} / {} / {}", figure(l.p50), figure(l.p99), figure(l.max)))
    };
    let optional = |value: Option<f64>| value.map_or_else(|| "-".into(), figure);
    let both = |name, of: fn(&Run) -> f64| Row::of(name, &[figure(of(closed)), figure(of(half))]);
    let latency = |name, of: fn(&Run) -> Option<Latency>| Row::of(name, &[quantiles(of(closed)), quantiles(of(half))]);
    let bound = half.disk_us.map_or(P99_US_MOST, |disk| P99_US_MOST.max(P99_TIMES_DISK * disk.p99));
    let p99 = half.report.ack_latency_us.map_or(f64::MAX, |latency| latency.p99);
    let fast = closed.report.msgs_per_s.unwrap_or(0.0);
    vec![
        Row::of("", &["as fast as it goes".into(), format!("open loop, {}/s", figure(rate as f64))]),
        Row::of("messages/s", &[optional(closed.report.msgs_per_s), optional(half.report.msgs_per_s)])
            .promised(format!(">= {}", figure(RATE_LEAST)), fast >= RATE_LEAST),
        latency("publish to PUBACK, us: p50 / p99 / max", |run| run.report.ack_latency_us)
            .promised(format!("at half load p99 <= {} us", figure(bound)), p99 <= bound),
        latency("publish to delivery, us", |run| run.report.latency_us),
        latency("fdatasync beside it, us", |run| run.disk_us),
        Row::of("fdatasync of the idle disk, us", &[quantiles(idle)]),
        both("group commits/s", |run| run.commits_per_s),
        both("messages per commit", |run| run.messages_per_commit),
        both("a commit takes, us", |run| run.commit_us),
        both("log bytes per message", |run| run.log_bytes_per_message),
        both("bytes to disk per message", |run| run.disk_bytes_per_message),
        both("snapshots in the run", |run| run.snapshots as f64),
        Row::of(
            "CPU us per message",
            &[optional(closed.report.broker_cpu_us_per_delivered), optional(half.report.broker_cpu_us_per_delivered)],
        ),
        both("the bench's own share of a core", |run| run.report.driver_cpu_share),
        both("lost", |run| run.report.lost.unwrap_or(0) as f64)
            .promised("0".into(), [closed, half].iter().all(|run| run.report.lost == Some(0))),
        both("reordered", |run| run.report.reordered.unwrap_or(0) as f64),
    ]
}
