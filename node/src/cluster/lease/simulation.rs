//! Leases among simulated nodes: elections, delays, losses, cuts and stops, by seed, with the clock driven. Only what talks
//! is simulated; tables and holders are the real ones. What must hold at every moment: whatever one node may have told a
//! client because everybody had applied it, every node that may act has applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fulmar_broker::{Generation, NodeId};
use rand::prelude::*;

use super::*;

const NODES: u64 = 5;
const VOTERS: u64 = 3;
const STEP_MS: u64 = 10;
const LASTS_MS: u64 = 30_000;
const HEARTBEAT_MS: u64 = 500;

#[derive(Debug, Clone)]
enum Message {
    Heartbeat {
        term: u64,
        last: (u64, u64),
        commit: u64,
        sent_ms: u64,
    },
    Ack {
        term: u64,
        length: u64,
        sent_ms: u64,
    },
    Request {
        term: u64,
        number: u64,
        asked: Asked,
    },
    Renewal {
        term: u64,
        number: u64,
        lease_ms: u64,
        index: u64,
        stable: u64,
    },
    /// Whether one would let the sender stand, whose log ends so.
    Ask {
        last: (u64, u64),
    },
    Would,
    Vote {
        term: u64,
        last: (u64, u64),
    },
    Voted {
        term: u64,
    },
    /// A term that is later than the sender's.
    Outdated {
        term: u64,
    },
}

/// On the way to be a leader.
enum Standing {
    /// The others are asked, and it is decided then.
    Asking {
        decides_ms: u64,
        would: BTreeSet<u64>,
    },
    Elects {
        term: u64,
        over_ms: u64,
        voted: BTreeSet<u64>,
    },
}

struct Leader {
    term: u64,
    /// Its term's first entry: until it has applied that, it leads by Raft only.
    first: u64,
    table: Option<Table>,
    acks: HashMap<u64, (u64, u64)>,
    stable: u64,
}

struct Node {
    id: u64,
    holder: Holder,
    thaw: Option<Thaw>,
    generation: u64,
    /// Highest term in which a vote was given or a leader heard.
    term: u64,
    /// Term and index of the last entry.
    last: (u64, u64),
    commit: u64,
    applied: u64,
    heard_ms: Option<u64>,
    stopped_until_ms: u64,
    leader: Option<Leader>,
    standing: Option<Standing>,
    follows: Option<u64>,
    sent: Vec<(u64, u64)>,
    number: u64,
    inbox: Vec<(u64, u64, Message)>,
}

struct World {
    seed: u64,
    random: StdRng,
    now_ms: u64,
    nodes: Vec<Node>,
    /// From whom to whom nothing comes.
    cut: BTreeSet<(u64, u64)>,
    /// Runs that are alive by the log, and which entry changed that.
    runs: BTreeMap<u64, (u64, bool)>,
    /// What some node may have told a client.
    told: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let node = |id| Node {
            id,
            holder: Holder::new(),
            thaw: None,
            generation: 1,
            term: 0,
            last: (0, 1),
            commit: 1,
            applied: 1,
            heard_ms: None,
            stopped_until_ms: 0,
            leader: None,
            standing: None,
            follows: None,
            sent: Vec::new(),
            number: 0,
            inbox: Vec::new(),
        };
        let runs = (1..=NODES).map(|id| (id, (1, true))).collect();
        let nodes = (1..=NODES).map(node).collect();
        let random = StdRng::seed_from_u64(seed);
        World { seed, random, now_ms: 10_000, nodes, cut: BTreeSet::new(), runs, told: 0 }
    }

    fn send(&mut self, from: u64, to: u64, message: Message) {
        if self.random.random_ratio(1, 50) || self.cut.contains(&(from, to)) {
            return;
        }
        let late = if self.random.random_ratio(1, 20) { 800 } else { 20 };
        let at = self.now_ms + self.random.random_range(1..=late);
        self.nodes[to as usize - 1].inbox.push((at, from, message));
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        self.trouble();
        for index in 0..self.nodes.len() {
            if self.nodes[index].stopped_until_ms <= self.now_ms {
                self.take(index);
                self.act(index);
            }
        }
        self.check();
    }

    fn trouble(&mut self) {
        if self.random.random_ratio(1, 300) {
            let index = self.random.random_range(0..NODES as usize);
            let lasts = self.random.random_range(100..5_000);
            self.nodes[index].stopped_until_ms = self.now_ms + lasts;
        }
        if self.random.random_ratio(1, 200) {
            let one = self.random.random_range(1..NODES);
            let other = self.random.random_range(one + 1..=NODES);
            // In one direction, or in both.
            let (here, there) = if self.random.random() { (one, other) } else { (other, one) };
            if !self.cut.remove(&(here, there)) {
                self.cut.insert((here, there));
                if self.random.random() {
                    self.cut.insert((there, here));
                }
            }
        }
        if self.random.random_ratio(1, 400) {
            self.cut.clear();
        }
    }

    fn take(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let mut due: Vec<_> = Vec::new();
        self.nodes[index].inbox.retain(|item| {
            let is_due = item.0 <= now_ms;
            if is_due {
                due.push(item.clone());
            }
            !is_due
        });
        due.sort_by_key(|(at, _, _)| *at);
        for (_, from, message) in due {
            self.hear(index, from, message);
        }
    }

    fn hear(&mut self, index: usize, from: u64, message: Message) {
        let (now_ms, id) = (self.now_ms, self.nodes[index].id);
        let node = &mut self.nodes[index];
        match message {
            Message::Heartbeat { term, last, commit, sent_ms } => {
                if term < node.term {
                    let term = node.term;
                    return self.send(id, from, Message::Outdated { term });
                }
                if node.leader.as_ref().is_some_and(|leader| leader.term < term) {
                    node.leader = None;
                }
                (node.term, node.follows, node.heard_ms, node.standing) = (term, Some(from), Some(now_ms), None);
                node.last = node.last.max(last); // one that was overtaken takes nothing back
                node.commit = node.commit.max(commit);
                self.send(id, from, Message::Ack { term, length: last.1, sent_ms });
            }
            Message::Outdated { term } => {
                if term > node.term {
                    (node.term, node.leader, node.standing) = (term, None, None);
                }
            }
            Message::Ask { last } => {
                self.quorum_ms(index);
                let node = &self.nodes[index];
                if silent(node, now_ms) && node.last <= last {
                    self.send(id, from, Message::Would);
                }
            }
            Message::Would => {
                if let Some(Standing::Asking { would, .. }) = &mut node.standing {
                    would.insert(from);
                }
            }
            Message::Vote { term, last } => {
                if !silent(node, now_ms) {
                    return;
                }
                if term > node.term {
                    (node.term, node.leader, node.standing) = (term, None, None);
                    if node.last <= last {
                        self.send(id, from, Message::Voted { term });
                    }
                }
            }
            Message::Voted { term } => {
                if let Some(Standing::Elects { term: of, voted, .. }) = &mut node.standing
                    && *of == term
                {
                    voted.insert(from);
                }
            }
            Message::Ack { term, length, sent_ms } => {
                let Some(leader) = node.leader.as_mut().filter(|leader| leader.term == term) else { return };
                let ack = leader.acks.entry(from).or_insert((sent_ms, length));
                *ack = (ack.0.max(sent_ms), ack.1.max(length));
                let mut lengths: Vec<u64> = (1..=VOTERS)
                    .map(|voter| if voter == id { node.last.1 } else { leader.acks.get(&voter).map_or(0, |ack| ack.1) })
                    .collect();
                lengths.sort_unstable();
                node.commit = node.commit.max(lengths[(VOTERS / 2) as usize]);
            }
            Message::Request { term, number, asked } => {
                let quorum_ms = self.quorum_ms(index);
                let node = &mut self.nodes[index];
                let own = node.applied;
                let Some(leader) = node.leader.as_mut().filter(|leader| leader.term == term) else { return };
                let Some(table) = &mut leader.table else { return };
                let lease_ms = match quorum_ms {
                    Some(at) if number > 0 => table.renew(&asked, now_ms.saturating_sub(at), now_ms),
                    _ => {
                        table.report(&asked);
                        0
                    }
                };
                leader.stable = leader.stable.max(table.stable(own, now_ms));
                let stable = leader.stable;
                self.send(id, from, Message::Renewal { term, number, lease_ms, index: own, stable });
            }
            Message::Renewal { term, number, lease_ms, index, stable } => {
                node.holder.note_stable(term, stable);
                let Some((_, sent_ms)) = node.sent.iter().find(|(sent, _)| *sent == number) else { return };
                if lease_ms > 0 {
                    let renewal = Thaw { index, until_ms: held_until(*sent_ms, lease_ms) };
                    node.holder.renewed(now_ms, renewal, &mut node.thaw);
                }
            }
        }
    }

    /// As the leader reckons it, which takes note of it for itself.
    fn quorum_ms(&mut self, index: usize) -> Option<u64> {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        let leader = node.leader.as_ref()?;
        let of = |voter| if voter == node.id { Some(now_ms) } else { leader.acks.get(&voter).map(|ack| ack.0) };
        let mut times: Vec<Option<u64>> = (1..=VOTERS).map(of).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        let quorum_ms = times[(VOTERS / 2) as usize]?;
        node.heard_ms = node.heard_ms.max(Some(quorum_ms));
        Some(quorum_ms)
    }

    fn act(&mut self, index: usize) {
        let (now_ms, id) = (self.now_ms, self.nodes[index].id);
        // Applies at its own pace.
        let behind = self.nodes[index].commit - self.nodes[index].applied;
        self.nodes[index].applied += if self.random.random_ratio(1, 10) { 0 } else { behind.min(3) };
        let applied = self.nodes[index].applied;
        let node = &mut self.nodes[index];
        node.holder.thaw(applied, &mut node.thaw);
        if self.nodes[index].leader.is_some() {
            self.lead(index);
        } else if id <= VOTERS {
            self.stand(index);
        }
        let node = &mut self.nodes[index];
        if let Some(leader) = node.follows.filter(|_| now_ms.is_multiple_of(RENEW_EVERY_MS)) {
            node.number += 1;
            node.sent.push((node.number, now_ms));
            let reached = (1..=NODES).collect();
            let asked = Asked { node: NodeId(id), generation: Generation(node.generation), applied, reached };
            let (term, number) = (node.term, node.number);
            self.send(id, leader, Message::Request { term, number, asked });
        }
    }

    /// The others are asked whether they would vote, then they do: all of it takes its time.
    fn stand(&mut self, index: usize) {
        let (now_ms, most) = (self.now_ms, (VOTERS / 2) as usize);
        let node = &mut self.nodes[index];
        let (id, last, is_silent) = (node.id, node.last, silent(node, now_ms));
        match node.standing.take() {
            None => {
                if is_silent && now_ms.is_multiple_of(50) && self.random.random_ratio(1, 4) {
                    let decides_ms = now_ms + self.random.random_range(20..=400);
                    self.nodes[index].standing = Some(Standing::Asking { decides_ms, would: BTreeSet::from([id]) });
                    self.send_to_voters(id, &Message::Ask { last });
                }
            }
            Some(Standing::Asking { decides_ms, would }) if now_ms < decides_ms => {
                node.standing = Some(Standing::Asking { decides_ms, would });
            }
            Some(Standing::Asking { would, .. }) => {
                if would.len() > most && is_silent {
                    node.term += 1;
                    let (term, voted) = (node.term, BTreeSet::from([id]));
                    let over_ms = now_ms + self.random.random_range(300..=600);
                    self.nodes[index].standing = Some(Standing::Elects { term, over_ms, voted });
                    self.send_to_voters(id, &Message::Vote { term, last });
                }
            }
            Some(Standing::Elects { term, voted, .. }) if voted.len() > most && node.term == term => {
                node.last = (term, node.last.1 + 1); // its term's first entry
                node.follows = None;
                node.leader = Some(Leader { term, first: node.last.1, table: None, acks: HashMap::new(), stable: 0 });
            }
            Some(Standing::Elects { term, over_ms, voted }) => {
                if now_ms < over_ms {
                    node.standing = Some(Standing::Elects { term, over_ms, voted });
                }
            }
        }
    }

    fn send_to_voters(&mut self, from: u64, message: &Message) {
        for voter in (1..=VOTERS).filter(|voter| *voter != from) {
            self.send(from, voter, message.clone());
        }
    }

    fn lead(&mut self, index: usize) {
        let (now_ms, id) = (self.now_ms, self.nodes[index].id);
        let quorum_ms = self.quorum_ms(index);
        let newest = self.nodes.iter().filter_map(|node| node.leader.as_ref()).map(|leader| leader.term).max();
        // Now and then nothing is proposed for a while: then who hears of no leader has as much log as the others.
        if (now_ms / 2_000).is_multiple_of(2) && self.random.random_ratio(1, 5) {
            self.nodes[index].last.1 += 1;
        }
        let node = &mut self.nodes[index];
        let (last, commit, own) = (node.last, node.commit, node.applied);
        let Some(leader) = node.leader.as_mut() else { return };
        let term = leader.term;
        if leader.table.is_none() && own >= leader.first {
            leader.table = Some(Table::new(NodeId(id), now_ms, node.heard_ms));
        }
        let mut fallen = Vec::new();
        if let Some(table) = &mut leader.table {
            let alive = self.runs.iter().filter(|(_, (_, alive))| *alive);
            let alive = alive.map(|(node, (generation, _))| (NodeId(*node), Generation(*generation)));
            table.observe(alive, own, now_ms);
            if let Some(at) = quorum_ms {
                node.holder.extend(held_until(at, LEASE_MS));
            }
            leader.stable = leader.stable.max(table.stable(own, now_ms));
            node.holder.note_stable(term, leader.stable);
            fallen = table.fallen(now_ms);
        }
        // Of a leader that was replaced nothing is committed any more.
        let commits = newest == Some(term);
        for (fallen, generation) in fallen.into_iter().filter(|_| commits) {
            assert!(!self.nodes[fallen.0 as usize - 1].holder.holds(now_ms), "{}: it still acts", self.seed);
            // Declared dead; it comes back as another run.
            self.runs.insert(fallen.0, (generation.0 + 1, true));
            self.nodes[fallen.0 as usize - 1].generation = generation.0 + 1;
        }
        if now_ms.is_multiple_of(HEARTBEAT_MS / 5) {
            for other in (1..=NODES).filter(|other| *other != id) {
                self.send(id, other, Message::Heartbeat { term, last, commit, sent_ms: now_ms });
            }
        }
    }

    /// A node that acts may have told its clients of everything that is stable as far as it knows.
    fn check(&mut self) {
        for node in &self.nodes {
            if node.holder.holds(self.now_ms) {
                self.told = self.told.max(node.holder.stable_index().min(node.applied));
            }
        }
        for node in self.nodes.iter().filter(|node| node.holder.holds(self.now_ms)) {
            assert!(
                node.applied >= self.told,
                "seed {}, at {} ms: node {} acts with {} applied, and {} is stable",
                self.seed,
                self.now_ms,
                node.id,
                node.applied,
                self.told
            );
        }
    }
}

/// Whether a node has heard of no leader for long enough to let one be elected.
fn silent(node: &Node, now_ms: u64) -> bool {
    node.heard_ms.is_none_or(|at| now_ms.saturating_sub(at) >= ELECTION_MS)
}

fn run(seed: u64) -> (u64, usize) {
    let mut world = World::new(seed);
    let mut acted = 0;
    while world.now_ms < 10_000 + LASTS_MS {
        world.step();
        acted += world.nodes.iter().filter(|node| node.holder.holds(world.now_ms)).count();
    }
    (world.told, acted)
}

#[test]
fn whatever_is_stable_is_applied_by_all_who_act() {
    let (mut told, mut acted) = (0, 0);
    let seeds = std::env::var("FULMAR_LEASE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300);
    for seed in 0..seeds {
        let (index, steps) = run(seed);
        told += index;
        acted += steps;
    }
    // Otherwise nothing was tried.
    let most = seeds as usize * (LASTS_MS / STEP_MS) as usize * NODES as usize;
    assert!(told > seeds * 10 && acted > most / 4, "{told} told, {acted} of {most} steps acted");
}
