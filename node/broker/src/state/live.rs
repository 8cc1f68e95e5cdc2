//! Who gets messages live, past the queues: which runs of nodes want a topic, and which shared groups. The node that
//! accepts a message asks; nothing here depends on the message's way through the log.

use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::SubscriptionOptions;
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::State;
use super::command::{LiveRoutes, Outcome, Owner};
use super::image::{ELEMENT_BYTES, LiveRoutesPart, PART_BYTES, Part};
use super::origins::Origins;
use super::session::Session;
use super::subscriptions::RouteKey;
use crate::key::{Generation, NodeId, SessionKey};

/// Filters of an ended run that one command removes at most.
pub const ROUTES_FORGOTTEN_MAX: usize = 4096;

/// Who a live route leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum LiveKey {
    /// A run of a node that has announced the filter, alive or not.
    Node(NodeId, Generation),
    /// A persistent session: it leads to whoever owns that now.
    Session(SessionKey),
    /// A shared group without a persistent member, by its whole filter.
    Group(Arc<TopicFilter>),
}

/// The newest run of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRun {
    pub node: NodeId,
    pub generation: Generation,
    pub alive: bool,
    /// `host:port` at which others reach it; empty if that is not known.
    pub address: ByteString,
}

/// A member of a shared subscription whose session is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMember {
    pub key: SessionKey,
    pub owner: Owner,
    pub options: SubscriptionOptions,
    pub id: Option<u32>,
}

/// What runs of nodes have announced. Of a run that has ended it goes by steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LiveRoutesOfRuns {
    /// No set is empty.
    runs: RedBlackTreeMapSync<(NodeId, Generation), RedBlackTreeSetSync<TopicFilter>>,
}

impl LiveRoutesOfRuns {
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, Generation, &TopicFilter)> {
        self.runs
            .iter()
            .flat_map(|((node, generation), filters)| filters.iter().map(|filter| (*node, *generation, filter)))
    }

    /// Runs that have ended, and whose routes are still here.
    pub(super) fn unwanted(&self, origins: &Origins) -> impl Iterator<Item = (NodeId, Generation)> {
        self.runs.keys().copied().filter(|(node, generation)| !origins.alive(*node, *generation))
    }

    /// `false` if it was there.
    fn add(&mut self, node: NodeId, generation: Generation, filter: &TopicFilter) -> bool {
        if !self.runs.contains_key(&(node, generation)) {
            self.runs.insert_mut((node, generation), RedBlackTreeSetSync::new_sync());
        }
        let Some(filters) = self.runs.get_mut(&(node, generation)) else {
            return false;
        };
        let new = !filters.contains(filter);
        if new {
            filters.insert_mut(filter.detached());
        }
        new
    }

    /// `false` if it was not there.
    fn remove(&mut self, node: NodeId, generation: Generation, filter: &TopicFilter) -> bool {
        let Some(filters) = self.runs.get_mut(&(node, generation)) else {
            return false;
        };
        let removed = filters.remove_mut(filter);
        if filters.is_empty() {
            self.runs.remove_mut(&(node, generation));
        }
        removed
    }

    /// A filter of a snapshot. `false` if it does not follow the one before it.
    pub(super) fn restore(&mut self, node: NodeId, generation: Generation, filter: &TopicFilter) -> bool {
        let last = self.runs.last().map(|(run, filters)| (*run, filters.last()));
        let ascends = last.is_none_or(|last| last < ((node, generation), Some(filter)));
        ascends && self.add(node, generation, filter)
    }

    /// As parts of a snapshot.
    pub(super) fn pages(&self) -> impl Iterator<Item = Part> {
        self.runs.iter().flat_map(|((node, generation), filters)| {
            let (node, generation, mut rest) = (*node, *generation, filters.iter().peekable());
            std::iter::from_fn(move || {
                rest.peek()?;
                let (mut page, mut bytes) = (Vec::new(), 0);
                while let Some(filter) = rest.next_if(|_| bytes < PART_BYTES) {
                    bytes += ELEMENT_BYTES + filter.as_str().len();
                    page.push(filter.clone());
                }
                Some(Part::LiveRoutes(LiveRoutesPart { node, generation, filters: page }))
            })
        })
    }
}

impl State {
    pub(super) fn change_live_routes(&mut self, change: &LiveRoutes) -> Outcome {
        let (node, generation) = (change.node, change.generation);
        if !self.kept.origins.alive(node, generation) {
            return Outcome::Stale;
        }
        let mut changed = false;
        for filter in change.add.iter().filter(|filter| filter.shared().is_none()) {
            if self.kept.live_routes.add(node, generation, filter) {
                self.live.insert(filter, LiveKey::Node(node, generation), ());
                changed = true;
            }
        }
        for filter in &change.remove {
            changed |= self.remove_live_route(node, generation, filter);
        }
        if changed {
            self.routes_changed();
        }
        Outcome::Done
    }

    fn remove_live_route(&mut self, node: NodeId, generation: Generation, filter: &TopicFilter) -> bool {
        let removed = self.kept.live_routes.remove(node, generation, filter);
        if removed {
            self.live.remove(filter, &LiveKey::Node(node, generation));
        }
        removed
    }

    /// Nobody was sent anything by these since the run ended, so no answer changes.
    pub(super) fn forget_live_routes(&mut self, node: NodeId, generation: Generation) -> Outcome {
        let filters = self.kept.live_routes.runs.get(&(node, generation));
        let Some(filters) = filters.filter(|_| !self.kept.origins.alive(node, generation)) else {
            return Outcome::Stale;
        };
        let some: Vec<TopicFilter> = filters.iter().take(ROUTES_FORGOTTEN_MAX).cloned().collect();
        for filter in &some {
            self.remove_live_route(node, generation, filter);
        }
        Outcome::Done
    }

    // -- what others may ask

    /// Runs of nodes, all alive, to which a publish of this QoS has to go for those who get it live, each once and
    /// sorted: they have announced a filter that matches, or own a persistent session with a subscription by which it
    /// would get the message with QoS 0. Shared subscriptions do not count; and who gets the message at last, by
    /// no-local or because it comes through the queue as well, is for the receiving node to say.
    #[must_use]
    pub fn live_nodes(&self, topic: &TopicName, qos: QoS) -> Vec<(NodeId, Generation)> {
        let all = self.kept.origins.runs().filter(|(_, run)| run.alive).count();
        let mut found: Vec<(NodeId, Generation)> = Vec::new();
        // Once every node is among them nothing can be added: of a million matches only a few are looked at.
        let mut add = |run: Option<(NodeId, Generation)>| {
            if let Some(run) = run.filter(|(node, generation)| self.kept.origins.alive(*node, *generation))
                && let Err(at) = found.binary_search(&run)
            {
                found.insert(at, run);
            }
            found.len() == all
        };
        let owner = |key: &SessionKey| {
            let owner = self.kept.sessions.get(key).and_then(Session::owner)?;
            Some((owner.node, owner.generation))
        };
        let complete = self.live.any_match(topic, |key, ()| match key {
            LiveKey::Node(node, generation) => add(Some((*node, *generation))),
            LiveKey::Session(key) => add(owner(key)),
            LiveKey::Group(_) => false,
        });
        if !complete && qos == QoS::AtMostOnce {
            self.routes.any_match(topic, |key, _| match key {
                RouteKey::Session(key) => add(owner(key)),
                RouteKey::Group(_) => false,
            });
        }
        found
    }

    /// Shared subscriptions that match this topic and whose member the accepting node chooses for a publish of this QoS,
    /// whole and sorted: those without a persistent member, and at QoS 0, which does not go through the log, all.
    #[must_use]
    pub fn live_groups(&self, topic: &TopicName, qos: QoS) -> Vec<Arc<TopicFilter>> {
        let mut groups = Vec::new();
        self.live.for_each_match(topic, |key, ()| {
            if let LiveKey::Group(filter) = key {
                groups.push(Arc::clone(filter));
            }
        });
        if qos == QoS::AtMostOnce {
            self.routes.for_each_match(topic, |key, _| {
                if let RouteKey::Group(filter) = key {
                    groups.push(Arc::clone(filter));
                }
            });
        }
        groups.sort_unstable();
        groups
    }

    /// The newest run of each node that has been heard of and was not removed, ascending by node.
    pub fn runs(&self) -> impl Iterator<Item = NodeRun> {
        let mut runs: Vec<NodeRun> = self.kept.origins.runs().map(|(node, run)| run.view(node)).collect();
        runs.sort_unstable_by_key(|run| run.node);
        runs.into_iter()
    }
}
