//! What MQTT 5 adds to publish and subscribe.

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::packet::{RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicFilter, Version};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::net::TcpStream;

use crate::support::{
    SOON, client, close_reason, persistent, raw_ack, raw_client, raw_connect, raw_publish, raw_subscribe, shared,
};

/// Subscribes with options; the code must grant.
async fn subscribe(
    client: &mut RawClient<TcpStream>,
    filter: &str,
    options: SubscriptionOptions,
    subscription_id: Option<u32>,
) {
    let filter = TopicFilter::new(filter.to_owned()).unwrap();
    let filters = vec![SubscribeFilter { filter, options }];
    let packet = Subscribe { packet_id: 77, filters, subscription_id, user: Vec::new() };
    client.send(&Packet::Subscribe(Box::new(packet))).await.unwrap();
    let granted = client.expect("SUBACK", SOON, |packet| match packet {
        Packet::SubAck(suback) => suback.reasons.first().copied(),
        _ => None,
    });
    assert!(!granted.await.unwrap().is_error());
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

/// Publishes with QoS 0 to a topic that the client itself hears, and takes it: all before it has come.
async fn sentinel(client: &mut RawClient<TcpStream>, topic: &str) {
    client.send(&Packet::Publish(raw::publish(0, topic, QoS::AtMostOnce, "sentinel"))).await.unwrap();
    assert_eq!(raw_publish(client).await.payload, "sentinel");
}

#[tokio::test]
async fn no_local_keeps_a_client_from_hearing_itself() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "local").await;
    subscribe(&mut client, "local/t", SubscriptionOptions { no_local: true, ..options(QoS::AtMostOnce) }, None).await;
    subscribe(&mut client, "local/sentinel", options(QoS::AtMostOnce), None).await;
    client.send(&Packet::Publish(raw::publish(0, "local/t", QoS::AtMostOnce, "own"))).await.unwrap();
    sentinel(&mut client, "local/sentinel").await;
    let mut other = raw_client(server.mqtt(), Version::V5, "local-other").await;
    other.send(&Packet::Publish(raw::publish(0, "local/t", QoS::AtMostOnce, "other's"))).await.unwrap();
    assert_eq!(raw_publish(&mut client).await.payload, "other's");
    // [v5 MQTT-3.8.3-4] for a shared subscription it is an error.
    let filter = TopicFilter::new("$share/g/local/t").unwrap();
    let no_local = SubscriptionOptions { no_local: true, ..options(QoS::AtMostOnce) };
    let filters = vec![SubscribeFilter { filter, options: no_local }];
    let packet = Subscribe { packet_id: 1, filters, subscription_id: None, user: Vec::new() };
    let sent = client.send(&Packet::Subscribe(Box::new(packet))).await;
    if sent.is_ok() {
        assert_eq!(close_reason(&mut client).await, Some(ReasonCode::ProtocolError));
    }
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "rap").await;
    let kept = SubscriptionOptions { retain_as_published: true, ..options(QoS::AtMostOnce) };
    subscribe(&mut client, "rap/kept", kept, None).await;
    subscribe(&mut client, "rap/plain", options(QoS::AtMostOnce), None).await;
    for (topic, retain, shown) in
        [("rap/kept", true, true), ("rap/kept", false, false), ("rap/plain", true, false), ("rap/plain", false, false)]
    {
        let mut publish = raw::publish(0, topic, QoS::AtMostOnce, "x");
        publish.retain = retain;
        client.send(&Packet::Publish(publish)).await.unwrap();
        assert_eq!(raw_publish(&mut client).await.retain, shown, "{topic} {retain}");
    }
}

#[tokio::test]
async fn retain_handling_says_when_to_replay() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "handling").await;
    let mut publish = raw::publish(1, "handling/t", QoS::AtLeastOnce, "kept");
    publish.retain = true;
    client.send(&Packet::Publish(publish)).await.unwrap();
    raw_ack(&mut client).await;
    raw_subscribe(&mut client, "handling/sentinel", QoS::AtMostOnce).await;
    let handling = |retain_handling| SubscriptionOptions { retain_handling, ..options(QoS::AtMostOnce) };
    for (retain_handling, replayed) in [
        (RetainHandling::Never, false),
        (RetainHandling::IfNew, false),
        (RetainHandling::Always, true),
        (RetainHandling::Always, true),
    ] {
        subscribe(&mut client, "handling/t", handling(retain_handling), None).await;
        if replayed {
            let message = raw_publish(&mut client).await;
            assert_eq!((&message.payload[..], message.retain), (&b"kept"[..], true));
        }
        sentinel(&mut client, "handling/sentinel").await;
    }
    let mut new = raw_client(server.mqtt(), Version::V5, "handling-new").await;
    subscribe(&mut new, "handling/t", handling(RetainHandling::IfNew), None).await;
    assert_eq!(raw_publish(&mut new).await.payload, "kept");
}

#[tokio::test]
async fn subscription_identifiers_say_which_filters_matched() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "ids").await;
    subscribe(&mut client, "ids/#", options(QoS::AtMostOnce), Some(1)).await;
    subscribe(&mut client, "ids/+", options(QoS::AtMostOnce), Some(268_435_455)).await;
    subscribe(&mut client, "ids/none", options(QoS::AtMostOnce), None).await;
    for (topic, expected) in [("ids/a", vec![1, 268_435_455]), ("ids/a/b", vec![1]), ("ids/none", vec![1, 268_435_455])]
    {
        client.send(&Packet::Publish(raw::publish(0, topic, QoS::AtMostOnce, "x"))).await.unwrap();
        // One message with all identifiers, or one for each matching filter [v5 MQTT-3.3.4-3..5]: we send one.
        let mut ids = raw_publish(&mut client).await.properties.subscription_ids.to_vec();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{topic}");
    }
    // Subscribed again, the identifier is replaced.
    subscribe(&mut client, "ids/#", options(QoS::AtMostOnce), Some(9)).await;
    client.send(&Packet::Publish(raw::publish(0, "ids/a/b", QoS::AtMostOnce, "x"))).await.unwrap();
    assert_eq!(raw_publish(&mut client).await.properties.subscription_ids.to_vec(), [9]);
}

#[tokio::test]
async fn identifiers_of_a_persistent_session_survive_with_it() {
    let server = shared().await;
    let (mut first, _) = raw_connect(server.mqtt(), persistent(Version::V5, "ids-kept")).await;
    subscribe(&mut first, "ids-kept/t", options(QoS::AtLeastOnce), Some(5)).await;
    drop(first);
    let mut publisher = raw_client(server.mqtt(), Version::V5, "ids-kept-p").await;
    publisher.send(&Packet::Publish(raw::publish(1, "ids-kept/t", QoS::AtLeastOnce, "x"))).await.unwrap();
    raw_ack(&mut publisher).await;
    let (mut again, _) = raw_connect(server.mqtt(), persistent(Version::V5, "ids-kept")).await;
    assert_eq!(raw_publish(&mut again).await.properties.subscription_ids.to_vec(), [5]);
    raw_client(server.mqtt(), Version::V5, "ids-kept").await; // discards the session
}

#[tokio::test]
async fn topic_aliases_work_both_ways() {
    let server = shared().await;
    let mut connect = raw::connect(Version::V5, "alias");
    connect.properties.topic_alias_maximum = Some(2);
    let (mut client, connack) = raw_connect(server.mqtt(), connect).await;
    assert_eq!(connack.properties.topic_alias_maximum, Some(16));
    raw_subscribe(&mut client, "alias/#", QoS::AtMostOnce).await;
    let mut known = std::collections::BTreeMap::new();
    // Set, used, another, set anew, used.
    for (topic, alias, meant) in [
        (Some("alias/a"), 1, "alias/a"),
        (None, 1, "alias/a"),
        (Some("alias/b"), 16, "alias/b"),
        (Some("alias/c"), 1, "alias/c"),
        (None, 1, "alias/c"),
        (None, 16, "alias/b"),
    ] {
        let mut publish = raw::publish(0, topic.unwrap_or("x"), QoS::AtMostOnce, meant);
        if topic.is_none() {
            publish.topic = None;
        }
        publish.properties.topic_alias = Some(alias);
        client.send(&Packet::Publish(publish)).await.unwrap();
        let came = raw_publish(&mut client).await;
        if let (Some(alias), Some(topic)) = (came.properties.topic_alias, &came.topic) {
            assert!((1..=2).contains(&alias), "beyond what this client accepts");
            known.insert(alias, topic.as_str().to_owned());
        }
        let topic = came.topic.map(|topic| topic.as_str().to_owned());
        let resolved = topic.or_else(|| known.get(&came.properties.topic_alias?).cloned());
        assert_eq!(resolved.as_deref(), Some(meant));
        assert_eq!(came.payload, meant);
    }
    let mut beyond = raw::publish(0, "alias/z", QoS::AtMostOnce, "x");
    beyond.properties.topic_alias = Some(17);
    client.send(&Packet::Publish(beyond)).await.unwrap();
    assert_eq!(close_reason(&mut client).await, Some(ReasonCode::TopicAliasInvalid));
}

#[tokio::test]
async fn properties_are_forwarded_in_their_order() {
    let server = shared().await;
    let mut client = client(server.mqtt(), Protocol::V5, "properties").await;
    client.subscribe("properties/t", 1).await.unwrap();
    let user = [("b", "2"), ("a", "1"), ("b", "3"), ("", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".into()),
        response_topic: Some("properties/answer".into()),
        correlation_data: Some(vec![0, 255, 3].into()),
        user_properties: user.to_vec(),
        ..PublishProperties::default()
    };
    for qos in 0..3 {
        client.publish_with("properties/t", qos, false, "x", properties.clone()).await.unwrap();
        let came = client.receive(SOON).await.unwrap().properties.unwrap();
        assert_eq!(came, properties, "QoS {qos}");
    }
}

#[tokio::test]
async fn expired_messages_are_not_delivered_and_the_others_say_what_is_left() {
    let server = shared().await;
    let keeper = Options::new(Protocol::V5, "expiry").persistent(3600);
    let mut first = Client::connect(server.mqtt(), keeper.clone()).await.unwrap();
    first.subscribe("expiry/t", 1).await.unwrap();
    first.disconnect().await.unwrap();
    let mut publisher = client(server.mqtt(), Protocol::V5, "expiry-p").await;
    let lives = |seconds| PublishProperties { message_expiry_interval: Some(seconds), ..Default::default() };
    for (text, seconds) in [("brief", 1), ("long", 1000)] {
        let ticket = publisher.publish_with("expiry/t", 1, false, text, lives(seconds)).await.unwrap();
        assert_eq!(publisher.acked(ticket, SOON).await.unwrap(), "Success");
    }
    let ticket = publisher.publish_with("expiry/kept", 1, true, "kept", lives(1)).await.unwrap();
    publisher.acked(ticket, SOON).await.unwrap();
    // The retained one came last: when it is gone, so is the brief one.
    let address = server.mqtt();
    wait_for("the end of the retained message", SOON, async || {
        let mut late = raw_client(address, Version::V5, "expiry-late").await;
        raw_subscribe(&mut late, "expiry/sentinel", QoS::AtMostOnce).await;
        raw_subscribe(&mut late, "expiry/kept", QoS::AtMostOnce).await;
        late.send(&Packet::Publish(raw::publish(0, "expiry/sentinel", QoS::AtMostOnce, "s"))).await.ok()?;
        // After a replay, if there is one, comes the sentinel.
        (raw_publish(&mut late).await.payload == "s").then_some(())
    })
    .await
    .unwrap();
    let mut again = Client::connect(server.mqtt(), keeper.clone()).await.unwrap();
    let message = again.receive(SOON).await.unwrap();
    assert_eq!(message.text(), "long");
    let left = message.properties.unwrap().message_expiry_interval.unwrap();
    assert!((900..1000).contains(&left), "{left} s are left of 1000");
    again.expect_silence(crate::support::QUIET).await.unwrap();
    Client::connect(server.mqtt(), Options { clean: true, session_expiry_s: None, ..keeper }).await.unwrap();
}

#[tokio::test]
async fn a_packet_beyond_what_the_client_takes_is_not_sent() {
    let server = shared().await;
    let mut connect = raw::connect(Version::V5, "narrow");
    connect.properties.maximum_packet_size = Some(100);
    let (mut client, _) = raw_connect(server.mqtt(), connect).await;
    raw_subscribe(&mut client, "narrow/t", QoS::AtLeastOnce).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "narrow-p").await;
    for (packet_id, payload) in [(1, vec![b'x'; 200]), (2, b"fits".to_vec())] {
        publisher.send(&Packet::Publish(raw::publish(packet_id, "narrow/t", QoS::AtLeastOnce, payload))).await.unwrap();
        assert_eq!(raw_ack(&mut publisher).await.1, packet_id, "it was accepted, whoever cannot take it");
    }
    assert_eq!(raw_publish(&mut client).await.payload, "fits");
}

#[tokio::test]
async fn a_client_that_takes_no_connack_is_refused_in_fewer_bytes() {
    let server = shared().await;
    // There is no room for a client id that is assigned.
    for (client_id, reason) in [("", ReasonCode::PacketTooLarge), ("terse", ReasonCode::Success)] {
        let mut connect = raw::connect(Version::V5, client_id);
        connect.properties.maximum_packet_size = Some(20);
        let (_client, connack) = raw_connect(server.mqtt(), connect).await;
        assert_eq!(connack.reason, reason, "{client_id:?}");
    }
}

#[tokio::test]
async fn a_clients_receive_maximum_is_kept() {
    let server = shared().await;
    for make in [raw::connect, persistent] {
        let mut connect = make(Version::V5, "window");
        connect.properties.receive_maximum = Some(3);
        let (mut client, _) = raw_connect(server.mqtt(), connect).await;
        raw_subscribe(&mut client, "window/t", QoS::ExactlyOnce).await;
        let mut publisher = raw_client(server.mqtt(), Version::V5, "window-p").await;
        for packet_id in 1..=20u16 {
            let qos = if packet_id % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            let publish = raw::publish(packet_id, "window/t", qos, packet_id.to_string());
            publisher.send(&Packet::Publish(publish)).await.unwrap();
            raw_ack(&mut publisher).await;
        }
        let mut waiting = std::collections::VecDeque::new();
        let mut came = 0;
        while came < 20 {
            // A PINGRESP comes after all that may be sent before it is asked for.
            client.send(&Packet::PingReq).await.unwrap();
            loop {
                match client.next(SOON).await.unwrap() {
                    Packet::Publish(publish) => {
                        came += 1;
                        assert_eq!(publish.payload, came.to_string());
                        waiting.push_back((publish.qos, publish.packet_id));
                    }
                    Packet::PubRel(ack) => {
                        let comp = fulmar_mqtt::packet::Ack::success(ack.packet_id);
                        client.send(&Packet::PubComp(comp)).await.unwrap();
                    }
                    Packet::PingResp => break,
                    other => panic!("{other:?}"),
                }
            }
            assert!(waiting.len() <= 3, "{} are unacknowledged", waiting.len());
            if let Some((qos, packet_id)) = waiting.pop_front() {
                let ack = fulmar_mqtt::packet::Ack::success(packet_id);
                let ack = if qos == QoS::AtLeastOnce { Packet::PubAck(ack) } else { Packet::PubRec(ack) };
                client.send(&ack).await.unwrap();
            }
        }
        raw_client(server.mqtt(), Version::V5, "window").await; // discards the session
    }
}

#[tokio::test]
async fn a_publish_that_nobody_hears_says_so() {
    let server = shared().await;
    let mut client = raw_client(server.mqtt(), Version::V5, "nobody").await;
    client.send(&Packet::Publish(raw::publish(1, "nobody/hears", QoS::AtLeastOnce, "x"))).await.unwrap();
    assert_eq!(raw_ack(&mut client).await, ("PUBACK", 1, ReasonCode::NoMatchingSubscribers));
}
