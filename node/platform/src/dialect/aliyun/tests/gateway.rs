use serde_json::json;

use super::*;
use crate::dialect::crypto::{Digest, hmac};
use crate::dialect::{Publishing, Subscribing};

const SESSION: &str = "/ext/session/a1B2c3D4e5F/sensor-001/combine";
const TOPO: &str = "/sys/a1B2c3D4e5F/sensor-001/thing";

/// What a sub-device signs, with the secret that it says.
fn signed(key: &str, name: &str, secret: &str) -> Value {
    let client_id = format!("{name}|securemode=2,signmethod=hmacsha1|");
    let content = format!("clientId{client_id}deviceName{name}productKey{key}timestamp1581417203000");
    json!({
        "productKey": key, "deviceName": name, "clientId": client_id, "timestamp": "1581417203000",
        "signMethod": "hmacSha1", "sign": hex::encode_upper(hmac(Digest::Sha1, secret.as_bytes(), content.as_bytes())),
        "cleanSession": "true",
    })
}

fn ask(voice: &dyn Voice, registry: &Registry, to: &str, params: &Value) -> (u64, Value, Answers) {
    let request = json!({"id": "9", "version": "1.0", "params": params}).to_string();
    let answers = send(voice, registry, to, &request);
    let reply = json(&answers.downlinks[0]);
    assert_eq!(answers.downlinks[0].topic.as_str(), format!("{to}_reply"));
    assert_eq!(reply["id"], "9");
    (reply["code"].as_u64().unwrap(), reply["data"].clone(), answers)
}

fn speaks(voice: &dyn Voice, key: &str, name: &str) -> bool {
    let texts = [
        (format!("/sys/{key}/{name}/thing/event/property/post"), Publishing::Platform),
        (format!("/ota/device/inform/{key}/{name}"), Publishing::Platform),
    ];
    let publishes = texts.map(|(text, becomes)| voice.publishing(&topic(&text)) == becomes);
    let hears = [format!("/sys/{key}/{name}/thing/service/property/set"), format!("/sys/{key}/{name}/#")]
        .map(|text| voice.subscribing(&filter(&text)) != Subscribing::Deny);
    let implicit = voice.implicit(&topic(&format!("/sys/{key}/{name}/thing/service/property/set"))).is_some();
    assert!([publishes[1], hears[0], hears[1], implicit].iter().all(|may| *may == publishes[0]));
    assert_eq!(voice.publishing(&topic(&format!("/ext/session/{key}/{name}/combine/login"))), Publishing::Deny);
    publishes[0]
}

#[test]
fn a_gateway_speaks_for_whom_it_has_logged_in() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let voice = &*voice;
    let (login, logout) = (format!("{SESSION}/login"), format!("{SESSION}/logout"));
    assert!(!speaks(voice, OWN, "d1"));
    let mut tampered = signed(OWN, "d1", DS);
    tampered["timestamp"] = json!("1");
    let mut unsigned = signed(OWN, "d1", DS);
    unsigned["sign"] = Value::Null;
    for (params, code) in [
        (signed(OWN, "d1", "wrong"), 6287),
        (tampered, 6287),
        (unsigned, 460),
        (json!({}), 460),
        (Value::Null, 460),
        (signed(OWN, "nobody", DS), 6100),
        (signed("a1Unknown00", "d1", DS), 6100),
        (signed(HUAWEI, "d1", DS), 6100),
        (signed(PK, "frozen", DS), 6204),
        (signed(PK, DN, DS), 6402),
    ] {
        let (found, data, answers) = ask(voice, &registry, &login, &params);
        assert_eq!((found, data), (code, json!({})), "{params}");
        assert!(answers.problem.is_some());
    }
    assert!(!speaks(voice, OWN, "d1"));
    let (code, data, _) = ask(voice, &registry, &login, &signed(OWN, "d1", DS));
    assert_eq!((code, data), (200, json!({"productKey": OWN, "deviceName": "d1"})));
    assert!(speaks(voice, OWN, "d1") && !speaks(voice, PK, "sensor-002"));
    assert_eq!(
        voice.publishing(&topic("/c1Classes00/d1/user/up")),
        Publishing::Route,
        "the classes of its own product"
    );
    assert_eq!(voice.publishing(&topic("/c1Classes00/d1/update")), Publishing::Deny);

    let answers =
        send(voice, &registry, "/sys/c1Classes00/d1/thing/event/property/post", r#"{"id":"1","params":{"a":1}}"#);
    assert_eq!(&*answers.reports[0].device, "c1Classes00_d1");
    assert_eq!(answers.downlinks[0].topic.as_str(), "/sys/c1Classes00/d1/thing/event/property/post_reply");

    let names = json!({"productKey": OWN, "deviceName": "d1"});
    assert_eq!(ask(voice, &registry, &logout, &names).0, 200);
    assert!(!speaks(voice, OWN, "d1"));
    assert_eq!(ask(voice, &registry, &logout, &names).0, 520);

    // A sub-device that is disabled meanwhile is heard no more.
    ask(voice, &registry, &login, &signed(OWN, "d1", DS));
    put_device(&mut registry, Device { frozen: true, ..device(OWN, "d1", Some(DS)) });
    let answers =
        send(voice, &registry, "/sys/c1Classes00/d1/thing/event/property/post", r#"{"id":"1","params":{"a":1}}"#);
    assert!(answers.reports.is_empty() && answers.problem.is_some());
    assert!(!speaks(voice, OWN, "d1"));
}

#[test]
fn rights_of_a_sub_device_end_with_what_they_come_from() {
    let custom = topic("/c1Classes00/d1/user/up");
    let login = format!("{SESSION}/login");
    let gateway_id: Box<str> = format!("{PK}_{DN}").into();
    let sub = |gateway_id: &str| Device { gateway_id: gateway_id.into(), ..device(OWN, "d1", Some(DS)) };
    let prepared = || {
        let mut registry = registry();
        put_device(&mut registry, sub(&gateway_id));
        let voice = voice(&registry, true);
        assert!(!voice.speaks_for_others() && voice.stands(&topic("/a1B2c3D4e5F/sensor-001/user/up"), &registry));
        assert_eq!(ask(&*voice, &registry, &login, &signed(OWN, "d1", DS)).0, 200);
        assert!(voice.speaks_for_others() && voice.stands(&custom, &registry));
        (registry, voice)
    };
    let (registry, voice) = prepared();
    ask(&*voice, &registry, &format!("{SESSION}/logout"), &json!({"productKey": OWN, "deviceName": "d1"}));
    assert!(voice.speaks_for_others() && !voice.stands(&custom, &registry), "logged out");
    let delete = Change::Delete { kind: Kind::Device, id: "c1Classes00_d1".into(), expect: Expect::Anything };
    let moved = |gateway_id: &str| {
        let record = Record::Device(Arc::new(sub(gateway_id)));
        Change::Put { record, expect: Expect::Anything }
    };
    let frozen = Record::Device(Arc::new(Device { frozen: true, ..sub(&gateway_id) }));
    for change in
        [delete, moved("a1B2c3D4e5F_sensor-002"), moved(""), Change::Put { record: frozen, expect: Expect::Anything }]
    {
        let (mut registry, voice) = prepared();
        commit(&mut registry, std::slice::from_ref(&change));
        assert!(!voice.stands(&custom, &registry), "{change:?}");
        assert_eq!(voice.publishing(&custom), Publishing::Deny, "{change:?}");
        assert!(!speaks(&*voice, OWN, "d1"), "{change:?}");
        assert!(voice.stands(&topic("/a1B2c3D4e5F/sensor-001/user/up"), &registry), "its own stay");
    }
    // One that is on its way into the topology is let in at once, and stays.
    let mut registry = super::registry();
    let voice = super::voice(&registry, true);
    assert_eq!(ask(&*voice, &registry, &login, &signed(OWN, "d1", DS)).0, 200);
    for gateway in ["", &gateway_id] {
        commit(&mut registry, &[moved(gateway)]);
        assert!(voice.stands(&custom, &registry), "{gateway}");
    }
}

#[test]
fn batches_succeed_or_fail_as_a_whole() {
    let registry = registry();
    let voice = voice(&registry, true);
    let voice = &*voice;
    let (login, logout) = (format!("{SESSION}/batch_login"), format!("{SESSION}/batch_logout"));
    let (one, two) = (signed(OWN, "d1", DS), signed(PK, "sensor-002", "second secret"));
    let list = |devices: &[&Value]| json!({"deviceList": devices});
    assert_eq!(ask(voice, &registry, &login, &list(&[&one, &signed(PK, "sensor-002", "wrong")])).0, 6287);
    assert!(!speaks(voice, OWN, "d1"));
    let (code, data, _) = ask(voice, &registry, &login, &list(&[&one, &two]));
    let names = json!([{"productKey": OWN, "deviceName": "d1"}, {"productKey": PK, "deviceName": "sensor-002"}]);
    assert_eq!((code, &data), (200, &names));
    assert!(speaks(voice, OWN, "d1") && speaks(voice, PK, "sensor-002"));
    // An SDK for Python says the digest once for all.
    let mut bare = one.clone();
    bare.as_object_mut().unwrap().remove("signMethod");
    assert_eq!(ask(voice, &registry, &login, &list(&[&bare])).0, 6287, "MD5 where none is named");
    let once = json!({"signMethod": "hmacSha1", "deviceList": [bare]});
    assert_eq!(ask(voice, &registry, &login, &once).0, 200);
    assert_eq!(ask(voice, &registry, &login, &list(&[])).0, 460);
    assert_eq!(ask(voice, &registry, &login, &list(&[&one; 51])).0, 460);
    let stranger = json!([{"productKey": OWN, "deviceName": "d1"}, {"productKey": PK, "deviceName": "fresh"}]);
    assert_eq!(ask(voice, &registry, &logout, &stranger).0, 520);
    assert!(speaks(voice, OWN, "d1"));
    assert_eq!(ask(voice, &registry, &logout, &names).0, 200);
    assert!(!speaks(voice, OWN, "d1") && !speaks(voice, PK, "sensor-002"));
}

#[test]
fn the_topology_is_in_the_registry() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let voice = &*voice;
    let (add, delete, get) = (format!("{TOPO}/topo/add"), format!("{TOPO}/topo/delete"), format!("{TOPO}/topo/get"));
    assert_eq!(ask(voice, &registry, &get, &json!({})).1, json!([]));
    for (params, code) in [
        (json!([signed(OWN, "d1", "wrong")]), 6287),
        (json!([signed(PK, DN, DS)]), 6402),
        (json!([]), 460),
        (signed(OWN, "d1", DS), 460),
        (json!([signed(OWN, "d1", DS), signed(OWN, "d2", DS)]), 6100),
    ] {
        let (found, _, answers) = ask(voice, &registry, &add, &params);
        assert_eq!((found, answers.changes.len()), (code, 0), "{params}");
    }
    let both = json!([signed(OWN, "d1", DS), signed(PK, "sensor-002", "second secret")]);
    let (code, _, answers) = ask(voice, &registry, &add, &both);
    assert_eq!((code, answers.changes.len()), (200, 2));
    commit(&mut registry, &answers.changes);
    assert_eq!(ask(voice, &registry, &add, &both).2.changes, [], "they are already");
    let topology = json!([{"deviceName": "d1", "productKey": OWN}, {"deviceName": "sensor-002", "productKey": PK}]);
    assert_eq!(ask(voice, &registry, &get, &json!({})).1, topology);
    ask(voice, &registry, &format!("{SESSION}/login"), &signed(OWN, "d1", DS));
    assert!(speaks(voice, OWN, "d1"));
    let names = json!([{"productKey": OWN, "deviceName": "d1"}, {"productKey": PK, "deviceName": "fresh"}]);
    let (code, _, answers) = ask(voice, &registry, &delete, &names);
    assert_eq!((code, answers.changes.len()), (200, 1));
    commit(&mut registry, &answers.changes);
    assert!(!speaks(voice, OWN, "d1"));
    assert_eq!(ask(voice, &registry, &get, &json!({})).1, json!([{"deviceName": "sensor-002", "productKey": PK}]));
}

#[test]
fn sub_devices_get_their_secrets_through_their_gateway() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let voice = &*voice;
    let register = format!("{TOPO}/sub/register");
    let fresh = json!([{"productKey": PK, "deviceName": "fresh"}]);
    assert_eq!(ask(voice, &registry, &register, &fresh).0, 403, "another's");
    let gateway_id: Box<str> = format!("{PK}_{DN}").into();
    put_device(&mut registry, Device { gateway_id: gateway_id.clone(), ..device(PK, "fresh", None) });
    let (code, data, answers) = ask(voice, &registry, &register, &fresh);
    assert_eq!(code, 200);
    commit(&mut registry, &answers.changes);
    let kept = registry.device_of(PK, "fresh").unwrap().0;
    let secret = kept.record.auth.secret.as_ref().unwrap().expose();
    assert_eq!(
        data,
        json!([{"deviceName": "fresh", "deviceSecret": secret, "iotId": kept.oid.to_string(), "productKey": PK}])
    );
    activate(&mut registry, &format!("{PK}_fresh"));
    assert_eq!(ask(voice, &registry, &register, &fresh).0, 403, "it was connected");
    put_device(&mut registry, Device { gateway_id, ..device(OWN, "d1", Some(DS)) });
    assert_eq!(
        ask(voice, &registry, &register, &json!([{"productKey": OWN, "deviceName": "d1"}])).0,
        403,
        "not its product"
    );
    assert_eq!(ask(voice, &registry, &register, &json!([{"productKey": PK, "deviceName": "nobody"}])).0, 6100);
}

#[test]
fn devices_register_through_a_gateway_with_their_products_secret() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let voice = &*voice;
    let to = format!("{TOPO}/proxy/provisioning/product_register");
    let proxied = |key: &str, name: &str, secret: &str| {
        let content = format!("deviceName{name}productKey{key}randomr1");
        let sign = hex::encode(hmac(Digest::Md5, secret.as_bytes(), content.as_bytes()));
        json!({"productKey": key, "deviceName": name, "random": "r1", "signMethod": "HmacMd5", "sign": sign})
    };
    let all = json!({"proxieds": [
        proxied(OPEN, "new-device", PS), proxied(OPEN, "other-device", "wrong"), proxied(PK, "nobody", PS), proxied(PK, DN, PS),
    ]});
    let (code, data, answers) = ask(voice, &registry, &to, &all);
    assert_eq!(code, 200);
    commit(&mut registry, &answers.changes);
    let secret = registry.device_of(OPEN, "new-device").unwrap().0.record.auth.secret.clone().unwrap();
    assert_eq!(
        data["successes"],
        json!([{"deviceName": "new-device", "deviceSecret": secret.expose(), "productKey": OPEN}])
    );
    let codes: Vec<u64> = data["failures"].as_array().unwrap().iter().map(|it| it["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [6287, 6100, 403]);
    let twice = json!({"proxieds": [proxied(OPEN, "device-2", PS), proxied(OPEN, "device-2", PS)]});
    for bad in [twice, json!({}), json!({"proxieds": []}), json!({"proxieds": [7]})] {
        let (code, _, answers) = ask(voice, &registry, &to, &bad);
        assert_eq!((code, answers.changes.len()), (460, 0), "{bad}");
    }
}

#[test]
fn sub_devices_are_bounded() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let login = format!("{SESSION}/batch_login");
    let devices: Vec<Value> = (0..2001)
        .map(|at| format!("sub-{at}"))
        .map(|name| {
            put_device(&mut registry, device(PK, &name, Some(DS)));
            signed(PK, &name, DS)
        })
        .collect();
    for (at, batch) in devices.chunks(50).enumerate() {
        let code = if at < 40 { 200 } else { 428 };
        assert_eq!(ask(&*voice, &registry, &login, &json!({"deviceList": batch})).0, code, "{at}");
    }
    assert!(speaks(&*voice, PK, "sub-1999") && !speaks(&*voice, PK, "sub-2000"));
    assert_eq!(ask(&*voice, &registry, &login, &json!({"deviceList": [devices[0]]})).0, 200, "it is logged in already");
}
