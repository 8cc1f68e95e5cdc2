//! Gathers what is proposed on this node into batches, one log entry each, and sees them through: in one ordered stream,
//! each with its number, sent again under the same number if an answer is lost. While some batches are under way the
//! next one fills, so the more is proposed, the more each sync of the disk carries.

pub(super) mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar_broker::SessionKey;
use fulmar_broker::state::command::{Command, Settlement};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::stream::Stream;
use super::context::Context;
use super::replica::{Error, Reply};
use crate::store::log::Fatal;

/// Commands in one batch, unless one call alone brings more.
const BATCH_COMMANDS_MAX: usize = 1_024;

/// Bytes of one batch, unless one call alone brings more: as many as one command may bring by itself. openraft waits for
/// the disk once for each entry, so on a slow disk this is what bounds the throughput.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Bytes that one call should not exceed, so that several share a batch.
pub const PROPOSAL_BYTES_MAX: usize = 32 * 1024;

/// Bytes that may wait before publishers are made to.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How long settlements may wait for company: nobody waits for them, and a resend is harmless.
const SETTLE_LINGER: Duration = Duration::from_millis(20);

/// Settlements that go without waiting any longer.
const SETTLEMENTS_MAX: usize = 1_024;

/// See the module.
pub(super) struct Batcher {
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    work: Notify,
}

#[derive(Default)]
struct Queue {
    proposals: VecDeque<Pending>,
    settlements: HashMap<SessionKey, Settlement>,
    /// Since when the oldest settlement waits.
    settle_by: Option<Instant>,
    closed: bool,
}

struct Pending {
    commands: Vec<Command>,
    bytes: usize,
    reply: Reply,
}

/// What is to be done next.
enum Next {
    Batch {
        commands: Vec<Command>,
        skip: usize,
        replies: Vec<(usize, Reply)>,
    },
    /// Nothing, until more comes or until then.
    Wait(Option<Instant>),
    /// Nothing, and nothing will come.
    End,
}

/// Commands that need not be one entry, in parts that a batch holds: one call's commands are never taken apart, and an
/// entry that is too large for a message between nodes would stop the log.
#[must_use]
pub fn in_parts(commands: Vec<Command>) -> Vec<Vec<Command>> {
    let (mut parts, mut bytes) = (Vec::<Vec<Command>>::new(), 0);
    for command in commands {
        let more = weight(&command);
        match parts.last_mut().filter(|_| bytes + more <= BATCH_BYTES_MAX) {
            Some(part) => {
                part.push(command);
                bytes += more;
            }
            None => {
                parts.push(vec![command]);
                bytes = more;
            }
        }
    }
    parts
}

/// Bytes that a command adds to the log, roughly.
#[must_use]
pub(super) fn weight(command: &Command) -> usize {
    const COMMAND: usize = 96;
    COMMAND
        + match command {
            Command::Publish(publish) => publish.publication.bytes(),
            Command::SetRetained(publication) | Command::Announce(publication) => publication.bytes(),
            Command::Claim(claim) => claim.will.as_ref().map_or(0, |will| will.publication.bytes()),
            Command::Subscribe { filters, .. } => {
                filters.iter().map(|subscription| subscription.filter.as_str().len() + 16).sum()
            }
            Command::Unsubscribe { filters, .. } => filters.iter().map(|filter| filter.as_str().len() + 4).sum(),
            Command::ReplayRetained(replay) => replay.topics.iter().map(|topic| topic.as_str().len() + 4).sum(),
            Command::ExpireRetained(topics) => topics.iter().map(|topic| topic.as_str().len() + 4).sum(),
            Command::LiveRoutes(routes) => {
                routes.add.iter().chain(&routes.remove).map(|filter| filter.as_str().len() + 4).sum()
            }
            Command::Settle(settlements) => settlements.iter().map(settlement_weight).sum(),
            Command::Registry(change) => change.bytes(),
            Command::Plane(change) => change.bytes(),
            Command::Restore(step) => step.bytes(),
            Command::Steer(change) => change.bytes(),
            _ => 0,
        }
}

fn settlement_weight(settlement: &Settlement) -> usize {
    64 + 4 * (settlement.settled.len() + settlement.received.len() + settlement.refused.len())
}

impl Batcher {
    #[must_use]
    pub(super) fn new() -> Arc<Batcher> {
        Arc::new(Batcher { queue: Mutex::default(), bytes: AtomicUsize::new(0), work: Notify::new() })
    }

    /// See [`super::Replica::propose`].
    pub(super) fn propose(&self, commands: Vec<Command>, reply: Reply) {
        let bytes = commands.iter().map(weight).sum();
        let mut queue = self.queue.lock();
        if queue.closed {
            // Not told: what was proposed before is not answered yet, and answers keep their order.
            return;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        queue.proposals.push_back(Pending { commands, bytes, reply });
        drop(queue);
        self.work.notify_one();
    }

    /// See [`super::Replica::settle`].
    pub(super) fn settle(&self, settlement: Settlement) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return; // what it acknowledges is sent again after the restart
        }
        let first = queue.settle_by.is_none();
        queue.settle_by.get_or_insert_with(|| Instant::now() + SETTLE_LINGER);
        match queue.settlements.get_mut(&settlement.key) {
            Some(earlier) if earlier.epoch == settlement.epoch => {
                earlier.floor = earlier.floor.max(settlement.floor);
                earlier.settled.extend(settlement.settled);
                earlier.received.extend(settlement.received);
                earlier.refused.extend(settlement.refused);
            }
            _ => {
                queue.settlements.insert(settlement.key.clone(), settlement);
            }
        }
        let many = queue.settlements.len() >= SETTLEMENTS_MAX;
        drop(queue);
        if first || many {
            self.work.notify_one();
        }
    }

    /// Whether publishers should wait.
    #[must_use]
    pub(super) fn full(&self) -> bool {
        self.bytes() >= BACKLOG_BYTES_MAX
    }

    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes nothing more; what waits is still seen through.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.work.notify_one();
    }

    fn next(&self) -> Next {
        let mut queue = self.queue.lock();
        let settle = queue.settle_by.is_some_and(|by| by <= Instant::now())
            || queue.settlements.len() >= SETTLEMENTS_MAX
            || (queue.closed && !queue.settlements.is_empty());
        if queue.proposals.is_empty() && !settle {
            return if queue.closed { Next::End } else { Next::Wait(queue.settle_by) };
        }
        let (mut commands, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        if !queue.settlements.is_empty() {
            // First, while the epochs that they name are still current.
            let mut settlements: Vec<Settlement> = if queue.settlements.len() <= SETTLEMENTS_MAX {
                queue.settle_by = None;
                queue.settlements.drain().map(|(_, one)| one).collect()
            } else {
                // The rest is for the next batch, at once.
                let some: Vec<SessionKey> = queue.settlements.keys().take(SETTLEMENTS_MAX).cloned().collect();
                some.iter().filter_map(|key| queue.settlements.remove(key)).collect()
            };
            settlements.sort_unstable_by_key(|settlement| settlement.epoch);
            commands.push(Command::Settle(settlements));
        }
        let skip = commands.len();
        while let Some(first) = queue.proposals.front() {
            let fits =
                commands.len() + first.commands.len() <= BATCH_COMMANDS_MAX && bytes + first.bytes <= BATCH_BYTES_MAX;
            if !fits && !replies.is_empty() {
                break;
            }
            let Some(Pending { commands: own, bytes: more, reply }) = queue.proposals.pop_front() else { break };
            bytes += more;
            replies.push((own.len(), reply));
            commands.extend(own);
        }
        drop(queue);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        coalesce_retained(&mut commands);
        Next::Batch { commands, skip, replies }
    }

    /// Puts something before all that waits; nobody is told.
    fn first(&self, commands: Vec<Command>) {
        let bytes = commands.iter().map(weight).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queue.lock().proposals.push_front(Pending { commands, bytes, reply: Box::new(|_| {}) });
    }

    /// Takes out everything that waits.
    fn clear(&self) -> Vec<Reply> {
        let mut queue = self.queue.lock();
        queue.settlements.clear();
        queue.settle_by = None;
        let pending = std::mem::take(&mut queue.proposals);
        drop(queue);
        self.bytes.fetch_sub(pending.iter().map(|one| one.bytes).sum(), Ordering::Relaxed);
        pending.into_iter().map(|one| one.reply).collect()
    }

    /// Sends batches until it is closed or the log has stopped; `stopped` says that nothing is under way any more.
    pub(super) async fn run(self: Arc<Self>, context: Arc<Context>, fatal: Fatal, stopped: watch::Sender<bool>) {
        let core = context.core.clone();
        let ended = Stream::new(context).run(&self).await;
        if let Err(why) = ended {
            // Once it was told to end, what is still under way is not acknowledged: no failure of the log.
            let told_to_end = std::mem::replace(&mut self.queue.lock().closed, true);
            core.fail_all(Error::Stopped);
            self.clear();
            if !told_to_end {
                fatal(&why);
            }
        }
        stopped.send_replace(true);
    }
}

/// Of several retained messages of QoS 0 for one topic, only the last is worth its place in the log.
fn coalesce_retained(commands: &mut [Command]) {
    let sets = |command: &&mut Command| matches!(command, Command::SetRetained(_));
    if commands.iter_mut().filter(sets).nth(1).is_none() {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for command in commands.iter_mut().rev() {
        if let Command::SetRetained(publication) = command
            && !seen.insert(publication.topic.clone())
        {
            // In its place stands what does nothing, so that everyone gets an outcome.
            *command = Command::Settle(Vec::new());
        }
    }
}
