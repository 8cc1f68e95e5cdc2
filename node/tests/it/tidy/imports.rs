//! Who may import whom in node/src: rooms to the left of their own only, and none beside it.

use super::Violation;
use super::source;

const RULE: &str = "import order";

/// Rooms from left to right. Those of one step are siblings. `cli` and `main.rs` see everything.
const ROOMS: [&[&str]; 11] = [
    &["config", "telemetry"],
    &["tls"],
    &["store"],
    &["cluster"],
    &["dispatch"],
    &["sessions", "rule_engine"],
    &["operations"],
    &["api"],
    &["doors"],
    &["node"],
    &["cli"],
];

fn step(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

/// The module that a file is, as a path from the crate; `None` for files that are not checked.
fn module(path: &str) -> Option<Vec<String>> {
    let inside = path.strip_prefix("node/src/")?.strip_suffix(".rs")?;
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.iter().any(|part| part == "tests") || matches!(inside, "lib" | "main") {
        return None;
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    Some(parts)
}

pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let Some(module) = module(path) else { return Vec::new() };
    let violation = |line, what| Violation { file: path.to_owned(), line, rule: RULE, what };
    let room = module.first().map_or("", String::as_str);
    let Some(own) = step(room) else {
        return vec![violation(1, format!("the room {room} has no place in the order; rooms are {ROOMS:?}"))];
    };
    let tokens = source::without_tests(&source::tokens(&source::split(text).code));
    let mut violations = Vec::new();
    for named in source::paths_in_crate(&tokens, &module) {
        let Some(other) = named.parts.first().map(String::as_str).filter(|other| *other != room) else {
            if let Some(door) = other_door(&module, &named.parts) {
                violations.push(violation(
                    named.line,
                    format!("{} imports doors/{door}: no door knows another", module.join("/")),
                ));
            }
            continue;
        };
        match step(other) {
            _ if room == "cli" => {}
            None => violations.push(violation(named.line, format!("{room} imports crate::{other}, which is no room"))),
            Some(theirs) if theirs < own => {}
            Some(theirs) if theirs == own => {
                violations.push(violation(named.line, format!("{room} imports its sibling {other}")));
            }
            Some(_) => {
                violations.push(violation(named.line, format!("{room} imports {other}, which lies to its right")))
            }
        }
    }
    violations
}

/// The door that is imported by another one.
fn other_door<'n>(module: &[String], named: &'n [String]) -> Option<&'n str> {
    let [doors, own, ..] = module else { return None };
    let [_, other, ..] = named else { return None };
    // What starts with a capital is an item of doors/mod.rs.
    let is_door = other.chars().next().is_some_and(char::is_lowercase);
    (doors == "doors" && is_door && other != own).then_some(other)
}

#[test]
fn broken_order_is_found() {
    for (path, text, wanted) in [
        ("node/src/config/mod.rs", "use crate::telemetry::Log;", "config imports its sibling telemetry"),
        ("node/src/sessions/actor.rs", "use crate::rule_engine::Rule;", "sessions imports its sibling rule_engine"),
        (
            "node/src/store/sled.rs",
            "use crate::{config::Config, cluster};",
            "store imports cluster, which lies to its right",
        ),
        (
            "node/src/dispatch/mod.rs",
            "fn f() { crate::doors::open() }",
            "dispatch imports doors, which lies to its right",
        ),
        ("node/src/dispatch/mod.rs", "use super::sessions;", "dispatch imports sessions, which lies to its right"),
        (
            "node/src/cluster/a/b.rs",
            "use super::super::super::node::run;",
            "cluster imports node, which lies to its right",
        ),
        (
            "node/src/doors/probes.rs",
            "use super::mqtt::Door;",
            "doors/probes imports doors/mqtt: no door knows another",
        ),
        (
            "node/src/doors/mqtt/tls.rs",
            "use crate::doors::probes;",
            "doors/mqtt/tls imports doors/probes: no door knows another",
        ),
        ("node/src/node.rs", "use crate::cli::main;", "node imports cli, which lies to its right"),
        ("node/src/store/mod.rs", "use crate::Thing;", "store imports crate::Thing, which is no room"),
        ("node/src/attic/mod.rs", "", "the room attic has no place in the order"),
    ] {
        let found = check(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(found[0].what.starts_with(wanted), "{path}: {text}: {}", found[0]);
        assert_eq!((found[0].line, found[0].file.as_str()), (1, path));
    }
}

#[test]
fn kept_order_is_not() {
    for (path, text) in [
        (
            "node/src/doors/mqtt/mod.rs",
            "use crate::{config, telemetry, store, cluster, dispatch, sessions, operations};",
        ),
        ("node/src/doors/mod.rs", "pub mod mqtt; use crate::doors::{mqtt, probes}; use super::sessions;"),
        ("node/src/doors/mqtt/tls.rs", "use super::accept; use crate::doors::mqtt::link; use crate::doors::Door;"),
        ("node/src/node.rs", "use crate::doors::{mqtt, probes}; use crate::sessions::Sessions;"),
        ("node/src/cli/dev.rs", "use crate::node; use crate::doors::mqtt; use super::Configured; use crate::anything;"),
        ("node/src/main.rs", "use crate::anything;"),
        ("node/src/store/mod.rs", "// use crate::doors;\n#[cfg(test)]\nmod tests { use crate::doors; }"),
        ("node/src/store/tests.rs", "use crate::doors;"),
        ("node/broker/src/lib.rs", "use crate::doors;"),
    ] {
        assert_eq!(check(path, text), [], "{path}: {text}");
    }
}
