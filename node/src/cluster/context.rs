//! What the parts of a node's membership share.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use bytestring::ByteString;
use fulmar_broker::NodeId;
use fulmar_broker::state::command::{Batch, Command, Limits};
use fulmar_proto::peer::v1::Identity;
use openraft::ServerState;

use super::acks::Acks;
use super::calls::{Desk, Examined};
use super::clock::Clock;
use super::core::Core;
use super::leader::Leadership;
use super::lease::Holder;
use super::links::Links;
use super::peers::Peers;
use super::raft::contact::Contact;
use super::raft::{Membership, Proposal, Raft};
use super::reach::Reach;
use super::waits::Waits;
use crate::store::identity;
use crate::store::log::{Fatal, Log};

/// See the module.
pub struct Context {
    pub(super) node: NodeId,
    /// host:port that others reach this node at; empty if it has no peer listener.
    pub(super) address: String,
    pub(super) data_dir: PathBuf,
    pub(super) core: Arc<Core>,
    pub(super) clock: Clock,
    pub(super) raft: Raft,
    pub(super) log: Arc<Log>,
    pub(super) peers: Arc<Peers>,
    pub(super) links: Arc<Links>,
    pub(super) holder: Arc<Holder>,
    pub(super) acks: Arc<Acks>,
    pub(super) contact: Arc<Contact>,
    pub(super) waits: Waits,
    pub(super) leadership: Leadership,
    pub(super) reach: Reach,
    /// Bounds of the replicated state, as this node is configured; the leader's count.
    pub(super) limits: Limits,
    pub(super) fatal: Fatal,
    /// Who carries requests to devices, once there is somebody.
    pub(super) desk: OnceLock<Weak<dyn Desk>>,
    /// Who says what this node remembers.
    pub(super) examined: OnceLock<Arc<dyn Examined>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Context {
    /// What announces this run of the node.
    pub(super) fn node_up(&self) -> Command {
        let (node, generation) = self.core.run();
        Command::NodeUp { node, generation, address: ByteString::from(self.address.as_str()) }
    }

    /// The members, as the latest entry of the log that says so has them.
    pub(super) fn membership(&self) -> Membership {
        self.raft.metrics().borrow().membership_config.membership().clone()
    }

    /// The term in which this node leads, once it has applied everything that was committed before and has begun log
    /// time anew: until then it stamps nothing.
    #[must_use]
    pub(super) fn leads(&self) -> Option<u64> {
        self.elected().filter(|term| self.leadership.begun(*term))
    }

    /// The term in which this node leads, once it has applied everything that was committed before.
    #[must_use]
    pub(super) fn elected(&self) -> Option<u64> {
        let metrics = self.raft.metrics().borrow().clone();
        let current = metrics.last_applied.is_some_and(|applied| applied.leader_id.term == metrics.current_term);
        (metrics.state == ServerState::Leader && current).then_some(metrics.current_term)
    }

    /// Has conditional commands committed as the leader of this term, or not at all.
    ///
    /// # Errors
    /// It does not lead any more; whether they were committed is not known.
    pub(super) async fn lead(&self, term: u64, commands: Vec<Command>) -> Result<(), String> {
        if self.leadership.handing() {
            return Err("leadership is being handed over".to_owned());
        }
        let (node, generation) = self.core.run();
        let at = self.clock.now().log;
        let batch = Batch { node, generation, seq: 0, at, term: Some(term), commands };
        let written = self.raft.client_write(Proposal(Arc::new(batch))).await.map_err(|error| error.to_string())?;
        written.data.map_err(|error| error.to_string())
    }

    /// Somebody was told that this node was removed: its data directory is not used again.
    pub(super) fn removed(&self, what: &str) {
        if let Err(error) = identity::mark_removed(&self.data_dir, what) {
            tracing::error!(%error, "cannot note in the data directory that this node was removed");
        }
        (self.fatal)(what);
    }

    /// What other members are told of this node.
    pub(super) fn identity(&self) -> Identity {
        let metrics = self.raft.metrics().borrow().clone();
        Identity {
            node: self.node.0,
            cluster: self.peers.cluster(),
            empty: self.log.last().is_none() && self.log.vote().is_none(),
            address: self.address.clone(),
            leader: metrics.current_leader.unwrap_or_default(),
        }
    }
}
