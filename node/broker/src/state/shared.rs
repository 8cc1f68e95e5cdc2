//! Shared subscriptions. A group is durable as a whole as soon as one member's session is persistent: then the log
//! chooses who gets a message. Until then the node that accepts a message chooses, and the state only knows the members.

use std::sync::Arc;

use fulmar_mqtt::{QoS, TopicFilter};

use super::books::{Dropped, Fate};
use super::command::{Effect, Phase};
use super::ledger::ENTRY_BYTES;
use super::live::{LiveKey, SharedMember};
use super::publish::Receiver;
use super::queue::Entry;
use super::session::Session;
use super::subscriptions::{Route, RouteKey};
use super::{Out, State};
use crate::key::SessionKey;
use crate::publication::Delivery;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) key: SessionKey,
    pub(super) route: Route,
    pub(super) persistent: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Group {
    /// Sorted by key.
    members: Arc<Vec<Member>>,
    persistent: u32,
}

impl Group {
    pub(super) fn of(mut members: Vec<Member>) -> Group {
        members.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let mut group = Group { members: Arc::new(members), persistent: 0 };
        group.recount();
        group
    }

    pub(super) fn durable(&self) -> bool {
        self.persistent > 0
    }

    /// Whether it is routed to as a durable group; `None` if it has no members.
    fn routed(&self) -> Option<bool> {
        (!self.members.is_empty()).then(|| self.durable())
    }

    /// Members, and whether their sessions are taken to be persistent; for the audit.
    #[cfg(test)]
    pub(super) fn members(&self) -> impl Iterator<Item = (&SessionKey, bool)> {
        self.members.iter().map(|member| (&member.key, member.persistent))
    }

    fn find(&self, key: &SessionKey) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.key.cmp(key))
    }

    fn recount(&mut self) {
        self.persistent = u32::try_from(self.members.iter().filter(|m| m.persistent).count()).unwrap_or(u32::MAX);
    }
}

/// How well a member is placed to take a message; the smallest is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Online,
    OnlineFull,
    Offline,
    OfflineFull,
}

impl State {
    /// Adds a member, or changes how it takes part.
    pub(super) fn join_group(&mut self, filter: &TopicFilter, key: &SessionKey, route: Route, persistent: bool) {
        self.change_group(filter, |group| {
            let member = Member { key: key.clone(), route, persistent };
            let found = group.find(key);
            if found.is_ok_and(|at| group.members.get(at) == Some(&member)) {
                return false;
            }
            let members = Arc::make_mut(&mut group.members);
            match found {
                Ok(at) => members.splice(at..=at, [member]).for_each(drop),
                Err(at) => members.insert(at, member),
            }
            true
        });
    }

    pub(super) fn leave_group(&mut self, filter: &TopicFilter, key: &SessionKey) {
        self.change_group(filter, |group| {
            let found = group.find(key);
            if let Ok(at) = found {
                Arc::make_mut(&mut group.members).remove(at);
            }
            found.is_ok()
        });
    }

    /// The members' sessions of `session` have become persistent, or ceased to be.
    pub(super) fn set_group_persistence(&mut self, key: &SessionKey, session: &Session, persistent: bool) {
        for subscription in session.subscriptions().iter().filter(|sub| sub.filter.shared().is_some()) {
            self.change_group(&subscription.filter, |group| {
                let found = group.find(key);
                if let Some(member) = found.ok().and_then(|at| Arc::make_mut(&mut group.members).get_mut(at)) {
                    member.persistent = persistent;
                }
                found.is_ok()
            });
        }
    }

    /// Changes a group, and with it the route to it; an empty group goes. `f` says whether anything changed.
    fn change_group(&mut self, filter: &TopicFilter, f: impl FnOnce(&mut Group) -> bool) {
        let known = self.kept.groups.get_key_value(filter).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| {
            let name = Arc::new(filter.detached());
            self.kept.groups.insert_mut(Arc::clone(&name), Group::default());
            name
        });
        let Some(group) = self.kept.groups.get_mut(&name) else {
            return;
        };
        let before = group.routed();
        let changed = f(group);
        group.recount();
        let after = group.routed();
        if after.is_none() {
            self.kept.groups.remove_mut(&name);
        }
        if before != after {
            match before {
                Some(true) => drop(self.routes.remove(filter, &RouteKey::Group(Arc::clone(&name)))),
                Some(false) => drop(self.live.remove(filter, &LiveKey::Group(Arc::clone(&name)))),
                None => {}
            }
            match after {
                Some(true) => drop(self.routes.insert(filter, RouteKey::Group(name), Route::default())),
                Some(false) => drop(self.live.insert(filter, LiveKey::Group(name), ())),
                None => {}
            }
        }
        if changed {
            self.routes_changed();
        }
    }

    /// The members of a shared subscription, given whole, whose sessions are connected now, sorted by key.
    #[must_use]
    pub fn shared_members(&self, filter: &TopicFilter) -> Vec<SharedMember> {
        let members = self.kept.groups.get(filter).map_or(&[][..], |group| &group.members);
        let online = |member: &Member| {
            let owner = self.kept.sessions.get(&member.key).and_then(|session| self.owner(session))?;
            Some(SharedMember { key: member.key.clone(), owner, options: member.route.options, id: member.route.id })
        };
        members.iter().filter_map(online).collect()
    }

    /// The members of a shared subscription, given whole, connected or not, sorted by key.
    pub(super) fn group_members(&self, filter: &TopicFilter) -> impl Iterator<Item = &SessionKey> {
        self.kept.groups.get(filter).into_iter().flat_map(|group| group.members.iter().map(|member| &member.key))
    }

    /// Whether apply, and not the accepting node, chooses who gets a message of this shared subscription.
    #[must_use]
    pub fn shared_group_is_durable(&self, filter: &TopicFilter) -> bool {
        self.kept.groups.get(filter).is_some_and(Group::durable)
    }

    /// The member whose turn it is: by the position in the log over the sorted list, offline ones only if none is
    /// online, full ones only if all are.
    fn choose(&self, filter: &TopicFilter, salt: u64) -> Option<(&Member, Rank)> {
        let members = &self.kept.groups.get(filter)?.members;
        let count = members.len();
        let turn = self.kept.position.wrapping_add(salt) % u64::try_from(count).ok().filter(|n| *n > 0)?;
        let (before, from) = members.split_at(usize::try_from(turn).unwrap_or_default());
        let mut best = None;
        for member in from.iter().chain(before) {
            let Some(session) = self.kept.sessions.get(&member.key) else {
                continue;
            };
            let online = self.owner(session).is_some();
            let room = session.queue().is_none_or(|queue| queue.fits(&self.kept.limits, 1, ENTRY_BYTES));
            let rank = match (online, room) {
                (true, true) => return Some((member, Rank::Online)),
                (true, false) => Rank::OnlineFull,
                (false, true) => Rank::Offline,
                (false, false) => Rank::OfflineFull,
            };
            if best.is_none_or(|(_, have)| rank < have) {
                best = Some((member, rank));
            }
        }
        best
    }

    /// Who of a durable group gets a message of this QoS: somebody online, or at QoS above 0 anybody.
    pub(super) fn shared_receiver(&self, filter: &Arc<TopicFilter>, qos: QoS, salt: u64) -> Option<Receiver> {
        let (member, rank) = self.choose(filter, salt)?;
        let qos = qos.min(member.route.options.qos);
        (qos > QoS::AtMostOnce || rank < Rank::Offline).then(|| Receiver {
            key: member.key.clone(),
            qos,
            retain_as_published: member.route.options.retain_as_published,
            subscription_ids: member.route.id.into_iter().collect(),
            group: Some(Arc::clone(filter)),
        })
    }

    /// Offers an unsettled shared QoS 1 delivery of a member that is gone to another one [v5 MQTT-4.8.2-4]; a QoS 2
    /// one is no other's [v5 MQTT-4.8.2-5]. `false` if the obligation is still the caller's.
    pub(super) fn offer_again(&mut self, seq: u64, entry: &Entry, out: &mut Out<'_>) -> bool {
        let Some(group) = &entry.group else { return false };
        if entry.qos != QoS::AtLeastOnce || entry.phase != Phase::Queued || entry.expires_at <= self.kept.now {
            return false;
        }
        let Some(receiver) = self.shared_receiver(group, entry.qos, seq) else {
            return false;
        };
        let delivery = receiver.delivery(&entry.publication);
        if receiver.qos == QoS::AtMostOnce {
            let owner = self.kept.sessions.get(&receiver.key).and_then(|session| self.owner(session));
            if let Some(owner) = owner {
                out.effects.push(Effect::Deliver { key: receiver.key, owner, delivery });
            }
            self.kept.ledger.settled(entry, Fate::Dropped(Dropped::Downgraded));
        } else {
            // The obligation moves: nothing is created, and nothing ends, unless the other's queue has no room.
            let Delivery { qos, retain, subscription_ids, .. } = delivery;
            self.enqueue(&receiver, Entry { qos, retain, subscription_ids, ..entry.clone() }, true, out);
        }
        true
    }
}
