//! Traces.

use fulmar_broker::LogTime;
use fulmar_broker::steer::traces::{Answer, Change, Filed, Subject, Trace};
use fulmar_proto::types::v1::{
    self as proto, TraceAnswerKind as Kind, snapshot_trace::Piece, trace_change::Change as ChangeMessage,
    trace_subject::Subject as SubjectMessage,
};

use crate::cluster::wire::{Error, Problem, Wire, copied, field, filter, present, required};

impl Wire for Change {
    type Message = proto::TraceChange;

    fn to_message(&self) -> proto::TraceChange {
        let change = match self {
            Change::Start { subject, seconds, payload_bytes, by } => ChangeMessage::Start(proto::TraceStart {
                subject: Some(subject.to_message()),
                seconds: *seconds,
                payload_bytes: *payload_bytes,
                by: by.to_string(),
            }),
            Change::Stop { number } => ChangeMessage::Stop(*number),
        };
        proto::TraceChange { change: Some(change) }
    }

    fn from_message(message: proto::TraceChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Start(start) => Change::Start {
                subject: required("start.subject", start.subject)?,
                seconds: start.seconds,
                payload_bytes: start.payload_bytes,
                by: start.by.into(),
            },
            ChangeMessage::Stop(number) => Change::Stop { number },
        })
    }
}

impl Wire for Subject {
    type Message = proto::TraceSubject;

    fn to_message(&self) -> proto::TraceSubject {
        let subject = match self {
            Subject::Client { client, sends, receives } => SubjectMessage::Client(proto::TraceClient {
                client: client.to_string(),
                sends: *sends,
                receives: *receives,
            }),
            Subject::Topic(filter) => SubjectMessage::Topic(copied(filter.as_str())),
            Subject::Rule(rule) => SubjectMessage::Rule(rule.to_string()),
            Subject::Sample(one_in) => SubjectMessage::Sample(*one_in),
        };
        proto::TraceSubject { subject: Some(subject) }
    }

    fn from_message(message: proto::TraceSubject) -> Result<Subject, Error> {
        Ok(match present("subject", message.subject)? {
            SubjectMessage::Client(client) => {
                Subject::Client { client: client.client.into(), sends: client.sends, receives: client.receives }
            }
            SubjectMessage::Topic(topic) => Subject::Topic(filter(topic).map_err(|error| error.within("topic"))?),
            SubjectMessage::Rule(rule) => Subject::Rule(rule.into()),
            SubjectMessage::Sample(0) => return Err(Error::new("sample", Problem::Unknown(0))),
            SubjectMessage::Sample(one_in) => Subject::Sample(one_in),
        })
    }
}

impl Wire for Answer {
    type Message = proto::TraceAnswer;

    fn to_message(&self) -> proto::TraceAnswer {
        let (kind, number) = match self {
            Answer::Started(number) => (Kind::Started, *number),
            Answer::Stopped => (Kind::Stopped, 0),
            Answer::Missing => (Kind::Missing, 0),
            Answer::Full => (Kind::Full, 0),
        };
        proto::TraceAnswer { kind: kind.into(), number }
    }

    fn from_message(message: proto::TraceAnswer) -> Result<Answer, Error> {
        match Kind::try_from(message.kind) {
            Ok(Kind::Started) => Ok(Answer::Started(message.number)),
            Ok(Kind::Stopped) => Ok(Answer::Stopped),
            Ok(Kind::Missing) => Ok(Answer::Missing),
            Ok(Kind::Full) => Ok(Answer::Full),
            Ok(Kind::Unspecified) | Err(_) => Err(Error::new("kind", Problem::Unknown(message.kind))),
        }
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotTrace;

    fn to_message(&self) -> proto::SnapshotTrace {
        let piece = match self {
            Filed::Last(last) => Piece::Last(*last),
            Filed::Trace(trace) => Piece::Trace(proto::Trace {
                number: trace.number,
                slot: trace.slot.into(),
                subject: Some(trace.subject.to_message()),
                started_ms: trace.started_at.0,
                ends_ms: trace.ends_at.0,
                payload_bytes: trace.payload_bytes,
                by: trace.by.to_string(),
            }),
        };
        proto::SnapshotTrace { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotTrace) -> Result<Filed, Error> {
        let trace = match present("piece", message.piece)? {
            Piece::Last(last) => return Ok(Filed::Last(last)),
            Piece::Trace(trace) => trace,
        };
        Ok(Filed::Trace(Trace {
            number: trace.number,
            // The machine refuses what is too large, by name.
            slot: u8::try_from(trace.slot).unwrap_or(u8::MAX),
            subject: field("trace.subject", present("trace.subject", trace.subject)?)?,
            started_at: LogTime(trace.started_ms),
            ends_at: LogTime(trace.ends_ms),
            payload_bytes: trace.payload_bytes,
            by: trace.by.into(),
        }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fulmar_mqtt::TopicFilter;

    use super::*;

    fn subjects() -> [Subject; 4] {
        [
            Subject::Client { client: "c\u{e9}".into(), sends: true, receives: false },
            Subject::Topic(TopicFilter::new("a/+/#").unwrap()),
            Subject::Rule("r".into()),
            Subject::Sample(u32::MAX),
        ]
    }

    /// One of each change.
    pub(in super::super) fn changes() -> Vec<Change> {
        let start = |subject| Change::Start { subject, seconds: u64::MAX, payload_bytes: 7, by: "u".into() };
        subjects().into_iter().map(start).chain([Change::Stop { number: u64::MAX }]).collect()
    }

    #[test]
    fn everything_comes_back() {
        for change in changes() {
            assert_eq!(Change::from_message(change.to_message()), Ok(change));
        }
        for answer in [Answer::Started(u64::MAX), Answer::Stopped, Answer::Missing, Answer::Full] {
            assert_eq!(Answer::from_message(answer.to_message()), Ok(answer));
        }
        let trace = |subject| Trace {
            number: 9,
            slot: 15,
            subject,
            started_at: LogTime(1),
            ends_at: LogTime(u64::MAX),
            payload_bytes: 3,
            by: "u".into(),
        };
        for filed in subjects().into_iter().map(|subject| Filed::Trace(trace(subject))).chain([Filed::Last(4)]) {
            assert_eq!(Filed::from_message(filed.to_message()), Ok(filed));
        }
    }

    #[test]
    fn a_field_that_cannot_be_is_named() {
        let subject = |subject| proto::TraceStart {
            subject: Some(proto::TraceSubject { subject }),
            ..proto::TraceStart::default()
        };
        let start = |start| proto::TraceChange { change: Some(ChangeMessage::Start(start)) };
        for (message, path) in [
            (proto::TraceChange { change: None }, "change"),
            (start(proto::TraceStart::default()), "start.subject"),
            (start(subject(None)), "start.subject.subject"),
            (start(subject(Some(SubjectMessage::Sample(0)))), "start.subject.sample"),
            (start(subject(Some(SubjectMessage::Topic("a/#/b".into())))), "start.subject.topic"),
        ] {
            assert_eq!(Change::from_message(message).expect_err("it is none").path, path);
        }
        let answer = proto::TraceAnswer { kind: 0, number: 0 };
        assert_eq!(Answer::from_message(answer).expect_err("it is none").path, "kind");
        assert_eq!(Filed::from_message(proto::SnapshotTrace { piece: None }).expect_err("it is none").path, "piece");
    }
}
