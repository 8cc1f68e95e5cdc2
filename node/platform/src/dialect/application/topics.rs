//! Topics that rules push to, and who listens there. In the router they begin with [`PREFIX`], so that they meet nobody
//! else's; clients of this dialect neither write nor read it.

use std::sync::Arc;

use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use crate::dialect::{Publishing, Subscribing, Voice};
use crate::registry::{PushTopics, Registry};

/// What a topic of a rule action begins with inside of the router.
pub const PREFIX: &str = "$push/";

/// Bytes of a topic of a rule action.
pub const TOPIC_BYTES_MAX: usize = 128;

/// Whether rules may push to a topic: 1 to 128 letters, digits, `_`, `/` and `-`.
#[must_use]
pub fn is_push_topic(topic: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-');
    (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.bytes().all(is_letter)
}

/// Whether a filter, or the one that it shares, reaches topics inside of the router that only applications hear.
#[must_use]
pub fn is_reserved(filter: &TopicFilter) -> bool {
    filter.levels().next() == PREFIX.strip_suffix('/')
}

/// An application that was let in. It may listen on topics of rule actions, and say nothing.
#[derive(Debug)]
pub(super) struct Listener {
    access_key: Box<str>,
    /// As of its last SUBSCRIBE.
    topics: PushTopics,
}

impl Listener {
    pub(super) fn new(access_key: Box<str>, registry: &Registry) -> Listener {
        Listener { access_key, topics: registry.push_topics() }
    }

    /// The topic that a filter names, if there is such an action. There are no wildcards among their letters.
    fn topic<'a>(&self, filter: &'a TopicFilter) -> Option<&'a str> {
        let topic = filter.shared().map_or(filter.as_str(), |(_, topic)| topic);
        self.topics.contains(topic).then_some(topic)
    }
}

impl Voice for Listener {
    fn publishing(&self, _topic: &TopicName) -> Publishing {
        Publishing::Close
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        self.topic(filter).map_or(Subscribing::Deny, |_| Subscribing::Grant(QoS::AtMostOnce))
    }

    /// Connections of one access key take turns, also without a share name of their own.
    fn routed(&self, filter: &TopicFilter) -> Option<TopicFilter> {
        let (group, topic) = filter.shared().unwrap_or((&self.access_key, filter.as_str()));
        TopicFilter::new(format!("$share/{group}/{PREFIX}{topic}")).ok()
    }

    fn renewed(&self, registry: &Registry) -> Option<Arc<dyn Voice>> {
        Some(Arc::new(Listener::new(self.access_key.clone(), registry)))
    }
}
