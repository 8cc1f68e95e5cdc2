//! How long a file of Rust may be. The list of exceptions may only shrink.

use super::Violation;

const RULE: &str = "file size";

/// Lines of a file that has no exception.
const LINES_MAX: usize = 500;

/// Lines that a file may be shorter than its exception before the exception must be lowered.
const SLACK: usize = 20;

/// Files that are longer, and how long they are.
pub(super) const EXCEPTIONS: &[(&str, usize)] = &[];

pub(super) fn check(lengths: &[(String, usize)], exceptions: &[(&str, usize)]) -> Vec<Violation> {
    let violation = |file: &str, what| Violation { file: file.to_owned(), line: 0, rule: RULE, what };
    let mut violations = Vec::new();
    for (path, lines) in lengths {
        let allowed = exceptions.iter().find(|(listed, _)| listed == path).map(|(_, lines)| *lines);
        let what = match allowed {
            None if *lines > LINES_MAX => format!("has {lines} lines; at most {LINES_MAX}: one concept a file"),
            Some(_) if *lines <= LINES_MAX => format!("has {lines} lines and needs no exception: remove the entry"),
            Some(allowed) if *lines > allowed => format!("has {lines} lines, more than its exception of {allowed}"),
            Some(allowed) if lines + SLACK < allowed => {
                format!("has {lines} lines, its exception says {allowed}: lower the entry")
            }
            _ => continue,
        };
        violations.push(violation(path, what));
    }
    for (listed, _) in exceptions {
        if !lengths.iter().any(|(path, _)| path == listed) {
            violations.push(violation(listed, "is gone: remove the entry".to_owned()));
        }
    }
    violations
}

#[test]
fn lengths_are_held_and_exceptions_shrink() {
    let found = |lines: usize, exceptions: &[(&str, usize)]| -> Vec<String> {
        check(&[("a.rs".to_owned(), lines)], exceptions).into_iter().map(|violation| violation.what).collect()
    };
    assert!(found(500, &[]).is_empty());
    assert_eq!(found(501, &[]), ["has 501 lines; at most 500: one concept a file"]);
    assert!(found(600, &[("a.rs", 600)]).is_empty());
    assert!(found(580, &[("a.rs", 600)]).is_empty());
    assert_eq!(found(579, &[("a.rs", 600)]), ["has 579 lines, its exception says 600: lower the entry"]);
    assert_eq!(found(601, &[("a.rs", 600)]), ["has 601 lines, more than its exception of 600"]);
    assert_eq!(found(400, &[("a.rs", 600)]), ["has 400 lines and needs no exception: remove the entry"]);
    assert_eq!(found(1, &[("b.rs", 600)]), ["is gone: remove the entry"]);
}
