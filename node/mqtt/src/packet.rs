//! One set of packets for MQTT 3.1, 3.1.1 and 5. A codec turns bytes into these and back; what a version cannot
//! express is absent (`None`, empty) after decoding and left out when encoding. Payloads, topics and strings are
//! slices of the buffer they were read from: whoever keeps one for long copies it first.

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use crate::property::PublishProperties;
use crate::reason::ReasonCode;
use crate::topic::{TopicFilter, TopicName};

/// A protocol version, as CONNECT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5: protocol name `MQTT`, level 5.
    V5,
}

/// Quality of service: 0 at most once, 1 at least once, 2 exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

/// A user property: name and value, both UTF-8, repeats allowed, order kept.
pub type UserProperty = (ByteString, ByteString);

/// Any control packet of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Box<Subscribe>),
    SubAck(Box<SubAck>),
    Unsubscribe(Box<Unsubscribe>),
    UnsubAck(Box<UnsubAck>),
    PingReq,
    PingResp,
    Disconnect(Box<Disconnect>),
    Auth(Box<Auth>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    /// MQTT 3.x clean session, MQTT 5 clean start.
    pub clean_start: bool,
    /// Seconds; 0 turns keep alive off.
    pub keep_alive_s: u16,
    /// May be empty: the server then assigns one (v5, or v3.1.1 with a clean session).
    pub client_id: ByteString,
    pub will: Option<Will>,
    pub username: Option<ByteString>,
    /// Any bytes, 0 to 65,535 of them.
    pub password: Option<Bytes>,
    /// MQTT 5 only; the defaults of the standard otherwise.
    pub properties: ConnectProperties,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Seconds; absent means 0, `u32::MAX` never expires.
    pub session_expiry_s: Option<u32>,
    /// 1..=65,535; absent means 65,535.
    pub receive_maximum: Option<u16>,
    /// Bytes of a whole packet, > 0; absent means no limit.
    pub maximum_packet_size: Option<u32>,
    /// Highest alias that the client accepts from us; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    pub request_response_information: Option<bool>,
    /// Absent means true.
    pub request_problem_information: Option<bool>,
    pub user: Vec<UserProperty>,
    pub authentication_method: Option<ByteString>,
    pub authentication_data: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: TopicName,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    /// MQTT 5: seconds between the end of the connection and the will; 0 if absent.
    pub delay_s: u32,
    /// Message expiry and what is forwarded with the will; never an alias or a subscription identifier.
    pub properties: PublishProperties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    pub session_present: bool,
    /// Encoded for 3.x through [`ReasonCode::connack_v3`].
    pub reason: ReasonCode,
    pub properties: ConnAckProperties,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAckProperties {
    pub session_expiry_s: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_id: Option<ByteString>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<ByteString>,
    pub user: Vec<UserProperty>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive_s: Option<u16>,
    pub response_information: Option<ByteString>,
    pub server_reference: Option<ByteString>,
    pub authentication_method: Option<ByteString>,
    pub authentication_data: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// `None` only in MQTT 5 with a topic alias.
    pub topic: Option<TopicName>,
    /// 1..=65,535 when `qos` > 0, else 0.
    pub packet_id: u16,
    pub properties: PublishProperties,
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// 1..=65,535.
    pub packet_id: u16,
    /// Always [`ReasonCode::Success`] in 3.x.
    pub reason: ReasonCode,
    /// MQTT 5: reason string and user properties, if any.
    pub properties: Option<Box<ReasonProperties>>,
}

/// What acks, UNSUBACK and SUBACK may carry besides codes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReasonProperties {
    pub reason_string: Option<ByteString>,
    pub user: Vec<UserProperty>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
    /// MQTT 5: 1..=268,435,455.
    pub subscription_id: Option<u32>,
    pub user: Vec<UserProperty>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    pub filter: TopicFilter,
    pub options: SubscriptionOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent at a subscribe [v5 3.8.3.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    Always = 0,
    IfNew = 1,
    Never = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    pub packet_id: u16,
    /// One per filter: granted QoS as 0, 1, 2 or a failure. In 3.1.1 every failure is written 0x80, in 3.1 as QoS 0.
    pub reasons: Vec<ReasonCode>,
    pub properties: ReasonProperties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<TopicFilter>,
    pub user: Vec<UserProperty>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    pub packet_id: u16,
    /// One per filter; not written in 3.x.
    pub reasons: Vec<ReasonCode>,
    pub properties: ReasonProperties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// [`ReasonCode::Success`] is the normal disconnection; 3.x knows no other.
    pub reason: ReasonCode,
    pub session_expiry_s: Option<u32>,
    pub server_reference: Option<ByteString>,
    pub properties: ReasonProperties,
}

/// MQTT 5 AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub reason: ReasonCode,
    pub method: Option<ByteString>,
    pub data: Option<Bytes>,
    pub properties: ReasonProperties,
}

/// What the decoder hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Packet(Packet),
    /// A PUBLISH beyond the session's size under [`OversizePolicy::Skip`]: read past, never buffered.
    Skipped(SkippedPublish),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedPublish {
    pub qos: QoS,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// Bytes of the whole packet.
    pub size: u32,
}

/// What happens to a PUBLISH that is larger than the session allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OversizePolicy {
    /// The connection ends, with 0x95 on MQTT 5.
    #[default]
    Close,
    /// It is read past without being buffered and reported as [`Decoded::Skipped`].
    Skip,
}

/// Subscription identifiers of one PUBLISH.
pub type SubscriptionIds = SmallVec<[u32; 2]>;

impl QoS {
    /// The QoS of a two-bit field; `None` for the reserved value 3.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

impl Ack {
    /// An acknowledgement that says success.
    #[must_use]
    pub fn success(packet_id: u16) -> Ack {
        Ack { packet_id, reason: ReasonCode::Success, properties: None }
    }

    /// An acknowledgement with a reason and nothing else.
    #[must_use]
    pub fn with_reason(packet_id: u16, reason: ReasonCode) -> Ack {
        Ack { packet_id, reason, properties: None }
    }
}
