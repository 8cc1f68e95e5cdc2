//! `bench restart`: a node with much in it. What each retained message, session and queued message weighs, how long
//! writes pause while a snapshot is written, and how long the node is away after SIGKILL and after a clean stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use cluster_tests::proc;
use cluster_tests::raw;
use cluster_tests::sys::monotonic_ns;
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode};
use serde_json::json;

use crate::link::{Link, Outgoing, spread};
use crate::measure::failures;
use crate::options::RestartOptions;
use crate::own::Own;
use crate::table::{Row, figure, plain};

/// Connections that fill the node, and what each has unacknowledged.
const FILLERS: u32 = 16;
const WINDOW: usize = 100;

/// Writes of the probe, one after the other.
const PROBE_PAUSE: Duration = Duration::from_millis(2);

/// The log grows by messages of this size, to call for a snapshot.
const GROWTH_BYTES: usize = 32 * 1024;

/// Topics that these go to.
const GROWTH_TOPICS: u64 = 64;

/// How often the node is asked whether a snapshot has been written.
const GLANCE: Duration = Duration::from_millis(50);

/// Snapshots that must have been seen, and how long that may take.
const SNAPSHOTS: u64 = 2;
const SNAPSHOTS_WITHIN: Duration = Duration::from_secs(180);

/// How long after a snapshot the node may be letting go of the log up to it.
const SOON_AFTER: Duration = Duration::from_secs(3);

/// How long ended connections may take to be gone.
const ENDED: Duration = Duration::from_secs(30);

/// Memory has settled once it is the same twice, so far apart, or after so many looks.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_MAX: usize = 15;

pub(crate) async fn run(options: &RestartOptions) -> Result<()> {
    let mut own = Own::start(&options.node).await?;
    let mut rows = vec![Row::of("", &["number".into(), "RSS bytes each".into(), "seconds".into()])];
    let (retained, sessions, queued) = (options.retained, options.sessions, options.queued);

    let payload = Bytes::from(vec![0xA5; options.payload as usize]);
    // About 30 bytes, as topics of devices are.
    let topic = |number: u64| format!("devices/d{number:08}/state/last");
    let mut each = BTreeMap::new();
    let mut filled = |name: &'static str, count: u64, grown: u64, took: Duration| {
        let bytes = grown as f64 / count.max(1) as f64;
        rows.push(Row::of(name, &[figure(count as f64), figure(bytes), format!("{:.1}", took.as_secs_f64())]));
        each.insert(name, bytes.round());
    };
    let mut rss = settled(&own).await?;
    let empty = rss;
    let begun = Instant::now();
    fill(&own, retained, true, payload.clone(), Rc::new(topic)).await?;
    let (took, now) = (begun.elapsed(), settled(&own).await?);
    filled("retained messages", retained, now.saturating_sub(rss), took);
    rss = now;
    let begun = Instant::now();
    make_sessions(&own, sessions, true).await?;
    let (took, now) = (begun.elapsed(), settled(&own).await?);
    filled("persistent sessions, away", sessions, now.saturating_sub(rss), took);
    rss = now;
    let begun = Instant::now();
    let receiver = move |number: u64| format!("s/{}/m", number % sessions.max(1));
    fill(&own, if sessions == 0 { 0 } else { queued }, false, payload, Rc::new(receiver)).await?;
    let (took, now) = (begun.elapsed(), settled(&own).await?);
    filled("queued messages", queued, now.saturating_sub(rss), took);

    let pauses = pauses(&own).await?;
    // The bench's own sessions end with their connections.
    let before = wait_for("only the sessions that stay", ENDED, async || {
        own.metrics().await.ok().filter(|metrics| metrics.get("fulmar_sessions") == sessions)
    })
    .await?;
    let ms = |us: f64| format!("{} ms", figure(us / 1e3));
    rows.push(Row::of("snapshot", &[format!("{} bytes", figure(before.get("fulmar_snapshot_bytes") as f64))]));
    rows.push(Row::of("it takes", &[format!("{} ms", figure(before.seconds("fulmar_snapshot_write_seconds") * 1e3))]));
    rows.push(Row::of("longest PUBACK while one is written", &[ms(pauses.during_us), pauses.count.to_string()]));
    rows.push(Row::of("longest PUBACK soon after, as the log is let go", &[ms(pauses.after_us)]));
    rows.push(Row::of("longest PUBACK otherwise, same load", &[ms(pauses.otherwise_us)]));
    rows.push(Row::of("data directory", &[format!("{} bytes", figure(own.data_bytes() as f64))]));
    let full = proc::rss_bytes(own.node.pid())?;

    own.node.kill().await?;
    let killed = own.restart().await?;
    same(&before, &own.metrics().await?)?;
    let after = settled(&own).await?;
    let begun = Instant::now();
    own.node.terminate().await?;
    let stop = begun.elapsed();
    let stopped = own.restart().await?;
    same(&before, &own.metrics().await?)?;
    let seconds = |took: Duration| format!("{:.2} s", took.as_secs_f64());
    rows.push(Row::of("ready after SIGKILL", &[seconds(killed)]));
    rows.push(Row::of("a clean stop takes", &[seconds(stop)]));
    rows.push(Row::of("ready after a clean stop", &[seconds(stopped)]));
    let mib = |bytes: u64| format!("{} MiB", figure(bytes as f64 / f64::from(1 << 20)));
    rows.push(Row::of("RSS empty / full / after the restart", &[mib(empty), mib(full), mib(after)]));

    let line = json!({
        "scenario": "restart",
        "parameters": {
            "retained": retained, "sessions": sessions, "queued": queued, "payload_bytes": options.payload,
            "log_bytes": options.node.log_bytes,
        },
        "rss_bytes_each": each,
        "rss_bytes": {"empty": empty, "full": full, "after": after},
        "snapshot_bytes": before.get("fulmar_snapshot_bytes"),
        "snapshot_ms": (before.seconds("fulmar_snapshot_write_seconds") * 1e3).round(),
        "pause_us": {
            "during_snapshots": pauses.during_us, "after_snapshots": pauses.after_us, "otherwise": pauses.otherwise_us,
            "snapshots": pauses.count,
        },
        "data_bytes": own.data_bytes(),
        "ready_s": {"after_kill": killed.as_secs_f64(), "after_stop": stopped.as_secs_f64()},
        "stop_s": stop.as_secs_f64(),
    });
    println!("{line}");
    println!("{}", plain(&rows));
    Ok(())
}

/// A node that has lost something is no measurement.
fn same(before: &cluster_tests::metrics::Metrics, after: &cluster_tests::metrics::Metrics) -> Result<()> {
    for name in ["fulmar_retained_messages", "fulmar_sessions", "fulmar_durable_queued"] {
        let (before, after) = (before.get(name), after.get(name));
        ensure!(before == after, "{name} was {before} and is {after} after the restart");
    }
    Ok(())
}

pub(crate) async fn settled(own: &Own) -> Result<u64> {
    let mut last = proc::rss_bytes(own.node.pid())?;
    for _ in 0..SETTLE_MAX {
        tokio::time::sleep(SETTLE).await;
        let now = proc::rss_bytes(own.node.pid())?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Publishes so many messages with QoS 1 and waits for all their acks.
pub(crate) async fn fill(
    own: &Own,
    count: u64,
    retain: bool,
    payload: Bytes,
    topic: Rc<dyn Fn(u64) -> String>,
) -> Result<()> {
    let next = Rc::new(Cell::new(0));
    let tasks = (0..FILLERS).map(|filler| {
        let (next, payload, topic) = (next.clone(), payload.clone(), topic.clone());
        let (address, version) = (own.node.mqtt(), own.version);
        tokio::task::spawn_local(async move {
            let (link, _) = Link::open(address, version, filler, &format!("filler-{filler}")).await?;
            let mut writer = Writer::new(link);
            loop {
                while writer.open < WINDOW && next.get() < count {
                    let number = next.replace(next.get() + 1);
                    writer.publish(&topic(number), retain, &payload)?;
                }
                if writer.open == 0 {
                    return Ok(());
                }
                writer.acks().await?;
            }
        })
    });
    let errors = failures(tasks.collect()).await;
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

/// A connection that publishes with QoS 1.
struct Writer {
    link: Link,
    packet_id: u16,
    open: usize,
}

impl Writer {
    fn new(link: Link) -> Writer {
        Writer { link, packet_id: 0, open: 0 }
    }

    fn publish(&mut self, topic: &str, retain: bool, payload: &Bytes) -> Result<()> {
        self.packet_id = self.packet_id % 60_000 + 1;
        self.open += 1;
        let (qos, packet_id) = (QoS::AtLeastOnce, self.packet_id);
        self.link.publish(Outgoing { topic, qos, retain, packet_id, payload })
    }

    /// Writes what waits, and takes one read's acks.
    async fn acks(&mut self) -> Result<()> {
        self.link.flush()?;
        self.link.turn().await?;
        while let Some(packet) = self.link.next()? {
            match packet {
                Packet::PubAck(ack) if !ack.reason.is_error() => self.open -= 1,
                other => bail!("a publisher got {other:?}"),
            }
        }
        Ok(())
    }
}

/// Sessions that stay, each with a subscription of its own or without any.
pub(crate) async fn make_sessions(own: &Own, count: u64, subscribe: bool) -> Result<()> {
    let next = Rc::new(Cell::new(0));
    let tasks = (0..4 * FILLERS).map(|_| {
        let next = next.clone();
        let (address, version) = (own.node.mqtt(), own.version);
        tokio::task::spawn_local(async move {
            loop {
                let number = next.replace(next.get() + 1);
                if number >= count {
                    return Ok(());
                }
                let id = format!("session-{number:08}");
                let (mut link, _) = Link::open_persistent(address, version, spread(number), &id).await?;
                if subscribe {
                    link.subscribe(&format!("s/{number}/+"), QoS::AtLeastOnce).await?;
                }
                link.push(&raw::disconnect(ReasonCode::Success))?;
                link.flush()?;
                link.closed().await?;
            }
        })
    });
    let errors = failures(tasks.collect()).await;
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

struct Pauses {
    during_us: f64,
    after_us: f64,
    otherwise_us: f64,
    count: u64,
}

/// One connection makes the log grow, another writes one small message after the other: how long its longest ack took
/// while a snapshot was being written, soon after, and else.
async fn pauses(own: &Own) -> Result<Pauses> {
    let (stop, writes) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Vec::new())));
    let (address, version) = (own.node.mqtt(), own.version);
    let growth = {
        let stop = stop.clone();
        tokio::task::spawn_local(async move {
            let mut writer = Writer::new(Link::open(address, version, 0, "growth").await?.0);
            let payload = Bytes::from(vec![0x5A; GROWTH_BYTES]);
            for number in 0.. {
                if stop.get() {
                    break;
                }
                writer.publish(&format!("growth/{}", number % GROWTH_TOPICS), true, &payload)?;
                while writer.open >= 4 {
                    writer.acks().await?;
                }
            }
            Ok(())
        })
    };
    let probe = {
        let (stop, writes) = (stop.clone(), writes.clone());
        tokio::task::spawn_local(async move {
            let mut writer = Writer::new(Link::open(address, version, 1, "probe").await?.0);
            let payload = Bytes::from_static(&[1; 100]);
            while !stop.get() {
                let begun = monotonic_ns();
                writer.publish("growth/probe", true, &payload)?;
                while writer.open > 0 {
                    writer.acks().await?;
                }
                writes.borrow_mut().push((begun, monotonic_ns()));
                tokio::time::sleep(PROBE_PAUSE).await;
            }
            Ok(())
        })
    };
    // When snapshots were written: from their end, as seen, back by as long as they took.
    let (mut times, end) = (Vec::new(), Instant::now() + SNAPSHOTS_WITHIN);
    let mut seen = own.metrics().await?.get("fulmar_snapshots_total");
    let first = seen;
    while seen < first + SNAPSHOTS && Instant::now() < end && !growth.is_finished() && !probe.is_finished() {
        tokio::time::sleep(GLANCE).await;
        let (asked, metrics) = (monotonic_ns(), own.metrics().await?);
        if metrics.get("fulmar_snapshots_total") > seen {
            seen = metrics.get("fulmar_snapshots_total");
            let took = Duration::from_secs_f64(metrics.seconds("fulmar_snapshot_write_seconds")) + 2 * GLANCE;
            times.push((asked.saturating_sub(u64::try_from(took.as_nanos())?), monotonic_ns()));
        }
    }
    tokio::time::sleep(SOON_AFTER).await;
    stop.set(true);
    let errors = failures(vec![growth, probe]).await;
    ensure!(errors.is_empty(), "{errors:?}");
    ensure!(!times.is_empty(), "no snapshot was written in {SNAPSHOTS_WITHIN:?}");
    let writes = writes.borrow();
    let soon = u64::try_from(SOON_AFTER.as_nanos())?;
    let mut pauses = Pauses { during_us: 0.0, after_us: 0.0, otherwise_us: 0.0, count: times.len() as u64 };
    for (begun, ended) in writes.iter() {
        let within = |later: u64| times.iter().any(|(from, to)| *begun <= to + later && ended >= from);
        let longest = match (within(0), within(soon)) {
            (true, _) => &mut pauses.during_us,
            (false, true) => &mut pauses.after_us,
            (false, false) => &mut pauses.otherwise_us,
        };
        *longest = longest.max((ended - begun) as f64 / 1e3);
    }
    Ok(pauses)
}
