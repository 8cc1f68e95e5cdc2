//! What others ask the session to send its client.

use fulmar_broker::Now;

use super::State;
use crate::dispatch::downlink::delivery;
use crate::dispatch::{Outgoing, Sent};

impl State {
    /// Sends what was asked for, all or nothing, and says which.
    pub(super) fn asked(&self, outgoing: Outgoing, now: Now) {
        let Outgoing { downlinks, expires_at, reply } = outgoing;
        self.receiver.heard();
        let sent = if self.session.ended() {
            Sent::NotHere
        } else if !self.dispatch.acts() {
            Sent::Frozen
        } else if self.dispatch.crowded(&self.receiver) {
            Sent::Busy
        } else {
            let deliveries = downlinks.into_iter().map(|downlink| {
                let qos = downlink.qos.min(self.hears(&downlink.topic)?);
                Some(delivery(downlink, qos, now.log, expires_at))
            });
            match deliveries.collect() {
                Some(deliveries) => self.dispatch.hand_out(&self.receiver, deliveries),
                None => Sent::NotSubscribed,
            }
        };
        match sent {
            Sent::Sent(_) | Sent::NotHere => {}
            Sent::NotSubscribed => self.dispatch.metrics().downlink_dropped("not_subscribed"),
            Sent::Busy => self.dispatch.metrics().downlink_dropped("queue_full"),
            Sent::Frozen => self.dispatch.metrics().downlink_dropped("frozen"),
        }
        // Who asked need not wait to be told.
        let _ = reply.send(sent);
    }
}
