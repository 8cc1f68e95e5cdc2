//! The names of settings, and what each may be set to.

use super::{TEXT_BYTES_MAX, Value};

pub const LOG_LEVEL: &str = "log.level";
pub const FLAPPING_ENABLED: &str = "flapping.enabled";
pub const FLAPPING_CONNECTS_MAX: &str = "flapping.connects_max";
pub const FLAPPING_WINDOW_S: &str = "flapping.window_s";
pub const FLAPPING_BAN_S: &str = "flapping.ban_s";
pub const REPLICATED_BYTES_MAX: &str = "limits.replicated_bytes_max";
pub const RETAINED_MAX: &str = "limits.retained_max";
pub const RULE_BACKLOG_BYTES_MAX: &str = "limits.rule_backlog_bytes_max";
pub const SESSIONS_MAX: &str = "limits.sessions_max";
pub const SESSION_EXPIRY_S_MAX: &str = "session.expiry_s_max";
pub const QUEUE_BYTES_MAX: &str = "session.queue_bytes_max";
pub const QUEUE_ENTRIES_MAX: &str = "session.queue_entries_max";
pub const QUEUE_TTL_S: &str = "session.queue_ttl_s";
pub const SLOW_SUBSCRIBERS_THRESHOLD_MS: &str = "slow_subscribers.threshold_ms";
pub const TOPICS_SAMPLE: &str = "topics.sample";

/// What a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Flag,
    /// Both ends count.
    Number {
        min: u64,
        max: u64,
    },
    /// Text of at least one byte; what it says is checked where it is used.
    Text,
}

/// What a setting is while it is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// As the configuration file of each node says.
    Configured,
    Flag(bool),
    Number(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub name: &'static str,
    pub kind: Kind,
    pub unset: Unset,
    pub describes: &'static str,
}

const fn number(name: &'static str, min: u64, max: u64, unset: Unset, describes: &'static str) -> Spec {
    Spec { name, kind: Kind::Number { min, max }, unset, describes }
}

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const DAY_S: u64 = 86_400;

/// Every setting, by name.
pub const SETTINGS: &[Spec] = &[
    number(
        FLAPPING_BAN_S,
        1,
        365 * DAY_S,
        Unset::Number(300),
        "Seconds that a client which comes too often is banned.",
    ),
    number(
        FLAPPING_CONNECTS_MAX,
        1,
        10_000,
        Unset::Number(15),
        "Times that a client id may connect to a node within the window; once more, and it is banned.",
    ),
    Spec {
        name: FLAPPING_ENABLED,
        kind: Kind::Flag,
        unset: Unset::Flag(false),
        describes: "Whether clients that connect too often are banned for a time.",
    },
    number(FLAPPING_WINDOW_S, 1, 3_600, Unset::Number(60), "Seconds within which connects of a client id are counted."),
    number(
        REPLICATED_BYTES_MAX,
        16 * MIB,
        TIB,
        Unset::Configured,
        "Bytes of queued messages, retained messages and wills; above 80 % of it durable publishes are refused.",
    ),
    number(RETAINED_MAX, 1, 100_000_000, Unset::Configured, "Retained messages."),
    number(RULE_BACKLOG_BYTES_MAX, MIB, TIB, Unset::Configured, "Bytes of all backlogs of rules and applications."),
    number(SESSIONS_MAX, 1, 100_000_000, Unset::Configured, "Sessions of the whole cluster."),
    Spec {
        name: LOG_LEVEL,
        kind: Kind::Text,
        unset: Unset::Configured,
        describes: "What nodes log: error, warn, info, debug or trace, also by target, as in info,fulmar::rule_engine=debug.",
    },
    number(
        SESSION_EXPIRY_S_MAX,
        0,
        u32::MAX as u64 - 1,
        Unset::Configured,
        "Seconds that a session may outlive its connection; longer ones are cut to this when the client connects.",
    ),
    number(
        QUEUE_BYTES_MAX,
        1_024,
        TIB,
        Unset::Configured,
        "Bytes of the queue of one session; beyond it the oldest go.",
    ),
    number(
        QUEUE_ENTRIES_MAX,
        1,
        10_000_000,
        Unset::Configured,
        "Messages of the queue of one session; beyond it the oldest go.",
    ),
    number(
        QUEUE_TTL_S,
        0,
        u32::MAX as u64 - 1,
        Unset::Configured,
        "Seconds that a message which names no expiry stays queued; 0: as long as its session lives.",
    ),
    number(
        SLOW_SUBSCRIBERS_THRESHOLD_MS,
        1,
        3_600_000,
        Unset::Number(500),
        "Milliseconds from which a delivery that was not acknowledged counts as slow.",
    ),
    number(TOPICS_SAMPLE, 1, 1_000_000, Unset::Number(100), "Of how many messages one is counted for the top topics."),
];

/// The setting of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Spec> {
    SETTINGS.iter().find(|spec| spec.name == name)
}

impl Spec {
    /// What it is set to, or its default; `None`: as the configuration file says.
    #[must_use]
    pub fn default(&self) -> Option<Value> {
        match self.unset {
            Unset::Configured => None,
            Unset::Flag(flag) => Some(Value::Flag(flag)),
            Unset::Number(number) => Some(Value::Number(number)),
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What it may be.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (self.kind, value) {
            (Kind::Flag, Value::Flag(_)) => Ok(()),
            (Kind::Number { min, max }, Value::Number(number)) if (min..=max).contains(number) => Ok(()),
            (Kind::Text, Value::Text(text)) if (1..=TEXT_BYTES_MAX).contains(&text.len()) => Ok(()),
            (Kind::Flag, _) => Err("true or false".to_owned()),
            (Kind::Number { min, max }, _) => Err(format!("a whole number from {min} to {max}")),
            (Kind::Text, _) => Err(format!("text of 1 to {TEXT_BYTES_MAX} bytes")),
        }
    }
}

/// The name that is most like one that there is not, by how many letters differ.
#[must_use]
pub fn nearest(name: &str) -> &'static str {
    // A name that is longer than all there are is like none; its beginning says as much.
    let wanted: Vec<char> = name.chars().take(64).collect();
    let nearest = SETTINGS.iter().map(|spec| spec.name).min_by_key(|known| distance(&wanted, known));
    nearest.unwrap_or(LOG_LEVEL)
}

/// Letters to add, to take away or to change (Levenshtein).
fn distance(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (at, wanted) in other.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, letter) in one.iter().enumerate() {
            let cost = diagonal + usize::from(*letter != wanted);
            diagonal = row[column + 1];
            row[column + 1] = cost.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_defaults_are_allowed() {
        assert!(SETTINGS.is_sorted_by(|one, next| one.name < next.name));
        assert!(SETTINGS.len() <= super::super::SETTINGS_MAX);
        for spec in SETTINGS {
            assert_eq!(find(spec.name), Some(spec));
            if let Some(default) = spec.default() {
                assert_eq!(spec.check(&default), Ok(()), "{}", spec.name);
            }
            assert!(spec.describes.ends_with('.'), "{}", spec.name);
        }
    }

    #[test]
    fn values_are_checked_and_told_what_they_may_be() {
        let window = find(FLAPPING_WINDOW_S).unwrap();
        assert_eq!(window.check(&Value::Number(1)), Ok(()));
        for wrong in [Value::Number(0), Value::Number(3_601), Value::Flag(true), Value::Text("60".into())] {
            assert_eq!(window.check(&wrong), Err("a whole number from 1 to 3600".to_owned()));
        }
        let level = find(LOG_LEVEL).unwrap();
        assert!(level.check(&Value::Text("".into())).is_err());
        assert!(level.check(&Value::Text("x".repeat(1_025).into())).is_err());
        assert!(find(FLAPPING_ENABLED).unwrap().check(&Value::Number(1)).is_err());
    }

    #[test]
    fn a_name_that_is_none_is_told_the_nearest() {
        for (given, wanted) in [
            ("flaping.window", FLAPPING_WINDOW_S),
            ("log.levle", LOG_LEVEL),
            ("queue_entries_max", QUEUE_ENTRIES_MAX),
            ("topic.sample", TOPICS_SAMPLE),
        ] {
            assert_eq!(nearest(given), wanted, "{given}");
        }
        assert!(find(nearest("")).is_some() && find(nearest(&"\u{e9}".repeat(10_000))).is_some());
    }
}
