//! Who stands for election, and when. openraft would stand as soon as a leader is silent, and depose a healthy one when a
//! cut node returns; so its own timer is off, and a node stands only once a quorum says that it would let it.

use std::sync::Arc;
use std::time::Duration;

use fulmar_proto::raft::v1::{PreVoteRequest, PreVoteResponse};
use openraft::ServerState;
use tokio::task::JoinSet;

use super::clock::wall_ms;
use super::context::Context;
use super::leader::SILENT_MS;
use super::lease::boottime_ms;
use super::raft::log_id;
use super::raft::message::{from_position, to_position};

/// Between two looks at the leader's silence.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Milliseconds by which two nodes may differ in when they stand, at random.
const JITTER_MS: u64 = 300;

/// For voters to say whether they would let this node stand.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);

/// Milliseconds for an election to come to something before this node stands again; as many more at random, at most, so
/// that two who have split the votes do not stand at the same time again.
const ELECTED_WITHIN_MS: u64 = 300;

/// Elections in a row that came to nothing, each of which doubles that time.
const FAILED_MAX: u32 = 3;

impl Context {
    /// Whether this node would let another stand.
    pub(super) fn pre_vote(&self, request: PreVoteRequest) -> PreVoteResponse {
        let metrics = self.raft.metrics().borrow().clone();
        let last = self.log.last();
        if metrics.state == ServerState::Leader {
            self.quorum_ms(metrics.current_term, boottime_ms()); // it hears of itself what the others have heard
        }
        let silent = self.silent();
        let asked = request.last.map(to_position);
        let current = asked >= last.map(log_id);
        PreVoteResponse {
            granted: silent && current,
            wall_ms: wall_ms(),
            slow_disk: self.log.stats().slow(),
            last: last.map(log_id).as_ref().map(from_position),
            leaving: self.leadership.leaving(),
        }
    }

    /// Whether no leader has been heard of for as long as one may be silent; nor, if this node leads, a quorum.
    fn silent(&self) -> bool {
        self.contact.age() >= Duration::from_millis(SILENT_MS)
    }
}

/// Stands for election whenever that is due and would succeed.
pub(super) async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut patience = Duration::from_millis(SILENT_MS + rand::random_range(0..JITTER_MS));
    let mut failed = 0;
    loop {
        ticks.tick().await;
        let metrics = context.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership().clone();
        let voter = membership.voter_ids().any(|voter| voter == context.node.0);
        if !voter || metrics.state == ServerState::Leader || context.contact.age() < patience {
            context.waits.note(None);
            continue;
        }
        patience = Duration::from_millis(SILENT_MS + rand::random_range(0..JITTER_MS));
        let Some(walls) = would_win(&context, &membership, metrics.current_term).await else { continue };
        if !context.silent() {
            continue; // a leader was heard of while the others answered, and counts on that
        }
        context.leadership.note_walls(&context, &walls);
        if context.raft.trigger().elect().await.is_err() {
            return;
        }
        let settled = |metrics: &openraft::RaftMetrics<u64, super::raft::Member>| metrics.current_leader.is_some();
        // If it comes to nothing, it is tried again, each time after longer: a vote has to be on the voter's disk, and one
        // that is slow would be asked for the next before it has given the last.
        let within =
            Duration::from_millis(ELECTED_WITHIN_MS + rand::random_range(0..ELECTED_WITHIN_MS)) * (1 << failed);
        failed = match context.raft.wait(Some(within)).metrics(settled, "an election").await {
            Ok(_) => 0,
            Err(_) => (failed + 1).min(FAILED_MAX),
        };
    }
}

/// Says how many of the voters are there, and who will have nothing to do with this node: it may never have a majority
/// again.
fn note_answers(context: &Context, (answered, voters): (usize, usize), mut refusals: Vec<String>) {
    refusals.sort_unstable();
    let there = format!("{answered} of {voters} voters answer");
    let refused = refusals.join("; ");
    let refuses = !refusals.is_empty();
    let why = if refuses { format!("{there}, {refused}") } else { there };
    if context.waits.note(Some(why)) && refuses {
        tracing::warn!(refused, "refused; a node that its cluster went on without is to be emptied");
    }
}

/// Asks the other voters; the wall clocks of those who would let this node stand, its own included, if it has a quorum.
async fn would_win(context: &Arc<Context>, membership: &super::raft::Membership, term: u64) -> Option<Vec<u64>> {
    let last = context.log.last().map(log_id).as_ref().map(from_position);
    let mut asked = JoinSet::new();
    for voter in membership.voter_ids().filter(|voter| *voter != context.node.0) {
        if let (None, Some(member)) = (context.peers.address(voter), membership.get_node(&voter)) {
            // Nothing is applied yet that says where it is now.
            context.peers.set_address(voter, &member.address);
        }
        let context = context.clone();
        asked.spawn(async move {
            let mut client = context.peers.raft(voter)?;
            let address = Some(context.peers.raft_address(voter, 0));
            let request = PreVoteRequest { address, term, last };
            let answer = match tokio::time::timeout(ANSWER_WITHIN, client.pre_vote(request)).await.ok()? {
                Ok(answer) => answer.into_inner(),
                // Whoever is there takes this node for none of its own.
                Err(status) if status.code() == tonic::Code::PermissionDenied => {
                    let address = context.peers.address(voter).unwrap_or_default();
                    return Some(Err(format!("{address} refuses it: {}", status.message())));
                }
                Err(_) => return None,
            };
            let better = !answer.slow_disk && !answer.leaving && answer.last.map(to_position) >= last.map(to_position);
            Some(Ok(answer.granted.then_some((voter, answer.wall_ms, better))))
        });
    }
    let (mut granted, mut refusals): (Vec<(u64, u64, bool)>, Vec<String>) = Default::default();
    let mut answered = 1;
    for answer in asked.join_all().await.into_iter().flatten() {
        match answer {
            Ok(vote) => {
                answered += 1;
                granted.extend(vote);
            }
            Err(why) => refusals.push(why),
        }
    }
    note_answers(context, (answered, membership.voter_ids().count()), refusals);
    let reluctant = context.log.stats().slow() || context.leadership.leaving();
    if reluctant && granted.iter().any(|(_, _, better)| *better) {
        return None; // its disk would hold up everybody, or it is about to go, and another has as much
    }
    granted.push((context.node.0, wall_ms(), false));
    let has = |voter: &u64| granted.iter().any(|(node, _, _)| node == voter);
    let sets = membership.get_joint_config();
    let wins = sets.iter().all(|set| set.iter().filter(|voter| has(voter)).count() > set.len() / 2);
    wins.then(|| granted.into_iter().map(|(_, wall, _)| wall).collect())
}
