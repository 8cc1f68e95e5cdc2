//! The subscription trie: who wants a topic. Read far more often than written.
//! Absent here: share groups, QoS, identifiers, locks. Those live in the caller's keys and values.
//!
//! - Nothing recurses: depth costs heap, never stack.
//! - Nothing is hashed into buckets that a client could fill on purpose: levels are found in an order, (fingerprint,
//!   text), so equal fingerprints cost a comparison of text and no more.

mod children;
mod subscribers;
#[cfg(test)]
mod tests;

use std::hash::Hash;

use fulmar_mqtt::{TopicFilter, TopicName};
use smallvec::SmallVec;

use children::{Children, Probe};
use subscribers::Subscribers;

/// Levels up to which a walk allocates nothing.
const LEVELS_USUAL: usize = 16;

/// Values by (filter, key), found by topic.
///
/// A `$share/{name}/{filter}` is held under its inner filter, so two share names meet at one place: **whatever tells
/// two subscriptions to one inner filter apart (session, share name) must be part of `K`.**
///
/// The order in which matches are visited depends on the history of the trie; who needs an order sorts.
pub struct Trie<K, V> {
    root: Node<K, V>,
    len: usize,
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Trie<K, V> {
        Trie { root: Node::default(), len: 0 }
    }
}

impl<K: Eq + Hash, V> Trie<K, V> {
    /// Sets the value of (filter, key); returns the one it replaces.
    pub fn insert(&mut self, filter: &TopicFilter, key: K, value: V) -> Option<V> {
        let path = Path::of(filter);
        let mut node = &mut self.root;
        for level in &path.levels {
            node = node.enter(level);
        }
        let replaced = node.subscribers_mut(path.tail).get_or_insert_default().insert(key, value);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Removes the value of (filter, key), and every node that is left without use.
    pub fn remove(&mut self, filter: &TopicFilter, key: &K) -> Option<V> {
        let path = Path::of(filter);
        let mut node = &mut self.root;
        let mut kept = 0; // depth of the last node above the target that something else needs; the root always stays
        for (depth, level) in path.levels.iter().enumerate() {
            if node.uses() > 1 {
                kept = depth;
            }
            node = node.child_mut(level)?;
        }
        let subscribers = node.subscribers_mut(path.tail);
        let removed = subscribers.as_mut()?.remove(key)?;
        if subscribers.as_ref().is_some_and(|left| left.is_empty()) {
            *subscribers = None;
        }
        self.len -= 1;
        if node.uses() == 0 {
            self.prune(&path, kept);
        }
        Some(removed)
    }

    /// The value of exactly this filter and key.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter, key: &K) -> Option<&V> {
        let path = Path::of(filter);
        let mut node = &self.root;
        for level in &path.levels {
            node = node.child(level)?;
        }
        let subscribers = if path.tail { &node.tail } else { &node.here };
        subscribers.as_ref()?.get(key)
    }

    /// Calls `f` for each key of exactly this filter, until it holds for one.
    pub fn any_of(&self, filter: &TopicFilter, mut f: impl FnMut(&K, &V) -> bool) -> bool {
        let path = Path::of(filter);
        let mut node = &self.root;
        for level in &path.levels {
            let Some(child) = node.child(level) else { return false };
            node = child;
        }
        let subscribers = if path.tail { &node.tail } else { &node.here };
        subscribers.as_ref().is_some_and(|subscribers| subscribers.any(&mut f))
    }

    /// Cuts the branch along the path below the node at depth `kept`.
    fn prune(&mut self, path: &Path<'_>, kept: usize) {
        let Some((edge, above)) = path.levels.get(..=kept).and_then(|part| part.split_last()) else { return };
        let mut node = &mut self.root;
        for level in above {
            match node.child_mut(level) {
                Some(child) => node = child,
                None => return,
            }
        }
        if let Some(branch) = node.cut(edge) {
            dismantle(vec![branch]);
        }
    }
}

impl<K, V> Trie<K, V> {
    /// Calls `f` once for each (filter, key) whose filter matches.
    pub fn for_each_match(&self, topic: &TopicName, f: impl FnMut(&K, &V)) {
        self.visit(topic, f);
    }

    /// Whether `f` holds for a (filter, key) whose filter matches. It is not asked again once it has held.
    pub fn any_match(&self, topic: &TopicName, f: impl FnMut(&K, &V) -> bool) -> bool {
        self.search(topic, f).1
    }

    /// The (filter, key) pairs that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Finds the matches and returns how many nodes that took.
    fn visit(&self, topic: &TopicName, mut f: impl FnMut(&K, &V)) -> usize {
        let all = |key: &K, value: &V| {
            f(key, value);
            false
        };
        self.search(topic, all).0
    }

    /// Finds matches until `f` holds for one; returns how many nodes that took, and whether it did. Each node is entered
    /// at most once and only if the path to it matches the topic's beginning, so the work is bounded by what was
    /// subscribed, never by combinations of it.
    fn search(&self, topic: &TopicName, mut f: impl FnMut(&K, &V) -> bool) -> (usize, bool) {
        let levels: SmallVec<[Probe<'_>; LEVELS_USUAL]> = topic.levels().map(Probe::of).collect();
        let reserved = topic.as_str().starts_with('$');
        let mut visited = 0;
        let mut waiting: SmallVec<[(&Node<K, V>, usize); LEVELS_USUAL]> = SmallVec::new();
        waiting.push((&self.root, 0));
        while let Some((node, depth)) = waiting.pop() {
            visited += 1;
            let wildcards = depth > 0 || !reserved; // [v5 MQTT-4.7.2-1], [v3.1.1 MQTT-4.7.2-1]
            // `#` also matches the parent level [v5 4.7.1.2]
            if wildcards && node.tail.as_ref().is_some_and(|subscribers| subscribers.any(&mut f)) {
                return (visited, true);
            }
            match levels.get(depth) {
                None => {
                    if node.here.as_ref().is_some_and(|subscribers| subscribers.any(&mut f)) {
                        return (visited, true);
                    }
                }
                Some(level) => {
                    if wildcards && let Some(plus) = &node.plus {
                        waiting.push((plus, depth + 1));
                    }
                    if let Some(child) = node.children.get(level) {
                        waiting.push((child, depth + 1));
                    }
                }
            }
        }
        (visited, false)
    }

    /// Nodes below the root.
    #[cfg(test)]
    fn nodes(&self) -> usize {
        let mut count = 0;
        let mut waiting = vec![&self.root];
        while let Some(node) = waiting.pop() {
            count += 1;
            waiting.extend(node.plus.as_deref());
            node.children.each(|child| waiting.push(child));
        }
        count - 1
    }
}

impl<K, V> Drop for Trie<K, V> {
    fn drop(&mut self) {
        let mut branches = Vec::new();
        self.root.release(&mut branches);
        dismantle(branches);
    }
}

/// Frees branches without recursion: one filter of 65,535 slashes is as deep as that.
fn dismantle<K, V>(mut branches: Vec<Branch<K, V>>) {
    while let Some(mut node) = branches.pop() {
        node.release(&mut branches);
    }
}

/// A filter taken apart: the nodes to pass, and whether `#` follows them.
struct Path<'a> {
    levels: SmallVec<[Step<'a>; LEVELS_USUAL]>,
    tail: bool,
}

enum Step<'a> {
    Plus,
    Literal(Probe<'a>),
}

impl<'a> Path<'a> {
    fn of(filter: &'a TopicFilter) -> Path<'a> {
        let mut path = Path { levels: SmallVec::new(), tail: false };
        for level in filter.levels() {
            match level {
                "#" => path.tail = true, // a filter has it in the last level only
                "+" => path.levels.push(Step::Plus),
                text => path.levels.push(Step::Literal(Probe::of(text))),
            }
        }
        path
    }
}

/// A node has a place of its own on the heap, so that the list or tree that holds it stays small.
type Branch<K, V> = Box<Node<K, V>>;

/// One level of one or many filters.
struct Node<K, V> {
    children: Children<K, V>,
    plus: Option<Branch<K, V>>,
    /// Subscribers whose filter ends here.
    here: Option<Box<Subscribers<K, V>>>,
    /// Subscribers whose filter goes on with `#`.
    tail: Option<Box<Subscribers<K, V>>>,
}

const _: () = assert!(size_of::<Node<u64, u64>>() <= 48); // there may be millions

impl<K, V> Default for Node<K, V> {
    fn default() -> Node<K, V> {
        Node { children: Children::default(), plus: None, here: None, tail: None }
    }
}

impl<K, V> Node<K, V> {
    fn subscribers_mut(&mut self, tail: bool) -> &mut Option<Box<Subscribers<K, V>>> {
        if tail { &mut self.tail } else { &mut self.here }
    }

    /// How many things keep this node; at 0 it goes.
    fn uses(&self) -> usize {
        let parts = [self.plus.is_some(), self.here.is_some(), self.tail.is_some()];
        self.children.len() + parts.into_iter().filter(|used| *used).count()
    }

    fn child(&self, step: &Step<'_>) -> Option<&Node<K, V>> {
        match step {
            Step::Plus => self.plus.as_deref(),
            Step::Literal(level) => self.children.get(level),
        }
    }

    fn child_mut(&mut self, step: &Step<'_>) -> Option<&mut Node<K, V>> {
        match step {
            Step::Plus => self.plus.as_deref_mut(),
            Step::Literal(level) => self.children.get_mut(level),
        }
    }

    /// The child at this step, made if it is not there.
    fn enter(&mut self, step: &Step<'_>) -> &mut Node<K, V> {
        match step {
            Step::Plus => self.plus.get_or_insert_default(),
            Step::Literal(level) => self.children.get_or_insert(level),
        }
    }

    fn cut(&mut self, step: &Step<'_>) -> Option<Branch<K, V>> {
        match step {
            Step::Plus => self.plus.take(),
            Step::Literal(level) => self.children.remove(level),
        }
    }

    /// Hands over all nodes directly below.
    fn release(&mut self, branches: &mut Vec<Branch<K, V>>) {
        branches.extend(self.plus.take());
        self.children.release(branches);
    }
}
