use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::children::fingerprint;
use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn matches(trie: &Trie<u32, u32>, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    trie.for_each_match(&topic(name), |key, _| found.push(*key));
    found.sort_unstable();
    found
}

#[test]
fn the_rules_of_matching() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("sport/#", &["sport", "sport/", "sport/a", "sport/a/b"], &["sports", "Sport", "/sport", "a/sport"]),
        ("sport/tennis/+", &["sport/tennis/p", "sport/tennis/"], &["sport/tennis", "sport/tennis/p/q"]),
        ("sport/+", &["sport/", "sport/x"], &["sport", "sport/x/"]),
        ("+", &["finance", "é"], &["/finance", "finance/", "$SYS"]),
        ("+/+", &["/finance", "a/", "/"], &["finance", "a/b/c", "$SYS/a"]),
        ("/+", &["/finance", "/"], &["finance", "/finance/"]),
        ("#", &["a", "/", "//", "a/b", "/a$"], &["$", "$SYS", "$SYS/a", "$a/b/c"]),
        ("+/monitor/#", &["a/monitor", "/monitor/b"], &["$SYS/monitor", "$SYS/monitor/b", "monitor"]),
        ("$SYS/#", &["$SYS", "$SYS/a", "$SYS/$b/c"], &["SYS", "$SYSTEM", "$sys/a"]),
        ("$SYS/+/c", &["$SYS/monitor/c", "$SYS//c"], &["$SYS/c", "$SYS/a/b/c"]),
        ("a/+", &["a/$b"], &["$a/b"]),
        ("+/x", &["é/x", "/x", "🚪/x"], &["é/y", "é", "x"]),
        ("é/x", &["é/x"], &["e/x", "e\u{301}/x"]),
        ("//", &["//"], &["/", "///", "a//"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b", "a///b"]),
        ("$share/g/a/+", &["a/b"], &["$share/g/a/b", "a", "$share"]),
        ("$share/g/+/x", &["a/x", "/x"], &["$SYS/x"]),
        ("$share/g/#", &["a", "a/b"], &["$SYS/x", "$share/g/a"]),
        ("$share/g/$SYS/x", &["$SYS/x"], &["$SYS"]),
        ("$share/g//x", &["/x"], &["x"]),
        ("$shared/+", &["$shared/a"], &["$share/a"]),
    ];
    for (text, yes, no) in cases {
        let mut trie = Trie::default();
        assert_eq!(trie.insert(&filter(text), 1, 0), None);
        for name in *yes {
            assert_eq!(matches(&trie, name), [1], "{text} matches {name}");
            assert!(filter(text).matches(&topic(name)), "the reference: {text} matches {name}");
        }
        for name in *no {
            assert!(matches(&trie, name).is_empty(), "{text} does not match {name}");
            assert!(!filter(text).matches(&topic(name)), "the reference: {text} does not match {name}");
        }
        assert_eq!(trie.remove(&filter(text), &1), Some(0));
        assert_eq!((trie.len(), trie.nodes()), (0, 0), "{text}");
    }
}

#[test]
fn a_value_is_replaced_and_a_key_is_its_own() {
    let mut trie = Trie::default();
    assert_eq!(trie.insert(&filter("a/+"), 1, 10), None);
    assert_eq!(trie.insert(&filter("a/+"), 2, 20), None);
    assert_eq!(trie.insert(&filter("a/#"), 1, 30), None);
    assert_eq!(trie.insert(&filter("a/+"), 1, 11), Some(10));
    assert_eq!(trie.len(), 3);
    assert_eq!(trie.get(&filter("a/+"), &1), Some(&11));
    assert_eq!(trie.get(&filter("a/#"), &1), Some(&30));
    assert_eq!(trie.get(&filter("a"), &1), None);
    assert_eq!(trie.get(&filter("a/b"), &1), None);
    assert_eq!(matches(&trie, "a/b"), [1, 1, 2]);
    assert_eq!(trie.remove(&filter("a/b"), &1), None);
    assert_eq!(trie.remove(&filter("a/+"), &3), None);
    assert_eq!(trie.remove(&filter("a/+"), &1), Some(11));
    assert_eq!(trie.remove(&filter("a/+"), &1), None);
    assert_eq!(matches(&trie, "a/b"), [1, 2]);
    assert!(!trie.is_empty());
}

#[test]
fn share_names_meet_at_the_inner_filter() {
    let mut trie: Trie<(u32, Option<&str>), ()> = Trie::default();
    for (text, share) in [("x/+", None), ("$share/g/x/+", Some("g")), ("$share/h/x/+", Some("h"))] {
        assert_eq!(trie.insert(&filter(text), (1, share), ()), None);
    }
    assert_eq!((trie.len(), trie.nodes()), (3, 2));
    assert_eq!(trie.get(&filter("x/+"), &(1, Some("h"))), Some(&()));
}

#[test]
fn pruning_keeps_what_others_need() {
    let mut trie = Trie::default();
    for (key, text) in ["a", "a/b/c/d", "a/b/x", "a/b/#", "a/+/c", "#"].into_iter().enumerate() {
        trie.insert(&filter(text), key, ());
    }
    assert_eq!(trie.nodes(), 7); // a, b, c, d, x, +, c
    assert_eq!(trie.remove(&filter("a/b/c/d"), &1), Some(()));
    assert_eq!(trie.nodes(), 5);
    assert_eq!(trie.remove(&filter("a/b/#"), &3), Some(()));
    assert_eq!(trie.nodes(), 5);
    assert_eq!(trie.remove(&filter("a"), &0), Some(()));
    assert_eq!(trie.nodes(), 5);
    assert_eq!(trie.remove(&filter("a/b/x"), &2), Some(()));
    assert_eq!(trie.nodes(), 3);
    assert_eq!(trie.remove(&filter("a/+/c"), &4), Some(()));
    assert_eq!((trie.nodes(), trie.len()), (0, 1));
    assert_eq!(trie.remove(&filter("#"), &5), Some(()));
    assert!(trie.is_empty());
}

#[test]
fn many_children_and_many_subscribers() {
    let mut trie = Trie::default();
    for n in 0..1_000u32 {
        assert_eq!(trie.insert(&filter(&format!("device/{n}/up")), n, n), None);
        assert_eq!(trie.insert(&filter("device/+/up"), n, n + 1), None);
    }
    assert_eq!(trie.len(), 2_000);
    assert_eq!(trie.visit(&topic("device/7/up"), |_, _| {}), 6);
    assert_eq!(matches(&trie, "device/7/up").len(), 1_001);
    for (gone, n) in (1..).zip((0..1_000u32).map(|n| n * 7 % 1_000)) {
        assert_eq!(trie.insert(&filter("device/+/up"), n, n), Some(n + 1));
        assert_eq!(trie.remove(&filter("device/+/up"), &n), Some(n));
        assert_eq!(trie.remove(&filter("device/+/up"), &n), None);
        assert_eq!(matches(&trie, &format!("device/{n}/up")).len(), 1_000 - gone + 1);
        assert_eq!(trie.remove(&filter(&format!("device/{n}/up")), &n), Some(n));
    }
    assert_eq!((trie.len(), trie.nodes()), (0, 0));
}

#[test]
fn texts_of_one_fingerprint_are_told_apart() {
    // What an attacker would do: for any first word, a second that brings the sum back.
    let mixed = |word: u64| (16u64.rotate_left(5) ^ word).wrapping_mul(super::children::FACTOR).rotate_left(5);
    let fair = |byte: &u8| byte.is_ascii_graphic() && !b"/+#".contains(byte);
    let goal = mixed(u64::from_le_bytes(*b"aaaaaaaa")) ^ u64::from_le_bytes(*b"aaaaaaaa");
    let twins: Vec<String> = (0u64..)
        .map(|n| u64::from_le_bytes(*b"aaaaaaaa") + (n & 7) + (n >> 3 << 8) % (1 << 36) * 3)
        .map(|word| [word.to_le_bytes(), (goal ^ mixed(word)).to_le_bytes()].concat())
        .filter(|bytes| bytes.iter().all(fair))
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .take(40)
        .collect();
    assert!(twins.iter().all(|text| fingerprint(text) == fingerprint(&twins[0])));
    assert_eq!(twins.iter().collect::<BTreeSet<_>>().len(), 40);
    let mut trie = Trie::default();
    for round in 0..2 {
        for (key, text) in (0..).zip(&twins) {
            assert_eq!(trie.insert(&filter(text), key, round), (round > 0).then_some(0));
        }
    }
    for (key, text) in (0..).zip(&twins) {
        assert_eq!(matches(&trie, text), [key]);
        assert_eq!(trie.remove(&filter(text), &key), Some(1));
        assert!(matches(&trie, text).is_empty());
    }
    assert_eq!(trie.nodes(), 0);
}

#[test]
fn work_is_bounded_by_what_is_subscribed() {
    // All 2^12 filters of `a` and `+`, each also with `#`: a topic of 12 times `a` matches each once.
    let mut trie = Trie::default();
    for bits in 0..1u32 << 12 {
        let levels: Vec<&str> = (0..12).map(|at| if bits >> at & 1 == 0 { "a" } else { "+" }).collect();
        trie.insert(&filter(&levels.join("/")), bits, 0);
        trie.insert(&filter(&format!("{}/#", levels.join("/"))), bits, 0);
    }
    let mut found = 0;
    let visited = trie.visit(&topic(&["a"; 12].join("/")), |_, _| found += 1);
    assert_eq!(found, 1 << 13);
    assert_eq!(visited, trie.nodes() + 1);
    // One that matches few passes few: b is only found along `+`.
    assert_eq!(trie.visit(&topic(&["b"; 12].join("/")), |_, _| {}), 13);
}

#[test]
fn depth_costs_no_stack() {
    let mut trie = Trie::default();
    let plus = ["+"; 128].join("/");
    for cut in 0..128 {
        trie.insert(&filter(&format!("{}#", plus.get(..2 * cut).unwrap())), cut, ());
    }
    trie.insert(&filter(&plus), 128, ());
    let mut found = 0;
    let visited = trie.visit(&topic(&["x"; 128].join("/")), |_, ()| found += 1);
    assert_eq!((found, visited), (129, 129));

    // Deeper than any session may subscribe; still nothing breaks.
    let slashes = "/".repeat(65_535);
    trie.insert(&filter(&slashes), 0, ());
    let beside = "/".repeat(65_000) + "#";
    trie.insert(&filter(&beside), 0, ());
    found = 0;
    trie.for_each_match(&topic(&slashes), |_, ()| found += 1);
    assert_eq!(found, 128 + 2); // all `#`, and both of these
    assert_eq!(trie.remove(&filter(&slashes), &0), Some(()));
    assert_eq!(trie.nodes(), 128 + 65_000);
    drop(trie);
}

fn levels(wildcards: bool) -> impl Strategy<Value = String> {
    let plain = prop::sample::select(vec!["", "a", "b", "é", "$SYS", "aa"]);
    let level = if wildcards { prop_oneof![2 => plain, 1 => Just("+")].boxed() } else { plain.boxed() };
    prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let prefix = prop::sample::select(vec!["", "", "$share/g/", "$share/h/"]);
    let tail = prop::sample::select(vec!["", "", "/#"]);
    let text = (prefix, levels(true), tail).prop_map(|(prefix, levels, tail)| format!("{prefix}{levels}{tail}"));
    prop_oneof![12 => text, 1 => Just("#".to_owned())].prop_filter_map("a filter", |text| TopicFilter::new(text).ok())
}

proptest! {
    #[test]
    fn finds_what_the_reference_finds(
        steps in prop::collection::vec((any_filter(), 0u32..40, prop::bool::weighted(0.8)), 0..400),
        topics in prop::collection::vec(levels(false), 1..20),
    ) {
        // The inner filter is the place, so a share name is part of the key here as it must be in earnest.
        let mut trie = Trie::default();
        let mut model = BTreeMap::new();
        for (n, (filter, id, insert)) in steps.into_iter().enumerate() {
            let key = (id, filter.shared().map(|(name, _)| name.to_owned()));
            let place = (filter.as_str().to_owned(), key.clone());
            if insert {
                prop_assert_eq!(trie.insert(&filter, key, n), model.insert(place, (filter, n)).map(|(_, n)| n));
            } else {
                prop_assert_eq!(trie.remove(&filter, &key), model.remove(&place).map(|(_, n)| n));
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        for name in topics.into_iter().filter_map(|text| TopicName::new(text).ok()) {
            let mut found = Vec::new();
            trie.for_each_match(&name, |key, n| found.push((key.clone(), *n)));
            found.sort();
            let mut want: Vec<_> = model
                .iter()
                .filter(|(_, (filter, _))| filter.matches(&name))
                .map(|((_, key), (_, n))| (key.clone(), *n))
                .collect();
            want.sort();
            prop_assert_eq!(found, want, "{}", name);
        }
        for ((_, key), (filter, n)) in model {
            prop_assert_eq!(trie.get(&filter, &key), Some(&n));
            prop_assert_eq!(trie.remove(&filter, &key), Some(n));
        }
        prop_assert_eq!((trie.len(), trie.nodes()), (0, 0));
    }
}
