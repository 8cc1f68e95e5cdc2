//! The way out to one client: a bounded queue, the window of unacknowledged deliveries, and the bytes to write.
//! Pushed to by publishers, drained by the connection's writer, told of acknowledgements by the session. Bounded by
//! count and bytes; what is dropped at a bound is counted under its name. Reads no clock.

mod acknowledgements;
mod books;
mod look;
mod notes;
mod pressure;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use fulmar_mqtt::{QoS, TopicFilter, TopicName, Version};

pub use acknowledgements::Settled;
pub use books::{DROP_REASONS, DropReason, Tally};
pub use look::{Look, Unacknowledged};
pub use notes::{Lost, Notes, Saw};
pub use writing::durable_packet_id;

use crate::publication::{Delivery, Publication};
use crate::state::command::QueueEntry;

/// Milliseconds without progress after which a receiver that makes publishers wait is cut.
pub const STALL_MS_MAX: u64 = 5_000;

/// Unsent entries read ahead from a durable queue.
const READ_AHEAD_MAX: usize = 64;

/// Unsent retained messages of a replay that are queued at one time.
pub const REPLAY_QUEUED_MAX: usize = 256;

/// What a client said in CONNECT about the way to it, and the node's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub version: Version,
    /// Unacknowledged QoS 1 and 2 deliveries, 1..=65,535.
    pub receive_maximum: u16,
    /// Bytes of a whole packet.
    pub packet_bytes_max: u32,
    /// Topic aliases that the client accepts.
    pub topic_alias_maximum: u16,
    pub queue_messages_max: usize,
    pub queue_bytes_max: usize,
    /// Topics are written without it where they begin with it; mostly empty.
    pub topic_prefix: &'static str,
}

/// Whoever waits for room: what the publisher is told when its message has been taken.
pub trait Waiter: Send {
    /// The receiver has taken the message, or is gone and has booked it.
    fn taken(&self);
}

/// A shared subscription that chose this receiver: what is not acknowledged is offered to another member.
pub type Group = Option<Arc<TopicFilter>>;

struct Queued {
    delivery: Delivery,
    order: u64,
    group: Group,
    /// See [`Outbound::push_tagged`]; 0: none.
    tag: u64,
    /// When it was offered, in milliseconds of the monotonic clock; 0: not known.
    at_ms: u64,
}

struct Waiting {
    queued: Queued,
    waiter: Box<dyn Waiter>,
}

struct Inflight {
    /// Sequence number in the durable queue, if it came from there.
    seq: Option<u64>,
    qos: QoS,
    received: bool,
    /// Its PUBREC is committed: PUBREL may leave.
    released: bool,
    group: Option<Box<(Arc<TopicFilter>, Arc<Publication>)>>,
    tag: u64,
    /// When it was offered or, from the durable queue, written.
    at_ms: u64,
    /// See [`Publication::trace`].
    trace: u64,
}

/// Whether a push was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// The waiter is told later.
    Waiting,
    /// The receiver is gone; nothing was booked.
    Gone,
}

/// How the connection ends once everything written before is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// Live deliveries that the window allows are still written, then the last bytes.
    AfterQueue,
    /// What is queued as control bytes is still written, no delivery any more.
    AfterControl,
}

/// See the module.
pub struct Outbound {
    settings: Settings,
    control: BytesMut,
    /// What is written last, while [`Closing::AfterQueue`].
    last: BytesMut,
    live: [VecDeque<Queued>; 2],
    live_bytes: usize,
    waiting: VecDeque<Waiting>,
    replay: VecDeque<Queued>,
    replaying: bool,
    durable: VecDeque<QueueEntry>,
    /// Next sequence number to read from the durable queue, and whether there may be more than was read.
    cursor: u64,
    more: bool,
    inflight: BTreeMap<u16, Inflight>,
    next_id: u16,
    aliases: BTreeMap<TopicName, u16>,
    settled: Settled,
    /// Tags of deliveries that the client has acknowledged.
    acknowledged: Vec<u64>,
    order: u64,
    progress_ms: u64,
    tally: Tally,
    /// Of tallies that were taken: live deliveries that have ended so.
    delivered: u64,
    dropped: u64,
    notes: Option<Box<Notes>>,
    /// See [`Outbound::set_short`].
    short: bool,
    closing: Closing,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("queued", &(self.live[0].len() + self.live[1].len()))
            .field("inflight", &self.inflight.len())
            .finish_non_exhaustive()
    }
}

fn class(qos: QoS) -> usize {
    usize::from(qos != QoS::AtMostOnce)
}

impl Outbound {
    /// An empty way out. `cursor` is the first durable sequence number that is not settled.
    #[must_use]
    pub fn new(settings: Settings, cursor: u64) -> Outbound {
        Outbound {
            settings,
            control: BytesMut::new(),
            last: BytesMut::new(),
            live: [VecDeque::new(), VecDeque::new()],
            live_bytes: 0,
            waiting: VecDeque::new(),
            replay: VecDeque::new(),
            replaying: false,
            durable: VecDeque::new(),
            cursor,
            more: true,
            inflight: BTreeMap::new(),
            next_id: 0,
            aliases: BTreeMap::new(),
            settled: Settled::default(),
            acknowledged: Vec::new(),
            order: 0,
            progress_ms: 0,
            tally: Tally::default(),
            delivered: 0,
            dropped: 0,
            notes: None,
            short: false,
            closing: Closing::No,
        }
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.settings.version
    }

    /// Queues control bytes: already encoded packets, in order, ahead of deliveries.
    pub fn control(&mut self, bytes: &[u8]) {
        if self.closing == Closing::No {
            self.control.extend_from_slice(bytes);
        }
    }

    /// Control bytes that wait for the writer.
    #[must_use]
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Offers one live delivery. At the bound, QoS 0 displaces the oldest QoS 0 and QoS > 0 makes the publisher wait.
    pub fn push(
        &mut self,
        delivery: Delivery,
        group: Group,
        now_ms: u64,
        waiter: impl FnOnce() -> Box<dyn Waiter>,
    ) -> Pushed {
        self.offer(delivery, group, 0, now_ms, waiter)
    }

    /// As [`Outbound::push`], for a delivery whose acknowledgement somebody wants to hear of: see
    /// [`Outbound::take_acknowledged`]. `tag` is theirs, and not 0.
    pub fn push_tagged(
        &mut self,
        delivery: Delivery,
        tag: u64,
        now_ms: u64,
        waiter: impl FnOnce() -> Box<dyn Waiter>,
    ) -> Pushed {
        self.offer(delivery, None, tag, now_ms, waiter)
    }

    fn offer(
        &mut self,
        delivery: Delivery,
        group: Group,
        tag: u64,
        now_ms: u64,
        waiter: impl FnOnce() -> Box<dyn Waiter>,
    ) -> Pushed {
        if self.closing != Closing::No {
            return Pushed::Gone;
        }
        let class = class(delivery.qos);
        self.tally.created[class] += 1;
        self.order += 1;
        let trace = delivery.publication.trace;
        let queued = Queued { delivery, order: self.order, group, tag, at_ms: now_ms };
        let bytes = queued.delivery.publication.bytes();
        if self.has_room(bytes) && (class == 0 || self.waiting.is_empty()) {
            self.enqueue(class, queued, bytes);
            self.saw(trace, Saw::Queued(self.live[0].len() + self.live[1].len()));
            return Pushed::Taken;
        }
        if class == 0 {
            while !self.has_room(bytes) {
                let Some(oldest) = self.live[0].pop_front() else {
                    self.tally.dropped[0][self.overflow() as usize] += 1;
                    self.lost(&queued.delivery.publication, Some(self.overflow()));
                    return Pushed::Taken;
                };
                self.live_bytes -= oldest.delivery.publication.bytes();
                self.tally.dropped[0][self.overflow() as usize] += 1;
                self.lost(&oldest.delivery.publication, Some(self.overflow()));
            }
            self.enqueue(class, queued, bytes);
            self.saw(trace, Saw::Queued(self.live[0].len() + self.live[1].len()));
            return Pushed::Taken;
        }
        self.saw(trace, Saw::Waits);
        if self.waiting.is_empty() {
            self.progress_ms = now_ms;
        }
        self.waiting.push_back(Waiting { queued, waiter: waiter() });
        Pushed::Waiting
    }

    fn has_room(&self, bytes: usize) -> bool {
        let messages = self.live[0].len() + self.live[1].len();
        // A message larger than the whole bound still passes an empty queue.
        let (messages_max, bytes_max) = self.bounds();
        messages < messages_max && (messages == 0 || self.live_bytes + bytes <= bytes_max)
    }

    /// Messages and bytes that the live queue takes before it displaces some or makes a publisher wait. Whatever its
    /// size, one message passes an empty queue.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        if self.closing != Closing::No || !self.waiting.is_empty() {
            return (0, 0);
        }
        let messages = self.live[0].len() + self.live[1].len();
        let (messages_max, bytes_max) = self.bounds();
        let bytes = if messages == 0 { usize::MAX } else { bytes_max.saturating_sub(self.live_bytes) };
        (messages_max.saturating_sub(messages), bytes)
    }

    /// Whether live messages would find half of the queue empty.
    #[must_use]
    pub fn roomy(&self) -> bool {
        let messages = self.live[0].len() + self.live[1].len();
        let (messages_max, bytes_max) = self.bounds();
        messages <= messages_max / 2 && self.live_bytes <= bytes_max / 2
    }

    fn enqueue(&mut self, class: usize, queued: Queued, bytes: usize) {
        self.live_bytes += bytes;
        self.live[class].push_back(queued);
    }

    /// Milliseconds since the receiver last took something while publishers wait for it; `None` if nobody waits.
    #[must_use]
    pub fn stalled_ms(&self, now_ms: u64) -> Option<u64> {
        (!self.waiting.is_empty()).then(|| now_ms.saturating_sub(self.progress_ms))
    }

    /// Begins or ends a replay of retained messages. Until its end nothing live overtakes it.
    pub fn set_replaying(&mut self, replaying: bool) {
        self.replaying = replaying;
    }

    /// How many messages of a replay may be added now.
    #[must_use]
    pub fn replay_room(&self) -> usize {
        REPLAY_QUEUED_MAX.saturating_sub(self.replay.len())
    }

    /// Adds one message of a replay; the caller keeps to [`Outbound::replay_room`].
    pub fn push_replay(&mut self, delivery: Delivery) {
        if self.closing == Closing::No {
            self.tally.created[class(delivery.qos)] += 1;
            self.order += 1;
            self.replay.push_back(Queued { delivery, order: self.order, group: None, tag: 0, at_ms: 0 });
        }
    }

    /// Notes that the durable queue has grown.
    pub fn wake(&mut self) {
        self.more = true;
    }

    /// Where to read the durable queue from and how many entries fit, if more may be there and there is room.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, usize)> {
        let room = READ_AHEAD_MAX.saturating_sub(self.durable.len());
        let low = self.durable.len() < READ_AHEAD_MAX / 2;
        (self.more && low && self.closing == Closing::No).then_some((self.cursor, room))
    }

    /// Takes what was read for [`Outbound::wants`]; nothing means that there is no more for now.
    pub fn feed(&mut self, entries: Vec<QueueEntry>) {
        self.more = !entries.is_empty();
        if let Some(last) = entries.last() {
            self.cursor = last.seq + 1;
        }
        self.durable.extend(entries);
    }

    /// First sequence number that has not been written to this client.
    #[must_use]
    pub fn sent_below(&self) -> u64 {
        self.durable.front().map_or(self.cursor, |entry| entry.seq)
    }

    fn window_open(&self) -> bool {
        self.inflight.len() < usize::from(self.settings.receive_maximum)
    }

    /// Whether there is anything to write now.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.control.is_empty()
            || self.closing == Closing::AfterQueue
            || (self.closing == Closing::No
                && (self.next_live().is_some()
                    || self.replay.front().is_some_and(|q| class(q.delivery.qos) == 0 || self.window_open())
                    || (!self.durable.is_empty() && self.window_open())))
    }

    fn next_live(&self) -> Option<usize> {
        let closing = self.closing == Closing::AfterQueue;
        if (self.replaying || !self.replay.is_empty()) && !closing {
            return None;
        }
        match (self.live[0].front(), self.live[1].front().filter(|_| self.window_open())) {
            (Some(zero), Some(one)) => Some(usize::from(one.order < zero.order)),
            (Some(_), None) => Some(0),
            (None, Some(_)) => Some(1),
            (None, None) => None,
        }
    }

    /// Takes the counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        let tally = std::mem::take(&mut self.tally);
        self.delivered += tally.delivered.iter().sum::<u64>();
        self.dropped += tally.lost();
        tally
    }

    /// No delivery is begun any more; `last` is written after the control bytes that are already queued. What was
    /// queued or unacknowledged is booked under `reason`. Returns waiters, and the QoS 1 messages of shared
    /// subscriptions that another member should get [v5 MQTT-4.8.2-5].
    pub fn close(&mut self, last: &[u8], reason: DropReason) -> (Vec<Box<dyn Waiter>>, Vec<Orphan>) {
        if self.closing == Closing::AfterControl {
            return (Vec::new(), Vec::new());
        }
        self.control.extend_from_slice(last);
        self.closing = Closing::AfterControl;
        let mut waiters = Vec::new();
        let mut orphans = Vec::new();
        let replay = std::mem::take(&mut self.replay);
        let live = std::mem::take(&mut self.live);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|w| {
            waiters.push(w.waiter);
            w.queued
        });
        for queued in replay.into_iter().chain(live.into_iter().flatten()).chain(waiting) {
            let class = class(queued.delivery.qos);
            match queued.group {
                Some(filter) if class == 1 => {
                    self.tally.dropped[1][DropReason::Reassigned as usize] += 1;
                    orphans.push(Orphan { filter, publication: queued.delivery.publication });
                }
                _ => {
                    self.tally.dropped[class][reason as usize] += 1;
                    self.lost(&queued.delivery.publication, Some(reason));
                }
            }
        }
        for entry in std::mem::take(&mut self.inflight).into_values().filter(|entry| entry.seq.is_none()) {
            match entry.group {
                Some(group) if entry.qos == QoS::AtLeastOnce => {
                    self.tally.dropped[1][DropReason::Reassigned as usize] += 1;
                    orphans.push(Orphan { filter: group.0, publication: group.1 });
                }
                _ => self.tally.dropped[1][reason as usize] += 1,
            }
        }
        self.live_bytes = 0;
        self.durable.clear();
        self.aliases.clear();
        (waiters, orphans)
    }

    /// Takes back every control byte that no writer has: an acknowledgement that must not be given any more.
    pub fn unsay(&mut self) {
        self.control.clear();
        self.last.clear();
    }

    /// As [`Outbound::close`] in the end, after what the window allows of the live queue has been written.
    pub fn close_after_queue(&mut self, last: &[u8]) {
        if self.closing == Closing::No {
            self.closing = Closing::AfterQueue;
            self.last.extend_from_slice(last);
        }
    }

    /// Whether the end has come: closed, and every control byte handed to the writer.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.closing == Closing::AfterControl && self.control.is_empty()
    }

    /// Whether deliveries are refused.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closing != Closing::No
    }

    /// Queued and unacknowledged live deliveries of QoS > 0: the open part of the books.
    #[must_use]
    pub fn open(&self) -> usize {
        self.live[1].len()
            + self.waiting.len()
            + self.replay.iter().filter(|q| class(q.delivery.qos) == 1).count()
            + self.inflight.values().filter(|entry| entry.seq.is_none()).count()
    }
}

/// A shared message that lost its receiver.
#[derive(Debug, Clone)]
pub struct Orphan {
    pub filter: Arc<TopicFilter>,
    pub publication: Arc<Publication>,
}
