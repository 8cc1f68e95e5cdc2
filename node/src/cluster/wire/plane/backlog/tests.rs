use std::fmt::Debug;

use fulmar_broker::{Generation, NodeId};
use fulmar_mqtt::TopicName;

use super::*;

fn entries() -> Vec<Entry> {
    let topic = Some(TopicName::new("a/\u{e9}").expect("a topic"));
    vec![
        Entry { key: "k\u{e9}".into(), body: vec![0, 255].into(), topic, at_ms: 7, expires_at: LogTime(u64::MAX) },
        Entry { key: "".into(), body: vec![].into(), topic: None, at_ms: 0, expires_at: LogTime(0) },
    ]
}

/// One of each change.
pub(in super::super) fn changes() -> Vec<Change> {
    let name = || "rule/\u{e9}".into();
    vec![
        Change::Append { name: name(), entries: entries() },
        Change::Append { name: name(), entries: vec![] },
        Change::Claim { name: name(), node: NodeId(u64::MAX), generation: Generation(3) },
        Change::Settle { name: name(), epoch: Epoch(7), floor: u64::MAX, refused: u32::MAX },
        Change::Release { name: name(), epoch: Epoch(7) },
        Change::Discard { name: name() },
        Change::Expire { name: name() },
    ]
}

fn come_back<T: Wire + Debug + PartialEq>(all: &[T], kinds: usize) {
    let found: std::collections::HashSet<_> = all.iter().map(std::mem::discriminant).collect();
    assert_eq!(found.len(), kinds, "one is missing from the samples");
    for one in all {
        assert_eq!(T::from_message(one.to_message()).as_ref(), Ok(one));
    }
}

#[test]
fn all_come_back() {
    come_back(&changes(), 6);
    come_back(
        &[
            Answer::Done,
            Answer::Appended { dropped: u64::MAX },
            Answer::Claimed { epoch: Epoch(1), floor: 2 },
            Answer::Stale,
            Answer::Missing,
        ],
        5,
    );
    let counts = Counts { appended: 1, settled: 2, refused: 3, full: 4, expired: 5, discarded: 6 };
    let owner = Owner { node: NodeId(1), generation: Generation(2), epoch: Epoch(3) };
    come_back(
        &[
            Filed::Head { last: 9, counts },
            Filed::Backlog { name: "n".into(), owner: Some(owner), counts },
            Filed::Backlog { name: "n".into(), owner: None, counts },
            Filed::Entries([1, u64::MAX].into_iter().zip(entries()).collect()),
        ],
        3,
    );
}

#[test]
fn errors_name_the_field() {
    use proto::BacklogEntry;
    let append = |entry| ChangeMessage::Append(proto::BacklogAppend { name: "n".into(), entries: vec![entry] });
    for (change, wanted) in [
        (append(BacklogEntry { topic: "a/#".into(), ..Default::default() }), "append.entries[0].topic contains a"),
        (ChangeMessage::Claim(proto::BacklogClaim::default()), "claim.by is missing"),
    ] {
        let error = Change::from_message(proto::BacklogChange { change: Some(change) }).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
    let error = Change::from_message(proto::BacklogChange { change: None }).expect_err("empty").to_string();
    assert_eq!(error, "change is missing");
    let error = Answer::from_message(proto::BacklogAnswer { answer: None }).expect_err("empty").to_string();
    assert_eq!(error, "answer is missing");
    let entries = proto::SnapshotBacklogEntries { entries: vec![Default::default()] };
    let owner = Some(proto::NodeRun::default());
    for (piece, wanted) in [
        (PieceMessage::Head(proto::SnapshotBacklogHead::default()), "head.counts is missing"),
        (PieceMessage::Backlog(proto::SnapshotBacklogOne { owner, ..Default::default() }), "backlog.owner.node is"),
        (PieceMessage::Backlog(proto::SnapshotBacklogOne::default()), "backlog.counts is missing"),
        (PieceMessage::Entries(entries), "entries[0].entry is missing"),
    ] {
        let error = Filed::from_message(proto::SnapshotBacklog { piece: Some(piece) }).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
}
