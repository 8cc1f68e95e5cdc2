use fulmar_mqtt::QoS;

use super::*;
use crate::dialect::{Publishing, Subscribing};

/// What follows `/sys/{pk}/{dn}`: what a device may publish to, and what it is sent.
const SYSTEM: [(&str, bool, bool); 44] = [
    ("/thing/event/property/post", true, false),
    ("/thing/event/alarm/post", true, false),
    ("/thing/event/property/batch/post", true, false),
    ("/thing/model/up_raw", true, false),
    ("/thing/event/property/post_reply", false, true),
    ("/thing/event/alarm/post_reply", false, true),
    ("/thing/event/property/batch/post_reply", false, true),
    ("/thing/model/up_raw_reply", false, true),
    ("/thing/service/property/set", false, true),
    ("/thing/service/reboot", false, true),
    ("/thing/model/down_raw", false, true),
    ("/thing/service/property/set_reply", true, false),
    ("/thing/service/reboot_reply", true, false),
    ("/thing/model/down_raw_reply", true, false),
    ("/thing/deviceinfo/update", true, false),
    ("/thing/deviceinfo/update_reply", false, true),
    ("/thing/deviceinfo/delete", true, false),
    ("/thing/deviceinfo/delete_reply", false, true),
    ("/thing/property/desired/get", true, false),
    ("/thing/property/desired/get_reply", false, true),
    ("/thing/property/desired/delete", true, false),
    ("/thing/property/desired/delete_reply", false, true),
    ("/thing/config/get", true, false),
    ("/thing/config/get_reply", false, true),
    ("/thing/config/push", false, true),
    ("/thing/config/push_reply", true, false),
    ("/thing/topo/add", true, false),
    ("/thing/topo/add_reply", false, true),
    ("/thing/topo/delete", true, false),
    ("/thing/topo/delete_reply", false, true),
    ("/thing/topo/get", true, false),
    ("/thing/topo/get_reply", false, true),
    ("/thing/topo/change", false, true),
    ("/thing/sub/register", true, false),
    ("/thing/sub/register_reply", false, true),
    ("/thing/proxy/provisioning/product_register", true, false),
    ("/thing/proxy/provisioning/product_register_reply", false, true),
    ("/thing/ota/firmware/get", true, false),
    ("/thing/ota/firmware/get_reply", false, true),
    ("/thing/log/post", true, false),
    ("/rrpc/request/123", false, true),
    ("/rrpc/response/123", true, false),
    ("/rrpc/response/1/2", false, false),
    ("/elsewhere", false, false),
];

/// Others, with `{}` for product key and device name.
const OTHERS: [(&str, bool, bool); 25] = [
    ("/ext/session/{}/combine/login", true, false),
    ("/ext/session/{}/combine/login_reply", false, true),
    ("/ext/session/{}/combine/logout", true, false),
    ("/ext/session/{}/combine/logout_reply", false, true),
    ("/ext/session/{}/combine/batch_login", true, false),
    ("/ext/session/{}/combine/batch_login_reply", false, true),
    ("/ext/session/{}/combine/batch_logout", true, false),
    ("/ext/session/{}/combine/batch_logout_reply", false, true),
    ("/ext/session/{}/combine/other", false, false),
    ("/ota/device/inform/{}", true, false),
    ("/ota/device/progress/{}", true, false),
    ("/ota/device/upgrade/{}", false, true),
    ("/ota/device/request/{}", true, true),
    ("/ota/device/other/{}", false, false),
    ("/shadow/update/{}", true, false),
    ("/shadow/get/{}", false, true),
    ("/ext/ntp/{}/request", true, false),
    ("/ext/ntp/{}/response", false, true),
    ("/ext/rrpc/77/sys/{}/thing/service/reboot", true, true),
    ("/ext/rrpc/77/{}/user/get", true, false),
    ("/ext/rrpc//sys/{}/thing/service/reboot", false, false),
    ("/ext/rrpc/1/ext/rrpc/2/{}/x", false, false),
    ("/ext/other/{}/request", false, false),
    ("/ota/device/inform/{}/more", false, false),
    ("sys/{}/thing/event/property/post", false, false),
];

fn all(owner: &str) -> Vec<(String, bool, bool)> {
    let system = SYSTEM.iter().map(|(tail, up, down)| (format!("/sys/{owner}{tail}"), *up, *down));
    system.chain(OTHERS.iter().map(|(text, up, down)| (text.replace("{}", owner), *up, *down))).collect()
}

fn publishing(voice: &dyn Voice, text: &str) -> Publishing {
    voice.publishing(&topic(text))
}

fn may_subscribe(voice: &dyn Voice, text: &str) -> bool {
    match voice.subscribing(&filter(text)) {
        Subscribing::Grant(qos) => {
            assert_eq!(qos, QoS::AtLeastOnce);
            true
        }
        Subscribing::Deny => false,
    }
}

#[test]
fn the_platforms_topics() {
    let registry = registry();
    let (plain, auto) = (voice(&registry, false), voice(&registry, true));
    for (text, up, down) in all("a1B2c3D4e5F/sensor-001") {
        let becomes = if up { Publishing::Platform } else { Publishing::Deny };
        assert_eq!(publishing(&*plain, &text), becomes, "{text}");
        assert_eq!(auto.implicit(&topic(&text)), down.then_some(QoS::AtLeastOnce), "{text}");
        assert_eq!(plain.implicit(&topic(&text)), None, "{text}");
        assert!(!down || may_subscribe(&*plain, &text), "{text}");
    }
    // The same of others is nobody's.
    for owner in [
        "a1B2c3D4e5F/sensor-002",
        "a1B2c3D4e5F/sensor-0011",
        "a1B2c3D4e5F/SENSOR-001",
        "b1Open00000/sensor-001",
        "/",
        "a1B2c3D4e5F/",
    ] {
        for (text, ..) in all(owner) {
            assert_eq!(publishing(&*auto, &text), Publishing::Deny, "{text}");
            assert_eq!(auto.implicit(&topic(&text)), None, "{text}");
            assert!(!may_subscribe(&*auto, &text), "{text}");
        }
    }
}

#[test]
fn custom_topics_follow_their_classes() {
    let mut registry = registry();
    let default = voice(&registry, true);
    put_device(&mut registry, device(OWN, DN, Some(DS)));
    let sign = {
        use crate::dialect::crypto::{Digest, hmac};
        let content = format!("clientIddev-ciddeviceName{DN}productKey{OWN}");
        hex::encode(hmac(Digest::Sha1, DS.as_bytes(), content.as_bytes()))
    };
    let own =
        Coming { username: &format!("{DN}&{OWN}"), password: &sign, ..Coming::default() }.admitted(&registry).voice;
    for (voice, key, tail, publish, subscribe) in [
        (&default, PK, "update", true, false),
        (&default, PK, "update/error", true, false),
        (&default, PK, "get", false, true),
        (&default, PK, "user/update", true, false),
        (&default, PK, "user/update/error", true, false),
        (&default, PK, "user/get", false, true),
        (&default, PK, "user/other", false, false),
        (&default, PK, "", false, false),
        (&own, OWN, "update", false, false),
        (&own, OWN, "user/up", true, false),
        (&own, OWN, "user/up/more", false, false),
        (&own, OWN, "user/down/x", false, true),
        (&own, OWN, "user/down/x/y", false, false),
        (&own, OWN, "user/down", false, false),
        (&own, OWN, "user/data", true, true),
    ] {
        let text = format!("/{key}/{DN}/{tail}");
        let becomes = if publish { Publishing::Route } else { Publishing::Deny };
        assert_eq!(publishing(&**voice, &text), becomes, "{text}");
        assert_eq!(may_subscribe(&**voice, &text), subscribe, "{text}");
        assert_eq!(voice.implicit(&topic(&text)), None, "{text}");
        let other = text.replace(DN, "sensor-002");
        assert!(publishing(&**voice, &other) == Publishing::Deny && !may_subscribe(&**voice, &other), "{other}");
    }
    assert!(may_subscribe(&*own, "/c1Classes00/sensor-001/user/down/+"));
    assert!(
        !may_subscribe(&*own, "/c1Classes00/sensor-001/user/+/x") && !may_subscribe(&*own, "/c1Classes00/sensor-001/#")
    );
}

#[test]
fn wildcards_stay_inside_the_devices_own_space() {
    let registry = registry();
    let voice = voice(&registry, false);
    for (text, granted) in [
        ("/sys/a1B2c3D4e5F/sensor-001/thing/event/+/post_reply", true),
        ("/sys/a1B2c3D4e5F/sensor-001/rrpc/request/+", true),
        ("/sys/a1B2c3D4e5F/sensor-001/#", true),
        ("/sys/a1B2c3D4e5F/sensor-001/thing/#", true),
        ("/ext/rrpc/+/sys/a1B2c3D4e5F/sensor-001/thing/service/+", true),
        ("/ext/rrpc/+/a1B2c3D4e5F/sensor-001/user/get", true),
        ("/ota/device/+/a1B2c3D4e5F/sensor-001", true),
        ("/ext/session/a1B2c3D4e5F/sensor-001/combine/+", true),
        ("/broadcast/a1B2c3D4e5F/news", true),
        ("/broadcast/a1B2c3D4e5F/+", true),
        ("/broadcast/b1Open00000/news", false),
        ("/broadcast/+/news", false),
        ("#", false),
        ("/#", false),
        ("+/#", false),
        ("/sys/#", false),
        ("/sys/a1B2c3D4e5F/#", false),
        ("/sys/a1B2c3D4e5F/+/thing/event/property/post_reply", false),
        ("/sys/+/sensor-001/thing/event/property/post_reply", false),
        ("/+/a1B2c3D4e5F/sensor-001/#", false),
        ("/+/+/get", false),
        ("/a1B2c3D4e5F/sensor-001/+", false),
        ("/a1B2c3D4e5F/+/get", false),
        ("/ext/rrpc/+/#", false),
        ("/ext/rrpc/#", false),
        ("/ext/rrpc/+/+/a1B2c3D4e5F/sensor-001/get", false),
        ("/ota/device/upgrade/a1B2c3D4e5F/+", false),
        ("/shadow/get/#", false),
        ("$SYS/#", false),
        ("$share/g/sys/a1B2c3D4e5F/sensor-001/rrpc/request/+", false),
        ("$share/g//sys/a1B2c3D4e5F/sensor-001/rrpc/request/+", false),
    ] {
        assert_eq!(may_subscribe(&*voice, text), granted, "{text}");
    }
    assert_eq!(publishing(&*voice, "/broadcast/a1B2c3D4e5F/news"), Publishing::Deny);
}
