//! Which messages are traced, and what is seen of them here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fulmar_broker::insight::hops::{self, Hop, Stage};
use fulmar_broker::outbound::Saw;
use fulmar_broker::state::command::Outcome;
use fulmar_broker::steer::traces::{Subject, Trace};
use fulmar_broker::{NodeId, Publication, SessionKey};
use fulmar_mqtt::{QoS, TopicName};

use super::Insight;
use crate::cluster::clock::wall_us;
use crate::dispatch::publish::Offer;
use crate::dispatch::routes::Routes;
use crate::dispatch::{Dispatch, Receiver};

/// A packet that has come from a client, as a trace looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    pub topic: &'a TopicName,
    pub payload: &'a Bytes,
    pub qos: QoS,
    /// 0: none.
    pub packet_id: u16,
}

impl Insight {
    /// Takes the traces that run now. What was seen for another one in the same place is forgotten.
    pub(super) fn renew(&self, running: Vec<Trace>) {
        for trace in &running {
            if let Some(ring) = self.rings.get(usize::from(trace.slot)) {
                let mut ring = ring.lock();
                if ring.0 != trace.number {
                    *ring = (trace.number, hops::Ring::default());
                }
            }
        }
        let mut traces = self.traces.write();
        self.armed.store(!running.is_empty(), Ordering::Relaxed);
        *traces = running.into();
    }

    /// Hops of one trace from a number on, how many have gone, and the number to go on from.
    #[must_use]
    pub fn hops(&self, number: u64, from: u64, most: usize) -> Option<(Vec<Hop>, u64, u64)> {
        let ring = self.rings.iter().map(|ring| ring.lock()).find(|ring| ring.0 == number && number != 0)?;
        let (read, next) = ring.1.read(from, most);
        Some((read, ring.1.lost(), next))
    }

    fn push(&self, hop: &Hop) {
        for slot in hops::slots(hop.message) {
            if let Some(ring) = self.rings.get(slot) {
                // What is too old goes, and is counted by the ring.
                let _ = ring.lock().1.push(hop.clone());
            }
        }
    }

    /// Adds a hop of a message, if it is traced. `topic`: empty where the hop before it says it.
    pub(crate) fn hop(
        &self,
        message: u64,
        stage: Stage,
        (client, epoch): (&str, u64),
        details: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        if message != 0 {
            self.push(&Hop {
                message,
                at_us: wall_us(),
                stage,
                client: client.into(),
                epoch,
                topic: Box::default(),
                details: details(),
                payload: Bytes::new(),
            });
        }
    }

    /// The id for a message that these traces want; 0: none does.
    fn id_for(&self, wants: impl Fn(&Trace) -> bool) -> (u64, u32) {
        let traces = self.traces.read();
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        let sampled = |trace: &Trace| match trace.subject {
            Subject::Sample(one_in) => number.is_multiple_of(u64::from(one_in.max(1))),
            _ => wants(trace),
        };
        let wanted = traces.iter().filter(|trace| sampled(trace));
        let (slots, payload) = wanted
            .fold((0u16, 0), |(slots, bytes), trace| (slots | 1 << (trace.slot & 15), bytes.max(trace.payload_bytes)));
        (slots.into(), payload)
    }

    pub(super) fn saw(&self, message: u64, client: &str, epoch: u64, saw: Saw) {
        let id = |packet_id: u16| ("packet_id", packet_id.to_string());
        let (stage, details) = match saw {
            Saw::Queued(depth) => (Stage::Queue, vec![("queue", "live".to_owned()), ("depth", depth.to_string())]),
            Saw::Waits => (Stage::Queue, vec![("queue", "live, full: its publisher waits".to_owned())]),
            Saw::Written { packet_id, dup } => {
                let dup = dup.then(|| ("dup", "true".to_owned()));
                (Stage::Out, std::iter::once(id(packet_id)).chain(dup).collect())
            }
            Saw::Acknowledged { packet_id, by, reason } => {
                (Stage::Ack, vec![("by", by.to_owned()), id(packet_id), ("reason", reason.text().to_owned())])
            }
            Saw::Dropped(reason) => return self.dropped(message, client, epoch, reason.as_str()),
            Saw::Expired => return self.dropped(message, client, epoch, "expired"),
        };
        self.hop(message, stage, (client, epoch), || details);
    }

    pub(crate) fn dropped(&self, message: u64, client: &str, epoch: u64, reason: &str) {
        self.hop(message, Stage::Drop, (client, epoch), || vec![("reason", reason.to_owned())]);
    }
}

impl Dispatch {
    /// Takes over which messages are traced. Called when that changes, and a few times a second while any are.
    pub fn renew_traces(&self) {
        let running = {
            let state = self.replica.read();
            let now = self.now().log.max(state.now());
            state.steer().traces.running(now).cloned().collect()
        };
        self.insight.renew(running);
    }

    /// Decides whether a message that has come from a client is traced, and writes down how it came: called only while
    /// something is traced. Its id; 0: nobody traces it.
    #[must_use]
    pub fn begin_trace(
        &self,
        publisher: &Receiver,
        passing: Passing<'_>,
        routes: Option<&Routes>,
        allowed: bool,
    ) -> u64 {
        let key = publisher.key();
        let wants = |trace: &Trace| match &trace.subject {
            Subject::Client { client, sends, receives } => {
                (*sends && **client == *key.identity())
                    || (*receives && routes.is_some_and(|routes| self.reaches(client, passing.topic, routes)))
            }
            Subject::Topic(filter) => filter.matches(passing.topic),
            // The rules begin these.
            Subject::Rule(_) | Subject::Sample(_) => false,
        };
        let (slots, payload_bytes) = self.insight.id_for(wants);
        let message = self.message_id(slots);
        if message != 0 {
            let kept = passing.payload.len().min(payload_bytes as usize);
            let came = (key.identity(), publisher.epoch().0);
            self.insight.push(&Hop {
                message,
                at_us: wall_us(),
                stage: Stage::In,
                client: came.0.into(),
                epoch: came.1,
                topic: passing.topic.as_str().into(),
                details: vec![
                    ("qos", (passing.qos as u8).to_string()),
                    ("packet_id", passing.packet_id.to_string()),
                    ("bytes", passing.payload.len().to_string()),
                ],
                payload: Bytes::copy_from_slice(&passing.payload[..kept]),
            });
            let answer = if allowed { "allowed" } else { "denied" };
            self.insight.hop(message, Stage::Auth, came, || vec![("answer", answer.to_owned())]);
            if let Some(routes) = routes {
                self.insight.hop(message, Stage::Match, came, || matched(routes, passing.qos));
            }
            if !allowed {
                self.insight.dropped(message, came.0, came.1, "no_permission");
            }
        }
        message
    }

    /// An id for a message of the traces in these places: unlike those that other nodes give.
    fn message_id(&self, slots: u64) -> u64 {
        let slots = u16::try_from(slots).unwrap_or_default();
        let (node, _) = self.replica.run();
        let number = self.insight.messages.load(Ordering::Relaxed);
        hops::trace_id(slots, (node.0 & 0xffff) << 32 | (number & 0xffff_ffff))
    }

    /// A rule has looked at an event. `message`: of what the event came with; where nobody traces that, those who trace the
    /// rule begin here. `condition`: the rule's `where`.
    pub fn ruled(&self, message: u64, device: &str, rule: &str, (answer, condition, bytes): (&str, &str, usize)) {
        let message = match message {
            0 => {
                let of_rule = |trace: &Trace| matches!(&trace.subject, Subject::Rule(id) if **id == *rule);
                self.message_id(self.insight.id_for(of_rule).0)
            }
            message => message,
        };
        self.insight.hop(message, Stage::Rule, (device, 0), || {
            let mut details = vec![("rule", rule.to_owned()), ("answer", answer.to_owned())];
            match answer {
                "matched" => details.push(("bytes", bytes.to_string())),
                _ => details.push(("where", condition.to_owned())),
            }
            details
        });
    }

    /// Whether a message on a topic may come to a client, as far as this node can tell.
    fn reaches(&self, client: &str, topic: &TopicName, routes: &Routes) -> bool {
        if routes.targets.iter().any(|target| target.receiver.key().identity() == client) {
            return true;
        }
        let state = self.replica.read();
        keys_of(client).any(|key| {
            let subscribed = state.subscriptions(&key).iter().any(|subscription| subscription.filter.matches(topic));
            let there = state.session(&key).and_then(|view| view.owner).is_some_and(|owner| {
                // Only that node knows what a session that ends with its socket has subscribed to.
                routes.all_peers().iter().any(|link| link.to() == (owner.node, owner.generation))
            });
            subscribed || there
        })
    }

    /// Traced messages were given to another node.
    pub(crate) fn forwarded(&self, publication: &Publication, to: NodeId) {
        if publication.trace != 0 {
            self.insight.hop(publication.trace, Stage::Forward, ("", 0), || vec![("to", format!("{:016x}", to.0))]);
        }
    }

    /// A message has come from another node.
    pub(crate) fn came_from(&self, publication: &Publication, from: NodeId) {
        if publication.trace != 0 {
            self.insight.hop(publication.trace, Stage::From, ("", 0), || vec![("from", format!("{:016x}", from.0))]);
        }
    }

    /// What was committed of a run.
    pub(crate) fn note_outcomes(&self, offers: &[Offer], of: &[usize], outcomes: &[Outcome], index: u64) {
        for (at, outcome) in of.iter().zip(outcomes) {
            if let (Outcome::Published { receivers } | Outcome::Shared { receivers, .. }, Some(offer)) =
                (outcome, offers.get(*at))
            {
                self.committed(&offer.publication, index, &receivers.to_string());
            }
        }
    }

    /// A message is in the log.
    fn committed(&self, publication: &Arc<Publication>, index: u64, receivers: &str) {
        if publication.trace != 0 {
            let (index, term) = (index.to_string(), self.replica.term().to_string());
            let details = || vec![("index", index), ("term", term), ("receivers", receivers.to_owned())];
            self.insight.hop(publication.trace, Stage::Commit, ("", 0), details);
        }
    }
}

/// Under which keys a client of this name may have a session.
pub fn keys_of(client: &str) -> impl Iterator<Item = SessionKey> {
    fulmar_platform::Dialect::ALL
        .into_iter()
        .map(move |dialect| SessionKey::new(fulmar_platform::TENANT, dialect.as_str(), client))
}

fn matched(routes: &Routes, qos: QoS) -> Vec<(&'static str, String)> {
    let shared: Vec<&str> = routes.shared.iter().map(|shared| shared.filter.as_str()).collect();
    let nodes: Vec<String> = routes.peers(qos).iter().map(|link| format!("{:016x}", link.to().0.0)).collect();
    let here: Vec<&str> = routes.targets.iter().take(8).map(|target| target.receiver.key().identity()).collect();
    let mut details = vec![("receivers_here", routes.targets.len().to_string())];
    let lists = [("first_receivers", here.join(" ")), ("groups", shared.join(" ")), ("nodes", nodes.join(" "))];
    details.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()));
    details.push(("durable", (qos != QoS::AtMostOnce && routes.durable).to_string()));
    details
}
