use fulmar_mqtt::packet::Version;
use fulmar_mqtt::{QoS, TopicName};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Unencryptable, push, record_topic};
use crate::dialect::Publishing;
use crate::dialect::fixture::{Client, alter_sensoro, may_subscribe, publishing, registry};
use crate::registry::Registry;
use crate::{Admission, Dialect, Secret};

const UUID: &str = "foobar/3f2504e0-4f89-41d3-9a0c-0305e82c3301";

fn client(client_id: &str) -> Client {
    Client::new(client_id, "foobar", "SECRETSECRETSECRET")
}

fn admitted(registry: &Registry) -> Admission {
    client(UUID).admit(registry).unwrap()
}

#[test]
fn vectors() {
    let registry = registry();
    let sensoro = Ok(Dialect::Sensoro);
    let unknown = |client_id: &str| Client::new(client_id, "barfoo", "SECRETSECRETSECRET");
    for (client, outcome) in [
        (client(UUID), sensoro),
        (Client { version: Version::V31, ..client(UUID) }, sensoro),
        (Client { version: Version::V5, ..client(UUID) }, sensoro),
        (client("foobar"), sensoro),
        (client("foobar/"), sensoro),
        (client(&format!("foobar/{}", "a".repeat(36))), sensoro),
        (client(&format!("foobar/{}", "a".repeat(37))), Err(5)),
        (client("foobarx"), Err(5)),
        (client("foobar/a/b"), Err(5)),
        (client("foobar/\u{e9}"), Err(5)),
        (client("foobar/a.b"), Err(5)),
        (client("Foobar"), Err(5)),
        (client("else"), Err(5)),
        (Client::new(UUID, "foobar", "secretsecretsecret"), Err(5)),
        (Client::new(UUID, "foobar", ""), Err(5)),
        (Client { password: None, ..client(UUID) }, Err(5)),
        // An AppID that is not there.
        (unknown("barfoo"), Err(5)),
        (unknown("barfoo/1"), Err(5)),
        // Not Sensoro's.
        (unknown("else"), Err(4)),
        (Client::new("ann", "ann", "ann's"), Ok(Dialect::Generic)),
        (Client::new("ann/1", "ann", "ann's"), Ok(Dialect::Generic)),
        // Whoever guesses does not learn whether there is a user of that name.
        (Client::new("ann", "ann", "guess"), Err(5)),
        (Client::new("bob", "bob", "guess"), Err(5)),
        (Client::new("1", "ann", "guess"), Err(4)),
        (Client::new("1", "bob", "guess"), Err(4)),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{client:?}");
    }
    let refused =
        |accepted: &[Dialect]| unknown("barfoo").admit_on(&registry, accepted).unwrap_err().reason.connack_v3();
    assert_eq!((refused(&[Dialect::Sensoro]), refused(&[Dialect::Generic]), refused(&[Dialect::Huawei])), (5, 4, 4));
}

#[test]
fn permissions() {
    let admission = admitted(&registry());
    assert_eq!((&*admission.identity, admission.manners.qos_max), (UUID, QoS::AtLeastOnce));
    assert!(!admission.manners.clean);
    for (filter, granted) in [
        ("users/foobar/devices", true),
        ("/users/foobar/devices", true),
        ("users/barfoo/devices", false),
        ("/users/barfoo/devices", false),
        ("//users/foobar/devices", false),
        ("users/foobar/devices/", false),
        ("users/foobar/devices/#", false),
        ("users/foobar/#", false),
        ("users/foobar/+", false),
        ("users/+/devices", false),
        ("users/#", false),
        ("+/foobar/devices", false),
        ("$share/g/users/foobar/devices", false),
        ("$SYS/#", false),
        ("#", false),
        ("ABCDE12345/dev001/data", false),
        ("$oc/devices/prod1_node1/#", false),
    ] {
        assert_eq!(may_subscribe(&admission, filter), granted, "{filter}");
    }
    for topic in ["users/foobar/devices", "/users/foobar/devices", "anything", "ABCDE12345/dev001/control"] {
        assert_eq!(publishing(&admission, topic), Publishing::Deny, "{topic}");
    }
}

#[test]
fn records_go_out_in_both_spellings() {
    let mut registry = registry();
    let record = json!({"appId": "foobar", "sn": "1", "type": "text", "data": {"battery": 93, "leak": false}});
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        alter_sensoro(&mut registry, |app| app.qos = qos as u8);
        let app = &registry.sensoro_app("foobar").unwrap().record;
        let pushed = push(app, record.clone(), [0; 16]).unwrap();
        let topics: Vec<_> = pushed.iter().map(|down| down.topic.as_str()).collect();
        assert_eq!(topics, ["users/foobar/devices", "/users/foobar/devices"]);
        for down in &pushed {
            assert_eq!(down.qos, qos);
            assert_eq!(serde_json::from_slice::<Value>(&down.payload).unwrap(), record);
        }
    }
}

#[test]
fn safe_mode() {
    let mut registry = registry();
    alter_sensoro(&mut registry, |app| app.safe_mode = true);
    let random = std::array::from_fn(|at| u8::try_from(at).unwrap());
    // As the vector has it: the keys of `data` are in the order in which they were given only if that is alphabetical.
    let of = |data: Value, registry: &Registry| {
        let record = json!({"appId": "foobar", "sn": "1", "data": data});
        let app = registry.sensoro_app("foobar").unwrap().record.clone();
        push(&app, record, random).map(|pushed| serde_json::from_slice::<Value>(&pushed[0].payload).unwrap())
    };
    let pushed = of(json!({"temperature": 23.5}), &registry).unwrap();
    assert!(pushed.get("data").is_none() && pushed["appId"] == "foobar" && pushed["encryptData"].is_string());
    let app = registry.sensoro_app("foobar").unwrap().record.clone();
    assert_eq!(
        super::push::encrypt(&app, r#"{"temperature":23.5,"humidity":40}"#, random).as_deref(),
        Some("O6cpk5nyC3ZukPldLkwe+3gSdEC/ho9Qa/ksU2JVJXPiupgVhXEY55Zd9ny/dkAvJhDvphlSLjvQSwzn+PTqeg==")
    );
    // What cannot be encrypted does not go out readable.
    for bad in
        ["", "abc", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP!", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ="]
    {
        alter_sensoro(&mut registry, |app| app.key = Secret::new(bad));
        assert_eq!(of(json!({}), &registry), Err(Unencryptable), "{bad}");
    }
}

#[test]
fn topics_of_records() {
    for (topic, app) in [
        ("users/foobar/devices", Some("foobar")),
        ("/users/foobar/devices", Some("foobar")),
        ("users//devices", None),
        ("users/devices", None),
        ("users/a/b/devices", None),
        ("users/foobar/devices/x", None),
        ("//users/foobar/devices", None),
        ("xusers/foobar/devices", None),
    ] {
        assert_eq!(record_topic(&TopicName::new(topic).unwrap()), app, "{topic}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        id in "(foobar/?)?\\PC{0,40}",
        name in "(foobar|\\PC{0,5})",
        secret in "\\PC{0,9}",
        topic in "/?users/[^+#\\x00]{0,9}(/devices)?",
    ) {
        let registry = registry();
        let _ = Client::new(&id, &name, &secret).outcome(&registry);
        let _ = record_topic(&TopicName::new(topic).unwrap());
    }

    #[test]
    fn every_record_can_be_encrypted(data in "\\PC{0,100}", random: [u8; 16]) {
        let mut registry = registry();
        alter_sensoro(&mut registry, |app| app.safe_mode = true);
        let app = registry.sensoro_app("foobar").unwrap().record.clone();
        for record in [json!({ "data": data }), json!(data)] {
            let pushed = push(&app, record, random);
            prop_assert!(pushed.is_ok());
        }
    }
}
