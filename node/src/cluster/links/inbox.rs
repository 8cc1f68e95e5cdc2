//! What one run has had from another: each frame is handed up once, in order, and acknowledged as often as it comes
//! after everything in it was taken. A pure part: knows no stream, clock or lock.

use std::collections::{BTreeMap, BTreeSet};

/// What is to be done with a frame that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Handed up.
    New,
    /// Seen before; nothing: it is acknowledged when it is taken, or is again by now.
    Known,
    /// Frames before it are missing: the stream is of no use.
    Gap { expected: u64 },
}

/// A frame whose records were all taken, but for the members that were gone, by their places.
pub(super) type Done = (u64, Vec<u32>);

/// See the module.
pub(super) struct Inbox {
    /// Frames below have come.
    next: u64,
    /// Of these, handed up and not taken yet.
    pending: BTreeSet<u64>,
    /// Places that were named gone, by frame, for as long as the sender may not have heard of them.
    gone: BTreeMap<u64, Vec<u32>>,
    /// To be acknowledged on the current stream.
    done: Vec<Done>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { next: 1, pending: BTreeSet::new(), gone: BTreeMap::new(), done: Vec::new() }
    }
}

impl Inbox {
    /// A new stream begins: whatever was not acknowledged comes again on it.
    pub(super) fn begin(&mut self) {
        self.done.clear();
    }

    /// A frame came; its sender has had the acknowledgements of all below `settled`.
    pub(super) fn arrived(&mut self, seq: u64, settled: u64) -> Arrived {
        self.gone = self.gone.split_off(&settled.min(self.next));
        if seq > self.next {
            return Arrived::Gap { expected: self.next };
        }
        if seq == self.next {
            self.next += 1;
            self.pending.insert(seq);
            return Arrived::New;
        }
        if !self.pending.contains(&seq) {
            self.done.push((seq, self.gone.get(&seq).cloned().unwrap_or_default()));
        }
        Arrived::Known
    }

    /// Everything in a frame was taken, or has ended.
    pub(super) fn taken(&mut self, seq: u64, gone: Vec<u32>) {
        if !self.pending.remove(&seq) {
            return;
        }
        if !gone.is_empty() {
            self.gone.insert(seq, gone.clone());
        }
        self.done.push((seq, gone));
    }

    /// Takes what is to be acknowledged.
    pub(super) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// Frames that were handed up and are not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}
