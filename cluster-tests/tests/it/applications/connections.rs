//! Who is let in, how many, and what they may do.

use cluster_tests::harness::RECOVERY;
use fulmar_mqtt::{Packet, QoS, ReasonCode};

use super::*;

const REFUSED: ReasonCode = ReasonCode::NotAuthorized;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_key_has_ten_connections_in_the_whole_cluster() {
    let (mut cluster, rest, _) = start().await;
    let code = Code::make(&rest, false).await.unwrap();
    let mut ten = Vec::new();
    for number in 0..10 {
        ten.push(open(&code, &cluster, number % 3, &format!("app-{number}")).await);
    }
    for node in 0..3 {
        let (reason, mut refused) = try_open(&code, &cluster, node, "app-10").await;
        assert_eq!(reason, REFUSED, "at node {node}");
        refused.client.expect_close(SOON).await.unwrap();
    }
    // Its own place is taken over, by nobody else's.
    let mut taken = std::mem::replace(&mut ten[4], open(&code, &cluster, 2, "app-4").await);
    taken.client.expect_close(SOON).await.unwrap();
    for application in &mut ten {
        application.client.send(&Packet::PingReq).await.unwrap();
        application
            .client
            .expect("PINGRESP", SOON, |packet| matches!(packet, Packet::PingResp).then_some(()))
            .await
            .unwrap();
    }
    // Node 0 had four of them, node 2 now has four as well.
    cluster.kill(0).await.unwrap();
    let mut more = Vec::new();
    cluster_tests::wait_for("a seat that a dead node held", RECOVERY, async || {
        let (reason, application) = try_open(&code, &cluster, 1, "late-0").await;
        (reason == ReasonCode::Success).then(|| more.push(application))
    })
    .await
    .unwrap();
    for number in 1..4 {
        more.push(open(&code, &cluster, 1 + number % 2, &format!("late-{number}")).await);
    }
    assert_eq!(try_open(&code, &cluster, 2, "late-4").await.0, REFUSED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_code_voids_the_one_before_and_cuts_its_connections_if_asked_to() {
    let (cluster, rest, _) = start().await;
    let first = Code::make(&rest, false).await.unwrap();
    let mut stays = open(&first, &cluster, 1, "first").await;
    let second = Code::make(&rest.at(cluster.member(1).rest), false).await.unwrap();
    for node in 0..3 {
        assert_eq!(try_open(&first, &cluster, node, "again").await.0, ReasonCode::BadUserNameOrPassword);
    }
    let mut goes = open(&second, &cluster, 2, "second").await;
    let third = Code::make(&rest, true).await.unwrap();
    goes.client.expect_close(SOON).await.unwrap();
    assert_eq!(try_open(&second, &cluster, 2, "second").await.0, ReasonCode::BadUserNameOrPassword);
    open(&third, &cluster, 0, "third").await;
    // The first one's was not asked to go, and is no connection of the second's.
    stays.client.send(&Packet::PingReq).await.unwrap();
    stays.client.expect("PINGRESP", SOON, |packet| matches!(packet, Packet::PingResp).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_listens_on_topics_of_rules_and_says_nothing() {
    let (cluster, rest, _) = start().await;
    let code = Code::make(&rest, false).await.unwrap();
    let mut application = open(&code, &cluster, 1, "app").await;
    assert_eq!(application.subscribe("app/t1", QoS::AtMostOnce).await, ReasonCode::UnspecifiedError);
    rule(&rest, json!({}), "MQTT_FORWARDING", json!({ "mqtt_forwarding": { "topic": "app/t1" } })).await;
    // The action came after the client, and at another node.
    for (filter, qos, granted) in [
        ("app/t1", QoS::AtLeastOnce, true),
        ("$share/g/app/t1", QoS::ExactlyOnce, true),
        ("app/t2", QoS::AtMostOnce, false),
        ("app/+", QoS::AtMostOnce, false),
        ("#", QoS::AtMostOnce, false),
        ("$push/app/t1", QoS::AtMostOnce, false),
        ("$SYS/#", QoS::AtMostOnce, false),
    ] {
        let wanted = if granted { ReasonCode::Success } else { ReasonCode::UnspecifiedError };
        assert_eq!(application.subscribe(filter, qos).await, wanted, "{filter}");
    }
    application.client.send(&raw::unsubscribe(90, "app/t1")).await.unwrap();
    application
        .client
        .expect("UNSUBACK", SOON, |packet| matches!(packet, Packet::UnsubAck(_)).then_some(()))
        .await
        .unwrap();
    let publish = raw::publish(0, "app/t1", QoS::AtMostOnce, "no");
    application.client.send(&Packet::Publish(publish)).await.unwrap();
    application.client.expect_close(SOON).await.unwrap();
}
