//! The registry taken apart into records, for a snapshot, and put together again. What is derived is not in them.

use std::sync::Arc;

use super::{Changed, Kept, Kind, ObjectId, Presence, Record, Registry, Shadow, Shelf};
use crate::Secret;

/// A record as a snapshot has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Filed {
    pub oid: ObjectId,
    pub revision: u64,
    pub record: Record,
    /// Of a device; of nothing else.
    pub presence: Option<Presence>,
    /// Of a device that has one.
    pub shadow: Option<Arc<Shadow>>,
}

impl Registry {
    /// The last revision that was given.
    #[must_use]
    pub fn last_revision(&self) -> u64 {
        self.last
    }

    /// Everything, ascending by kind, and within a kind by age.
    pub fn records(&self) -> impl Iterator<Item = Filed> {
        fn of<T>(kept: &Kept<T>, record: impl Fn(Arc<T>) -> Record, presence: Option<&Presence>) -> Filed {
            let presence = presence.cloned();
            Filed {
                oid: kept.oid,
                revision: kept.revision,
                record: record(kept.record.clone()),
                presence,
                shadow: None,
            }
        }
        fn on<'a, T>(
            shelf: &'a Shelf<T>,
            record: impl Fn(Arc<T>) -> Record + Copy + 'a,
        ) -> impl Iterator<Item = Filed> + 'a {
            let sorted = std::iter::once_with(move || {
                let mut all: Vec<_> = shelf.values().collect();
                all.sort_unstable_by_key(|kept| kept.oid);
                all
            });
            sorted.flatten().map(move |kept| of(kept, record, None))
        }
        let devices = self.devices_by_age.values().filter_map(|device| self.device(&device.id));
        on(&self.apps, Record::App)
            .chain(on(&self.products, Record::Product))
            .chain(devices.map(|(device, presence)| {
                let shadow = self.shadows.get(&device.oid).cloned();
                Filed { shadow, ..of(device, Record::Device, Some(presence)) }
            }))
            .chain(on(&self.users, Record::User))
            .chain(on(&self.access_keys, Record::AccessKey))
            .chain(on(&self.access_codes, Record::AccessCode))
            .chain(on(&self.authorities, Record::Authority))
            .chain(on(&self.sensoro_apps, Record::SensoroApp))
            .chain(on(&self.rules, Record::Rule))
            .chain(on(&self.rule_actions, Record::RuleAction))
    }
}

/// A registry that is being put together. Takes what [`Registry::records`] gives, in that order.
#[derive(Debug, Default)]
pub struct Restoring {
    registry: Registry,
    before: Option<(Kind, ObjectId)>,
}

impl Restoring {
    #[must_use]
    pub fn new(key: Option<Secret>, last_revision: u64) -> Restoring {
        Restoring { registry: Registry::to_be_restored(key, last_revision), before: None }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// A field that cannot be, and why.
    pub fn add(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        let (kind, oid) = (filed.record.kind(), filed.oid);
        if self.before.replace((kind, oid)).is_some_and(|before| before >= (kind, oid)) {
            return Err(("oid", format!("{oid} is not in order")));
        }
        self.registry.restore(filed)
    }

    /// The registry.
    ///
    /// # Errors
    /// A record refers to one that has not come.
    pub fn finish(self) -> Result<Registry, (&'static str, String)> {
        if let Some((kind, id)) = self.registry.dangling() {
            return Err(("record", format!("{kind:?} {id} is missing")));
        }
        Ok(self.registry)
    }

    /// The registry as far as it has come: records may refer to others that are still to come.
    #[must_use]
    pub fn unfinished(self) -> Registry {
        self.registry
    }
}

impl Registry {
    /// A registry without records, for those that were filed up to a revision.
    #[must_use]
    pub fn to_be_restored(key: Option<Secret>, last_revision: u64) -> Registry {
        Registry { key, last: last_revision, ..Registry::default() }
    }

    /// Puts back one record of [`Registry::records`], in their order. What it refers to may come later.
    ///
    /// # Errors
    /// A field that cannot be, and why. Nothing has changed.
    pub fn restore(&mut self, filed: Filed) -> Result<(), (&'static str, String)> {
        let Filed { oid, revision, record, presence, shadow } = filed;
        let (kind, registry) = (record.kind(), self);
        if revision == 0 || revision > registry.last || oid.number() > revision {
            return Err(("revision", format!("is {revision}; the last one given was {}", registry.last)));
        }
        if registry.find(kind, record.id()).is_some() || registry.check(&record, None).is_err() {
            return Err(("record", format!("{:?} {} cannot be there too", kind, record.id())));
        }
        if presence.is_some() != (kind == Kind::Device) {
            return Err(("presence", "is there or not against the kind".to_owned()));
        }
        if shadow.as_ref().is_some_and(|shadow| {
            let ascending =
                shadow.services.windows(2).all(|pair| pair.first().map(|s| &s.id) < pair.last().map(|s| &s.id));
            kind != Kind::Device || !ascending || !shadow.fits()
        }) {
            return Err(("shadow", "is not of a device, or not as one may be".to_owned()));
        }
        if let Record::Device(device) = &record
            && let Some(slot) = registry.slot(&device.gateway_id)
        {
            registry.due.remove_mut(&slot); // a gateway waits for nobody
        }
        registry.refer(&record, true);
        registry.file(&record, Changed { revision, oid });
        registry.place(&record, oid, true);
        if let Some(shadow) = shadow {
            registry.shadows.insert_mut(oid, shadow);
        }
        let Record::Device(device) = &record else { return Ok(()) };
        let presence = presence.unwrap_or_default();
        if let Some(client_id) = presence.client_id.clone() {
            let taken =
                registry.clients.get(&device.product_id).is_some_and(|clients| clients.contains_key(&client_id));
            if taken || !presence.online {
                return Err(("presence", "has a client id that is not the device's".to_owned()));
            }
            registry.note_client(&device.product_id, client_id, oid);
        }
        if let Some((_, kept)) = registry.devices.get_mut(&*device.id) {
            *kept = presence;
        }
        if let Some(slot) = registry.slot(&device.id) {
            registry.due.insert_mut(slot, ());
        }
        Ok(())
    }
}
