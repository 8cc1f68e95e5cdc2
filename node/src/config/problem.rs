//! What is wrong with a configuration: each problem names the key, where its value came from, and what is allowed.

use std::fmt;
use std::ops::RangeInclusive;

use thiserror::Error;

use super::tree::{Origin, Tree};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted, with the number of the element for lists, as in `listener.0.address`; empty if no key is to blame.
    pub key: String,
    pub origin: Origin,
    /// What is wrong and what is allowed; reads on after the key.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order it was found; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Collects problems, and finds for each key where its value came from.
pub(super) struct Problems<'a> {
    tree: &'a Tree,
    list: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(tree: &'a Tree) -> Problems<'a> {
        Problems { tree, list: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.tree.origin_near(key);
        self.list.push(Problem { key: key.into(), origin, message: message.into() });
    }

    pub(super) fn range<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, allowed: RangeInclusive<T>) {
        if !allowed.contains(&value) {
            self.add(key, format!("is {value}; allowed: {} to {}", allowed.start(), allowed.end()));
        }
    }

    /// A name that ends up in metrics and logs.
    pub(super) fn label(&mut self, key: &str, value: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if value.is_empty() || value.len() > 64 || !value.bytes().all(plain) {
            self.add(key, format!("is {value:?}; allowed: 1 to 64 letters, digits, '.', '_' and '-'"));
        }
    }

    pub(super) fn into_result(self) -> Result<(), ConfigError> {
        if self.list.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.list }) }
    }
}

/// The word of `allowed` that `word` was probably meant to be: at most a third of it differs.
pub(super) fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let distance_max = |other: &str| (word.chars().count().max(other.chars().count()) / 3).max(1);
    allowed
        .iter()
        .map(|other| (edits(word, other), *other))
        .filter(|(distance, other)| *distance <= distance_max(other))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let keys = ["receive_maximum", "expiry_max", "queue_ttl", "key", "tls"];
        assert_eq!(nearest("recieve_maximum", &keys), Some("receive_maximum"));
        assert_eq!(nearest("expiry-max", &keys), Some("expiry_max"));
        assert_eq!(nearest("queuettl", &keys), Some("queue_ttl"));
        assert_eq!(nearest("ssl", &keys), Some("tls").filter(|_| edits("ssl", "tls") <= 1));
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("", &keys), None);
    }
}
