//! A message to a device, as an application sends it: where it goes, and what the device is sent, by its dialect. Absent
//! here: how long it waits, and what has become of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use bytestring::ByteString;
use fulmar_mqtt::property::{ForwardProperties, ForwardProperty};
use fulmar_mqtt::{QoS, TopicName};
use serde_json::Value;

use crate::dialect::classes::allow;
use crate::dialect::spaces::Spaces;
use crate::dialect::{aliyun, huawei};
use crate::registry::{Device, Product, Registry, TopicAccess};
use crate::{Dialect, Downlink};

/// A topic that applications of Huawei's ask for by habit: where its product does not define it, what is sent to it comes
/// in the standard form, on the system's topic.
const MESSAGE_DOWN: &str = "messageDown";

/// What is sent, and where to. Exists a million times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique among those of its device.
    pub id: Box<str>,
    pub name: Option<Box<str>>,
    /// Text as it was given, or a JSON object as text.
    pub content: Box<str>,
    /// Whether the content is a JSON object.
    pub object: bool,
    pub form: Form,
    pub to: Destination,
    /// For devices of MQTT 5.
    pub properties: Option<Box<Properties>>,
}

/// What becomes of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Put into an envelope, where the dialect has one and the topic is the system's; else the content itself.
    Standard,
    /// The content itself.
    Raw,
    /// The bytes that the content encodes.
    Base64,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The topic that the dialect has for messages.
    System,
    /// As [`Destination::System`], asked for by the name [`MESSAGE_DOWN`].
    Habit,
    /// A custom topic of the product's, relative to the device's own space.
    Custom(Box<str>),
    /// A whole topic, as it was given.
    Full(Box<str>),
}

/// Properties of MQTT 5.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    pub response_topic: Option<Box<str>>,
    pub correlation_data: Option<Box<str>>,
    pub user: Vec<(Box<str>, Box<str>)>,
}

/// Why a message cannot go there: the member that says so, and what is wrong with it.
pub type Misdirected = (&'static str, &'static str);

impl Destination {
    /// Where a message for a device goes that names a custom topic, a whole one, or none.
    ///
    /// # Errors
    /// Both are named; the product does not define the custom one; the whole one is none of this device's.
    pub fn choose(
        registry: &Registry,
        device: &Device,
        topic: Option<&str>,
        topic_full_name: Option<&str>,
    ) -> Result<Destination, Misdirected> {
        match (topic, topic_full_name) {
            (Some(_), Some(_)) => Err(("topic_full_name", "must not be there beside topic")),
            (None, None) => Ok(Destination::System),
            (Some(suffix), None) => {
                let product = registry.product(&device.product_id).ok_or(("topic", "is of no product"))?;
                let to = Destination::Custom(suffix.into());
                if to.topic(registry, device).is_none() {
                    Err(("topic", "must be part of a topic name: not empty, without wildcards"))
                } else if defines(&product.record, suffix) {
                    Ok(to)
                } else if suffix == MESSAGE_DOWN && product.record.dialect == Dialect::Huawei {
                    Ok(Destination::Habit)
                } else {
                    Err(("topic", "is not a topic that the product lets its devices subscribe to"))
                }
            }
            (None, Some(whole)) => {
                let Ok(name) = TopicName::new(whole.to_owned()) else {
                    return Err(("topic_full_name", "must be a topic name: not empty, without wildcards"));
                };
                if reaches(registry, device, name.as_str()) {
                    Ok(Destination::Full(whole.into()))
                } else {
                    Err(("topic_full_name", "must be a topic that this device may hear, and no other's"))
                }
            }
        }
    }

    /// As it was asked for; `None` for the system's.
    #[must_use]
    pub fn asked(&self) -> Option<&str> {
        match self {
            Destination::System => None,
            Destination::Habit => Some(MESSAGE_DOWN),
            Destination::Custom(topic) | Destination::Full(topic) => Some(topic),
        }
    }

    /// The topic that a device gets it on; of a sub-device of Huawei's its gateway's. `None`: there is no such topic.
    #[must_use]
    pub fn topic(&self, registry: &Registry, device: &Device) -> Option<TopicName> {
        let dialect = registry.dialect_of(device)?;
        let (key, name) = (&device.product_id, &device.node_id);
        let topic = match (dialect, self) {
            (_, Destination::Full(topic)) => topic.to_string(),
            (_, Destination::Custom(suffix)) if suffix.is_empty() => return None,
            (Dialect::Huawei, _) => {
                let connected = registry.connected_through(&device.id)?;
                match self {
                    Destination::Custom(suffix) => format!("$oc/devices/{connected}/user/{suffix}"),
                    _ => format!("$oc/devices/{connected}/sys/messages/down"),
                }
            }
            (Dialect::Aliyun, Destination::Custom(suffix)) => format!("/{key}/{name}/{suffix}"),
            (Dialect::Aliyun, _) => format!("/{key}/{name}/user/get"),
            (Dialect::Tencent, Destination::Custom(suffix)) => format!("{key}/{name}/{suffix}"),
            (Dialect::Tencent, _) => format!("{key}/{name}/control"),
            _ => return None,
        };
        TopicName::new(topic).ok()
    }
}

/// Whether the product lets its devices subscribe to a custom topic.
fn defines(product: &Product, suffix: &str) -> bool {
    match product.dialect {
        Dialect::Aliyun if product.topics.is_empty() => aliyun::hears_by_default(suffix),
        Dialect::Tencent if suffix == "control" => true,
        _ => allow(&product.topics, suffix, TopicAccess::Subscribe),
    }
}

/// Whether a whole topic is one on which this device may be told something, and not another's.
fn reaches(registry: &Registry, device: &Device, topic: &str) -> bool {
    match registry.dialect_of(device) {
        Some(Dialect::Huawei) => {
            let connected = registry.connected_through(&device.id);
            let own = |rest: &str| rest.split_once('/').is_some_and(|(id, _)| Some(id) == connected);
            match topic.strip_prefix("$oc/devices/") {
                Some(rest) => own(rest),
                None => {
                    topic.starts_with("$oc/broadcast/")
                        || (!topic.starts_with('$') && !Spaces::of(registry).taken(topic))
                }
            }
        }
        Some(Dialect::Aliyun) => aliyun::is_topic_of(device, topic),
        Some(Dialect::Tencent) => {
            let mut levels = topic.split('/').skip_while(|level| **level != *device.product_id);
            levels.next().is_some() && levels.next() == Some(&*device.node_id)
        }
        _ => false,
    }
}

impl Message {
    /// Bytes that it takes where it is kept, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| {
            let user = properties.user.iter().map(|(key, value)| key.len() + value.len() + 32).sum::<usize>();
            let texts = [&properties.response_topic, &properties.correlation_data];
            user + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>() + 72
        });
        let to = self.to.asked().map_or(0, str::len);
        self.id.len() + self.name.as_ref().map_or(0, |name| name.len()) + self.content.len() + to + properties
    }

    /// What a device is sent, with at most QoS 1; `None` if it has no such topic any more.
    #[must_use]
    pub fn downlink(&self, registry: &Registry, device: &Device) -> Option<Downlink> {
        let topic = self.to.topic(registry, device)?;
        let enveloped = matches!(self.to, Destination::System | Destination::Habit)
            && registry.dialect_of(device) == Some(Dialect::Huawei);
        let payload = match self.form {
            Form::Base64 => Bytes::from(BASE64.decode(self.content.as_bytes()).ok()?),
            Form::Standard if enveloped => {
                let content = match self.object {
                    true => serde_json::from_str(&self.content).ok()?,
                    false => Value::String(self.content.to_string()),
                };
                let connected = registry.connected_through(&device.id)?;
                return huawei::call::message(connected, &device.id, &self.id, self.name.as_deref(), &content);
            }
            Form::Standard | Form::Raw => Bytes::copy_from_slice(self.content.as_bytes()),
        };
        Some(Downlink { topic, payload, qos: QoS::AtLeastOnce })
    }

    /// Its properties as a PUBLISH has them. What MQTT cannot express is left out.
    #[must_use]
    pub fn forward(&self) -> ForwardProperties {
        let Some(properties) = &self.properties else { return ForwardProperties::default() };
        let response = properties.response_topic.as_ref().and_then(|topic| TopicName::new(topic.to_string()).ok());
        let correlation = properties.correlation_data.as_ref();
        let user = properties.user.iter().map(|(key, value)| {
            ForwardProperty::User(ByteString::from(key.to_string()), ByteString::from(value.to_string()))
        });
        let all: Vec<ForwardProperty> = response
            .map(ForwardProperty::ResponseTopic)
            .into_iter()
            .chain(correlation.map(|data| ForwardProperty::CorrelationData(Bytes::copy_from_slice(data.as_bytes()))))
            .chain(user)
            .collect();
        ForwardProperties::from_properties(&all).unwrap_or_default()
    }
}

/// Whether messages wait until the device has subscribed, also where its dialect has the platform's own come without.
#[must_use]
pub fn needs_subscription(registry: &Registry, device: &Device) -> bool {
    registry.product(&device.product_id).is_some_and(|product| product.record.messages_require_subscribe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::fixture::{alter_product, registry};
    use crate::registry::TopicClass;

    fn message(content: &str, object: bool, form: Form, to: Destination) -> Message {
        Message { id: "m1".into(), name: None, content: content.into(), object, form, to, properties: None }
    }

    fn device<'a>(registry: &'a Registry, id: &str) -> &'a Device {
        &registry.device(id).unwrap().0.record
    }

    #[test]
    fn where_messages_go() {
        let mut registry = registry();
        alter_product(&mut registry, "prod1", |product| {
            let class = |filter: &str, access| TopicClass { filter: filter.into(), access };
            product.topics = vec![class("a/+", TopicAccess::Subscribe), class("up", TopicAccess::Publish)];
        });
        let (huawei, sub, aliyun, tencent) =
            ("prod1_node1", "prod1_sub1", "a1B2c3D4e5F_sensor-001", "ABCDE12345_dev001");
        for (id, topic, whole, expected) in [
            (huawei, None, None, Ok("$oc/devices/prod1_node1/sys/messages/down")),
            (sub, None, None, Ok("$oc/devices/prod1_node1/sys/messages/down")),
            (huawei, Some("a/b"), None, Ok("$oc/devices/prod1_node1/user/a/b")),
            (sub, Some("a/b"), None, Ok("$oc/devices/prod1_node1/user/a/b")),
            (huawei, Some("messageDown"), None, Ok("$oc/devices/prod1_node1/sys/messages/down")),
            (huawei, Some("up"), None, Err("topic")),
            (huawei, Some("other"), None, Err("topic")),
            (huawei, Some(""), None, Err("topic")),
            (huawei, Some("a/+"), None, Err("topic")),
            (huawei, Some("a/b"), Some("x"), Err("topic_full_name")),
            (huawei, None, Some("any/topic"), Ok("any/topic")),
            (huawei, None, Some("any/#"), Err("topic_full_name")),
            (huawei, None, Some(""), Err("topic_full_name")),
            (huawei, None, Some("$oc/devices/prod1_node1/user/x"), Ok("$oc/devices/prod1_node1/user/x")),
            (sub, None, Some("$oc/devices/prod1_node1/user/x"), Ok("$oc/devices/prod1_node1/user/x")),
            (huawei, None, Some("$oc/devices/prod1_node2/user/x"), Err("topic_full_name")),
            (huawei, None, Some("$oc/devices/prod1_node1"), Err("topic_full_name")),
            (huawei, None, Some("$oc/broadcast/x"), Ok("$oc/broadcast/x")),
            (huawei, None, Some("$SYS/x"), Err("topic_full_name")),
            (huawei, None, Some("ABCDE12345/dev001/control"), Err("topic_full_name")),
            (aliyun, None, None, Ok("/a1B2c3D4e5F/sensor-001/user/get")),
            (aliyun, Some("get"), None, Ok("/a1B2c3D4e5F/sensor-001/get")),
            (aliyun, Some("messageDown"), None, Err("topic")),
            (aliyun, None, Some("/sys/a1B2c3D4e5F/sensor-001/thing/x"), Ok("/sys/a1B2c3D4e5F/sensor-001/thing/x")),
            (aliyun, None, Some("/sys/a1B2c3D4e5F/other/thing/x"), Err("topic_full_name")),
            (tencent, None, None, Ok("ABCDE12345/dev001/control")),
            (tencent, Some("set/a"), None, Ok("ABCDE12345/dev001/set/a")),
            (tencent, Some("control"), None, Ok("ABCDE12345/dev001/control")),
            (tencent, Some("info"), None, Err("topic")),
            (tencent, None, Some("$ota/update/ABCDE12345/dev001"), Ok("$ota/update/ABCDE12345/dev001")),
            (tencent, None, Some("ABCDE12345/dev002/control"), Err("topic_full_name")),
        ] {
            let device = device(&registry, id);
            let chosen = Destination::choose(&registry, device, topic, whole);
            let chosen = chosen.map(|to| to.topic(&registry, device).unwrap().as_str().to_owned());
            let expected = expected.map(str::to_owned);
            assert_eq!(chosen.map_err(|(member, _)| member), expected, "{id} {topic:?} {whole:?}");
        }
        alter_product(&mut registry, "prod1", |product| {
            product.topics = vec![TopicClass { filter: "messageDown".into(), access: TopicAccess::Both }];
        });
        let chosen = Destination::choose(&registry, device(&registry, huawei), Some("messageDown"), None);
        assert_eq!(chosen, Ok(Destination::Custom("messageDown".into())), "once it is defined it is one like others");
    }

    #[test]
    fn what_devices_are_sent() {
        let registry = registry();
        let custom = || Destination::Custom("x".into());
        for (id, message, payload) in [
            (
                "prod1_sub1",
                message("h\"i", false, Form::Standard, Destination::System),
                r#"{"object_device_id":"prod1_sub1","name":null,"id":"m1","content":"h\"i"}"#,
            ),
            (
                "prod1_node1",
                message(r#"{"b":1}"#, true, Form::Standard, Destination::Habit),
                r#"{"object_device_id":"prod1_node1","name":null,"id":"m1","content":{"b":1}}"#,
            ),
            ("prod1_node1", message("hi", false, Form::Standard, custom()), "hi"),
            ("prod1_node1", message("hi", false, Form::Raw, Destination::System), "hi"),
            ("prod1_node1", message(r#"{"b":1}"#, true, Form::Raw, custom()), r#"{"b":1}"#),
            ("prod1_node1", message("AGg=", false, Form::Base64, Destination::System), "\0h"),
            ("a1B2c3D4e5F_sensor-001", message("hi", false, Form::Standard, Destination::System), "hi"),
            ("ABCDE12345_dev001", message("hi", false, Form::Standard, Destination::System), "hi"),
        ] {
            let downlink = message.downlink(&registry, device(&registry, id)).unwrap();
            assert_eq!(downlink.payload, payload, "{id} {message:?}");
        }
        let broken = message("no base64", false, Form::Base64, Destination::System);
        assert_eq!(broken.downlink(&registry, device(&registry, "prod1_node1")), None);
    }

    #[test]
    fn properties_are_those_of_mqtt_5() {
        let mut message = message("x", false, Form::Raw, Destination::System);
        assert!(message.forward().is_empty());
        message.properties = Some(Box::new(Properties {
            response_topic: Some("r/t".into()),
            correlation_data: Some("c".into()),
            user: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        }));
        let forward: Vec<ForwardProperty> = message.forward().iter().collect();
        let user = |value: &'static str| ForwardProperty::User("a".into(), value.into());
        let response = ForwardProperty::ResponseTopic(TopicName::new("r/t").unwrap());
        assert_eq!(forward, [response, ForwardProperty::CorrelationData("c".into()), user("1"), user("2")]);
    }
}
