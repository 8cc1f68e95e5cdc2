//! A new cluster of one out of what a single node of a lost one has on its disk: for when a majority of the voters is gone
//! for good. Nobody can say any more which entries were committed, so all that are whole are kept: what the lost majority
//! acknowledged and this node had received is among them.
//!
//! Nothing of the old cluster is changed until one write of the log's metadata, which is what counts. Before it lies a
//! snapshot of the new cluster, which a start of the old one puts aside; after it only what the new one does not read. What
//! was promised of damaged entries is taken back with that write and not before: broken off, the directory stays damaged,
//! and nobody starts the old cluster without what it has acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::state::State;
use fulmar_broker::state::command::{Batch, Command, Limits};
use fulmar_broker::steer::{self, audit};
use fulmar_broker::{Generation, LogTime, NodeId};
use openraft::EntryPayload;
use thiserror::Error;

use super::clock::wall_ms;
use super::raft::machine::{self, write_file};
use super::raft::{Entry, Member, Membership, Proposal, StoredMembership, decode_entry, log_id};
use super::start::{StartError, newest};
use crate::store::identity;
use crate::store::log::{Damage, Log, OpenError, Opened, Options, Position, StoreError, Vote};
use crate::store::recovery::Survey;
use crate::store::snapshots::Snapshots;

/// A member that is not part of the new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub node: NodeId,
    /// host:port, as last heard of; empty if it never was.
    pub address: String,
    pub voter: bool,
}

/// What a recovery would do. While it lives no process can open the directory; nothing is changed yet.
#[derive(Debug)]
pub struct Plan {
    pub data_dir: PathBuf,
    pub node: NodeId,
    /// The cluster that the directory belongs to, and the one that it would.
    pub cluster: u64,
    pub recovered: u64,
    /// The last entry that is kept, the last that was known to be acknowledged by this node's disk, and the last that it
    /// knew to be committed, which is noted now and then only.
    pub last: Position,
    pub acknowledged: Option<Position>,
    pub committed: Option<Position>,
    /// What is wrong with the log, if that is passed over: entries from there on are lost.
    pub damage: Option<Damage>,
    pub lost: Vec<Lost>,
    /// As of the last entry, by log time.
    pub at: LogTime,
    pub sessions: u64,
    pub queued: u64,
    pub retained: u64,
    pub devices: u64,
    /// A backup was being put back, and was not put back whole.
    pub restoring: bool,
    term: u64,
    address: String,
    generation: Generation,
    state: Box<Held>,
    survey: Survey,
}

/// The state, which has nothing to say of itself.
struct Held(State);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

/// Why a directory is not made a new cluster. It is as before, unless it says otherwise.
#[derive(Debug, Error)]
pub enum RecoverError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Unfit(String),
    #[error("damaged: {0}; no entry of the log is at fault, so nothing can be passed over: take another survivor")]
    Damaged(Damage),
    /// Half-way. The directory is that of the old cluster, as damaged as before, or that of the new one; the recovery can be
    /// begun anew.
    #[error("{0}; run it again before the node is started")]
    Broken(String),
}

impl From<StoreError> for RecoverError {
    fn from(error: StoreError) -> RecoverError {
        RecoverError::Broken(error.to_string())
    }
}

fn unfit(what: impl Into<String>) -> RecoverError {
    RecoverError::Unfit(what.into())
}

/// Reads a stopped node's directory and says what it could be made. `salvage`: an acknowledged entry that is damaged or
/// missing ends the log there, instead of this.
///
/// # Errors
/// The directory is in use, damaged, empty, or that of a node that needs no recovery.
pub fn plan(data_dir: &Path, salvage: bool) -> Result<Plan, RecoverError> {
    if let Some(what) = identity::removed(data_dir).map_err(|error| unfit(error.to_string()))? {
        return Err(unfit(format!("{}: {what}; it knows nothing of what came later", data_dir.display())));
    }
    let survey = Survey::open(data_dir, salvage)?;
    let meta = survey.meta();
    let (Some(last), Some(cluster)) = (survey.last(), meta.cluster) else {
        return Err(unfit(format!("{}: this node was never part of a cluster", data_dir.display())));
    };
    let snapshots = Snapshots::at(data_dir.join("snapshots"));
    let (restored, _) = newest(survey.purged(), &snapshots, cluster).map_err(|error| match error {
        StartError::Damaged(damage) => RecoverError::Damaged(damage),
        error => unfit(error.to_string()),
    })?;
    let (mut state, origin) = match restored {
        Some((state, origin)) => (state, Some(origin)),
        None => (State::new(Limits::default()), None),
    };
    let reached = origin.as_ref().and_then(machine::reached);
    let mut membership = origin.map(|(meta, _)| meta.last_membership.membership().clone());
    let last = replay(&survey, reached, &mut state, &mut membership)?.unwrap_or(last);
    let membership = membership.ok_or_else(|| unfit("the log has no entry that says who the members are"))?;
    let node = NodeId(meta.node);
    let Some(own) = membership.get_node(&node.0) else {
        return Err(unfit(format!("node {:016x} is no member of the cluster {cluster:016x}", node.0)));
    };
    let address = own.address.clone();
    let lost = lost(&membership, &state, node);
    // A damaged one cannot be started, whoever else there is; nor can one whose recovery has broken off that late.
    if lost.is_empty() && survey.damage().is_none() {
        return Err(unfit(format!(
            "node {:016x} is the only member of the cluster {cluster:016x}: it needs nobody else, start it",
            node.0
        )));
    }
    if state.generation_of(node).is_none() {
        return Err(unfit(format!("node {:016x} has never served: it has nothing that others had not", node.0)));
    }
    let term = survey.vote().map_or(0, |vote| vote.term).max(last.term) + 1;
    let books = state.books();
    Ok(Plan {
        data_dir: data_dir.to_owned(),
        node,
        cluster,
        recovered: rand::random::<u64>().max(1),
        last,
        acknowledged: survey.acknowledged(),
        committed: meta.committed,
        damage: survey.damage().cloned(),
        lost,
        at: state.now(),
        sessions: state.session_count() as u64,
        queued: books.queued,
        retained: state.retained().len() as u64,
        devices: state.registry().device_count() as u64,
        restoring: state.restoring(),
        term,
        address,
        generation: Generation(meta.generation),
        state: Box::new(Held(state)),
        survey,
    })
}

/// Applies the entries after a snapshot to its state, and takes note of who the members are. The position that was
/// reached, if a snapshot ends it.
fn replay(
    survey: &Survey,
    reached: Option<Position>,
    state: &mut State,
    membership: &mut Option<Membership>,
) -> Result<Option<Position>, RecoverError> {
    let mut led_here = true;
    let mut at = reached;
    let mut each = |entry: &Entry, position: Position| {
        if reached.is_some_and(|reached| reached.index == position.index) {
            // A log that does not lead to what was installed was not committed: see `start::agree`.
            led_here = reached == Some(position);
            return;
        }
        if led_here {
            apply(state, membership, entry);
            at = Some(position);
        }
    };
    let read = survey.each(reached.map_or(0, |reached| reached.index), |record| {
        each(&decode_entry(record)?, record.position);
        Ok(())
    });
    let file = survey.data_dir().join("log");
    read.map_err(|what| RecoverError::Damaged(Damage { file, index: None, what }))?;
    Ok(at)
}

/// As `raft::machine` applies an entry, with nobody to tell.
fn apply(state: &mut State, membership: &mut Option<Membership>, entry: &Entry) {
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Membership(members) => *membership = Some(members.clone()),
        EntryPayload::Normal(Proposal(batch)) => {
            if batch.term.is_none_or(|only| only == entry.log_id.leader_id.term) {
                // One that is refused changes nothing, on any node.
                let _ = state.apply(batch, &mut Vec::new());
            }
        }
    }
}

/// Everybody who is known besides this node, in order.
fn lost(membership: &Membership, state: &State, node: NodeId) -> Vec<Lost> {
    let mut lost: BTreeMap<u64, Lost> = BTreeMap::new();
    for (other, member) in membership.nodes() {
        let voter = membership.voter_ids().any(|voter| voter == *other);
        lost.insert(*other, Lost { node: NodeId(*other), address: member.address.clone(), voter });
    }
    for run in state.runs() {
        let one = lost.entry(run.node.0).or_insert(Lost { node: run.node, address: String::new(), voter: false });
        if !run.address.is_empty() {
            one.address = run.address.to_string();
        }
    }
    lost.remove(&node.0);
    lost.into_values().collect()
}

impl Plan {
    /// Does it. `by`: who asks, for the audit.
    ///
    /// # Errors
    /// The disk refuses; see [`RecoverError::Broken`].
    pub fn carry_out(self, by: &str) -> Result<(), RecoverError> {
        let Plan { data_dir, node, cluster, recovered, last, lost, term, address, generation, state, survey, .. } =
            self;
        let Held(mut state) = *state;
        // Behind all that is in the log, also behind what does not count.
        let ended = survey.last();
        let index = ended.map_or(last.index, |ended| ended.index.max(last.index)) + 1;
        let at = Position { term, leader: node.0, index };
        let removed = lost.iter().map(|lost| Command::RemoveNode { node: lost.node });
        let entry = audit_entry(node, by, cluster, recovered, last);
        let note = Command::Steer(Box::new(steer::Change::Audit(vec![entry])));
        let commands = removed.chain([note]).collect();
        let batch = Batch { node, generation, seq: 0, at: state.now(), term: None, commands };
        state.apply(&batch, &mut Vec::new()).map_err(|error| unfit(error.to_string()))?;

        let failed = |error: std::io::Error| RecoverError::Broken(format!("snapshot: {error}"));
        let snapshots = Snapshots::open(data_dir.join("snapshots")).map_err(failed)?;
        let alone = Membership::new(vec![[node.0].into()], BTreeMap::from([(node.0, Member { address })]));
        let members = StoredMembership::new(Some(log_id(at)), alone);
        write_file(&snapshots, recovered, &state.snapshot(), &log_id(at), &members).map_err(failed)?;
        fail::fail_point!("recover::snapshot_written", |_| Err(RecoverError::Broken("fail point".to_owned())));
        drop(survey);
        let (log, opened) = open(&data_dir, ended)?;
        if log.last() != ended || log.meta().cluster != Some(cluster) {
            return Err(RecoverError::Broken("another process has changed the log meanwhile".to_owned()));
        }
        log.change_cluster(recovered, Vote { term, node: node.0, committed: false })?;
        // From here on it is the new cluster; what follows would be done by its start too.
        fail::fail_point!("recover::cluster_changed", |_| Err(RecoverError::Broken("fail point".to_owned())));
        log.purge(at)?;
        log.repair(&opened)?;
        fail::fail_point!("recover::log_purged", |_| Err(RecoverError::Broken("fail point".to_owned())));
        snapshots.prune(1).map_err(failed)?;
        log.close();
        tracing::warn!(
            node = format!("{:016x}", node.0),
            from = format!("{cluster:016x}"),
            cluster = format!("{recovered:016x}"),
            entry = last.index,
            term = last.term,
            lost = lost.len(),
            "a new cluster of one was made of this node's data"
        );
        Ok(())
    }
}

fn open(data_dir: &Path, last: Option<Position>) -> Result<(Log, Opened), RecoverError> {
    let fatal = Arc::new(|what: &str| tracing::error!(what, "the log has failed"));
    let options = Options { lock_wait: Duration::ZERO, ..Options::default() };
    Ok(Log::open_up_to(data_dir, last, options, fatal)?)
}

fn audit_entry(node: NodeId, by: &str, cluster: u64, recovered: u64, last: Position) -> audit::Entry {
    let about = format!("cluster {cluster:016x} to {recovered:016x} at entry {} of term {}", last.index, last.term);
    audit::Entry {
        at: LogTime(wall_ms()),
        node,
        user: by.chars().take(audit::TEXT_BYTES_MAX / 4).collect(),
        role: "".into(),
        address: "".into(),
        door: "offline".into(),
        operation: "Cluster/Recover".into(),
        about: about.into(),
        status: 200,
        code: "".into(),
        request_id: "".into(),
    }
}
