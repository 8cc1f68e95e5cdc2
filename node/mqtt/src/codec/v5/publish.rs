//! Properties of a PUBLISH and of a will: some are read, the rest stays encoded.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::properties::{Properties, Property, Value, id, number, place, write_properties};
use crate::codec::read::Reader;
use crate::codec::write::Writer;
use crate::codec::{DecodeError, EncodeError, Role};
use crate::packet::Will;
use crate::property::{ForwardProperties, PublishProperties};

/// Reads the properties of a PUBLISH that `role` received.
#[inline]
pub(crate) fn read_publish_properties(reader: &mut Reader<'_>, role: Role) -> Result<PublishProperties, DecodeError> {
    if reader.rest().first() == Some(&0) {
        reader.take(1)?;
        return Ok(PublishProperties::default());
    }
    read_some(reader, role)
}

fn read_some(reader: &mut Reader<'_>, role: Role) -> Result<PublishProperties, DecodeError> {
    let mut all = PublishProperties::default();
    let mut forward = Segments::default();
    let mut properties = Properties::open(reader, place::PUBLISH)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::MESSAGE_EXPIRY, Value::Number(seconds)) => all.message_expiry_s = Some(seconds),
            (id::TOPIC_ALIAS, Value::Number(alias)) => all.topic_alias = u16::try_from(alias).ok(),
            // [v5 MQTT-3.3.4-6]
            (id::SUBSCRIPTION_ID, _) if role == Role::Server => {
                return Err(DecodeError::protocol("a client sent a subscription identifier in a PUBLISH"));
            }
            (id::SUBSCRIPTION_ID, Value::Number(id)) => all.subscription_ids.push(id),
            _ => forward.add(&property),
        }
    }
    all.forward = forward.finish(reader);
    Ok(all)
}

/// Reads the properties of a will: its delay in seconds, and the rest.
pub(crate) fn read_will_properties(reader: &mut Reader<'_>) -> Result<(u32, PublishProperties), DecodeError> {
    let mut all = PublishProperties::default();
    let mut delay_s = 0;
    let mut forward = Segments::default();
    let mut properties = Properties::open(reader, place::WILL)?;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::MESSAGE_EXPIRY, Value::Number(seconds)) => all.message_expiry_s = Some(seconds),
            (id::WILL_DELAY, Value::Number(seconds)) => delay_s = seconds,
            _ => forward.add(&property),
        }
    }
    all.forward = forward.finish(reader);
    Ok((delay_s, all))
}

/// Writes the properties of a will.
pub(crate) fn write_will_properties(w: &mut Writer<'_>, will: &Will) -> Result<(), EncodeError> {
    if will.properties.topic_alias.is_some() || !will.properties.subscription_ids.is_empty() {
        return Err(EncodeError("a will has a topic alias or a subscription identifier"));
    }
    write_properties(w, |w| {
        number(w, id::WILL_DELAY, (will.delay_s > 0).then_some(will.delay_s))?;
        number(w, id::MESSAGE_EXPIRY, will.properties.message_expiry_s)?;
        w.bytes(will.properties.forward.as_bytes());
        Ok(())
    })
}

/// Where the forwarded properties stand in the frame: runs of neighbours, nearly always one.
#[derive(Default)]
struct Segments(SmallVec<[(usize, usize); 2]>);

impl Segments {
    fn add(&mut self, property: &Property<'_>) {
        match self.0.last_mut() {
            Some((_, end)) if *end == property.start => *end = property.end,
            _ => self.0.push((property.start, property.end)),
        }
    }

    /// One run is a slice of the frame; several are copied together.
    fn finish(self, reader: &Reader<'_>) -> ForwardProperties {
        ForwardProperties(match self.0.as_slice() {
            [] => Bytes::new(),
            [(start, end)] => reader.slice(*start, *end),
            several => {
                let mut together = BytesMut::with_capacity(several.iter().map(|(start, end)| end - start).sum());
                for (start, end) in several {
                    together.extend_from_slice(&reader.frame()[*start..*end]);
                }
                together.freeze()
            }
        })
    }
}
