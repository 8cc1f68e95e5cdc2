//! Turns the tree into the configuration's structs through serde, and finds every key that is unknown or of the wrong
//! type, not only the first.

use std::collections::btree_map;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::problem::{Problems, nearest};
use super::tree::{Item, Tree, Value};

/// Problems that one reading reports at most; a file with more of them is not what it was meant to be.
const PROBLEMS_MAX: usize = 64;

/// Reads as much of the tree as is right. What is wrong is added to the problems and left at its default.
pub(super) fn read<T: DeserializeOwned + Default>(tree: &Tree, problems: &mut Problems<'_>) -> T {
    let mut rest = tree.clone();
    for _ in 0..PROBLEMS_MAX {
        match T::deserialize(Reader(&rest.root)) {
            Ok(config) => return config,
            Err(mut error) => {
                error.path.reverse();
                // A required key that was reported as wrong is not also missing.
                if !rest.is_removed(&error.key()) {
                    problems.add(&error.key(), error.message());
                }
                if error.path.is_empty() || !rest.remove(&error.path) {
                    break;
                }
            }
        }
    }
    T::default()
}

#[derive(Debug)]
struct ReadError {
    /// From the value outwards while the error travels up.
    path: Vec<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    UnknownKey(&'static [&'static str]),
    UnknownWord { word: String, allowed: &'static [&'static str] },
    Missing(&'static str),
    Wrong(String),
}

impl ReadError {
    fn new(kind: Kind) -> ReadError {
        ReadError { path: Vec::new(), kind }
    }

    fn under(mut self, segment: &str) -> ReadError {
        self.path.push(segment.into());
        self
    }

    fn key(&self) -> String {
        match &self.kind {
            Kind::Missing(field) => format!("{}.{field}", self.path.join(".")),
            _ => self.path.join("."),
        }
    }

    fn message(&self) -> String {
        let list = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        match &self.kind {
            Kind::UnknownKey(allowed) => {
                let key = self.path.last().map_or("", String::as_str);
                match nearest(key, allowed) {
                    Some(near) => format!("is not a key; did you mean `{near}`?"),
                    None => format!("is not a key; allowed here: {}", list(allowed)),
                }
            }
            Kind::UnknownWord { word, allowed } => {
                let near = nearest(word, allowed).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                format!("is {word:?}; allowed: {}{near}", list(allowed))
            }
            Kind::Missing(_) => "is required, but absent".into(),
            Kind::Wrong(message) => message.clone(),
        }
    }
}

impl std::error::Error for ReadError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

/// Serde's names of types in the words of someone who writes TOML.
fn allowed(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" => "a whole number from 0".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, as in [\"a\", \"b\"]".into(),
        "path string" => "a path, in quotes".into(),
        "a string" => "text, in quotes".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ => text,
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> ReadError {
        ReadError::new(Kind::Wrong(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> ReadError {
        ReadError::new(Kind::Wrong(format!("is {}; allowed: {}", shown(&unexpected), allowed(expected))))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> ReadError {
        ReadError::invalid_type(unexpected, expected)
    }

    fn unknown_variant(word: &str, allowed: &'static [&'static str]) -> ReadError {
        ReadError::new(Kind::UnknownWord { word: word.into(), allowed })
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> ReadError {
        ReadError::new(Kind::UnknownKey(allowed)).under(key)
    }

    fn missing_field(field: &'static str) -> ReadError {
        ReadError::new(Kind::Missing(field))
    }
}

fn shown(unexpected: &Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(yes) => yes.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

struct Reader<'a>(&'a Item);

impl Reader<'_> {
    /// Hands a value over as it is, whatever the visitor hoped for: a wrong type becomes the visitor's own error.
    fn hand_over<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Text(text) | Value::Loose(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(yes) => visitor.visit_bool(*yes),
            Value::Other(text) => Err(de::Error::invalid_type(Unexpected::Other(text), &visitor)),
            Value::Array(list) => visitor.visit_seq(Elements { list: list.iter().enumerate() }),
            Value::Table(table) => visitor.visit_map(Entries { table: table.iter(), value: None }),
        }
    }

    fn hand_over_number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Loose(text) => match text.trim().parse() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_str(text),
            },
            _ => self.hand_over(visitor),
        }
    }

    /// Reads text that holds a list or a table. The text itself is never shown: it may hold secrets.
    fn hand_over_toml<'de, V: Visitor<'de>>(self, text: &str, visitor: V) -> Result<V::Value, ReadError> {
        match Item::from_loose(text, &self.0.origin) {
            Some(item) => Reader(&item).hand_over(visitor),
            None => Err(de::Error::invalid_value(Unexpected::Other("text that is not TOML"), &visitor)),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Loose(text) if Item::looks_nested(text) => self.hand_over_toml(text, visitor),
            Value::Loose(text) => match text.trim() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => self.hand_over_number(visitor),
            },
            _ => self.hand_over(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Loose(_) => self.deserialize_any(visitor),
            _ => self.hand_over(visitor),
        }
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.hand_over_number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.hand_over_number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.hand_over_number(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.hand_over(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.hand_over(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            // An environment variable cannot be absent and present at once; empty says absent.
            Value::Loose(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Loose(text) if Item::looks_nested(text) => self.hand_over_toml(text, visitor),
            Value::Loose(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let items = parts.map(|part| Item::new(self.0.origin.clone(), Value::Loose(part.into())));
                let list: Vec<Item> = items.collect();
                visitor.visit_seq(Elements { list: list.iter().enumerate() })
            }
            _ => self.hand_over(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Loose(text) if Item::looks_nested(text) => self.hand_over_toml(text, visitor),
            Value::Loose(_) => Err(de::Error::invalid_type(Unexpected::Other("text"), &visitor)),
            _ => self.hand_over(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Text(text) | Value::Loose(text) => {
                let word: StrDeserializer<'_, ReadError> = text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            Value::Integer(number) => Err(wrong_word(Unexpected::Signed(*number), variants)),
            Value::Bool(yes) => Err(wrong_word(Unexpected::Bool(*yes), variants)),
            Value::Float(number) => Err(wrong_word(Unexpected::Float(*number), variants)),
            Value::Other(text) => Err(wrong_word(Unexpected::Other(text), variants)),
            Value::Array(_) => Err(wrong_word(Unexpected::Seq, variants)),
            Value::Table(_) => Err(wrong_word(Unexpected::Map, variants)),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

fn wrong_word(unexpected: Unexpected<'_>, words: &[&str]) -> ReadError {
    let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    ReadError::new(Kind::Wrong(format!("is {}; allowed: {words}", shown(&unexpected))))
}

struct Elements<'a> {
    list: std::iter::Enumerate<std::slice::Iter<'a, Item>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = ReadError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        match self.list.by_ref().find(|(_, item)| !item.removed) {
            Some((index, item)) => {
                seed.deserialize(Reader(item)).map(Some).map_err(|error| error.under(&index.to_string()))
            }
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    table: btree_map::Iter<'a, String, Item>,
    value: Option<(&'a str, &'a Item)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((key, item)) = self.table.by_ref().find(|(_, item)| !item.removed) else { return Ok(None) };
        self.value = Some((key, item));
        let key: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, item) = self.value.take().ok_or_else(|| ReadError::new(Kind::Wrong("has no value".into())))?;
        seed.deserialize(Reader(item)).map_err(|error| error.under(key))
    }
}
