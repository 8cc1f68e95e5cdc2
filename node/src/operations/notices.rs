//! What a node notices of itself, and the leader of the cluster, as alarms: looked at every second, and compared with the
//! alarms that there are, so that what was raised by an earlier run or leader is cleared by whoever comes after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::NodeId;
use fulmar_broker::state::State;
use fulmar_broker::state::command::Command;
use fulmar_broker::steer::alarms::{Change as AlarmChange, Raise, Severity};
use fulmar_broker::steer::{Change, alarms};
use fulmar_platform::dialect::time::iso_ms;

use super::Operations;
use crate::cluster::disk::DISK_NEARLY_FULL;
use crate::config::budget::HIGH_PERCENT;
use crate::dispatch::Shortage;
use crate::tls::{Certificates, Status};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks without further loss after which a loss is over.
const OVERFLOW_LOOKS: u32 = 300;

/// Seconds before its end from which a certificate is an alarm: 14 days.
const CERTIFICATE_ENDS_S: i64 = 14 * 24 * 60 * 60;

pub const MEMORY_HIGH: &str = "memory_high";
pub const SLOW_DISK: &str = "slow_disk";
pub const REPLICATED_BYTES_HIGH: &str = "replicated_bytes_high";
pub const BACKLOG_OVERFLOW: &str = "backlog_overflow";
pub const CERTIFICATE_EXPIRES: &str = "certificate_expires";
pub const TLS_RELOAD_FAILED: &str = "tls_reload_failed";

/// Every alarm that there is, for the metric.
pub const NAMES: [&str; 9] = [
    BACKLOG_OVERFLOW,
    CERTIFICATE_EXPIRES,
    DISK_NEARLY_FULL,
    alarms::FLAPPING_BAN,
    MEMORY_HIGH,
    alarms::NODE_DOWN,
    REPLICATED_BYTES_HIGH,
    SLOW_DISK,
    TLS_RELOAD_FAILED,
];

/// Those that a node notices of itself. Their subject is the node, or with `/` after it where on that node TLS is used.
const OWN: [&str; 5] = [CERTIFICATE_EXPIRES, DISK_NEARLY_FULL, MEMORY_HIGH, SLOW_DISK, TLS_RELOAD_FAILED];

/// Those that the leader notices, of the whole cluster.
const COMMON: [&str; 2] = [BACKLOG_OVERFLOW, REPLICATED_BYTES_HIGH];

/// By name and subject.
type Noticed = BTreeMap<(&'static str, String), (Severity, String)>;

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
    /// Raises and clears alarms for as long as the node runs, those of `certificates` too.
    pub fn notice(&self, certificates: Arc<Certificates>) {
        let operations = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut losses = Losses::default();
            loop {
                ticks.tick().await;
                if operations.serves() {
                    operations.look(&mut losses, &certificates.status()).await;
                }
            }
        });
    }

    async fn look(&self, losses: &mut Losses, certificates: &[Status]) {
        let figures = self.replica().figures();
        let node = self.replica().run().0;
        let subject = format!("{:016x}", node.0);
        let mut own = of_certificates(&subject, certificates);
        if figures.disk_low {
            let text = "the disk is nearly full: durable publishes are refused".to_owned();
            own.insert((DISK_NEARLY_FULL, subject.clone()), (Severity::Critical, text));
        }
        if figures.disk_slow {
            let text = "a sync of the log has taken too long within the last minute".to_owned();
            own.insert((SLOW_DISK, subject.clone()), (Severity::Warning, text));
        }
        let memory = self.dispatch.memory();
        if memory.shortage() > Shortage::None {
            // Without how much it is: each other text would be another alarm.
            let (high, limit) = (HIGH_PERCENT, memory.limit() >> 20);
            let text = format!("more than {high} % of {limit} MiB of memory were used: new clients are refused");
            own.insert((MEMORY_HIGH, subject.clone()), (Severity::Critical, text));
        }
        let commands = {
            let state = self.replica().read();
            let mut changes = differences(&state, &OWN, Some(node), &own);
            if figures.leads {
                changes.extend(differences(&state, &COMMON, None, &common(&state, losses)));
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
        common.insert((REPLICATED_BYTES_HIGH, String::new()), (Severity::Critical, text));
    }
    if losses.look(state.plane().backlogs.counts().full) {
        let text = "backlogs of rules or applications have dropped entries".to_owned();
        common.insert((BACKLOG_OVERFLOW, String::new()), (Severity::Warning, text));
    }
    common
}

fn of_certificates(node: &str, certificates: &[Status]) -> Noticed {
    let mut noticed = Noticed::new();
    for Status { name, failed, ends } in certificates {
        let subject = format!("{node}/{name}");
        if let Some(why) = failed {
            let text = cut(format!("new TLS files are not in use: {why}"));
            noticed.insert((TLS_RELOAD_FAILED, subject.clone()), (Severity::Warning, text));
        }
        if let Some(ends) = ends.filter(|ends| ends.left_s < CERTIFICATE_ENDS_S) {
            let at = iso_ms(u64::try_from(ends.at_s).unwrap_or_default().saturating_mul(1000));
            let (severity, tense) =
                if ends.left_s < 0 { (Severity::Critical, "has ended") } else { (Severity::Warning, "ends") };
            noticed.insert((CERTIFICATE_EXPIRES, subject), (severity, format!("the certificate {tense} at {at}")));
        }
    }
    noticed
}

/// As long as a text of an alarm may be.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(alarms::TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What must be changed so that the alarms of these names, which this node has noticed of itself or the leader of the
/// cluster (`None`), are what was noticed. One of a node that has become another is raised anew.
fn differences(state: &State, names: &[&str], node: Option<NodeId>, noticed: &Noticed) -> Vec<AlarmChange> {
    let raised = &state.steer().alarms;
    let ours = raised.active().filter(|alarm| alarm.node == node && names.contains(&&*alarm.name));
    let over = ours.filter(|alarm| {
        let now = noticed.iter().find(|((name, subject), _)| **name == *alarm.name && **subject == *alarm.subject);
        now.is_none_or(|(_, (severity, text))| {
            node.is_some() && (*severity != alarm.severity || **text != *alarm.message)
        })
    });
    let over: Vec<_> = over.map(|alarm| (alarm.name.clone(), alarm.subject.clone())).collect();
    let is_over = |name: &str, subject: &str| over.iter().any(|over| *over.0 == *name && *over.1 == *subject);
    let new =
        noticed.iter().filter(|((name, subject), _)| raised.get(name, subject).is_none() || is_over(name, subject));
    let new = new.map(|((name, subject), (severity, message))| {
        AlarmChange::Raise(Raise {
            name: (*name).into(),
            subject: subject.as_str().into(),
            severity: *severity,
            message: message.as_str().into(),
            node,
        })
    });
    let cleared = over.iter().map(|(name, subject)| AlarmChange::Clear {
        name: name.clone(),
        subject: subject.clone(),
        by: "".into(),
    });
    cleared.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use fulmar_broker::state::command::{Batch, Limits};
    use fulmar_broker::{Generation, LogTime};

    use super::*;
    use crate::tls::Ends;

    const RUN: (NodeId, Generation) = (NodeId(9), Generation(1));

    /// One with a run that changes something.
    fn state() -> State {
        let mut state = State::new(Limits::default());
        let (node, generation) = RUN;
        let commands = vec![Command::NodeUp { node, generation, address: "".into() }];
        state
            .apply(&Batch { node, generation, seq: 1, term: None, at: LogTime(1), commands }, &mut Vec::new())
            .unwrap();
        state
    }

    /// The alarms that there are once these changes are applied.
    fn applied(state: &mut State, changes: Vec<AlarmChange>) -> Vec<(String, String, Severity, String)> {
        let commands = changes.into_iter().map(|change| Command::Steer(Box::new(Change::Alarm(change)))).collect();
        let (node, generation) = RUN;
        let batch = Batch { node, generation, seq: 0, term: None, at: LogTime(1), commands };
        state.apply(&batch, &mut Vec::new()).unwrap();
        let told = |alarm: &Arc<alarms::Alarm>| {
            (alarm.name.to_string(), alarm.subject.to_string(), alarm.severity, alarm.message.to_string())
        };
        state.steer().alarms.active().map(told).collect()
    }

    #[test]
    fn what_is_noticed_is_raised_and_what_is_not_is_cleared() {
        let mut state = state();
        let node = Some(NodeId(1));
        let slow = Noticed::from([((SLOW_DISK, "1".to_owned()), (Severity::Warning, "m".to_owned()))]);
        let changes = differences(&state, &OWN, node, &slow);
        let [AlarmChange::Raise(raise)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*raise.name, &*raise.subject, raise.node), (SLOW_DISK, "1", node));
        assert_eq!(applied(&mut state, changes).len(), 1);
        assert!(differences(&state, &OWN, node, &slow).is_empty(), "it is raised");
        assert!(differences(&state, &OWN, Some(NodeId(2)), &Noticed::new()).is_empty(), "it is another node's");
        assert!(differences(&state, &COMMON, None, &Noticed::new()).is_empty());
        let changes = differences(&state, &OWN, node, &Noticed::new());
        assert_eq!(applied(&mut state, changes), []);
    }

    #[test]
    fn files_and_ends_of_certificates_are_alarms_by_where_they_are_used() {
        let mut state = state();
        let node = Some(NodeId(1));
        let status = |failed: Option<&str>, left_s: i64| Status {
            name: "listener:a".to_owned(),
            failed: failed.map(str::to_owned),
            ends: Some(Ends { at_s: 1_893_456_000, left_s }),
        };
        let other = Status { name: "peer".to_owned(), ..status(None, 0) };
        for (statuses, wanted) in [
            (vec![status(None, CERTIFICATE_ENDS_S)], vec![]),
            (
                vec![status(Some("no key"), CERTIFICATE_ENDS_S - 1), other],
                vec![
                    (
                        CERTIFICATE_EXPIRES,
                        "n/listener:a",
                        Severity::Warning,
                        "the certificate ends at 2030-01-01T00:00:00.000Z",
                    ),
                    (
                        CERTIFICATE_EXPIRES,
                        "n/peer",
                        Severity::Warning,
                        "the certificate ends at 2030-01-01T00:00:00.000Z",
                    ),
                    (TLS_RELOAD_FAILED, "n/listener:a", Severity::Warning, "new TLS files are not in use: no key"),
                ],
            ),
            (
                vec![status(Some("no certificate"), -1)],
                vec![
                    (
                        CERTIFICATE_EXPIRES,
                        "n/listener:a",
                        Severity::Critical,
                        "the certificate has ended at 2030-01-01T00:00:00.000Z",
                    ),
                    (
                        TLS_RELOAD_FAILED,
                        "n/listener:a",
                        Severity::Warning,
                        "new TLS files are not in use: no certificate",
                    ),
                ],
            ),
            (vec![status(None, CERTIFICATE_ENDS_S)], vec![]),
        ] {
            let changes = differences(&state, &OWN, node, &of_certificates("n", &statuses));
            let wanted: Vec<_> =
                wanted.iter().map(|(a, b, c, d)| ((*a).to_owned(), (*b).to_owned(), *c, (*d).to_owned())).collect();
            assert_eq!(applied(&mut state, changes), wanted);
            assert!(differences(&state, &OWN, node, &of_certificates("n", &statuses)).is_empty());
        }
        assert_eq!(cut("ü".repeat(600)).len(), alarms::TEXT_BYTES_MAX);
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
