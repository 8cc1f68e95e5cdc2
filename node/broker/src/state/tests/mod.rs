//! Tests of the replicated state: tables per rule, and a model that runs two replicas side by side.

mod bounds;
mod claims;
mod delivery;
mod devices;
mod expansion;
mod image;
mod live;
mod looks;
mod model;
mod origins;
mod restore;
mod retained;
mod seats;
mod shared;
mod wills;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::packet::SubscriptionOptions;
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::command::{Batch, Claim, Claimed, Command, Effect, Limits, Outcome, PublishCommand, Release};
use super::command::{LiveRoutes, QueueEntry, SessionEvent, Settlement, Subscription, Will};
use super::ledger::{ENTRY_BYTES, RETAINED_BYTES, body_bytes, will_bytes};
use super::live::{LiveKey, LiveRoutesOfRuns};
use super::subscriptions::RouteKey;
use super::{State, queue::Queue};
use crate::key::{Epoch, Generation, LogTime, NodeId, SessionKey};
use crate::publication::{Publication, Via};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn key(name: &str) -> SessionKey {
    SessionKey::new("default", "generic", name)
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn subscription(text: &str, qos: QoS) -> Subscription {
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    Subscription { filter: filter(text), options, id: None }
}

fn message(to: &str, payload: &str, qos: QoS) -> Publication {
    Publication {
        topic: topic(to),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at: LogTime(0),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    }
}

fn will(to: &str, delay_s: u32) -> Will {
    let publication = Arc::new(message(to, "gone", QoS::AtLeastOnce));
    Will { publication, message_expiry_s: None, delay_s }
}

fn claim(name: &str, node: NodeId, expiry_s: u32) -> Claim {
    Claim {
        key: key(name),
        node,
        generation: Generation(1),
        clean_start: false,
        expiry_s,
        will: None,
        exclusive_client_id: None,
        judged_by: None,
    }
}

fn publish(publication: Publication) -> Command {
    Command::Publish(Box::new(PublishCommand {
        publication: Arc::new(publication),
        received: None,
        only: None,
        epoch: None,
    }))
}

fn up(node: NodeId, generation: u64) -> Command {
    Command::NodeUp { node, generation: Generation(generation), address: "".into() }
}

fn down(node: NodeId) -> Command {
    Command::NodeDown { node, generation: Generation(1) }
}

/// A state with two nodes, driven as if by node 1, or by node 9 where node 1 is dead.
struct Bench {
    state: State,
    seqs: BTreeMap<NodeId, u64>,
    at: LogTime,
    effects: Vec<Effect>,
    /// What was told of sessions, which is not among `effects`.
    told: Vec<SessionEvent>,
    driver: NodeId,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Limits::default())
    }

    fn with(limits: Limits) -> Bench {
        let seqs = BTreeMap::new();
        let mut bench =
            Bench { state: State::new(limits), seqs, at: LogTime(0), effects: vec![], told: vec![], driver: NodeId(9) };
        for node in [ONE, TWO] {
            bench.run(up(node, 1));
        }
        bench
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.run_all(vec![command]).pop().unwrap()
    }

    /// Applies a batch and audits the state; its effects are in `self.effects`.
    fn run_all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let seq = self.seqs.entry(self.driver).or_default();
        *seq += 1;
        let (node, generation) = (self.driver, Generation(1));
        let batch = Batch { node, generation, seq: *seq, term: None, at: self.at, commands };
        self.effects.clear();
        let outcomes = self.state.apply(&batch, &mut self.effects).unwrap();
        self.told.clear();
        self.effects.retain(|effect| match effect {
            Effect::Session(event) => {
                self.told.push(event.clone());
                false
            }
            _ => true,
        });
        audit(&self.state);
        outcomes
    }

    fn pass_s(&mut self, seconds: u64) {
        self.at = self.at.plus_s(seconds);
    }

    /// Applies what is due until nothing is, as the leader does.
    fn settle_due(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..1000 {
            let commands = self.state.due(self.at, usize::MAX);
            if commands.is_empty() {
                return effects;
            }
            self.run_all(commands);
            effects.append(&mut self.effects);
        }
        panic!("something is due for ever");
    }

    fn claim(&mut self, claim: Claim) -> Claimed {
        match self.run(Command::Claim(Box::new(claim))) {
            Outcome::Claimed(claimed) => *claimed,
            other => panic!("{other:?}"),
        }
    }

    /// A persistent session on node 1 with these filters.
    fn session(&mut self, name: &str, filters: &[(&str, QoS)]) -> Epoch {
        let epoch = self.claim(claim(name, ONE, 3600)).epoch;
        self.subscribe(name, epoch, filters);
        epoch
    }

    fn subscribe(&mut self, name: &str, epoch: Epoch, filters: &[(&str, QoS)]) -> Outcome {
        let filters = filters.iter().map(|(text, qos)| subscription(text, *qos)).collect();
        self.run(Command::Subscribe { key: key(name), epoch, filters })
    }

    fn release(&mut self, name: &str, epoch: Epoch) -> Outcome {
        self.run(Command::Release(Release {
            key: key(name),
            epoch,
            discard_will: false,
            expiry_s: None,
            sent_below: None,
        }))
    }

    fn publish(&mut self, to: &str, payload: &str, qos: QoS) -> Outcome {
        self.run(publish(message(to, payload, qos)))
    }

    fn queue(&self, name: &str) -> Vec<QueueEntry> {
        let Some(view) = self.state.session(&key(name)) else {
            return Vec::new();
        };
        self.state.read_queue(&key(name), view.epoch, 0, usize::MAX, usize::MAX)
    }

    fn payloads(&self, name: &str) -> Vec<String> {
        let payload = |entry: &QueueEntry| String::from_utf8(entry.delivery.publication.payload.to_vec()).unwrap();
        self.queue(name).iter().map(payload).collect()
    }

    fn settle(&mut self, name: &str, epoch: Epoch, floor: u64, settled: &[u64]) {
        let settled = settled.to_vec();
        let settlement = Settlement { key: key(name), epoch, floor, settled, received: vec![], refused: vec![] };
        self.run(Command::Settle(vec![settlement]));
    }
}

/// What must hold after every batch: the books balance, the bytes are what is there, and what is derived equals what a
/// restore derives.
fn audit(state: &State) {
    let sessions: Vec<_> = state.kept.sessions.iter().collect();
    let expansions = state.kept.expansions.iter();
    let waiting: Vec<_> = expansions.flat_map(|e| e.receivers.iter().map(|receiver| e.entry(receiver))).collect();
    assert_eq!(state.expanding(), waiting.len() as u64);
    for expansion in state.kept.expansions.iter() {
        assert!(!expansion.receivers.is_empty() && expansion.receivers.is_sorted_by(|one, next| one.key >= next.key));
        assert!(expansion.receivers.iter().all(|receiver| state.kept.sessions.contains_key(&receiver.key)));
    }
    let queued = || sessions.iter().filter_map(|(_, s)| s.queue()).flat_map(Queue::iter).map(|(_, entry)| entry);
    let entries = || queued().chain(&waiting);
    assert_eq!(state.books().unaccounted(), 0, "{:?}", state.books());
    assert_eq!(state.books().queued, entries().count() as u64);
    let mut bytes = 0;
    let mut bodies = BTreeMap::new();
    for entry in entries() {
        bytes += ENTRY_BYTES;
        if entry.body == 0 {
            bytes += body_bytes(&entry.publication);
        } else {
            bodies.insert(entry.body, &entry.publication);
        }
    }
    // In a restore a retained message comes before the queues that refer to it.
    assert!(state.kept.ledger.bodies() == bodies.len() || state.restoring());
    let retained = |p: &Arc<Publication>| state.retained().get(&p.topic).is_some_and(|have| Arc::ptr_eq(have, p));
    bytes += bodies.values().filter(|p| !retained(p)).map(|p| body_bytes(p)).sum::<u64>();
    bytes += state.retained().iter().map(|p| RETAINED_BYTES + body_bytes(p)).sum::<u64>();
    bytes += sessions.iter().filter_map(|(_, s)| s.will.as_ref()).map(|will| will_bytes(will)).sum::<u64>();
    assert_eq!(state.bytes(), bytes);
    for (_, session) in &sessions {
        let Some(queue) = session.queue() else { continue };
        assert_eq!(queue.bytes, queue.iter().map(|(_, entry)| entry.cost()).sum::<u64>());
        assert!(queue.next_seq - queue.floor() < 65_535);
    }
    let expiring: Vec<_> = state.retained().iter().filter_map(|p| Some((p.expires_at?, p.topic.clone()))).collect();
    assert_eq!(state.kept.retained_due.size(), expiring.len());
    assert!(expiring.iter().all(|at| state.kept.retained_due.contains_key(at)));
    let rebuilt = State::restore(state.snapshot());
    assert_eq!(rebuilt.snapshot(), state.snapshot());
    assert_eq!(rebuilt.timers, state.timers);
    assert_eq!(rebuilt.seats, state.seats);
    assert_eq!(rebuilt.routes.len(), state.routes.len());
    assert_eq!(rebuilt.live.len(), state.live.len());
    for (node, generation, filter) in LiveRoutesOfRuns::iter(&state.kept.live_routes) {
        assert!(state.live.get(filter, &LiveKey::Node(node, generation)).is_some());
    }
    for (key, session) in &sessions {
        for (filter, route) in session.routes() {
            assert_eq!(state.routes.get(filter, &RouteKey::Session((*key).clone())), Some(&route));
        }
        for filter in session.live_filters() {
            assert!(state.live.get(filter, &LiveKey::Session((*key).clone())).is_some());
        }
        for sub in session.subscriptions().iter().filter(|sub| sub.filter.shared().is_some()) {
            let member = state.kept.groups.get(&sub.filter).and_then(|g| g.members().find(|(name, _)| name == key));
            assert_eq!(member.map(|(_, persistent)| persistent), Some(session.persistent()));
        }
    }
    for (filter, group) in state.kept.groups.iter() {
        assert!(group.members().all(|(key, _)| !state.subscriptions(key).is_empty()));
        let routed = state.routes.get(filter, &RouteKey::Group(Arc::clone(filter))).is_some();
        assert_eq!(routed, group.durable());
        let live = state.live.get(filter, &LiveKey::Group(Arc::clone(filter))).is_some();
        assert_eq!(live, !group.durable());
        assert_eq!(state.shared_group_is_durable(filter), group.durable());
    }
}
