//! Runs without messages: idle connections, and connections that come and go.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use cluster_tests::histogram::Histogram;
use cluster_tests::raw;
use cluster_tests::sys::monotonic_ns;
use fulmar_mqtt::{QoS, ReasonCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::link::{Link, spread};
use crate::measure::{Section, Target, all_run, failures, us_per};
use crate::options::{ConnectsOptions, IdleOptions};
use crate::report::{Latency, Report, round};

/// Connections that are being opened at a time.
const OPENING_MAX: u32 = 64;

/// Memory has settled once it is the same twice, so far apart.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// It may settle for so many intervals.
const SETTLE_INTERVALS_MAX: usize = 10;

/// Connections that stay open.
#[derive(Default)]
struct Crowd {
    next: Cell<u32>,
    streams: std::cell::RefCell<Vec<TcpStream>>,
}

pub(crate) async fn idle(options: &IdleOptions, target: &Target) -> Result<Report> {
    let rss_before = settled_rss(target).await?;
    let crowd = Rc::new(Crowd::default());
    let opening = Section::start(target)?;
    let workers = (0..OPENING_MAX.min(options.count)).map(|_| {
        let (crowd, options) = (crowd.clone(), options.clone());
        let (addresses, version) = (target.addresses(), target.version);
        tokio::task::spawn_local(async move {
            loop {
                let index = crowd.next.replace(crowd.next.get() + 1);
                if index >= options.count {
                    return Ok(());
                }
                let (mut link, _) =
                    Link::open(addresses.at(index as usize), version, index, &format!("i{index}")).await?;
                if options.subscribe {
                    link.subscribe(&format!("i/{index}"), QoS::AtMostOnce).await?;
                }
                crowd.streams.borrow_mut().push(link.into_stream());
            }
        })
    });
    let mut errors = failures(workers.collect()).await;
    let opened = opening.spent()?;
    let rss_after = settled_rss(target).await?;
    let count = crowd.streams.borrow().len() as u64;

    let section = Section::start(target)?;
    sleep(Duration::from_secs_f64(options.seconds)).await;
    let spent = section.spent()?;
    let closed = crowd.streams.borrow().iter().filter(|stream| has_ended(stream)).count();
    if closed > 0 {
        errors.push(format!("{closed} idle connections were closed"));
    }
    let grown = rss_after.zip(rss_before).map(|(after, before)| after.saturating_sub(before) as f64);
    Ok(Report {
        scenario: if options.subscribe { "idle-subscribed".into() } else { "idle".into() },
        broker: target.name.clone(),
        parameters: json!({
            "count": options.count,
            "subscribe": options.subscribe,
            "seconds": options.seconds,
            "version": target.version_number(),
            "connected": count,
        }),
        connects_per_s: Some((count as f64 / opened.wall.as_secs_f64()).round()),
        broker_cpu_us_per_connection: us_per(opened.broker, count).map(round),
        broker_cpu_share: spent.broker.map(|cpu| round(cpu.as_secs_f64() / spent.wall.as_secs_f64())),
        broker_rss_bytes: rss_after,
        broker_pss_bytes: target.pss_bytes(),
        broker_open_fds: target.open_fds(),
        rss_per_connection_bytes: grown.filter(|_| count > 0).map(|bytes| (bytes / count as f64).round()),
        driver_cpu_share: round(spent.driver.as_secs_f64() / spent.wall.as_secs_f64()),
        measured_s: round(spent.wall.as_secs_f64()),
        errors,
        ..Report::default()
    })
}

/// Whether the other side has closed an idle connection.
fn has_ended(stream: &TcpStream) -> bool {
    let mut byte = [0];
    !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn settled_rss(target: &Target) -> Result<Option<u64>> {
    let mut last = target.rss_bytes()?;
    for _ in 0..SETTLE_INTERVALS_MAX {
        sleep(SETTLE_INTERVAL).await;
        let now = target.rss_bytes()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// What the workers of `connects` share.
#[derive(Default)]
struct Turnstile {
    started: Cell<u64>,
    done: Cell<u64>,
    stop: Cell<bool>,
    measures: Cell<bool>,
    /// From the start of connect() to the CONNACK.
    latency: std::cell::RefCell<Histogram>,
}

pub(crate) async fn connects(options: &ConnectsOptions, target: &Target) -> Result<Report> {
    let turnstile = Rc::new(Turnstile::default());
    let persistent = options.persistent;
    let workers = (0..options.count).map(|worker| {
        let (turnstile, addresses, version) = (turnstile.clone(), target.addresses(), target.version);
        tokio::task::spawn_local(async move {
            let id = format!("c{worker}");
            while !turnstile.stop.get() {
                let number = turnstile.started.replace(turnstile.started.get() + 1);
                let start_ns = monotonic_ns();
                let address = addresses.at(number as usize);
                let (mut link, _) = match persistent {
                    true => Link::open_persistent(address, version, spread(number), &id).await?,
                    false => Link::open(address, version, spread(number), &id).await?,
                };
                if turnstile.measures.get() {
                    turnstile.latency.borrow_mut().record(monotonic_ns() - start_ns);
                }
                link.push(&raw::disconnect(ReasonCode::Success))?;
                link.flush()?;
                // The broker closes; so it has really dealt with the DISCONNECT, and no port of ours stays in TIME_WAIT.
                link.closed().await?;
                turnstile.done.set(turnstile.done.get() + 1);
            }
            Ok(())
        })
    });
    let workers: Vec<_> = workers.collect();
    sleep(Duration::from_secs_f64(options.warmup)).await;
    let before = turnstile.done.get();
    turnstile.measures.set(true);
    let section = Section::start(target)?;
    sleep(Duration::from_secs_f64(options.seconds)).await;
    let spent = section.spent()?;
    let done = turnstile.done.get() - before;
    let running = all_run(&workers, "workers");
    turnstile.stop.set(true);
    let mut errors = failures(workers).await;
    errors.extend(running.err().map(|error| error.to_string()));
    if done == 0 {
        bail!("no connection was completed: {errors:?}");
    }
    let latency = Latency::of(&turnstile.latency.borrow());
    Ok(Report {
        scenario: if persistent { "connects-persistent".into() } else { "connects".into() },
        broker: target.name.clone(),
        parameters: json!({
            "persistent": persistent,
            "count": options.count,
            "seconds": options.seconds,
            "warmup_s": options.warmup,
            "version": target.version_number(),
        }),
        connects_per_s: Some((done as f64 / spent.wall.as_secs_f64()).round()),
        latency_us: latency,
        broker_cpu_us_per_connection: us_per(spent.broker, done).map(round),
        broker_cpu_share: spent.broker.map(|cpu| round(cpu.as_secs_f64() / spent.wall.as_secs_f64())),
        broker_rss_bytes: target.rss_bytes()?,
        driver_cpu_share: round(spent.driver.as_secs_f64() / spent.wall.as_secs_f64()),
        measured_s: round(spent.wall.as_secs_f64()),
        errors,
        ..Report::default()
    })
}
