//! Topics that rules push to: those of the actions of one channel, counted, so that a subscription finds them in one step.

use rpds::HashTrieMapSync;

use super::{Channel, Registry, RuleAction};

/// All of them as they are now. A copy shares everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PushTopics(HashTrieMapSync<Box<str>, u32>);

impl PushTopics {
    #[must_use]
    pub fn contains(&self, topic: &str) -> bool {
        self.0.contains_key(topic)
    }
}

impl RuleAction {
    /// The topic that it pushes to; `None`: it is of another channel.
    #[must_use]
    pub fn push_topic(&self) -> Option<String> {
        if self.channel != Channel::MqttForwarding {
            return None;
        }
        let detail: serde_json::Value = serde_json::from_str(&self.detail).ok()?;
        detail.get("mqtt_forwarding")?.get("topic")?.as_str().map(str::to_owned)
    }
}

impl Registry {
    /// Topics that applications may subscribe to: those of actions, whether or not their rules are active.
    #[must_use]
    pub fn push_topics(&self) -> PushTopics {
        self.push_topics.clone()
    }

    /// Counts the topic of an action, or counts it no more.
    pub(super) fn note_push_topic(&mut self, action: &RuleAction, more: bool) {
        let Some(topic) = action.push_topic() else { return };
        let topics = &mut self.push_topics.0;
        let count = topics.get(&*topic).copied().unwrap_or(0);
        let count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        if count > 0 {
            topics.insert_mut(topic.into(), count);
        } else {
            topics.remove_mut(&*topic);
        }
    }
}
