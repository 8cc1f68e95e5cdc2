use super::super::http::{failed, named, plain, pre_authenticate, register, throttled};
use super::*;
use crate::dialect::crypto::{Digest, hmac};
use crate::registry::Endpoint;

type Form = Vec<(String, String)>;

fn form(fields: &[(&str, &str)]) -> Form {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// As it was captured.
fn captured() -> Form {
    form(&[
        ("productKey", PK),
        ("deviceName", DN),
        ("clientId", "dev-cid"),
        ("signmethod", "hmacsha1"),
        ("resources", "mqtt"),
        ("timestamp", "1795228015"),
        ("sign", "71336a51fc6a3f4236600ff7c8a36cbc27b24f7b"),
    ])
}

fn set(form: &Form, name: &str, value: &str) -> Form {
    let mut form = form.clone();
    form.iter_mut().filter(|(key, _)| key == name).for_each(|(_, old)| *old = value.to_owned());
    form
}

fn code(answer: &str) -> u64 {
    assert!(answer.starts_with("{\"code\":") && answer.len() < 300, "{answer}");
    serde_json::from_str::<Value>(answer).unwrap()["code"].as_u64().unwrap()
}

fn ask(form: &Form, registry: &Registry) -> String {
    pre_authenticate(form, registry, &Options::default(), NOW)
}

#[test]
fn the_captured_request_is_answered_to_the_byte() {
    let registry = registry();
    let answer = ask(&captured(), &registry);
    let value: Value = serde_json::from_str(&answer).unwrap();
    let (id, token) = (value["data"]["iotId"].as_str().unwrap(), value["data"]["iotToken"].as_str().unwrap());
    assert_eq!(
        answer,
        format!(
            r#"{{"code":200,"data":{{"iotId":"{id}","iotToken":"{token}","resources":{{"mqtt":{{"host":"localhost","port":1883}}}}}},"message":"success"}}"#
        )
    );
    assert_eq!(code(&answer), 200);
    assert!(id.len() == 24 && token.len() == 64);
}

#[test]
fn whatever_is_wrong_answers_400() {
    let registry = registry();
    let right = captured();
    for wrong in [
        set(&right, "productKey", "a1Unknown00"),
        set(&right, "productKey", HUAWEI),
        set(&right, "deviceName", "nobody"),
        set(&right, "deviceName", "sensor-002"),
        set(&right, "deviceName", "fresh"),
        set(&right, "sign", "71336a51fc6a3f4236600ff7c8a36cbc27b24f7c"),
        set(&right, "timestamp", "1795228016"),
        set(&right, "signmethod", "rot13"),
        set(&right, "sign", ""),
        set(&right, "clientId", ""),
        form(&[]),
    ] {
        assert_eq!(ask(&wrong, &registry), r#"{"code":400,"message":"request error"}"#, "{wrong:?}");
    }
    // Of the device, wrong secret and all, nothing else is told.
    assert_eq!(code(&ask(&set(&right, "deviceName", "frozen"), &registry)), 400);
    let sign = hex::encode(hmac(
        Digest::Sha1,
        DS.as_bytes(),
        b"clientIddev-ciddeviceNamefrozenproductKeya1B2c3D4e5Ftimestamp1795228015",
    ));
    assert_eq!(code(&ask(&set(&set(&right, "deviceName", "frozen"), "sign", &sign), &registry)), 403);
    let mut keyless = Registry::default();
    assert_eq!(code(&ask(&right, &keyless)), 400);
    let app = App { id: "app".into(), name: "app".into(), default: true, created_ms: 1 };
    put(&mut keyless, Record::App(Arc::new(app)));
    put(&mut keyless, Record::Product(registry.product(PK).unwrap().record.clone()));
    put_device(&mut keyless, device(PK, DN, Some(DS)));
    assert_eq!(code(&ask(&right, &keyless)), 503);
    assert_eq!((code(&failed()), code(&plain()), code(&throttled())), (500, 403, 429));
}

#[test]
fn every_other_field_is_signed_and_names_are_sorted() {
    let registry = registry();
    let mut shuffled = captured();
    shuffled.reverse();
    shuffled.push(("version".to_owned(), "default".to_owned()));
    assert_eq!(code(&ask(&shuffled, &registry)), 200);
    let renamed: Form =
        shuffled.iter().map(|(name, value)| (name.replace("signmethod", "signMethod"), value.clone())).collect();
    assert_eq!(code(&ask(&renamed, &registry)), 200);
    shuffled.push(("extra".to_owned(), "1".to_owned()));
    assert_eq!(code(&ask(&shuffled, &registry)), 400);
}

#[test]
fn device_product_and_settings_say_where_to_go() {
    let mut registry = registry();
    let endpoint = |host: &str| Some(Endpoint { host: host.into(), port: 8883 });
    let longest = "h".repeat(63);
    let options = Options { endpoint: endpoint(&longest), ..Options::default() };
    let host = |registry: &Registry| {
        let answer = pre_authenticate(&captured(), registry, &options, NOW);
        assert_eq!(code(&answer), 200);
        let value: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(value["data"]["resources"]["mqtt"]["port"], 8883);
        value["data"]["resources"]["mqtt"]["host"].as_str().unwrap().to_owned()
    };
    assert_eq!(host(&registry), longest);
    let product = (*registry.product(PK).unwrap().record).clone();
    put(&mut registry, Record::Product(Arc::new(Product { endpoint: endpoint("of.product"), ..product })));
    assert_eq!(host(&registry), "of.product");
    put_device(&mut registry, Device { endpoint: endpoint("of.device"), ..device(PK, DN, Some(DS)) });
    assert_eq!(host(&registry), "of.device");
}

/// `iotId` and `iotToken`.
fn credentials(registry: &Registry) -> (String, String) {
    let value: Value = serde_json::from_str(&ask(&captured(), registry)).unwrap();
    let text = |name: &str| value["data"][name].as_str().unwrap().to_owned();
    (text("iotId"), text("iotToken"))
}

#[test]
fn the_token_opens_mqtt_for_seven_days() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let registry = registry();
    let (id, token) = credentials(&registry);
    let coming = |now_ms| Coming { client_id: "dev-cid", username: &id, password: &token, now_ms, ..Coming::default() };
    for client_id in ["dev-cid", "dev-cid|securemode=-1,timestamp=2524608000000,signmethod=hmacsha1,gw=0|"] {
        let admission = Coming { client_id, ..coming(NOW) }.admitted(&registry);
        assert_eq!(&*admission.identity, "a1B2c3D4e5F_sensor-001");
        assert_eq!(admission.exclusive_client_id.as_deref(), Some("dev-cid"));
    }
    for (now_ms, expected) in
        [(NOW, 0), (NOW + 7 * DAY_MS - 1000, 0), (NOW + 7 * DAY_MS, 4), (NOW + 70 * DAY_MS, 4), (NOW - DAY_MS, 0)]
    {
        assert_eq!(coming(now_ms).code(&registry), Some(expected), "{now_ms}");
    }
    assert_eq!(Coming { keep_alive_s: 20, ..coming(NOW) }.code(&registry), Some(2));
    assert_eq!(Coming { client_id: "|", ..coming(NOW) }.code(&registry), Some(2));
}

#[test]
fn a_token_is_good_for_one_device_with_one_secret() {
    let mut registry = registry();
    let (id, token) = credentials(&registry);
    let code = |registry: &Registry, id: &str, token: &str| {
        Coming { client_id: "dev-cid", username: id, password: token, ..Coming::default() }.code(registry)
    };
    assert_eq!(code(&registry, &id, &token), Some(0));
    // Altered anywhere, it is worth nothing: the time, too.
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(code(&registry, &id, std::str::from_utf8(&altered).unwrap()), Some(4), "{at}");
    }
    for wrong in ["", "0", "00000000", token.split_at(63).0, &format!("{token}0"), "é".repeat(32).as_str()] {
        assert_eq!(code(&registry, &id, wrong), Some(4), "{wrong}");
    }
    let other = registry.device(&format!("{PK}_sensor-002")).unwrap().0.oid.to_string();
    assert_eq!(code(&registry, &other, &token), Some(4), "another device's");
    put_device(&mut registry, Device { frozen: true, ..device(PK, DN, Some(DS)) });
    assert_eq!(code(&registry, &id, &token), Some(5), "disabled since");
    let with_second = |second: &str| {
        let device = device(PK, DN, Some(DS));
        Device { auth: Auth { secondary_secret: Some(Secret::new(second)), ..device.auth.clone() }, ..device }
    };
    put_device(&mut registry, with_second("one"));
    let (_, of_two) = credentials(&registry);
    assert_eq!(code(&registry, &id, &of_two), Some(0));
    put_device(&mut registry, with_second("two"));
    assert_eq!(code(&registry, &id, &of_two), Some(4), "whichever secret has changed");
    put_device(&mut registry, device(PK, DN, Some("a new secret")));
    assert_eq!(code(&registry, &id, &token), Some(4), "the secret has changed");
}

fn registering(name: &str, key: &str) -> Form {
    let content = format!("deviceName{name}productKey{key}randomrand123");
    let sign = hex::encode(hmac(Digest::Sha1, PS.as_bytes(), content.as_bytes()));
    form(&[
        ("productKey", key),
        ("deviceName", name),
        ("random", "rand123"),
        ("sign", &sign),
        ("signMethod", "hmacsha1"),
    ])
}

#[test]
fn devices_register_themselves_before_they_are_active() {
    let mut registry = registry();
    let captured = registering(DN, PK);
    assert_eq!(captured[3].1, "92865f1db7627187c7368b7530d0b2562c2eaf88");
    let ask = |form: &Form, registry: &Registry| register(form, registry, NOW, [3; 32]);
    for (form, expected) in [
        (captured.clone(), 403),
        (registering("frozen", PK), 403),
        (registering("d1", OWN), 403),
        (registering("nobody", PK), 400),
        (registering("x", OPEN), 400),
        (registering("a/b/c/d", OPEN), 400),
        (registering(DN, "a1Unknown00"), 400),
        (set(&registering("sensor-002", PK), "sign", "00"), 400),
        (set(&registering("sensor-002", PK), "random", "other"), 400),
        (set(&registering("sensor-002", PK), "random", ""), 400),
        (set(&registering("sensor-002", PK), "signMethod", "hmacsha256"), 400),
        (form(&[]), 400),
    ] {
        let answer = ask(&form, &registry);
        assert_eq!((code(&answer.body), answer.changes.len()), (expected, 0), "{form:?}");
    }
    let gateway_id: Box<str> = format!("{PK}_{DN}").into();
    put_device(&mut registry, Device { gateway_id, ..device(PK, "sub", Some(DS)) });
    assert_eq!(code(&ask(&registering("sub", PK), &registry).body), 403, "its gateway does that");
    commit(
        &mut registry,
        &[Change::Delete { kind: Kind::Device, id: format!("{PK}_sub").into(), expect: Expect::Anything }],
    );
    assert_eq!(named(&captured), Some((PK, DN)));
    assert_eq!(named(&form(&[("productKey", PK)])), None);
    renew(&mut registry);
    let renewed = ask(&captured, &registry);
    assert_eq!(serde_json::from_str::<Value>(&renewed.body).unwrap()["data"]["deviceSecret"], DS);
    let known = ask(&registering("sensor-002", PK), &registry);
    assert_eq!(
        known.body,
        r#"{"code":200,"data":{"productKey":"a1B2c3D4e5F","deviceName":"sensor-002","deviceSecret":"second secret"},"message":"success"}"#
    );
    assert!(known.changes.is_empty() && known.body.len() < 192);
    for (name, key) in [("fresh", PK), ("new-device", OPEN)] {
        let answer = ask(&registering(name, key), &registry);
        commit(&mut registry, &answer.changes);
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        let kept = registry.device_of(key, name).unwrap().0;
        let secret = kept.record.auth.secret.as_ref().unwrap();
        assert_eq!((secret.expose().len(), value["data"]["deviceSecret"].as_str()), (32, Some(secret.expose())));
        // Until it connects, it may ask again, and is told the same.
        assert_eq!(register(&registering(name, key), &registry, NOW, [4; 32]).body, answer.body);
        activate(&mut registry, &format!("{key}_{name}"));
        assert_eq!(code(&ask(&registering(name, key), &registry).body), 403);
    }
}
