//! What people write about records, as JSON or TOML, read into operations. Names are those of the REST API. Each error
//! names the parameter by its path.

mod rules;

use std::cell::RefCell;
use std::collections::BTreeSet;

use fulmar_platform::registry::{Registration, Role, TopicAccess, TopicClass};
use fulmar_platform::{Dialect, Secret};
use serde_json::{Map, Value};

use super::{
    DeviceChange, Error, NewAccessCode, NewAccessKey, NewDevice, NewProduct, NewSensoroApp, NewUser, ProductChange,
    SecretReset, SensoroChange, Which,
};

/// One object, which remembers what it was asked for.
#[derive(Debug)]
pub struct Input<'a> {
    members: &'a Map<String, Value>,
    /// What its members are named after: empty, or ending in a dot.
    place: String,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Input<'a> {
    /// # Errors
    /// It is no object.
    pub fn of(value: &'a Value) -> Result<Input<'a>, Error> {
        Input::at(value, "")
    }

    fn at(value: &'a Value, place: &str) -> Result<Input<'a>, Error> {
        let called = if place.is_empty() { "body" } else { place };
        let members = value.as_object().ok_or_else(|| Error::invalid(called, "must be an object"))?;
        let place = if place.is_empty() { String::new() } else { format!("{place}.") };
        Ok(Input { members, place, asked: RefCell::default() })
    }

    /// A member; one that is null is not there.
    pub fn value(&self, name: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &'static str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, format!("must be {kind}")))
    }

    pub(super) fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Invalid { parameter: format!("{}{name}", self.place), problem: problem.into() }
    }

    /// # Errors
    /// It is no text.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// # Errors
    /// It is missing, or no text.
    pub fn required(&self, name: &'static str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }

    /// # Errors
    /// It is no text.
    pub fn secret(&self, name: &'static str) -> Result<Option<Secret>, Error> {
        Ok(self.text(name)?.map(|text| Secret::new(&text)))
    }

    /// # Errors
    /// It is neither true nor false.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, Error> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// # Errors
    /// It is no whole number up to `max`.
    pub fn number(&self, name: &'static str, max: u64) -> Result<Option<u64>, Error> {
        self.typed(name, &format!("a whole number from 0 to {max}"), |value| value.as_u64().filter(|n| *n <= max))
    }

    /// # Errors
    /// It is no object.
    pub fn object(&self, name: &'static str) -> Result<Option<Input<'a>>, Error> {
        self.value(name).map(|value| Input::at(value, &format!("{}{name}", self.place))).transpose()
    }

    /// The objects of a list.
    ///
    /// # Errors
    /// It is no list of objects.
    pub fn objects(&self, name: &'static str) -> Result<Option<Vec<Input<'a>>>, Error> {
        let Some(list) = self.typed(name, "a list", Value::as_array)? else { return Ok(None) };
        let place = |index| format!("{}{name}[{index}]", self.place);
        list.iter()
            .enumerate()
            .map(|(index, value)| Input::at(value, &place(index)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The texts of a list.
    ///
    /// # Errors
    /// It is no list of texts; the first element that is none is named.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(list) = self.typed(name, "a list", Value::as_array)? else { return Ok(None) };
        let text = |(index, value): (usize, &'a Value)| {
            value.as_str().ok_or_else(|| self.wrong(&format!("{name}[{index}]"), "must be a string"))
        };
        list.iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// One of some words.
    ///
    /// # Errors
    /// It is none of them.
    pub fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        found.map(Some).ok_or_else(|| self.wrong(name, format!("must be {}", allowed.join(" or "))))
    }

    /// The first member that nobody has asked for.
    #[must_use]
    pub fn unasked(&self) -> Option<String> {
        let asked = self.asked.borrow();
        self.members.keys().find(|name| !asked.contains(name.as_str())).map(|name| format!("{}{name}", self.place))
    }

    /// `Some(None)` for an empty host: it is to be taken away.
    fn endpoint(&self) -> Result<Option<Option<(String, u16)>>, Error> {
        let Some(endpoint) = self.object("endpoint")? else { return Ok(None) };
        let host = endpoint.text("host")?.unwrap_or_default();
        let port = endpoint.number("port", u64::from(u16::MAX))?;
        if host.is_empty() {
            return Ok(Some(None));
        }
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        Ok(Some(Some((host, port))))
    }

    fn which(&self, name: &'static str) -> Result<Which, Error> {
        let words = [("PRIMARY", Which::Primary), ("SECONDARY", Which::Secondary)];
        Ok(self.word(name, &words)?.unwrap_or_default())
    }

    /// # Errors
    /// It is none of the roles.
    pub fn role(&self) -> Result<Option<Role>, Error> {
        self.word("role", &[("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)])
    }

    fn seconds(&self, name: &'static str) -> Result<Option<u32>, Error> {
        Ok(self.number(name, u64::from(u32::MAX))?.and_then(|seconds| u32::try_from(seconds).ok()))
    }

    /// Classes of custom topics.
    ///
    /// # Errors
    /// It is no list of them.
    pub fn topics(&self) -> Result<Option<Vec<TopicClass>>, Error> {
        let words = [("pub", TopicAccess::Publish), ("sub", TopicAccess::Subscribe), ("all", TopicAccess::Both)];
        let class = |input: &Input<'_>| {
            Ok(TopicClass {
                filter: input.required("topic")?.into(),
                access: input.word("access", &words)?.unwrap_or(TopicAccess::Both),
            })
        };
        self.objects("topics")?.map(|list| list.iter().map(class).collect()).transpose()
    }
}

impl ProductChange {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<ProductChange, Error> {
        let registration = [("off", Registration::Off), ("known", Registration::Known), ("open", Registration::Open)];
        Ok(ProductChange {
            name: input.text("name")?,
            device_type: input.text("device_type")?,
            protocol_type: input.text("protocol_type")?,
            data_format: input.text("data_format")?,
            manufacturer_name: input.text("manufacturer_name")?,
            industry: input.text("industry")?,
            description: input.text("description")?,
            model: input.value("service_capabilities").cloned(),
            registration: input.word("dynamic_registration", &registration)?,
            secret: input.secret("product_secret")?,
            endpoint: input.endpoint()?,
            messages_require_subscribe: input.flag("messages_require_subscribe")?,
        })
    }
}

impl NewProduct {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewProduct, Error> {
        let dialects = [Dialect::Huawei, Dialect::Aliyun, Dialect::Tencent].map(|dialect| (dialect.as_str(), dialect));
        Ok(NewProduct {
            id: input.text("product_id")?,
            app_id: input.text("app_id")?,
            dialect: input.word("dialect", &dialects)?.unwrap_or(Dialect::Huawei),
            settings: ProductChange::read(input)?,
            topics: input.topics()?.unwrap_or_default(),
        })
    }
}

impl DeviceChange {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<DeviceChange, Error> {
        let auth = input.object("auth_info")?;
        let auth = auth.as_ref();
        Ok(DeviceChange {
            name: input.text("device_name")?,
            description: input.text("description")?,
            extension_info: match input.value("extension_info") {
                Some(Value::Object(info)) if info.is_empty() => Some(String::new()),
                Some(info @ Value::Object(_)) => Some(info.to_string()),
                Some(_) => return Err(input.wrong("extension_info", "must be an object")),
                None => None,
            },
            secure_access: auth.map(|auth| auth.flag("secure_access")).transpose()?.flatten(),
            timeout_s: auth.map(|auth| auth.seconds("timeout")).transpose()?.flatten(),
            endpoint: input.endpoint()?,
            sensoro_app_id: input.text("sensoro_app_id")?,
        })
    }
}

impl NewDevice {
    /// # Errors
    /// A member is missing or of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewDevice, Error> {
        let auth = input.object("auth_info")?;
        let auth = auth.as_ref();
        let certificate = [("SECRET", false), ("CERTIFICATES", true)];
        Ok(NewDevice {
            id: input.text("device_id")?,
            node_id: input.required("node_id")?,
            product_id: input.required("product_id")?,
            app_id: input.text("app_id")?,
            gateway_id: input.text("gateway_id")?,
            certificate: auth.map(|auth| auth.word("auth_type", &certificate)).transpose()?.flatten().unwrap_or(false),
            secret: auth.map(|auth| auth.secret("secret")).transpose()?.flatten(),
            fingerprint: auth.map(|auth| auth.text("fingerprint")).transpose()?.flatten(),
            shadow: input
                .value("shadow")
                .filter(|shadow| shadow.as_array().is_none_or(|list| !list.is_empty()))
                .cloned(),
            settings: DeviceChange::read(input)?,
        })
    }
}

impl NewAccessCode {
    /// # Errors
    /// A member is missing or of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewAccessCode, Error> {
        Ok(NewAccessCode {
            kind: input.required("type")?,
            access_key: input.required("access_key")?,
            access_code: Secret::new(&input.required("access_code")?),
        })
    }
}

impl SecretReset {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<SecretReset, Error> {
        Ok(SecretReset {
            secret: input.secret("secret")?,
            which: input.which("secret_type")?,
            force_disconnect: input.flag("force_disconnect")?.unwrap_or(false),
        })
    }
}

/// A new fingerprint of a device; none: the next certificate is pinned.
#[derive(Debug, Clone, Default)]
pub struct FingerprintReset {
    pub fingerprint: Option<String>,
    pub which: Which,
    pub force_disconnect: bool,
}

impl FingerprintReset {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<FingerprintReset, Error> {
        Ok(FingerprintReset {
            fingerprint: input.text("fingerprint")?,
            which: input.which("fingerprint_type")?,
            force_disconnect: input.flag("force_disconnect")?.unwrap_or(false),
        })
    }
}

impl SensoroChange {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<SensoroChange, Error> {
        Ok(SensoroChange {
            qos: input.number("qos", 1)?.map(|qos| u8::from(qos > 0)),
            safe_mode: input.flag("safe_mode")?,
            callback_url: input.text("callback_url")?,
        })
    }
}

impl NewSensoroApp {
    /// # Errors
    /// A member is of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewSensoroApp, Error> {
        Ok(NewSensoroApp {
            id: input.text("app_id")?,
            secret: input.secret("app_secret")?,
            key: input.secret("app_key")?,
            settings: SensoroChange::read(input)?,
        })
    }
}

impl NewUser {
    /// # Errors
    /// A member is missing or of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewUser, Error> {
        Ok(NewUser {
            name: input.required("name")?,
            password: Secret::new(&input.required("password")?),
            role: input.role()?.ok_or_else(|| input.wrong("role", "is required"))?,
        })
    }
}

impl NewAccessKey {
    /// # Errors
    /// A member is missing or of the wrong type.
    pub fn read(input: &Input<'_>) -> Result<NewAccessKey, Error> {
        Ok(NewAccessKey {
            user: input.required("user")?,
            ak: input.text("access_key")?,
            sk: input.secret("secret_key")?,
        })
    }
}
