//! From queues to bytes: control first, then what the window allows.

use bytes::{BufMut, BytesMut};
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, PublishRef, QoS, TopicName, encode};

use super::{Closing, DropReason, Inflight, Outbound, Queued, Saw, Waiter, Waiting, class};
use crate::key::{LogTime, Now};
use crate::publication::Delivery;
use crate::state::command::{Phase, QueueEntry};

/// Topic aliases that we use towards one client, whatever it allows.
const ALIASES_MAX: u16 = 64;

/// The packet id of a durable delivery: every owner computes the same one.
#[must_use]
pub fn durable_packet_id(seq: u64) -> u16 {
    u16::try_from(1 + seq % 65_535).unwrap_or(1)
}

impl Outbound {
    /// Appends up to about `bytes_max` bytes to `out`: control first, then what the window allows. Returns the waiters
    /// whose messages were taken.
    pub fn fill(&mut self, now: Now, out: &mut BytesMut, bytes_max: usize) -> Vec<Box<dyn Waiter>> {
        if !self.control.is_empty() {
            out.put_slice(&self.control);
            self.control = BytesMut::new();
        }
        if self.closing == Closing::AfterControl {
            return Vec::new();
        }
        let closing = self.closing == Closing::AfterQueue;
        let before = out.len();
        while out.len() < bytes_max {
            if let Some(entry) = self.durable.front().filter(|_| self.window_open() && !closing) {
                debug_assert!(entry.seq < self.cursor);
                if let Some(entry) = self.durable.pop_front() {
                    self.write_durable(entry, now, out);
                }
            } else if self
                .replay
                .front()
                .is_some_and(|q| !closing && (class(q.delivery.qos) == 0 || self.window_open()))
            {
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
        let mut taken = self.admit_waiting();
        if closing && self.next_live().is_none() {
            let last = std::mem::take(&mut self.last);
            // With the node going there is no other member to offer a shared message to.
            let (waiters, _) = self.close(&last, DropReason::SessionEnded);
            taken.extend(waiters);
            out.put_slice(&self.control);
            self.control = BytesMut::new();
        }
        taken
    }

    pub(super) fn admit_waiting(&mut self) -> Vec<Box<dyn Waiter>> {
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
        let Queued { delivery, group, tag, at_ms, .. } = queued;
        let class = class(delivery.qos);
        if delivery.publication.expired(now.log) {
            self.tally.expired[class] += 1;
            self.lost(&delivery.publication, None);
            return;
        }
        let packet_id = if class == 0 { 0 } else { self.allocate_id() };
        if !self.write(&delivery, packet_id, false, now.log, out) {
            self.tally.dropped[class][DropReason::PacketTooLarge as usize] += 1;
            self.lost(&delivery.publication, Some(DropReason::PacketTooLarge));
            return;
        }
        let trace = delivery.publication.trace;
        self.saw(trace, Saw::Written { packet_id, dup: false });
        if class == 0 {
            self.tally.delivered[0] += 1;
            self.took(at_ms, now.mono_ms);
        } else {
            let group = group.map(|filter| Box::new((filter, delivery.publication)));
            self.inflight.insert(
                packet_id,
                Inflight { seq: None, qos: delivery.qos, received: false, released: false, group, tag, at_ms, trace },
            );
        }
    }

    fn write_durable(&mut self, entry: QueueEntry, now: Now, out: &mut BytesMut) {
        let QueueEntry { seq, delivery, phase, before_claim } = entry;
        // What may have been sent as QoS 2 is completed, however old it is [v5 MQTT-4.3.3-6].
        let open = phase == Phase::Received || (before_claim && delivery.qos == QoS::ExactlyOnce);
        if delivery.publication.expired(now.log) && !open {
            self.settled.passed = true;
            self.lost(&delivery.publication, None);
            return;
        }
        // Computed, so that every owner sends an entry again under the id that the client knows. Beside live deliveries,
        // which a session that ends with its socket has too, a computed id may be taken: then nobody knows the entry yet.
        let computed = durable_packet_id(seq);
        let packet_id = if self.inflight.contains_key(&computed) { self.allocate_id() } else { computed };
        let received = phase == Phase::Received;
        if received {
            // [v5 MQTT-4.4.0-1] what the client has received is resumed with PUBREL.
            let pubrel = Packet::PubRel(Ack::success(packet_id));
            let _ = encode(&pubrel, self.settings.version, out);
        } else if self.write(&delivery, packet_id, before_claim, now.log, out) {
            self.saw(delivery.publication.trace, Saw::Written { packet_id, dup: before_claim });
        } else {
            self.settled.refused.push(seq);
            self.lost(&delivery.publication, Some(DropReason::PacketTooLarge));
            return;
        }
        let (at_ms, trace) = (now.mono_ms, delivery.publication.trace);
        self.inflight.insert(
            packet_id,
            Inflight {
                seq: Some(seq),
                qos: delivery.qos,
                received,
                released: received,
                group: None,
                tag: 0,
                at_ms,
                trace,
            },
        );
    }

    /// Writes a tagged delivery of QoS 1 once more: with its packet id, and DUP. `false`, and nothing is written: it has not
    /// been sent yet, the client leaves unread what it was sent before, or it has been acknowledged.
    pub fn resend(&mut self, tag: u64, delivery: &Delivery, now: LogTime) -> bool {
        if self.closing != Closing::No || !self.control.is_empty() {
            return false;
        }
        let sent = self.inflight.iter().find(|(_, entry)| entry.tag == tag && entry.qos == QoS::AtLeastOnce);
        let Some(packet_id) = sent.map(|(id, _)| *id) else { return false };
        let mut again = BytesMut::new();
        let written = self.write(delivery, packet_id, true, now, &mut again);
        self.control = again;
        written
    }

    /// Encodes one PUBLISH; `false` if the client cannot take a packet of that size.
    fn write(&mut self, delivery: &Delivery, packet_id: u16, dup: bool, now: LogTime, out: &mut BytesMut) -> bool {
        let publication = &*delivery.publication;
        let (topic, topic_alias) = self.alias(&publication.topic);
        let prefix = self.settings.topic_prefix;
        let whole = publication.topic.as_str();
        let name = if prefix.is_empty() { whole } else { whole.strip_prefix(prefix).unwrap_or(whole) };
        let publish = PublishRef {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: if topic { name } else { "" },
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
            if topic && topic_alias.is_some() {
                self.aliases.remove(&publication.topic);
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
        if let Some(alias) = self.aliases.get(topic) {
            return (false, Some(*alias));
        }
        match u16::try_from(self.aliases.len() + 1) {
            Ok(alias) if alias <= self.settings.topic_alias_maximum.min(ALIASES_MAX) => {
                self.aliases.insert(topic.detached(), alias);
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
}
