//! Conversations with the machine: what goes in, what must come out.

mod connection;
mod manners;
mod publishes;
mod subscriptions;

use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::packet::{Ack, Connect, ConnectProperties, Publish, Subscribe, SubscribeFilter, SubscriptionOptions};
use fulmar_mqtt::property::PublishProperties;
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicFilter, TopicName, Version};

use fulmar_platform::{Manners, Publishing, Subscribing, Voice};

use super::{Denial, Input, Limits, Opening, Output, Session, Start, Token, expiry_s};
use crate::key::{Epoch, LogTime, Now, SessionKey};
use crate::state::command::Claimed;

/// Allows everything but what begins with `secret`. What begins with `up` is for the platform, and `down` is granted
/// with QoS 0.
#[derive(Debug)]
struct NoSecrets;

impl Voice for NoSecrets {
    fn publishing(&self, topic: &TopicName) -> Publishing {
        match topic.as_str() {
            topic if topic.starts_with("secret") => Publishing::Deny,
            topic if topic.starts_with("up") => Publishing::Platform,
            _ => Publishing::Route,
        }
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        match filter.as_str() {
            filter if filter.starts_with("secret") => Subscribing::Deny,
            filter if filter.starts_with("down") => Subscribing::Grant(QoS::AtMostOnce),
            _ => Subscribing::Grant(QoS::ExactlyOnce),
        }
    }
}

fn limits() -> Limits {
    Limits {
        receive_maximum: 4,
        topic_alias_maximum: 3,
        topic_levels_max: 8,
        subscriptions_max: 3,
        session_expiry_s_max: 1000,
        keep_alive_s_max: 0,
        packet_bytes_max: 1024,
        will_bytes_max: 16,
        server_reference: Some("elsewhere:8883".into()),
    }
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 10,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A session with its clock.
struct Talk {
    session: Session,
    now: Now,
    connack: Packet,
}

impl Talk {
    fn new(connect: &Connect) -> Talk {
        Talk::with(connect, &limits())
    }

    fn with(connect: &Connect, limits: &Limits) -> Talk {
        Talk::held_to(connect, limits, Manners::default())
    }

    fn held_to(connect: &Connect, limits: &Limits, manners: Manners) -> Talk {
        let claimed = Claimed {
            epoch: Epoch(1),
            session_present: false,
            previous: None,
            subscriptions: Vec::new(),
            received: Vec::new(),
            queue_floor: 0,
        };
        let now = Now { mono_ms: 1_000, log: LogTime(50_000) };
        let opening = Opening { assigned_client_id: None, expiry_s: expiry_s(connect, &manners, limits) };
        let start = Start {
            connect,
            key: SessionKey::new("default", "generic", "c"),
            voice: Arc::new(NoSecrets),
            manners,
            limits: Arc::new(limits.clone()),
            claimed: &claimed,
            opening: &opening,
        };
        let (session, connack) = Session::start(start, now);
        Talk { session, now, connack }
    }

    fn v5() -> Talk {
        Talk::new(&connect(Version::V5))
    }

    fn v311() -> Talk {
        Talk::new(&connect(Version::V311))
    }

    fn persistent(version: Version) -> Talk {
        let mut connect = connect(version);
        connect.clean_start = false;
        connect.properties.session_expiry_s = Some(100);
        Talk::new(&connect)
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.session.handle(self.now, input, &mut outputs);
        outputs
    }

    fn packet(&mut self, packet: Packet) -> Vec<Output> {
        self.say(Input::Packet(packet))
    }

    fn publish(&mut self, topic: &str, qos: QoS, packet_id: u16) -> Vec<Output> {
        self.packet(publish(topic, qos, packet_id))
    }

    fn accept(&mut self, token: Token) -> Vec<Output> {
        self.say(Input::Accepted { token, reason: ReasonCode::Success })
    }
}

fn publish(topic: &str, qos: QoS, packet_id: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: (!topic.is_empty()).then(|| TopicName::new(topic.to_owned()).unwrap()),
        packet_id,
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"x"),
    })
}

fn subscribe(packet_id: u16, filters: &[&str]) -> Packet {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter {
            filter: TopicFilter::new((*filter).to_owned()).unwrap(),
            options: SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() },
        })
        .collect();
    Packet::Subscribe(Box::new(Subscribe { packet_id, filters, subscription_id: None, user: Vec::new() }))
}

/// The token of the one publication among the outputs.
fn token(outputs: &[Output]) -> Token {
    match outputs {
        [Output::Publish { token: Some(token), .. }] => *token,
        other => panic!("expected one publication with a token: {other:?}"),
    }
}

fn puback(packet_id: u16) -> Output {
    Output::Send(Packet::PubAck(Ack::success(packet_id)))
}

fn pubrec(packet_id: u16) -> Output {
    Output::Send(Packet::PubRec(Ack::success(packet_id)))
}

fn pubcomp(packet_id: u16) -> Output {
    Output::Send(Packet::PubComp(Ack::success(packet_id)))
}

/// The reason of the DISCONNECT, if one is sent, and that the connection ends.
fn ended(outputs: &[Output]) -> Option<ReasonCode> {
    assert!(matches!(outputs.last(), Some(Output::End { .. })), "expected an end: {outputs:?}");
    outputs.iter().find_map(|output| match output {
        Output::Send(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
        _ => None,
    })
}
