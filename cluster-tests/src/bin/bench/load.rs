//! Runs that send messages: pairs, fan-out, fan-in, open loop.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster_tests::sys::monotonic_ns;
use fulmar_mqtt::{QoS, Version};
use rand::prelude::*;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::board::Board;
use crate::link::Link;
use crate::measure::{Section, Target, all_run, failures, us_per};
use crate::options::LoadOptions;
use crate::payload::Payloads;
use crate::publisher::{Pace, Publisher};
use crate::report::{Latency, Report, round};
use crate::subscriber;

/// How long outstanding acks are waited for after the last message.
const ACKS_DEADLINE: Duration = Duration::from_secs(20);

/// How long nothing may arrive before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(3);

/// As long as this, even if messages still trickle.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

/// A publisher whose undelivered messages are bounded goes on without those that have not arrived for so long.
const FORGIVE_AFTER: Duration = Duration::from_secs(3);

/// How often the run looks at its own progress.
const GLANCE: Duration = Duration::from_millis(5);

/// Errors that a report shows.
const ERRORS_MAX: usize = 10;

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Pairs,
    FanOut,
    FanIn,
    OpenLoop,
    /// Persistent subscribers, each of its share of the publishers.
    Durable {
        subscribers: usize,
        open_loop: bool,
    },
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::Pairs => "pairs",
            Shape::FanOut => "fan-out",
            Shape::FanIn => "fan-in",
            Shape::OpenLoop => "open-loop",
            Shape::Durable { open_loop: false, .. } => "durable",
            Shape::Durable { open_loop: true, .. } => "durable-open-loop",
        }
    }

    fn board(self, count: usize, qos: QoS) -> Board {
        let topics = |count| (0..count).map(|index| format!("b/{index}")).collect();
        match self {
            Shape::Pairs | Shape::OpenLoop => {
                Board::new(topics(count), (0..count).map(|index| (format!("b/{index}"), index, 1)).collect(), qos)
            }
            Shape::FanOut => Board::new(topics(1), vec![("b/0".to_owned(), 0, 1); count], qos),
            Shape::FanIn => Board::new(topics(count), vec![("b/+".to_owned(), 0, count)], qos),
            Shape::Durable { subscribers, .. } => {
                let (name, first) = (self.name(), |subscriber: usize| subscriber * count / subscribers);
                let topics = (0..subscribers).flat_map(|subscriber| {
                    (first(subscriber)..first(subscriber + 1)).map(move |index| format!("{name}/{subscriber}/{index}"))
                });
                let filters = (0..subscribers).map(|subscriber| {
                    let count = first(subscriber + 1) - first(subscriber);
                    (format!("{name}/{subscriber}/+"), first(subscriber), count)
                });
                Board::new(topics.collect(), filters.collect(), qos)
            }
        }
    }

    /// Of a cluster: pairs are all between the first two nodes, so that each message crosses one border; else everybody
    /// comes in at the node whose turn it is.
    fn node_of_publisher(self, index: usize) -> usize {
        match self {
            Shape::Pairs | Shape::OpenLoop => 0,
            Shape::FanOut | Shape::FanIn | Shape::Durable { .. } => index,
        }
    }

    fn node_of_subscriber(self, index: usize) -> usize {
        match self {
            Shape::Pairs | Shape::OpenLoop => 1,
            Shape::FanOut | Shape::FanIn | Shape::Durable { .. } => index + 1,
        }
    }

    fn has_rate(self) -> bool {
        matches!(self, Shape::OpenLoop | Shape::Durable { open_loop: true, .. })
    }
}

pub(crate) async fn measure(shape: Shape, options: &LoadOptions, target: &Target) -> Result<Report> {
    let board = Rc::new(shape.board(options.count as usize, options.qos));
    let subscribers = start_subscribers(shape, &board, target).await?;
    let publishers = start_publishers(shape, &board, options, target).await?;
    let watchdog = tokio::task::spawn_local(forgive(board.clone()));

    let mut errors = Vec::new();
    sleep(Duration::from_secs_f64(options.warmup)).await;
    let delivered_before = board.delivered.get();
    let start_ns = monotonic_ns();
    let section = Section::start(target)?;
    board.measured.set((start_ns, u64::MAX));
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let enough = options.messages.map_or(u64::MAX, |messages| delivered_before + messages);
    while Instant::now() < end && board.delivered.get() < enough {
        sleep(GLANCE).await;
        if let Err(error) = all_run(&publishers, "publishers").and(all_run(&subscribers, "subscribers")) {
            errors.push(error.to_string());
            break;
        }
    }
    let measured_s = section.spent()?.wall.as_secs_f64();
    let delivered_measured = board.delivered.get() - delivered_before;
    let rss_bytes = target.rss_bytes()?;
    board.measured.set((start_ns, monotonic_ns()));
    board.stop();

    errors.extend(drain(&board, publishers).await);
    // The messages of the section are paid for in full here: what still was under way has arrived.
    let spent = section.spent()?;
    let delivered_paid = board.delivered.get() - delivered_before;
    watchdog.abort();
    subscribers.iter().for_each(JoinHandle::abort);
    errors.extend(failures(subscribers).await);
    errors.truncate(ERRORS_MAX);

    let books = board.books();
    let latency = Latency::of(&board.latency.borrow());
    Ok(Report {
        scenario: format!("{}-qos{}", shape.name(), options.qos as u8),
        broker: target.name.clone(),
        parameters: parameters(shape, options, target),
        sent: Some(books.sent),
        acknowledged: (options.qos != QoS::AtMostOnce).then_some(books.acknowledged),
        refused: (options.qos != QoS::AtMostOnce).then_some(books.refused),
        delivered: Some(books.delivered),
        lost: Some(books.lost),
        duplicated: Some(books.duplicated),
        reordered: Some(books.reordered),
        msgs_per_s: Some((delivered_measured as f64 / measured_s).round()),
        latency_us: latency,
        ack_latency_us: Latency::of(&board.ack_latency.borrow()),
        broker_cpu_us_per_delivered: us_per(spent.broker, delivered_paid).map(round),
        broker_cpu_share: spent.broker.map(|cpu| round(cpu.as_secs_f64() / spent.wall.as_secs_f64())),
        broker_rss_bytes: rss_bytes,
        driver_cpu_us_per_delivered: us_per(Some(spent.driver), delivered_paid).map(round),
        driver_cpu_share: round(spent.driver.as_secs_f64() / spent.wall.as_secs_f64()),
        measured_s: round(measured_s),
        seed: options.seed,
        errors,
        ..Report::default()
    })
}

fn parameters(shape: Shape, options: &LoadOptions, target: &Target) -> serde_json::Value {
    let mut parameters = json!({
        "count": options.count,
        "qos": options.qos as u8,
        "payload_bytes": options.payload,
        "window": options.window(),
        "undelivered": options.undelivered(),
        "version": target.version_number(),
        "warmup_s": options.warmup,
        "seconds": options.seconds,
    });
    if shape.has_rate() {
        parameters["rate_per_s"] = options.rate.into();
    }
    if let Shape::Durable { subscribers, .. } = shape {
        parameters["subscribers"] = subscribers.into();
    }
    parameters
}

async fn start_subscribers(shape: Shape, board: &Rc<Board>, target: &Target) -> Result<Vec<JoinHandle<Result<()>>>> {
    let (mut tasks, addresses) = (Vec::new(), target.addresses());
    for (index, receiver) in board.receivers.iter().enumerate() {
        let (address, version, source) = (addresses.at(shape.node_of_subscriber(index)), target.version, index as u32);
        let (mut link, _) = match shape {
            // Runs of both kinds on one node: what the one leaves unacknowledged is not the other's.
            Shape::Durable { .. } => {
                Link::open_persistent(address, version, source, &format!("{}-s{index}", shape.name())).await?
            }
            _ => Link::open(address, version, source, &format!("s{index}")).await?,
        };
        link.subscribe(&receiver.filter, board.qos).await?;
        tasks.push(tokio::task::spawn_local(subscriber::run(board.clone(), index, link)));
    }
    Ok(tasks)
}

async fn start_publishers(
    shape: Shape,
    board: &Rc<Board>,
    options: &LoadOptions,
    target: &Target,
) -> Result<Vec<JoinHandle<Result<()>>>> {
    let payloads = Rc::new(Payloads::new(options.payload as usize, options.seed));
    let (mut links, addresses) = (Vec::new(), target.addresses());
    for index in 0..board.lanes.len() {
        let address = addresses.at(shape.node_of_publisher(index));
        links.push(Link::open(address, target.version, index as u32, &format!("p{index}")).await?);
    }
    // Only now, so that no publisher waits for others to connect while its schedule runs.
    let count = links.len() as u64;
    let interval_ns = 1_000_000_000 * count / options.rate.max(1);
    let mut phases: Vec<u64> = (0..count).collect();
    phases.shuffle(&mut StdRng::seed_from_u64(options.seed));
    let first_ns = monotonic_ns() + 10_000_000;
    let tasks = links.into_iter().zip(phases).enumerate().map(|(index, ((link, connack), phase))| {
        let (pace, wanted, undelivered) = if shape.has_rate() {
            let start_ns = first_ns + phase * interval_ns / count;
            (Pace::Rate { start_ns, interval_ns }, u16::MAX - 1, None)
        } else {
            (Pace::Window, options.window(), options.undelivered())
        };
        // [v5 3.2.2.3.3] The server's receive maximum bounds us; QoS 0 is not counted.
        let allowed = match (target.version, options.qos) {
            (Version::V5, QoS::AtLeastOnce | QoS::ExactlyOnce) => {
                connack.properties.receive_maximum.unwrap_or(u16::MAX)
            }
            _ => u16::MAX,
        };
        let (board, payloads) = (board.clone(), payloads.clone());
        let window = wanted.min(allowed);
        let publisher = Publisher { board, index, link, window, undelivered, payloads, pace, packet_id: 0 };
        tokio::task::spawn_local(publisher.run())
    });
    Ok(tasks.collect())
}

/// Waits for the acks, then for the deliveries. Returns the publishers' errors.
async fn drain(board: &Board, publishers: Vec<JoinHandle<Result<()>>>) -> Vec<String> {
    let aborts: Vec<_> = publishers.iter().map(JoinHandle::abort_handle).collect();
    let errors = timeout(ACKS_DEADLINE, failures(publishers)).await.context("acks are outstanding");
    aborts.iter().for_each(tokio::task::AbortHandle::abort);
    let end = Instant::now() + DRAIN_DEADLINE;
    let (mut delivered, mut since) = (board.delivered.get(), Instant::now());
    while board.books().lost > 0 && since.elapsed() < SILENCE && Instant::now() < end {
        sleep(GLANCE * 4).await;
        if board.delivered.get() != delivered {
            (delivered, since) = (board.delivered.get(), Instant::now());
        }
    }
    errors.unwrap_or_else(|error| vec![format!("{error:#}")])
}

/// Lets publishers go on whose messages have been lost.
async fn forgive(board: Rc<Board>) {
    let state = |lane: usize| (board.lanes[lane].sent.get(), board.low(lane));
    let mut last: Vec<_> = (0..board.lanes.len()).map(state).collect();
    loop {
        sleep(FORGIVE_AFTER).await;
        for (lane, last) in last.iter_mut().enumerate() {
            let now = state(lane);
            if now == *last && now.0 > now.1 {
                board.forgive(lane);
            }
            *last = now;
        }
    }
}
