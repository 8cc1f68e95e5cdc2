//! What entries are applied to on this node: the state, who carries out its effects, and who waits for what was proposed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use fulmar_broker::state::command::{Batch, Command, Effect, Outcome};
use fulmar_broker::state::{BatchError, State};
use fulmar_broker::{Generation, NodeId, steer};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, watch};

use super::batcher::weight;
use super::lag::Lag;
use super::lease::Holder;
use super::peers::Peers;
use super::replica::{Error, Listener, Reply, Seat};
use crate::telemetry::metrics::Durations;

/// Bytes of batches between two looks at whether the log is to be shortened.
const GROWN_BYTES: u64 = 256 << 10;

/// Replies for one proposed batch: each with how many commands were its own.
pub(super) struct Waiting {
    pub(super) seq: u64,
    /// Commands before the first reply's, which nobody waits for.
    pub(super) skip: usize,
    pub(super) since: Instant,
    pub(super) replies: Vec<(usize, Reply)>,
}

/// What entries are applied to.
pub struct Core {
    node: NodeId,
    generation: AtomicU64,
    /// This run was declared dead, and the next one has not begun.
    ended: AtomicBool,
    end_told: Notify,
    /// Number of the last batch of this run that is applied.
    own_applied: watch::Sender<u64>,
    /// Told when something was applied that others wait for.
    marks: watch::Sender<()>,
    /// Index of the last entry whose effects are carried out.
    progress: watch::Sender<u64>,
    holder: Arc<Holder>,
    peers: Arc<Peers>,
    state: RwLock<State>,
    /// As the state has it, for reading without its lock.
    pub(super) subscriptions_version: AtomicU64,
    /// Index of the last applied entry.
    applied: AtomicU64,
    /// Bytes of all batches that this run has applied.
    applied_bytes: AtomicU64,
    /// Told each time that they have grown by [`GROWN_BYTES`].
    grown: Notify,
    pub(super) listener: OnceLock<Weak<dyn Listener>>,
    /// Batches of this run that are not applied yet, in order.
    waiting: Mutex<VecDeque<Waiting>>,
    /// From the numbering of a batch of this node to its being applied here.
    pub(super) commits: Durations,
    pub(super) lag: Mutex<Lag>,
}

impl Core {
    #[must_use]
    pub(super) fn new(
        (node, generation): (NodeId, Generation),
        state: State,
        holder: Arc<Holder>,
        peers: Arc<Peers>,
    ) -> Arc<Core> {
        let subscriptions_version = AtomicU64::new(state.subscriptions_version());
        let core = Arc::new(Core {
            node,
            generation: AtomicU64::new(generation.0),
            ended: AtomicBool::new(false),
            end_told: Notify::new(),
            own_applied: watch::Sender::new(0),
            marks: watch::Sender::new(()),
            progress: watch::Sender::new(0),
            holder,
            peers,
            state: RwLock::new(state),
            subscriptions_version,
            applied: AtomicU64::new(0),
            applied_bytes: AtomicU64::new(0),
            grown: Notify::new(),
            listener: OnceLock::new(),
            waiting: Mutex::default(),
            commits: Durations::of_disk(),
            lag: Mutex::default(),
        });
        core.learn_addresses();
        core
    }

    /// This run of the node.
    pub(super) fn run(&self) -> (NodeId, Generation) {
        (self.node, Generation(self.generation.load(Ordering::Acquire)))
    }

    /// Whether this run was declared dead and the next one has not begun.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until this run is declared dead.
    pub(super) async fn end_told(&self) {
        self.end_told.notified().await;
    }

    /// The next run begins. It may act once it is announced.
    pub(super) fn begin(&self, generation: Generation) {
        self.own_applied.send_replace(0);
        self.generation.store(generation.0, Ordering::Release);
        self.ended.store(false, Ordering::Release);
    }

    /// Number of the last batch of this run that is applied.
    pub(super) fn own_applied(&self) -> watch::Receiver<u64> {
        self.own_applied.subscribe()
    }

    /// Changes when something is applied that others wait for.
    pub(super) fn marks(&self) -> watch::Receiver<()> {
        self.marks.subscribe()
    }

    /// Says that the lease was lost, or is held again.
    pub(super) fn lease_changed(&self) {
        self.tell(|listener| listener.lease_changed());
    }

    /// Index of the last entry that is applied and whose effects are carried out, as it grows.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// As [`Core::progress`] has it: what others may be told. Whoever an entry closes is closed by then.
    pub(super) fn carried_out(&self) -> u64 {
        *self.progress.borrow()
    }

    /// Index of the last applied entry; its effects may be under way.
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn learn_addresses(&self) {
        for run in self.state().runs().filter(|run| !run.address.is_empty()) {
            self.peers.set_address(run.node.0, &run.address);
        }
    }

    fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        if let Some(listener) = self.listener.get().and_then(Weak::upgrade) {
            what(&*listener);
        }
    }

    /// The state for reading. Held only for as long as the read takes.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Applies one batch, has its effects carried out, and tells whoever proposed it on this node. `entry`: term and index.
    pub(super) fn apply(&self, entry: (u64, u64), batch: &Batch) -> Result<(), BatchError> {
        let (term, index) = entry;
        if batch.term.is_some_and(|only| only != term) {
            return Err(BatchError::OtherTerm);
        }
        let mut effects = Vec::new();
        let outcomes = {
            let mut state = self.state.write();
            let outcomes = state.apply(batch, &mut effects);
            self.subscriptions_version.store(state.subscriptions_version(), Ordering::Release);
            // Under the lock: whoever reads the state knows at which entry it stands.
            self.applied.store(index, Ordering::Release);
            outcomes
        };
        let bytes = batch.commands.iter().map(weight).sum::<usize>() as u64;
        let before = self.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / GROWN_BYTES != (before + bytes) / GROWN_BYTES {
            self.grown.notify_one();
        }
        effects.into_iter().for_each(|effect| self.carry_out(effect));
        self.note_applied(index);
        if batch.commands.iter().any(matters_to_others) {
            self.marks.send_replace(());
        }
        let outcomes = outcomes?;
        if batch.seq > 0 && (batch.node, batch.generation) == self.run() {
            self.answer(batch.seq, outcomes);
            self.own_applied.send_replace(batch.seq);
        }
        Ok(())
    }

    fn carry_out(&self, effect: Effect) {
        match &effect {
            Effect::NodeUp { node, generation } => {
                if let Some(run) = self.state().runs().find(|run| run.node == *node && !run.address.is_empty()) {
                    self.peers.set_address(node.0, &run.address);
                }
                if (*node, *generation) == self.run() {
                    self.holder.bar(false);
                    self.lease_changed();
                }
            }
            Effect::NodeDown { node, generation } if (*node, *generation) == self.run() => self.end(),
            _ => {}
        }
        self.tell(|listener| listener.carry_out(effect));
    }

    /// This run was declared dead: nothing that it does from here on may be acknowledged.
    fn end(&self) {
        self.holder.bar(true);
        self.holder.forget_waiting();
        self.tell(|listener| listener.fenced());
        self.ended.store(true, Ordering::Release);
        self.end_told.notify_one();
    }

    fn answer(&self, seq: u64, outcomes: Vec<Outcome>) {
        let waiting = {
            let mut all = self.waiting.lock();
            // A batch that was sent twice is applied once, and answered once.
            if all.front().is_none_or(|first| first.seq != seq) {
                return;
            }
            all.pop_front()
        };
        let Some(waiting) = waiting else { return };
        self.commits.note(waiting.since.elapsed());
        let mut outcomes = outcomes.into_iter().skip(waiting.skip);
        for (count, reply) in waiting.replies {
            reply(Ok(outcomes.by_ref().take(count).collect()));
        }
    }

    pub(super) fn await_batch(&self, waiting: Waiting) {
        self.waiting.lock().push_back(waiting);
    }

    /// Tells everyone who waits that it was in vain.
    pub(super) fn fail_all(&self, error: Error) {
        let all = std::mem::take(&mut *self.waiting.lock());
        for (_, reply) in all.into_iter().flat_map(|waiting| waiting.replies) {
            reply(Err(error));
        }
    }

    /// An entry is applied, and its effects are carried out.
    pub(super) fn note_applied(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
        self.progress.send_if_modified(|progress| std::mem::replace(progress, index) != index);
    }

    /// An entry has changed who the members are.
    pub(super) fn members_changed(&self, index: u64, members: Vec<Seat>) {
        self.tell(|listener| listener.members_changed(index, members));
    }

    /// Takes note of who the members are.
    pub(super) fn note_members(&self, members: impl Iterator<Item = (u64, String)>) {
        let mut count = 0;
        for (node, address) in members {
            count += 1;
            if node != self.node.0 && self.peers.address(node).is_none() && !address.is_empty() {
                self.peers.set_address(node, &address);
            }
        }
        self.holder.set_alone(count == 1);
    }

    pub(super) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is notably more in the log.
    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }

    /// Puts the state of an installed snapshot, which stands at entry `index`, in the place of this one. What was
    /// applied between the two was never told: whoever waits for it is told now, as far as it is known.
    pub(super) fn replace(&self, state: State, index: u64) {
        {
            let mut current = self.state.write();
            self.subscriptions_version.store(state.subscriptions_version(), Ordering::Release);
            *current = state;
            self.applied.store(index, Ordering::Release);
        }
        self.learn_addresses();
        let (node, generation) = self.run();
        let (alive, begun, done) = {
            let state = self.state();
            let alive = state.runs().any(|run| run.node == node && run.generation == generation && run.alive);
            let newest = state.generation_of(node);
            let begun = state.removed(node) || newest.is_some_and(|newest| newest >= generation);
            (alive, begun, state.applied_seq(node, generation))
        };
        if alive {
            self.answer_up_to(done);
            self.own_applied.send_replace(done);
        } else if begun && !self.ended() {
            self.end();
        }
        self.tell(|listener| listener.installed());
        self.note_applied(index);
        if alive {
            // What announced it may be among what was not told.
            self.holder.bar(false);
            self.lease_changed();
        }
        self.marks.send_replace(());
    }

    fn answer_up_to(&self, done: u64) {
        let (node, generation) = self.run();
        loop {
            // The lock is let go of before the body, which takes it again.
            let next = self.waiting.lock().front().map(|first| first.seq).filter(|seq| *seq <= done);
            let Some(seq) = next else { return };
            let outcomes = self.state().outcomes_of(node, generation, seq);
            match outcomes {
                Some(outcomes) => self.answer(seq, outcomes),
                None => {
                    // Three at most are under way, and the results of more are kept: this cannot be.
                    tracing::error!(seq, "what a batch came to is not known any more");
                    let waiting = self.waiting.lock().pop_front();
                    let replies = waiting.into_iter().flat_map(|waiting| waiting.replies);
                    replies.for_each(|(_, reply)| reply(Err(Error::Ended)));
                }
            }
        }
    }
}

/// Whether other nodes may wait for this to be applied here: it changes who is served by whom,
/// what is retained, or who is known.
fn matters_to_others(command: &Command) -> bool {
    match command {
        Command::Claim(_) | Command::Subscribe { .. } | Command::LiveRoutes(_) => true,
        Command::Plane(_) | Command::Restore(_) => true,
        // Who reads what an admin has changed reads it anywhere; the audit is only added to.
        Command::Steer(change) => !matches!(**change, steer::Change::Audit(_)),
        Command::Registry(change) => !change.is_report(),
        Command::Publish(publish) => publish.publication.retain,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fulmar_broker::LogTime;
    use fulmar_broker::state::command::{Limits, LiveRoutes};

    use super::*;

    const OWN: NodeId = NodeId(1);

    fn core() -> Arc<Core> {
        let (state, holder) = (State::new(Limits::default()), Arc::new(Holder::new()));
        let core = Core::new((OWN, Generation(1)), state, holder, Peers::new(OWN.0, None, HashMap::new()));
        core.holder.extend(u64::MAX);
        core
    }

    fn batch(generation: u64, seq: u64, command: Command) -> Batch {
        let (generation, commands) = (Generation(generation), vec![command]);
        Batch { node: OWN, generation, seq, at: LogTime(1), term: None, commands }
    }

    fn up(generation: u64) -> Command {
        Command::NodeUp { node: OWN, generation: Generation(generation), address: "here:1".into() }
    }

    fn state_after(batches: &[Batch]) -> State {
        let mut state = State::new(Limits::default());
        for batch in batches {
            state.apply(batch, &mut Vec::new()).unwrap();
        }
        state
    }

    /// Has the core wait for a batch; what it is told, once it is.
    fn wait_for(core: &Core, seq: u64) -> std::sync::mpsc::Receiver<super::super::replica::Committed> {
        let (tell, told) = std::sync::mpsc::channel();
        let reply: Reply = Box::new(move |committed| tell.send(committed).unwrap());
        core.await_batch(Waiting { seq, skip: 0, since: Instant::now(), replies: vec![(1, reply)] });
        told
    }

    /// What others could have been told, each time that effects were being carried out.
    struct Looks(Weak<Core>, Mutex<Vec<u64>>);

    impl Looks {
        fn look(&self) {
            let core = self.0.upgrade().unwrap();
            self.1.lock().push(core.carried_out());
        }
    }

    impl Listener for Looks {
        fn carry_out(&self, _effect: Effect) {
            self.look();
        }

        fn lease_changed(&self) {}

        fn fenced(&self) {}

        fn installed(&self) {
            self.look();
        }

        fn delivered(&self, _: (NodeId, Generation), _: bytes::Bytes, _: super::super::replica::Taken) {}
    }

    #[test]
    fn nobody_is_told_of_an_entry_before_its_effects_are_carried_out() {
        let core = core();
        let looks = Arc::new(Looks(Arc::downgrade(&core), Mutex::default()));
        let listener: Arc<dyn Listener> = looks.clone();
        core.listener.set(Arc::downgrade(&listener)).unwrap_or_else(|_| panic!("it is new"));
        let marks = core.marks();
        let routes = LiveRoutes { node: OWN, generation: Generation(1), add: Vec::new(), remove: Vec::new() };
        let commands = vec![up(1), Command::LiveRoutes(Box::new(routes))];
        core.apply((1, 4), &Batch { commands, ..batch(1, 1, up(1)) }).unwrap();
        assert_eq!((std::mem::take(&mut *looks.1.lock()), core.carried_out()), (vec![0], 4));
        assert!(marks.has_changed().unwrap());
        core.replace(state_after(&[batch(1, 1, up(1))]), 9);
        assert_eq!((std::mem::take(&mut *looks.1.lock()), core.carried_out()), (vec![4], 9));
    }

    #[test]
    fn a_run_that_is_announced_within_a_snapshot_may_act_and_its_batches_are_answered() {
        let core = core();
        let told = wait_for(&core, 1);
        assert!(!core.holder.acts());
        core.replace(state_after(&[batch(1, 1, up(1))]), 7);
        assert!(core.holder.acts() && !core.ended());
        assert_eq!(told.try_recv().unwrap(), Ok(vec![Outcome::Done]));
        assert_eq!((*core.own_applied().borrow(), core.applied()), (1, 7));
    }

    #[test]
    fn a_run_that_has_ended_within_a_snapshot_knows_it() {
        let down = Command::NodeDown { node: OWN, generation: Generation(1) };
        let dead = state_after(&[batch(1, 1, up(1)), batch(1, 2, down)]);
        let newer = state_after(&[batch(2, 1, up(2))]);
        for (state, applied_before) in [(dead, true), (newer, false)] {
            let core = core();
            if applied_before {
                core.apply((1, 1), &batch(1, 1, up(1))).unwrap();
                assert!(core.holder.acts());
            }
            core.replace(state, 7);
            assert!(core.ended() && !core.holder.acts());
        }
    }

    #[test]
    fn a_run_that_a_snapshot_does_not_know_has_not_begun() {
        let core = core();
        let told = wait_for(&core, 1);
        core.replace(State::new(Limits::default()), 7);
        assert!(!core.ended() && !core.holder.acts() && told.try_recv().is_err());
    }
}
