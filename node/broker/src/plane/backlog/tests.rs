use std::collections::{BTreeMap, VecDeque};

use fulmar_platform::event::Subject;
use fulmar_platform::registry::{self, Channel, Expect, Guarantee, Record, Registry, Rule, RuleAction};
use proptest::prelude::*;

use super::*;
use crate::plane;

/// The rest of the state, as far as backlogs ask.
struct Rest {
    now: LogTime,
    registry: Registry,
    alive: Vec<u64>,
    bytes_max: u64,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest { now: LogTime(1000), registry: Registry::default(), alive: vec![1, 2], bytes_max: 1 << 20 }
    }
}

impl Rest {
    fn put_action(&mut self, id: &str) {
        let rule = Rule {
            id: "r".into(),
            name: "".into(),
            description: "".into(),
            subject: Subject::PropertyReport,
            app_id: "".into(),
            select: "".into(),
            filter: "".into(),
            active: true,
            guarantee: Guarantee::Durable,
            created_ms: 0,
        };
        let (rule_id, app_id, channel) = ("r".into(), "".into(), Channel::Republish);
        let action = RuleAction { id: id.into(), rule_id, app_id, channel, detail: "{}".into(), created_ms: 0 };
        for record in [Record::Rule(rule.into()), Record::RuleAction(action.into())] {
            let change = registry::Change::Put { record, expect: Expect::Anything };
            self.registry.apply(&change, 0, &mut Vec::new()).expect("it is put");
        }
    }
}

impl Ground for Rest {
    fn now(&self) -> LogTime {
        self.now
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn owner_of(&self, _device: &str) -> Option<Owner> {
        None
    }

    fn alive(&self, node: NodeId, _generation: Generation) -> bool {
        self.alive.contains(&node.0)
    }

    fn backlog_bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

fn entry(key: &str, bytes: usize, expires_at: u64) -> Entry {
    let topic = Some(TopicName::new("a/b").expect("a topic"));
    Entry { key: key.into(), body: vec![7; bytes].into(), topic, at_ms: 5, expires_at: LogTime(expires_at) }
}

fn append(name: &str, entries: Vec<Entry>) -> Change {
    Change::Append { name: name.into(), entries }
}

fn claim(name: &str, node: u64) -> Change {
    Change::Claim { name: name.into(), node: NodeId(node), generation: Generation(1) }
}

fn settle(name: &str, epoch: Epoch, floor: u64, refused: u32) -> Change {
    Change::Settle { name: name.into(), epoch, floor, refused }
}

/// Applies, checks the books, and says what was told.
fn apply(backlogs: &mut Backlogs, rest: &Rest, change: &Change) -> (Answer, Vec<Event>) {
    let mut events = Vec::new();
    let answer = backlogs.apply(change, rest, &mut events);
    backlogs.check().expect("the books balance");
    let events = events.into_iter().map(|event| match event {
        plane::Event::Backlog(event) => event,
        other => panic!("{other:?}"),
    });
    (answer, events.collect())
}

fn keys(backlogs: &Backlogs, name: &str) -> Vec<String> {
    backlogs.read(name, 0, usize::MAX, u64::MAX).into_iter().map(|(_, entry)| entry.key.into()).collect()
}

fn claimed(answer: &Answer) -> (Epoch, u64) {
    match answer {
        Answer::Claimed { epoch, floor } => (*epoch, *floor),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_appended_is_read_in_order_and_settled_by_who_has_it() {
    let (mut backlogs, rest) = (Backlogs::default(), Rest::default());
    assert_eq!(apply(&mut backlogs, &rest, &claim("push/a", 1)).0, Answer::Missing);
    let entries = vec![entry("1", 10, 9000), entry("2", 10, 9000), entry("3", 10, 9000)];
    let (answer, events) = apply(&mut backlogs, &rest, &append("push/a", entries));
    assert_eq!(answer, Answer::Appended { dropped: 0 });
    assert_eq!(events, [Event::Grown { name: "push/a".into(), owner: None }]);
    let (epoch, floor) = claimed(&apply(&mut backlogs, &rest, &claim("push/a", 1)).0);
    let read = backlogs.read("push/a", floor, 2, u64::MAX);
    assert_eq!(read.iter().map(|(_, entry)| &*entry.key).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(read.first().map(|(_, read)| read), Some(&entry("1", 10, 9000)));
    assert_eq!(backlogs.read("push/a", floor, 9, 1).len(), 1, "one at least");
    assert_eq!(apply(&mut backlogs, &rest, &settle("push/a", epoch, read[1].0 + 1, 1)).0, Answer::Done);
    assert_eq!(keys(&backlogs, "push/a"), ["3"]);
    let view = backlogs.view("push/a").expect("it is there");
    let counts = Counts { appended: 3, settled: 1, refused: 1, ..Counts::default() };
    assert_eq!((view.entries, view.oldest_ms, view.counts), (1, Some(5), counts));
    let owner = Some(Owner { node: NodeId(1), generation: Generation(1), epoch });
    let (_, events) = apply(&mut backlogs, &rest, &append("push/a", vec![entry("4", 10, 9000)]));
    assert_eq!(events, [Event::Grown { name: "push/a".into(), owner }]);
}

#[test]
fn an_action_that_is_deleted_leaves_nothing() {
    let (mut backlogs, mut rest) = (Backlogs::default(), Rest::default());
    let (answer, events) = apply(&mut backlogs, &rest, &append("rule/x", vec![entry("1", 1, 9000)]));
    assert_eq!(answer, Answer::Appended { dropped: 1 });
    assert!(matches!(events[..], [Event::Dropped { reason: Dropped::Discarded, entries: 1, .. }]), "{events:?}");
    assert_eq!(backlogs.view("rule/x"), None, "there is no such action");
    rest.put_action("x");
    apply(&mut backlogs, &rest, &append("rule/x", vec![entry("1", 1, 9000)]));
    assert_eq!(keys(&backlogs, "rule/x"), ["1"]);
    let mut events = Vec::new();
    backlogs.action_deleted("x", &mut events);
    backlogs.check().expect("the books balance");
    assert_eq!((events.len(), backlogs.counts().discarded, backlogs.view("rule/x")), (1, 2, None));
}

#[test]
fn who_was_taken_over_from_settles_nothing() {
    let (mut backlogs, mut rest) = (Backlogs::default(), Rest::default());
    apply(&mut backlogs, &rest, &append("b", vec![entry("1", 1, 9000)]));
    let (first, _) = claimed(&apply(&mut backlogs, &rest, &claim("b", 1)).0);
    let (second, floor) = claimed(&apply(&mut backlogs, &rest, &claim("b", 2)).0);
    assert!(second > first);
    assert_eq!(apply(&mut backlogs, &rest, &settle("b", first, floor + 1, 0)).0, Answer::Stale);
    assert_eq!(apply(&mut backlogs, &rest, &Change::Release { name: "b".into(), epoch: first }).0, Answer::Stale);
    assert_eq!(keys(&backlogs, "b"), ["1"]);
    rest.alive = vec![1];
    assert_eq!(apply(&mut backlogs, &rest, &claim("b", 2)).0, Answer::Stale, "that run has ended");
    let (_, events) = apply(&mut backlogs, &rest, &append("b", vec![entry("2", 1, 9000)]));
    assert_eq!(events, [Event::Grown { name: "b".into(), owner: None }], "a run that has ended is told nothing");
    let (answer, events) = apply(&mut backlogs, &rest, &Change::Release { name: "b".into(), epoch: second });
    assert_eq!((answer, events), (Answer::Done, vec![Event::Released { name: "b".into() }]));
    assert_eq!(apply(&mut backlogs, &rest, &settle("b", second, u64::MAX, 0)).0, Answer::Stale);
}

#[test]
fn at_its_bounds_a_backlog_loses_its_oldest() {
    let (mut backlogs, rest) = (Backlogs::default(), Rest { bytes_max: u64::MAX, ..Rest::default() });
    let many = (0..ENTRIES_MAX + 3).map(|key| entry(&key.to_string(), 0, 9000)).collect();
    let (answer, events) = apply(&mut backlogs, &rest, &append("b", many));
    assert_eq!(answer, Answer::Appended { dropped: 3 });
    assert!(matches!(events[0], Event::Dropped { reason: Dropped::Full, entries: 3, .. }), "{events:?}");
    assert_eq!(backlogs.read("b", 0, 1, 1)[0].1.key.as_ref(), "3");
    let large = usize::try_from(BYTES_MAX).expect("it fits");
    let (answer, _) = apply(&mut backlogs, &rest, &append("c", vec![entry("kept", 0, 1), entry("large", large, 1)]));
    assert_eq!(answer, Answer::Appended { dropped: 1 });
    assert_eq!(keys(&backlogs, "c"), ["kept"], "what can never fit pushes nothing out");
    let halves = (0..3).map(|key| entry(&key.to_string(), large / 2 - 500, 9000)).collect();
    apply(&mut backlogs, &rest, &append("d", halves));
    assert_eq!(keys(&backlogs, "d"), ["1", "2"]);
}

#[test]
fn at_the_bound_of_all_the_largest_loses() {
    let (mut backlogs, rest) = (Backlogs::default(), Rest { bytes_max: 10_000, ..Rest::default() });
    apply(&mut backlogs, &rest, &append("quiet", vec![entry("1", 1000, 9000)]));
    let noise = (0..20).map(|key| entry(&key.to_string(), 1000, 9000)).collect();
    let (_, events) = apply(&mut backlogs, &rest, &append("noisy", noise));
    assert_eq!(keys(&backlogs, "quiet"), ["1"]);
    assert_eq!(keys(&backlogs, "noisy").len(), 7);
    assert!(backlogs.bytes() <= 10_000);
    let cost = entry("9", 1000, 0).cost();
    assert!(
        matches!(&events[..], [Event::Dropped { entries: 13, bytes, .. }, Event::Grown { .. }] if *bytes > 12 * cost),
        "{events:?}"
    );
    assert_eq!(backlogs.counts().full, 13);
}

#[test]
fn entries_expire_and_are_counted() {
    let (mut backlogs, mut rest) = (Backlogs::default(), Rest::default());
    apply(&mut backlogs, &rest, &append("b", vec![entry("1", 1, 2000), entry("2", 1, 1500), entry("3", 1, 4000)]));
    assert_eq!(backlogs.next_due(), Some(LogTime(2000)));
    assert_eq!(backlogs.due(LogTime(1999), 9), []);
    rest.now = LogTime(2000);
    let due = backlogs.due(rest.now, 9);
    assert_eq!(due, [Change::Expire { name: "b".into() }]);
    let (_, events) = apply(&mut backlogs, &rest, &due[0]);
    assert!(matches!(events[..], [Event::Dropped { reason: Dropped::Expired, entries: 2, .. }]), "{events:?}");
    assert_eq!(apply(&mut backlogs, &rest, &due[0]), (Answer::Done, vec![]), "again is harmless");
    assert_eq!((keys(&backlogs, "b"), backlogs.next_due()), (vec!["3".to_owned()], Some(LogTime(4000))));
    let (_, events) = apply(&mut backlogs, &rest, &Change::Discard { name: "b".into() });
    assert!(matches!(events[..], [Event::Dropped { reason: Dropped::Discarded, entries: 1, .. }]), "{events:?}");
    assert_eq!((backlogs.next_due(), backlogs.bytes(), backlogs.view("b")), (None, 0, None));
    let counts = Counts { appended: 3, expired: 2, discarded: 1, ..Counts::default() };
    assert_eq!(*backlogs.counts(), counts);
    assert_eq!(apply(&mut backlogs, &rest, &Change::Discard { name: "b".into() }).0, Answer::Missing);
}

fn restored(backlogs: &Backlogs) -> Result<Backlogs, (&'static str, String)> {
    let mut restoring = plane::Restoring::default();
    for piece in backlogs.pieces() {
        restoring.add(plane::Filed::Backlog(piece))?;
    }
    Ok(restoring.finish()?.backlogs)
}

#[test]
fn a_snapshot_is_small_records_and_comes_back() {
    let (mut backlogs, rest) = (Backlogs::default(), Rest::default());
    assert_eq!(backlogs.pieces().count(), 0);
    let entries = (0..40).map(|key| entry(&key.to_string(), 10_000, 9000)).collect();
    apply(&mut backlogs, &rest, &append("b", entries));
    apply(&mut backlogs, &rest, &append("a", vec![entry("1", 1, 9000)]));
    apply(&mut backlogs, &rest, &claim("a", 1));
    let pages: Vec<usize> = backlogs
        .pieces()
        .filter_map(|piece| if let Filed::Entries(page) = piece { Some(page.len()) } else { None })
        .collect();
    assert_eq!(pages, [1, 7, 7, 7, 7, 7, 5]);
    assert_eq!(restored(&backlogs), Ok(backlogs));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let entries = |seqs: &[u64]| Filed::Entries(seqs.iter().map(|seq| (*seq, entry("k", 1, 1))).collect());
    let counts = |appended| Counts { appended, ..Counts::default() };
    let head = || Filed::Head { last: 2, counts: counts(1) };
    let one = |name: &str, appended| Filed::Backlog { name: name.into(), owner: None, counts: counts(appended) };
    let owner = Some(Owner { node: NodeId(1), generation: Generation(1), epoch: Epoch(3) });
    let late = Filed::Backlog { name: "b".into(), owner, counts: counts(0) };
    for (pieces, field) in [
        (vec![Filed::Head { last: 0, counts: counts(0) }], "last"),
        (vec![head(), head()], "last"),
        (vec![head(), entries(&[1])], "entries"),
        (vec![head(), one("b", 1), entries(&[3])], "seq"),
        (vec![head(), one("b", 1), entries(&[2]), entries(&[1])], "seq"),
        (vec![head(), one("b", 1), one("a", 0)], "name"),
        (vec![head(), one("b", 1)], "entries"),
        (vec![head(), one("b", 0), one("c", 0)], "entries"),
        (vec![head(), late], "owner"),
    ] {
        let mut restoring = plane::Restoring::default();
        let added = pieces.into_iter().try_for_each(|piece| restoring.add(plane::Filed::Backlog(piece)));
        let refused = added.and_then(|()| restoring.finish().map(|_| ())).expect_err(field);
        assert_eq!(refused.0, field, "{refused:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { name: u8, sizes: Vec<usize>, ttl: u64 },
    Claim { name: u8, node: u64 },
    Settle { name: u8, count: usize, old: bool },
    Discard { name: u8 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..3_u8;
    prop_oneof![
        4 => (name.clone(), prop::collection::vec(0..900_usize, 1..5), 1..50_u64)
            .prop_map(|(name, sizes, ttl)| Step::Append { name, sizes, ttl }),
        2 => (name.clone(), 0..4_u64).prop_map(|(name, node)| Step::Claim { name, node }),
        3 => (name.clone(), 0..4_usize, any::<bool>()).prop_map(|(name, count, old)| Step::Settle { name, count, old }),
        1 => name.prop_map(|name| Step::Discard { name }),
        2 => (1..30_u64).prop_map(Step::Wait),
    ]
}

/// What a backlog ought to be: who may settle, who could before, and keys with what they cost and when they expire.
#[derive(Default)]
struct Model {
    epoch: Option<Epoch>,
    before: Option<Epoch>,
    entries: VecDeque<(String, u64, u64)>,
}

proptest! {
    #[test]
    fn backlogs_are_as_a_simple_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let (mut backlogs, mut rest) = (Backlogs::default(), Rest { bytes_max: 4000, ..Rest::default() });
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        let mut made = 0;
        for step in steps {
            match step {
                Step::Append { name, sizes, ttl } => {
                    let name = name.to_string();
                    let model = models.entry(name.clone()).or_default();
                    let mut entries = Vec::new();
                    for size in sizes {
                        made += 1;
                        let entry = entry(&made.to_string(), size, rest.now.0 + ttl);
                        let after = model.entries.back().map_or(0, |(_, _, at)| *at);
                        model.entries.push_back((entry.key.to_string(), entry.cost(), after.max(entry.expires_at.0)));
                        entries.push(entry);
                    }
                    apply(&mut backlogs, &rest, &append(&name, entries));
                    let bytes = |model: &Model| model.entries.iter().map(|(_, cost, _)| cost).sum::<u64>();
                    while models.values().map(bytes).sum::<u64>() > rest.bytes_max {
                        let largest = models.values_mut().max_by_key(|model| bytes(model));
                        largest.expect("there is one").entries.pop_front();
                    }
                }
                Step::Claim { name, node } => {
                    let name = name.to_string();
                    let (answer, _) = apply(&mut backlogs, &rest, &claim(&name, node));
                    match (models.get_mut(&name), rest.alive.contains(&node)) {
                        (_, false) => prop_assert_eq!(answer, Answer::Stale),
                        (None, true) => prop_assert_eq!(answer, Answer::Missing),
                        (Some(model), true) => {
                            let (epoch, _) = claimed(&answer);
                            prop_assert!(model.epoch.is_none_or(|before| before < epoch));
                            model.before = model.epoch.replace(epoch);
                        }
                    }
                }
                Step::Settle { name, count, old } => {
                    let name = name.to_string();
                    let Some(model) = models.get_mut(&name) else { continue };
                    let Some(epoch) = (if old { model.before } else { model.epoch }) else { continue };
                    let read = backlogs.read(&name, 0, count, u64::MAX);
                    let floor = read.last().map_or(0, |(seq, _)| seq + 1);
                    let (answer, _) = apply(&mut backlogs, &rest, &settle(&name, epoch, floor, 0));
                    if old {
                        prop_assert_eq!(answer, Answer::Stale);
                    } else {
                        model.entries.drain(..count.min(model.entries.len()));
                    }
                }
                Step::Discard { name } => {
                    models.remove(&name.to_string());
                    apply(&mut backlogs, &rest, &Change::Discard { name: name.to_string().into() });
                }
                Step::Wait(ms) => {
                    rest.now.0 += ms;
                    for change in backlogs.due(rest.now, usize::MAX) {
                        apply(&mut backlogs, &rest, &change);
                    }
                    for model in models.values_mut() {
                        while model.entries.front().is_some_and(|(_, _, at)| *at <= rest.now.0) {
                            model.entries.pop_front();
                        }
                    }
                }
            }
            for (name, model) in &models {
                let wanted: Vec<&String> = model.entries.iter().map(|(key, _, _)| key).collect();
                let found = keys(&backlogs, name);
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{}", name);
            }
            prop_assert_eq!(backlogs.views().count(), models.len());
            let back = restored(&backlogs);
            prop_assert_eq!(back.as_ref(), Ok(&backlogs));
        }
    }
}
