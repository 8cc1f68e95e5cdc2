//! Rules and their actions.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Guarantee, Kind, Rule, RuleAction};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;
use crate::operations::{
    ActionChange, ActionFilter, Error, NewAction, NewRule, Page, RuleChange, RuleFilter, RuleTrial,
};

fn rule_json(rule: &Rule) -> Value {
    json!({
        "rule_id": rule.id,
        "rule_name": rule.name,
        "description": rule.description,
        "subject": { "resource": rule.subject.resource(), "event": rule.subject.event() },
        "app_type": if rule.app_id.is_empty() { "GLOBAL" } else { "APP" },
        "app_id": rule.app_id,
        "select": rule.select,
        "where": rule.filter,
        "active": rule.active,
        "guarantee": guarantee_name(rule.guarantee),
    })
}

fn guarantee_name(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::Live => "live",
        Guarantee::Durable => "durable",
    }
}

fn action_json(action: &RuleAction) -> Value {
    json!({
        "action_id": action.id,
        "rule_id": action.rule_id,
        "app_id": action.app_id,
        "channel": action.channel.as_str(),
        "channel_detail": serde_json::from_str::<Value>(&action.detail).unwrap_or_default(),
    })
}

/// Lists of rules and actions have count and marker beside them.
fn list_json<T>(name: &str, page: &Page<T>, json: impl Fn(&T) -> Value) -> Value {
    let mut list = json!({ "count": page.count });
    list[name] = page.items.iter().map(json).collect();
    if let Some(marker) = page.marker {
        list["marker"] = marker.to_string().into();
    }
    list
}

/// Whether only what is of one resource space is asked for, or only what is of all.
fn scoped(call: &Call) -> Result<Option<bool>, Fault> {
    match call.query("app_type") {
        None => Ok(None),
        Some("APP") => Ok(Some(true)),
        Some("GLOBAL") => Ok(Some(false)),
        Some(_) => Err(Fault::invalid("app_type must be GLOBAL or APP")),
    }
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let rule = call.operations().create_rule(&NewRule::read(&Input::of(&body)?)?).await?;
    Answer::created(&rule.id, rule_json(&rule))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let filter = RuleFilter {
        resource: call.query_owned("resource"),
        event: call.query_owned("event"),
        scoped: scoped(&call)?,
        app_id: call.query_owned("app_id"),
        name: call.query_owned("rule_name"),
        active: call.flag("active")?,
    };
    let page = call.operations().list_rules(&filter, &call.paging()?);
    Answer::ok(list_json("rules", &page, |rule| rule_json(rule)))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    Answer::ok(rule_json(&*call.operations().rule(call.param("rule_id"))?))
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let change = RuleChange::read(&Input::of(&body)?)?;
    Answer::ok(rule_json(&*call.operations().update_rule(call.param("rule_id"), &change).await?))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_rule(call.param("rule_id")).await?;
    Answer::empty()
}

/// Evaluates a rule as it is, or with other texts; sends nothing.
pub(super) async fn test(call: Call) -> Result<Answer, Fault> {
    let rule = call.operations().rule(call.param("rule_id"))?;
    let body = call.json()?;
    let trial = RuleTrial::read(&Input::of(&body)?)?;
    let texts = (trial.select.as_deref().unwrap_or(&rule.select), trial.filter.as_deref().unwrap_or(&rule.filter));
    tried(call.operations().try_rule(Some(rule.subject), texts, trial.event))
}

/// Evaluates texts that are no rule yet.
pub(super) async fn test_texts(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let trial = RuleTrial::read(&Input::of(&body)?)?;
    let texts = (trial.select.as_deref().unwrap_or_default(), trial.filter.as_deref().unwrap_or_default());
    tried(call.operations().try_rule(None, texts, trial.event))
}

fn tried(tried: Result<crate::operations::Tried, Error>) -> Result<Answer, Fault> {
    let tried = tried?;
    Answer::ok(json!({ "matched": tried.matched, "output": tried.output, "error": tried.error }))
}

pub(super) async fn status(call: Call) -> Result<Answer, Fault> {
    let status = call.operations().rule_status(call.param("rule_id"))?;
    let error = |last: Option<(std::sync::Arc<str>, u64)>| {
        last.map(|(message, at_ms)| json!({ "message": &*message, "time": time::iso_ms(at_ms) }))
    };
    let actions: Vec<Value> = status
        .backlogs
        .iter()
        .map(|(action, view)| {
            let mut json = json!({ "action_id": action.id, "channel": action.channel.as_str() });
            let figures = status.figures.iter().flat_map(|figures| &figures.actions);
            if let Some((_, figures, waiting)) = figures.into_iter().find(|(id, _, _)| *id == action.id) {
                json["passed"] = figures.passed.get().into();
                json["refused"] = figures.refused.get().into();
                json["retried"] = figures.retried.get().into();
                json["dropped"] = json!({ "queue_full": figures.dropped.get() });
                json["waiting"] = (*waiting).into();
                json["last_error"] = error(figures.error.get()).into();
            }
            if let Some(view) = view {
                json["backlog"] = json!({
                    "entries": view.entries,
                    "bytes": view.bytes,
                    "oldest_time": view.oldest_ms.map(time::iso_ms),
                    "owner_node_id": view.owner.map(|owner| format!("{:016x}", owner.node.0)),
                    "appended": view.counts.appended,
                    "settled": view.counts.settled,
                    "refused": view.counts.refused,
                    "dropped": {
                        "full": view.counts.full,
                        "expired": view.counts.expired,
                        "discarded": view.counts.discarded,
                    },
                });
            }
            json
        })
        .collect();
    let mut json = json!({
        "rule_id": status.rule.id,
        "active": status.rule.active,
        "guarantee": guarantee_name(status.rule.guarantee),
        "node_id": format!("{:016x}", status.node.0),
        "actions": actions,
    });
    if let Some(figures) = &status.figures {
        json["matched"] = figures.rule.matched.get().into();
        json["unmatched"] = figures.rule.unmatched.get().into();
        json["failed"] = figures.rule.failed.get().into();
        json["dropped"] = json!({ "queue_full": figures.rule.dropped.get() });
        json["waiting"] = figures.waiting.into();
        json["waiting_bytes"] = figures.waiting_bytes.into();
        json["last_error"] = error(figures.rule.error.get()).into();
    }
    Answer::ok(json)
}

pub(super) async fn create_action(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let action = call.operations().create_action(&NewAction::read(&Input::of(&body)?)?).await?;
    Answer::created(&action.id, action_json(&action))
}

pub(super) async fn list_actions(call: Call) -> Result<Answer, Fault> {
    let filter = ActionFilter {
        rule_id: call.query_owned("rule_id"),
        channel: call.query_owned("channel"),
        scoped: scoped(&call)?,
        app_id: call.query_owned("app_id"),
    };
    let page = call.operations().list_actions(&filter, &call.paging()?);
    Answer::ok(list_json("actions", &page, |action| action_json(action)))
}

pub(super) async fn show_action(call: Call) -> Result<Answer, Fault> {
    Answer::ok(action_json(&*call.operations().action(call.param("action_id"))?))
}

pub(super) async fn update_action(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let change = ActionChange::read(&Input::of(&body)?)?;
    Answer::ok(action_json(&*call.operations().update_action(call.param("action_id"), &change).await?))
}

pub(super) async fn delete_action(call: Call) -> Result<Answer, Fault> {
    call.operations().delete(Kind::RuleAction, call.param("action_id")).await?;
    Answer::empty()
}
