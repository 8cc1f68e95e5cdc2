//! A registry with products and devices of made-up credentials, and clients, for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::packet::{Connect, ConnectProperties, Version};
use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::{Answers, Publishing, Subscribing, Uplink};
use crate::event::Subject;
use crate::registry::{
    AccessCode, App, Auth, AuthKind, Authority, Change, Channel, Device, Expect, Guarantee, Product, Record, Registry,
    Rule, RuleAction, SensoroApp, TopicAccess, TopicClass,
};
use crate::{
    Access, Admission, ConnectRequest, Dialect, Generic, GenericOptions, Platform, Refusal, Secret, Settings, Shown,
};

/// 2026-11-21 01:30 UTC.
pub(crate) const NOW_MS: u64 = 1_795_224_600_000;

/// Self-signed, with the common name `ABCDE12345dev001`.
const CERTIFICATE: &str = "MIIBejCCASCgAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBBBQkNERTEyMzQ1ZGV2MDAxMCAXDTI2MTEyMTE0MTIzMFoY\
DzIxMjYxMDI4MTQxMjMwWjAbMRkwFwYDVQQDDBBBQkNERTEyMzQ1ZGV2MDAxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE49XT\
THhOQUIGUVvOrDbHfo0wsSK2nGEDjmnP+Rb0gbQqO2hexDbM2BcwvhBrR4zl+dzNqdjEYJHvaSLzBBt/4aNTMFEwHQYDVR0OBBYE\
FMJdlhnlz6ian488bjWeAd1/J1hVMB8GA1UdIwQYMBaAFMJdlhnlz6ian488bjWeAd1/J1hVMA8GA1UdEwEB/wQFMAMBAf8wCgYI\
KoZIzj0EAwIDSAAwRQIhAJFRae1zETWmdsxeLcxHJAbSayxa8deak2BNMO/Of1g8AiBOF6YekI5+7S27rPkIVIIuVL08daLXyDn+\
ll6g3DsREg==";

pub(crate) const CERTIFICATE_SHA1: &str = "6dc4c512c16149ff27857dbb1dab488257cb7d9c";
pub(crate) const CERTIFICATE_SHA256: &str = "2e23744cc5b8821ba414c02e86358bd3db58f26d9813cf981d92348d628a1d08";

/// Self-signed, with the alternative name `ABCDE12345dev001` and the common name `else`.
const ALTERNATIVE: &str = "MIIBfjCCASWgAwIBAgIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARlbHNlMCAXDTI2MTEyMTE0MTIzMVoYDzIxMjYxMDI4MTQx\
MjMxWjAPMQ0wCwYDVQQDDARlbHNlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE49XTTHhOQUIGUVvOrDbHfo0wsSK2nGEDjmnP\
+Rb0gbQqO2hexDbM2BcwvhBrR4zl+dzNqdjEYJHvaSLzBBt/4aNwMG4wHQYDVR0OBBYEFMJdlhnlz6ian488bjWeAd1/J1hVMB8G\
A1UdIwQYMBaAFMJdlhnlz6ian488bjWeAd1/J1hVMA8GA1UdEwEB/wQFMAMBAf8wGwYDVR0RBBQwEoIQQUJDREUxMjM0NWRldjAw\
MTAKBggqhkjOPQQDAgNHADBEAiB5+HCYS02j5g/ivTxhOgTjj8UaaUGqOf3RNY2clUGZYwIgJ4HrVRW/QwFXjtZyMC/rCr063uN2\
aU/o98FDUk2qAzA=";

pub(crate) fn put(registry: &mut Registry, record: Record) {
    apply(registry, &Change::Put { record, expect: Expect::Anything });
}

/// Applies a change that must be accepted.
pub(crate) fn apply(registry: &mut Registry, change: &Change) {
    registry.apply(change, NOW_MS, &mut Vec::new()).unwrap();
}

/// Puts a device as `change` makes it of what it was.
pub(crate) fn alter(registry: &mut Registry, device: &str, change: impl FnOnce(&mut Device)) {
    let mut device = Device::clone(&registry.device(device).unwrap().0.record);
    change(&mut device);
    put(registry, Record::Device(Arc::new(device)));
}

pub(crate) fn alter_product(registry: &mut Registry, product: &str, change: impl FnOnce(&mut Product)) {
    let mut product = Product::clone(&registry.product(product).unwrap().record);
    change(&mut product);
    put(registry, Record::Product(Arc::new(product)));
}

pub(crate) fn alter_sensoro(registry: &mut Registry, change: impl FnOnce(&mut SensoroApp)) {
    let mut app = SensoroApp::clone(&registry.sensoro_app("foobar").unwrap().record);
    change(&mut app);
    put(registry, Record::SensoroApp(Arc::new(app)));
}

pub(crate) fn product(id: &str, dialect: Dialect, secret: &str) -> Product {
    Product { secret: Some(Secret::new(secret)), ..Product::new(id, "app", dialect, NOW_MS) }
}

pub(crate) fn device(product: &str, name: &str, secret: &str) -> Device {
    let auth = Auth { secret: Some(Secret::new(secret)), ..Auth::default() };
    Device { auth, ..Device::new(product, "app", name, NOW_MS) }
}

/// Huawei: product `prod1` with `prod1_node1` and its sub-device `prod1_sub1`, and `prod1_node2`; `prod1_x509` with a
/// certificate. Tencent: product `ABCDE12345` with `dev001` and `dev002`. Aliyun: product `a1B2c3D4e5F` with
/// `sensor-001`. Sensoro: AppID `foobar`. Authorities: `any`, and `of prod1`. A rule that pushes to `app/t1`.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    let app = App { id: "app".into(), name: "app".into(), default: true, created_ms: NOW_MS };
    put(&mut registry, Record::App(Arc::new(app)));
    for (id, dialect, secret) in [
        ("prod1", Dialect::Huawei, "unused"),
        ("ABCDE12345", Dialect::Tencent, "PSPSPSPSPSPSPSPSPSPSPSPS"),
        ("a1B2c3D4e5F", Dialect::Aliyun, "PSPSPSPSPSPSPSPS"),
    ] {
        put(&mut registry, Record::Product(Arc::new(product(id, dialect, secret))));
    }
    let classes = [("info", TopicAccess::Publish), ("set/+", TopicAccess::Subscribe), ("both", TopicAccess::Both)];
    alter_product(&mut registry, "ABCDE12345", |product| {
        product.topics =
            classes.into_iter().map(|(filter, access)| TopicClass { filter: filter.into(), access }).collect();
    });
    let (huawei, tencent) = ("12345678", "MDEyMzQ1Njc4OWFiY2RlZg==");
    for (product, name, secret) in [
        ("prod1", "node1", huawei),
        ("prod1", "node2", huawei),
        ("prod1", "sub1", huawei),
        ("prod1", "x509", huawei),
        ("ABCDE12345", "dev001", tencent),
        ("ABCDE12345", "dev002", tencent),
        ("a1B2c3D4e5F", "sensor-001", "0123456789abcdef0123456789abcdef"),
    ] {
        put(&mut registry, Record::Device(Arc::new(device(product, name, secret))));
    }
    alter(&mut registry, "prod1_sub1", |device| device.gateway_id = "prod1_node1".into());
    alter(&mut registry, "prod1_x509", |device| device.auth = certificate_only());
    for (id, product_id) in [("any", ""), ("of prod1", "prod1")] {
        let authority = Authority {
            id: id.into(),
            name: id.into(),
            product_id: product_id.into(),
            certificate_der: Box::from([0]),
            key_pem: None,
            created_ms: NOW_MS,
        };
        put(&mut registry, Record::Authority(Arc::new(authority)));
    }
    let app = SensoroApp {
        id: "foobar".into(),
        secret: Secret::new("SECRETSECRETSECRET"),
        key: Secret::new("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"),
        qos: 0,
        safe_mode: false,
        callback_url: "".into(),
        created_ms: NOW_MS,
    };
    put(&mut registry, Record::SensoroApp(Arc::new(app)));
    for (kind, (access_key, code)) in [("MQTT", APPLICATION), ("AMQP", ("amqpkey1", APPLICATION.1))] {
        let code = AccessCode {
            kind: kind.into(),
            access_key: access_key.into(),
            access_code: Secret::new(code),
            created_ms: NOW_MS,
        };
        put(&mut registry, Record::AccessCode(Arc::new(code)));
    }
    let rule = Rule {
        id: "rule".into(),
        name: "rule".into(),
        description: "".into(),
        subject: Subject::PropertyReport,
        app_id: "".into(),
        select: "".into(),
        filter: "".into(),
        active: false,
        guarantee: Guarantee::Live,
        created_ms: NOW_MS,
    };
    put(&mut registry, Record::Rule(Arc::new(rule)));
    push_action(&mut registry, "1", "app/t1");
    registry
}

/// Access key and code of the application.
pub(crate) const APPLICATION: (&str, &str) = ("appkey01", "APPCODEAPPCODEAPPCODE");

/// Puts an action that pushes to a topic; its id is `action {number}`.
pub(crate) fn push_action(registry: &mut Registry, number: &str, topic: &str) {
    let action = RuleAction {
        id: format!("action {number}").into(),
        rule_id: "rule".into(),
        app_id: "".into(),
        channel: Channel::MqttForwarding,
        detail: serde_json::json!({"mqtt_forwarding": {"topic": topic}}).to_string().into(),
        created_ms: NOW_MS,
    };
    put(registry, Record::RuleAction(Arc::new(action)));
}

/// A client that presents it, rightly and in time.
pub(crate) fn application(client_id: &str) -> Client {
    let (access_key, code) = APPLICATION;
    Client::new(client_id, &format!("accessKey={access_key}|timestamp={NOW_MS}|instanceId="), code)
}

pub(crate) fn certificate_only() -> Auth {
    Auth { kind: AuthKind::Certificate, ..Auth::default() }
}

/// What a client shows whose certificate these authorities vouch for.
pub(crate) fn shown(authorities: &[&str]) -> Shown {
    Shown {
        certificate: BASE64.decode(CERTIFICATE).unwrap().into(),
        authorities: authorities.iter().map(|id| (*id).into()).collect(),
        trusted: false,
    }
}

/// As [`shown`], with the certificate that has the name in its alternative names.
pub(crate) fn shown_alternative() -> Shown {
    Shown { certificate: BASE64.decode(ALTERNATIVE).unwrap().into(), ..shown(&["any"]) }
}

/// A client that connects.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) keep_alive_s: u16,
    pub(crate) encrypted: bool,
    pub(crate) host: Option<&'static str>,
    pub(crate) shown: Option<Shown>,
    pub(crate) now_ms: u64,
}

impl Client {
    pub(crate) fn new(client_id: &str, username: &str, password: &str) -> Client {
        Client {
            version: Version::V311,
            client_id: client_id.into(),
            username: Some(username.into()),
            password: Some(password.into()),
            keep_alive_s: 60,
            encrypted: false,
            host: None,
            shown: None,
            now_ms: NOW_MS,
        }
    }

    pub(crate) fn with_password(self, change: impl FnOnce(String) -> String) -> Client {
        Client { password: self.password.map(change), ..self }
    }

    /// On a listener that accepts all dialects. There is a generic user `ann` with the password `ann's`.
    pub(crate) fn admit(&self, registry: &Registry) -> Result<Admission, Refusal> {
        self.admit_on(registry, &Dialect::ALL)
    }

    pub(crate) fn admit_on(&self, registry: &Registry, accepted: &[Dialect]) -> Result<Admission, Refusal> {
        let generic = Generic::new(GenericOptions {
            anonymous: Access::Deny,
            users: vec![("ann".into(), "ann's".into())],
            rules: Vec::new(),
            default: Access::Allow,
        });
        let platform = Platform::new(generic, Settings::default());
        let right = |hash: &str, password: &[u8]| hash.as_bytes() == password;
        self.with_request(|request| platform.admit(request, registry, accepted).settle(right))
    }

    /// What becomes of its CONNECT.
    pub(crate) fn with_request<T>(&self, take: impl FnOnce(&ConnectRequest<'_>) -> T) -> T {
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive_s: self.keep_alive_s,
            client_id: ByteString::from(&*self.client_id),
            will: None,
            username: self.username.as_deref().map(ByteString::from),
            password: self.password.as_ref().map(|password| Bytes::from(password.clone())),
            properties: ConnectProperties::default(),
        };
        take(&ConnectRequest {
            connect: &connect,
            client_id: &self.client_id,
            peer: SocketAddr::from(([192, 0, 2, 1], 4711)),
            encrypted: self.encrypted,
            host: self.host,
            certificate: self.shown.as_ref(),
            now_ms: self.now_ms,
            entropy: [7; 32],
        })
    }

    /// The dialect that it is let in as, or the code of CONNACK in MQTT 3.x.
    pub(crate) fn outcome(&self, registry: &Registry) -> Result<Dialect, u8> {
        self.admit(registry).map(|admission| admission.dialect).map_err(|refusal| refusal.reason.connack_v3())
    }
}

pub(crate) fn publishing(admission: &Admission, topic: &str) -> Publishing {
    admission.voice.publishing(&TopicName::new(topic).unwrap())
}

pub(crate) fn may_subscribe(admission: &Admission, filter: &str) -> bool {
    match admission.voice.subscribing(&TopicFilter::new(filter).unwrap()) {
        Subscribing::Grant(qos) => qos == QoS::AtLeastOnce || admission.dialect == Dialect::Generic,
        Subscribing::Deny => false,
    }
}

/// What the platform makes of a publish, which must be one for it.
pub(crate) fn tell(admission: &Admission, registry: &Registry, topic: &str, payload: impl Into<Bytes>) -> Answers {
    assert_eq!(publishing(admission, topic), Publishing::Platform, "{topic}");
    let (topic, payload) = (TopicName::new(topic).unwrap(), payload.into());
    admission.voice.uplink(&Uplink { topic: &topic, payload: &payload, registry, now_ms: NOW_MS, entropy: [9; 16] })
}

/// Topics and payloads of the answers, as text.
pub(crate) fn sent(answers: &Answers) -> Vec<(&str, &str)> {
    let text = |payload| std::str::from_utf8(payload).unwrap();
    answers.downlinks.iter().map(|down| (down.topic.as_str(), text(&down.payload))).collect()
}
