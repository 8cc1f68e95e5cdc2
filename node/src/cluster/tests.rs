//! A replica over real files: what was committed is there after a restart, from the log, from a snapshot, or from the
//! snapshot before it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fulmar_broker::state::command::{Claim, Command, Limits, Outcome, Subscription};
use fulmar_broker::{Generation, Publication, SessionKey, Via};
use fulmar_mqtt::packet::{RetainHandling, SubscriptionOptions};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicFilter, TopicName};

mod membership;
mod recover;

use super::peers::Peers;
use super::{Bootstrap, Doors, PeerService, Replica, Settings, StartError, Waits, start};
use crate::store::identity;
use crate::store::log::{Log, Options};
use crate::store::snapshots::Snapshots;

const DEADLINE: Duration = Duration::from_secs(60);

async fn open(dir: &Path, log_bytes: u64) -> Result<Replica, StartError> {
    let options = Options { segment_bytes: 512 << 10, ..Options::default() };
    let fatal = Arc::new(|what: &str| panic!("{what}"));
    let (log, _) = Log::open(dir, options, fatal.clone()).expect("the log opens");
    let snapshots = Snapshots::open(dir.join("snapshots")).expect("snapshots open");
    let settings = Settings {
        address: String::new(),
        bootstrap: Bootstrap::Single,
        node: identity::load(dir).expect("an identity"),
        limits: Limits { retained_max: 10_000, ..Limits::default() },
        log_bytes,
        disk_free_min: 0,
        data_dir: dir.to_owned(),
        steps: Arc::new(|_| {}),
    };
    let peers = Peers::new(settings.node.0, None, HashMap::new());
    let doors = Doors {
        peers,
        raft: Arc::default(),
        contact: Arc::default(),
        service: PeerService::default(),
        waits: Waits::default(),
    };
    start(settings, Arc::new(log), snapshots, doors, fatal).await
}

fn message(topic: String, payload: &[u8]) -> Arc<Publication> {
    Arc::new(Publication {
        topic: TopicName::new(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: true,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at: Default::default(),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    })
}

fn retain(at: usize, payload: &[u8]) -> Command {
    Command::SetRetained(message(format!("t/{at}"), payload))
}

fn key(identity: &str) -> SessionKey {
    SessionKey::new("default", "generic", identity)
}

/// Writes retained messages until so many snapshots were written and the log was let go behind them.
async fn churn(replica: &Replica, snapshots: u64) {
    let mut round = 0usize;
    let by = Instant::now() + DEADLINE;
    while replica.figures().snapshots < snapshots || replica.figures().purged_index == 0 {
        assert!(Instant::now() < by, "in vain: {:?}", replica.figures());
        round += 1;
        let commands = (0..64).map(|at| retain(at, &[u8::try_from(round % 251).unwrap(); 900])).collect();
        replica.commit(commands).await.expect("committed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_restart_under_a_new_generation() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    assert_eq!(replica.run().1, Generation(1));
    let claim = Claim {
        key: key("a"),
        node: replica.run().0,
        generation: replica.run().1,
        clean_start: false,
        expiry_s: 60,
        will: None,
        exclusive_client_id: None,
        judged_by: None,
    };
    let outcomes = replica.commit(vec![Command::Claim(Box::new(claim)), retain(1, b"one")]).await.unwrap();
    let [Outcome::Claimed(claimed), Outcome::Done] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    };
    let filters = vec![Subscription { filter: TopicFilter::new("t/#").unwrap(), options, id: None }];
    let subscribe = Command::Subscribe { key: key("a"), epoch: claimed.epoch, filters };
    replica.commit(vec![subscribe]).await.unwrap();
    let before = replica.read().snapshot();
    replica.close().await;
    assert!(replica.commit(vec![retain(2, b"late")]).await.is_err(), "closed");
    drop(replica);
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    assert_eq!(replica.run().1, Generation(2));
    let state = replica.read();
    assert_eq!(state.limits().retained_max, 10_000);
    assert_eq!(state.subscriptions(&key("a")).len(), 1);
    assert_eq!(state.session(&key("a")).unwrap().owner, None, "the run that held its connection has ended");
    assert_eq!(state.retained().iter().count(), 1);
    assert!(state.now() >= before_now(&before), "log time does not run backwards");
}

fn before_now(snapshot: &fulmar_broker::state::Snapshot) -> fulmar_broker::LogTime {
    fulmar_broker::state::State::restore(snapshot.clone()).now()
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_in_the_order_of_the_calls_each_with_its_own_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for at in 0..2_000usize {
        let told = told.clone();
        let commands = (0..at % 5).map(|n| retain(at * 5 + n, b"x")).collect::<Vec<_>>();
        replica.propose(commands, Box::new(move |committed| told.send((at, committed)).unwrap()));
    }
    for at in 0..2_000usize {
        let (which, committed) = heard.recv().await.unwrap();
        assert_eq!((which, committed.unwrap().len()), (at, at % 5));
    }
    assert!(replica.figures().entries < 1_000, "many calls share an entry: {:?}", replica.figures());
    replica.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_let_the_log_go_and_a_restart_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 20).await.unwrap();
    churn(&replica, 3).await;
    let figures = replica.figures();
    assert!(figures.log_bytes < 12 << 20, "{figures:?}");
    let before: Vec<_> = replica.read().retained().iter().cloned().collect();
    replica.close().await;
    drop(replica);
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let after: Vec<_> = replica.read().retained().iter().cloned().collect();
    assert_eq!(before, after);
    replica.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_made_good_by_the_one_before_it_and_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 20).await.unwrap();
    churn(&replica, 3).await;
    replica.commit(vec![retain(77, b"the last word")]).await.unwrap();
    let before: Vec<_> = replica.read().retained().iter().cloned().collect();
    replica.close().await;
    drop(replica);
    let shelf = Snapshots::open(dir.path().join("snapshots")).unwrap();
    let files = shelf.list().unwrap();
    assert_eq!(files.len(), 2, "{files:?}");
    flip(&files[0].path);
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let after: Vec<_> = replica.read().retained().iter().cloned().collect();
    assert_eq!(before, after);
    replica.close().await;
    drop(replica);
    assert!(!files[0].path.exists() && files[0].path.with_extension("damaged").exists(), "put aside, not deleted");

    flip(&files[1].path);
    let Err(StartError::Damaged(damage)) = open(dir.path(), 1 << 30).await else {
        panic!("nothing is left to start from")
    };
    assert_eq!(damage.file, files[1].path);
}

/// Changes a byte in the middle.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn commands_that_need_not_be_one_entry_are_parted_in_their_order() {
    let publish = |number: usize, bytes: usize| {
        let topic = TopicName::new(format!("t/{number}")).expect("a topic");
        Command::Announce(Arc::new(Publication {
            topic,
            payload: Bytes::from(vec![0; bytes]),
            qos: QoS::AtLeastOnce,
            retain: false,
            forward: ForwardProperties::default(),
            expires_at: None,
            origin: None,
            accepted_at: fulmar_broker::LogTime(0),
            via: Via::Server,
            trace: 0,
        }))
    };
    let commands: Vec<Command> = (0..40).map(|number| publish(number, 40_000)).collect();
    let parts = super::in_parts(commands.clone());
    assert_eq!(parts.iter().map(Vec::len).max(), Some(6), "40,000 bytes and some each, 256 KiB an entry");
    assert_eq!(parts.concat(), commands);
    let parts = super::in_parts(vec![publish(0, 1), publish(1, 1 << 20), publish(2, 1)]);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1], "one that is larger goes alone");
    assert!(super::in_parts(Vec::new()).is_empty());
}
