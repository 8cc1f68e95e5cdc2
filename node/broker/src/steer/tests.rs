use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::alarms::{Raise, Severity};
use super::bans::{Network, Target};
use super::settings::{Value, table};
use super::*;
use crate::state::command::Limits;

struct Bench {
    steer: Steer,
    now: LogTime,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Bench {
        Bench { steer: Steer::default(), now: LogTime(1_000_000), events: Vec::new() }
    }

    /// Applies a change; what a snapshot would keep of the outcome is the whole of it.
    fn run(&mut self, change: Change) -> Answer {
        self.events.clear();
        let answer = self.steer.apply(&change, self.now, &mut self.events);
        assert_eq!(restored(&self.steer), self.steer);
        answer
    }

    fn ban(&mut self, target: Target, for_s: Option<u64>, automatic: bool) -> Answer {
        let until = for_s.map(|seconds| self.now.plus_s(seconds));
        self.run(Change::Ban(bans::Change::Set { target, reason: "why".into(), by: "me".into(), until, automatic }))
    }

    fn set(&mut self, name: &str, value: Option<Value>, version: Option<u64>) -> Answer {
        self.run(Change::Setting(settings::Change { name: name.into(), value, by: "me".into(), version }))
    }

    /// What is due now, as a leader would have it applied.
    fn due(&mut self) {
        for change in self.steer.due(self.now, usize::MAX) {
            self.run(change);
        }
        assert!(self.steer.next_due().is_none_or(|at| at > self.now));
    }

    fn banned(&self, client_id: &str, user_name: Option<&str>, address: &str) -> bool {
        self.steer.bans.of_client(client_id, user_name, ip(address), self.now).is_some()
    }

    fn alarms(&self) -> Vec<(String, String)> {
        self.steer.alarms.active().map(|alarm| (alarm.name.to_string(), alarm.subject.to_string())).collect()
    }
}

fn restored(steer: &Steer) -> Steer {
    let mut restoring = Restoring::default();
    steer.pieces().for_each(|piece| restoring.add(piece).unwrap());
    restoring.finish()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str) -> Target {
    Target::Address(Network::parse(text).unwrap())
}

fn client(id: &str) -> Target {
    Target::ClientId(id.into())
}

#[test]
fn networks_are_their_first_bits() {
    for (text, inside, outside) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.7/24", "192.0.2.255", "192.0.3.0"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "ffff::", "0.0.0.0"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "::c000:209"),
    ] {
        let network = Network::parse(text).unwrap();
        assert!(network.contains(ip(inside)) && !network.contains(ip(outside)), "{text}");
        assert_eq!(Network::parse(&network.to_string()), Some(network), "{text}");
    }
    assert_eq!(Network::parse("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
    assert_eq!(Network::parse("::ffff:192.0.2.7").unwrap().to_string(), "192.0.2.7");
    for text in ["", "/", "192.0.2.7/33", "::/129", "192.0.2", "192.0.2.7/-1", "::ffff:192.0.2.7/95", "a"] {
        assert_eq!(Network::parse(text), None, "{text}");
    }
}

#[test]
fn a_ban_keeps_out_whom_it_names_until_its_time_is_over() {
    let mut bench = Bench::new();
    assert_eq!(bench.ban(client("c"), Some(10), false), Answer::Ban(bans::Answer::Done));
    assert!(matches!(&bench.events[..], [Event::Ban(bans::Event::Set(ban))] if ban.since == bench.now));
    bench.ban(Target::UserName("u".into()), None, false);
    bench.ban(network("192.0.2.0/24"), None, false);
    bench.ban(network("192.0.2.1"), None, false);
    bench.ban(network("2001:db8::/32"), Some(20), false);
    assert!(bench.banned("c", None, "10.0.0.1") && bench.banned("d", Some("u"), "10.0.0.1"));
    assert!(bench.banned("d", None, "::ffff:192.0.2.9") && bench.banned("d", None, "2001:db8::1"));
    assert!(!bench.banned("u", Some("c"), "10.0.0.1"), "a client id is no user name");
    bench.run(Change::Ban(bans::Change::Lift { target: network("192.0.2.1") }));
    assert!(bench.banned("d", None, "192.0.2.1"), "the network is banned still");
    bench.now = bench.now.plus_s(10);
    assert!(!bench.banned("c", None, "10.0.0.1"), "over, whether or not that is applied");
    bench.due();
    assert!(bench.steer.bans.get(&client("c")).is_none());
    assert!(bench.banned("d", None, "2001:db8::1"));
    bench.now = bench.now.plus_s(10);
    bench.due();
    assert_eq!(bench.steer.bans.len(), 2);
    assert_eq!(bench.run(Change::Ban(bans::Change::Lift { target: client("c") })), Answer::Ban(bans::Answer::NoBan));
}

#[test]
fn a_ban_is_replaced_and_its_old_time_is_forgotten() {
    let mut bench = Bench::new();
    bench.ban(client("c"), Some(10), false);
    bench.ban(client("c"), Some(100), false);
    bench.now = bench.now.plus_s(50);
    bench.due();
    assert!(bench.banned("c", None, "::1"));
    // As a leader would that had looked before the ban was replaced.
    bench.run(Change::Ban(bans::Change::Expire { target: client("c") }));
    assert!(bench.banned("c", None, "::1"));
}

#[test]
fn bans_are_bounded() {
    let mut bench = Bench::new();
    for at in 0..bans::BANS_MAX {
        let target = client(&at.to_string());
        let set = bans::Change::Set { target, reason: "".into(), by: "".into(), until: None, automatic: false };
        bench.steer.apply(&Change::Ban(set), bench.now, &mut bench.events);
    }
    assert_eq!(bench.ban(client("more"), None, false), Answer::Ban(bans::Answer::NoRoom));
    assert_eq!(bench.ban(client("7"), None, false), Answer::Ban(bans::Answer::Done), "in place of another");
}

#[test]
fn a_ban_that_a_node_sets_is_an_alarm_and_changes_no_other_ban() {
    let mut bench = Bench::new();
    bench.ban(client("c"), None, false);
    assert_eq!(bench.ban(client("c"), Some(1), true), Answer::Ban(bans::Answer::Before));
    assert!(bench.alarms().is_empty() && bench.steer.bans.get(&client("c")).unwrap().until.is_none());
    bench.ban(client("d"), Some(1), true);
    assert_eq!(bench.alarms(), [("flapping_ban".to_owned(), "d".to_owned())]);
    assert!(bench.events.iter().any(|event| matches!(event, Event::Alarm(alarms::Event::Raised(_)))));
    bench.now = bench.now.plus_s(1);
    bench.due();
    assert!(bench.alarms().is_empty());
    bench.ban(client("e"), Some(1), true);
    bench.ban(client("e"), None, false);
    assert!(bench.alarms().is_empty(), "somebody knows of it");
}

#[test]
fn settings_have_versions_and_a_history() {
    let mut bench = Bench::new();
    let number = |n| Some(Value::Number(n));
    assert_eq!(bench.set("a", number(1), Some(0)), Answer::Setting(settings::Answer::Set { version: 1 }));
    assert_eq!(bench.set("a", number(2), Some(0)), Answer::Setting(settings::Answer::Conflict { version: 1 }));
    assert!(bench.events.is_empty());
    assert_eq!(bench.set("a", number(1), None), Answer::Setting(settings::Answer::Set { version: 1 }));
    assert!(bench.events.is_empty(), "it was so already");
    assert_eq!(bench.set("b", number(2), Some(1)), Answer::Setting(settings::Answer::Set { version: 2 }));
    assert_eq!(bench.set("a", None, None), Answer::Setting(settings::Answer::Set { version: 3 }));
    assert_eq!((bench.steer.settings.number("a"), bench.steer.settings.number("b")), (None, Some(2)));
    let last = bench.steer.settings.history().next().unwrap();
    assert_eq!((last.version, &*last.name, &last.from, &last.to), (3, "a", &number(1), &None));
    for at in 0..2 * settings::HISTORY_MAX as u64 {
        bench.set("c", number(at), None);
    }
    assert_eq!(bench.steer.settings.history().count(), settings::HISTORY_MAX);
    assert_eq!(bench.steer.settings.version(), 3 + 2 * settings::HISTORY_MAX as u64);
}

#[test]
fn limits_are_as_set_and_else_as_configured() {
    let mut bench = Bench::new();
    let configured = Limits { queue_entries_max: 7, ..Limits::default() };
    for spec in table::SETTINGS {
        if let table::Kind::Number { max, .. } = spec.kind {
            bench.set(spec.name, Some(Value::Number(max)), None);
        }
    }
    let over = bench.steer.settings.over(configured);
    let of = |name: &str| bench.steer.settings.number(name).unwrap();
    assert_eq!(over.replicated_bytes_max, of(table::REPLICATED_BYTES_MAX));
    assert_eq!(u64::from(over.queue_entries_max), of(table::QUEUE_ENTRIES_MAX));
    assert_eq!(over.queue_bytes_max, of(table::QUEUE_BYTES_MAX));
    assert_eq!(u64::from(over.session_expiry_s_max), of(table::SESSION_EXPIRY_S_MAX));
    assert_eq!((over.sessions_max, over.retained_max), (of(table::SESSIONS_MAX), of(table::RETAINED_MAX)));
    assert_eq!(u64::from(over.queue_ttl_s), of(table::QUEUE_TTL_S));
    assert_eq!(over.rule_backlog_bytes_max, of(table::RULE_BACKLOG_BYTES_MAX));
    bench.set(table::QUEUE_ENTRIES_MAX, None, None);
    assert_eq!(bench.steer.settings.over(configured).queue_entries_max, 7);
}

fn raise(name: &str, subject: &str, node: Option<NodeId>) -> Change {
    let (severity, message) = (Severity::Warning, "m".into());
    Change::Alarm(alarms::Change::Raise(Raise { name: name.into(), subject: subject.into(), severity, message, node }))
}

fn clear(name: &str, subject: &str) -> Change {
    Change::Alarm(alarms::Change::Clear { name: name.into(), subject: subject.into(), by: "me".into() })
}

#[test]
fn an_alarm_is_raised_once_and_is_history_when_it_is_over() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(raise("a", "s", None)), Answer::Alarm(alarms::Answer::Done));
    let since = bench.now;
    bench.now = bench.now.plus_s(1);
    assert_eq!(bench.run(raise("a", "s", None)), Answer::Alarm(alarms::Answer::Before));
    assert!(bench.events.is_empty());
    assert_eq!(bench.run(clear("a", "t")), Answer::Alarm(alarms::Answer::NoAlarm));
    assert_eq!(bench.run(clear("a", "s")), Answer::Alarm(alarms::Answer::Done));
    let past = bench.steer.alarms.history().next().unwrap();
    assert_eq!((past.alarm.since, past.cleared, &*past.by), (since, bench.now, "me"));
    for _ in 0..=alarms::HISTORY_MAX {
        bench.run(raise("a", "s", None));
        bench.run(clear("a", "s"));
    }
    assert_eq!(bench.steer.alarms.history().count(), alarms::HISTORY_MAX);
    for at in 0..alarms::ALARMS_MAX {
        bench.steer.apply(&raise("a", &at.to_string(), None), bench.now, &mut Vec::new());
    }
    assert_eq!(bench.run(raise("a", "more", None)), Answer::Alarm(alarms::Answer::NoRoom));
}

#[test]
fn a_node_that_is_down_is_an_alarm_and_its_next_run_ends_what_it_had_noticed() {
    let (mut bench, mut events, node) = (Bench::new(), Vec::new(), NodeId(0xab));
    bench.run(raise("disk", "x", Some(node)));
    bench.run(raise("disk", "y", Some(NodeId(1))));
    bench.steer.node_down(node, bench.now, &mut events);
    bench.steer.node_down(node, bench.now, &mut events);
    assert_eq!(events.len(), 1);
    let down = ("node_down".to_owned(), "00000000000000ab".to_owned());
    assert!(bench.alarms().contains(&down));
    bench.steer.node_up(node, bench.now, &mut events);
    assert_eq!(bench.alarms(), [("disk".to_owned(), "y".to_owned())]);
    assert_eq!(events.len(), 3);
    bench.steer.node_down(node, bench.now, &mut events);
    bench.steer.node_removed(node, bench.now, &mut events);
    assert!(!bench.alarms().contains(&down));
}

fn entry(about: &str) -> audit::Entry {
    audit::Entry {
        at: LogTime(1),
        node: NodeId(1),
        user: "u".into(),
        role: "admin".into(),
        address: "::1".into(),
        door: "rest".into(),
        operation: "o".into(),
        about: about.into(),
        status: 200,
        code: "".into(),
        request_id: "r".into(),
    }
}

#[test]
fn the_audit_is_a_ring_by_count_and_by_bytes() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(Change::Audit(vec![entry("1"), entry("2")])), Answer::Audit(2));
    let entries: Vec<_> = (3..=audit::ENTRIES_MAX + 5).map(|at| entry(&at.to_string())).collect();
    bench.run(Change::Audit(entries));
    let audit = &bench.steer.audit;
    assert_eq!((audit.len(), audit.last()), (audit::ENTRIES_MAX, audit::ENTRIES_MAX as u64 + 5));
    let about = |(seq, entry): (u64, &std::sync::Arc<audit::Entry>)| (seq, entry.about.to_string());
    assert_eq!(audit.newest(9).map(about).collect::<Vec<_>>(), [(8, "8".to_owned()), (7, "7".into()), (6, "6".into())]);
    let large = "x".repeat(1 << 20);
    bench.run(Change::Audit((0..12).map(|_| entry(&large)).collect()));
    assert_eq!(bench.steer.audit.len(), 7, "8 MiB, and each is a little more than one");
    let huge = "x".repeat(9 << 20);
    bench.run(Change::Audit(vec![entry(&huge)]));
    assert_eq!(bench.steer.audit.len(), 1, "the last stays, however long");
}

#[test]
fn pieces_that_are_out_of_order_are_refused() {
    let mut bench = Bench::new();
    bench.ban(client("a"), None, false);
    bench.ban(client("b"), None, false);
    bench.set("a", Some(Value::Flag(true)), None);
    bench.set("b", Some(Value::Flag(true)), None);
    bench.run(raise("a", "s", None));
    bench.run(raise("b", "s", None));
    bench.run(clear("a", "s"));
    bench.run(Change::Audit(vec![entry("1"), entry("2")]));
    let pieces: Vec<Filed> = bench.steer.pieces().collect();
    for at in 1..pieces.len() {
        let mut swapped = pieces.clone();
        swapped.swap(at - 1, at);
        let mut restoring = Restoring::default();
        assert!(swapped.into_iter().try_for_each(|piece| restoring.add(piece)).is_err(), "{at}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ban(u8, Option<u8>, bool),
    Lift(u8),
    Pass(u8),
    Set(u8, Option<u64>),
    Raise(u8),
    Clear(u8),
    Audit(u8),
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8, proptest::option::of(0..20u8), any::<bool>())
            .prop_map(|(who, for_s, auto)| Step::Ban(who, for_s, auto)),
        (0..6u8).prop_map(Step::Lift),
        (1..15u8).prop_map(Step::Pass),
        (0..3u8, proptest::option::of(0..3u64)).prop_map(|(name, value)| Step::Set(name, value)),
        (0..3u8).prop_map(Step::Raise),
        (0..3u8).prop_map(Step::Clear),
        (0..3u8).prop_map(Step::Audit),
        Just(Step::Restore),
    ]
}

fn target(who: u8) -> Target {
    match who {
        0 | 1 => client(&who.to_string()),
        2 | 3 => Target::UserName(who.to_string().into()),
        4 => network("10.0.0.0/8"),
        _ => network("10.0.0.1"),
    }
}

proptest! {
    /// Against a model that is a plain map, with restores in between.
    #[test]
    fn it_is_what_a_plain_map_would_be(steps in vec(step(), 1..60)) {
        let mut bench = Bench::new();
        let mut bans: BTreeMap<Target, (Option<LogTime>, bool)> = BTreeMap::new();
        let mut values: BTreeMap<String, u64> = BTreeMap::new();
        let (mut version, mut alarms, mut cleared, mut entries) = (0, std::collections::BTreeSet::new(), 0, 0);
        for step in steps {
            let now = bench.now;
            match step {
                Step::Ban(who, for_s, automatic) => {
                    let before = bans.get(&target(who)).is_some_and(|(until, _)| until.is_none_or(|until| now < until));
                    bench.ban(target(who), for_s.map(u64::from), automatic);
                    if !(automatic && before) {
                        bans.insert(target(who), (for_s.map(|s| now.plus_s(s.into())), automatic));
                    }
                }
                Step::Lift(who) => {
                    let there = bans.remove(&target(who)).is_some();
                    let answer = if there { bans::Answer::Done } else { bans::Answer::NoBan };
                    prop_assert_eq!(bench.run(Change::Ban(bans::Change::Lift { target: target(who) })), Answer::Ban(answer));
                }
                Step::Pass(seconds) => {
                    bench.now = now.plus_s(seconds.into());
                    bench.due();
                    bans.retain(|_, (until, _)| until.is_none_or(|until| bench.now < until));
                    prop_assert!(bench.steer.bans.iter().map(|ban| &ban.target).eq(bans.keys()));
                }
                Step::Set(name, value) => {
                    let name = name.to_string();
                    let from = match value {
                        Some(value) => values.insert(name.clone(), value),
                        None => values.remove(&name),
                    };
                    version += u64::from(from != value);
                    bench.set(&name, value.map(Value::Number), None);
                }
                Step::Raise(name) => {
                    bench.run(raise(&name.to_string(), "", None));
                    alarms.insert(name.to_string());
                }
                Step::Clear(name) => {
                    bench.run(clear(&name.to_string(), ""));
                    cleared += usize::from(alarms.remove(&name.to_string()));
                }
                Step::Audit(count) => {
                    bench.run(Change::Audit((0..count).map(|at| entry(&at.to_string())).collect()));
                    entries += u64::from(count);
                }
                Step::Restore => bench.steer = restored(&bench.steer),
            }
            let bans_counting = |who: u8| bans.get(&target(who)).is_some_and(|(until, _)| until.is_none_or(|until| bench.now < until));
            prop_assert_eq!(bench.banned("0", None, "::1"), bans_counting(0));
            prop_assert_eq!(bench.banned("-", Some("2"), "::1"), bans_counting(2));
            prop_assert_eq!(bench.banned("-", None, "10.0.0.1"), bans_counting(4) || bans_counting(5));
            prop_assert_eq!(bench.banned("-", None, "10.9.9.9"), bans_counting(4));
            prop_assert_eq!(bench.steer.settings.version(), version);
            for name in 0..3u8 {
                let name = name.to_string();
                prop_assert_eq!(bench.steer.settings.number(&name), values.get(&name).copied());
            }
            let flapping = bans.iter().filter(|(_, (_, automatic))| *automatic).map(|(target, _)| target.text());
            let mut wanted: Vec<_> = flapping.map(|text| ("flapping_ban".to_owned(), text)).collect();
            wanted.extend(alarms.iter().map(|name| (name.clone(), String::new())));
            wanted.sort();
            prop_assert_eq!(bench.alarms(), wanted);
            prop_assert!(bench.steer.alarms.history().count() >= cleared.min(alarms::HISTORY_MAX));
            prop_assert_eq!(bench.steer.audit.last(), entries);
        }
    }
}
