//! Changes of records, and what is kept to check them.

use std::sync::Arc;

use super::{ById, Change, Changed, Device, Event, Expect, Kept, Kind, ObjectId, Record, Registry, Rejection, Shelf};

/// Sub-devices right behind one gateway: what its connection comes to is applied for all of them at once.
const SUB_DEVICES_MAX: u32 = 5_000;

/// Records of each kind; a change that would go above is rejected as [`Rejection::Full`].
pub const DEVICES_MAX: usize = 2_000_000;
pub const PRODUCTS_MAX: usize = 100_000;
/// Apps, users, access keys, access codes, authorities, Sensoro apps, rules, actions: of each.
pub const OTHERS_MAX: usize = 10_000;

/// What may refer to others.
const REFERRING: [Kind; 6] =
    [Kind::Product, Kind::Device, Kind::AccessKey, Kind::Authority, Kind::Rule, Kind::RuleAction];

impl Registry {
    /// Applies one change at a log time in milliseconds. What happened is appended to `events`.
    ///
    /// What a record refers to must be there (an app; a product; a gateway, a user where named; a rule), and what is referred to
    /// cannot be deleted. A device keeps its product and node id, a product its dialect, an app whether it is the default
    /// one, a rule its subject, an action its rule: another is a [`Rejection::Conflict`]. Ids of products are unique also where case does not count, as in host
    /// names; names of devices are unique within their product. Sub-devices are at most two levels below a device that
    /// connects itself, and a device that has sub-devices does not move to another gateway.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn apply(&mut self, change: &Change, now_ms: u64, events: &mut Vec<Event>) -> Result<Changed, Rejection> {
        match change {
            Change::Key(_) if self.key.is_some() => Err(Rejection::Exists),
            Change::Key(key) => {
                self.key = Some(key.clone());
                Ok(Changed { revision: self.last, oid: ObjectId::default() })
            }
            Change::Put { record, expect } => self.put(record, *expect, now_ms, events),
            Change::Shadow { device, change } => self.change_shadow(device, change, now_ms, events),
            Change::Tell { device, downlink } => {
                let top = self.connected_through(device).and_then(|top| self.device(top));
                let (kept, _) = self.device(device).ok_or(Rejection::Missing)?;
                if !top.is_some_and(|(_, presence)| presence.online) {
                    return Err(Rejection::Conflict);
                }
                events.push(Event::Told(Arc::clone(&kept.record), downlink.clone()));
                Ok(Changed { revision: kept.revision, oid: kept.oid })
            }
            Change::SubDevice { device, epoch, online } => self.sub_device(device, *epoch, *online, now_ms, events),
            Change::Delete { kind, id, expect } => self.delete(*kind, id, *expect, now_ms, events),
            Change::Disconnect { device } => {
                self.find(Kind::Device, device).map(|(changed, _)| changed).ok_or(Rejection::Missing)
            }
            Change::DisconnectApplication { access_key } => match self.access_code_by_key(access_key) {
                Some(_) => Err(Rejection::Conflict),
                None => Ok(Changed { revision: self.last, oid: ObjectId::default() }),
            },
        }
    }

    fn put(
        &mut self,
        record: &Record,
        expect: Expect,
        now_ms: u64,
        events: &mut Vec<Event>,
    ) -> Result<Changed, Rejection> {
        let (kind, before) = (record.kind(), self.find(record.kind(), record.id()));
        expected(expect, before.as_ref().map(|(changed, _)| changed.revision))?;
        let before = before.as_ref();
        self.check(record, before.map(|(_, record)| record))?;
        if let Some((missing, _)) = record.references().find(|(kind, id)| self.find(*kind, id).is_none()) {
            return Err(Rejection::Dangling(missing));
        }
        let joins = joined_gateway(before.map(|(_, record)| record), record);
        let crowded = joins.is_some_and(|gateway| self.uses(Kind::Device, gateway, Kind::Device) >= SUB_DEVICES_MAX);
        if crowded || (before.is_none() && self.count(kind) >= most(kind)) {
            return Err(Rejection::Full);
        }
        self.last += 1;
        let seconds = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let oid = before.map_or_else(|| ObjectId::new(seconds, self.last), |(changed, _)| changed.oid);
        let changed = Changed { revision: self.last, oid };
        let timed = timed(before.map(|(_, record)| record), Some(record));
        let leaves = before.is_some_and(|(_, before)| self.leaves_gateway(before, record));
        let idle = self.untime(&timed);
        if let Some((_, before)) = before {
            self.refer(before, false);
            self.place(before, oid, false);
        }
        self.refer(record, true);
        self.file(record, changed);
        self.place(record, oid, true);
        self.time(&timed, &idle, now_ms);
        if leaves {
            // The gateway that has said that it is there says nothing of it any more.
            self.gone(record.id(), now_ms, events);
        }
        if told(kind) {
            events.push(match before {
                Some(_) => Event::Updated(record.clone()),
                None => Event::Created(record.clone()),
            });
        }
        Ok(changed)
    }

    fn delete(
        &mut self,
        kind: Kind,
        id: &str,
        expect: Expect,
        now_ms: u64,
        events: &mut Vec<Event>,
    ) -> Result<Changed, Rejection> {
        let (changed, record) = self.find(kind, id).ok_or(Rejection::Missing)?;
        expected(expect, Some(changed.revision))?;
        if let Some(by) = REFERRING.into_iter().find(|by| self.uses(kind, id, *by) > 0) {
            return Err(Rejection::InUse(by));
        }
        if matches!(&record, Record::App(app) if app.default) {
            return Err(Rejection::InUse(Kind::App));
        }
        let timed = timed(Some(&record), None);
        let idle = self.untime(&timed);
        self.refer(&record, false);
        self.place(&record, changed.oid, false);
        self.unfile(&record, changed.oid);
        self.time(&timed, &idle, now_ms);
        if told(kind) {
            events.push(Event::Deleted(record));
        }
        Ok(changed)
    }

    /// What a record must satisfy beside that what it refers to is there.
    pub(super) fn check(&self, record: &Record, before: Option<&Record>) -> Result<(), Rejection> {
        let (conflict, exists) = (Err(Rejection::Conflict), Err(Rejection::Exists));
        match (record, before) {
            (Record::App(app), Some(Record::App(before))) if app.default != before.default => conflict,
            (Record::App(app), None) if app.default && self.default_app.is_some() => exists,
            (Record::Product(product), Some(Record::Product(before))) if product.dialect != before.dialect => conflict,
            (Record::Rule(rule), Some(Record::Rule(before))) if rule.subject != before.subject => conflict,
            (Record::RuleAction(action), Some(Record::RuleAction(before))) if action.rule_id != before.rule_id => {
                conflict
            }
            (Record::Product(product), None) if self.product_by_label(&product.id).is_some() => exists,
            (Record::Device(device), Some(Record::Device(before))) => {
                if device.product_id != before.product_id || device.node_id != before.node_id {
                    return conflict;
                }
                if device.gateway_id == before.gateway_id {
                    return Ok(());
                }
                if self.uses(Kind::Device, &device.id, Kind::Device) > 0 {
                    return Err(Rejection::InUse(Kind::Device));
                }
                self.check_gateway(device)
            }
            (Record::Device(device), _) => {
                if self.device_of(&device.product_id, &device.node_id).is_some() {
                    return exists;
                }
                self.check_gateway(device)
            }
            _ => Ok(()),
        }
    }

    /// Whether its gateway, if it has one, may have sub-devices.
    fn check_gateway(&self, device: &Device) -> Result<(), Rejection> {
        let above = |id: &str| self.device(id).map(|(device, _)| &*device.record.gateway_id);
        let deep = above(&device.gateway_id).and_then(above).is_some_and(|third| !third.is_empty());
        if deep || device.gateway_id == device.id && !device.id.is_empty() {
            return Err(Rejection::Dangling(Kind::Device));
        }
        Ok(())
    }

    pub(super) fn find(&self, kind: Kind, id: &str) -> Option<(Changed, Record)> {
        fn on<T>(shelf: &Shelf<T>, id: &str, record: impl Fn(Arc<T>) -> Record) -> Option<(Changed, Record)> {
            shelf.get(id).map(|kept| of(kept, record))
        }
        fn of<T>(kept: &Kept<T>, record: impl Fn(Arc<T>) -> Record) -> (Changed, Record) {
            (Changed { revision: kept.revision, oid: kept.oid }, record(Arc::clone(&kept.record)))
        }
        match kind {
            Kind::App => on(&self.apps, id, Record::App),
            Kind::Product => on(&self.products, id, Record::Product),
            Kind::Device => self.devices.get(id).map(|(kept, _)| of(kept, Record::Device)),
            Kind::User => on(&self.users, id, Record::User),
            Kind::AccessKey => on(&self.access_keys, id, Record::AccessKey),
            Kind::AccessCode => on(&self.access_codes, id, Record::AccessCode),
            Kind::Authority => on(&self.authorities, id, Record::Authority),
            Kind::SensoroApp => on(&self.sensoro_apps, id, Record::SensoroApp),
            Kind::Rule => on(&self.rules, id, Record::Rule),
            Kind::RuleAction => on(&self.rule_actions, id, Record::RuleAction),
        }
    }

    fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::App => self.apps.size(),
            Kind::Product => self.products.size(),
            Kind::Device => self.devices.size(),
            Kind::User => self.users.size(),
            Kind::AccessKey => self.access_keys.size(),
            Kind::AccessCode => self.access_codes.size(),
            Kind::Authority => self.authorities.size(),
            Kind::SensoroApp => self.sensoro_apps.size(),
            Kind::Rule => self.rules.size(),
            Kind::RuleAction => self.rule_actions.size(),
        }
    }

    /// Puts a record where it belongs, and into the indexes of its kind.
    pub(super) fn file(&mut self, record: &Record, changed: Changed) {
        fn on<T>(shelf: &mut Shelf<T>, id: &str, record: &Arc<T>, Changed { revision, oid }: Changed) {
            shelf.insert_mut(id.into(), Kept { oid, revision, record: Arc::clone(record) });
        }
        let id = record.id();
        match record {
            Record::App(app) => {
                if app.default {
                    self.default_app = Some(app.id.clone());
                }
                on(&mut self.apps, id, app, changed);
            }
            Record::Product(product) => {
                self.labels.insert_mut(id.to_ascii_lowercase().into(), id.into());
                on(&mut self.products, id, product, changed);
            }
            Record::Device(device) => {
                let presence = self.devices.get(id).map(|(_, presence)| presence.clone()).unwrap_or_default();
                let Changed { revision, oid } = changed;
                let kept = Kept { oid, revision, record: Arc::clone(device) };
                self.devices.insert_mut(ById(Arc::clone(device)), (kept, presence));
                self.devices_by_age.insert_mut(oid, Arc::clone(device));
                if !says_its_name(device) {
                    self.named_otherwise.insert_mut((device.product_id.clone(), device.node_id.clone()), id.into());
                }
            }
            Record::User(user) => on(&mut self.users, id, user, changed),
            Record::AccessKey(key) => on(&mut self.access_keys, id, key, changed),
            Record::AccessCode(code) => on(&mut self.access_codes, id, code, changed),
            Record::Authority(authority) => on(&mut self.authorities, id, authority, changed),
            Record::SensoroApp(app) => on(&mut self.sensoro_apps, id, app, changed),
            Record::Rule(rule) => on(&mut self.rules, id, rule, changed),
            Record::RuleAction(action) => {
                if let Some(before) = self.rule_actions.get(id).map(|kept| kept.record.clone()) {
                    self.note_push_topic(&before, false);
                }
                self.note_push_topic(action, true);
                on(&mut self.rule_actions, id, action, changed);
            }
        }
    }

    fn unfile(&mut self, record: &Record, oid: ObjectId) {
        let id = record.id();
        match record {
            Record::App(_) => self.apps.remove_mut(id),
            Record::Product(_) => {
                self.labels.remove_mut(id.to_ascii_lowercase().as_str());
                self.products.remove_mut(id)
            }
            Record::Device(device) => {
                self.forget_client(id);
                self.devices_by_age.remove_mut(&oid);
                self.shadows.remove_mut(&oid);
                if !says_its_name(device) {
                    self.named_otherwise.remove_mut(&(device.product_id.clone(), device.node_id.clone()));
                }
                self.devices.remove_mut(id)
            }
            Record::User(_) => self.users.remove_mut(id),
            Record::AccessKey(_) => self.access_keys.remove_mut(id),
            Record::AccessCode(_) => self.access_codes.remove_mut(id),
            Record::Authority(_) => self.authorities.remove_mut(id),
            Record::SensoroApp(_) => self.sensoro_apps.remove_mut(id),
            Record::Rule(_) => self.rules.remove_mut(id),
            Record::RuleAction(action) => {
                self.note_push_topic(action, false);
                self.rule_actions.remove_mut(id)
            }
        };
    }

    /// Counts what a record refers to, or counts it no more.
    pub(super) fn refer(&mut self, record: &Record, more: bool) {
        for (kind, id) in record.references() {
            let key = (kind, id.into(), record.kind());
            let count = self.uses.get(&key).copied().unwrap_or(0);
            let count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            if count > 0 {
                self.uses.insert_mut(key, count);
            } else {
                self.uses.remove_mut(&key);
            }
        }
    }

    /// Whether a device changes its gateway, and is there by what the old one says.
    fn leaves_gateway(&self, before: &Record, after: &Record) -> bool {
        let (Record::Device(before), Record::Device(after)) = (before, after) else { return false };
        let epoch = |id: &str| self.device(id).map(|(_, presence)| presence.epoch);
        before.gateway_id != after.gateway_id
            && !before.gateway_id.is_empty()
            && self.connected_through(&before.id).and_then(epoch) == epoch(&before.id)
    }

    /// Notes behind which gateway a device is, or that it is there no more.
    pub(super) fn place(&mut self, record: &Record, oid: ObjectId, there: bool) {
        let Record::Device(device) = record else { return };
        if device.gateway_id.is_empty() {
            return;
        }
        let mut below = self.below.get(&device.gateway_id).cloned().unwrap_or_default();
        if there {
            below.insert_mut(oid, ());
        } else {
            below.remove_mut(&oid);
        }
        if below.is_empty() {
            self.below.remove_mut(&device.gateway_id);
        } else {
            self.below.insert_mut(device.gateway_id.clone(), below);
        }
    }

    /// The first kind of which something is referred to that is not there.
    pub(super) fn dangling(&self) -> Option<(Kind, &str)> {
        let missing = self.uses.keys().filter(|(kind, id, _)| self.find(*kind, id).is_none());
        missing.map(|(kind, id, _)| (*kind, &**id)).min()
    }

    /// Gives those that were there and had no time to connect by.
    fn untime(&mut self, devices: &[Box<str>]) -> Vec<Box<str>> {
        let mut idle = Vec::new();
        for id in devices {
            if let Some(slot) = self.slot(id) {
                self.due.remove_mut(&slot);
            } else if self.devices.contains_key(&**id) {
                idle.push(id.clone());
            }
        }
        idle
    }

    /// The time of those that had none until now, `idle`, begins now: they may have been there for long.
    fn time(&mut self, devices: &[Box<str>], idle: &[Box<str>], now_ms: u64) {
        for id in devices {
            if idle.contains(id)
                && self.slot(id).is_some()
                && let Some((_, presence)) = self.devices.get_mut(&**id)
            {
                presence.changed_ms = now_ms;
            }
            if let Some(slot) = self.slot(id) {
                self.due.insert_mut(slot, ());
            }
        }
    }
}

/// Devices whose time to connect may change with a record: its own, and that of its gateways.
fn timed(before: Option<&Record>, after: Option<&Record>) -> Vec<Box<str>> {
    let devices = before.into_iter().chain(after).filter_map(|record| match record {
        Record::Device(device) => Some([device.id.clone(), device.gateway_id.clone()]),
        _ => None,
    });
    devices.flatten().filter(|id| !id.is_empty()).collect()
}

/// Whether others on this node are told what becomes of records of a kind.
fn told(kind: Kind) -> bool {
    matches!(kind, Kind::App | Kind::Product | Kind::Device | Kind::Rule | Kind::RuleAction)
}

fn expected(expect: Expect, revision: Option<u64>) -> Result<(), Rejection> {
    match (expect, revision) {
        (Expect::Absent, Some(_)) => Err(Rejection::Exists),
        (Expect::Revision(_), None) => Err(Rejection::Missing),
        (Expect::Revision(wanted), Some(revision)) if wanted != revision => Err(Rejection::Conflict),
        _ => Ok(()),
    }
}

fn most(kind: Kind) -> usize {
    match kind {
        Kind::Device => DEVICES_MAX,
        Kind::Product => PRODUCTS_MAX,
        _ => OTHERS_MAX,
    }
}

/// Whether the id is `{product_id}_{node_id}`.
fn says_its_name(device: &Device) -> bool {
    let rest = device.id.strip_prefix(&*device.product_id).and_then(|rest| rest.strip_prefix('_'));
    rest == Some(&*device.node_id)
}

/// The gateway that a device comes behind by a change.
fn joined_gateway<'a>(before: Option<&Record>, record: &'a Record) -> Option<&'a str> {
    let gateway = |record: &'a Record| match record {
        Record::Device(device) if !device.gateway_id.is_empty() => Some(&*device.gateway_id),
        _ => None,
    };
    let stays = matches!((before, record), (Some(Record::Device(before)), Record::Device(now)) if before.gateway_id == now.gateway_id);
    gateway(record).filter(|_| !stays)
}
