//! What is on its way to a persistent session when its connection ends.

use cluster_tests::raw;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode};

use crate::support::{
    SOON, VERSIONS, persistent, raw_ack, raw_client, raw_connect, raw_publish, raw_subscribe, shared,
};

#[tokio::test]
async fn unacknowledged_qos_1_comes_again_marked_with_its_id_and_what_waited_comes_unmarked() {
    let server = shared().await;
    for version in VERSIONS {
        let (mut first, _) = raw_connect(server.mqtt(), persistent(version, "dup")).await;
        raw_subscribe(&mut first, "dup/t", QoS::AtLeastOnce).await;
        let mut publisher = raw_client(server.mqtt(), version, "dup-p").await;
        let mut publish = async |packet_id: u16| {
            let publish = raw::publish(packet_id, "dup/t", QoS::AtLeastOnce, packet_id.to_string());
            publisher.send(&Packet::Publish(publish)).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await, ("PUBACK", packet_id, ReasonCode::Success));
        };
        let mut ids = Vec::new();
        for number in 1..=3 {
            publish(number).await;
            let message = raw_publish(&mut first).await;
            assert!(!message.dup);
            ids.push(message.packet_id);
        }
        // The second is acknowledged; the ping's answer says that the node knows.
        first.send(&Packet::PubAck(Ack::success(ids[1]))).await.unwrap();
        first.send(&Packet::PingReq).await.unwrap();
        first.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
        // Gone for the node too: what comes now waits.
        first.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
        first.expect_close(SOON).await.unwrap();
        publish(4).await;

        let (mut again, connack) = raw_connect(server.mqtt(), persistent(version, "dup")).await;
        assert!(connack.session_present);
        let mut came = Vec::new();
        for _ in 0..3 {
            let message = raw_publish(&mut again).await;
            came.push((message.payload, message.packet_id, message.dup));
        }
        assert_eq!(came[0], ("1".into(), ids[0], true), "{version:?}");
        assert_eq!(came[1], ("3".into(), ids[2], true), "{version:?}");
        assert_eq!((&came[2].0[..], came[2].2), (&b"4"[..], false), "{version:?}: it was never sent before");
        assert!(!ids.contains(&came[2].1), "{version:?}: its id is its own");
        for (_, packet_id, _) in came {
            again.send(&Packet::PubAck(Ack::success(packet_id))).await.unwrap();
        }
        again.send(&Packet::PingReq).await.unwrap();
        again.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
        drop(again);
        let (mut last, _) = raw_connect(server.mqtt(), persistent(version, "dup")).await;
        last.send(&Packet::PingReq).await.unwrap();
        last.expect("nothing but PINGRESP", SOON, |p| (*p == Packet::PingResp).then_some(())).await.unwrap();
        drop(last);
        raw_client(server.mqtt(), version, "dup").await; // discards the session
    }
}

#[tokio::test]
async fn qos_2_goes_on_where_it_stopped() {
    let server = shared().await;
    for version in VERSIONS {
        let (mut first, _) = raw_connect(server.mqtt(), persistent(version, "two")).await;
        raw_subscribe(&mut first, "two/t", QoS::ExactlyOnce).await;
        let mut publisher = raw_client(server.mqtt(), version, "two-p").await;
        let mut ids = Vec::new();
        for number in 1..=2 {
            let publish = raw::publish(number, "two/t", QoS::ExactlyOnce, number.to_string());
            publisher.send(&Packet::Publish(publish)).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await.0, "PUBREC");
            publisher.send(&Packet::PubRel(Ack::success(number))).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await.0, "PUBCOMP");
            ids.push(raw_publish(&mut first).await.packet_id);
        }
        first.send(&Packet::PubRec(Ack::success(ids[0]))).await.unwrap();
        assert_eq!(raw_ack(&mut first).await, ("PUBREL", ids[0], ReasonCode::Success));
        drop(first);

        // [v5 MQTT-4.4.0-1] the first is known to have come: only its PUBREL is sent again; the second comes again.
        let (mut again, _) = raw_connect(server.mqtt(), persistent(version, "two")).await;
        let (mut released, mut repeated) = (None, None);
        while released.is_none() || repeated.is_none() {
            match again.next(SOON).await.unwrap() {
                Packet::PubRel(ack) => released = Some(ack.packet_id),
                Packet::Publish(publish) => repeated = Some((publish.payload, publish.packet_id, publish.dup)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(released, Some(ids[0]), "{version:?}");
        assert_eq!(repeated, Some(("2".into(), ids[1], true)), "{version:?}");
        again.send(&Packet::PubComp(Ack::success(ids[0]))).await.unwrap();
        again.send(&Packet::PubRec(Ack::success(ids[1]))).await.unwrap();
        assert_eq!(raw_ack(&mut again).await.0, "PUBREL");
        again.send(&Packet::PubComp(Ack::success(ids[1]))).await.unwrap();
        again.send(&Packet::PingReq).await.unwrap();
        again.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
        drop(again);
        raw_client(server.mqtt(), version, "two").await; // discards the session
    }
}

#[tokio::test]
async fn a_persistent_publisher_resends_qos_2_after_a_lost_connection_and_it_counts_once() {
    let server = shared().await;
    for version in VERSIONS {
        let mut subscriber = raw_client(server.mqtt(), version, "resend-s").await;
        raw_subscribe(&mut subscriber, "resend/t", QoS::AtMostOnce).await;
        let mut publish = raw::publish(5, "resend/t", QoS::ExactlyOnce, "once");
        for round in 0..2 {
            let (mut publisher, connack) = raw_connect(server.mqtt(), persistent(version, "resend-p")).await;
            assert_eq!(connack.session_present, round > 0);
            publisher.send(&Packet::Publish(publish.clone())).await.unwrap();
            assert_eq!(raw_ack(&mut publisher).await, ("PUBREC", 5, ReasonCode::Success), "{version:?}");
            publish.dup = true;
            if round == 1 {
                publisher.send(&Packet::PubRel(Ack::success(5))).await.unwrap();
                assert_eq!(raw_ack(&mut publisher).await, ("PUBCOMP", 5, ReasonCode::Success));
                let next = raw::publish(0, "resend/t", QoS::AtMostOnce, "sentinel");
                publisher.send(&Packet::Publish(next)).await.unwrap();
            }
        }
        assert_eq!(raw_publish(&mut subscriber).await.payload, "once");
        assert_eq!(raw_publish(&mut subscriber).await.payload, "sentinel", "{version:?}");
        raw_client(server.mqtt(), version, "resend-p").await; // discards the session
    }
}
