//! What events are made of: the values of JSON. Also what an expression yields, where `Null` is the unknown of SQL.

use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// Finite in events; an operation whose result is not finite yields `Null`.
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

static NULL: Value = Value::Null;

impl Value {
    /// The named member; `Null` if there is none, or this is no object.
    #[must_use]
    pub fn member(&self, name: &str) -> &Value {
        match self {
            Value::Object(members) => members.get(name).unwrap_or(&NULL),
            _ => &NULL,
        }
    }

    /// The element at an index from 0; `Null` if there is none, or this is no list.
    #[must_use]
    pub fn element(&self, index: usize) -> &Value {
        match self {
            Value::List(elements) => elements.get(index).unwrap_or(&NULL),
            _ => &NULL,
        }
    }

    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Bytes that a value is counted with: its texts and names, and 8 for each value. A walk that costs as much; it
    /// recurses as deep as the value is nested, which its reader bounds.
    #[must_use]
    pub fn weight(&self) -> usize {
        8 + match self {
            Value::Text(text) => text.len(),
            Value::List(elements) => elements.iter().map(Value::weight).sum(),
            Value::Object(members) => members.iter().map(|(name, value)| name.len() + value.weight()).sum(),
            _ => 0,
        }
    }

    /// Order among numbers, among texts (by bytes), among booleans (false first); `None` for all else: a comparison
    /// of different kinds is unknown, not false. An integer beside a float is compared as a float.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // what a comparison of an integer with a float means
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Float(b)) => (*a as f64).partial_cmp(b),
            (Value::Float(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// A float, or `Null` if it is not finite.
    pub(crate) fn finite(number: f64) -> Value {
        if number.is_finite() { Value::Float(number) } else { Value::Null }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}
