//! What a client may no longer do: rights that it was found to have, looked at again when they are used.

use fulmar_broker::session::{Denial, Input, Token};
use fulmar_mqtt::{ReasonCode, TopicName};

use super::{State, Work};

impl State {
    /// Whether the device that a publish is of has left the client, since the topic was found to be allowed.
    pub(super) fn has_lost(&self, topic: &TopicName) -> bool {
        let voice = self.session.voice();
        voice.speaks_for_others() && !voice.stands(topic, self.dispatch.replica().read().registry())
    }

    /// Drops such a publish.
    pub(super) fn refuse_lost(&mut self, token: Option<Token>, topic: TopicName, work: &mut Work) {
        self.denied(&Denial::Publish(topic));
        if let Some(token) = token {
            self.input(Input::Accepted { token, reason: ReasonCode::NotAuthorized }, work);
        }
    }
}
