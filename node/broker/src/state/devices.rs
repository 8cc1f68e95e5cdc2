//! Devices as the state sees them: their sessions say who is online, and what becomes of a device reaches its session.

use fulmar_mqtt::ReasonCode;
use fulmar_platform::registry::{Change, Kind, Record};
use fulmar_platform::{Dialect, TENANT};

use super::command::{Effect, Outcome};
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
        out.effects.extend(events.into_iter().map(Effect::Registry));
        if let (Ok(_), Some((key, reason))) = (&changed, cut) {
            self.cut(&key, reason, out);
            if matches!(change, Change::Delete { .. }) {
                self.let_go_of_fallen(&key, out);
                let receives = !self.subscriptions(&key).is_empty();
                self.end_session(&key, Dropped::SessionDiscarded, out);
                if receives {
                    self.routes_changed();
                }
            }
        }
        Outcome::Registry(changed)
    }

    /// The session whose connection has no right to go on after a change, and why.
    fn to_be_cut(&self, change: &Change) -> Option<(SessionKey, ReasonCode)> {
        let (id, reason) = match change {
            Change::Put { record: Record::Device(device), .. } => (device.frozen
                && self.kept.registry.admits(&device.id))
            .then_some((&device.id, ReasonCode::NotAuthorized))?,
            Change::Delete { kind: Kind::Device, id, .. } => (id, ReasonCode::NotAuthorized),
            Change::Disconnect { device } => (device, ReasonCode::AdministrativeAction),
            _ => return None,
        };
        Some((self.session_of_device(id)?, reason))
    }

    fn session_of_device(&self, id: &str) -> Option<SessionKey> {
        let (device, _) = self.kept.registry.device(id)?;
        let dialect = self.kept.registry.dialect_of(&device.record)?;
        Some(SessionKey::new(TENANT, dialect.as_str(), id))
    }

    /// Has the connection of a session closed, if a live run has one.
    fn cut(&self, key: &SessionKey, reason: ReasonCode, out: &mut Out<'_>) {
        if let Some(owner) = self.kept.sessions.get(key).and_then(|session| self.owner(session)) {
            out.effects.push(Effect::Disconnect { key: self.stored_key(key), owner, reason });
        }
    }

    // -- what others may ask

    /// Whether a device is connected to a node that is alive. The registry alone goes on saying so for as long as it takes
    /// to settle what a node that has died leaves behind.
    #[must_use]
    pub fn device_online(&self, id: &str) -> bool {
        let Some((_, presence)) = self.kept.registry.device(id).filter(|(_, presence)| presence.online) else {
            return false;
        };
        let session = self.session_of_device(id).and_then(|key| self.kept.sessions.get(&key));
        session.and_then(|session| self.owner(session)).is_some_and(|owner| owner.epoch.0 == presence.epoch)
    }
}
