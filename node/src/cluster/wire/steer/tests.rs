use std::fmt::Debug;
use std::sync::Arc;

use fulmar_broker::NodeId;
use fulmar_broker::steer::alarms::{Alarm, Past, Raise, Severity};
use fulmar_broker::steer::bans::{Ban, Network, Target};
use fulmar_broker::steer::settings::Value;

use super::*;

fn targets() -> [Target; 4] {
    let network = |text| Target::Address(Network::parse(text).unwrap());
    [Target::ClientId("c\u{e9}".into()), Target::UserName("".into()), network("192.0.2.0/24"), network("2001:db8::1")]
}

fn values() -> [Value; 4] {
    [Value::Flag(false), Value::Flag(true), Value::Number(u64::MAX), Value::Text("t\u{e9}".into())]
}

fn entry() -> audit::Entry {
    audit::Entry {
        at: LogTime(u64::MAX),
        node: NodeId(7),
        user: "u".into(),
        role: "admin".into(),
        address: "::1".into(),
        door: "rest".into(),
        operation: "bans.create".into(),
        about: "a".into(),
        status: u16::MAX,
        code: "FULMAR.1".into(),
        request_id: "r".into(),
    }
}

fn raise(severity: Severity, node: Option<NodeId>) -> Raise {
    Raise { name: "n".into(), subject: "s".into(), severity, message: "m\u{e9}".into(), node }
}

/// One of each change.
pub(in super::super) fn changes() -> Vec<Change> {
    let mut changes = Vec::new();
    for (target, until) in targets().into_iter().zip([None, Some(LogTime(0)), Some(LogTime(u64::MAX)), None]) {
        let (reason, by) = ("r".into(), "b".into());
        let automatic = until.is_none();
        changes.push(Change::Ban(bans::Change::Set { target: target.clone(), reason, by, until, automatic }));
        changes.push(Change::Ban(bans::Change::Lift { target: target.clone() }));
        changes.push(Change::Ban(bans::Change::Expire { target }));
    }
    for (value, version) in
        values().into_iter().map(Some).chain([None]).zip([None, Some(0), Some(1), Some(u64::MAX), None])
    {
        changes.push(Change::Setting(settings::Change { name: "n".into(), value, by: "b".into(), version }));
    }
    changes.push(Change::Alarm(alarms::Change::Raise(raise(Severity::Warning, None))));
    changes.push(Change::Alarm(alarms::Change::Raise(raise(Severity::Critical, Some(NodeId(9))))));
    changes.push(Change::Alarm(alarms::Change::Clear { name: "n".into(), subject: "".into(), by: "b".into() }));
    changes.push(Change::Audit(vec![]));
    changes.push(Change::Audit(vec![entry(), audit::Entry { status: 0, user: "".into(), ..entry() }]));
    changes.extend(traces::tests::changes().into_iter().map(Change::Trace));
    changes
}

fn answers() -> Vec<Answer> {
    let bans = [bans::Answer::Done, bans::Answer::NoBan, bans::Answer::NoRoom, bans::Answer::Before].map(Answer::Ban);
    let settings = [
        settings::Answer::Set { version: 0 },
        settings::Answer::Conflict { version: u64::MAX },
        settings::Answer::NoRoom,
    ];
    let alarms = [alarms::Answer::Done, alarms::Answer::Before, alarms::Answer::NoAlarm, alarms::Answer::NoRoom]
        .map(Answer::Alarm);
    bans.into_iter().chain(settings.map(Answer::Setting)).chain(alarms).chain([Answer::Audit(u64::MAX)]).collect()
}

/// One of each piece.
pub(in super::super) fn pieces() -> Vec<Filed> {
    let alarm = Alarm {
        name: "n".into(),
        subject: "s".into(),
        severity: Severity::Critical,
        message: "m".into(),
        since: LogTime(1),
        node: Some(NodeId(2)),
    };
    let past = Past { seq: 3, alarm: Arc::new(alarm.clone()), cleared: LogTime(4), by: "b".into() };
    let mut pieces: Vec<Filed> = targets()
        .into_iter()
        .map(|target| {
            let (since, until) = (LogTime(5), Some(LogTime(6)));
            Filed::Ban(Ban { target, reason: "r".into(), by: "b".into(), since, until, automatic: true })
        })
        .collect();
    let [from, to, ..] = values();
    for (from, to) in [(Some(from), Some(to)), (None, None)] {
        let past = settings::Past { version: 7, at: LogTime(8), by: "b".into(), name: "n".into(), from, to };
        pieces.push(Filed::Setting(settings::Filed::Past(past)));
    }
    pieces.extend(values().map(|value| Filed::Setting(settings::Filed::Value { name: "n".into(), value })));
    pieces.push(Filed::Alarm(alarms::Filed::Past(past)));
    pieces.push(Filed::Alarm(alarms::Filed::Active(Alarm { node: None, ..alarm })));
    pieces.push(Filed::Audit(audit::Filed { seq: 9, entry: entry() }));
    pieces
}

fn same<T: Wire + PartialEq + Debug>(all: &[T]) {
    for one in all {
        assert_eq!(T::from_message(one.to_message()).as_ref(), Ok(one));
    }
}

#[test]
fn everything_comes_back() {
    same(&changes());
    same(&answers());
    same(&pieces());
}

fn refused<T: Wire + Debug>(message: T::Message, path: &str) {
    let error = T::from_message(message).expect_err("it is none");
    assert_eq!(error.path, path);
}

#[test]
fn a_field_that_cannot_be_is_named() {
    refused::<Change>(proto::SteerChange { change: None }, "change");
    let change = |change| proto::SteerChange { change: Some(change) };
    let ban = |target| change(ChangeMessage::Ban(proto::BanChange { change: Some(BanMessage::Lift(target)) }));
    refused::<Change>(ban(proto::BanTarget { target: None }), "ban.lift.target");
    for text in ["", "1.2.3.4/33", "::/129", "1.2.3", "1.2.3.4/", "a/b"] {
        let target = proto::BanTarget { target: Some(proto::ban_target::Target::Network(text.to_owned())) };
        refused::<Change>(ban(target), "ban.lift.network");
    }
    let raise = proto::AlarmRaise { severity: 3, ..proto::AlarmRaise::default() };
    let raise = proto::AlarmChange { change: Some(AlarmMessage::Raise(raise)) };
    refused::<Change>(change(ChangeMessage::Alarm(raise)), "alarm.raise.severity");
    let value = Some(proto::SettingValue { value: None });
    let setting = proto::SettingChange { value, ..proto::SettingChange::default() };
    refused::<Change>(change(ChangeMessage::Setting(setting)), "setting.value.value");
    for (entry, path) in [
        (proto::AuditEntry { node: 0, ..entry().to_message() }, "audit.entries[0].node"),
        (proto::AuditEntry { status: 65_536, ..entry().to_message() }, "audit.entries[0].status"),
    ] {
        refused::<Change>(change(ChangeMessage::Audit(proto::AuditAppend { entries: vec![entry] })), path);
    }
    refused::<Answer>(proto::SteerAnswer { answer: Some(AnswerMessage::Ban(0)) }, "ban");
    refused::<Answer>(proto::SteerAnswer { answer: Some(AnswerMessage::Alarm(9)) }, "alarm");
    let audit = proto::SnapshotAudit { seq: 1, entry: None };
    let piece = Some(proto::snapshot_steer::Piece::Audit(audit));
    refused::<Filed>(proto::SnapshotSteer { piece }, "audit.entry");
}
