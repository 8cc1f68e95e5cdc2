//! A disk that is nearly full: what would be lost is refused, and the rest goes on.

use std::time::{Duration, Instant};

use cluster_tests::raw;
use fulmar_mqtt::packet::{Ack, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};

use super::crash::{FAILPOINTS, has_failpoints};
use super::{Way, is_queued, leave, queue, small_log, stop, take};
use crate::support::{Server, persistent, raw_ack, raw_client, raw_connect, raw_subscribe};

/// A publisher is told no after 5 s at most; the rest is for a slow machine.
const REFUSED: Duration = Duration::from_secs(12);

/// A node with a queue of 50 messages for one who is away, whose disk is full in this way.
async fn full(action: &str) -> Server {
    let mut server = small_log().await;
    queue(&server, 0..50).await;
    stop(&mut server, Way::Kill).await;
    server.node.set_env(&[(FAILPOINTS, &format!("disk::free_bytes={action}"))]);
    server.node.restart().await.unwrap();
    server
}

#[tokio::test]
async fn durable_publishes_are_refused_by_name_and_all_else_goes_on() {
    if !has_failpoints("durable_publishes_are_refused_by_name_and_all_else_goes_on").await {
        return;
    }
    let mut server = full("return(100000000)").await;
    server.metric("fulmar_disk_low", |low| low == 1).await;

    let mut refused = raw_client(server.mqtt(), Version::V5, "refused").await;
    let mut closed = raw_client(server.mqtt(), Version::V311, "closed").await;
    let begun = Instant::now();
    for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        refused.send(&Packet::Publish(raw::publish(id, "queue/t", qos, "refused"))).await.unwrap();
    }
    let retained = Publish { retain: true, ..raw::publish(3, "kept/t", QoS::AtLeastOnce, "refused") };
    refused.send(&Packet::Publish(retained)).await.unwrap();
    closed.send(&Packet::Publish(raw::publish(1, "queue/t", QoS::AtLeastOnce, "refused"))).await.unwrap();
    assert_eq!(raw_ack(&mut refused).await, ("PUBACK", 1, ReasonCode::QuotaExceeded));
    assert_eq!(raw_ack(&mut refused).await, ("PUBREC", 2, ReasonCode::QuotaExceeded));
    assert_eq!(raw_ack(&mut refused).await, ("PUBACK", 3, ReasonCode::QuotaExceeded));
    // MQTT 3.1.1 has no word for it: unacknowledged and closed, so that the client keeps the message.
    assert!(closed.expect_close(REFUSED).await.unwrap().is_empty());
    assert!(begun.elapsed() < REFUSED, "the last was told after {:?}", begun.elapsed());

    // What needs no disk goes on: live messages, and taking out of a queue.
    let mut live = raw_client(server.mqtt(), Version::V5, "live").await;
    raw_subscribe(&mut live, "live/#", QoS::AtLeastOnce).await;
    refused.send(&Packet::Publish(raw::publish(4, "live/t", QoS::AtLeastOnce, "live"))).await.unwrap();
    assert_eq!(raw_ack(&mut refused).await, ("PUBACK", 4, ReasonCode::Success));
    assert_eq!(take(&mut live, 1).await, ["live"]);
    is_queued(&server, 0..50).await;
    server.metric("fulmar_durable_queued", |n| n == 0).await;

    // With room again nothing that was refused has come.
    stop(&mut server, Way::Kill).await;
    server.node.set_env(&[]);
    server.node.restart().await.unwrap();
    server.metric("fulmar_disk_low", |low| low == 0).await;
    queue(&server, 50..60).await;
    is_queued(&server, 50..60).await;
    let mut reader = raw_client(server.mqtt(), Version::V5, "reader").await;
    raw_subscribe(&mut reader, "kept/#", QoS::AtLeastOnce).await;
    super::ping(&mut reader).await;
}

#[tokio::test]
async fn once_there_is_room_again_publishes_work_again() {
    if !has_failpoints("once_there_is_room_again_publishes_work_again").await {
        return;
    }
    let mut server = full("40*return(100000000)->off").await;
    server.metric("fulmar_disk_low", |low| low == 1).await;
    // A message that is sent again as often as it is refused, and one that a 3.1.1 client sends as often as it is closed.
    let address = server.mqtt();
    let polite = tokio::spawn(async move {
        let mut publisher = raw_client(address, Version::V5, "tries-again").await;
        let mut refusals = 0;
        loop {
            publisher.send(&Packet::Publish(raw::publish(1, "queue/t", QoS::AtLeastOnce, "50 "))).await.unwrap();
            match raw_ack(&mut publisher).await {
                ("PUBACK", 1, ReasonCode::Success) => return refusals,
                ("PUBACK", 1, ReasonCode::QuotaExceeded) => refusals += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    let refusals = polite.await.unwrap();
    server.metric("fulmar_disk_low", |low| low == 0).await;
    println!("{refusals} refusals before there was room");
    let (mut old, _) = raw_connect(address, persistent(Version::V311, "old")).await;
    old.send(&Packet::Publish(raw::publish(1, "queue/t", QoS::ExactlyOnce, "51 "))).await.unwrap();
    assert_eq!(raw_ack(&mut old).await, ("PUBREC", 1, ReasonCode::Success));
    old.send(&Packet::PubRel(Ack::success(1))).await.unwrap();
    assert_eq!(raw_ack(&mut old).await.0, "PUBCOMP");
    leave(old).await;
    queue(&server, 52..60).await;
    stop(&mut server, Way::Kill).await;
    server.node.set_env(&[]);
    server.node.restart().await.unwrap();
    is_queued(&server, 0..60).await;
}
