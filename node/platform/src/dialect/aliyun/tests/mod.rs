//! Aliyun's devices against a registry: tables of what firmware sends, and what it is told.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

mod alink;
mod any;
mod call;
mod connect;
mod gateway;
mod http;
mod rights;
mod services;

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::packet::{Connect, ConnectProperties, Version};
use fulmar_mqtt::{TopicFilter, TopicName};
use serde_json::Value;

use super::Options;
use crate::dialect::{Answers, Dialect, Downlink, Report, Told, Uplink, Voice};
use crate::registry::{
    App, Auth, Change, Device, Expect, Kind, Product, Record, Registration, Registry, TopicAccess, TopicClass,
};
use crate::{Admission, ConnectRequest, Refusal, Secret};

pub(super) const PK: &str = "a1B2c3D4e5F";
pub(super) const DN: &str = "sensor-001";
pub(super) const DS: &str = "0123456789abcdef0123456789abcdef";
pub(super) const PS: &str = "PSPSPSPSPSPSPSPS";

/// Every device may register itself.
pub(super) const OPEN: &str = "b1Open00000";
/// None may; it has classes of its own.
pub(super) const OWN: &str = "c1Classes00";
/// Another dialect's.
pub(super) const HUAWEI: &str = "d1Huawei000";

pub(super) const NOW: u64 = 1_795_228_015_000;

fn product(id: &str, dialect: Dialect, registration: Registration, topics: Vec<TopicClass>) -> Product {
    Product {
        id: id.into(),
        app_id: "app".into(),
        name: id.into(),
        dialect,
        secret: Some(Secret::new(PS)),
        registration,
        device_type: Box::default(),
        protocol_type: Box::default(),
        data_format: Box::default(),
        manufacturer_name: Box::default(),
        industry: Box::default(),
        description: Box::default(),
        model: Box::default(),
        topics,
        endpoint: None,
        messages_require_subscribe: false,
        created_ms: 1,
    }
}

pub(super) fn device(product: &str, name: &str, secret: Option<&str>) -> Device {
    let auth = Auth { secret: secret.map(Secret::new), ..Auth::default() };
    Device { auth, name: Box::default(), ..Device::new(product, "app", name, 1) }
}

pub(super) fn put(registry: &mut Registry, record: Record) {
    let change = Change::Put { record, expect: Expect::Anything };
    registry.apply(&change, 1000, &mut Vec::new()).unwrap();
}

pub(super) fn put_device(registry: &mut Registry, device: Device) {
    put(registry, Record::Device(Arc::new(device)));
}

pub(super) fn commit(registry: &mut Registry, changes: &[Change]) {
    for change in changes {
        registry.apply(change, NOW, &mut Vec::new()).unwrap();
    }
}

pub(super) fn activate(registry: &mut Registry, device: &str) {
    registry.connected(device, 1, NOW, None, &mut Vec::new());
}

/// The first sensor as one that has never connected.
pub(super) fn renew(registry: &mut Registry) {
    let id = format!("{PK}_{DN}").into();
    commit(registry, &[Change::Delete { kind: Kind::Device, id, expect: Expect::Anything }]);
    put_device(registry, device(PK, DN, Some(DS)));
}

/// Two sensors, of which the first was online; one that is frozen; one without a secret.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    let key = Change::Key(Secret::new(&"5a".repeat(32)));
    registry.apply(&key, 1000, &mut Vec::new()).unwrap();
    let app = App { id: "app".into(), name: "app".into(), default: true, created_ms: 1 };
    put(&mut registry, Record::App(Arc::new(app)));
    let class = |filter: &str, access| TopicClass { filter: filter.into(), access };
    let classes = vec![
        class("user/up", TopicAccess::Publish),
        class("user/down/+", TopicAccess::Subscribe),
        class("user/data", TopicAccess::Both),
    ];
    for product in [
        product(PK, Dialect::Aliyun, Registration::Known, Vec::new()),
        product(OPEN, Dialect::Aliyun, Registration::Open, Vec::new()),
        product(OWN, Dialect::Aliyun, Registration::Off, classes),
        product(HUAWEI, Dialect::Huawei, Registration::Off, Vec::new()),
    ] {
        put(&mut registry, Record::Product(Arc::new(product)));
    }
    put_device(&mut registry, device(PK, DN, Some(DS)));
    put_device(&mut registry, device(PK, "sensor-002", Some("second secret")));
    put_device(&mut registry, Device { frozen: true, ..device(PK, "frozen", Some(DS)) });
    put_device(&mut registry, device(PK, "fresh", None));
    put_device(&mut registry, device(OWN, "d1", Some(DS)));
    put_device(&mut registry, device(HUAWEI, "d1", Some(DS)));
    activate(&mut registry, &format!("{PK}_{DN}"));
    registry
}

/// A CONNECT as firmware sends it, over TLS.
pub(super) struct Coming<'a> {
    pub(super) client_id: &'a str,
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) keep_alive_s: u16,
    pub(super) encrypted: bool,
    pub(super) host: Option<&'a str>,
    pub(super) now_ms: u64,
}

impl Default for Coming<'_> {
    fn default() -> Self {
        Coming {
            client_id: "dev-cid|signmethod=hmacsha1|",
            username: "sensor-001&a1B2c3D4e5F",
            password: "f15f028e2d8fd156fb1b8719de125a28ee4d8095",
            keep_alive_s: 60,
            encrypted: true,
            host: None,
            now_ms: NOW,
        }
    }
}

impl Coming<'_> {
    pub(super) fn at(&self, registry: &Registry, options: &Options) -> Option<Result<Admission, Refusal>> {
        let connect = Connect {
            version: Version::V311,
            clean_start: false,
            keep_alive_s: self.keep_alive_s,
            client_id: ByteString::from(self.client_id),
            will: None,
            username: Some(ByteString::from(self.username)),
            password: Some(Bytes::copy_from_slice(self.password.as_bytes())),
            properties: ConnectProperties::default(),
        };
        let request = ConnectRequest {
            connect: &connect,
            client_id: self.client_id,
            peer: "192.0.2.1:4711".parse().unwrap(),
            encrypted: self.encrypted,
            host: self.host,
            certificate: None,
            now_ms: self.now_ms,
            entropy: [7; 32],
        };
        super::admit(&request, registry, options)
    }

    /// The return code of CONNACK.
    pub(super) fn code(&self, registry: &Registry) -> Option<u8> {
        let outcome = self.at(registry, &Options::default())?;
        Some(outcome.map_or_else(|refusal| refusal.reason.connack_v3(), |_| 0))
    }

    pub(super) fn admitted(&self, registry: &Registry) -> Admission {
        self.at(registry, &Options::default()).unwrap().unwrap()
    }
}

/// The first sensor, with `_ss=1` or without.
pub(super) fn voice(registry: &Registry, auto: bool) -> Arc<dyn Voice> {
    let client_id = format!("dev-cid|signmethod=hmacsha1,_ss={}|", u8::from(auto));
    Coming { client_id: &client_id, ..Coming::default() }.admitted(registry).voice
}

pub(super) fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

pub(super) fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

pub(super) fn send(voice: &dyn Voice, registry: &Registry, to: &str, payload: &str) -> Answers {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    voice.uplink(&Uplink { topic: &topic(to), payload: &payload, registry, now_ms: NOW, entropy: [9; 16] })
}

/// Topics and payloads of what the device is told.
pub(super) fn told(answers: &Answers) -> Vec<(&str, &str)> {
    answers.downlinks.iter().map(|downlink| (downlink.topic.as_str(), payload(downlink))).collect()
}

pub(super) fn payload(downlink: &Downlink) -> &str {
    std::str::from_utf8(&downlink.payload).unwrap()
}

pub(super) fn json(downlink: &Downlink) -> Value {
    serde_json::from_slice(&downlink.payload).unwrap()
}

pub(super) fn report(device: &str, request_id: &str, what: Told) -> Report {
    Report { device: device.into(), request_id: request_id.into(), what }
}
