//! Who the members are, and which of them vote: the leader's work. As many vote as an odd number of members can, five at
//! most; the others are learners, which serve clients like everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmar_broker::NodeId;
use fulmar_broker::state::command::Command;
use fulmar_proto::peer::v1::{JoinRequest, RemoveRequest};
use openraft::ChangeMembers;

use super::bootstrap::removed_text;
use super::context::Context;
use super::lease::LEASE_MS;
use super::raft::{Member, Membership};

/// Voters of a cluster, at most.
const VOTERS_MAX: usize = 5;

/// Entries that a learner may be behind to become a voter.
const LAG_MAX: u64 = 1_000;

/// Between two looks at who should vote.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A voter that has been down for so long gives its vote to a learner that is up, if there is one.
const GRACE: Duration = Duration::from_secs(300);

/// For an entry of the log that changes the members.
const CHANGED_WITHIN: Duration = Duration::from_secs(10);

/// For the lease of a node that is not renewed any more to end, and between two looks at it.
const LAPSED_WITHIN: Duration = Duration::from_millis(LEASE_MS + 100);
const LAPSED_LOOK: Duration = Duration::from_millis(20);

/// The largest odd number of voters that so many members make.
#[must_use]
pub(super) fn odd(members: usize) -> usize {
    let most = members.clamp(1, VOTERS_MAX);
    most - usize::from(most.is_multiple_of(2))
}

/// What is known of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    voter: bool,
    live: bool,
    /// Close enough to the leader's log to vote.
    current: bool,
    /// Gone for so long, or for good, that another may have its vote.
    gone: bool,
}

/// Who should vote.
fn voters(members: &BTreeMap<u64, Standing>, leader: u64) -> BTreeSet<u64> {
    let target = odd(members.len());
    let mut voting: Vec<u64> = members.iter().filter(|(_, one)| one.voter).map(|(node, _)| *node).collect();
    // Who is to stay comes first.
    voting.sort_by_key(|node| {
        let one = &members[node];
        (*node != leader, one.gone, !one.live, *node)
    });
    voting.truncate(target);
    let ready = members.iter().filter(|(_, one)| !one.voter && one.live && one.current && !one.gone);
    let mut ready = ready.map(|(node, _)| *node);
    for place in voting.iter_mut().filter(|node| members[node].gone) {
        if let Some(other) = ready.next() {
            *place = other;
        }
    }
    let had = voting.len();
    voting.extend(ready.take(target - had));
    // An even number of voters stands no more losses than one less.
    let odd = voting.len() - usize::from(voting.len().is_multiple_of(2));
    voting.truncate(odd.max(had.min(target)));
    voting.into_iter().collect()
}

/// Keeps the voters as they should be for as long as this node is part of the cluster; nothing while another leads.
pub(super) async fn run(context: Arc<Context>) {
    let mut seen: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if context.leads().is_none() || context.leadership.handing() {
            seen.clear();
            continue;
        }
        if let Err(error) = step(&context, &mut seen).await {
            tracing::info!(error, "members not changed; tried again");
        }
    }
}

async fn step(context: &Arc<Context>, seen: &mut BTreeMap<u64, Instant>) -> Result<(), String> {
    let membership = context.membership();
    if membership.get_joint_config().len() > 1 {
        return finish_joint(context, &membership).await;
    }
    let voting: BTreeSet<u64> = membership.voter_ids().collect();
    let mut learners = membership.nodes().map(|(node, _)| *node).filter(|node| !voting.contains(node));
    // Whoever removed it may be at it still.
    let left = |node: NodeId| context.core.state().removed(node) && !context.leadership.is_leaving(node);
    if let Some(removed) = learners.find(|node| left(NodeId(*node))) {
        return dismiss(context, removed).await;
    }
    let members = standings(context, &membership, seen);
    let wanted = voters(&members, context.node.0);
    if wanted != voting {
        tracing::info!(voters = wanted.len(), members = members.len(), "the voters change");
        change(context, ChangeMembers::ReplaceAllVoters(wanted), true).await?;
        return Ok(());
    }
    // A wiped node has come back under a new id: its old one goes for good.
    let stale = members.iter().find(|(node, one)| one.gone && !one.voter && replaced(&membership, **node).is_some());
    if let Some((node, _)) = stale {
        forget(context, *node).await?;
    }
    Ok(())
}

/// A change of voters that was begun by an earlier leader is brought to its end.
async fn finish_joint(context: &Context, membership: &Membership) -> Result<(), String> {
    let Some(goal) = membership.get_joint_config().last() else { return Ok(()) };
    change(context, ChangeMembers::ReplaceAllVoters(goal.clone()), true).await
}

/// The newer member that has a member's address.
fn replaced(membership: &Membership, node: u64) -> Option<u64> {
    let address = &membership.get_node(&node)?.address;
    let same = |other: &(&u64, &Member)| *other.0 != node && !address.is_empty() && other.1.address == *address;
    membership.nodes().find(same).map(|(other, _)| *other)
}

fn standings(context: &Context, membership: &Membership, seen: &mut BTreeMap<u64, Instant>) -> BTreeMap<u64, Standing> {
    let metrics = context.raft.metrics().borrow().clone();
    let last = metrics.last_log_index.unwrap_or_default();
    let matched = |node: &u64| -> Option<u64> {
        let replication = metrics.replication.as_ref()?;
        replication.get(node).copied().flatten().map(|id| id.index)
    };
    let live = |node: u64| node == context.node.0 || context.leadership.live(NodeId(node)) == Some(true);
    let voting: BTreeSet<u64> = membership.voter_ids().collect();
    let nodes: Vec<u64> = membership.nodes().map(|(node, _)| *node).collect();
    seen.retain(|node, _| nodes.contains(node));
    let mut members = BTreeMap::new();
    for node in nodes {
        let up = live(node);
        let at = seen.entry(node).or_insert_with(Instant::now);
        if up {
            *at = Instant::now();
        }
        let superseded = !up && replaced(membership, node).is_some_and(live);
        // One that is being removed lives until its lease ends, and is not to be made a voter again meanwhile.
        let current = node == context.node.0
            || (matched(&node).is_some_and(|index| index + LAG_MAX >= last)
                && !context.leadership.is_leaving(NodeId(node)));
        let gone = superseded || at.elapsed() > GRACE;
        members.insert(node, Standing { voter: voting.contains(&node), live: up, current, gone });
    }
    members
}

async fn change(context: &Context, members: ChangeMembers<u64, Member>, retain: bool) -> Result<(), String> {
    let changing = context.raft.change_membership(members, retain);
    let changed = tokio::time::timeout(CHANGED_WITHIN, changing).await;
    let changed = changed.map_err(|_| "the change was not committed in time".to_owned())?;
    changed.map(drop).map_err(|error| error.to_string())
}

/// A node is not renewed until this is dropped. Whoever asks for its removal may go at any moment, and a removal that is
/// given up half-way must not leave the node without a lease.
struct Leaving<'c> {
    context: &'c Context,
    node: NodeId,
}

impl<'c> Leaving<'c> {
    fn begin(context: &'c Context, node: u64) -> Leaving<'c> {
        let node = NodeId(node);
        context.leadership.set_leaving(node, true);
        Leaving { context, node }
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.context.leadership.set_leaving(self.node, false);
    }
}

/// Ends a membership for good: its id does not come back. Once its lease is over: nobody counts on a node that is no
/// member any more.
async fn forget(context: &Context, node: u64) -> Result<(), String> {
    let _leaving = Leaving::begin(context, node);
    lapsed(context, NodeId(node)).await?;
    // The log first: from it any leader knows what is left to be done.
    let term = context.leads().ok_or("does not lead any more")?;
    context.lead(term, vec![Command::RemoveNode { node: NodeId(node) }]).await?;
    dismiss(context, node).await
}

/// Waits until a node that is not renewed any more does not act.
async fn lapsed(context: &Context, node: NodeId) -> Result<(), String> {
    let by = Instant::now() + LAPSED_WITHIN;
    loop {
        match context.leadership.live(node) {
            Some(false) => return Ok(()),
            None => return Err("does not lead any more".to_owned()),
            Some(true) if Instant::now() >= by => return Err("its lease does not end".to_owned()),
            Some(true) => tokio::time::sleep(LAPSED_LOOK).await,
        }
    }
}

/// Takes out a member that the log says is removed.
async fn dismiss(context: &Context, node: u64) -> Result<(), String> {
    change(context, ChangeMembers::RemoveNodes(BTreeSet::from([node])), true).await?;
    tracing::info!(node = format!("{node:016x}"), "was removed");
    Ok(())
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another node leads, or nobody does.
    NotLeader,
    Removed(String),
    Not(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused::Not(why)
    }
}

/// Makes a node a member, as a learner; who votes is decided later.
pub(super) async fn join(context: &Context, request: &JoinRequest) -> Result<(), Refused> {
    if context.leads().is_none() {
        return Err(Refused::NotLeader);
    }
    if context.core.state().removed(NodeId(request.node)) {
        return Err(Refused::Removed(removed_text(request.node, context.peers.cluster())));
    }
    if request.node == 0 || request.address.is_empty() {
        return Err(Refused::Not("a node without an id or address cannot join".to_owned()));
    }
    let membership = context.membership();
    context.peers.set_address(request.node, &request.address);
    if membership.get_node(&request.node).is_some() {
        return Ok(());
    }
    let same = membership.nodes().find(|(_, member)| member.address == request.address);
    if let Some((holder, _)) = same
        && (*holder == context.node.0 || context.leadership.live(NodeId(*holder)) == Some(true))
    {
        return Err(Refused::Not(format!("{} is the address of node {holder:016x}, which is alive", request.address)));
    }
    let member = Member { address: request.address.clone() };
    change(context, ChangeMembers::AddNodes(BTreeMap::from([(request.node, member)])), true).await?;
    tracing::info!(node = format!("{:016x}", request.node), address = request.address, "has joined");
    Ok(())
}

/// Ends the membership of a node.
pub(super) async fn remove(context: &Context, request: &RemoveRequest) -> Result<(), Refused> {
    if context.leads().is_none() {
        return Err(Refused::NotLeader);
    }
    let node = request.node;
    let membership = context.membership();
    if membership.get_node(&node).is_none() {
        return Err(Refused::Not(format!("node {node:016x} is no member")));
    }
    if node == context.node.0 {
        let why = "it leads: drain it first, and remove it when another node leads";
        return Err(Refused::Not(format!("node {node:016x} cannot be removed, for {why}")));
    }
    let mut members = standings(context, &membership, &mut BTreeMap::new());
    members.remove(&node);
    let wanted = voters(&members, context.node.0);
    let live = wanted.iter().filter(|voter| members.get(voter).is_some_and(|one| one.live)).count();
    if live <= wanted.len() / 2 {
        return Err(Refused::Not(format!("without node {node:016x} only {live} of {} voters are up", wanted.len())));
    }
    // From here on, so that nobody makes it a voter again.
    let _leaving = Leaving::begin(context, node);
    if membership.voter_ids().any(|voter| voter == node) {
        change(context, ChangeMembers::ReplaceAllVoters(wanted), true).await?;
    }
    Ok(forget(context, node).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str) -> Standing {
        Standing {
            voter: text.contains('v'),
            live: text.contains('l'),
            current: text.contains('c'),
            gone: text.contains('g'),
        }
    }

    #[test]
    fn as_many_vote_as_make_an_odd_number() {
        // Node 1 leads; v votes, l is live, c is current, g is gone.
        let cases: [(&[&str], &[u64]); 13] = [
            (&["vlc"], &[1]),
            (&["vlc", "lc"], &[1]),
            (&["vlc", "lc", "l"], &[1]),
            (&["vlc", "lc", "lc"], &[1, 2, 3]),
            (&["vlc", "vlc", "vlc", "lc"], &[1, 2, 3]),
            (&["vlc", "vlc", "vlc", "lc", "lc"], &[1, 2, 3, 4, 5]),
            (&["vlc", "vlc", "vlc", "vlc", "vlc", "lc", "lc"], &[1, 2, 3, 4, 5]),
            (&["vlc", "v", "vlc"], &[1, 2, 3]),
            (&["vlc", "vg", "vlc"], &[1, 2, 3]),
            (&["vlc", "vg", "vlc", "lc"], &[1, 3, 4]),
            (&["vlc", "vlc", "vlc", "vlc"], &[1, 2, 3]),
            (&["vlc", "v", "vlc", "vlc"], &[1, 3, 4]),
            (&["vlc", "vlc"], &[1]),
        ];
        for (given, wanted) in cases {
            let members = (1..).zip(given.iter().map(|text| member(text))).collect();
            assert_eq!(voters(&members, 1), wanted.iter().copied().collect(), "{given:?}");
        }
    }
}
