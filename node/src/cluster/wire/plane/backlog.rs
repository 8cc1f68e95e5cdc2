//! Backlogs of rules.

#[cfg(test)]
pub(super) mod tests;

use fulmar_broker::plane::backlog::{Answer, Change, Counts, Entry, Filed};
use fulmar_broker::state::command::Owner;
use fulmar_broker::{Epoch, LogTime};
use fulmar_proto::types::v1::{
    self as proto, backlog_answer::Answer as AnswerMessage, backlog_change::Change as ChangeMessage,
    snapshot_backlog::Piece as PieceMessage,
};

use super::super::{Error, Wire, copied, each, present, required, topic};

impl Wire for Change {
    type Message = proto::BacklogChange;

    fn to_message(&self) -> proto::BacklogChange {
        let named = |name: &str| name.to_owned();
        let change = match self {
            Change::Append { name, entries } => ChangeMessage::Append(proto::BacklogAppend {
                name: named(name),
                entries: entries.iter().map(Wire::to_message).collect(),
            }),
            Change::Claim { name, node, generation } => ChangeMessage::Claim(proto::BacklogClaim {
                name: named(name),
                by: Some((*node, *generation).to_message()),
            }),
            Change::Settle { name, epoch, floor, refused } => ChangeMessage::Settle(proto::BacklogSettle {
                name: named(name),
                epoch: epoch.0,
                floor: *floor,
                refused: *refused,
            }),
            Change::Release { name, epoch } => {
                ChangeMessage::Release(proto::BacklogRelease { name: named(name), epoch: epoch.0 })
            }
            Change::Discard { name } => ChangeMessage::Discard(proto::BacklogDiscard { name: named(name) }),
            Change::Expire { name } => ChangeMessage::Expire(proto::BacklogExpire { name: named(name) }),
        };
        proto::BacklogChange { change: Some(change) }
    }

    fn from_message(message: proto::BacklogChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Append(append) => Change::Append {
                name: append.name.into(),
                entries: each("entries", append.entries, Entry::from_message).map_err(|e| e.within("append"))?,
            },
            ChangeMessage::Claim(claim) => {
                let (node, generation) = required("by", claim.by).map_err(|error| error.within("claim"))?;
                Change::Claim { name: claim.name.into(), node, generation }
            }
            ChangeMessage::Settle(settle) => Change::Settle {
                name: settle.name.into(),
                epoch: Epoch(settle.epoch),
                floor: settle.floor,
                refused: settle.refused,
            },
            ChangeMessage::Release(release) => {
                Change::Release { name: release.name.into(), epoch: Epoch(release.epoch) }
            }
            ChangeMessage::Discard(discard) => Change::Discard { name: discard.name.into() },
            ChangeMessage::Expire(expire) => Change::Expire { name: expire.name.into() },
        })
    }
}

impl Wire for Entry {
    type Message = proto::BacklogEntry;

    fn to_message(&self) -> proto::BacklogEntry {
        proto::BacklogEntry {
            key: self.key.clone().into(),
            body: self.body.clone(),
            topic: self.topic.as_ref().map(|topic| copied(topic.as_str())).unwrap_or_default(),
            at_ms: self.at_ms,
            expires_at_ms: self.expires_at.0,
        }
    }

    fn from_message(message: proto::BacklogEntry) -> Result<Entry, Error> {
        let published = !message.topic.is_empty();
        Ok(Entry {
            key: message.key.into(),
            body: message.body,
            topic: published.then(|| topic(message.topic)).transpose().map_err(|error| error.within("topic"))?,
            at_ms: message.at_ms,
            expires_at: LogTime(message.expires_at_ms),
        })
    }
}

impl Wire for Answer {
    type Message = proto::BacklogAnswer;

    fn to_message(&self) -> proto::BacklogAnswer {
        let answer = match self {
            Answer::Done => AnswerMessage::Done(proto::BacklogDone {}),
            Answer::Appended { dropped } => AnswerMessage::Appended(proto::BacklogAppended { dropped: *dropped }),
            Answer::Claimed { epoch, floor } => {
                AnswerMessage::Claimed(proto::BacklogClaimed { epoch: epoch.0, floor: *floor })
            }
            Answer::Stale => AnswerMessage::Stale(proto::BacklogStale {}),
            Answer::Missing => AnswerMessage::Missing(proto::BacklogMissing {}),
        };
        proto::BacklogAnswer { answer: Some(answer) }
    }

    fn from_message(message: proto::BacklogAnswer) -> Result<Answer, Error> {
        Ok(match present("answer", message.answer)? {
            AnswerMessage::Done(_) => Answer::Done,
            AnswerMessage::Appended(appended) => Answer::Appended { dropped: appended.dropped },
            AnswerMessage::Claimed(claimed) => Answer::Claimed { epoch: Epoch(claimed.epoch), floor: claimed.floor },
            AnswerMessage::Stale(_) => Answer::Stale,
            AnswerMessage::Missing(_) => Answer::Missing,
        })
    }
}

impl Wire for Counts {
    type Message = proto::BacklogCounts;

    fn to_message(&self) -> proto::BacklogCounts {
        let Counts { appended, settled, refused, full, expired, discarded } = *self;
        proto::BacklogCounts { appended, settled, refused, full, expired, discarded }
    }

    fn from_message(message: proto::BacklogCounts) -> Result<Counts, Error> {
        let proto::BacklogCounts { appended, settled, refused, full, expired, discarded } = message;
        Ok(Counts { appended, settled, refused, full, expired, discarded })
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotBacklog;

    fn to_message(&self) -> proto::SnapshotBacklog {
        let piece = match self {
            Filed::Head { last, counts } => {
                PieceMessage::Head(proto::SnapshotBacklogHead { last: *last, counts: Some(counts.to_message()) })
            }
            Filed::Backlog { name, owner, counts } => PieceMessage::Backlog(proto::SnapshotBacklogOne {
                name: name.clone().into(),
                owner: owner.map(|owner| (owner.node, owner.generation).to_message()),
                epoch: owner.map_or(0, |owner| owner.epoch.0),
                counts: Some(counts.to_message()),
            }),
            Filed::Entries(entries) => PieceMessage::Entries(proto::SnapshotBacklogEntries {
                entries: entries
                    .iter()
                    .map(|(seq, entry)| proto::SnapshotBacklogEntry { seq: *seq, entry: Some(entry.to_message()) })
                    .collect(),
            }),
        };
        proto::SnapshotBacklog { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotBacklog) -> Result<Filed, Error> {
        Ok(match present("piece", message.piece)? {
            PieceMessage::Head(head) => Filed::Head {
                last: head.last,
                counts: required("counts", head.counts).map_err(|error| error.within("head"))?,
            },
            PieceMessage::Backlog(backlog) => {
                let owner = backlog.owner.map(|run| super::super::field("owner", run)).transpose();
                let owner = owner.map_err(|error| error.within("backlog"))?;
                Filed::Backlog {
                    name: backlog.name.into(),
                    owner: owner.map(|(node, generation)| Owner { node, generation, epoch: Epoch(backlog.epoch) }),
                    counts: required("counts", backlog.counts).map_err(|error| error.within("backlog"))?,
                }
            }
            PieceMessage::Entries(entries) => {
                let one = |one: proto::SnapshotBacklogEntry| Ok((one.seq, required("entry", one.entry)?));
                Filed::Entries(each("entries", entries.entries, one)?)
            }
        })
    }
}
