//! A publish of the router's own, to one topic.

use std::sync::Arc;

use fulmar_broker::Publication;
use fulmar_mqtt::{QoS, TopicName};
use serde_json::Value;

use crate::dispatch::Dispatch;
use crate::rule_engine::sink::{Handed, Parcel};

/// Bytes of a topic.
const TOPIC_BYTES_MAX: usize = 1024;

pub struct Republish {
    topic: TopicName,
    qos: QoS,
    dispatch: Arc<Dispatch>,
}

/// `{"mqtt_republishing": {"topic", "qos"?}}`. Topics of devices and of the router itself start with `$`, and are not
/// for rules.
pub(in crate::rule_engine) fn read(detail: &Value) -> Result<(TopicName, QoS), (String, String)> {
    let place = |name: &str| format!("mqtt_republishing.{name}");
    let Some(detail) = detail.get("mqtt_republishing").and_then(Value::as_object) else {
        return Err(("mqtt_republishing".to_owned(), "must be an object".to_owned()));
    };
    if let Some(name) = detail.keys().find(|name| !["topic", "qos"].contains(&name.as_str())) {
        return Err((place(name), "is unknown".to_owned()));
    }
    let wrong = |problem: String| (place("topic"), problem);
    let Some(text) = detail.get("topic").and_then(Value::as_str) else {
        return Err(wrong("must be a string".to_owned()));
    };
    if text.len() > TOPIC_BYTES_MAX || text.starts_with('$') {
        return Err(wrong(format!("must have at most {TOPIC_BYTES_MAX} bytes and not start with $")));
    }
    let topic = TopicName::new(text).map_err(|error| wrong(error.to_string()))?;
    let qos = match detail.get("qos") {
        None | Some(Value::Null) => Some(QoS::AtMostOnce),
        Some(qos) => qos.as_u64().and_then(|qos| u8::try_from(qos).ok()).and_then(QoS::from_bits),
    };
    qos.map(|qos| (topic, qos)).ok_or_else(|| (place("qos"), "must be 0, 1 or 2".to_owned()))
}

impl Republish {
    pub(in crate::rule_engine) fn open(
        detail: &Value,
        dispatch: &Arc<Dispatch>,
    ) -> Result<Republish, (String, String)> {
        let (topic, qos) = read(detail)?;
        Ok(Republish { topic, qos, dispatch: dispatch.clone() })
    }

    pub(in crate::rule_engine) async fn hand_over(&self, parcels: &[Parcel]) -> Handed {
        let accepted_at = self.dispatch.now().log;
        let publication = |parcel: &Parcel| {
            Arc::new(Publication::of_server(self.topic.clone(), parcel.body.clone(), self.qos, accepted_at))
        };
        let publications: Vec<_> = parcels.iter().map(publication).collect();
        let published = self.dispatch.publish_own(&publications).await;
        Handed { done: published.done, refused: published.refused, problem: published.problem }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_are_checked_by_member() {
        let good = read(&json!({"mqtt_republishing": {"topic": "a/b", "qos": 1}})).expect("a detail");
        assert_eq!(good, (TopicName::new("a/b").expect("a topic"), QoS::AtLeastOnce));
        for (detail, member) in [
            (json!({}), "mqtt_republishing"),
            (json!({"mqtt_republishing": 1}), "mqtt_republishing"),
            (json!({"mqtt_republishing": {}}), "mqtt_republishing.topic"),
            (json!({"mqtt_republishing": {"topic": "a/#"}}), "mqtt_republishing.topic"),
            (json!({"mqtt_republishing": {"topic": ""}}), "mqtt_republishing.topic"),
            (json!({"mqtt_republishing": {"topic": "$oc/a"}}), "mqtt_republishing.topic"),
            (json!({"mqtt_republishing": {"topic": "a", "qos": 3}}), "mqtt_republishing.qos"),
            (json!({"mqtt_republishing": {"topic": "a", "qos": "1"}}), "mqtt_republishing.qos"),
            (json!({"mqtt_republishing": {"topic": "a", "x": 1}}), "mqtt_republishing.x"),
        ] {
            assert_eq!(read(&detail).expect_err(member).0, member, "{detail}");
        }
    }
}
