//! What is read of a node when its figures are asked for. Each has a line in `telemetry/README.md`.

use fulmar_broker::state::{DROPPED, State};

use crate::dispatch::{Dispatch, Stage};
use crate::operations::notices::NAMES as ALARMS;
use crate::telemetry::metrics::{Form, Kind, Reading, process_readings};
use crate::telemetry::resources;

/// The text of `/metrics`.
pub(super) fn render(dispatch: &Dispatch, form: Form) -> String {
    let replica = dispatch.replica();
    let took = [
        ("log_sync_seconds", "Seconds that group commits of the log took, from the flush to the mark", replica.syncs()),
        (
            "log_commit_seconds",
            "Seconds from the numbering of a batch of commands of this node to its being applied here",
            replica.commits(),
        ),
    ];
    let mut readings = readings(dispatch);
    readings.extend(process_readings());
    dispatch.metrics().render(form, &readings, &took)
}

fn readings(dispatch: &Dispatch) -> Vec<Reading> {
    let state = dispatch.replica().read();
    let (books, backlogs) = (state.books(), &state.plane().backlogs);
    let unaccounted = u64::try_from(books.unaccounted().unsigned_abs()).unwrap_or(u64::MAX);
    let dropped = DROPPED.iter().map(|(reason, label)| (*label, books.dropped(*reason)));
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
            "Bound of the replicated bytes: above 80 % of it durable publishes are refused",
            state.limits().replicated_bytes_max,
        ),
        Reading::new("batch_tasks", "Batch tasks, finished or not", state.plane().tasks.count() as u64),
        Reading::new("batch_targets", "Targets of all batch tasks that are kept", state.plane().tasks.targets_kept()),
        Reading::counter(
            "batch_tasks_evicted",
            "Finished batch tasks that went to make room, since the cluster began",
            state.plane().tasks.evicted(),
        ),
        Reading::counter(
            "durable_obligations",
            "Durable deliveries taken on since the state began (publication x receiver)",
            books.created,
        ),
        Reading::counter("durable_delivered", "Durable deliveries acknowledged by their receivers", books.delivered),
        Reading::new("durable_queued", "Durable deliveries in queues", books.queued),
        Reading::counter("durable_expired", "Durable deliveries whose message expired in the queue", books.expired),
        Reading::by(
            "reason",
            ("durable_dropped", Kind::Counter, "Durable deliveries dropped, by the bound or cause"),
            dropped,
        ),
        Reading::new("backlog_bytes", "Bytes of backlogs of durable rules and of applications", backlogs.bytes()),
        Reading::new("backlog_entries", "Entries that wait in backlogs", backlogs.counts().waiting()),
        Reading::counter(
            "backlog_appended",
            "Entries put into backlogs since the state began",
            backlogs.counts().appended,
        ),
        Reading::counter(
            "backlog_settled",
            "Entries that sinks have taken from backlogs since the state began",
            backlogs.counts().settled,
        ),
        Reading::new(
            "obligations_unaccounted",
            "Durable obligations that are neither delivered, queued, expired nor dropped; never other than 0",
            unaccounted,
        ),
    ];
    readings.extend(mail_readings(&state));
    readings.extend(steer_readings(&state));
    let held = [
        ("replicated", state.bytes()),
        ("backlogs", state.plane().backlogs.bytes()),
        ("device_messages", state.plane().mail.bytes()),
    ];
    drop(state);
    readings.extend(memory_readings(dispatch, held));
    let (log, census) = (dispatch.replica().figures(), dispatch.replica().census());
    let (spans, room) = (crate::telemetry::spans::counts(), dispatch.replica().room());
    readings.extend(dispatch.peer_readings());
    readings.extend([
        Reading::by(
            "policy",
            ("ack_policy", Kind::Gauge, "What must be true of a durable publish before it is acknowledged"),
            [("quorum_fsync", 1)],
        ),
        Reading::by(
            "version",
            ("build_info", Kind::Gauge, "The version of the program"),
            [(env!("CARGO_PKG_VERSION"), 1)],
        ),
        Reading::counter("otlp_spans_exported", "Spans that the collector has taken", spans.exported),
        Reading::by(
            "reason",
            ("otlp_spans_dropped", Kind::Counter, "Spans that the collector was not given, or has not taken"),
            [("queue_full", spans.queue_full), ("not_taken", spans.not_taken)],
        ),
        Reading::new("raft_term", "Term of the Raft log", log.term),
        Reading::new("raft_leader", "Whether this node leads", log.leads.into()),
        Reading::new("raft_voter", "Whether this node votes", census.votes.into()),
        Reading::new("cluster_members", "Members of the cluster, up or not", census.members as u64),
        Reading::new("cluster_members_up", "Members that are up, by the log", census.up as u64),
        Reading::new("cluster_voters", "Members that vote", census.voters as u64),
        Reading::new(
            "frozen",
            "Whether this node has lost its lease: it neither reads, writes nor acknowledges",
            (!dispatch.replica().acts() && matches!(dispatch.stage_now(), Stage::Serving | Stage::Draining)).into(),
        ),
        Reading::new(
            "draining",
            "Whether this node lets its clients go, or has",
            (dispatch.stage_now() != Stage::Serving).into(),
        ),
        Reading::new("log_index", "Index of the last entry of the log", log.last_index),
        Reading::new("log_applied_index", "Index of the last entry that is applied", log.applied_index),
        Reading::new(
            "apply_lag_entries",
            "Entries of this node's log that are not applied",
            log.last_index.saturating_sub(log.applied_index),
        ),
        Reading::seconds(
            "apply_lag_seconds",
            "Seconds for which at least the oldest entry that is not applied has been in this node's log",
            u64::try_from(dispatch.replica().lag().as_millis()).unwrap_or(u64::MAX),
        ),
        Reading::new("log_purged_index", "Index up to which the log was let go, being in a snapshot", log.purged_index),
        Reading::new("log_bytes", "Bytes of the entries in the log", log.log_bytes),
        Reading::new("log_backlog_bytes", "Bytes of commands that wait to be proposed", log.backlog_bytes),
        Reading::counter("log_entries", "Entries appended since the start", log.entries),
        Reading::counter("log_written_bytes", "Bytes of entries written since the start", log.written_bytes),
        Reading::counter("snapshots", "Snapshots written since the start", log.snapshots),
        Reading::counter("snapshots_failed", "Snapshots that could not be written", log.snapshots_failed),
        Reading::new("snapshot_bytes", "Bytes of the newest snapshot", log.snapshot_bytes),
        Reading::seconds("snapshot_write_seconds", "Seconds that writing the newest snapshot took", log.snapshot_ms),
        Reading::new("disk_free_bytes", "Bytes that may still be written to the disk of the data", room.free()),
        Reading::new(
            "disk_scarce",
            "Whether durable publishes are refused because too few voters have room on their disks",
            room.scarce().into(),
        ),
        Reading::new("disk_low", "Whether durable publishes are refused for want of disk space", log.disk_low.into()),
    ]);
    readings
}

/// `held`: bytes that the state counts, by kind.
fn memory_readings(dispatch: &Dispatch, held: [(&'static str, u64); 3]) -> [Reading; 2] {
    let memory = dispatch.memory();
    // What cannot be read now is read again with the next scrape.
    let resident = resources::resident_bytes().unwrap_or_else(|_| memory.resident());
    let kinds = [("resident", resident), ("live_queues", dispatch.live_bytes())].into_iter().chain(held);
    [
        Reading::by(
            "kind",
            (
                "memory_bytes",
                Kind::Gauge,
                "Memory: resident, and what is counted of it: the state's bytes, and messages that wait for clients",
            ),
            kinds,
        ),
        Reading::new("memory_limit_bytes", "Memory that the process may use", memory.limit()),
    ]
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
    [
        Reading::by(
            "status",
            ("messages", Kind::Counter, "Messages to devices since the state began, by what became of them"),
            ended,
        ),
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
        (name, count as u64)
    };
    [
        Reading::new("bans", "Bans, also those whose time is over until that is applied", steer.bans.len() as u64),
        Reading::new("settings_version", "Version of the settings", steer.settings.version()),
        Reading::by(
            "name",
            ("alarms_active", Kind::Gauge, "Alarms that are raised"),
            ALARMS.iter().map(|name| active(name)),
        ),
        Reading::counter("audit_entries", "Entries of the audit since the cluster began", steer.audit.last()),
    ]
}
