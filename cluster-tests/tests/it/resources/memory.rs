//! Memory that runs short.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::{raw, wait_for};
use fulmar_mqtt::{QoS, ReasonCode, Version};

use crate::support::{Honest, MIB, OPEN, Server, raw_client, raw_connect, raw_subscribe};

/// For memory to be given back: what is freed is kept for ten seconds at least.
const GIVEN_BACK: Duration = Duration::from_secs(90);

const ALARM: &str = "fulmar_alarms_active{name=\"memory_high\"}";

#[tokio::test]
async fn a_node_without_memory_refuses_clients_by_name() {
    let mut server = Server::open().await;
    let resident = server.metric("fulmar_memory_bytes{kind=\"resident\"}", |bytes| bytes > 0).await;
    server.metric("fulmar_memory_limit_bytes", |bytes| bytes > resident).await;
    assert_eq!(server.metrics().await.get(ALARM), 0);

    server.node.terminate().await.unwrap();
    server.node.set_env(&[("FULMAR__LIMITS__MEMORY_MAX", &format!("{}B", resident / 2))]);
    server.node.restart().await.unwrap();
    server.metric("fulmar_memory_limit_bytes", |bytes| bytes == resident / 2).await;
    server.metric(ALARM, |raised| raised == 1).await;
    let (_, refused) = raw_connect(server.mqtt(), raw::connect(Version::V5, "five")).await;
    assert_eq!(refused.reason, ReasonCode::QuotaExceeded);
    let (_, refused) = raw_connect(server.mqtt(), raw::connect(Version::V311, "three")).await;
    assert_eq!(refused.reason, ReasonCode::ServerUnavailable);
    server.metric("fulmar_memory_refused_total", |refused| refused == 2).await;
    let output = server.node.process().unwrap().stderr();
    assert!(output.contains("limits.replicated_bytes_max") && output.contains("limits.memory_max"), "{output}");

    server.node.terminate().await.unwrap();
    server.node.set_env(&[]);
    server.node.restart().await.unwrap();
    server.metric(ALARM, |raised| raised == 0).await;
    raw_client(server.mqtt(), Version::V5, "five").await;
}

#[tokio::test]
async fn queues_that_fill_the_memory_are_cut_down_and_it_comes_back() {
    const RECEIVERS: usize = 10;
    let config = format!("[session]\nlive_queue_bytes_max = \"32MiB\"\nlive_queue_entries_max = 100000\n{OPEN}");
    let mut server = Server::start(&config).await;
    let resident = server.rss();
    server.node.terminate().await.unwrap();
    // What a node needs, and 64 MiB more until new clients are refused.
    let limit = (resident + 64 * MIB) * 100 / 85;
    server.node.set_env(&[("FULMAR__LIMITS__MEMORY_MAX", &format!("{limit}B"))]);
    server.node.restart().await.unwrap();

    let mut honest = Honest::connect(server.mqtt(), "memory").await;
    let mut deaf = Vec::new();
    for number in 0..RECEIVERS {
        let mut receiver = raw_client(server.mqtt(), Version::V5, &format!("deaf-{number}")).await;
        raw_subscribe(&mut receiver, &format!("deaf/{number}"), QoS::AtMostOnce).await;
        deaf.push(receiver);
    }
    let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
    let payload = Bytes::from(vec![b'x'; 100 * 1024]);
    let end = Instant::now() + GIVEN_BACK;
    let shed = loop {
        for number in 0..RECEIVERS {
            let publish = raw::publish(0, &format!("deaf/{number}"), QoS::AtMostOnce, payload.clone());
            publisher.send(&fulmar_mqtt::Packet::Publish(publish)).await.unwrap();
        }
        let metrics = server.metrics().await;
        let shed = metrics.sum(&["fulmar_live_dropped_total", "memory_high"]);
        if shed > 0 {
            break shed;
        }
        assert!(Instant::now() < end, "nothing was dropped: {metrics:?}");
    };
    println!("{shed} messages were dropped at {} MiB", server.rss() / MIB);
    honest.round_trip().await;

    // Without anybody doing anything, the queues being small now.
    let back = wait_for("a client that is let in", GIVEN_BACK, async || {
        let (_, connack) = raw_connect(server.mqtt(), raw::connect(Version::V5, "later")).await;
        (connack.reason == ReasonCode::Success).then_some(())
    });
    back.await.unwrap();
    server.metric(ALARM, |raised| raised == 0).await;
    honest.is_served().await;
    drop(deaf);
}
