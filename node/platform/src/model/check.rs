//! Whether what an application asks of a device is in the model of its product. Errors name the parameter of the request
//! that is wrong, as a path.

use serde_json::{Map, Value};

use super::{Field, Model, Service};

/// What of a request does not agree with the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{parameter} {problem}")]
pub struct Mismatch {
    pub kind: MismatchKind,
    /// `paras.value`, `services[0].properties.level`.
    pub parameter: String,
    pub problem: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MismatchKind {
    /// The model has no such service or command.
    Unknown,
    /// The service has no such property, or applications may not set it.
    NotWritable,
    /// A value is missing, too much, of the wrong type or out of range.
    Value,
}

type Checked = Result<(), Mismatch>;

fn mismatch(kind: MismatchKind, parameter: &str, problem: impl Into<String>) -> Mismatch {
    Mismatch { kind, parameter: parameter.to_owned(), problem: problem.into() }
}

impl Model {
    /// A service by the id that stands at `place` in a request.
    ///
    /// # Errors
    /// There is none.
    pub fn known_service(&self, id: &str, place: &str) -> Result<&Service, Mismatch> {
        let unknown = || mismatch(MismatchKind::Unknown, place, format!("is {id:?}, which the product does not have"));
        self.service(id).ok_or_else(unknown)
    }

    /// Checks `service_id`, `command_name` and the members of `paras`.
    ///
    /// # Errors
    /// The first thing that does not agree.
    pub fn check_command(&self, service_id: &str, name: &str, paras: &Map<String, Value>) -> Checked {
        let service = self.known_service(service_id, "service_id")?;
        let command = service.commands.iter().find(|command| command.name == name).ok_or_else(|| {
            let problem = format!("is {name:?}, which the service {service_id} does not have");
            mismatch(MismatchKind::Unknown, "command_name", problem)
        })?;
        for (para, value) in paras {
            let place = format!("paras.{para}");
            let field = command.paras.iter().find(|field| field.name == *para).ok_or_else(|| {
                mismatch(MismatchKind::Value, &place, format!("is no parameter of the command {name}"))
            })?;
            field.check(value, &place)?;
        }
        let given = |field: &Field| paras.get(&field.name).is_some_and(|value| !value.is_null());
        match command.paras.iter().find(|field| field.required && !given(field)) {
            Some(missing) => Err(mismatch(MismatchKind::Value, &format!("paras.{}", missing.name), "is required")),
            None => Ok(()),
        }
    }

    /// Checks properties that are to be set. They stand at `place` in the request, as `service_id` and `properties`.
    ///
    /// # Errors
    /// The first thing that does not agree.
    pub fn check_properties(&self, service_id: &str, properties: &Map<String, Value>, place: &str) -> Checked {
        let service = self.known_service(service_id, &format!("{place}.service_id"))?;
        for (name, value) in properties {
            let place = format!("{place}.properties.{name}");
            let not = |problem: &str| mismatch(MismatchKind::NotWritable, &place, problem);
            let field = service.properties.iter().find(|field| field.name == *name);
            let field = field.ok_or_else(|| not(&format!("is no property of the service {service_id}")))?;
            if !field.writable {
                return Err(not("may not be set"));
            }
            field.check(value, &place)?;
        }
        Ok(())
    }
}

impl Field {
    /// Whether a value is one of this field; null always is.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, value: &Value, place: &str) -> Checked {
        let wrong = |problem: String| Err(mismatch(MismatchKind::Value, place, problem));
        match (&*self.data_type, value) {
            (_, Value::Null) => Ok(()),
            ("int" | "long" | "decimal", Value::Number(number)) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                let (least, most) = match &*self.data_type {
                    "int" => (f64::from(i32::MIN), f64::from(i32::MAX)),
                    // The nearest that 64 bits of floating point come to the ends.
                    "long" => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_807.0),
                    _ => (f64::MIN, f64::MAX),
                };
                let whole = self.data_type != "decimal";
                if (whole && number.fract() != 0.0) || !(least..=most).contains(&number) {
                    return wrong(format!("must be of type {}", self.data_type));
                }
                match (self.min, self.max) {
                    (Some(min), _) if number < min => wrong(format!("must be at least {min}")),
                    (_, Some(max)) if number > max => wrong(format!("must be at most {max}")),
                    _ => Ok(()),
                }
            }
            ("string" | "DateTime", Value::String(text)) => self.check_text(text, place),
            ("enum", Value::String(text)) => self.check_text(text, place),
            ("string list", Value::Array(list)) => list.iter().enumerate().try_for_each(|(at, value)| {
                let place = format!("{place}[{at}]");
                match value {
                    Value::String(text) => self.check_text(text, &place),
                    _ => Err(mismatch(MismatchKind::Value, &place, "must be a string")),
                }
            }),
            ("boolean", Value::Bool(_)) | ("jsonObject", Value::Object(_)) => Ok(()),
            (data_type, _) => wrong(format!("must be of type {data_type}")),
        }
    }

    fn check_text(&self, text: &str, place: &str) -> Checked {
        if !self.enum_list.is_empty() && !self.enum_list.iter().any(|allowed| allowed == text) {
            let problem = format!("must be one of {}", self.enum_list.join(", "));
            return Err(mismatch(MismatchKind::Value, place, problem));
        }
        match self.max_length {
            // 0 is what a model says that bounds nothing.
            Some(most) if most > 0 && text.chars().count() > most as usize => {
                Err(mismatch(MismatchKind::Value, place, format!("must have at most {most} characters")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::MismatchKind::{NotWritable, Unknown, Value as Wrong};
    use super::*;

    fn model() -> Model {
        let field = |name: &str, data_type: &str, more: Value| {
            let mut field = json!({"para_name": name, "data_type": data_type});
            for (key, value) in more.as_object().unwrap() {
                field[key] = value.clone();
            }
            field
        };
        Model::read(&json!([{
            "service_id": "Meter",
            "properties": [
                {"property_name": "level", "data_type": "int", "min": "0", "max": "10", "method": "RW"},
                {"property_name": "seen", "data_type": "int", "method": "R"},
            ],
            "commands": [
                {"command_name": "none"},
                {"command_name": "all", "paras": [
                    field("value", "int", json!({"required": true, "min": "-1", "max": "10"})),
                    field("far", "long", json!({})),
                    field("share", "decimal", json!({"min": "0", "max": "1.5"})),
                    field("text", "string", json!({"max_length": 3})),
                    field("word", "string", json!({"enum_list": ["ON", "OFF"], "max_length": 0})),
                    field("when", "DateTime", json!({})),
                    field("mode", "enum", json!({"enum_list": ["a", "b"]})),
                    field("flag", "boolean", json!({})),
                    field("more", "jsonObject", json!({})),
                    field("list", "string list", json!({"max_length": 2})),
                ]},
            ],
        }]))
        .unwrap()
    }

    fn told(outcome: Checked) -> Option<(MismatchKind, String)> {
        outcome.err().map(|mismatch| (mismatch.kind, mismatch.to_string()))
    }

    #[test]
    fn commands_are_checked() {
        let model = model();
        let check = |service: &str, command: &str, paras: Value| {
            told(model.check_command(service, command, paras.as_object().unwrap()))
        };
        let cases = [
            ("Other", "all", json!({}), Unknown, "service_id is \"Other\", which the product does not have"),
            ("Meter", "other", json!({}), Unknown, "command_name is \"other\", which the service Meter does not have"),
            ("Meter", "none", json!({"x": 1}), Wrong, "paras.x is no parameter of the command none"),
            ("Meter", "all", json!({}), Wrong, "paras.value is required"),
            ("Meter", "all", json!({"value": null}), Wrong, "paras.value is required"),
            ("Meter", "all", json!({"value": "1"}), Wrong, "paras.value must be of type int"),
            ("Meter", "all", json!({"value": 1.5}), Wrong, "paras.value must be of type int"),
            ("Meter", "all", json!({"value": true}), Wrong, "paras.value must be of type int"),
            ("Meter", "all", json!({"value": 3_000_000_000_u64}), Wrong, "paras.value must be of type int"),
            ("Meter", "all", json!({"value": -2}), Wrong, "paras.value must be at least -1"),
            ("Meter", "all", json!({"value": 11}), Wrong, "paras.value must be at most 10"),
            ("Meter", "all", json!({"far": 1e300}), Wrong, "paras.far must be of type long"),
            ("Meter", "all", json!({"share": 1.6}), Wrong, "paras.share must be at most 1.5"),
            ("Meter", "all", json!({"share": []}), Wrong, "paras.share must be of type decimal"),
            ("Meter", "all", json!({"text": "four"}), Wrong, "paras.text must have at most 3 characters"),
            ("Meter", "all", json!({"text": 4}), Wrong, "paras.text must be of type string"),
            ("Meter", "all", json!({"word": "on"}), Wrong, "paras.word must be one of ON, OFF"),
            ("Meter", "all", json!({"when": 7}), Wrong, "paras.when must be of type DateTime"),
            ("Meter", "all", json!({"mode": "c"}), Wrong, "paras.mode must be one of a, b"),
            ("Meter", "all", json!({"mode": 1}), Wrong, "paras.mode must be of type enum"),
            ("Meter", "all", json!({"flag": "true"}), Wrong, "paras.flag must be of type boolean"),
            ("Meter", "all", json!({"more": "{}"}), Wrong, "paras.more must be of type jsonObject"),
            ("Meter", "all", json!({"list": "a"}), Wrong, "paras.list must be of type string list"),
            ("Meter", "all", json!({"list": ["a", 1]}), Wrong, "paras.list[1] must be a string"),
            ("Meter", "all", json!({"list": ["abc"]}), Wrong, "paras.list[0] must have at most 2 characters"),
        ];
        for (service, command, paras, kind, text) in cases {
            assert_eq!(check(service, command, paras.clone()), Some((kind, text.to_owned())), "{paras}");
        }
        let whole = json!({
            "value": 10.0, "far": 9_000_000_000_u64, "share": 0, "text": "\u{e9}\u{e9}\u{e9}", "word": "ON",
            "when": "20151212T121212Z", "mode": "b", "flag": false, "more": {"a": 1}, "list": [],
        });
        for paras in [whole, json!({"value": 1}), json!({"value": -1, "far": null})] {
            assert_eq!(check("Meter", "all", paras.clone()), None, "{paras}");
        }
        assert_eq!(check("Meter", "none", json!({})), None);
    }

    #[test]
    fn properties_are_checked() {
        let model = model();
        let check = |service: &str, properties: Value| {
            told(model.check_properties(service, properties.as_object().unwrap(), "services[2]"))
        };
        for (service, properties, kind, text) in [
            ("Other", json!({}), Unknown, "services[2].service_id is \"Other\", which the product does not have"),
            ("Meter", json!({"x": 1}), NotWritable, "services[2].properties.x is no property of the service Meter"),
            ("Meter", json!({"seen": 1}), NotWritable, "services[2].properties.seen may not be set"),
            ("Meter", json!({"level": 11}), Wrong, "services[2].properties.level must be at most 10"),
        ] {
            assert_eq!(check(service, properties), Some((kind, text.to_owned())));
        }
        assert_eq!(check("Meter", json!({"level": 5})), None);
        assert_eq!(check("Meter", json!({"level": null})), None);
    }
}
