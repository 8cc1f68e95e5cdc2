//! Retained messages: set, cleared, expired, and replayed into the queues of persistent sessions.

use std::sync::Arc;

use fulmar_mqtt::{QoS, ReasonCode, TopicName};

use super::command::{Outcome, Replay};
use super::ledger::{ENTRY_BYTES, RETAINED_BYTES, body_bytes};
use super::publish::Receiver;
use super::{Out, State};
use crate::publication::Publication;
use crate::retained::Retained;

impl State {
    pub(super) fn set_retained_command(&mut self, publication: &Publication) -> Outcome {
        if let Err(reason) = self.retain_room(publication) {
            return Outcome::Refused(reason);
        }
        self.set_retained(&Arc::new(Publication { retain: true, ..publication.detached() }));
        Outcome::Done
    }

    /// Whether a message may be retained. Clearing always may be.
    pub(super) fn retain_room(&self, publication: &Publication) -> Result<(), ReasonCode> {
        if publication.payload.is_empty() {
            return Ok(());
        }
        let new = RETAINED_BYTES + body_bytes(publication);
        match self.kept.retained.get(&publication.topic) {
            Some(old) if new <= RETAINED_BYTES + body_bytes(old) => Ok(()),
            Some(old) => self.durable_room(new - RETAINED_BYTES - body_bytes(old)),
            None if self.kept.retained.len() as u64 >= self.kept.limits.retained_max => Err(ReasonCode::QuotaExceeded),
            None => self.durable_room(new),
        }
    }

    /// Retains a message that pins no read buffer, or clears its topic if the payload is empty [v5 MQTT-3.3.1-6].
    pub(super) fn set_retained(&mut self, publication: &Arc<Publication>) {
        if publication.payload.is_empty() || publication.expired(self.kept.now) {
            self.clear_retained(&publication.topic);
            return;
        }
        if let Some(old) = self.kept.retained.set(Arc::clone(publication)) {
            self.retained_gone(&old);
        }
        self.kept.ledger.retained_set(publication);
        if let Some(at) = publication.expires_at {
            self.kept.retained_due.insert_mut((at, publication.topic.clone()), ());
        }
    }

    fn clear_retained(&mut self, topic: &TopicName) {
        if let Some(old) = self.kept.retained.clear(topic) {
            self.retained_gone(&old);
        }
    }

    fn retained_gone(&mut self, old: &Publication) {
        self.kept.ledger.retained_gone(old);
        if let Some(at) = old.expires_at {
            self.kept.retained_due.remove_mut(&(at, old.topic.clone()));
        }
    }

    pub(super) fn expire_retained(&mut self, topics: &[TopicName]) -> Outcome {
        for topic in topics {
            if self.kept.retained.get(topic).is_some_and(|publication| publication.expired(self.kept.now)) {
                self.clear_retained(topic);
            }
        }
        Outcome::Done
    }

    /// Appends a page of retained messages as they are now. A page that does not fit is refused as a whole, to be
    /// proposed again when the client has taken some; but into an empty queue goes what fits.
    pub(super) fn replay_retained(&mut self, replay: &Replay, out: &mut Out<'_>) -> Outcome {
        let Some(session) = self.current(&replay.key, replay.epoch) else {
            return Outcome::Stale;
        };
        let no_local = session.subscription(&replay.filter).is_some_and(|sub| sub.options.no_local);
        let wanted = |publication: &&Arc<Publication>| {
            let own = publication.origin.as_ref().is_some_and(|origin| origin.same(&replay.key));
            !publication.expired(self.kept.now) && replay.filter.matches(&publication.topic) && !(no_local && own)
        };
        let found = replay.topics.iter().filter_map(|topic| self.kept.retained.get(topic));
        let page: Vec<Arc<Publication>> = found.filter(wanted).cloned().collect();
        let durable = page.iter().filter(|publication| publication.qos.min(replay.granted) > QoS::AtMostOnce);
        let (entries, cost) = durable.fold((0, 0), |(n, cost), p| (n + 1, cost + ENTRY_BYTES + body_bytes(p)));
        let queue = session.queue().filter(|queue| queue.len() > 0);
        let fits = queue.is_none_or(|queue| queue.fits(&self.kept.limits, entries, cost));
        if entries > 0 && (!fits || self.durable_room(entries * ENTRY_BYTES).is_err()) {
            return Outcome::Refused(ReasonCode::QuotaExceeded);
        }
        let key = self.stored_key(&replay.key);
        let mut receivers = 0;
        for publication in page {
            let receiver = Receiver {
                key: key.clone(),
                qos: publication.qos.min(replay.granted),
                // [v5 MQTT-3.3.1-8] sent because of a subscription, it says that it is retained.
                retain_as_published: true,
                subscription_ids: replay.subscription_ids.clone(),
                group: None,
            };
            receivers += self.deliver(&publication, vec![receiver], out);
        }
        Outcome::Published { receivers }
    }
}

/// Whether two stores hold the same messages.
pub(super) fn equal(one: &Retained, other: &Retained) -> bool {
    one.len() == other.len() && one.iter().eq(other.iter())
}
