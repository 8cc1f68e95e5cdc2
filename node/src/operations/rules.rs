//! Rules and their actions.

use std::sync::Arc;

use fulmar_broker::NodeId;
use fulmar_broker::plane::backlog;
use fulmar_platform::event::Subject;
use fulmar_platform::registry::{Channel, Guarantee, Kept, Kind, ObjectId, Record, Registry, Rule, RuleAction};
use fulmar_rules::{Filter, Projection};
use serde_json::Value;

use super::apps::app_of;
use super::{Error, Operations, Page, Paging, Target, check, page};
use crate::rule_engine::sink::Sink;
use crate::rule_engine::{Figures, json_of, value_of};

/// Actions of one rule.
const ACTIONS_MAX: u32 = 10;

/// Bytes of the text of `channel_detail`.
const DETAIL_BYTES_MAX: usize = 16 * 1024;

/// Channels of the vendor's that there is nothing for here.
const UNSUPPORTED: [&str; 10] = [
    "AMQP_FORWARDING",
    "DIS_FORWARDING",
    "OBS_FORWARDING",
    "ROMA_FORWARDING",
    "MYSQL_FORWARDING",
    "INFLUXDB_FORWARDING",
    "FUNCTIONGRAPH_FORWARDING",
    "MRS_KAFKA_FORWARDING",
    "DMS_ROCKETMQ_FORWARDING",
    "SMN_FORWARDING",
];

/// A rule to add; it is not active.
#[derive(Debug, Clone)]
pub struct NewRule {
    pub name: String,
    pub description: String,
    pub subject: Subject,
    /// Whether it sees one resource space only: this one, or the default one.
    pub scope: Option<Option<String>>,
    pub select: String,
    /// `where`.
    pub filter: String,
    pub guarantee: Guarantee,
}

/// What may be changed; what is missing stays.
#[derive(Debug, Clone, Default)]
pub struct RuleChange {
    pub name: Option<String>,
    pub description: Option<String>,
    /// Both or none.
    pub select: Option<String>,
    pub filter: Option<String>,
    pub active: Option<bool>,
    /// Only as it is.
    pub subject: Option<Subject>,
    pub guarantee: Option<Guarantee>,
}

#[derive(Debug, Clone)]
pub struct NewAction {
    pub rule_id: String,
    pub channel: String,
    pub detail: Value,
}

#[derive(Debug, Clone, Default)]
pub struct ActionChange {
    pub channel: Option<String>,
    pub detail: Option<Value>,
}

/// Which rules are listed.
#[derive(Debug, Clone, Default)]
pub struct RuleFilter {
    pub resource: Option<String>,
    pub event: Option<String>,
    /// Of one resource space (`true`), or of all of them.
    pub scoped: Option<bool>,
    pub app_id: Option<String>,
    pub name: Option<String>,
    pub active: Option<bool>,
}

/// Which actions are listed.
#[derive(Debug, Clone, Default)]
pub struct ActionFilter {
    pub rule_id: Option<String>,
    pub channel: Option<String>,
    pub scoped: Option<bool>,
    pub app_id: Option<String>,
}

/// A sample event, and texts to try with it in place of those of a rule.
#[derive(Debug, Clone)]
pub struct RuleTrial {
    pub select: Option<String>,
    pub filter: Option<String>,
    pub event: Value,
}

/// What a rule makes of a sample event.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub matched: bool,
    /// What its actions would be given; `None` if it does not match.
    pub output: Option<Value>,
    /// Why it could not be evaluated, or why the event is none for it.
    pub error: Option<String>,
}

/// How an active rule fares on the node that is asked.
pub struct RuleStatus {
    pub rule: Arc<Rule>,
    pub node: NodeId,
    /// `None`: it is not active.
    pub figures: Option<Figures>,
    /// By action, oldest first: in the whole cluster.
    pub backlogs: Vec<(Arc<RuleAction>, Option<backlog::View>)>,
}

fn filter_of(text: &str) -> Result<Filter, Error> {
    Filter::parse(text).map_err(|error| Error::invalid("where", error.to_string()))
}

fn projection_of(text: &str) -> Result<Projection, Error> {
    Projection::parse(text).map_err(|error| Error::invalid("select", error.to_string()))
}

fn check_rule(rule: &Rule) -> Result<(), Error> {
    check::text("rule_name", &rule.name, 0, 256)?;
    check::text("description", &rule.description, 0, 256)?;
    filter_of(&rule.filter)?;
    projection_of(&rule.select).map(|_| ())
}

fn channel_of(name: &str) -> Result<Channel, Error> {
    let known = Channel::parse(name);
    known.ok_or_else(|| match UNSUPPORTED.contains(&name) {
        true => Error::invalid("channel", format!("{name} is unsupported")),
        false => {
            let names: Vec<&str> = Channel::ALL.iter().map(|channel| channel.as_str()).collect();
            Error::invalid("channel", format!("must be {}", names.join(" or ")))
        }
    })
}

fn check_detail(channel: Channel, detail: &Value) -> Result<Box<str>, Error> {
    let wrong = |(member, problem): (String, String)| Error::invalid(&format!("channel_detail.{member}"), problem);
    Sink::check(channel, detail).map_err(wrong)?;
    let text = detail.to_string();
    if text.len() > DETAIL_BYTES_MAX {
        return Err(Error::invalid("channel_detail", format!("must have at most {DETAIL_BYTES_MAX} bytes")));
    }
    Ok(text.into())
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Operations {
    /// # Errors
    /// Something is unusable, or the resource space is not there.
    pub async fn create_rule(&self, new: &NewRule) -> Result<Arc<Rule>, Error> {
        let app_id = match &new.scope {
            None => "".into(),
            Some(app) => self.read(|registry| app_of(registry, app.as_deref()).map(|app| app.record.id.clone()))?,
        };
        let id = new_id();
        let rule = Rule {
            id: id.as_str().into(),
            name: new.name.as_str().into(),
            description: new.description.as_str().into(),
            subject: new.subject,
            app_id,
            select: new.select.as_str().into(),
            filter: new.filter.as_str().into(),
            active: false,
            guarantee: new.guarantee,
            created_ms: self.now_ms(),
        };
        check_rule(&rule)?;
        let rule = Arc::new(rule);
        self.create(Target { kind: Kind::Rule, id: &id }, Record::Rule(rule.clone())).await?;
        Ok(rule)
    }

    /// # Errors
    /// It is not there.
    pub fn rule(&self, id: &str) -> Result<Arc<Rule>, Error> {
        let found = self.read(|registry| registry.rule(id).map(|kept| kept.record.clone()));
        found.ok_or_else(|| Error::missing(Kind::Rule, id))
    }

    /// # Errors
    /// It is not there, something is unusable, or is not to be changed.
    pub async fn update_rule(&self, id: &str, change: &RuleChange) -> Result<Arc<Rule>, Error> {
        if change.select.is_some() != change.filter.is_some() {
            let missing = if change.select.is_some() { "where" } else { "select" };
            return Err(Error::invalid(missing, "is required: select and where are changed together"));
        }
        self.revise(Target { kind: Kind::Rule, id }, |registry| {
            let kept = registry.rule(id).ok_or_else(|| Error::missing(Kind::Rule, id))?;
            let mut rule = (*kept.record).clone();
            if change.subject.is_some_and(|subject| subject != rule.subject) {
                return Err(Error::invalid("subject", "cannot be changed"));
            }
            if change.guarantee.is_some_and(|guarantee| guarantee != rule.guarantee) {
                return Err(Error::invalid("guarantee", "cannot be changed"));
            }
            for (member, new) in [
                (&mut rule.name, &change.name),
                (&mut rule.description, &change.description),
                (&mut rule.select, &change.select),
                (&mut rule.filter, &change.filter),
            ] {
                if let Some(new) = new {
                    *member = new.as_str().into();
                }
            }
            rule.active = change.active.unwrap_or(rule.active);
            check_rule(&rule)?;
            let rule = Arc::new(rule);
            Ok((Record::Rule(rule.clone()), kept.revision, rule))
        })
        .await
    }

    /// With its actions.
    ///
    /// # Errors
    /// It is not there.
    pub async fn delete_rule(&self, id: &str) -> Result<(), Error> {
        self.rule(id)?;
        loop {
            let actions = self.read(|registry| actions_of(registry, id));
            for (_, action) in actions {
                match self.delete(Kind::RuleAction, &action.id).await {
                    Ok(()) | Err(Error::Missing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.delete(Kind::Rule, id).await {
                Err(Error::InUse { .. }) => {} // another action has come in between
                done => return done,
            }
        }
    }

    /// A page of rules, newest first.
    #[must_use]
    pub fn list_rules(&self, filter: &RuleFilter, paging: &Paging) -> Page<Arc<Rule>> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let wanted = |kept: &&Kept<Rule>| {
            let rule = &kept.record;
            is(&filter.resource, rule.subject.resource())
                && is(&filter.event, rule.subject.event())
                && is(&filter.app_id, &rule.app_id)
                && is(&filter.name, &rule.name)
                && filter.scoped.is_none_or(|scoped| scoped != rule.app_id.is_empty())
                && filter.active.is_none_or(|active| active == rule.active)
        };
        let mut rules: Vec<(ObjectId, Arc<Rule>)> =
            self.read(|registry| registry.rules().filter(wanted).map(|kept| (kept.oid, kept.record.clone())).collect());
        rules.sort_unstable_by_key(|(oid, _)| std::cmp::Reverse(*oid));
        page(rules.into_iter(), paging)
    }

    /// # Errors
    /// The rule is not there or has too many, or something is unusable.
    pub async fn create_action(&self, new: &NewAction) -> Result<Arc<RuleAction>, Error> {
        let channel = channel_of(&new.channel)?;
        let detail = check_detail(channel, &new.detail)?;
        let (rule, actions) = self
            .read(|registry| {
                let rule = registry.rule(&new.rule_id)?.record.clone();
                Some((rule, registry.uses(Kind::Rule, &new.rule_id, Kind::RuleAction)))
            })
            .ok_or_else(|| Error::missing(Kind::Rule, &new.rule_id))?;
        if actions >= ACTIONS_MAX {
            return Err(Error::invalid("rule_id", format!("has {ACTIONS_MAX} actions, which is the most")));
        }
        let id = new_id();
        let action = Arc::new(RuleAction {
            id: id.as_str().into(),
            rule_id: rule.id.clone(),
            app_id: rule.app_id.clone(),
            channel,
            detail,
            created_ms: self.now_ms(),
        });
        match self.create(Target { kind: Kind::RuleAction, id: &id }, Record::RuleAction(action.clone())).await {
            Ok(_) => Ok(action),
            // It was there a moment ago.
            Err(Error::Invalid { .. }) => Err(Error::missing(Kind::Rule, &new.rule_id)),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// It is not there.
    pub fn action(&self, id: &str) -> Result<Arc<RuleAction>, Error> {
        let found = self.read(|registry| registry.rule_action(id).map(|kept| kept.record.clone()));
        found.ok_or_else(|| Error::missing(Kind::RuleAction, id))
    }

    /// # Errors
    /// It is not there, or something is unusable.
    pub async fn update_action(&self, id: &str, change: &ActionChange) -> Result<Arc<RuleAction>, Error> {
        self.revise(Target { kind: Kind::RuleAction, id }, |registry| {
            let kept = registry.rule_action(id).ok_or_else(|| Error::missing(Kind::RuleAction, id))?;
            let mut action = (*kept.record).clone();
            let channel = change.channel.as_deref().map(channel_of).transpose()?.unwrap_or(action.channel);
            match &change.detail {
                Some(detail) => action.detail = check_detail(channel, detail)?,
                None if channel != action.channel => return Err(Error::invalid("channel_detail", "is required")),
                None => {}
            }
            action.channel = channel;
            let action = Arc::new(action);
            Ok((Record::RuleAction(action.clone()), kept.revision, action))
        })
        .await
    }

    /// A page of actions, newest first.
    #[must_use]
    pub fn list_actions(&self, filter: &ActionFilter, paging: &Paging) -> Page<Arc<RuleAction>> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let wanted = |kept: &&Kept<RuleAction>| {
            let action = &kept.record;
            is(&filter.rule_id, &action.rule_id)
                && is(&filter.channel, action.channel.as_str())
                && is(&filter.app_id, &action.app_id)
                && filter.scoped.is_none_or(|scoped| scoped != action.app_id.is_empty())
        };
        let mut actions: Vec<(ObjectId, Arc<RuleAction>)> = self.read(|registry| {
            registry.rule_actions().filter(wanted).map(|kept| (kept.oid, kept.record.clone())).collect()
        });
        actions.sort_unstable_by_key(|(oid, _)| std::cmp::Reverse(*oid));
        page(actions.into_iter(), paging)
    }

    /// What a `select` and a `where` make of an event in the form in which applications get it. `subject`: what the rule
    /// listens to, if it is known. Sends nothing.
    ///
    /// # Errors
    /// A text is no rule.
    pub fn try_rule(
        &self,
        subject: Option<Subject>,
        (select, filter): (&str, &str),
        event: Value,
    ) -> Result<Tried, Error> {
        let (projection, filter) = (projection_of(select)?, filter_of(filter)?);
        let unmatched = |error| Tried { matched: false, output: None, error };
        if let Some(subject) = subject {
            let named = |name: &str| event.get(name).and_then(Value::as_str);
            let found = named("resource").zip(named("event"));
            if found.is_some_and(|found| found != (subject.resource(), subject.event())) {
                return Ok(unmatched(Some(format!("the rule listens to {subject}"))));
            }
        }
        let event = value_of(event);
        match filter.matches(&event).and_then(|matched| matched.then(|| projection.apply(&event)).transpose()) {
            Ok(Some(output)) => Ok(Tried { matched: true, output: Some(json_of(&output)), error: None }),
            Ok(None) => Ok(unmatched(None)),
            Err(overrun) => Ok(unmatched(Some(overrun.to_string()))),
        }
    }

    /// How a rule fares on this node; its backlogs are the cluster's.
    ///
    /// # Errors
    /// It is not there.
    pub fn rule_status(&self, id: &str) -> Result<RuleStatus, Error> {
        let rule = self.rule(id)?;
        let state = self.dispatch.replica().read();
        let mut actions = actions_of(state.registry(), id);
        actions.sort_unstable_by_key(|(oid, _)| *oid);
        let backlogs = actions.into_iter().map(|(_, action)| {
            let view = state.plane().backlogs.view(&format!("{}{}", backlog::ACTION_PREFIX, action.id));
            (action, view)
        });
        let backlogs = backlogs.collect();
        drop(state);
        let node = self.dispatch.replica().run().0;
        Ok(RuleStatus { rule, node, figures: self.rules.figures(id), backlogs })
    }
}

fn actions_of(registry: &Registry, rule: &str) -> Vec<(ObjectId, Arc<RuleAction>)> {
    let of = registry.rule_actions().filter(|action| *action.record.rule_id == *rule);
    of.map(|action| (action.oid, action.record.clone())).collect()
}
