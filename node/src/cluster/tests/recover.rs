//! A new cluster of one: whatever step it ends at, the directory is that of the old cluster or of the new one.

use fail::FailScenario;
use fulmar_broker::NodeId;
use openraft::EntryPayload;

use super::*;
use crate::cluster::raft::{Entry, Member, Membership, encode_entry, log_id};
use crate::cluster::recover::{RecoverError, plan};
use crate::store::log::{OpenError, Position};

const OTHER: NodeId = NodeId(0x77);

const QUEUED: u64 = 5;

fn claim(identity: &str, node: NodeId, generation: Generation) -> Command {
    Command::Claim(Box::new(Claim {
        key: key(identity),
        node,
        generation,
        clean_start: false,
        expiry_s: 3_600,
        will: None,
        exclusive_client_id: None,
        judged_by: None,
    }))
}

/// What a node leaves that was one of three: a session of its own, with a queue, and one of a node that is lost.
async fn leave_behind(dir: &Path) -> NodeId {
    let replica = open(dir, 1 << 30).await.unwrap();
    let (node, generation) = replica.run();
    let up = Command::NodeUp { node: OTHER, generation: Generation(1), address: "there:1".into() };
    let claims = vec![up, claim("own", node, generation), claim("other", OTHER, Generation(1))];
    let outcomes = replica.commit(claims).await.unwrap();
    let [_, Outcome::Claimed(claimed), Outcome::Claimed(_)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Never,
    };
    let filters = vec![Subscription { filter: TopicFilter::new("t/#").unwrap(), options, id: None }];
    replica.commit(vec![Command::Subscribe { key: key("own"), epoch: claimed.epoch, filters }]).await.unwrap();
    let messages = (0..QUEUED as usize).map(|at| Command::Announce(message(format!("t/{at}"), b"kept"))).collect();
    replica.commit(messages).await.unwrap();
    replica.close().await;
    drop(replica);
    let (log, _) = Log::open(dir, Options::default(), Arc::new(|what: &str| panic!("{what}"))).unwrap();
    let last = log.last().unwrap();
    let member = |node: u64| (node, Member { address: format!("there:{node}") });
    let voters = [node.0, OTHER.0, 0x78];
    let members: std::collections::BTreeMap<u64, Member> = voters.map(member).into_iter().collect();
    let membership = Membership::new(vec![voters.into()], members);
    let at = log_id(Position { index: last.index + 1, ..last });
    let entry = Entry { log_id: at, payload: EntryPayload::Membership(membership) };
    log.append(&[encode_entry(&entry)], Box::new(|result| result.unwrap())).unwrap();
    log.close();
    node
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Starts on what a recovery has left, and finds everything.
async fn is_recovered(dir: &Path, node: NodeId, old: u64, recoveries: u64) {
    let replica = open(dir, 1 << 30).await.unwrap();
    assert_eq!((replica.run(), replica.peers().cluster() == old), ((node, Generation(2)), false));
    assert!(replica.census().members == 1 && replica.census().voters == 1);
    {
        let state = replica.read();
        assert!(state.removed(OTHER) && state.removed(NodeId(0x78)) && !state.removed(node));
        assert_eq!((state.books().queued, state.books().unaccounted()), (QUEUED, 0));
        assert_eq!(state.subscriptions(&key("own")).len(), 1);
        for session in ["own", "other"] {
            assert_eq!(state.session(&key(session)).unwrap().owner, None, "{session}");
        }
        let audited = state.steer().audit.last();
        assert_eq!(audited, recoveries, "each is in the audit");
    }
    let retained = replica.read().retained().iter().count();
    replica.commit(vec![retain(77, b"it goes on")]).await.unwrap();
    replica.close().await;
    drop(replica);
    let replica = open(dir, 1 << 30).await.unwrap();
    assert_eq!(replica.read().retained().iter().count(), retained + 1, "and after a restart");
    replica.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_breaks_off_leaves_the_old_cluster_or_the_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    let node = leave_behind(&whole).await;
    let scenario = FailScenario::setup();
    let mut old = None;
    for (point, is_new) in [
        ("recover::snapshot_written", false),
        ("recover::cluster_changed", true),
        ("recover::log_purged", true),
        ("", true),
    ] {
        let dir = scratch.path().join(format!("at-{}", point.rsplit(':').next().unwrap()));
        copy(&whole, &dir);
        let planned = plan(&dir, false).unwrap();
        assert_eq!((planned.node, planned.lost.len(), planned.sessions, planned.queued), (node, 2, 2, QUEUED));
        assert_eq!((planned.acknowledged, planned.damage.is_none()), (Some(planned.last), true));
        let cluster = *old.get_or_insert(planned.cluster);
        if !point.is_empty() {
            fail::cfg(point, "return").unwrap();
        }
        assert_eq!(planned.carry_out("somebody").is_err(), !point.is_empty(), "{point}");
        if !point.is_empty() {
            fail::remove(point);
        }
        match (is_new, plan(&dir, false)) {
            (true, Err(RecoverError::Unfit(what))) => assert!(what.contains("only member"), "{what}"),
            (false, Ok(again)) => {
                assert_eq!((again.cluster, again.queued), (cluster, QUEUED), "{point}");
                drop(again);
                // A start of the old cluster puts the new one's snapshot aside, and has everything.
                let (log, _) = Log::open(&dir, Options::default(), Arc::new(|what: &str| panic!("{what}"))).unwrap();
                let snapshots = Snapshots::open(dir.join("snapshots")).unwrap();
                assert!(crate::cluster::start::restore(&log, &snapshots, cluster).unwrap().is_none());
                assert!(snapshots.list().unwrap().is_empty() && log.purged().is_none());
                log.close();
                drop(log);
                plan(&dir, false).unwrap().carry_out("somebody").unwrap();
            }
            (_, other) => panic!("{point}: {other:?}"),
        }
        is_recovered(&dir, node, cluster, 1).await;
    }
    scenario.teardown();
}

/// Appends an entry, acknowledges it, and damages it on the disk.
fn damage_the_last(dir: &Path, node: NodeId) {
    const THERE: &str = "to-be-damaged:1";
    let (log, _) = Log::open(dir, Options::default(), Arc::new(|what: &str| panic!("{what}"))).unwrap();
    let last = log.last().unwrap();
    let members = std::collections::BTreeMap::from([(node.0, Member { address: THERE.to_owned() })]);
    let membership = Membership::new(vec![[node.0].into()], members);
    let at = log_id(Position { index: last.index + 1, ..last });
    let entry = Entry { log_id: at, payload: EntryPayload::Membership(membership) };
    log.append(&[encode_entry(&entry)], Box::new(|result| result.unwrap())).unwrap();
    log.close();
    drop(log);
    let file = dir.join("log/db");
    let mut bytes = std::fs::read(&file).unwrap();
    let found = bytes.windows(THERE.len()).position(|window| window == THERE.as_bytes());
    bytes[found.expect("the entry is in the log")] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_damaged_until_its_recovery_is_done() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    let node = leave_behind(&whole).await;
    damage_the_last(&whole, node);
    let scenario = FailScenario::setup();
    // The last of them falls between the metadata and the mark: the new cluster is there, and was not told all.
    for (name, point, action, recoveries) in
        [("full", "recover::snapshot_written", "return", 1), ("torn", "log::after_flush", "panic", 2)]
    {
        let dir = scratch.path().join(name);
        copy(&whole, &dir);
        assert!(matches!(plan(&dir, false), Err(RecoverError::Open(OpenError::Damaged(_)))));
        let planned = plan(&dir, true).unwrap();
        assert_eq!(planned.acknowledged.map(|last| last.index), Some(planned.last.index + 1));
        let cluster = planned.cluster;
        fail::cfg(point, action).unwrap();
        let broken = planned.carry_out("somebody").unwrap_err().to_string();
        fail::remove(point);
        assert!(broken.ends_with("run it again before the node is started"), "{broken}");
        let started = Log::open(&dir, Options::default(), Arc::new(|what: &str| panic!("{what}")));
        assert!(matches!(started, Err(OpenError::Damaged(_))), "{name}");
        plan(&dir, true).unwrap().carry_out("somebody").unwrap();
        is_recovered(&dir, node, cluster, recoveries).await;
    }
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_recovery_gets_none() {
    let scratch = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| plan(dir, false).expect_err("nothing to recover").to_string();
    assert!(refused(&scratch.path().join("absent")).contains("absent"));
    let alone = scratch.path().join("alone");
    let replica = open(&alone, 1 << 30).await.unwrap();
    assert!(refused(&alone).contains("in use"));
    replica.close().await;
    drop(replica);
    assert!(refused(&alone).contains("only member"));
    identity::mark_removed(&alone, "node 1 was removed").unwrap();
    assert!(refused(&alone).contains("was removed"));
}
