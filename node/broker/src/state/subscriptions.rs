//! Subscriptions of sessions, and the routes that follow from them.

use std::sync::Arc;

use fulmar_mqtt::limits::SUBSCRIPTIONS_PER_SESSION_MAX;
use fulmar_mqtt::packet::SubscriptionOptions;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};

use super::State;
use super::command::{Outcome, Subscription};
use super::live::LiveKey;
use super::session::Session;
use crate::key::{Epoch, SessionKey};

/// Who a route leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RouteKey {
    Session(SessionKey),
    /// A durable shared group, by its whole filter.
    Group(Arc<TopicFilter>),
}

/// How a subscription wants its messages. Meaningless for a group, whose members say each for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) options: SubscriptionOptions,
    pub(super) id: Option<u32>,
}

impl Route {
    pub(super) fn of(subscription: &Subscription) -> Route {
        Route { options: subscription.options, id: subscription.id }
    }
}

impl State {
    pub(super) fn subscribe(&mut self, key: &SessionKey, epoch: Epoch, filters: &[Subscription]) -> Outcome {
        let Some(session) = self.current(key, epoch) else {
            return Outcome::Stale;
        };
        let fresh = filters.iter().filter(|wanted| session.subscription(&wanted.filter).is_none()).count();
        if session.subscriptions().len() + fresh > SUBSCRIPTIONS_PER_SESSION_MAX {
            return Outcome::Refused(ReasonCode::QuotaExceeded);
        }
        let (key, persistent) = (self.stored_key(key), session.persistent());
        let mut existed = Vec::with_capacity(filters.len());
        for wanted in filters {
            let (filter, route) = (&wanted.filter, Route::of(wanted));
            let subscription = Subscription { filter: filter.detached(), options: wanted.options, id: wanted.id };
            let old = self.change(&key, |session, _, _| session.set_subscription(subscription)).flatten();
            existed.push(old.is_some());
            if filter.shared().is_some() {
                self.join_group(filter, &key, route, persistent);
            } else if persistent && old.as_ref().map(Route::of) != Some(route) {
                if let Some(old) = &old {
                    self.drop_route(old, &key);
                }
                if route.options.qos > QoS::AtMostOnce {
                    self.routes.insert(filter, RouteKey::Session(key.clone()), route);
                } else {
                    self.live.insert(filter, LiveKey::Session(key.clone()), ());
                }
                self.routes_changed();
            }
        }
        Outcome::Subscribed(existed)
    }

    pub(super) fn unsubscribe(&mut self, key: &SessionKey, epoch: Epoch, filters: &[TopicFilter]) -> Outcome {
        if self.current(key, epoch).is_none() {
            return Outcome::Stale;
        }
        let mut existed = Vec::with_capacity(filters.len());
        for filter in filters {
            let old = self.change(key, |session, _, _| session.clear_subscription(filter)).flatten();
            existed.push(old.is_some());
            match old {
                Some(old) if old.filter.shared().is_some() => self.leave_group(filter, key),
                Some(old) => self.drop_route(&old, key),
                None => {}
            }
        }
        Outcome::Unsubscribed(existed)
    }

    pub(super) fn routes_changed(&mut self) {
        self.kept.routes_at = self.kept.position;
    }

    fn drop_route(&mut self, subscription: &Subscription, key: &SessionKey) {
        let filter = &subscription.filter;
        let dropped = if subscription.options.qos > QoS::AtMostOnce {
            self.routes.remove(filter, &RouteKey::Session(key.clone())).is_some()
        } else {
            self.live.remove(filter, &LiveKey::Session(key.clone())).is_some()
        };
        if dropped {
            self.routes_changed();
        }
    }

    /// Removes what a session has added to the routes, whether or not it is still persistent.
    pub(super) fn drop_routes(&mut self, key: &SessionKey, session: &Session) {
        for subscription in session.subscriptions().iter().filter(|sub| sub.filter.shared().is_none()) {
            self.drop_route(subscription, key);
        }
    }

    // -- what others may ask

    /// Whether a publish to this topic with QoS above 0 has a durable receiver: a persistent session with a granted
    /// QoS above 0, or a durable shared group.
    #[must_use]
    pub fn has_durable_match(&self, topic: &TopicName) -> bool {
        self.routes.any_match(topic, |_, _| true)
    }

    /// Whether a durable shared group matches this topic: then apply chooses its receiver, also at QoS 0.
    #[must_use]
    pub fn has_durable_group(&self, topic: &TopicName) -> bool {
        self.routes.any_match(topic, |key, _| matches!(key, RouteKey::Group(_)))
    }

    /// Whether this session gets a publish to this topic, of QoS above 0, through its queue; then its live routes,
    /// those with granted QoS 0, must not deliver it a second time.
    #[must_use]
    pub fn receives_durably(&self, key: &SessionKey, topic: &TopicName) -> bool {
        let session = self.kept.sessions.get(key);
        session.is_some_and(|session| session.routes().any(|(filter, _)| filter.matches(topic)))
    }

    /// Grows, on every node alike, whenever one of [`State::live_nodes`], [`State::live_groups`],
    /// [`State::shared_members`] and [`State::has_durable_match`] may answer differently than before: what caches
    /// matches keys on it. So also when a persistent session with subscriptions changes its owner, and when a run of a
    /// node begins or ends.
    #[must_use]
    pub fn subscriptions_version(&self) -> u64 {
        self.kept.routes_at
    }
}
