//! How a node without a log becomes a member: alone, together with others that have none, or by joining a cluster that
//! is there. Nobody's silence is ever taken for an answer: a cluster begins only once every peer has said that it has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fulmar_proto::peer::v1::{AdoptRequest, IdentifyRequest, Identity, JoinRequest};
use tokio::task::JoinSet;

use super::context::Context;
use super::membership::odd;
use super::peers::resolve;
use super::raft::Member;
use super::start::StartError;

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// For one peer to answer one question.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_000);

/// For a cluster to take a node in; it commits an entry for it.
const JOINED_WITHIN: Duration = Duration::from_secs(10);

/// Rounds between two lines in the log about what is waited for.
const SAID_EVERY: u32 = 20;

/// How a node without a log begins.
#[derive(Debug, Clone)]
pub enum Bootstrap {
    /// A cluster of its own.
    Single,
    /// Together with, or as one more of, these: host:port. A new cluster begins once `expected` have said that they have
    /// none.
    Join { peers: Vec<String>, expected: usize },
}

/// Makes this node, which has no log, a member.
///
/// # Errors
/// Its log cannot be written, or it was removed from the cluster that it finds.
pub(super) async fn begin(context: &Arc<Context>, how: &Bootstrap) -> Result<(), StartError> {
    let own = context.node.0;
    match how {
        Bootstrap::Single => {
            adopt(context, rand::random::<u64>().max(1)).await?;
            initialise(context, [(own, context.address.clone())].into()).await
        }
        Bootstrap::Join { peers, expected } => find_others(context, peers, *expected).await,
    }
}

/// Takes a cluster's id for this node's, which has no log yet. One that it took before, without ever becoming a member,
/// does not count.
pub(super) async fn adopt(context: &Arc<Context>, cluster: u64) -> Result<(), StartError> {
    let log = context.log.clone();
    let saved = tokio::task::spawn_blocking(move || log.save_meta(|meta| meta.cluster = Some(cluster)));
    saved.await.map_err(|error| StartError::Failed(error.to_string()))??;
    context.peers.set_cluster(cluster);
    Ok(())
}

async fn initialise(context: &Context, voters: BTreeMap<u64, String>) -> Result<(), StartError> {
    let members: BTreeMap<u64, Member> = voters.into_iter().map(|(node, address)| (node, Member { address })).collect();
    context.raft.initialize(members).await.map_err(|error| StartError::Failed(error.to_string()))
}

async fn find_others(context: &Arc<Context>, peers: &[String], expected: usize) -> Result<(), StartError> {
    for round in 0u32.. {
        if context.log.last().is_some() {
            return Ok(()); // others have begun a cluster with this node
        }
        let (found, silent) = ask(context, peers).await;
        let clusters = clusters(&found, round);
        let waiting = if !clusters.is_empty() {
            match join_one(context, &clusters).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            }
        } else if !silent.is_empty() {
            format!("no answer from {}", silent.join(", "))
        } else if found.len() + 1 < expected {
            format!("{} of {expected} nodes are there", found.len() + 1)
        } else if found.keys().any(|other| *other < context.node.0) {
            "another node begins the cluster".to_owned()
        } else {
            match found_cluster(context, &found).await? {
                None => return Ok(()),
                Some(why) => why,
            }
        };
        if round.is_multiple_of(SAID_EVERY) {
            tracing::info!(waiting, "not a member yet");
        }
        context.waits.note(Some(waiting));
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// Asks every peer who it is; those that answered, and the addresses of those that did not.
async fn ask(context: &Arc<Context>, peers: &[String]) -> (BTreeMap<u64, Identity>, Vec<String>) {
    let mut asked = JoinSet::new();
    let mut silent = Vec::new();
    for peer in peers {
        let targets = match resolve(peer).await {
            Ok(targets) => targets,
            Err(error) => {
                silent.push(format!("{peer} ({error})"));
                continue;
            }
        };
        for target in targets {
            let context = context.clone();
            asked.spawn(async move {
                let address = target.to_string();
                let mut client = context.peers.dial(target);
                let answer = tokio::time::timeout(ANSWER_WITHIN, client.identify(IdentifyRequest {})).await;
                answer.ok().and_then(Result::ok).map(|answer| answer.into_inner()).ok_or(address)
            });
        }
    }
    let mut found = BTreeMap::new();
    for answer in asked.join_all().await {
        match answer {
            Ok(identity) if identity.node == context.node.0 => {}
            Ok(identity) => {
                context.peers.set_address(identity.node, &identity.address);
                found.insert(identity.node, identity);
            }
            Err(address) => silent.push(address),
        }
    }
    silent.sort_unstable();
    (found, silent)
}

/// A member of each cluster that was found, those first that know of a leader: beside the one that is there may lie what is
/// left of one that has ended. Each round another one: that it answers here does not mean that it can take anybody in.
fn clusters(found: &BTreeMap<u64, Identity>, round: u32) -> Vec<&Identity> {
    let mut members: Vec<&Identity> = found.values().filter(|other| !other.empty && other.cluster != 0).collect();
    let turns = round.checked_rem(u32::try_from(members.len()).unwrap_or(u32::MAX)).unwrap_or_default();
    members.rotate_left(usize::try_from(turns).unwrap_or_default());
    members.sort_by_key(|other| other.leader == 0);
    let mut seen = BTreeSet::new();
    members.retain(|other| seen.insert(other.cluster));
    members
}

/// Asks one after the other to take this node in; what the last one said, if none does.
async fn join_one(context: &Arc<Context>, members: &[&Identity]) -> Result<(), String> {
    let mut refused = String::new();
    for member in members {
        match join(context, member).await {
            Ok(()) => return Ok(()),
            Err(why) => refused = format!("{}: {why}", member.address),
        }
    }
    Err(refused)
}

/// Asks a member to take this node in.
async fn join(context: &Arc<Context>, member: &Identity) -> Result<(), String> {
    let request = JoinRequest {
        node: context.node.0,
        cluster: member.cluster,
        address: context.address.clone(),
        forwarded: false,
    };
    let mut client = context.peers.dial(member.address.as_str());
    // First, so that what the leader sends at once is taken.
    adopt(context, member.cluster).await.map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(JOINED_WITHIN, client.join(request)).await;
    let answer = answer.map_err(|_| "the cluster does not answer".to_owned())?;
    match answer {
        Ok(answer) if answer.get_ref().refused.is_empty() => Ok(()),
        Ok(answer) => Err(answer.into_inner().refused),
        Err(status) => {
            if status.code() == tonic::Code::PermissionDenied {
                context.removed(status.message());
            }
            Err(status.message().to_owned())
        }
    }
}

/// Begins a cluster with nodes that have all said that they have none; why not, if one of them has changed its mind.
async fn found_cluster(context: &Arc<Context>, found: &BTreeMap<u64, Identity>) -> Result<Option<String>, StartError> {
    let adopted: BTreeSet<u64> = found.values().map(|other| other.cluster).filter(|cluster| *cluster != 0).collect();
    let own = Some(context.peers.cluster()).filter(|cluster| *cluster != 0);
    let cluster = own.or(adopted.first().copied()).unwrap_or_else(|| rand::random::<u64>().max(1));
    adopt(context, cluster).await?;
    // The rest join as soon as there is something to join.
    let voters = odd(found.len() + 1);
    let others: Vec<&Identity> = found.values().take(voters - 1).collect();
    for other in &others {
        let mut client = context.peers.dial(other.address.as_str());
        let request = AdoptRequest { cluster, from: context.node.0 };
        let answer = tokio::time::timeout(ANSWER_WITHIN, client.adopt(request)).await;
        let adopted = answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.get_ref().adopted));
        if !adopted {
            return Ok(Some(format!("{} does not take part yet", other.address)));
        }
    }
    let mut members: BTreeMap<u64, String> = others.iter().map(|other| (other.node, other.address.clone())).collect();
    members.insert(context.node.0, context.address.clone());
    tracing::info!(cluster = format!("{cluster:016x}"), voters = members.len(), "begins a cluster");
    initialise(context, members).await?;
    Ok(None)
}

/// What a removed node is told.
pub(super) fn removed_text(node: u64, cluster: u64) -> String {
    format!("node {node:016x} was removed from the cluster {cluster:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_of_a_cluster_has_its_turn() {
        let member = |node: u64, cluster: u64, leader: u64| {
            (node, Identity { node, cluster, leader, empty: cluster == 0, ..Identity::default() })
        };
        let found: BTreeMap<u64, Identity> =
            [member(1, 7, 0), member(2, 8, 4), member(3, 8, 4), member(4, 8, 4), member(5, 0, 0)].into();
        let mut asked = BTreeSet::new();
        for round in 0..8 {
            let turn: Vec<u64> = clusters(&found, round).iter().map(|member| member.node).collect();
            assert_eq!((turn.len(), turn[1]), (2, 1), "one of each, and the cluster without a leader last");
            asked.insert(turn[0]);
        }
        assert_eq!(asked, [2, 3, 4].into());
        assert!(clusters(&BTreeMap::new(), 3).is_empty());
    }
}
