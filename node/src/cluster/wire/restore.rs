//! Steps of putting a backup back. The parts in them are encoded each by itself, as they lie in snapshots and backups.

use bytes::Bytes;
use fulmar_broker::state::RestoreStep;
use fulmar_broker::state::image::{Head, Part, RestorePart};
use fulmar_proto::types::v1::{self as proto, restore::Step as Message};

use super::image::{decode_part, encode_part};
use super::{Error, Problem, Wire, each, optional, present, required};

impl Wire for RestoreStep {
    type Message = proto::Restore;

    fn to_message(&self) -> proto::Restore {
        let (id, step) = match self {
            RestoreStep::Begin { id, replace, head } => {
                let head = encode_part(&Part::Head(head.clone()));
                (*id, Message::Begin(proto::RestoreBegin { replace: *replace, head }))
            }
            RestoreStep::Parts { id, number, parts } => {
                let parts = parts.iter().map(encode_part).collect();
                (*id, Message::Parts(proto::RestoreParts { number: *number, parts }))
            }
            RestoreStep::End { id, number } => (*id, Message::End(proto::RestoreEnd { number: *number })),
        };
        proto::Restore { id, step: Some(step) }
    }

    fn from_message(message: proto::Restore) -> Result<RestoreStep, Error> {
        let id = message.id;
        Ok(match present("step", message.step)? {
            Message::Begin(begin) => {
                let head = head(begin.head).map_err(|error| error.within("begin.head"))?;
                RestoreStep::Begin { id, replace: begin.replace, head }
            }
            Message::Parts(step) => {
                RestoreStep::Parts { id, number: step.number, parts: each("parts.parts", step.parts, decode_part)? }
            }
            Message::End(end) => RestoreStep::End { id, number: end.number },
        })
    }
}

fn head(record: Bytes) -> Result<Box<Head>, Error> {
    match decode_part(record)? {
        Part::Head(head) => Ok(head),
        _ => Err(Error::new("head", Problem::Missing)),
    }
}

impl Wire for RestorePart {
    type Message = proto::SnapshotRestore;

    fn to_message(&self) -> proto::SnapshotRestore {
        proto::SnapshotRestore {
            id: self.id,
            steps: self.steps,
            epochs: self.epochs,
            revisions: self.revisions,
            head: Some(Box::new(self.head.to_message())),
            session: self.session.as_ref().map(Wire::to_message),
        }
    }

    fn from_message(message: proto::SnapshotRestore) -> Result<RestorePart, Error> {
        Ok(RestorePart {
            id: message.id,
            steps: message.steps,
            epochs: message.epochs,
            revisions: message.revisions,
            head: required("head", message.head.map(|head| *head))?,
            session: optional("session", message.session)?,
        })
    }
}
