use fulmar_mqtt::packet::OversizePolicy;
use fulmar_mqtt::{QoS, ReasonCode};

use super::super::Grace;
use super::*;
use crate::dialect::crypto::{Digest, hmac};
use crate::dialect::{Publishing, Subscribing};

/// Captured from SDKs, or computed.
const VECTORS: [(&str, &str); 11] = [
    (
        "a1B2c3D4e5F&sensor-001|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795227879|",
        "76d39a09e539933200263abe426eda68f3c48697",
    ),
    (
        "a1B2c3D4e5F&sensor-001|securemode=2,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795227882|",
        "29e47d0d2dd94c6d74295627488e9df79dd2a5dc",
    ),
    (
        "a1B2c3D4e5F&sensor-001|securemode=3,signmethod=hmacsha1,timestamp=1795227894576,lan=NodeJS,_v=1.2.8|",
        "845f19781ec2c9d808a59f9f0f10ba563110a554",
    ),
    (
        "a1B2c3D4e5F&sensor-001_aliyun-iot-device-sdk-js|securemode=3,\n        signmethod=hmacsha1,\n        timestamp=1795227897458|",
        "ad0c67dd6ac778b649a5bf218252b31e165071bb",
    ),
    (
        "a1B2c3D4e5F.sensor-001|timestamp=2524608000000,_ss=1,_v=sdk-c-4.1.0,securemode=3,signmethod=hmacsha256,ext=3,_conn=tls_1|",
        "35C06185FF0E6CA4641ED82A35221505B3924A88EA5F3A49DAA26B7F49C30F6E",
    ),
    ("dev-cid|securemode=3,signmethod=hmacsha1,timestamp=1795228014|", "f22024896103cf2145b6bd4c0cbb37d316b66010"),
    ("dev-cid|securemode=2,signmethod=hmacsha1,timestamp=1795228017|", "d118db4ac3f1b6c8088e65af6b956097b2df1391"),
    ("dev-cid|timestamp=1500000000000,signmethod=hmacmd5|", "131ad6dd121b14d4e0d0c9498683e897"),
    ("dev-cid|timestamp=1500000000000,signmethod=hmacsha1|", "d46bdaa1dd4a502a4e1942f10a6296a68b2fcef6"),
    ("dev-cid|signmethod=hmacsha1|", "f15f028e2d8fd156fb1b8719de125a28ee4d8095"),
    (
        "dev-cid|timestamp=1500000000000,signmethod=hmacsha256|",
        "44c7c19c32d7797b120c2eecc83834a5299533394f3a160320bef5842735ea6e",
    ),
];

#[test]
fn what_sdks_send_is_let_in() {
    let registry = registry();
    for (client_id, password) in VECTORS {
        for encrypted in [false, true] {
            for password in [password.to_owned(), password.to_uppercase(), password.to_lowercase()] {
                let coming = Coming { client_id, password: &password, encrypted, ..Coming::default() };
                assert_eq!(coming.code(&registry), Some(0), "{client_id}");
            }
        }
        let flipped = if password.starts_with('7') { "8" } else { "7" }.to_owned() + password.split_at(1).1;
        for wrong in ["", "x", password.split_at(1).1, &format!("{password}0"), &flipped] {
            let coming = Coming { client_id, password: wrong, ..Coming::default() };
            assert_eq!(coming.code(&registry), Some(4), "{client_id} with {wrong}");
        }
    }
}

#[test]
fn parameters_are_read_leniently() {
    let registry = registry();
    let md5 = "131ad6dd121b14d4e0d0c9498683e897";
    for client_id in [
        "dev-cid|timestamp=1500000000000|",
        "dev-cid|timestamp=1500000000000",
        "dev-cid| timestamp = 1500000000000 , signmethod = HmacMD5 ,|",
        "dev-cid|,,nobody=knows,timestamp=1500000000000,securemode=9,authType=,signmethod=hmacmd5|\n",
        "dev-cid|signmethod=hmacmd5,timestamp=1500000000000,timestamp=2,a=b=c|",
    ] {
        assert_eq!(Coming { client_id, password: md5, ..Coming::default() }.code(&registry), Some(0), "{client_id:?}");
    }
    // Without parameters the registry must know the product.
    let plain =
        hex::encode(hmac(Digest::Md5, DS.as_bytes(), b"clientIddev-ciddeviceNamesensor-001productKeya1B2c3D4e5F"));
    assert_eq!(Coming { client_id: "dev-cid", password: &plain, ..Coming::default() }.code(&registry), Some(0));
    let long = format!("{}|a=b|", "x".repeat(129));
    for client_id in ["|a=b|", "dev-cid|timestamp|", "dev-cid|signmethod=rot13|", long.as_str()] {
        assert_eq!(Coming { client_id, ..Coming::default() }.code(&registry), Some(2), "{client_id}");
    }
}

#[test]
fn refusals_have_their_codes() {
    let mut registry = registry();
    let mut tls_only = device(PK, "tls", Some(DS));
    tls_only.auth.secure_access = true;
    put_device(&mut registry, tls_only);
    put_device(&mut registry, device(PK, "a+b", Some(DS)));
    let sign = |name: &str, key: &str| {
        let content = format!("clientIddev-ciddeviceName{name}productKey{key}");
        hex::encode(hmac(Digest::Sha1, DS.as_bytes(), content.as_bytes()))
    };
    for (name, key, code) in [
        (DN, PK, 0),
        ("sensor-002", PK, 4),
        ("nobody", PK, 4),
        (DN, "a1Unknown00", 4),
        ("d1", HUAWEI, 4),
        ("fresh", PK, 4),
        ("frozen", PK, 5),
        ("a+b", PK, 5),
        ("d1", OWN, 0),
        ("", PK, 4),
        (DN, "", 4),
        ("sensor-001&x", PK, 4),
    ] {
        let (username, password) = (format!("{name}&{key}"), sign(name, key));
        let coming = Coming { username: &username, password: &password, ..Coming::default() };
        assert_eq!(coming.code(&registry), Some(code), "{username}");
    }
    // That a device is disabled is told only to the device.
    let frozen = Coming { username: "frozen&a1B2c3D4e5F", ..Coming::default() };
    assert_eq!(frozen.code(&registry), Some(4));
    for (encrypted, code) in [(true, 0), (false, 5)] {
        let password = sign("tls", PK);
        let coming = Coming { username: "tls&a1B2c3D4e5F", password: &password, encrypted, ..Coming::default() };
        assert_eq!(coming.code(&registry), Some(code));
    }
}

#[test]
fn keep_alive_has_bounds() {
    let registry = registry();
    for (asked, expected) in [
        (0, Err(2)),
        (1, Err(2)),
        (29, Err(2)),
        (30, Ok(None)),
        (1200, Ok(None)),
        (1201, Ok(Some(1200))),
        (65535, Ok(Some(1200))),
    ] {
        let outcome = Coming { keep_alive_s: asked, ..Coming::default() }.at(&registry, &Options::default()).unwrap();
        let found = outcome.map(|admission| admission.manners.keep_alive_s).map_err(|it| it.reason.connack_v3());
        assert_eq!(found, expected, "{asked}");
    }
}

#[test]
fn other_clients_are_not_swallowed() {
    let registry = registry();
    let huawei = registry.device(&format!("{HUAWEI}_d1")).unwrap().0.oid.to_string();
    for (client_id, username) in [
        ("d1", "ann"),
        ("a|b", "ann"),
        ("d1", "ann&bob"),
        ("d1", "ann&d1Huawei000"),
        ("d1", "0123456789abcdef01234567"),
        ("d1", huawei.as_str()),
        ("d1", ""),
    ] {
        assert_eq!(Coming { client_id, username, ..Coming::default() }.code(&registry), None, "{client_id} {username}");
    }
}

#[test]
fn an_admission_says_how_the_session_is_held() {
    let registry = registry();
    let admission = Coming::default().admitted(&registry);
    assert_eq!(
        (&*admission.tenant, admission.dialect, &*admission.identity),
        ("default", Dialect::Aliyun, "a1B2c3D4e5F_sensor-001")
    );
    assert_eq!(admission.exclusive_client_id.as_deref(), Some("dev-cid"));
    assert_eq!(admission.oversize, Some((256 * 1024, OversizePolicy::Skip)));
    let manners = admission.manners;
    assert_eq!((manners.qos_max, manners.keep_alive_grace_s), (QoS::AtLeastOnce, Some(5)));
    assert!(manners.no_will && manners.no_retain && !manners.mute_oversize && !manners.clean);
    assert!(admission.changes.is_empty() && admission.greeting.is_empty());
    let options = Options { keep_alive_grace: Grace::Half, exclusive_client_id: false, ..Options::default() };
    let admission = Coming::default().at(&registry, &options).unwrap().unwrap();
    assert_eq!((admission.manners.keep_alive_grace_s, admission.exclusive_client_id), (None, None));
}

/// Computed over `deviceNamesensor-001productKeya1B2c3D4e5Frandom8ASPM4g7vMsuFoO` with the product's secret.
const REGISTRATION: &str = "dce5522e7c80b177906ab3c2de0a16aa60b0f4ee321374e9c1ea68ebf39c447d";

fn registering(kind: &str, name: &str, key: &str) -> (String, String, String) {
    let content = format!("deviceName{name}productKey{key}random8ASPM4g7vMsuFoO");
    (
        format!("{name}.{key}|random=8ASPM4g7vMsuFoO,authType={kind},securemode=2,signmethod=hmacsha256|"),
        format!("{name}&{key}"),
        hex::encode(hmac(Digest::Sha256, PS.as_bytes(), content.as_bytes())),
    )
}

#[test]
fn registration_asks_for_the_products_secret_and_a_device_that_was_never_there() {
    assert_eq!(registering("register", DN, PK).2, REGISTRATION);
    let mut registry = registry();
    for kind in ["register", "regnwl"] {
        for (name, key, code) in [
            ("sensor-002", PK, 0),
            ("fresh", PK, 0),
            (DN, PK, 5),
            ("frozen", PK, 5),
            ("nobody", PK, 4),
            ("d1", OWN, 5),
            ("new-device", OPEN, 0),
            ("no", OPEN, 4),
            ("a/b/c", OPEN, 4),
            ("a+b+c", OPEN, 4),
            (DN, "a1Unknown00", 4),
        ] {
            let (client_id, username, password) = registering(kind, name, key);
            let coming =
                || Coming { client_id: &client_id, username: &username, password: &password, ..Coming::default() };
            assert_eq!(coming().code(&registry), Some(code), "{kind} {username}");
            if code == 0 {
                assert_eq!(Coming { encrypted: false, ..coming() }.code(&registry), Some(5), "{kind} {username}");
                assert_eq!(
                    Coming { password: password.split_at(1).1, ..coming() }.code(&registry),
                    Some(4),
                    "{kind} {username}"
                );
                let options = Options { plain_auth: true, ..Options::default() };
                assert!(Coming { encrypted: false, ..coming() }.at(&registry, &options).unwrap().is_ok());
            }
        }
    }
    let (client_id, username, password) = registering("regnwl", "sensor-002", PK);
    for (host, code) in [
        ("a1b2c3d4e5f.iot-as-mqtt.cn-shanghai.aliyuncs.com", 0),
        ("b1open00000.iot-as-mqtt.cn-shanghai.aliyuncs.com", 5),
        ("any.example.org", 0),
        // Neither is a name that its vendor gives to devices of one product.
        ("b1open00000.example.org", 0),
        ("b1open00000", 0),
        ("b1open00000.iotcloud.tencentdevices.com", 0),
        ("public.iot-as-mqtt.cn-shanghai.aliyuncs.com", 0),
        ("192.0.2.1", 0),
    ] {
        let coming = Coming { client_id: &client_id, username: &username, password: &password, ..Coming::default() };
        assert_eq!(Coming { host: Some(host), ..coming }.code(&registry), Some(code), "{host}");
    }
    // As it was captured, of a device that has not been there yet.
    renew(&mut registry);
    for (kind, client_id) in [
        (
            "/ext/register",
            "sensor-001.a1B2c3D4e5F|random=8ASPM4g7vMsuFoO,authType=register,securemode=2,signmethod=hmacsha256|",
        ),
        (
            "/ext/regnwl",
            "sensor-001.a1B2c3D4e5F|random=8ASPM4g7vMsuFoO,authType=regnwl,securemode=2,signmethod=hmacsha256|",
        ),
    ] {
        let admission = Coming { client_id, password: REGISTRATION, ..Coming::default() }.admitted(&registry);
        assert_eq!(admission.greeting[0].topic.as_str(), kind);
    }
}

#[test]
fn register_gives_the_secret_and_no_rights() {
    let mut registry = registry();
    let (client_id, username, password) = registering("register", "sensor-002", PK);
    let coming = Coming { client_id: &client_id, username: &username, password: &password, ..Coming::default() };
    let admission = coming.admitted(&registry);
    let greeting = &admission.greeting[0];
    assert_eq!(greeting.topic.as_str(), "/ext/register");
    let expected = r#"{"deviceName":"sensor-002","deviceSecret":"second secret","productKey":"a1B2c3D4e5F"}"#;
    assert_eq!(json(greeting), serde_json::from_str::<Value>(expected).unwrap());
    assert!(admission.changes.is_empty() && admission.manners.clean && admission.exclusive_client_id.is_none());
    assert!(admission.identity.starts_with("register/sensor-002&a1B2c3D4e5F/"), "{}", admission.identity);
    assert!(!admission.identity.contains(&hex::encode([7; 16])), "the identity tells what secrets are made of");
    for text in
        ["/sys/a1B2c3D4e5F/sensor-002/thing/event/property/post", "/a1B2c3D4e5F/sensor-002/update", "/ext/register"]
    {
        assert_eq!(admission.voice.publishing(&topic(text)), Publishing::Deny);
        assert_eq!(admission.voice.subscribing(&filter(text)), Subscribing::Deny);
    }
    assert!(admission.voice.implicit(&greeting.topic).is_some());

    // A device without a secret gets one, and one that is not there is made.
    for (name, key) in [("fresh", PK), ("new-device", OPEN)] {
        let (client_id, username, password) = registering("register", name, key);
        let coming = Coming { client_id: &client_id, username: &username, password: &password, ..Coming::default() };
        let admission = coming.admitted(&registry);
        commit(&mut registry, &admission.changes);
        let secret = json(&admission.greeting[0])["deviceSecret"].as_str().unwrap().to_owned();
        assert_eq!(secret.len(), 32);
        let content = format!("clientIdxdeviceName{name}productKey{key}");
        let password = hex::encode(hmac(Digest::Sha1, secret.as_bytes(), content.as_bytes()));
        let coming = Coming {
            client_id: "x|signmethod=hmacsha1|",
            username: &username,
            password: &password,
            ..Coming::default()
        };
        assert_eq!(coming.code(&registry), Some(0), "{name} comes with its new secret");
    }
}

#[test]
fn regnwl_gives_a_token_to_connect_with() {
    let mut registry = registry();
    for (name, key) in [("sensor-002", PK), ("new-device", OPEN)] {
        let (client_id, username, password) = registering("regnwl", name, key);
        let coming = Coming { client_id: &client_id, username: &username, password: &password, ..Coming::default() };
        let admission = coming.admitted(&registry);
        assert_eq!(admission.greeting[0].topic.as_str(), "/ext/regnwl");
        let answer = json(&admission.greeting[0]);
        assert_eq!(
            (&answer["clientId"], &answer["productKey"], &answer["deviceName"]),
            (&format!("{name}.{key}").into(), &key.into(), &name.into())
        );
        let token = answer["deviceToken"].as_str().unwrap();
        let again = format!("{}|authType=connwl,securemode=-2,_ss=1,ext=3,_v=x|", answer["clientId"].as_str().unwrap());
        let again = Coming { client_id: &again, username: &username, password: token, ..Coming::default() };
        assert_eq!(again.code(&registry), Some(4), "not committed yet");
        commit(&mut registry, &admission.changes);
        assert_eq!(again.code(&registry), Some(0));
        for wrong in ["", token.split_at(1).1, &token.to_uppercase(), &token.replace(|_: char| true, "a")] {
            assert_eq!(Coming { password: wrong, ..again }.code(&registry), Some(4), "{wrong}");
        }
        let admission = again.admitted(&registry);
        assert_eq!(*admission.identity, *format!("{key}_{name}"));
        assert!(admission.voice.implicit(&topic(&format!("/sys/{key}/{name}/rrpc/request/1"))).is_some(), "_ss=1");
    }
    let no_token = Coming { client_id: "c|authType=connwl|", password: "", ..Coming::default() };
    assert_eq!(no_token.code(&registry), Some(4));
    assert_eq!(
        no_token.at(&registry, &Options::default()).unwrap().unwrap_err().reason,
        ReasonCode::BadUserNameOrPassword
    );
}
