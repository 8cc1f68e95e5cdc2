//! What one run sends to another: records gathered into numbered frames, each kept until it is acknowledged and sent
//! again on every new stream. A pure part: knows no stream, clock or lock.

use std::collections::BTreeMap;

use bytes::Bytes;
use fulmar_broker::{Generation, Publication};
use fulmar_mqtt::QoS;

use super::record::{Head, Member, Writer};

/// Records and bytes of a frame at which it is closed; before that it is once the stream takes it.
pub(super) const FRAME_RECORDS_MAX: usize = 64;
pub(super) const FRAME_BYTES_MAX: usize = 32 * 1024;

/// Unacknowledged bytes beyond which records of QoS 0 are dropped.
pub(super) const QOS_0_BYTES_MAX: usize = 8 << 20;

/// Unacknowledged bytes beyond which publishers are held.
pub const FULL_BYTES: usize = 16 << 20;

/// How a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Whoever it was for has a place for it, or has booked it.
    Taken,
    /// The chosen member of a shared subscription is not there any more.
    Gone,
    /// The run has ended before it acknowledged the record.
    NodeLost,
}

/// Records of QoS > 0: `forwarded = confirmed + gone + node_lost + open`. And, of QoS 0, what was dropped at the bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub forwarded: u64,
    pub confirmed: u64,
    pub gone: u64,
    pub node_lost: u64,
    pub queue_full: u64,
}

impl Books {
    pub(super) fn add(&mut self, other: Books) {
        self.forwarded += other.forwarded;
        self.confirmed += other.confirmed;
        self.gone += other.gone;
        self.node_lost += other.node_lost;
        self.queue_full += other.queue_full;
    }
}

/// Whether a record was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// Of QoS 0, beyond the bound; booked.
    Dropped,
    /// The run has ended; nothing was booked.
    Gone,
}

/// A record whose end somebody must hear of, or that is in the books.
struct Held<O> {
    place: u32,
    /// QoS > 0.
    booked: bool,
    obligation: Option<O>,
}

struct Frame<O> {
    bytes: Bytes,
    /// Of its records.
    size: usize,
    held: Vec<Held<O>>,
}

struct Open<O> {
    writer: Writer,
    records: u32,
    size: usize,
    held: Vec<Held<O>>,
}

/// See the module. `O`: who is told how a record ended.
pub(super) struct Outbox<O> {
    to: Generation,
    open: Option<Open<O>>,
    /// By number; closed and not acknowledged.
    frames: BTreeMap<u64, Frame<O>>,
    /// Number of the frame that is closed next.
    next: u64,
    /// Frames below were given to the current stream.
    cursor: u64,
    bytes: usize,
    /// Booked records that have not ended.
    pending: u64,
    closed: bool,
    books: Books,
}

impl<O> Outbox<O> {
    pub(super) fn new(to: Generation) -> Outbox<O> {
        Outbox {
            to,
            open: None,
            frames: BTreeMap::new(),
            next: 1,
            cursor: 1,
            bytes: 0,
            pending: 0,
            closed: false,
            books: Books::default(),
        }
    }

    /// Adds a record. The obligation is asked for only if the record is kept.
    pub(super) fn push(
        &mut self,
        publication: &Publication,
        member: Option<&Member>,
        obligation: impl FnOnce() -> Option<O>,
    ) -> Pushed {
        if self.closed {
            return Pushed::Gone;
        }
        let booked = publication.qos != QoS::AtMostOnce;
        if !booked && self.bytes + publication.bytes() > QOS_0_BYTES_MAX {
            self.books.queue_full += 1;
            return Pushed::Dropped;
        }
        let head = Head { to: self.to, settled: self.settled() };
        let begin = || Open { writer: Writer::new(head), records: 0, size: 0, held: Vec::new() };
        let open = self.open.get_or_insert_with(begin);
        let size = open.writer.put(publication, member);
        open.size += size;
        self.bytes += size;
        let obligation = obligation();
        if booked || obligation.is_some() {
            open.held.push(Held { place: open.records, booked, obligation });
        }
        open.records += 1;
        if booked {
            self.books.forwarded += 1;
            self.pending += 1;
        }
        if open.records as usize >= FRAME_RECORDS_MAX || open.writer.len() >= FRAME_BYTES_MAX {
            self.close_frame();
        }
        Pushed::Taken
    }

    /// Number of the first frame that is not acknowledged.
    fn settled(&self) -> u64 {
        self.frames.keys().next().copied().unwrap_or(self.next)
    }

    fn close_frame(&mut self) {
        let Some(Open { writer, size, held, .. }) = self.open.take() else { return };
        self.frames.insert(self.next, Frame { bytes: writer.finish(), size, held });
        self.next += 1;
    }

    /// The next frame for the current stream: what is being gathered goes as it is, if nothing else is left.
    pub(super) fn next(&mut self) -> Option<(u64, Bytes)> {
        if self.frames.range(self.cursor..).next().is_none() {
            self.close_frame();
        }
        let (seq, frame) = self.frames.range(self.cursor..).next()?;
        let next = (*seq, frame.bytes.clone());
        self.cursor = seq + 1;
        Some(next)
    }

    /// Whether [`Outbox::next`] would give something.
    #[cfg(test)]
    pub(super) fn has_next(&self) -> bool {
        self.open.is_some() || self.frames.range(self.cursor..).next().is_some()
    }

    /// A new stream begins: it is given every frame that is not acknowledged.
    pub(super) fn begin(&mut self) {
        self.cursor = self.settled();
    }

    /// A frame was acknowledged; `gone` are places of records in it. Said again it changes nothing.
    pub(super) fn acknowledged(&mut self, seq: u64, gone: &[u32], ended: &mut Vec<(O, Ended)>) {
        if seq >= self.cursor {
            return; // of a frame that this stream has not carried
        }
        let Some(frame) = self.frames.remove(&seq) else { return };
        self.bytes -= frame.size;
        for Held { place, booked, obligation } in frame.held {
            let how = if gone.contains(&place) { Ended::Gone } else { Ended::Taken };
            if booked {
                self.pending -= 1;
                match how {
                    Ended::Gone => self.books.gone += 1,
                    _ => self.books.confirmed += 1,
                }
            }
            ended.extend(obligation.map(|obligation| (obligation, how)));
        }
    }

    /// The run has ended: nothing is taken any more, and whatever is open ends as lost. Once.
    pub(super) fn close(&mut self, ended: &mut Vec<(O, Ended)>) {
        self.closed = true;
        self.close_frame();
        for Held { booked, obligation, .. } in std::mem::take(&mut self.frames).into_values().flat_map(|f| f.held) {
            if booked {
                self.pending -= 1;
                self.books.node_lost += 1;
            }
            ended.extend(obligation.map(|obligation| (obligation, Ended::NodeLost)));
        }
        self.bytes = 0;
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Unacknowledged bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The books, and how many records in them are open.
    pub(super) fn books(&self) -> (Books, u64) {
        (self.books, self.pending)
    }
}
