//! Leadership handed over by a leader that is about to go. openraft 0.9 has no such thing, and a silent leader is followed
//! only after an election's time. Here the leader stops appending, waits until a successor has all of its log, has the
//! other voters and itself vote for that one, and tells it to stand.

use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::NodeId;
use fulmar_proto::raft::v1::{HandOverRequest, PreVoteRequest, PreVoteResponse};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clock::wall_ms;
use super::context::Context;
use super::raft::inbound::vote_for;
use super::raft::log_id;
use super::raft::message::{from_position, to_position};

/// For a voter to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// For the successor to have all of the log, while nothing is added to it.
const CURRENT_WITHIN: Duration = Duration::from_millis(1_000);

/// For the successor to be elected.
const ELECTED_WITHIN: Duration = Duration::from_millis(1_000);

/// Between two looks at how far the successor is.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Nothing is appended until it is dropped.
struct Hush<'c>(&'c Context);

impl<'c> Hush<'c> {
    fn begin(context: &'c Context) -> Hush<'c> {
        context.leadership.hand(true);
        Hush(context)
    }
}

impl Drop for Hush<'_> {
    fn drop(&mut self) {
        self.0.leadership.hand(false);
    }
}

/// Hands over, if this node leads and another voter can; who leads then.
pub(super) async fn hand_over(context: &Arc<Context>) -> Option<NodeId> {
    let term = context.leads()?;
    let began = Instant::now();
    match try_to(context, term).await {
        Ok(successor) => {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(successor = format!("{successor:016x}"), took_ms, "leadership is handed over");
            Some(NodeId(successor))
        }
        Err(why) => {
            tracing::info!(why, "leadership is not handed over");
            None
        }
    }
}

async fn try_to(context: &Arc<Context>, term: u64) -> Result<u64, String> {
    let membership = context.membership();
    let others: Vec<u64> = membership.voter_ids().filter(|voter| *voter != context.node.0).collect();
    if others.is_empty() {
        return Err("there is no other voter".to_owned());
    }
    let answers = ask_all(context, &others, term).await;
    let fit = answers.iter().filter(|(_, answer)| !answer.slow_disk && !answer.leaving);
    let most = fit.max_by_key(|(voter, answer)| (answer.last.map(to_position), std::cmp::Reverse(*voter)));
    let successor = most.map(|(voter, _)| *voter).ok_or("no other voter can lead")?;
    let mut walls_ms: Vec<u64> = answers.iter().map(|(_, answer)| answer.wall_ms).collect();
    walls_ms.push(wall_ms());

    let _hush = Hush::begin(context);
    become_current(context, successor).await?;
    let told = |walls_ms: Vec<u64>| HandOverRequest { address: None, term, successor, walls_ms };
    let mut voting = JoinSet::new();
    for voter in others.into_iter().filter(|voter| *voter != successor) {
        voting.spawn(tell(context.clone(), voter, told(Vec::new())));
    }
    for why in voting.join_all().await.into_iter().filter_map(Result::err) {
        // A quorum may do without it.
        tracing::debug!(why, "a voter does not vote for the successor");
    }
    vote_for(&context.raft, term + 1, successor).await?;
    tell(context.clone(), successor, told(walls_ms)).await?;
    let leads = |metrics: &openraft::RaftMetrics<u64, super::raft::Member>| metrics.current_leader == Some(successor);
    let elected = context.raft.wait(Some(ELECTED_WITHIN)).metrics(leads, "the successor leads").await;
    elected.map(|_| successor).map_err(|error| error.to_string())
}

/// What the other voters say of themselves; nothing is changed by it.
async fn ask_all(context: &Arc<Context>, voters: &[u64], term: u64) -> Vec<(u64, PreVoteResponse)> {
    let last = context.log.last().map(log_id).as_ref().map(from_position);
    let mut asked = JoinSet::new();
    for voter in voters.iter().copied() {
        let context = context.clone();
        asked.spawn(async move {
            let mut client = context.peers.raft(voter)?;
            let request = PreVoteRequest { address: Some(context.peers.raft_address(voter, 0)), term, last };
            let answer = tokio::time::timeout(ANSWER_WITHIN, client.pre_vote(request)).await.ok()?.ok()?;
            Some((voter, answer.into_inner()))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// Waits until the successor has as much log as this node.
async fn become_current(context: &Context, successor: u64) -> Result<(), String> {
    let by = Instant::now() + CURRENT_WITHIN;
    loop {
        let metrics = context.raft.metrics().borrow().clone();
        let replication = metrics.replication.as_ref().ok_or("this node does not lead any more")?;
        let matched = replication.get(&successor).copied().flatten().map(|id| id.index);
        if matched == metrics.last_log_index {
            return Ok(());
        }
        if Instant::now() >= by {
            return Err(format!("{successor:016x} has {matched:?} of {:?} entries", metrics.last_log_index));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn tell(context: Arc<Context>, voter: u64, request: HandOverRequest) -> Result<(), String> {
    let mut client = context.peers.raft(voter).ok_or("its address is not known")?;
    let request = HandOverRequest { address: Some(context.peers.raft_address(voter, 0)), ..request };
    let told = tokio::time::timeout(ANSWER_WITHIN, client.hand_over(request)).await;
    let told = told.map_err(|_| format!("{voter:016x} does not answer"))?;
    told.map(drop).map_err(|status| status.message().to_owned())
}
