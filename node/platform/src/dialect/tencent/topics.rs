//! Which topics a device may use: the vendor's, and those that its product defines.

use std::sync::Arc;

use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::uplink;
use crate::dialect::classes::allow;
use crate::dialect::{Answers, Publishing, Subscribing, Uplink, Voice};
use crate::registry::{Product, TopicAccess};

/// A device that was let in. Topic classes are those that its product had then.
#[derive(Debug)]
pub(super) struct Connected {
    product: Arc<Product>,
    /// `{ProductId}/{DeviceName}`.
    own: Box<str>,
}

/// What a topic of the vendor's is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// From the platform to the device.
    Down,
    /// From the device to whoever may subscribe; itself, to begin with.
    Shared,
    Message,
    /// What the hub itself answers: the time.
    Hub,
    Firmware,
    Shadow,
    /// The answer to a call, whose id is the last level.
    Called,
}

/// Before `{ProductId}/{DeviceName}`, after it, and what for. `+` stands for one level.
const TOPICS: [(&str, &str, Use); 32] = [
    ("", "/control", Use::Down),
    ("", "/event", Use::Message),
    ("", "/data", Use::Shared),
    ("$shadow/operation/", "", Use::Shadow),
    ("$shadow/operation/result/", "", Use::Down),
    ("$ota/report/", "", Use::Firmware),
    ("$ota/update/", "", Use::Down),
    ("$sys/operation/", "", Use::Hub),
    ("$sys/operation/result/", "", Use::Down),
    ("$rrpc/rxd/", "/+", Use::Down),
    ("$rrpc/txd/", "/+", Use::Called),
    ("$broadcast/rxd/", "", Use::Down),
    ("$config/operation/", "", Use::Message),
    ("$config/operation/result/", "", Use::Down),
    ("$log/operation/", "", Use::Message),
    ("$log/operation/result/", "", Use::Down),
    ("$gateway/operation/", "", Use::Message),
    ("$gateway/operation/result/", "", Use::Down),
    ("$resource/up/service/", "", Use::Message),
    ("$resource/down/service/", "", Use::Down),
    ("$template/operation/", "", Use::Message),
    ("$template/operation/result/", "", Use::Down),
    ("$thing/up/property/", "", Use::Message),
    ("$thing/down/property/", "", Use::Down),
    ("$thing/up/event/", "", Use::Message),
    ("$thing/down/event/", "", Use::Down),
    ("$thing/up/action/", "", Use::Message),
    ("$thing/down/action/", "", Use::Down),
    ("$thing/up/service/", "", Use::Message),
    ("$thing/down/service/", "", Use::Down),
    ("$thing/up/raw/", "", Use::Message),
    ("$thing/down/raw/", "", Use::Down),
];

impl Connected {
    pub(super) fn new(product: Arc<Product>, device_name: &str) -> Connected {
        let own = format!("{}/{device_name}", product.id).into();
        Connected { product, own }
    }

    /// What a topic of the vendor's is for, and its last level where that is free. A filter has the use of the topic
    /// that it looks like: only where a level is free may it have a wildcard.
    fn usage<'a>(&self, topic: &'a str) -> Option<(Use, &'a str)> {
        TOPICS.iter().find_map(|(before, after, usage)| {
            let rest = topic.strip_prefix(before)?.strip_prefix(&*self.own)?;
            match after.strip_suffix('+') {
                None => (rest == *after).then_some((*usage, "")),
                Some(after) => rest
                    .strip_prefix(after)
                    .filter(|level| !level.is_empty() && *level != "#" && !level.contains('/'))
                    .map(|level| (*usage, level)),
            }
        })
    }

    /// Whether the product lets the device use a topic, or all that a filter matches, under its own space.
    fn is_custom(&self, topic: &str, access: TopicAccess) -> bool {
        topic
            .strip_prefix(&*self.own)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|relative| allow(&self.product.topics, relative, access))
    }
}

impl Voice for Connected {
    fn publishing(&self, topic: &TopicName) -> Publishing {
        let topic = topic.as_str();
        match self.usage(topic) {
            Some((Use::Down, _)) => Publishing::Deny,
            Some((Use::Shared, _)) => Publishing::Route,
            Some((Use::Message | Use::Hub | Use::Firmware | Use::Shadow | Use::Called, _)) => Publishing::Platform,
            None if self.is_custom(topic, TopicAccess::Publish) => Publishing::Route,
            None => Publishing::Deny,
        }
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        let filter = filter.as_str();
        let rightful = match self.usage(filter) {
            Some((usage, _)) => matches!(usage, Use::Down | Use::Shared),
            None => self.is_custom(filter, TopicAccess::Subscribe),
        };
        if rightful { Subscribing::Grant(QoS::AtLeastOnce) } else { Subscribing::Deny }
    }

    fn uplink(&self, uplink: &Uplink<'_>) -> Answers {
        match self.usage(uplink.topic.as_str()) {
            Some((usage, last)) => uplink::read(&self.own, &self.product.id, usage, last, uplink),
            None => Answers { problem: Some("not a topic of this device"), ..Answers::default() },
        }
    }
}
