//! Records of the registry, changes of them, and what these came to. Text is copied: it is kept for long.

mod records;
mod rules;
mod shadow;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use bytes::Bytes;
use fulmar_platform::registry::{Change, Changed, Expect, Filed, Kind, ObjectId, Presence, Record, Rejection};
use fulmar_platform::{Downlink, Secret};
use fulmar_proto::types::v1::outcome_registry::Outcome as OutcomeMessage;
use fulmar_proto::types::v1::registry_change::Change as ChangeMessage;
use fulmar_proto::types::v1::registry_record::Record as RecordMessage;
use fulmar_proto::types::v1::{self as proto, RegistryKind as KindMessage, RegistryRejection as RejectionMessage};

use super::{Error, Problem, Wire, copied, field, optional, present, qos, required, topic};

/// An enum's value by its number; the unspecified one is none.
fn known<T: TryFrom<i32>, V>(name: &str, value: i32, of: impl Fn(T) -> Option<V>) -> Result<V, Error> {
    let known = T::try_from(value).ok().and_then(of);
    known.ok_or_else(|| Error::new(name, Problem::Unknown(value)))
}

fn oid(bytes: &Bytes) -> Result<ObjectId, Error> {
    let whole = <[u8; 12]>::try_from(bytes.as_ref());
    whole.map(ObjectId).map_err(|_| Error::new("oid", Problem::Range(bytes.len() as u64)))
}

fn expectation(absent: bool, revision: Option<u64>) -> Result<Expect, Error> {
    match (absent, revision) {
        (true, None) => Ok(Expect::Absent),
        (false, Some(revision)) => Ok(Expect::Revision(revision)),
        (false, None) => Ok(Expect::Anything),
        (true, Some(_)) => Err(Error::new("revision", Problem::Unwanted)),
    }
}

/// `absent` and `revision`.
fn expected(expect: Expect) -> (bool, Option<u64>) {
    match expect {
        Expect::Absent => (true, None),
        Expect::Revision(revision) => (false, Some(revision)),
        Expect::Anything => (false, None),
    }
}

impl Wire for Secret {
    type Message = proto::Secret;

    fn to_message(&self) -> proto::Secret {
        proto::Secret { text: self.expose().to_owned() }
    }

    fn from_message(message: proto::Secret) -> Result<Secret, Error> {
        Ok(Secret::new(&message.text))
    }
}

impl Wire for Change {
    type Message = proto::RegistryChange;

    fn to_message(&self) -> proto::RegistryChange {
        let change = match self {
            Change::Key(secret) => ChangeMessage::Key(proto::RegistryKey { secret: Some(secret.to_message()) }),
            Change::Put { record, expect } => {
                let (absent, revision) = expected(*expect);
                ChangeMessage::Put(proto::RegistryPut { record: Some(record.to_message()), absent, revision })
            }
            Change::Delete { kind, id, expect } => {
                let (absent, revision) = expected(*expect);
                let kind = kind_message(*kind).into();
                ChangeMessage::Delete(proto::RegistryDelete { kind, id: id.to_string(), absent, revision })
            }
            Change::Disconnect { device } => {
                ChangeMessage::Disconnect(proto::RegistryDisconnect { device: device.to_string() })
            }
            Change::Shadow { device, change } => ChangeMessage::Shadow(shadow::message(device, change)),
            Change::SubDevice { device, epoch, online } => ChangeMessage::SubDevice(proto::RegistrySubDevice {
                device: device.to_string(),
                epoch: *epoch,
                online: *online,
            }),
            Change::Tell { device, downlink } => ChangeMessage::Tell(proto::RegistryTell {
                device: device.to_string(),
                topic: copied(downlink.topic.as_str()),
                payload: downlink.payload.clone(),
                qos: downlink.qos as i32,
            }),
            Change::DisconnectApplication { access_key } => {
                let access_key = access_key.to_string();
                ChangeMessage::DisconnectApplication(proto::RegistryDisconnectApplication { access_key })
            }
        };
        proto::RegistryChange { change: Some(change) }
    }

    fn from_message(message: proto::RegistryChange) -> Result<Change, Error> {
        Ok(match present("change", message.change)? {
            ChangeMessage::Key(key) => {
                Change::Key(required("secret", key.secret).map_err(|error| error.within("key"))?)
            }
            ChangeMessage::Put(put) => {
                let record = required("record", put.record).map_err(|error| error.within("put"))?;
                let expect = expectation(put.absent, put.revision).map_err(|error| error.within("put"))?;
                Change::Put { record, expect }
            }
            ChangeMessage::Delete(delete) => {
                let expect = expectation(delete.absent, delete.revision).map_err(|error| error.within("delete"))?;
                let kind = known("delete.kind", delete.kind, kind)?;
                Change::Delete { kind, id: delete.id.into(), expect }
            }
            ChangeMessage::Disconnect(disconnect) => Change::Disconnect { device: disconnect.device.into() },
            ChangeMessage::Shadow(shadow) => shadow::change(shadow).map_err(|error| error.within("shadow"))?,
            ChangeMessage::SubDevice(said) => {
                Change::SubDevice { device: said.device.into(), epoch: said.epoch, online: said.online }
            }
            ChangeMessage::Tell(tell) => {
                let topic = topic(tell.topic).map_err(|error| error.within("topic"));
                let told = topic.and_then(|topic| Ok((topic, qos("qos", tell.qos)?)));
                let (topic, qos) = told.map_err(|error| error.within("tell"))?;
                Change::Tell { device: tell.device.into(), downlink: Downlink { topic, payload: tell.payload, qos } }
            }
            ChangeMessage::DisconnectApplication(disconnect) => {
                Change::DisconnectApplication { access_key: disconnect.access_key.into() }
            }
        })
    }
}

fn kind_message(kind: Kind) -> KindMessage {
    match kind {
        Kind::App => KindMessage::App,
        Kind::Product => KindMessage::Product,
        Kind::Device => KindMessage::Device,
        Kind::User => KindMessage::User,
        Kind::AccessKey => KindMessage::AccessKey,
        Kind::AccessCode => KindMessage::AccessCode,
        Kind::Authority => KindMessage::Authority,
        Kind::SensoroApp => KindMessage::SensoroApp,
        Kind::Rule => KindMessage::Rule,
        Kind::RuleAction => KindMessage::RuleAction,
    }
}

fn kind(message: KindMessage) -> Option<Kind> {
    match message {
        KindMessage::Unspecified => None,
        KindMessage::App => Some(Kind::App),
        KindMessage::Product => Some(Kind::Product),
        KindMessage::Device => Some(Kind::Device),
        KindMessage::User => Some(Kind::User),
        KindMessage::AccessKey => Some(Kind::AccessKey),
        KindMessage::AccessCode => Some(Kind::AccessCode),
        KindMessage::Authority => Some(Kind::Authority),
        KindMessage::SensoroApp => Some(Kind::SensoroApp),
        KindMessage::Rule => Some(Kind::Rule),
        KindMessage::RuleAction => Some(Kind::RuleAction),
    }
}

impl Wire for Result<Changed, Rejection> {
    type Message = proto::OutcomeRegistry;

    fn to_message(&self) -> proto::OutcomeRegistry {
        let rejected = |reason: RejectionMessage, kind: KindMessage| {
            OutcomeMessage::Rejected(proto::RegistryRejected { reason: reason.into(), kind: kind.into() })
        };
        let outcome = match self {
            Ok(Changed { revision, oid }) => {
                let oid = Bytes::copy_from_slice(&oid.0);
                OutcomeMessage::Changed(proto::RegistryChanged { revision: *revision, oid })
            }
            Err(Rejection::Exists) => rejected(RejectionMessage::Exists, KindMessage::Unspecified),
            Err(Rejection::Missing) => rejected(RejectionMessage::Missing, KindMessage::Unspecified),
            Err(Rejection::Conflict) => rejected(RejectionMessage::Conflict, KindMessage::Unspecified),
            Err(Rejection::Dangling(kind)) => rejected(RejectionMessage::Dangling, kind_message(*kind)),
            Err(Rejection::InUse(kind)) => rejected(RejectionMessage::InUse, kind_message(*kind)),
            Err(Rejection::Full) => rejected(RejectionMessage::Full, KindMessage::Unspecified),
            Err(Rejection::TooLarge) => rejected(RejectionMessage::TooLarge, KindMessage::Unspecified),
        };
        proto::OutcomeRegistry { outcome: Some(outcome) }
    }

    fn from_message(message: proto::OutcomeRegistry) -> Result<Result<Changed, Rejection>, Error> {
        let rejected = match present("outcome", message.outcome)? {
            OutcomeMessage::Changed(changed) => {
                let oid = oid(&changed.oid).map_err(|error| error.within("changed"))?;
                return Ok(Ok(Changed { revision: changed.revision, oid }));
            }
            OutcomeMessage::Rejected(rejected) => rejected,
        };
        let with_kind = || known("rejected.kind", rejected.kind, kind);
        Ok(Err(match known("rejected.reason", rejected.reason, Some::<RejectionMessage>)? {
            RejectionMessage::Unspecified => {
                return Err(Error::new("rejected.reason", Problem::Unknown(rejected.reason)));
            }
            RejectionMessage::Exists => Rejection::Exists,
            RejectionMessage::Missing => Rejection::Missing,
            RejectionMessage::Conflict => Rejection::Conflict,
            RejectionMessage::Dangling => Rejection::Dangling(with_kind()?),
            RejectionMessage::InUse => Rejection::InUse(with_kind()?),
            RejectionMessage::Full => Rejection::Full,
            RejectionMessage::TooLarge => Rejection::TooLarge,
        }))
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotRegistry;

    fn to_message(&self) -> proto::SnapshotRegistry {
        proto::SnapshotRegistry {
            record: Some(self.record.to_message()),
            oid: Bytes::copy_from_slice(&self.oid.0),
            revision: self.revision,
            presence: self.presence.as_ref().map(|presence| proto::Presence {
                active_ms: presence.active_ms,
                changed_ms: presence.changed_ms,
                epoch: presence.epoch,
                online: presence.online,
                client_id: presence.client_id.as_deref().map(str::to_owned),
            }),
            shadow: self.shadow.as_ref().map(|shadow| shadow.to_message()),
        }
    }

    fn from_message(message: proto::SnapshotRegistry) -> Result<Filed, Error> {
        let presence = message.presence.map(|presence| Presence {
            active_ms: presence.active_ms,
            changed_ms: presence.changed_ms,
            epoch: presence.epoch,
            online: presence.online,
            client_id: presence.client_id.map(Into::into),
        });
        let oid = oid(&message.oid)?;
        let record = required("record", message.record)?;
        let shadow = optional("shadow", message.shadow)?.map(Arc::new);
        Ok(Filed { oid, revision: message.revision, record, presence, shadow })
    }
}

impl Wire for Record {
    type Message = proto::RegistryRecord;

    fn to_message(&self) -> proto::RegistryRecord {
        let record = match self {
            Record::App(app) => RecordMessage::App(app.to_message()),
            Record::Product(product) => RecordMessage::Product(product.to_message()),
            Record::Device(device) => RecordMessage::Device(device.to_message()),
            Record::User(user) => RecordMessage::User(user.to_message()),
            Record::AccessKey(key) => RecordMessage::AccessKey(key.to_message()),
            Record::AccessCode(code) => RecordMessage::AccessCode(code.to_message()),
            Record::Authority(authority) => RecordMessage::Authority(authority.to_message()),
            Record::SensoroApp(app) => RecordMessage::SensoroApp(app.to_message()),
            Record::Rule(rule) => RecordMessage::Rule(rule.to_message()),
            Record::RuleAction(action) => RecordMessage::RuleAction(action.to_message()),
        };
        proto::RegistryRecord { record: Some(record) }
    }

    fn from_message(message: proto::RegistryRecord) -> Result<Record, Error> {
        Ok(match present("record", message.record)? {
            RecordMessage::App(app) => Record::App(Arc::new(field("app", app)?)),
            RecordMessage::Product(product) => Record::Product(Arc::new(field("product", product)?)),
            RecordMessage::Device(device) => Record::Device(Arc::new(field("device", device)?)),
            RecordMessage::User(user) => Record::User(Arc::new(field("user", user)?)),
            RecordMessage::AccessKey(key) => Record::AccessKey(Arc::new(field("access_key", key)?)),
            RecordMessage::AccessCode(code) => Record::AccessCode(Arc::new(field("access_code", code)?)),
            RecordMessage::Authority(authority) => Record::Authority(Arc::new(field("authority", authority)?)),
            RecordMessage::SensoroApp(app) => Record::SensoroApp(Arc::new(field("sensoro_app", app)?)),
            RecordMessage::Rule(rule) => Record::Rule(Arc::new(field("rule", rule)?)),
            RecordMessage::RuleAction(action) => Record::RuleAction(Arc::new(field("rule_action", action)?)),
        })
    }
}
