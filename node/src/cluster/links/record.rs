//! The layout of a frame: what one node tells another about publications, packed into one blob.
//!
//! ```text
//! frame   = version:u8 to:varint settled:varint record*
//! record  = flags:u8 more:u8 [topic] [origin] accepted:varint [expires:varint] [properties] payload [member] [trace:varint]
//! topic, properties, payload, filter = text
//! origin  = tenant:text dialect:text identity:text
//! member  = tenant:text dialect:text identity:text epoch:varint filter
//! text    = length:varint bytes
//! varint  = 7 bits a byte, the lowest first, the top bit set on all but the last; at most 10 bytes
//! ```
//!
//! `to` is the generation of the run that the frame is for, and `settled` the number of the first frame whose
//! acknowledgement its sender has not seen yet. `flags`: QoS in bits 0 and 1, 0x04 retain, 0x08 the topic of the record
//! before, 0x10 the origin of the record before, 0x20 for one member of a shared subscription, 0x40 it expires, 0x80 it
//! has properties. `more`: what published it in bits 0 and 1 (client, will, router), 0x04 it has an origin, 0x08 it is
//! traced, under an id that is not 0. Times are
//! milliseconds of log time. What is not named here must be 0. Everything is checked where it is read, and payloads,
//! topics and properties are slices of the frame.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use fulmar_broker::{Epoch, Generation, LogTime, Publication, SessionKey, Via};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use thiserror::Error;

/// What this build writes, and the only version that it reads.
pub const VERSION: u8 = 1;

const RETAIN: u8 = 0x04;
const SAME_TOPIC: u8 = 0x08;
const SAME_ORIGIN: u8 = 0x10;
const MEMBER: u8 = 0x20;
const EXPIRES: u8 = 0x40;
const PROPERTIES: u8 = 0x80;
const ORIGIN: u8 = 0x04;
const TRACED: u8 = 0x08;

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("is of version {0}, and this build reads {VERSION}")]
    Version(u8),
    #[error("ends within a record")]
    Short,
    #[error("has a number of more than 64 bits")]
    Number,
    #[error("has bits set that mean nothing")]
    Flags,
    #[error("refers to a record before the first")]
    Reference,
    #[error("has an ill-formed topic or filter")]
    Topic,
    #[error("has text that is not UTF-8")]
    Text,
    #[error("has ill-formed properties")]
    Properties,
}

/// One member of a shared subscription, as the accepting node chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub key: SessionKey,
    /// Under which claim; whoever owns the session under another has not been chosen.
    pub epoch: Epoch,
    /// The whole filter, with its `$share/{name}/`.
    pub filter: Arc<TopicFilter>,
}

/// A publication, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub publication: Arc<Publication>,
    /// `None`: every live receiver there that matches.
    pub member: Option<Member>,
}

/// What precedes the records of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The run that the frame is for.
    pub to: Generation,
    /// Acknowledgements of all frames below this have come to the sender.
    pub settled: u64,
}

/// A frame that is being put together.
pub(super) struct Writer {
    out: BytesMut,
    last: Option<(TopicName, Option<SessionKey>)>,
}

impl Writer {
    pub(super) fn new(head: Head) -> Writer {
        let mut out = BytesMut::with_capacity(1024);
        out.put_u8(VERSION);
        put_number(&mut out, head.to.0);
        put_number(&mut out, head.settled);
        Writer { out, last: None }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Adds a record; returns how many bytes it took.
    pub(super) fn put(&mut self, publication: &Publication, member: Option<&Member>) -> usize {
        let before = self.out.len();
        let same_topic = self.last.as_ref().is_some_and(|(topic, _)| *topic == publication.topic);
        let same_origin = self.last.as_ref().is_some_and(|(_, origin)| match (origin, &publication.origin) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => true,
            _ => false,
        });
        let out = &mut self.out;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        out.put_u8(
            publication.qos as u8
                | flag(publication.retain, RETAIN)
                | flag(same_topic, SAME_TOPIC)
                | flag(same_origin, SAME_ORIGIN)
                | flag(member.is_some(), MEMBER)
                | flag(publication.expires_at.is_some(), EXPIRES)
                | flag(!publication.forward.is_empty(), PROPERTIES),
        );
        out.put_u8(
            via_number(publication.via)
                | flag(publication.origin.is_some() && !same_origin, ORIGIN)
                | flag(publication.trace != 0, TRACED),
        );
        if !same_topic {
            put_text(out, publication.topic.as_str().as_bytes());
        }
        if let Some(origin) = publication.origin.as_ref().filter(|_| !same_origin) {
            put_key(out, origin);
        }
        put_number(out, publication.accepted_at.0);
        if let Some(at) = publication.expires_at {
            put_number(out, at.0);
        }
        if !publication.forward.is_empty() {
            put_text(out, publication.forward.as_bytes());
        }
        put_text(out, &publication.payload);
        if let Some(member) = member {
            put_key(out, &member.key);
            put_number(out, member.epoch.0);
            put_text(out, member.filter.as_str().as_bytes());
        }
        if publication.trace != 0 {
            put_number(out, publication.trace);
        }
        if !same_topic || !same_origin {
            self.last = Some((publication.topic.clone(), publication.origin.clone()));
        }
        self.out.len() - before
    }

    pub(super) fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

fn via_number(via: Via) -> u8 {
    match via {
        Via::Client => 0,
        Via::Will => 1,
        Via::Server => 2,
    }
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.put_slice(text);
}

fn put_key(out: &mut BytesMut, key: &SessionKey) {
    for part in [key.tenant(), key.dialect(), key.identity()] {
        put_text(out, part.as_bytes());
    }
}

/// The records of a frame, in order. After an error there are no more.
#[derive(Debug)]
pub struct Records {
    head: Head,
    rest: Bytes,
    last: Option<(TopicName, Option<SessionKey>)>,
    /// The member before: a run of messages for one shared subscription names it once in memory.
    filter: Option<Arc<TopicFilter>>,
}

impl Records {
    /// Reads what precedes the records.
    ///
    /// # Errors
    /// Another version, or too short.
    pub fn new(mut frame: Bytes) -> Result<Records, Malformed> {
        match get_u8(&mut frame)? {
            VERSION => {}
            other => return Err(Malformed::Version(other)),
        }
        let head = Head { to: Generation(get_number(&mut frame)?), settled: get_number(&mut frame)? };
        Ok(Records { head, rest: frame, last: None, filter: None })
    }

    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    fn read(&mut self) -> Result<Record, Malformed> {
        let from = &mut self.rest;
        let (flags, more) = (get_u8(from)?, get_u8(from)?);
        let qos = QoS::from_bits(flags & 0x03).ok_or(Malformed::Flags)?;
        let via = match more & 0x03 {
            0 => Via::Client,
            1 => Via::Will,
            2 => Via::Server,
            _ => return Err(Malformed::Flags),
        };
        if more & !(0x03 | ORIGIN | TRACED) != 0 || (more & ORIGIN != 0 && flags & SAME_ORIGIN != 0) {
            return Err(Malformed::Flags);
        }
        let before = || self.last.as_ref().ok_or(Malformed::Reference);
        let topic = match flags & SAME_TOPIC {
            0 => TopicName::from_bytes(get_text(from)?).map_err(|_| Malformed::Topic)?,
            _ => before()?.0.clone(),
        };
        let origin = match (flags & SAME_ORIGIN, more & ORIGIN) {
            (0, 0) => None,
            (0, _) => Some(get_key(from)?),
            _ => before()?.1.clone(),
        };
        let accepted_at = LogTime(get_number(from)?);
        let expires_at = (flags & EXPIRES != 0).then(|| get_number(from)).transpose()?.map(LogTime);
        let forward = match flags & PROPERTIES {
            0 => ForwardProperties::default(),
            _ => ForwardProperties::from_encoded(get_text(from)?).map_err(|_| Malformed::Properties)?,
        };
        let payload = get_text(from)?;
        let member = match flags & MEMBER {
            0 => None,
            _ => {
                let (key, epoch) = (get_key(from)?, Epoch(get_number(from)?));
                let filter = TopicFilter::from_bytes(get_text(from)?).map_err(|_| Malformed::Topic)?;
                if filter.shared().is_none() {
                    return Err(Malformed::Topic);
                }
                let filter = match self.filter.take().filter(|before| **before == filter) {
                    Some(before) => before,
                    // It outlives the frame where a message waits for its member.
                    None => Arc::new(filter.detached()),
                };
                self.filter = Some(filter.clone());
                Some(Member { key, epoch, filter })
            }
        };
        let trace = if more & TRACED == 0 { 0 } else { get_number(from)? };
        self.last = Some((topic.clone(), origin.clone()));
        let retain = flags & RETAIN != 0;
        let publication =
            Publication { topic, payload, qos, retain, forward, origin, accepted_at, expires_at, via, trace };
        Ok(Record { publication: Arc::new(publication), member })
    }
}

impl Iterator for Records {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Result<Record, Malformed>> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest.clear();
        }
        Some(read)
    }
}

fn get_u8(from: &mut Bytes) -> Result<u8, Malformed> {
    from.try_get_u8().map_err(|_| Malformed::Short)
}

fn get_number(from: &mut Bytes) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = get_u8(from)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && byte > 1 {
            return Err(Malformed::Number);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed::Number)
}

fn get_text(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = get_number(from)?;
    match usize::try_from(length) {
        Ok(length) if length <= from.len() => Ok(from.split_to(length)),
        _ => Err(Malformed::Short),
    }
}

fn get_key(from: &mut Bytes) -> Result<SessionKey, Malformed> {
    let mut part = || ByteString::try_from(get_text(from)?).map_err(|_| Malformed::Text);
    let (tenant, dialect, identity) = (part()?, part()?, part()?);
    Ok(SessionKey::new(&tenant, &dialect, &identity))
}
