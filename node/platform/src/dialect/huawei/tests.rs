use fulmar_mqtt::packet::Version;
use fulmar_mqtt::{QoS, ReasonCode, TopicName};
use proptest::prelude::*;

use crate::dialect::Publishing;
use crate::dialect::fixture::{
    CERTIFICATE_SHA1, CERTIFICATE_SHA256, Client, NOW_MS, alter, apply, certificate_only, may_subscribe, publishing,
    put, registry, shown,
};
use crate::registry::{Authority, Record, Registry};
use crate::{Admission, Dialect, Secret};

const HOUR_MS: u64 = 3_600_000;

/// `prod1_node1` at 2026-11-21 01h.
fn node1() -> Client {
    let password = "8fbf7ae2b18880b31d363a56a9c65fccda9a6f6a90ebe59a403354dc65f9c32e";
    Client::new("prod1_node1_0_1_2026112101", "prod1_node1", password)
}

fn x509() -> Client {
    Client {
        password: None,
        encrypted: true,
        shown: Some(shown(&["of prod1"])),
        ..Client::new("prod1_x509_0_0_2026112101", "prod1_x509", "")
    }
}

fn any_authority(registry: &Registry) -> Authority {
    Authority::clone(&registry.authority("any").unwrap().record)
}

pub(super) fn admitted(registry: &Registry) -> Admission {
    node1().admit(registry).unwrap()
}

#[test]
fn vectors() {
    let registry = registry();
    let old = "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a";
    let at = |client: Client, now_ms| Client { now_ms, ..client };
    let huawei = Ok(Dialect::Huawei);
    for (client, outcome) in [
        (node1(), huawei),
        (Client { version: Version::V31, ..node1() }, huawei),
        (Client { version: Version::V5, ..node1() }, huawei),
        (Client { password: node1().password.map(|hex| hex.to_uppercase()), ..node1() }, huawei),
        // The timestamp may be an hour away.
        (at(node1(), NOW_MS - HOUR_MS), huawei),
        (at(node1(), NOW_MS + HOUR_MS), huawei),
        (at(node1(), NOW_MS - 2 * HOUR_MS), Err(4)),
        (at(node1(), NOW_MS + 3 * HOUR_MS), Err(4)),
        // With sign 0 it does not matter.
        (Client::new("prod1_node1_0_0_2025041401", "prod1_node1", old), huawei),
        (Client::new("prod1_node1_0_1_2025041401", "prod1_node1", old), Err(4)),
        // Wrong or missing.
        (Client::new("prod1_node1_0_0_2025041402", "prod1_node1", old), Err(4)),
        (Client::new("prod1_node1_0_0_2025041401", "prod1_node1", "12345678"), Err(4)),
        (Client { password: None, ..node1() }, Err(4)),
        (Client { username: None, ..node1() }, Err(4)),
        (Client { username: Some("prod1_node2".into()), ..node1() }, Err(4)),
        (Client::new("prod1_nobody_0_0_2025041401", "prod1_nobody", old), Err(4)),
        (Client::new("sensor-001_0_0_2025041401", "a1B2c3D4e5F_sensor-001", old), Err(4)),
        // Malformed.
        (Client::new("prod1_node1", "prod1_node1", old), Err(2)),
        (Client::new("prod1_node1_0_0", "prod1_node1", old), Err(2)),
        (Client::new("prod1_node1_0_0_", "prod1_node1", old), Err(2)),
        (Client::new("prod1_node1_2_0_2025041401", "prod1_node1", old), Err(2)),
        (Client::new("prod1_node1_0_2_2025041401", "prod1_node1", old), Err(2)),
        (Client::new("prod1_node1_0_3_2025041401", "prod1_node1", old), Err(2)),
        // Of devices that want to be provisioned.
        (Client { password: None, ..Client::new("new_0_scope", "new", "") }, Err(2)),
        (Client::new("new_0_scope_1_2025041401", "new", old), Err(2)),
        // Keep alive.
        (Client { keep_alive_s: 0, ..node1() }, Err(2)),
        (Client { keep_alive_s: 29, ..node1() }, Err(2)),
        (Client { keep_alive_s: 30, ..node1() }, huawei),
        (Client { keep_alive_s: 1200, ..node1() }, huawei),
        (Client { keep_alive_s: 1201, ..node1() }, Err(2)),
        // Sub-devices come by their gateway.
        (Client::new("prod1_sub1_0_0_2025041401", "prod1_sub1", old), Err(5)),
        // Not Huawei's.
        (Client::new("ann_0_1", "ann", "ann's"), Ok(Dialect::Generic)),
        (Client::new("prod1_node1_0_1_20261121", "ann", "ann's"), Ok(Dialect::Generic)),
        (Client::new("x", "stranger", old), Err(4)),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{client:?}");
    }
}

#[test]
fn reasons_of_mqtt_5() {
    let registry = registry();
    let reason = |client: &Client| client.admit(&registry).unwrap_err().reason;
    assert_eq!(reason(&Client { keep_alive_s: 10, ..node1() }), ReasonCode::ClientIdentifierNotValid);
    assert_eq!(reason(&Client { password: None, ..node1() }), ReasonCode::BadUserNameOrPassword);
    assert_eq!(reason(&Client { shown: None, ..x509() }), ReasonCode::NotAuthorized);
}

#[test]
fn the_device_decides() {
    let mut registry = registry();
    alter(&mut registry, "prod1_node1", |device| {
        device.auth.secondary_secret = device.auth.secret.replace(Secret::new("another one"));
    });
    assert_eq!(node1().outcome(&registry), Ok(Dialect::Huawei), "by its secondary secret");
    alter(&mut registry, "prod1_node1", |device| device.auth.secure_access = true);
    assert_eq!(node1().outcome(&registry), Err(5));
    assert_eq!(Client { encrypted: true, ..node1() }.outcome(&registry), Ok(Dialect::Huawei));
    alter(&mut registry, "prod1_node1", |device| device.frozen = true);
    assert_eq!(Client { encrypted: true, ..node1() }.outcome(&registry), Err(5));
    assert_eq!(Client { password: Some("guess".into()), ..node1() }.outcome(&registry), Err(4));
}

#[test]
fn certificates() {
    let mut registry = registry();
    // The first one is kept.
    let admission = x509().admit(&registry).unwrap();
    assert_eq!(admission.changes.len(), 1);
    apply(&mut registry, &admission.changes[0]);
    let kept = |registry: &Registry| registry.device("prod1_x509").unwrap().0.record.auth.fingerprint.clone();
    assert_eq!(kept(&registry).as_deref(), Some(CERTIFICATE_SHA256));
    assert!(x509().admit(&registry).unwrap().changes.is_empty());
    let trusted = crate::Shown { trusted: true, ..shown(&[]) };
    for (what, client, outcome) in [
        ("authority of all", Client { shown: Some(shown(&["any"])), ..x509() }, Ok(Dialect::Huawei)),
        ("of the listener", Client { shown: Some(trusted), ..x509() }, Ok(Dialect::Huawei)),
        ("vouched for by nobody", Client { shown: Some(shown(&[])), ..x509() }, Err(5)),
        ("by somebody unknown", Client { shown: Some(shown(&["gone"])), ..x509() }, Err(5)),
        ("none", Client { shown: None, ..x509() }, Err(5)),
        ("a secret instead", Client { password: node1().password, shown: None, ..x509() }, Err(5)),
        ("no TLS", Client { encrypted: false, ..x509() }, Err(5)),
        ("of a device with a secret", Client { shown: x509().shown, password: None, ..node1() }, Err(4)),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{what}");
    }
    for (first, second, outcome) in [
        (Some(CERTIFICATE_SHA1), None, Ok(Dialect::Huawei)),
        (None, Some(CERTIFICATE_SHA256), Ok(Dialect::Huawei)),
        (Some("00"), Some(CERTIFICATE_SHA1), Ok(Dialect::Huawei)),
        (Some("00"), None, Err(5)),
        (None, Some(""), Err(5)),
    ] {
        alter(&mut registry, "prod1_x509", |device| {
            device.auth = certificate_only();
            device.auth.fingerprint = first.map(Into::into);
            device.auth.secondary_fingerprint = second.map(Into::into);
        });
        assert_eq!(x509().outcome(&registry), outcome, "{first:?} {second:?}");
    }
    // An authority of another product vouches for nothing here.
    let authority = Authority { id: "of another".into(), product_id: "ABCDE12345".into(), ..any_authority(&registry) };
    put(&mut registry, Record::Authority(authority.into()));
    alter(&mut registry, "prod1_x509", |device| device.auth = certificate_only());
    assert_eq!(Client { shown: Some(shown(&["of another"])), ..x509() }.outcome(&registry), Err(5));
}

#[test]
fn manners() {
    let admission = admitted(&registry());
    let manners = admission.manners;
    assert_eq!((&*admission.identity, manners.qos_max), ("prod1_node1", QoS::AtLeastOnce));
    assert!(manners.no_will && manners.no_retain && manners.clean && !manners.mute_oversize);
    assert_eq!(admission.oversize.map(|(bytes, _)| bytes), Some(1 << 20));
}

#[test]
fn a_host_of_another_product_is_refused() {
    let registry = registry();
    for (host, outcome) in [
        ("anything.example", Ok(Dialect::Huawei)),
        ("prod1.iot.example", Ok(Dialect::Huawei)),
        ("A1b2C3D4E5F.iot-as-mqtt.example", Err(5)),
    ] {
        assert_eq!(Client { host: Some(host), ..node1() }.outcome(&registry), outcome, "{host}");
    }
}

#[test]
fn permissions() {
    let admission = admitted(&registry());
    let own = "$oc/devices/prod1_node1";
    for (becomes, rest) in [
        (Publishing::Platform, "/sys/messages/up"),
        (Publishing::Platform, "/sys/messages/up?request_id=a"),
        (Publishing::Platform, "/sys/properties/report"),
        (Publishing::Platform, "/sys/properties/report?encoding=gzip&request_id=1"),
        (Publishing::Platform, "/sys/gateway/sub_devices/properties/report"),
        (Publishing::Platform, "/sys/commands/response/request_id=1"),
        (Publishing::Platform, "/sys/properties/set/response/request_id=1"),
        (Publishing::Platform, "/sys/properties/get/response/request_id=1"),
        (Publishing::Platform, "/sys/shadow/get/request_id=1"),
        (Publishing::Platform, "/sys/events/up"),
        (Publishing::Platform, "/user/wpy"),
        (Publishing::Platform, "/user/a/b"),
        (Publishing::Deny, "/user/"),
        (Publishing::Deny, "/user"),
        (Publishing::Deny, ""),
        (Publishing::Deny, "/sys/messages/down"),
        (Publishing::Deny, "/sys/commands/request_id=1"),
        (Publishing::Deny, "/sys/properties/set/request_id=1"),
        (Publishing::Deny, "/sys/properties/get/request_id=1"),
        (Publishing::Deny, "/sys/shadow/get/response/request_id=1"),
        (Publishing::Deny, "/sys/events/down"),
        (Publishing::Deny, "/sys/bootstrap/up"),
        (Publishing::Deny, "/sys/messages/upper"),
    ] {
        assert_eq!(publishing(&admission, &format!("{own}{rest}")), becomes, "{rest}");
        assert_eq!(publishing(&admission, &format!("$oc/devices/prod1_node2{rest}")), Publishing::Deny, "{rest}");
    }
    for (becomes, topic) in [
        (Publishing::Deny, "$oc/devices/prod1_node11/sys/messages/up"),
        (Publishing::Deny, "$oc/devices/prod1_node1x/user/a"),
        (Publishing::Deny, "$oc/broadcast/all"),
        (Publishing::Deny, "$oc/bridges/1/x"),
        (Publishing::Deny, "$oc"),
        (Publishing::Deny, "$SYS/broker"),
        (Publishing::Deny, "$share/g/a"),
        (Publishing::Deny, "$shadow/operation/ABCDE12345/dev001"),
        (Publishing::Deny, "$sys/operation/result/ABCDE12345/dev001"),
        (Publishing::Route, "rooms/1/temperature"),
        (Publishing::Route, "/rooms/1"),
        (Publishing::Route, "users/foobar/device"),
        (Publishing::Deny, "users/foobar/devices"),
        (Publishing::Deny, "/users/foobar/devices"),
        (Publishing::Deny, "ABCDE12345/dev001/control"),
        (Publishing::Deny, "ABCDE12345/dev001/data"),
        (Publishing::Deny, "/a1B2c3D4e5F/sensor-001/user/get"),
        (Publishing::Deny, "/sys/a1B2c3D4e5F/sensor-001/thing/service/property/set"),
        (Publishing::Deny, "/ext/rrpc/1/sys/a1B2c3D4e5F/sensor-001/thing/service/x"),
        (Publishing::Deny, "/ota/device/upgrade/a1B2c3D4e5F/sensor-001"),
        (Publishing::Deny, "/shadow/get/a1B2c3D4e5F/sensor-001"),
        (Publishing::Deny, "/broadcast/a1B2c3D4e5F/all"),
    ] {
        assert_eq!(publishing(&admission, topic), becomes, "{topic}");
    }
    for (granted, filter) in [
        (true, "$oc/devices/prod1_node1/sys/messages/down"),
        (true, "$oc/devices/prod1_node1/sys/commands/#"),
        (true, "$oc/devices/prod1_node1/sys/properties/+/#"),
        (true, "$oc/devices/prod1_node1/user/+"),
        (true, "$oc/devices/prod1_node1/#"),
        (true, "$oc/broadcast/all"),
        (true, "$oc/broadcast/#"),
        (false, "$oc/devices/prod1_node2/sys/messages/down"),
        (false, "$oc/devices/prod1_node11/#"),
        (false, "$oc/devices/+/sys/messages/down"),
        (false, "$oc/devices/#"),
        (false, "$oc/+/prod1_node1/sys/messages/down"),
        (false, "$oc/#"),
        (false, "$share/g/$oc/devices/prod1_node2/#"),
        (false, "$SYS/#"),
        (true, "rooms/#"),
        (true, "rooms/+/temperature"),
        (true, "$share/g/rooms/#"),
        (true, "/rooms/#"),
        // They would hear what devices of other dialects say.
        (false, "#"),
        (false, "+/dev001/data"),
        (false, "/#"),
        (false, "/+/sensor-001/user/update"),
        (false, "ABCDE12345/dev001/data"),
        (false, "$share/g/ABCDE12345/#"),
        (false, "/a1B2c3D4e5F/sensor-001/user/update"),
        (false, "/sys/a1B2c3D4e5F/#"),
        (false, "users/foobar/devices"),
        (false, "users/#"),
        (false, "/users/+/devices"),
    ] {
        assert_eq!(may_subscribe(&admission, filter), granted, "{filter}");
    }
    let implicit = |topic: &str| admission.voice.implicit(&TopicName::new(topic).unwrap());
    for down in [
        "/sys/messages/down",
        "/sys/commands/request_id=1",
        "/sys/properties/set/request_id=1",
        "/sys/properties/get/request_id=1",
        "/sys/shadow/get/response/request_id=1",
        "/sys/events/down",
    ] {
        assert_eq!(implicit(&format!("{own}{down}")), Some(QoS::AtMostOnce), "{down}");
        assert_eq!(implicit(&format!("$oc/devices/prod1_node2{down}")), None, "{down}");
    }
    assert_eq!(implicit(&format!("{own}/user/messageDown")), None);
    assert_eq!(implicit("rooms/1"), None);
}

proptest! {
    #[test]
    fn no_connect_panics(
        id in "(prod1_node1)?[_0-2a-z]{0,20}\\PC{0,5}",
        name in "(prod1_node1)?\\PC{0,6}",
        secret in "\\PC{0,70}",
        now_ms: u64,
    ) {
        let registry = registry();
        let _ = Client { now_ms, ..Client::new(&id, &name, &secret) }.outcome(&registry);
    }
}
