//! openraft, given our types: what an entry carries, who a member is, and how positions and votes are kept on disk. The
//! log's storage, the state machine and the way to other members are in the files beside.

pub mod contact;
pub mod inbound;
pub mod log_store;
pub mod machine;
pub(super) mod message;
pub mod network;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::state::BatchError;
use fulmar_broker::state::command::Batch;
use fulmar_proto::types::v1 as proto;
use fulmar_proto::{Message, types::v1::FORMAT_VERSION};
use openraft::{EntryPayload, LeaderId, StorageError, StorageIOError};

use super::wire::{self, Wire};
use crate::store::log::{Position, Record, StoreError, Vote};
use crate::store::snapshots::SnapshotFile;

openraft::declare_raft_types!(
    /// See the module.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Member,
        SnapshotData = SnapshotFile,
);

pub type Raft = openraft::Raft<TypeConfig>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type LogId = openraft::LogId<u64>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::StoredMembership<u64, Member>;
pub type StorageResult<T> = Result<T, StorageError<u64>>;

/// One batch of commands, on its way into the log or out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal(pub Arc<Batch>);

/// Whether the state machine took an entry; what its commands came to is told to their proposers directly.
pub type Applied = Result<(), BatchError>;

/// What members know of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// host:port of its peer listener; empty while it has none.
    pub address: String,
}

#[must_use]
pub fn position(id: &LogId) -> Position {
    Position { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

#[must_use]
pub fn log_id(position: Position) -> LogId {
    LogId::new(LeaderId::new(position.term, position.leader), position.index)
}

fn stored_vote(vote: &openraft::Vote<u64>) -> Vote {
    Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

fn raft_vote(vote: Vote) -> openraft::Vote<u64> {
    openraft::Vote { leader_id: LeaderId::new(vote.term, vote.node), committed: vote.committed }
}

/// An entry as the log keeps it.
pub(in crate::cluster) fn encode_entry(entry: &Entry) -> Record {
    use proto::log_entry::Body;
    let position = position(&entry.log_id);
    let body = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Proposal(batch)) => Some(Body::Batch(batch.to_message())),
        EntryPayload::Membership(membership) => Some(Body::Membership(membership_message(membership))),
    };
    let message = proto::LogEntry {
        format_version: FORMAT_VERSION,
        position: Some(proto::LogPosition { term: position.term, leader: position.leader, index: position.index }),
        body,
    };
    Record { position, body: message.encode_to_vec().into() }
}

/// A kept record as the entry that it must be.
///
/// # Errors
/// What is wrong with it.
pub fn decode_entry(record: &Record) -> Result<Entry, String> {
    let entry = decode_body(record.body.clone())?;
    if position(&entry.log_id) != record.position {
        return Err(format!("says that it is entry {} of term {}", entry.log_id.index, entry.log_id.leader_id.term));
    }
    Ok(entry)
}

fn decode_body(body: Bytes) -> Result<Entry, String> {
    use proto::log_entry::Body;
    let message = proto::LogEntry::decode(body).map_err(|error| format!("is no log entry: {error}"))?;
    wire::check_version(message.format_version).map_err(|error| error.to_string())?;
    let kept = message.position.ok_or("has no position")?;
    let payload = match message.body {
        None => EntryPayload::Blank,
        Some(Body::Batch(batch)) => {
            let batch = Batch::from_message(batch).map_err(|error| error.to_string())?;
            EntryPayload::Normal(Proposal(Arc::new(batch)))
        }
        Some(Body::Membership(message)) => EntryPayload::Membership(membership(message)?),
    };
    let position = Position { term: kept.term, leader: kept.leader, index: kept.index };
    Ok(Entry { log_id: log_id(position), payload })
}

fn membership_message(membership: &Membership) -> proto::Membership {
    let voters = membership.get_joint_config().iter();
    proto::Membership {
        voter_sets: voters.map(|set| proto::VoterSet { nodes: set.iter().copied().collect() }).collect(),
        members: membership
            .nodes()
            .map(|(node, member)| proto::Member { node: *node, address: member.address.clone() })
            .collect(),
    }
}

fn membership(message: proto::Membership) -> Result<Membership, String> {
    let sets: Vec<BTreeSet<u64>> = message.voter_sets.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> =
        message.members.into_iter().map(|member| (member.node, Member { address: member.address })).collect();
    if let Some(stranger) = sets.iter().flatten().find(|voter| !members.contains_key(*voter)) {
        return Err(format!("has the voter {stranger:016x}, which is no member"));
    }
    Ok(Membership::new(sets, members))
}

/// A membership as a snapshot's head keeps it.
fn encode_membership(membership: &Membership) -> Bytes {
    membership_message(membership).encode_to_vec().into()
}

fn decode_membership(bytes: Bytes) -> Result<Membership, String> {
    membership(proto::Membership::decode(bytes).map_err(|error| format!("is no membership: {error}"))?)
}

fn read_error(error: &StoreError) -> StorageError<u64> {
    StorageIOError::read_logs(openraft::AnyError::new(error)).into()
}

fn write_error(error: &StoreError) -> StorageError<u64> {
    StorageIOError::write_logs(openraft::AnyError::new(error)).into()
}
