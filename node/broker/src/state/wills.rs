//! Wills, and the end of sessions that nobody came back to.

use std::sync::Arc;

use super::command::{Effect, Outcome};
use super::publish::Receiver;
use super::{Dropped, Out, State};
use crate::key::{Epoch, SessionKey};
use crate::publication::{Publication, Via};

impl State {
    /// Does what is due for (key, epoch): its end, or its will. Nothing if neither is.
    pub(super) fn elapse(&mut self, key: &SessionKey, epoch: Epoch, out: &mut Out<'_>) -> Outcome {
        if self.current(key, epoch).is_none() {
            return Outcome::Stale;
        }
        self.let_go_of_fallen(key, out);
        if self.current(key, epoch).is_some() {
            self.lapse(key, out);
        }
        Outcome::Done
    }

    /// Ends a session whose time has come, or fires its will.
    pub(super) fn lapse(&mut self, key: &SessionKey, out: &mut Out<'_>) {
        let Some(session) = self.kept.sessions.get(key) else {
            return;
        };
        let now = self.kept.now;
        if session.ends_at().is_some_and(|at| at <= now) {
            let reason = if session.persistent() { Dropped::SessionExpired } else { Dropped::SessionDiscarded };
            self.end_session(key, reason, out);
        } else if session.will_at().is_some_and(|at| at <= now) {
            self.fire_will(key, out);
        }
    }

    /// Publishes the will of a session that stays, whatever its delay.
    pub(super) fn fire_will(&mut self, key: &SessionKey, out: &mut Out<'_>) {
        let will = self.change(key, |session, ledger, _| {
            let will = session.will.take()?;
            ledger.will_gone(&will);
            Some(will)
        });
        if let Some(Some(will)) = will {
            self.publish_will(&will, out);
        }
    }

    /// Forgets the will of a session.
    pub(super) fn discard_will(&mut self, key: &SessionKey) {
        self.change(key, |session, ledger, _| {
            if let Some(will) = session.will.take() {
                ledger.will_gone(&will);
            }
        });
    }

    /// Publishes a will whose bytes are no longer counted: retained, queued, and told to every node for its live
    /// receivers. Its life is counted from now.
    pub(super) fn publish_will(&mut self, will: &super::command::Will, out: &mut Out<'_>) {
        let publication = Arc::new(Publication {
            origin: None,
            accepted_at: self.kept.now,
            expires_at: will.message_expiry_s.map(|s| self.kept.now.plus_s(u64::from(s))),
            via: Via::Will,
            ..will.publication.as_ref().clone()
        });
        let receivers = self.receivers(&publication);
        if publication.retain && self.retain_room(&publication).is_ok() {
            self.set_retained(&publication);
        }
        self.publish_everywhere(publication, receivers, out);
    }

    /// Publishes a message of the server's own: queued, and told to every node for its live receivers.
    pub(super) fn announce(&mut self, publication: &Publication, out: &mut Out<'_>) -> Outcome {
        let receivers = self.receivers(publication);
        if let Err(reason) = self.publish_room(publication, &receivers, false) {
            return Outcome::Refused(reason);
        }
        let publication = Publication { retain: false, ..publication.detached() };
        let receivers = self.publish_everywhere(Arc::new(publication), receivers, out);
        Outcome::Published { receivers }
    }

    fn publish_everywhere(
        &mut self,
        publication: Arc<Publication>,
        receivers: Vec<Receiver>,
        out: &mut Out<'_>,
    ) -> u32 {
        let receivers = self.deliver(&publication, receivers, out);
        out.effects.push(Effect::Publish(publication));
        receivers
    }
}
