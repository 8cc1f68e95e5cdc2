//! When a message is delivered, how often, and what becomes of it else.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_a_device_at_another_node_at_once() {
    let devices: Vec<Device> = Vendor::OF_DEVICES.map(|vendor| Device::new(vendor, "d")).into();
    let (cluster, rest) = cluster(&devices).await;
    let [huawei, aliyun, tencent] = &devices[..] else { panic!("three vendors") };
    // Huawei's devices get the platform's messages without asking; the others what they have subscribed to.
    let mut client = Client::connect(&cluster, 1, huawei).await;
    let body = json!({ "message": "hello", "name": "greeting" });
    assert_eq!(send(&rest, huawei, "m1", body).await, "DELIVERED");
    let message = client.message().await;
    assert_eq!((topic(&message), message.qos), ("$oc/devices/prod1_d/sys/messages/down", QoS::AtMostOnce));
    assert_eq!(message.payload, r#"{"object_device_id":"prod1_d","name":"greeting","id":"m1","content":"hello"}"#);
    let shown = show(&rest.at(cluster.member(2).rest), huawei, "m1").await;
    assert_eq!((&shown["status"], &shown["message"]), (&json!("DELIVERED"), &json!("hello")));
    assert!(shown["finished_time"].is_string() && shown["error_info"].is_null(), "{shown}");
    nothing_else(&rest, huawei, &mut client).await;
    for (device, custom, heard) in [
        (aliyun, Some("user/down"), "/a1B2c3D4e5F/d/user/down"),
        (tencent, None, "ABCDE12345/d/control"),
        (tencent, Some("custom"), "ABCDE12345/d/custom"),
    ] {
        let mut client = Client::connect(&cluster, 2, device).await;
        let body = json!({ "message": { "on": 1 }, "topic": custom });
        let id = format!("m-{}", heard.replace('/', "-"));
        assert_eq!(send(&rest, device, &id, body).await, "PENDING", "{heard}: it has not subscribed");
        client.subscribe(heard, QoS::AtLeastOnce).await;
        let message = client.message().await;
        client.acknowledge(&message).await;
        assert_eq!((topic(&message), &message.payload[..]), (heard, &br#"{"on":1}"#[..]));
        until_status(&rest, device, &id, "DELIVERED").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_their_device_and_come_once_and_in_order() {
    let (one, two) = (huawei("one"), huawei("two"));
    let (cluster, rest) = cluster(&[one.clone(), two.clone()]).await;
    for device in [&one, &two] {
        for number in 0..25 {
            let at = rest.at(cluster.member(number % 3).rest);
            assert_eq!(send_text(&at, device, &format!("m{number}")).await, "PENDING");
        }
        let pending: Vec<_> = (5..25).map(|number| (format!("m{number}"), "PENDING".to_owned())).collect();
        assert_eq!(list(&rest, device).await, pending, "the newest twenty");
    }
    let newest: Vec<String> = (5..25).map(|number| format!("m{number}")).collect();
    // Without SUBSCRIBE.
    let mut client = Client::connect(&cluster, 1, &one).await;
    assert_eq!(client.ids(20).await, newest);
    nothing_else(&rest, &one, &mut client).await;
    until_status(&rest, &one, "m24", "DELIVERED").await;
    // With one that follows at once: one copy of each, whichever QoS it has.
    let mut client = Client::connect(&cluster, 2, &two).await;
    client.subscribe("$oc/devices/prod1_two/sys/messages/down", QoS::AtLeastOnce).await;
    assert_eq!(client.ids(20).await, newest);
    nothing_else(&rest, &two, &mut client).await;
    assert!(list(&rest, &two).await.iter().all(|(_, status)| status == "DELIVERED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_may_want_its_devices_to_subscribe() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let change = json!({ "messages_require_subscribe": true });
    let product = rest.call("PUT", "/products/prod1", Some(&change)).await.unwrap();
    assert_eq!(product["messages_require_subscribe"], true);
    send_text(&rest, &device, "m1").await;
    let mut client = Client::connect(&cluster, 1, &device).await;
    assert_eq!(send_text(&rest, &device, "m2").await, "PENDING", "also while it is connected");
    client.subscribe("$oc/devices/prod1_d/sys/messages/down", QoS::AtLeastOnce).await;
    for id_wanted in ["m1", "m2"] {
        let message = client.message().await;
        assert_eq!((id(&message).as_str(), message.qos, message.dup), (id_wanted, QoS::AtLeastOnce, false));
        client.acknowledge(&message).await;
    }
    nothing_else(&rest, &device, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_qos_1_is_sent_until_it_is_acknowledged() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let down = "$oc/devices/prod1_d/sys/messages/down";
    let mut client = Client::connect(&cluster, 1, &device).await;
    client.subscribe(down, QoS::AtLeastOnce).await;
    client.0.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await.unwrap();
    assert_eq!(send_text(&rest, &device, "m").await, "DELIVERED", "without an acknowledgement");
    let mut sends = Vec::new();
    for _ in 0..3 {
        let message = client.message().await;
        sends.push((id(&message), message.packet_id, message.dup));
    }
    let packet_id = sends[0].1;
    assert_eq!(sends, [false, true, true].map(|dup| ("m".to_owned(), packet_id, dup)));
    drop(client);
    // On another node, before it subscribes again: a publish of its own there, then again.
    let mut client = Client::connect(&cluster, 2, &device).await;
    let first = client.message().await;
    assert_eq!((id(&first).as_str(), first.qos, first.dup), ("m", QoS::AtLeastOnce, false));
    client.subscribe(down, QoS::AtLeastOnce).await;
    for _ in 0..5 {
        // The rest of this round, and of the next one.
        let again = client.message_within(ROUND).await;
        assert_eq!((id(&again).as_str(), again.packet_id, again.dup), ("m", first.packet_id, true));
    }
    client.acknowledge(&first).await;
    nothing_else(&rest, &device, &mut client).await;
    drop(client);
    let mut client = Client::connect(&cluster, 0, &device).await;
    nothing_else(&rest, &device, &mut client).await;
    assert_eq!(show(&rest, &device, "m").await["status"], "DELIVERED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_devices_get_theirs_through_their_gateway() {
    let gateway = huawei("gateway");
    let (cluster, rest) = cluster(std::slice::from_ref(&gateway)).await;
    let sub = huawei("sub");
    let record = json!({ "product_id": "prod1", "node_id": "sub", "gateway_id": gateway.id() });
    rest.call("POST", "/devices", Some(&record)).await.unwrap();
    for (device, id) in [(&sub, "m1"), (&gateway, "m2"), (&sub, "m3")] {
        assert_eq!(send_text(&rest, device, id).await, "PENDING");
    }
    let mut client = Client::connect(&cluster, 1, &gateway).await;
    for (object, id) in [("prod1_sub", "m1"), ("prod1_gateway", "m2"), ("prod1_sub", "m3")] {
        let message = client.message().await;
        assert_eq!(topic(&message), "$oc/devices/prod1_gateway/sys/messages/down");
        let body = body(&message);
        assert_eq!((&body["object_device_id"], &body["id"]), (&json!(object), &json!(id)));
    }
    assert_eq!(send_text(&rest, &sub, "m4").await, "DELIVERED");
    assert_eq!(client.ids(1).await, ["m4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_not_delivered() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    send_text(&rest, &device, "m1").await;
    send_text(&rest, &device, "m2").await;
    let m1 = format!("{}/m1", path(&device));
    rest.at(cluster.member(1).rest).call("DELETE", &m1, None).await.unwrap();
    for method in ["DELETE", "GET"] {
        let refused = refusal(&rest, method, &m1, &Value::Null).await;
        assert!(refused.contains(": 404 ") && refused.contains("FULMAR.000022"), "{refused}");
    }
    let mut client = Client::connect(&cluster, 2, &device).await;
    assert_eq!(client.ids(1).await, ["m2"]);
    nothing_else(&rest, &device, &mut client).await;
    // A device's messages go with it.
    leave(&rest, &device, client).await;
    assert_eq!(send_text(&rest, &device, "m3").await, "PENDING");
    rest.call("DELETE", &format!("/devices/{}", device.id()), None).await.unwrap();
    rest.add(std::slice::from_ref(&device)).await.unwrap();
    assert!(list(&rest, &device).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_fails() {
    let device = huawei("d");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let fleeting = json!({ "message": "x", "ttl": 0 });
    assert_eq!(send(&rest, &device, "offline", fleeting.clone()).await, "FAILED");
    let mut client = Client::connect(&cluster, 1, &device).await;
    let custom = json!({ "message": "x", "ttl": 0, "topic": "custom" });
    assert_eq!(send(&rest, &device, "unheard", custom).await, "FAILED");
    for (id, code) in [("offline", "IOTDA.014016"), ("unheard", "IOTDA.014112")] {
        let shown = show(&rest, &device, id).await;
        assert_eq!(shown["error_info"]["error_code"], code, "{shown}");
        assert!(shown["finished_time"].is_string(), "{shown}");
    }
    assert_eq!(send(&rest, &device, "online", fleeting).await, "DELIVERED");
    assert_eq!(client.ids(1).await, ["online"]);
    nothing_else(&rest, &device, &mut client).await;
}
