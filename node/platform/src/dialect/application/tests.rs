use std::sync::Arc;

use fulmar_mqtt::packet::Version;
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use proptest::prelude::*;

use super::{Options, access_key_of, is_push_topic, is_reserved};
use crate::dialect::fixture::{
    APPLICATION, Client, NOW_MS, application, apply, publishing, push_action, put, registry,
};
use crate::dialect::{Publishing, Subscribing, Voice};
use crate::registry::{AccessCode, Change, Expect, Kind, Record, Registry};
use crate::{Admission, Dialect, Secret};

fn named(username: &str) -> Client {
    Client { username: Some(username.into()), ..application("any client id") }
}

fn admitted(registry: &Registry) -> Admission {
    application("c|1").admit(registry).expect("is let in")
}

fn grants(voice: &dyn Voice, filter: &str) -> Option<QoS> {
    match voice.subscribing(&TopicFilter::new(filter).expect("a filter")) {
        Subscribing::Grant(qos) => Some(qos),
        Subscribing::Deny => None,
    }
}

#[test]
fn vectors() {
    let registry = registry();
    let (key, code) = APPLICATION;
    let ours = Ok(Dialect::Application);
    let at = |ms: u64| format!("accessKey={key}|timestamp={ms}|instanceId=");
    let right = || application("any client id");
    for (client, outcome) in [
        (right(), ours),
        (application("accessKey=appkey01|timestamp=1|instanceId="), ours),
        (named(&format!("accessKey={key}|timestamp={NOW_MS}")), ours),
        (named(&format!("accessKey={key}|timestamp={NOW_MS}|")), ours),
        (named(&format!("accessKey={key}|instanceId=any|more=1|timestamp={NOW_MS}")), ours),
        (named(&at(NOW_MS + 300_000)), ours),
        (named(&at(NOW_MS - 300_000)), ours),
        (named(&at(NOW_MS + 360_000)), Err(4)),
        (named(&at(NOW_MS - 360_000)), Err(4)),
        (named(&at(NOW_MS / 1000)), Err(4)),
        (named(&at(NOW_MS * 10)), Err(4)),
        (named(&format!("accessKey={key}|timestamp=+{}|", NOW_MS / 10)), Err(4)),
        (named(&format!("accessKey={key}|timestamp=")), Err(4)),
        (named(&format!("accessKey={key}")), Err(4)),
        (named(&format!("accessKey=|timestamp={NOW_MS}")), Err(4)),
        (named(&format!("accessKey={key}|timestamp={NOW_MS}|instanceId")), Err(4)),
        (named(&format!("accessKey={key}|timestamp={NOW_MS}|timestamp={NOW_MS}")), Err(4)),
        (named(&format!("accessKey=other|timestamp={NOW_MS}")), Err(4)),
        (named(&format!("accessKey=amqpkey1|timestamp={NOW_MS}")), Err(4)),
        // Not an application's: nobody's.
        (named(&format!("timestamp={NOW_MS}|accessKey={key}")), Err(4)),
        (Client { password: Some(format!("{code}x")), ..right() }, Err(4)),
        (Client { password: Some("x".repeat(257)), ..right() }, Err(4)),
        (Client { password: Some(String::new()), ..right() }, Err(4)),
        (Client { password: None, ..right() }, Err(4)),
        (Client { version: Version::V31, ..right() }, Err(1)),
        (Client { version: Version::V5, ..right() }, Err(1)),
        (Client { keep_alive_s: 29, ..right() }, Err(2)),
        (Client { keep_alive_s: 0, ..right() }, Err(2)),
        (Client { keep_alive_s: 1201, ..right() }, Err(2)),
        (Client { keep_alive_s: 30, ..right() }, ours),
        (Client { keep_alive_s: 1200, ..right() }, ours),
    ] {
        assert_eq!(client.outcome(&registry), outcome, "{client:?}");
    }
    let without = right().admit_on(&registry, &[Dialect::Huawei, Dialect::Generic]);
    assert_eq!(without.unwrap_err().reason.connack_v3(), 4, "the listener does not accept the dialect");
}

#[test]
fn another_instance_is_refused_once_this_one_has_a_name() {
    let registry = registry();
    let options = Options { instance_id: Some("this".into()) };
    let (key, _) = APPLICATION;
    for (instance, outcome) in
        [("|instanceId=this", None), ("|instanceId=", None), ("", None), ("|instanceId=that", Some(4))]
    {
        let client = named(&format!("accessKey={key}|timestamp={NOW_MS}{instance}"));
        let refused = client.with_request(|request| super::admit(request, &registry, &options).expect("is ours").err());
        assert_eq!(refused.map(|refusal| refusal.reason.connack_v3()), outcome, "{instance}");
    }
}

#[test]
fn a_new_code_is_the_only_one() {
    let mut registry = registry();
    let code = "c".repeat(256);
    let new = AccessCode {
        kind: "MQTT".into(),
        access_key: "appkey02".into(),
        access_code: Secret::new(&code),
        created_ms: NOW_MS,
    };
    put(&mut registry, Record::AccessCode(Arc::new(new)));
    assert_eq!(application("1").outcome(&registry), Err(4));
    let username = Some(format!("accessKey=appkey02|timestamp={NOW_MS}"));
    let client = Client { username, password: Some(code), ..application("1") };
    assert_eq!(client.outcome(&registry), Ok(Dialect::Application));
}

#[test]
fn it_listens_on_topics_of_rules_and_says_nothing() {
    let mut registry = registry();
    let admission = admitted(&registry);
    assert_eq!((&*admission.identity, access_key_of(&admission.identity)), ("appkey01/c|1", Some("appkey01")));
    assert!(admission.manners.clean && admission.manners.no_will && admission.manners.no_retain);
    let voice = &*admission.voice;
    for (filter, granted) in [
        ("app/t1", true),
        ("$share/g/app/t1", true),
        ("app/t2", false),
        ("$share/g/app/t2", false),
        ("app/+", false),
        ("app/#", false),
        ("#", false),
        ("$share/g/#", false),
        ("$push/app/t1", false),
        ("$share/g/$push/app/t1", false),
        ("$push/#", false),
        ("$SYS/#", false),
        ("$oc/devices/prod1_node1/#", false),
        ("/app/t1", false),
    ] {
        assert_eq!(grants(voice, filter), granted.then_some(QoS::AtMostOnce), "{filter}");
    }
    for (filter, routed) in [("app/t1", "$share/appkey01/$push/app/t1"), ("$share/g/app/t1", "$share/g/$push/app/t1")] {
        let filter = TopicFilter::new(filter).expect("a filter");
        assert_eq!(voice.routed(&filter).expect("has another name").as_str(), routed);
    }
    for topic in ["app/t1", "$push/app/t1", "anything"] {
        assert_eq!(publishing(&admission, topic), Publishing::Close, "{topic}");
    }
    // What is made later is known to the next SUBSCRIBE, and what is deleted is not any more.
    push_action(&mut registry, "2", "app/t2");
    apply(&mut registry, &Change::Delete { kind: Kind::RuleAction, id: "action 1".into(), expect: Expect::Anything });
    let voice = voice.renewed(&registry).expect("looks again");
    assert_eq!((grants(&*voice, "app/t1"), grants(&*voice, "app/t2")), (None, Some(QoS::AtMostOnce)));
}

#[test]
fn topics_that_rules_may_push_to() {
    for (topic, may) in [
        ("app/t1", true),
        ("A_b-9/", true),
        ("/", true),
        ("", false),
        ("a b", false),
        ("a+", false),
        ("$push", false),
        ("\u{e9}", false),
        (&"t".repeat(128), true),
        (&"t".repeat(129), false),
    ] {
        assert_eq!(is_push_topic(topic), may, "{topic}");
    }
    for (filter, reserved) in
        [("$push/#", true), ("$share/g/$push/a", true), ("$push", true), ("push/#", false), ("#", false)]
    {
        assert_eq!(is_reserved(&TopicFilter::new(filter).expect("a filter")), reserved, "{filter}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(name in "(accessKey=(appkey01)?\\PC{0,20})?\\PC{0,40}", code in "\\PC{0,9}", filter in "\\PC{1,40}") {
        let registry = registry();
        let client = Client { username: Some(name), password: Some(code), ..application("1") };
        let _ = client.outcome(&registry);
        if let Ok(filter) = TopicFilter::new(filter) {
            let admission = admitted(&registry);
            let _ = (admission.voice.subscribing(&filter), admission.voice.routed(&filter));
        }
        prop_assert!(TopicName::new("x").is_ok());
    }
}
