//! openraft's positions and votes as those of the messages between nodes, and back.

use fulmar_proto::raft::v1 as wire;
use fulmar_proto::types::v1 as proto;
use openraft::{LeaderId, Vote};

use super::LogId;

pub(in crate::cluster) fn from_position(id: &LogId) -> proto::LogPosition {
    proto::LogPosition { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub(in crate::cluster) fn to_position(position: proto::LogPosition) -> LogId {
    LogId::new(LeaderId::new(position.term, position.leader), position.index)
}

pub(super) fn from_vote(vote: &Vote<u64>) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(super) fn to_vote(vote: wire::Vote) -> Vote<u64> {
    Vote { leader_id: LeaderId::new(vote.term, vote.node), committed: vote.committed }
}
