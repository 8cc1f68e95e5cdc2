//! What the registry holds: one model under all dialects. Text is in `Box<str>`: there may be a million devices.

use crate::event::Subject;
use crate::{Dialect, Secret};

/// A resource space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub id: Box<str>,
    pub name: Box<str>,
    /// The one that is meant where none is named; made when the cluster begins.
    pub default: bool,
    /// Milliseconds since 1970; so are all times here.
    pub created_ms: u64,
}

/// Devices of one kind. `id` is Huawei's `product_id`, Aliyun's `ProductKey`, Tencent's `ProductId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: Box<str>,
    pub app_id: Box<str>,
    pub name: Box<str>,
    /// Huawei, Aliyun or Tencent.
    pub dialect: Dialect,
    /// `ProductSecret`, by which devices register themselves.
    pub secret: Option<Secret>,
    pub registration: Registration,
    pub device_type: Box<str>,
    pub protocol_type: Box<str>,
    pub data_format: Box<str>,
    pub manufacturer_name: Box<str>,
    pub industry: Box<str>,
    pub description: Box<str>,
    /// The product model as JSON text, in the form of the REST API's `service_capabilities`; checked before it gets here.
    pub model: Box<str>,
    /// Classes of custom topics.
    pub topics: Vec<TopicClass>,
    /// What pre-authentication tells its devices to connect to; `None` for what the platform's settings say.
    pub endpoint: Option<Endpoint>,
    /// Messages to its devices wait until these have subscribed to their topic; else the system's come without.
    pub messages_require_subscribe: bool,
    pub created_ms: u64,
}

/// Whether devices of a product may register themselves with its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    #[default]
    Off,
    /// Devices that are in the registry and were never connected.
    Known,
    /// Any device name: one that is not there is added.
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Box<str>,
    pub port: u16,
}

/// A class of custom topics. `filter` is relative to the device's own space: `$oc/devices/{id}/user/` (Huawei),
/// `/{pk}/{dn}/` (Aliyun), `{pid}/{dn}/` (Tencent).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicClass {
    pub filter: Box<str>,
    pub access: TopicAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicAccess {
    Publish,
    Subscribe,
    Both,
}

/// A device, without what changes when it connects: see [`super::Presence`]. Its `id` is `{product_id}_{node_id}`; only
/// Huawei's may be named otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub id: Box<str>,
    pub product_id: Box<str>,
    pub app_id: Box<str>,
    /// Huawei's `node_id`, Aliyun's `DeviceName`, Tencent's `DeviceName`.
    pub node_id: Box<str>,
    /// For people.
    pub name: Box<str>,
    pub description: Box<str>,
    /// Id of the gateway whose sub-device it is; empty for a device that connects by itself.
    pub gateway_id: Box<str>,
    pub auth: Auth,
    /// It is cut, and may not connect.
    pub frozen: bool,
    pub fw_version: Box<str>,
    pub sw_version: Box<str>,
    pub sdk_version: Box<str>,
    /// JSON text; empty for none.
    pub extension_info: Box<str>,
    pub tags: Vec<(Box<str>, Box<str>)>,
    pub endpoint: Option<Endpoint>,
    /// The application of Sensoro's push service that gets records of what it reports; empty: none.
    pub sensoro_app_id: Box<str>,
    pub created_ms: u64,
}

/// What a device shows to be itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub kind: AuthKind,
    /// Huawei's secret, Aliyun's `DeviceSecret`, Tencent's PSK in base64.
    pub secret: Option<Secret>,
    pub secondary_secret: Option<Secret>,
    /// SHA-1 or SHA-256 of the certificate in DER, lower-case hex.
    pub fingerprint: Option<Box<str>>,
    pub secondary_fingerprint: Option<Box<str>>,
    /// `deviceToken` of Aliyun's `regnwl`.
    pub token: Option<Secret>,
    /// Only over TLS.
    pub secure_access: bool,
    /// Seconds after its creation, or after it has left its gateway, in which it must have connected once, or it is deleted;
    /// 0: no such time.
    pub timeout_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthKind {
    #[default]
    Secret,
    Certificate,
}

/// Someone who may call the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: Box<str>,
    /// Argon2, as a PHC string.
    pub password_hash: Secret,
    pub role: Role,
    pub created_ms: u64,
}

/// What a user may do: each includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also changes products and devices.
    Operator,
    /// Also users, keys and access codes.
    Admin,
}

/// A pair of access key and secret key, by which a user signs requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub ak: Box<str>,
    pub sk: Secret,
    pub user: Box<str>,
    pub created_ms: u64,
}

/// What an application signs in to MQTT or AMQP with; one of each kind, `kind` is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessCode {
    /// `MQTT` or `AMQP`.
    pub kind: Box<str>,
    pub access_key: Box<str>,
    pub access_code: Secret,
    pub created_ms: u64,
}

/// An authority that signs device certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub id: Box<str>,
    pub name: Box<str>,
    /// Whose devices it vouches for; empty for those of every product.
    pub product_id: Box<str>,
    pub certificate_der: Box<[u8]>,
    /// PKCS #8 PEM, if certificates are issued here.
    pub key_pem: Option<Secret>,
    pub created_ms: u64,
}

/// An application of Sensoro's push service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensoroApp {
    /// `AppID`.
    pub id: Box<str>,
    /// `AppSecret`.
    pub secret: Secret,
    /// `AppKey`, 43 characters, for safe mode.
    pub key: Secret,
    /// The most that its records are pushed with: 0 or 1.
    pub qos: u8,
    /// Records are encrypted.
    pub safe_mode: bool,
    /// Where records are also posted to; empty for nowhere.
    pub callback_url: Box<str>,
    pub created_ms: u64,
}

impl Product {
    /// A product that says nothing beyond what it is called: the least that there can be.
    #[must_use]
    pub fn new(id: &str, app_id: &str, dialect: Dialect, created_ms: u64) -> Product {
        Product {
            id: id.into(),
            app_id: app_id.into(),
            name: id.into(),
            dialect,
            secret: None,
            registration: Registration::Off,
            device_type: Box::default(),
            protocol_type: "MQTT".into(),
            data_format: "json".into(),
            manufacturer_name: Box::default(),
            industry: Box::default(),
            description: Box::default(),
            model: "[]".into(),
            topics: Vec::new(),
            endpoint: None,
            messages_require_subscribe: false,
            created_ms,
        }
    }
}

impl Device {
    /// A device that connects by itself, under the id that follows from product and node id, and has nothing to be known
    /// by yet.
    #[must_use]
    pub fn new(product_id: &str, app_id: &str, node_id: &str, created_ms: u64) -> Device {
        Device {
            id: format!("{product_id}_{node_id}").into(),
            product_id: product_id.into(),
            app_id: app_id.into(),
            node_id: node_id.into(),
            name: node_id.into(),
            description: Box::default(),
            gateway_id: Box::default(),
            auth: Auth::default(),
            frozen: false,
            fw_version: Box::default(),
            sw_version: Box::default(),
            sdk_version: Box::default(),
            extension_info: Box::default(),
            tags: Vec::new(),
            endpoint: None,
            sensoro_app_id: Box::default(),
            created_ms,
        }
    }
}

/// What is to be done when something happens; see [`RuleAction`]. It does nothing until it is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A UUID.
    pub id: Box<str>,
    pub name: Box<str>,
    pub description: Box<str>,
    pub subject: Subject,
    /// The resource space whose events it sees; empty: all.
    pub app_id: Box<str>,
    /// Source text of what is kept of an event; empty: all of it.
    pub select: Box<str>,
    /// Source text of which events it wants; empty: all.
    pub filter: Box<str>,
    pub active: bool,
    pub guarantee: Guarantee,
    pub created_ms: u64,
}

/// What a rule promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// It runs where the event came in, and what its queue holds ends with that node.
    #[default]
    Live,
    /// What it makes of an event is in the log before the event is acknowledged, and stays until its sink has taken it: at
    /// least once.
    Durable,
}

/// Where a rule sends what it makes of an event. Its debug form does not show what the sink is to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RuleAction {
    /// A UUID.
    pub id: Box<str>,
    pub rule_id: Box<str>,
    /// That of its rule; empty: none.
    pub app_id: Box<str>,
    pub channel: Channel,
    /// JSON text: `channel_detail` of the REST API, whole, checked before it gets here.
    pub detail: Box<str>,
    pub created_ms: u64,
}

impl std::fmt::Debug for RuleAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RuleAction { id, rule_id, channel, .. } = self;
        let mut shown = f.debug_struct("RuleAction");
        shown.field("id", id).field("rule_id", rule_id).field("channel", channel).finish_non_exhaustive()
    }
}

/// Kinds of sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// To applications that subscribe to a topic of rules.
    MqttForwarding,
    /// To devices that subscribe to a topic.
    MqttDeviceForwarding,
    HttpForwarding,
    KafkaForwarding,
    /// To whoever subscribes, as a publish of the router's own.
    Republish,
}

impl Channel {
    pub const ALL: [Channel; 5] = [
        Channel::MqttForwarding,
        Channel::MqttDeviceForwarding,
        Channel::HttpForwarding,
        Channel::KafkaForwarding,
        Channel::Republish,
    ];

    /// As the REST API names it; its detail is in a member of the same name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::MqttForwarding => "MQTT_FORWARDING",
            Channel::MqttDeviceForwarding => "MQTT_DEVICE_FORWARDING",
            Channel::HttpForwarding => "HTTP_FORWARDING",
            Channel::KafkaForwarding => "DMS_KAFKA_FORWARDING",
            Channel::Republish => "MQTT_REPUBLISHING",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Channel> {
        Channel::ALL.into_iter().find(|channel| channel.as_str() == name)
    }
}
