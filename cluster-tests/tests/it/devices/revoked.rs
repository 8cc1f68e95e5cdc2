//! Rights that are taken away: whoever has them by what was before is cut, however it falls in time.

use cluster_tests::devices::{Device, Vendor};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};

use super::{cluster, cluster_with, connect};
use crate::durability::has_failpoints;
use crate::support::SOON;

/// Between the claim of a session and the place where it can be told of things, nodes wait for so long.
const LATE: (&str, &str) = ("FAILPOINTS", "claim::before_register=sleep(2000)");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_frozen_while_it_comes_in_is_cut() {
    if !has_failpoints("a_device_that_is_frozen_while_it_comes_in_is_cut").await {
        return;
    }
    let device = Device::new(Vendor::Aliyun, "late");
    let (cluster, rest) = cluster_with(std::slice::from_ref(&device), &[LATE]).await;
    let path = |what: &str| format!("/devices/{}/{what}", device.id());
    for round in 0..2 {
        let mut client = RawClient::tcp(cluster.mqtt(1), Version::V311).await.unwrap();
        client.send(&Packet::Connect(Box::new(device.connect()))).await.unwrap();
        wait_for("a claim", SOON, async || (rest.status(&device).await.ok()? == "ONLINE").then_some(())).await.unwrap();
        rest.call("POST", &path("freeze"), None).await.unwrap();
        client.expect_close(SOON).await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        rest.call("POST", &path("unfreeze"), None).await.unwrap();
        wait_for("its end", SOON, async || (rest.status(&device).await.ok()? == "OFFLINE").then_some(()))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_an_application_go_with_its_secret_or_with_it() {
    let [app, other] = ["push", "push2"].map(|name| Device::new(Vendor::Sensoro, name));
    let (cluster, rest) = cluster(&[app.clone(), other.clone()]).await;
    let mut bystander = connect(&cluster, 0, &other).await;
    let mut client = connect(&cluster, 1, &app).await;
    let reset = rest.call("POST", "/sensoro-apps/push/reset-secret", None).await.unwrap();
    client.expect_close(SOON).await.unwrap();
    let mut stale = RawClient::tcp(cluster.mqtt(2), Version::V311).await.unwrap();
    let refused = stale.handshake(app.connect(), SOON).await.unwrap();
    assert_ne!(refused.reason, ReasonCode::Success, "with the old secret");
    let mut connect = app.connect();
    connect.password = Some(reset["app_secret"].as_str().unwrap().to_owned().into_bytes().into());
    let mut client = RawClient::tcp(cluster.mqtt(2), Version::V311).await.unwrap();
    assert_eq!(client.handshake(connect, SOON).await.unwrap().reason, ReasonCode::Success);
    rest.call("DELETE", "/sensoro-apps/push", None).await.unwrap();
    client.expect_close(SOON).await.unwrap();
    bystander.send(&Packet::PingReq).await.unwrap();
    assert_eq!(bystander.next(SOON).await.unwrap(), Packet::PingResp, "another's clients stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_resumed_as_far_as_they_are_still_allowed() {
    let device = Device::new(Vendor::Aliyun, "resumes");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let [first, second] =
        ["first", "second"].map(|topic| format!("/{}/{}/user/{topic}", device.product_id, device.name));
    let classes = async |first: &str| {
        let topics: Value = json!({ "topics": [
            { "topic": "user/first", "access": first }, { "topic": "user/second", "access": "all" },
        ] });
        rest.call("PUT", &format!("/products/{}/topics", device.product_id), Some(&topics)).await.unwrap();
    };
    let come = async |node: usize| {
        let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
        let mut connect = device.connect();
        connect.clean_start = false;
        let connack = client.handshake(connect, SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::Success);
        (client, connack.session_present)
    };
    // What comes to it of what it publishes to both topics, up to the second.
    let hears = async |client: &mut RawClient<tokio::net::TcpStream>| {
        for (id, topic) in [(11, &first), (12, &second)] {
            let publish = raw::publish(id, topic, QoS::AtLeastOnce, topic.clone());
            client.send(&Packet::Publish(publish)).await.unwrap();
        }
        let mut heard = Vec::new();
        while heard.last() != Some(&second) {
            if let Packet::Publish(publish) = client.next(SOON).await.unwrap() {
                heard.push(publish.topic.unwrap().as_str().to_owned());
                client.send(&Packet::PubAck(fulmar_mqtt::packet::Ack::success(publish.packet_id))).await.unwrap();
            }
        }
        heard
    };
    classes("all").await;
    let (mut client, _) = come(0).await;
    for (id, topic) in [(1, &first), (2, &second)] {
        client.send(&raw::subscribe(id, topic, QoS::AtLeastOnce)).await.unwrap();
    }
    assert_eq!(hears(&mut client).await, [first.clone(), second.clone()]);
    client.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
    client.expect_close(SOON).await.unwrap();
    classes("pub").await;
    let (mut client, present) = come(1).await;
    assert!(present, "the session is its own all the same");
    assert_eq!(hears(&mut client).await, std::slice::from_ref(&second));
    client.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
    client.expect_close(SOON).await.unwrap();
    // It is gone for good, not only hidden.
    classes("all").await;
    let (mut client, _) = come(2).await;
    assert_eq!(hears(&mut client).await, std::slice::from_ref(&second));
}
