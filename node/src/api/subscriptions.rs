//! Subscriptions.

use fulmar_mqtt::{TopicFilter, TopicName};
use serde_json::json;

use super::Fault;
use super::call::{Answer, Call};
use super::sessions::named;
use crate::operations::input::Input;
use crate::operations::{SubscriptionQuery, subscription_json};

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let wrong = |what: &str, error| Fault::invalid(&format!("{what} {error}"));
    let query = match (input.text("topic")?, input.text("filter")?, input.text("session")?) {
        (Some(topic), None, None) => {
            SubscriptionQuery::Topic(TopicName::new(topic).map_err(|error| wrong("topic", error))?)
        }
        (None, Some(filter), None) => {
            SubscriptionQuery::Filter(TopicFilter::new(filter).map_err(|error| wrong("filter", error))?)
        }
        (None, None, Some(session)) => SubscriptionQuery::Session(named("session", &session)?),
        _ => return Err(Fault::invalid("one of topic, filter and session says what is asked for")),
    };
    let list = call.operations().list_subscriptions(&query).await?;
    let rows = list.rows.iter().map(|row| {
        let mut json = subscription_json(&row.subscription);
        json["session"] = row.key.to_string().into();
        json["connected"] = row.connected.into();
        json
    });
    Answer::ok(json!({
        "subscriptions": rows.collect::<Vec<_>>(),
        "truncated": list.truncated,
        "missing": list.missing,
    }))
}
