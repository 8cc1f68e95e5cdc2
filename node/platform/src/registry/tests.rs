//! Tests of the registry: a table per rule. After each step, what is derived equals what a restore derives.

mod presence;
mod records;
mod shadow;

use super::*;
use crate::Secret;
use crate::event::Subject;

const NOW_MS: u64 = 1_700_000_000_500;

fn app(id: &str) -> App {
    App { id: id.into(), name: "n".into(), default: false, created_ms: 1 }
}

fn product(id: &str, dialect: Dialect) -> Product {
    Product { name: "n".into(), secret: Some(Secret::new("product-secret")), ..Product::new(id, "app", dialect, 1) }
}

fn device(product: &str, node_id: &str) -> Device {
    let auth = Auth { secret: Some(Secret::new("device-secret")), ..Auth::default() };
    Device { auth, name: "n".into(), ..Device::new(product, "app", node_id, 1) }
}

fn below(gateway: &str, device: Device) -> Device {
    Device { gateway_id: gateway.into(), ..device }
}

fn timed(timeout_s: u32, device: Device) -> Device {
    Device { auth: Auth { timeout_s, ..device.auth.clone() }, ..device }
}

fn user(name: &str) -> User {
    User { name: name.into(), password_hash: Secret::new("hash"), role: Role::Admin, created_ms: 1 }
}

fn access_key(ak: &str, user: &str) -> AccessKey {
    AccessKey { ak: ak.into(), sk: Secret::new("sk"), user: user.into(), created_ms: 1 }
}

fn access_code(kind: &str, access_key: &str) -> AccessCode {
    AccessCode { kind: kind.into(), access_key: access_key.into(), access_code: Secret::new("c"), created_ms: 1 }
}

fn authority(id: &str, product: &str) -> Authority {
    Authority {
        id: id.into(),
        name: "n".into(),
        product_id: product.into(),
        certificate_der: [1, 2].into(),
        key_pem: Some(Secret::new("pem")),
        created_ms: 1,
    }
}

fn sensoro(id: &str) -> SensoroApp {
    SensoroApp {
        id: id.into(),
        secret: Secret::new("s"),
        key: Secret::new("k"),
        qos: 1,
        safe_mode: false,
        callback_url: "".into(),
        created_ms: 1,
    }
}

fn rule(id: &str, app_id: &str) -> Rule {
    Rule {
        id: id.into(),
        name: "".into(),
        description: "".into(),
        subject: Subject::PropertyReport,
        app_id: app_id.into(),
        select: "".into(),
        filter: "".into(),
        active: false,
        guarantee: Guarantee::Live,
        created_ms: 1,
    }
}

fn action(id: &str, rule: &str) -> RuleAction {
    let (rule_id, app_id, channel) = (rule.into(), "".into(), Channel::Republish);
    RuleAction { id: id.into(), rule_id, app_id, channel, detail: "{}".into(), created_ms: 1 }
}

macro_rules! records {
    ($($of:ident),*) => { $(impl From<$of> for Record { fn from(it: $of) -> Record { Record::$of(Arc::new(it)) } })* };
}
records!(App, Product, Device, User, AccessKey, AccessCode, Authority, SensoroApp, Rule, RuleAction);

fn put(record: impl Into<Record>, expect: Expect) -> Change {
    Change::Put { record: record.into(), expect }
}

fn delete(kind: Kind, id: &str) -> Change {
    Change::Delete { kind, id: id.into(), expect: Expect::Anything }
}

/// Taken apart and put together.
fn rebuilt(registry: &Registry) -> Registry {
    let mut restoring = Restoring::new(registry.key().cloned(), registry.last_revision());
    registry.records().for_each(|filed| restoring.add(filed).unwrap());
    restoring.finish().unwrap()
}

struct Bench {
    registry: Registry,
    now_ms: u64,
    events: Vec<Event>,
}

impl Bench {
    /// With an app `app` and a product `p` of Aliyun.
    fn new() -> Bench {
        let mut bench = Bench { registry: Registry::default(), now_ms: NOW_MS, events: vec![] };
        bench.put(app("app"));
        bench.put(product("p", Dialect::Aliyun));
        bench
    }

    fn apply(&mut self, change: &Change) -> Result<Changed, Rejection> {
        let before = self.registry.clone();
        self.events.clear();
        let changed = self.registry.apply(change, self.now_ms, &mut self.events);
        if changed.is_err() {
            assert_eq!(self.registry, before, "a rejected change changes nothing");
            assert!(self.events.is_empty());
        }
        assert_eq!(rebuilt(&self.registry), self.registry);
        changed
    }

    fn put(&mut self, record: impl Into<Record>) -> Changed {
        self.apply(&put(record, Expect::Anything)).unwrap()
    }

    fn delete(&mut self, kind: Kind, id: &str) -> Result<Changed, Rejection> {
        self.apply(&delete(kind, id))
    }

    fn connect(&mut self, device: &str, epoch: u64, client_id: Option<&str>) -> Option<Box<str>> {
        self.events.clear();
        let other = self.registry.connected(device, epoch, self.now_ms, client_id, &mut self.events);
        assert_eq!(rebuilt(&self.registry), self.registry);
        other
    }

    fn disconnect(&mut self, device: &str, epoch: u64) {
        self.events.clear();
        self.registry.disconnected(device, epoch, self.now_ms, &mut self.events);
        assert_eq!(rebuilt(&self.registry), self.registry);
    }

    fn presence(&self, device: &str) -> &Presence {
        self.registry.device(device).unwrap().1
    }
}
