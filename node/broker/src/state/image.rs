//! The replicated state as a stream of parts, for a snapshot that is written and read: field by field, without what can
//! be derived (routes, timers, groups, counts of references). Equal snapshots give the same parts in the same order.
//!
//! | order | part | how often |
//! |---|---|---|
//! | 1 | [`Part::Head`] | once |
//! | 2 | [`Part::Origin`], after each its [`Part::Results`] from the oldest | ascending by node |
//! | 3 | [`Part::Fallen`] | ascending by node and generation |
//! | 4 | [`Part::LiveRoutes`] | ascending by node, generation and filter |
//! | 5 | [`Part::Registry`] | ascending by kind and age |
//! | 6 | [`Part::Retained`] | in the order of the retained store |
//! | 7 | [`Part::Session`], after each its [`Part::Queue`] | ascending by key |
//! | 8 | [`Part::Expansion`] | in the order of the log |
//! | 9 | [`Part::Plane`] | see [`crate::plane::Filed`] |
//! | 10 | [`Part::Steer`] | see [`crate::steer::Filed`] |
//! | 11 | [`Part::End`] | once |
//!
//! [`Part::Subscriptions`] goes on with a list that was too long: that of the session, or of the last claim in the
//! results, before it. A message that many hold is in the first part that mentions it; later ones give its number.

mod build;
mod detach;

use std::collections::HashSet;
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};
use fulmar_platform::{Secret, registry};

use super::command::{Claimed, Limits, Outcome, Phase, Subscription, Will};
use super::expansion::Expansion;
use super::ledger::SOLE;
use super::origins::Run;
use super::queue::{Entry, NEVER, Queue};
use super::session::Session;
use super::{Books, Snapshot};
use crate::key::{Epoch, Generation, LogTime, NodeId, SessionKey};
use crate::plane;
use crate::publication::Publication;
use crate::steer;

pub use super::restore::RestorePart;
pub use super::session::Place;
pub use build::{Builder, ImageError};

/// Bytes of lists that a part is filled with, by a rough count; what is longer goes on in another part. One element
/// may be longer by itself: a message, which is bounded by the largest packet.
pub const PART_BYTES: usize = 64 * 1024;

/// What a list's element costs beside its text and payload.
pub(super) const ELEMENT_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Head(Box<Head>),
    Origin(OriginPart),
    Results(ResultsPart),
    Fallen(FallenPart),
    LiveRoutes(LiveRoutesPart),
    /// A record of the registry.
    Registry(Box<registry::Filed>),
    Retained(RetainedPart),
    Session(Box<SessionPart>),
    Subscriptions(Vec<Subscription>),
    /// The session's queue goes on with these, ascending by `seq`.
    Queue(Vec<EntryPart>),
    Expansion(ExpansionPart),
    /// A piece of messages, tasks or backlogs.
    Plane(Box<plane::Filed>),
    /// A piece of bans, settings, alarms or the audit.
    Steer(Box<steer::Filed>),
    End,
}

/// What there is one of. `bytes` and the counts say what the other parts must amount to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Head {
    /// As configured.
    pub limits: Limits,
    pub now: LogTime,
    pub position: u64,
    pub routes_at: u64,
    pub epoch_last: u64,
    /// The newest number of a message that many hold.
    pub bodies_made: u64,
    pub books: Books,
    /// See [`super::State::bytes`].
    pub bytes: u64,
    pub sessions: u64,
    pub retained: u64,
    /// Ids of nodes that never come back, ascending.
    pub removed: Vec<NodeId>,
    /// The secret that every node computes tokens with.
    pub registry_key: Option<Secret>,
    /// The last revision that a record of the registry was given.
    pub registry_last: u64,
    /// Devices of the registry.
    pub devices: u64,
    /// A restore that has not ended: then parts may refer to others that are still to come.
    pub restoring: Option<Box<RestorePart>>,
}

/// The newest run of a node that proposes.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginPart {
    pub node: NodeId,
    pub generation: Generation,
    pub alive: bool,
    /// The last batch that was applied; 0 for none.
    pub applied: u64,
    /// Empty: not known.
    pub address: ByteString,
}

/// Outcomes of one batch of the origin, or, with the `seq` of the part before it, more of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultsPart {
    pub seq: u64,
    pub outcomes: Vec<Outcome>,
}

/// An ended run that still owns sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct FallenPart {
    pub node: NodeId,
    pub generation: Generation,
    pub at: LogTime,
}

/// Filters that a run of a node has announced; more of them in the parts that follow.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRoutesPart {
    pub node: NodeId,
    pub generation: Generation,
    /// Ascending, and none of them shared.
    pub filters: Vec<TopicFilter>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetainedPart {
    pub publication: Arc<Publication>,
    /// Its number, if queues refer to it; else 0.
    pub body: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SessionPart {
    pub key: SessionKey,
    pub epoch: Epoch,
    pub place: Place,
    pub expiry_s: u32,
    pub will: Option<Arc<Will>>,
    /// Sorted by filter.
    pub subscriptions: Vec<Subscription>,
    /// Absent: it never had a queue.
    pub depot: Option<DepotPart>,
    /// Why its connection is to be closed, if it is.
    pub cut: Option<ReasonCode>,
}

/// What a session's queue is beside its entries.
#[derive(Debug, Clone, PartialEq)]
pub struct DepotPart {
    pub next_seq: u64,
    pub offered: u64,
    /// `None`: never.
    pub expires_next: Option<LogTime>,
    /// Sorted packet ids of QoS 2 publishes whose PUBREL has not come.
    pub received: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EntryPart {
    pub seq: u64,
    /// The message's number if it may have other holders; else 0.
    pub body: u64,
    /// `None`: the message is in an earlier part, with this number.
    pub publication: Option<Arc<Publication>>,
    /// `None`: never.
    pub expires_at: Option<LogTime>,
    pub subscription_ids: SubscriptionIds,
    /// The shared subscription that chose this session.
    pub group: Option<Arc<TopicFilter>>,
    pub qos: QoS,
    pub retain: bool,
    pub phase: Phase,
}

/// A publish that waits to be put into queues.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpansionPart {
    /// More receivers of the expansion in the part before it; the other fields are as there.
    pub continues: bool,
    /// The message's number if it may have other holders; else 0.
    pub body: u64,
    /// `None`: the message is in an earlier part, with this number.
    pub publication: Option<Arc<Publication>>,
    /// `None`: never.
    pub expires_at: Option<LogTime>,
    /// Descending by key.
    pub receivers: Vec<ReceiverPart>,
}

/// A session that is to get it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceiverPart {
    pub key: SessionKey,
    pub qos: QoS,
    pub retain_as_published: bool,
    pub subscription_ids: SubscriptionIds,
    /// The shared subscription that chose it.
    pub group: Option<Arc<TopicFilter>>,
}

impl Part {
    /// For errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Part::Head(_) => "head",
            Part::Origin(_) => "origin",
            Part::Results(_) => "results",
            Part::Fallen(_) => "fallen",
            Part::LiveRoutes(_) => "live_routes",
            Part::Registry(_) => "registry",
            Part::Retained(_) => "retained",
            Part::Session(_) => "session",
            Part::Subscriptions(_) => "subscriptions",
            Part::Queue(_) => "queue",
            Part::Expansion(_) => "expansion",
            Part::Plane(_) => "plane",
            Part::Steer(_) => "steer",
            Part::End => "end",
        }
    }
}

impl Snapshot {
    /// The snapshot as parts, made as they are asked for. Beside them it holds a reference per session, and the number
    /// of each message that more than one queue refers to.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let retained = self.retained.iter().map(|publication| {
            let body = self.ledger.number_of(publication);
            Part::Retained(RetainedPart { publication: Arc::clone(publication), body })
        });
        std::iter::once_with(|| self.head())
            .chain(self.origins())
            .chain(self.live_routes.pages())
            .chain(self.registry.records().map(|filed| Part::Registry(Box::new(filed))))
            .chain(retained)
            .chain(Sessions::of(self))
            .chain(self.plane.pieces().map(|filed| Part::Plane(Box::new(filed))))
            .chain(self.steer.pieces().map(|filed| Part::Steer(Box::new(filed))))
            .chain(std::iter::once(Part::End))
    }

    fn head(&self) -> Part {
        Part::Head(Box::new(Head {
            limits: self.configured,
            now: self.now,
            position: self.position,
            routes_at: self.routes_at,
            epoch_last: self.epoch_last,
            bodies_made: self.ledger.bodies_made(),
            books: self.ledger.books,
            bytes: self.ledger.bytes,
            sessions: self.sessions.size() as u64,
            retained: self.retained.len() as u64,
            removed: self.origins.removed_all().collect(),
            registry_key: self.registry.key().cloned(),
            registry_last: self.registry.last_revision(),
            devices: self.registry.device_count() as u64,
            restoring: self.restoring.as_ref().map(|restore| Box::new(restore.part())),
        }))
    }

    fn origins(&self) -> impl Iterator<Item = Part> {
        let mut runs: Vec<(NodeId, &Run)> = self.origins.runs().collect();
        runs.sort_unstable_by_key(|(node, _)| *node);
        let runs = runs.into_iter().flat_map(|(node, run)| {
            let Run { generation, alive, applied, ref address, .. } = *run;
            let address = address.clone();
            let first_seq = (applied + 1).saturating_sub(run.results.len() as u64);
            let results = (first_seq..).zip(&run.results).flat_map(|(seq, outcomes)| results(seq, outcomes));
            std::iter::once(Part::Origin(OriginPart { node, generation, alive, applied, address })).chain(results)
        });
        let fallen = self.origins.fallen_at();
        runs.chain(fallen.map(|(node, generation, at)| Part::Fallen(FallenPart { node, generation, at })))
    }
}

/// The outcomes of one batch: at least one part, also if there are none.
fn results(seq: u64, mut outcomes: &[Outcome]) -> impl Iterator<Item = Part> {
    let mut begun = false;
    let mut claimed: &[Subscription] = &[];
    std::iter::from_fn(move || {
        if !claimed.is_empty() {
            return Some(Part::Subscriptions(page(&mut claimed)));
        }
        if begun && outcomes.is_empty() {
            return None;
        }
        begun = true;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let (Some((outcome, rest)), true) = (outcomes.split_first(), bytes < PART_BYTES && claimed.is_empty()) {
            outcomes = rest;
            bytes += ELEMENT_BYTES;
            taken.push(match outcome {
                Outcome::Claimed(whole) => {
                    claimed = &whole.subscriptions;
                    bytes += whole.received.len() * 2 + subscriptions_bytes(claimed).min(PART_BYTES);
                    let subscriptions = page(&mut claimed);
                    let received = whole.received.clone();
                    Outcome::Claimed(Box::new(Claimed { subscriptions, received, ..**whole }))
                }
                Outcome::Subscribed(existed) | Outcome::Unsubscribed(existed) => {
                    bytes += existed.len();
                    outcome.clone()
                }
                _ => outcome.clone(),
            });
        }
        Some(Part::Results(ResultsPart { seq, outcomes: taken }))
    })
}

fn subscription_bytes(subscription: &Subscription) -> usize {
    ELEMENT_BYTES + subscription.filter.as_str().len()
}

fn subscriptions_bytes(subscriptions: &[Subscription]) -> usize {
    subscriptions.iter().map(subscription_bytes).sum()
}

/// Takes from a list what one part holds of it.
fn page(list: &mut &[Subscription]) -> Vec<Subscription> {
    let mut bytes = 0;
    let within = |subscription: &&Subscription| {
        let fits = bytes < PART_BYTES;
        bytes += subscription_bytes(subscription);
        fits
    };
    let count = list.iter().take_while(within).count();
    let (taken, rest) = list.split_at(count);
    *list = rest;
    taken.to_vec()
}

/// Sessions by key, each with its continuations, and then the publishes that wait.
struct Sessions<'a> {
    waiting: std::vec::IntoIter<(&'a SessionKey, &'a Session)>,
    /// Of the session that has begun: subscriptions and entries that have not been given yet.
    subscriptions: &'a [Subscription],
    queue: Option<(&'a Queue, u64)>,
    /// Numbers of messages that have been given, the retained ones left out.
    given: HashSet<u64>,
    /// After the sessions: publishes that wait, and how many receivers of the first one have been given.
    expansions: Vec<&'a Expansion>,
    receivers_given: usize,
    snapshot: &'a Snapshot,
}

impl<'a> Sessions<'a> {
    fn of(snapshot: &'a Snapshot) -> Sessions<'a> {
        let mut sorted: Vec<_> = snapshot.sessions.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let mut expansions: Vec<_> = snapshot.expansions.iter().collect();
        expansions.reverse();
        Sessions {
            waiting: sorted.into_iter(),
            subscriptions: &[],
            queue: None,
            given: HashSet::new(),
            expansions,
            receivers_given: 0,
            snapshot,
        }
    }

    fn begin(&mut self, key: &SessionKey, session: &'a Session) -> Part {
        self.subscriptions = session.subscriptions();
        self.queue = session.queue().map(|queue| (queue, queue.floor()));
        let depot = session.queue().map(|queue| DepotPart {
            next_seq: queue.next_seq,
            offered: queue.offered,
            expires_next: time(queue.expires_next),
            received: session.received().to_vec(),
        });
        Part::Session(Box::new(SessionPart {
            key: key.clone(),
            epoch: session.epoch,
            place: session.place,
            expiry_s: session.expiry_s,
            will: session.will.clone(),
            subscriptions: page(&mut self.subscriptions),
            depot,
            cut: session.cut,
        }))
    }

    /// The next entries of the session that has begun; empty at the end of its queue.
    fn entries(&mut self) -> Vec<EntryPart> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let Some((queue, from)) = self.queue else { return taken };
        for (seq, entry) in queue.from(from) {
            if bytes >= PART_BYTES {
                break;
            }
            let part = self.entry(*seq, entry);
            bytes += 2 * ELEMENT_BYTES + part.publication.as_ref().map_or(0, |publication| publication.bytes());
            taken.push(part);
            self.queue = Some((queue, seq + 1));
        }
        taken
    }

    fn entry(&mut self, seq: u64, entry: &Entry) -> EntryPart {
        EntryPart {
            seq,
            body: entry.body,
            publication: self.mention(&entry.publication, entry.body),
            expires_at: time(entry.expires_at),
            subscription_ids: entry.subscription_ids.clone(),
            group: entry.group.clone(),
            qos: entry.qos,
            retain: entry.retain,
            phase: entry.phase,
        }
    }

    /// A message, unless an earlier part has it.
    fn mention(&mut self, publication: &Arc<Publication>, body: u64) -> Option<Arc<Publication>> {
        let known = body != SOLE && (self.snapshot.ledger.number_of(publication) == body || !self.given.insert(body));
        (!known).then(|| Arc::clone(publication))
    }

    /// More receivers of the publish whose turn it is.
    fn expansion(&mut self) -> Option<Part> {
        let expansion = *self.expansions.last()?;
        let (continues, mut bytes, mut receivers) = (self.receivers_given > 0, 0, Vec::new());
        for receiver in expansion.receivers.iter().skip(self.receivers_given) {
            if bytes >= PART_BYTES {
                break;
            }
            let (key, group) = (receiver.key.clone(), receiver.group.clone());
            let texts =
                [key.tenant(), key.dialect(), key.identity(), group.as_ref().map_or("", |group| group.as_str())];
            bytes += ELEMENT_BYTES + texts.iter().map(|text| text.len()).sum::<usize>();
            receivers.push(ReceiverPart {
                key,
                qos: receiver.qos,
                retain_as_published: receiver.retain_as_published,
                subscription_ids: receiver.subscription_ids.clone(),
                group,
            });
        }
        self.receivers_given += receivers.len();
        if self.receivers_given >= expansion.receivers.len() {
            self.expansions.pop();
            self.receivers_given = 0;
        }
        let publication = if continues { None } else { self.mention(&expansion.publication, expansion.body) };
        let (body, expires_at) = (expansion.body, time(expansion.expires_at));
        Some(Part::Expansion(ExpansionPart { continues, body, publication, expires_at, receivers }))
    }
}

impl Iterator for Sessions<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if !self.subscriptions.is_empty() {
            return Some(Part::Subscriptions(page(&mut self.subscriptions)));
        }
        let entries = self.entries();
        if !entries.is_empty() {
            return Some(Part::Queue(entries));
        }
        match self.waiting.next() {
            Some((key, session)) => Some(self.begin(key, session)),
            None => self.expansion(),
        }
    }
}

fn time(at: LogTime) -> Option<LogTime> {
    (at != NEVER).then_some(at)
}
