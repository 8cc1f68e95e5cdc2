//! The books: each delivery that was taken on ends in exactly one way.

use cluster_tests::client::{Client, Options, Protocol, Ticket};
use cluster_tests::metrics::Metrics;
use cluster_tests::raw;
use fulmar_mqtt::{Packet, QoS, Version};
use rand::prelude::*;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::support::{OPEN, PROTOCOLS, SOON, Server, client, persistent, raw_client, raw_connect, raw_subscribe, seed};

/// What is taken on is delivered, expired, dropped for a reason, or still open.
fn balance(metrics: &Metrics, qos: &str) -> (u64, u64) {
    let qos = format!("qos=\"{qos}\"");
    let ended = ["fulmar_live_delivered_total", "fulmar_live_expired_total", "fulmar_live_dropped_total"];
    let ended: u64 = ended.iter().map(|name| metrics.sum(&[name, &qos])).sum();
    (metrics.sum(&["fulmar_live_obligations_total", &qos]), ended)
}

/// The same for what the replicated state keeps for sessions that outlive their connection.
fn durable_balance(metrics: &Metrics) -> (u64, u64) {
    let ended = ["fulmar_durable_delivered_total", "fulmar_durable_queued", "fulmar_durable_expired_total"];
    let ended: u64 = ended.iter().map(|name| metrics.get(name)).sum();
    (metrics.get("fulmar_durable_obligations_total"), ended + metrics.sum(&["fulmar_durable_dropped"]))
}

#[tokio::test]
async fn a_mixed_load_leaves_balanced_books() {
    // Small bounds, so that drops and waiting happen too.
    let config = format!("[session]\nlive_queue_entries_max = 50\nqueue_entries_max = 100\n{OPEN}");
    let server = Server::start(&config).await;
    let address = server.mqtt();
    let mut random = StdRng::seed_from_u64(seed("a_mixed_load_leaves_balanced_books"));

    // Persistent sessions: two away with more than their queues hold, two away whose messages expire, one there. Two,
    // because a publish that only one full queue would get is refused.
    for (id, filter) in
        [("away", "away"), ("away-2", "away"), ("expires", "expires"), ("expires-2", "expires"), ("there", "there")]
    {
        let (mut keeper, _) = raw_connect(address, persistent(Version::V5, id)).await;
        raw_subscribe(&mut keeper, &format!("durable/{filter}/#"), QoS::ExactlyOnce).await;
    }
    let mut there = Client::connect(address, Options::new(Protocol::V5, "there").persistent(3600)).await.unwrap();
    // Live ones: of each QoS, in a group, and one that never reads.
    let mut live = Vec::new();
    for (number, protocol) in PROTOCOLS.into_iter().cycle().take(6).enumerate() {
        let mut subscriber = client(address, protocol, &format!("live-{number}")).await;
        subscriber.subscribe("live/#", (number % 3) as u8).await.unwrap();
        subscriber.subscribe("$share/group/live/shared", 1).await.unwrap();
        live.push(subscriber);
    }
    let mut deaf = raw_client(address, Version::V5, "deaf").await;
    raw_subscribe(&mut deaf, "deaf/#", QoS::AtMostOnce).await;
    let mut narrow = raw::connect(Version::V5, "narrow");
    narrow.properties.maximum_packet_size = Some(100);
    let (mut narrow, _) = raw_connect(address, narrow).await;
    raw_subscribe(&mut narrow, "live/#", QoS::AtMostOnce).await;

    let mut publishers = Vec::new();
    for (number, protocol) in PROTOCOLS.into_iter().cycle().take(4).enumerate() {
        publishers.push((client(address, protocol, &format!("publisher-{number}")).await, protocol));
    }
    let mut tickets: [Vec<Ticket>; 4] = Default::default();
    for _ in 0..1500 {
        let at = random.random_range(0..publishers.len());
        let (publisher, protocol) = &mut publishers[at];
        let qos = random.random_range(0..3);
        let topic =
            ["live/a", "live/b/c", "live/shared", "durable/away/t", "durable/expires/t", "durable/there/t", "nobody"]
                .choose(&mut random)
                .unwrap();
        let payload = vec![b'x'; random.random_range(0..400)];
        let retain = random.random_ratio(1, 20);
        let ticket = if *protocol == Protocol::V5 && topic.starts_with("durable/expires") {
            let properties = PublishProperties { message_expiry_interval: Some(1), ..PublishProperties::default() };
            publisher.publish_with(topic, qos, retain, payload, properties).await.unwrap()
        } else {
            publisher.publish(topic, qos, retain, payload).await.unwrap()
        };
        if qos > 0 {
            tickets[at].push(ticket);
        }
        // rumqttc stalls where acknowledgements of QoS 1 and 2 overtake each other in a full window: it never is full.
        if tickets[at].len() >= 50 {
            for ticket in std::mem::take(&mut tickets[at]) {
                publisher.acked(ticket, SOON).await.unwrap();
            }
        }
    }
    for ((publisher, _), tickets) in publishers.iter_mut().zip(tickets) {
        for ticket in tickets {
            publisher.acked(ticket, SOON).await.unwrap();
        }
    }
    let mut flood = raw_client(address, Version::V5, "flood").await;
    for _ in 0..400 {
        let publish = raw::publish(0, "deaf/t", QoS::AtMostOnce, vec![7; 50_000]);
        flood.send(&Packet::Publish(publish)).await.unwrap();
    }
    flood.send(&Packet::PingReq).await.unwrap();
    flood.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
    // Some leave with things on their way, some come back, one is taken over.
    drop(live.drain(..2));
    let _takes_over = client(address, Protocol::V5, "live-3").await;
    let mut away = Client::connect(address, Options::new(Protocol::V5, "away").persistent(3600)).await.unwrap();
    away.receive(SOON).await.unwrap();
    away.abort().await;
    there.publish_acked("durable/there/last", 2, "last").await.unwrap();
    drop((deaf, narrow, flood));

    // With everybody gone nothing is on its way any more.
    drop((live, publishers, there, _takes_over));
    server.metric("fulmar_sessions_connected", |n| n == 0).await;
    let metrics = server.metrics().await;
    for qos in ["0", "1+"] {
        let (created, ended) = balance(&metrics, qos);
        assert!(created > 0, "QoS {qos}");
        assert_eq!(created, ended, "QoS {qos}: taken on, and ended");
    }
    assert_eq!(metrics.get("fulmar_live_open"), 0);
    assert!(
        metrics.get("fulmar_live_dropped_total{qos=\"0\",reason=\"queue_full\"}") > 0,
        "the deaf one's queue is small"
    );
    let (created, ended) = durable_balance(&metrics);
    assert!(created > 0);
    assert_eq!(created, ended, "durable: taken on, and ended or queued");
    assert!(metrics.get("fulmar_durable_dropped_total{reason=\"queue_full\"}") > 0, "what was away held only 100");
    assert_eq!(metrics.get("fulmar_obligations_unaccounted"), 0);

    // Also once the durable sessions are discarded with what they held.
    for id in ["away", "away-2", "expires", "expires-2", "there"] {
        drop(raw_client(address, Version::V5, id).await);
    }
    server.metric("fulmar_sessions", |n| n == 0).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.get("fulmar_durable_queued"), 0);
    let (created, ended) = durable_balance(&metrics);
    assert_eq!(created, ended, "durable, in the end");
    assert_eq!(metrics.get("fulmar_obligations_unaccounted"), 0);
}

#[tokio::test]
async fn what_is_open_is_counted_while_it_is() {
    let server = Server::open().await;
    let mut subscriber = raw_client(server.mqtt(), Version::V5, "s").await;
    raw_subscribe(&mut subscriber, "t", QoS::AtLeastOnce).await;
    let mut publisher = client(server.mqtt(), Protocol::V5, "p").await;
    for _ in 0..10 {
        publisher.publish_acked("t", 1, "x").await.unwrap();
    }
    server.metric("fulmar_live_open", |n| n == 10).await;
    let metrics = server.metrics().await;
    let (created, ended) = balance(&metrics, "1+");
    assert_eq!((created, ended), (10, 0));
    for _ in 0..10 {
        let id = crate::support::raw_publish(&mut subscriber).await.packet_id;
        subscriber.send(&Packet::PubAck(fulmar_mqtt::packet::Ack::success(id))).await.unwrap();
    }
    server.metric("fulmar_live_open", |n| n == 0).await;
    server.metric("fulmar_live_delivered_total{qos=\"1+\"}", |n| n == 10).await;
}
