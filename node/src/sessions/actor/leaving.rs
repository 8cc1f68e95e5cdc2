//! The end of a connection's part of a session, and what is written down of it for whoever asks why.

use fulmar_broker::Publication;
use fulmar_broker::insight::What;
use fulmar_broker::outbound::DropReason;
use fulmar_broker::state::command::Release;
use fulmar_mqtt::ReasonCode;
use tokio::sync::oneshot;

use super::State;
use crate::dispatch::{Passing, Routes};

impl State {
    /// Has a publication traced that anybody wants traced; one that comes back from a wait for room is traced already.
    pub(super) fn trace(&self, publication: &mut Publication, packet_id: u16, routes: &Routes) {
        if publication.trace == 0 {
            let Publication { topic, payload, qos, .. } = &*publication;
            let passing = Passing { topic, payload, qos: *qos, packet_id };
            publication.trace = self.dispatch.begin_trace(&self.receiver, passing, Some(routes), true);
        }
    }

    /// Writes down why a connection ends, where its client has not said so.
    pub(super) fn note_end(&self, reason: ReasonCode) {
        let what = match reason {
            // A takeover is written down where it is decided.
            ReasonCode::SessionTakenOver | ReasonCode::ServerShuttingDown | ReasonCode::UseAnotherServer => return,
            reason if reason.is_error() => What::Ended,
            _ => return,
        };
        let (client, epoch) = (self.receiver.key().identity(), self.receiver.epoch().0);
        self.dispatch.insight().note(client, what, reason.text(), "", epoch);
    }

    /// A newer connection waits until all that the client has said on this one is dealt with.
    pub(super) fn hear_out(&mut self, dealt_with: oneshot::Sender<()>) {
        self.hearing_out.push(dealt_with);
        self.receiver.hear_out();
    }

    /// Nothing more is there to be read. What has ended the session is dealt with when its last proposal is made, at the
    /// end of this state.
    pub(super) fn heard_out(&mut self) {
        if !self.session.ended() {
            self.hearing_out = Vec::new();
        }
    }

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
        self.dispatch.metrics().sessions_connected.dec();
        if taken_over {
            self.dispatch.unregister(&self.receiver);
        } else {
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
