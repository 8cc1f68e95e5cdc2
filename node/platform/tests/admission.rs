//! The seam as a node uses it: CONNECT in, decision out.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

use std::cell::Cell;

use bytestring::ByteString;
use fulmar_mqtt::packet::{Connect, ConnectProperties, Version, Will};
use fulmar_mqtt::property::PublishProperties;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};
use fulmar_platform::registry::Registry;
use fulmar_platform::{
    Access, Action, Admission, ConnectRequest, Decision, Dialect, Generic, GenericOptions, Manners, Pattern, Platform,
    Publishing, Refusal, Rule, Settings, Subscribing, Who,
};

fn platform(anonymous: Access) -> Platform {
    let generic = Generic::new(GenericOptions {
        anonymous,
        users: vec![("ann".into(), "hash of ann".into()), ("bob".into(), "hash of bob".into())],
        rules: vec![Rule {
            who: Who::Everyone,
            action: Action::All,
            access: Access::Allow,
            patterns: vec![Pattern::parse("devices/%c/#").unwrap(), Pattern::parse("users/%u").unwrap()],
        }],
        default: Access::Deny,
    });
    Platform::new(generic, Settings::default())
}

fn connect(username: Option<&str>, password: Option<&str>) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_s: 60,
        client_id: ByteString::from_static("d1"),
        will: None,
        username: username.map(ByteString::from),
        password: password.map(|password| ByteString::from(password).into_bytes()),
        properties: ConnectProperties::default(),
    }
}

fn admit(platform: &Platform, connect: &Connect) -> Decision {
    let peer = "192.0.2.1:4711".parse().unwrap();
    let request = ConnectRequest {
        connect,
        client_id: "d1",
        peer,
        encrypted: false,
        host: None,
        certificate: None,
        now_ms: 0,
        entropy: [0; 32],
    };
    platform.admit(&request, &Registry::default(), &Dialect::ALL)
}

/// Right passwords are `password of NAME`. Also says how many verifications were made.
fn settle(platform: &Platform, connect: &Connect) -> (Result<Admission, Refusal>, u32) {
    let verifications = Cell::new(0);
    let result = admit(platform, connect).settle(|hash, password| {
        verifications.set(verifications.get() + 1);
        hash.replace("hash", "password").as_bytes() == password
    });
    (result, verifications.get())
}

fn refused(platform: &Platform, connect: &Connect) -> (ReasonCode, u32) {
    let (result, verifications) = settle(platform, connect);
    (result.unwrap_err().reason, verifications)
}

#[test]
fn users_are_known_by_their_password() {
    let platform = platform(Access::Deny);
    let (admission, verifications) = settle(&platform, &connect(Some("ann"), Some("password of ann")));
    let admission = admission.unwrap();
    assert_eq!((&*admission.tenant, admission.dialect.as_str(), &*admission.identity), ("default", "generic", "d1"));
    assert_eq!(verifications, 1);
    assert!(admission.manners == Manners::default() && admission.oversize.is_none());
    let voice = &admission.voice;
    assert_eq!(publishing(&admission, "users/ann"), Publishing::Route);
    let filter = TopicFilter::new("$share/g/devices/d1/#").unwrap();
    assert_eq!(voice.subscribing(&filter), Subscribing::Grant(QoS::ExactlyOnce));
    assert_eq!(voice.subscribing(&TopicFilter::new("users/#").unwrap()), Subscribing::Deny);
    assert_eq!(publishing(&admission, "users/bob"), Publishing::Deny);
}

#[test]
fn strangers_cost_a_verification_too() {
    let bad = ReasonCode::BadUserNameOrPassword;
    for anonymous in [Access::Allow, Access::Deny] {
        let platform = platform(anonymous);
        assert_eq!(refused(&platform, &connect(Some("ann"), Some("guess"))), (bad, 1));
        assert_eq!(refused(&platform, &connect(Some("ann"), Some("password of bob"))), (bad, 1));
        assert_eq!(refused(&platform, &connect(Some("eve"), Some("guess"))), (bad, 1));
        // The decoy is ann's hash: her password under another name must not do.
        assert_eq!(refused(&platform, &connect(Some("eve"), Some("password of ann"))), (bad, 1));
        assert_eq!(refused(&platform, &connect(Some("ann"), None)), (bad, 1));
        assert_eq!(refused(&platform, &connect(Some(""), Some(""))), (bad, 1));
        assert_eq!(refused(&platform, &connect(None, Some("password of ann"))), (bad, 0));
    }
}

#[test]
fn anonymous_clients_come_in_only_where_allowed() {
    let (admission, verifications) = settle(&platform(Access::Allow), &connect(None, None));
    assert_eq!(publishing(&admission.unwrap(), "users/ann"), Publishing::Deny);
    assert_eq!(verifications, 0);
    let (reason, _) = refused(&platform(Access::Deny), &connect(None, None));
    assert_eq!((reason, reason.connack_v3()), (ReasonCode::NotAuthorized, 5));
}

#[test]
fn enhanced_authentication_is_refused() {
    let mut connect = connect(Some("ann"), Some("password of ann"));
    connect.properties.authentication_method = Some(ByteString::from_static("SCRAM-SHA-1"));
    assert_eq!(refused(&platform(Access::Allow), &connect), (ReasonCode::BadAuthenticationMethod, 0));
}

#[test]
fn a_will_needs_the_permission_to_publish() {
    for (topic, allowed) in [("devices/d1/gone", true), ("devices/d2/gone", false), ("$SYS/x", false)] {
        let will = Will {
            topic: TopicName::new(topic).unwrap(),
            payload: ByteString::from_static("gone").into_bytes(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay_s: 0,
            properties: PublishProperties::default(),
        };
        let mut connect = connect(Some("ann"), Some("password of ann"));
        connect.will = Some(will);
        assert_eq!(settle(&platform(Access::Deny), &connect).0.is_ok(), allowed, "{topic}");
        // A wrong password is what is told, not what the will would have met.
        connect.password = None;
        assert_eq!(refused(&platform(Access::Deny), &connect).0, ReasonCode::BadUserNameOrPassword);
    }
}

#[test]
fn generic_clients_do_not_publish_as_the_server() {
    let generic =
        GenericOptions { anonymous: Access::Allow, users: Vec::new(), rules: Vec::new(), default: Access::Allow };
    let platform = Platform::new(Generic::new(generic), Settings::default());
    let admission = settle(&platform, &connect(None, None)).0.unwrap();
    for (topic, becomes) in
        [("$SYS/broker/version", Publishing::Deny), ("$anything", Publishing::Deny), ("a/$b", Publishing::Route)]
    {
        assert_eq!(publishing(&admission, topic), becomes, "{topic}");
    }
}

#[test]
fn no_access_list_lets_generic_clients_hear_or_say_what_rules_push() {
    let patterns = ["$push/#", "#", "+/app"].map(|text| Pattern::parse(text).unwrap()).to_vec();
    let rule = Rule { who: Who::Everyone, action: Action::All, access: Access::Allow, patterns };
    for (rules, default) in [(vec![rule], Access::Deny), (Vec::new(), Access::Allow)] {
        let generic = GenericOptions { anonymous: Access::Allow, users: Vec::new(), rules, default };
        let platform = Platform::new(Generic::new(generic), Settings::default());
        let admission = settle(&platform, &connect(None, None)).0.unwrap();
        for filter in ["$push/#", "$push/app", "$push/+", "$push", "$share/g/$push/#", "$share/g/$push/app"] {
            let subscribing = admission.voice.subscribing(&TopicFilter::new(filter).unwrap());
            assert_eq!(subscribing, Subscribing::Deny, "{filter}");
        }
        // `#` is granted, and does not match what starts with `$`.
        assert!(!TopicFilter::new("#").unwrap().matches(&TopicName::new("$push/app").unwrap()));
        assert_eq!(publishing(&admission, "$push/app"), Publishing::Deny);
    }
}

fn publishing(admission: &Admission, topic: &str) -> Publishing {
    admission.voice.publishing(&TopicName::new(topic).unwrap())
}
