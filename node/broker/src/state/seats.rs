//! Connections of applications: each access key has so many in the whole cluster. Decided where the claim is applied, so
//! that two nodes never let in one too many. What a dead run held counts no more, also before it is settled.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_mqtt::ReasonCode;
use fulmar_platform::dialect::application::{CONNECTIONS_MAX, access_key_of};
use fulmar_platform::{Dialect, TENANT};

use super::{Out, State};
use crate::key::SessionKey;

/// Derived: the sessions of applications, by access key.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seats(BTreeMap<Box<str>, BTreeSet<SessionKey>>);

/// The access key of an application's session; `None` if it is not one.
fn access_key(key: &SessionKey) -> Option<&str> {
    let application = key.dialect() == Dialect::Application.as_str() && key.tenant() == TENANT;
    access_key_of(key.identity()).filter(|_| application)
}

impl Seats {
    pub(super) fn add(&mut self, key: &SessionKey) {
        if let Some(access_key) = access_key(key) {
            self.0.entry(access_key.into()).or_default().insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &SessionKey) {
        let Some(access_key) = access_key(key) else { return };
        if let Some(seats) = self.0.get_mut(access_key) {
            seats.remove(key);
            if seats.is_empty() {
                self.0.remove(access_key);
            }
        }
    }

    fn of(&self, access_key: &str) -> impl Iterator<Item = &SessionKey> {
        self.0.get(access_key).into_iter().flatten()
    }

    fn access_keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|access_key| &**access_key)
    }
}

impl State {
    /// Whether an application may have one more connection. Taking over its own needs no further one.
    pub(super) fn seat_free(&self, key: &SessionKey) -> Result<(), ReasonCode> {
        let Some(access_key) = access_key(key) else { return Ok(()) };
        let others = self.seats.of(access_key).filter(|other| *other != key && self.connected(other)).count();
        if others < CONNECTIONS_MAX { Ok(()) } else { Err(ReasonCode::NotAuthorized) }
    }

    /// Has every connection of an access key closed.
    pub(super) fn cut_application(&mut self, access_key: &str, out: &mut Out<'_>) {
        let all: Vec<SessionKey> = self.seats.of(access_key).cloned().collect();
        for key in &all {
            self.cut(key, ReasonCode::AdministrativeAction, out);
        }
    }

    fn connected(&self, key: &SessionKey) -> bool {
        self.kept.sessions.get(key).and_then(|session| self.owner(session)).is_some()
    }

    // -- what others may ask

    /// Connections of applications in the whole cluster, of every access key.
    #[must_use]
    pub fn applications(&self) -> usize {
        self.seats
            .access_keys()
            .flat_map(|access_key| self.seats.of(access_key))
            .filter(|key| self.connected(key))
            .count()
    }
}
