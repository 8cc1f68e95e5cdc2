//! Reports of devices that are bound to an application of Sensoro's.

use std::sync::Arc;

use super::receivers::{Requests, anywhere, listen, until};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_device_reports_to_its_application_and_to_the_callback() {
    let (cluster, rest, device) = start().await;
    let requests = Arc::new(Requests::default());
    requests.answers.lock().unwrap().push_back(500);
    let at = listen(requests.clone(), anywhere()).await;
    let listener = Device::new(Vendor::Sensoro, "foobar");
    rest.add(std::slice::from_ref(&listener)).await.unwrap();
    let callback = json!({ "callback_url": format!("http://{at}/callback"), "qos": 0 });
    rest.call("PUT", "/sensoro-apps/foobar", Some(&callback)).await.unwrap();
    let path = format!("/devices/{}", device.id());
    let bound = rest.call("PUT", &path, Some(&json!({ "sensoro_app_id": "foobar" }))).await.unwrap();
    assert_eq!(bound["sensoro_app_id"], "foobar");
    let mut clients = Vec::new();
    for (node, topic) in [(1, "users/foobar/devices"), (2, "/users/foobar/devices")] {
        let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
        let mut connect = listener.connect();
        connect.client_id = format!("foobar/{node}").into();
        assert_eq!(client.handshake(connect, SOON).await.unwrap().reason, ReasonCode::Success);
        client.send(&raw::subscribe(1, topic, QoS::AtLeastOnce)).await.unwrap();
        client.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await.unwrap();
        clients.push((topic, client));
    }
    let mut reporter = connect(&cluster, 0, &device).await;
    for (qos, number) in [(QoS::AtMostOnce, 1), (QoS::AtLeastOnce, 2)] {
        // Without a reconnect.
        rest.call("PUT", "/sensoro-apps/foobar", Some(&json!({ "qos": number - 1 }))).await.unwrap();
        reporter.report(number).await;
        for (topic, client) in &mut clients {
            let pushed = client.expect("an answer", SOON, |packet| match packet {
                Packet::Publish(publish) => Some(publish.clone()),
                _ => None,
            });
            let pushed = pushed.await.unwrap();
            assert_eq!((pushed.topic.as_ref().unwrap().as_str(), pushed.qos), (*topic, qos));
            let record: Value = serde_json::from_slice(&pushed.payload).unwrap();
            assert_eq!((&record["appId"], &record["sn"]), (&json!("foobar"), &json!("meter")));
            assert_eq!(record["data"], json!({ "value": number }));
        }
    }
    let posted = until(&requests, 2).await;
    assert_eq!(posted[0].body["data"], json!({ "value": 1 }));
    assert_eq!(posted[1].body["data"], json!({ "value": 2 }));
    for request in &posted {
        assert!(request.header("x-access-nonce").is_some_and(|nonce| nonce.len() == 13));
        assert!(request.header("x-access-signature").is_some_and(|signature| signature.len() == 44));
    }
    // In safe mode `data` is not readable any more, at once; and who is used is not deleted.
    rest.call("PUT", "/sensoro-apps/foobar", Some(&json!({ "safe_mode": true }))).await.unwrap();
    reporter.report(3).await;
    let posted = until(&requests, 3).await;
    assert!(posted[2].body["encryptData"].is_string() && posted[2].body.get("data").is_none());
    assert!(rest.call("DELETE", "/sensoro-apps/foobar", None).await.is_err());
}
