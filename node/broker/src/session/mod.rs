//! One connected client's side of the protocol: what it may send, in which order it is answered, when it is cut.
//! Owns the ring of acknowledgements, the QoS 2 receive set, topic aliases and the list of subscriptions. Absent here:
//! deliveries (see [`crate::outbound`]), routing, sockets and clocks.

mod publish;
mod ring;
mod start;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::packet::{Ack, Auth, Disconnect, ReasonProperties, SkippedPublish, SubscriptionOptions};
use fulmar_mqtt::{DecodeError, Packet, QoS, ReasonCode, TopicFilter, TopicName, Version};
use fulmar_platform::{Manners, Voice};

use crate::key::{Now, SessionKey};
use crate::publication::Publication;
use crate::state::command::Subscription;
use ring::Ring;
pub use start::{Opening, Start, expiry_s, revoke, will};

/// Milliseconds that a 3.x client with a full ring is kept waiting before it is cut.
pub const PAUSE_MS_MAX: u64 = 5_000;

/// Bounds of a session, from the node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Unsettled QoS 1 and 2 publishes accepted; 1..=65,535.
    pub receive_maximum: u16,
    /// Topic aliases accepted from an MQTT 5 client.
    pub topic_alias_maximum: u16,
    pub topic_levels_max: usize,
    pub subscriptions_max: usize,
    /// Seconds; longer session expiries are cut to this and the client is told.
    pub session_expiry_s_max: u32,
    /// Seconds; 0 leaves the client its choice. An MQTT 5 client is told, any other is held to its own.
    pub keep_alive_s_max: u16,
    /// Bytes of a whole packet accepted from this client.
    pub packet_bytes_max: u32,
    /// Bytes of a will's payload.
    pub will_bytes_max: usize,
    /// Where an MQTT 5 client is sent that is to use another server.
    pub server_reference: Option<ByteString>,
}

/// Names an answer that the machine waits for.
pub type Token = u64;

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Packet(Packet),
    /// A PUBLISH that was too large and read past.
    Skipped(SkippedPublish),
    /// The bytes that came were no MQTT.
    Malformed(DecodeError),
    /// All that must take the publication have taken it, or the platform has read it; or it was refused.
    Accepted {
        token: Token,
        reason: ReasonCode,
    },
    /// Routes stand; per filter, whether the subscription existed before.
    Subscribed {
        token: Token,
        existed: Vec<bool>,
    },
    /// Per filter, whether there was one.
    Unsubscribed {
        token: Token,
        existed: Vec<bool>,
    },
    /// The PUBREL of a persistent session is committed.
    Released {
        packet_id: u16,
    },
    /// A newer connection has claimed the session.
    TakenOver,
    /// The node closes the connection for this reason.
    Close(ReasonCode),
    /// The transport has ended.
    Disconnected,
    /// [`Session::deadline`] has come.
    Tick,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Send(Packet),
    /// Route it; answer with `Accepted` where there is a token.
    Publish {
        token: Option<Token>,
        publication: Publication,
        packet_id: u16,
    },
    /// Have the platform read and answer it; then answer with `Accepted` where there is a token.
    Uplink {
        token: Option<Token>,
        topic: TopicName,
        payload: Bytes,
    },
    /// The client asked for what it may not do; it is answered by itself.
    Denied(Denial),
    /// `existed` is what the machine itself knows, for sessions that nobody else remembers.
    Subscribe {
        token: Token,
        subscriptions: Vec<Subscription>,
        existed: Vec<bool>,
    },
    Unsubscribe {
        token: Token,
        filters: Vec<TopicFilter>,
        existed: Vec<bool>,
    },
    /// Send retained messages that match, once the SUBACK before this is queued.
    Replay(Subscription),
    /// Commit that the packet id of a QoS 2 publish is free again; answer with `Released`.
    ReleaseReceived {
        packet_id: u16,
    },
    /// Write what is queued, then close. The will is discarded or stands; the expiry may have been changed. Unless it is
    /// taken over, the session is released in the log.
    End {
        discard_will: bool,
        expiry_s: Option<u32>,
        reason: ReasonCode,
        taken_over: bool,
    },
}

/// What a client may not do.
#[derive(Debug, Clone, PartialEq)]
pub enum Denial {
    Publish(TopicName),
    Subscribe(TopicFilter),
    /// Subscribed with less than was asked for.
    Lowered {
        filter: TopicFilter,
        asked: QoS,
        granted: QoS,
    },
}

/// See the module.
pub struct Session {
    version: Version,
    key: SessionKey,
    voice: Arc<dyn Voice>,
    manners: Manners,
    limits: Arc<Limits>,
    persistent: bool,
    expiry_s: u32,
    problem_information: bool,
    /// The largest packet that the client takes.
    packet_bytes_max: u32,
    keep_alive_ms: u64,
    last_packet_ms: u64,
    ended: bool,
    /// Since when a 3.x client waits for its full ring, and what it sent meanwhile.
    paused_since_ms: Option<u64>,
    held: VecDeque<Input>,
    ring: Ring,
    /// Packet ids of QoS 2 publishes whose PUBREL has not come; sorted.
    received: Vec<u16>,
    /// Those whose PUBREL is being committed.
    releasing: Vec<u16>,
    aliases: Vec<Option<TopicName>>,
    /// The topic that was last found to be routed.
    allowed_topic: Option<TopicName>,
    subscriptions: BTreeMap<TopicFilter, (SubscriptionOptions, Option<u32>)>,
    pending: BTreeMap<Token, subscribe::Pending>,
    next_token: Token,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("key", &self.key).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Session {
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// How the client speaks.
    #[must_use]
    pub fn voice(&self) -> &Arc<dyn Voice> {
        &self.voice
    }

    /// Takes another voice, as of a later registry.
    pub fn speak(&mut self, voice: Arc<dyn Voice>) {
        self.voice = voice;
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the session outlives its connection.
    #[must_use]
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// Whether the connection is to be closed: what still comes is ignored.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether no more should be read: the ring of a 3.x client is full.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused_since_ms.is_some()
    }

    /// Milliseconds of the monotonic clock at which [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.ended {
            return None;
        }
        match self.paused_since_ms {
            // A paused client cannot be heard, so its keep alive does not run.
            Some(since) => Some(since + PAUSE_MS_MAX),
            None => (self.keep_alive_ms > 0).then(|| self.last_packet_ms + self.keep_alive_ms),
        }
    }

    /// The subscriptions that the session holds, by filter.
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscription> {
        self.subscriptions.iter().map(|(filter, (options, id))| Subscription {
            filter: filter.clone(),
            options: *options,
            id: *id,
        })
    }

    /// The filters that the session holds.
    pub fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.subscriptions.keys()
    }

    /// The QoS that a message on this topic is sent with at most, if the session has subscribed to it by itself and not
    /// as a member of a group.
    #[must_use]
    pub fn granted(&self, topic: &TopicName) -> Option<QoS> {
        let own = self.subscriptions.iter().filter(|(filter, _)| filter.shared().is_none() && filter.matches(topic));
        own.map(|(_, (options, _))| options.qos).max()
    }

    /// Notes that packets have come; acknowledgements, which go to the way out, count too.
    pub fn heard(&mut self, now: Now) {
        self.last_packet_ms = now.mono_ms;
    }

    /// Nothing could be heard of the client, nor taken from it, until now: its keep alive and its pause begin anew.
    pub fn thawed(&mut self, now: Now) {
        self.last_packet_ms = now.mono_ms;
        if let Some(since) = &mut self.paused_since_ms {
            *since = now.mono_ms;
        }
    }

    /// Whether the next QoS 1 or 2 publish would find no slot.
    #[must_use]
    pub fn crowded(&self) -> bool {
        self.ring.full() || self.unsettled() >= usize::from(self.limits.receive_maximum)
    }

    /// Takes one input and leaves what must be done, in order.
    pub fn handle(&mut self, now: Now, input: Input, outputs: &mut Vec<Output>) {
        if self.ended {
            return;
        }
        match input {
            Input::Packet(_) | Input::Skipped(_) => {
                self.last_packet_ms = now.mono_ms;
                self.arrives(now, input, outputs);
            }
            Input::Malformed(error) => self.fail(error.reason, Some(error.detail), outputs),
            Input::Accepted { token, reason } => self.accepted(now, token, reason, outputs),
            Input::Subscribed { token, existed } => self.subscribed(token, &existed, outputs),
            Input::Unsubscribed { token, existed } => self.unsubscribed(token, &existed, outputs),
            Input::Released { packet_id } => {
                self.releasing.retain(|releasing| *releasing != packet_id);
                outputs.push(Output::Send(Packet::PubComp(Ack::success(packet_id))));
            }
            // [v5 MQTT-3.1.4-3] the older connection goes. In 3.x it is just closed [v3.1.1 MQTT-3.1.4-2].
            Input::TakenOver => {
                self.taken_over(outputs);
            }
            Input::Close(reason) => self.fail(reason, None, outputs),
            Input::Disconnected => self.end(false, None, ReasonCode::UnspecifiedError, outputs),
            Input::Tick => self.tick(now, outputs),
        }
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.deadline().is_none_or(|deadline| now.mono_ms < deadline) {
            return;
        }
        if self.paused() {
            self.fail(ReasonCode::QuotaExceeded, Some("publishes were not accepted in time"), outputs);
        } else {
            self.fail(ReasonCode::KeepAliveTimeout, None, outputs);
        }
    }

    /// Something from the client, in its turn: what is held keeps its order, and nothing but a ping may pass it.
    fn arrives(&mut self, now: Now, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Packet(Packet::PingReq) => outputs.push(Output::Send(Packet::PingResp)),
            _ if self.paused() => self.held.push_back(input),
            Input::Packet(packet) => self.packet(now, packet, outputs),
            Input::Skipped(skipped) => self.skipped(now, skipped, outputs),
            _ => {}
        }
    }

    fn packet(&mut self, now: Now, packet: Packet, outputs: &mut Vec<Output>) {
        let filters = match &packet {
            Packet::Subscribe(subscribe) => subscribe.filters.len(),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.len(),
            _ => 0,
        };
        if !self.takes_reasons(filters) {
            self.fail(ReasonCode::PacketTooLarge, Some("its answer is larger than the client takes"), outputs);
            return;
        }
        match packet {
            Packet::Publish(publish) => self.publish(now, publish, outputs),
            Packet::PubRel(ack) => self.pubrel(&ack, outputs),
            Packet::Subscribe(subscribe) => self.subscribe(*subscribe, outputs),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(*unsubscribe, outputs),
            Packet::Disconnect(disconnect) => self.client_disconnects(&disconnect, outputs),
            Packet::Auth(auth) => self.auth(&auth, outputs),
            // Acknowledgements go to the way out; the codec lets nothing else of a server's through.
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => {}
            _ => self.fail(ReasonCode::ProtocolError, Some("unexpected packet"), outputs),
        }
    }

    /// Whether a SUBACK or UNSUBACK with so many reasons, and no properties, is one that the client takes
    /// [v5 MQTT-3.1.2-24].
    fn takes_reasons(&self, reasons: usize) -> bool {
        let remaining = 3 + reasons;
        let header = match remaining {
            0..=0x7F => 2,
            0x80..=0x3FFF => 3,
            _ => 4,
        };
        reasons == 0 || header + remaining <= self.packet_bytes_max as usize
    }

    fn client_disconnects(&mut self, disconnect: &Disconnect, outputs: &mut Vec<Output>) {
        if let Some(wanted) = disconnect.session_expiry_s {
            // [v5 3.14.2.2.2] an expiry of zero cannot be raised any more.
            if self.expiry_s == 0 && wanted > 0 && !self.manners.clean {
                self.fail(ReasonCode::ProtocolError, Some("session expiry was 0 in CONNECT"), outputs);
                return;
            }
        }
        let expiry_s = disconnect.session_expiry_s.filter(|_| !self.manners.clean);
        let expiry_s = expiry_s.map(|wanted| wanted.min(self.limits.session_expiry_s_max));
        // [v5 MQTT-3.1.2-10] only a normal disconnection discards the will.
        let discard_will = disconnect.reason == ReasonCode::Success;
        self.end(discard_will, expiry_s, disconnect.reason, outputs);
    }

    fn auth(&mut self, _auth: &Auth, outputs: &mut Vec<Output>) {
        // [v5 MQTT-4.12.1-1] re-authentication is only for connections that began with a method, and none does.
        self.fail(ReasonCode::ProtocolError, Some("AUTH without an authentication method"), outputs);
    }

    /// Ends the connection for something that is not the client's wish: told on MQTT 5, a plain close in 3.x.
    fn fail(&mut self, reason: ReasonCode, detail: Option<&'static str>, outputs: &mut Vec<Output>) {
        self.disconnect(reason, detail, outputs);
        self.end(false, None, reason, outputs);
    }

    fn disconnect(&mut self, reason: ReasonCode, detail: Option<&'static str>, outputs: &mut Vec<Output>) {
        if self.version == Version::V5 {
            let properties = ReasonProperties { reason_string: self.reason_string(detail), user: Vec::new() };
            outputs.push(Output::Send(Packet::Disconnect(Box::new(Disconnect {
                reason,
                session_expiry_s: None,
                server_reference: self
                    .limits
                    .server_reference
                    .clone()
                    .filter(|_| reason == ReasonCode::UseAnotherServer),
                properties,
            }))));
        }
    }

    /// A reason string, where the client wants to read any [v5 MQTT-3.1.2-29].
    fn reason_string(&self, detail: Option<&'static str>) -> Option<ByteString> {
        detail.filter(|_| self.problem_information).map(ByteString::from_static)
    }

    /// Ends the connection of a session that is another's by now: nothing is released.
    fn taken_over(&mut self, outputs: &mut Vec<Output>) {
        let reason = ReasonCode::SessionTakenOver;
        self.disconnect(reason, None, outputs);
        self.ended = true;
        self.held.clear();
        outputs.push(Output::End { discard_will: false, expiry_s: None, reason, taken_over: true });
    }

    fn end(&mut self, discard_will: bool, expiry_s: Option<u32>, reason: ReasonCode, outputs: &mut Vec<Output>) {
        self.ended = true;
        self.held.clear();
        outputs.push(Output::End { discard_will, expiry_s, reason, taken_over: false });
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Publishes of QoS 2 that the client has not yet released, and all that it awaits an answer for.
    fn unsettled(&self) -> usize {
        self.ring.len() + self.received.len()
    }

    /// Goes on with what was held, as far as the ring allows.
    fn resume(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.paused_since_ms.is_none() || self.ring.full() {
            return;
        }
        self.paused_since_ms = None;
        self.last_packet_ms = now.mono_ms;
        while let Some(input) = self.held.pop_front() {
            if self.ended {
                break;
            }
            self.arrives(now, input, outputs);
            // Pausing again put the packet that did not fit at the front.
            if self.paused() {
                break;
            }
        }
    }
}

/// Whether the broker grants QoS 2 publishes of this QoS the durable path.
#[must_use]
pub fn is_durable(publish: QoS, granted: QoS) -> bool {
    publish.min(granted) >= QoS::AtLeastOnce
}
