//! What clients saw, in one order: every publish with its acknowledgement, every delivery, every connection from its
//! CONNACK to its end. [`oracle`] judges it. Absent here: whoever publishes, and any judgement.

mod filter;
pub mod oracle;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fulmar_mqtt::QoS;

use crate::sys::monotonic_ns;
pub use oracle::Verdict;

/// A topic that one publisher numbers through from 0.
pub type LaneId = u32;

/// A connection that was welcomed, numbered in the order of the CONNACKs.
pub type ConnectionId = u32;

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// CONNACK came, and accepts.
    Opened,
    Closed,
    /// A PUBLISH is about to be written, for the first time or again.
    Sent {
        lane: LaneId,
        number: u64,
    },
    /// PUBACK, or for QoS 2 PUBREC, came: the message is the router's.
    Acknowledged {
        lane: LaneId,
        number: u64,
    },
    /// A message came; with QoS 2 only what begins an exchange.
    Delivered {
        lane: LaneId,
        number: u64,
    },
}

/// When it happened, by the monotonic clock of this process, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub at_ns: u64,
    pub connection: ConnectionId,
    pub what: What,
}

/// A topic, and what it is published with.
#[derive(Debug, Clone)]
pub struct Lane {
    pub topic: String,
    pub qos: QoS,
}

/// Who a connection is, and to which node.
#[derive(Debug, Clone)]
pub struct Connection {
    pub client_id: String,
    pub node: usize,
}

/// What a client was granted. A client's filters must not overlap.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub client_id: String,
    /// Without `$share/GROUP/`.
    pub filter: String,
    pub group: Option<String>,
    pub qos: QoS,
    /// The connection that it ends with; absent if its session stays.
    pub ends_with: Option<ConnectionId>,
    /// When the SUBACK had come.
    pub since_ns: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub events: Vec<Event>,
    pub lanes: Vec<Lane>,
    pub connections: Vec<Connection>,
    pub subscriptions: Vec<Subscription>,
}

/// What clients write their [`Records`] into.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

impl History {
    /// A new lane.
    pub fn lane(&self, topic: &str, qos: QoS) -> LaneId {
        let mut records = self.records();
        records.lanes.push(Lane { topic: topic.to_owned(), qos });
        (records.lanes.len() - 1) as LaneId
    }

    /// CONNACK came.
    pub fn opened(&self, client_id: &str, node: usize) -> ConnectionId {
        let mut records = self.records();
        records.connections.push(Connection { client_id: client_id.to_owned(), node });
        let connection = (records.connections.len() - 1) as ConnectionId;
        records.push(connection, What::Opened);
        connection
    }

    /// SUBACK came for this filter; `persistent` if the session outlives the connection.
    pub fn subscribed(&self, connection: ConnectionId, filter: &str, qos: QoS, persistent: bool) {
        let mut records = self.records();
        let client_id = records.connections[connection as usize].client_id.clone();
        let (group, filter) = match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((group, filter)) => (Some(group.to_owned()), filter.to_owned()),
            None => (None, filter.to_owned()),
        };
        let ends_with = (!persistent).then_some(connection);
        let since_ns = monotonic_ns();
        records.subscriptions.push(Subscription { client_id, filter, group, qos, ends_with, since_ns });
    }

    pub fn record(&self, connection: ConnectionId, what: What) {
        self.records().push(connection, what);
    }

    /// Everything so far.
    #[must_use]
    pub fn so_far(&self) -> Records {
        self.records().clone()
    }

    /// Judges everything so far, as if nothing were under way.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        // A copy: whoever records meanwhile does not wait.
        oracle::judge(&self.so_far(), true)
    }

    /// Judges everything so far, except what has not come yet.
    #[must_use]
    pub fn judge_unfinished(&self) -> Verdict {
        oracle::judge(&self.so_far(), false)
    }

    /// How many connections of each client there were.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for connection in &self.records().connections {
            *counts.entry(connection.client_id.clone()).or_default() += 1;
        }
        counts
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn push(&mut self, connection: ConnectionId, what: What) {
        // Under the lock: the order of the list is the order of the stamps.
        self.events.push(Event { at_ns: monotonic_ns(), connection, what });
    }
}
