//! How far applying is behind the log, by looks at both.

use std::time::{Duration, Instant};

/// The end of the log at an earlier look, if it was not applied by then.
#[derive(Debug, Default)]
pub(super) struct Lag(Option<(u64, Instant)>);

impl Lag {
    /// Notes the last entry of the log, unless an earlier one is still to be applied.
    pub(super) fn look(&mut self, last: u64, applied: u64, now: Instant) {
        if self.0.is_none_or(|(index, _)| applied >= index) {
            self.0 = (last > applied).then_some((last, now));
        }
    }

    /// For how long an entry that is not applied has been there, at least.
    pub(super) fn lasts(&self, applied: u64, now: Instant) -> Duration {
        self.0.filter(|(index, _)| applied < *index).map_or(Duration::ZERO, |(_, since)| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_at_an_earlier_look_counts() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        lag.look(10, 10, at(0));
        assert_eq!(lag.lasts(10, at(60)), Duration::ZERO, "an idle log is not behind");
        lag.look(12, 10, at(60));
        lag.look(15, 11, at(61));
        assert_eq!(lag.lasts(11, at(63)), Duration::from_secs(3));
        assert_eq!(lag.lasts(12, at(63)), Duration::ZERO, "what came later is not known to be old");
        lag.look(15, 12, at(64));
        assert_eq!(lag.lasts(12, at(66)), Duration::from_secs(2));
    }
}
