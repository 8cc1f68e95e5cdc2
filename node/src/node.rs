//! One node, put together: the only place that sees every room. Starts them from below, and ends them from above.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use fulmar_broker::state::command;
use fulmar_broker::{Publication, session};
use fulmar_mqtt::{QoS, ReasonCode, TopicName};
use fulmar_platform::Platform;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::{self, Api};
use crate::cluster::peers::{Peers, Tls};
use crate::cluster::raft::inbound::RaftService;
use crate::cluster::{self, Bootstrap, PeerService, Replica, StartError};
use crate::config::admin::AdminTls;
use crate::config::{self, Config};
use crate::dispatch::{Dispatch, Drain, Stage};
use crate::doors::admin;
use crate::doors::console;
use crate::doors::mqtt::{self, Door, Workers};
use crate::doors::peer;
use crate::doors::probes::{self, Health, Phase};
use crate::doors::rest;
use crate::operations::{Operations, Seed};
use crate::rule_engine::RuleEngine;
use crate::sessions::authenticate::Authenticator;
use crate::sessions::open::{QueueBounds, Sessions};
use crate::store::identity;
use crate::store::log::{self, Damage, Fatal, Log, OpenError, StoreError};
use crate::store::snapshots::Snapshots;
use crate::telemetry::Metrics;

/// Between two looks at stalled receivers, and at filters that nobody subscribes to any more.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// For what is still proposed when the clients are gone.
const CLOSE: Duration = Duration::from_secs(5);

/// Between two tries to start on a full disk.
const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

/// How the process ends when its log cannot go on, as sysexits counts input and output errors.
const EXIT_STORE: i32 = 74;

/// One for the log and one for the state.
const CONSENSUS_THREADS: usize = 2;

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
    let health = Arc::new(Health::default());
    let probes = config.probes.enabled.then(|| probes::open(config.probes.address, health.clone())).transpose()?;
    let consensus = Consensus::start().context("cannot start the threads of the log")?;
    let replica = tokio::select! {
        replica = join(&config, &health, &consensus) => replica,
        () = wait(&mut terminate, &mut interrupt) => return Ok(()), // nothing has begun that must be ended
    };
    let replica = match replica {
        Ok(replica) => replica,
        Err(Unjoined::Damaged(what)) if probes.is_some() => {
            // To end would only have the process started again, and what is on disk is evidence.
            tracing::error!(%what, "damaged: serving nobody");
            health.set(Phase::Damaged(what));
            wait(&mut terminate, &mut interrupt).await;
            return Ok(());
        }
        Err(Unjoined::Damaged(what)) => anyhow::bail!(what),
        Err(Unjoined::Failed(error)) => return Err(error),
    };
    let (node, generation) = replica.run();
    let metrics = Arc::new(Metrics::default());
    let dispatch = Dispatch::new(replica, metrics.clone(), config.limits.durable_payload_bytes_max.as_usize());
    health.observe(dispatch.clone());
    let authenticator = Authenticator::new(Platform::new(config.auth.generic()?, config.platform.settings()));
    let sessions = Sessions::new(dispatch.clone(), authenticator, session_limits(&config), queue_bounds(&config));
    let seed = config.registry.import.as_deref().map(Seed::load).transpose().context("registry.import")?;
    let rules = RuleEngine::start(dispatch.clone()).await.context("rules")?;
    let operations = Operations::new(dispatch.clone(), rules, config.platform.command_timeout.duration());
    dispatch.replica().examined_by(Arc::new(operations.clone()));
    dispatch.renew_traces();
    operations.follow_settings(config.log.level.clone());
    operations.notice();
    let tasks = operations.run_tasks(config.platform.batch_concurrency as usize);
    let mut settings = api::Settings::load(&config.rest, config.platform.settings().aliyun)?;
    settings.access = api::Access::load(&config)?;
    let drained = Arc::new(Notify::new());
    let drain: Drain = {
        let drained = drained.clone();
        Arc::new(move || drained.notify_one())
    };
    dispatch.drain_by(drain);
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
    let (close_admin, admin_closed) = watch::channel(false);
    let admin = serve_admins(&config, &api, &metrics, &health, &dispatch, admin_closed).await?;
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

    tokio::select! {
        () = wait(&mut terminate, &mut interrupt) => {}
        () = drained.notified() => {}
    }
    tracing::info!(connections = metrics.connections.get(), "leaving");
    health.set(Phase::Draining);
    dispatch.set_stage(Stage::Draining);
    stop.send_replace(true);
    tasks.leave();
    sessions.close_all(ReasonCode::ServerShuttingDown);
    let leave_by = Instant::now() + config.shutdown.grace.duration();
    tokio::select! {
        () = all_gone(&metrics, &sessions) => tracing::info!("left"),
        () = tokio::time::sleep_until(leave_by) => {
            tracing::warn!(connections = metrics.connections.get(), "grace time is over");
        }
        () = wait(&mut terminate, &mut interrupt) => tracing::warn!("hurried"),
    }
    dispatch.set_stage(Stage::Ending);
    if let Some(admin) = admin {
        // Until here, admins see the node leave.
        close_admin.send_replace(true);
        let _ = tokio::time::timeout(CLOSE, admin).await;
    }
    if tokio::time::timeout(CLOSE, dispatch.replica().close()).await.is_err() {
        tracing::warn!("the log was not closed in time; what was acknowledged is on disk");
    }
    Ok(())
}

/// Opens the door for admins, if there is one. It is closed once `closed` says so.
async fn serve_admins(
    config: &Config,
    api: &Arc<Api>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    dispatch: &Arc<Dispatch>,
    closed: watch::Receiver<bool>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let (Some(address), Some(token)) = (config.admin.address, config.admin.load_token()?) else { return Ok(None) };
    let tls = config.admin.tls.as_ref().map(AdminTls::load).transpose()?;
    let socket = admin::bind(address).await?;
    tracing::info!(address = %socket.local_addr()?, tls = tls.is_some(), "listening for admins");
    let serving: admin::Serving = {
        let (health, dispatch) = (health.clone(), dispatch.clone());
        Arc::new(move || health.phase() == Phase::Serving && dispatch.replica().acts())
    };
    let door = admin::Door { tls, token, api: api.clone(), metrics: metrics.clone(), serving };
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = admin::run(door, socket, closed).await {
            tracing::error!(error = format!("{error:#}"), "the door for admins has closed");
        }
    })))
}

/// A runtime of its own for Raft, its state machine and the batcher: what wakes them comes from other threads, and on
/// the threads that serve clients it would wait behind whatever those have to do.
struct Consensus(Option<Runtime>);

impl Consensus {
    fn start() -> std::io::Result<Consensus> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(CONSENSUS_THREADS).thread_name("raft").enable_all().build().map(Some).map(Consensus)
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().map(Runtime::handle).expect("there until it is dropped")
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        // A runtime must not be waited for where others run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a node does not take part in its cluster.
enum Unjoined {
    Damaged(String),
    Failed(anyhow::Error),
}

/// Opens what is on disk and brings the replica up to it. While the disk is full it waits for room.
async fn join(config: &Config, health: &Health, consensus: &Consensus) -> Result<Replica, Unjoined> {
    loop {
        match try_to_join(config, consensus).await {
            Err(Unjoined::Failed(error)) if disk_full(&error) => {
                tracing::error!(error = format!("{error:#}"), "waiting for disk space");
                health.set(Phase::Starting(Some(format!("{error:#}"))));
                tokio::time::sleep(DISK_FULL_RETRY).await;
            }
            joined => return joined,
        }
    }
}

async fn try_to_join(config: &Config, consensus: &Consensus) -> Result<Replica, Unjoined> {
    let (starting, door) = begin_to_join(config, consensus).await?;
    let started = starting.await.map_err(|error| Unjoined::Failed(error.into()))?;
    started.map_err(|error| {
        if let Some(door) = door {
            door.abort();
        }
        match error {
            StartError::Damaged(damage) | StartError::Store(StoreError::Damaged(damage)) => damaged(config, &damage),
            error => Unjoined::Failed(anyhow::Error::new(error).context("cluster")),
        }
    })
}

fn damaged(config: &Config, damage: &Damage) -> Unjoined {
    Unjoined::Damaged(format!("damaged: {damage}; `fulmar verify {}` says more", config.node.data_dir.display()))
}

type Starting = JoinHandle<Result<Replica, StartError>>;

/// Opens the store and the door for other nodes, and begins the rest.
async fn begin_to_join(config: &Config, consensus: &Consensus) -> Result<(Starting, Option<JoinHandle<()>>), Unjoined> {
    let data_dir = config.node.data_dir.clone();
    let fatal: Fatal = Arc::new(|what| {
        // Whatever is not acknowledged by now never will be; what is on disk is looked at by the next start.
        eprintln!("fulmar: {what}");
        tracing::error!(what, "the log cannot go on");
        std::process::exit(EXIT_STORE);
    });
    let failed = |error: anyhow::Error| Unjoined::Failed(error);
    let opening = {
        let (data_dir, fatal) = (data_dir.clone(), fatal.clone());
        move || Log::open(&data_dir, log::Options::default(), fatal)
    };
    let opened = tokio::task::spawn_blocking(opening).await.map_err(|error| failed(error.into()))?;
    let (log, opened) = opened.map_err(|error| match error {
        OpenError::Damaged(damage) => damaged(config, &damage),
        error => failed(anyhow::Error::new(error).context("node.data_dir")),
    })?;
    if let Some(from) = opened.truncated {
        tracing::warn!(from, "the log had a torn tail, which nobody was promised; it is cut off");
    }
    let node = identity::load(&data_dir).map_err(failed)?;
    let directory = data_dir.join("snapshots");
    let snapshots = Snapshots::open(directory.clone())
        .with_context(|| format!("cannot open {}", directory.display()))
        .map_err(failed)?;
    let tls = config.cluster.tls.as_ref().map(Tls::load).transpose().map_err(|error| failed(error.into()))?;
    let peers = Peers::new(node.0, tls.clone(), config.cluster.dial.clone().into_iter().collect());
    let doors =
        cluster::Doors { peers, raft: Arc::default(), contact: Arc::default(), service: PeerService::default() };
    let _runtime = consensus.handle().enter(); // where the connections of other nodes are served
    let (address, door) = match config.cluster.listen {
        None => (String::new(), None),
        Some(listen) => {
            let gate = Arc::new(doors.service.clone());
            let raft = RaftService::new(
                doors.peers.clone(),
                doors.raft.clone(),
                doors.contact.clone(),
                snapshots.clone(),
                gate,
            );
            let opened = peer::open(listen, tls.as_ref(), raft, doors.service.clone());
            let (bound, door) = opened.map_err(failed)?;
            tracing::info!(address = %bound, "listening for other nodes");
            (config.cluster.advertised(bound), Some(door))
        }
    };
    let settings = cluster::Settings {
        node,
        address,
        bootstrap: bootstrap(config),
        limits: replicated_limits(config),
        log_bytes: config.store.log_bytes.get(),
        disk_free_min: config.store.disk_free_min.get(),
        data_dir,
    };
    let starting = consensus.handle().spawn(cluster::start(settings, Arc::new(log), snapshots, doors, fatal));
    Ok((starting, door))
}

fn bootstrap(config: &Config) -> Bootstrap {
    match config.cluster.bootstrap {
        config::cluster::Bootstrap::Single => Bootstrap::Single,
        config::cluster::Bootstrap::Join => {
            Bootstrap::Join { peers: config.cluster.peers.clone(), expected: config.cluster.expected as usize }
        }
    }
}

fn disk_full(error: &anyhow::Error) -> bool {
    let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    error.chain().any(|cause| match cause.downcast_ref::<OpenError>() {
        Some(OpenError::Io { error, .. }) => full(error),
        _ => cause.downcast_ref::<std::io::Error>().is_some_and(full),
    })
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
        dispatch.cut_stalled();
        dispatch.withdraw();
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
        rule_backlog_bytes_max: config.limits.rule_backlog_bytes_max.get(),
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
