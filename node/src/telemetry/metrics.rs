//! Counters of this node. Handles are fields, so that counting is one atomic addition.

use std::sync::atomic::AtomicU64;

use fulmar_broker::outbound::{DROP_REASONS, Tally};
use fulmar_mqtt::{QoS, ReasonCode};
use fulmar_platform::Dialect;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Count = Counter<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QosLabel {
    qos: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    qos: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabel {
    dialect: &'static str,
}

impl DialectLabel {
    fn of(dialect: Dialect) -> DialectLabel {
        DialectLabel { dialect: dialect.as_str() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    dialect: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabel {
    dialect: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabel {
    listener: String,
    reason: &'static str,
}

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
        }
    }
}

/// A figure that is read when it is asked for.
#[derive(Debug)]
pub struct Reading {
    pub name: &'static str,
    pub help: &'static str,
    /// One value, or one for each value of a label from a closed list: (name, value) of the label, and the figure.
    pub values: Vec<(Option<(&'static str, &'static str)>, u64)>,
}

impl Reading {
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, value: u64) -> Reading {
        Reading { name, help, values: vec![(None, value)] }
    }
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub sessions_connected: Gauge,
    pub connects: Count,
    received: [Count; 3],
    pub received_bytes: Count,
    /// Retained messages of QoS 0 that a bound did not keep.
    pub retained_refused: Count,
    /// CONNECTs that found their session taken over too often.
    pub takeovers_refused: Count,
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
    disconnects: Family<ReasonLabel, Count>,
    turned: Family<DoorLabel, Count>,
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
        let retained_refused = Count::default();
        let help = "Retained messages of QoS 0 that a bound did not keep";
        registry.register("retained_refused", help, retained_refused.clone());
        let takeovers_refused = Count::default();
        let help = "CONNECTs refused because their session is taken over too often";
        registry.register("takeovers_refused", help, takeovers_refused.clone());
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
        let disconnects = Family::default();
        registry.register("disconnects", "Sessions' connections ended, by reason", disconnects.clone());
        let turned = Family::default();
        registry.register("connections_turned_away", "Connections closed before CONNECT", turned.clone());
        Metrics {
            registry,
            connections,
            sessions_connected,
            connects,
            received,
            received_bytes,
            retained_refused,
            takeovers_refused,
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
            disconnects,
            turned,
        }
    }
}

impl Metrics {
    /// Counts PUBLISH packets of one QoS.
    pub fn received(&self, qos: QoS, count: u64) {
        self.received[qos as usize].inc_by(count);
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

    pub fn disconnected(&self, reason: ReasonCode) {
        self.disconnects.get_or_create(&ReasonLabel { reason: reason.text() }).inc();
    }

    pub fn turned_away(&self, listener: &str, why: Turned) {
        self.turned.get_or_create(&DoorLabel { listener: listener.to_owned(), reason: why.label() }).inc();
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

    /// Live obligations of QoS > 0 that are neither delivered, expired nor dropped: what is queued or in flight.
    #[must_use]
    pub fn live_open(&self) -> u64 {
        let ended = self.delivered[1].get() + self.expired[1].get();
        let dropped: u64 = self.dropped[1].iter().map(Counter::get).sum();
        self.created[1].get().saturating_sub(ended + dropped)
    }

    /// The Prometheus text form of the counters, and of figures that are read at this moment.
    #[must_use]
    pub fn render(&self, now: &[Reading]) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.registry);
        for Reading { name, help, values } in now {
            text.push_str(&format!("# HELP fulmar_{name} {help}.\n# TYPE fulmar_{name} gauge\n"));
            for (label, value) in values {
                let label = label.map(|(name, of)| format!("{{{name}=\"{of}\"}}")).unwrap_or_default();
                text.push_str(&format!("fulmar_{name}{label} {value}\n"));
            }
        }
        text.push_str("# EOF\n");
        text
    }
}
