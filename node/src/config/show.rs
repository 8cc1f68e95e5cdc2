//! The effective configuration as TOML again, for `fulmar config show`.

use super::Config;
use super::tree::{Origin, Tree};

/// Each value that someone set says at the end of its line who did. Secrets are redacted by their own type.
pub(super) fn to_toml(config: &Config, tree: &Tree) -> String {
    let plain = toml::to_string(config).expect("the configuration has only what TOML can say");
    let mut shown = String::with_capacity(plain.len() * 2);
    let mut table = String::new();
    let mut elements: Vec<(String, usize)> = Vec::new();
    for line in plain.lines() {
        shown.push_str(line);
        if let Some(name) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
            match elements.iter_mut().find(|(list, _)| list == name) {
                Some((_, index)) => *index += 1,
                None => elements.push((name.into(), 0)),
            }
            table = numbered(name, &elements);
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = numbered(name, &elements);
        } else if let Some((key, _)) = line.split_once(" = ") {
            match tree.origin(&format!("{table}.{key}")) {
                None | Some(Origin::Default) => {}
                Some(origin) => shown.push_str(&format!(" # {origin}")),
            }
        }
        shown.push('\n');
    }
    shown
}

/// `listener.tls` inside the third listener is `listener.2.tls`.
fn numbered(table: &str, elements: &[(String, usize)]) -> String {
    for (list, index) in elements {
        match table.strip_prefix(list.as_str()) {
            Some("") => return format!("{list}.{index}"),
            Some(rest) if rest.starts_with('.') => return format!("{list}.{index}{rest}"),
            _ => {}
        }
    }
    table.into()
}
