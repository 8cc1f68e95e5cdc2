//! The leader's side: which runs may still act, how far each has applied the log, and which are to be declared dead.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_broker::{Generation, NodeId};

use super::{ELECTION_MS, LEASE_MS};

/// Milliseconds that a node may be behind in applying the log before it is not renewed.
const BEHIND_MS_MAX: u64 = 2_000;

/// Milliseconds that two live nodes may not reach each other before one of them must go.
const CUT_MS_MAX: u64 = 3_000;

/// What a node asks with.
#[derive(Debug, Clone)]
pub(in crate::cluster) struct Asked {
    pub(in crate::cluster) node: NodeId,
    pub(in crate::cluster) generation: Generation,
    pub(in crate::cluster) applied: u64,
    pub(in crate::cluster) reached: Vec<u64>,
}

/// One run that is alive by the log.
#[derive(Debug)]
struct Run {
    generation: Generation,
    /// Until when it may act for all that the leader knows; 0 never yet.
    until_ms: u64,
    applied: u64,
    reached: BTreeSet<u64>,
    /// When the leader first saw it up.
    since_ms: u64,
    /// Its end has been proposed: it is not renewed any more.
    falling: bool,
    /// It has given its lease back, and acts no more.
    given_back: bool,
}

/// See the module. One for each term in which this node leads.
#[derive(Debug)]
pub(in crate::cluster) struct Table {
    runs: BTreeMap<NodeId, Run>,
    /// Every lease of earlier leaders has ended by then.
    earlier_until_ms: u64,
    /// The leader's own applied index, and when; the oldest first, about as long as a node may be behind.
    applied: Vec<(u64, u64)>,
    /// Pairs of which one does not reach the other, and since when.
    cut: BTreeMap<(NodeId, NodeId), u64>,
    /// Nodes that are not renewed until they reach everybody.
    shunned: BTreeSet<NodeId>,
    /// Nodes that are not renewed because their membership is about to end.
    leaving: BTreeSet<NodeId>,
    leader: NodeId,
}

impl Table {
    /// Begins a term: whatever was granted before may run for a while yet. Of every quorum that an earlier leader counted
    /// on one voter has elected this one: another, which was silent for [`ELECTION_MS`], or this node itself, which last
    /// heard of a leader at `heard_ms`, if ever. Where the earlier leader has handed over, that is now.
    #[must_use]
    pub(in crate::cluster) fn new(leader: NodeId, now_ms: u64, heard_ms: Option<u64>) -> Table {
        Table {
            runs: BTreeMap::new(),
            earlier_until_ms: (now_ms + LEASE_MS - ELECTION_MS).max(heard_ms.map_or(0, |at| at + LEASE_MS)),
            applied: Vec::new(),
            cut: BTreeMap::new(),
            shunned: BTreeSet::new(),
            leaving: BTreeSet::new(),
            leader,
        }
    }

    /// Takes over which runs are alive by the log, and how far this node has applied it.
    pub(in crate::cluster) fn observe(
        &mut self,
        alive: impl Iterator<Item = (NodeId, Generation)>,
        applied: u64,
        now_ms: u64,
    ) {
        let alive: BTreeMap<NodeId, Generation> = alive.collect();
        self.runs.retain(|node, run| alive.get(node) == Some(&run.generation));
        for (node, generation) in alive {
            let fresh = Run {
                generation,
                until_ms: 0,
                applied: 0,
                reached: BTreeSet::new(),
                since_ms: now_ms,
                falling: false,
                given_back: false,
            };
            self.runs.entry(node).or_insert(fresh);
        }
        if self.applied.last().is_none_or(|(_, at)| now_ms >= at + 100) {
            self.applied.push((applied, now_ms));
            let old = self.applied.iter().take_while(|(_, at)| at + BEHIND_MS_MAX <= now_ms).count();
            self.applied.drain(..old.saturating_sub(1));
        }
    }

    /// Milliseconds for which a node is renewed, from when it asked; 0: it is not. `age_ms`: since the heartbeat was sent
    /// that a quorum has acknowledged last.
    pub(in crate::cluster) fn renew(&mut self, asked: &Asked, age_ms: u64, now_ms: u64) -> u64 {
        self.report(asked);
        let behind = self
            .applied
            .first()
            .is_some_and(|(index, at)| asked.applied < *index && now_ms.saturating_sub(*at) >= BEHIND_MS_MAX);
        let shunned = self.shunned.contains(&asked.node) && !self.reaches_all(asked.node);
        let leaves = self.leaving.contains(&asked.node);
        let Some(run) = self.runs.get_mut(&asked.node).filter(|run| run.generation == asked.generation) else {
            return 0;
        };
        let lease_ms = LEASE_MS.saturating_sub(age_ms);
        if run.falling || run.given_back || behind || shunned || leaves || lease_ms == 0 {
            return 0;
        }
        self.shunned.remove(&asked.node);
        run.until_ms = run.until_ms.max(now_ms + lease_ms);
        lease_ms
    }

    /// Takes note of what a node says of itself.
    pub(in crate::cluster) fn report(&mut self, asked: &Asked) {
        if let Some(run) = self.runs.get_mut(&asked.node).filter(|run| run.generation == asked.generation) {
            run.applied = run.applied.max(asked.applied);
            run.reached = asked.reached.iter().copied().collect();
        }
    }

    /// A node gives its lease back.
    pub(in crate::cluster) fn give_back(&mut self, node: NodeId, generation: Generation) {
        if let Some(run) = self.runs.get_mut(&node).filter(|run| run.generation == generation) {
            run.given_back = true;
        }
    }

    /// Whether the membership of a node is about to end: none of its runs is renewed meanwhile.
    pub(in crate::cluster) fn set_leaving(&mut self, node: NodeId, leaves: bool) {
        if leaves {
            self.leaving.insert(node);
        } else {
            self.leaving.remove(&node);
        }
    }

    pub(in crate::cluster) fn is_leaving(&self, node: NodeId) -> bool {
        self.leaving.contains(&node)
    }

    /// A run that was up before this term may hold a lease of an earlier leader.
    fn until_ms(&self, run: &Run) -> u64 {
        if run.given_back { 0 } else { run.until_ms.max(self.earlier_until_ms) }
    }

    /// Whether a run may still act.
    #[must_use]
    pub(in crate::cluster) fn live(&self, node: NodeId, now_ms: u64) -> bool {
        node == self.leader || self.runs.get(&node).is_some_and(|run| now_ms < self.until_ms(run))
    }

    /// Runs that may still act, this node's included.
    #[must_use]
    pub(in crate::cluster) fn live_count(&self, now_ms: u64) -> usize {
        self.runs.keys().filter(|node| self.live(**node, now_ms)).count()
    }

    /// The entry that every run which may still act has applied. `own`: what the leader has.
    #[must_use]
    pub(in crate::cluster) fn stable(&self, own: u64, now_ms: u64) -> u64 {
        let others = self.runs.iter().filter(|(node, run)| **node != self.leader && now_ms < self.until_ms(run));
        others.map(|(_, run)| run.applied).fold(own, u64::min)
    }

    /// Runs whose lease has ended: they are to be declared dead, and will not be renewed. A run that has just come up
    /// has as long as a lease to ask for its first one.
    pub(in crate::cluster) fn fallen(&mut self, now_ms: u64) -> Vec<(NodeId, Generation)> {
        let (leader, earlier_until_ms) = (self.leader, self.earlier_until_ms);
        let mut fallen = Vec::new();
        for (node, run) in &mut self.runs {
            let until_ms = run.until_ms.max(earlier_until_ms).max(run.since_ms + LEASE_MS);
            if *node != leader && (run.given_back || now_ms >= until_ms) {
                run.falling = true;
                fallen.push((*node, run.generation));
            }
        }
        fallen
    }

    /// Looks at who reaches whom. Of a pair that has been cut for too long one is not renewed any more: who reaches
    /// fewest, then who came up last; never the leader, and never so many that `quorum` voters would not be left.
    pub(in crate::cluster) fn judge_cuts(&mut self, voters: &BTreeSet<u64>, now_ms: u64) -> Option<NodeId> {
        let live: Vec<NodeId> = self.runs.keys().copied().filter(|node| self.live(*node, now_ms)).collect();
        let mut cut = BTreeMap::new();
        for (at, one) in live.iter().enumerate() {
            for other in live.iter().skip(at + 1) {
                if !(self.reaches(*one, *other) && self.reaches(*other, *one)) {
                    let since = self.cut.get(&(*one, *other)).copied().unwrap_or(now_ms);
                    cut.insert((*one, *other), since);
                }
            }
        }
        self.cut = cut;
        let judged = |(one, other): &(NodeId, NodeId)| self.shunned.contains(one) || self.shunned.contains(other);
        let too_long =
            |(pair, since): &(&(NodeId, NodeId), &u64)| now_ms.saturating_sub(**since) >= CUT_MS_MAX && !judged(pair);
        let may_go = |node: &NodeId| {
            let left = live.iter().filter(|live| *live != node && voters.contains(&live.0)).count();
            *node != self.leader && left > voters.len() / 2
        };
        let rank = |node: &NodeId| {
            let since_ms = self.runs.get(node).map_or(0, |run| run.since_ms);
            let reached = live.iter().filter(|other| self.reaches(*node, **other)).count();
            (reached, std::cmp::Reverse(since_ms), *node)
        };
        let goes =
            |(&(one, other), _): (&(NodeId, NodeId), &u64)| [one, other].into_iter().filter(may_go).min_by_key(rank);
        // A pair of which nobody may go stays as it is, and hides no other.
        let victim = self.cut.iter().filter(too_long).find_map(goes)?;
        self.shunned.insert(victim);
        Some(victim)
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        from == to || self.runs.get(&from).is_some_and(|run| run.reached.contains(&to.0))
    }

    fn reaches_all(&self, node: NodeId) -> bool {
        self.runs.keys().all(|other| {
            *other == node || self.shunned.contains(other) || (self.reaches(node, *other) && self.reaches(*other, node))
        })
    }
}
