//! `/metrics`, `/livez`, `/readyz` and `/startupz` over plain HTTP, for the platform that runs the node.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use fulmar_broker::state::{DROPPED, State};
use parking_lot::Mutex;

use crate::dispatch::Dispatch;
use crate::operations::notices::NAMES as ALARMS;
use crate::telemetry::metrics::Reading;

/// Where the node is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Reading what is on disk, and whatever keeps it from going on.
    Starting(Option<String>),
    Serving,
    Draining,
    /// What is on disk cannot be trusted. The node serves nobody, and waits for a person.
    Damaged(String),
}

/// What the probes tell: the node's phase, and its figures once there are any.
#[derive(Debug)]
pub struct Health {
    phase: Mutex<Phase>,
    dispatch: OnceLock<Arc<Dispatch>>,
}

impl Default for Health {
    fn default() -> Health {
        Health { phase: Mutex::new(Phase::Starting(None)), dispatch: OnceLock::new() }
    }
}

impl Health {
    pub fn set(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.lock().clone()
    }

    /// Whether the node has lost its lease.
    fn frozen(&self) -> bool {
        self.dispatch.get().is_some_and(|dispatch| !dispatch.replica().acts())
    }

    /// Whether a backup is being put back, or was not put back whole.
    fn restoring(&self) -> bool {
        self.dispatch.get().is_some_and(|dispatch| dispatch.replica().read().restoring())
    }

    /// Where figures come from, from here on. Once.
    pub fn observe(&self, dispatch: Arc<Dispatch>) {
        // A node has one dispatch in its life.
        let _ = self.dispatch.set(dispatch);
    }
}

/// Opens the door; it is served on a thread of its own until the process ends.
///
/// # Errors
/// If the address cannot be bound; the text names it.
pub fn open(address: SocketAddr, health: Arc<Health>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("probes.address: cannot listen on {address}"))?;
    let address = listener.local_addr().context("probes.address")?;
    let health = web::Data::from(health);
    std::thread::Builder::new().name("probes".into()).spawn(move || {
        if let Err(error) = serve(listener, health) {
            tracing::error!(%error, "probes ended");
        }
    })?;
    Ok(address)
}

fn serve(listener: TcpListener, health: web::Data<Health>) -> std::io::Result<()> {
    let app = move || {
        App::new()
            .app_data(health.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/startupz", web::get().to(startupz))
    };
    actix_rt::System::new()
        .block_on(async { HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run().await })
}

async fn metrics(health: web::Data<Health>) -> HttpResponse {
    let text = match health.dispatch.get() {
        Some(dispatch) => {
            dispatch.collect_tallies();
            dispatch.metrics().render(&readings(dispatch))
        }
        None => "# EOF\n".to_owned(),
    };
    HttpResponse::Ok()
        .insert_header(("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(text)
}

fn readings(dispatch: &Dispatch) -> Vec<Reading> {
    let state = dispatch.replica().read();
    let (books, backlogs) = (state.books(), &state.plane().backlogs);
    let unaccounted = u64::try_from(books.unaccounted().unsigned_abs()).unwrap_or(u64::MAX);
    let dropped = DROPPED.iter().map(|(reason, label)| (Some(("reason", *label)), books.dropped(*reason))).collect();
    let mut readings = vec![
        Reading::new(
            "live_open",
            "Live deliveries of QoS 1 and 2, queued or unacknowledged",
            dispatch.metrics().live_open(),
        ),
        Reading::new("call_waiters", "Requests to devices that are waited for here", dispatch.calls_waiting() as u64),
        Reading::new("subscriptions", "Live subscriptions of connected sessions", dispatch.subscription_count() as u64),
        Reading::new("sessions", "Sessions, connected or not", state.session_count() as u64),
        Reading::new("applications", "Connections of applications in the whole cluster", state.applications() as u64),
        Reading::new("retained_messages", "Retained messages", state.retained().len() as u64),
        Reading::new("replicated_bytes", "Bytes of queues, retained messages and wills", state.bytes()),
        Reading::new(
            "replicated_bytes_max",
            "Their bound: above 80 % of it durable publishes are refused",
            state.limits().replicated_bytes_max,
        ),
        Reading::new("batch_tasks", "Batch tasks, finished or not", state.plane().tasks.count() as u64),
        Reading::new("batch_targets", "Targets of these", state.plane().tasks.targets_kept()),
        Reading::new(
            "batch_tasks_evicted",
            "Finished batch tasks that went to make room, since the cluster began",
            state.plane().tasks.evicted(),
        ),
        Reading::new("durable_obligations", "Durable deliveries taken on since the state began", books.created),
        Reading::new("durable_delivered", "Durable deliveries acknowledged by their receivers", books.delivered),
        Reading::new("durable_queued", "Durable deliveries in queues", books.queued),
        Reading::new("durable_expired", "Durable deliveries whose message expired in the queue", books.expired),
        Reading { name: "durable_dropped", help: "Durable deliveries dropped, by the bound or cause", values: dropped },
        Reading::new("backlog_bytes", "Bytes of backlogs of durable rules and of applications", backlogs.bytes()),
        Reading::new("backlog_entries", "What waits in these backlogs", backlogs.counts().waiting()),
        Reading::new(
            "backlog_appended",
            "What was put into backlogs since the state began",
            backlogs.counts().appended,
        ),
        Reading::new("backlog_settled", "What sinks have taken from backlogs", backlogs.counts().settled),
        Reading::new(
            "obligations_unaccounted",
            "Durable obligations that are neither delivered, queued, expired nor dropped; never other than 0",
            unaccounted,
        ),
    ];
    readings.extend(mail_readings(&state));
    readings.extend(steer_readings(&state));
    drop(state);
    let (log, census) = (dispatch.replica().figures(), dispatch.replica().census());
    readings.extend(dispatch.peer_readings());
    readings.extend([
        Reading {
            name: "ack_policy",
            help: "What must be true of a durable publish before it is acknowledged",
            values: vec![(Some(("policy", "quorum_fsync")), 1)],
        },
        Reading::new("raft_term", "Term of the Raft log", log.term),
        Reading::new("raft_leader", "Whether this node leads", log.leads.into()),
        Reading::new("raft_voter", "Whether this node votes", census.votes.into()),
        Reading::new("cluster_members", "Members of the cluster, up or not", census.members as u64),
        Reading::new("cluster_voters", "Those of them that vote", census.voters as u64),
        Reading::new(
            "frozen",
            "Whether this node has lost its lease: it neither reads, writes nor acknowledges",
            (!dispatch.replica().acts()).into(),
        ),
        Reading::new("log_index", "Index of the last entry of the log", log.last_index),
        Reading::new("log_applied_index", "Index of the last entry that is applied", log.applied_index),
        Reading::new("log_purged_index", "Index up to which the log was let go, being in a snapshot", log.purged_index),
        Reading::new("log_bytes", "Bytes of the entries in the log", log.log_bytes),
        Reading::new("log_backlog_bytes", "Bytes of commands that wait to be proposed", log.backlog_bytes),
        Reading::new("log_entries", "Entries appended since the start", log.entries),
        Reading::new("log_written_bytes", "Bytes of entries written since the start", log.written_bytes),
        Reading::new("log_syncs", "Group commits since the start", log.syncs),
        Reading::new("log_sync_us", "Microseconds that they took together", log.sync_us),
        Reading::new("log_sync_us_max", "Microseconds that the longest took", log.sync_us_max),
        Reading::new("snapshots", "Snapshots written since the start", log.snapshots),
        Reading::new("snapshots_failed", "Snapshots that could not be written", log.snapshots_failed),
        Reading::new("snapshot_bytes", "Bytes of the newest snapshot", log.snapshot_bytes),
        Reading::new("snapshot_ms", "Milliseconds that writing it took", log.snapshot_ms),
        Reading::new("disk_low", "Whether durable publishes are refused for want of disk space", log.disk_low.into()),
    ]);
    readings
}

/// Messages to devices: the same on every node.
fn mail_readings(state: &State) -> [Reading; 4] {
    let (mail, books) = (&state.plane().mail, state.plane().mail.books());
    let ended = [
        ("delivered", books.delivered),
        ("timeout", books.timed_out),
        ("failed", books.failed),
        ("replaced", books.replaced),
        ("deleted", books.deleted),
        ("refused", books.refused),
    ];
    let ended = ended.into_iter().map(|(status, count)| (Some(("status", status)), count)).collect();
    [
        Reading {
            name: "messages",
            help: "Messages to devices since the state began, by what became of them",
            values: ended,
        },
        Reading::new("messages_waiting", "Messages that wait, or await an acknowledgement", mail.open_len() as u64),
        Reading::new("messages_kept", "Messages that are kept, whatever their state", mail.len() as u64),
        Reading::new("messages_bytes", "Bytes of the messages that are kept", mail.bytes()),
    ]
}

/// Bans, alarms and the audit: the same on every node.
fn steer_readings(state: &State) -> [Reading; 4] {
    let steer = state.steer();
    let active = |name: &'static str| {
        let count = steer.alarms.active().filter(|alarm| *alarm.name == *name).count();
        (Some(("name", name)), count as u64)
    };
    [
        Reading::new("bans", "Bans, also those whose time is over until that is applied", steer.bans.len() as u64),
        Reading::new("settings_version", "Version of the settings", steer.settings.version()),
        Reading {
            name: "alarms_active",
            help: "Alarms that are raised",
            values: ALARMS.iter().map(|name| active(name)).collect(),
        },
        Reading::new("audit_entries", "Entries of the audit since the cluster began", steer.audit.last()),
    ]
}

/// The process answers: that is all that it says.
async fn livez() -> HttpResponse {
    answer(true, "ok\n")
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    match health.phase() {
        Phase::Starting(None) => answer(false, "starting\n"),
        Phase::Starting(Some(why)) => answer(false, format!("starting: {why}\n")),
        Phase::Serving if health.frozen() => answer(false, "frozen: the lease has run out, as no quorum is reached\n"),
        Phase::Serving if health.restoring() => answer(false, "restoring: a backup is not put back whole\n"),
        Phase::Serving => answer(true, "ok\n"),
        Phase::Draining => answer(false, "draining\n"),
        Phase::Damaged(what) => answer(false, format!("{what}\n")),
    }
}

/// A damaged node has started as far as it ever will: to be started again would not help it.
async fn startupz(health: web::Data<Health>) -> HttpResponse {
    match health.phase() {
        Phase::Starting(_) => answer(false, "starting\n"),
        Phase::Serving | Phase::Draining | Phase::Damaged(_) => answer(true, "ok\n"),
    }
}

fn answer(well: bool, text: impl Into<String>) -> HttpResponse {
    let mut response = if well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(ContentType::plaintext()).body(text.into())
}
