//! rumqttc's event loops of both versions, driven in a task and told in one vocabulary.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::{Outgoing, Packet as PacketV4};
use tokio::sync::mpsc;

/// Pause before a lost connection is opened again.
const RECONNECT_WAIT: Duration = Duration::from_millis(50);

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// MQTT 5 only.
    pub properties: Option<PublishProperties>,
}

impl Received {
    /// The payload as text, ill-formed parts replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum Happening {
    Connected {
        session_present: bool,
    },
    Received(Received),
    /// The `order`-th publish of QoS 1 or 2 is acknowledged (PUBACK, PUBCOMP) or refused (PUBREC).
    Acked {
        order: u64,
        reason: String,
    },
    Subscribed(Vec<String>),
    Unsubscribed,
    /// The connection ended and stays so.
    Ended(String),
}

/// What an event loop says, before acks are matched to publishes.
enum Event {
    /// A publish with this packet id goes out; 0 is QoS 0.
    Sent(u16),
    Acked(u16, String),
    Other(Happening),
    Nothing,
}

pub(super) enum Loop {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

impl Loop {
    async fn poll(&mut self) -> Result<Event, String> {
        match self {
            Loop::V4(events) => events.poll().await.map(translate_v4).map_err(|error| error.to_string()),
            Loop::V5(events) => events.poll().await.map(translate_v5).map_err(|error| error.to_string()),
        }
    }
}

/// Runs until the connection ends, or for ever if `reconnect`.
pub(super) async fn drive(mut events: Loop, into: mpsc::UnboundedSender<Happening>, reconnect: bool) {
    // rumqttc sends publishes in the order of its requests: the n-th packet id it names is the n-th request's.
    let mut orders = BTreeMap::new();
    let mut published = 0;
    loop {
        let happening = match events.poll().await {
            Ok(Event::Sent(0)) | Ok(Event::Nothing) => continue,
            Ok(Event::Sent(packet_id)) => {
                // After a reconnect the unacknowledged ones go out again under their old ids.
                orders.entry(packet_id).or_insert_with(|| {
                    published += 1;
                    published - 1
                });
                continue;
            }
            Ok(Event::Acked(packet_id, reason)) => match orders.remove(&packet_id) {
                Some(order) => Happening::Acked { order, reason },
                None => continue,
            },
            Ok(Event::Other(happening)) => happening,
            Err(_) if reconnect => {
                tokio::time::sleep(RECONNECT_WAIT).await;
                continue;
            }
            Err(why) => Happening::Ended(why),
        };
        let ended = matches!(happening, Happening::Ended(_));
        if into.send(happening).is_err() || ended {
            return;
        }
    }
}

fn translate_v4(event: rumqttc::Event) -> Event {
    let packet = match event {
        rumqttc::Event::Outgoing(Outgoing::Publish(packet_id)) => return Event::Sent(packet_id),
        rumqttc::Event::Outgoing(_) => return Event::Nothing,
        rumqttc::Event::Incoming(packet) => packet,
    };
    let happening = match packet {
        PacketV4::ConnAck(connack) => Happening::Connected { session_present: connack.session_present },
        PacketV4::Publish(publish) => Happening::Received(Received {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: None,
        }),
        PacketV4::PubAck(ack) => return Event::Acked(ack.pkid, "Success".into()),
        PacketV4::PubComp(ack) => return Event::Acked(ack.pkid, "Success".into()),
        PacketV4::SubAck(ack) => Happening::Subscribed(ack.return_codes.iter().map(|c| format!("{c:?}")).collect()),
        PacketV4::UnsubAck(_) => Happening::Unsubscribed,
        _ => return Event::Nothing,
    };
    Event::Other(happening)
}

fn translate_v5(event: v5::Event) -> Event {
    let packet = match event {
        v5::Event::Outgoing(Outgoing::Publish(packet_id)) => return Event::Sent(packet_id),
        v5::Event::Outgoing(_) => return Event::Nothing,
        v5::Event::Incoming(packet) => packet,
    };
    let happening = match packet {
        Packet::ConnAck(connack) => Happening::Connected { session_present: connack.session_present },
        Packet::Publish(publish) => Happening::Received(Received {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties,
        }),
        Packet::PubAck(ack) => return Event::Acked(ack.pkid, format!("{:?}", ack.reason)),
        Packet::PubComp(ack) => return Event::Acked(ack.pkid, format!("{:?}", ack.reason)),
        // [v5 4.3.3] A PUBREC of 0x80 and above ends the exchange.
        Packet::PubRec(ack) => {
            let reason = format!("{:?}", ack.reason);
            match reason.as_str() {
                "Success" | "NoMatchingSubscribers" => return Event::Nothing,
                _ => return Event::Acked(ack.pkid, reason),
            }
        }
        Packet::SubAck(ack) => Happening::Subscribed(ack.return_codes.iter().map(|c| format!("{c:?}")).collect()),
        Packet::UnsubAck(_) => Happening::Unsubscribed,
        _ => return Event::Nothing,
    };
    Event::Other(happening)
}
