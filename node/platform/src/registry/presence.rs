//! Who is connected, and who should have been by now.

use std::sync::Arc;

use super::{Change, Changed, Event, Expect, Kind, ObjectId, Registry, Rejection, Status};
use crate::Dialect;

impl Registry {
    /// Notes that the device's session was claimed. Gives the id of another device of the same product that is connected
    /// with the same client id, if one was named; that one has lost its claim to it.
    pub fn connected(
        &mut self,
        device: &str,
        epoch: u64,
        now_ms: u64,
        client_id: Option<&str>,
        events: &mut Vec<Event>,
    ) -> Option<Box<str>> {
        let record = Arc::clone(&self.devices.get(device)?.0.record);
        let dialect = self.dialect_of(&record)?;
        if let Some(slot) = self.slot(device) {
            self.due.remove_mut(&slot);
        }
        self.forget_client(device);
        let other = client_id.and_then(|client_id| {
            let oid = self.clients.get(&record.product_id)?.get(client_id)?;
            Some(self.devices_by_age.get(oid)?.id.clone())
        });
        if let Some(other) = &other {
            self.forget_client(other);
        }
        let before = self.device(device).map_or(0, |(_, presence)| presence.epoch);
        self.subs_gone(device, before, now_ms, events);
        let client_id = client_id.map(Arc::from);
        let (kept, presence) = self.devices.get_mut(device)?;
        if presence.active_ms == 0 {
            // Whoever thought that it had never connected must look again.
            self.last += 1;
            kept.revision = self.last;
            presence.active_ms = now_ms.max(1);
        }
        (presence.changed_ms, presence.epoch, presence.online) = (now_ms, epoch, true);
        presence.client_id.clone_from(&client_id);
        let oid = kept.oid;
        if let Some(client_id) = client_id {
            self.note_client(&record.product_id, client_id, oid);
        }
        events.push(Event::Status(Status { device: record, dialect, online: true, epoch, at_ms: now_ms }));
        other
    }

    /// Notes that the connection of that epoch has ended; nothing if there was a newer one.
    pub fn disconnected(&mut self, device: &str, epoch: u64, at_ms: u64, events: &mut Vec<Event>) {
        let current = |(_, presence): &&(_, super::Presence)| presence.online && presence.epoch == epoch;
        let Some((kept, _)) = self.devices.get(device).filter(current) else {
            return;
        };
        let record = Arc::clone(&kept.record);
        self.forget_client(device);
        if let Some((_, presence)) = self.devices.get_mut(device) {
            (presence.changed_ms, presence.online) = (at_ms, false);
        }
        if let Some(dialect) = self.dialect_of(&record) {
            events.push(Event::Status(Status { device: record, dialect, online: false, epoch, at_ms }));
        }
        self.subs_gone(device, epoch, at_ms, events);
    }

    /// What a gateway says of a sub-device. Nothing happens if it was so before.
    pub(super) fn sub_device(
        &mut self,
        device: &str,
        epoch: u64,
        online: bool,
        now_ms: u64,
        events: &mut Vec<Event>,
    ) -> Result<Changed, Rejection> {
        let (kept, presence) = self.device(device).ok_or(Rejection::Missing)?;
        let changed = Changed { revision: kept.revision, oid: kept.oid };
        let gateway = self.connected_through(device).filter(|top| *top != device);
        let gateway = gateway.ok_or(Rejection::Dangling(Kind::Device))?;
        let by = self.device(gateway).map(|(_, presence)| (presence.online, presence.epoch));
        if by != Some((true, epoch)) || kept.record.frozen {
            return Err(Rejection::Conflict);
        }
        let by_it = presence.online && presence.epoch == epoch;
        if by_it == online {
            return Ok(changed);
        }
        if !online {
            self.gone(device, now_ms, events);
            return Ok(changed);
        }
        let record = Arc::clone(&kept.record);
        if let Some((kept, presence)) = self.devices.get_mut(device) {
            if presence.active_ms == 0 {
                self.last += 1;
                kept.revision = self.last;
                presence.active_ms = now_ms.max(1);
            }
            (presence.changed_ms, presence.epoch, presence.online) = (now_ms, epoch, true);
        }
        if let Some(dialect) = self.dialect_of(&record) {
            let device = Arc::clone(&record);
            events.push(Event::Status(Status { device, dialect, online: true, epoch, at_ms: now_ms }));
        }
        if self.shadow(device).is_some_and(|shadow| shadow.differs()) {
            events.push(Event::Desired(record));
        }
        Ok(changed)
    }

    /// A sub-device that was there is not.
    pub(super) fn gone(&mut self, device: &str, at_ms: u64, events: &mut Vec<Event>) {
        let Some((kept, presence)) = self.devices.get(device).filter(|(_, presence)| presence.online) else { return };
        let (record, epoch) = (Arc::clone(&kept.record), presence.epoch);
        if let Some((_, presence)) = self.devices.get_mut(device) {
            (presence.changed_ms, presence.online) = (at_ms, false);
        }
        if let Some(dialect) = self.dialect_of(&record) {
            events.push(Event::Status(Status { device: record, dialect, online: false, epoch, at_ms }));
        }
    }

    /// With a gateway's connection go those that it has said to be there, at most two levels behind it.
    fn subs_gone(&mut self, gateway: &str, epoch: u64, at_ms: u64, events: &mut Vec<Event>) {
        if !self.below.contains_key(gateway) {
            return;
        }
        let behind = |id: &str| -> Vec<(Box<str>, bool)> {
            let by_it = |presence: &super::Presence| presence.online && presence.epoch == epoch;
            self.sub_devices(id).map(|(kept, presence)| (kept.record.id.clone(), by_it(presence))).collect()
        };
        let mut all = behind(gateway);
        let deeper: Vec<_> = all.iter().flat_map(|(id, _)| behind(id)).collect();
        all.extend(deeper);
        for (id, _) in all.iter().filter(|(_, by_it)| *by_it) {
            self.gone(id, at_ms, events);
        }
    }

    /// Revision of the record that says who may hold the session of this identity, if one does: the device, or the
    /// application of Sensoro's.
    #[must_use]
    pub fn judged_by(&self, dialect: Dialect, identity: &str) -> Option<u64> {
        match dialect {
            Dialect::Sensoro => {
                let app = identity.split('/').next().unwrap_or_default();
                self.sensoro_app(app).map(|app| app.revision)
            }
            Dialect::Application => {
                let key = identity.split('/').next().unwrap_or_default();
                self.access_code_by_key(key).map(|code| code.revision)
            }
            _ if dialect.has_devices() => self.device(identity).map(|(device, _)| device.revision),
            _ => None,
        }
    }

    pub(super) fn note_client(&mut self, product: &str, client_id: Arc<str>, oid: ObjectId) {
        match self.clients.get_mut(product) {
            Some(clients) => clients.insert_mut(client_id, oid),
            None => {
                let clients = rpds::HashTrieMapSync::new_sync().insert(client_id, oid);
                self.clients.insert_mut(product.into(), clients);
            }
        }
    }

    /// The device has no exclusive client id any more.
    pub(super) fn forget_client(&mut self, device: &str) {
        let Some((kept, presence)) = self.devices.get(device) else { return };
        let (Some(client_id), product) = (presence.client_id.clone(), kept.record.product_id.clone()) else { return };
        if let Some((_, presence)) = self.devices.get_mut(device) {
            presence.client_id = None;
        }
        if let Some(clients) = self.clients.get_mut(&product) {
            clients.remove_mut(&client_id);
            if clients.is_empty() {
                self.clients.remove_mut(&product);
            }
        }
    }

    /// By when the device must have connected, in milliseconds: if it never has, is not reached through a gateway, and is
    /// none itself. Counted from its creation, or from when it left its gateway.
    pub(super) fn slot(&self, device: &str) -> Option<(u64, ObjectId)> {
        let (kept, presence) = self.devices.get(device)?;
        let timeout_s = u64::from(kept.record.auth.timeout_s);
        let waits = timeout_s > 0 && presence.active_ms == 0 && kept.record.gateway_id.is_empty();
        let waits = waits && self.uses(Kind::Device, device, Kind::Device) == 0;
        let since_ms = (u64::from(kept.oid.seconds()) * 1000).max(presence.changed_ms);
        waits.then(|| (since_ms.saturating_add(timeout_s * 1000), kept.oid))
    }

    /// Deletes of devices that should have connected by now and never have: at most so many. Each does nothing if the
    /// device has connected or was changed meanwhile. Until they are applied the same ones are due.
    #[must_use]
    pub fn due(&self, now_ms: u64, most: usize) -> Vec<Change> {
        let due = self.due.keys().take_while(|(at, _)| *at <= now_ms).take(most);
        let late = due.filter_map(|(_, oid)| self.device_by_oid(*oid));
        late.map(|(device, _)| Change::Delete {
            kind: Kind::Device,
            id: device.record.id.clone(),
            expect: Expect::Revision(device.revision),
        })
        .collect()
    }

    /// When [`Registry::due`] next has something to say.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|((at, _), ())| *at)
    }
}
