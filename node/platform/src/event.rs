//! What rules may be about: something that happened to a device, a message, a task or a product, in the form in which
//! applications get it. Absent here: which rules there are, and what they do with it.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::dialect::time;
use crate::registry::Device;

/// What a rule listens to: a resource and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    DeviceCreate,
    DeviceDelete,
    DeviceUpdate,
    StatusUpdate,
    PropertyReport,
    MessageReport,
    MessageStatusUpdate,
    BatchTaskUpdate,
    ProductCreate,
    ProductDelete,
    ProductUpdate,
    /// Of asynchronous commands, which devices of MQTT do not have: a rule may name it, and nothing happens.
    CommandStatusUpdate,
}

impl Subject {
    pub const ALL: [Subject; 12] = [
        Subject::DeviceCreate,
        Subject::DeviceDelete,
        Subject::DeviceUpdate,
        Subject::StatusUpdate,
        Subject::PropertyReport,
        Subject::MessageReport,
        Subject::MessageStatusUpdate,
        Subject::BatchTaskUpdate,
        Subject::ProductCreate,
        Subject::ProductDelete,
        Subject::ProductUpdate,
        Subject::CommandStatusUpdate,
    ];

    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Subject::DeviceCreate | Subject::DeviceDelete | Subject::DeviceUpdate => "device",
            Subject::StatusUpdate => "device.status",
            Subject::PropertyReport => "device.property",
            Subject::MessageReport => "device.message",
            Subject::MessageStatusUpdate => "device.message.status",
            Subject::BatchTaskUpdate => "batchtask",
            Subject::ProductCreate | Subject::ProductDelete | Subject::ProductUpdate => "product",
            Subject::CommandStatusUpdate => "device.command.status",
        }
    }

    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Subject::DeviceCreate | Subject::ProductCreate => "create",
            Subject::DeviceDelete | Subject::ProductDelete => "delete",
            Subject::PropertyReport | Subject::MessageReport => "report",
            _ => "update",
        }
    }

    #[must_use]
    pub fn parse(resource: &str, event: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|subject| subject.resource() == resource && subject.event() == event)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource(), self.event())
    }
}

/// Something that happened. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub subject: Subject,
    /// The resource space that it happened in, for the scope of rules; empty: none.
    pub app_id: Box<str>,
    /// What it happened to; `None` for products and tasks.
    pub device: Option<Arc<Device>>,
    /// The device's own id for it, or a new one. With the subject it is unique: what sinks may tell repetitions by.
    pub request_id: Box<str>,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub body: Arc<Value>,
    /// Members of `notify_data` beside `header` and `body`; null for none.
    pub flat: Arc<Value>,
}

impl Event {
    /// As applications get it: `{"resource", "event", "event_time", "event_time_ms", "request_id", "notify_data"}`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut data = serde_json::Map::new();
        if let Some(device) = &self.device {
            data.insert("header".to_owned(), header(device));
        }
        data.insert("body".to_owned(), (*self.body).clone());
        if let Value::Object(flat) = &*self.flat {
            data.extend(flat.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        json!({
            "resource": self.subject.resource(),
            "event": self.subject.event(),
            "event_time": time::compact(self.at_ms),
            "event_time_ms": time::iso_ms(self.at_ms),
            "request_id": self.request_id,
            "notify_data": data,
        })
    }
}

/// Whose it is. Of a device that connects by itself the gateway is itself.
fn header(device: &Device) -> Value {
    let gateway = if device.gateway_id.is_empty() { &device.id } else { &device.gateway_id };
    let tags = device.tags.iter().map(|(key, value)| json!({ "tag_key": key, "tag_value": value }));
    json!({
        "app_id": device.app_id,
        "device_id": device.id,
        "node_id": device.node_id,
        "product_id": device.product_id,
        "gateway_id": gateway,
        "tags": tags.collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_names_of_their_own() {
        for subject in Subject::ALL {
            assert_eq!(Subject::parse(subject.resource(), subject.event()), Some(subject), "{subject}");
        }
        assert_eq!(Subject::parse("device.property", "update"), None);
    }

    #[test]
    fn an_event_has_the_form_that_applications_expect() {
        let mut device = Device::new("p", "space", "n", 0);
        device.tags.push(("k".into(), "v".into()));
        let event = Event {
            subject: Subject::MessageStatusUpdate,
            app_id: "space".into(),
            device: Some(Arc::new(device)),
            request_id: "r".into(),
            at_ms: 1_449_922_332_007,
            body: Arc::new(json!({"message_id": "m"})),
            flat: Arc::new(json!({"message_id": "m"})),
        };
        let expected = json!({
            "resource": "device.message.status", "event": "update", "event_time": "20151212T121212Z",
            "event_time_ms": "2015-12-12T12:12:12.007Z", "request_id": "r",
            "notify_data": {
                "header": {"app_id": "space", "device_id": "p_n", "node_id": "n", "product_id": "p",
                    "gateway_id": "p_n", "tags": [{"tag_key": "k", "tag_value": "v"}]},
                "body": {"message_id": "m"},
                "message_id": "m",
            },
        });
        assert_eq!(event.json(), expected);
    }
}
