//! The clients of a played cluster: devices, which publish now and then and are sent messages, and the applications behind
//! them, all with persistent sessions and QoS 1, all through the Service; and what they felt of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fulmar_mqtt::{QoS, Version};
use rand::prelude::*;

use crate::history::{History, Records, Verdict, What};
use crate::load::Doors;
use crate::rest;
use crate::scenarios::clients::{Clients, Device, Listener};
use crate::sys::monotonic_ns;

/// Groups of devices; each has this many applications that get every uplink, and one that sends downlinks.
const GROUPS: usize = 4;
const APPLICATIONS: usize = 2;

/// Messages a second, of all devices and to all devices.
const UPLINKS_PER_S: f64 = 100.0;
const DOWNLINKS_PER_S: f64 = 50.0;

/// A client that hears nothing for so long opens another connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Fleet {
    clients: Clients,
    pub(super) history: Arc<History>,
    /// When all were connected.
    since_ns: u64,
}

/// What clients felt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Felt {
    /// Connections after the first of each client, and the most of them within any second.
    pub reconnects: u64,
    pub reconnects_per_s: u64,
    /// The longest that any client was without an answer: from the end of a connection to the next CONNACK, or from a
    /// PUBLISH to its PUBACK, over as many connections as that takes; and whose it was.
    pub longest_pause: Duration,
    pub whose: String,
}

impl Fleet {
    /// Connects so many devices, and the applications.
    ///
    /// # Errors
    /// One does not come in.
    pub(super) async fn start(doors: Arc<Doors>, devices: usize, seed: u64) -> Result<Fleet> {
        let history = Arc::new(History::default());
        let credentials = Some((rest::USER, rest::PASSWORD));
        let mut clients = Clients::with(history.clone(), doors, PATIENCE, credentials);
        let mut random = StdRng::seed_from_u64(seed);
        let applications = (0..GROUPS * APPLICATIONS).map(|index| {
            let filter = format!("up/{}/#", index % GROUPS);
            Listener::new(&format!("application-{index}"), &filter, QoS::AtLeastOnce, true, index)
        });
        clients.listen_all(applications.collect()).await?;
        let every = Duration::from_secs_f64(devices as f64 / UPLINKS_PER_S);
        let mut down = vec![Vec::new(); GROUPS];
        let mut fleet = Vec::new();
        for index in 0..devices {
            let version = if index % 2 == 0 { Version::V311 } else { Version::V5 };
            let group = index % GROUPS;
            let up = clients.topic(&format!("up/{group}/{index}"), QoS::AtLeastOnce);
            let own = format!("down/{index}");
            down[group].push(clients.topic(&own, QoS::AtLeastOnce));
            fleet.push(Device::new(&format!("device-{index}"), version, (up, every), &own, random.random()));
        }
        clients.devices(fleet).await?;
        let pause = Duration::from_secs_f64(GROUPS as f64 / DOWNLINKS_PER_S);
        for (group, topics) in down.into_iter().enumerate().filter(|(_, topics)| !topics.is_empty()) {
            clients.speak(&format!("sender-{group}"), topics, pause);
        }
        Ok(Fleet { clients, history, since_ns: monotonic_ns() })
    }

    /// Lets everybody come to an end, and waits until nothing that was acknowledged is missing.
    ///
    /// # Errors
    /// Publishers do not end.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.clients.settle().await
    }

    /// What came of it; only if all have come to their end it can be said what was lost.
    pub(super) fn judge(&self, finished: bool) -> (Verdict, Felt) {
        let verdict = if finished { self.history.judge() } else { self.history.judge_unfinished() };
        (verdict, felt(&self.history.so_far(), self.since_ns))
    }

    pub(super) fn acknowledged(&self) -> u64 {
        let records = self.history.so_far();
        records.events.iter().filter(|event| matches!(event.what, What::Acknowledged { .. })).count() as u64
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.clients.problems()
    }
}

/// What was felt from then on.
fn felt(records: &Records, since_ns: u64) -> Felt {
    let mut felt = Felt::default();
    let longest = |felt: &mut Felt, from_ns: u64, to_ns: u64, whose: &dyn Fn() -> String| {
        let pause = Duration::from_nanos(to_ns.saturating_sub(from_ns));
        if pause > felt.longest_pause {
            (felt.longest_pause, felt.whose) = (pause, whose());
        }
    };
    // By client: since when it has had no connection.
    let mut closed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut sent = BTreeMap::new();
    let mut opened = Vec::new();
    for event in records.events.iter().filter(|event| event.at_ns >= since_ns) {
        let client_id = records.connections[event.connection as usize].client_id.as_str();
        match event.what {
            What::Opened => {
                if let Some(since) = closed.remove(client_id) {
                    longest(&mut felt, since, event.at_ns, &|| format!("{client_id}'s connection"));
                    opened.push(event.at_ns);
                }
            }
            What::Closed => drop(closed.insert(client_id, event.at_ns)),
            What::Sent { lane, number } => drop(sent.entry((lane, number)).or_insert(event.at_ns)),
            What::Acknowledged { lane, number } => {
                if let Some(since) = sent.remove(&(lane, number)) {
                    longest(&mut felt, since, event.at_ns, &|| format!("{client_id}'s message {number}"));
                }
            }
            What::Delivered { .. } => {}
        }
    }
    felt.reconnects = opened.len() as u64;
    felt.reconnects_per_s = within_a_second(&opened) as u64;
    felt
}

/// The most of these times, in order, that lie within one second.
fn within_a_second(times_ns: &[u64]) -> usize {
    let mut first = 0;
    let counts = times_ns.iter().enumerate().map(|(last, at)| {
        while times_ns[first] + 1_000_000_000 <= *at {
            first += 1;
        }
        last + 1 - first
    });
    counts.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Connection, Event};

    #[test]
    fn pauses_and_reconnects_are_counted() {
        const S: u64 = 1_000_000_000;
        let connections = ["a", "b", "a", "b"].map(|id| Connection { client_id: id.into(), node: 0 });
        let event = |at_ns, connection, what| Event { at_ns, connection, what };
        let (sent, acknowledged) = (What::Sent { lane: 0, number: 0 }, What::Acknowledged { lane: 0, number: 0 });
        let events = vec![
            event(1, 0, What::Opened),
            event(2, 1, What::Opened),
            event(10, 0, sent),
            event(20, 0, What::Closed),
            event(30, 1, What::Closed),
            event(S, 2, What::Opened),
            event(S + 1, 3, What::Opened),
            event(S + 2, 2, sent),
            event(3 * S + 10, 2, acknowledged),
        ];
        let records = Records { events, connections: connections.into(), ..Records::default() };
        let felt = felt(&records, 5);
        assert_eq!((felt.reconnects, felt.reconnects_per_s), (2, 2));
        assert_eq!((felt.longest_pause, felt.whose.as_str()), (Duration::from_secs(3), "a's message 0"));
        assert_eq!(within_a_second(&[0, 1, S, S + 1, S + 2]), 4 - 1);
        assert_eq!(within_a_second(&[]), 0);
    }
}
