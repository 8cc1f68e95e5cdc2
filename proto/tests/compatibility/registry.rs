//! Samples of the registry.

use fulmar_proto::types::v1::*;

use super::{Sample, batch, key};

fn secret(text: &str) -> Option<Secret> {
    Some(Secret { text: text.to_owned() })
}

/// One record of each kind, every field set to something that is written.
fn records() -> [(&'static str, registry_record::Record); 8] {
    use registry_record::Record as R;
    let endpoint = || Some(Endpoint { host: "h".into(), port: 65_535 });
    let product = Product {
        id: "p".into(),
        app_id: "a".into(),
        name: "name".into(),
        dialect: Dialect::Tencent.into(),
        secret: secret("s"),
        registration: Registration::Open.into(),
        device_type: "type".into(),
        protocol_type: "MQTT".into(),
        data_format: "json".into(),
        manufacturer_name: "maker".into(),
        industry: "industry".into(),
        description: "text".into(),
        model: "[]".into(),
        topics: vec![TopicClass { filter: "user/+".into(), access: TopicAccess::Both.into() }],
        endpoint: endpoint(),
        created_ms: 1 << 40,
        // Records of before it do not have it.
        messages_require_subscribe: false,
    };
    let auth = DeviceAuth {
        kind: AuthKind::Certificate.into(),
        secret: secret("one"),
        secondary_secret: secret("two"),
        fingerprint: Some("f0".into()),
        secondary_fingerprint: Some(String::new()),
        token: secret("token"),
        secure_access: true,
        timeout_s: 60,
    };
    let device = Device {
        id: "p_n".into(),
        product_id: "p".into(),
        app_id: "a".into(),
        node_id: "n".into(),
        name: "name".into(),
        description: "text".into(),
        gateway_id: "g".into(),
        auth: Some(auth),
        frozen: true,
        fw_version: "fw".into(),
        sw_version: "sw".into(),
        sdk_version: "sdk".into(),
        extension_info: "{}".into(),
        tags: vec![Tag { key: "k".into(), value: "v".into() }],
        endpoint: endpoint(),
        sensoro_app_id: String::new(),
        created_ms: 2,
    };
    let authority = Authority {
        id: "ca".into(),
        name: "name".into(),
        product_id: "p".into(),
        certificate_der: vec![0x30, 0].into(),
        key_pem: secret("pem"),
        created_ms: 3,
    };
    let sensoro = SensoroApp {
        id: "s".into(),
        secret: secret("secret"),
        key: secret("key"),
        qos: 1,
        safe_mode: true,
        callback_url: "https://h/".into(),
        created_ms: 4,
    };
    let (role, password_hash) = (Role::Admin.into(), secret("hash"));
    [
        ("App", R::App(App { id: "a".into(), name: "name".into(), is_default: true, created_ms: 5 })),
        ("Product", R::Product(product)),
        ("Device", R::Device(device)),
        ("User", R::User(User { name: "u".into(), password_hash, role, created_ms: 6 })),
        ("AccessKey", R::AccessKey(AccessKey { ak: "ak".into(), sk: secret("sk"), user: "u".into(), created_ms: 7 })),
        (
            "AccessCode",
            R::AccessCode(AccessCode {
                kind: "MQTT".into(),
                access_key: "key".into(),
                access_code: secret("code"),
                created_ms: 8,
            }),
        ),
        ("Authority", R::Authority(authority)),
        ("SensoroApp", R::SensoroApp(sensoro)),
    ]
}

pub(super) fn samples() -> Vec<(String, Sample)> {
    use command::Command as C;
    use registry_change::Change;
    use snapshot_record::Part as P;
    let change = |name: &str, change| {
        let command = C::Registry(Box::new(RegistryChange { change: Some(change) }));
        let record = Record { format_version: FORMAT_VERSION, body: Some(record::Body::Batch(batch(command))) };
        (format!("Registry.{name}"), Sample::Record(record))
    };
    let part = |name: &str, part| {
        let record = SnapshotRecord { format_version: FORMAT_VERSION, part: Some(part) };
        (format!("Snapshot.{name}"), Sample::Snapshot(record))
    };
    let claim = Claim { key: Some(key("s1")), exclusive_client_id: Some("c".into()), ..Default::default() };
    let claim = Record { format_version: FORMAT_VERSION, body: Some(record::Body::Batch(batch(C::Claim(claim)))) };
    let mut samples = vec![("Claim.exclusive_client_id".to_owned(), Sample::Record(claim))];
    for (name, record) in records() {
        let record = Some(RegistryRecord { record: Some(record) });
        samples.push(change(name, Change::Put(RegistryPut { record, absent: false, revision: Some(0) })));
    }
    let delete =
        RegistryDelete { kind: RegistryKind::SensoroApp.into(), id: "s".into(), absent: true, revision: Some(9) };
    samples.push(change("Key", Change::Key(RegistryKey { secret: secret("k") })));
    samples.push(change("Delete", Change::Delete(delete)));
    let patch = |clear, merge: &str| Some(ShadowPatch { clear, merge: merge.to_owned() });
    let wish = ShadowPart {
        service: "s".into(),
        reported: patch(false, r#"{"a":1}"#),
        desired: patch(true, ""),
        versioning: ShadowVersioning::Set.into(),
        version: 9,
        reported_ms: 1 << 40,
    };
    let shadow = RegistryShadow { device: "p_n".into(), delete: false, parts: vec![wish] };
    let delete_shadow = RegistryShadow { device: "p_n".into(), delete: true, parts: Vec::new() };
    let tell = RegistryTell {
        device: "p_n".into(),
        topic: "a/b".into(),
        payload: vec![0, 255].into(),
        qos: Qos::AtLeastOnce.into(),
    };
    samples.push(change("Shadow", Change::Shadow(shadow)));
    samples.push(change("Shadow.delete", Change::Shadow(delete_shadow)));
    samples.push(change(
        "SubDevice",
        Change::SubDevice(RegistrySubDevice { device: "p_n".into(), epoch: 7, online: true }),
    ));
    samples.push(change("Tell", Change::Tell(tell)));
    samples.push(change("Disconnect", Change::Disconnect(RegistryDisconnect { device: "p_n".into() })));
    let cut = RegistryDisconnectApplication { access_key: "k".into() };
    samples.push(change("DisconnectApplication", Change::DisconnectApplication(cut)));
    let (oid, revision) = (vec![7; 12], 9);
    let changed = outcome_registry::Outcome::Changed(RegistryChanged { revision, oid: oid.clone().into() });
    let reason = RegistryRejection::InUse.into();
    let rejected = outcome_registry::Outcome::Rejected(RegistryRejected { reason, kind: RegistryKind::Device.into() });
    let outcomes = [changed, rejected].map(|outcome| {
        let outcome = OutcomeRegistry { outcome: Some(outcome) };
        Outcome { outcome: Some(outcome::Outcome::Registry(outcome)) }
    });
    samples.push(part("Results.registry", P::Results(SnapshotResults { seq: 9, outcomes: outcomes.into() })));
    let head = SnapshotHead { registry_key: secret("k"), registry_last: 9, devices: 1, ..Default::default() };
    samples.push(part("Head.registry", P::Head(head)));
    let presence = Presence { active_ms: 1, changed_ms: 2, epoch: 7, online: true, client_id: Some(String::new()) };
    let [_, _, (_, device), ..] = records();
    let filed = SnapshotRegistry {
        record: Some(RegistryRecord { record: Some(device) }),
        oid: oid.into(),
        revision,
        presence: Some(presence),
        shadow: None,
    };
    let section = || Some(ShadowSection { properties: r#"{"a":1}"#.to_owned(), event_ms: 5 });
    let service = ShadowService { service: "s".into(), desired: section(), reported: section(), version: 3 };
    let shadowed = SnapshotRegistry { shadow: Some(Shadow { services: vec![service] }), ..filed.clone() };
    samples.push(part("Registry.shadow", P::Registry(Box::new(shadowed))));
    samples.push(part("Registry", P::Registry(Box::new(filed))));
    samples
}
