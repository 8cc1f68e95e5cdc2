//! A bounded map of what was lately asked for. Where it is full the older half of it is forgotten, so that no change
//! looks at more than one entry.

use std::collections::HashMap;
use std::hash::Hash;

/// Of at most twice `half` entries.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Copy> Recent<K, V> {
    pub(super) fn new(entries_max: usize) -> Recent<K, V> {
        Recent { half: entries_max / 2, young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_makes_room() {
        let mut recent = Recent::new(100);
        for number in 0..10_000_u32 {
            recent.put(number, number);
            recent.put(u32::MAX, number);
            assert!(recent.young.len() + recent.old.len() <= 100);
            assert_eq!((recent.get(&number), recent.get(&u32::MAX)), (Some(number), Some(number)));
        }
        assert_eq!((recent.get(&9_960), recent.get(&9_000)), (Some(9_960), None));
        recent.remove(&9_999);
        recent.remove(&9_960);
        assert_eq!((recent.get(&9_999), recent.get(&9_960)), (None, None));
    }
}
