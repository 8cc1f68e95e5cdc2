//! The replicated state: sessions, their subscriptions and queues, wills, retained messages and the books, as one
//! deterministic machine. Batches of commands go in, outcomes and effects come out; every node that applies the same
//! batches holds the same state. The time is that of the log.
//!
//! What is replicated lies in persistent maps, so that a [`Snapshot`] is taken in O(1). The routes and the timers are
//! derived from it: rebuilt at a restore, never written. No result depends on the iteration order of a hash map.

mod books;
mod bounds;
mod claims;
pub mod command;
mod devices;
mod expansion;
pub mod image;
mod ledger;
mod live;
mod looks;
mod origins;
mod plane;
mod publish;
mod queue;
mod restore;
mod retain;
mod seats;
mod session;
mod shared;
mod snapshot;
mod steer;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timers;
mod wills;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fulmar_mqtt::{TopicFilter, TopicName};
use fulmar_platform::registry::Registry;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub use books::{Books, DROPPED, Dropped};
pub use claims::WILL_PAYLOAD_BYTES_MAX;
pub use devices::judged_by;
pub use expansion::EXPANSION_STEP_MAX;
pub use live::{NodeRun, ROUTES_FORGOTTEN_MAX, SharedMember};
pub use looks::{Subscriber, Wanted};
pub use origins::{BatchError, RESULTS_KEPT};
pub use restore::{Discarded, ENDED, Step as RestoreStep};
pub use session::SessionView;
pub use timers::DUE_MAX;

use crate::plane::Plane;
use crate::steer::Steer;
use command::{Batch, Command, Effect, Limits, Outcome, Owner, QueueEntry, Subscription};
use expansion::Expansions;
use ledger::Ledger;
use live::{LiveKey, LiveRoutesOfRuns};
use origins::{Announced, Origins};
use restore::Restore;
use seats::Seats;
use session::Session;
use shared::Group;
use subscriptions::{Route, RouteKey};
use timers::Timers;

use crate::key::{Epoch, Generation, LogTime, NodeId, SessionKey};
use crate::retained::Retained;
use crate::trie::Trie;

/// The replicated part of the state at one moment. Cheap to take and to keep: what changes later is copied then.
#[derive(Clone)]
pub struct Snapshot {
    /// As configured.
    configured: Limits,
    /// Derived: as they count, with what is set of them.
    limits: Limits,
    /// Log time of the last batch.
    now: LogTime,
    /// Commands applied since the cluster began.
    position: u64,
    /// Position of the last command that changed who wants what.
    routes_at: u64,
    epoch_last: u64,
    origins: Origins,
    live_routes: LiveRoutesOfRuns,
    sessions: HashTrieMapSync<SessionKey, Session>,
    groups: HashTrieMapSync<Arc<TopicFilter>, Group>,
    retained: Retained,
    /// Retained messages that expire, by when.
    retained_due: RedBlackTreeMapSync<(LogTime, TopicName), ()>,
    /// Publishes that wait for their turn to be put into queues.
    expansions: Expansions,
    registry: Registry,
    plane: Plane,
    steer: Steer,
    ledger: Ledger,
    /// A restore that has begun, and has not ended well.
    restoring: Option<Restore>,
}

/// The state machine.
pub struct State {
    kept: Snapshot,
    /// Derived: subscriptions of persistent sessions with a granted QoS above 0, and durable shared groups.
    routes: Trie<RouteKey, Route>,
    /// Derived: what only leads to live messages, so that matching for queues does not pass it: filters that nodes have
    /// announced, subscriptions of persistent sessions with granted QoS 0, and shared groups that are not durable.
    live: Trie<LiveKey, ()>,
    /// Derived: who owns what, and what is due when.
    timers: Timers,
    /// Derived: connections of applications.
    seats: Seats,
    /// Derived: the keys of all sessions in their order, for whoever pages through them.
    names: BTreeSet<SessionKey>,
}

/// What one batch makes nodes do; wakes are told once per session, at its end.
struct Out<'a> {
    effects: &'a mut Vec<Effect>,
    /// Forgotten when the session loses that owner later in the batch.
    wakes: BTreeMap<Epoch, (SessionKey, Owner)>,
}

/// See [`State::census`].
#[derive(Debug, Clone)]
pub struct Census(HashTrieMapSync<SessionKey, Session>);

impl Census {
    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionKey, Epoch)> {
        self.0.iter().map(|(key, session)| (key, session.epoch))
    }

    /// As [`Census::iter`], with who holds each as the log says, alive or not, and whether it outlives its connection.
    pub fn held(&self) -> impl Iterator<Item = (&SessionKey, Epoch, Option<Owner>, bool)> {
        self.0.iter().map(|(key, session)| (key, session.epoch, session.owner(), session.persistent()))
    }
}

impl State {
    #[must_use]
    pub fn new(limits: Limits) -> State {
        State::restore(Snapshot::empty(limits))
    }

    /// Applies the next batch of an origin, or answers a retried one as it was answered before. One outcome per command.
    ///
    /// # Errors
    /// The batch is refused and nothing has changed.
    pub fn apply(&mut self, batch: &Batch, effects: &mut Vec<Effect>) -> Result<Vec<Outcome>, BatchError> {
        if let Some(outcomes) = self.kept.origins.check(batch)? {
            return Ok(outcomes);
        }
        self.kept.now = self.kept.now.max(batch.at);
        if batch.seq > 0 && !self.kept.origins.alive(batch.node, batch.generation) {
            // Its first batch announces a run, as a command would.
            self.kept.position += 1;
            self.node_up(batch.node, batch.generation, "", effects);
        }
        let mut out = Out { effects, wakes: BTreeMap::new() };
        let outcomes: Vec<Outcome> = batch.commands.iter().map(|command| self.command(command, &mut out)).collect();
        self.wake(out);
        self.kept.origins.applied(batch, &outcomes);
        debug_assert_eq!(self.books().unaccounted(), 0, "every obligation is accounted for");
        Ok(outcomes)
    }

    fn command(&mut self, command: &Command, out: &mut Out<'_>) -> Outcome {
        self.kept.position += 1;
        if let Some(outcome) = self.withheld(command) {
            return outcome;
        }
        match command {
            Command::Restore(step) => self.restore_step(step, out),
            Command::NodeUp { node, generation, address } => self.node_up(*node, *generation, address, out.effects),
            Command::NodeDown { node, generation } => self.node_down(*node, *generation, out.effects),
            Command::RemoveNode { node } => self.remove_node(*node, out.effects),
            Command::LiveRoutes(routes) => self.change_live_routes(routes),
            Command::Expand => self.expand(out),
            Command::Registry(change) => self.change_registry(change, out),
            Command::Plane(change) => self.change_plane(change, out),
            Command::Steer(change) => self.change_steer(change, out),
            Command::ForgetRoutes { node, generation } => self.forget_live_routes(*node, *generation),
            Command::Claim(claim) => self.claim(claim, out),
            Command::Release(release) => self.release(release, out),
            Command::Subscribe { key, epoch, filters } => self.subscribe(key, *epoch, filters),
            Command::Unsubscribe { key, epoch, filters } => self.unsubscribe(key, *epoch, filters),
            Command::Publish(publish) => self.publish(publish, out),
            Command::Announce(publication) => self.announce(publication, out),
            Command::SetRetained(publication) => self.set_retained_command(publication),
            Command::ExpireRetained(topics) => self.expire_retained(topics),
            Command::ReleaseReceived { key, epoch, packet_id } => self.release_received(key, *epoch, *packet_id),
            Command::Settle(settlements) => self.settle(settlements),
            Command::ReplayRetained(replay) => self.replay_retained(replay, out),
            Command::EndSession { key, epoch, reason } => {
                if self.current(key, *epoch).is_none() {
                    return Outcome::Stale;
                }
                self.revoke_session(key, *reason, out);
                Outcome::Done
            }
            Command::FireWill { key, epoch } | Command::ExpireSession { key, epoch } => self.elapse(key, *epoch, out),
            Command::SetLimits(limits) => {
                self.kept.configured = *limits;
                self.limits_changed();
                Outcome::Done
            }
        }
    }

    /// Tells owners of queues that have grown.
    fn wake(&self, out: Out<'_>) {
        let alive = |owner: &Owner| self.kept.origins.alive(owner.node, owner.generation);
        let wakes = out.wakes.into_values().filter(|(_, owner)| alive(owner));
        out.effects.extend(wakes.map(|(key, owner)| Effect::Wake { key, owner }));
    }

    fn node_up(&mut self, node: NodeId, generation: Generation, address: &str, effects: &mut Vec<Effect>) -> Outcome {
        let up = Effect::NodeUp { node, generation };
        match self.kept.origins.up(node, generation, address, self.kept.now) {
            Announced::Stale => return Outcome::Stale,
            Announced::Before => {}
            Announced::Moved => {
                if !effects.contains(&up) {
                    effects.push(up);
                }
            }
            Announced::Begun(ended) => {
                effects.extend(ended.map(|generation| Effect::NodeDown { node, generation }));
                effects.push(up);
                self.tell_steer(|steer, now, events| steer.node_up(node, now, events), effects);
                self.runs_changed();
            }
        }
        Outcome::Done
    }

    fn node_down(&mut self, node: NodeId, generation: Generation, effects: &mut Vec<Effect>) -> Outcome {
        let older = self.kept.origins.generation_of(node).filter(|older| *older < generation);
        let ended = older.filter(|older| self.kept.origins.alive(node, *older));
        if !self.kept.origins.down(node, generation, self.kept.now) {
            return Outcome::Stale;
        }
        effects.extend(ended.map(|generation| Effect::NodeDown { node, generation }));
        effects.push(Effect::NodeDown { node, generation });
        self.tell_steer(|steer, now, events| steer.node_down(node, now, events), effects);
        self.runs_changed();
        Outcome::Done
    }

    fn remove_node(&mut self, node: NodeId, effects: &mut Vec<Effect>) -> Outcome {
        let Some(ended) = self.kept.origins.remove(node, self.kept.now) else {
            return Outcome::Stale;
        };
        effects.extend(ended.map(|generation| Effect::NodeDown { node, generation }));
        self.tell_steer(|steer, now, events| steer.node_removed(node, now, events), effects);
        self.runs_changed();
        Outcome::Done
    }

    /// In O(1), but for the few runs that have ended: what hangs on a run is read with an eye on whether it is alive.
    fn runs_changed(&mut self) {
        self.routes_changed();
        self.forget_unowning();
    }

    fn forget_unowning(&mut self) {
        if self.restoring() {
            return; // what they own is still to come
        }
        let idle = |(node, generation): &&(NodeId, Generation)| self.timers.owns_nothing(*node, *generation);
        let unowning: Vec<_> = self.kept.origins.fallen().filter(idle).copied().collect();
        for (node, generation) in unowning {
            self.kept.origins.forget_fallen(node, generation);
        }
    }

    /// The session, if `epoch` is its current one.
    fn current(&self, key: &SessionKey, epoch: Epoch) -> Option<&Session> {
        self.kept.sessions.get(key).filter(|session| session.epoch == epoch)
    }

    /// The one stored handle of a key, so that a session's key is allocated once.
    fn stored_key(&self, key: &SessionKey) -> SessionKey {
        self.kept.sessions.get_key_value(key).map_or(key, |(stored, _)| stored).clone()
    }

    /// Who holds the session's connection, if a live run of a node does.
    fn owner(&self, session: &Session) -> Option<Owner> {
        session.owner().filter(|owner| self.kept.origins.alive(owner.node, owner.generation))
    }

    /// Changes a session, and its timers with it. The only way to change one that stays.
    fn change<R>(&mut self, key: &SessionKey, f: impl FnOnce(&mut Session, &mut Ledger, &Limits) -> R) -> Option<R> {
        let kept = &mut self.kept;
        let session = kept.sessions.get_mut(key)?;
        let before = session.slot();
        let result = f(session, &mut kept.ledger, &kept.limits);
        let after = session.slot();
        if before != after {
            let key = self.stored_key(key);
            self.timers.remove(before);
            self.timers.add(after, key);
        }
        Some(result)
    }

    // -- what others may ask

    /// The replicated part as it is now, in O(1).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.kept.clone()
    }

    /// The state of a snapshot, with routes and timers built anew.
    #[must_use]
    pub fn restore(snapshot: Snapshot) -> State {
        let (routes, live) = (Trie::default(), Trie::default());
        let (timers, seats, names) = (Timers::default(), Seats::default(), BTreeSet::new());
        let mut state = State { kept: snapshot, routes, live, timers, seats, names };
        for (key, session) in state.kept.sessions.iter() {
            state.seats.add(key);
            state.names.insert(key.clone());
            state.timers.add(session.slot(), key.clone());
            for (filter, route) in session.routes() {
                state.routes.insert(filter, RouteKey::Session(key.clone()), route);
            }
            for filter in session.live_filters() {
                state.live.insert(filter, LiveKey::Session(key.clone()), ());
            }
        }
        for (filter, group) in state.kept.groups.iter() {
            if group.durable() {
                state.routes.insert(filter, RouteKey::Group(Arc::clone(filter)), Route::default());
            } else {
                state.live.insert(filter, LiveKey::Group(Arc::clone(filter)), ());
            }
        }
        for (node, generation, filter) in state.kept.live_routes.iter() {
            state.live.insert(filter, LiveKey::Node(node, generation), ());
        }
        state
    }

    /// Log time of the last applied batch.
    #[must_use]
    pub fn now(&self) -> LogTime {
        self.kept.now
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.kept.limits
    }

    #[must_use]
    pub fn books(&self) -> &Books {
        &self.kept.ledger.books
    }

    /// The newest run of a node that has been heard of, alive or not.
    #[must_use]
    pub fn generation_of(&self, node: NodeId) -> Option<Generation> {
        self.kept.origins.generation_of(node)
    }

    /// Whether this id of a node was removed: it never comes back.
    #[must_use]
    pub fn removed(&self, node: NodeId) -> bool {
        self.kept.origins.removed(node)
    }

    /// The last numbered batch of a run that was applied; 0 if none was, or if it is not the newest run of its node.
    #[must_use]
    pub fn applied_seq(&self, node: NodeId, generation: Generation) -> u64 {
        self.kept.origins.run(node, generation).map_or(0, |run| run.applied)
    }

    /// What the commands of a batch came to that was applied before; `None` if it was not, or if that is not kept any
    /// more: see [`RESULTS_KEPT`], and a run that has ended keeps none.
    #[must_use]
    pub fn outcomes_of(&self, node: NodeId, generation: Generation, seq: u64) -> Option<Vec<Outcome>> {
        self.kept.origins.outcomes_of(node, generation, seq).cloned()
    }

    /// Replicated bytes: queues, retained messages and wills, each message once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.ledger.bytes
    }

    #[must_use]
    pub fn retained(&self) -> &Retained {
        &self.kept.retained
    }

    /// Products, devices and users.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.kept.registry
    }

    /// Messages to devices, batch tasks, and backlogs of rules.
    #[must_use]
    pub fn plane(&self) -> &Plane {
        &self.kept.plane
    }

    #[must_use]
    pub fn session_count(&self) -> usize {
        self.kept.sessions.size()
    }

    #[must_use]
    pub fn session(&self, key: &SessionKey) -> Option<SessionView> {
        let session = self.kept.sessions.get(key)?;
        Some(session.view(self.owner(session)))
    }

    /// All sessions as they are now, for whoever looks at each of them: in O(1).
    #[must_use]
    pub fn census(&self) -> Census {
        Census(self.kept.sessions.clone())
    }

    /// The session's filters; empty if there is no such session.
    #[must_use]
    pub fn subscriptions(&self, key: &SessionKey) -> &[Subscription] {
        self.kept.sessions.get(key).map_or(&[], Session::subscriptions)
    }

    /// Sessions whose connection a run of a node holds, in the order of their claims. For a node that has installed a
    /// snapshot and must find out which connections are still its own.
    pub fn owned_by(&self, node: NodeId, generation: Generation) -> impl Iterator<Item = (Epoch, &SessionKey)> {
        self.timers.owned_by(node, generation)
    }

    /// Unsettled entries from `from_seq` on, for the owner of (key, epoch): at least one if there is one, else within
    /// both bounds. Expired entries are left out; they end with the settlement of what follows them.
    #[must_use]
    pub fn read_queue(
        &self,
        key: &SessionKey,
        epoch: Epoch,
        from_seq: u64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Vec<QueueEntry> {
        let queue = self.current(key, epoch).and_then(Session::queue);
        queue.map(|queue| queue.read(from_seq, entries_max, bytes_max, self.kept.now)).unwrap_or_default()
    }
}
