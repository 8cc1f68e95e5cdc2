//! What the pure crates may depend on, and what they may not name: clocks, environment, sockets, disks, threads, chance.

use super::Violation;
use super::source;

const RULE: &str = "purity";

/// The pure crates under node/, each with all that it may depend on.
const CRATES: [(&str, &[&str]); 4] = [
    ("mqtt", &["bytes", "bytestring", "mqttbytes", "smallvec", "thiserror"]),
    ("broker", &["bytes", "bytestring", "fulmar-mqtt", "fulmar-platform", "rpds", "smallvec", "thiserror"]),
    ("rules", &["thiserror"]),
    (
        "platform",
        &[
            "aes",
            "base64",
            "bytes",
            "bytestring",
            "cbc",
            "flate2",
            "form_urlencoded",
            "fulmar-mqtt",
            "hex",
            "hmac",
            "md-5",
            "rpds",
            "serde",
            "serde_json",
            "sha1",
            "sha2",
            "subtle",
            "thiserror",
            "x509-parser",
        ],
    ),
];

/// For tests only. What is random in a test prints its seed.
const DEV: [&str; 1] = ["proptest"];

/// Modules of std that are not named at all.
const MODULES: [&str; 5] = ["env", "fs", "process", "thread", "os"];

/// Of std::net, addresses are plain values.
const ADDRESSES: [&str; 6] = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];

/// Words that are not used, whatever path leads to them.
const WORDS: [&str; 7] = ["Instant", "SystemTime", "UNIX_EPOCH", "tokio", "rand", "getrandom", "RandomState"];

fn crate_of(path: &str) -> Option<(&'static [&'static str], &str)> {
    CRATES.iter().find_map(|(name, allowed)| {
        let inside = path.strip_prefix("node/")?.strip_prefix(name)?.strip_prefix('/')?;
        Some((*allowed, inside))
    })
}

pub(super) fn is_pure(path: &str) -> bool {
    crate_of(path)
        .is_some_and(|(_, inside)| inside == "Cargo.toml" || (inside.starts_with("src/") && inside.ends_with(".rs")))
}

pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    match crate_of(path) {
        Some((allowed, "Cargo.toml")) => manifest(path, text, allowed),
        Some((_, inside)) if !inside.split('/').any(|part| part == "tests" || part == "tests.rs") => code(path, text),
        _ => Vec::new(),
    }
}

fn manifest(path: &str, text: &str, allowed: &[&str]) -> Vec<Violation> {
    let mut section = String::new();
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut add = |what| violations.push(Violation { file: path.to_owned(), line: index + 1, rule: RULE, what });
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            if section.contains("dependencies") && !matches!(section.as_str(), "dependencies" | "dev-dependencies") {
                add(format!("has [{section}]; a pure crate has [dependencies] and [dev-dependencies]"));
            }
            continue;
        }
        let allowed = match section.as_str() {
            "dependencies" => allowed,
            "dev-dependencies" => &DEV,
            _ => continue,
        };
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if !name.is_empty() && !allowed.contains(&name) {
            add(format!("[{section}] names {name}; allowed: {}", allowed.join(", ")));
        }
    }
    violations
}

fn code(path: &str, text: &str) -> Vec<Violation> {
    let tokens = source::without_tests(&source::tokens(&source::split(text).code));
    let violation = |line, what| Violation { file: path.to_owned(), line, rule: RULE, what };
    let mut violations: Vec<Violation> = tokens
        .iter()
        .filter(|token| WORDS.contains(&token.text.as_str()))
        .map(|token| violation(token.line, format!("names {}", token.text)))
        .collect();
    for named in source::paths_from(&tokens, "std") {
        let parts: Vec<&str> = named.parts.iter().map(String::as_str).collect();
        let banned = match parts.as_slice() {
            [_, module, ..] if MODULES.contains(module) => true,
            [_, "net", item, ..] => !ADDRESSES.contains(item),
            [_, "net"] | [_, "time"] | [_, "time", "*"] | [_, "*"] => true,
            _ => false,
        };
        if banned {
            violations.push(violation(named.line, format!("names {}", parts.join("::"))));
        }
    }
    violations
}

#[test]
fn impure_code_is_found() {
    for text in [
        "use std::time::Instant;",
        "use std::{fmt, time::{Duration, SystemTime}};",
        "use std::time;",
        "use std::time::*;",
        "use std::*;",
        "let home = std::env::var(name);",
        "fn f() { ::std::fs::read(path) }",
        "use std::net::{IpAddr, TcpStream};",
        "use std::net;",
        "std::thread::sleep(d);",
        "use std::process::Command;",
        "tokio::spawn(f);",
        "let x: u8 = rand::random();",
        "use std::collections::hash_map::RandomState;",
    ] {
        assert_eq!(check("node/broker/src/a.rs", &format!("\n{text}")).len(), 1, "{text}");
        assert_eq!(check("node/broker/src/a.rs", &format!("\n{text}"))[0].line, 2, "{text}");
        assert_eq!(check("node/src/a.rs", text), [], "not a pure crate");
    }
}

#[test]
fn pure_code_is_not() {
    for text in [
        "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; use std::collections::BTreeMap;",
        "/// Not an Instant.\nfn f() { g(\"tokio\") } // SystemTime",
        "#[cfg(test)]\nmod tests { use std::time::Instant; }",
        "let random = operand; self.env.fs",
    ] {
        assert_eq!(check("node/rules/src/a.rs", text), [], "{text}");
    }
    assert_eq!(check("node/rules/src/a/tests.rs", "use std::fs;"), []);
}

#[test]
fn impure_manifests_are_found() {
    let good = "[package]\nname = \"x\"\n[dependencies]\nthiserror.workspace = true # why\n\n[dev-dependencies]\nproptest.workspace = true\n";
    assert_eq!(check("node/rules/Cargo.toml", good), []);
    for (more, line) in [
        ("tokio = \"1\"", 8),
        ("[dependencies]\ntokio.workspace = true", 9),
        ("[dependencies]\nbytes = { workspace = true }", 9),
        ("[build-dependencies]", 8),
        ("[target.'cfg(unix)'.dependencies]", 8),
        ("[dependencies.tokio]", 8),
    ] {
        let found = check("node/rules/Cargo.toml", &format!("{good}{more}\n"));
        assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [line], "{more}");
    }
}
