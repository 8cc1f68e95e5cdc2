//! What a publication is to one receiver.

use std::sync::Arc;

use fulmar_broker::{Delivery, Publication};
use fulmar_mqtt::QoS;

use super::routes::{Share, Target};

impl Target {
    /// This receiver's live share of a publication; `None` where it gets it from the durable queue, or not at all.
    pub(super) fn delivery(&self, publication: &Arc<Publication>) -> Option<Delivery> {
        let own = || publication.origin.as_ref().is_some_and(|origin| origin.same(self.receiver.key()));
        let share = match &self.own {
            // [v5 MQTT-3.8.3-3] what a client publishes itself counts only for its subscriptions that are not no-local.
            Some(share) if own() => share.as_ref()?,
            _ => &self.all,
        };
        let delivery = share.delivery(publication);
        let durable = self.receiver.persistent() && delivery.qos != QoS::AtMostOnce;
        (!durable).then_some(delivery)
    }

    /// A member's share: shared subscriptions are never no-local [v5 MQTT-3.8.3-4].
    pub(super) fn shared_delivery(&self, publication: &Arc<Publication>) -> Delivery {
        self.all.delivery(publication)
    }
}

impl Share {
    pub(super) fn delivery(&self, publication: &Arc<Publication>) -> Delivery {
        Delivery {
            publication: publication.clone(),
            qos: self.qos.min(publication.qos),
            // [v5 MQTT-3.3.1-12], [v5 MQTT-3.3.1-13]
            retain: publication.retain && self.retain_as_published,
            subscription_ids: self.subscription_ids.clone(),
        }
    }
}
