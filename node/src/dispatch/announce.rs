//! What this run of the node has told the others of its clients' wishes: the filters of sessions that end with their
//! socket. The first subscriber of a filter has it announced; it is withdrawn a while after the last one has gone, so
//! that a client which comes back soon changes nothing. A pure part of the table of routes: the log is elsewhere.

use std::collections::{HashMap, VecDeque};

use fulmar_mqtt::TopicFilter;

/// Milliseconds that a filter without subscribers stays announced.
pub(super) const LINGER_MS: u64 = 10_000;

/// Filters that one command withdraws at most.
const WITHDRAWN_MAX: usize = 256;

#[derive(Debug, Default)]
struct Announced {
    subscribers: usize,
    /// Index of its last entry that is applied; `None` while the first is under way.
    index: Option<u64>,
    /// Withdrawals before it came to be: what is applied of an earlier announcement does not count for it.
    born: u64,
    /// Since when nobody subscribes.
    alone_ms: u64,
    /// It is in the queue of those to be withdrawn.
    lingers: bool,
}

/// What a SUBACK waits for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Announcing {
    /// To be proposed; said again it is harmless.
    pub add: Vec<TopicFilter>,
    /// Of the others, the index of the latest entry.
    pub index: u64,
    /// Withdrawals before it.
    as_of: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    filters: HashMap<TopicFilter, Announced>,
    /// In the order in which they ran out of subscribers.
    lingering: VecDeque<TopicFilter>,
    withdrawals: u64,
}

impl Announcements {
    /// Somebody subscribes; `new`: who did not before.
    pub(super) fn subscribe(&mut self, filter: &TopicFilter, new: bool, announcing: &mut Announcing) {
        let announced = match self.filters.get_mut(filter) {
            Some(announced) => announced,
            None => {
                let fresh = Announced { born: self.withdrawals, ..Announced::default() };
                self.filters.entry(filter.clone()).or_insert(fresh)
            }
        };
        announcing.as_of = self.withdrawals;
        announced.subscribers += usize::from(new);
        match announced.index {
            Some(index) => announcing.index = announcing.index.max(index),
            // Also if another has proposed it: each waits for an entry that comes after its own subscribe.
            None => announcing.add.push(filter.clone()),
        }
    }

    /// What was to be proposed is applied.
    pub(super) fn applied(&mut self, announcing: &Announcing, index: u64) {
        for filter in &announcing.add {
            if let Some(announced) = self.filters.get_mut(filter).filter(|one| one.born <= announcing.as_of) {
                announced.index = announced.index.max(Some(index));
            }
        }
    }

    /// For the next run of the node, which has announced nothing.
    pub(super) fn forget(&mut self) {
        *self = Announcements { withdrawals: self.withdrawals + 1, ..Announcements::default() };
    }

    /// A subscriber has gone.
    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter, now_ms: u64) {
        let Some(announced) = self.filters.get_mut(filter) else { return };
        announced.subscribers = announced.subscribers.saturating_sub(1);
        if announced.subscribers > 0 {
            return;
        }
        announced.alone_ms = now_ms;
        if !std::mem::replace(&mut announced.lingers, true) {
            self.lingering.push_back(filter.clone());
        }
    }

    /// Forgets filters that have been without subscribers for long enough, and says which: to be withdrawn before
    /// anything else is announced.
    pub(super) fn withdraw(&mut self, now_ms: u64) -> Vec<TopicFilter> {
        let mut withdrawn = Vec::new();
        while withdrawn.len() < WITHDRAWN_MAX
            && let Some(filter) = self.lingering.pop_front()
        {
            let Some(announced) = self.filters.get_mut(&filter) else { continue };
            if announced.subscribers > 0 {
                announced.lingers = false;
            } else if now_ms.saturating_sub(announced.alone_ms) >= LINGER_MS {
                self.filters.remove(&filter);
                withdrawn.push(filter);
            } else {
                // The others have not waited longer, unless they came back in between: then they wait for this one.
                self.lingering.push_front(filter);
                break;
            }
        }
        self.withdrawals += u64::from(!withdrawn.is_empty());
        withdrawn
    }

    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.filters.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text.to_owned()).unwrap()
    }

    fn subscribe(announcements: &mut Announcements, text: &str, new: bool) -> (usize, u64) {
        let mut announcing = Announcing::default();
        announcements.subscribe(&filter(text), new, &mut announcing);
        (announcing.add.len(), announcing.index)
    }

    #[test]
    fn the_first_subscriber_announces_and_the_others_wait_for_its_entry() {
        let mut all = Announcements::default();
        assert_eq!(subscribe(&mut all, "a", true), (1, 0));
        assert_eq!(subscribe(&mut all, "a", true), (1, 0), "it is not known when the first will be applied");
        let first = Announcing { add: vec![filter("a"), filter("unknown")], ..Announcing::default() };
        all.applied(&first, 5);
        assert_eq!(subscribe(&mut all, "a", false), (0, 5));
        all.applied(&first, 7);
        all.applied(&first, 6);
        assert_eq!(subscribe(&mut all, "a", true), (0, 7), "the last one counts");
        let mut announcing = Announcing::default();
        all.subscribe(&filter("a"), true, &mut announcing);
        all.subscribe(&filter("b"), true, &mut announcing);
        assert_eq!(announcing, Announcing { add: vec![filter("b")], index: 7, as_of: 0 });
    }

    #[test]
    fn the_last_one_to_go_is_followed_after_a_while() {
        let mut all = Announcements::default();
        subscribe(&mut all, "a", true);
        subscribe(&mut all, "a", true);
        all.unsubscribe(&filter("a"), 0);
        assert_eq!(all.withdraw(LINGER_MS * 9), [], "one is left");
        all.unsubscribe(&filter("a"), 1_000);
        assert_eq!(all.withdraw(999 + LINGER_MS), []);
        assert_eq!(all.withdraw(1_000 + LINGER_MS), [filter("a")]);
        assert_eq!((all.len(), all.withdraw(u64::MAX)), (0, Vec::new()));
        all.unsubscribe(&filter("a"), 0);
        let mut second = Announcing::default();
        all.subscribe(&filter("a"), true, &mut second);
        let first = Announcing { add: vec![filter("a")], ..Announcing::default() };
        all.applied(&first, 4);
        assert_eq!(subscribe(&mut all, "a", true), (1, 0), "what was applied has been withdrawn since");
        all.applied(&second, 9);
        assert_eq!(subscribe(&mut all, "a", true), (0, 9));
        all.forget();
        all.applied(&second, 9);
        assert_eq!(subscribe(&mut all, "a", true), (1, 0), "another run has announced nothing");
    }

    #[test]
    fn who_comes_back_meanwhile_changes_nothing() {
        let mut all = Announcements::default();
        subscribe(&mut all, "a", true);
        all.applied(&Announcing { add: vec![filter("a")], ..Announcing::default() }, 3);
        all.unsubscribe(&filter("a"), 0);
        assert_eq!(subscribe(&mut all, "a", true), (0, 3));
        all.unsubscribe(&filter("a"), LINGER_MS - 1);
        assert_eq!(all.withdraw(LINGER_MS), [], "it has not been alone for long");
        subscribe(&mut all, "a", true);
        assert_eq!(all.withdraw(LINGER_MS), []);
        all.unsubscribe(&filter("a"), 20_000);
        all.unsubscribe(&filter("a"), 20_000);
        assert_eq!(all.withdraw(20_000 + LINGER_MS), [filter("a")], "once");
        assert_eq!(all.withdraw(u64::MAX), []);
    }

    #[test]
    fn many_are_withdrawn_in_steps() {
        let mut all = Announcements::default();
        for at in 0..WITHDRAWN_MAX + 10 {
            subscribe(&mut all, &format!("f/{at}"), true);
            all.unsubscribe(&filter(&format!("f/{at}")), 0);
        }
        assert_eq!(all.withdraw(LINGER_MS).len(), WITHDRAWN_MAX);
        assert_eq!(all.withdraw(LINGER_MS).len(), 10);
    }
}
