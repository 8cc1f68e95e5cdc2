//! Who holds a session: claims, takeover, and letting go. At most one epoch of a session is current, and epochs are
//! never used twice, also not by a session of the same name that is made later.

use std::sync::Arc;

use fulmar_mqtt::ReasonCode;
use fulmar_platform::registry::Rejection;

use super::books::Fate;
use super::command::{Claim, Claimed, Effect, Outcome, Owner, Release, SessionEvent, Will};
use super::devices::judged_by;
use super::ledger::will_bytes;
use super::queue::{Lost, Queue};
use super::session::{Place, Session};
use super::{Dropped, Out, State};
use crate::key::{Epoch, LogTime, SessionKey};

/// Payload bytes of a will.
pub const WILL_PAYLOAD_BYTES_MAX: usize = 64 * 1024;

impl State {
    pub(super) fn claim(&mut self, claim: &Claim, out: &mut Out<'_>) -> Outcome {
        if !self.kept.origins.alive(claim.node, claim.generation) {
            return Outcome::Stale;
        }
        if claim.judged_by.is_some() && claim.judged_by != judged_by(&self.kept.registry, &claim.key) {
            // What let the client in was changed meanwhile: a secret, perhaps.
            return Outcome::Registry(Err(Rejection::Conflict));
        }
        let admitted = self.device_admitted(&claim.key).and_then(|()| self.seat_free(&claim.key));
        if let Err(reason) = admitted.and_then(|()| self.claim_room(claim)) {
            return Outcome::Refused(reason);
        }
        self.let_go_of_fallen(&claim.key, out);
        let (now, key) = (self.kept.now, self.stored_key(&claim.key));
        let old = self.kept.sessions.get(&key).cloned();
        let previous = old.as_ref().and_then(|session| self.owner(session));
        if let Some(owner) = previous {
            // [v5 MQTT-3.1.4-3] the older connection goes, whoever it is.
            out.effects.push(Effect::TakenOver { key: key.clone(), owner });
        }
        let old = old.filter(|session| {
            // [v5 MQTT-3.1.2-4]; and a clean session ends with the connection that has just been taken from it.
            let over = session.ends_at().is_some_and(|at| at <= now);
            let kept = !claim.clean_start && session.persistent() && !over;
            if !kept {
                let reason = if over { Dropped::SessionExpired } else { Dropped::SessionDiscarded };
                self.end_session(&key, reason, out);
            }
            kept
        });
        if let Some(old) = &old {
            // [v5 MQTT-3.1.3-9] resumed within the delay, the will is not sent.
            let delayed = old.will.as_ref().is_some_and(|will| will.delay_s > 0);
            if old.will_at().map_or(!delayed, |at| at <= now) {
                self.fire_will(&key, out);
            } else {
                self.discard_will(&key);
            }
        }
        let epoch = self.next_epoch();
        if let Some(old) = &old {
            out.wakes.remove(&old.epoch);
            self.resume(&key, old, (epoch, claim), out);
        } else {
            let session = Session::new(epoch, claim.node, claim.generation, self.capped(claim.expiry_s));
            self.timers.add(session.slot(), key.clone());
            self.seats.add(&key);
            self.names.insert(key.clone());
            self.kept.sessions.insert_mut(key.clone(), session);
        }
        if let Some(will) = &claim.will {
            let will = Arc::new(Will { publication: Arc::new(will.publication.detached()), ..will.clone() });
            self.change(&key, |session, ledger, _| {
                ledger.will_set(&will);
                session.will = Some(will);
            });
        }
        let owner = Owner { node: claim.node, generation: claim.generation, epoch };
        let persistent = self.kept.sessions.get(&key).is_some_and(Session::persistent);
        let event = SessionEvent::Connected { key: key.clone(), owner, persistent, resumed: old.is_some() };
        out.effects.push(Effect::Session(event));
        self.device_claimed(&key, epoch, claim.exclusive_client_id.as_deref(), out);
        self.claimed(&key, old.is_some(), previous)
    }

    /// Whether a claim is within the bounds.
    fn claim_room(&self, claim: &Claim) -> Result<(), ReasonCode> {
        let limits = &self.kept.limits;
        if let Some(will) = &claim.will {
            if will.publication.payload.len() > WILL_PAYLOAD_BYTES_MAX {
                return Err(ReasonCode::PacketTooLarge);
            }
            if self.bytes().saturating_add(will_bytes(will)) > limits.replicated_bytes_max {
                return Err(ReasonCode::QuotaExceeded);
            }
        }
        let new = !self.kept.sessions.contains_key(&claim.key);
        if new && self.kept.sessions.size() as u64 >= limits.sessions_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    fn next_epoch(&mut self) -> Epoch {
        self.kept.epoch_last += 1;
        Epoch(self.kept.epoch_last)
    }

    fn capped(&self, expiry_s: u32) -> u32 {
        expiry_s.min(self.kept.limits.session_expiry_s_max)
    }

    fn resume(&mut self, key: &SessionKey, old: &Session, (epoch, claim): (Epoch, &Claim), out: &mut Out<'_>) {
        if !old.subscriptions().is_empty() {
            self.routes_changed(); // what they get live goes to another owner
        }
        let (now, expiry_s) = (self.kept.now, self.capped(claim.expiry_s));
        let mut lost = Lost::default();
        self.change(key, |session, ledger, _| {
            let released = session.owner().is_none();
            session.epoch = epoch;
            session.place = Place::Owned { node: claim.node, generation: claim.generation };
            session.expiry_s = expiry_s;
            session.cut = None;
            let Some(queue) = session.queue_if_any() else { return };
            if released {
                queue.purge(now, ledger, &mut lost);
            } else {
                queue.offered = queue.next_seq;
            }
        });
        self.tell_lost(key, lost, out);
        if expiry_s == 0 {
            // It now ends with its connection: its subscriptions are no durable routes any more.
            self.drop_routes(key, old);
            self.set_group_persistence(key, old, false);
        }
    }

    fn claimed(&self, key: &SessionKey, session_present: bool, previous: Option<Owner>) -> Outcome {
        let Some(session) = self.kept.sessions.get(key) else {
            return Outcome::Stale;
        };
        Outcome::Claimed(Box::new(Claimed {
            epoch: session.epoch,
            session_present,
            previous,
            subscriptions: session.subscriptions().to_vec(),
            received: session.received().to_vec(),
            queue_floor: session.queue().map_or(0, Queue::floor),
        }))
    }

    pub(super) fn release(&mut self, release: &Release, out: &mut Out<'_>) -> Outcome {
        let Some(session) = self.current(&release.key, release.epoch) else {
            return Outcome::Stale;
        };
        let Some(owner) = session.owner() else {
            return Outcome::Done;
        };
        // Of a run that ended, the time of its end counts, not that of its paced settling.
        let at = self.kept.origins.fell_at(owner.node, owner.generation).unwrap_or(self.kept.now);
        self.let_go(&release.key, at, release, out);
        Outcome::Done
    }

    /// Settles an owner that has ended and whose session the leader has not come to yet.
    pub(super) fn let_go_of_fallen(&mut self, key: &SessionKey, out: &mut Out<'_>) {
        let Some(session) = self.kept.sessions.get(key) else {
            return;
        };
        let Some(owner) = session.owner() else { return };
        if let Some(at) = self.kept.origins.fell_at(owner.node, owner.generation) {
            let release = Release {
                key: key.clone(),
                epoch: session.epoch,
                discard_will: false,
                expiry_s: None,
                sent_below: None,
            };
            self.let_go(key, at, &release, out);
        }
    }

    fn let_go(&mut self, key: &SessionKey, at: LogTime, release: &Release, out: &mut Out<'_>) {
        if release.discard_will {
            // [v5 MQTT-3.14.4-3]
            self.discard_will(key);
        }
        let session = self.kept.sessions.get(key);
        let owner = session.and_then(Session::owner);
        if session.is_some_and(|session| !session.subscriptions().is_empty() && self.owner(session).is_some()) {
            self.routes_changed(); // nobody gets for them what is live
        }
        out.wakes.remove(&release.epoch);
        let event = SessionEvent::Disconnected { key: self.stored_key(key), epoch: release.epoch };
        out.effects.push(Effect::Session(event));
        self.device_let_go(key, release.epoch, at, out);
        self.change(key, |session, _, limits| {
            session.place = Place::Released { at };
            // A session that was to end with its connection cannot be made to stay [v5 3.14.2.2.2].
            if let (Some(expiry_s), true) = (release.expiry_s, session.persistent()) {
                session.expiry_s = expiry_s.min(limits.session_expiry_s_max);
            }
            if let Some(queue) = session.queue_if_any() {
                // What an owner before this one may have sent stays sent.
                let sent_below = release.sent_below.unwrap_or(queue.next_seq).min(queue.next_seq);
                queue.offered = queue.offered.max(sent_below);
            }
        });
        if let Some(owner) = owner.filter(|owner| self.timers.owns_nothing(owner.node, owner.generation)) {
            self.kept.origins.forget_fallen(owner.node, owner.generation);
        }
        self.lapse(key, out);
    }

    /// Removes a session with all it has. Its will fires; what it did not get is booked, or offered to others.
    pub(super) fn end_session(&mut self, key: &SessionKey, reason: Dropped, out: &mut Out<'_>) {
        let Some(session) = self.kept.sessions.get(key).cloned() else {
            return;
        };
        let key = self.stored_key(key);
        self.kept.sessions.remove_mut(&key);
        self.names.remove(&key);
        self.seats.remove(&key);
        self.timers.remove(session.slot());
        out.wakes.remove(&session.epoch);
        self.drop_routes(&key, &session);
        for subscription in session.subscriptions() {
            if subscription.filter.shared().is_some() {
                self.leave_group(&subscription.filter, &key);
            }
        }
        if let Some(will) = &session.will {
            self.kept.ledger.will_gone(will);
            self.publish_will(will, out);
        }
        for (seq, entry) in session.queue().into_iter().flat_map(Queue::iter) {
            if !self.offer_again(*seq, entry, out) {
                self.kept.ledger.settled(entry, Fate::Dropped(reason));
            }
        }
        self.withdraw(&key, reason, out);
        out.effects.push(Effect::Ended { key, epoch: session.epoch });
    }
}
