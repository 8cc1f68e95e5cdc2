//! Time that passes while a node is down: wills, expiries of sessions, messages and retained messages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::packet::{self, Connect, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicName, Version};
use tokio::net::TcpStream;

use super::restart::publish;
use super::{WAYS, Way, again, elapse, leave, ping, stop, take};
use crate::support::{SOON, Server, VERSIONS, persistent, raw_client, raw_connect, raw_publish, raw_subscribe};

fn with_will(mut connect: Connect, delay_s: u32) -> Connect {
    connect.will = Some(packet::Will {
        topic: TopicName::new(format!("will/{}", connect.client_id)).unwrap(),
        payload: Bytes::copy_from_slice(connect.client_id.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: true,
        delay_s,
        properties: Default::default(),
    });
    connect
}

fn expiring(client_id: &str, expiry_s: u32) -> Connect {
    let mut connect = persistent(Version::V5, client_id);
    connect.properties.session_expiry_s = Some(expiry_s);
    connect
}

/// A persistent session that hears all wills, connected.
async fn witness(server: &Server, client_id: &str) -> RawClient<TcpStream> {
    let (mut witness, _) = raw_connect(server.mqtt(), persistent(Version::V5, client_id)).await;
    for filter in ["will/#", &format!("end/{client_id}")] {
        raw_subscribe(&mut witness, filter, QoS::AtLeastOnce).await;
    }
    witness
}

/// The wills that a witness has been sent up to now: a last one is published to see the end of them.
async fn wills(server: &Server, client_id: &str, count: usize) -> Vec<String> {
    let (mut witness, connack) = raw_connect(server.mqtt(), persistent(Version::V5, client_id)).await;
    assert!(connack.session_present);
    let mut wills = take(&mut witness, count).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "sentinel").await;
    publish(&mut publisher, raw::publish(1, &format!("end/{client_id}"), QoS::AtLeastOnce, "sentinel")).await;
    assert_eq!(take(&mut witness, 1).await, ["sentinel"], "{wills:?} came, and then");
    wills.sort();
    wills
}

#[tokio::test]
async fn wills_of_those_who_were_connected_come_once_and_to_all() {
    for way in WAYS {
        let mut server = Server::open().await;
        leave(witness(&server, "away").await).await;
        let there = witness(&server, "there").await;
        let mut connected = Vec::new();
        for version in VERSIONS {
            for (kind, make) in [("clean", raw::connect as fn(_, &str) -> _), ("persistent", persistent)] {
                let connect = with_will(make(version, &format!("{kind}-{version:?}")), 0);
                connected.push(raw_connect(server.mqtt(), connect).await.0);
            }
            // The node has taken note of a DISCONNECT when the will weighs nothing any more.
            let weight = server.metrics().await.get("fulmar_replicated_bytes");
            let polite = with_will(persistent(version, &format!("polite-{version:?}")), 0);
            leave(raw_connect(server.mqtt(), polite).await.0).await;
            server.metric("fulmar_replicated_bytes", |bytes| bytes == weight).await;
        }
        again(&mut server, way).await;
        drop((there, connected));
        let expected = ["clean-V311", "clean-V5", "persistent-V311", "persistent-V5"];
        for client_id in ["there", "away"] {
            assert_eq!(wills(&server, client_id, 4).await, expected, "{way:?} {client_id}");
        }
        // They were to be retained, and one of a witness that comes later is served from there.
        let mut late = raw_client(server.mqtt(), Version::V5, "late").await;
        raw_subscribe(&mut late, "will/+", QoS::AtLeastOnce).await;
        let mut kept = take(&mut late, 4).await;
        kept.sort();
        assert_eq!(kept, expected, "{way:?}");
        ping(&mut late).await;
        // Another restart brings no will a second time.
        again(&mut server, way).await;
        for client_id in ["there", "away"] {
            assert!(wills(&server, client_id, 0).await.is_empty(), "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_will_waits_its_delay_and_a_client_that_resumes_cancels_it() {
    for way in WAYS {
        let mut server = Server::open().await;
        leave(witness(&server, "witness").await).await;
        let mut connected = Vec::new();
        for (client_id, delay_s) in [("back", 3600), ("away", 3600), ("late", 2)] {
            let connect = with_will(persistent(Version::V5, client_id), delay_s);
            connected.push(raw_connect(server.mqtt(), connect).await.0);
        }
        // One whose delay began before the node was stopped.
        drop(raw_connect(server.mqtt(), with_will(persistent(Version::V5, "earlier"), 2)).await);
        server.metric("fulmar_sessions_connected", |n| n == 3).await;
        again(&mut server, way).await;
        drop(connected);
        let (back, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "back")).await;
        assert!(connack.session_present);
        assert_eq!(wills(&server, "witness", 2).await, ["earlier", "late"], "{way:?}");
        drop(back);
    }
}

#[tokio::test]
async fn a_session_whose_expiry_passed_while_the_node_was_down_has_ended() {
    for way in WAYS {
        let mut server = Server::open().await;
        leave(witness(&server, "witness").await).await;
        // Away before: its time runs. Connected at the end: its time begins there, or with the restart.
        for client_id in ["away", "long"] {
            let connect = with_will(expiring(client_id, if client_id == "long" { 3600 } else { 2 }), 3600);
            let (mut client, _) = raw_connect(server.mqtt(), connect).await;
            raw_subscribe(&mut client, "queue/#", QoS::AtLeastOnce).await;
            drop(client); // without DISCONNECT: the will waits for the delay or the session's end
        }
        server.metric("fulmar_sessions_connected", |n| n == 0).await;
        let connected = raw_connect(server.mqtt(), with_will(expiring("connected", 2), 3600)).await;
        let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
        publish(&mut publisher, raw::publish(1, "queue/t", QoS::AtLeastOnce, "queued")).await;
        stop(&mut server, way).await;
        elapse(Instant::now(), Duration::from_millis(2_500)).await;
        server.node.restart().await.unwrap();
        drop((publisher, connected));
        assert_eq!(wills(&server, "witness", 2).await, ["away", "connected"], "{way:?}");
        server.metric("fulmar_sessions", |n| n == 2).await;
        for client_id in ["away", "connected"] {
            assert!(!raw_connect(server.mqtt(), expiring(client_id, 2)).await.1.session_present, "{way:?} {client_id}");
        }
        let (mut long, connack) = raw_connect(server.mqtt(), expiring("long", 3600)).await;
        assert!(connack.session_present, "{way:?}");
        assert_eq!(take(&mut long, 1).await, ["queued"]);
        assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0);
    }
}

#[tokio::test]
async fn a_session_that_expires_is_not_there_even_for_who_comes_at_once() {
    let mut server = Server::open().await;
    // Its DISCONNECT is known for good once its will weighs nothing any more: from then on its time runs.
    let (brief, _) = raw_connect(server.mqtt(), with_will(expiring("brief", 1), 0)).await;
    leave(brief).await;
    server.metric("fulmar_replicated_bytes", |bytes| bytes == 0).await;
    stop(&mut server, Way::Kill).await;
    elapse(Instant::now(), Duration::from_millis(1_500)).await;
    server.node.start_again().unwrap();
    // As soon as somebody listens, before anything else.
    let address = server.mqtt();
    let open = cluster_tests::wait_for("a listener", SOON, async || RawClient::tcp(address, Version::V5).await.ok());
    let connack = open.await.unwrap().handshake(expiring("brief", 1), SOON).await.unwrap();
    assert_eq!((connack.reason, connack.session_present), (ReasonCode::Success, false));
}

#[tokio::test]
async fn messages_expire_while_the_node_is_down_and_others_have_less_left() {
    for way in WAYS {
        let mut server = Server::open().await;
        let (mut keeper, _) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
        raw_subscribe(&mut keeper, "queue/#", QoS::AtLeastOnce).await;
        leave(keeper).await;
        let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
        let begun = Instant::now();
        for (topic, retain) in [("queue/t", false), ("kept", true)] {
            for (number, expiry_s) in [(1, 2), (2, 1000)] {
                let topic = if retain { format!("{topic}/{number}") } else { topic.to_owned() };
                let mut message = raw::publish(number, &topic, QoS::AtLeastOnce, expiry_s.to_string());
                message.properties.message_expiry_s = Some(expiry_s);
                publish(&mut publisher, Publish { retain, ..message }).await;
            }
        }
        stop(&mut server, way).await;
        elapse(begun, Duration::from_secs(3)).await;
        server.node.restart().await.unwrap();
        drop(publisher);
        let (mut keeper, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
        assert!(connack.session_present);
        raw_subscribe_later(&mut keeper).await;
        let mut came = Vec::new();
        while came.len() < 2 {
            if let Packet::Publish(message) = keeper.next(SOON).await.unwrap() {
                came.push(message);
            }
        }
        for message in came {
            assert_eq!(message.payload, "1000", "{way:?}: the other has expired");
            // [v5 MQTT-3.3.2-6] what it had, less the time it waited, down or up.
            let (left, waited) = (u64::from(message.properties.message_expiry_s.unwrap()), begun.elapsed().as_secs());
            assert!((1000 - waited - 1..=1000 - 2).contains(&left), "{way:?}: {left} s left after {waited} s");
        }
        ping(&mut keeper).await;
    }
}

/// Asks for the retained messages, and does not wait for the answer: deliveries come before it.
async fn raw_subscribe_later(client: &mut RawClient<TcpStream>) {
    client.send(&raw::subscribe(9, "kept/#", QoS::AtLeastOnce)).await.unwrap();
}

/// The clock of the log does not run backwards, nor stand still: an expiry is as long after a restart as without.
#[tokio::test]
async fn time_goes_on_over_several_restarts() {
    let mut server = Server::open().await;
    let (mut keeper, _) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
    raw_subscribe(&mut keeper, "queue/#", QoS::AtLeastOnce).await;
    leave(keeper).await;
    let begun = Instant::now();
    let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
    let mut message = raw::publish(1, "queue/t", QoS::AtLeastOnce, "x");
    message.properties.message_expiry_s = Some(1000);
    publish(&mut publisher, message).await;
    for _ in 0..4 {
        again(&mut server, Way::Kill).await;
    }
    let (mut keeper, _) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
    let left = u64::from(raw_publish(&mut keeper).await.properties.message_expiry_s.unwrap());
    let waited = begun.elapsed().as_secs();
    assert!((1000 - waited - 1..=1000).contains(&left), "{left} s left after {waited} s");
}
