//! The model of a product: services with properties, commands and events, in the form of the REST API's
//! `service_capabilities`. Read here once, when a product is made or changed, so that everybody later may rely on it.

mod check;

pub use check::{Mismatch, MismatchKind};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Services of a product.
pub const SERVICES_MAX: usize = 500;

/// Properties, commands, events, parameters or values of one list.
pub const MEMBERS_MAX: usize = 500;

const NAME_CHARS_MAX: usize = 64;

const DATA_TYPES: [&str; 9] =
    ["int", "long", "decimal", "string", "DateTime", "jsonObject", "enum", "boolean", "string list"];

/// What is wrong, and where: `service_capabilities[0] (Meter).properties[1] (level).min`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {problem}")]
pub struct ModelError {
    pub place: String,
    pub problem: String,
}

/// A product's services.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub id: String,
    pub properties: Vec<Field>,
    pub commands: Vec<Command>,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub name: String,
    pub paras: Vec<Field>,
    pub responses: Vec<Response>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub name: String,
    pub paras: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: String,
    pub paras: Vec<Field>,
}

/// A property, or a parameter of a command or an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub data_type: String,
    pub required: bool,
    pub enum_list: Vec<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub max_length: Option<u32>,
    /// Of a property: applications may set it.
    pub writable: bool,
}

#[derive(Deserialize)]
struct RawService {
    service_id: Option<String>,
    service_type: Option<String>,
    description: Option<String>,
    option: Option<String>,
    properties: Option<Vec<Value>>,
    commands: Option<Vec<Value>>,
    events: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawCommand {
    command_name: Option<String>,
    paras: Option<Vec<Value>>,
    responses: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawGroup {
    #[serde(alias = "event_type")]
    response_name: Option<String>,
    paras: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawField {
    #[serde(alias = "para_name")]
    property_name: Option<String>,
    data_type: Option<String>,
    required: Option<bool>,
    enum_list: Option<Vec<String>>,
    min: Option<Value>,
    max: Option<Value>,
    max_length: Option<u32>,
    step: Option<f64>,
    unit: Option<String>,
    method: Option<String>,
    description: Option<String>,
}

impl Model {
    /// Reads `service_capabilities`.
    ///
    /// # Errors
    /// The first thing that is wrong, with the names of the service and the property or command.
    pub fn read(capabilities: &Value) -> Result<Model, ModelError> {
        let place = "service_capabilities";
        let list = capabilities.as_array().ok_or_else(|| wrong(place, "must be a list"))?;
        bounded(place, list.len(), SERVICES_MAX)?;
        let mut services: Vec<Service> = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let service = service(value, &format!("{place}[{index}]"))?;
            if services.iter().any(|other| other.id == service.id) {
                return Err(wrong(
                    &format!("{place}[{index}].service_id"),
                    &format!("{:?} is there twice", service.id),
                ));
            }
            services.push(service);
        }
        Ok(Model { services })
    }

    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id)
    }
}

fn wrong(place: &str, problem: &str) -> ModelError {
    ModelError { place: place.to_owned(), problem: problem.to_owned() }
}

fn bounded(place: &str, count: usize, max: usize) -> Result<(), ModelError> {
    if count > max { Err(wrong(place, &format!("has {count} elements; allowed: {max}"))) } else { Ok(()) }
}

/// An object of which no member is required.
fn read<T: DeserializeOwned>(value: &Value, place: &str) -> Result<T, ModelError> {
    let members = value.as_object().ok_or_else(|| wrong(place, "must be an object"))?;
    serde_json::from_value(value.clone()).map_err(|error| {
        // The error does not say whose it is; read alone, the member that it is about fails too.
        let alone = |name: &String, member: &Value| json!({ name.as_str(): member });
        let culprit = members.iter().find(|(name, member)| serde_json::from_value::<T>(alone(name, member)).is_err());
        let place = culprit.map_or_else(|| place.to_owned(), |(name, _)| format!("{place}.{name}"));
        wrong(&place, &format!("is not as it must be: {error}"))
    })
}

/// The place of an element, with its name once that is known.
fn named(place: &str, name: &str) -> String {
    format!("{place} ({name})")
}

/// A name that can be a key in JSON and in a path through it.
fn key(name: Option<String>, place: &str, member: &str) -> Result<String, ModelError> {
    let place = format!("{place}.{member}");
    let name = name.ok_or_else(|| wrong(&place, "is required"))?;
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(wrong(&place, &format!("must have 1 to {NAME_CHARS_MAX} characters")));
    }
    if name.chars().any(|c| matches!(c, '.' | '$') || c.is_control()) {
        return Err(wrong(&place, &format!("{name:?} must not contain '.', '$' or control characters")));
    }
    Ok(name)
}

fn text(text: Option<&String>, place: &str, member: &str, chars_max: usize) -> Result<(), ModelError> {
    match text {
        Some(text) if text.chars().count() > chars_max => {
            Err(wrong(&format!("{place}.{member}"), &format!("must have at most {chars_max} characters")))
        }
        _ => Ok(()),
    }
}

fn list<T>(
    values: Option<Vec<Value>>,
    place: &str,
    member: &str,
    read: impl Fn(&Value, &str) -> Result<(String, T), ModelError>,
) -> Result<Vec<T>, ModelError> {
    let (place, values) = (format!("{place}.{member}"), values.unwrap_or_default());
    bounded(&place, values.len(), MEMBERS_MAX)?;
    let mut names = std::collections::BTreeSet::new();
    let mut read_values = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let (name, value) = read(value, &place)?;
        if !names.insert(name.clone()) {
            return Err(wrong(&place, &format!("{name:?} is there twice")));
        }
        read_values.push(value);
    }
    Ok(read_values)
}

fn service(value: &Value, place: &str) -> Result<Service, ModelError> {
    let raw: RawService = read(value, place)?;
    let id = key(raw.service_id, place, "service_id")?;
    let place = named(place, &id);
    text(raw.service_type.as_ref(), &place, "service_type", 64)?;
    text(raw.description.as_ref(), &place, "description", 128)?;
    if raw.option.is_some_and(|option| !matches!(option.as_str(), "Master" | "Mandatory" | "Optional")) {
        return Err(wrong(&format!("{place}.option"), "must be Master, Mandatory or Optional"));
    }
    Ok(Service {
        properties: list(raw.properties, &place, "properties", |value, place| field(value, place, "property_name"))?,
        commands: list(raw.commands, &place, "commands", command)?,
        events: list(raw.events, &place, "events", |value, place| {
            let (kind, paras) = group(value, place, "event_type")?;
            Ok((kind.clone(), Event { kind, paras }))
        })?,
        id,
    })
}

fn command(value: &Value, place: &str) -> Result<(String, Command), ModelError> {
    let raw: RawCommand = read(value, place)?;
    let name = key(raw.command_name, place, "command_name")?;
    let place = named(place, &name);
    let paras = list(raw.paras, &place, "paras", |value, place| field(value, place, "para_name"))?;
    let responses = list(raw.responses, &place, "responses", |value, place| {
        let (name, paras) = group(value, place, "response_name")?;
        Ok((name.clone(), Response { name, paras }))
    })?;
    Ok((name.clone(), Command { name, paras, responses }))
}

fn group(value: &Value, place: &str, member: &str) -> Result<(String, Vec<Field>), ModelError> {
    let raw: RawGroup = read(value, place)?;
    let name = key(raw.response_name, place, member)?;
    let place = named(place, &name);
    let paras = list(raw.paras, &place, "paras", |value, place| field(value, place, "para_name"))?;
    Ok((name, paras))
}

fn field(value: &Value, place: &str, member: &str) -> Result<(String, Field), ModelError> {
    let raw: RawField = read(value, place)?;
    let name = key(raw.property_name, place, member)?;
    let place = named(place, &name);
    let data_type = raw.data_type.ok_or_else(|| wrong(&format!("{place}.data_type"), "is required"))?;
    if !DATA_TYPES.contains(&data_type.as_str()) {
        return Err(wrong(
            &format!("{place}.data_type"),
            &format!("is {data_type:?}; allowed: {}", DATA_TYPES.join(", ")),
        ));
    }
    text(raw.unit.as_ref(), &place, "unit", 16)?;
    text(raw.description.as_ref(), &place, "description", 128)?;
    let enum_list = raw.enum_list.unwrap_or_default();
    bounded(&format!("{place}.enum_list"), enum_list.len(), MEMBERS_MAX)?;
    if enum_list.iter().any(|value| value.chars().count() > 128) {
        return Err(wrong(&format!("{place}.enum_list"), "must have values of at most 128 characters"));
    }
    let (min, max) = (number(raw.min.as_ref(), &place, "min")?, number(raw.max.as_ref(), &place, "max")?);
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        return Err(wrong(&format!("{place}.min"), "must not be above max"));
    }
    if raw.step.is_some_and(|step| step < 0.0) {
        return Err(wrong(&format!("{place}.step"), "must not be negative"));
    }
    let method = raw.method.unwrap_or_default();
    if !method.chars().all(|c| "RWE".contains(c)) || method.len() > 3 {
        return Err(wrong(&format!("{place}.method"), "must be made of R, W and E"));
    }
    let field = Field {
        name: name.clone(),
        data_type,
        required: raw.required.unwrap_or(false),
        enum_list,
        min,
        max,
        max_length: raw.max_length,
        writable: method.contains('W'),
    };
    Ok((name, field))
}

/// Numbers come as text, and from some as numbers.
fn number(value: Option<&Value>, place: &str, member: &str) -> Result<Option<f64>, ModelError> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Some(value) => value.as_f64(),
    };
    number.map(Some).ok_or_else(|| wrong(&format!("{place}.{member}"), "must be a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(more: Value) -> Value {
        let mut property = json!({"property_name": "level", "data_type": "int"});
        for (key, value) in more.as_object().expect("an object") {
            property[key] = value.clone();
        }
        json!([{"service_id": "Meter", "properties": [property]}])
    }

    #[test]
    fn a_whole_model_is_read() {
        let model = Model::read(&json!([
            {
                "service_id": "WaterMeter", "service_type": "Water", "option": "Mandatory", "description": null,
                "properties": [
                    {"property_name": "value", "data_type": "decimal", "required": true, "min": "0", "max": "99.5",
                     "max_length": 10, "step": 0.1, "unit": "kPa", "method": "RW", "default_value": {"a": 1}},
                    {"property_name": "mode", "data_type": "enum", "enum_list": ["a", "b"], "method": "R"},
                ],
                "commands": [{
                    "command_name": "ON_OFF",
                    "paras": [{"para_name": "value", "data_type": "string", "required": true}],
                    "responses": [{"response_name": "done", "paras": [{"para_name": "code", "data_type": "int"}]}],
                }],
                "events": [{"event_type": "alarm", "paras": [{"para_name": "why", "data_type": "string"}]}],
            },
            {"service_id": "Other"},
        ]))
        .expect("a model");
        let service = model.service("WaterMeter").expect("the service");
        assert_eq!((service.properties[0].min, service.properties[0].max), (Some(0.0), Some(99.5)));
        assert!(service.properties[0].writable && service.properties[0].required);
        assert!(!service.properties[1].writable);
        assert_eq!(service.properties[1].enum_list, ["a", "b"]);
        assert_eq!(service.commands[0].responses[0].paras[0].name, "code");
        assert_eq!(service.events[0].kind, "alarm");
        assert!(model.service("Other").is_some_and(|other| other.properties.is_empty()));
        assert_eq!(Model::read(&json!([])), Ok(Model::default()));
    }

    #[test]
    fn errors_name_the_place() {
        let at = "service_capabilities[0] (Meter).properties[0] (level)";
        let cases = [
            (json!({}), "service_capabilities must be a list".to_owned()),
            (json!([1]), "service_capabilities[0] must be an object".to_owned()),
            (json!([{}]), "service_capabilities[0].service_id is required".to_owned()),
            (json!([{"service_id": ""}]), "service_capabilities[0].service_id must have 1 to 64 characters".to_owned()),
            (
                json!([{"service_id": "a.b"}]),
                "service_capabilities[0].service_id \"a.b\" must not contain '.', '$' or control characters".to_owned(),
            ),
            (
                json!([{"service_id": "a"}, {"service_id": "a"}]),
                "service_capabilities[1].service_id \"a\" is there twice".to_owned(),
            ),
            (
                json!([{"service_id": "a", "option": 7}]),
                "service_capabilities[0].option is not as it must be: invalid type: integer `7`, expected a string".to_owned(),
            ),
            (
                json!([{"service_id": "a", "option": "Maybe"}]),
                "service_capabilities[0] (a).option must be Master, Mandatory or Optional".to_owned(),
            ),
            (
                property(json!({"property_name": "a$b"})),
                "service_capabilities[0] (Meter).properties[0].property_name \"a$b\" must not contain '.', '$' or control \
                 characters"
                    .to_owned(),
            ),
            (
                property(json!({"data_type": "float"})),
                format!(
                    "{at}.data_type is \"float\"; allowed: int, long, decimal, string, DateTime, jsonObject, enum, \
                     boolean, string list"
                ),
            ),
            (property(json!({"data_type": null})), format!("{at}.data_type is required")),
            (property(json!({"min": "x"})), format!("{at}.min must be a number")),
            (property(json!({"min": "2", "max": "1"})), format!("{at}.min must not be above max")),
            (property(json!({"method": "RX"})), format!("{at}.method must be made of R, W and E")),
            (property(json!({"unit": "12345678901234567"})), format!("{at}.unit must have at most 16 characters")),
            (
                json!([{"service_id": "M", "commands": [{"command_name": "c", "paras": [{"para_name": "p"}]}]}]),
                "service_capabilities[0] (M).commands[0] (c).paras[0] (p).data_type is required".to_owned(),
            ),
            (
                json!([{"service_id": "M", "commands": [{"command_name": "c"}, {"command_name": "c"}]}]),
                "service_capabilities[0] (M).commands[1] \"c\" is there twice".to_owned(),
            ),
        ];
        for (given, wanted) in cases {
            assert_eq!(Model::read(&given).expect_err("it is wrong").to_string(), wanted, "{given}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<Value> = (0..=SERVICES_MAX).map(|at| json!({"service_id": format!("s{at}")})).collect();
        assert!(Model::read(&Value::Array(many)).is_err());
    }
}
