//! What the platform sends to one client: past the routes, into the way out of its session.

use std::sync::Arc;

use fulmar_broker::outbound::{Pushed, Waiter};
use fulmar_broker::session::Token;
use fulmar_broker::{Delivery, LogTime, Publication, Via};
use fulmar_mqtt::QoS;
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::property::ForwardProperties;
use fulmar_platform::Downlink;

use super::publish::Nobody;
use super::{Dispatch, Receiver};

/// Answers the uplink once the last of its downlinks has been taken, and so all of them.
struct Answers {
    receiver: Arc<Receiver>,
    token: Token,
}

impl Waiter for Answers {
    fn taken(&self) {
        self.receiver.tell(|port| port.accepted(self.token));
    }
}

/// What the platform says, as a message.
#[must_use]
pub fn publication(downlink: Downlink, accepted_at: LogTime) -> Publication {
    Publication {
        topic: downlink.topic,
        payload: downlink.payload,
        qos: downlink.qos,
        retain: false,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at,
        expires_at: None,
        via: Via::Server,
    }
}

/// A downlink as its receiver gets it.
#[must_use]
pub fn delivery(downlink: Downlink, qos: QoS, accepted_at: LogTime) -> Delivery {
    let publication = publication(Downlink { qos, ..downlink }, accepted_at);
    Delivery { publication: Arc::new(publication), qos, retain: false, subscription_ids: SubscriptionIds::default() }
}

impl Dispatch {
    /// Whether what is sent to a receiver with QoS 1 or 2 would wait behind what waits already.
    #[must_use]
    pub fn crowded(&self, receiver: &Receiver) -> bool {
        receiver.outbound().stalled_ms(0).is_some()
    }

    /// Puts deliveries into a receiver's way out, in order. `true` if all were taken, or the receiver is gone; otherwise
    /// the session is told that `token` is accepted once they are.
    pub fn downlink(&self, receiver: &Arc<Receiver>, deliveries: Vec<Delivery>, token: Option<Token>) -> bool {
        let now_ms = self.now().mono_ms;
        // Those of QoS 0 never wait, and the others wait in order.
        let last = deliveries.iter().rposition(|delivery| delivery.qos != QoS::AtMostOnce);
        let mut taken = true;
        for (at, delivery) in deliveries.into_iter().enumerate() {
            let pushed = receiver.outbound().push(delivery, None, now_ms, || match token {
                Some(token) if Some(at) == last => Box::new(Answers { receiver: receiver.clone(), token }),
                _ => Box::new(Nobody),
            });
            taken &= Some(at) != last || pushed != Pushed::Waiting;
            self.note_pushed(receiver, &pushed);
        }
        taken
    }
}
