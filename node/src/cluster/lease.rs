//! When a node may act: the lease that the leader keeps renewing, as its holder counts it and as the leader reckons it.
//! The holder counts from before it asked and a tenth less, the leader from after it answered, so that whenever a holder
//! believes in its lease, so does the leader. Pure, but for the clock that [`Holder`] is read with.

#[cfg(test)]
mod simulation;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::replica::Then;
pub(super) use table::{Asked, Table};

/// Milliseconds of a lease that is granted at the moment of a heartbeat that a quorum has acknowledged.
pub(super) const LEASE_MS: u64 = 2_000;

/// Milliseconds for which voters do not elect another leader after they heard from one: every lease that an earlier
/// leader granted ends at most `LEASE_MS - ELECTION_MS` after the next one is elected. A leader that hands over is
/// followed at once; then that is `LEASE_MS`.
pub(super) const ELECTION_MS: u64 = 1_200;

/// Milliseconds between two requests for renewal.
pub(super) const RENEW_EVERY_MS: u64 = 200;

/// Milliseconds since the machine started, time in which it slept included.
#[must_use]
pub(super) fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (s, ns) = (u64::try_from(now.tv_sec).unwrap_or_default(), u64::try_from(now.tv_nsec).unwrap_or_default());
    s * 1_000 + ns / 1_000_000
}

/// Whether a test wants this to be wrong.
fn spoilt(point: &str) -> bool {
    let _ = point; // builds without fail points have no other use for it
    fail::fail_point!(point, |_| true);
    false
}

/// What the holder may count on of a lease that was granted for `lease_ms` in answer to a request sent at `sent_ms`.
#[must_use]
pub(super) fn held_until(sent_ms: u64, lease_ms: u64) -> u64 {
    sent_ms + lease_ms - lease_ms / 10
}

/// A lease that was granted while this node was frozen: it may act again once it has applied `index`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thaw {
    pub(super) index: u64,
    pub(super) until_ms: u64,
}

/// The lease of this node, and how far every other live node has come.
pub(super) struct Holder {
    /// Milliseconds of [`boottime_ms`].
    until_ms: AtomicU64,
    /// The only member: nobody else could act.
    alone: AtomicBool,
    /// This run was declared dead, or has not begun.
    barred: AtomicBool,
    /// The lease was given back: whatever is still granted, this process acts no more.
    given_back: AtomicBool,
    stable: Mutex<Stable>,
}

#[derive(Default)]
struct Stable {
    /// Of the leader that the index is from.
    term: u64,
    index: u64,
    waiting: BTreeMap<u64, Vec<Then>>,
}

impl Holder {
    #[must_use]
    pub(super) fn new() -> Holder {
        Holder {
            until_ms: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            barred: AtomicBool::new(true),
            given_back: AtomicBool::new(false),
            stable: Mutex::default(),
        }
    }

    /// Whether the lease is held now.
    #[must_use]
    pub(super) fn acts(&self) -> bool {
        if spoilt("lease::ignore") {
            return true;
        }
        if self.barred.load(Ordering::Acquire) || self.given_back.load(Ordering::Acquire) {
            return false;
        }
        self.alone.load(Ordering::Acquire) || boottime_ms() < self.until_ms.load(Ordering::Acquire)
    }

    /// Whether there is a lease at all, or no need of one, whatever became of this run.
    #[must_use]
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        self.alone.load(Ordering::Acquire) || now_ms < self.until_ms.load(Ordering::Acquire)
    }

    /// Extends the lease; it never becomes shorter.
    pub(super) fn extend(&self, until_ms: u64) {
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// Takes a renewal. One that comes when the lease has run out waits in `thaw`.
    pub(super) fn renewed(&self, now_ms: u64, renewal: Thaw, thaw: &mut Option<Thaw>) {
        if self.holds(now_ms) {
            self.extend(renewal.until_ms);
            return;
        }
        *thaw = Some(match *thaw {
            // The leader has counted this node in without a gap since the first of them.
            Some(first) if first.until_ms > now_ms => {
                Thaw { index: first.index, until_ms: first.until_ms.max(renewal.until_ms) }
            }
            _ => renewal,
        });
    }

    /// Takes up the lease that waits in `thaw`, if this node has applied enough; whether it does.
    pub(super) fn thaw(&self, applied: u64, thaw: &mut Option<Thaw>) -> bool {
        let ready = thaw.take_if(|thaw| applied >= thaw.index);
        if let Some(Thaw { until_ms, .. }) = ready {
            self.extend(until_ms);
        }
        ready.is_some()
    }

    /// Ends the lease for good: it is given back. A renewal that is under way changes nothing any more.
    pub(super) fn end(&self) {
        self.given_back.store(true, Ordering::Release);
    }

    /// Whether the lease was given back.
    #[must_use]
    pub(super) fn returned(&self) -> bool {
        self.given_back.load(Ordering::Acquire)
    }

    /// Whether this run of the node must not act, lease or not.
    pub(super) fn bar(&self, barred: bool) {
        self.barred.store(barred, Ordering::Release);
    }

    pub(super) fn set_alone(&self, alone: bool) {
        if self.alone.swap(alone, Ordering::AcqRel) != alone && alone {
            self.release(u64::MAX);
        }
    }

    #[must_use]
    pub(super) fn alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Every live node has applied `index`, says the leader of `term`. A later leader begins anew.
    pub(super) fn note_stable(&self, term: u64, index: u64) {
        let mut stable = self.stable.lock();
        if term < stable.term || (term == stable.term && index <= stable.index) {
            return;
        }
        (stable.term, stable.index) = (term, index);
        drop(stable);
        self.release(index);
    }

    #[cfg(test)]
    fn stable_index(&self) -> u64 {
        self.stable.lock().index
    }

    fn release(&self, index: u64) {
        let ready = {
            let mut stable = self.stable.lock();
            let later = index.checked_add(1).map(|after| stable.waiting.split_off(&after)).unwrap_or_default();
            std::mem::replace(&mut stable.waiting, later)
        };
        ready.into_values().flatten().for_each(|then| then());
    }

    /// See [`super::Replica::when_stable`].
    pub(super) fn when_stable(&self, index: u64, then: Then) {
        let index = if spoilt("stable::ignore") { 0 } else { index };
        if !self.alone() {
            let mut stable = self.stable.lock();
            if stable.index < index {
                stable.waiting.entry(index).or_default().push(then);
                drop(stable);
                if self.alone() {
                    self.release(u64::MAX); // it has become so in between
                }
                return;
            }
        }
        then();
    }

    /// Nothing that waits will be acknowledged by this run.
    pub(super) fn forget_waiting(&self) {
        let waiting = std::mem::take(&mut self.stable.lock().waiting);
        drop(waiting);
    }
}
