use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use fulmar_mqtt::QoS;
use proptest::prelude::*;

use super::*;
use crate::key::LogTime;
use crate::publication::Via;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn message(name: &str, payload: &'static str) -> Arc<Publication> {
    Arc::new(Publication {
        topic: topic(name),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: QoS::AtMostOnce,
        retain: true,
        forward: Default::default(),
        origin: None,
        accepted_at: LogTime(0),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    })
}

fn retained<S: AsRef<str>>(topics: impl IntoIterator<Item = S>) -> Retained {
    let mut retained = Retained::default();
    for name in topics {
        retained.set(message(name.as_ref(), "x"));
    }
    retained
}

fn names(found: &[Arc<Publication>]) -> Vec<String> {
    found.iter().map(|publication| publication.topic.to_string()).collect()
}

/// All pages of a walk: what they found, and how many there were.
fn walk_all(retained: &Retained, text: &str, steps_max: usize) -> (Vec<String>, usize) {
    let (filter, mut found, mut after, mut pages) = (filter(text), Vec::new(), None, 0);
    loop {
        let page = retained.walk(&filter, after.as_ref(), steps_max);
        assert!(page.found.len() <= steps_max.max(1));
        found.extend(names(&page.found));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => return (found, pages),
        }
    }
}

#[test]
fn the_rules_of_matching() {
    let all = retained([
        "sport",
        "sport/",
        "sport/a",
        "sport/a/b",
        "sport-x",
        "sports",
        "/",
        "//",
        "/finance",
        "finance",
        "é/x",
        "é",
        "e/x",
        "$SYS",
        "$SYS/a",
        "$SYS/a/b",
        "$",
        "%",
        "\"",
        "a//b",
        "a/b",
        "a/ /b",
    ]);
    let cases: &[(&str, &[&str])] = &[
        ("sport/#", &["sport", "sport/", "sport/a", "sport/a/b"]),
        ("sport/+", &["sport/", "sport/a"]),
        ("sport", &["sport"]),
        ("sport/+/#", &["sport/", "sport/a", "sport/a/b"]),
        ("sport/x", &[]),
        ("+/x", &["e/x", "é/x"]),
        ("+", &["\"", "%", "finance", "sport", "sport-x", "sports", "é"]),
        ("/+", &["/", "/finance"]),
        ("//", &["//"]),
        ("$SYS/#", &["$SYS", "$SYS/a", "$SYS/a/b"]),
        ("$SYS/+", &["$SYS/a"]),
        ("+/a", &["sport/a"]),
        ("a/+/b", &["a//b", "a/ /b"]),
        ("$share/g/+/x", &["e/x", "é/x"]),
        ("$share/g/sport", &["sport"]),
        ("$share/g/$SYS/a", &["$SYS/a"]),
        (
            "#",
            &[
                "/",
                "//",
                "/finance",
                "\"",
                "%",
                "a//b",
                "a/ /b",
                "a/b",
                "e/x",
                "finance",
                "sport",
                "sport/",
                "sport/a",
                "sport/a/b",
                "sport-x",
                "sports",
                "é",
                "é/x",
            ],
        ),
    ];
    for (text, want) in cases {
        for steps_max in [0, 1, 2, 3, 7, 100] {
            assert_eq!(walk_all(&all, text, steps_max).0, *want, "{text} by {steps_max}");
        }
        let reference: BTreeSet<_> =
            all.iter().filter(|p| filter(text).matches(&p.topic)).map(|p| p.topic.to_string()).collect();
        assert_eq!(
            want.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
            reference,
            "the reference: {text}"
        );
    }
}

#[test]
fn one_message_per_topic() {
    let mut retained = Retained::default();
    assert!(retained.is_empty());
    assert_eq!(retained.set(message("a/b", "1")), None);
    assert_eq!(retained.set(message("a", "2")), None);
    assert_eq!(retained.set(message("a/b", "3")), Some(message("a/b", "1")));
    assert_eq!(retained.get(&topic("a/b")), Some(&message("a/b", "3")));
    assert_eq!(retained.get(&topic("a/")), None);
    assert_eq!(retained.len(), 2);
    assert_eq!(retained.clear(&topic("a/c")), None);
    assert_eq!(retained.clear(&topic("a/b")), Some(message("a/b", "3")));
    assert_eq!(retained.clear(&topic("a/b")), None);
    assert_eq!(retained.iter().collect::<Vec<_>>(), [&message("a", "2")]);
}

#[test]
fn the_topic_is_not_kept_twice_nor_the_old_one_kept() {
    let mut retained = Retained::default();
    let (old, new) = (message("a", "1"), message("a", "2"));
    retained.set(Arc::clone(&old));
    assert_eq!(Arc::strong_count(&old), 2);
    retained.set(Arc::clone(&new));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 2));
}

#[test]
fn a_walk_is_over_its_own_clone() {
    let mut live = retained((0..100).map(|n| format!("d/{n:02}")));
    let snapshot = live.clone();
    let page = snapshot.walk(&filter("d/#"), None, 10);
    for n in 0..100 {
        live.clear(&topic(&format!("d/{n:02}")));
        live.set(message(&format!("d/{n:02}/new"), "x"));
    }
    let rest = snapshot.walk(&filter("d/#"), page.next.as_ref(), 1_000);
    assert_eq!((names(&page.found).last().unwrap().as_str(), page.found.len()), ("d/09", 10));
    assert_eq!((names(&rest.found)[0].as_str(), rest.found.len(), rest.next), ("d/10", 90, None));
    // The cursor has a meaning in the changed map too: what lies ahead of it.
    let rest = live.walk(&filter("d/#"), page.next.as_ref(), 1_000);
    assert_eq!((names(&rest.found)[0].as_str(), rest.found.len()), ("d/10/new", 90));
}

#[test]
fn a_cursor_travels_as_text() {
    let retained = retained(["a", "a/b", "b"]);
    let next = retained.walk(&filter("#"), None, 1).next.unwrap();
    assert_eq!(Cursor::at(next.as_str()), next);
    assert_eq!(names(&retained.walk(&filter("#"), Some(&next), 10).found), ["a/b", "b"]);
    assert_eq!(names(&retained.walk(&filter("a/b"), Some(&next), 10).found), ["a/b"]);
    assert!(retained.walk(&filter("a"), Some(&next), 10).found.is_empty());
}

#[test]
fn what_cannot_match_is_passed_over() {
    let topics = (0..200).flat_map(|d| (0..100).map(move |t| format!("d/{d:03}/{t:02}/v")));
    let all =
        retained(topics.chain((0..5_000).map(|n| format!("$SYS/{n}"))).chain((0..5_000).map(|n| format!("z{n}"))));
    assert_eq!(all.len(), 30_000);
    // With one step a page, pages are steps, and every seek comes at once.
    let cases = [
        ("d/100/50/v", 1, 1),
        ("d/100/+/v", 100, 300),
        ("d/100/#", 100, 103),
        ("d/+/50/v", 200, 200 * 3 + 2),
        ("d/+/50/#", 200, 200 * 3 + 2),
        ("d/+/xx/v", 0, 200 * 3 + 2),
        ("d/+", 0, 200 * 3 + 2),
        ("+/100/50/+", 1, 5_010), // each z is a first level of its own
        ("+/+/50/v", 200, 5_000 + 200 * 3 + 2),
        ("nothing/#", 0, 2),
        ("$SYS/77", 1, 1),
        ("$SYS/+/x/#", 0, 2 * 5_000),
    ];
    for (text, found, steps_max) in cases {
        let (names, steps) = walk_all(&all, text, 1);
        assert_eq!(names.len(), found, "{text}");
        assert!(steps <= steps_max, "{text}: {steps} steps");
        let (again, pages) = walk_all(&all, text, 64);
        assert_eq!(names, again, "{text}");
        assert!(pages <= 1 + steps_max * (1 + walk::PASSED_BEFORE_SEEK) / 64, "{text}: {pages} pages");
    }
}

#[test]
fn depth_and_length_are_no_danger() {
    let slashes = "/".repeat(65_535);
    let all = retained([slashes.as_str(), "a", &["x"; 128].join("/"), &["x"; 127].join("/")]);
    assert_eq!(walk_all(&all, &["+"; 128].join("/"), 1).0, [["x"; 128].join("/")]);
    assert_eq!(walk_all(&all, &format!("{}/#", ["+"; 127].join("/")), 1).0.len(), 3);
    assert_eq!(walk_all(&all, &slashes, 1).0, [slashes.as_str()]);
    assert_eq!(walk_all(&all, &format!("+{}", "/".repeat(65_000)), 1).0.len(), 0);
    assert_eq!(walk_all(&all, "#", 1).0.len(), 4);
}

fn levels(wildcards: bool) -> impl Strategy<Value = String> {
    let plain = prop::sample::select(vec!["", "a", "b", "a!", "a\u{1}", "é", "$SYS", "$", "ab"]);
    let level = if wildcards { prop_oneof![3 => plain, 2 => Just("+")].boxed() } else { plain.boxed() };
    prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let prefix = prop::sample::select(vec!["", "", "", "$share/g/"]);
    let tail = prop::sample::select(vec!["", "", "/#"]);
    let text = (prefix, levels(true), tail).prop_map(|(prefix, levels, tail)| format!("{prefix}{levels}{tail}"));
    prop_oneof![12 => text, 1 => Just("#".to_owned())].prop_filter_map("a filter", |text| TopicFilter::new(text).ok())
}

fn any_topic() -> impl Strategy<Value = TopicName> {
    levels(false).prop_filter_map("a topic", |text| TopicName::new(text).ok())
}

fn by_levels(a: &TopicName, b: &TopicName) -> Ordering {
    a.levels().map(str::as_bytes).cmp(b.levels().map(str::as_bytes))
}

proptest! {
    #[test]
    fn pages_together_are_what_the_reference_finds(
        steps in prop::collection::vec((any_topic(), prop::bool::weighted(0.9)), 0..200),
        filters in prop::collection::vec(any_filter(), 1..20),
        steps_max in prop_oneof![Just(1usize), 1usize..40],
    ) {
        let mut retained = Retained::default();
        let mut model = BTreeSet::new();
        for (name, set) in steps {
            if set {
                let replaced = retained.set(message(name.as_str(), "x"));
                prop_assert_eq!(replaced.is_none(), model.insert(name));
            } else {
                prop_assert_eq!(retained.clear(&name).is_some(), model.remove(&name));
            }
            prop_assert_eq!(retained.len(), model.len());
        }
        let mut sorted: Vec<_> = model.into_iter().collect();
        sorted.sort_by(by_levels);
        prop_assert!(retained.iter().map(|held| &held.topic).eq(&sorted));
        for filter in filters {
            let want: Vec<_> = sorted.iter().filter(|name| filter.matches(name)).map(ToString::to_string).collect();
            let (found, pages) = walk_all(&retained, filter.as_str(), steps_max);
            prop_assert_eq!(found, want, "{}", filter);
            prop_assert!(pages <= sorted.len().div_ceil(steps_max).max(1), "an entry is looked at once");
        }
    }

    #[test]
    fn order_is_by_levels(a in any_topic(), b in any_topic(), c in "[a-c/ !é]{1,30}", d in "[a-c/ !é]{1,30}") {
        prop_assert_eq!(order::compare(a.as_str(), b.as_str()), by_levels(&a, &b));
        let (c, d) = (topic(&c), topic(&d));
        prop_assert_eq!(order::compare(c.as_str(), d.as_str()), by_levels(&c, &d));
    }

    #[test]
    fn any_text_is_a_cursor(text in "\\PC{0,12}|[a$/\u{0}\u{1}]{0,8}", names in prop::collection::vec(any_topic(), 0..30), filter in any_filter()) {
        let retained = retained(names.iter().map(TopicName::as_str));
        let page = retained.walk(&filter, Some(&Cursor::at(&text)), 100);
        let ahead = |p: &&Arc<Publication>| order::compare(&text, p.topic.as_str()).is_le() && filter.matches(&p.topic);
        prop_assert!(retained.iter().filter(ahead).eq(page.found.iter()));
    }
}
