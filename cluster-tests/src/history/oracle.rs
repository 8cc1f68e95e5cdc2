//! Judges a history. Lost: acknowledged with QoS 1 or 2, and not delivered to a subscription that was there. Duplicated:
//! delivered twice where publisher and subscriber both use QoS 2. Reordered: delivered for the first time after a later
//! one of the same lane; groups of shared subscriptions have no order. Owners: connections of one client that the router
//! served at a time, asked only of what began after the newer CONNACK had come; what was under way then may still come.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_mqtt::QoS;

use super::filter::matches;
use super::{ConnectionId, LaneId, Records, Subscription, What};
use crate::sequence::{Arrival, Sequence};

/// Examples that a verdict names.
const EXAMPLES_MAX: usize = 12;

/// What became of all messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages, however often they were sent.
    pub sent: u64,
    pub acknowledged: u64,
    /// Over all receivers; a group of shared subscriptions is one. Repetitions aside.
    pub delivered: u64,
    pub lost: u64,
    /// Repetitions with QoS 2.
    pub duplicated: u64,
    /// Repetitions with QoS 1, which the standard allows.
    pub repeated: u64,
    pub reordered: u64,
    /// Most connections of one client that were served at a time.
    pub owners: u64,
    /// The first violations, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing was violated.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.owners <= 1
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// What publishers did with one message.
#[derive(Debug, Clone, Copy, Default)]
struct Publication {
    /// First written then; 0 if never.
    sent_ns: u64,
    acknowledged: bool,
}

/// Judges. Only of a history that is finished it can be said what was lost.
#[must_use]
pub fn judge(records: &Records, finished: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let publications = publications(records);
    for publication in publications.iter().flatten() {
        verdict.sent += u64::from(publication.sent_ns > 0);
        verdict.acknowledged += u64::from(publication.acknowledged);
    }
    deliveries(records, &publications, finished, &mut verdict);
    owners(records, &publications, &mut verdict);
    verdict
}

/// By lane and number.
fn publications(records: &Records) -> Vec<Vec<Publication>> {
    let mut publications = vec![Vec::new(); records.lanes.len()];
    let mut at = |lane: LaneId, number: u64, note: &mut dyn FnMut(&mut Publication)| {
        let lane: &mut Vec<Publication> = &mut publications[lane as usize];
        if lane.len() <= number as usize {
            lane.resize(number as usize + 1, Publication::default());
        }
        note(&mut lane[number as usize]);
    };
    for event in &records.events {
        match event.what {
            What::Sent { lane, number } => at(lane, number, &mut |publication| {
                if publication.sent_ns == 0 {
                    publication.sent_ns = event.at_ns;
                }
            }),
            What::Acknowledged { lane, number } => at(lane, number, &mut |publication| publication.acknowledged = true),
            What::Opened | What::Closed | What::Delivered { .. } => {}
        }
    }
    publications
}

/// One that gets each message once: a client, or a group of shared subscriptions with one filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Receiver {
    Client(String),
    Group(String, String),
}

impl Receiver {
    fn of(subscription: &Subscription) -> Receiver {
        match &subscription.group {
            Some(group) => Receiver::Group(group.clone(), subscription.filter.clone()),
            None => Receiver::Client(subscription.client_id.clone()),
        }
    }
}

/// What came to one receiver of one lane.
#[derive(Debug, Default)]
struct Arrivals {
    sequence: Sequence,
    /// QoS 2 all the way.
    exactly_once: bool,
}

fn deliveries(records: &Records, publications: &[Vec<Publication>], finished: bool, verdict: &mut Verdict) {
    let mut arrivals: BTreeMap<(Receiver, LaneId), Arrivals> = BTreeMap::new();
    // Which receiver a client stands for with a lane; and those for whom it was not there.
    let mut receivers: BTreeMap<(&str, LaneId), Option<(Receiver, QoS)>> = BTreeMap::new();
    let mut subscriptions: BTreeMap<&str, Vec<&Subscription>> = BTreeMap::new();
    for subscription in &records.subscriptions {
        subscriptions.entry(&subscription.client_id).or_default().push(subscription);
    }
    for event in &records.events {
        let What::Delivered { lane, number } = event.what else { continue };
        let client_id = records.connections[event.connection as usize].client_id.as_str();
        let found = receivers.entry((client_id, lane)).or_insert_with(|| {
            let topic = &records.lanes[lane as usize].topic;
            let own = subscriptions.get(client_id)?.iter().find(|subscription| matches(&subscription.filter, topic));
            own.map(|subscription| (Receiver::of(subscription), subscription.qos))
        });
        let lane_of = &records.lanes[lane as usize];
        let Some((receiver, qos)) = found.clone() else {
            verdict.example(|| format!("{client_id} got {number} of {}, and did not subscribe to it", lane_of.topic));
            verdict.duplicated += 1;
            continue;
        };
        let in_order = matches!(receiver, Receiver::Client(_));
        let arrivals = arrivals.entry((receiver, lane)).or_default();
        arrivals.exactly_once = qos.min(lane_of.qos) == QoS::ExactlyOnce;
        match arrivals.sequence.arrive(number) {
            Arrival::InOrder => {}
            Arrival::Reordered if !in_order => {}
            Arrival::Duplicate if !arrivals.exactly_once => verdict.repeated += 1,
            Arrival::Duplicate => {
                verdict.duplicated += 1;
                verdict.example(|| format!("{client_id} got {number} of {} twice, with QoS 2", lane_of.topic));
            }
            Arrival::Reordered => {
                verdict.reordered += 1;
                verdict.example(|| format!("{client_id} got {number} of {} after a later one", lane_of.topic));
            }
        }
    }
    verdict.delivered = arrivals.values().map(|arrivals| arrivals.sequence.delivered()).sum();
    if !finished {
        return;
    }
    for (receiver, lane, number) in missing(records, publications, &arrivals) {
        verdict.lost += 1;
        verdict.example(|| format!("{receiver:?} did not get {number} of {}", records.lanes[lane as usize].topic));
    }
}

/// What was acknowledged after the SUBACK of a receiver that stayed to the end, and did not come.
fn missing(
    records: &Records,
    publications: &[Vec<Publication>],
    arrivals: &BTreeMap<(Receiver, LaneId), Arrivals>,
) -> Vec<(Receiver, LaneId, u64)> {
    let closed: BTreeSet<ConnectionId> =
        records.events.iter().filter(|event| event.what == What::Closed).map(|event| event.connection).collect();
    // From when on a receiver is owed messages: with a group, from its first member that stays.
    let mut since: BTreeMap<(Receiver, LaneId), u64> = BTreeMap::new();
    let mut by_topic: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (lane, lane_of) in records.lanes.iter().enumerate() {
        by_topic.entry(&lane_of.topic).or_default().push(lane);
    }
    for subscription in &records.subscriptions {
        let stays = subscription.ends_with.is_none_or(|connection| !closed.contains(&connection));
        if !stays || subscription.qos == QoS::AtMostOnce {
            continue;
        }
        // Where there are many of both, nearly all filters are one topic.
        let lanes: Vec<usize> = match subscription.filter.contains(['+', '#']) {
            true => (0..records.lanes.len()).collect(),
            false => by_topic.get(subscription.filter.as_str()).cloned().unwrap_or_default(),
        };
        for lane in lanes {
            let lane_of = &records.lanes[lane];
            if lane_of.qos > QoS::AtMostOnce && matches(&subscription.filter, &lane_of.topic) {
                let since = since.entry((Receiver::of(subscription), lane as LaneId)).or_insert(u64::MAX);
                *since = (*since).min(subscription.since_ns);
            }
        }
    }
    let mut missing = Vec::new();
    for ((receiver, lane), since_ns) in since {
        let came = arrivals.get(&(receiver.clone(), lane));
        for (number, publication) in publications[lane as usize].iter().enumerate() {
            let owed = publication.acknowledged && publication.sent_ns > since_ns;
            if owed && !came.is_some_and(|arrivals| arrivals.sequence.has(number as u64)) {
                missing.push((receiver.clone(), lane, number as u64));
            }
        }
    }
    missing
}

/// For each client the connections, each with its CONNACK's time, and who was served though a newer one was there.
fn owners(records: &Records, publications: &[Vec<Publication>], verdict: &mut Verdict) {
    // When the next connection of the same client was welcomed.
    let mut opened: BTreeMap<ConnectionId, u64> = BTreeMap::new();
    for event in records.events.iter().filter(|event| event.what == What::Opened) {
        opened.insert(event.connection, event.at_ns);
    }
    let mut newest: BTreeMap<&str, ConnectionId> = BTreeMap::new();
    let mut replaced: BTreeMap<ConnectionId, (u64, ConnectionId)> = BTreeMap::new();
    for (connection, at_ns) in &opened {
        let client_id = records.connections[*connection as usize].client_id.as_str();
        if let Some(before) = newest.insert(client_id, *connection) {
            replaced.insert(before, (*at_ns, *connection));
        }
    }
    verdict.owners = u64::from(!opened.is_empty());
    // By the connection that should have been alone: the older ones that were served beside it.
    let mut beside: BTreeMap<ConnectionId, BTreeSet<ConnectionId>> = BTreeMap::new();
    let mut sent: BTreeMap<(ConnectionId, LaneId, u64), u64> = BTreeMap::new();
    for event in &records.events {
        let Some((replaced_ns, by)) = replaced.get(&event.connection).copied() else { continue };
        let (began_ns, lane, number, how) = match event.what {
            What::Sent { lane, number } => {
                sent.insert((event.connection, lane, number), event.at_ns);
                continue;
            }
            What::Acknowledged { lane, number } => {
                let began = sent.get(&(event.connection, lane, number)).copied().unwrap_or(0);
                (began, lane, number, "had acknowledged")
            }
            What::Delivered { lane, number } => {
                let published = publications[lane as usize].get(number as usize);
                (published.map_or(0, |publication| publication.sent_ns), lane, number, "got")
            }
            What::Opened | What::Closed => continue,
        };
        if began_ns > replaced_ns && beside.entry(by).or_default().insert(event.connection) {
            let (old, new) = (&records.connections[event.connection as usize], &records.connections[by as usize]);
            verdict.example(|| {
                format!(
                    "{} on node {} {how} {number} of {}, sent {} us after it was welcomed on node {}",
                    old.client_id,
                    old.node,
                    records.lanes[lane as usize].topic,
                    (began_ns - replaced_ns) / 1000,
                    new.node
                )
            });
        }
    }
    let most = beside.values().map(|older| older.len() as u64 + 1).max().unwrap_or(0);
    verdict.owners = verdict.owners.max(most);
}

#[cfg(test)]
mod tests {
    use super::super::History;
    use super::*;

    const QOS2: QoS = QoS::ExactlyOnce;

    /// A history with a persistent subscriber to `t/#` on connection 0, a publisher on 1, and one lane.
    fn begun(qos: QoS, filter: &str) -> (History, LaneId) {
        let history = History::default();
        let lane = history.lane("t/1", qos);
        history.opened("s", 0);
        history.opened("p", 1);
        history.subscribed(0, filter, QOS2, true);
        (history, lane)
    }

    fn publish(history: &History, lane: LaneId, number: u64) {
        history.record(1, What::Sent { lane, number });
        history.record(1, What::Acknowledged { lane, number });
    }

    fn deliver(history: &History, lane: LaneId, number: u64) {
        history.record(0, What::Delivered { lane, number });
    }

    #[test]
    fn what_is_as_promised_is_good() {
        let (history, lane) = begun(QOS2, "t/#");
        for number in 0..5 {
            publish(&history, lane, number);
            deliver(&history, lane, number);
        }
        // Sent, and nobody was told that it arrived.
        history.record(1, What::Sent { lane, number: 5 });
        let verdict = history.judge();
        let expected = Verdict { sent: 6, acknowledged: 5, delivered: 5, owners: 1, ..Verdict::default() };
        assert_eq!(verdict, expected);
        assert!(verdict.is_good());
    }

    #[test]
    fn what_is_missing_twice_or_late_is_told() {
        let (history, lane) = begun(QOS2, "t/#");
        (0..5).for_each(|number| publish(&history, lane, number));
        [0, 2, 1, 1, 3].iter().for_each(|number| deliver(&history, lane, *number));
        let verdict = history.judge();
        assert_eq!((verdict.lost, verdict.duplicated, verdict.reordered, verdict.delivered), (1, 1, 1, 4));
        assert_eq!(verdict.examples.len(), 3);
        assert_eq!(history.judge_unfinished().lost, 0);
        assert!(!verdict.is_good());

        let (history, lane) = begun(QoS::AtLeastOnce, "t/#");
        publish(&history, lane, 0);
        [0, 0].iter().for_each(|number| deliver(&history, lane, *number));
        let verdict = history.judge();
        assert_eq!((verdict.repeated, verdict.duplicated), (1, 0));
        assert!(verdict.is_good());
    }

    #[test]
    fn a_group_is_one_receiver_without_order() {
        let (history, lane) = begun(QOS2, "$share/g/t/#");
        let other = history.opened("other", 2);
        history.subscribed(other, "$share/g/t/#", QOS2, false);
        (0..4).for_each(|number| publish(&history, lane, number));
        deliver(&history, lane, 1);
        history.record(other, What::Delivered { lane, number: 0 });
        deliver(&history, lane, 3);
        assert_eq!(history.judge().lost, 1);
        history.record(other, What::Delivered { lane, number: 2 });
        assert!(history.judge().is_good());
        history.record(other, What::Delivered { lane, number: 3 });
        assert_eq!(history.judge().duplicated, 1);
    }

    #[test]
    fn who_left_or_came_late_is_owed_nothing() {
        let history = History::default();
        let lane = history.lane("t/1", QOS2);
        history.opened("s", 0);
        history.opened("p", 1);
        publish(&history, lane, 0);
        history.subscribed(0, "t/+", QOS2, false);
        publish(&history, lane, 1);
        assert_eq!(history.judge().lost, 1);
        history.record(0, What::Closed);
        assert_eq!(history.judge().lost, 0);
        deliver(&history, history.lane("elsewhere", QOS2), 0);
        assert_eq!(history.judge().duplicated, 1, "nobody asked for it");
    }

    #[test]
    fn two_owners_are_told_by_what_began_after_the_newer_one() {
        let history = History::default();
        let lane = history.lane("t/1", QoS::AtLeastOnce);
        let (old, publisher) = (history.opened("c", 0), history.opened("p", 1));
        history.subscribed(old, "t/#", QOS2, true);
        history.record(old, What::Sent { lane, number: 0 });
        history.record(publisher, What::Sent { lane, number: 1 });
        let new = history.opened("c", 1);
        // Under way when the newer was welcomed.
        history.record(old, What::Acknowledged { lane, number: 0 });
        history.record(old, What::Delivered { lane, number: 1 });
        history.record(old, What::Sent { lane, number: 2 });
        history.record(new, What::Sent { lane, number: 2 });
        history.record(new, What::Acknowledged { lane, number: 2 });
        assert_eq!(history.judge().owners, 1);
        history.record(old, What::Acknowledged { lane, number: 2 });
        let verdict = history.judge();
        assert_eq!(verdict.owners, 2);
        let told = |example: &String| example.contains("c on node 0 had acknowledged 2 of t/1");
        assert!(verdict.examples.iter().any(told), "{:?}", verdict.examples);

        let history = History::default();
        let lane = history.lane("t/1", QoS::AtLeastOnce);
        let (old, publisher) = (history.opened("c", 0), history.opened("p", 1));
        history.subscribed(old, "t/#", QOS2, true);
        history.opened("c", 2);
        history.record(publisher, What::Sent { lane, number: 0 });
        history.record(old, What::Delivered { lane, number: 0 });
        assert_eq!(history.judge().owners, 2);
    }
}
