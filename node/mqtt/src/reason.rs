//! Reason codes of MQTT 5 [v5 2.4]: the one vocabulary for "why" in every version.

use crate::packet::QoS;

/// Why something was granted, refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReasonCode {
    /// CONNACK, acks, DISCONNECT (normal disconnection), AUTH; SUBACK: granted QoS 0.
    Success = 0x00,
    /// SUBACK.
    GrantedQoS1 = 0x01,
    /// SUBACK.
    GrantedQoS2 = 0x02,
    /// DISCONNECT from the client.
    DisconnectWithWill = 0x04,
    /// PUBACK, PUBREC.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK.
    NoSubscriptionExisted = 0x11,
    /// AUTH.
    ContinueAuthentication = 0x18,
    /// AUTH from the client.
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The reason of a byte; `None` where the standard defines none.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<ReasonCode> {
        Some(match byte {
            0x00 => ReasonCode::Success,
            0x01 => ReasonCode::GrantedQoS1,
            0x02 => ReasonCode::GrantedQoS2,
            0x04 => ReasonCode::DisconnectWithWill,
            0x10 => ReasonCode::NoMatchingSubscribers,
            0x11 => ReasonCode::NoSubscriptionExisted,
            0x18 => ReasonCode::ContinueAuthentication,
            0x19 => ReasonCode::ReAuthenticate,
            0x80 => ReasonCode::UnspecifiedError,
            0x81 => ReasonCode::MalformedPacket,
            0x82 => ReasonCode::ProtocolError,
            0x83 => ReasonCode::ImplementationSpecificError,
            0x84 => ReasonCode::UnsupportedProtocolVersion,
            0x85 => ReasonCode::ClientIdentifierNotValid,
            0x86 => ReasonCode::BadUserNameOrPassword,
            0x87 => ReasonCode::NotAuthorized,
            0x88 => ReasonCode::ServerUnavailable,
            0x89 => ReasonCode::ServerBusy,
            0x8A => ReasonCode::Banned,
            0x8B => ReasonCode::ServerShuttingDown,
            0x8C => ReasonCode::BadAuthenticationMethod,
            0x8D => ReasonCode::KeepAliveTimeout,
            0x8E => ReasonCode::SessionTakenOver,
            0x8F => ReasonCode::TopicFilterInvalid,
            0x90 => ReasonCode::TopicNameInvalid,
            0x91 => ReasonCode::PacketIdentifierInUse,
            0x92 => ReasonCode::PacketIdentifierNotFound,
            0x93 => ReasonCode::ReceiveMaximumExceeded,
            0x94 => ReasonCode::TopicAliasInvalid,
            0x95 => ReasonCode::PacketTooLarge,
            0x96 => ReasonCode::MessageRateTooHigh,
            0x97 => ReasonCode::QuotaExceeded,
            0x98 => ReasonCode::AdministrativeAction,
            0x99 => ReasonCode::PayloadFormatInvalid,
            0x9A => ReasonCode::RetainNotSupported,
            0x9B => ReasonCode::QoSNotSupported,
            0x9C => ReasonCode::UseAnotherServer,
            0x9D => ReasonCode::ServerMoved,
            0x9E => ReasonCode::SharedSubscriptionsNotSupported,
            0x9F => ReasonCode::ConnectionRateExceeded,
            0xA0 => ReasonCode::MaximumConnectTime,
            0xA1 => ReasonCode::SubscriptionIdentifiersNotSupported,
            0xA2 => ReasonCode::WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Whether this is a failure: 0x80 and above.
    #[must_use]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The code that SUBACK gives for a granted QoS.
    #[must_use]
    pub fn granted(qos: QoS) -> ReasonCode {
        match qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// The CONNACK return code of MQTT 3.x [v3.1.1 3.2.2.3]: 0 to 5.
    #[must_use]
    pub fn connack_v3(self) -> u8 {
        match self {
            ReasonCode::Success => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    /// The reason of a CONNACK return code of MQTT 3.x: 0 to 5, the rest is reserved. The inverse of
    /// [`ReasonCode::connack_v3`] where that has one.
    #[must_use]
    pub fn from_connack_v3(code: u8) -> Option<ReasonCode> {
        Some(match code {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }

    /// The standard's own words, lowercase, as logs and metrics show them.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            ReasonCode::Success => "success",
            ReasonCode::GrantedQoS1 => "granted QoS 1",
            ReasonCode::GrantedQoS2 => "granted QoS 2",
            ReasonCode::DisconnectWithWill => "disconnect with will message",
            ReasonCode::NoMatchingSubscribers => "no matching subscribers",
            ReasonCode::NoSubscriptionExisted => "no subscription existed",
            ReasonCode::ContinueAuthentication => "continue authentication",
            ReasonCode::ReAuthenticate => "re-authenticate",
            ReasonCode::UnspecifiedError => "unspecified error",
            ReasonCode::MalformedPacket => "malformed packet",
            ReasonCode::ProtocolError => "protocol error",
            ReasonCode::ImplementationSpecificError => "implementation specific error",
            ReasonCode::UnsupportedProtocolVersion => "unsupported protocol version",
            ReasonCode::ClientIdentifierNotValid => "client identifier not valid",
            ReasonCode::BadUserNameOrPassword => "bad user name or password",
            ReasonCode::NotAuthorized => "not authorized",
            ReasonCode::ServerUnavailable => "server unavailable",
            ReasonCode::ServerBusy => "server busy",
            ReasonCode::Banned => "banned",
            ReasonCode::ServerShuttingDown => "server shutting down",
            ReasonCode::BadAuthenticationMethod => "bad authentication method",
            ReasonCode::KeepAliveTimeout => "keep alive timeout",
            ReasonCode::SessionTakenOver => "session taken over",
            ReasonCode::TopicFilterInvalid => "topic filter invalid",
            ReasonCode::TopicNameInvalid => "topic name invalid",
            ReasonCode::PacketIdentifierInUse => "packet identifier in use",
            ReasonCode::PacketIdentifierNotFound => "packet identifier not found",
            ReasonCode::ReceiveMaximumExceeded => "receive maximum exceeded",
            ReasonCode::TopicAliasInvalid => "topic alias invalid",
            ReasonCode::PacketTooLarge => "packet too large",
            ReasonCode::MessageRateTooHigh => "message rate too high",
            ReasonCode::QuotaExceeded => "quota exceeded",
            ReasonCode::AdministrativeAction => "administrative action",
            ReasonCode::PayloadFormatInvalid => "payload format invalid",
            ReasonCode::RetainNotSupported => "retain not supported",
            ReasonCode::QoSNotSupported => "QoS not supported",
            ReasonCode::UseAnotherServer => "use another server",
            ReasonCode::ServerMoved => "server moved",
            ReasonCode::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
            ReasonCode::ConnectionRateExceeded => "connection rate exceeded",
            ReasonCode::MaximumConnectTime => "maximum connect time",
            ReasonCode::SubscriptionIdentifiersNotSupported => "subscription identifiers not supported",
            ReasonCode::WildcardSubscriptionsNotSupported => "wildcard subscriptions not supported",
        }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (0x{:02X})", self.text(), self.byte())
    }
}
