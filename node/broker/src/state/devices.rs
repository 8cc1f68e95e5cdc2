//! Devices as the state sees them: their sessions say who is online, and what becomes of a device reaches its session.

use fulmar_mqtt::ReasonCode;
use fulmar_platform::registry::{Change, Event, Kind, Record, Registry};
use fulmar_platform::{Dialect, TENANT};

use super::command::{Effect, News, Outcome, Owner};
use super::{Dropped, Out, State};
use crate::key::{Epoch, LogTime, SessionKey};

/// Sessions of connections that only register a device, and are none.
const REGISTERING: &str = "register/";

/// The dialect and the id of the device whose session it is; `None` if it is not one of a device.
fn device_of(key: &SessionKey) -> Option<(Dialect, &str)> {
    let dialect = Dialect::parse(key.dialect()).filter(|dialect| dialect.has_devices())?;
    let is_device = key.tenant() == TENANT && !key.identity().starts_with(REGISTERING);
    is_device.then(|| (dialect, key.identity()))
}

/// Revision of the record of a registry that lets clients of this session in, if one does.
#[must_use]
pub fn judged_by(registry: &Registry, key: &SessionKey) -> Option<u64> {
    registry.judged_by(Dialect::parse(key.dialect())?, key.identity()).filter(|_| key.tenant() == TENANT)
}

impl State {
    /// Whether a session may be claimed, as far as the registry is concerned.
    pub(super) fn device_admitted(&self, key: &SessionKey) -> Result<(), ReasonCode> {
        let Some((dialect, id)) = device_of(key) else { return Ok(()) };
        let registry = &self.kept.registry;
        let of_dialect =
            registry.device(id).and_then(|(device, _)| registry.dialect_of(&device.record)) == Some(dialect);
        if of_dialect && registry.admits(id) { Ok(()) } else { Err(ReasonCode::NotAuthorized) }
    }

    pub(super) fn device_claimed(
        &mut self,
        key: &SessionKey,
        epoch: Epoch,
        client_id: Option<&str>,
        out: &mut Out<'_>,
    ) {
        let Some((dialect, id)) = device_of(key) else { return };
        let (mut events, now) = (Vec::new(), self.kept.now);
        let other = self.kept.registry.connected(id, epoch.0, now.0, client_id, &mut events);
        out.effects.extend(events.into_iter().map(Effect::Registry));
        if let Some(other) = other {
            let key = SessionKey::new(TENANT, dialect.as_str(), &other);
            self.cut(&key, ReasonCode::AdministrativeAction, out);
        }
    }

    pub(super) fn device_let_go(&mut self, key: &SessionKey, epoch: Epoch, at: LogTime, out: &mut Out<'_>) {
        let Some((_, id)) = device_of(key) else { return };
        let mut events = Vec::new();
        self.kept.registry.disconnected(id, epoch.0, at.0, &mut events);
        out.effects.extend(events.into_iter().map(Effect::Registry));
    }

    pub(super) fn change_registry(&mut self, change: &Change, out: &mut Out<'_>) -> Outcome {
        let cut = self.to_be_cut(change);
        let mut events = Vec::new();
        let changed = self.kept.registry.apply(change, self.kept.now.0, &mut events);
        for event in events {
            self.tell_owner(event, out);
        }
        if let (Ok(_), Some((key, reason))) = (&changed, cut) {
            match change {
                Change::Delete { .. } => self.revoke_session(&key, reason, out),
                _ => self.cut(&key, reason, out),
            }
        }
        match (&changed, change) {
            (Ok(_), Change::Delete { kind: Kind::Device, id, .. }) => self.kept.plane.device_deleted(id),
            (Ok(_), Change::Put { record: Record::Device(device), .. }) => {
                self.kept.plane.device_put(&device.id, &self.kept.registry);
            }
            (Ok(_), Change::DisconnectApplication { access_key }) => self.cut_application(access_key, out),
            _ => {}
        }
        if let (Ok(_), Change::Delete { kind: Kind::RuleAction, id, .. }) = (&changed, change) {
            let mut events = Vec::new();
            self.kept.plane.action_deleted(id, &mut events);
            out.effects.extend(events.into_iter().map(Effect::Plane));
        }
        Outcome::Registry(changed)
    }

    /// What happened is told to all, or to the session that it is for.
    fn tell_owner(&self, event: Event, out: &mut Out<'_>) {
        let (device, news) = match event {
            Event::Desired(device) => (device.id.clone(), News::Desired(device)),
            Event::Told(device, downlink) => (device.id.clone(), News::Downlink(downlink)),
            event => {
                let behind = match &event {
                    Event::Created(Record::Device(device)) => Some((device.clone(), true)),
                    Event::Deleted(Record::Device(device)) => Some((device.clone(), false)),
                    _ => None,
                };
                out.effects.push(Effect::Registry(event));
                match behind.filter(|(device, _)| !device.gateway_id.is_empty()) {
                    Some((device, added)) => (device.gateway_id.clone(), News::SubDevice { device, added }),
                    None => return,
                }
            }
        };
        let key = self.kept.registry.connected_through(&device).and_then(|top| self.session_of_device(top));
        if let (Some(key), Some(owner)) = (key, self.device_owner(&device)) {
            out.effects.push(Effect::News { key: self.stored_key(&key), owner, news });
        }
    }

    /// Ends a session to which nobody has a right any more, with its connection if it has one.
    pub(super) fn revoke_session(&mut self, key: &SessionKey, reason: ReasonCode, out: &mut Out<'_>) {
        self.cut(key, reason, out);
        self.let_go_of_fallen(key, out);
        let receives = !self.subscriptions(key).is_empty();
        self.end_session(key, Dropped::SessionDiscarded, out);
        if receives {
            self.routes_changed();
        }
    }

    /// The session whose connection has no right to go on after a change, and why.
    fn to_be_cut(&self, change: &Change) -> Option<(SessionKey, ReasonCode)> {
        let (id, reason) = match change {
            Change::Put { record: Record::Device(device), .. } => {
                device.frozen.then_some((&device.id, ReasonCode::NotAuthorized))?
            }
            Change::Delete { kind: Kind::Device, id, .. } => (id, ReasonCode::NotAuthorized),
            Change::Disconnect { device } => (device, ReasonCode::AdministrativeAction),
            _ => return None,
        };
        Some((self.session_of_device(id)?, reason))
    }

    /// The key of the session that a device has, or would have.
    #[must_use]
    pub fn session_of_device(&self, id: &str) -> Option<SessionKey> {
        let (device, _) = self.kept.registry.device(id)?;
        let dialect = self.kept.registry.dialect_of(&device.record)?;
        Some(SessionKey::new(TENANT, dialect.as_str(), id))
    }

    /// Has the connection of a session closed, if a live run has one. That stays noted: the owner may not have come so far
    /// that it can be told, or may get a snapshot instead.
    pub(super) fn cut(&mut self, key: &SessionKey, reason: ReasonCode, out: &mut Out<'_>) {
        if let Some(owner) = self.kept.sessions.get(key).and_then(|session| self.owner(session)) {
            self.change(key, |session, _, _| session.cut = Some(reason));
            out.effects.push(Effect::Disconnect { key: self.stored_key(key), owner, reason });
        }
    }

    // -- what others may ask

    /// Who holds the connection of a device, if a live run does; of a sub-device, that of its gateway.
    #[must_use]
    pub fn device_owner(&self, id: &str) -> Option<Owner> {
        let session = self.session_of_device(self.kept.registry.connected_through(id)?)?;
        self.kept.sessions.get(&session).and_then(|session| self.owner(session))
    }

    /// Whether a device is connected to a node that is alive. The registry alone goes on saying so for as long as it takes
    /// to settle what a node that has died leaves behind.
    #[must_use]
    pub fn device_online(&self, id: &str) -> bool {
        let Some((_, presence)) = self.kept.registry.device(id).filter(|(_, presence)| presence.online) else {
            return false;
        };
        // By its own connection or, a sub-device, by that of its gateway.
        let session = self.session_of_device(id).and_then(|key| self.kept.sessions.get(&key));
        let own = session.and_then(|session| self.owner(session));
        own.into_iter().chain(self.device_owner(id)).any(|owner| owner.epoch.0 == presence.epoch)
    }
}
