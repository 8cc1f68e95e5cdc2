//! The children of one node of the trie, by the text of their level.
//!
//! Nothing is hashed into buckets that a client could fill on purpose: many children are kept in an order,
//! (fingerprint, text), so equal fingerprints cost a comparison of text and no more.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Branch, Node};

/// Children that a node holds in a plain list. Above it they move to a tree.
const FEW_MAX: usize = 8;
/// A tree of children that shrinks to this becomes a list again.
const FEW_AGAIN: usize = 4;

const _: () = assert!(FEW_AGAIN < FEW_MAX); // or steps back and forth would rebuild each time

/// Nodes by the literal text of their level.
pub(super) enum Children<K, V> {
    Few(Vec<(Label, Branch<K, V>)>),
    #[expect(clippy::box_collection, reason = "unboxed it would enlarge every node, and few nodes have it")]
    Many(Box<BTreeMap<Label, Branch<K, V>>>),
}

impl<K, V> Default for Children<K, V> {
    fn default() -> Children<K, V> {
        Children::Few(Vec::new())
    }
}

impl<K, V> Children<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Children::Few(list) => list.len(),
            Children::Many(tree) => tree.len(),
        }
    }

    pub(super) fn get(&self, level: &Probe<'_>) -> Option<&Node<K, V>> {
        match self {
            Children::Few(list) => list.iter().find(|(label, _)| level.is(label)).map(|(_, child)| &**child),
            Children::Many(tree) => tree.get(level as &dyn Level).map(|child| &**child),
        }
    }

    pub(super) fn get_mut(&mut self, level: &Probe<'_>) -> Option<&mut Node<K, V>> {
        match self {
            Children::Few(list) => list.iter_mut().find(|(label, _)| level.is(label)).map(|(_, child)| &mut **child),
            Children::Many(tree) => tree.get_mut(level as &dyn Level).map(|child| &mut **child),
        }
    }

    pub(super) fn get_or_insert(&mut self, level: &Probe<'_>) -> &mut Node<K, V> {
        if let Children::Few(list) = self
            && list.len() == FEW_MAX
            && !list.iter().any(|(label, _)| level.is(label))
        {
            *self = Children::Many(Box::new(std::mem::take(list).into_iter().collect()));
        }
        match self {
            Children::Few(list) => {
                let at = list.iter().position(|(label, _)| level.is(label)).unwrap_or_else(|| {
                    if list.is_empty() {
                        list.reserve_exact(1); // most nodes never get a second child
                    }
                    list.push((level.label(), Box::default()));
                    list.len() - 1
                });
                &mut list[at].1
            }
            Children::Many(tree) => tree.entry(level.label()).or_default(),
        }
    }

    pub(super) fn remove(&mut self, level: &Probe<'_>) -> Option<Branch<K, V>> {
        match self {
            Children::Few(list) => {
                let at = list.iter().position(|(label, _)| level.is(label))?;
                let (_, child) = list.swap_remove(at);
                if list.len() <= 1 {
                    list.shrink_to_fit();
                }
                Some(child)
            }
            Children::Many(tree) => {
                let child = tree.remove(level as &dyn Level)?;
                if tree.len() <= FEW_AGAIN {
                    *self = Children::Few(std::mem::take(&mut **tree).into_iter().collect());
                }
                Some(child)
            }
        }
    }

    /// Hands over all nodes.
    pub(super) fn release(&mut self, branches: &mut Vec<Branch<K, V>>) {
        match std::mem::take(self) {
            Children::Few(list) => branches.extend(list.into_iter().map(|(_, child)| child)),
            Children::Many(tree) => branches.extend(tree.into_values()),
        }
    }

    #[cfg(test)]
    pub(super) fn each<'a>(&'a self, f: impl FnMut(&'a Node<K, V>)) {
        match self {
            Children::Few(list) => list.iter().map(|(_, child)| &**child).for_each(f),
            Children::Many(tree) => tree.values().map(|child| &**child).for_each(f),
        }
    }
}

/// A level's text with its fingerprint, by which it is ordered first: most comparisons end there, without a look at
/// the text, which is elsewhere in memory.
trait Level {
    fn fingerprint(&self) -> u64;
    fn text(&self) -> &str;
}

pub(super) struct Label {
    fingerprint: u64,
    text: Box<str>,
}

pub(super) struct Probe<'a> {
    fingerprint: u64,
    text: &'a str,
}

impl<'a> Probe<'a> {
    pub(super) fn of(text: &'a str) -> Probe<'a> {
        Probe { fingerprint: fingerprint(text), text }
    }

    fn is(&self, label: &Label) -> bool {
        self.fingerprint == label.fingerprint && *self.text == *label.text
    }

    fn label(&self) -> Label {
        Label { fingerprint: self.fingerprint, text: self.text.into() }
    }
}

impl Level for Label {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn text(&self) -> &str {
        &self.text
    }
}

impl Level for Probe<'_> {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn text(&self) -> &str {
        self.text
    }
}

impl<'a> Borrow<dyn Level + 'a> for Label {
    fn borrow(&self) -> &(dyn Level + 'a) {
        self
    }
}

impl Ord for dyn Level + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.fingerprint().cmp(&other.fingerprint()).then_with(|| self.text().cmp(other.text()))
    }
}

impl PartialOrd for dyn Level + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Level + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Level + '_ {}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        (self as &dyn Level).cmp(other as &dyn Level)
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Label {}

/// Odd, so that a word's difference never vanishes.
pub(super) const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

/// A cheap number that differs for nearly all pairs of texts. Nothing but speed depends on that.
pub(super) fn fingerprint(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    words
        .iter()
        .chain([&last])
        .fold(text.len() as u64, |sum, word| (sum.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR))
}
