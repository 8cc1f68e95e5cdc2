//! The messages of `fulmar.admin.v1` as JSON documents, by their descriptors: in the canonical mapping of protobuf, but
//! with the fields' own names, and 64-bit integers as numbers. So one table of calls, which take and give documents, is
//! all that a gRPC service or client needs.

use std::sync::LazyLock;

use prost::bytes::{Buf, BufMut};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage,
    SerializeOptions,
};
use serde_json::Value;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A `google.protobuf.FileDescriptorSet` of the package and what it imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.binpb"));

/// The package.
pub const PACKAGE: &str = "fulmar.admin.v1";

/// Whole numbers up to this are exact as a double; beyond it nobody can tell which one was meant.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const WRITTEN: SerializeOptions =
    SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(true);

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build has written them: a test decodes them"));

/// Everything that there is.
#[must_use]
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// A method by its service and name: `Devices/Show`.
#[must_use]
pub fn method(name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.split_once('/')?;
    let service = pool().get_service_by_name(&format!("{PACKAGE}.{service}"))?;
    service.methods().find(|known| known.name() == method)
}

/// A message of a document.
///
/// # Errors
/// A member that the message does not have, or that is of another type.
pub fn message(descriptor: &MessageDescriptor, document: &Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), document, &options)
        .map_err(|error| format!("{}: {error}", descriptor.name()))
}

/// The document of a message. Fields that have no presence are there unless they have their default value.
///
/// # Errors
/// A number that JSON cannot have.
pub fn document(message: &DynamicMessage) -> Result<Value, String> {
    let mut document = message
        .serialize_with_options(serde_json::value::Serializer, &WRITTEN)
        .map_err(|error| format!("{}: {error}", message.descriptor().name()))?;
    whole(&mut document);
    Ok(document)
}

/// Doubles that are whole numbers become such: a `google.protobuf.Struct` knows only doubles.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT_MAX) {
                #[allow(clippy::cast_possible_truncation)] // within what a double has exactly
                let integer = float as i64;
                *value = integer.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole),
        Value::Object(members) => members.values_mut().for_each(whole),
        _ => {}
    }
}

/// Messages of one method on the wire, documents on this side.
#[derive(Debug, Clone)]
pub struct Documents {
    encodes: MessageDescriptor,
    decodes: MessageDescriptor,
}

impl Documents {
    /// For whoever serves a method.
    #[must_use]
    pub fn of_server(method: &MethodDescriptor) -> Documents {
        Documents { encodes: method.output(), decodes: method.input() }
    }

    /// For whoever calls it.
    #[must_use]
    pub fn of_client(method: &MethodDescriptor) -> Documents {
        Documents { encodes: method.input(), decodes: method.output() }
    }
}

impl Codec for Documents {
    type Encode = Value;
    type Decode = Value;
    type Encoder = Writes;
    type Decoder = Reads;

    fn encoder(&mut self) -> Writes {
        Writes(self.encodes.clone())
    }

    fn decoder(&mut self) -> Reads {
        Reads(self.decodes.clone())
    }
}

/// Documents to messages.
#[derive(Debug)]
pub struct Writes(MessageDescriptor);

impl Encoder for Writes {
    type Item = Value;
    type Error = Status;

    fn encode(&mut self, document: Value, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let message = message(&self.0, &document).map_err(Status::internal)?;
        into.put_slice(&prost::Message::encode_to_vec(&message));
        Ok(())
    }
}

/// Messages to documents.
#[derive(Debug)]
pub struct Reads(MessageDescriptor);

impl Decoder for Reads {
    type Item = Value;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Value>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let message = DynamicMessage::decode(self.0.clone(), bytes)
            .map_err(|error| Status::invalid_argument(format!("{}: {error}", self.0.name())))?;
        document(&message).map(Some).map_err(Status::invalid_argument)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_its_document_and_back() {
        let method = method("Cluster/ListMembers").expect("it is there");
        let written = json!({ "term": 7, "applied": u64::MAX, "members": [{ "address": "a:1", "lag": 0 }] });
        let message = message(&method.output(), &written).expect("a message");
        assert_eq!(document(&message), Ok(written));
    }

    #[test]
    fn a_member_that_is_none_is_named() {
        let method = method("Cluster/Join").expect("it is there");
        for (document, wanted) in [(json!({ "adress": "a" }), "adress"), (json!({ "address": 1 }), "string")] {
            let error = message(&method.input(), &document).expect_err("it is none");
            assert!(error.contains(wanted) && error.starts_with("JoinRequest"), "{error}");
        }
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let mut value = json!({ "a": [1.0, 1.5, -3.0], "b": 1e300, "c": 9_007_199_254_740_993_i64 });
        whole(&mut value);
        assert_eq!(value, json!({ "a": [1, 1.5, -3], "b": 1e300, "c": 9_007_199_254_740_993_i64 }));
    }
}
