//! A snapshot: empty, compared, and in words.

use std::fmt;

use fulmar_platform::registry::Registry;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::command::Limits;
use super::expansion::Expansions;
use super::ledger::Ledger;
use super::live::LiveRoutesOfRuns;
use super::origins::Origins;
use super::{Snapshot, retain};
use crate::key::LogTime;
use crate::plane::Plane;
use crate::retained::Retained;
use crate::steer::Steer;

impl Snapshot {
    pub(super) fn empty(limits: Limits) -> Snapshot {
        Snapshot {
            configured: limits,
            limits,
            now: LogTime::default(),
            position: 0,
            routes_at: 0,
            epoch_last: 0,
            origins: Origins::default(),
            live_routes: LiveRoutesOfRuns::default(),
            sessions: HashTrieMapSync::new_sync(),
            groups: HashTrieMapSync::new_sync(),
            retained: Retained::default(),
            retained_due: RedBlackTreeMapSync::new_sync(),
            expansions: Expansions::default(),
            registry: Registry::default(),
            plane: Plane::default(),
            steer: Steer::default(),
            ledger: Ledger::default(),
            restoring: None,
        }
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Snapshot) -> bool {
        let words = |s: &Snapshot| (s.configured, s.limits, s.now, s.position, s.routes_at, s.epoch_last);
        words(self) == words(other)
            && self.origins == other.origins
            && self.live_routes == other.live_routes
            && self.sessions == other.sessions
            && self.groups == other.groups
            && self.retained_due == other.retained_due
            && self.expansions == other.expansions
            && self.registry == other.registry
            && self.plane == other.plane
            && self.steer == other.steer
            && self.ledger == other.ledger
            && self.restoring == other.restoring
            && retain::equal(&self.retained, &other.retained)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("now", &self.now)
            .field("position", &self.position)
            .field("sessions", &self.sessions.size())
            .field("retained", &self.retained.len())
            .field("devices", &self.registry.device_count())
            .field("books", &self.ledger.books)
            .field("bytes", &self.ledger.bytes)
            .finish_non_exhaustive()
    }
}
