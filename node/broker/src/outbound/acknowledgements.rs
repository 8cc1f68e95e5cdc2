//! What the client has acknowledged: deliveries end, and durable ones are noted for their owner to commit.

use bytes::BytesMut;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, encode};

use super::{DropReason, Inflight, Outbound, Saw, durable_packet_id};

/// What acknowledgements of durable deliveries add up to until the owner proposes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    pub settled: Vec<u64>,
    pub received: Vec<u64>,
    pub refused: Vec<u64>,
    /// Expired entries were passed over: the floor has moved.
    pub passed: bool,
}

impl Settled {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.received.is_empty() && self.refused.is_empty() && !self.passed
    }
}

impl Outbound {
    /// PUBACK, PUBREC or PUBCOMP from the client; an error in it ends the delivery, also that of a shared subscription
    /// [v5 MQTT-4.8.2-6]. Appends the answer, if there is one, to `out`.
    pub fn acknowledge(&mut self, packet: &Packet, now_ms: u64, out: &mut BytesMut) {
        self.progress_ms = now_ms;
        match packet {
            Packet::PubAck(ack) => self.finish_if(ack, |entry| entry.qos == QoS::AtLeastOnce),
            Packet::PubRec(ack) => self.received(ack, out),
            // Whatever PUBCOMP says, the client has had the message [v5 4.3.3].
            Packet::PubComp(ack) => self.finish_if(&Ack::success(ack.packet_id), |entry| entry.received),
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
        let (seq, released, trace) = (entry.seq, entry.released, entry.trace);
        let (packet_id, reason) = (ack.packet_id, ack.reason);
        self.saw(trace, Saw::Acknowledged { packet_id, by: "PUBREC", reason });
        match seq {
            // Committed before PUBREL leaves; the owner calls `release` then.
            Some(seq) if first => self.settled.received.push(seq),
            // Said again while that is under way.
            Some(_) if !released => {}
            _ => self.pubrel(ack.packet_id, ReasonCode::Success, out),
        }
    }

    fn pubrel(&mut self, packet_id: u16, reason: ReasonCode, out: &mut BytesMut) {
        let _ = encode(&Packet::PubRel(Ack::with_reason(packet_id, reason)), self.settings.version, out);
    }

    /// The PUBRECs of these durable deliveries are committed: their PUBRELs are appended to `out`.
    pub fn release(&mut self, seqs: &[u64], out: &mut BytesMut) {
        for seq in seqs {
            let computed = durable_packet_id(*seq);
            let known = self.inflight.get(&computed).is_some_and(|entry| entry.seq == Some(*seq));
            let id = if known {
                Some(computed)
            } else {
                self.inflight.iter().find(|(_, entry)| entry.seq == Some(*seq)).map(|(id, _)| *id)
            };
            if let Some(id) = id {
                if let Some(entry) = self.inflight.get_mut(&id) {
                    entry.released = true;
                }
                self.pubrel(id, ReasonCode::Success, out);
            }
        }
    }

    /// An acknowledgement that answers nothing is passed over.
    fn finish_if(&mut self, ack: &Ack, answers: impl FnOnce(&Inflight) -> bool) {
        if self.inflight.get(&ack.packet_id).is_some_and(answers) {
            self.finish(ack);
        }
    }

    fn finish(&mut self, ack: &Ack) {
        let Some(entry) = self.inflight.remove(&ack.packet_id) else { return };
        let by = match (entry.qos, entry.received) {
            (QoS::ExactlyOnce, true) => "PUBCOMP",
            (QoS::ExactlyOnce, false) => "PUBREC",
            _ => "PUBACK",
        };
        let (packet_id, reason) = (ack.packet_id, ack.reason);
        self.saw(entry.trace, Saw::Acknowledged { packet_id, by, reason });
        self.took(entry.at_ms, self.progress_ms);
        if entry.tag != 0 {
            self.acknowledged.push(entry.tag);
        }
        match entry.seq {
            Some(seq) if ack.reason.is_error() => self.settled.refused.push(seq),
            Some(seq) => self.settled.settled.push(seq),
            None if ack.reason.is_error() => self.tally.dropped[1][DropReason::Refused as usize] += 1,
            None => self.tally.delivered[1] += 1,
        }
    }

    /// Takes the tags of those deliveries that the client has answered since the last call, in whatever way.
    pub fn take_acknowledged(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.acknowledged)
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
}
