//! A `select`: what a rule keeps of an event.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::compile::Compiler;
use crate::error::{Error, Overrun, Problem};
use crate::limits::{ALIAS_CHARS_MAX, OUTPUT_BYTES_MAX};
use crate::program::{self, Part, Step, Work};
use crate::value::Value;

/// A compiled projection. An empty text and `*` keep the event as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `*` stands among the items: the members of the event are kept beside them.
    whole: bool,
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    name: String,
    steps: Vec<Step>,
}

impl Projection {
    /// Compiles a text.
    ///
    /// # Errors
    /// Where it stops making sense, and why.
    pub fn parse(text: &str) -> Result<Projection, Error> {
        let mut compiler = Compiler::new(text)?;
        let mut projection = Projection { whole: compiler.at_end(), items: Vec::new() };
        while !compiler.at_end() {
            let column = compiler.column();
            if compiler.sign("*") {
                projection.whole = true;
            } else {
                let item = item(&mut compiler)?;
                if projection.items.iter().any(|other| other.name == item.name) {
                    return Err(Error { column, problem: Problem::SameName(item.name) });
                }
                projection.items.push(item);
            }
            if compiler.at_end() {
                break;
            }
            if !compiler.sign(",") {
                return compiler.expected("',' or the end");
            }
            if compiler.at_end() {
                return compiler.expected("an item");
            }
        }
        Ok(projection)
    }

    /// What is kept. A path that leads nowhere keeps `null` under its name.
    ///
    /// # Errors
    /// A bound was hit.
    pub fn apply(&self, event: &Value) -> Result<Value, Overrun> {
        let mut room = OUTPUT_BYTES_MAX;
        let mut take = |bytes: usize| -> Result<(), Overrun> {
            room = room.checked_sub(bytes).ok_or(Overrun::Output)?;
            Ok(())
        };
        let mut kept = BTreeMap::new();
        if self.whole {
            take(event.weight())?;
            match event {
                Value::Object(members) => kept = members.clone(),
                other if self.items.is_empty() => return Ok(other.clone()),
                _ => {}
            }
        }
        let mut work = Work::new();
        for item in &self.items {
            let value = program::run(&item.steps, event, &mut work)?;
            take(item.name.len() + value.weight())?;
            kept.insert(item.name.clone(), value.into_owned());
        }
        Ok(Value::Object(kept))
    }
}

/// `path [AS name]` or `expression AS name`.
fn item(compiler: &mut Compiler) -> Result<Item, Error> {
    let mut name = None;
    compiler.expression()?;
    let steps = compiler.take_steps();
    if let [Step::Path(parts)] = steps.as_slice() {
        name = Some(dotted(parts));
    }
    if compiler.keyword("AS") {
        let column = compiler.column();
        let alias = compiler.name(true)?;
        if alias.len() > ALIAS_CHARS_MAX {
            return Err(Error { column, problem: Problem::LongName });
        }
        name = Some(alias);
    }
    match name {
        Some(name) => Ok(Item { name, steps }),
        None => compiler.fail(Problem::NeedsName),
    }
}

/// A path as the name that it gives what it leads to.
fn dotted(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Name(name) if text.is_empty() => text.push_str(name),
            Part::Name(name) => {
                text.push('.');
                text.push_str(name);
            }
            Part::Index(index) => {
                let _ = write!(text, "[{index}]"); // writing to a String cannot fail
            }
        }
    }
    text
}
