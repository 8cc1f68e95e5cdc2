//! Rust source, read just well enough: comments and literals apart from code, code as tokens, and the paths that the code
//! names. No parser: what rustfmt has formatted is enough to rely on.

/// A text twice, each of the length and lines of the whole, the other part blank.
pub(super) struct Split {
    pub(super) code: String,
    pub(super) comments: String,
}

/// Blanks comments and the insides of literals in `code`, and everything but comments in `comments`.
pub(super) fn split(text: &str) -> Split {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let at_is = |at: usize, wanted: &str| wanted.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while let Some(&c) = chars.get(at) {
        let (end, comment) = if at_is(at, "//") {
            (chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| at + length), true)
        } else if at_is(at, "/*") {
            (block_comment_end(&chars, at), true)
        } else if let Some(end) = literal_end(&chars, at) {
            (end, false)
        } else {
            code.push(c);
            comments.push(blank(c));
            at += 1;
            continue;
        };
        for c in &chars[at..end] {
            code.push(blank(*c));
            comments.push(if comment { *c } else { blank(*c) });
        }
        at = end;
    }
    Split { code, comments }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// The end of a string or character literal that starts here, with its prefix; lifetimes are none.
fn literal_end(chars: &[char], start: usize) -> Option<usize> {
    let word = |at: usize| chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let mut at = start;
    if word(start) {
        // A prefix is a whole word: r, b, c, br, cr.
        if start > 0 && word(start - 1) {
            return None;
        }
        at += chars[start..].iter().take(3).take_while(|c| "rbc".contains(**c)).count();
        if at == start || at - start > 2 || !matches!(chars.get(at), Some('"' | '#' | '\'')) {
            return None;
        }
        if chars[at - 1] == 'r' {
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + hashes) != Some(&'"') {
                return None;
            }
            let closes = |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).all(|c| *c == '#');
            return Some((at + hashes + 1..chars.len()).find(closes).map_or(chars.len(), |at| at + 1 + hashes));
        }
    }
    let quote = *chars.get(at).filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' && chars.get(at + 1) != Some(&'\\') && chars.get(at + 2) != Some(&'\'') {
        return None;
    }
    let mut end = at + 1;
    while end < chars.len() && chars[end] != quote {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    Some((end + 1).min(chars.len()))
}

/// A word, `::`, or one other character; with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The tokens of code without comments and literals.
pub(super) fn tokens(code: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, text) in code.lines().enumerate() {
        let line = index + 1;
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum::<usize>();
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            let (token, left) = rest.split_at(length);
            tokens.push(Token { text: token.to_owned(), line });
            rest = left.trim_start();
        }
    }
    tokens
}

/// The tokens without items under `#[cfg(test)]`.
pub(super) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is = |offset: usize, wanted: &str| tokens.get(at + offset).is_some_and(|token| token.text == wanted);
        if is(0, "#") && is(1, "[") && is(2, "cfg") && is(3, "(") {
            let end = group_end(tokens, at + 1);
            let condition = &tokens[at + 4..end];
            let names = |wanted: &str| condition.iter().any(|token| token.text == wanted);
            if names("test") && !names("not") {
                at = item_end(tokens, end);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

/// One past the bracket that closes the one at `open`.
fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// One past an item: its further attributes, then up to `;` or the end of its braces.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" | "," => return at + 1,
            "{" => return group_end(tokens, at),
            "(" | "[" => at = group_end(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// A path that code names, from its first part to the last that is sure; groups are taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) parts: Vec<String>,
    pub(super) line: usize,
}

/// All paths that start with `crate` (given without it) or with `super` (resolved against the module's own path, inline
/// modules counted).
pub(super) fn paths_in_crate(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "mod" if text(at + 2) == "{" => inline.push((text(at + 1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last().is_some_and(|(_, opened)| *opened == depth) {
                    inline.pop();
                }
            }
            "crate" if text(at + 1) == "::" && !continues(tokens, at) => {
                at = tree(tokens, at + 2, &[], &mut found);
                continue;
            }
            "super" if text(at + 1) == "::" && !continues(tokens, at) => {
                let mut base: Vec<String> = module.to_vec();
                base.extend(inline.iter().map(|(name, _)| name.clone()));
                while text(at) == "super" && text(at + 1) == "::" {
                    base.pop();
                    at += 2;
                }
                at = tree(tokens, at, &base, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// All paths that start with the name of another crate, given with it.
pub(super) fn paths_from(tokens: &[Token], root: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let follows = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if tokens[at].text == root && follows && !continues(tokens, at) {
            tree(tokens, at + 2, &[root.to_owned()], &mut found);
        }
    }
    found
}

/// Whether a word is not the start of a path, but the continuation of one (`a::super`, or `::std`, which is one).
fn continues(tokens: &[Token], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at)).map_or("", |token| &token.text);
    before(1) == "::"
        && before(2).chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '>')
        && !matches!(before(2), "use" | "pub" | "return" | "in" | "as")
}

/// Reads a path or a group of paths; one past it.
fn tree(tokens: &[Token], start: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens.get(start).map_or(0, |token| token.line);
    if text(start) == "{" {
        let mut at = start + 1;
        while at < tokens.len() && text(at) != "}" {
            at = tree(tokens, at, prefix, found);
            while at < tokens.len() && !matches!(text(at), "," | "}") {
                at += 1; // `as name`
            }
            at += usize::from(text(at) == ",");
        }
        return at + 1;
    }
    let mut parts = prefix.to_vec();
    if text(start) != "self" {
        parts.push(text(start).to_owned());
    }
    if text(start + 1) == "::"
        && (text(start + 2) == "{" || text(start + 2).starts_with(is_word) || text(start + 2) == "*")
    {
        return tree(tokens, start + 2, &parts, found);
    }
    found.push(Named { parts, line });
    start + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn comments_and_literals_are_no_code() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("a \" b", 'x', '\'', b'"')"#, "f(        ,    ,     ,     )"),
        ("r#\"a \" b\"# c", "           c"),
        ("&'a str, 'b: loop", "&'a str, 'b: loop"),
        ("r#type + bar\"x\"", "r#type + bar   "),
    ] {
        assert_eq!(split(text).code, code, "{text}");
    }
    assert_eq!(split("a // b\n\"// c\"").comments, "  // b\n      ");
}

#[test]
fn tests_are_cut_off() {
    let text = "use a; #[cfg(test)] mod tests { use b; fn c() {} } d #[cfg(test)] #[x(y)] mod e; f #[cfg(not(test))] g";
    let kept: Vec<String> = without_tests(&tokens(text)).into_iter().map(|token| token.text).collect();
    assert_eq!(kept.join(" "), "use a ; d f # [ cfg ( not ( test ) ) ] g");
}

#[test]
fn paths_are_found_in_groups_and_through_super() {
    let module: Vec<String> = ["doors", "mqtt", "accept"].map(str::to_owned).to_vec();
    let names = |text: &str| -> Vec<String> {
        paths_in_crate(&tokens(text), &module).into_iter().map(|named| named.parts.join("::")).collect()
    };
    assert_eq!(
        names("use crate::{a, b::{c, d as e}, f::*, g::{self, h}};"),
        ["a", "b::c", "b::d", "f::*", "g", "g::h"]
    );
    assert_eq!(names("fn x(a: crate::a::B<crate::c::D>) -> $crate::e {}"), ["a::B", "c::D", "e"]);
    assert_eq!(
        names("use super::link; use super::super::{probes, x::y};"),
        ["doors::mqtt::link", "doors::probes", "doors::x::y"]
    );
    assert_eq!(names("mod inner { use super::y; } use super::z;"), ["doors::mqtt::accept::y", "doors::mqtt::z"]);
    assert_eq!(names("pub(crate) fn a() {} pub(super) fn b() {}"), [""; 0]);
}
