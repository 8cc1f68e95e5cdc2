//! Shared subscriptions, in MQTT 3.1.1 too.

use std::collections::BTreeSet;

use cluster_tests::raw;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};

use crate::support::{
    PROTOCOLS, QUIET, SOON, VERSIONS, client, persistent, raw_ack, raw_client, raw_connect, raw_publish, raw_subscribe,
    shared,
};

#[tokio::test]
async fn each_message_goes_to_exactly_one_member_and_all_members_work() {
    const MESSAGES: usize = 300;
    let server = shared().await;
    for protocol in PROTOCOLS {
        for qos in 0..3 {
            let mut members = Vec::new();
            for number in 0..3 {
                let mut member = client(server.mqtt(), protocol, &format!("share-{number}")).await;
                member.subscribe("$share/g/share/+", qos).await.unwrap();
                members.push(member);
            }
            // Beside the group, an ordinary subscriber and another group get everything.
            let mut ordinary = client(server.mqtt(), protocol, "share-ordinary").await;
            ordinary.subscribe("share/t", qos).await.unwrap();
            let mut other = client(server.mqtt(), protocol, "share-other").await;
            other.subscribe("$share/h/share/t", qos).await.unwrap();
            let mut publisher = client(server.mqtt(), protocol, "share-p").await;
            for number in 0..MESSAGES {
                publisher.publish("share/t", qos, false, number.to_string()).await.unwrap();
            }
            ordinary.collect(MESSAGES, SOON).await.unwrap();
            other.collect(MESSAGES, SOON).await.unwrap();
            let mut came = BTreeSet::new();
            let mut counts = [0; 3];
            while came.len() < MESSAGES {
                for (member, count) in members.iter_mut().zip(&mut counts) {
                    while let Ok(message) = member.receive(QUIET / 10).await {
                        assert!(came.insert(message.text()), "{protocol:?}: {} came twice", message.text());
                        *count += 1;
                    }
                }
            }
            assert!(counts.iter().all(|count| *count > 0), "{protocol:?} QoS {qos}: {counts:?}");
            for member in &mut members {
                member.expect_silence(QUIET).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_a_dying_member_had_not_acknowledged_goes_to_another() {
    let server = shared().await;
    for version in VERSIONS {
        for make in [raw::connect, persistent] {
            let (mut dying, _) = raw_connect(server.mqtt(), make(version, "dying")).await;
            raw_subscribe(&mut dying, "$share/heirs/heirs/t", QoS::AtLeastOnce).await;
            let mut publisher = raw_client(server.mqtt(), version, "heirs-p").await;
            for packet_id in 1..=5 {
                let publish = raw::publish(packet_id, "heirs/t", QoS::AtLeastOnce, packet_id.to_string());
                publisher.send(&Packet::Publish(publish)).await.unwrap();
                assert_eq!(raw_ack(&mut publisher).await, ("PUBACK", packet_id, ReasonCode::Success));
            }
            let mut ids = Vec::new();
            for _ in 1..=5 {
                ids.push(raw_publish(&mut dying).await.packet_id);
            }
            dying.send(&Packet::PubAck(Ack::success(ids[0]))).await.unwrap();
            dying.send(&Packet::PingReq).await.unwrap();
            dying.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
            // The heir comes before the death: a message is not offered to who is not there.
            let mut heir = raw_client(server.mqtt(), version, "heir").await;
            raw_subscribe(&mut heir, "$share/heirs/heirs/t", QoS::AtLeastOnce).await;
            drop(dying);
            // [v5 4.8.2] A session that may resume keeps what is on its way to it; ended, it leaves it to others.
            let _ended = match make(version, "").clean_start {
                true => None,
                false => Some(raw_client(server.mqtt(), version, "dying").await),
            };
            let mut left: BTreeSet<&str> = ["2", "3", "4", "5"].into();
            while !left.is_empty() {
                let message = raw_publish(&mut heir).await;
                let text = std::str::from_utf8(&message.payload).unwrap();
                assert!(left.remove(text), "{version:?}: {text} was acknowledged, or came twice");
                heir.send(&Packet::PubAck(Ack::success(message.packet_id))).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn retained_messages_are_not_replayed_to_a_group() {
    let server = shared().await;
    let mut member = raw_client(server.mqtt(), Version::V5, "group-ret").await;
    let mut publish = raw::publish(1, "group-ret/t", QoS::AtLeastOnce, "kept");
    publish.retain = true;
    member.send(&Packet::Publish(publish)).await.unwrap();
    raw_ack(&mut member).await;
    raw_subscribe(&mut member, "$share/g/group-ret/t", QoS::AtMostOnce).await;
    member.send(&Packet::PingReq).await.unwrap();
    member.expect("nothing but PINGRESP", SOON, |p| (*p == Packet::PingResp).then_some(())).await.unwrap();
    let mut clear = raw::publish(0, "group-ret/t", QoS::AtMostOnce, "");
    clear.retain = true;
    member.send(&Packet::Publish(clear)).await.unwrap();
    assert_eq!(raw_publish(&mut member).await.payload, "");
}
