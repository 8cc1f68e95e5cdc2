use bytes::BytesMut;
use fulmar_platform::Dialect;
use fulmar_platform::event::Subject;
use fulmar_platform::registry::*;
use fulmar_proto::Message;

use super::*;

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

/// Every kind of record, with all its fields, with every value of its enums, and with as little as there can be.
pub(in crate::cluster::wire) fn records() -> Vec<Record> {
    let product = Product {
        id: "p\u{e9}".into(),
        app_id: "a".into(),
        name: "name".into(),
        dialect: Dialect::Aliyun,
        secret: secret("product"),
        registration: Registration::Open,
        device_type: "type".into(),
        protocol_type: "MQTT".into(),
        data_format: "json".into(),
        manufacturer_name: "maker".into(),
        industry: "industry".into(),
        description: "text".into(),
        model: "[{}]".into(),
        topics: [TopicAccess::Publish, TopicAccess::Subscribe, TopicAccess::Both]
            .map(|access| TopicClass { filter: "user/#".into(), access })
            .into(),
        endpoint: Some(Endpoint { host: "h".into(), port: u16::MAX }),
        messages_require_subscribe: true,
        created_ms: u64::MAX,
    };
    let auth = Auth {
        kind: AuthKind::Certificate,
        secret: secret("one"),
        secondary_secret: secret(""),
        fingerprint: Some("f0".into()),
        secondary_fingerprint: Some("".into()),
        token: secret("token"),
        secure_access: true,
        timeout_s: u32::MAX,
    };
    let device = Device {
        id: "p_n".into(),
        product_id: "p".into(),
        app_id: "a".into(),
        node_id: "n".into(),
        name: "name".into(),
        description: "text".into(),
        gateway_id: "g".into(),
        auth,
        frozen: true,
        fw_version: "fw".into(),
        sw_version: "sw".into(),
        sdk_version: "sdk".into(),
        extension_info: "{}".into(),
        tags: vec![("k".into(), "v".into()), ("".into(), "".into())],
        endpoint: Some(Endpoint { host: "h".into(), port: 0 }),
        sensoro_app_id: "s".into(),
        created_ms: 7,
    };
    let bare = Device { auth: Auth::default(), frozen: false, tags: vec![], endpoint: None, ..device.clone() };
    let authority = Authority {
        id: "ca".into(),
        name: "name".into(),
        product_id: "p".into(),
        certificate_der: [0, 255].into(),
        key_pem: secret("pem"),
        created_ms: 9,
    };
    let mut records = vec![
        Record::App(Arc::new(App { id: "a".into(), name: "n".into(), default: true, created_ms: 1 })),
        Record::App(Arc::new(App { id: "".into(), name: "".into(), default: false, created_ms: 0 })),
        Record::Device(Arc::new(device)),
        Record::Device(Arc::new(bare)),
        Record::AccessKey(Arc::new(AccessKey {
            ak: "ak".into(),
            sk: Secret::new("sk"),
            user: "u".into(),
            created_ms: 2,
        })),
        Record::AccessCode(Arc::new(AccessCode {
            kind: "MQTT".into(),
            access_key: "key".into(),
            access_code: Secret::new("code"),
            created_ms: 3,
        })),
        Record::Authority(Arc::new(Authority { key_pem: None, product_id: "".into(), ..authority.clone() })),
        Record::Authority(Arc::new(authority)),
        Record::SensoroApp(Arc::new(SensoroApp {
            id: "s".into(),
            secret: Secret::new("secret"),
            key: Secret::new("key"),
            qos: u8::MAX,
            safe_mode: true,
            callback_url: "https://h/".into(),
            created_ms: 4,
        })),
    ];
    for (guarantee, active) in [(Guarantee::Live, false), (Guarantee::Durable, true)] {
        records.push(Record::Rule(Arc::new(Rule {
            id: "r".into(),
            name: "n".into(),
            description: "text".into(),
            subject: Subject::MessageStatusUpdate,
            app_id: "a".into(),
            select: "*".into(),
            filter: "a = 1".into(),
            active,
            guarantee,
            created_ms: 6,
        })));
    }
    for channel in Channel::ALL {
        records.push(Record::RuleAction(Arc::new(RuleAction {
            id: "x".into(),
            rule_id: "r".into(),
            app_id: "".into(),
            channel,
            detail: "{}".into(),
            created_ms: 7,
        })));
    }
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let (name, password_hash) = ("u".into(), Secret::new("hash"));
        records.push(Record::User(Arc::new(User { name, password_hash, role, created_ms: 5 })));
    }
    for dialect in Dialect::ALL {
        records.push(Record::Product(Arc::new(Product { dialect, ..product.clone() })));
    }
    for registration in [Registration::Off, Registration::Known] {
        let product = Product { registration, secret: None, topics: vec![], endpoint: None, ..product.clone() };
        records.push(Record::Product(Arc::new(product)));
    }
    records
}

pub(in crate::cluster::wire) fn changes() -> Vec<Change> {
    let kinds = records().into_iter().map(|record| record.kind());
    let downlink = Downlink {
        topic: fulmar_mqtt::TopicName::new("a/b").expect("a topic"),
        payload: Bytes::from_static(&[0, 255]),
        qos: fulmar_mqtt::QoS::AtLeastOnce,
    };
    let mut changes = vec![
        Change::Key(Secret::new("k")),
        Change::Disconnect { device: "p_n".into() },
        Change::SubDevice { device: "p_n".into(), epoch: u64::MAX, online: true },
        Change::SubDevice { device: "".into(), epoch: 0, online: false },
        Change::Tell { device: "p_n".into(), downlink },
        Change::Shadow { device: "p_n".into(), change: ShadowChange::Delete },
        Change::Shadow { device: "p_n".into(), change: ShadowChange::Update(parts()) },
    ];
    changes.push(Change::DisconnectApplication { access_key: "k".into() });
    let expects = [Expect::Absent, Expect::Revision(0), Expect::Revision(u64::MAX), Expect::Anything];
    for (kind, expect) in kinds.zip(expects.into_iter().cycle()) {
        changes.push(Change::Delete { kind, id: "id".into(), expect });
    }
    for (record, expect) in records().into_iter().zip(expects.into_iter().cycle()) {
        changes.push(Change::Put { record, expect });
    }
    changes
}

fn parts() -> Vec<ShadowPart> {
    let object = serde_json::json!({"a": [1.5, null, "\u{e9}"], "b": null});
    let merge = || Patch::Merge(object.as_object().expect("an object").clone());
    let versions =
        [Versioning::Keep, Versioning::Next, Versioning::After(0), Versioning::Set(u64::MAX), Versioning::Reset];
    let part = |version| ShadowPart {
        service: "s\u{e9}".into(),
        reported: merge(),
        desired: Patch::Clear,
        version,
        reported_ms: u64::MAX,
    };
    let mut parts: Vec<ShadowPart> = versions.into_iter().map(part).collect();
    let nothing = Patch::Merge(serde_json::Map::new());
    parts.push(ShadowPart { reported: Patch::Keep, desired: nothing, reported_ms: 0, ..part(Versioning::Keep) });
    parts
}

fn shadow() -> Shadow {
    let section = Section::read(r#"{"a":1}"#, 7).expect("an object");
    let service = ShadowService { id: "s".into(), reported: section, version: 9, ..ShadowService::default() };
    Shadow { services: vec![ShadowService::default(), service] }
}

pub(in crate::cluster::wire) fn outcomes() -> Vec<Result<Changed, Rejection>> {
    let mut outcomes = vec![
        Ok(Changed { revision: u64::MAX, oid: ObjectId::new(u32::MAX, 1) }),
        Err(Rejection::Exists),
        Err(Rejection::Missing),
        Err(Rejection::Conflict),
        Err(Rejection::Full),
        Err(Rejection::TooLarge),
    ];
    for record in records() {
        outcomes.extend([Err(Rejection::Dangling(record.kind())), Err(Rejection::InUse(record.kind()))]);
    }
    outcomes
}

/// Records as a snapshot has them; those of devices with and without everything.
pub(in crate::cluster::wire) fn filed() -> Vec<Filed> {
    let there =
        Presence { active_ms: 1, changed_ms: 2, epoch: u64::MAX, online: true, client_id: Some("c\u{e9}".into()) };
    let mut filed: Vec<Filed> = records()
        .into_iter()
        .zip(1..)
        .map(|(record, number)| Filed {
            oid: ObjectId::new(7, number),
            revision: number,
            record,
            presence: None,
            shadow: None,
        })
        .collect();
    let mut presences = [there, Presence::default()].into_iter().cycle();
    for filed in filed.iter_mut().filter(|filed| filed.record.kind() == Kind::Device) {
        filed.presence = presences.next();
        filed.shadow = filed.presence.as_ref().filter(|presence| presence.online).map(|_| Arc::new(shadow()));
    }
    filed
}

#[test]
fn everything_comes_back() {
    let kinds: std::collections::BTreeSet<Kind> = records().iter().map(Record::kind).collect();
    assert_eq!(kinds.len(), 10, "a kind is missing from the samples");
    for change in changes() {
        assert_eq!(Change::from_message(change.to_message()), Ok(change));
    }
    for outcome in outcomes() {
        assert_eq!(Result::<Changed, Rejection>::from_message(outcome.to_message()), Ok(outcome));
    }
    for filed in filed() {
        assert_eq!(Filed::from_message(filed.to_message()), Ok(filed));
    }
}

#[test]
fn damaged_changes_are_no_panic() {
    for change in changes() {
        let bytes = change.to_message().encode_to_vec();
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xFF] {
                let mut damaged = BytesMut::from(bytes.as_slice());
                damaged[at] ^= flip;
                if let Ok(message) = proto::RegistryChange::decode(damaged.freeze()) {
                    let _ = Change::from_message(message);
                }
            }
        }
    }
}

#[test]
fn messages_do_not_show_secrets() {
    let shown = format!("{:?}", Change::Key(Secret::new("TopSecret")).to_message());
    assert!(shown.contains("***") && !shown.contains("TopSecret"), "{shown}");
}

#[test]
fn errors_name_the_field() {
    use proto::registry_record::Record as R;
    let put = |record| {
        let record = Some(proto::RegistryRecord { record: Some(record) });
        ChangeMessage::Put(proto::RegistryPut { record, absent: false, revision: None })
    };
    let product = || proto::Product { dialect: 2, ..Default::default() };
    let device = || proto::Device { auth: Some(Default::default()), ..Default::default() };
    let auth = |auth| put(R::Device(proto::Device { auth: Some(auth), ..Default::default() }));
    let hash = || Some(proto::Secret::default());
    let part = |part| ChangeMessage::Shadow(proto::RegistryShadow { parts: vec![part], ..Default::default() });
    let patch = |clear, merge: &str| Some(proto::ShadowPatch { clear, merge: merge.to_owned() });
    let endpoint = || Some(proto::Endpoint { host: "h".into(), port: 65_536 });
    for (change, wanted) in [
        (ChangeMessage::Key(Default::default()), "key.secret is missing"),
        (ChangeMessage::Put(Default::default()), "put.record is missing"),
        (
            ChangeMessage::Put(proto::RegistryPut { record: Some(Default::default()), absent: false, revision: None }),
            "put.record.record is missing",
        ),
        (
            ChangeMessage::Put(proto::RegistryPut {
                record: Some(proto::RegistryRecord { record: Some(R::App(Default::default())) }),
                absent: true,
                revision: Some(1),
            }),
            "put.revision is there beside what it excludes",
        ),
        (ChangeMessage::Delete(Default::default()), "delete.kind has the unknown value 0"),
        (
            ChangeMessage::Delete(proto::RegistryDelete { kind: 99, ..Default::default() }),
            "delete.kind has the unknown value 99",
        ),
        (
            ChangeMessage::Delete(proto::RegistryDelete { kind: 1, absent: true, revision: Some(0), id: "i".into() }),
            "delete.revision is there beside what it excludes",
        ),
        (put(R::Product(Default::default())), "put.record.product.dialect has the unknown value 0"),
        (
            put(R::Product(proto::Product { registration: 3, ..product() })),
            "put.record.product.registration has the unknown value 3",
        ),
        (
            put(R::Product(proto::Product { topics: vec![Default::default()], ..product() })),
            "put.record.product.topics[0].access has the unknown value 0",
        ),
        (
            put(R::Product(proto::Product { endpoint: endpoint(), ..product() })),
            "put.record.product.endpoint.port is 65536, out of its range",
        ),
        (put(R::Device(Default::default())), "put.record.device.auth is missing"),
        (
            put(R::Device(proto::Device { endpoint: endpoint(), ..device() })),
            "put.record.device.endpoint.port is 65536",
        ),
        (
            auth(proto::DeviceAuth { kind: 2, ..Default::default() }),
            "put.record.device.auth.kind has the unknown value 2",
        ),
        (
            ChangeMessage::Shadow(proto::RegistryShadow {
                delete: true,
                parts: vec![Default::default()],
                ..Default::default()
            }),
            "shadow.parts is there beside what it excludes",
        ),
        (part(proto::ShadowPart { versioning: 5, ..Default::default() }), "shadow.parts[0].versioning has the unknown"),
        (
            part(proto::ShadowPart { reported: patch(false, "[]"), ..Default::default() }),
            "shadow.parts[0].reported.merge",
        ),
        (part(proto::ShadowPart { desired: patch(true, "{}"), ..Default::default() }), "shadow.parts[0].desired.merge"),
        (ChangeMessage::Tell(proto::RegistryTell { topic: "#".into(), ..Default::default() }), "tell.topic"),
        (
            ChangeMessage::Tell(proto::RegistryTell { topic: "t".into(), qos: 3, ..Default::default() }),
            "tell.qos has the unknown value 3",
        ),
        (put(R::User(proto::User { role: 1, ..Default::default() })), "put.record.user.password_hash is missing"),
        (
            put(R::User(proto::User { password_hash: hash(), ..Default::default() })),
            "put.record.user.role has the unknown value 0",
        ),
        (put(R::AccessKey(Default::default())), "put.record.access_key.sk is missing"),
        (put(R::AccessCode(Default::default())), "put.record.access_code.access_code is missing"),
        (put(R::SensoroApp(Default::default())), "put.record.sensoro_app.secret is missing"),
        (put(R::Rule(Default::default())), "put.record.rule.resource is missing"),
        (put(R::RuleAction(Default::default())), "put.record.rule_action.channel has the unknown value 0"),
        (
            put(R::RuleAction(proto::RuleAction { channel: 1, ..Default::default() })),
            "put.record.rule_action.detail is missing",
        ),
        (
            put(R::SensoroApp(proto::SensoroApp { secret: hash(), ..Default::default() })),
            "put.record.sensoro_app.key is missing",
        ),
        (
            put(R::SensoroApp(proto::SensoroApp { secret: hash(), key: hash(), qos: 256, ..Default::default() })),
            "put.record.sensoro_app.qos is 256, out of its range",
        ),
    ] {
        let error = Change::from_message(proto::RegistryChange { change: Some(change) }).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
    let rejected = |reason, kind| OutcomeMessage::Rejected(proto::RegistryRejected { reason, kind });
    for (outcome, wanted) in [
        (None, "outcome is missing"),
        (Some(OutcomeMessage::Changed(Default::default())), "changed.oid is 0, out of its range"),
        (Some(rejected(0, 0)), "rejected.reason has the unknown value 0"),
        (Some(rejected(8, 0)), "rejected.reason has the unknown value 8"),
        (Some(rejected(4, 0)), "rejected.kind has the unknown value 0"),
        (Some(rejected(5, 99)), "rejected.kind has the unknown value 99"),
    ] {
        let error = Result::<Changed, Rejection>::from_message(proto::OutcomeRegistry { outcome }).expect_err(wanted);
        assert!(error.to_string().starts_with(wanted), "{error}, wanted {wanted}");
    }
    let change = Change::from_message(proto::RegistryChange { change: None }).expect_err("nothing");
    assert_eq!(change.to_string(), "change is missing");
    let good = || filed()[0].to_message();
    let section = proto::ShadowSection { properties: "[]".to_owned(), event_ms: 0 };
    let bad_section = proto::ShadowService { reported: Some(section), ..Default::default() };
    for (message, wanted) in [
        (proto::SnapshotRegistry { oid: vec![1; 13].into(), ..good() }, "oid is 13, out of its range"),
        (proto::SnapshotRegistry { record: None, ..good() }, "record is missing"),
        (
            proto::SnapshotRegistry { shadow: Some(proto::Shadow { services: vec![bad_section] }), ..good() },
            "shadow.services[0].reported.properties is no JSON object",
        ),
    ] {
        assert_eq!(Filed::from_message(message).expect_err(wanted).to_string(), wanted);
    }
}
