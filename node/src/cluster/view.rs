//! The cluster as this node sees it, for people: who is a member, who leads, and how everybody is.

use std::collections::BTreeSet;
use std::time::Duration;

use fulmar_broker::{Generation, NodeId};
use fulmar_proto::peer::v1::{AdoptRequest, IdentifyRequest, JoinRequest, RemoveRequest};

use super::raft::Member;
use super::replica::Replica;

/// The whole of it, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Its id.
    pub cluster: u64,
    /// `None`: this node knows of none.
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Index of the last entry that this node has applied.
    pub applied: u64,
    /// By node.
    pub members: Vec<MemberView>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    pub node: NodeId,
    /// host:port of its peer listener; empty if it has none.
    pub address: String,
    pub role: Role,
    /// Its newest run is alive by the log.
    pub alive: bool,
    /// Of its newest run.
    pub generation: Generation,
    /// Sessions that it owns.
    pub sessions: u64,
    /// Entries behind the leader's last; only the leader knows.
    pub lag: Option<u64>,
}

/// What a member does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    /// Votes.
    Voter,
    /// Has what the others have, and does not vote.
    Learner,
}

/// How many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    pub members: usize,
    pub voters: usize,
    /// This node is one of the voters.
    pub votes: bool,
    /// Members whose newest run is alive by the log.
    pub up: usize,
}

/// For a node that is to join to say who it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

impl Replica {
    /// What this node knows of the cluster. Counts the sessions, so it is for people, not for every second.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let context = self.context();
        let metrics = context.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership().clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or_default();
        let behind = |node: u64| {
            let matched = metrics.replication.as_ref()?.get(&node)?;
            Some(last.saturating_sub(matched.map_or(0, |id| id.index)))
        };
        let state = self.read();
        let member = |(node, member): (&u64, &Member)| {
            // Of several runs the newest.
            let run = state.runs().filter(|run| run.node.0 == *node).max_by_key(|run| run.generation);
            let generation = run.as_ref().map_or(Generation(0), |run| run.generation);
            let announced = run.as_ref().map(|run| run.address.to_string()).filter(|address| !address.is_empty());
            MemberView {
                node: NodeId(*node),
                address: announced.unwrap_or_else(|| member.address.clone()),
                role: match metrics.current_leader {
                    Some(leader) if leader == *node => Role::Leader,
                    _ if voters.contains(node) => Role::Voter,
                    _ => Role::Learner,
                },
                alive: run.is_some_and(|run| run.alive),
                generation,
                sessions: state.owned_by(NodeId(*node), generation).count() as u64,
                lag: behind(*node),
            }
        };
        let members = membership.nodes().map(member).collect();
        ClusterView {
            cluster: context.peers.cluster(),
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            applied: self.applied(),
            members,
        }
    }

    /// The term of Raft that this node is in.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.context().raft.metrics().borrow().current_term
    }

    /// The members but this node, by their ids.
    #[must_use]
    pub fn others(&self) -> Vec<NodeId> {
        let own = self.context().node.0;
        self.context().membership().nodes().map(|(node, _)| *node).filter(|node| *node != own).map(NodeId).collect()
    }

    /// How many members there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let membership = self.context().membership();
        let up = {
            let state = self.read();
            let live = |node: u64| state.runs().any(|run| run.node.0 == node && run.alive);
            membership.nodes().filter(|(node, _)| live(**node)).count()
        };
        Census {
            up,
            members: membership.nodes().count(),
            voters: membership.voter_ids().count(),
            votes: membership.voter_ids().any(|voter| voter == self.context().node.0),
        }
    }

    /// Makes the node at `address` (host:port of its peer listener) a member; its id. Fine if it is one.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, address: &str) -> Result<NodeId, String> {
        let context = self.context();
        if context.address.is_empty() {
            return Err("this node has no cluster.listen: it is a cluster of one for ever".to_owned());
        }
        let mut client = context.peers.dial(address);
        let answer = tokio::time::timeout(ANSWER_WITHIN, client.identify(IdentifyRequest {})).await;
        let identity = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(format!("no node of ours answers at {address}: {}", status.message())),
            Err(_) => return Err(format!("no node answers at {address} within {} s", ANSWER_WITHIN.as_secs())),
        };
        let (node, cluster) = (identity.node, context.peers.cluster());
        if context.membership().get_node(&node).is_some() {
            return Ok(NodeId(node));
        }
        if !identity.empty {
            let of = identity.cluster;
            return Err(format!(
                "node {node:016x} at {address} belongs to the cluster {of:016x}: stop it and empty its data directory first"
            ));
        }
        // First, so that what the leader sends at once is taken.
        let request = AdoptRequest { cluster, from: context.node.0 };
        let adopted = tokio::time::timeout(ANSWER_WITHIN, client.adopt(request)).await;
        if !adopted.is_ok_and(|answer| answer.is_ok_and(|answer| answer.get_ref().adopted)) {
            return Err(format!("node {node:016x} at {address} does not take part"));
        }
        context.admit(JoinRequest { node, cluster, address: identity.address, forwarded: false }).await?;
        Ok(NodeId(node))
    }

    /// Ends the membership of a node for good.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove(&self, node: NodeId) -> Result<(), String> {
        self.context().remove(RemoveRequest { hello: None, node: node.0, forwarded: false }).await
    }
}
