//! All that a configuration says, before it means anything: values from file, environment and flags in one tree, each
//! with the place it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    File {
        path: Arc<str>,
        /// From 1.
        line: usize,
    },
    /// Name of the environment variable.
    Environment(Arc<str>),
    /// Dotted key of the flag.
    Flag(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(key) => write!(f, "flag {key}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// Found to be wrong and reported: later readings pass it over, but it keeps its place in a list.
    pub(super) removed: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// From environment or flag, where everything is text: read as whatever the key wants.
    Loose(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Dates, and integers that fit no type: nothing here takes them.
    Other(String),
    Array(Vec<Item>),
    Table(BTreeMap<String, Item>),
}

/// The whole configuration as said; the root is always a table.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) root: Item,
}

impl Tree {
    pub(super) fn empty() -> Tree {
        Tree { root: Item::new(Origin::Default, Value::Table(BTreeMap::new())) }
    }

    /// Reads TOML; `path` is what errors call the file.
    ///
    /// # Errors
    /// Each place where the text is not TOML, with what is wrong there.
    pub(super) fn parse(text: &str, path: &str) -> Result<Tree, Vec<(Origin, String)>> {
        let file = File { text, path: path.into() };
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let told = |error: &toml::de::Error| {
                (file.origin(error.span().map_or(0, |span| span.start)), format!("is not TOML: {}", error.message()))
            };
            return Err(errors.iter().map(told).collect());
        }
        let start = table.span().start;
        Ok(Tree { root: file.table(table.get_ref(), start) })
    }

    /// Sets the value of a dotted key, over whatever was there.
    ///
    /// # Errors
    /// Why the key cannot have a value.
    pub(super) fn set(&mut self, key: &str, text: &str, origin: &Origin) -> Result<(), String> {
        let mut item = &mut self.root;
        let mut segments = key.split('.').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() {
                return Err("has an empty part; keys look like section.key".into());
            }
            let empty = match segments.peek() {
                None => Value::Loose(text.into()),
                Some(next) if next.parse::<usize>().is_ok() => Value::Array(Vec::new()),
                Some(_) => Value::Table(BTreeMap::new()),
            };
            let fresh = Item::new(origin.clone(), empty);
            if let Value::Loose(text) = &item.value
                && Item::looks_nested(text)
                && let Some(nested) = Item::from_loose(text, &item.origin)
            {
                *item = nested;
            }
            item = match &mut item.value {
                Value::Table(table) => table.entry(segment.into()).or_insert(fresh),
                Value::Array(list) => {
                    let len = list.len();
                    let index: usize =
                        segment.parse().map_err(|_| format!("has {segment:?} where a list wants a number from 0"))?;
                    if index > len {
                        return Err(format!("skips to element {index}, but the list has {len}"));
                    }
                    if index == len {
                        list.push(fresh);
                    }
                    &mut list[index]
                }
                _ => return Err("is below a key that is not a table".into()),
            };
        }
        *item = Item::new(origin.clone(), Value::Loose(text.into()));
        Ok(())
    }

    fn item(&self, key: &str) -> Option<&Item> {
        key.split('.').try_fold(&self.root, |item, segment| item.child(segment))
    }

    /// Where the value of a key came from; `None` if nobody said anything.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.item(key).map(|item| &item.origin)
    }

    /// Whether a key has a value that was reported as wrong.
    pub(super) fn is_removed(&self, key: &str) -> bool {
        self.item(key).is_some_and(|item| item.removed)
    }

    /// Where a key, or the nearest table around it, was said.
    pub(super) fn origin_near(&self, key: &str) -> Origin {
        let mut origin = &Origin::Default;
        let mut item = &self.root;
        for segment in key.split('.') {
            let Some(child) = item.child(segment) else { break };
            item = child;
            origin = &item.origin;
        }
        origin.clone()
    }

    /// Marks the value at a path as reported. False if there is none, or if it was marked before.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let mut item = &mut self.root;
        for segment in path {
            let child = match &mut item.value {
                Value::Table(table) => table.get_mut(segment),
                Value::Array(list) => segment.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
                _ => None,
            };
            match child {
                Some(child) => item = child,
                // Inside a value that was text: the text as a whole is what is reported.
                None => break,
            }
        }
        !std::mem::replace(&mut item.removed, true)
    }
}

impl Item {
    pub(super) fn new(origin: Origin, value: Value) -> Item {
        Item { origin, value, removed: false }
    }

    fn child(&self, segment: &str) -> Option<&Item> {
        match &self.value {
            Value::Table(table) => table.get(segment),
            Value::Array(list) => segment.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => None,
        }
    }

    /// Whether text from environment or flag is meant to be a list or a table.
    pub(super) fn looks_nested(text: &str) -> bool {
        text.trim_start().starts_with(['[', '{'])
    }

    /// Reads text from environment or flag as a TOML value.
    pub(super) fn from_loose(text: &str, origin: &Origin) -> Option<Item> {
        let value = DeValue::parse(text).ok()?;
        let mut item = File { text, path: "".into() }.value(value.get_ref(), 0);
        item.place(origin);
        Some(item)
    }

    fn place(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::Table(table) => table.values_mut().for_each(|item| item.place(origin)),
            Value::Array(list) => list.iter_mut().for_each(|item| item.place(origin)),
            _ => {}
        }
    }
}

struct File<'a> {
    text: &'a str,
    path: Arc<str>,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let line = self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        Origin::File { path: self.path.clone(), line }
    }

    fn table(&self, table: &DeTable<'_>, offset: usize) -> Item {
        let entries =
            table.iter().map(|(key, value)| (key.get_ref().to_string(), self.value(value.get_ref(), key.span().start)));
        Item::new(self.origin(offset), Value::Table(entries.collect()))
    }

    fn value(&self, value: &DeValue<'_>, offset: usize) -> Item {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Other(number.to_string()), Value::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or_else(|_| Value::Other(number.to_string()), Value::Float)
            }
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(list) => {
                Value::Array(list.iter().map(|item| self.value(item.get_ref(), item.span().start)).collect())
            }
            DeValue::Table(table) => return self.table(table, offset),
        };
        Item::new(self.origin(offset), value)
    }
}
