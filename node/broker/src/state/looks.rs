//! What people ask of sessions and subscriptions: in the order of the keys, a bounded piece at a time.

use std::ops::Bound;
use std::sync::Arc;

use fulmar_mqtt::{TopicFilter, TopicName};

use super::State;
use super::command::{Subscription, Will};
use super::live::LiveKey;
use super::session::{Session, SessionView};
use super::subscriptions::RouteKey;
use crate::key::{LogTime, SessionKey};

/// One subscription that is part of the replicated state.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscriber {
    pub key: SessionKey,
    pub subscription: Subscription,
    /// Its session has a connection, on a live node.
    pub connected: bool,
}

/// Which subscriptions are meant.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Those that match a topic.
    Topic(&'a TopicName),
    /// Those of exactly this filter, with its `$share/{name}/` if it has one.
    Filter(&'a TopicFilter),
}

impl Wanted<'_> {
    #[must_use]
    pub fn includes(&self, filter: &TopicFilter) -> bool {
        match self {
            Wanted::Topic(topic) => filter.matches(topic),
            Wanted::Filter(wanted) => *wanted == filter,
        }
    }
}

impl State {
    /// Sessions from a key on (or from the one behind it), in the order of their keys.
    pub fn sessions_from(&self, from: Bound<&SessionKey>) -> impl Iterator<Item = (&SessionKey, SessionView)> {
        self.names.range((from, Bound::Unbounded)).filter_map(|key| Some((key, self.session(key)?)))
    }

    /// The will of a session that has not fired.
    #[must_use]
    pub fn will_of(&self, key: &SessionKey) -> Option<&Arc<Will>> {
        self.kept.sessions.get(key)?.will.as_ref()
    }

    /// When the oldest message of a session's queue was accepted.
    #[must_use]
    pub fn queue_oldest(&self, key: &SessionKey) -> Option<LogTime> {
        let queue = self.kept.sessions.get(key).and_then(Session::queue)?;
        queue.iter().next().map(|(_, entry)| entry.publication.accepted_at)
    }

    /// Subscriptions of persistent sessions, and of members of shared groups: at most about so many. Those of clean
    /// sessions are known to their nodes alone.
    #[must_use]
    pub fn subscribers(&self, wanted: Wanted<'_>, max: usize) -> Vec<Subscriber> {
        let (mut keys, mut groups): (Vec<SessionKey>, Vec<Arc<TopicFilter>>) = (Vec::new(), Vec::new());
        let mut route = |key: &RouteKey| {
            match key {
                RouteKey::Session(key) => keys.push(key.clone()),
                RouteKey::Group(filter) => groups.push(Arc::clone(filter)),
            }
            keys.len() + groups.len() >= max
        };
        match wanted {
            Wanted::Topic(topic) => self.routes.any_match(topic, |key, _| route(key)),
            Wanted::Filter(filter) => self.routes.any_of(filter, |key, _| route(key)),
        };
        let mut live = |key: &LiveKey| {
            match key {
                LiveKey::Session(key) => keys.push(key.clone()),
                LiveKey::Group(filter) => groups.push(Arc::clone(filter)),
                LiveKey::Node(..) => {}
            }
            keys.len() + groups.len() >= 2 * max
        };
        match wanted {
            Wanted::Topic(topic) => self.live.any_match(topic, |key, ()| live(key)),
            Wanted::Filter(filter) => self.live.any_of(filter, |key, ()| live(key)),
        };
        keys.sort_unstable();
        keys.dedup();
        groups.sort_unstable();
        groups.dedup();
        let mut found = Vec::new();
        for key in keys {
            let Some(session) = self.kept.sessions.get(&key) else { continue };
            let connected = self.owner(session).is_some();
            let own = session.subscriptions().iter().filter(|own| own.filter.shared().is_none());
            found.extend(own.filter(|own| wanted.includes(&own.filter)).map(|own| Subscriber {
                key: key.clone(),
                subscription: own.clone(),
                connected,
            }));
        }
        for filter in groups.into_iter().filter(|filter| wanted.includes(filter)) {
            for key in self.group_members(&filter).take(max.saturating_sub(found.len())) {
                let Some(session) = self.kept.sessions.get(key) else { continue };
                let connected = self.owner(session).is_some();
                found.extend(session.subscription(&filter).map(|subscription| Subscriber {
                    key: key.clone(),
                    subscription: subscription.clone(),
                    connected,
                }));
            }
        }
        found.truncate(max);
        found
    }
}
