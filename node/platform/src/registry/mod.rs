//! Resource spaces, products, devices, users and credentials, as one deterministic part of the replicated state: in
//! persistent maps, so that a clone is O(1). A device is found in O(log64 n) steps: four for a million.
//!
//! What can be derived (who refers to whom, labels, client ids, what is due) is kept beside the records and made anew at
//! a restore.

mod apply;
mod change;
mod image;
mod model;
mod presence;
mod push;
mod shadow;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub use apply::{DEVICES_MAX, OTHERS_MAX, PRODUCTS_MAX};
pub use change::{Change, Changed, Event, Expect, Kind, Record, Rejection, Status};
pub use image::{Filed, Restoring};
pub use model::{
    AccessCode, AccessKey, App, Auth, AuthKind, Authority, Channel, Device, Endpoint, Guarantee, Product, Registration,
    Role, Rule, RuleAction, SensoroApp, TopicAccess, TopicClass, User,
};
pub use push::PushTopics;

pub use shadow::{
    Patch, SHADOW_BYTES_MAX, SHADOW_DEPTH_MAX, SHADOW_SERVICE, SHADOW_SERVICE_BYTES_MAX, SHADOW_SERVICES_MAX, Section,
    Shadow, ShadowChange, ShadowPart, ShadowService, Versioning, is_shallow,
};

use crate::{Dialect, Secret};

/// A place in the order of creation, and an id to page by: seconds since 1970 and a number that only grows.
/// Shown as 24 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub [u8; 12]);

impl ObjectId {
    #[must_use]
    pub fn new(seconds: u32, number: u64) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        ObjectId(bytes)
    }

    /// Log time of creation, in seconds since 1970.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The number that only grows.
    #[must_use]
    pub fn number(&self) -> u64 {
        let [_, _, _, _, number @ ..] = self.0;
        u64::from_be_bytes(number)
    }

    /// `None` if it is not 24 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<ObjectId> {
        let mut bytes = [0; 12];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| ObjectId(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A record with what the registry adds to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept<T> {
    pub oid: ObjectId,
    /// Grows with each change of the record, and when a device connects for the first time. No two records, nor two of one
    /// id one after the other, have the same.
    pub revision: u64,
    pub record: Arc<T>,
}

/// What a device's connections leave behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presence {
    /// When it first connected; 0: never.
    pub active_ms: u64,
    /// When it last came or went; of one that has never connected, when its time to do so began, if not with its creation.
    pub changed_ms: u64,
    /// Of its last connection; of a sub-device, that of the connection by which its gateway last said so.
    pub epoch: u64,
    pub online: bool,
    /// The client id that it is connected with, where another device with the same one pushes it out (Aliyun).
    pub client_id: Option<Arc<str>>,
}

/// Records of one kind, by id.
pub(crate) type Shelf<T> = HashTrieMapSync<Box<str>, Kept<T>>;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Registry {
    key: Option<Secret>,
    /// The last revision that was given.
    last: u64,
    apps: Shelf<App>,
    products: Shelf<Product>,
    devices: HashTrieMapSync<ById, (Kept<Device>, Presence)>,
    users: Shelf<User>,
    access_keys: Shelf<AccessKey>,
    access_codes: Shelf<AccessCode>,
    authorities: Shelf<Authority>,
    sensoro_apps: Shelf<SensoroApp>,
    rules: Shelf<Rule>,
    rule_actions: Shelf<RuleAction>,
    /// By the id of the device, which another device of its name will not have. Devices without one cost nothing.
    shadows: HashTrieMapSync<ObjectId, Arc<Shadow>>,

    // Derived.
    default_app: Option<Box<str>>,
    /// How many records of the last kind refer to this one.
    uses: HashTrieMapSync<(Kind, Box<str>, Kind), u32>,
    /// Sub-devices by the device that they are directly behind.
    below: HashTrieMapSync<Box<str>, RedBlackTreeMapSync<ObjectId, ()>>,
    /// Ids of products in lower case, and as they are.
    labels: HashTrieMapSync<Box<str>, Box<str>>,
    devices_by_age: RedBlackTreeMapSync<ObjectId, Arc<Device>>,
    /// Devices whose id does not say product and node id, by these.
    named_otherwise: HashTrieMapSync<(Box<str>, Box<str>), Box<str>>,
    /// Connected devices with an exclusive client id: product, client id.
    clients: HashTrieMapSync<Box<str>, HashTrieMapSync<Arc<str>, ObjectId>>,
    push_topics: PushTopics,
    /// Devices that have not connected yet and must, by when: milliseconds.
    due: RedBlackTreeMapSync<(u64, ObjectId), ()>,
}

/// A device as the key of itself: there may be a million ids, each is stored once.
#[derive(Debug, Clone)]
struct ById(Arc<Device>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0.id).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &ById) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl Registry {
    /// Whether a session of this device may be claimed: it is there, and not frozen.
    #[must_use]
    pub fn admits(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|(device, _)| !device.record.frozen)
    }

    // -- what others may ask

    /// The secret that tokens are computed with; `None` until the cluster has begun.
    #[must_use]
    pub fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    #[must_use]
    pub fn app(&self, id: &str) -> Option<&Kept<App>> {
        self.apps.get(id)
    }

    /// The app that is meant where none is named; `None` until the cluster has begun.
    #[must_use]
    pub fn default_app(&self) -> Option<&Kept<App>> {
        self.app(self.default_app.as_deref()?)
    }

    #[must_use]
    pub fn product(&self, id: &str) -> Option<&Kept<Product>> {
        self.products.get(id)
    }

    /// All products and applications of Sensoro's as they are now, in O(1).
    pub(crate) fn catalogue(&self) -> (Shelf<Product>, Shelf<SensoroApp>) {
        (self.products.clone(), self.sensoro_apps.clone())
    }

    /// The product that a host name's first label means: names of hosts know no case.
    #[must_use]
    pub fn product_by_label(&self, label: &str) -> Option<&Kept<Product>> {
        self.product(self.labels.get(label.to_ascii_lowercase().as_str())?)
    }

    #[must_use]
    pub fn device(&self, id: &str) -> Option<(&Kept<Device>, &Presence)> {
        self.devices.get(id).map(|(device, presence)| (device, presence))
    }

    /// The device of this name of a product, in whatever dialect. There is at most one.
    #[must_use]
    pub fn device_of(&self, product: &str, node_id: &str) -> Option<(&Kept<Device>, &Presence)> {
        let is_it = |(device, _): &(&Kept<Device>, _)| {
            *device.record.product_id == *product && *device.record.node_id == *node_id
        };
        self.device(&format!("{product}_{node_id}")).filter(is_it).or_else(|| {
            let id = self.named_otherwise.get(&(product.into(), node_id.into()))?;
            self.device(id)
        })
    }

    #[must_use]
    pub fn device_by_oid(&self, oid: ObjectId) -> Option<(&Kept<Device>, &Presence)> {
        self.devices_by_age.get(&oid).and_then(|device| self.device(&device.id))
    }

    /// The device whose connection a device is reached by: itself, or the gateway at the top of a sub-device. `None`:
    /// there is no such device.
    #[must_use]
    pub fn connected_through<'a>(&'a self, id: &str) -> Option<&'a str> {
        let mut device = &self.device(id)?.0.record;
        while !device.gateway_id.is_empty() {
            device = &self.device(&device.gateway_id)?.0.record;
        }
        Some(&device.id)
    }

    /// The devices directly behind a gateway, newest first, in as much time as there are.
    pub fn sub_devices(&self, gateway: &str) -> impl Iterator<Item = (&Kept<Device>, &Presence)> {
        let below = self.below.get(gateway).into_iter().flat_map(|below| below.keys().rev());
        below.filter_map(|oid| self.device_by_oid(*oid))
    }

    #[must_use]
    pub fn user(&self, name: &str) -> Option<&Kept<User>> {
        self.users.get(name)
    }

    #[must_use]
    pub fn access_key(&self, ak: &str) -> Option<&Kept<AccessKey>> {
        self.access_keys.get(ak)
    }

    /// `kind`: `MQTT` or `AMQP`.
    #[must_use]
    pub fn access_code(&self, kind: &str) -> Option<&Kept<AccessCode>> {
        self.access_codes.get(kind)
    }

    /// The access code that an application names by its access key.
    #[must_use]
    pub fn access_code_by_key(&self, access_key: &str) -> Option<&Kept<AccessCode>> {
        let mut codes: Vec<_> =
            self.access_codes.values().filter(|code| *code.record.access_key == *access_key).collect();
        codes.sort_unstable_by_key(|code| code.oid);
        codes.into_iter().next()
    }

    #[must_use]
    pub fn authority(&self, id: &str) -> Option<&Kept<Authority>> {
        self.authorities.get(id)
    }

    #[must_use]
    pub fn sensoro_app(&self, id: &str) -> Option<&Kept<SensoroApp>> {
        self.sensoro_apps.get(id)
    }

    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&Kept<Rule>> {
        self.rules.get(id)
    }

    #[must_use]
    pub fn rule_action(&self, id: &str) -> Option<&Kept<RuleAction>> {
        self.rule_actions.get(id)
    }

    /// The dialect of a device, by its product.
    #[must_use]
    pub fn dialect_of(&self, device: &Device) -> Option<Dialect> {
        self.product(&device.product_id).map(|product| product.record.dialect)
    }

    // All of a kind, in no particular order; devices newest first.

    pub fn apps(&self) -> impl Iterator<Item = &Kept<App>> {
        self.apps.values()
    }

    pub fn products(&self) -> impl Iterator<Item = &Kept<Product>> {
        self.products.values()
    }

    pub fn users(&self) -> impl Iterator<Item = &Kept<User>> {
        self.users.values()
    }

    pub fn access_keys(&self) -> impl Iterator<Item = &Kept<AccessKey>> {
        self.access_keys.values()
    }

    pub fn authorities(&self) -> impl Iterator<Item = &Kept<Authority>> {
        self.authorities.values()
    }

    pub fn sensoro_apps(&self) -> impl Iterator<Item = &Kept<SensoroApp>> {
        self.sensoro_apps.values()
    }

    pub fn rules(&self) -> impl Iterator<Item = &Kept<Rule>> {
        self.rules.values()
    }

    pub fn rule_actions(&self) -> impl Iterator<Item = &Kept<RuleAction>> {
        self.rule_actions.values()
    }

    /// How many records of the kind `by` refer to this one: products, devices and rules to an app; actions to a rule; devices and authorities to a
    /// product; sub-devices to a gateway (both are [`Kind::Device`]); access keys to a user. In O(1).
    #[must_use]
    pub fn uses(&self, kind: Kind, id: &str, by: Kind) -> u32 {
        self.uses.get(&(kind, id.into(), by)).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn device_count(&self) -> usize {
        self.devices.size()
    }

    /// Devices that were created before `before`, newest first; all of them without it.
    pub fn devices(&self, before: Option<ObjectId>) -> impl Iterator<Item = (&Kept<Device>, &Presence)> {
        self.devices_where(before, |_| true)
    }

    /// Of [`Registry::devices`] those that `wanted` says. Looking for few among many, it takes a fraction of the time of
    /// filtering afterwards.
    pub fn devices_where(
        &self,
        before: Option<ObjectId>,
        wanted: impl Fn(&Device) -> bool,
    ) -> impl Iterator<Item = (&Kept<Device>, &Presence)> {
        let end = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.devices_by_age.range((std::ops::Bound::Unbounded, end));
        range.rev().filter(move |(_, device)| wanted(device)).filter_map(|(_, device)| self.device(&device.id))
    }
}
