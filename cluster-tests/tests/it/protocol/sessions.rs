//! Sessions that outlive their connection, end, or change hands.

use std::sync::Arc;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};

use crate::support::{
    PROTOCOLS, QUIET, SOON, Server, VERSIONS, client, close_reason, persistent, raw_client, raw_connect, raw_publish,
    raw_subscribe, shared,
};

#[tokio::test]
async fn an_offline_queue_is_delivered_in_order_whole_and_once() {
    const MESSAGES: usize = 300;
    let server = shared().await;
    for protocol in PROTOCOLS {
        let keeper = Options::new(protocol, "offline").persistent(3600);
        let mut first = Client::connect(server.mqtt(), keeper.clone()).await.unwrap();
        assert!(!first.session_present());
        first.subscribe("offline/#", 2).await.unwrap();
        first.disconnect().await.unwrap();

        let mut publisher = client(server.mqtt(), protocol, "offline-p").await;
        for number in 0..MESSAGES {
            publisher.publish_acked("offline/t", 1 + (number % 2) as u8, number.to_string()).await.unwrap();
        }
        let mut again = Client::connect(server.mqtt(), keeper.clone()).await.unwrap();
        assert!(again.session_present());
        for (number, message) in again.collect(MESSAGES, SOON).await.unwrap().into_iter().enumerate() {
            assert_eq!(message.text(), number.to_string(), "{protocol:?}");
            assert_eq!((message.qos, message.dup), (1 + (number % 2) as u8, false), "{protocol:?} {number}");
        }
        // Live messages follow in the same order, without a new subscribe.
        publisher.publish_acked("offline/t", 2, "live").await.unwrap();
        assert_eq!(again.receive(SOON).await.unwrap().text(), "live");
        again.expect_silence(QUIET).await.unwrap();
        again.disconnect().await.unwrap();

        let mut fresh = Client::connect(server.mqtt(), Options { clean: true, ..keeper }).await.unwrap();
        assert!(!fresh.session_present(), "a clean start discards it");
        publisher.publish_acked("offline/t", 1, "gone").await.unwrap();
        fresh.expect_silence(QUIET).await.unwrap();
        drop(fresh);
        // Leaves no session for the other protocol.
        client(server.mqtt(), Protocol::V4, "offline").await.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn messages_that_come_while_a_session_resumes_follow_its_queue() {
    const MESSAGES: usize = 2000;
    let server = shared().await;
    let (mut first, _) = raw_connect(server.mqtt(), persistent(Version::V5, "resume")).await;
    raw_subscribe(&mut first, "resume/t", QoS::AtLeastOnce).await;
    drop(first);
    let address = server.mqtt();
    let publishing = tokio::spawn(async move {
        let mut publisher = client(address, Protocol::V5, "resume-p").await;
        for number in 0..MESSAGES {
            publisher.publish("resume/t", 1, false, number.to_string()).await.unwrap();
        }
        publisher.publish_acked("resume/t", 1, MESSAGES.to_string()).await.unwrap();
    });
    // Comes and goes while they are published; nothing is lost, and new ones come in order. [at least once: repeats]
    let mut next = 0;
    while next <= MESSAGES {
        let (mut again, connack) = raw_connect(address, persistent(Version::V5, "resume")).await;
        assert!(connack.session_present);
        for _ in 0..400.min(MESSAGES + 1 - next) {
            let message = raw_publish(&mut again).await;
            let number: usize = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
            assert!(number <= next, "{next} is missing before {number}");
            next = next.max(number + 1);
            again.send(&Packet::PubAck(fulmar_mqtt::packet::Ack::success(message.packet_id))).await.unwrap();
        }
    }
    publishing.await.unwrap();
    raw_client(address, Version::V5, "resume").await; // discards the session
}

#[tokio::test]
async fn a_newer_connection_takes_the_session_over() {
    let server = shared().await;
    for version in VERSIONS {
        for make in [raw::connect, persistent] {
            let (mut first, _) = raw_connect(server.mqtt(), make(version, "taken")).await;
            raw_subscribe(&mut first, "taken/t", QoS::AtLeastOnce).await;
            let (mut second, _) = raw_connect(server.mqtt(), make(version, "taken")).await;
            let reason = (version == Version::V5).then_some(ReasonCode::SessionTakenOver);
            assert_eq!(close_reason(&mut first).await, reason, "{version:?}");
            raw_subscribe(&mut second, "taken/t", QoS::AtMostOnce).await;
            second.send(&Packet::Publish(raw::publish(0, "taken/t", QoS::AtMostOnce, "x"))).await.unwrap();
            assert_eq!(raw_publish(&mut second).await.payload, "x");
            // Discarded, whichever kind it was.
            let (mut last, _) = raw_connect(server.mqtt(), raw::connect(version, "taken")).await;
            last.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
            last.expect_close(SOON).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_hundred_connections_that_fight_for_one_id_leave_one_owner() {
    let server = Arc::new(Server::open().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let address = server.mqtt();
        tasks.spawn(async move {
            for round in 0..5 {
                let version = VERSIONS[(number + round) % 2];
                let make = if number % 3 == 0 { persistent } else { raw::connect };
                let Ok(mut client) = RawClient::tcp(address, version).await else { continue };
                // Whoever is taken over before its CONNACK sees only the close.
                let _ = client.handshake(make(version, "contended"), SOON).await;
                client.send(&Packet::PingReq).await.ok();
                if round % 2 == 0 {
                    client.expect_close(SOON).await.expect("a newer one takes over, and the older is closed");
                }
            }
        });
    }
    // Whoever of them is the last waits for somebody to take over: time and again, that is this one.
    let mut done = 0;
    let mut winner = raw_client(server.mqtt(), Version::V5, "contended").await;
    while done < 100 {
        match tokio::time::timeout(std::time::Duration::from_millis(200), tasks.join_next()).await {
            Ok(Some(ended)) => {
                ended.unwrap();
                done += 1;
            }
            _ => winner = raw_client(server.mqtt(), Version::V5, "contended").await,
        }
    }
    drop(winner);
    let mut owner = raw_client(server.mqtt(), Version::V5, "contended").await;
    raw_subscribe(&mut owner, "contended/t", QoS::AtMostOnce).await;
    owner.send(&Packet::Publish(raw::publish(0, "contended/t", QoS::AtMostOnce, "mine"))).await.unwrap();
    assert_eq!(raw_publish(&mut owner).await.payload, "mine");
    server.metric("fulmar_sessions_connected", |n| n == 1).await;
    server.metric("fulmar_connections", |n| n == 1).await;
    server.metric("fulmar_subscriptions", |n| n == 1).await;
    assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0);
}

/// Claims that cross: whoever of them is registered last, it is the newest that stays, and it can be found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_cross_leave_one_owner_who_can_be_taken_over() {
    let server = Arc::new(Server::open().await);
    for round in 0..60 {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let address = server.mqtt();
            tasks.spawn(async move {
                let mut client = RawClient::tcp(address, Version::V311).await.unwrap();
                // Whoever is taken over before its CONNACK sees only the close.
                let welcome = client.handshake(raw::connect(Version::V311, "crossing"), SOON).await.is_ok();
                (client, welcome)
            });
        }
        let mut clients = tasks.join_all().await;
        let last = raw_client(server.mqtt(), Version::V311, "crossing").await;
        for (client, welcome) in &mut clients {
            let closed = client.expect_close(SOON).await;
            assert!(closed.is_ok(), "round {round}: taken over and still open; CONNACK {welcome}: {closed:?}");
        }
        drop(last);
    }
    server.metric("fulmar_sessions_connected", |n| n == 0).await;
    server.metric("fulmar_connections", |n| n == 0).await;
}

#[tokio::test]
async fn a_session_ends_with_its_expiry() {
    let server = Server::open().await;
    let mut brief = persistent(Version::V5, "brief");
    brief.properties.session_expiry_s = Some(1);
    let (mut client, _) = raw_connect(server.mqtt(), brief.clone()).await;
    raw_subscribe(&mut client, "brief/t", QoS::AtLeastOnce).await;
    drop(client);
    server.metric("fulmar_sessions", |n| n == 0).await;
    let (mut client, connack) = raw_connect(server.mqtt(), brief).await;
    assert!(!connack.session_present);
    // DISCONNECT may change how long it lives: to nothing.
    let mut disconnect = raw::disconnect(ReasonCode::Success);
    if let Packet::Disconnect(disconnect) = &mut disconnect {
        disconnect.session_expiry_s = Some(0);
    }
    client.send(&disconnect).await.unwrap();
    server.metric("fulmar_sessions", |n| n == 0).await;
    // Without an expiry it ends with its connection, also without DISCONNECT.
    let mut unclean = raw::connect(Version::V5, "brief");
    unclean.clean_start = false;
    drop(raw_connect(server.mqtt(), unclean.clone()).await);
    server.metric("fulmar_sessions", |n| n == 0).await;
    assert!(!raw_connect(server.mqtt(), unclean).await.1.session_present);
}

#[tokio::test]
async fn a_silent_client_is_cut_after_its_keep_alive() {
    let server = shared().await;
    for version in VERSIONS {
        let mut connect = raw::connect(version, "silent");
        connect.keep_alive_s = 1;
        let (mut client, _) = raw_connect(server.mqtt(), connect).await;
        let reason = (version == Version::V5).then_some(ReasonCode::KeepAliveTimeout);
        assert_eq!(close_reason(&mut client).await, reason);
    }
}

#[tokio::test]
async fn pings_and_any_other_packet_keep_a_client_alive() {
    let server = shared().await;
    let mut connect = raw::connect(Version::V5, "pinging");
    connect.keep_alive_s = 1;
    let (mut pinging, _) = raw_connect(server.mqtt(), connect.clone()).await;
    connect.client_id = "publishing".into();
    let (mut publishing, _) = raw_connect(server.mqtt(), connect.clone()).await;
    connect.client_id = "silent-beside".into();
    let (mut silent, _) = raw_connect(server.mqtt(), connect).await;
    // The measure of time is a third client with the same keep alive that says nothing.
    let mut over = std::pin::pin!(silent.expect_close(SOON));
    loop {
        pinging.send(&Packet::PingReq).await.unwrap();
        pinging.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
        let publish = raw::publish(0, "pinging/t", QoS::AtMostOnce, "x");
        publishing.send(&Packet::Publish(publish)).await.unwrap();
        if tokio::time::timeout(crate::support::ws::TRICKLE, &mut over).await.is_ok() {
            break;
        }
    }
    for client in [&mut pinging, &mut publishing] {
        client.send(&Packet::PingReq).await.unwrap();
        client.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_without_an_id_is_given_one() {
    let server = shared().await;
    let (_client, connack) = raw_connect(server.mqtt(), raw::connect(Version::V5, "")).await;
    let (_other, other) = raw_connect(server.mqtt(), raw::connect(Version::V5, "")).await;
    let (id, other) = (connack.properties.assigned_client_id.unwrap(), other.properties.assigned_client_id.unwrap());
    assert!(!id.is_empty() && id != other, "{id} {other}");
    assert_eq!(raw_connect(server.mqtt(), raw::connect(Version::V311, "")).await.1.reason, ReasonCode::Success);
}
