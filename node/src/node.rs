//! One node, put together: the only place that sees every room. Starts them from below, and ends them from above.

mod drain;
mod join;
mod resources;
mod signals;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use bytestring::ByteString;
use fulmar_broker::{Publication, session};
use fulmar_mqtt::{QoS, TopicName};
use fulmar_platform::Platform;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::{self, Api};
use crate::config::Config;
use crate::config::telemetry::Otlp;
use crate::dispatch::{Dispatch, Memory, Stage};
use crate::doors::admin;
use crate::doors::console;
use crate::doors::mqtt::{self, Door, Workers};
use crate::doors::probes::{self, Health, Phase};
use crate::doors::rest;
use crate::operations::{Operations, Seed};
use crate::rule_engine::RuleEngine;
use crate::sessions::authenticate::Authenticator;
use crate::sessions::open::{QueueBounds, Sessions};
use crate::telemetry::{self, Metrics};
use crate::tls::{Certificates, Tls};
use drain::Draining;
use join::{Consensus, Joining, Unjoined};
use signals::{Asked, Signals};

/// Between two looks at stalled receivers, and at filters that nobody subscribes to any more.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// For what is still proposed when the clients are gone.
const CLOSE: Duration = Duration::from_secs(5);

/// Bytes of a will's payload.
const WILL_BYTES_MAX: usize = 64 * 1024;

/// Runs a node until SIGTERM or SIGINT, and then lets it leave within its grace time.
///
/// # Errors
/// What kept it from starting; the text names the key, file, path or port.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // Before anything that takes long, so that an early signal is not lost.
    let mut signals = Signals::listen()?;
    let pid = Arc::new(OnceLock::new());
    let resources::Means { connections_max, memory } = resources::look(&config);
    let health = Arc::new(Health::default());
    let probes = config.probes.enabled.then(|| probes::open(config.probes.address, health.clone())).transpose()?;
    let consensus = Consensus::start().context("cannot start the threads of the log")?;
    let metrics = Arc::new(Metrics::default());
    let certificates = Certificates::start(metrics.clone()).context("cannot start the thread of TLS files")?;
    let peer_tls = certificates.of_peers(&config.cluster)?;
    let joining = Joining { config: &config, tls: peer_tls, health: &health, consensus: &consensus, pid: &pid };
    let replica = tokio::select! {
        replica = joining.join() => replica,
        asked = signals.next() => {
            if asked == Asked::Drain {
                // It has no clients, and gets none.
                drop(consensus);
                health.set(Phase::Drained);
                drain::tell(&pid, Stage::Drained, 0);
                signals.leave().await;
            }
            return Ok(()); // nothing has begun that must be ended
        }
    };
    let replica = match replica {
        Ok(replica) => replica,
        Err(Unjoined::Damaged(what)) if probes.is_some() => {
            // To end would only have the process started again, and what is on disk is evidence.
            tracing::error!(%what, "damaged: serving nobody");
            health.set(Phase::Damaged(what));
            drain::tell(&pid, Stage::Drained, 0);
            signals.leave().await;
            return Ok(());
        }
        Err(Unjoined::Damaged(what)) => anyhow::bail!(what),
        Err(Unjoined::Failed(error)) => return Err(error),
    };
    let (node, generation) = replica.run();
    if let Some(settings) = traces(&config.telemetry.otlp, &format!("{:016x}", node.0))? {
        telemetry::otlp::start(settings)?;
    }
    let payload_max = config.limits.durable_payload_bytes_max.as_usize();
    let dispatch = Dispatch::new(replica, metrics.clone(), payload_max, Memory::new(memory));
    health.observe(dispatch.clone());
    let authenticator = Authenticator::new(Platform::new(config.auth.generic()?, config.platform.settings()));
    let sessions = Sessions::new(dispatch.clone(), authenticator, session_limits(&config), queue_bounds(&config));
    let seed = config.registry.import.as_deref().map(Seed::load).transpose().context("registry.import")?;
    let rules = RuleEngine::start(dispatch.clone()).await.context("rules")?;
    let operations = Operations::new(dispatch.clone(), rules, config.platform.command_timeout.duration());
    dispatch.replica().examined_by(Arc::new(operations.clone()));
    dispatch.renew_traces();
    operations.follow_settings(config.log.level.clone());
    operations.notice(certificates.clone());
    let tasks = operations.run_tasks(config.platform.batch_concurrency as usize);
    let mut settings = api::Settings::load(&config.rest, config.platform.settings().aliyun)?;
    settings.access = api::Access::load(&config)?;
    settings.access.follow(&certificates);
    dispatch.drain_by(signals.leaver());
    dispatch.consult_by(Arc::new(operations.clone()));
    let api = Api::new(operations.clone(), settings)?;
    let services: mqtt::Configure = {
        let (rest, console) = (rest::configure(api.clone()), console::configure(api.clone(), metrics.clone()));
        Arc::new(move |worker| {
            rest(worker);
            console(worker);
        })
    };
    let workers = Workers::start(std::thread::available_parallelism().map_or(2, usize::from), services)
        .context("cannot start the HTTP workers")?;
    let admission = mqtt::Admission::node(connections_max, config.limits.connect_rate_max, metrics.connections.clone());

    let (stop, stopped) = watch::channel(false);
    for (at, listener) in config.listener.iter().enumerate() {
        let place = || format!("listener[{at}] {} at {}", listener.name, listener.address);
        let tls = certificates.of_listener(listener, at)?;
        let socket = mqtt::bind(listener).with_context(|| format!("{}: cannot listen", place()))?;
        tracing::info!(listener = %listener.name, protocol = listener.scheme(), address = %socket.local_addr()?, "listening");
        let door =
            Door::new(listener.clone(), sessions.clone(), admission.clone(), tls, workers.clone(), stopped.clone());
        tokio::spawn(mqtt::run(door, socket));
    }
    let (close_admin, admin_closed) = watch::channel(false);
    let admin =
        serve_admins(&config, certificates.of_admins(&config.admin)?, &api, &metrics, &health, admin_closed).await?;
    tokio::spawn(housekeeping(dispatch.clone()));
    let sys_interval = config.node.sys_interval.duration();
    if !sys_interval.is_zero() {
        tokio::spawn(publish_sys(dispatch.clone(), sys_interval));
    }
    operations.prepare(seed).await.context("registry.import")?;
    health.set(Phase::Serving);
    tracing::info!(
        node = format!("{:016x}", node.0),
        generation = generation.0,
        connections_max,
        probes = probes.map(|address| address.to_string()),
        "serving"
    );

    drain::tell(&pid, Stage::Serving, 0);
    let asked = signals.next().await;
    let draining = Draining {
        shutdown: config.shutdown.clone(),
        dispatch: dispatch.clone(),
        sessions: sessions.clone(),
        health: health.clone(),
        stop,
        tasks,
        pid,
    };
    draining.see_through(asked, &mut signals).await;
    dispatch.set_stage(Stage::Ending);
    let close_by = Instant::now() + CLOSE;
    if let Some(admin) = admin {
        // Until here, admins see the node leave.
        close_admin.send_replace(true);
        let _ = tokio::time::timeout(CLOSE / 2, admin).await;
    }
    if tokio::time::timeout_at(close_by, dispatch.replica().close()).await.is_err() {
        tracing::warn!("the log was not closed in time; what was acknowledged is on disk");
    }
    Ok(())
}

/// Opens the door for admins, if there is one. It is closed once `closed` says so.
async fn serve_admins(
    config: &Config,
    tls: Option<Tls>,
    api: &Arc<Api>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    closed: watch::Receiver<bool>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let (Some(address), Some(token)) = (config.admin.address, config.admin.load_token()?) else { return Ok(None) };
    let socket = admin::bind(address).await?;
    tracing::info!(address = %socket.local_addr()?, tls = tls.is_some(), "listening for admins");
    let serving: admin::Serving = {
        let health = health.clone();
        Arc::new(move || health.ready().is_ok())
    };
    let door = admin::Door { tls, token, api: api.clone(), metrics: metrics.clone(), serving };
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = admin::run(door, socket, closed).await {
            tracing::error!(error = format!("{error:#}"), "the door for admins has closed");
        }
    })))
}

/// Where traces go, if anywhere. `instance`: what tells this node from others.
fn traces(otlp: &Otlp, instance: &str) -> anyhow::Result<Option<telemetry::otlp::Settings>> {
    let Some(endpoint) = otlp.endpoint.clone() else { return Ok(None) };
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("telemetry.otlp.ca: {}", path.display()));
    let own = [("service.name", &*otlp.service_name), ("service.instance.id", instance)];
    let own = own.into_iter().chain([("service.version", env!("CARGO_PKG_VERSION"))]);
    let more = otlp.resource.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Ok(Some(telemetry::otlp::Settings {
        endpoint,
        ca: otlp.ca.as_ref().map(read).transpose()?,
        headers: otlp.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
        sampling_percent: otlp.sampling_percent,
        timeout: otlp.timeout.duration(),
        resource: own.chain(more).map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }))
}

async fn housekeeping(dispatch: Arc<Dispatch>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match telemetry::resources::resident_bytes() {
            Ok(resident) => dispatch.weigh(resident),
            Err(error) => tracing::debug!(%error, "resident memory unknown"),
        }
        dispatch.cut_stalled();
        dispatch.withdraw();
        dispatch.replica().look_at_lag();
        if dispatch.insight().armed() {
            dispatch.renew_traces();
        }
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
            let said = Publication::of_server(topic, Bytes::from(value), QoS::AtMostOnce, dispatch.now().log);
            dispatch.publish_sys(Publication { retain: true, ..said });
        }
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
        server_reference: config.shutdown.server_reference.as_deref().map(ByteString::from),
    }
}

fn queue_bounds(config: &Config) -> QueueBounds {
    QueueBounds {
        messages_max: config.session.live_queue_entries_max as usize,
        bytes_max: config.session.live_queue_bytes_max.as_usize(),
    }
}
