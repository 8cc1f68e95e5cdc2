//! A message on its way through the router, whoever sent it and however it came.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicName};

use crate::key::{LogTime, SessionKey};

/// What published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    Client,
    Will,
    /// The router itself, for example `$SYS`.
    Server,
}

/// A message as accepted: topic aliases resolved, expiry as a point of log time. Shared by all its receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub topic: TopicName,
    pub payload: Bytes,
    /// As published; each receiver gets at most this.
    pub qos: QoS,
    /// As published; see `retain_as_published`.
    pub retain: bool,
    pub forward: ForwardProperties,
    /// The publishing session, for no-local. `None` for wills and for what the router says: no-local never filters those.
    pub origin: Option<SessionKey>,
    pub accepted_at: LogTime,
    /// When the message ceases to be delivered [v5 3.3.2.3.3]; `None` never.
    pub expires_at: Option<LogTime>,
    pub via: Via,
    /// What it is known by to those who trace it: see [`crate::insight::hops::trace_id`]; 0: nobody does.
    pub trace: u64,
}

impl Publication {
    /// A message of the router's own, which nobody keeps.
    #[must_use]
    pub fn of_server(topic: TopicName, payload: Bytes, qos: QoS, accepted_at: LogTime) -> Publication {
        Publication {
            topic,
            payload,
            qos,
            retain: false,
            forward: ForwardProperties::default(),
            origin: None,
            accepted_at,
            expires_at: None,
            via: Via::Server,
            trace: 0,
        }
    }

    /// Whether the message's life has ended.
    #[must_use]
    pub fn expired(&self, now: LogTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Seconds of life left, rounded up, as the receiver is told; `None` if it never expires.
    #[must_use]
    pub fn expiry_left_s(&self, now: LogTime) -> Option<u32> {
        self.expires_at.map(|at| u32::try_from(at.since_ms(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Bytes that this message is counted with against bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.forward.as_bytes().len()
    }

    /// A copy that pins no read buffer, for whatever keeps the message longer than a delivery takes.
    #[must_use]
    pub fn detached(&self) -> Publication {
        Publication {
            topic: self.topic.detached(),
            payload: Bytes::copy_from_slice(&self.payload),
            forward: self.forward.detached(),
            ..self.clone()
        }
    }
}

/// One receiver's share of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub publication: Arc<Publication>,
    /// The lower of the published and the granted QoS.
    pub qos: QoS,
    /// The retain flag as this receiver must see it.
    pub retain: bool,
    /// Identifiers of all its subscriptions that matched.
    pub subscription_ids: SubscriptionIds,
}
