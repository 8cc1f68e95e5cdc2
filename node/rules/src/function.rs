//! The functions of the language. One with an argument of the wrong kind yields `Null`.

use std::borrow::Cow;

use crate::error::Overrun;
use crate::program::Work;
use crate::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    CharLength,
    Concat,
    ContainsServices,
    ContainsTag,
    EndsWith,
    GetService,
    GetServiceProperties,
    GetServiceProperty,
    GetServices,
    GetTag,
    Lower,
    Replace,
    Round,
    StartsWith,
    Substring,
    ToNumber,
    ToString,
    Upper,
}

/// Name, function, and how many arguments it takes.
const FUNCTIONS: [(&str, Function, usize, usize); 19] = [
    ("ABS", Function::Abs, 1, 1),
    ("CHAR_LENGTH", Function::CharLength, 1, 1),
    ("CONCAT", Function::Concat, 2, 16),
    ("CONTAINS_SERVICES", Function::ContainsServices, 1, 2),
    ("CONTAINS_TAG", Function::ContainsTag, 1, 1),
    ("ENDS_WITH", Function::EndsWith, 2, 2),
    ("GET_SERVICE", Function::GetService, 1, 2),
    ("GET_SERVICES", Function::GetServices, 1, 2),
    ("GET_SERVICE_PROPERTIES", Function::GetServiceProperties, 1, 1),
    ("GET_SERVICE_PROPERTY", Function::GetServiceProperty, 2, 2),
    ("GET_TAG", Function::GetTag, 1, 1),
    ("LOWER", Function::Lower, 1, 1),
    ("REPLACE", Function::Replace, 3, 3),
    ("ROUND", Function::Round, 1, 1),
    ("STARTS_WITH", Function::StartsWith, 2, 2),
    ("SUBSTRING", Function::Substring, 2, 3),
    ("TO_NUMBER", Function::ToNumber, 1, 1),
    ("TO_STRING", Function::ToString, 1, 1),
    ("UPPER", Function::Upper, 1, 1),
];

impl Function {
    /// By its name in any case: the function, its name as documented, least and most arguments.
    pub(crate) fn named(name: &str) -> Option<(Function, &'static str, usize, usize)> {
        FUNCTIONS
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(name))
            .map(|(known, function, least, most)| (*function, *known, *least, *most))
    }

    /// The compiler has checked the number of arguments; one that is missing counts as `Null`.
    pub(crate) fn call<'e>(
        self,
        arguments: &[Cow<'e, Value>],
        event: &'e Value,
        work: &mut Work,
    ) -> Result<Cow<'e, Value>, Overrun> {
        let bytes: usize = arguments.iter().filter_map(|argument| argument.as_text()).map(str::len).sum();
        work.spend(bytes)?;
        let value = |index: usize| arguments.get(index).map_or(&Value::Null, |argument| argument.as_ref());
        let text = |index: usize| value(index).as_text();
        Ok(Cow::Owned(match self {
            Function::Abs => match value(0) {
                Value::Int(number) => number.checked_abs().map_or(Value::Null, Value::Int),
                Value::Float(number) => Value::Float(number.abs()),
                _ => Value::Null,
            },
            Function::Round => match value(0) {
                Value::Int(number) => Value::Int(*number),
                Value::Float(number) => Value::Float(number.round()),
                _ => Value::Null,
            },
            Function::CharLength => {
                text(0).and_then(|text| i64::try_from(text.chars().count()).ok()).map_or(Value::Null, Value::Int)
            }
            Function::Lower => text(0).map_or(Value::Null, |text| Value::Text(text.to_lowercase())),
            Function::Upper => text(0).map_or(Value::Null, |text| Value::Text(text.to_uppercase())),
            Function::Concat => {
                let parts: Option<Vec<&str>> = arguments.iter().map(|argument| argument.as_text()).collect();
                parts.map_or(Value::Null, |parts| Value::Text(parts.concat()))
            }
            Function::StartsWith => both(text(0), text(1), |text, part| text.starts_with(part)),
            Function::EndsWith => both(text(0), text(1), |text, part| text.ends_with(part)),
            Function::ToNumber => match value(0) {
                number @ (Value::Int(_) | Value::Float(_)) => number.clone(),
                Value::Text(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(number), _) => Value::Int(number),
                    (_, Ok(number)) => Value::finite(number),
                    _ => Value::Null,
                },
                _ => Value::Null,
            },
            Function::ToString => match value(0) {
                Value::Text(text) => Value::Text(text.clone()),
                Value::Int(number) => Value::Text(number.to_string()),
                Value::Float(number) => Value::Text(number.to_string()),
                Value::Bool(truth) => Value::Text(truth.to_string()),
                _ => Value::Null,
            },
            Function::ContainsTag => match text(0) {
                Some(key) => Value::Bool(tag(event, key, work)?.is_some()),
                None => Value::Null,
            },
            Function::ContainsServices => match wanted(text(0), value(1)) {
                Some(wanted) => Value::Bool(!services(event, wanted, 1, work)?.is_empty()),
                None => Value::Null,
            },
            Function::GetServices => {
                let Some(wanted) = wanted(text(0), value(1)) else { return Ok(Cow::default()) };
                let found = services(event, wanted, usize::MAX, work)?;
                work.spend(found.iter().map(|service| service.weight()).sum())?;
                Value::List(found.into_iter().cloned().collect())
            }
            Function::Replace => match (text(0), text(1), text(2)) {
                (Some(text), Some(part), Some(by)) if !part.is_empty() => {
                    // Each byte may become as many as `by` has.
                    work.spend(text.matches(part).count().saturating_mul(by.len()))?;
                    Value::Text(text.replace(part, by))
                }
                (Some(text), Some(_), Some(_)) => Value::Text(text.to_owned()),
                _ => Value::Null,
            },
            Function::Substring => match (text(0), value(1), value(2)) {
                (Some(text), Value::Int(from), Value::Null) if arguments.len() == 2 => substring(text, *from, i64::MAX),
                (Some(text), Value::Int(from), Value::Int(length)) => substring(text, *from, *length),
                _ => Value::Null,
            },
            // What is inside the event is lent, not copied.
            Function::GetTag => {
                let Some(key) = text(0) else { return Ok(Cow::default()) };
                return Ok(
                    tag(event, key, work)?.map_or_else(Cow::default, |tag| Cow::Borrowed(tag.member("tag_value")))
                );
            }
            Function::GetService => {
                let Some(wanted) = wanted(text(0), value(1)) else { return Ok(Cow::default()) };
                let found = services(event, wanted, 1, work)?;
                return Ok(found.first().map_or_else(Cow::default, |service| Cow::Borrowed(*service)));
            }
            Function::GetServiceProperties => {
                let Some(id) = text(0) else { return Ok(Cow::default()) };
                return Ok(service(event, id, work)?
                    .map_or_else(Cow::default, |service| Cow::Borrowed(service.member("properties"))));
            }
            Function::GetServiceProperty => {
                let (Some(id), Some(name)) = (text(0), text(1)) else { return Ok(Cow::default()) };
                return Ok(service(event, id, work)?
                    .map_or_else(Cow::default, |service| Cow::Borrowed(service.member("properties").member(name))));
            }
        }))
    }
}

fn both(text: Option<&str>, part: Option<&str>, test: impl Fn(&str, &str) -> bool) -> Value {
    text.zip(part).map_or(Value::Null, |(text, part)| Value::Bool(test(text, part)))
}

/// The device's tag of that key, as `{"tag_key", "tag_value"}`.
fn tag<'e>(event: &'e Value, key: &str, work: &mut Work) -> Result<Option<&'e Value>, Overrun> {
    find(event.member("notify_data").member("header").member("tags"), "tag_key", key, work)
}

/// The first service of that id in a property report.
fn service<'e>(event: &'e Value, id: &str, work: &mut Work) -> Result<Option<&'e Value>, Overrun> {
    find(event.member("notify_data").member("body").member("services"), "service_id", id, work)
}

/// An id of services, and whether it need only be part of theirs; `None` if an argument has the wrong kind.
fn wanted<'a>(id: Option<&'a str>, fuzzy: &Value) -> Option<(&'a str, bool)> {
    match fuzzy {
        Value::Null => Some((id?, false)),
        Value::Bool(fuzzy) => Some((id?, *fuzzy)),
        _ => None,
    }
}

/// The first services of that id in a property report.
fn services<'e>(
    event: &'e Value,
    (id, fuzzy): (&str, bool),
    most: usize,
    work: &mut Work,
) -> Result<Vec<&'e Value>, Overrun> {
    let mut found = Vec::new();
    let Value::List(elements) = event.member("notify_data").member("body").member("services") else { return Ok(found) };
    for element in elements {
        let Some(text) = element.member("service_id").as_text() else { continue };
        work.spend(1 + text.len())?;
        if text == id || fuzzy && text.contains(id) {
            found.push(element);
            if found.len() >= most {
                break;
            }
        }
    }
    Ok(found)
}

/// Characters from a place on, which is counted from 1.
fn substring(text: &str, from: i64, length: i64) -> Value {
    let (Ok(from), Ok(length)) = (usize::try_from(from.saturating_sub(1)), usize::try_from(length)) else {
        return Value::Null;
    };
    Value::Text(text.chars().skip(from).take(length).collect())
}

fn find<'e>(list: &'e Value, name: &str, wanted: &str, work: &mut Work) -> Result<Option<&'e Value>, Overrun> {
    let Value::List(elements) = list else { return Ok(None) };
    for element in elements {
        work.spend(1)?;
        if element.member(name).as_text() == Some(wanted) {
            return Ok(Some(element));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_function_once() {
        for (name, function, least, most) in FUNCTIONS {
            assert_eq!(Function::named(&name.to_lowercase()), Some((function, name, least, most)));
            assert_eq!(FUNCTIONS.iter().filter(|(_, other, ..)| *other == function).count(), 1, "{name}");
            assert!(least <= most);
        }
    }
}
