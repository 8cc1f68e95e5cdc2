//! What may change the registry, and what comes of it.

use std::sync::Arc;

use super::ObjectId;
use super::model::{AccessCode, AccessKey, App, Authority, Device, Product, Rule, RuleAction, SensoroApp, User};
use super::{Patch, ShadowChange, ShadowPart, Versioning};
use crate::{Dialect, Downlink, Secret};

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    App,
    Product,
    Device,
    User,
    AccessKey,
    AccessCode,
    Authority,
    SensoroApp,
    Rule,
    RuleAction,
}

/// One record, whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    App(Arc<App>),
    Product(Arc<Product>),
    Device(Arc<Device>),
    User(Arc<User>),
    AccessKey(Arc<AccessKey>),
    AccessCode(Arc<AccessCode>),
    Authority(Arc<Authority>),
    SensoroApp(Arc<SensoroApp>),
    Rule(Arc<Rule>),
    RuleAction(Arc<RuleAction>),
}

impl Record {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Record::App(_) => Kind::App,
            Record::Product(_) => Kind::Product,
            Record::Device(_) => Kind::Device,
            Record::User(_) => Kind::User,
            Record::AccessKey(_) => Kind::AccessKey,
            Record::AccessCode(_) => Kind::AccessCode,
            Record::Authority(_) => Kind::Authority,
            Record::SensoroApp(_) => Kind::SensoroApp,
            Record::Rule(_) => Kind::Rule,
            Record::RuleAction(_) => Kind::RuleAction,
        }
    }

    /// Unique among its kind: the name of a user, `ak` of an access key, `kind` of an access code.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Record::App(app) => &app.id,
            Record::Product(product) => &product.id,
            Record::Device(device) => &device.id,
            Record::User(user) => &user.name,
            Record::AccessKey(key) => &key.ak,
            Record::AccessCode(code) => &code.kind,
            Record::Authority(authority) => &authority.id,
            Record::SensoroApp(app) => &app.id,
            Record::Rule(rule) => &rule.id,
            Record::RuleAction(action) => &action.id,
        }
    }

    /// What must be there for it.
    pub(super) fn references(&self) -> impl Iterator<Item = (Kind, &str)> {
        match self {
            Record::Product(product) => [Some((Kind::App, &*product.app_id)), None, None, None],
            Record::Device(device) => [
                Some((Kind::App, &*device.app_id)),
                Some((Kind::Product, &*device.product_id)),
                Some((Kind::Device, &*device.gateway_id)).filter(|(_, id)| !id.is_empty()),
                Some((Kind::SensoroApp, &*device.sensoro_app_id)).filter(|(_, id)| !id.is_empty()),
            ],
            Record::AccessKey(key) => [Some((Kind::User, &*key.user)), None, None, None],
            Record::Authority(authority) => {
                [Some((Kind::Product, &*authority.product_id)).filter(|(_, id)| !id.is_empty()), None, None, None]
            }
            Record::Rule(rule) => [Some((Kind::App, &*rule.app_id)).filter(|(_, id)| !id.is_empty()), None, None, None],
            Record::RuleAction(action) => [Some((Kind::Rule, &*action.rule_id)), None, None, None],
            Record::App(_) | Record::User(_) | Record::AccessCode(_) | Record::SensoroApp(_) => [None; 4],
        }
        .into_iter()
        .flatten()
    }

    /// Bytes of its long parts, roughly.
    fn bytes(&self) -> usize {
        match self {
            Record::Product(product) => {
                let topics = product.topics.iter().map(|class| class.filter.len() + 8).sum::<usize>();
                256 + product.description.len() + product.model.len() + topics
            }
            Record::Device(device) => {
                let tags = device.tags.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>();
                384 + device.name.len() + device.description.len() + device.extension_info.len() + tags
            }
            Record::Authority(authority) => {
                let key = authority.key_pem.as_ref().map_or(0, |key| key.expose().len());
                128 + authority.certificate_der.len() + key
            }
            Record::SensoroApp(app) => 128 + app.callback_url.len(),
            Record::Rule(rule) => {
                256 + rule.name.len() + rule.description.len() + rule.select.len() + rule.filter.len()
            }
            Record::RuleAction(action) => 192 + action.detail.len(),
            Record::App(_) | Record::User(_) | Record::AccessKey(_) | Record::AccessCode(_) => 256,
        }
    }
}

/// What must be there before, or nothing is changed: so nobody overwrites what another has just written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Revision(u64),
    Anything,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The secret that every node computes tokens with, 64 hexadecimal digits. The first one stays; every other is
    /// rejected as [`Rejection::Exists`].
    Key(Secret),
    /// Adds a record, or replaces it whole. See [`super::Registry::apply`] for what may not change.
    Put {
        record: Record,
        expect: Expect,
    },
    /// A record that others refer to stays, and so does the default app.
    Delete {
        kind: Kind,
        id: Box<str>,
        expect: Expect,
    },
    /// Closes the connection of a device, if it has one.
    Disconnect {
        device: Box<str>,
    },
    Shadow {
        device: Box<str>,
        change: ShadowChange,
    },
    /// Has the connection that a device is reached by send it something, once. Nothing is kept of it; a device that is
    /// not connected is [`Rejection::Conflict`].
    Tell {
        device: Box<str>,
        downlink: Downlink,
    },
    /// A gateway says whether a sub-device is there. It does so by the connection of this epoch, which must be the one
    /// that the device at the top has, and is: otherwise [`Rejection::Conflict`]. Ends with the connection.
    SubDevice {
        device: Box<str>,
        epoch: u64,
        online: bool,
    },
    /// Closes the connections of applications with an access key that is void. Of one that is not, rejected as
    /// [`Rejection::Conflict`].
    DisconnectApplication {
        access_key: Box<str>,
    },
}

impl Change {
    /// Whether it only puts into a shadow what a device has reported: nobody waits until all nodes know it.
    #[must_use]
    pub fn is_report(&self) -> bool {
        let reported = |part: &ShadowPart| part.desired == Patch::Keep && part.version == Versioning::Keep;
        matches!(self, Change::Shadow { change: ShadowChange::Update(parts), .. } if parts.iter().all(reported))
    }

    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Change::Key(_) => 80,
            Change::Put { record, .. } => record.bytes(),
            Change::Shadow { device, change } => device.len() + change.bytes(),
            Change::Tell { device, downlink } => {
                32 + device.len() + downlink.topic.as_str().len() + downlink.payload.len()
            }
            Change::SubDevice { device, .. } => 16 + device.len(),
            Change::Delete { id, .. }
            | Change::Disconnect { device: id }
            | Change::DisconnectApplication { access_key: id } => id.len(),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Of the record from here on; of a deleted one, its last.
    pub revision: u64,
    /// Its place in the order of creation.
    pub oid: ObjectId,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("is there already")]
    Exists,
    #[error("is not there")]
    Missing,
    #[error("was changed meanwhile")]
    Conflict,
    /// What of that kind it refers to is not there; or is a sub-device of a sub-device, and can have none.
    #[error("refers to what is not there: {0:?}")]
    Dangling(Kind),
    /// Records of that kind refer to it. For an app of which nothing is left, [`Kind::App`]: it is the default one.
    #[error("is referred to by another: {0:?}")]
    InUse(Kind),
    #[error("the registry is full")]
    Full,
    /// A shadow would have more services or bytes than one may have.
    #[error("would be too large")]
    TooLarge,
}

/// What happened to a device, product, app, rule or action: told to every node, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Created(Record),
    Updated(Record),
    Deleted(Record),
    Status(Status),
    /// The shadow of the device has changed, or it has come behind its gateway, and something is desired that is not
    /// reported so.
    Desired(Arc<Device>),
    /// The connection that the device is reached by is to send this.
    Told(Arc<Device>, Downlink),
}

/// A device has come or gone. Of two of one device the one with the larger epoch is the newer; of one epoch, going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub device: Arc<Device>,
    pub dialect: Dialect,
    pub online: bool,
    pub epoch: u64,
    pub at_ms: u64,
}
