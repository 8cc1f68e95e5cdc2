//! Shadows: what is desired of a device and what it has last reported, by service, so that applications may ask and wish
//! while it is away. Kept as JSON text: there may be a million, and one is read far less often than it is kept.
//!
//! Every service has a version of its own. A dialect whose devices have one document without services keeps it under
//! [`SHADOW_SERVICE`], and that service's version is the document's.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Changed, Event, Registry, Rejection};

/// The one service of a dialect that has none.
pub const SHADOW_SERVICE: &str = "default";

/// Services of one shadow: as many as a product may have.
pub const SHADOW_SERVICES_MAX: usize = 500;

/// Bytes of one shadow: names of services, and what is desired and reported as compact JSON.
pub const SHADOW_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a service's name.
pub const SHADOW_SERVICE_BYTES_MAX: usize = 256;

/// Levels of objects and lists in what is desired or reported.
pub const SHADOW_DEPTH_MAX: usize = 16;

/// The shadow of one device; it is there from the first report or wish on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadow {
    /// Ascending by name.
    pub services: Vec<ShadowService>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShadowService {
    pub id: Box<str>,
    pub desired: Section,
    pub reported: Section,
    /// From 0.
    pub version: u64,
}

/// One side of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// A JSON object as compact text; empty: never said.
    text: Box<str>,
    /// Milliseconds since 1970 when it was last changed, or what it says was so; 0: never.
    pub event_ms: u64,
}

/// A change of a shadow: all of its parts or none.
#[derive(Debug, Clone, PartialEq)]
pub enum ShadowChange {
    Update(Vec<ShadowPart>),
    Delete,
}

/// What becomes of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowPart {
    pub service: Box<str>,
    pub reported: Patch,
    pub desired: Patch,
    pub version: Versioning,
    /// Milliseconds since 1970 of what is reported; 0: now.
    pub reported_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    Keep,
    /// Members replace those of their names; one that is null takes its away.
    Merge(Map<String, Value>),
    Clear,
}

/// What becomes of the version of a service, and what it must be before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    Keep,
    /// One more than it is.
    Next,
    /// One more than this, which it must be.
    After(u64),
    /// This, which must be larger than it is.
    Set(u64),
    /// 0.
    Reset,
}

impl Section {
    /// As a snapshot has it.
    ///
    /// # Errors
    /// The text is neither empty nor a JSON object.
    pub fn read(text: &str, event_ms: u64) -> Result<Section, &'static str> {
        if !text.is_empty() && serde_json::from_str::<Map<String, Value>>(text).is_err() {
            return Err("is no JSON object");
        }
        Ok(Section { text: text.into(), event_ms })
    }

    /// Compact JSON; empty: never said.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `{name: value}`; empty where nothing was said.
    #[must_use]
    pub fn properties(&self) -> Map<String, Value> {
        // Only what is an object gets here.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn patch(&mut self, patch: &Patch, at_ms: u64) {
        let properties = match patch {
            Patch::Keep => return,
            Patch::Clear => Map::new(),
            Patch::Merge(more) => {
                let mut properties = self.properties();
                for (name, value) in more {
                    if value.is_null() {
                        properties.remove(name);
                    } else {
                        properties.insert(name.clone(), value.clone());
                    }
                }
                properties
            }
        };
        *self = Section { text: Value::Object(properties).to_string().into(), event_ms: at_ms };
    }
}

impl ShadowService {
    /// What is desired and not reported so.
    #[must_use]
    pub fn difference(&self) -> Map<String, Value> {
        if self.desired.text.len() <= 2 {
            return Map::new(); // nothing, or {}
        }
        let reported = self.reported.properties();
        let mut desired = self.desired.properties();
        desired.retain(|name, value| reported.get(name) != Some(value));
        desired
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.desired.text.len() + self.reported.text.len()
    }
}

impl Versioning {
    fn after(self, version: u64) -> Option<u64> {
        match self {
            Versioning::Keep => Some(version),
            Versioning::Next => Some(version.saturating_add(1)),
            Versioning::After(wanted) => (wanted == version).then(|| version.saturating_add(1)),
            Versioning::Set(new) => (new > version).then_some(new),
            Versioning::Reset => Some(0),
        }
    }
}

impl Shadow {
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&ShadowService> {
        let at = self.services.binary_search_by(|service| (*service.id).cmp(id)).ok()?;
        self.services.get(at)
    }

    /// Whether something is desired that is not reported so.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.services.iter().any(|service| !service.difference().is_empty())
    }

    /// Changes one service, which is there from then on.
    ///
    /// # Errors
    /// Its version is another one.
    fn update(&mut self, part: &ShadowPart, now_ms: u64) -> Result<(), Rejection> {
        let place = self.services.binary_search_by(|service| (*service.id).cmp(&part.service));
        let version = place.ok().and_then(|at| self.services.get(at)).map_or(0, |service| service.version);
        let version = part.version.after(version).ok_or(Rejection::Conflict)?;
        let at = place.unwrap_or_else(|at| {
            self.services.insert(at, ShadowService { id: part.service.clone(), ..ShadowService::default() });
            at
        });
        if let Some(service) = self.services.get_mut(at) {
            service.version = version;
            service.reported.patch(&part.reported, if part.reported_ms == 0 { now_ms } else { part.reported_ms });
            service.desired.patch(&part.desired, now_ms);
        }
        Ok(())
    }

    /// Whether it is within its bounds.
    #[must_use]
    pub fn fits(&self) -> bool {
        let bytes = self.services.iter().map(ShadowService::bytes).sum::<usize>();
        let named = self.services.iter().all(|service| service.id.len() <= SHADOW_SERVICE_BYTES_MAX);
        self.services.len() <= SHADOW_SERVICES_MAX && bytes <= SHADOW_BYTES_MAX && named
    }
}

impl ShadowChange {
    /// Bytes that it takes in the log, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            ShadowChange::Update(parts) => parts.iter().map(ShadowPart::bytes).sum(),
            ShadowChange::Delete => 8,
        }
    }
}

impl ShadowPart {
    /// Bytes that it takes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |patch: &Patch| match patch {
            Patch::Merge(properties) => properties.iter().map(|(name, value)| name.len() + 8 + size(value)).sum(),
            Patch::Keep | Patch::Clear => 0,
        };
        32 + self.service.len() + of(&self.reported) + of(&self.desired)
    }
}

/// Bytes of a value as text, roughly.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => 2 + text.len(),
        Value::Array(list) => 2 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Value::Object(members) => 2 + members.iter().map(|(name, value)| 4 + name.len() + size(value)).sum::<usize>(),
    }
}

/// Whether a value has at most so many levels of objects and lists.
#[must_use]
pub fn is_shallow(value: &Value, levels_max: usize) -> bool {
    match value {
        Value::Array(list) => levels_max > 0 && list.iter().all(|value| is_shallow(value, levels_max - 1)),
        Value::Object(members) => levels_max > 0 && members.values().all(|value| is_shallow(value, levels_max - 1)),
        _ => true,
    }
}

impl Registry {
    /// `None`: nothing was ever reported or desired, or it was deleted.
    #[must_use]
    pub fn shadow(&self, device: &str) -> Option<&Arc<Shadow>> {
        self.shadows.get(&self.device(device)?.0.oid)
    }

    /// Devices that have a shadow.
    #[must_use]
    pub fn shadow_count(&self) -> usize {
        self.shadows.size()
    }

    /// Applies a change of a shadow. The revision in what is given back is that of the device, which stays.
    pub(super) fn change_shadow(
        &mut self,
        device: &str,
        change: &ShadowChange,
        now_ms: u64,
        events: &mut Vec<Event>,
    ) -> Result<Changed, Rejection> {
        let (kept, _) = self.device(device).ok_or(Rejection::Missing)?;
        let (changed, record) = (Changed { revision: kept.revision, oid: kept.oid }, Arc::clone(&kept.record));
        match change {
            ShadowChange::Delete => {
                self.shadows.remove_mut(&changed.oid);
            }
            ShadowChange::Update(parts) => {
                let mut shadow = self.shadows.get(&changed.oid).map(|shadow| Shadow::clone(shadow)).unwrap_or_default();
                parts.iter().try_for_each(|part| shadow.update(part, now_ms))?;
                if !shadow.fits() {
                    return Err(Rejection::TooLarge);
                }
                if shadow.differs() {
                    events.push(Event::Desired(record));
                }
                self.shadows.insert_mut(changed.oid, Arc::new(shadow));
            }
        }
        Ok(changed)
    }
}
