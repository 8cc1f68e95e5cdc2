//! Messages to devices, batch tasks and backlogs of rules.

mod backlog;
mod mail;
mod tasks;

use fulmar_broker::plane::{Answer, Change, Filed};
use fulmar_proto::types::v1::{
    self as proto, plane_answer::Answer as AnswerMessage, plane_change::Change as ChangeMessage,
    snapshot_plane::Piece as PieceMessage,
};

use super::{Error, Wire, field, present};

impl Wire for Change {
    type Message = proto::PlaneChange;

    fn to_message(&self) -> proto::PlaneChange {
        let change = match self {
            Change::Mail(change) => ChangeMessage::Mail(change.to_message()),
            Change::Task(change) => ChangeMessage::Task(change.to_message()),
            Change::Backlog(change) => ChangeMessage::Backlog(change.to_message()),
        };
        proto::PlaneChange { change: Some(change) }
    }

    fn from_message(message: proto::PlaneChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Mail(change) => Change::Mail(field("mail", change)?),
            ChangeMessage::Task(change) => Change::Task(field("task", change)?),
            ChangeMessage::Backlog(change) => Change::Backlog(field("backlog", change)?),
        })
    }
}

impl Wire for Answer {
    type Message = proto::PlaneAnswer;

    fn to_message(&self) -> proto::PlaneAnswer {
        let answer = match self {
            Answer::Mail(answer) => AnswerMessage::Mail(answer.to_message()),
            Answer::Task(answer) => AnswerMessage::Task(answer.to_message()),
            Answer::Backlog(answer) => AnswerMessage::Backlog(answer.to_message()),
        };
        proto::PlaneAnswer { answer: Some(answer) }
    }

    fn from_message(message: proto::PlaneAnswer) -> Result<Answer, Error> {
        Ok(match present("answer", message.answer)? {
            AnswerMessage::Mail(answer) => Answer::Mail(field("mail", answer)?),
            AnswerMessage::Task(answer) => Answer::Task(field("task", answer)?),
            AnswerMessage::Backlog(answer) => Answer::Backlog(field("backlog", answer)?),
        })
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotPlane;

    fn to_message(&self) -> proto::SnapshotPlane {
        let piece = match self {
            Filed::Mail(piece) => PieceMessage::Mail(piece.to_message()),
            Filed::Task(piece) => PieceMessage::Task(piece.to_message()),
            Filed::Backlog(piece) => PieceMessage::Backlog(piece.to_message()),
        };
        proto::SnapshotPlane { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotPlane) -> Result<Filed, Error> {
        Ok(match present("piece", message.piece)? {
            PieceMessage::Mail(piece) => Filed::Mail(field("mail", piece)?),
            PieceMessage::Task(piece) => Filed::Task(field("task", piece)?),
            PieceMessage::Backlog(piece) => Filed::Backlog(field("backlog", piece)?),
        })
    }
}

/// One of each change, for tests of what holds them.
#[cfg(test)]
pub(super) fn changes() -> Vec<Change> {
    let mail = mail::tests::changes().into_iter().map(Change::Mail);
    let tasks = tasks::tests::changes().into_iter().map(Change::Task);
    mail.chain(tasks).chain(backlog::tests::changes().into_iter().map(Change::Backlog)).collect()
}
