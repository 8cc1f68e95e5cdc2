//! Publish and subscribe, judged by rumqttc.

use bytes::BytesMut;
use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::raw;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};

use crate::support::{
    PROTOCOLS, QUIET, SOON, VERSIONS, client, raw_ack, raw_client, raw_publish, raw_subscribe, shared,
};

#[tokio::test]
async fn each_qos_arrives_as_the_lower_of_both_sides() {
    let server = shared().await;
    for protocol in PROTOCOLS {
        let mut publisher = client(server.mqtt(), protocol, "qos-p").await;
        for granted in 0..3 {
            let mut subscriber = client(server.mqtt(), protocol, "qos-s").await;
            subscriber.subscribe("qos/t", granted).await.unwrap();
            for qos in 0..3 {
                let ticket = publisher.publish("qos/t", qos, false, format!("{qos}")).await.unwrap();
                if qos > 0 {
                    assert_eq!(publisher.acked(ticket, SOON).await.unwrap(), "Success");
                }
                let message = subscriber.receive(SOON).await.unwrap();
                assert_eq!((message.qos, message.text()), (qos.min(granted), format!("{qos}")), "{protocol:?}");
                assert!(!message.retain && !message.dup);
            }
        }
    }
}

#[tokio::test]
async fn wildcards_match_levels_and_nothing_of_the_servers() {
    let server = shared().await;
    for protocol in PROTOCOLS {
        let mut publisher = client(server.mqtt(), protocol, "wild-p").await;
        let cases: [(&str, &[&str], &[&str]); 6] = [
            ("wild/+/c", &["wild/a/c", "wild//c"], &["wild/a/b/c", "wild/c"]),
            ("wild/#", &["wild", "wild/a", "wild/a/b/c", "wild/"], &["wilder"]),
            ("wild/+", &["wild/a", "wild/"], &["wild", "wild/a/b"]),
            ("+/wild/#", &["a/wild/x", "/wild"], &["a/b/wild"]),
            ("wild/a", &["wild/a"], &["wild/A", "wild/a/"]),
            ("+/+", &["wild/x", "/x"], &["wild/x/y"]),
        ];
        for (filter, matching, others) in cases {
            let mut subscriber = client(server.mqtt(), protocol, "wild-s").await;
            subscriber.subscribe(filter, 1).await.unwrap();
            for topic in others.iter().chain(matching) {
                publisher.publish_acked(topic, 1, *topic).await.unwrap();
            }
            // Other tests publish too; this one looks only at topics of its own.
            let mut came: Vec<String> = Vec::new();
            while came.len() < matching.len() {
                let message = subscriber.receive(SOON).await.unwrap();
                if message.text() == message.topic {
                    came.push(message.topic);
                }
            }
            assert_eq!(came, matching, "{protocol:?} {filter}");
        }
    }
}

#[tokio::test]
async fn what_the_server_says_of_itself_is_asked_for_by_name() {
    let server = shared().await;
    let mut everything = client(server.mqtt(), Protocol::V5, "sys-all").await;
    everything.subscribe("#", 0).await.unwrap();
    let mut asking = client(server.mqtt(), Protocol::V5, "sys").await;
    asking.subscribe("$SYS/broker/#", 0).await.unwrap();
    let mut wanted = vec!["version", "uptime", "clients/connected", "messages/received", "messages/sent"];
    while !wanted.is_empty() {
        let message = asking.receive(SOON).await.unwrap();
        wanted.retain(|name| message.topic != format!("$SYS/broker/{name}"));
    }
    asking.publish_acked("sys-sentinel", 1, "x").await.unwrap();
    loop {
        let message = everything.receive(SOON).await.unwrap();
        assert!(!message.topic.starts_with('$'), "{}", message.topic);
        if message.topic == "sys-sentinel" {
            break;
        }
    }
}

#[tokio::test]
async fn retained_messages_are_set_replayed_replaced_and_cleared() {
    let server = shared().await;
    for protocol in PROTOCOLS {
        let mut publisher = client(server.mqtt(), protocol, "ret-p").await;
        let mut live = client(server.mqtt(), protocol, "ret-live").await;
        live.subscribe("ret/#", 1).await.unwrap();
        for (topic, text) in [("ret/a", "1"), ("ret/b", "2"), ("ret/a", "3")] {
            let ticket = publisher.publish(topic, 1, true, text).await.unwrap();
            publisher.acked(ticket, SOON).await.unwrap();
            let message = live.receive(SOON).await.unwrap();
            assert_eq!((message.text().as_str(), message.retain), (text, false), "live, so not retained to it");
        }
        let mut late = client(server.mqtt(), protocol, "ret-late").await;
        late.subscribe("ret/+", 1).await.unwrap();
        let mut came: Vec<_> =
            late.collect(2, SOON).await.unwrap().into_iter().map(|m| (m.topic.clone(), m.text(), m.retain)).collect();
        came.sort();
        assert_eq!(came, [("ret/a".into(), "3".into(), true), ("ret/b".into(), "2".into(), true)], "{protocol:?}");
        for topic in ["ret/a", "ret/b"] {
            let ticket = publisher.publish(topic, 1, true, "").await.unwrap();
            publisher.acked(ticket, SOON).await.unwrap();
            assert_eq!(live.receive(SOON).await.unwrap().text(), "", "clearing is a message to whoever listens");
        }
        let mut later = client(server.mqtt(), protocol, "ret-later").await;
        later.subscribe("ret/#", 1).await.unwrap();
        later.publish_acked("ret/sentinel", 1, "s").await.unwrap();
        assert_eq!(later.receive(SOON).await.unwrap().text(), "s", "nothing was replayed before it");
    }
}

/// The standards let a server send them the other way round; few clients expect it.
#[tokio::test]
async fn the_suback_comes_before_what_is_replayed() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "suback-first").await;
    let mut kept = raw::publish(1, "suback-first/t", QoS::AtLeastOnce, "kept");
    kept.retain = true;
    client.send(&Packet::Publish(kept)).await.unwrap();
    raw_ack(&mut client).await;
    for _ in 0..3000 {
        raw_subscribe(&mut client, "suback-first/t", QoS::AtMostOnce).await;
        assert_eq!(raw_publish(&mut client).await.payload, "kept");
    }
}

#[tokio::test]
async fn after_unsubscribe_nothing_more_comes() {
    let server = shared().await;
    for protocol in PROTOCOLS {
        let mut both = client(server.mqtt(), protocol, "unsub").await;
        both.subscribe("unsub/a", 1).await.unwrap();
        both.subscribe("unsub/b", 1).await.unwrap();
        both.unsubscribe("unsub/a").await.unwrap();
        both.publish_acked("unsub/a", 1, "a").await.unwrap();
        both.publish_acked("unsub/b", 1, "b").await.unwrap();
        assert_eq!(both.receive(SOON).await.unwrap().text(), "b");
        both.expect_silence(QUIET).await.unwrap();
    }
}

#[tokio::test]
async fn overlapping_subscriptions_of_3_1_1_deliver_once_with_the_highest_qos() {
    let server = shared().await;
    let mut both = client(server.mqtt(), Protocol::V4, "overlap").await;
    for (filter, qos) in [("overlap/+", 0), ("overlap/#", 2), ("overlap/x", 1)] {
        both.subscribe(filter, qos).await.unwrap();
    }
    both.publish_acked("overlap/x", 2, "x").await.unwrap();
    assert_eq!(both.receive(SOON).await.unwrap().qos, 2);
    both.expect_silence(QUIET).await.unwrap();
}

#[tokio::test]
async fn order_is_kept_for_each_publisher_and_topic() {
    const MESSAGES: usize = 2000;
    let server = shared().await;
    for protocol in PROTOCOLS {
        for qos in 0..3 {
            let mut subscriber = client(server.mqtt(), protocol, "order-s").await;
            subscriber.subscribe("order/t", 2).await.unwrap();
            let mut publisher = client(server.mqtt(), protocol, "order-p").await;
            let mut came = 0;
            // In parts that no queue has to drop QoS 0 from.
            while came < MESSAGES {
                for number in came..came + 200 {
                    publisher.publish("order/t", qos, false, number.to_string()).await.unwrap();
                }
                for message in subscriber.collect(200, SOON).await.unwrap() {
                    assert_eq!((message.text(), message.qos), (came.to_string(), qos), "{protocol:?}");
                    came += 1;
                }
            }
            subscriber.expect_silence(QUIET).await.unwrap();
        }
    }
}

/// Publisher and subscriber in one: its own queue is what its acknowledgements wait for.
#[tokio::test]
async fn a_client_that_floods_itself_does_not_lock_itself_out() {
    const MESSAGES: usize = 1500;
    let server = shared().await;
    for protocol in PROTOCOLS {
        let options = Options { inflight_max: 1000, ..Options::new(protocol, "itself") };
        let mut itself = Client::connect(server.mqtt(), options).await.unwrap();
        itself.subscribe("itself/t", 1).await.unwrap();
        let mut tickets = Vec::new();
        for number in 0..MESSAGES {
            let mut payload = number.to_string();
            payload.extend(std::iter::repeat_n('.', 2000));
            tickets.push(itself.publish("itself/t", 1, false, payload).await.unwrap());
        }
        for ticket in tickets {
            assert_eq!(itself.acked(ticket, SOON).await.unwrap(), "Success", "{protocol:?}");
        }
        let texts: Vec<String> = itself.collect(MESSAGES, SOON).await.unwrap().iter().map(|m| m.text()).collect();
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(text.trim_end_matches('.'), number.to_string(), "{protocol:?}");
        }
    }
}

/// MQTT 3.1.1 knows no receive maximum: whoever sends more than the node's ring holds waits, and loses nothing.
#[tokio::test]
async fn a_3_1_1_client_may_send_more_than_the_ring_before_it_reads() {
    const MESSAGES: u16 = 3000;
    let server = shared().await;
    let mut itself = raw_client(server.mqtt(), Version::V311, "ring").await;
    raw_subscribe(&mut itself, "ring/t", QoS::AtLeastOnce).await;
    // In one write: the node finds more at once than ring and queue hold, and nothing is asked of this client's speed while
    // the node's patience with it runs.
    let mut all = BytesMut::new();
    for packet_id in 1..=MESSAGES {
        let publish = raw::publish(packet_id, "ring/t", QoS::AtLeastOnce, packet_id.to_string());
        fulmar_mqtt::encode(&Packet::Publish(publish), Version::V311, &mut all).unwrap();
    }
    itself.send_bytes(&all).await.unwrap();
    let (mut acked, mut came) = (0, 0);
    while acked < MESSAGES || came < MESSAGES {
        match itself.next(SOON).await.unwrap() {
            Packet::PubAck(ack) => {
                acked += 1;
                assert_eq!(ack.packet_id, acked);
            }
            Packet::Publish(publish) => {
                came += 1;
                assert_eq!(publish.payload, came.to_string());
                let ack = fulmar_mqtt::packet::Ack::success(publish.packet_id);
                itself.send(&Packet::PubAck(ack)).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// [v5 MQTT-4.6.0-2, 4.6.0-3] acknowledgements come in the order of the publishes that they are for.
#[tokio::test]
async fn a_mixed_pipeline_is_acknowledged_whole_and_in_order() {
    const MESSAGES: u16 = 600;
    let server = shared().await;
    for version in VERSIONS {
        let mut subscriber = raw_client(server.mqtt(), version, "mixed-s").await;
        raw_subscribe(&mut subscriber, "mixed/t", QoS::AtMostOnce).await;
        let mut publisher = raw_client(server.mqtt(), version, "mixed-p").await;
        let (mut sent, mut begun, mut ended) = (0, 0, 0);
        while ended < MESSAGES {
            // 60 at a time, well within anybody's receive maximum.
            while sent < MESSAGES && sent - ended < 60 {
                sent += 1;
                let qos = if sent % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                let publish = raw::publish(sent, "mixed/t", qos, sent.to_string());
                publisher.send(&Packet::Publish(publish)).await.unwrap();
            }
            let (name, packet_id, reason) = raw_ack(&mut publisher).await;
            assert_eq!(reason, ReasonCode::Success);
            if name == "PUBCOMP" {
                assert_eq!(packet_id % 2, 1);
                ended += 1;
                continue;
            }
            begun += 1;
            assert_eq!(packet_id, begun, "{version:?}: {name} out of order");
            if name == "PUBREC" {
                publisher.send(&Packet::PubRel(fulmar_mqtt::packet::Ack::success(packet_id))).await.unwrap();
            } else {
                ended += 1;
            }
        }
        for number in 1..=MESSAGES {
            assert_eq!(raw_publish(&mut subscriber).await.payload, number.to_string(), "{version:?}");
        }
    }
}

#[tokio::test]
async fn qos_2_is_delivered_once_however_often_it_is_sent() {
    let server = shared().await;
    for version in VERSIONS {
        let mut subscriber = raw_client(server.mqtt(), version, "twice-s").await;
        raw_subscribe(&mut subscriber, "twice/t", QoS::AtMostOnce).await;
        let mut publisher = raw_client(server.mqtt(), version, "twice-p").await;
        let mut publish = raw::publish(9, "twice/t", QoS::ExactlyOnce, "once");
        for _ in 0..3 {
            publisher.send(&Packet::Publish(publish.clone())).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await, ("PUBREC", 9, ReasonCode::Success));
            publish.dup = true;
        }
        for known in [true, false] {
            publisher.send(&Packet::PubRel(fulmar_mqtt::packet::Ack::success(9))).await.unwrap();
            let unknown = !known && version == Version::V5;
            let reason = if unknown { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
            assert_eq!(raw_ack(&mut publisher).await, ("PUBCOMP", 9, reason));
        }
        // The id is free again: the same one means another message.
        let publish = raw::publish(9, "twice/t", QoS::ExactlyOnce, "again");
        publisher.send(&Packet::Publish(publish)).await.unwrap();
        assert_eq!(raw_publish(&mut subscriber).await.payload, "once");
        assert_eq!(raw_publish(&mut subscriber).await.payload, "again", "{version:?}");
    }
}

#[tokio::test]
async fn mqtt_3_1_is_served_with_long_client_ids() {
    let server = shared().await;
    let id = "x".repeat(1000);
    let mut old = raw_client(server.mqtt(), Version::V31, &id).await;
    raw_subscribe(&mut old, "old/t", QoS::AtLeastOnce).await;
    old.send(&Packet::Publish(raw::publish(0, "old/t", QoS::AtMostOnce, "x"))).await.unwrap();
    assert_eq!(raw_publish(&mut old).await.payload, "x");
}
