//! What kinds of packets there are to a session, and what is counted of them.

use fulmar_broker::Now;
use fulmar_broker::session::Output;
use fulmar_mqtt::{Packet, QoS};

use super::State;
use crate::dispatch::Since;
use crate::telemetry::metrics::PacketCounts;

impl State {
    /// Counts packets by type, and publications among them by QoS.
    pub(super) fn note_received(&self, types: &PacketCounts, published: [u64; 3]) {
        self.dispatch.metrics().traffic.received(types);
        self.receiver.count_received(published.iter().sum());
        for (qos, count) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().zip(published) {
            if count > 0 {
                self.dispatch.metrics().received(qos, count);
            }
        }
    }

    /// Counts acknowledgements of publications that came at the same time.
    pub(super) fn note_acks(&self, since: Option<Since>, now: Now, count: u64) {
        if let Some(since) = since.filter(|_| count > 0) {
            let ms = now.mono_ms.saturating_sub(since.at_ms);
            self.dispatch.metrics().traffic.acknowledged(since.durable, ms, count);
        }
    }
}

pub(super) fn is_answer(output: &Output) -> bool {
    let Output::Send(packet) = output else { return false };
    matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) | Packet::PingResp)
}

/// The number of the packet's type in its fixed header.
pub(super) fn type_of(packet: &Packet) -> usize {
    match packet {
        Packet::Connect(_) => 1,
        Packet::ConnAck(_) => 2,
        Packet::Publish(_) => 3,
        Packet::PubAck(_) => 4,
        Packet::PubRec(_) => 5,
        Packet::PubRel(_) => 6,
        Packet::PubComp(_) => 7,
        Packet::Subscribe(_) => 8,
        Packet::SubAck(_) => 9,
        Packet::Unsubscribe(_) => 10,
        Packet::UnsubAck(_) => 11,
        Packet::PingReq => 12,
        Packet::PingResp => 13,
        Packet::Disconnect(_) => 14,
        Packet::Auth(_) => 15,
    }
}

pub(super) fn is_ack(packet: &Packet) -> bool {
    matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_))
}
