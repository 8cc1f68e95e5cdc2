//! The subscribers of one filter of the trie.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use smallvec::SmallVec;

/// Subscribers that are searched one by one. Above it they are indexed.
const UNINDEXED_MAX: usize = 32;
/// An index that shrinks to this is dropped again.
const UNINDEXED_AGAIN: usize = 16;

const _: () = assert!(UNINDEXED_AGAIN < UNINDEXED_MAX); // or steps back and forth would rebuild each time

/// The keys of one filter, with their values.
pub(super) struct Subscribers<K, V> {
    entries: SmallVec<[(K, V); 1]>,
    /// (hash of the key, its place in `entries`). `K` has no order, so keys of equal hash are compared one by one; it
    /// takes all 64 bits to collide, not a table's few.
    #[expect(clippy::box_collection, reason = "unboxed it would enlarge every filter's entry, and few have it")]
    index: Option<Box<BTreeSet<(u64, usize)>>>,
}

impl<K, V> Default for Subscribers<K, V> {
    fn default() -> Subscribers<K, V> {
        Subscribers { entries: SmallVec::new(), index: None }
    }
}

impl<K, V> Subscribers<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `f` holds for one of them; it is not asked again once it has held.
    pub(super) fn any(&self, f: &mut impl FnMut(&K, &V) -> bool) -> bool {
        self.entries.iter().any(|(key, value)| f(key, value))
    }
}

impl<K: Eq + Hash, V> Subscribers<K, V> {
    fn place(&self, key: &K) -> Option<usize> {
        let same = |at: &usize| self.entries.get(*at).is_some_and(|(have, _)| have == key);
        match &self.index {
            None => self.entries.iter().position(|(have, _)| have == key),
            Some(index) => {
                let hash = hash(key);
                index.range((hash, 0)..=(hash, usize::MAX)).map(|(_, at)| *at).find(same)
            }
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).and_then(|at| self.entries.get(at)).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(at) = self.place(&key) {
            return Some(std::mem::replace(&mut self.entries[at].1, value));
        }
        if let Some(index) = &mut self.index {
            index.insert((hash(&key), self.entries.len()));
        }
        self.entries.push((key, value));
        if self.index.is_none() && self.entries.len() > UNINDEXED_MAX {
            let places = self.entries.iter().enumerate().map(|(at, (key, _))| (hash(key), at));
            self.index = Some(Box::new(places.collect()));
        }
        None
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.place(key)?;
        if let Some(index) = &mut self.index {
            let last = self.entries.len() - 1;
            index.remove(&(hash(key), at));
            if at != last {
                let moved = hash(&self.entries[last].0);
                index.remove(&(moved, last));
                index.insert((moved, at));
            }
        }
        let (_, value) = self.entries.swap_remove(at);
        if self.entries.len() == UNINDEXED_AGAIN {
            self.index = None;
        }
        if matches!(self.entries.len(), 1 | UNINDEXED_AGAIN) {
            self.entries.shrink_to_fit();
        }
        Some(value)
    }
}

/// The same on every run: a pure crate has no randomness.
fn hash<K: Hash>(key: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
