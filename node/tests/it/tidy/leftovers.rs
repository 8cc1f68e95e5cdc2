//! What must not be left behind: unfinished code, code in comments, markers, tests that do not run, and the names of
//! places that only some machines have.

use super::Violation;
use super::source;

const RULE: &str = "leftover";

const MACROS: [&str; 3] = ["todo", "dbg", "unimplemented"];

/// In comments of Rust, and anywhere in other files.
const MARKERS: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];

const ELSEWHERE: &str = concat!("../", "shared");

/// Files whose markers are looked for besides Rust.
const OTHER_CODE: [&str; 8] = [".proto", ".py", ".sh", ".js", ".mjs", ".yaml", ".toml", ".service"];

pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut add = |line, what| violations.push(Violation { file: path.to_owned(), line, rule: RULE, what });
    for (index, line) in text.lines().enumerate() {
        if line.contains(ELSEWHERE) {
            add(index + 1, format!("names {ELSEWHERE}, which is not part of the repository"));
        }
    }
    let rust = path.ends_with(".rs");
    let split = rust.then(|| source::split(text));
    if rust || OTHER_CODE.iter().any(|ending| path.ends_with(ending)) {
        let searched = split.as_ref().map_or(text, |split| split.comments.as_str());
        for (index, line) in searched.lines().enumerate() {
            for word in line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| MARKERS.contains(word)) {
                add(index + 1, format!("the marker {word}"));
            }
        }
    }
    let Some(split) = split else { return violations };
    let tokens = source::tokens(&split.code);
    for (at, token) in tokens.iter().enumerate() {
        let is = |offset: usize, wanted: &str| tokens.get(at + offset).is_some_and(|token| token.text == wanted);
        if MACROS.contains(&token.text.as_str()) && is(1, "!") {
            add(token.line, format!("{}!", token.text));
        }
        if token.text == "#" && is(1, "[") && is(2, "ignore") {
            add(token.line, "a test that is ignored".to_owned());
        }
    }
    for (index, (comment, code)) in split.comments.lines().zip(split.code.lines()).enumerate() {
        if let Some(inside) = comment.trim().strip_prefix("//").filter(|_| code.trim().is_empty())
            && !inside.starts_with(['/', '!'])
            && is_code(inside.trim())
        {
            add(index + 1, format!("code in a comment: {}", inside.trim()));
        }
    }
    violations
}

/// Whether the text of a comment is code. Prose may end in a semicolon, so a statement must begin like one; prose does
/// not end in an open brace, nor consist of closing ones.
fn is_code(text: &str) -> bool {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !text.is_empty() && text.chars().all(|c| "})];,".contains(c)) {
        return true;
    }
    if text.ends_with('{') {
        return true;
    }
    if !text.ends_with([';', ',']) {
        return false;
    }
    let statement = text.ends_with(';');
    match first {
        "let" | "const" | "static" | "type" => statement && text.contains('='),
        "use" | "pub" | "mod" => statement && (text.contains("::") || rest.split(' ').count() == 1),
        "return" => statement && (rest.split(' ').count() == 1 || text.contains('(')),
        // A call or macro, or an assignment: a path, then what makes it one.
        _ => {
            let path = first.split(['(', '!', '?', ';', ',']).next().unwrap_or_default();
            let is_path = path.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && path.chars().all(|c| c.is_alphanumeric() || "_.:*".contains(c));
            let calls = text.chars().nth(path.chars().count()).is_some_and(|c| c == '(' || c == '!');
            let closes = text.ends_with(");") || text.ends_with(")?;") || text.ends_with(".await;");
            let assigns = matches!(rest.split(' ').next(), Some("=" | "+=" | "-=" | "*=" | "|=" | "&="));
            is_path && statement && ((calls && closes) || assigns)
        }
    }
}

#[test]
fn leftovers_are_found() {
    for text in [
        "fn f() { todo!() }",
        "dbg!(x);",
        "std::unimplemented!(\"later\")",
        "#[ignore = \"slow\"]",
        concat!("// FIX", "ME later"),
        concat!("f(); /* X", "XX */"),
        "// let x = 1;",
        "// use std::fmt;",
        "// pub fn old() {",
        "    // if client.is_gone() {",
        "// }",
        "// });",
        "// session.handle(now, input);",
        "// self.count += 1;",
        "// assert_eq!(a, b);",
        "// return Err(Error::Closed);",
        "// connection.close().await;",
        concat!("// see ..", "/shared/notes"),
    ] {
        let found = check("node/src/a.rs", &format!("\n{text}\n"));
        assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [2], "{text}: {found:?}");
    }
    assert_eq!(check("a.py", concat!("# FIX", "ME\n")).len(), 1);
    assert_eq!(check("README.md", concat!("[x](..", "/shared/x)\n")).len(), 1);
}

#[test]
fn prose_and_code_are_not() {
    for text in [
        "// A slot frees when its PUBACK is queued;",
        "// for wills, and for what the router says;",
        "// if the client is gone, nothing is sent;",
        "// use the deadline of the earliest;",
        "// return to the reader, which waits;",
        "// it waits (at most 5 s);",
        "// what `f(x);` does, and why",
        "// [v5 MQTT-3.1.4-3] the older connection goes;",
        "/// let x = 1;",
        "//! f(x);",
        "f(); // g(x) is for later;",
        "let text = \"todo!() // let x = 1;\";",
        "let todo = 1; x.ignore();",
    ] {
        assert_eq!(check("node/src/a.rs", text), [], "{text}");
    }
    assert_eq!(check("a.sh", "mktemp /tmp/run.XXXXXX\n"), []);
}
