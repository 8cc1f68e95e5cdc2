//! What waits for an actor: bounded by count and bytes, the oldest dropped. One message wakes the actor for many
//! elements, and an element stays until the actor says that it is done with it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use ractor::ActorRef;

/// What wakes an actor that has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wake;

/// See the module.
pub(super) struct Queue<T> {
    entries_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    /// The number of the first element.
    first: u64,
    /// Whom to wake, unless it is awake.
    sleeper: Option<ActorRef<Wake>>,
    asleep: bool,
}

impl<T: Clone> Queue<T> {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Queue<T> {
        let inner = Inner { entries: VecDeque::new(), bytes: 0, first: 0, sleeper: None, asleep: true };
        Queue { entries_max, bytes_max, inner: Mutex::new(inner) }
    }

    /// From here on this actor is woken. What waits already wakes it at once.
    pub(super) fn attend(&self, actor: ActorRef<Wake>) {
        let mut inner = self.inner.lock();
        inner.asleep = inner.entries.is_empty();
        if !inner.asleep {
            // An actor that has ended is followed by another one, which attends anew.
            let _ = actor.cast(Wake);
        }
        inner.sleeper = Some(actor);
    }

    /// Adds to the end. Says how many had to go, this one included if it can never fit.
    pub(super) fn push(&self, element: T, cost: usize) -> u64 {
        if cost > self.bytes_max {
            return 1;
        }
        let mut inner = self.inner.lock();
        let mut dropped = 0;
        inner.entries.push_back((element, cost));
        inner.bytes += cost;
        while inner.entries.len() > self.entries_max || inner.bytes > self.bytes_max {
            let Some((_, cost)) = inner.entries.pop_front() else { break };
            (inner.bytes, inner.first) = (inner.bytes - cost, inner.first + 1);
            dropped += 1;
        }
        if std::mem::take(&mut inner.asleep)
            && let Some(actor) = &inner.sleeper
        {
            let _ = actor.cast(Wake);
        }
        dropped
    }

    /// The first elements, and the number of the first one. If there is none, the next one wakes the actor.
    pub(super) fn read(&self, most: usize) -> (u64, Vec<T>) {
        let mut inner = self.inner.lock();
        inner.asleep = inner.entries.is_empty();
        (inner.first, inner.entries.iter().take(most).map(|(element, _)| element.clone()).collect())
    }

    /// Everything below a number is done with. Says how many of them were still there.
    pub(super) fn settle(&self, below: u64) -> u64 {
        let mut inner = self.inner.lock();
        let mut settled = 0;
        while inner.first < below
            && let Some((_, cost)) = inner.entries.pop_front()
        {
            (inner.bytes, inner.first) = (inner.bytes - cost, inner.first + 1);
            settled += 1;
        }
        settled
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_at_either_bound() {
        let queue = Queue::new(3, 100);
        assert_eq!((1..=5).map(|n| queue.push(n, 10)).sum::<u64>(), 2);
        assert_eq!(queue.read(2), (2, vec![3, 4]));
        assert_eq!(queue.push(6, 95), 3);
        assert_eq!(queue.push(7, 101), 1, "it can never fit");
        assert_eq!((queue.read(9), queue.len(), queue.bytes()), ((5, vec![6]), 1, 95));
    }

    #[test]
    fn what_was_read_stays_until_it_is_settled() {
        let queue = Queue::new(3, 100);
        (1..=3).for_each(|n| assert_eq!(queue.push(n, 1), 0));
        let (first, read) = queue.read(2);
        assert_eq!(queue.push(4, 1), 1, "the first one, which was read, had to go");
        assert_eq!(queue.settle(first + read.len() as u64), 1);
        assert_eq!(queue.read(9), (2, vec![3, 4]));
        assert_eq!((queue.settle(99), queue.len(), queue.bytes()), (2, 0, 0));
    }
}
