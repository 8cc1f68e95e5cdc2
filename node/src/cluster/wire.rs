//! Commands and publications as the messages of fulmar-proto, and back. What comes in is checked completely: an error
//! names the field. Absent here: what the messages are for, and where they are stored or sent.

mod call;
mod command;
pub mod image;
mod plane;
mod publication;
mod registry;
mod restore;
mod steer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_broker::state::command::Batch;
use fulmar_broker::{Epoch, Generation, NodeId, SessionKey};
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::topic::TopicError;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName, limits};
use fulmar_proto::types::v1 as proto;
use fulmar_proto::{DecodeError, Message};
use thiserror::Error;

/// A type that is stored and exchanged as a message.
pub trait Wire: Sized {
    type Message;

    fn to_message(&self) -> Self::Message;

    /// Bytes are kept as slices of what the message was decoded from.
    ///
    /// # Errors
    /// The first field that is not as it must be.
    fn from_message(message: Self::Message) -> Result<Self, Error>;
}

/// Why a message cannot be what it claims to be.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{} {problem}", if .path.is_empty() { "the message" } else { .path })]
pub struct Error {
    /// The field, as in `commands[2].claim.will.delay_s`; empty for the message itself.
    pub path: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Error)]
pub enum Problem {
    #[error("is no message: {0}")]
    NotProtobuf(DecodeError),
    #[error("is missing")]
    Missing,
    #[error("has the format version {0}; this program reads 1 to {max}", max = proto::FORMAT_VERSION)]
    Version(u32),
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Topic(TopicError),
    #[error("are not forwarded properties: {0}")]
    Properties(String),
    #[error("has the unknown value {0}")]
    Unknown(i32),
    #[error("is {0}, out of its range")]
    Range(u64),
    #[error("is there beside what it excludes")]
    Unwanted,
    #[error("is no JSON object")]
    Json,
    #[error("is neither an address nor a network")]
    Network,
}

impl Error {
    fn new(field: &str, problem: Problem) -> Error {
        Error { path: field.to_owned(), problem }
    }

    /// The same, seen from the message that has it in a field.
    fn within(mut self, field: &str) -> Error {
        self.path = if self.path.is_empty() { field.to_owned() } else { format!("{field}.{}", self.path) };
        self
    }
}

/// A batch as a stored record.
#[must_use]
pub fn encode_batch(batch: &Batch) -> Bytes {
    let body = Some(proto::record::Body::Batch(batch.to_message()));
    proto::Record { format_version: proto::FORMAT_VERSION, body }.encode_to_vec().into()
}

/// A stored record as the batch that it must hold.
///
/// # Errors
/// The first field that is not as it must be.
pub fn decode_batch(bytes: Bytes) -> Result<Batch, Error> {
    let record = proto::Record::decode(bytes).map_err(|error| Error::new("", Problem::NotProtobuf(error)))?;
    check_version(record.format_version)?;
    match record.body {
        Some(proto::record::Body::Batch(batch)) => field("batch", batch),
        _ => Err(Error::new("batch", Problem::Missing)),
    }
}

pub(super) fn check_version(version: u32) -> Result<(), Error> {
    match version {
        1..=proto::FORMAT_VERSION => Ok(()),
        other => Err(Error::new("format_version", Problem::Version(other))),
    }
}

/// A field's message, converted.
fn field<T: Wire>(name: &str, message: T::Message) -> Result<T, Error> {
    T::from_message(message).map_err(|error| error.within(name))
}

/// The message of a field that must be there, converted.
fn required<T: Wire>(name: &str, message: Option<T::Message>) -> Result<T, Error> {
    field(name, present(name, message)?)
}

fn optional<T: Wire>(name: &str, message: Option<T::Message>) -> Result<Option<T>, Error> {
    message.map(|message| field(name, message)).transpose()
}

fn present<T>(name: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::new(name, Problem::Missing))
}

/// A repeated field, each element converted; an error names the element by its number from 0.
fn each<M, T>(name: &str, messages: Vec<M>, convert: impl Fn(M) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let numbered = messages.into_iter().enumerate();
    numbered
        .map(|(index, message)| convert(message).map_err(|error| error.within(&format!("{name}[{index}]"))))
        .collect()
}

fn topic(bytes: Bytes) -> Result<TopicName, Error> {
    TopicName::from_bytes(bytes).map_err(|error| Error::new("", Problem::Topic(error)))
}

fn filter(bytes: Bytes) -> Result<TopicFilter, Error> {
    TopicFilter::from_bytes(bytes).map_err(|error| Error::new("", Problem::Topic(error)))
}

fn text(name: &str, bytes: Bytes) -> Result<ByteString, Error> {
    ByteString::try_from(bytes).map_err(|_| Error::new(name, Problem::NotUtf8))
}

fn node(name: &str, id: u64) -> Result<NodeId, Error> {
    if id == 0 { Err(Error::new(name, Problem::Missing)) } else { Ok(NodeId(id)) }
}

fn copied(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn qos(name: &str, value: i32) -> Result<QoS, Error> {
    let known = u8::try_from(value).ok().and_then(QoS::from_bits);
    known.ok_or_else(|| Error::new(name, Problem::Unknown(value)))
}

/// 1 to 65,535.
fn packet_id(name: &str, value: u32) -> Result<u16, Error> {
    let id = u16::try_from(value).ok().filter(|id| *id > 0);
    id.ok_or_else(|| Error::new(name, Problem::Range(value.into())))
}

/// [v5 3.8.2.1.2] 1 to 268,435,455.
fn subscription_id(name: &str, value: u32) -> Result<u32, Error> {
    if (1..=limits::VARINT_MAX).contains(&value) {
        Ok(value)
    } else {
        Err(Error::new(name, Problem::Range(value.into())))
    }
}

fn reason(name: &str, byte: u32) -> Result<ReasonCode, Error> {
    let known = u8::try_from(byte).ok().and_then(ReasonCode::from_byte);
    known.ok_or_else(|| Error::new(name, Problem::Range(byte.into())))
}

fn subscription_ids(name: &str, values: Vec<u32>) -> Result<SubscriptionIds, Error> {
    Ok(each(name, values, |id| subscription_id("", id))?.into())
}

impl Wire for SessionKey {
    type Message = proto::SessionKey;

    fn to_message(&self) -> proto::SessionKey {
        proto::SessionKey {
            tenant: copied(self.tenant()),
            dialect: copied(self.dialect()),
            identity: copied(self.identity()),
        }
    }

    fn from_message(message: proto::SessionKey) -> Result<SessionKey, Error> {
        let (tenant, dialect) = (text("tenant", message.tenant)?, text("dialect", message.dialect)?);
        Ok(SessionKey::new(&tenant, &dialect, &text("identity", message.identity)?))
    }
}

/// One run of a node.
impl Wire for (NodeId, Generation) {
    type Message = proto::NodeRun;

    fn to_message(&self) -> proto::NodeRun {
        proto::NodeRun { node: self.0.0, generation: self.1.0 }
    }

    fn from_message(message: proto::NodeRun) -> Result<(NodeId, Generation), Error> {
        Ok((node("node", message.node)?, Generation(message.generation)))
    }
}

/// One claim of a session.
impl Wire for (SessionKey, Epoch) {
    type Message = proto::SessionEpoch;

    fn to_message(&self) -> proto::SessionEpoch {
        proto::SessionEpoch { key: Some(self.0.to_message()), epoch: self.1.0 }
    }

    fn from_message(message: proto::SessionEpoch) -> Result<(SessionKey, Epoch), Error> {
        Ok((required("key", message.key)?, Epoch(message.epoch)))
    }
}

/// A packet id in a session's receive set.
impl Wire for (SessionKey, Epoch, u16) {
    type Message = proto::ReceivedId;

    fn to_message(&self) -> proto::ReceivedId {
        proto::ReceivedId { session: session(&self.0, self.1), packet_id: self.2.into() }
    }

    fn from_message(message: proto::ReceivedId) -> Result<(SessionKey, Epoch, u16), Error> {
        let (key, epoch) = required("session", message.session)?;
        Ok((key, epoch, packet_id("packet_id", message.packet_id)?))
    }
}

fn session(key: &SessionKey, epoch: Epoch) -> Option<proto::SessionEpoch> {
    Some(proto::SessionEpoch { key: Some(key.to_message()), epoch: epoch.0 })
}
