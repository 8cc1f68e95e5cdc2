//! Shadows, and changes of them. What is desired and reported goes as JSON text.

use fulmar_platform::registry::{Change, Patch, Section, Shadow, ShadowChange, ShadowPart, ShadowService, Versioning};
use fulmar_proto::types::v1 as proto;
use proto::ShadowVersioning as VersioningMessage;
use serde_json::Value;

use super::super::{each, optional};
use super::{Error, Problem, Wire, known};

pub(super) fn message(device: &str, change: &ShadowChange) -> proto::RegistryShadow {
    let (delete, parts) = match change {
        ShadowChange::Update(parts) => (false, parts.iter().map(Wire::to_message).collect()),
        ShadowChange::Delete => (true, Vec::new()),
    };
    proto::RegistryShadow { device: device.to_owned(), delete, parts }
}

pub(super) fn change(message: proto::RegistryShadow) -> Result<Change, Error> {
    let change = match (message.delete, message.parts.is_empty()) {
        (true, true) => ShadowChange::Delete,
        (true, false) => return Err(Error::new("parts", Problem::Unwanted)),
        (false, _) => ShadowChange::Update(each("parts", message.parts, Wire::from_message)?),
    };
    Ok(Change::Shadow { device: message.device.into(), change })
}

impl Wire for ShadowPart {
    type Message = proto::ShadowPart;

    fn to_message(&self) -> proto::ShadowPart {
        let patch = |patch: &Patch| match patch {
            Patch::Keep => None,
            Patch::Merge(properties) => {
                let merge = Value::Object(properties.clone()).to_string();
                Some(proto::ShadowPatch { clear: false, merge })
            }
            Patch::Clear => Some(proto::ShadowPatch { clear: true, merge: String::new() }),
        };
        let (versioning, version) = match self.version {
            Versioning::Keep => (VersioningMessage::Keep, 0),
            Versioning::Next => (VersioningMessage::Next, 0),
            Versioning::After(version) => (VersioningMessage::After, version),
            Versioning::Set(version) => (VersioningMessage::Set, version),
            Versioning::Reset => (VersioningMessage::Reset, 0),
        };
        proto::ShadowPart {
            service: self.service.to_string(),
            reported: patch(&self.reported),
            desired: patch(&self.desired),
            versioning: versioning.into(),
            version,
            reported_ms: self.reported_ms,
        }
    }

    fn from_message(message: proto::ShadowPart) -> Result<ShadowPart, Error> {
        let version = known("versioning", message.versioning, |versioning| {
            Some(match versioning {
                VersioningMessage::Keep => Versioning::Keep,
                VersioningMessage::Next => Versioning::Next,
                VersioningMessage::After => Versioning::After(message.version),
                VersioningMessage::Set => Versioning::Set(message.version),
                VersioningMessage::Reset => Versioning::Reset,
            })
        })?;
        Ok(ShadowPart {
            service: message.service.into(),
            reported: patch("reported", message.reported)?,
            desired: patch("desired", message.desired)?,
            version,
            reported_ms: message.reported_ms,
        })
    }
}

fn patch(name: &str, message: Option<proto::ShadowPatch>) -> Result<Patch, Error> {
    let Some(proto::ShadowPatch { clear, merge }) = message else { return Ok(Patch::Keep) };
    if clear {
        let nothing = merge.is_empty().then_some(Patch::Clear);
        return nothing.ok_or_else(|| Error::new("merge", Problem::Unwanted).within(name));
    }
    let properties = serde_json::from_str(&merge);
    properties.map(Patch::Merge).map_err(|_| Error::new("merge", Problem::Json).within(name))
}

impl Wire for Shadow {
    type Message = proto::Shadow;

    fn to_message(&self) -> proto::Shadow {
        proto::Shadow { services: self.services.iter().map(Wire::to_message).collect() }
    }

    fn from_message(message: proto::Shadow) -> Result<Shadow, Error> {
        Ok(Shadow { services: each("services", message.services, Wire::from_message)? })
    }
}

impl Wire for ShadowService {
    type Message = proto::ShadowService;

    fn to_message(&self) -> proto::ShadowService {
        proto::ShadowService {
            service: self.id.to_string(),
            desired: Some(self.desired.to_message()),
            reported: Some(self.reported.to_message()),
            version: self.version,
        }
    }

    fn from_message(message: proto::ShadowService) -> Result<ShadowService, Error> {
        Ok(ShadowService {
            id: message.service.into(),
            desired: optional("desired", message.desired)?.unwrap_or_default(),
            reported: optional("reported", message.reported)?.unwrap_or_default(),
            version: message.version,
        })
    }
}

impl Wire for Section {
    type Message = proto::ShadowSection;

    fn to_message(&self) -> proto::ShadowSection {
        proto::ShadowSection { properties: self.text().to_owned(), event_ms: self.event_ms }
    }

    fn from_message(message: proto::ShadowSection) -> Result<Section, Error> {
        let section = Section::read(&message.properties, message.event_ms);
        section.map_err(|_| Error::new("properties", Problem::Json))
    }
}
