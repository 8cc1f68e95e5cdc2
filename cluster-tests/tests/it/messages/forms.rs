//! What a message may look like, and where it goes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fulmar_mqtt::property::ForwardProperty;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_and_topics() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let own = |rest: &str| format!("$oc/devices/prod1_d/{rest}");
    let bytes = [0_u8, 255, 10, 13];
    let standard = |id: &str, content: Value| {
        format!(r#"{{"object_device_id":"prod1_d","name":null,"id":"{id}","content":{content}}}"#).into_bytes()
    };
    for (id, message, to, payload) in [
        ("m1", json!({ "message": "t" }), own("sys/messages/down"), standard("m1", json!("t"))),
        ("m2", json!({ "message": { "a": 1 } }), own("sys/messages/down"), standard("m2", json!({ "a": 1 }))),
        (
            "m3",
            json!({ "message": "t", "payload_format": "raw", "encoding": "none" }),
            own("sys/messages/down"),
            b"t".to_vec(),
        ),
        (
            "m4",
            json!({ "message": BASE64.encode(bytes), "encoding": "base64" }),
            own("sys/messages/down"),
            bytes.to_vec(),
        ),
        // By habit, of a product that does not define it.
        ("m5", json!({ "message": "t", "topic": "messageDown" }), own("sys/messages/down"), standard("m5", json!("t"))),
        ("m6", json!({ "message": "t", "topic": "custom" }), own("user/custom"), b"t".to_vec()),
        (
            "m7",
            json!({ "message": { "a": 1 }, "topic": "custom", "payload_format": "raw" }),
            own("user/custom"),
            br#"{"a":1}"#.to_vec(),
        ),
        ("m8", json!({ "message": "t", "topic_full_name": "any/topic" }), "any/topic".to_owned(), b"t".to_vec()),
    ] {
        assert_eq!(send(&rest, &device, id, message).await, "PENDING");
        let mut client = Client::connect(&cluster, 1, &device).await;
        if !to.contains("/sys/") {
            assert_eq!(show(&rest, &device, id).await["status"], "PENDING", "{id}: until it has subscribed");
            client.subscribe(&to, QoS::AtMostOnce).await;
        }
        let message = client.message().await;
        assert_eq!((topic(&message), &message.payload[..], message.qos), (&*to, &payload[..], QoS::AtMostOnce), "{id}");
        until_status(&rest, &device, id, "DELIVERED").await;
        nothing_else(&rest, &device, &mut client).await;
        leave(&rest, &device, client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_mqtt_5_get_the_properties() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let properties = json!({
        "response_topic": "r/t", "correlation_data": "c",
        "user_properties": [{ "prop_key": "a", "prop_value": "1" }, { "prop_key": "a", "prop_value": "2" }],
    });
    let message = json!({ "message": "t", "properties": properties });
    send(&rest, &device, "m", message).await;
    assert_eq!(show(&rest, &device, "m").await["properties"], properties);
    let mut client = Client::with_version(&cluster, 1, &device, Version::V5).await;
    let message = client.message().await;
    let forward: Vec<ForwardProperty> = message.properties.forward.iter().collect();
    assert_eq!(forward.len(), 4, "{forward:?}");
    assert!(forward.contains(&ForwardProperty::CorrelationData("c".into())), "{forward:?}");
    assert!(forward.contains(&ForwardProperty::User("a".into(), "2".into())), "{forward:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let user: Vec<Value> = (0..21).map(|_| json!({ "prop_key": "k", "prop_value": "v" })).collect();
    let long = |count: usize| "x".repeat(count);
    for (message, wanted) in [
        (json!({}), "message is required"),
        (json!({ "message": null }), "message is required"),
        (json!({ "message": 1 }), "message must be a string or an object"),
        (json!({ "message": ["a"] }), "message must be a string or an object"),
        (json!({ "message": long(256 * 1024 + 1) }), "message must have at most 262144 bytes"),
        (json!({ "message": "x", "message_id": "a b" }), "message_id must be 1 to 100 letters"),
        (json!({ "message": "x", "message_id": long(101) }), "message_id must be 1 to 100 letters"),
        (json!({ "message": "x", "message_id": "" }), "message_id must be 1 to 100 letters"),
        (json!({ "message": "x", "name": long(129) }), "name must have 0 to 128 characters"),
        (json!({ "message": "x", "name": 1 }), "name must be a string"),
        (json!({ "message": "x", "encoding": "gzip" }), "encoding must be none or base64"),
        (json!({ "message": "no base64", "encoding": "base64" }), "message must be base64"),
        (json!({ "message": {}, "encoding": "base64" }), "message must be base64"),
        (json!({ "message": "x", "payload_format": "json" }), "payload_format must be standard or raw"),
        (json!({ "message": "eA==", "payload_format": "raw", "encoding": "base64" }), "payload_format must not be raw"),
        (json!({ "message": "x", "ttl": 7 }), "ttl must be a multiple of 5"),
        (json!({ "message": "x", "ttl": 1445 }), "ttl must be a whole number from 0 to 1440"),
        (json!({ "message": "x", "ttl": -5 }), "ttl must be a whole number"),
        (json!({ "message": "x", "ttl": "5" }), "ttl must be a whole number"),
        (json!({ "message": "x", "topic": "custom", "topic_full_name": "a" }), "topic_full_name must not be there"),
        (json!({ "message": "x", "topic": "unknown" }), "topic is not a topic"),
        (json!({ "message": "x", "topic": "a/#" }), "topic must be part of a topic name"),
        (json!({ "message": "x", "topic_full_name": "a/+" }), "topic_full_name must be a topic name"),
        (
            json!({ "message": "x", "topic_full_name": "$oc/devices/prod1_other/user/x" }),
            "topic_full_name must be a topic that this device may hear",
        ),
        (json!({ "message": "x", "properties": [] }), "properties must be an object"),
        (json!({ "message": "x", "properties": { "response_topic": "a/#" } }), "properties.response_topic must be a"),
        (json!({ "message": "x", "properties": { "response_topic": long(129) } }), "properties.response_topic must"),
        (json!({ "message": "x", "properties": { "correlation_data": long(129) } }), "properties.correlation_data"),
        (json!({ "message": "x", "properties": { "user_properties": user } }), "properties.user_properties must have"),
        (
            json!({ "message": "x", "properties": { "user_properties": [{}] } }),
            "properties.user_properties[0].prop_key is required",
        ),
        (json!([]), "body must be an object"),
    ] {
        let refused = refusal(&rest, "POST", &path(&device), &message).await;
        assert!(refused.contains(": 400 ") && refused.contains("IOTDA.000006"), "{refused}");
        assert!(refused.contains(wanted), "{wanted:?} is not in {refused}");
    }
    send_text(&rest, &device, "m").await;
    let twice = json!({ "message": "x", "message_id": "m" });
    let refused = refusal(&rest.at(cluster.member(1).rest), "POST", &path(&device), &twice).await;
    assert!(refused.contains(": 409 ") && refused.contains("FULMAR.000021"), "{refused}");
    for (method, rest_of_path) in [("POST", ""), ("GET", ""), ("GET", "/m"), ("DELETE", "/m")] {
        let path = format!("/devices/nobody/messages{rest_of_path}");
        let refused = refusal(&rest, method, &path, &json!({ "message": "x" })).await;
        assert!(refused.contains(": 404 ") && refused.contains("IOTDA.014000"), "{refused}");
    }
    assert_eq!(list(&rest, &device).await.len(), 1, "nothing else was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_whoever_has_subscribed() {
    let (one, two) = (huawei("one"), huawei("two"));
    let (cluster, rest) = cluster(&[one.clone(), two.clone()]).await;
    let (mut first, mut second) = (Client::connect(&cluster, 1, &one).await, Client::connect(&cluster, 2, &two).await);
    for client in [&mut first, &mut second] {
        client.subscribe("$oc/broadcast/news", QoS::AtLeastOnce).await;
        client.0.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await.unwrap();
    }
    let topic_full_name = "$oc/broadcast/news";
    let body =
        json!({ "topic_full_name": topic_full_name, "message": BASE64.encode("all"), "message_id": "b", "ttl": 0 });
    let sent = rest.call("POST", "/broadcast-messages", Some(&body)).await.unwrap();
    assert_eq!((&sent["topic_full_name"], &sent["message_id"]), (&json!(topic_full_name), &json!("b")));
    assert!(sent["app_id"].is_string() && sent["created_time"].is_string(), "{sent}");
    for client in [&mut first, &mut second] {
        let message = client.message().await;
        assert_eq!((topic(&message), &message.payload[..]), (topic_full_name, &b"all"[..]));
    }
    for (member, value, wanted) in [
        ("topic_full_name", json!("$oc/devices/x"), "topic_full_name must be a topic name"),
        ("topic_full_name", json!("$oc/broadcast/"), "topic_full_name must be a topic name"),
        ("topic_full_name", json!("$oc/broadcast/#"), "topic_full_name must be a topic name"),
        ("topic_full_name", Value::Null, "topic_full_name is required"),
        ("message", json!("no base64"), "message must be base64"),
        ("message", json!(BASE64.encode(vec![0; 128 * 1024 + 1])), "message must have at most 131072 bytes"),
        ("ttl", json!(5), "ttl must be 0"),
        ("message_id", json!("a b"), "message_id must be"),
    ] {
        let mut wrong = body.clone();
        wrong[member] = value;
        let refused = refusal(&rest, "POST", "/broadcast-messages", &wrong).await;
        assert!(refused.contains(": 400 ") && refused.contains(wanted), "{wanted:?} is not in {refused}");
    }
}
