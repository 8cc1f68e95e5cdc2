//! A publish to very many sessions: committed once, and put into their queues by steps. Who gets it was decided when it
//! was published; until its turn comes it waits here, and so does every publish behind it, so that none overtakes another.
//! What waits here is counted and booked as if it were in the queues.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::books::{Dropped, Fate};
use super::command::{Command, Outcome, Phase};
use super::publish::Receiver;
use super::queue::Entry;
use super::{Out, State};
use crate::key::{LogTime, SessionKey};
use crate::publication::{Delivery, Publication};

/// Queues that one command puts messages into at most. A publish to more of them waits for its turn, by steps.
pub const EXPANSION_STEP_MAX: usize = if cfg!(test) { 3 } else { 4096 };

/// Steps that are due at one time: they share an entry of the log, and what applies it does nothing else meanwhile.
const STEPS_DUE_MAX: usize = 4;

/// One publish and those of its receivers that have not got it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expansion {
    pub(super) publication: Arc<Publication>,
    /// The ledger's number of the message.
    pub(super) body: u64,
    pub(super) expires_at: LogTime,
    /// Descending by key: the last one is next. Never empty.
    pub(super) receivers: Arc<Vec<Receiver>>,
}

impl Expansion {
    pub(super) fn entry(&self, receiver: &Receiver) -> Entry {
        let Delivery { publication, qos, retain, subscription_ids } = receiver.delivery(&self.publication);
        let (body, expires_at, group) = (self.body, self.expires_at, receiver.group.clone());
        Entry { publication, body, expires_at, subscription_ids, group, qos, retain, phase: Phase::Queued }
    }

    /// Where the receivers that are this session begin.
    fn position(&self, key: &SessionKey) -> Option<usize> {
        let at = self.receivers.partition_point(|receiver| receiver.key > *key);
        self.receivers.get(at).is_some_and(|receiver| receiver.key == *key).then_some(at)
    }
}

/// In the order of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Expansions {
    waiting: RedBlackTreeMapSync<u64, Expansion>,
}

impl PartialEq for Expansions {
    /// Numbers begin anew with a restore.
    fn eq(&self, other: &Expansions) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Expansions {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Expansion> {
        self.waiting.values()
    }

    pub(super) fn push(&mut self, expansion: Expansion) {
        let next = self.waiting.last().map_or(0, |(last, _)| last + 1);
        self.waiting.insert_mut(next, expansion);
    }

    /// The last one, which a snapshot goes on with.
    pub(super) fn last_mut(&mut self) -> Option<&mut Expansion> {
        let last = self.waiting.last().map(|(last, _)| *last)?;
        self.waiting.get_mut(&last)
    }

    /// The next receivers of the first one, with it; at most so many.
    fn take(&mut self, most: usize) -> Option<(Expansion, Vec<Receiver>)> {
        let number = self.waiting.first().map(|(first, _)| *first)?;
        let head = self.waiting.get_mut(&number)?;
        let receivers = Arc::make_mut(&mut head.receivers);
        let taken = receivers.split_off(receivers.len().saturating_sub(most));
        let (left, head) = (receivers.len(), Expansion { receivers: Arc::default(), ..head.clone() });
        if left == 0 {
            self.waiting.remove_mut(&number);
        }
        Some((head, taken))
    }

    /// What a session has not got, which will not get it any more.
    fn withdraw(&mut self, key: &SessionKey) -> Vec<Entry> {
        let named = |(number, expansion): (&u64, &Expansion)| expansion.position(key).map(|_| *number);
        let numbers: Vec<u64> = self.waiting.iter().filter_map(named).collect();
        let mut entries = Vec::new();
        for number in numbers {
            let Some(expansion) = self.waiting.get_mut(&number) else { continue };
            while let Some(at) = expansion.position(key) {
                let receiver = Arc::make_mut(&mut expansion.receivers).remove(at);
                entries.push(expansion.entry(&receiver));
            }
            if expansion.receivers.is_empty() {
                self.waiting.remove_mut(&number);
            }
        }
        entries
    }
}

impl State {
    /// Whether a publish to so many queues has to wait for its turn.
    pub(super) fn must_wait(&self, queues: usize) -> bool {
        queues > EXPANSION_STEP_MAX || !self.kept.expansions.is_empty()
    }

    /// Books a message for all of these and puts it behind those that wait. `expansion` names no receivers yet.
    pub(super) fn expand_later(&mut self, expansion: Expansion, mut receivers: Vec<Receiver>) {
        receivers.iter().for_each(|_| self.kept.ledger.queued());
        receivers.sort_by(|one, next| next.key.cmp(&one.key));
        self.kept.expansions.push(Expansion { receivers: Arc::new(receivers), ..expansion });
    }

    /// One step of what waits.
    pub(super) fn expand(&mut self, out: &mut Out<'_>) -> Outcome {
        if self.kept.expansions.is_empty() {
            return Outcome::Stale;
        }
        let mut most = EXPANSION_STEP_MAX;
        while let Some((expansion, receivers)) =
            Some(most).filter(|n| *n > 0).and_then(|n| self.kept.expansions.take(n))
        {
            most -= receivers.len();
            for receiver in receivers.iter().rev() {
                let entry = expansion.entry(receiver);
                if entry.expires_at <= self.kept.now {
                    self.kept.ledger.settled(&entry, Fate::Expired);
                } else {
                    self.enqueue(receiver, entry, true, out);
                }
            }
        }
        Outcome::Done
    }

    /// A session has ended: what waits for it goes the way of what is in its queue.
    pub(super) fn withdraw(&mut self, key: &SessionKey, reason: Dropped, out: &mut Out<'_>) {
        for (salt, entry) in (0..).zip(self.kept.expansions.withdraw(key)) {
            if !self.offer_again(salt, &entry, out) {
                self.kept.ledger.settled(&entry, Fate::Dropped(reason));
            }
        }
    }

    /// Commands for what waits, at most so many.
    pub(super) fn due_expansions(&self, most: usize) -> Vec<Command> {
        let steps = usize::try_from(self.expanding()).unwrap_or(usize::MAX).div_ceil(EXPANSION_STEP_MAX);
        vec![Command::Expand; steps.min(most).min(STEPS_DUE_MAX)]
    }

    /// Obligations of publishes that are committed and not yet in the queues of their receivers. While there are any,
    /// [`State::due`] goes on naming the steps that put them there.
    #[must_use]
    pub fn expanding(&self) -> u64 {
        self.kept.expansions.iter().map(|expansion| expansion.receivers.len() as u64).sum()
    }
}
