//! `bench compare`: brokers in turn, a fresh process for each run, and what comes out of it beside what was promised.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};
use fulmar_mqtt::{QoS, Version};

use crate::measure::Target;
use crate::on_one_thread;
use crate::options::{CompareOptions, ConnectsOptions, IdleOptions, Kind, LoadOptions, Scenario, TargetOptions};
use crate::report::Report;
use crate::table::{self, Line, Promise, Value};

/// A scenario, and what is promised of it.
struct Entry {
    name: &'static str,
    scenario: Scenario,
    promises: Vec<Promise>,
}

pub(crate) fn run(options: &CompareOptions) -> Result<()> {
    let rounds = if options.quick { 1 } else { options.rounds };
    let mut out = match &options.out {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(file.with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => None,
    };
    let mut lines = Vec::new();
    for entry in entries(options.quick, options.version) {
        if options.only.as_ref().is_some_and(|part| !entry.name.contains(part.as_str())) {
            continue;
        }
        let mut reports = Vec::new();
        for round in 1..=rounds {
            for kind in &options.brokers {
                eprintln!("{}, round {round} of {rounds}: {kind:?}", entry.name);
                let report = on_one_thread(async {
                    let target = Target::spawn(*kind, options.fulmar_bin.clone(), options.version).await?;
                    entry.scenario.measure(&target).await
                });
                // One broker that does not start or hold is a result too; the others go on.
                match report {
                    Ok(report) => {
                        if let Some(file) = &mut out {
                            writeln!(file, "{}", serde_json::to_string(&report)?)?;
                        }
                        report.errors.iter().for_each(|error| eprintln!("  {error}"));
                        reports.push((*kind, report));
                    }
                    Err(error) => eprintln!("  {kind:?} failed: {error:#}"),
                }
            }
        }
        lines.extend(entry.promises.iter().map(|promise| line(entry.name, *promise, &reports)));
    }
    println!("{}", table::render(&lines, rounds));
    Ok(())
}

fn line(scenario: &'static str, promise: Promise, reports: &[(Kind, Report)]) -> Line {
    let of = |kind| {
        let values = reports.iter().filter(|(broker, _)| *broker == kind);
        table::median(values.filter_map(|(_, report)| (promise.value.read)(report)).collect())
    };
    Line { scenario, promise, fulmar: of(Kind::Fulmar), mosquitto: of(Kind::Mosquitto) }
}

const CPU: Value = Value { name: "CPU us/delivered", read: |report| report.broker_cpu_us_per_delivered };
const RATE: Value = Value { name: "delivered/s", read: |report| report.msgs_per_s };
const LOST: Value = Value { name: "lost", read: |report| report.lost.map(|lost| lost as f64) };
const REORDERED: Value = Value { name: "reordered", read: |report| report.reordered.map(|count| count as f64) };
const P50: Value = Value { name: "p50 us", read: |report| report.latency_us.map(|latency| latency.p50) };
const P99: Value = Value { name: "p99 us", read: |report| report.latency_us.map(|latency| latency.p99) };
const CONNECTS: Value = Value { name: "connects/s", read: |report| report.connects_per_s };
const CONNECT_CPU: Value = Value { name: "CPU us/connection", read: |report| report.broker_cpu_us_per_connection };
const RSS: Value = Value { name: "RSS bytes/connection", read: |report| report.rss_per_connection_bytes };
const IDLE_CPU: Value = Value { name: "CPU share idle", read: |report| report.broker_cpu_share };

const NOTHING_LOST: Promise = Promise { most: Some(0.0), ..Promise::of(LOST) };

/// The figures of the design are the goal, those of the first milestone the floor.
fn entries(quick: bool, version: Version) -> Vec<Entry> {
    let load = |qos, count, window| LoadOptions {
        target: TargetOptions::unused(version),
        qos,
        count,
        seconds: if quick { 1.5 } else { 5.0 },
        messages: None,
        warmup: if quick { 0.3 } else { 1.0 },
        payload: 256,
        window,
        undelivered: None,
        rate: 5_000,
        seed: 1,
    };
    let (zero, one) = (QoS::AtMostOnce, QoS::AtLeastOnce);
    vec![
        Entry {
            name: "50 pairs, QoS 0",
            scenario: Scenario::Pairs(load(zero, 50, None)),
            promises: vec![
                Promise { goal: Some(0.22), floor: Some(0.5), ..Promise::of(CPU) },
                Promise::of(RATE),
                NOTHING_LOST,
            ],
        },
        Entry {
            name: "50 pairs, QoS 1",
            scenario: Scenario::Pairs(load(one, 50, None)),
            promises: vec![
                Promise { goal: Some(0.20), floor: Some(0.5), ..Promise::of(CPU) },
                Promise::of(RATE),
                NOTHING_LOST,
                Promise { most: Some(0.0), ..Promise::of(REORDERED) },
            ],
        },
        Entry {
            name: "1 -> 500, QoS 0",
            scenario: Scenario::FanOut(load(zero, 500, None)),
            promises: vec![
                Promise { goal: Some(0.11), floor: Some(0.2), ..Promise::of(CPU) },
                Promise::of(RATE),
                NOTHING_LOST,
            ],
        },
        Entry {
            name: "200 -> 1, QoS 1",
            scenario: Scenario::FanIn(load(one, 200, Some(20))),
            promises: vec![
                Promise { goal: Some(0.23), floor: Some(0.5), ..Promise::of(CPU) },
                Promise::of(RATE),
                NOTHING_LOST,
                Promise { most: Some(0.0), ..Promise::of(REORDERED) },
            ],
        },
        Entry {
            name: "5,000/s, QoS 0",
            scenario: Scenario::OpenLoop(load(zero, 50, None)),
            promises: vec![
                Promise { goal: Some(1.2), ..Promise::of(CPU) },
                Promise::of(P50),
                Promise { most: Some(500.0), ..Promise::of(P99) },
                NOTHING_LOST,
            ],
        },
        Entry {
            name: "5,000/s, QoS 1",
            scenario: Scenario::OpenLoop(load(one, 50, None)),
            promises: vec![
                Promise { goal: Some(1.25), ..Promise::of(CPU) },
                Promise::of(P50),
                Promise { most: Some(500.0), ..Promise::of(P99) },
                NOTHING_LOST,
            ],
        },
        Entry {
            name: "connects",
            scenario: Scenario::Connects(ConnectsOptions {
                target: TargetOptions::unused(version),
                count: 64,
                seconds: if quick { 1.5 } else { 5.0 },
                warmup: if quick { 0.3 } else { 1.0 },
                persistent: false,
            }),
            promises: vec![
                Promise { least: Some(25_000.0), ..Promise::of(CONNECTS) },
                Promise { most: Some(40.0), ..Promise::of(CONNECT_CPU) },
            ],
        },
        Entry {
            name: "connects, resumed",
            scenario: Scenario::Connects(ConnectsOptions {
                target: TargetOptions::unused(version),
                count: 64,
                seconds: if quick { 1.5 } else { 5.0 },
                warmup: if quick { 0.3 } else { 1.0 },
                persistent: true,
            }),
            promises: vec![Promise::of(CONNECTS), Promise::of(CONNECT_CPU)],
        },
        Entry {
            name: if quick { "idle, 1,000" } else { "idle, 10,000" },
            scenario: Scenario::Idle(IdleOptions {
                target: TargetOptions::unused(version),
                count: if quick { 1_000 } else { 10_000 },
                seconds: if quick { 1.0 } else { 5.0 },
                subscribe: false,
            }),
            promises: vec![Promise { most: Some(10_240.0), ..Promise::of(RSS) }, Promise::of(IDLE_CPU)],
        },
    ]
}
