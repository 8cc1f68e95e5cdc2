//! Bans, settings, alarms and the audit in the state: how their changes are applied, and what follows from them.

use super::command::{Effect, Limits, Outcome};
use super::{Out, State};
use crate::key::LogTime;
use crate::steer::{Change, Event, Steer};

impl State {
    pub(super) fn change_steer(&mut self, change: &Change, out: &mut Out<'_>) -> Outcome {
        let mut events = Vec::new();
        let answer = self.kept.steer.apply(change, self.kept.now, &mut events);
        if let Change::Setting(_) = change {
            self.limits_changed();
        }
        out.effects.extend(events.into_iter().map(Effect::Steer));
        Outcome::Steer(answer)
    }

    /// Something has happened to a node.
    pub(super) fn tell_steer(
        &mut self,
        tell: impl FnOnce(&mut Steer, LogTime, &mut Vec<Event>),
        effects: &mut Vec<Effect>,
    ) {
        let mut events = Vec::new();
        tell(&mut self.kept.steer, self.kept.now, &mut events);
        effects.extend(events.into_iter().map(Effect::Steer));
    }

    pub(super) fn limits_changed(&mut self) {
        self.kept.limits = self.kept.steer.settings.over(self.kept.configured);
    }

    // -- what others may ask

    /// Bans, settings, alarms and the audit.
    #[must_use]
    pub fn steer(&self) -> &Steer {
        &self.kept.steer
    }

    /// The limits as they were configured; what counts is [`State::limits`].
    #[must_use]
    pub fn configured_limits(&self) -> &Limits {
        &self.kept.configured
    }
}
