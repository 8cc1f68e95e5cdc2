//! The end of a connection's part of a session.

use fulmar_broker::outbound::DropReason;
use fulmar_broker::state::command::Release;

use super::State;

impl State {
    /// Ends the connection's part of the session, once. `booked`: why what is queued is dropped, if it is at once.
    pub(super) fn release(
        &mut self,
        discard_will: bool,
        expiry_s: Option<u32>,
        taken_over: bool,
        booked: Option<DropReason>,
    ) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        self.propose_reports();
        let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
        let sent_below = Some(self.receiver.outbound().sent_below());
        if let Some(booked) = booked {
            self.dispatch.close_receiver(&self.receiver, None, booked);
        }
        // Once it is closed: from then on nobody adds routes to it.
        self.dispatch.unsubscribe(self.receiver.id(), self.session.filters());
        self.dispatch.unregister(&self.receiver);
        self.dispatch.metrics().sessions_connected.dec();
        if !taken_over {
            // Behind what it published: a will comes after the client's own last words.
            self.last = Some(Release { key, epoch, discard_will, expiry_s, sent_below });
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.release(false, None, false, Some(DropReason::SessionEnded));
        self.propose_last();
    }
}
