//! Messages to devices, which are kept until they are delivered or their time is over; and broadcasts, which are not kept.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fulmar_broker::plane::mail::{Answer, Cached, Change, Failure, Phase};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_mqtt::{QoS, TopicName};
use fulmar_platform::Downlink;
use fulmar_platform::message::{Destination, Form, Message, Properties};
use fulmar_platform::registry::Kind;
use serde_json::Value;

use super::apps::app_of;
use super::input::Input;
use super::{COMMIT, Error, Operations, check};
use crate::dispatch::downlink::publication;

/// How long an answer waits for the device's connection to take a message.
const TAKEN: Duration = Duration::from_secs(3);

/// Bytes of a message's content, as it is given.
const CONTENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a broadcast, decoded.
const BROADCAST_BYTES_MAX: usize = 128 * 1024;

/// Minutes: what a message waits at most, and if nothing is said.
const TTL_MIN_MAX: u16 = 1_440;

/// Minutes of which a message's time is made.
const TTL_MIN_STEP: u16 = 5;

const PROPERTIES_USER_MAX: usize = 20;

/// Characters of a response topic, of correlation data, and of either part of a user property.
const PROPERTY_CHARS_MAX: usize = 128;

/// Bytes of a packet beside topic and payload, at most, without properties.
const HEADER_BYTES_MAX: usize = 16;

/// A message to a device, as `POST .../messages` has it: the body, read and checked when it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMessage {
    pub body: Arc<Value>,
}

/// What became of a message so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub id: String,
    /// `PENDING`, `DELIVERED`, `TIMEOUT` or `FAILED`.
    pub status: &'static str,
    /// With FAILED: code and text.
    pub error: Option<(&'static str, String)>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    pub finished_ms: Option<u64>,
}

/// A broadcast that is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Broadcast {
    pub id: String,
    pub app_id: String,
    pub topic: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// A message as it is asked for, before it is known whether its device can be sent it.
struct Asked {
    id: String,
    name: Option<String>,
    content: String,
    object: bool,
    form: Form,
    topic: Option<String>,
    topic_full_name: Option<String>,
    ttl_min: u16,
    properties: Option<Properties>,
}

fn id_of(input: &Input<'_>) -> Result<String, Error> {
    let Some(id) = input.text("message_id")? else { return Ok(uuid::Uuid::new_v4().to_string()) };
    check::word("message_id", &id, 100, "")?;
    Ok(id)
}

impl NewMessage {
    /// Checks what can be checked without a device.
    ///
    /// # Errors
    /// The member that is wrong.
    pub(super) fn check(&self) -> Result<(), Error> {
        Asked::read(&self.body).map(drop)
    }
}

impl Asked {
    fn read(body: &Value) -> Result<Asked, Error> {
        let input = Input::of(body)?;
        let id = id_of(&input)?;
        let name = input.text("name")?;
        if let Some(name) = &name {
            check::text("name", name, 0, 128)?;
        }
        let (content, object) = match input.value("message") {
            Some(Value::String(text)) => (text.clone(), false),
            Some(object @ Value::Object(_)) => (object.to_string(), true),
            Some(_) => return Err(Error::invalid("message", "must be a string or an object")),
            None => return Err(Error::invalid("message", "is required")),
        };
        if content.len() > CONTENT_BYTES_MAX {
            return Err(Error::invalid("message", format!("must have at most {CONTENT_BYTES_MAX} bytes")));
        }
        let encoded = input.word("encoding", &[("none", false), ("base64", true)])?.unwrap_or(false);
        let raw = input.word("payload_format", &[("standard", false), ("raw", true)])?.unwrap_or(false);
        let form = match (encoded, raw) {
            (true, true) => return Err(Error::invalid("payload_format", "must not be raw beside encoding base64")),
            (true, false) if object || BASE64.decode(&content).is_err() => {
                return Err(Error::invalid("message", "must be base64, as encoding says"));
            }
            (true, false) => Form::Base64,
            (false, true) => Form::Raw,
            (false, false) => Form::Standard,
        };
        let ttl = input.number("ttl", u64::from(TTL_MIN_MAX))?.and_then(|ttl| u16::try_from(ttl).ok());
        let ttl_min = ttl.unwrap_or(TTL_MIN_MAX);
        if ttl_min % TTL_MIN_STEP != 0 {
            return Err(Error::invalid("ttl", format!("must be a multiple of {TTL_MIN_STEP}")));
        }
        Ok(Asked {
            id,
            name,
            content,
            object,
            form,
            topic: input.text("topic")?,
            topic_full_name: input.text("topic_full_name")?,
            ttl_min,
            properties: input.object("properties")?.map(|properties| read_properties(&properties)).transpose()?,
        })
    }
}

fn read_properties(input: &Input<'_>) -> Result<Properties, Error> {
    let bounded = |name: &'static str| -> Result<Option<Box<str>>, Error> {
        let Some(text) = input.text(name)? else { return Ok(None) };
        check::text(&format!("properties.{name}"), &text, 1, PROPERTY_CHARS_MAX)?;
        Ok(Some(text.into()))
    };
    let response_topic = bounded("response_topic")?;
    if response_topic.as_ref().is_some_and(|topic| TopicName::new(topic.to_string()).is_err()) {
        return Err(Error::invalid("properties.response_topic", "must be a topic name, without wildcards"));
    }
    let listed = input.objects("user_properties")?.unwrap_or_default();
    if listed.len() > PROPERTIES_USER_MAX {
        let problem = format!("must have at most {PROPERTIES_USER_MAX} elements");
        return Err(Error::invalid("properties.user_properties", problem));
    }
    let mut user = Vec::with_capacity(listed.len());
    for (index, property) in listed.iter().enumerate() {
        let place = |name| format!("properties.user_properties[{index}].{name}");
        let (key, value) = (property.required("prop_key")?, property.text("prop_value")?.unwrap_or_default());
        check::text(&place("prop_key"), &key, 1, PROPERTY_CHARS_MAX)?;
        check::text(&place("prop_value"), &value, 0, PROPERTY_CHARS_MAX)?;
        user.push((key.into(), value.into()));
    }
    Ok(Properties { response_topic, correlation_data: bounded("correlation_data")?, user })
}

impl Sent {
    fn of(id: String, created_ms: u64, phase: Phase) -> Sent {
        let error = phase.failure().map(Failure::error).map(|(code, text)| (code, text.to_owned()));
        let finished_ms = phase.finished().map(|at| at.0);
        Sent { id, status: phase.status().as_str(), error, created_ms, finished_ms }
    }
}

impl Operations {
    /// Sends a message at once if the device is online, else keeps it.
    ///
    /// # Errors
    /// There is no such device, or the message cannot be so; the error names the member. The device has a message of this
    /// id already. There is no room for it.
    pub async fn create_message(&self, device: &str, message: &NewMessage) -> Result<Sent, Error> {
        self.has_room()?;
        let asked = Asked::read(&message.body)?;
        let (id, ttl_min) = (asked.id.clone(), asked.ttl_min);
        let message = Arc::new(self.addressed(device, asked)?);
        let change = Change::Create { device: device.into(), message, ttl_min };
        let posted = tokio::time::timeout(COMMIT, self.dispatch.post(change)).await.ok().flatten();
        let posted = posted.ok_or(Error::Unavailable)?;
        let (created, mut phase) = match posted.answer {
            Answer::Created { at, phase, .. } => (at.0, phase),
            Answer::NoDevice => return Err(Error::missing(Kind::Device, device)),
            Answer::Duplicate => return Err(Error::MessageExists { device: device.to_owned(), id }),
            Answer::NoRoom => return Err(Error::NoRoomForMessages),
            Answer::Noted(_) | Answer::Done | Answer::NoMessage => return Err(Error::Unavailable),
        };
        let mut index = posted.index;
        let online = self.dispatch.replica().read().device_owner(device).is_some();
        if let Some(outcome) = posted.outcome.filter(|_| online)
            && let Ok(Ok((after, at))) = tokio::time::timeout(TAKEN, outcome).await
        {
            (phase, index) = (after, at);
        }
        self.everywhere(index).await?;
        Ok(Sent::of(id, created, phase))
    }

    /// Where the message goes; it must fit into a packet that the device takes.
    fn addressed(&self, device: &str, asked: Asked) -> Result<Message, Error> {
        self.read(|registry| {
            let record = &registry.device(device).ok_or_else(|| Error::missing(Kind::Device, device))?.0.record;
            let (topic, whole) = (asked.topic.as_deref(), asked.topic_full_name.as_deref());
            let to = Destination::choose(registry, record, topic, whole)
                .map_err(|(member, problem)| Error::invalid(member, problem))?;
            let message = Message {
                id: asked.id.into(),
                name: asked.name.map(Into::into),
                content: asked.content.into(),
                object: asked.object,
                form: asked.form,
                to,
                properties: asked.properties.map(Box::new),
            };
            let downlink = message.downlink(registry, record);
            let downlink = downlink.ok_or_else(|| Error::invalid("message", "cannot be sent to this device"))?;
            let properties = message.forward().as_bytes().len();
            let bytes = downlink.topic.as_str().len() + downlink.payload.len() + HEADER_BYTES_MAX + properties;
            match registry.dialect_of(record).and_then(|dialect| dialect.packet_bytes_max()) {
                Some(most) if bytes > most as usize => {
                    let problem = format!("makes a packet of {bytes} bytes; the device takes {most}");
                    Err(Error::invalid("message", problem))
                }
                _ => Ok(message),
            }
        })
    }

    /// Until what was made at one node is known to all.
    async fn everywhere(&self, index: u64) -> Result<(), Error> {
        if !self.dispatch.links().connected() {
            return Ok(());
        }
        let stable = tokio::time::timeout(COMMIT, self.dispatch.replica().stable(index)).await;
        if stable == Ok(true) { Ok(()) } else { Err(Error::Unavailable) }
    }

    /// The messages of a device that are kept, the oldest first.
    ///
    /// # Errors
    /// There is no such device.
    pub fn list_messages(&self, device: &str) -> Result<Vec<Cached>, Error> {
        let state = self.dispatch.replica().read();
        if state.registry().device(device).is_none() {
            return Err(Error::missing(Kind::Device, device));
        }
        Ok(state.plane().mail.of(device).to_vec())
    }

    /// # Errors
    /// There is no such device, or it has no such message.
    pub fn show_message(&self, device: &str, id: &str) -> Result<Cached, Error> {
        let found = self.list_messages(device)?.into_iter().find(|cached| *cached.message.id == *id);
        found.ok_or_else(|| Error::MessageMissing { device: device.to_owned(), id: id.to_owned() })
    }

    /// Takes a message away, whatever its state. What is on its way to the device already is not taken back.
    ///
    /// # Errors
    /// There is no such device, or it has no such message.
    pub async fn delete_message(&self, device: &str, id: &str) -> Result<(), Error> {
        self.show_message(device, id)?;
        let change = Change::Delete { device: device.into(), id: id.into() };
        let posted = tokio::time::timeout(COMMIT, self.dispatch.post(change)).await.ok().flatten();
        let posted = posted.ok_or(Error::Unavailable)?;
        if posted.answer != Answer::Done {
            return Err(Error::MessageMissing { device: device.to_owned(), id: id.to_owned() });
        }
        self.everywhere(posted.index).await
    }

    /// Sends a message to whoever has subscribed to its topic now; nothing is kept.
    ///
    /// # Errors
    /// Something is missing or unusable; the error names the member.
    pub async fn broadcast(&self, body: &Value) -> Result<Broadcast, Error> {
        let input = Input::of(body)?;
        let id = id_of(&input)?;
        let wanted = input.text("app_id")?;
        let app_id = self.read(|registry| app_of(registry, wanted.as_deref()).map(|app| app.record.id.to_string()))?;
        let topic = input.required("topic_full_name")?;
        let below = topic.strip_prefix("$oc/broadcast/").is_some_and(|rest| !rest.is_empty());
        let name = TopicName::new(topic.clone()).ok().filter(|_| below && topic.len() <= 128);
        let name = name.ok_or_else(|| {
            Error::invalid("topic_full_name", "must be a topic name of at most 128 bytes below $oc/broadcast/")
        })?;
        let payload =
            BASE64.decode(input.required("message")?).map_err(|_| Error::invalid("message", "must be base64"))?;
        if payload.len() > BROADCAST_BYTES_MAX {
            return Err(Error::invalid("message", format!("must have at most {BROADCAST_BYTES_MAX} bytes, decoded")));
        }
        if input.number("ttl", u64::from(TTL_MIN_MAX))?.is_some_and(|ttl| ttl > 0) {
            return Err(Error::invalid("ttl", "must be 0: broadcasts are not kept"));
        }
        let created = self.dispatch.now().log;
        let downlink = Downlink { topic: name, payload: payload.into(), qos: QoS::AtLeastOnce };
        let announce = Command::Announce(Arc::new(publication(downlink, created)));
        let outcomes = tokio::time::timeout(COMMIT, self.dispatch.replica().commit(vec![announce])).await;
        match outcomes.ok().and_then(Result::ok).ok_or(Error::Unavailable)?.first() {
            Some(Outcome::Refused(_)) => Err(Error::Full),
            _ => Ok(Broadcast { id, app_id, topic, created_ms: created.0 }),
        }
    }
}
