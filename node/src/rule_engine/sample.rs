//! An event in the forms that rules look at it: made at most once for all of them.

use std::sync::OnceLock;

use bytes::Bytes;
use fulmar_mqtt::TopicName;
use fulmar_platform::event::Event;
use fulmar_rules::Value;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use uuid::Uuid;

/// Bytes that a value of JSON is counted with beside its text.
const VALUE_BYTES: usize = 48;

/// See the module.
pub(super) struct Sample {
    pub(super) event: Event,
    /// This event's and no other's.
    pub(super) id: Uuid,
    /// The topic that a device reported it on.
    pub(super) topic: Option<TopicName>,
    /// Of the message that it came with; 0: nobody traces it.
    pub(super) trace: u64,
    value: OnceLock<Value>,
    whole: OnceLock<Bytes>,
}

impl Sample {
    pub(super) fn new(event: Event, topic: Option<TopicName>, trace: u64) -> Sample {
        Sample { event, id: Uuid::new_v4(), topic, trace, value: OnceLock::new(), whole: OnceLock::new() }
    }

    /// As the rule language sees it.
    pub(super) fn value(&self) -> &Value {
        self.value.get_or_init(|| value_of(self.event.json()))
    }

    /// As applications get it where no rule has selected from it.
    pub(super) fn whole(&self) -> Bytes {
        self.whole.get_or_init(|| self.event.json().to_string().into()).clone()
    }

    /// Bytes that it takes, roughly.
    pub(super) fn cost(&self) -> usize {
        1024 + weight(&self.event.body)
    }
}

fn weight(value: &serde_json::Value) -> usize {
    VALUE_BYTES
        + match value {
            serde_json::Value::String(text) => text.len(),
            serde_json::Value::Array(elements) => elements.iter().map(weight).sum(),
            serde_json::Value::Object(members) => members.iter().map(|(name, value)| name.len() + weight(value)).sum(),
            _ => 0,
        }
}

/// JSON as a value of the language; texts are moved, not copied. A number beyond 64 bits is a float.
pub fn value_of(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Float(number),
            (None, None) => Value::Null,
        },
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(elements) => Value::List(elements.into_iter().map(value_of).collect()),
        serde_json::Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, value_of(value))).collect())
        }
    }
}

/// A value of the language as JSON text.
pub(super) fn text_of(value: &Value) -> Bytes {
    // Values have string keys and finite numbers: there is nothing that JSON cannot say.
    serde_json::to_vec(&Written(value)).unwrap_or_default().into()
}

/// As JSON.
pub fn json_of(value: &Value) -> serde_json::Value {
    serde_json::to_value(Written(value)).unwrap_or_default()
}

struct Written<'a>(&'a Value);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|element| list.serialize_element(&Written(element)))?;
                list.end()
            }
            Value::Object(members) => {
                let mut object = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| object.serialize_entry(name, &Written(value)))?;
                object.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back() {
        let json = json!({
            "a": [1, -2, 2.5, true, null, "t\u{e9}", {"b": {}}], "large": 18_446_744_073_709_551_615_u64, "d.e": []
        });
        let value = value_of(json.clone());
        assert_eq!(value.member("a").element(1), &Value::Int(-2));
        assert_eq!(value.member("large"), &Value::Float(18_446_744_073_709_551_615.0));
        let back = json_of(&value);
        assert_eq!((&back["a"], &back["d.e"]), (&json["a"], &json["d.e"]));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text_of(&value)).expect("JSON"), back);
    }
}
