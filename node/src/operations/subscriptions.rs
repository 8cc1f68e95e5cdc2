//! Who has subscribed to what, in the whole cluster: from the replicated state, and from each node for sessions that end
//! with their connections.

use std::sync::Arc;

use fulmar_broker::SessionKey;
use fulmar_broker::state::Wanted;
use fulmar_broker::state::command::Subscription;
use fulmar_mqtt::packet::{RetainHandling, SubscriptionOptions};
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use serde_json::{Value, json};

use super::nodes::node_name;
use super::sessions::{ACTOR, key_of};
use super::{Error, Operations};
use crate::dispatch::Receiver;

/// Subscriptions that are shown, and that one node tells of.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub enum SubscriptionQuery {
    /// Who would get a message on it.
    Topic(TopicName),
    /// Exactly this filter.
    Filter(TopicFilter),
    Session(SessionKey),
}

/// Somebody's subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionRow {
    pub key: SessionKey,
    pub subscription: Subscription,
    pub connected: bool,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionList {
    /// By session and filter.
    pub rows: Vec<SubscriptionRow>,
    /// There are more.
    pub truncated: bool,
    /// Nodes that were not reached: what only they know is missing.
    pub missing: Vec<String>,
}

impl SubscriptionQuery {
    fn wanted(&self) -> Option<Wanted<'_>> {
        match self {
            SubscriptionQuery::Topic(topic) => Some(Wanted::Topic(topic)),
            SubscriptionQuery::Filter(filter) => Some(Wanted::Filter(filter)),
            SubscriptionQuery::Session(_) => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            SubscriptionQuery::Topic(topic) => json!({ "topic": topic.as_str() }),
            SubscriptionQuery::Filter(filter) => json!({ "filter": filter.as_str() }),
            SubscriptionQuery::Session(key) => json!({ "session": key.to_string() }),
        }
    }

    fn of(document: &Value) -> Result<SubscriptionQuery, String> {
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        if let Some(topic) = text("topic") {
            return TopicName::new(topic).map(SubscriptionQuery::Topic).map_err(|error| format!("topic {error}"));
        }
        if let Some(filter) = text("filter") {
            return TopicFilter::new(filter).map(SubscriptionQuery::Filter).map_err(|error| format!("filter {error}"));
        }
        let key = text("session").and_then(|name| key_of(&name));
        key.map(SubscriptionQuery::Session).ok_or_else(|| "nothing is asked for".to_owned())
    }
}

impl Operations {
    /// # Errors
    /// There is no such session.
    pub async fn list_subscriptions(&self, query: &SubscriptionQuery) -> Result<SubscriptionList, Error> {
        let mut list = SubscriptionList::default();
        let Some(wanted) = query.wanted() else {
            let SubscriptionQuery::Session(key) = query else { return Ok(list) };
            let detail = self.show_session(key).await?;
            let connected = detail.row.view.owner.is_some();
            match detail.subscriptions {
                None => list.missing.extend(detail.row.view.owner.map(|owner| node_name(owner.node))),
                Some(all) => list.rows = rows(key, all, connected),
            }
            return Ok(list);
        };
        let kept = self.dispatch.replica().read().subscribers(wanted, SUBSCRIPTIONS_MAX + 1);
        let row = |one: fulmar_broker::state::Subscriber| SubscriptionRow {
            key: one.key,
            subscription: one.subscription,
            connected: one.connected,
        };
        list.rows = kept.into_iter().map(row).collect();
        for (node, answer) in self.ask_all(self.live_nodes(), "subscribers", &query.json()).await {
            match answer {
                Ok(answer) => {
                    let told = answer["subscriptions"].as_array().into_iter().flatten();
                    let row = |(key, subscription)| SubscriptionRow { key, subscription, connected: true };
                    list.rows.extend(told.filter_map(subscription_of).map(row));
                }
                Err(_) => list.missing.push(node_name(node)),
            }
        }
        list.rows.sort_by(|a, b| (&a.key, &a.subscription.filter).cmp(&(&b.key, &b.subscription.filter)));
        list.rows.dedup_by(|a, b| (&a.key, &a.subscription.filter) == (&b.key, &b.subscription.filter));
        list.truncated = list.rows.len() > SUBSCRIPTIONS_MAX;
        list.rows.truncate(SUBSCRIPTIONS_MAX);
        Ok(list)
    }

    /// What only this node knows of it.
    pub(super) async fn own_subscribers(&self, document: &Value) -> Result<Value, String> {
        let query = SubscriptionQuery::of(document)?;
        let receivers = match (&query, query.wanted()) {
            (_, Some(wanted)) => self.dispatch.own_subscribers(wanted, SUBSCRIPTIONS_MAX + 1),
            (SubscriptionQuery::Session(key), None) => self.dispatch.receiver(key).into_iter().collect(),
            _ => Vec::new(),
        };
        let mut found = Vec::new();
        for receiver in receivers {
            let own = subscriptions(&receiver).await;
            let shared = query.wanted().is_none();
            let wanted = |own: &Subscription| {
                query.wanted().is_none_or(|wanted| wanted.includes(&own.filter))
                    && (shared || own.filter.shared().is_none())
            };
            found.extend(own.iter().filter(|own| wanted(own)).map(|own| {
                let mut json = subscription_json(own);
                json["session"] = receiver.key().to_string().into();
                json
            }));
        }
        Ok(json!({ "subscriptions": found }))
    }
}

fn rows(key: &SessionKey, all: Vec<Subscription>, connected: bool) -> Vec<SubscriptionRow> {
    all.into_iter().map(|subscription| SubscriptionRow { key: key.clone(), subscription, connected }).collect()
}

/// What a client of this node has subscribed to; nothing if its session is just ending.
async fn subscriptions(receiver: &Arc<Receiver>) -> Vec<Subscription> {
    let (tell, told) = tokio::sync::oneshot::channel();
    receiver.tell(|port| {
        port.subscriptions(Box::new(move |all| {
            // Whoever asked may have gone.
            let _ = tell.send(all);
        }));
    });
    tokio::time::timeout(ACTOR, told).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// A subscription as people see it.
#[must_use]
pub fn subscription_json(subscription: &Subscription) -> Value {
    let options = &subscription.options;
    json!({
        "filter": subscription.filter.as_str(),
        "qos": options.qos as u8,
        "no_local": options.no_local,
        "retain_as_published": options.retain_as_published,
        "retain_handling": options.retain_handling as u8,
        "subscription_id": subscription.id,
    })
}

/// And back, with whose it is.
pub(super) fn subscription_of(json: &Value) -> Option<(SessionKey, Subscription)> {
    let options = SubscriptionOptions {
        qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().find(|qos| json["qos"] == *qos as u8)?,
        no_local: json["no_local"] == true,
        retain_as_published: json["retain_as_published"] == true,
        retain_handling: [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never]
            .into_iter()
            .find(|handling| json["retain_handling"] == *handling as u8)?,
    };
    let filter = TopicFilter::new(json["filter"].as_str()?.to_owned()).ok()?;
    let id = json["subscription_id"].as_u64().and_then(|id| u32::try_from(id).ok());
    Some((key_of(json["session"].as_str()?)?, Subscription { filter, options, id }))
}
