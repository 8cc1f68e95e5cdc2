//! Counters of this node. Handles are fields, so that counting is one atomic addition.

mod api;
mod durations;
mod labels;
mod process;
mod rules;
mod text;
mod tls;
mod traffic;

use std::sync::atomic::AtomicU64;

use fulmar_broker::outbound::{DROP_REASONS, Tally};
use fulmar_mqtt::{QoS, ReasonCode};
use fulmar_platform::Dialect;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use self::api::Calls;
pub use self::durations::{Durations, Snapshot};
use self::labels::{
    DialectLabel, DoorLabel, DropLabel, KindLabel, OutcomeLabel, QosLabel, ReasonLabel, RefusalLabel, ReportLabel,
};
pub use self::process::readings as process_readings;
pub use self::rules::{RuleActions, RuleEvents};
pub use self::text::{Form, Kind, Labels, Reading};
pub use self::tls::TlsFiles;
pub use self::traffic::{PacketCounts, Traffic};

type Count = Counter<u64, AtomicU64>;

/// Why a listener turned a connection away before it was a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    ConnectionsMax,
    ConnectRate,
    NoConnect,
    TlsFailed,
    NotMqtt,
    /// The node held no lease, for as long as a CONNECT may take.
    Frozen,
    /// See bans.
    Banned,
    /// It came to a listener that is behind balancers, and not from one of them.
    ProxyUntrusted,
    /// A balancer sent no PROXY header, or one that is wrong.
    ProxyMissing,
    ProxyMalformed,
}

impl Turned {
    fn label(self) -> &'static str {
        match self {
            Turned::ConnectionsMax => "connections_max",
            Turned::ConnectRate => "connect_rate_max",
            Turned::NoConnect => "connect_timeout",
            Turned::TlsFailed => "tls_failed",
            Turned::NotMqtt => "not_mqtt",
            Turned::Frozen => "frozen",
            Turned::Banned => "banned",
            Turned::ProxyUntrusted => "proxy_untrusted",
            Turned::ProxyMissing => "proxy_missing",
            Turned::ProxyMalformed => "proxy_malformed",
        }
    }
}

/// What people follow: see [`Metrics::counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// PUBLISH packets from clients, and bytes of everything from them.
    pub received: u64,
    pub received_bytes: u64,
    /// Live deliveries, by what became of them; dropped ones in the order of [`DROP_REASONS`].
    pub delivered: u64,
    pub expired: u64,
    pub dropped: [u64; DROP_REASONS.len()],
    pub connects: u64,
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub sessions_connected: Gauge,
    pub connects: Count,
    received: [Count; 3],
    pub received_bytes: Count,
    /// Packets and bytes, and how long clients wait.
    pub traffic: Traffic,
    /// What was asked of the API.
    pub calls_answered: Calls,
    /// Retained messages of QoS 0 that a bound did not keep.
    pub retained_refused: Count,
    /// CONNECTs that found their session taken over too often.
    pub takeovers_refused: Count,
    /// CONNECTs that found the node short of memory.
    pub memory_refused: Count,
    /// Streams of the console beyond those that may be open.
    pub console_streams_refused: Count,
    /// Commands of sessions that a newer claim owned by then.
    pub stale_refused: Count,
    created: [Count; 2],
    delivered: [Count; 2],
    expired: [Count; 2],
    dropped: [[Count; DROP_REASONS.len()]; 2],
    refused: Family<RefusalLabel, Count>,
    publishes_denied: Family<DialectLabel, Count>,
    subscribes_denied: Family<DialectLabel, Count>,
    uplinks_unread: Family<DialectLabel, Count>,
    reports: Family<ReportLabel, Count>,
    downlinks_dropped: Family<ReasonLabel, Count>,
    /// Events that follow from the log and that the rules did not take in time.
    pub events_dropped: Count,
    calls: Family<OutcomeLabel, Count>,
    answers_dropped: Family<ReasonLabel, Count>,
    shadow_reports_dropped: Family<ReasonLabel, Count>,
    uplink_changes_dropped: Family<ReasonLabel, Count>,
    disconnects: Family<ReasonLabel, Count>,
    turned: Family<DoorLabel, Count>,
    banned: Family<KindLabel, Count>,
    /// Entries that are not in the audit.
    pub unaudited: Count,
    admin_refused: Family<ReasonLabel, Count>,
    pushes: Family<KindLabel, Count>,
    webhooks: Family<OutcomeLabel, Count>,
    sensoro: Family<OutcomeLabel, Count>,
    pub rule_events: RuleEvents,
    pub rule_actions: RuleActions,
    /// Sinks of actions that have failed, and are to be tried again.
    pub rule_sinks_failing: Gauge,
    backlogs_dropped: Family<ReasonLabel, Count>,
    /// Batch tasks that this node carries out.
    pub tasks_running: Gauge,
    task_targets: Family<OutcomeLabel, Count>,
    /// Watches of admins.
    pub watches: Gauge,
    watches_ended: Family<ReasonLabel, Count>,
    pub tls_files: TlsFiles,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const CLASSES: [&str; 2] = ["0", "1+"];

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("fulmar");
        let connections = Gauge::default();
        registry.register("connections", "Open client connections", connections.clone());
        let sessions_connected = Gauge::default();
        registry.register("sessions_connected", "Sessions with a connection", sessions_connected.clone());
        let connects = Count::default();
        registry.register("connects", "CONNECT packets accepted", connects.clone());
        let received_bytes = Count::default();
        registry.register("received_bytes", "Bytes read from clients", received_bytes.clone());
        let traffic = Traffic::register(&mut registry);
        let calls_answered = Calls::register(&mut registry);
        let retained_refused = Count::default();
        let help = "Retained messages of QoS 0 that a bound did not keep";
        registry.register("retained_refused", help, retained_refused.clone());
        let takeovers_refused = Count::default();
        let help = "CONNECTs refused because their session is taken over too often";
        registry.register("takeovers_refused", help, takeovers_refused.clone());
        let memory_refused = Count::default();
        let help = "CONNECTs refused because the node is short of memory";
        registry.register("memory_refused", help, memory_refused.clone());
        let console_streams_refused = Count::default();
        let help = "Streams of the web console refused because too many are open";
        registry.register("console_streams_refused", help, console_streams_refused.clone());
        let stale_refused = Count::default();
        let help = "Commands that were refused because a newer claim owned the session";
        registry.register("stale_refused", help, stale_refused.clone());
        let family = Family::<QosLabel, Count>::default();
        registry.register("publishes_received", "PUBLISH packets received from clients", family.clone());
        let received = ["0", "1", "2"].map(|qos| family.get_or_create(&QosLabel { qos }).clone());
        let mut by_class = |name: &str, help: &str| {
            let family = Family::<QosLabel, Count>::default();
            registry.register(name, help, family.clone());
            CLASSES.map(|qos| family.get_or_create(&QosLabel { qos }).clone())
        };
        let created = by_class("live_obligations", "Live deliveries taken on (publication x receiver)");
        let delivered = by_class("live_delivered", "Live deliveries written (QoS 0) or acknowledged (QoS 1, 2)");
        let expired = by_class("live_expired", "Live deliveries whose message expired before it was sent");
        let family = Family::<DropLabel, Count>::default();
        registry.register("live_dropped", "Live deliveries dropped, by the bound or cause", family.clone());
        let dropped =
            CLASSES.map(|qos| DROP_REASONS.map(|(_, reason)| family.get_or_create(&DropLabel { qos, reason }).clone()));
        let refused = Family::default();
        registry.register("connects_refused", "CONNECT packets refused, by dialect and reason", refused.clone());
        let publishes_denied = Family::default();
        registry.register(
            "publishes_denied",
            "PUBLISH packets to topics that are not allowed",
            publishes_denied.clone(),
        );
        let subscribes_denied = Family::default();
        registry.register(
            "subscribes_denied",
            "Filters refused because they are not allowed",
            subscribes_denied.clone(),
        );
        let uplinks_unread = Family::default();
        registry.register("uplinks_unread", "Uplinks that the platform could not read", uplinks_unread.clone());
        let reports = Family::default();
        registry.register("reports", "What devices have told, by kind", reports.clone());
        let downlinks_dropped = Family::default();
        let help = "Messages of the platform that their device did not get, by cause";
        registry.register("downlinks_dropped", help, downlinks_dropped.clone());
        let events_dropped = Count::default();
        let help = "Events that follow from the log and found too many others waiting for the rules";
        registry.register("events_dropped", help, events_dropped.clone());
        let calls = Family::default();
        registry.register("calls", "Requests to devices that this node has waited for, by outcome", calls.clone());
        let answers_dropped = Family::default();
        let help = "Answers of devices to requests that nobody waits for, by cause";
        registry.register("call_answers_dropped", help, answers_dropped.clone());
        let shadow_reports_dropped = Family::default();
        let help = "Reports of properties that were not put into a shadow, by cause";
        registry.register("shadow_reports_dropped", help, shadow_reports_dropped.clone());
        let uplink_changes_dropped = Family::default();
        let help = "Changes of the registry that a device asked for and that were not made, by cause";
        registry.register("uplink_changes_dropped", help, uplink_changes_dropped.clone());
        let disconnects = Family::default();
        registry.register("disconnects", "Sessions' connections ended, by reason", disconnects.clone());
        let turned = Family::default();
        registry.register("connections_turned_away", "Connections closed before CONNECT", turned.clone());
        let banned = Family::default();
        let help = "Connections refused or cut because of a ban, by what is banned";
        registry.register("banned", help, banned.clone());
        let unaudited = Count::default();
        let help = "Changes, attempts at them and failed sign-ins that are not in the audit, but in the log output";
        registry.register("unaudited", help, unaudited.clone());
        let admin_refused = Family::default();
        let help = "What the door for admins has refused: connections, requests with wrong tokens, too many at a time";
        registry.register("admin_refused", help, admin_refused.clone());
        let pushes = Family::default();
        let help = "Messages of rules for applications: live, cached while nobody listened, or drained from there";
        registry.register("pushes", help, pushes.clone());
        let webhooks = Family::default();
        registry.register(
            "webhook_attempts",
            "Requests to web servers of rules and callbacks, by outcome",
            webhooks.clone(),
        );
        let sensoro = Family::default();
        let help = "Records of Sensoro's applications, made of reports: pushed, or dropped by cause";
        registry.register("sensoro_records", help, sensoro.clone());
        let rule_events = RuleEvents::register(&mut registry);
        let rule_actions = RuleActions::register(&mut registry);
        let rule_sinks_failing = Gauge::default();
        let help = "Sinks of rules' actions on this node that have failed and are tried again";
        registry.register("rule_sinks_failing", help, rule_sinks_failing.clone());
        let backlogs_dropped = Family::default();
        let help = "Entries that backlogs of durable rules and applications have dropped, by reason";
        registry.register("backlogs_dropped", help, backlogs_dropped.clone());
        let tasks_running = Gauge::default();
        registry.register("batch_tasks_running", "Batch tasks that this node carries out", tasks_running.clone());
        let task_targets = Family::default();
        registry.register("batch_targets_done", "Targets of batch tasks, by what became of them", task_targets.clone());
        let watches = Gauge::default();
        registry.register("watches", "Watches of admins that this node serves", watches.clone());
        let watches_ended = Family::default();
        let help = "Watches of admins that this node has refused or ended, by reason";
        registry.register("watches_ended", help, watches_ended.clone());
        let tls_files = TlsFiles::register(&mut registry);
        Metrics {
            registry,
            tls_files,
            watches,
            watches_ended,
            connections,
            sessions_connected,
            connects,
            received,
            received_bytes,
            traffic,
            calls_answered,
            retained_refused,
            takeovers_refused,
            memory_refused,
            console_streams_refused,
            stale_refused,
            created,
            delivered,
            expired,
            dropped,
            refused,
            publishes_denied,
            subscribes_denied,
            uplinks_unread,
            reports,
            downlinks_dropped,
            events_dropped,
            calls,
            answers_dropped,
            shadow_reports_dropped,
            uplink_changes_dropped,
            disconnects,
            turned,
            banned,
            unaudited,
            admin_refused,
            pushes,
            webhooks,
            sensoro,
            rule_events,
            rule_actions,
            rule_sinks_failing,
            backlogs_dropped,
            tasks_running,
            task_targets,
        }
    }
}

impl Metrics {
    /// Counts PUBLISH packets of one QoS.
    pub fn received(&self, qos: QoS, count: u64) {
        self.received[qos as usize].inc_by(count);
    }

    /// Counts what the door for admins has not let in; `reason` is from a closed list.
    pub fn admin_refused(&self, reason: &'static str) {
        self.admin_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn connect_refused(&self, dialect: Dialect, reason: ReasonCode) {
        self.refused.get_or_create(&RefusalLabel { dialect: dialect.as_str(), reason: reason.text() }).inc();
    }

    pub fn publish_denied(&self, dialect: Dialect) {
        self.publishes_denied.get_or_create(&DialectLabel::of(dialect)).inc();
    }

    pub fn subscribe_denied(&self, dialect: Dialect) {
        self.subscribes_denied.get_or_create(&DialectLabel::of(dialect)).inc();
    }

    pub fn uplink_unread(&self, dialect: Dialect) {
        self.uplinks_unread.get_or_create(&DialectLabel::of(dialect)).inc();
    }

    /// Counts a report of this kind, from a closed list.
    pub fn reported(&self, dialect: Dialect, kind: &'static str) {
        self.reports.get_or_create(&ReportLabel { dialect: dialect.as_str(), kind }).inc();
    }

    /// Counts a message of the platform that was dropped; `reason` is from a closed list.
    pub fn downlink_dropped(&self, reason: &'static str) {
        self.downlinks_dropped.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a call that has ended so; `outcome` is from a closed list.
    pub fn called(&self, outcome: &'static str) {
        self.calls.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts an answer that nobody took; `reason` is from a closed list.
    pub fn answer_dropped(&self, reason: &'static str) {
        self.answers_dropped.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a report that a shadow did not take; `reason` is from a closed list.
    pub fn shadow_dropped(&self, reason: &'static str) {
        self.shadow_reports_dropped.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts changes of the registry that were not made; `reason` is from a closed list.
    pub fn uplink_changes_dropped(&self, reason: &'static str, count: u64) {
        self.uplink_changes_dropped.get_or_create(&ReasonLabel { reason }).inc_by(count);
    }

    pub fn disconnected(&self, reason: ReasonCode) {
        self.disconnects.get_or_create(&ReasonLabel { reason: reason.text() }).inc();
    }

    /// Counts messages for applications: `live`, `cached` or `drained`.
    pub fn pushed(&self, kind: &'static str, count: u64) {
        self.pushes.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    /// Counts a request to a web server; `outcome` is from a closed list.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a record of Sensoro's; `outcome` is from a closed list.
    pub fn sensoro(&self, outcome: &'static str) {
        self.sensoro.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A connection was refused, or cut, for a ban. `kind`: what is banned.
    pub fn banned(&self, kind: &'static str) {
        self.banned.get_or_create(&KindLabel { kind }).inc();
    }

    pub fn turned_away(&self, listener: &str, why: Turned) {
        self.turned.get_or_create(&DoorLabel { listener: listener.to_owned(), reason: why.label() }).inc();
    }

    /// Counts a target that this node has done; `outcome` is from a closed list.
    pub fn target_done(&self, outcome: &'static str) {
        self.task_targets.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Adds what a receiver's way out has counted.
    pub fn add_tally(&self, tally: &Tally) {
        if *tally == Tally::default() {
            return;
        }
        for class in 0..CLASSES.len() {
            for (counter, value) in
                [(&self.created, tally.created), (&self.delivered, tally.delivered), (&self.expired, tally.expired)]
            {
                if value[class] > 0 {
                    counter[class].inc_by(value[class]);
                }
            }
            for (counter, value) in self.dropped[class].iter().zip(tally.dropped[class]) {
                if value > 0 {
                    counter.inc_by(value);
                }
            }
        }
    }

    /// PUBLISH packets received, and deliveries sent, since the start.
    #[must_use]
    pub fn message_counts(&self) -> (u64, u64) {
        let received = self.received.iter().map(Counter::get).sum();
        let sent = self.delivered.iter().map(Counter::get).sum();
        (received, sent)
    }

    /// Key figures since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let sum = |counters: &[Count]| counters.iter().map(Counter::get).sum();
        Counts {
            received: sum(&self.received),
            received_bytes: self.received_bytes.get(),
            delivered: sum(&self.delivered),
            expired: sum(&self.expired),
            dropped: std::array::from_fn(|reason| self.dropped.iter().map(|class| class[reason].get()).sum()),
            connects: self.connects.get(),
        }
    }

    /// Counts a watch that the node has ended; `reason` is from a closed list.
    pub fn watch_ended(&self, reason: &'static str) {
        self.watches_ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Live obligations of QoS > 0 that are neither delivered, expired nor dropped: what is queued or in flight.
    #[must_use]
    pub fn live_open(&self) -> u64 {
        let ended = self.delivered[1].get() + self.expired[1].get();
        let dropped: u64 = self.dropped[1].iter().map(Counter::get).sum();
        self.created[1].get().saturating_sub(ended + dropped)
    }
}
