//! One connected client's side of the protocol: what it may send, in which order it is answered, when it is cut.
//! Owns the ring of acknowledgements, the QoS 2 receive set, topic aliases and the list of subscriptions. Absent here:
//! deliveries (see [`crate::outbound`]), routing, sockets and clocks.

mod publish;
mod ring;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, Disconnect, ReasonProperties, SkippedPublish, SubscriptionOptions,
};
use fulmar_mqtt::{DecodeError, Packet, QoS, ReasonCode, TopicFilter, TopicName, Version};

use crate::key::{LogTime, Now, SessionKey};
use crate::publication::Publication;
use crate::state::command::{Claimed, Subscription, Will};
use ring::Ring;

/// Milliseconds that a 3.x client with a full ring is kept waiting before it is cut.
pub const PAUSE_MS_MAX: u64 = 5_000;

/// What the machine asks about permissions; the answer never changes during a connection.
pub trait Access: Send + Sync {
    fn may_publish(&self, topic: &TopicName) -> bool;
    fn may_subscribe(&self, filter: &TopicFilter) -> bool;
}

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
    /// All that must take the publication have taken it; or it was refused.
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
    /// Write what is queued, then close. The will is discarded or stands; the expiry may have been changed.
    End {
        discard_will: bool,
        expiry_s: Option<u32>,
        reason: ReasonCode,
        taken_over: bool,
    },
}

/// What CONNECT settles, before there is a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// Given by the server where the client named none.
    pub assigned_client_id: Option<ByteString>,
    /// Seconds that the session will outlive its connection, cut to the bound.
    pub expiry_s: u32,
}

/// See the module.
pub struct Session {
    version: Version,
    key: SessionKey,
    access: Arc<dyn Access>,
    limits: Arc<Limits>,
    persistent: bool,
    expiry_s: u32,
    problem_information: bool,
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
    /// The topic that was last found to be allowed.
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

/// Seconds that the session of this CONNECT outlives its connection: 3.x sessions that are not clean have no expiry of
/// their own and get the bound.
#[must_use]
pub fn expiry_s(connect: &Connect, limits: &Limits) -> u32 {
    let wanted = match connect.version {
        Version::V5 => connect.properties.session_expiry_s.unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    wanted.min(limits.session_expiry_s_max)
}

/// Checks CONNECT's will, and makes of it what the replicated state keeps.
///
/// # Errors
/// The reason for CONNACK: no permission for its topic, too deep a topic, too large a payload.
pub fn will(connect: &Connect, access: &dyn Access, limits: &Limits, now: LogTime) -> Result<Option<Will>, ReasonCode> {
    let Some(will) = &connect.will else { return Ok(None) };
    if will.topic.level_count() > limits.topic_levels_max {
        return Err(ReasonCode::TopicNameInvalid);
    }
    if will.payload.len() > limits.will_bytes_max {
        return Err(ReasonCode::PacketTooLarge);
    }
    if !access.may_publish(&will.topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    let publication = Publication {
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain,
        forward: will.properties.forward.clone(),
        origin: None,
        accepted_at: now,
        expires_at: None,
        via: crate::publication::Via::Will,
    };
    Ok(Some(Will {
        publication: Arc::new(publication.detached()),
        message_expiry_s: will.properties.message_expiry_s,
        delay_s: will.delay_s,
    }))
}

/// What a session is made from.
pub struct Start<'a> {
    pub connect: &'a Connect,
    pub key: SessionKey,
    pub access: Arc<dyn Access>,
    pub limits: Arc<Limits>,
    pub claimed: &'a Claimed,
    pub opening: &'a Opening,
}

impl std::fmt::Debug for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Session {
    /// A session whose claim is granted, and the CONNACK that says so.
    #[must_use]
    pub fn start(start: Start<'_>, now: Now) -> (Session, Packet) {
        let Start { connect, key, access, limits, claimed, opening } = start;
        let v5 = connect.version == Version::V5;
        let keep_alive_s = match limits.keep_alive_s_max {
            max if v5 && max > 0 && (connect.keep_alive_s == 0 || connect.keep_alive_s > max) => max,
            _ => connect.keep_alive_s,
        };
        let mut properties = ConnAckProperties::default();
        if v5 {
            let wanted_expiry_s = connect.properties.session_expiry_s.unwrap_or(0);
            properties.session_expiry_s = (wanted_expiry_s != opening.expiry_s).then_some(opening.expiry_s);
            properties.receive_maximum = Some(limits.receive_maximum);
            properties.maximum_packet_size = Some(limits.packet_bytes_max);
            properties.topic_alias_maximum = (limits.topic_alias_maximum > 0).then_some(limits.topic_alias_maximum);
            properties.assigned_client_id.clone_from(&opening.assigned_client_id);
            // [v5 MQTT-3.1.2-21] the client must use the server's value.
            properties.server_keep_alive_s = (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s);
        }
        let connack = Packet::ConnAck(Box::new(ConnAck {
            session_present: claimed.session_present,
            reason: ReasonCode::Success,
            properties,
        }));
        let session = Session {
            version: connect.version,
            key,
            access,
            persistent: opening.expiry_s > 0,
            expiry_s: opening.expiry_s,
            problem_information: connect.properties.request_problem_information.unwrap_or(true),
            // [v5 MQTT-3.1.2-22] one and a half times the keep alive.
            keep_alive_ms: u64::from(keep_alive_s) * 1500,
            last_packet_ms: now.mono_ms,
            ended: false,
            paused_since_ms: None,
            held: VecDeque::new(),
            ring: Ring::new(limits.receive_maximum),
            received: claimed.received.clone(),
            releasing: Vec::new(),
            aliases: Vec::new(),
            allowed_topic: None,
            subscriptions: claimed.subscriptions.iter().map(|s| (s.filter.clone(), (s.options, s.id))).collect(),
            pending: BTreeMap::new(),
            next_token: 0,
            limits,
        };
        (session, connack)
    }

    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
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

    /// The filters that the session holds.
    pub fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.subscriptions.keys()
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
                self.disconnect(ReasonCode::SessionTakenOver, None, outputs);
                self.end(false, None, ReasonCode::SessionTakenOver, outputs);
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

    fn client_disconnects(&mut self, disconnect: &Disconnect, outputs: &mut Vec<Output>) {
        if let Some(wanted) = disconnect.session_expiry_s {
            // [v5 3.14.2.2.2] an expiry of zero cannot be raised any more.
            if self.expiry_s == 0 && wanted > 0 {
                self.fail(ReasonCode::ProtocolError, Some("session expiry was 0 in CONNECT"), outputs);
                return;
            }
        }
        let expiry_s = disconnect.session_expiry_s.map(|wanted| wanted.min(self.limits.session_expiry_s_max));
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
                server_reference: None,
                properties,
            }))));
        }
    }

    /// A reason string, where the client wants to read any [v5 MQTT-3.1.2-29].
    fn reason_string(&self, detail: Option<&'static str>) -> Option<ByteString> {
        detail.filter(|_| self.problem_information).map(ByteString::from_static)
    }

    fn end(&mut self, discard_will: bool, expiry_s: Option<u32>, reason: ReasonCode, outputs: &mut Vec<Output>) {
        self.ended = true;
        self.held.clear();
        let taken_over = reason == ReasonCode::SessionTakenOver;
        outputs.push(Output::End { discard_will, expiry_s, reason, taken_over });
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
