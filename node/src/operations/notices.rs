//! What a node notices of itself, and the leader of the cluster, as alarms: looked at every second, and compared with the
//! alarms that there are, so that what was raised by an earlier run or leader is cleared by whoever comes after.

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_broker::state::State;
use fulmar_broker::state::command::Command;
use fulmar_broker::steer::alarms::{Change as AlarmChange, Raise, Severity};
use fulmar_broker::steer::{Change, alarms};

use super::Operations;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks without further loss after which a loss is over.
const OVERFLOW_LOOKS: u32 = 300;

pub const DISK_NEARLY_FULL: &str = "disk_nearly_full";
pub const SLOW_DISK: &str = "slow_disk";
pub const REPLICATED_BYTES_HIGH: &str = "replicated_bytes_high";
pub const BACKLOG_OVERFLOW: &str = "backlog_overflow";

/// Every alarm that there is, for the metric.
pub const NAMES: [&str; 6] =
    [BACKLOG_OVERFLOW, DISK_NEARLY_FULL, alarms::FLAPPING_BAN, alarms::NODE_DOWN, REPLICATED_BYTES_HIGH, SLOW_DISK];

/// Those that a node notices of itself; their subject is the node.
const OWN: [&str; 2] = [DISK_NEARLY_FULL, SLOW_DISK];

/// Those that the leader notices, of the whole cluster.
const COMMON: [&str; 2] = [BACKLOG_OVERFLOW, REPLICATED_BYTES_HIGH];

type Noticed = BTreeMap<&'static str, (Severity, String)>;

/// What the leader remembers between two looks.
#[derive(Debug, Default)]
struct Losses {
    dropped: Option<u64>,
    /// Looks for which the last loss still counts.
    left: u32,
}

impl Losses {
    /// Whether entries were lost lately. The first look only learns what was lost before.
    fn look(&mut self, dropped: u64) -> bool {
        if self.dropped.replace(dropped).is_some_and(|before| dropped > before) {
            self.left = OVERFLOW_LOOKS;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

impl Operations {
    /// Raises and clears alarms for as long as the node runs.
    pub fn notice(&self) {
        let operations = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut losses = Losses::default();
            loop {
                ticks.tick().await;
                if operations.serves() {
                    operations.look(&mut losses).await;
                }
            }
        });
    }

    async fn look(&self, losses: &mut Losses) {
        let figures = self.replica().figures();
        let node = self.replica().run().0;
        let mut own = Noticed::new();
        if figures.disk_low {
            let text = "the disk is nearly full: durable publishes are refused".to_owned();
            own.insert(DISK_NEARLY_FULL, (Severity::Critical, text));
        }
        if figures.disk_slow {
            let text = "a sync of the log has taken too long within the last minute".to_owned();
            own.insert(SLOW_DISK, (Severity::Warning, text));
        }
        let commands = {
            let state = self.replica().read();
            let subject = format!("{:016x}", node.0);
            let mut changes = differences(&state, &OWN, &subject, Some(node), &own);
            if figures.leads {
                changes.extend(differences(&state, &COMMON, "", None, &common(&state, losses)));
            } else {
                *losses = Losses::default();
            }
            changes.into_iter().map(|change| Command::Steer(Box::new(Change::Alarm(change)))).collect::<Vec<_>>()
        };
        if !commands.is_empty()
            && let Err(error) = self.replica().commit(commands).await
        {
            tracing::debug!(%error, "alarms not committed; they are looked at again");
        }
    }
}

fn common(state: &State, losses: &mut Losses) -> Noticed {
    let mut common = Noticed::new();
    let (bytes, max) = (state.bytes(), state.limits().replicated_bytes_max);
    let high = state.steer().alarms.get(REPLICATED_BYTES_HIGH, "").is_some();
    // Raised above 80 %, where durable publishes are refused; cleared below 70 %.
    let tenths = if high { 7 } else { 8 };
    if bytes > max / 10 * tenths {
        let text = format!("{bytes} of {max} replicated bytes are used: above 80 % durable publishes are refused");
        common.insert(REPLICATED_BYTES_HIGH, (Severity::Critical, text));
    }
    if losses.look(state.plane().backlogs.counts().full) {
        let text = "backlogs of rules or applications have dropped entries".to_owned();
        common.insert(BACKLOG_OVERFLOW, (Severity::Warning, text));
    }
    common
}

/// What must be changed so that the alarms of these names and this subject are what was noticed.
fn differences(
    state: &State,
    names: &[&'static str],
    subject: &str,
    node: Option<fulmar_broker::NodeId>,
    noticed: &Noticed,
) -> Vec<AlarmChange> {
    let change = |name: &&'static str| match (noticed.get(name), state.steer().alarms.get(name, subject)) {
        (Some((severity, message)), None) => Some(AlarmChange::Raise(Raise {
            name: (*name).into(),
            subject: subject.into(),
            severity: *severity,
            message: message.as_str().into(),
            node,
        })),
        (None, Some(_)) => Some(AlarmChange::Clear { name: (*name).into(), subject: subject.into(), by: "".into() }),
        _ => None,
    };
    names.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use fulmar_broker::NodeId;
    use fulmar_broker::state::command::Limits;

    use super::*;

    #[test]
    fn what_is_noticed_is_raised_and_what_is_not_is_cleared() {
        let state = State::new(Limits::default());
        let noticed = Noticed::from([(SLOW_DISK, (Severity::Warning, "m".to_owned()))]);
        let changes = differences(&state, &OWN, "n", Some(NodeId(1)), &noticed);
        let [AlarmChange::Raise(raise)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*raise.name, &*raise.subject, raise.node), (SLOW_DISK, "n", Some(NodeId(1))));
        assert!(differences(&state, &OWN, "n", None, &Noticed::new()).is_empty());
    }

    #[test]
    fn a_loss_counts_for_a_while_and_what_was_lost_before_does_not() {
        let mut losses = Losses::default();
        assert!(!losses.look(7) && !losses.look(7));
        assert!((1..OVERFLOW_LOOKS).all(|_| losses.look(8)));
        assert!(!losses.look(8));
    }

    #[test]
    fn every_alarm_that_is_raised_has_a_name_in_the_list() {
        assert!(NAMES.is_sorted());
        for name in OWN.iter().chain(&COMMON).chain(&[alarms::NODE_DOWN, alarms::FLAPPING_BAN]) {
            assert!(NAMES.contains(name), "{name}");
        }
    }
}
