use fulmar_mqtt::{QoS, TopicName};
use serde_json::json;

use super::call::{command, custom, get_properties, message, set_properties};
use super::tests::admitted;
use crate::dialect::fixture::registry;
use crate::dialect::{Downlink, Publishing};

#[test]
fn exact_forms() {
    let (gateway, device) = ("prod1_node1", "prod1_sub1");
    let paras = json!({"value": "ON"}).as_object().cloned().unwrap();
    let services = [json!({"service_id": "s", "properties": {"p": 1}})];
    for (down, rest, payload) in [
        (
            command(gateway, gateway, "r1", ("WaterMeter", "ON_OFF"), &paras),
            "sys/commands/request_id=r1",
            r#"{"object_device_id":"prod1_node1","command_name":"ON_OFF","service_id":"WaterMeter","paras":{"value":"ON"}}"#,
        ),
        (
            set_properties(gateway, device, "r2", &services),
            "sys/properties/set/request_id=r2",
            r#"{"object_device_id":"prod1_sub1","services":[{"properties":{"p":1},"service_id":"s"}]}"#,
        ),
        (
            get_properties(gateway, gateway, "r3", ""),
            "sys/properties/get/request_id=r3",
            r#"{"object_device_id":"prod1_node1","service_id":""}"#,
        ),
        (
            message(gateway, gateway, "m1", None, &json!("hello")),
            "sys/messages/down",
            r#"{"object_device_id":"prod1_node1","name":null,"id":"m1","content":"hello"}"#,
        ),
        (custom(gateway, "messageDown", "raw".into()), "user/messageDown", "raw"),
    ] {
        let topic = TopicName::new(format!("$oc/devices/prod1_node1/{rest}")).unwrap();
        let down = down.unwrap();
        assert_eq!(down, Downlink { topic, payload: payload.into(), qos: QoS::AtLeastOnce });
        // What the platform says reaches the device without a subscription, but for custom topics; it never says it itself.
        let admission = admitted(&registry());
        let implicit = admission.voice.implicit(&down.topic);
        assert_eq!(implicit, (!rest.starts_with("user/")).then_some(QoS::AtMostOnce), "{rest}");
        assert!(implicit.is_none() || admission.voice.publishing(&down.topic) == Publishing::Deny, "{rest}");
    }
    assert_eq!(command(gateway, gateway, "#", ("", ""), &paras), None);
    assert_eq!(custom(gateway, "a/+", "raw".into()), None);
}
