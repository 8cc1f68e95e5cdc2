//! What is still true right after a restart: sessions, subscriptions, half-done exchanges, retained messages. Each is
//! asked after SIGKILL and after a clean stop.

use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::packet::{Ack, Publish, RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicFilter, Version};
use tokio::net::TcpStream;

use super::{WAYS, again, ping, take};
use crate::support::{
    SOON, Server, VERSIONS, persistent, raw_ack, raw_client, raw_connect, raw_publish, raw_subscribe,
};

/// Publishes and waits for the end of the exchange.
pub(super) async fn publish(client: &mut RawClient<TcpStream>, publish: Publish) {
    let (id, qos) = (publish.packet_id, publish.qos);
    client.send(&Packet::Publish(publish)).await.unwrap();
    match qos {
        QoS::AtMostOnce => ping(client).await,
        QoS::AtLeastOnce => {
            let (name, acked, reason) = raw_ack(client).await;
            assert!(name == "PUBACK" && acked == id && !reason.is_error(), "{name} {acked} {reason:?}");
        }
        QoS::ExactlyOnce => {
            let (name, received, reason) = raw_ack(client).await;
            assert!(name == "PUBREC" && received == id && !reason.is_error(), "{name} {received} {reason:?}");
            client.send(&Packet::PubRel(Ack::success(id))).await.unwrap();
            assert_eq!(raw_ack(client).await, ("PUBCOMP", id, ReasonCode::Success));
        }
    }
}

#[tokio::test]
async fn queues_and_subscriptions_with_their_options() {
    for way in WAYS {
        let mut server = Server::open().await;
        let (mut keeper, _) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
        let filter = |filter: &str, no_local, retain_as_published| SubscribeFilter {
            filter: TopicFilter::new(filter).unwrap(),
            options: SubscriptionOptions {
                qos: QoS::ExactlyOnce,
                no_local,
                retain_as_published,
                retain_handling: RetainHandling::Always,
            },
        };
        for (id, filters) in [(7, vec![filter("a/+", true, true)]), (9, vec![filter("a/x", false, false)])] {
            let subscribe = Subscribe { packet_id: id, filters, subscription_id: Some(id.into()), user: Vec::new() };
            keeper.send(&Packet::Subscribe(Box::new(subscribe))).await.unwrap();
            keeper.expect("SUBACK", SOON, |p| matches!(p, Packet::SubAck(_)).then_some(())).await.unwrap();
        }
        raw_subscribe(&mut keeper, "gone/#", QoS::AtLeastOnce).await;
        raw_subscribe(&mut keeper, "$share/group/shared/#", QoS::AtLeastOnce).await;
        let unsubscribe =
            Unsubscribe { packet_id: 3, filters: vec![TopicFilter::new("gone/#").unwrap()], user: Vec::new() };
        keeper.send(&Packet::Unsubscribe(Box::new(unsubscribe))).await.unwrap();
        keeper.expect("UNSUBACK", SOON, |p| matches!(p, Packet::UnsubAck(_)).then_some(())).await.unwrap();
        keeper.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
        keeper.expect_close(SOON).await.unwrap();
        // One more that is clean: it ends with its connection.
        let mut clean = raw_client(server.mqtt(), Version::V311, "clean").await;
        raw_subscribe(&mut clean, "clean/#", QoS::AtLeastOnce).await;
        let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
        publish(&mut publisher, raw::publish(1, "a/y", QoS::ExactlyOnce, "before")).await;
        publish(&mut publisher, raw::publish(2, "shared/1", QoS::AtLeastOnce, "shared before")).await;

        again(&mut server, way).await;
        server.metric("fulmar_sessions", |n| n == 1).await; // only the persistent one
        let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
        for (id, topic) in [(1, "a/x"), (2, "gone/x"), (3, "clean/x")] {
            let retained = Publish { retain: true, ..raw::publish(id, topic, QoS::ExactlyOnce, topic) };
            publish(&mut publisher, retained).await;
        }
        publish(&mut publisher, raw::publish(4, "shared/2", QoS::AtLeastOnce, "shared after")).await;

        let (mut keeper, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
        assert!(connack.session_present, "{way:?}");
        let before = raw_publish(&mut keeper).await;
        assert_eq!((&before.payload[..], before.qos, before.dup), (&b"before"[..], QoS::ExactlyOnce, false), "{way:?}");
        assert_eq!(before.properties.subscription_ids[..], [7]);
        assert_eq!(raw_publish(&mut keeper).await.payload, "shared before");
        let mut ids = Vec::new();
        loop {
            let message = raw_publish(&mut keeper).await;
            if message.payload == "shared after" {
                break;
            }
            assert_eq!(message.payload, "a/x", "{way:?}: nothing else is subscribed to");
            ids.extend(message.properties.subscription_ids.iter().map(|id| (*id, message.retain)));
        }
        ids.sort_unstable();
        let ids: Vec<u32> = ids.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [7, 9], "{way:?}");
        // No local holds: its own message comes by the other subscription only.
        keeper.send(&Packet::Publish(raw::publish(0, "a/z", QoS::AtMostOnce, "own"))).await.unwrap();
        keeper.send(&Packet::Publish(raw::publish(0, "a/x", QoS::AtMostOnce, "own"))).await.unwrap();
        let own = raw_publish(&mut keeper).await;
        assert_eq!((own.topic.unwrap().as_str(), &own.properties.subscription_ids[..]), ("a/x", &[9][..]), "{way:?}");
        // A session with the name of the clean one is a new one.
        let (_clean, connack) = raw_connect(server.mqtt(), persistent(Version::V311, "clean")).await;
        assert!(!connack.session_present);
    }
}

#[tokio::test]
async fn a_qos_2_message_that_was_received_is_not_received_again() {
    for way in WAYS {
        let mut server = Server::open().await;
        let (mut subscriber, _) = raw_connect(server.mqtt(), persistent(Version::V5, "subscriber")).await;
        raw_subscribe(&mut subscriber, "once/#", QoS::AtLeastOnce).await;
        drop(subscriber);
        for version in VERSIONS {
            let id = format!("publisher-{version:?}");
            let (mut publisher, _) = raw_connect(server.mqtt(), persistent(version, &id)).await;
            // Received; received and released.
            for packet_id in [5, 6] {
                let publish = raw::publish(packet_id, "once/t", QoS::ExactlyOnce, format!("{id} {packet_id}"));
                publisher.send(&Packet::Publish(publish)).await.unwrap();
                assert_eq!(raw_ack(&mut publisher).await, ("PUBREC", packet_id, ReasonCode::Success));
            }
            publisher.send(&Packet::PubRel(Ack::success(6))).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await.0, "PUBCOMP");
        }
        again(&mut server, way).await;
        let mut expected = Vec::new();
        for version in VERSIONS {
            let id = format!("publisher-{version:?}");
            let (mut publisher, connack) = raw_connect(server.mqtt(), persistent(version, &id)).await;
            assert!(connack.session_present, "{way:?}");
            let repeated = raw::publish(5, "once/t", QoS::ExactlyOnce, format!("{id} 5"));
            publish(&mut publisher, Publish { dup: true, ..repeated }).await;
            // Both ids are free again: other messages.
            for packet_id in [5, 6] {
                let next = raw::publish(packet_id, "once/t", QoS::ExactlyOnce, format!("{id} {packet_id} again"));
                publish(&mut publisher, next).await;
            }
            expected.extend([format!("{id} 5"), format!("{id} 6")]);
        }
        expected.extend(VERSIONS.iter().flat_map(|v| [5, 6].map(|n| format!("publisher-{v:?} {n} again"))));
        let (mut subscriber, _) = raw_connect(server.mqtt(), persistent(Version::V5, "subscriber")).await;
        assert_eq!(take(&mut subscriber, expected.len()).await, expected, "{way:?}");
        ping(&mut subscriber).await;
    }
}

#[tokio::test]
async fn what_was_on_its_way_out_goes_on_at_its_half_step() {
    for way in WAYS {
        let mut server = Server::open().await;
        let mut sent = Vec::new();
        for version in VERSIONS {
            let id = format!("subscriber-{version:?}");
            let (mut subscriber, _) = raw_connect(server.mqtt(), persistent(version, &id)).await;
            raw_subscribe(&mut subscriber, &format!("{id}/#"), QoS::ExactlyOnce).await;
            let mut publisher = raw_client(server.mqtt(), version, "publisher").await;
            let mut ids = Vec::new();
            for number in 1..=4 {
                let qos = if number == 4 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                publish(&mut publisher, raw::publish(number, &format!("{id}/t"), qos, number.to_string())).await;
                ids.push(raw_publish(&mut subscriber).await.packet_id);
            }
            // The first completed, the second received, the third and the fourth not answered.
            for (at, complete) in [(0, true), (1, false)] {
                subscriber.send(&Packet::PubRec(Ack::success(ids[at]))).await.unwrap();
                assert_eq!(raw_ack(&mut subscriber).await, ("PUBREL", ids[at], ReasonCode::Success));
                if complete {
                    subscriber.send(&Packet::PubComp(Ack::success(ids[at]))).await.unwrap();
                }
            }
            ping(&mut subscriber).await;
            sent.push((version, id, ids, subscriber));
        }
        // The completed ones are settled in the background.
        let settled = VERSIONS.len() as u64;
        server.metric("fulmar_durable_delivered_total", |n| n == settled).await;
        again(&mut server, way).await;
        for (version, id, ids, _) in sent {
            let (mut subscriber, connack) = raw_connect(server.mqtt(), persistent(version, &id)).await;
            assert!(connack.session_present, "{way:?}");
            let (mut released, mut came) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                match subscriber.next(SOON).await.unwrap() {
                    Packet::PubRel(ack) => released.push(ack.packet_id),
                    Packet::Publish(message) => {
                        came.push((message.packet_id, message.dup, message.payload.to_vec()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(released, [ids[1]], "{way:?} {version:?}");
            assert_eq!(came, [(ids[2], true, b"3".to_vec()), (ids[3], true, b"4".to_vec())], "{way:?} {version:?}");
            ping(&mut subscriber).await;
        }
    }
}

#[tokio::test]
async fn retained_messages_with_what_they_are_and_what_was_cleared() {
    for way in WAYS {
        let mut server = Server::open().await;
        let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
        let retained = |id, topic: &str, qos, payload: &str| Publish {
            retain: true,
            ..raw::publish(id, topic, qos, payload.to_owned())
        };
        let forward = fulmar_mqtt::property::ForwardProperties::from_properties(&[
            fulmar_mqtt::property::ForwardProperty::ContentType("text/plain".into()),
            fulmar_mqtt::property::ForwardProperty::User("b".into(), "1".into()),
            fulmar_mqtt::property::ForwardProperty::User("a".into(), "2".into()),
        ])
        .unwrap();
        for (number, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
            let mut message = retained(number, &format!("kept/{number}"), qos, "first");
            publish(&mut publisher, message.clone()).await;
            message.payload = format!("last {number}").into();
            message.properties.forward = forward.clone();
            publish(&mut publisher, message).await;
            let cleared = format!("kept/cleared-{number}");
            publish(&mut publisher, retained(number, &cleared, qos, "x")).await;
            publish(&mut publisher, retained(number, &cleared, qos, "")).await;
        }
        again(&mut server, way).await;
        for round in 0..2 {
            let mut reader = raw_client(server.mqtt(), Version::V5, "reader").await;
            raw_subscribe(&mut reader, "kept/#", QoS::ExactlyOnce).await;
            let mut came = [raw_publish(&mut reader).await, raw_publish(&mut reader).await];
            came.sort_by(|a, b| a.topic.cmp(&b.topic));
            for (message, number) in came.iter().zip(1_u8..) {
                assert!(message.retain && !message.dup, "{way:?}");
                assert_eq!((&message.payload[..], message.qos as u8), (format!("last {number}").as_bytes(), number));
                assert_eq!(message.properties.forward, forward, "{way:?}");
            }
            ping(&mut reader).await;
            drop(reader);
            if round == 0 {
                again(&mut server, way).await; // nothing has changed since
            }
        }
    }
}

#[tokio::test]
async fn a_node_keeps_its_name_and_counts_its_runs() {
    let mut server = Server::open().await;
    let id = || std::fs::read_to_string(super::data_dir(&server).join("node-id")).unwrap();
    let before = id();
    for way in WAYS {
        again(&mut server, way).await;
        assert_eq!(std::fs::read_to_string(super::data_dir(&server).join("node-id")).unwrap(), before, "{way:?}");
    }
    // A run that did nothing leaves what the next can start from, however often.
    for _ in 0..5 {
        again(&mut server, super::Way::Kill).await;
    }
    raw_client(server.mqtt(), Version::V5, "somebody").await;
}
