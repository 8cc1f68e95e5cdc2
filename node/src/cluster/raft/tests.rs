//! openraft's own tests of a store, run on ours.

mod members;
mod network;

use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use fulmar_broker::state::State;
use fulmar_broker::state::command::Limits;
use fulmar_broker::{Generation, NodeId};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{LogState, OptionalSend, RaftLogReader, Vote};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::machine::Machine;
use super::{Entry, LogId, StorageResult, TypeConfig};
use crate::cluster::core::Core;
use crate::cluster::lease::Holder;
use crate::cluster::peers::Peers;
use crate::store::log::{Fatal, Log, Options, Position};
use crate::store::snapshots::Snapshots;

/// Closes the log before its directory vanishes.
struct Guard(Arc<Log>, #[allow(dead_code, reason = "kept until the log is dropped")] TempDir);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The suite begins logs at any index, and writes over what is there, even over what was let go. Ours begin at 0, or
/// behind what was let go, and are cut off first: so what is not there was let go, by nobody, and of that the suite is not
/// told.
struct AnyBeginning(LogStore, Arc<Log>);

const NOBODY: u64 = u64::MAX;

fn told(id: Option<LogId>) -> Option<LogId> {
    id.filter(|id| id.leader_id.node_id != NOBODY)
}

impl RaftLogReader<TypeConfig> for AnyBeginning {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> StorageResult<Vec<Entry>> {
        self.0.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for AnyBeginning {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> StorageResult<LogState<TypeConfig>> {
        let LogState { last_purged_log_id, last_log_id } = self.0.get_log_state().await?;
        Ok(LogState { last_purged_log_id: told(last_purged_log_id), last_log_id: told(last_log_id) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.0.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> StorageResult<()> {
        self.0.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> StorageResult<Option<Vote<u64>>> {
        self.0.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> StorageResult<()> {
        self.0.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> StorageResult<Option<LogId>> {
        self.0.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> StorageResult<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let purged = self.1.purged().map(|purged| purged.index);
        let entries: Vec<Entry> = entries.into_iter().filter(|entry| Some(entry.log_id.index) > purged).collect();
        if entries.is_empty() {
            callback.log_io_completed(Ok(()));
            return Ok(());
        }
        let first = entries.first().map_or(0, |first| first.log_id.index);
        match self.1.last() {
            None if first > 0 => {
                let before = Position { term: 0, leader: NOBODY, index: first - 1 };
                self.1.purge(before).expect("an empty log is let go");
            }
            Some(last) if last.index >= first => {
                self.0.0.recent.lock().truncate(first);
                self.1.truncate(first).expect("the end is cut off");
            }
            _ => {}
        }
        self.0.append(entries, callback).await
    }

    async fn truncate(&mut self, from: LogId) -> StorageResult<()> {
        self.0.truncate(from).await
    }

    async fn purge(&mut self, upto: LogId) -> StorageResult<()> {
        self.0.purge(upto).await
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, AnyBeginning, Machine, Guard> for OnDisk {
    async fn build(&self) -> StorageResult<(Guard, AnyBeginning, Machine)> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { segment_bytes: 64 << 10, ..Options::default() };
        let fatal: Fatal = Arc::new(|what: &str| panic!("{what}"));
        let (log, _) = Log::open(&dir.path().join("node"), options, fatal.clone()).expect("an empty log");
        let log = Arc::new(log);
        let snapshots = Snapshots::open(dir.path().join("snapshots")).expect("an empty directory");
        let peers = Peers::new(1, None, HashMap::new());
        peers.set_cluster(1);
        let core = Core::new(
            (NodeId(1), Generation(1)),
            State::new(Limits::default()),
            Arc::new(Holder::new()),
            peers.clone(),
        );
        let machine = Machine::new(core, snapshots, peers, None);
        Ok((Guard(log.clone(), dir), AnyBeginning(LogStore::new(log.clone(), fatal), log), machine))
    }
}

#[test]
fn the_store_is_what_openraft_asks_for() {
    Suite::test_all(OnDisk).expect("every test of the suite");
}
