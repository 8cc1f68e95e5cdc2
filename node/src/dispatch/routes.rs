//! Who is listening: the live routes of this node, the other nodes that somebody listens on, and what a topic resolves
//! to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_broker::state::command::{Command, LiveRoutes, Subscription};
use fulmar_broker::state::{State, Wanted};
use fulmar_broker::trie::Trie;
use fulmar_broker::{Publication, SessionKey};
use fulmar_mqtt::packet::{SubscriptionIds, SubscriptionOptions};
use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::Dispatch;
use super::announce::{Announcements, Announcing};
use super::receiver::Receiver;
use crate::cluster::links::Link;
use crate::cluster::links::record;

/// Topics that one publisher's cache remembers.
const CACHE_TOPICS_MAX: usize = 16;

/// Who holds a subscription: a receiver, once per share name it uses with the filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Holder {
    receiver: u64,
    group: Option<Arc<TopicFilter>>,
}

/// A shared subscription's members take turns.
#[derive(Debug)]
struct Turn {
    filter: Arc<TopicFilter>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    receiver: Arc<Receiver>,
    options: SubscriptionOptions,
    id: Option<u32>,
    turn: Option<Arc<Turn>>,
}

/// Live subscriptions of this node.
#[derive(Default)]
pub(super) struct Table {
    trie: Trie<Holder, Entry>,
    /// With how many members each has.
    turns: HashMap<TopicFilter, (Arc<Turn>, usize)>,
    /// What of it the other nodes are told.
    pub(super) announcements: Announcements,
}

/// What matching subscriptions of one receiver add up to.
#[derive(Debug, Clone)]
pub struct Share {
    /// The highest granted QoS.
    pub qos: QoS,
    pub retain_as_published: bool,
    pub subscription_ids: SubscriptionIds,
}

/// One receiver among those that a topic resolves to.
#[derive(Debug, Clone)]
pub struct Target {
    pub receiver: Arc<Receiver>,
    pub all: Share,
    /// Only where a matching subscription is no-local: what the others add up to, if there are any.
    pub own: Option<Option<Share>>,
}

/// A member of a shared subscription.
#[derive(Debug)]
pub enum Member {
    Here(Target),
    There(Away),
}

/// A member on another node.
#[derive(Debug)]
pub struct Away {
    pub link: Arc<Link>,
    pub member: record::Member,
    pub granted: QoS,
}

impl Member {
    pub fn key(&self) -> &SessionKey {
        match self {
            Member::Here(target) => target.receiver.key(),
            Member::There(away) => &away.member.key,
        }
    }

    pub fn here(&self) -> Option<&Target> {
        match self {
            Member::Here(target) => Some(target),
            Member::There(_) => None,
        }
    }
}

/// A shared subscription among those that a topic resolves to.
#[derive(Debug)]
pub struct SharedTarget {
    pub filter: Arc<TopicFilter>,
    /// Of the whole cluster, sorted by key.
    pub members: Vec<Member>,
    turn: Arc<Turn>,
    /// QoS > 0 goes through the replicated queue.
    pub durable: bool,
}

impl SharedTarget {
    /// The members, beginning with the one whose turn it is.
    pub fn in_turn(&self) -> impl Iterator<Item = &Member> {
        let first = self.turn.next.fetch_add(1, Ordering::Relaxed);
        (0..self.members.len()).map(move |i| &self.members[(first.wrapping_add(i)) % self.members.len()])
    }
}

/// The other nodes that a topic resolves to; none in a cluster of one.
#[derive(Debug, Default)]
struct Peers {
    /// Where somebody listens: to QoS 0, and to what is published with more.
    live: [Vec<Arc<Link>>; 2],
    /// Where members of shared subscriptions are.
    shared: Vec<Arc<Link>>,
}

/// What a topic resolves to, as of two versions of the routes.
#[derive(Debug)]
pub struct Routes {
    version: u64,
    durable_version: u64,
    pub targets: Vec<Target>,
    pub shared: Vec<SharedTarget>,
    peers: Peers,
    /// Whether a persistent subscription with QoS > 0 matches.
    pub durable: bool,
}

impl Routes {
    /// Whether nothing has changed since these were resolved.
    #[must_use]
    pub fn current(&self, versions: (u64, u64)) -> bool {
        (self.version, self.durable_version) == versions
    }

    /// Whether the log must have this publication for some durable receiver.
    #[must_use]
    pub fn durable_for(&self, publication: &Publication) -> bool {
        publication.qos != QoS::AtMostOnce && (self.durable || self.shared.iter().any(|shared| shared.durable))
    }

    /// Other nodes where somebody gets a message of this QoS live.
    #[must_use]
    pub fn peers(&self, qos: QoS) -> &[Arc<Link>] {
        &self.peers.live[usize::from(qos != QoS::AtMostOnce)]
    }

    /// Nodes that any message to this topic may go to.
    #[must_use]
    pub fn all_peers(&self) -> &[Arc<Link>] {
        // Whoever wants QoS 1 gets QoS 0 as well.
        self.peers(QoS::AtMostOnce)
    }

    /// Whether a node that this goes to has so much before it that publishers should wait.
    #[must_use]
    pub fn full(&self) -> bool {
        self.all_peers().iter().chain(&self.peers.shared).any(|link| link.full())
    }
}

/// What one publisher's latest topics resolve to.
#[derive(Debug, Default)]
pub struct RouteCache {
    entries: Vec<(TopicName, Arc<Routes>)>,
    next: usize,
}

impl Dispatch {
    /// Adds (or replaces) live subscriptions of a receiver.
    pub fn subscribe(&self, receiver: &Arc<Receiver>, subscriptions: &[Subscription]) {
        let _ = self.add_routes(receiver, subscriptions);
    }

    /// As [`Dispatch::subscribe`], for filters of a session that ends with its socket: what the other nodes must know of
    /// before the client hears that it is subscribed.
    #[must_use]
    pub fn announce(&self, receiver: &Arc<Receiver>, subscriptions: &[Subscription]) -> Announcing {
        self.add_routes(receiver, subscriptions)
    }

    /// What was to be announced is applied, by this entry.
    pub fn announced(&self, announcing: &Announcing, index: u64) {
        self.routes.write().announcements.applied(announcing, index);
    }

    fn announces(&self, receiver: &Receiver, filter: &TopicFilter) -> bool {
        self.links.connected() && !receiver.persistent() && filter.shared().is_none()
    }

    fn add_routes(&self, receiver: &Arc<Receiver>, subscriptions: &[Subscription]) -> Announcing {
        let mut announcing = Announcing::default();
        let mut table = self.routes.write();
        if receiver.outbound().closed() {
            return announcing; // whoever has closed it has taken its routes away, and does not come again
        }
        for subscription in subscriptions {
            let filter = &subscription.filter;
            let turn = filter.shared().is_some().then(|| table.turn(filter));
            let holder = Holder { receiver: receiver.id(), group: turn.as_ref().map(|turn| turn.filter.clone()) };
            let entry = Entry { receiver: receiver.clone(), options: subscription.options, id: subscription.id, turn };
            let new = table.trie.insert(filter, holder, entry).is_none();
            if let (true, Some((_, members))) = (new, table.turns.get_mut(filter)) {
                *members += 1;
            }
            if self.announces(receiver, filter) {
                table.announcements.subscribe(filter, new, &mut announcing);
            }
        }
        drop(table);
        self.routes_changed();
        announcing
    }

    /// Removes live subscriptions of a receiver.
    pub fn unsubscribe<'a>(&self, receiver: u64, filters: impl IntoIterator<Item = &'a TopicFilter>) {
        let now_ms = self.now().mono_ms;
        let mut table = self.routes.write();
        for filter in filters {
            let group = filter.shared().is_some().then(|| Arc::new(filter.clone()));
            if let Some(entry) = table.trie.remove(filter, &Holder { receiver, group }) {
                table.leave_turn(filter);
                if self.announces(&entry.receiver, filter) {
                    table.announcements.unsubscribe(filter, now_ms);
                }
            }
        }
        drop(table);
        self.routes_changed();
    }

    /// Tells the other nodes of filters that nobody here has subscribed to for a while. Called a few times a second.
    pub fn withdraw(&self) {
        if !self.links.connected() || !self.replica.acts() {
            return;
        }
        let (node, generation) = self.replica.run();
        let mut table = self.routes.write();
        let remove = table.announcements.withdraw(self.now().mono_ms);
        if !remove.is_empty() {
            // Under the lock: whoever announces one of them again comes after this.
            let withdrawn = LiveRoutes { node, generation, add: Vec::new(), remove };
            self.replica.propose(
                vec![Command::LiveRoutes(Box::new(withdrawn))],
                Box::new(|committed| {
                    if let Err(error) = committed {
                        tracing::error!(%error, "routes not withdrawn");
                    }
                }),
            );
        }
    }

    /// Forgets all routes: those of a run of this node that has ended.
    pub(super) fn forget_routes(&self) {
        let mut table = self.routes.write();
        let mut announcements = std::mem::take(&mut table.announcements);
        announcements.forget();
        *table = Table { announcements, ..Table::default() };
        drop(table);
        self.routes_changed();
    }

    /// Whatever was resolved is to be resolved again.
    pub(super) fn routes_changed(&self) {
        self.routes_version.fetch_add(1, Ordering::Release);
    }

    /// Receivers of this node whose own live subscriptions, no shared ones, are among those that are wanted; until `f` has
    /// seen enough.
    pub(super) fn each_live(&self, wanted: Wanted<'_>, mut f: impl FnMut(&Arc<Receiver>) -> bool) {
        let table = self.routes.read();
        let show = |_: &Holder, entry: &Entry| entry.turn.is_none() && f(&entry.receiver);
        match wanted {
            Wanted::Filter(filter) => table.trie.any_of(filter, show),
            Wanted::Topic(topic) => table.trie.any_match(topic, show),
        };
    }

    /// Filters that the other nodes are told of.
    #[must_use]
    pub fn announced_count(&self) -> usize {
        self.routes.read().announcements.len()
    }

    /// Live (filter, receiver) pairs.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.routes.read().trie.len()
    }

    /// Resolves a topic, from the cache where it is current.
    pub fn routes_cached(&self, cache: &mut RouteCache, versions: (u64, u64), topic: &TopicName) -> Arc<Routes> {
        if let Some((_, routes)) = cache.entries.iter_mut().find(|(known, _)| known == topic) {
            if !routes.current(versions) {
                *routes = self.routes_for(topic);
            }
            return routes.clone();
        }
        let routes = self.routes_for(topic);
        let entry = (topic.detached(), routes.clone());
        if cache.entries.len() < CACHE_TOPICS_MAX {
            cache.entries.push(entry);
        } else {
            cache.next = (cache.next + 1) % CACHE_TOPICS_MAX;
            cache.entries[cache.next] = entry;
        }
        routes
    }

    /// The versions that a cached resolution must have to be current.
    #[must_use]
    pub fn route_versions(&self) -> (u64, u64) {
        (self.routes_version.load(Ordering::Acquire), self.replica.subscriptions_version())
    }

    /// Resolves a topic.
    #[must_use]
    pub fn routes_for(&self, topic: &TopicName) -> Arc<Routes> {
        // Versions first: a change in between makes the result look stale, never fresh.
        let (version, durable_version) = self.route_versions();
        let mut matches = Matches::default();
        let table = self.routes.read();
        table.trie.for_each_match(topic, |_, entry| matches.add(entry));
        drop(table);
        let state = self.replica.read();
        for shared in &mut matches.shared {
            shared.durable = state.shared_group_is_durable(&shared.filter);
        }
        let durable = state.has_durable_match(topic);
        let mut peers = Peers::default();
        if self.links.connected() {
            peers = self.find_peers(&state, topic, &mut matches.shared);
        }
        drop(state);
        let Matches { targets, shared, .. } = matches;
        Arc::new(Routes { version, durable_version, targets, shared, peers, durable })
    }

    /// The other nodes where somebody listens to a topic; adds members there to shared subscriptions.
    fn find_peers(&self, state: &State, topic: &TopicName, shared: &mut Vec<SharedTarget>) -> Peers {
        // None leads to this node, nor to a run that is not alive as of `state`.
        let links = |qos| state.live_nodes(topic, qos).into_iter().filter_map(|run| self.links.to(run)).collect();
        for filter in state.live_groups(topic, QoS::AtMostOnce) {
            if !shared.iter().any(|shared| shared.filter == filter) {
                // Turns begin anywhere: many publishers must not all begin with the same member.
                let next = AtomicUsize::new(self.turns.fetch_add(1, Ordering::Relaxed));
                let turn = Arc::new(Turn { filter: filter.clone(), next });
                let durable = state.shared_group_is_durable(&filter);
                shared.push(SharedTarget { filter, members: Vec::new(), turn, durable });
            }
        }
        let mut away: Vec<Arc<Link>> = Vec::new();
        for shared in shared.iter_mut() {
            for member in state.shared_members(&shared.filter) {
                // Those of this node are in its own table.
                if let Some(link) = self.links.to((member.owner.node, member.owner.generation)) {
                    if !away.iter().any(|known| Arc::ptr_eq(known, &link)) {
                        away.push(link.clone());
                    }
                    let filter = shared.filter.clone();
                    let granted = member.options.qos;
                    let member = record::Member { key: member.key, epoch: member.owner.epoch, filter };
                    shared.members.push(Member::There(Away { link, member, granted }));
                }
            }
            shared.members.sort_by(|one, other| one.key().cmp(other.key()));
        }
        shared.retain(|shared| !shared.members.is_empty());
        Peers { live: [links(QoS::AtMostOnce), links(QoS::AtLeastOnce)], shared: away }
    }
}

impl Table {
    fn turn(&mut self, filter: &TopicFilter) -> Arc<Turn> {
        let fresh = || (Arc::new(Turn { filter: Arc::new(filter.clone()), next: AtomicUsize::new(0) }), 0);
        self.turns.entry(filter.clone()).or_insert_with(fresh).0.clone()
    }

    /// One member less; the last one takes the turn along.
    fn leave_turn(&mut self, filter: &TopicFilter) {
        if let Some((_, members)) = self.turns.get_mut(filter) {
            *members -= 1;
            if *members == 0 {
                self.turns.remove(filter);
            }
        }
    }
}

/// Collects matching entries: one target per receiver, one shared target per group.
#[derive(Default)]
struct Matches {
    targets: Vec<Target>,
    index: HashMap<u64, usize>,
    shared: Vec<SharedTarget>,
}

/// Receivers up to which a linear search finds a duplicate faster than a map.
const LINEAR_MAX: usize = 16;

impl Matches {
    fn add(&mut self, entry: &Entry) {
        if let Some(turn) = &entry.turn {
            let member = Member::Here(Target::from(entry));
            match self.shared.iter_mut().find(|shared| Arc::ptr_eq(&shared.turn, turn)) {
                Some(shared) => shared.members.push(member),
                None => self.shared.push(SharedTarget {
                    filter: turn.filter.clone(),
                    members: vec![member],
                    turn: turn.clone(),
                    durable: false,
                }),
            }
            return;
        }
        let id = entry.receiver.id();
        match self.position(id) {
            Some(at) => self.targets[at].merge(entry),
            None => {
                if self.targets.len() >= LINEAR_MAX {
                    self.index.insert(id, self.targets.len());
                }
                self.targets.push(Target::from(entry));
            }
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        let linear = self.targets.iter().take(LINEAR_MAX).position(|target| target.receiver.id() == id);
        linear.or_else(|| self.index.get(&id).copied())
    }
}

impl From<&Entry> for Share {
    fn from(entry: &Entry) -> Share {
        Share {
            qos: entry.options.qos,
            retain_as_published: entry.options.retain_as_published,
            subscription_ids: entry.id.into_iter().collect(),
        }
    }
}

impl Share {
    fn merge(&mut self, entry: &Entry) {
        self.qos = self.qos.max(entry.options.qos);
        self.retain_as_published |= entry.options.retain_as_published;
        self.subscription_ids.extend(entry.id);
    }
}

impl From<&Entry> for Target {
    fn from(entry: &Entry) -> Target {
        let own = entry.options.no_local.then_some(None);
        Target { receiver: entry.receiver.clone(), all: Share::from(entry), own }
    }
}

impl Target {
    /// Overlapping subscriptions of one client make one delivery with the highest QoS and all identifiers
    /// [v5 MQTT-3.3.4-2].
    fn merge(&mut self, entry: &Entry) {
        if entry.options.no_local {
            self.own.get_or_insert_with(|| Some(self.all.clone()));
        } else {
            match &mut self.own {
                Some(Some(own)) => own.merge(entry),
                Some(own) => *own = Some(Share::from(entry)),
                None => {}
            }
        }
        self.all.merge(entry);
    }
}
