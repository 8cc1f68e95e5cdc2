//! More than a client may have: filters, levels, bytes, unacknowledged publishes.

use cluster_tests::raw;
use fulmar_mqtt::packet::{Ack, Subscribe, SubscribeFilter, SubscriptionOptions};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicFilter, TopicName, Version};

use crate::support::{
    Honest, MIB, OPEN, SOON, Server, VERSIONS, close_reason, raw_ack, raw_client, raw_connect, raw_publish,
    raw_subscribe, shared,
};

#[tokio::test]
async fn of_ten_thousand_filters_a_thousand_are_granted() {
    let server = Server::open().await;
    let mut honest = Honest::connect(server.mqtt(), "filters").await;
    let before = server.rss();
    for version in VERSIONS {
        let mut client = raw_client(server.mqtt(), version, "filters").await;
        let mut codes = Vec::new();
        for packet_id in 1..=10 {
            let filters = (0..1000).map(|number| {
                let filter = TopicFilter::new(format!("filters/{packet_id}/+/{number}/#")).unwrap();
                SubscribeFilter { filter, options: SubscriptionOptions::default() }
            });
            let packet = Subscribe { packet_id, filters: filters.collect(), subscription_id: None, user: Vec::new() };
            client.send(&Packet::Subscribe(Box::new(packet))).await.unwrap();
            let suback = client.expect("SUBACK", SOON, |packet| match packet {
                Packet::SubAck(suback) => Some(suback.reasons.clone()),
                _ => None,
            });
            codes.extend(suback.await.unwrap());
        }
        let refused = if version == Version::V5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        assert_eq!(codes.len(), 10_000);
        assert!(codes[..1000].iter().all(|code| *code == ReasonCode::Success), "{version:?}");
        assert!(codes[1000..].iter().all(|code| *code == refused), "{version:?}");
        // The granted ones work, the others do not, and the connection lives.
        for topic in ["filters/2/a/7/b", "filters/1/a/7/b"] {
            client.send(&Packet::Publish(raw::publish(0, topic, QoS::AtMostOnce, topic))).await.unwrap();
        }
        assert_eq!(raw_publish(&mut client).await.payload, "filters/1/a/7/b");
        honest.is_served().await;
    }
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 32 * MIB, "RSS grew by {grown} bytes");
}

#[tokio::test]
async fn topics_and_filters_have_128_levels_at_most() {
    let server = shared().await;
    let levels = |count: usize| vec!["x"; count].join("/");
    for version in VERSIONS {
        let v5 = version == Version::V5;
        let mut client = raw_client(server.mqtt(), version, "levels").await;
        assert_eq!(raw_subscribe(&mut client, &levels(128), QoS::AtMostOnce).await, ReasonCode::Success);
        let refused = if v5 { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
        for filter in [levels(129), vec![""; 30_000].join("/"), format!("$share/g/{}", levels(129))] {
            assert_eq!(raw_subscribe(&mut client, &filter, QoS::AtMostOnce).await, refused, "{version:?}");
        }
        client.send(&Packet::Publish(raw::publish(1, &levels(128), QoS::AtLeastOnce, "deep"))).await.unwrap();
        let mut came = [client.next(SOON).await.unwrap(), client.next(SOON).await.unwrap()];
        came.sort_by_key(|packet| matches!(packet, Packet::PubAck(_)));
        assert!(matches!(&came[0], Packet::Publish(publish) if publish.payload == "deep"), "{came:?}");
        if v5 {
            for (qos, name) in [(QoS::AtLeastOnce, "PUBACK"), (QoS::ExactlyOnce, "PUBREC")] {
                client.send(&Packet::Publish(raw::publish(2, &levels(129), qos, "x"))).await.unwrap();
                assert_eq!(raw_ack(&mut client).await, (name, 2, ReasonCode::TopicNameInvalid));
            }
            // A QoS 0 publish has no other answer than the end.
            client.send(&Packet::Publish(raw::publish(0, &levels(30_000), QoS::AtMostOnce, "x"))).await.unwrap();
            assert_eq!(close_reason(&mut client).await, Some(ReasonCode::TopicNameInvalid));
        } else {
            client.send(&Packet::Publish(raw::publish(2, &levels(129), QoS::AtLeastOnce, "x"))).await.unwrap();
            assert!(client.expect_close(SOON).await.unwrap().is_empty());
        }
        let mut connect = raw::connect(version, "levels");
        connect.will = Some(fulmar_mqtt::packet::Will {
            topic: TopicName::new(levels(129)).unwrap(),
            payload: "x".into(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay_s: 0,
            properties: Default::default(),
        });
        let (mut client, connack) = raw_connect(server.mqtt(), connect).await;
        assert_ne!(connack.reason, ReasonCode::Success, "{version:?}");
        client.expect_close(SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_publish_beyond_the_limit_closes_the_connection() {
    let server = shared().await;
    for version in VERSIONS {
        let limit = 256 * 1024;
        let mut client = raw_client(server.mqtt(), version, "large").await;
        raw_subscribe(&mut client, "large/t", QoS::AtMostOnce).await;
        let fits = limit - 64;
        client.send(&Packet::Publish(raw::publish(0, "large/t", QoS::AtMostOnce, vec![1; fits]))).await.unwrap();
        assert_eq!(raw_publish(&mut client).await.payload.len(), fits);
        // The node may close before all of it is written.
        let _ = client.send(&Packet::Publish(raw::publish(1, "large/t", QoS::AtLeastOnce, vec![1; limit]))).await;
        let reason = (version == Version::V5).then_some(ReasonCode::PacketTooLarge);
        assert_eq!(close_reason(&mut client).await, reason, "{version:?}");
    }
}

#[tokio::test]
async fn a_listener_that_skips_reads_past_large_publishes() {
    let server = shared().await;
    let before = server.rss();
    for version in VERSIONS {
        let v5 = version == Version::V5;
        let mut client = raw_client(server.at(2), version, "skip").await;
        raw_subscribe(&mut client, "skip/t", QoS::AtMostOnce).await;
        // [v5 3.4.2.1] PUBACK and PUBREC know no 0x95; 0x97 is the nearest that they know.
        let reason = if v5 { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
        let large = vec![1; 900 * 1024];
        for packet_id in 1..=40 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(packet_id) % 3];
            let id = if qos == QoS::AtMostOnce { 0 } else { packet_id };
            client.send(&Packet::Publish(raw::publish(id, "skip/t", qos, large.clone()))).await.unwrap();
            match qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => assert_eq!(raw_ack(&mut client).await, ("PUBACK", packet_id, reason)),
                QoS::ExactlyOnce => {
                    assert_eq!(raw_ack(&mut client).await, ("PUBREC", packet_id, reason));
                    if !v5 {
                        client.send(&Packet::PubRel(Ack::success(packet_id))).await.unwrap();
                        assert_eq!(raw_ack(&mut client).await, ("PUBCOMP", packet_id, ReasonCode::Success));
                    }
                }
            }
        }
        // What follows is served, and it is the first message that comes.
        client.send(&Packet::Publish(raw::publish(0, "skip/t", QoS::AtMostOnce, "small"))).await.unwrap();
        assert_eq!(raw_publish(&mut client).await.payload, "small");
        // Not even this listener takes what is beyond 1 MiB.
        let _ = client.send_bytes(&[0x30, 0xFF, 0xFF, 0xFF, 0x01]).await;
        let reason = v5.then_some(ReasonCode::PacketTooLarge);
        assert_eq!(close_reason(&mut client).await, reason, "{version:?}");
    }
    // Other tests share the node: the bound leaves room for them. What was sent is 72 MiB.
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 48 * MIB, "RSS grew by {grown} bytes");
}

/// What may be sent to those who are there may still be too large to be kept for those who are not.
#[tokio::test]
async fn a_payload_too_large_to_be_kept_ends_the_connection_and_is_not_kept() {
    let server = Server::start(&format!("[limits]\ndurable_payload_bytes_max = \"1KiB\"\n{OPEN}")).await;
    let mut client = raw_client(server.mqtt(), Version::V5, "kept").await;
    let mut publish = raw::publish(1, "kept/t", QoS::AtLeastOnce, vec![1; 1025]);
    client.send(&Packet::Publish(publish.clone())).await.unwrap();
    assert_eq!(raw_ack(&mut client).await, ("PUBACK", 1, ReasonCode::NoMatchingSubscribers), "nobody keeps it");
    publish.retain = true;
    client.send(&Packet::Publish(publish)).await.unwrap();
    assert_eq!(close_reason(&mut client).await, Some(ReasonCode::PacketTooLarge));
    server.metric("fulmar_retained_messages", |n| n == 0).await;
}

#[tokio::test]
async fn only_publishes_are_skipped() {
    let server = shared().await;
    let mut client = raw_client(server.at(2), Version::V5, "skip-subscribe").await;
    let filters = (0..1000).map(|number| SubscribeFilter {
        filter: TopicFilter::new(format!("skip/{number}")).unwrap(),
        options: SubscriptionOptions::default(),
    });
    let packet = Subscribe { packet_id: 1, filters: filters.collect(), subscription_id: None, user: Vec::new() };
    client.send(&Packet::Subscribe(Box::new(packet))).await.unwrap();
    assert_eq!(close_reason(&mut client).await, Some(ReasonCode::PacketTooLarge));
}

#[tokio::test]
async fn more_unacknowledged_publishes_than_the_receive_maximum_end_the_connection() {
    let server = shared().await;
    let mut connect = raw::connect(Version::V5, "eager");
    connect.keep_alive_s = 60;
    let (mut client, connack) = raw_connect(server.mqtt(), connect).await;
    let maximum = connack.properties.receive_maximum.unwrap();
    assert_eq!(maximum, 128);
    // Never released, each QoS 2 publish counts.
    for packet_id in 1..=maximum {
        client.send(&Packet::Publish(raw::publish(packet_id, "eager/t", QoS::ExactlyOnce, "x"))).await.unwrap();
        assert_eq!(raw_ack(&mut client).await.0, "PUBREC");
    }
    // One that is sent again does not count again.
    let mut again = raw::publish(1, "eager/t", QoS::ExactlyOnce, "x");
    again.dup = true;
    client.send(&Packet::Publish(again)).await.unwrap();
    assert_eq!(raw_ack(&mut client).await.0, "PUBREC");
    client.send(&Packet::Publish(raw::publish(200, "eager/t", QoS::ExactlyOnce, "x"))).await.unwrap();
    assert_eq!(close_reason(&mut client).await, Some(ReasonCode::ReceiveMaximumExceeded));
}

#[tokio::test]
async fn acknowledgements_that_nobody_waits_for_harm_nobody() {
    let server = shared().await;
    for version in VERSIONS {
        let mut client = raw_client(server.mqtt(), version, "acks").await;
        raw_subscribe(&mut client, "acks/t", QoS::ExactlyOnce).await;
        for packet_id in [1, 2, 65_535] {
            for packet in [Packet::PubAck, Packet::PubRec, Packet::PubComp] {
                client.send(&packet(Ack::success(packet_id))).await.unwrap();
            }
        }
        client.send(&Packet::Publish(raw::publish(0, "acks/t", QoS::AtMostOnce, "x"))).await.unwrap();
        // An MQTT 5 client may be told that an id is unknown; then comes the message, and nothing has ended.
        loop {
            match client.next(SOON).await.unwrap() {
                Packet::Publish(publish) => break assert_eq!(publish.payload, "x"),
                Packet::PubRel(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
