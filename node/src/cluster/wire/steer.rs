//! Bans, settings, alarms and the audit.

mod records;
#[cfg(test)]
pub(super) mod tests;
mod traces;

use fulmar_broker::LogTime;
use fulmar_broker::steer::{Answer, Change, Filed, alarms, audit, bans, settings};
use fulmar_proto::types::v1::{
    self as proto, alarm_change::Change as AlarmMessage, ban_change::Change as BanMessage,
    setting_answer::Answer as SettingAnswerMessage, steer_answer::Answer as AnswerMessage,
    steer_change::Change as ChangeMessage,
};

use super::{Error, Problem, Wire, each, field, optional, present, required};

/// A value of an enumeration that this program knows.
fn known<E: TryFrom<i32>, T>(name: &str, value: i32, of: impl FnOnce(E) -> Option<T>) -> Result<T, Error> {
    let known = E::try_from(value).ok().and_then(of);
    known.ok_or_else(|| Error::new(name, Problem::Unknown(value)))
}

impl Wire for Change {
    type Message = proto::SteerChange;

    fn to_message(&self) -> proto::SteerChange {
        let change = match self {
            Change::Ban(change) => ChangeMessage::Ban(change.to_message()),
            Change::Setting(change) => ChangeMessage::Setting(change.to_message()),
            Change::Alarm(change) => ChangeMessage::Alarm(change.to_message()),
            Change::Audit(entries) => {
                ChangeMessage::Audit(proto::AuditAppend { entries: entries.iter().map(Wire::to_message).collect() })
            }
            Change::Trace(change) => ChangeMessage::Trace(change.to_message()),
        };
        proto::SteerChange { change: Some(change) }
    }

    fn from_message(message: proto::SteerChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Ban(change) => Change::Ban(field("ban", change)?),
            ChangeMessage::Setting(change) => Change::Setting(field("setting", change)?),
            ChangeMessage::Alarm(change) => Change::Alarm(field("alarm", change)?),
            ChangeMessage::Audit(append) => Change::Audit(each("audit.entries", append.entries, Wire::from_message)?),
            ChangeMessage::Trace(change) => Change::Trace(field("trace", change)?),
        })
    }
}

impl Wire for bans::Change {
    type Message = proto::BanChange;

    fn to_message(&self) -> proto::BanChange {
        let change = match self {
            bans::Change::Set { target, reason, by, until, automatic } => BanMessage::Set(proto::BanSet {
                target: Some(target.to_message()),
                reason: reason.to_string(),
                by: by.to_string(),
                until_ms: until.map(|until| until.0),
                automatic: *automatic,
            }),
            bans::Change::Lift { target } => BanMessage::Lift(target.to_message()),
            bans::Change::Expire { target } => BanMessage::Expire(target.to_message()),
        };
        proto::BanChange { change: Some(change) }
    }

    fn from_message(message: proto::BanChange) -> Result<bans::Change, Error> {
        Ok(match present("change", message.change)? {
            BanMessage::Set(set) => bans::Change::Set {
                target: required("set.target", set.target)?,
                reason: set.reason.into(),
                by: set.by.into(),
                until: set.until_ms.map(LogTime),
                automatic: set.automatic,
            },
            BanMessage::Lift(target) => bans::Change::Lift { target: field("lift", target)? },
            BanMessage::Expire(target) => bans::Change::Expire { target: field("expire", target)? },
        })
    }
}

impl Wire for settings::Change {
    type Message = proto::SettingChange;

    fn to_message(&self) -> proto::SettingChange {
        proto::SettingChange {
            name: self.name.to_string(),
            value: self.value.as_ref().map(Wire::to_message),
            by: self.by.to_string(),
            version: self.version,
        }
    }

    fn from_message(message: proto::SettingChange) -> Result<settings::Change, Error> {
        Ok(settings::Change {
            name: message.name.into(),
            value: optional("value", message.value)?,
            by: message.by.into(),
            version: message.version,
        })
    }
}

impl Wire for alarms::Change {
    type Message = proto::AlarmChange;

    fn to_message(&self) -> proto::AlarmChange {
        let change = match self {
            alarms::Change::Raise(raise) => AlarmMessage::Raise(proto::AlarmRaise {
                name: raise.name.to_string(),
                subject: raise.subject.to_string(),
                severity: records::severity_message(raise.severity).into(),
                message: raise.message.to_string(),
                node: raise.node.map_or(0, |node| node.0),
            }),
            alarms::Change::Clear { name, subject, by } => AlarmMessage::Clear(proto::AlarmClear {
                name: name.to_string(),
                subject: subject.to_string(),
                by: by.to_string(),
            }),
        };
        proto::AlarmChange { change: Some(change) }
    }

    fn from_message(message: proto::AlarmChange) -> Result<alarms::Change, Error> {
        Ok(match present("change", message.change)? {
            AlarmMessage::Raise(raise) => alarms::Change::Raise(alarms::Raise {
                name: raise.name.into(),
                subject: raise.subject.into(),
                severity: records::severity("raise.severity", raise.severity)?,
                message: raise.message.into(),
                node: records::some_node(raise.node),
            }),
            AlarmMessage::Clear(clear) => {
                alarms::Change::Clear { name: clear.name.into(), subject: clear.subject.into(), by: clear.by.into() }
            }
        })
    }
}

impl Wire for Answer {
    type Message = proto::SteerAnswer;

    fn to_message(&self) -> proto::SteerAnswer {
        let answer = match self {
            Answer::Ban(answer) => {
                let answer = match answer {
                    bans::Answer::Done => proto::BanAnswer::Done,
                    bans::Answer::NoBan => proto::BanAnswer::NoBan,
                    bans::Answer::NoRoom => proto::BanAnswer::NoRoom,
                    bans::Answer::Before => proto::BanAnswer::Before,
                };
                AnswerMessage::Ban(answer.into())
            }
            Answer::Setting(answer) => {
                let answer = match *answer {
                    settings::Answer::Set { version } => SettingAnswerMessage::Set(version),
                    settings::Answer::Conflict { version } => SettingAnswerMessage::Conflict(version),
                    settings::Answer::NoRoom => SettingAnswerMessage::NoRoom(proto::SettingNoRoom {}),
                };
                AnswerMessage::Setting(proto::SettingAnswer { answer: Some(answer) })
            }
            Answer::Alarm(answer) => {
                let answer = match answer {
                    alarms::Answer::Done => proto::AlarmAnswer::Done,
                    alarms::Answer::Before => proto::AlarmAnswer::Before,
                    alarms::Answer::NoAlarm => proto::AlarmAnswer::NoAlarm,
                    alarms::Answer::NoRoom => proto::AlarmAnswer::NoRoom,
                };
                AnswerMessage::Alarm(answer.into())
            }
            Answer::Audit(seq) => AnswerMessage::Audit(*seq),
            Answer::Trace(answer) => AnswerMessage::Trace(answer.to_message()),
        };
        proto::SteerAnswer { answer: Some(answer) }
    }

    fn from_message(message: proto::SteerAnswer) -> Result<Answer, Error> {
        Ok(match present("answer", message.answer)? {
            AnswerMessage::Ban(answer) => Answer::Ban(known("ban", answer, |answer| match answer {
                proto::BanAnswer::Unspecified => None,
                proto::BanAnswer::Done => Some(bans::Answer::Done),
                proto::BanAnswer::NoBan => Some(bans::Answer::NoBan),
                proto::BanAnswer::NoRoom => Some(bans::Answer::NoRoom),
                proto::BanAnswer::Before => Some(bans::Answer::Before),
            })?),
            AnswerMessage::Setting(answer) => Answer::Setting(match present("setting.answer", answer.answer)? {
                SettingAnswerMessage::Set(version) => settings::Answer::Set { version },
                SettingAnswerMessage::Conflict(version) => settings::Answer::Conflict { version },
                SettingAnswerMessage::NoRoom(proto::SettingNoRoom {}) => settings::Answer::NoRoom,
            }),
            AnswerMessage::Alarm(answer) => Answer::Alarm(known("alarm", answer, |answer| match answer {
                proto::AlarmAnswer::Unspecified => None,
                proto::AlarmAnswer::Done => Some(alarms::Answer::Done),
                proto::AlarmAnswer::Before => Some(alarms::Answer::Before),
                proto::AlarmAnswer::NoAlarm => Some(alarms::Answer::NoAlarm),
                proto::AlarmAnswer::NoRoom => Some(alarms::Answer::NoRoom),
            })?),
            AnswerMessage::Audit(seq) => Answer::Audit(seq),
            AnswerMessage::Trace(answer) => Answer::Trace(field("trace", answer)?),
        })
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotSteer;

    fn to_message(&self) -> proto::SnapshotSteer {
        use proto::{snapshot_alarm, snapshot_setting, snapshot_steer::Piece};
        let piece = match self {
            Filed::Ban(ban) => Piece::Ban(ban.to_message()),
            Filed::Setting(settings::Filed::Past(past)) => {
                Piece::Setting(proto::SnapshotSetting { piece: Some(snapshot_setting::Piece::Past(past.to_message())) })
            }
            Filed::Setting(settings::Filed::Value { name, value }) => {
                let set = proto::SettingSet { name: name.to_string(), value: Some(value.to_message()) };
                Piece::Setting(proto::SnapshotSetting { piece: Some(snapshot_setting::Piece::Value(set)) })
            }
            Filed::Alarm(alarms::Filed::Past(past)) => {
                Piece::Alarm(proto::SnapshotAlarm { piece: Some(snapshot_alarm::Piece::Past(past.to_message())) })
            }
            Filed::Alarm(alarms::Filed::Active(alarm)) => {
                Piece::Alarm(proto::SnapshotAlarm { piece: Some(snapshot_alarm::Piece::Active(alarm.to_message())) })
            }
            Filed::Audit(audit::Filed { seq, entry }) => {
                Piece::Audit(proto::SnapshotAudit { seq: *seq, entry: Some(entry.to_message()) })
            }
            Filed::Trace(filed) => Piece::Trace(filed.to_message()),
        };
        proto::SnapshotSteer { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotSteer) -> Result<Filed, Error> {
        use proto::{snapshot_alarm, snapshot_setting, snapshot_steer::Piece};
        Ok(match present("piece", message.piece)? {
            Piece::Ban(ban) => Filed::Ban(field("ban", ban)?),
            Piece::Setting(setting) => Filed::Setting(match present("setting.piece", setting.piece)? {
                snapshot_setting::Piece::Past(past) => settings::Filed::Past(field("setting.past", past)?),
                snapshot_setting::Piece::Value(set) => {
                    settings::Filed::Value { name: set.name.into(), value: required("setting.value.value", set.value)? }
                }
            }),
            Piece::Alarm(alarm) => Filed::Alarm(match present("alarm.piece", alarm.piece)? {
                snapshot_alarm::Piece::Past(past) => alarms::Filed::Past(field("alarm.past", past)?),
                snapshot_alarm::Piece::Active(alarm) => alarms::Filed::Active(field("alarm.active", alarm)?),
            }),
            Piece::Audit(filed) => {
                Filed::Audit(audit::Filed { seq: filed.seq, entry: required("audit.entry", filed.entry)? })
            }
            Piece::Trace(filed) => Filed::Trace(field("trace", filed)?),
        })
    }
}
