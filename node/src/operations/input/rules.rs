//! What people write about rules and their actions.

use fulmar_platform::event::Subject;
use fulmar_platform::registry::Guarantee;

use super::super::{ActionChange, Error, NewAction, NewRule, RuleChange, RuleTrial};
use super::Input;

const GUARANTEES: [(&str, Guarantee); 2] = [("live", Guarantee::Live), ("durable", Guarantee::Durable)];

impl Input<'_> {
    /// `subject`: a resource and what becomes of it.
    fn subject(&self) -> Result<Option<Subject>, Error> {
        let Some(subject) = self.object("subject")? else { return Ok(None) };
        let (resource, event) = (subject.required("resource")?, subject.required("event")?);
        match Subject::parse(&resource, &event) {
            Some(known) => Ok(Some(known)),
            None if Subject::ALL.iter().any(|known| known.resource() == resource) => {
                Err(subject.wrong("event", format!("is none of {resource}")))
            }
            None => {
                let mut known: Vec<&str> = Subject::ALL.iter().map(|subject| subject.resource()).collect();
                known.dedup();
                Err(subject.wrong("resource", format!("must be {}", known.join(" or "))))
            }
        }
    }
}

impl NewRule {
    /// # Errors
    /// A member is missing or not as it must be.
    pub fn read(input: &Input<'_>) -> Result<NewRule, Error> {
        let subject = input.subject()?.ok_or_else(|| input.wrong("subject", "is required"))?;
        let scoped = input.word("app_type", &[("GLOBAL", false), ("APP", true)])?.unwrap_or(false);
        let app_id = input.text("app_id")?;
        Ok(NewRule {
            name: input.text("rule_name")?.unwrap_or_default(),
            description: input.text("description")?.unwrap_or_default(),
            subject,
            scope: scoped.then_some(app_id),
            select: input.text("select")?.unwrap_or_default(),
            filter: input.text("where")?.unwrap_or_default(),
            guarantee: input.word("guarantee", &GUARANTEES)?.unwrap_or_default(),
        })
    }
}

impl RuleChange {
    /// # Errors
    /// A member is not as it must be.
    pub fn read(input: &Input<'_>) -> Result<RuleChange, Error> {
        Ok(RuleChange {
            name: input.text("rule_name")?,
            description: input.text("description")?,
            select: input.text("select")?,
            filter: input.text("where")?,
            active: input.flag("active")?,
            subject: input.subject()?,
            guarantee: input.word("guarantee", &GUARANTEES)?,
        })
    }
}

impl NewAction {
    /// # Errors
    /// A member is missing or not as it must be.
    pub fn read(input: &Input<'_>) -> Result<NewAction, Error> {
        let detail = input.value("channel_detail").cloned();
        Ok(NewAction {
            rule_id: input.required("rule_id")?,
            channel: input.required("channel")?,
            detail: detail.ok_or_else(|| input.wrong("channel_detail", "is required"))?,
        })
    }
}

impl ActionChange {
    /// # Errors
    /// A member is not as it must be.
    pub fn read(input: &Input<'_>) -> Result<ActionChange, Error> {
        Ok(ActionChange { channel: input.text("channel")?, detail: input.value("channel_detail").cloned() })
    }
}

impl RuleTrial {
    /// # Errors
    /// A member is missing or not as it must be.
    pub fn read(input: &Input<'_>) -> Result<RuleTrial, Error> {
        let event = input.value("event").filter(|event| event.is_object());
        Ok(RuleTrial {
            select: input.text("select")?,
            filter: input.text("where")?,
            event: event.cloned().ok_or_else(|| input.wrong("event", "must be an object"))?,
        })
    }
}
