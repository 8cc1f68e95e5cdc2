//! Rare events by the name of a client: what was refused, dropped or ended, and why. Bounded for each client and in all;
//! the same event again only counts up.

use std::collections::{HashMap, VecDeque};

/// Events that are kept of one client, and of all.
pub const OF_CLIENT_MAX: usize = 16;
pub const OF_NODE_MAX: usize = 10_000;

/// Events a second that are written down; further ones are only counted as missed.
pub const A_SECOND_MAX: u64 = 1_000;

/// Characters of a topic that are kept, and of a detail.
const TEXT_MAX: usize = 256;

/// What happened. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    ConnectRefused,
    PublishDenied,
    SubscribeDenied,
    /// A publish was refused for a bound.
    PublishRefused,
    Dropped,
    Expired,
    TakenOver,
    /// The connection has ended, other than by DISCONNECT.
    Ended,
    /// Subscribed with less than was asked for.
    QosLowered,
}

impl What {
    pub const ALL: [What; 9] = [
        What::ConnectRefused,
        What::PublishDenied,
        What::SubscribeDenied,
        What::PublishRefused,
        What::Dropped,
        What::Expired,
        What::TakenOver,
        What::Ended,
        What::QosLowered,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            What::ConnectRefused => "connect_refused",
            What::PublishDenied => "publish_denied",
            What::SubscribeDenied => "subscribe_denied",
            What::PublishRefused => "publish_refused",
            What::Dropped => "dropped",
            What::Expired => "expired",
            What::TakenOver => "taken_over",
            What::Ended => "ended",
            What::QosLowered => "qos_lowered",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<What> {
        What::ALL.into_iter().find(|what| what.as_str() == text)
    }
}

/// One event, as often as it has happened in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub what: What,
    /// The bound, permission or condition.
    pub reason: String,
    /// Topic or filter; empty for none.
    pub topic: String,
    /// Of the session; 0 where there is none.
    pub epoch: u64,
    pub count: u64,
    /// Milliseconds since 1970 by this node's clock: of the first and of the last one.
    pub first_ms: u64,
    pub last_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    clients: HashMap<Box<str>, VecDeque<Incident>>,
    /// Whose event was the oldest, then the next; names of events that have gone are passed over.
    order: VecDeque<Box<str>>,
    len: usize,
    second: u64,
    this_second: u64,
    missed: u64,
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

impl Ledger {
    /// Writes down what has happened to a client.
    pub fn note(&mut self, client: &str, what: What, reason: &str, topic: &str, epoch: u64, now_ms: u64) {
        if self.second != now_ms / 1000 {
            (self.second, self.this_second) = (now_ms / 1000, 0);
        }
        self.this_second += 1;
        if self.this_second > A_SECOND_MAX {
            self.missed += 1;
            return;
        }
        let topic = cut(topic);
        let client: Box<str> = cut(client).into();
        let of = self.clients.entry(client.clone()).or_default();
        let same = |kept: &&mut Incident| {
            kept.what == what && kept.reason == reason && kept.topic == topic && kept.epoch == epoch
        };
        if let Some(kept) = of.iter_mut().find(same) {
            kept.count += 1;
            kept.last_ms = now_ms;
            return;
        }
        of.push_back(Incident { what, reason: cut(reason), topic, epoch, count: 1, first_ms: now_ms, last_ms: now_ms });
        self.len += 1;
        if of.len() > OF_CLIENT_MAX {
            of.pop_front();
            self.len -= 1;
        }
        self.order.push_back(client);
        while self.len > OF_NODE_MAX || self.order.len() > OF_NODE_MAX * 2 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget_one(&oldest);
        }
    }

    fn forget_one(&mut self, client: &str) {
        let Some(of) = self.clients.get_mut(client) else { return };
        if of.pop_front().is_some() {
            self.len -= 1;
        }
        if of.is_empty() {
            self.clients.remove(client);
        }
    }

    /// What is kept of a client, the oldest first.
    #[must_use]
    pub fn of(&self, client: &str) -> Vec<Incident> {
        self.clients.get(client).map(|of| of.iter().cloned().collect()).unwrap_or_default()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Events that came too fast to be written down.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_counts_up_and_each_client_has_its_bound() {
        let mut ledger = Ledger::default();
        for at in 0..3 {
            ledger.note("c", What::Dropped, "queue_full", "t", 1, at);
        }
        let of = ledger.of("c");
        assert_eq!((of.len(), of[0].count, of[0].first_ms, of[0].last_ms), (1, 3, 0, 2));
        for number in 0..40 {
            ledger.note("c", What::Dropped, "queue_full", &format!("t/{number}"), 1, 10 + number);
        }
        let of = ledger.of("c");
        assert_eq!((of.len(), ledger.len()), (OF_CLIENT_MAX, OF_CLIENT_MAX));
        assert_eq!(of.last().map(|last| &*last.topic), Some("t/39"));
        assert!(ledger.of("d").is_empty());
    }

    #[test]
    fn a_node_keeps_the_newest_and_misses_what_comes_too_fast() {
        let mut ledger = Ledger::default();
        for number in 0..OF_NODE_MAX as u64 + 500 {
            ledger.note(&format!("c{number}"), What::Ended, "r", "", 1, number * 10);
        }
        assert_eq!(ledger.len(), OF_NODE_MAX);
        assert!(ledger.of("c0").is_empty() && ledger.of("c10499").len() == 1);
        assert_eq!(ledger.missed(), 0);
        (0..A_SECOND_MAX + 5).for_each(|_| ledger.note("x", What::Ended, "r", "", 1, 1_000_000_000));
        assert_eq!(ledger.missed(), 5);
    }
}
