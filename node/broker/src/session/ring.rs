//! Acknowledgements in the order of their publishes [v5 MQTT-4.6.0-2]: a slot per publish, freed from the front.

use std::collections::VecDeque;

use fulmar_mqtt::{QoS, ReasonCode};

use super::Token;

#[derive(Debug)]
struct Slot {
    token: Token,
    packet_id: u16,
    qos: QoS,
    done: Option<ReasonCode>,
}

/// At most `capacity` publishes that await their PUBACK or PUBREC.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    capacity: usize,
}

impl Ring {
    pub(super) fn new(capacity: u16) -> Ring {
        Ring { slots: VecDeque::new(), capacity: usize::from(capacity.max(1)) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn full(&self) -> bool {
        self.slots.len() >= self.capacity
    }

    /// Takes a slot. Tokens grow from call to call.
    pub(super) fn push(&mut self, token: Token, packet_id: u16, qos: QoS) {
        debug_assert!(self.slots.back().is_none_or(|last| last.token < token));
        self.slots.push_back(Slot { token, packet_id, qos, done: None });
    }

    /// Whether a publish with this packet id and QoS awaits its answer.
    pub(super) fn contains(&self, packet_id: u16, qos: QoS) -> bool {
        self.slots.iter().any(|slot| slot.packet_id == packet_id && slot.qos == qos)
    }

    /// Marks a slot as answered.
    pub(super) fn done(&mut self, token: Token, reason: ReasonCode) {
        if let Ok(at) = self.slots.binary_search_by_key(&token, |slot| slot.token)
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.done = Some(reason);
        }
    }

    /// The next acknowledgement that is due, in order.
    pub(super) fn pop(&mut self) -> Option<(u16, QoS, ReasonCode)> {
        let reason = self.slots.front()?.done?;
        self.slots.pop_front().map(|slot| (slot.packet_id, slot.qos, reason))
    }
}
