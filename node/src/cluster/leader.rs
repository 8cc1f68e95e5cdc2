//! What only the leader does: it renews leases and says how far everybody has come, declares runs dead whose lease has
//! ended, and has what is due by log time committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fulmar_broker::state::command::Command;
use fulmar_broker::{Generation, LogTime, NodeId};
use fulmar_proto::peer::v1::{LeaseRequest, Renewal};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::context::Context;
use super::lease::{Asked, ELECTION_MS, LEASE_MS, Table, boottime_ms, held_until};

/// Between two looks at the leases.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Between two looks at what is due by log time.
const TIMERS_EVERY: Duration = Duration::from_millis(200);

/// Timer commands that one entry carries at most.
const DUE_MAX: usize = 256;

/// Milliseconds by which log time may jump forward when leadership changes, unless a majority of clocks agree.
const JUMP_MS_MAX: u64 = 60_000;

/// The leases, while this node leads.
pub(super) struct Leadership {
    table: Mutex<Option<(u64, Table)>>,
    /// Term, and the entry that every live node has applied.
    stable: watch::Sender<(u64, u64)>,
    /// What the voters' wall clocks showed at the latest election, as differences to this node's monotonic clock.
    walls: Mutex<Vec<i64>>,
    /// The latest term in which this node was asked to lead by the leader before.
    succeeds: AtomicU64,
    /// Nothing is appended, because leadership is being handed over.
    handing: AtomicBool,
    /// This node is about to go: it would rather not lead.
    leaving: AtomicBool,
}

impl Leadership {
    #[must_use]
    pub(super) fn new() -> Leadership {
        Leadership {
            table: Mutex::default(),
            stable: watch::Sender::new((0, 0)),
            walls: Mutex::default(),
            succeeds: AtomicU64::new(0),
            handing: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// Whether this node is about to go.
    pub(super) fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether leadership is being handed over: nothing may be appended.
    pub(super) fn handing(&self) -> bool {
        self.handing.load(Ordering::Acquire)
    }

    pub(super) fn hand(&self, handing: bool) {
        self.handing.store(handing, Ordering::Release);
    }

    /// The leader before asks this node to stand in this term.
    pub(super) fn succeed(&self, term: u64) {
        self.succeeds.fetch_max(term, Ordering::AcqRel);
    }

    /// Term and stable index, as they change.
    pub(super) fn stable(&self) -> watch::Receiver<(u64, u64)> {
        self.stable.subscribe()
    }

    /// Takes note of the voters' wall clocks, `ms` of each, all read at about this moment.
    pub(super) fn note_walls(&self, context: &Context, walls: &[u64]) {
        let now = context.clock.now().mono_ms;
        let difference = |wall: &u64| i64::try_from(*wall).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX);
        *self.walls.lock() = walls.iter().map(difference).collect();
    }

    /// Whether this term has begun here, with its table and its log time.
    pub(super) fn begun(&self, term: u64) -> bool {
        self.table.lock().as_ref().is_some_and(|(of, _)| *of == term)
    }

    /// Whether the membership of a node is about to end: it is not renewed meanwhile.
    pub(super) fn set_leaving(&self, node: NodeId, leaves: bool) {
        if let Some((_, table)) = self.table.lock().as_mut() {
            table.set_leaving(node, leaves);
        }
    }

    /// Whether that is so.
    pub(super) fn is_leaving(&self, node: NodeId) -> bool {
        self.table.lock().as_ref().is_some_and(|(_, table)| table.is_leaving(node))
    }

    /// Whether a run may still act, as this leader reckons; `None` if it does not lead.
    pub(super) fn live(&self, node: NodeId) -> Option<bool> {
        self.table.lock().as_ref().map(|(_, table)| table.live(node, boottime_ms()))
    }
}

impl Context {
    /// When the latest heartbeat was sent that a quorum has acknowledged in this term. What is granted on the strength of
    /// it counts on every one of that quorum, and this node is one of them: from then on it lets nobody else be elected
    /// either, nor stands itself.
    pub(super) fn quorum_ms(&self, term: u64, now_ms: u64) -> Option<u64> {
        let quorum_ms = self.acks.quorum_ms(&self.membership(), self.node.0, term, now_ms)?;
        self.contact.stamp_ago(now_ms.saturating_sub(quorum_ms));
        Some(quorum_ms)
    }

    /// Answers a request for renewal, as the leader; `None` if this node does not lead.
    pub(super) fn renew(&self, request: &LeaseRequest, generation: Generation, from: NodeId) -> Option<Renewal> {
        let term = self.leads()?;
        let asked = Asked { node: from, generation, applied: request.applied, reached: request.reached.clone() };
        let now_ms = boottime_ms();
        let quorum_ms = self.quorum_ms(term, now_ms);
        let mut table = self.leadership.table.lock();
        let (_, table) = table.as_mut().filter(|(of, _)| *of == term)?;
        if request.returned {
            table.give_back(from, generation);
            return Some(Renewal { number: request.number, term, ..Renewal::default() });
        }
        let mut lease_ms = 0;
        if request.number == 0 {
            table.report(&asked);
        } else if let Some(quorum_ms) = quorum_ms {
            lease_ms = table.renew(&asked, now_ms.saturating_sub(quorum_ms), now_ms);
        }
        // Read after the renewal: what was called stable before it, this covers.
        let own = self.core.carried_out();
        let stable = table.stable(own, now_ms);
        let live = table.live_count(now_ms);
        self.tell_stable(term, stable);
        Some(Renewal {
            number: request.number,
            lease_ms: u32::try_from(lease_ms).unwrap_or(u32::MAX),
            index: own,
            stable: self.leadership.stable.borrow().1,
            log_ms: self.clock.now().log.0,
            term,
            live: u32::try_from(live).unwrap_or(u32::MAX),
        })
    }

    /// Under the table's lock, so that it never goes back within a term.
    fn tell_stable(&self, term: u64, index: u64) {
        self.leadership.stable.send_if_modified(|stable| {
            let more = (term, index) > *stable;
            if more {
                *stable = (term, index);
            }
            more
        });
        let (term, index) = *self.leadership.stable.borrow();
        self.holder.note_stable(term, index);
    }

    /// Whether the log knows this run: it takes nothing from one that it does not know.
    fn known(&self) -> bool {
        let (node, generation) = self.core.run();
        self.core.state().generation_of(node) == Some(generation)
    }

    /// Looks at the leases once. What it finds fallen is to be declared dead.
    fn look(&self) -> Option<(u64, Vec<(NodeId, Generation)>)> {
        let elected = self.elected();
        let now_ms = boottime_ms();
        let mut table = self.leadership.table.lock();
        let Some(term) = elected else {
            *table = None;
            return None;
        };
        if table.as_ref().is_none_or(|(of, _)| *of != term) {
            // Of one that was heard of before the machine started nothing is left.
            let age_ms = u64::try_from(self.contact.age().as_millis()).ok();
            let mut heard_ms = age_ms.and_then(|age_ms| now_ms.checked_sub(age_ms));
            if self.leadership.succeeds.load(Ordering::Acquire) == term {
                // Elected by voters that had heard of the leader before: what that one granted runs on from now at most.
                heard_ms = Some(now_ms);
            }
            *table = Some((term, Table::new(self.node, now_ms, heard_ms)));
            self.begin_log_time();
            tracing::info!(term, "leads");
        }
        let (_, table) = table.as_mut()?;
        let (own, alive) = {
            let state = self.core.state();
            let alive: Vec<_> = state.runs().filter(|run| run.alive).map(|run| (run.node, run.generation)).collect();
            (self.core.carried_out(), alive)
        };
        table.observe(alive.into_iter(), own, now_ms);
        let (node, generation) = self.core.run();
        table.report(&Asked { node, generation, applied: own, reached: self.reach.reached() });
        if let Some(quorum_ms) = self.quorum_ms(term, now_ms) {
            // The leader needs nobody's answer: until then nobody else can lead.
            let held = self.holder.holds(now_ms);
            self.holder.extend(held_until(quorum_ms, LEASE_MS));
            if !held && self.holder.holds(now_ms) {
                self.core.lease_changed();
            }
        }
        let voters: BTreeSet<u64> = self.membership().voter_ids().collect();
        if let Some(victim) = table.judge_cuts(&voters, now_ms) {
            tracing::warn!(
                node = format!("{:016x}", victim.0),
                "does not reach every live node; not renewed until it does"
            );
        }
        let stable = table.stable(own, now_ms);
        let fallen = table.fallen(now_ms);
        self.tell_stable(term, stable);
        Some((term, fallen))
    }

    /// Log time goes on from what was applied, or from the median of the voters' clocks if that is later; a jump needs
    /// that a majority of them agree.
    fn begin_log_time(&self) {
        let now = self.clock.now().mono_ms;
        let applied = self.core.state().now().0;
        let mut walls: Vec<u64> =
            self.leadership.walls.lock().iter().map(|difference| now.saturating_add_signed(*difference)).collect();
        if walls.is_empty() {
            walls.push(super::clock::wall_ms());
        }
        walls.sort_unstable();
        let median = walls.get((walls.len() - 1) / 2).copied().unwrap_or(applied);
        let agree = walls.iter().filter(|wall| wall.abs_diff(median) < JUMP_MS_MAX).count();
        let voters = self.membership().voter_ids().count();
        let jump = median > applied.saturating_add(JUMP_MS_MAX);
        let log = if median <= applied || (jump && applied > 0 && agree <= voters / 2) { applied } else { median };
        self.clock.set_log(LogTime(log));
    }
}

/// Does what the leader does for as long as this node is part of the cluster; nothing while another leads.
pub(super) async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut marks = context.core.marks();
    let mut declaring: Option<tokio::task::JoinHandle<()>> = None;
    // The term in which the limits of this node were set or found in force: once in each, whoever sets others later.
    let limited = Arc::new(AtomicU64::new(0));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = marks.changed() => if changed.is_err() { return },
        }
        let Some((term, fallen)) = context.look() else { continue };
        if declaring.as_ref().is_some_and(|task| !task.is_finished()) {
            continue;
        }
        let mut commands: Vec<Command> = fallen
            .iter()
            .map(|(node, generation)| Command::NodeDown { node: *node, generation: *generation })
            .collect();
        let open = limited.load(Ordering::Acquire) != term && context.known();
        let limits = open && *context.core.state().configured_limits() != context.limits;
        if limits {
            commands.push(Command::SetLimits(context.limits));
        } else if open {
            limited.store(term, Ordering::Release);
        }
        if commands.is_empty() {
            continue;
        }
        for (node, generation) in &fallen {
            let node = format!("{:016x}", node.0);
            tracing::warn!(node, generation = generation.0, "its lease has ended: declared dead");
        }
        let (context, limited) = (context.clone(), limited.clone());
        declaring = Some(tokio::spawn(async move {
            match context.lead(term, commands).await {
                Ok(_) if limits => limited.store(term, Ordering::Release),
                Ok(_) => {}
                Err(error) => tracing::info!(error, "not declared; whoever leads next judges for itself"),
            }
        }));
    }
}

/// Has what is due by log time committed: wills, expiries, sessions of runs that have ended.
pub(super) async fn timers(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(TIMERS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Some(term) = context.leads() {
            let (due, more) = {
                let state = context.core.state();
                let due = state.due(context.clock.now().log, DUE_MAX);
                let more = due.len() >= DUE_MAX || state.expanding() > 0;
                (due, more)
            };
            if due.is_empty() {
                break;
            }
            if let Err(error) = context.lead(term, due).await {
                tracing::debug!(error, "timers not committed; they are due again");
                break;
            }
            if !more {
                break;
            }
        }
    }
}

/// Milliseconds after which, having heard nothing from a leader, a voter may let another stand.
pub(super) const SILENT_MS: u64 = ELECTION_MS;
