//! Rules at work: what an event makes each of them do, and the sinks that take it. Absent here: the rule language
//! (fulmar-rules), and how rules come to be (operations).
//!
//! | a rule that is | runs | is queued |
//! |---|---|---|
//! | live | in an actor on each node, for the events that came in there | in memory, for each rule and each action |
//! | durable | where the event came in, before it is acknowledged | in the replicated state, drained by one owner |

mod compiled;
mod durable;
mod figures;
mod keeper;
mod lifecycle;
mod live;
mod queue;
mod sample;
pub mod sensoro;
pub mod sink;
pub mod sinks;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fulmar_broker::plane::{self, backlog};
use fulmar_broker::state::command::{Command, Effect};
use fulmar_mqtt::TopicName;
use fulmar_platform::event::{Event, Subject};
use fulmar_platform::registry::{self, Record};
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::sync::mpsc;

use self::durable::Owner;
use self::keeper::{Keeper, Refresh};
use self::sample::Sample;
use self::sensoro::Sensoro;
use self::table::Table;
use crate::cluster::clock::wall_ms;
use crate::cluster::in_parts;
use crate::dispatch::Dispatch;
use crate::dispatch::events::Rules;

pub use self::compiled::BACKLOG_TTL_S;
pub use self::figures::{ActionFigures, RuleFigures};
pub use self::sample::{json_of, value_of};

/// Changes of the registry that wait for their rules on this node.
const CHANGES_MAX: usize = 16_384;

/// Of them, those that are told in one go.
const CHANGES_A_TURN: usize = 256;

/// Milliseconds between two words about backlogs that had to drop something.
const DROPS_SAID_EVERY_MS: u64 = 10_000;

/// What the actors share.
struct Inner {
    dispatch: Arc<Dispatch>,
    table: Table,
    /// Of backlogs, by name, each with the revision of its action.
    owners: Mutex<HashMap<String, (Owner, u64)>>,
    /// A refresh is on its way.
    refreshing: AtomicBool,
}

/// See the module.
pub struct RuleEngine {
    inner: Arc<Inner>,
    keeper: ActorRef<Refresh>,
    changes: mpsc::Sender<registry::Event>,
    drops: Drops,
    sensoro: Sensoro,
}

/// Entries that backlogs dropped and nobody has been told of.
#[derive(Default)]
struct Drops {
    entries: AtomicU64,
    said_ms: AtomicU64,
}

impl std::fmt::Debug for RuleEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleEngine").finish_non_exhaustive()
    }
}

impl RuleEngine {
    /// Starts the rules that are active, and hears of all that come.
    ///
    /// # Errors
    /// An actor did not start.
    pub async fn start(dispatch: Arc<Dispatch>) -> anyhow::Result<Arc<RuleEngine>> {
        let inner = Arc::new(Inner {
            dispatch: dispatch.clone(),
            table: Table::default(),
            owners: Mutex::default(),
            refreshing: AtomicBool::new(false),
        });
        let (keeper, _) = Actor::spawn(None, Keeper, inner.clone()).await?;
        let (changes, waiting) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(tell_of_changes(dispatch.clone(), waiting));
        sinks::drain::start(&dispatch);
        let sensoro = Sensoro::new(&dispatch);
        let engine = Arc::new(RuleEngine { inner, keeper, changes, drops: Drops::default(), sensoro });
        dispatch.obey(engine.clone());
        engine.inner.table.changed();
        engine.refresh();
        Ok(engine)
    }

    /// What an active rule has done on this node; `None` if it does not run here.
    #[must_use]
    pub fn figures(&self, rule_id: &str) -> Option<Figures> {
        let set = self.inner.table.current(&self.inner.dispatch);
        let rule = set.all().find(|rule| *rule.rule.id == *rule_id)?;
        let actions = rule.outlets.iter();
        let actions = actions.map(|outlet| (outlet.action.id.clone(), outlet.figures.clone(), outlet.queue.len()));
        Some(Figures {
            rule: rule.figures.clone(),
            waiting: rule.queue.len(),
            waiting_bytes: rule.queue.bytes(),
            actions: actions.collect(),
        })
    }

    fn refresh(&self) {
        if !self.inner.refreshing.swap(true, Ordering::AcqRel) {
            // The keeper lives as long as the node.
            let _ = self.keeper.cast(Refresh);
        }
    }

    fn registry_changed(&self, event: &registry::Event) {
        if let registry::Event::Created(record) | registry::Event::Updated(record) | registry::Event::Deleted(record) =
            event
            && matches!(record, Record::Rule(_) | Record::RuleAction(_))
        {
            self.inner.table.changed();
            self.refresh();
        }
        let Some((subject, id)) = lifecycle::subject(event) else { return };
        if !self.wants(subject, lifecycle::app_id(event)) || !self.inner.dispatch.chosen(id) {
            return;
        }
        if self.changes.try_send(event.clone()).is_err() {
            self.inner.dispatch.metrics().rule_events.dropped.inc();
        }
    }

    fn backlog_changed(&self, event: &backlog::Event) {
        match event {
            backlog::Event::Grown { name, .. } | backlog::Event::Released { name } => {
                if let Some((owner, _)) = self.inner.owners.lock().get(&**name) {
                    owner.wake();
                }
            }
            backlog::Event::Dropped { name, reason, entries, .. } => {
                if self.inner.dispatch.chosen(name) {
                    self.inner.dispatch.metrics().backlog_dropped(*reason, *entries);
                    self.drops.note(name, *reason, *entries);
                }
            }
        }
    }

    fn wake_owners(&self) {
        self.inner.owners.lock().values().for_each(|(owner, _)| owner.wake());
    }
}

/// What a rule has done on one node.
pub struct Figures {
    pub rule: Arc<RuleFigures>,
    /// Events that wait for it, and their bytes.
    pub waiting: usize,
    pub waiting_bytes: usize,
    /// By action; with what waits for it in memory.
    pub actions: Vec<(Box<str>, Arc<ActionFigures>, usize)>,
}

impl Rules for RuleEngine {
    fn offer(&self, event: &Event, topic: Option<&TopicName>, trace: u64) -> Vec<Command> {
        let mut commands = self.sensoro.offer(event);
        let set = self.inner.table.current(&self.inner.dispatch);
        let mut rules = set.matching(event.subject, &event.app_id).peekable();
        if rules.peek().is_none() {
            return commands;
        }
        let (metrics, now_ms) = (self.inner.dispatch.metrics(), wall_ms());
        let sample = Arc::new(Sample::new(event.clone(), topic.map(TopicName::detached), trace));
        let mut cost = None;
        for rule in rules {
            if rule.live() {
                let cost = *cost.get_or_insert_with(|| sample.cost());
                let dropped = rule.queue.push(sample.clone(), cost);
                if dropped > 0 {
                    rule.figures.dropped.add(dropped);
                    metrics.rule_events.dropped.inc_by(dropped);
                }
            } else if let Some(body) = rule.evaluate_traced(&sample, &self.inner.dispatch, now_ms) {
                commands.extend(rule.appends(&sample, &body, self.inner.dispatch.now().log));
            }
        }
        commands
    }

    fn wants(&self, subject: Subject, app_id: &str) -> bool {
        let set = self.inner.table.current(&self.inner.dispatch);
        set.matching(subject, app_id).next().is_some() || self.sensoro.wants(subject)
    }

    fn heard(&self, effect: &Effect) {
        match effect {
            Effect::Registry(event) => self.registry_changed(event),
            Effect::Plane(plane::Event::Backlog(event)) => self.backlog_changed(event),
            Effect::NodeUp { .. } | Effect::NodeDown { .. } => {
                self.refresh();
                self.wake_owners();
            }
            _ => {}
        }
    }

    fn all_changed(&self) {
        self.inner.table.changed();
        self.refresh();
        self.wake_owners();
    }
}

impl Drops {
    /// Says at most every so often what is gone.
    fn note(&self, name: &str, reason: backlog::Dropped, entries: u64) {
        let (now_ms, before) = (wall_ms(), self.said_ms.load(Ordering::Relaxed));
        let due = now_ms.saturating_sub(before) >= DROPS_SAID_EVERY_MS;
        self.entries.fetch_add(entries, Ordering::Relaxed);
        if due && self.said_ms.compare_exchange(before, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let entries = self.entries.swap(0, Ordering::Relaxed);
            tracing::warn!(backlog = name, ?reason, entries, "backlogs dropped what no sink has taken");
        }
    }
}

/// Tells the rules what has happened in the registry, in order, as fast as durable ones are committed.
async fn tell_of_changes(dispatch: Arc<Dispatch>, mut waiting: mpsc::Receiver<registry::Event>) {
    let mut changes = Vec::new();
    while waiting.recv_many(&mut changes, CHANGES_A_TURN).await > 0 {
        let registry = dispatch.replica().read().registry().clone();
        let mut commands = Vec::new();
        for change in changes.drain(..) {
            let id = uuid::Uuid::new_v4().to_string();
            if let Some(event) = lifecycle::event(&change, &registry, wall_ms(), &id) {
                commands.extend(dispatch.offer_event(&event));
            }
        }
        for part in in_parts(commands) {
            if let Err(error) = dispatch.replica().commit(part).await {
                tracing::error!(%error, "events of the registry were not committed for durable rules");
            }
        }
    }
}
