//! The kinds of sinks. Each hands parcels over in order, within time-outs of its own, and says how far it has come.

pub mod detail;
pub mod device;
pub mod drain;
pub mod kafka;
pub mod push;
pub mod republish;
pub mod webhook;

use fulmar_mqtt::TopicName;
use serde_json::Value;

use super::sink::Parcel;

/// Which parcels must not overtake each other: those of one device, as far as the parcel tells whose it is. What a rule
/// selects need not tell; then the topic does, and what has neither is in order with everything like it.
#[must_use]
pub(super) fn lane(parcel: &Parcel) -> String {
    let body: Value = serde_json::from_slice(&parcel.body).unwrap_or_default();
    let device = body.pointer("/notify_data/header/device_id").and_then(Value::as_str);
    device.or_else(|| parcel.topic.as_ref().map(TopicName::as_str)).unwrap_or_default().to_owned()
}

/// The topic of an action, or that of the event where it says `$topic()`.
#[must_use]
pub(super) fn topic_of(wanted: &str, parcel: &Parcel) -> Option<TopicName> {
    match wanted {
        detail::SAME_TOPIC => parcel.topic.clone(),
        topic => TopicName::new(topic.to_owned()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_of_one_device_are_in_one_lane() {
        let parcel = |body: &str, topic: Option<&str>| Parcel {
            key: "k".into(),
            body: body.to_owned().into(),
            topic: topic.map(|topic| TopicName::new(topic.to_owned()).expect("a topic")),
            at_ms: 0,
        };
        let event = r#"{"notify_data":{"header":{"device_id":"d"}}}"#;
        for (body, topic, wanted) in [
            (event, Some("t"), "d"),
            (event, None, "d"),
            ("{}", Some("t"), "t"),
            ("no json", Some("t"), "t"),
            ("no json", None, ""),
        ] {
            assert_eq!(lane(&parcel(body, topic)), wanted, "{body}");
        }
        let topic = |wanted: &str, of: Option<&str>| topic_of(wanted, &parcel("", of)).map(|t| t.as_str().to_owned());
        assert_eq!(topic("$topic()", Some("a/b")).as_deref(), Some("a/b"));
        assert_eq!((topic("$topic()", None), topic("c", None).as_deref()), (None, Some("c")));
    }
}
