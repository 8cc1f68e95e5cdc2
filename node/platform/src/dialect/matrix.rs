//! Devices of every dialect against the topics of every other.

use super::Publishing;
use super::fixture::{Client, application, may_subscribe, publishing, registry};
use crate::{Admission, Dialect};

/// Two devices of each dialect, of which the first is let in, and topics of theirs: what they say, what they are told.
fn devices() -> Vec<(Dialect, Client, [&'static str; 2], Vec<&'static str>)> {
    let huawei = Client::new(
        "prod1_node1_0_1_2026112101",
        "prod1_node1",
        "8fbf7ae2b18880b31d363a56a9c65fccda9a6f6a90ebe59a403354dc65f9c32e",
    );
    let aliyun = Client::new(
        "dev-cid|securemode=3,signmethod=hmacsha1,timestamp=1795228014|",
        "sensor-001&a1B2c3D4e5F",
        "f22024896103cf2145b6bd4c0cbb37d316b66010",
    );
    let tencent = Client::new(
        "ABCDE12345dev001",
        "ABCDE12345dev001;12010126;abcde;4102444800",
        "8b24f077480ec1e02bc1a945bc19c23d93cd41d8;hmacsha1",
    );
    let sensoro = Client::new("foobar/1", "foobar", "SECRETSECRETSECRET");
    vec![
        (
            Dialect::Huawei,
            huawei,
            ["prod1_node1", "prod1_node2"],
            vec![
                "$oc/devices/{}/sys/messages/up",
                "$oc/devices/{}/sys/messages/down",
                "$oc/devices/{}/sys/commands/request_id=1",
                "$oc/devices/{}/user/a",
            ],
        ),
        (
            Dialect::Aliyun,
            aliyun,
            ["a1B2c3D4e5F/sensor-001", "a1B2c3D4e5F/sensor-002"],
            vec![
                "/sys/{}/thing/event/property/post",
                "/sys/{}/thing/service/property/set",
                "/sys/{}/rrpc/request/1",
                "/ext/rrpc/1/sys/{}/thing/service/x",
                "/ext/ntp/{}/response",
                "/ota/device/upgrade/{}",
                "/shadow/get/{}",
                "/shadow/update/{}",
                "/{}/user/get",
                "/{}/user/update",
            ],
        ),
        (
            Dialect::Tencent,
            tencent,
            ["ABCDE12345/dev001", "ABCDE12345/dev002"],
            vec![
                "{}/control",
                "{}/data",
                "{}/event",
                "$sys/operation/{}",
                "$sys/operation/result/{}",
                "$ota/update/{}",
                "$rrpc/rxd/{}/1",
                "$shadow/operation/{}",
                "$thing/down/property/{}",
            ],
        ),
        (Dialect::Sensoro, sensoro, ["foobar", "barfoo"], vec!["users/{}/devices", "/users/{}/devices"]),
    ]
}

#[test]
fn nobody_speaks_or_listens_elsewhere() {
    let registry = registry();
    let devices = devices();
    let admissions: Vec<Admission> =
        devices.iter().map(|(_, client, ..)| client.admit(&registry).expect("is let in")).collect();
    for ((dialect, ..), admission) in devices.iter().zip(&admissions) {
        assert_eq!(admission.dialect, *dialect);
    }
    for (dialect, _, [own, other], topics) in &devices {
        for (topic, admission) in topics.iter().flat_map(|topic| admissions.iter().map(move |by| (*topic, by))) {
            let by = admission.dialect;
            let foreign = topic.replace("{}", other);
            assert_eq!(publishing(admission, &foreign), Publishing::Deny, "{by} on {foreign}");
            assert!(!may_subscribe(admission, &foreign), "{by} to {foreign}");
            let topic = topic.replace("{}", own);
            if by != *dialect {
                assert_eq!(publishing(admission, &topic), Publishing::Deny, "{by} on {topic}");
                assert!(!may_subscribe(admission, &topic), "{by} to {topic}");
            } else {
                let used = publishing(admission, &topic) != Publishing::Deny || may_subscribe(admission, &topic);
                assert!(used || topic.contains("/user/"), "{by}: {topic} is nobody's");
            }
        }
    }
    for admission in &admissions {
        let wild =
            ["#", "+/#", "/#", "/+/#", "+/+/data", "/+/+/user/update", "$oc/#", "$oc/devices/+/#", "$sys/#", "$SYS/#"];
        for filter in wild {
            assert!(!may_subscribe(admission, filter), "{} to {filter}", admission.dialect);
        }
    }
}

/// What rules push is heard by applications only, and said by nobody but the router; an application says nothing at all.
#[test]
fn what_rules_push_is_between_the_router_and_applications() {
    let registry = registry();
    let ann = Client::new("backend", "ann", "ann's").admit(&registry).expect("is let in");
    let others = devices().into_iter().map(|(_, client, ..)| client.admit(&registry).expect("is let in"));
    for admission in others.chain([ann]) {
        let by = admission.dialect;
        for filter in
            ["$push/#", "$push/app/t1", "$push/+/t1", "$push", "$share/g/$push/#", "$share/appkey01/$push/app/t1"]
        {
            assert!(!may_subscribe(&admission, filter), "{by} to {filter}");
        }
        assert_eq!(publishing(&admission, "$push/app/t1"), Publishing::Deny, "{by}");
    }
    let application = application("1").admit(&registry).expect("is let in");
    for (_, _, [own, other], topics) in devices() {
        for topic in topics.iter().flat_map(|topic| [own, other].map(|of| topic.replace("{}", of))) {
            assert_eq!(publishing(&application, &topic), Publishing::Close, "{topic}");
            let filter = fulmar_mqtt::TopicFilter::new(topic.clone()).expect("a filter");
            assert_eq!(application.voice.subscribing(&filter), crate::Subscribing::Deny, "{topic}");
        }
    }
}
