//! Where things that happen come together, on their way to the rules: dispatch knows that there are rules, not what
//! they are.

use std::sync::Arc;

use fulmar_broker::state::command::{Command, Effect};
use fulmar_mqtt::TopicName;
use fulmar_platform::event::{Event, Subject};

use super::Dispatch;
use crate::cluster::in_parts;

/// Whoever has the rules.
pub trait Rules: Send + Sync {
    /// Offers an event to every active rule. Live ones take it into their queues. What durable ones make of it is given
    /// back, to be committed before anybody is told that the event was accepted. `topic`: what a device reported it on.
    /// `trace`: the id of the message that it came with; 0: nobody traces that.
    fn offer(&self, event: &Event, topic: Option<&TopicName>, trace: u64) -> Vec<Command>;

    /// Whether any active rule sees such an event: if not, it need not be made.
    fn wants(&self, subject: Subject, app_id: &str) -> bool;

    /// Hears what was applied: rules and backlogs that change, runs that come and go, and what of the registry is an event
    /// itself. On the thread that applies the log.
    fn heard(&self, effect: &Effect);

    /// The state is that of a snapshot: whatever was heard before may have changed.
    fn all_changed(&self);
}

impl Dispatch {
    /// Names who has the rules. Once; until then nothing matches.
    pub fn obey(&self, rules: Arc<dyn Rules>) {
        // There is one rule engine in the life of a node.
        let _ = self.rules.set(rules);
    }

    pub(super) fn tell_rules(&self, effect: &Effect) {
        if let Some(rules) = self.rules.get() {
            rules.heard(effect);
        }
    }

    pub(super) fn tell_rules_of_all(&self) {
        if let Some(rules) = self.rules.get() {
            rules.all_changed();
        }
    }

    /// Offers an event to the rules; see [`Rules::offer`].
    #[must_use]
    pub fn offer_event(&self, event: &Event) -> Vec<Command> {
        self.rules.get().map(|rules| rules.offer(event, None, 0)).unwrap_or_default()
    }

    /// Offers what a device has reported on a topic to the rules; see [`Rules::offer`].
    #[must_use]
    pub fn offer_reported(&self, event: &Event, topic: &TopicName, trace: u64) -> Vec<Command> {
        self.rules.get().map(|rules| rules.offer(event, Some(topic), trace)).unwrap_or_default()
    }

    /// See [`Rules::wants`].
    #[must_use]
    pub fn rules_want(&self, subject: Subject, app_id: &str) -> bool {
        self.rules.get().is_some_and(|rules| rules.wants(subject, app_id))
    }

    /// Offers an event that nobody waits for to the rules.
    pub fn happened(&self, event: &Event) {
        let commands = self.offer_event(event);
        for part in in_parts(commands) {
            let subject = event.subject;
            self.replica.propose(
                part,
                Box::new(move |committed| {
                    if let Err(error) = committed {
                        tracing::error!(%subject, %error, "an event was not committed for its durable rules");
                    }
                }),
            );
        }
    }

    /// Whether what only one node is to do about something of this name is to be done by this one.
    #[must_use]
    pub fn chosen(&self, name: &str) -> bool {
        self.replica.read().chosen(name) == Some(self.replica.run())
    }
}
