//! Messages to devices.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use fulmar_broker::plane::mail::{Answer, Became, Books, Cached, Change, Failure, Filed, Note, Phase};
use fulmar_broker::{Epoch, LogTime};
use fulmar_platform::message::{Destination, Form, Message, Properties};
use fulmar_proto::types::v1 as proto;
use proto::mail_answer::Answer as AnswerMessage;
use proto::mail_change::Change as ChangeMessage;
use proto::mail_phase::Phase as PhaseMessage;
use proto::snapshot_mail::Piece;

use super::super::{Error, Problem, Wire, each, optional, present, required};

/// The value of an enum, where 0 stands for none.
fn known<M: TryFrom<i32>, T>(name: &str, value: i32, read: impl FnOnce(M) -> Option<T>) -> Result<T, Error> {
    let read = M::try_from(value).ok().and_then(read);
    read.ok_or_else(|| Error::new(name, Problem::Unknown(value)))
}

fn ttl_min(value: u32) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| Error::new("ttl_min", Problem::Range(value.into())))
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

impl Wire for Change {
    type Message = proto::MailChange;

    fn to_message(&self) -> proto::MailChange {
        let change = match self {
            Change::Create { device, message, ttl_min } => ChangeMessage::Create(proto::MailCreate {
                device: device.to_string(),
                message: Some(message.to_message()),
                ttl_min: (*ttl_min).into(),
            }),
            Change::Note { epoch, notes } => ChangeMessage::Notes(proto::MailNotes {
                epoch: epoch.0,
                notes: notes.iter().map(Wire::to_message).collect(),
            }),
            Change::Delete { device, id } => {
                ChangeMessage::Delete(proto::MailDelete { device: device.to_string(), id: id.to_string() })
            }
            Change::Expire { device, seq } => {
                ChangeMessage::Expire(proto::MailExpire { device: device.to_string(), seq: *seq })
            }
        };
        proto::MailChange { change: Some(change) }
    }

    fn from_message(message: proto::MailChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Create(create) => Change::Create {
                device: create.device.into(),
                message: Arc::new(required("message", create.message).map_err(|error| error.within("create"))?),
                ttl_min: ttl_min(create.ttl_min).map_err(|error| error.within("create"))?,
            },
            ChangeMessage::Notes(notes) => Change::Note {
                epoch: Epoch(notes.epoch),
                notes: each("notes", notes.notes, Note::from_message).map_err(|error| error.within("notes"))?,
            },
            ChangeMessage::Delete(delete) => Change::Delete { device: delete.device.into(), id: delete.id.into() },
            ChangeMessage::Expire(expire) => Change::Expire { device: expire.device.into(), seq: expire.seq },
        })
    }
}

impl Wire for Note {
    type Message = proto::MailNote;

    fn to_message(&self) -> proto::MailNote {
        let became = match self.became {
            Became::Handed => proto::MailBecame::Handed,
            Became::Sent => proto::MailBecame::Sent,
            Became::Acknowledged => proto::MailBecame::Acknowledged,
            Became::NotSubscribed => proto::MailBecame::NotSubscribed,
            Became::Unanswered => proto::MailBecame::Unanswered,
        };
        proto::MailNote { device: self.device.to_string(), seq: self.seq, became: became.into() }
    }

    fn from_message(message: proto::MailNote) -> Result<Note, Error> {
        let became = known("became", message.became, |became| match became {
            proto::MailBecame::Unspecified => None,
            proto::MailBecame::Handed => Some(Became::Handed),
            proto::MailBecame::Sent => Some(Became::Sent),
            proto::MailBecame::Acknowledged => Some(Became::Acknowledged),
            proto::MailBecame::NotSubscribed => Some(Became::NotSubscribed),
            proto::MailBecame::Unanswered => Some(Became::Unanswered),
        })?;
        Ok(Note { device: message.device.into(), seq: message.seq, became })
    }
}

impl Wire for Message {
    type Message = proto::MailMessage;

    fn to_message(&self) -> proto::MailMessage {
        let form = match self.form {
            Form::Standard => proto::MailForm::Standard,
            Form::Raw => proto::MailForm::Raw,
            Form::Base64 => proto::MailForm::Base64,
        };
        let (destination, topic) = match &self.to {
            Destination::System => (proto::MailDestination::System, ""),
            Destination::Habit => (proto::MailDestination::Habit, ""),
            Destination::Custom(topic) => (proto::MailDestination::Custom, &**topic),
            Destination::Full(topic) => (proto::MailDestination::Full, &**topic),
        };
        proto::MailMessage {
            id: self.id.to_string(),
            name: self.name.as_deref().and_then(text),
            content: self.content.to_string(),
            object: self.object,
            form: form.into(),
            destination: destination.into(),
            topic: topic.to_owned(),
            properties: self.properties.as_deref().map(Wire::to_message),
        }
    }

    fn from_message(message: proto::MailMessage) -> Result<Message, Error> {
        let form = known("form", message.form, |form| match form {
            proto::MailForm::Unspecified => None,
            proto::MailForm::Standard => Some(Form::Standard),
            proto::MailForm::Raw => Some(Form::Raw),
            proto::MailForm::Base64 => Some(Form::Base64),
        })?;
        let topic: Box<str> = message.topic.into();
        let named = !topic.is_empty();
        let to = known("destination", message.destination, |destination| match destination {
            proto::MailDestination::Unspecified => None,
            proto::MailDestination::System => Some(Destination::System),
            proto::MailDestination::Habit => Some(Destination::Habit),
            proto::MailDestination::Custom => Some(Destination::Custom(topic.clone())),
            proto::MailDestination::Full => Some(Destination::Full(topic)),
        })?;
        match (&to, named) {
            (Destination::System | Destination::Habit, true) => return Err(Error::new("topic", Problem::Unwanted)),
            (Destination::Custom(_) | Destination::Full(_), false) => {
                return Err(Error::new("topic", Problem::Missing));
            }
            _ => {}
        }
        Ok(Message {
            id: message.id.into(),
            name: message.name.map(Into::into),
            content: message.content.into(),
            object: message.object,
            form,
            to,
            properties: optional("properties", message.properties)?.map(Box::new),
        })
    }
}

impl Wire for Properties {
    type Message = proto::MailProperties;

    fn to_message(&self) -> proto::MailProperties {
        let user = self.user.iter();
        proto::MailProperties {
            response_topic: self.response_topic.as_deref().and_then(text),
            correlation_data: self.correlation_data.as_deref().and_then(text),
            user: user
                .map(|(key, value)| proto::MailUserProperty { key: key.to_string(), value: value.to_string() })
                .collect(),
        }
    }

    fn from_message(message: proto::MailProperties) -> Result<Properties, Error> {
        Ok(Properties {
            response_topic: message.response_topic.map(Into::into),
            correlation_data: message.correlation_data.map(Into::into),
            user: message.user.into_iter().map(|user| (user.key.into(), user.value.into())).collect(),
        })
    }
}

impl Wire for Phase {
    type Message = proto::MailPhase;

    fn to_message(&self) -> proto::MailPhase {
        let phase = match *self {
            Phase::Waiting { parked } => PhaseMessage::Waiting(proto::MailWaiting { parked }),
            Phase::Sent { at, rounds } => PhaseMessage::Sent(proto::MailSent { at_ms: at.0, rounds: rounds.into() }),
            Phase::Delivered { at } => PhaseMessage::DeliveredMs(at.0),
            Phase::TimedOut { at } => PhaseMessage::TimedOutMs(at.0),
            Phase::Failed { at, why } => {
                let why = match why {
                    Failure::Offline => proto::MailFailure::Offline,
                    Failure::NotSubscribed => proto::MailFailure::NotSubscribed,
                };
                PhaseMessage::Failed(proto::MailFailed { at_ms: at.0, why: why.into() })
            }
        };
        proto::MailPhase { phase: Some(phase) }
    }

    fn from_message(message: proto::MailPhase) -> Result<Phase, Error> {
        Ok(match present("phase", message.phase)? {
            PhaseMessage::Waiting(waiting) => Phase::Waiting { parked: waiting.parked },
            PhaseMessage::Sent(sent) => {
                let range = |_| Error::new("sent.rounds", Problem::Range(sent.rounds.into()));
                Phase::Sent { at: LogTime(sent.at_ms), rounds: u8::try_from(sent.rounds).map_err(range)? }
            }
            PhaseMessage::DeliveredMs(at) => Phase::Delivered { at: LogTime(at) },
            PhaseMessage::TimedOutMs(at) => Phase::TimedOut { at: LogTime(at) },
            PhaseMessage::Failed(failed) => {
                let why = known("failed.why", failed.why, |why| match why {
                    proto::MailFailure::Unspecified => None,
                    proto::MailFailure::Offline => Some(Failure::Offline),
                    proto::MailFailure::NotSubscribed => Some(Failure::NotSubscribed),
                })?;
                Phase::Failed { at: LogTime(failed.at_ms), why }
            }
        })
    }
}

impl Wire for Answer {
    type Message = proto::MailAnswer;

    fn to_message(&self) -> proto::MailAnswer {
        let refused = |refusal: proto::MailRefusal| AnswerMessage::Refused(refusal.into());
        let answer = match self {
            Answer::Created { seq, at, phase } => {
                AnswerMessage::Created(proto::MailCreated { seq: *seq, at_ms: at.0, phase: Some(phase.to_message()) })
            }
            Answer::Noted(holds) => AnswerMessage::Noted(proto::MailNoted { holds: holds.clone() }),
            Answer::Done => refused(proto::MailRefusal::Unspecified),
            Answer::NoDevice => refused(proto::MailRefusal::NoDevice),
            Answer::NoMessage => refused(proto::MailRefusal::NoMessage),
            Answer::Duplicate => refused(proto::MailRefusal::Duplicate),
            Answer::NoRoom => refused(proto::MailRefusal::NoRoom),
        };
        proto::MailAnswer { answer: Some(answer) }
    }

    fn from_message(message: proto::MailAnswer) -> Result<Answer, Error> {
        Ok(match present("answer", message.answer)? {
            AnswerMessage::Created(created) => Answer::Created {
                seq: created.seq,
                at: LogTime(created.at_ms),
                phase: required("phase", created.phase).map_err(|error| error.within("created"))?,
            },
            AnswerMessage::Noted(noted) => Answer::Noted(noted.holds),
            AnswerMessage::Refused(refused) => known("refused", refused, |refusal| {
                Some(match refusal {
                    proto::MailRefusal::Unspecified => Answer::Done,
                    proto::MailRefusal::NoDevice => Answer::NoDevice,
                    proto::MailRefusal::NoMessage => Answer::NoMessage,
                    proto::MailRefusal::Duplicate => Answer::Duplicate,
                    proto::MailRefusal::NoRoom => Answer::NoRoom,
                })
            })?,
        })
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotMail;

    fn to_message(&self) -> proto::SnapshotMail {
        let piece = match self {
            Filed::Books { books, seq_last } => {
                let Books { created, delivered, timed_out, failed, replaced, deleted, refused, forgotten } = *books;
                let seq_last = *seq_last;
                Piece::Books(proto::MailBooks {
                    created,
                    delivered,
                    timed_out,
                    failed,
                    replaced,
                    deleted,
                    refused,
                    forgotten,
                    seq_last,
                })
            }
            Filed::Message { device, via, cached } => Piece::Message(proto::SnapshotMessage {
                device: device.to_string(),
                via: via.to_string(),
                seq: cached.seq,
                created_ms: cached.created.0,
                ttl_min: cached.ttl_min.into(),
                phase: Some(cached.phase.to_message()),
                message: Some(cached.message.to_message()),
            }),
        };
        proto::SnapshotMail { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotMail) -> Result<Filed, Error> {
        Ok(match present("piece", message.piece)? {
            Piece::Books(books) => {
                let proto::MailBooks {
                    created,
                    delivered,
                    timed_out,
                    failed,
                    replaced,
                    deleted,
                    refused,
                    forgotten,
                    seq_last,
                } = books;
                let books = Books { created, delivered, timed_out, failed, replaced, deleted, refused, forgotten };
                Filed::Books { books, seq_last }
            }
            Piece::Message(filed) => {
                let within = |error: Error| error.within("message");
                let cached = Cached {
                    seq: filed.seq,
                    created: LogTime(filed.created_ms),
                    ttl_min: ttl_min(filed.ttl_min).map_err(within)?,
                    phase: required("phase", filed.phase).map_err(within)?,
                    message: Arc::new(required("message", filed.message).map_err(within)?),
                };
                Filed::Message { device: filed.device.into(), via: filed.via.into(), cached }
            }
        })
    }
}
