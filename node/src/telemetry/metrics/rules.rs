//! Counters of rules: by what became of events and of what rules made of them.

use fulmar_broker::plane::backlog::Dropped;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Count, Metrics, OutcomeLabel, ReasonLabel};
/// An event that a rule saw, by rule.
#[derive(Debug)]
pub struct RuleEvents {
    pub matched: Count,
    pub unmatched: Count,
    /// The rule could not be evaluated for it.
    pub failed: Count,
    /// A queue was full.
    pub dropped: Count,
}

/// What a rule made of an event, by action.
#[derive(Debug)]
pub struct RuleActions {
    pub passed: Count,
    /// By the sink, for good.
    pub refused: Count,
    /// Times that a sink was asked again.
    pub retried: Count,
    /// A queue in memory was full, or its rule was deactivated.
    pub dropped: Count,
}

fn outcomes<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    outcomes: [&'static str; N],
) -> [Count; N] {
    let family = Family::<OutcomeLabel, Count>::default();
    registry.register(name, help, family.clone());
    outcomes.map(|outcome| family.get_or_create(&OutcomeLabel { outcome }).clone())
}

impl RuleEvents {
    pub(super) fn register(registry: &mut Registry) -> RuleEvents {
        let names = ["matched", "unmatched", "failed", "dropped"];
        let help = "Events that active rules on this node have seen";
        let [matched, unmatched, failed, dropped] = outcomes(registry, "rule_events", help, names);
        RuleEvents { matched, unmatched, failed, dropped }
    }
}

impl RuleActions {
    pub(super) fn register(registry: &mut Registry) -> RuleActions {
        let names = ["passed", "refused", "retried", "dropped"];
        let help = "What rules on this node have made of events, by what its sinks did";
        let [passed, refused, retried, dropped] = outcomes(registry, "rule_actions", help, names);
        RuleActions { passed, refused, retried, dropped }
    }
}

impl Metrics {
    /// Counts entries that a backlog has dropped; only on the node that is chosen for it.
    pub fn backlog_dropped(&self, reason: Dropped, entries: u64) {
        let reason = match reason {
            Dropped::Full => "full",
            Dropped::Expired => "expired",
            Dropped::Discarded => "discarded",
        };
        self.backlogs_dropped.get_or_create(&ReasonLabel { reason }).inc_by(entries);
    }
}
