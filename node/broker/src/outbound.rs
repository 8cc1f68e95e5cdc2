//! The way out to one client: a bounded queue, the window of unacknowledged deliveries, and the bytes to write.
//! Pushed to by publishers, drained by the connection's writer, told of acknowledgements by the session. Bounded by
//! count and bytes; what is dropped at a bound is counted under its name. Reads no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, PublishRef, QoS, ReasonCode, TopicFilter, TopicName, Version, encode};

use crate::key::{LogTime, Now};
use crate::publication::{Delivery, Publication};
use crate::state::command::{Phase, QueueEntry};

/// Milliseconds without progress after which a receiver that makes publishers wait is cut.
pub const STALL_MS_MAX: u64 = 5_000;

/// Unsent entries read ahead from a durable queue.
const READ_AHEAD_MAX: usize = 64;

/// Unsent retained messages of a replay that are queued at one time.
pub const REPLAY_QUEUED_MAX: usize = 256;

/// Why an obligation was dropped. A closed list: these are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// QoS 0 beyond the live queue's bound, oldest first.
    QueueFull,
    /// The receiver took nothing for [`STALL_MS_MAX`] while publishers waited.
    SlowReceiver,
    /// The client's connection, and with it its clean session, ended.
    SessionEnded,
    /// Larger than the client's maximum packet size [v5 MQTT-3.1.2-25].
    PacketTooLarge,
    /// The client answered with an error.
    Refused,
    /// A shared message that was offered to another member, where it is a new obligation.
    Reassigned,
}

/// Drop reasons in label order.
pub const DROP_REASONS: [(DropReason, &str); 6] = [
    (DropReason::QueueFull, "queue_full"),
    (DropReason::SlowReceiver, "slow_receiver"),
    (DropReason::SessionEnded, "session_ended"),
    (DropReason::PacketTooLarge, "packet_too_large"),
    (DropReason::Refused, "refused"),
    (DropReason::Reassigned, "reassigned"),
];

/// What happened since it was last taken, in deliveries to live receivers. Taken by whoever sums the books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Obligations taken on, by QoS 0 and QoS > 0.
    pub created: [u64; 2],
    /// QoS 0: written; QoS > 0: acknowledged.
    pub delivered: [u64; 2],
    pub expired: [u64; 2],
    pub dropped: [[u64; DROP_REASONS.len()]; 2],
}

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
    /// Whether the session outlives its connection: packet ids are then computed from the durable queue.
    pub persistent: bool,
    pub queue_messages_max: usize,
    pub queue_bytes_max: usize,
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
    group: Option<Box<(Arc<TopicFilter>, Arc<Publication>)>>,
}

/// What acknowledgements of durable deliveries add up to until the owner proposes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    pub settled: Vec<u64>,
    pub received: Vec<u64>,
    pub refused: Vec<u64>,
}

impl Settled {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.received.is_empty() && self.refused.is_empty()
    }
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
    /// What is queued as control bytes is still written, no delivery any more.
    AfterControl,
}

/// See the module.
pub struct Outbound {
    settings: Settings,
    control: BytesMut,
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
    aliases: Option<Box<BTreeMap<TopicName, u16>>>,
    settled: Settled,
    order: u64,
    progress_ms: u64,
    tally: Tally,
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
            aliases: None,
            settled: Settled::default(),
            order: 0,
            progress_ms: 0,
            tally: Tally::default(),
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

    /// Offers one live delivery. At the bound, QoS 0 displaces the oldest QoS 0 and QoS > 0 makes the publisher wait.
    pub fn push(
        &mut self,
        delivery: Delivery,
        group: Group,
        now_ms: u64,
        waiter: impl FnOnce() -> Box<dyn Waiter>,
    ) -> Pushed {
        if self.closing != Closing::No {
            return Pushed::Gone;
        }
        let class = class(delivery.qos);
        self.tally.created[class] += 1;
        self.order += 1;
        let queued = Queued { delivery, order: self.order, group };
        let bytes = queued.delivery.publication.bytes();
        if self.has_room(bytes) && (class == 0 || self.waiting.is_empty()) {
            self.enqueue(class, queued, bytes);
            return Pushed::Taken;
        }
        if class == 0 {
            while !self.has_room(bytes) {
                let Some(oldest) = self.live[0].pop_front() else {
                    self.tally.dropped[0][DropReason::QueueFull as usize] += 1;
                    return Pushed::Taken;
                };
                self.live_bytes -= oldest.delivery.publication.bytes();
                self.tally.dropped[0][DropReason::QueueFull as usize] += 1;
            }
            self.enqueue(class, queued, bytes);
            return Pushed::Taken;
        }
        if self.waiting.is_empty() {
            self.progress_ms = now_ms;
        }
        self.waiting.push_back(Waiting { queued, waiter: waiter() });
        Pushed::Waiting
    }

    fn has_room(&self, bytes: usize) -> bool {
        let messages = self.live[0].len() + self.live[1].len();
        // A message larger than the whole bound still passes an empty queue.
        messages < self.settings.queue_messages_max
            && (messages == 0 || self.live_bytes + bytes <= self.settings.queue_bytes_max)
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
            self.replay.push_back(Queued { delivery, order: self.order, group: None });
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
            || (self.closing == Closing::No
                && (self.next_live().is_some()
                    || self.replay.front().is_some_and(|q| class(q.delivery.qos) == 0 || self.window_open())
                    || (!self.durable.is_empty() && self.window_open())))
    }

    fn next_live(&self) -> Option<usize> {
        if self.replaying || !self.replay.is_empty() {
            return None;
        }
        match (self.live[0].front(), self.live[1].front().filter(|_| self.window_open())) {
            (Some(zero), Some(one)) => Some(usize::from(one.order < zero.order)),
            (Some(_), None) => Some(0),
            (None, Some(_)) => Some(1),
            (None, None) => None,
        }
    }

    /// Appends up to about `bytes_max` bytes to `out`: control first, then what the window allows. Returns the waiters
    /// whose messages were taken.
    pub fn fill(&mut self, now: Now, out: &mut BytesMut, bytes_max: usize) -> Vec<Box<dyn Waiter>> {
        if !self.control.is_empty() {
            out.put_slice(&self.control);
            self.control = BytesMut::new();
        }
        if self.closing != Closing::No {
            return Vec::new();
        }
        let before = out.len();
        while out.len() < bytes_max {
            if let Some(entry) = self.durable.front().filter(|_| self.window_open()) {
                debug_assert!(entry.seq < self.cursor);
                if let Some(entry) = self.durable.pop_front() {
                    self.write_durable(entry, now, out);
                }
            } else if self.replay.front().is_some_and(|q| class(q.delivery.qos) == 0 || self.window_open()) {
                if let Some(queued) = self.replay.pop_front() {
                    self.write_live(queued, now, out);
                }
            } else if let Some(class) = self.next_live() {
                if let Some(queued) = self.live[class].pop_front() {
                    self.live_bytes -= queued.delivery.publication.bytes();
                    self.write_live(queued, now, out);
                }
            } else {
                break;
            }
        }
        if out.len() > before {
            self.progress_ms = now.mono_ms;
        }
        self.admit_waiting()
    }

    fn admit_waiting(&mut self) -> Vec<Box<dyn Waiter>> {
        let mut taken = Vec::new();
        while let Some(first) = self.waiting.front() {
            let bytes = first.queued.delivery.publication.bytes();
            if !self.has_room(bytes) {
                break;
            }
            if let Some(Waiting { queued, waiter }) = self.waiting.pop_front() {
                self.enqueue(1, queued, bytes);
                taken.push(waiter);
            }
        }
        taken
    }

    fn write_live(&mut self, queued: Queued, now: Now, out: &mut BytesMut) {
        let Queued { delivery, group, .. } = queued;
        let class = class(delivery.qos);
        if delivery.publication.expired(now.log) {
            self.tally.expired[class] += 1;
            return;
        }
        let packet_id = if class == 0 { 0 } else { self.allocate_id() };
        if !self.write(&delivery, packet_id, false, now.log, out) {
            self.tally.dropped[class][DropReason::PacketTooLarge as usize] += 1;
        } else if class == 0 {
            self.tally.delivered[0] += 1;
        } else {
            let group = group.map(|filter| Box::new((filter, delivery.publication)));
            self.inflight.insert(packet_id, Inflight { seq: None, qos: delivery.qos, received: false, group });
        }
    }

    fn write_durable(&mut self, entry: QueueEntry, now: Now, out: &mut BytesMut) {
        let QueueEntry { seq, delivery, phase, before_claim } = entry;
        let packet_id = if self.settings.persistent { durable_packet_id(seq) } else { self.allocate_id() };
        let received = phase == Phase::Received;
        if received {
            // [v5 MQTT-4.4.0-1] what the client has received is resumed with PUBREL.
            let pubrel = Packet::PubRel(Ack::success(packet_id));
            let _ = encode(&pubrel, self.settings.version, out);
        } else if !self.write(&delivery, packet_id, before_claim, now.log, out) {
            self.settled.refused.push(seq);
            return;
        }
        self.inflight.insert(packet_id, Inflight { seq: Some(seq), qos: delivery.qos, received, group: None });
    }

    /// Encodes one PUBLISH; `false` if the client cannot take a packet of that size.
    fn write(&mut self, delivery: &Delivery, packet_id: u16, dup: bool, now: LogTime, out: &mut BytesMut) -> bool {
        let publication = &*delivery.publication;
        let (topic, topic_alias) = self.alias(&publication.topic);
        let publish = PublishRef {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: if topic { publication.topic.as_str() } else { "" },
            packet_id,
            topic_alias,
            message_expiry_s: publication.expiry_left_s(now),
            subscription_ids: &delivery.subscription_ids,
            forward: &publication.forward,
            payload: &publication.payload,
        };
        let version = self.settings.version;
        if self.settings.packet_bytes_max != u32::MAX
            && publish.encoded_len(version) > self.settings.packet_bytes_max as usize
        {
            // The alias was not announced after all.
            if let (true, Some(aliases), Some(_)) = (topic, &mut self.aliases, topic_alias) {
                aliases.remove(&publication.topic);
            }
            return false;
        }
        publish.encode(version, out).is_ok()
    }

    /// Whether the topic is written, and its alias: the first topics get one, once each.
    fn alias(&mut self, topic: &TopicName) -> (bool, Option<u16>) {
        if self.settings.topic_alias_maximum == 0 {
            return (true, None);
        }
        let aliases = self.aliases.get_or_insert_default();
        if let Some(alias) = aliases.get(topic) {
            return (false, Some(*alias));
        }
        match u16::try_from(aliases.len() + 1) {
            Ok(alias) if alias <= self.settings.topic_alias_maximum.min(ALIASES_MAX) => {
                aliases.insert(topic.detached(), alias);
                (true, Some(alias))
            }
            _ => (true, None),
        }
    }

    fn allocate_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            // The window is smaller than the space of ids, so a free one exists.
            if !self.inflight.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// PUBACK, PUBREC or PUBCOMP from the client; an error in it ends the delivery, also that of a shared subscription
    /// [v5 MQTT-4.8.2-6]. Appends the answer, if there is one, to `out`.
    pub fn acknowledge(&mut self, packet: &Packet, now_ms: u64, out: &mut BytesMut) {
        self.progress_ms = now_ms;
        match packet {
            Packet::PubAck(ack) => {
                if self.inflight.get(&ack.packet_id).is_some_and(|entry| entry.qos == QoS::AtLeastOnce) {
                    self.finish(ack);
                }
            }
            Packet::PubRec(ack) => self.received(ack, out),
            Packet::PubComp(ack) => {
                if self.inflight.get(&ack.packet_id).is_some_and(|entry| entry.received) {
                    self.finish(ack);
                }
            }
            _ => {}
        }
    }

    fn received(&mut self, ack: &Ack, out: &mut BytesMut) {
        let Some(entry) = self.inflight.get_mut(&ack.packet_id).filter(|entry| entry.qos == QoS::ExactlyOnce) else {
            // [v5 3.6.2.1] the answer to a PUBREC for an unknown packet id.
            self.pubrel(ack.packet_id, ReasonCode::PacketIdentifierNotFound, out);
            return;
        };
        if ack.reason.is_error() {
            // [v5 MQTT-4.13.2-1] the transaction ends here, without PUBREL.
            self.finish(ack);
            return;
        }
        let first = !std::mem::replace(&mut entry.received, true);
        match entry.seq {
            // Committed before PUBREL leaves; the owner calls `release` then.
            Some(seq) if first => self.settled.received.push(seq),
            _ => self.pubrel(ack.packet_id, ReasonCode::Success, out),
        }
    }

    fn pubrel(&mut self, packet_id: u16, reason: ReasonCode, out: &mut BytesMut) {
        let _ = encode(&Packet::PubRel(Ack::with_reason(packet_id, reason)), self.settings.version, out);
    }

    /// The PUBRECs of these durable deliveries are committed: their PUBRELs are appended to `out`.
    pub fn release(&mut self, seqs: &[u64], out: &mut BytesMut) {
        let ids: Vec<u16> = self
            .inflight
            .iter()
            .filter(|(_, entry)| entry.seq.is_some_and(|seq| seqs.contains(&seq)))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.pubrel(id, ReasonCode::Success, out);
        }
    }

    fn finish(&mut self, ack: &Ack) {
        let Some(entry) = self.inflight.remove(&ack.packet_id) else { return };
        match entry.seq {
            Some(seq) if ack.reason.is_error() => self.settled.refused.push(seq),
            Some(seq) => self.settled.settled.push(seq),
            None if ack.reason.is_error() => self.tally.dropped[1][DropReason::Refused as usize] += 1,
            None => self.tally.delivered[1] += 1,
        }
    }

    /// Takes what the client has acknowledged of its durable queue since the last call.
    pub fn take_settled(&mut self) -> Settled {
        std::mem::take(&mut self.settled)
    }

    /// Whether [`Outbound::take_settled`] would give something.
    #[must_use]
    pub fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// First durable sequence number that is not settled, given that all before it were handed out here.
    #[must_use]
    pub fn settled_floor(&self) -> u64 {
        let unsent = self.sent_below();
        self.inflight.values().filter_map(|entry| entry.seq).min().map_or(unsent, |seq| seq.min(unsent))
    }

    /// Takes the counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// No delivery is begun any more; `last` is written after the control bytes that are already queued. What was
    /// queued or unacknowledged is booked under `reason`. Returns waiters, and the QoS 1 messages of shared
    /// subscriptions that another member should get [v5 MQTT-4.8.2-5].
    pub fn close(&mut self, last: &[u8], reason: DropReason) -> (Vec<Box<dyn Waiter>>, Vec<Orphan>) {
        if self.closing != Closing::No {
            return (Vec::new(), Vec::new());
        }
        self.control(last);
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
                _ => self.tally.dropped[class][reason as usize] += 1,
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
        self.aliases = None;
        (waiters, orphans)
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

/// Topic aliases that we use towards one client, whatever it allows.
const ALIASES_MAX: u16 = 64;

/// The packet id of a durable delivery: every owner computes the same one.
#[must_use]
pub fn durable_packet_id(seq: u64) -> u16 {
    u16::try_from(1 + seq % 65_535).unwrap_or(1)
}

/// A shared message that lost its receiver.
#[derive(Debug, Clone)]
pub struct Orphan {
    pub filter: Arc<TopicFilter>,
    pub publication: Arc<Publication>,
}

#[cfg(test)]
mod tests;
