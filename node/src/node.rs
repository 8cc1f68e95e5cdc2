//! One node, put together: the only place that sees every room. Starts them from below, and ends them from above.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use fulmar_broker::state::command;
use fulmar_broker::{Generation, LogTime, Publication, Via, session};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, ReasonCode, TopicName};
use fulmar_platform::Platform;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::{Clock, Replica};
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::doors::mqtt::{self, Door, Workers};
use crate::doors::probes::{self, Health, Phase};
use crate::sessions::authenticate::Authenticator;
use crate::sessions::open::{QueueBounds, Sessions};
use crate::store::identity;
use crate::telemetry::Metrics;

/// Between two looks at wills, expiries and stalled receivers.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// Bytes of a will's payload.
const WILL_BYTES_MAX: usize = 64 * 1024;

/// Descriptors that are not for clients: files, listeners, runtimes.
const DESCRIPTORS_RESERVED: u64 = 256;

/// Runs a node until SIGTERM or SIGINT, and then lets it leave within its grace time.
///
/// # Errors
/// What kept it from starting; the text names the key, file, path or port.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // Before anything that takes long, so that an early signal is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let connections_max = connections_max(config.limits.connections_max);
    let node = identity::load(&config.node.data_dir)?;
    let clock = Clock::start(LogTime::default());
    // A later start is a later generation: log time never repeats on one node.
    let generation = Generation(clock.now().log.0);
    let replica = Replica::start(node, generation, clock, replicated_limits(&config)).context("replicated state")?;
    let metrics = Arc::new(Metrics::default());
    let dispatch = Dispatch::new(replica, metrics.clone(), config.limits.durable_payload_bytes_max.as_usize());
    let health = Arc::new(Health::default());
    let probes = config
        .probes
        .enabled
        .then(|| probes::open(config.probes.address, health.clone(), dispatch.clone()))
        .transpose()?;
    let authenticator = Authenticator::new(Platform::new(config.auth.generic()?));
    let sessions = Sessions::new(dispatch.clone(), authenticator, session_limits(&config), queue_bounds(&config));
    let workers = Workers::start(std::thread::available_parallelism().map_or(2, usize::from))
        .context("cannot start the HTTP workers")?;
    let admission = mqtt::Admission::node(connections_max, metrics.connections.clone());

    let (stop, stopped) = watch::channel(false);
    let mut doors = Vec::new();
    for (at, listener) in config.listener.iter().enumerate() {
        let place = || format!("listener[{at}] {} at {}", listener.name, listener.address);
        let tls =
            listener.tls.as_ref().map(|tls| mqtt::tls::acceptor(tls, &format!("listener.{at}.tls"))).transpose()?;
        let socket = mqtt::bind(listener).with_context(|| format!("{}: cannot listen", place()))?;
        tracing::info!(listener = %listener.name, protocol = listener.scheme(), address = %socket.local_addr()?, "listening");
        let door = Door::new(listener.clone(), sessions.clone(), admission.clone(), tls, workers.clone());
        doors.push(tokio::spawn(mqtt::run(door, socket, stopped.clone())));
    }
    tokio::spawn(housekeeping(dispatch.clone()));
    let sys_interval = config.node.sys_interval.duration();
    if !sys_interval.is_zero() {
        tokio::spawn(publish_sys(dispatch.clone(), sys_interval));
    }
    health.set(Phase::Serving);
    tracing::info!(
        node = format!("{:016x}", node.0),
        generation = generation.0,
        connections_max,
        probes = probes.map(|address| address.to_string()),
        "serving"
    );

    wait(&mut terminate, &mut interrupt).await;
    tracing::info!(connections = metrics.connections.get(), "leaving");
    health.set(Phase::Draining);
    stop.send_replace(true);
    sessions.close_all(ReasonCode::ServerShuttingDown);
    let leave_by = Instant::now() + config.shutdown.grace.duration();
    tokio::select! {
        () = all_gone(&metrics, &sessions) => tracing::info!("left"),
        () = tokio::time::sleep_until(leave_by) => {
            tracing::warn!(connections = metrics.connections.get(), "grace time is over");
        }
        () = wait(&mut terminate, &mut interrupt) => tracing::warn!("hurried"),
    }
    Ok(())
}

async fn wait(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Connections that were opening when the others were told are told too. The last bytes of a session that has ended are
/// written by its connection.
async fn all_gone(metrics: &Metrics, sessions: &Sessions) {
    while metrics.connections.get() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sessions.close_all(ReasonCode::ServerShuttingDown);
    }
}

async fn housekeeping(dispatch: Arc<Dispatch>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        dispatch.run_timers();
        dispatch.cut_stalled();
    }
}

async fn publish_sys(dispatch: Arc<Dispatch>, interval: Duration) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let metrics = dispatch.metrics();
        dispatch.collect_tallies();
        let (received, sent) = metrics.message_counts();
        let (sessions, retained) = {
            let state = dispatch.replica().read();
            (state.session_count(), state.retained().len())
        };
        let connected = metrics.sessions_connected.get();
        for (topic, value) in [
            ("version", format!("fulmar {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{} seconds", started.elapsed().as_secs())),
            ("clients/connected", connected.to_string()),
            ("clients/total", sessions.to_string()),
            ("messages/received", received.to_string()),
            ("messages/sent", sent.to_string()),
            ("subscriptions/count", dispatch.subscription_count().to_string()),
            ("retained messages/count", retained.to_string()),
        ] {
            let topic = TopicName::new(format!("$SYS/broker/{topic}")).expect("the names above are topics");
            dispatch.publish_sys(Publication {
                topic,
                payload: Bytes::from(value),
                qos: QoS::AtMostOnce,
                retain: true,
                forward: ForwardProperties::default(),
                origin: None,
                accepted_at: dispatch.now().log,
                expires_at: None,
                via: Via::Server,
            });
        }
    }
}

/// The configured bound, or what the descriptor limit allows. Raises the soft limit to the hard one first.
fn connections_max(configured: u32) -> u32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok()
    {
        limit.current = limit.maximum;
    }
    let descriptors = limit.current.unwrap_or(u64::MAX);
    let allowed = u32::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(1)).unwrap_or(u32::MAX);
    if configured > allowed {
        tracing::warn!(configured, allowed, "limits.connections_max is above what the descriptor limit allows");
    }
    if configured == 0 { allowed } else { configured.min(allowed) }
}

fn replicated_limits(config: &Config) -> command::Limits {
    command::Limits {
        replicated_bytes_max: config.limits.replicated_bytes_max.get(),
        queue_entries_max: config.session.queue_entries_max,
        queue_bytes_max: config.session.queue_bytes_max.get(),
        session_expiry_s_max: config.session.expiry_max.as_s(),
        sessions_max: config.limits.sessions_max,
        retained_max: config.limits.retained_max,
        queue_ttl_s: config.session.queue_ttl.as_s(),
    }
}

fn session_limits(config: &Config) -> session::Limits {
    session::Limits {
        receive_maximum: config.session.receive_maximum,
        topic_alias_maximum: config.session.topic_alias_maximum,
        topic_levels_max: usize::from(config.session.topic_levels_max),
        subscriptions_max: config.session.subscriptions_max as usize,
        session_expiry_s_max: config.session.expiry_max.as_s(),
        keep_alive_s_max: u16::try_from(config.session.keep_alive_max.as_s()).unwrap_or(u16::MAX),
        packet_bytes_max: fulmar_mqtt::limits::PACKET_BYTES_MAX_DEFAULT,
        will_bytes_max: WILL_BYTES_MAX,
    }
}

fn queue_bounds(config: &Config) -> QueueBounds {
    QueueBounds {
        messages_max: config.session.live_queue_entries_max as usize,
        bytes_max: config.session.live_queue_bytes_max.as_usize(),
    }
}
