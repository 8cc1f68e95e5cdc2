//! Wills: when they are published, and when not.

use bytes::BytesMut;
use cluster_tests::client::{Client, Options, Protocol, Will};
use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version, encode};
use tokio::net::TcpSocket;

use crate::support::{PROTOCOLS, SOON, client, persistent, raw_client, raw_connect, raw_subscribe, shared, with_will};

/// A client that hears the wills under one topic.
async fn witness(address: std::net::SocketAddr, topic: &str) -> Client {
    let mut witness = client(address, Protocol::V5, &format!("witness-of-{topic}")).await;
    witness.subscribe(&format!("{topic}/#"), 1).await.unwrap();
    witness
}

#[tokio::test]
async fn a_lost_connection_publishes_the_will_and_a_disconnect_does_not() {
    let server = shared().await;
    for protocol in PROTOCOLS {
        let mut witness = witness(server.mqtt(), "lost").await;
        let will = |payload: &str| Will {
            topic: "lost/will".into(),
            payload: payload.into(),
            qos: 1,
            retain: true,
            delay_s: None,
        };
        let polite = Options { will: Some(will("polite")), ..Options::new(protocol, "polite") };
        Client::connect(server.mqtt(), polite).await.unwrap().disconnect().await.unwrap();
        let lost = Options { will: Some(will("lost")), ..Options::new(protocol, "lost") };
        Client::connect(server.mqtt(), lost).await.unwrap().abort().await;
        let message = witness.receive(SOON).await.unwrap();
        assert_eq!((message.text().as_str(), message.qos), ("lost", 1), "{protocol:?}: only the lost one's will");
        // It was to be retained.
        let mut late = client(server.mqtt(), protocol, "late").await;
        late.subscribe("lost/will", 1).await.unwrap();
        let message = late.receive(SOON).await.unwrap();
        assert_eq!((message.text().as_str(), message.retain), ("lost", true));
        let ticket = late.publish("lost/will", 1, true, "").await.unwrap();
        late.acked(ticket, SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_disconnect_counts_before_the_same_clients_next_connection() {
    let server = shared().await;
    let mut keeper = raw_connect(server.mqtt(), persistent(Version::V5, "keeper-of-hasty")).await.0;
    raw_subscribe(&mut keeper, "hasty/kept", QoS::AtLeastOnce).await;
    drop(keeper);
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut witness = witness(server.mqtt(), "hasty").await;
        for (topic, qos, count, times) in [
            ("hasty/busy", QoS::AtMostOnce, 2_000, 1),
            ("hasty/kept", QoS::AtLeastOnce, 20, 20),
            ("", QoS::AtMostOnce, 0, 20),
        ] {
            for _ in 0..times {
                let hasty = with_will(raw::connect(version, "hasty"), "hasty/will", 0);
                let (mut older, _) = raw_connect(server.mqtt(), hasty).await;
                // The node, or its log, is busy with what comes before the DISCONNECT when the next CONNECT is there.
                let mut said = BytesMut::new();
                for number in 1..=count {
                    let packet_id = if qos == QoS::AtMostOnce { 0 } else { number };
                    let publish = raw::publish(packet_id, topic, qos, number.to_string());
                    encode(&Packet::Publish(publish), version, &mut said).unwrap();
                }
                encode(&raw::disconnect(ReasonCode::Success), version, &mut said).unwrap();
                older.send_bytes(&said).await.unwrap();
                raw_client(server.mqtt(), version, "hasty").await;
            }
            let mut newer = raw_client(server.mqtt(), version, "hasty").await;
            newer.send(&said_of("hasty/last", "")).await.unwrap();
            loop {
                match witness.receive(SOON).await.unwrap().topic.as_str() {
                    "hasty/busy" | "hasty/kept" => {}
                    "hasty/last" => break,
                    other => panic!("{version:?}, {count} of {qos:?}: {other}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_disconnect_counts_where_its_client_reads_nothing_more() {
    let server = shared().await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut witness = witness(server.mqtt(), "sated").await;
        let mut feeder = raw_client(server.mqtt(), version, "feeder").await;
        for round in 0..10 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            let mut sated = RawClient::new(socket.connect(server.mqtt()).await.unwrap(), version);
            sated.handshake(with_will(raw::connect(version, "sated"), "sated/will", 0), SOON).await.unwrap();
            raw_subscribe(&mut sated, "feed", QoS::AtMostOnce).await;
            // More than the sockets hold: the node is writing when the client has gone, and its system says so.
            for _ in 0..100 {
                let publish = raw::publish(0, "feed", QoS::AtMostOnce, vec![b'x'; 64 << 10]);
                feeder.send(&Packet::Publish(publish)).await.unwrap();
            }
            feeder.send(&Packet::PingReq).await.unwrap();
            assert_eq!(feeder.next(SOON).await.unwrap(), Packet::PingResp);
            sated.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
            drop(sated);
            let mut newer = raw_client(server.mqtt(), version, "sated").await;
            newer.send(&said_of("sated/last", "")).await.unwrap();
            assert_eq!(witness.receive(SOON).await.unwrap().topic, "sated/last", "{version:?}, round {round}");
        }
    }
}

fn said_of(topic: &str, payload: &str) -> Packet {
    Packet::Publish(raw::publish(0, topic, QoS::AtMostOnce, payload.to_owned()))
}

#[tokio::test]
async fn a_will_is_published_by_what_ends_a_connection_badly() {
    let server = shared().await;
    let mut witness = witness(server.mqtt(), "bad").await;
    for version in [Version::V311, Version::V5] {
        // A malformed packet.
        let (mut client, _) =
            raw_connect(server.mqtt(), with_will(raw::connect(version, "malformed"), "bad/t", 0)).await;
        client.send_bytes(&[0xFF, 0xFF]).await.unwrap();
        assert_eq!(witness.receive(SOON).await.unwrap().text(), "malformed", "{version:?}");
        // A keep alive that ran out.
        let mut silent = with_will(raw::connect(version, "silent"), "bad/t", 0);
        silent.keep_alive_s = 1;
        let (client, _) = raw_connect(server.mqtt(), silent).await;
        assert_eq!(witness.receive(SOON).await.unwrap().text(), "silent", "{version:?}");
        drop(client);
        // A newer connection with the same id.
        let contested = with_will(raw::connect(version, "contested"), "bad/t", 0);
        let (client, _) = raw_connect(server.mqtt(), contested).await;
        let newer = raw_client(server.mqtt(), version, "contested").await;
        assert_eq!(witness.receive(SOON).await.unwrap().text(), "contested", "{version:?}");
        drop((client, newer));
    }
    // The wish of the client itself.
    let (mut client, _) = raw_connect(server.mqtt(), with_will(raw::connect(Version::V5, "wish"), "bad/t", 0)).await;
    client.send(&raw::disconnect(ReasonCode::DisconnectWithWill)).await.unwrap();
    assert_eq!(witness.receive(SOON).await.unwrap().text(), "wish");
}

#[tokio::test]
async fn a_delayed_will_is_cancelled_by_coming_back() {
    let server = shared().await;
    let mut witness = witness(server.mqtt(), "delayed").await;
    let back = with_will(persistent(Version::V5, "back"), "delayed/t", 1);
    drop(raw_connect(server.mqtt(), back).await);
    let (_again, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "back")).await;
    assert!(connack.session_present);
    // The measure of time: a later one with a longer delay, which does not come back.
    drop(raw_connect(server.mqtt(), with_will(persistent(Version::V5, "away"), "delayed/t", 2)).await);
    assert_eq!(witness.receive(SOON).await.unwrap().text(), "away", "the will of who came back is not published");
    for id in ["back", "away"] {
        raw_client(server.mqtt(), Version::V5, id).await; // discards the session
    }
}

#[tokio::test]
async fn a_delayed_will_comes_with_the_end_of_its_session() {
    let server = shared().await;
    let mut witness = witness(server.mqtt(), "early").await;
    let mut connect = with_will(persistent(Version::V5, "expires"), "early/t", 3600);
    connect.properties.session_expiry_s = Some(1);
    drop(raw_connect(server.mqtt(), connect).await);
    assert_eq!(witness.receive(SOON).await.unwrap().text(), "expires");
    // [v5 MQTT-3.1.3.2.2] a clean start ends the session too.
    drop(raw_connect(server.mqtt(), with_will(persistent(Version::V5, "discarded"), "early/t", 3600)).await);
    let mut fresh = raw_client(server.mqtt(), Version::V5, "discarded").await;
    assert_eq!(witness.receive(SOON).await.unwrap().text(), "discarded");
    fresh.send(&Packet::PingReq).await.unwrap();
}
