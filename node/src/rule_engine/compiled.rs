//! A rule that is ready to run, and the rules of a node by what they listen to.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::LogTime;
use fulmar_broker::plane::{self, backlog};
use fulmar_broker::state::command::Command;
use fulmar_platform::event::Subject;
use fulmar_platform::registry::{Guarantee, Rule, RuleAction};
use fulmar_rules::{Filter, Projection};

use super::figures::{ActionFigures, RuleFigures};
use super::queue::Queue;
use super::sample::{Sample, text_of};
use super::sink::Parcel;
use crate::dispatch::Dispatch;
use crate::telemetry::Metrics;

/// Seconds that what a durable rule has made waits for its sink.
pub const BACKLOG_TTL_S: u64 = 24 * 3600;

/// Bytes of what a rule makes of one event: an entry of the log must hold it.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// Events that wait for one live rule on one node, and their bytes.
const EVENTS_MAX: usize = 10_000;
const EVENT_BYTES_MAX: usize = 16 << 20;

/// What waits for one action of a live rule on one node, and its bytes.
const PARCELS_MAX: usize = 10_000;
const PARCEL_BYTES_MAX: usize = 16 << 20;

/// An action, with what outlives its next change.
pub(super) struct Outlet {
    pub(super) action: Arc<RuleAction>,
    pub(super) revision: u64,
    pub(super) figures: Arc<ActionFigures>,
    /// Of a live rule.
    pub(super) queue: Arc<Queue<Parcel>>,
}

impl Outlet {
    pub(super) fn new(action: Arc<RuleAction>, revision: u64, before: Option<&Outlet>) -> Outlet {
        let (figures, queue) = match before {
            Some(before) => (before.figures.clone(), before.queue.clone()),
            None => (Arc::default(), Arc::new(Queue::new(PARCELS_MAX, PARCEL_BYTES_MAX))),
        };
        Outlet { action, revision, figures, queue }
    }

    /// The name of its backlog.
    pub(super) fn backlog(&self) -> String {
        format!("rule/{}", self.action.id)
    }

    /// Receivers tell repetitions by it. Not by the id that the device has given: nobody keeps devices from giving one twice.
    fn key(&self, sample: &Sample) -> Box<str> {
        format!("{}/{}", sample.id, self.action.id).into()
    }
}

/// A rule that is ready to run.
pub(super) struct Compiled {
    pub(super) rule: Arc<Rule>,
    pub(super) revision: u64,
    /// `None`: every event of its subject and scope.
    filter: Option<Filter>,
    /// `None`: the whole event.
    projection: Option<Projection>,
    pub(super) outlets: Vec<Arc<Outlet>>,
    pub(super) figures: Arc<RuleFigures>,
    /// Of a live rule.
    pub(super) queue: Arc<Queue<Arc<Sample>>>,
}

impl Compiled {
    /// # Errors
    /// Its text is no rule.
    pub(super) fn new(
        rule: Arc<Rule>,
        revision: u64,
        outlets: Vec<Arc<Outlet>>,
        before: Option<&Compiled>,
    ) -> Result<Compiled, String> {
        let filter = (!rule.filter.is_empty()).then(|| Filter::parse(&rule.filter)).transpose();
        let filter = filter.map_err(|error| format!("where: {error}"))?;
        let projection = (!rule.select.is_empty()).then(|| Projection::parse(&rule.select)).transpose();
        let projection = projection.map_err(|error| format!("select: {error}"))?;
        let (figures, queue) = match before {
            Some(before) => (before.figures.clone(), before.queue.clone()),
            None => (Arc::default(), Arc::new(Queue::new(EVENTS_MAX, EVENT_BYTES_MAX))),
        };
        Ok(Compiled { rule, revision, filter, projection, outlets, figures, queue })
    }

    pub(super) fn live(&self) -> bool {
        self.rule.guarantee == Guarantee::Live
    }

    /// Whether it sees events of a resource space.
    pub(super) fn sees(&self, app_id: &str) -> bool {
        self.rule.app_id.is_empty() || *self.rule.app_id == *app_id
    }

    /// What it makes of an event; `None` if it does not want it.
    pub(super) fn evaluate(&self, sample: &Sample, metrics: &Metrics, now_ms: u64) -> Option<Bytes> {
        let failed = |problem: &str| {
            self.figures.failed.add(1);
            self.figures.error.set(problem, now_ms);
            metrics.rule_events.failed.inc();
        };
        match self.run(sample) {
            Ok(Some(body)) if body.len() > BODY_BYTES_MAX => {
                failed(&format!("what it makes has {} bytes; it may have {BODY_BYTES_MAX}", body.len()));
                None
            }
            Ok(Some(body)) => {
                self.figures.matched.add(1);
                metrics.rule_events.matched.inc();
                Some(body)
            }
            Ok(None) => {
                self.figures.unmatched.add(1);
                metrics.rule_events.unmatched.inc();
                None
            }
            Err(overrun) => {
                failed(&overrun.to_string());
                None
            }
        }
    }

    /// As [`Compiled::evaluate`], and writes down what came of it where somebody traces the message, or this rule.
    pub(super) fn evaluate_traced(&self, sample: &Sample, dispatch: &Dispatch, now_ms: u64) -> Option<Bytes> {
        let failed = self.figures.failed.get();
        let body = self.evaluate(sample, dispatch.metrics(), now_ms);
        if dispatch.insight().armed() {
            let answer = match &body {
                Some(_) => "matched",
                None if self.figures.failed.get() > failed => "failed",
                None => "filtered",
            };
            let device = sample.event.device.as_ref().map_or("", |device| &device.id);
            let bytes = body.as_ref().map_or(0, Bytes::len);
            dispatch.ruled(sample.trace, device, &self.rule.id, (answer, &self.rule.filter, bytes));
        }
        body
    }

    fn run(&self, sample: &Sample) -> Result<Option<Bytes>, fulmar_rules::Overrun> {
        if let Some(filter) = &self.filter
            && !filter.matches(sample.value())?
        {
            return Ok(None);
        }
        Ok(Some(match &self.projection {
            Some(projection) => text_of(&projection.apply(sample.value())?),
            None => sample.whole(),
        }))
    }

    /// What its actions are to take of an event that it has made this of.
    pub(super) fn parcels(&self, sample: &Sample, body: &Bytes) -> impl Iterator<Item = (&Arc<Outlet>, Parcel)> {
        self.outlets.iter().map(move |outlet| {
            let (key, topic, at_ms) = (outlet.key(sample), sample.topic.clone(), sample.event.at_ms);
            (outlet, Parcel { key, body: body.clone(), topic, at_ms })
        })
    }

    /// As [`Compiled::parcels`], to be committed.
    pub(super) fn appends(&self, sample: &Sample, body: &Bytes, now: LogTime) -> Vec<Command> {
        let append = |(outlet, parcel): (&Arc<Outlet>, Parcel)| {
            let Parcel { key, body, topic, at_ms } = parcel;
            let entry = backlog::Entry { key, body, topic, at_ms, expires_at: now.plus_s(BACKLOG_TTL_S) };
            let name = outlet.backlog().into();
            let append = backlog::Change::Append { name, entries: vec![entry] };
            Command::Plane(Box::new(plane::Change::Backlog(append)))
        };
        self.parcels(sample, body).map(append).collect()
    }
}

/// The active rules, by what they listen to.
#[derive(Default)]
pub(super) struct RuleSet {
    by_subject: [Vec<Arc<Compiled>>; Subject::ALL.len()],
}

impl RuleSet {
    pub(super) fn of(rules: impl Iterator<Item = Arc<Compiled>>) -> RuleSet {
        let mut set = RuleSet::default();
        for rule in rules {
            if let Some(rules) = set.by_subject.get_mut(rule.rule.subject as usize) {
                rules.push(rule);
            }
        }
        set
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Compiled>> {
        self.by_subject.iter().flatten()
    }

    /// Those that see an event.
    pub(super) fn matching<'a>(&'a self, subject: Subject, app_id: &'a str) -> impl Iterator<Item = &'a Arc<Compiled>> {
        let rules = self.by_subject.get(subject as usize).map(Vec::as_slice).unwrap_or_default();
        rules.iter().filter(move |rule| rule.sees(app_id))
    }
}

#[cfg(test)]
mod tests {
    use fulmar_platform::event::Event;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_too_large_for_the_log_is_counted_and_named() {
        let rule = Rule {
            id: "r".into(),
            name: "n".into(),
            description: Box::default(),
            subject: Subject::MessageReport,
            app_id: Box::default(),
            select: Box::default(),
            filter: Box::default(),
            active: true,
            guarantee: Guarantee::Durable,
            created_ms: 0,
        };
        let rule = Compiled::new(Arc::new(rule), 1, Vec::new(), None).expect("a rule");
        // A control character takes six bytes as JSON has it: what is small for a device need not be so here.
        let event = |characters: usize| Event {
            subject: Subject::MessageReport,
            app_id: Box::default(),
            device: None,
            request_id: "r".into(),
            at_ms: 0,
            body: json!({ "content": "\u{1}".repeat(characters) }).into(),
            flat: Value::Null.into(),
        };
        let metrics = Metrics::default();
        let body = rule.evaluate(&Sample::new(event(40_000), None, 0), &metrics, 7).expect("within the bound");
        assert!(body.len() > 240_000 && body.len() <= BODY_BYTES_MAX);
        assert_eq!(rule.evaluate(&Sample::new(event(50_000), None, 0), &metrics, 7), None);
        assert_eq!((rule.figures.matched.get(), rule.figures.failed.get()), (1, 1));
        let (error, at_ms) = rule.figures.error.get().expect("an error");
        assert!(error.contains("262144") && at_ms == 7, "{error}");
    }
}
