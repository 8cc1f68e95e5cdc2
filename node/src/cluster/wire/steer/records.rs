//! What is kept of them.

use std::sync::Arc;

use fulmar_broker::steer::{alarms, audit, bans, settings};
use fulmar_broker::{LogTime, NodeId};
use fulmar_proto::types::v1::{
    self as proto, ban_target::Target as TargetMessage, setting_value::Value as ValueMessage,
};

use super::super::{Error, Problem, Wire, node, optional, present, required};
use super::known;

/// 0 for none.
pub(super) fn some_node(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

pub(super) fn severity_message(severity: alarms::Severity) -> proto::AlarmSeverity {
    match severity {
        alarms::Severity::Warning => proto::AlarmSeverity::Warning,
        alarms::Severity::Critical => proto::AlarmSeverity::Critical,
    }
}

pub(super) fn severity(name: &str, value: i32) -> Result<alarms::Severity, Error> {
    known(name, value, |severity| match severity {
        proto::AlarmSeverity::Unspecified => None,
        proto::AlarmSeverity::Warning => Some(alarms::Severity::Warning),
        proto::AlarmSeverity::Critical => Some(alarms::Severity::Critical),
    })
}

impl Wire for bans::Target {
    type Message = proto::BanTarget;

    fn to_message(&self) -> proto::BanTarget {
        let target = match self {
            bans::Target::ClientId(name) => TargetMessage::ClientId(name.to_string()),
            bans::Target::UserName(name) => TargetMessage::UserName(name.to_string()),
            bans::Target::Address(network) => TargetMessage::Network(network.to_string()),
        };
        proto::BanTarget { target: Some(target) }
    }

    fn from_message(message: proto::BanTarget) -> Result<bans::Target, Error> {
        Ok(match present("target", message.target)? {
            TargetMessage::ClientId(name) => bans::Target::ClientId(name.into()),
            TargetMessage::UserName(name) => bans::Target::UserName(name.into()),
            TargetMessage::Network(text) => {
                let network = bans::Network::parse(&text).ok_or_else(|| Error::new("network", Problem::Network))?;
                bans::Target::Address(network)
            }
        })
    }
}

impl Wire for bans::Ban {
    type Message = proto::Ban;

    fn to_message(&self) -> proto::Ban {
        proto::Ban {
            target: Some(self.target.to_message()),
            reason: self.reason.to_string(),
            by: self.by.to_string(),
            since_ms: self.since.0,
            until_ms: self.until.map(|until| until.0),
            automatic: self.automatic,
        }
    }

    fn from_message(message: proto::Ban) -> Result<bans::Ban, Error> {
        Ok(bans::Ban {
            target: required("target", message.target)?,
            reason: message.reason.into(),
            by: message.by.into(),
            since: LogTime(message.since_ms),
            until: message.until_ms.map(LogTime),
            automatic: message.automatic,
        })
    }
}

impl Wire for settings::Value {
    type Message = proto::SettingValue;

    fn to_message(&self) -> proto::SettingValue {
        let value = match self {
            settings::Value::Flag(flag) => ValueMessage::Flag(*flag),
            settings::Value::Number(number) => ValueMessage::Number(*number),
            settings::Value::Text(text) => ValueMessage::Text(text.to_string()),
        };
        proto::SettingValue { value: Some(value) }
    }

    fn from_message(message: proto::SettingValue) -> Result<settings::Value, Error> {
        Ok(match present("value", message.value)? {
            ValueMessage::Flag(flag) => settings::Value::Flag(flag),
            ValueMessage::Number(number) => settings::Value::Number(number),
            ValueMessage::Text(text) => settings::Value::Text(text.into()),
        })
    }
}

impl Wire for settings::Past {
    type Message = proto::SettingPast;

    fn to_message(&self) -> proto::SettingPast {
        proto::SettingPast {
            version: self.version,
            at_ms: self.at.0,
            by: self.by.to_string(),
            name: self.name.to_string(),
            from: self.from.as_ref().map(Wire::to_message),
            to: self.to.as_ref().map(Wire::to_message),
        }
    }

    fn from_message(message: proto::SettingPast) -> Result<settings::Past, Error> {
        Ok(settings::Past {
            version: message.version,
            at: LogTime(message.at_ms),
            by: message.by.into(),
            name: message.name.into(),
            from: optional("from", message.from)?,
            to: optional("to", message.to)?,
        })
    }
}

impl Wire for alarms::Alarm {
    type Message = proto::Alarm;

    fn to_message(&self) -> proto::Alarm {
        proto::Alarm {
            name: self.name.to_string(),
            subject: self.subject.to_string(),
            severity: severity_message(self.severity).into(),
            message: self.message.to_string(),
            since_ms: self.since.0,
            node: self.node.map_or(0, |node| node.0),
        }
    }

    fn from_message(message: proto::Alarm) -> Result<alarms::Alarm, Error> {
        Ok(alarms::Alarm {
            name: message.name.into(),
            subject: message.subject.into(),
            severity: severity("severity", message.severity)?,
            message: message.message.into(),
            since: LogTime(message.since_ms),
            node: some_node(message.node),
        })
    }
}

impl Wire for alarms::Past {
    type Message = proto::AlarmPast;

    fn to_message(&self) -> proto::AlarmPast {
        proto::AlarmPast {
            seq: self.seq,
            alarm: Some(self.alarm.to_message()),
            cleared_ms: self.cleared.0,
            by: self.by.to_string(),
        }
    }

    fn from_message(message: proto::AlarmPast) -> Result<alarms::Past, Error> {
        Ok(alarms::Past {
            seq: message.seq,
            alarm: Arc::new(required("alarm", message.alarm)?),
            cleared: LogTime(message.cleared_ms),
            by: message.by.into(),
        })
    }
}

impl Wire for audit::Entry {
    type Message = proto::AuditEntry;

    fn to_message(&self) -> proto::AuditEntry {
        proto::AuditEntry {
            at_ms: self.at.0,
            node: self.node.0,
            user: self.user.to_string(),
            role: self.role.to_string(),
            address: self.address.to_string(),
            door: self.door.to_string(),
            operation: self.operation.to_string(),
            about: self.about.to_string(),
            status: self.status.into(),
            code: self.code.to_string(),
            request_id: self.request_id.to_string(),
        }
    }

    fn from_message(message: proto::AuditEntry) -> Result<audit::Entry, Error> {
        let status = u16::try_from(message.status);
        Ok(audit::Entry {
            at: LogTime(message.at_ms),
            node: node("node", message.node)?,
            user: message.user.into(),
            role: message.role.into(),
            address: message.address.into(),
            door: message.door.into(),
            operation: message.operation.into(),
            about: message.about.into(),
            status: status.map_err(|_| Error::new("status", Problem::Range(message.status.into())))?,
            code: message.code.into(),
            request_id: message.request_id.into(),
        })
    }
}
