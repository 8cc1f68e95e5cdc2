//! Dialects: the rules by which a client speaks and authenticates. Each is a set of pure functions behind [`Voice`].

pub mod aliyun;
pub mod application;
pub mod call;
mod certificate;
pub(crate) mod classes;
pub mod crypto;
#[cfg(test)]
pub(crate) mod fixture;
pub mod huawei;
#[cfg(test)]
mod matrix;
pub mod sensoro;
pub mod shadow;
#[cfg(test)]
mod shadow_tests;
pub(crate) mod spaces;
pub mod tencent;
pub mod time;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::packet::OversizePolicy;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};

use crate::registry::{Change, Device, Registry, Rejection};
use crate::{Admission, ConnectRequest, Manners, Refusal, TENANT};

/// The rules by which a client speaks and authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Plain MQTT: users, passwords and an access list from the configuration.
    Generic,
    Huawei,
    Aliyun,
    Tencent,
    Sensoro,
    /// Applications that take what rules push.
    Application,
}

impl Dialect {
    pub const ALL: [Dialect; 6] =
        [Dialect::Generic, Dialect::Huawei, Dialect::Aliyun, Dialect::Tencent, Dialect::Sensoro, Dialect::Application];

    /// As session keys, logs, metrics and the configuration name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Generic => "generic",
            Dialect::Huawei => "huawei",
            Dialect::Aliyun => "aliyun",
            Dialect::Tencent => "tencent",
            Dialect::Sensoro => "sensoro",
            Dialect::Application => "application",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.as_str() == name)
    }

    /// Bytes of a packet that a device of this dialect takes, if the dialect says.
    #[must_use]
    pub fn packet_bytes_max(self) -> Option<u32> {
        match self {
            Dialect::Huawei => Some(huawei::PACKET_BYTES_MAX),
            Dialect::Aliyun => Some(aliyun::PACKET_BYTES_MAX),
            Dialect::Tencent => Some(tencent::PACKET_BYTES_MAX),
            Dialect::Generic | Dialect::Sensoro | Dialect::Application => None,
        }
    }

    /// Whether its clients are devices of the registry, so that their sessions say who is online.
    #[must_use]
    pub fn has_devices(self) -> bool {
        matches!(self, Dialect::Huawei | Dialect::Aliyun | Dialect::Tencent)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(crate) const SUB_DEVICE: Refusal =
    Refusal { reason: ReasonCode::NotAuthorized, detail: "a sub-device does not connect by itself" };

/// What is asked of a device that has proven to be itself.
///
/// # Errors
/// It is frozen, or came without TLS although it may not.
pub(crate) fn may_connect(device: &Device, request: &ConnectRequest<'_>) -> Result<(), Refusal> {
    let detail = match device {
        device if device.frozen => "the device is frozen",
        device if device.auth.secure_access && !request.encrypted => "the device may connect over TLS only",
        _ => return Ok(()),
    };
    Err(Refusal { reason: ReasonCode::NotAuthorized, detail })
}

impl Admission {
    /// A device that is let in. An oversized PUBLISH of it is read past.
    pub(crate) fn of_device(
        dialect: Dialect,
        device: &Device,
        voice: Arc<dyn Voice>,
        manners: Manners,
        packet_bytes_max: u32,
    ) -> Admission {
        Admission {
            tenant: ByteString::from_static(TENANT),
            dialect,
            identity: ByteString::from(&*device.id),
            voice,
            manners,
            oversize: Some((packet_bytes_max, OversizePolicy::Skip)),
            exclusive_client_id: None,
            changes: Vec::new(),
            greeting: Vec::new(),
        }
    }
}

/// What becomes of a publish from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It is routed, as any MQTT publish.
    Route,
    /// It ends in the platform: see [`Voice::uplink`]. Nobody else gets it.
    Platform,
    /// It is dropped and acknowledged (in MQTT 5 as not authorized), logged and counted.
    Deny,
    /// As [`Publishing::Deny`], and the connection ends without an acknowledgement.
    Close,
}

/// What becomes of a filter in SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribing {
    /// Granted, with at most this QoS.
    Grant(QoS),
    /// SUBACK 0x80 or 0x87; in MQTT 3.1, which has no failure code, granted with QoS 0 and never delivered.
    Deny,
}

/// A publish that ended in the platform.
#[derive(Debug, Clone, Copy)]
pub struct Uplink<'a> {
    pub topic: &'a TopicName,
    pub payload: &'a Bytes,
    pub registry: &'a Registry,
    /// Milliseconds since 1970 when it came.
    pub now_ms: u64,
    /// Random, for ids.
    pub entropy: [u8; 16],
}

/// Something that the platform sends to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Downlink {
    pub topic: TopicName,
    pub payload: Bytes,
    /// The most that it is sent with; a subscription of the client's may lower it.
    pub qos: QoS,
}

/// What the platform makes of an uplink.
#[derive(Debug, Default)]
pub struct Answers {
    /// To this client, in order.
    pub downlinks: Vec<Downlink>,
    /// What it has told, for rules and shadows.
    pub reports: Vec<Report>,
    /// Committed in the registry; nobody waits for it.
    pub changes: Vec<Change>,
    /// Committed in the registry, and answered by what they come to.
    pub asked: Vec<Asked>,
    /// The shadow is changed by what was asked: the reports are not put into it once more.
    pub shadowed: bool,
    /// Why it could not be read, for the log.
    pub problem: Option<&'static str>,
}

/// Changes of the registry that a device has asked for, and how it is answered.
pub struct Asked {
    pub changes: Vec<Change>,
    reply: Box<Replying>,
}

/// Makes the answer, of what became of each change.
type Replying = dyn FnOnce(&[Result<(), Rejection>]) -> Vec<Downlink> + Send;

impl Asked {
    /// The answer, once each change has come to something, in their order.
    #[must_use]
    pub fn reply(self, outcomes: &[Result<(), Rejection>]) -> Vec<Downlink> {
        (self.reply)(outcomes)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Answers {
    /// Has changes committed, and answers then; at once where there are none.
    pub(crate) fn ask(
        &mut self,
        changes: Vec<Change>,
        reply: impl FnOnce(&[Result<(), Rejection>]) -> Vec<Downlink> + Send + 'static,
    ) {
        if changes.is_empty() {
            self.downlinks.extend(reply(&[]));
        } else {
            self.asked.push(Asked { changes, reply: Box::new(reply) });
        }
    }
}

/// What a device has told, whatever its dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whose it is: the client's own device, or a sub-device of it.
    pub device: Box<str>,
    /// The device's own id for it, or a new one.
    pub request_id: Box<str>,
    pub what: Told,
}

/// The kinds of reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// As Huawei's `services`: `[{"service_id", "properties", "event_time"?}]`. A dialect without services names its one
    /// service `default`.
    Properties(serde_json::Value),
    /// As `{"service_id", "event_type", "event_time"?, "paras"}`.
    Event(serde_json::Value),
    /// A message as it came, with the topic that it came on.
    Message { topic: TopicName, payload: Bytes },
    /// The answer to a command or a property set or get: `request_id` of the report is that of the request.
    Response(Bytes),
    /// Versions of its software, empty where not told.
    Version { firmware: Box<str>, software: Box<str>, sdk: Box<str> },
    /// The progress of an upgrade, as it came.
    Upgrade(Bytes),
}

/// A random UUID (version 4) in its usual form.
pub(crate) fn uuid(mut entropy: [u8; 16]) -> String {
    entropy[6] = entropy[6] & 0x0F | 0x40;
    entropy[8] = entropy[8] & 0x3F | 0x80;
    let hex = hex::encode(entropy);
    let parts = [hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)];
    parts.map(Option::unwrap_or_default).join("-")
}

/// The answer to a request over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAnswer {
    /// JSON, compact.
    pub body: String,
    /// Whether it was given what it asked for.
    pub granted: bool,
    /// To be committed before it is sent.
    pub changes: Vec<Change>,
}

/// A client that was let in, as its dialect knows it. Lives as long as the connection.
pub trait Voice: fmt::Debug + Send + Sync {
    fn publishing(&self, topic: &TopicName) -> Publishing;

    /// `filter` is whole, with its `$share/{name}/` if it has one.
    fn subscribing(&self, filter: &TopicFilter) -> Subscribing;

    /// The filter under which the router knows one that was granted; `None`: itself. With [`Manners::topic_prefix`] it
    /// keeps topics apart that clients need not tell apart.
    fn routed(&self, filter: &TopicFilter) -> Option<TopicFilter> {
        let _ = filter;
        None
    }

    /// The voice as of a later registry, asked for before each SUBSCRIBE; `None`: it does not change.
    fn renewed(&self, registry: &Registry) -> Option<Arc<dyn Voice>> {
        let _ = registry;
        None
    }

    /// Whether it has begun to speak for devices beside its own. Then [`Voice::stands`] is asked of what it publishes.
    fn speaks_for_others(&self) -> bool {
        false
    }

    /// Whether a publish to this topic, which was found to be routed, still is by what has become of its device.
    fn stands(&self, topic: &TopicName, registry: &Registry) -> bool {
        let _ = (topic, registry);
        true
    }

    /// With which QoS the platform's own messages on this topic go to the client if it has not subscribed to it; `None`:
    /// then they do not.
    fn implicit(&self, topic: &TopicName) -> Option<QoS> {
        let _ = topic;
        None
    }

    /// Reads a publish that [`Voice::publishing`] sent to the platform, and answers it.
    fn uplink(&self, uplink: &Uplink<'_>) -> Answers {
        let _ = uplink;
        Answers::default()
    }
}
