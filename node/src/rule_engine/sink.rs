//! Where rules send things: one kind for each channel of an action.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_mqtt::TopicName;
use fulmar_platform::registry::{Channel, RuleAction};
use serde_json::Value;

use super::sinks::detail::{Forward, Kafka, Push, Webhook};
use super::sinks::device::ToDevices;
use super::sinks::kafka::ToKafka;
use super::sinks::push::ToApplications;
use super::sinks::republish::{self, Republish};
use super::sinks::webhook::ToWebhook;
use crate::dispatch::Dispatch;

/// What a rule has made of one event. Cheap to clone, but for its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// Unique among what an action is given, and the same each time that it is tried: receivers tell repetitions by it.
    pub key: Box<str>,
    pub body: Bytes,
    /// The topic that the event came on, if a device published it.
    pub topic: Option<TopicName>,
    /// Milliseconds since 1970 of the event.
    pub at_ms: u64,
}

/// How far a sink has come with some parcels.
#[derive(Debug, Clone, PartialEq)]
pub struct Handed {
    /// So many of them, from the first on, are taken, or refused for good and named in `refused`.
    pub done: usize,
    /// Places of those that are refused for good: to repeat them would not help.
    pub refused: Vec<usize>,
    /// Why not all, or why some were refused.
    pub problem: Option<String>,
}

/// A sink that is open.
pub enum Sink {
    Push(ToApplications),
    Device(ToDevices),
    Webhook(Box<ToWebhook>),
    Kafka(Box<ToKafka>),
    Republish(Republish),
}

impl Sink {
    /// Checks `channel_detail` of an action, as it comes in by REST: an object with the member of the channel.
    ///
    /// # Errors
    /// The member that is wrong, as a path from `channel_detail`, and why.
    pub fn check(channel: Channel, detail: &Value) -> Result<(), (String, String)> {
        match channel {
            Channel::MqttForwarding => Push::read(detail).map(drop),
            Channel::MqttDeviceForwarding => Forward::read(detail).map(drop),
            Channel::HttpForwarding => Webhook::read(detail).map(drop),
            Channel::KafkaForwarding => Kafka::read(detail).map(drop),
            Channel::Republish => republish::read(detail).map(drop),
        }
    }

    /// A sink for an action. Connects to nothing before it has something to hand over.
    ///
    /// # Errors
    /// The action cannot be carried out, and why.
    pub fn open(action: &RuleAction, dispatch: &Arc<Dispatch>) -> Result<Sink, String> {
        let detail: Value = serde_json::from_str(&action.detail).map_err(|error| format!("channel_detail: {error}"))?;
        let to = dispatch.clone();
        let opened = match action.channel {
            Channel::MqttForwarding => {
                Push::read(&detail).and_then(|push| ToApplications::new(&push, to)).map(Sink::Push)
            }
            Channel::MqttDeviceForwarding => Forward::read(&detail).map(|it| Sink::Device(ToDevices::new(it, to))),
            Channel::HttpForwarding => {
                Webhook::read(&detail).map(|webhook| Sink::Webhook(Box::new(ToWebhook::new(webhook, to))))
            }
            Channel::KafkaForwarding => {
                Kafka::read(&detail).map(|kafka| Sink::Kafka(Box::new(ToKafka::new(kafka, to))))
            }
            Channel::Republish => Republish::open(&detail, dispatch).map(Sink::Republish),
        };
        opened.map_err(|(member, problem)| format!("channel_detail.{member} {problem}"))
    }

    /// Hands parcels over, in order, within the sink's own time-outs. Who calls tries the rest again, after a pause that
    /// grows.
    pub async fn hand_over(&mut self, parcels: &[Parcel]) -> Handed {
        match self {
            Sink::Push(sink) => sink.hand_over(parcels).await,
            Sink::Device(sink) => sink.hand_over(parcels).await,
            Sink::Webhook(sink) => sink.hand_over(parcels).await,
            Sink::Kafka(sink) => sink.hand_over(parcels).await,
            Sink::Republish(sink) => sink.hand_over(parcels).await,
        }
    }
}
