//! PUBLISH and PUBREL from the client.

use fulmar_mqtt::packet::{Ack, Publish, ReasonProperties, SkippedPublish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicName, Version};

use fulmar_platform::Publishing;

use super::{Denial, Input, Output, Session, Token};
use crate::key::Now;
use crate::publication::{Publication, Via};

/// What a client of MQTT 5 is told with 0x97.
const NO_ROOM: &str = "there is no room for it: packet size, queue, replicated bytes or disk";

/// Where a publish goes that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Route,
    Platform,
}

/// Why one does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Beyond(ReasonCode, &'static str),
    Denied,
    /// So much so that the connection ends.
    Closed,
}

impl Session {
    pub(super) fn publish(&mut self, now: Now, publish: Publish, outputs: &mut Vec<Output>) {
        if self.beyond_qos_max(publish.qos, outputs) {
            return;
        }
        if publish.qos != QoS::AtMostOnce && !self.take_turn(publish.qos, publish.packet_id, outputs) {
            self.pause(now, Input::Packet(Packet::Publish(publish)));
            return;
        }
        let alias = publish.properties.topic_alias;
        let Some(topic) = self.resolve(publish.topic.as_ref(), alias, outputs) else { return };
        let again = publish.qos == QoS::ExactlyOnce
            && (self.received.binary_search(&publish.packet_id).is_ok()
                || self.ring.contains(publish.packet_id, QoS::ExactlyOnce));
        let token = match publish.qos {
            QoS::AtMostOnce => None,
            qos => {
                let token = self.token();
                self.ring.push(token, publish.packet_id, qos);
                Some(token)
            }
        };
        let way = match self.way(&topic) {
            Ok(way) => way,
            Err(refused) => {
                let denied = (ReasonCode::NotAuthorized, "not authorized to publish to this topic");
                if !matches!(refused, Refused::Beyond(..)) {
                    outputs.push(Output::Denied(Denial::Publish(topic)));
                }
                match refused {
                    Refused::Beyond(reason, detail) => self.refuse(now, token, (reason, detail), outputs),
                    Refused::Denied => self.refuse(now, token, denied, outputs),
                    Refused::Closed => self.fail(denied.0, Some(denied.1), outputs),
                }
                return;
            }
        };
        if again {
            // [v5 MQTT-4.3.3-10] already received: answered again, not published again.
            self.answer(now, token, ReasonCode::Success, outputs);
            return;
        }
        if way == Way::Platform {
            outputs.push(Output::Uplink { token, topic, payload: publish.payload });
            return;
        }
        let expires_at = publish.properties.message_expiry_s.map(|s| now.log.plus_s(u64::from(s)));
        let publication = Publication {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain && !self.manners.no_retain,
            forward: publish.properties.forward,
            origin: Some(self.key.clone()),
            accepted_at: now.log,
            expires_at,
            via: Via::Client,
            trace: 0,
        };
        outputs.push(Output::Publish { token, publication, packet_id: publish.packet_id });
    }

    /// Whether a QoS 1 or 2 publish may take a slot now: an MQTT 5 client with too many is cut, a 3.x client waits.
    fn take_turn(&mut self, qos: QoS, packet_id: u16, outputs: &mut Vec<Output>) -> bool {
        let again = qos == QoS::ExactlyOnce && self.received.binary_search(&packet_id).is_ok();
        if self.version == Version::V5 {
            // [v5 MQTT-3.3.4-9] a resent QoS 2 publish takes no further slot.
            if !again && self.unsettled() >= usize::from(self.limits.receive_maximum) {
                self.fail(ReasonCode::ReceiveMaximumExceeded, None, outputs);
                return false;
            }
            return true;
        }
        !self.ring.full()
    }

    /// Keeps what found no slot for when there is one.
    fn pause(&mut self, now: Now, input: Input) {
        if !self.ended {
            self.paused_since_ms = Some(now.mono_ms);
            self.held.push_front(input);
        }
    }

    fn resolve(
        &mut self,
        topic: Option<&TopicName>,
        alias: Option<u16>,
        outputs: &mut Vec<Output>,
    ) -> Option<TopicName> {
        let Some(alias) = alias else { return topic.cloned() };
        let slot = usize::from(alias) - 1;
        if alias > self.limits.topic_alias_maximum {
            self.fail(ReasonCode::TopicAliasInvalid, Some("topic alias is above the maximum"), outputs);
            return None;
        }
        if let Some(topic) = topic {
            if self.aliases.len() <= slot {
                self.aliases.resize(slot + 1, None);
            }
            self.aliases[slot] = Some(topic.detached());
            return Some(topic.clone());
        }
        let known = self.aliases.get(slot).cloned().flatten();
        if known.is_none() {
            self.fail(ReasonCode::TopicAliasInvalid, Some("topic alias is not known"), outputs);
        }
        known
    }

    /// Whether the dialect takes no publish of this QoS; then the connection ends.
    fn beyond_qos_max(&mut self, qos: QoS, outputs: &mut Vec<Output>) -> bool {
        let beyond = qos > self.manners.qos_max;
        if beyond {
            self.fail(ReasonCode::QoSNotSupported, None, outputs);
        }
        beyond
    }

    fn way(&mut self, topic: &TopicName) -> Result<Way, Refused> {
        if self.allowed_topic.as_ref() == Some(topic) {
            return Ok(Way::Route);
        }
        if topic.level_count() > self.limits.topic_levels_max {
            return Err(Refused::Beyond(ReasonCode::TopicNameInvalid, "topic has too many levels"));
        }
        match self.voice.publishing(topic) {
            Publishing::Route => {
                self.allowed_topic = Some(topic.detached());
                Ok(Way::Route)
            }
            Publishing::Deny => Err(Refused::Denied),
            Publishing::Close => Err(Refused::Closed),
            Publishing::Platform => {
                // What the platform reads may change for whom the client speaks.
                self.allowed_topic = None;
                Ok(Way::Platform)
            }
        }
    }

    /// Says no to a publish: an MQTT 5 client reads why; a 3.x client is acknowledged if the topic is only not allowed
    /// to it [v3.1.1 MQTT-3.3.5-2], and closed if the topic is beyond the bound.
    fn refuse(
        &mut self,
        now: Now,
        token: Option<Token>,
        (reason, detail): (ReasonCode, &'static str),
        outputs: &mut Vec<Output>,
    ) {
        let v5 = self.version == Version::V5;
        match token {
            Some(_) if v5 => self.answer(now, token, reason, outputs),
            _ if reason == ReasonCode::NotAuthorized => self.answer(now, token, ReasonCode::Success, outputs),
            _ => self.fail(reason, Some(detail), outputs),
        }
    }

    fn answer(&mut self, now: Now, token: Option<Token>, reason: ReasonCode, outputs: &mut Vec<Output>) {
        if let Some(token) = token {
            self.accepted(now, token, reason, outputs);
        }
    }

    /// Adds a packet id to the receive set; `false` if it is there already.
    fn receive(&mut self, packet_id: u16) -> bool {
        match self.received.binary_search(&packet_id) {
            Ok(_) => false,
            Err(at) => {
                self.received.insert(at, packet_id);
                true
            }
        }
    }

    pub(super) fn accepted(&mut self, now: Now, token: Token, reason: ReasonCode, outputs: &mut Vec<Output>) {
        self.ring.done(token, reason);
        while let Some((packet_id, qos, reason)) = self.ring.pop() {
            let shown = if self.version == Version::V5 { reason } else { ReasonCode::Success };
            let unsayable = match self.version {
                Version::V5 => matches!(reason, ReasonCode::PacketTooLarge | ReasonCode::SessionTakenOver),
                // A 3.x client cannot be told no: it gets no acknowledgement, and sends again after it reconnects.
                _ => reason.is_error() && reason != ReasonCode::NotAuthorized,
            };
            if unsayable {
                match reason {
                    ReasonCode::SessionTakenOver => self.taken_over(outputs),
                    _ => self.fail(reason, None, outputs),
                }
                return;
            }
            let detail = (reason == ReasonCode::QuotaExceeded).then_some(NO_ROOM);
            let properties = self
                .reason_string(detail)
                .map(|text| Box::new(ReasonProperties { reason_string: Some(text), user: Vec::new() }));
            let ack = Ack { properties, ..Ack::with_reason(packet_id, shown) };
            if qos == QoS::AtLeastOnce {
                outputs.push(Output::Send(Packet::PubAck(ack)));
                continue;
            }
            if shown.is_error() {
                // [v5 MQTT-4.3.3-9] an error ends the exchange: the packet id is free.
                self.forget(packet_id);
            } else {
                self.receive(packet_id);
            }
            outputs.push(Output::Send(Packet::PubRec(ack)));
        }
        self.resume(now, outputs);
    }

    fn forget(&mut self, packet_id: u16) -> bool {
        match self.received.binary_search(&packet_id) {
            Ok(at) => {
                self.received.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn pubrel(&mut self, ack: &Ack, outputs: &mut Vec<Output>) {
        let known = self.forget(ack.packet_id);
        if self.releasing.contains(&ack.packet_id) {
            return; // said again: the answer to the first one is on its way
        }
        if self.persistent && known {
            self.releasing.push(ack.packet_id);
            outputs.push(Output::ReleaseReceived { packet_id: ack.packet_id });
            return;
        }
        let reason = if known || self.version != Version::V5 {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        outputs.push(Output::Send(Packet::PubComp(Ack::with_reason(ack.packet_id, reason))));
    }

    /// A PUBLISH that was larger than the session takes and was read past: said so where MQTT can, dropped otherwise.
    pub(super) fn skipped(&mut self, now: Now, skipped: SkippedPublish, outputs: &mut Vec<Output>) {
        let SkippedPublish { qos, packet_id, .. } = skipped;
        if self.beyond_qos_max(qos, outputs) || qos == QoS::AtMostOnce || self.manners.mute_oversize {
            return;
        }
        if !self.take_turn(qos, packet_id, outputs) {
            self.pause(now, Input::Skipped(skipped));
            return;
        }
        // PUBACK knows no "packet too large" [v5 3.4.2.1]; that a bound was exceeded it can say.
        let reason = if self.version == Version::V5 { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
        let token = self.token();
        self.ring.push(token, packet_id, qos);
        self.accepted(now, token, reason, outputs);
    }
}
