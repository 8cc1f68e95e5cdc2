use std::collections::HashSet;
use std::fmt::Debug;
use std::mem::discriminant;

use super::*;

/// With every form and destination, with everything, and with as little as there can be.
fn messages() -> Vec<Message> {
    let least = Message {
        id: "".into(),
        name: None,
        content: "".into(),
        object: false,
        form: Form::Standard,
        to: Destination::System,
        properties: None,
    };
    let properties = Properties {
        response_topic: Some("r/\u{e9}".into()),
        correlation_data: Some("".into()),
        user: vec![("a".into(), "1".into()), ("a".into(), "".into())],
    };
    vec![
        Message { form: Form::Raw, to: Destination::Habit, ..least.clone() },
        Message { form: Form::Base64, to: Destination::Full("t/\u{e9}".into()), ..least.clone() },
        Message { properties: Some(Box::default()), ..least.clone() },
        Message {
            id: "m\u{e9}".into(),
            name: Some("".into()),
            content: "{}".into(),
            object: true,
            to: Destination::Custom("c".into()),
            properties: Some(Box::new(properties)),
            ..least.clone()
        },
        least,
    ]
}

fn phases() -> Vec<Phase> {
    let at = LogTime(u64::MAX);
    vec![
        Phase::Waiting { parked: false },
        Phase::Waiting { parked: true },
        Phase::Sent { at, rounds: u8::MAX },
        Phase::Delivered { at },
        Phase::TimedOut { at: LogTime(0) },
        Phase::Failed { at, why: Failure::Offline },
        Phase::Failed { at, why: Failure::NotSubscribed },
    ]
}

/// One of each change.
pub(in super::super) fn changes() -> Vec<Change> {
    let device = || "p_\u{e9}".into();
    let note = |became| Note { device: device(), seq: u64::MAX, became };
    let all = [Became::Handed, Became::Sent, Became::Acknowledged, Became::NotSubscribed, Became::Unanswered].map(note);
    let create = |message| Change::Create { device: device(), message: Arc::new(message), ttl_min: u16::MAX };
    let mut changes: Vec<Change> = messages().into_iter().map(create).collect();
    changes.extend([
        Change::Note { epoch: Epoch(7), notes: all.into() },
        Change::Note { epoch: Epoch(0), notes: vec![] },
        Change::Delete { device: device(), id: "m".into() },
        Change::Expire { device: device(), seq: 0 },
    ]);
    changes
}

fn come_back<T: Wire + Debug + PartialEq>(all: &[T], kinds: usize) {
    let found: HashSet<_> = all.iter().map(discriminant).collect();
    assert_eq!(found.len(), kinds, "one is missing from the samples");
    for one in all {
        assert_eq!(T::from_message(one.to_message()).as_ref(), Ok(one));
    }
}

#[test]
fn all_come_back() {
    come_back(&changes(), 4);
    come_back(&phases(), 5);
    let created = |phase| Answer::Created { seq: u64::MAX, at: LogTime(7), phase };
    let mut answers: Vec<Answer> = phases().into_iter().map(created).collect();
    answers.extend([
        Answer::Noted(vec![true, false]),
        Answer::Done,
        Answer::NoDevice,
        Answer::NoMessage,
        Answer::Duplicate,
        Answer::NoRoom,
    ]);
    come_back(&answers, 7);
    let books = Books {
        created: 1,
        delivered: 2,
        timed_out: 3,
        failed: 4,
        replaced: 5,
        deleted: 6,
        refused: 7,
        forgotten: u64::MAX,
    };
    let mut filed = vec![Filed::Books { books, seq_last: 9 }];
    for (message, phase) in messages().into_iter().cycle().zip(phases()) {
        let cached = Cached { seq: 3, created: LogTime(5), ttl_min: 1440, phase, message: Arc::new(message) };
        filed.push(Filed::Message { device: "d\u{e9}".into(), via: "g".into(), cached });
    }
    come_back(&filed, 2);
}

#[test]
fn errors_name_the_field() {
    use proto::MailMessage;
    let good = || messages()[3].to_message();
    let create = |message, ttl_min| ChangeMessage::Create(proto::MailCreate { device: "d".into(), message, ttl_min });
    let altered = |message: MailMessage| create(Some(message), 5);
    for (change, wanted) in [
        (create(None, 5), "create.message is missing"),
        (create(Some(good()), 65_536), "create.ttl_min is 65536, out of its range"),
        (altered(MailMessage { form: 0, ..good() }), "create.message.form has the unknown value 0"),
        (altered(MailMessage { destination: 9, ..good() }), "create.message.destination has the unknown value 9"),
        (altered(MailMessage { topic: "".into(), ..good() }), "create.message.topic is missing"),
        (altered(MailMessage { destination: 1, ..good() }), "create.message.topic is there beside what it excludes"),
        (
            ChangeMessage::Notes(proto::MailNotes { epoch: 1, notes: vec![Default::default()] }),
            "notes.notes[0].became has the unknown value 0",
        ),
    ] {
        let error = Change::from_message(proto::MailChange { change: Some(change) }).expect_err(wanted).to_string();
        assert_eq!(error, wanted);
    }
    let error = |result: Result<Filed, Error>| result.expect_err("a bad piece").to_string();
    let piece = |message| Filed::from_message(proto::SnapshotMail { piece: Some(Piece::Message(message)) });
    let phase = |phase| Some(proto::MailPhase { phase });
    for (filed, wanted) in [
        (proto::SnapshotMessage::default(), "message.phase is missing"),
        (
            proto::SnapshotMessage { ttl_min: 65_536, ..Default::default() },
            "message.ttl_min is 65536, out of its range",
        ),
        (proto::SnapshotMessage { phase: phase(None), ..Default::default() }, "message.phase.phase is missing"),
        (
            proto::SnapshotMessage {
                phase: phase(Some(PhaseMessage::Sent(proto::MailSent { at_ms: 0, rounds: 256 }))),
                ..Default::default()
            },
            "message.phase.sent.rounds is 256, out of its range",
        ),
        (
            proto::SnapshotMessage {
                phase: phase(Some(PhaseMessage::Failed(proto::MailFailed { at_ms: 0, why: 0 }))),
                ..Default::default()
            },
            "message.phase.failed.why has the unknown value 0",
        ),
    ] {
        assert_eq!(error(piece(filed)), wanted);
    }
    assert_eq!(error(Filed::from_message(proto::SnapshotMail { piece: None })), "piece is missing");
    let answer = Answer::from_message(proto::MailAnswer { answer: Some(AnswerMessage::Refused(9)) });
    assert_eq!(answer.expect_err("a bad answer").to_string(), "refused has the unknown value 9");
    assert_eq!(
        Change::from_message(proto::MailChange { change: None }).expect_err("nothing").to_string(),
        "change is missing"
    );
}
