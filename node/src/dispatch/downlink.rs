//! What the platform sends to one client: past the routes, into the way out of its session. Whoever is not that session
//! asks it to: it knows what its client has subscribed to.

use std::sync::Arc;

use fulmar_broker::outbound::{Pushed, Waiter};
use fulmar_broker::session::Token;
use fulmar_broker::{Delivery, Epoch, LogTime, Publication, SessionKey};
use fulmar_mqtt::QoS;
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_platform::Downlink;
use tokio::sync::oneshot;

use super::publish::Nobody;
use super::{Dispatch, Receiver};

/// Answers the uplink once the last of its downlinks has been taken, and so all of them.
struct Answers {
    receiver: Arc<Receiver>,
    token: Token,
}

impl Waiter for Answers {
    fn taken(&self) {
        self.receiver.tell(|port| port.accepted(self.token, None));
    }
}

/// What a session is asked to send its client, from outside.
#[derive(Debug)]
pub struct Outgoing {
    /// All or none, in order.
    pub downlinks: Vec<Downlink>,
    /// Nothing is written to the client from then on.
    pub expires_at: Option<LogTime>,
    pub reply: oneshot::Sender<Sent>,
}

/// What became of downlinks that a session was asked to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They are on their way out, with at most this QoS.
    Sent(QoS),
    /// The client has not subscribed to the topic of one of them, nor does it get it unasked. None was sent.
    NotSubscribed,
    /// The client does not take what it is sent, or too much is to be sent to it at once. None was sent.
    Busy,
    /// This node may do nothing that a client sees. None was sent.
    Frozen,
    /// The session is not on this node, or not in that epoch, or over. None was sent.
    NotHere,
}

/// What the platform says, as a message.
#[must_use]
pub fn publication(downlink: Downlink, accepted_at: LogTime) -> Publication {
    Publication::of_server(downlink.topic, downlink.payload, downlink.qos, accepted_at)
}

/// A downlink as its receiver gets it, unless that is later than `expires_at`.
#[must_use]
pub fn delivery(downlink: Downlink, qos: QoS, accepted_at: LogTime, expires_at: Option<LogTime>) -> Delivery {
    let publication = Publication { expires_at, ..publication(Downlink { qos, ..downlink }, accepted_at) };
    Delivery { publication: Arc::new(publication), qos, retain: false, subscription_ids: SubscriptionIds::default() }
}

impl Dispatch {
    /// Has the session of a client on this node send downlinks: all of them, in order, or none. Of `epoch` if that is
    /// named. They are on their way to the session when this returns; the future says what it made of them, and need not
    /// be waited for.
    pub fn send(
        &self,
        key: &SessionKey,
        epoch: Option<Epoch>,
        downlinks: Vec<Downlink>,
        expires_at: Option<LogTime>,
    ) -> impl Future<Output = Sent> + Send + use<> {
        let (reply, sent) = oneshot::channel();
        let receiver = self.receiver(key).filter(|receiver| epoch.is_none_or(|epoch| epoch == receiver.epoch()));
        let refused = match &receiver {
            _ if !self.acts() => Some(Sent::Frozen),
            None => Some(Sent::NotHere),
            Some(receiver) if !receiver.asks() => Some(Sent::Busy),
            Some(receiver) => {
                receiver.tell(|port| port.downlink(Box::new(Outgoing { downlinks, expires_at, reply })));
                None
            }
        };
        async move {
            match refused {
                Some(refused) => refused,
                // A session that has ended answers nobody.
                None => sent.await.unwrap_or(Sent::NotHere),
            }
        }
    }

    /// Puts what a session was asked to send into its way out. For the session alone; nothing may wait there.
    #[must_use]
    pub fn hand_out(&self, receiver: &Arc<Receiver>, deliveries: Vec<Delivery>) -> Sent {
        let (mut qos, now_ms) = (QoS::AtMostOnce, self.now().mono_ms);
        for delivery in deliveries {
            qos = qos.max(delivery.qos);
            let pushed = receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
            self.note_pushed(receiver, &pushed);
            if pushed == Pushed::Gone {
                return Sent::NotHere;
            }
        }
        Sent::Sent(qos)
    }

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
