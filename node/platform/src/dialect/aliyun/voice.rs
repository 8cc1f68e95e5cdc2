//! A connected device: what it may publish and subscribe to, for itself and for the sub-devices that it has logged in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::topics::{About, DEFAULT_PUBLISH, DEFAULT_SUBSCRIBE, Place, down, is_session_request, up};
use super::{alink, gateway, services};
use crate::dialect::classes::allow;
use crate::dialect::{Answers, Publishing, Subscribing, Uplink, Voice};
use crate::filter::covers;
use crate::registry::{Device, Product, Registry, TopicAccess};

/// Sub-devices that one gateway speaks for at a time, as the platform documents it.
pub(super) const SUB_DEVICES_MAX: usize = 2000;

/// The topics of one device.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) product: Arc<Product>,
    pub(super) device: Arc<Device>,
}

impl Space {
    /// `None` if a name of the device would mean more than itself in a topic.
    pub(super) fn new(product: Arc<Product>, device: Arc<Device>) -> Option<Space> {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#', '\0']);
        (plain(&product.id) && plain(&device.node_id)).then_some(Space { product, device })
    }

    fn is(&self, place: &Place<'_>) -> bool {
        *place.product_key == *self.product.id && *place.name == *self.device.node_id
    }

    fn may_publish(&self, custom: &str) -> bool {
        match &*self.product.topics {
            [] => DEFAULT_PUBLISH.contains(&custom),
            classes => allow(classes, custom, TopicAccess::Publish),
        }
    }

    /// Whether every topic that the filter matches is one of this device, of a way that it may hear.
    fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        let (key, name) = (&self.product.id, &self.device.node_id);
        if let Some(custom) = filter.as_str().strip_prefix(&format!("/{key}/{name}/")) {
            return match &*self.product.topics {
                [] => DEFAULT_SUBSCRIBE.contains(&custom),
                classes => allow(classes, custom, TopicAccess::Subscribe),
            };
        }
        let all = [
            format!("/sys/{key}/{name}/#"),
            format!("/ext/session/{key}/{name}/#"),
            format!("/ext/ntp/{key}/{name}/#"),
            format!("/ota/device/+/{key}/{name}"),
            format!("/shadow/+/{key}/{name}"),
            format!("/broadcast/{key}/#"),
            format!("/ext/rrpc/+/sys/{key}/{name}/#"),
            format!("/ext/rrpc/+/{key}/{name}/#"),
        ];
        all.into_iter().filter_map(|own| TopicFilter::new(own).ok()).any(|own| covers(&own, filter))
    }
}

/// Product key and device name.
type Names = (Box<str>, Box<str>);

/// See the module.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) own: Space,
    /// `_ss=1`: the platform's messages come without having been subscribed to.
    auto: bool,
    /// Sub-devices that are logged in. They go with the connection.
    subs: RwLock<BTreeMap<Names, Space>>,
    /// Whether one ever was.
    has_had_subs: AtomicBool,
}

impl Spoken {
    /// `None` if a name of the device cannot stand in a topic.
    pub(super) fn new(product: Arc<Product>, device: Arc<Device>, auto: bool) -> Option<Spoken> {
        Some(Spoken {
            own: Space::new(product, device)?,
            auto,
            subs: RwLock::default(),
            has_had_subs: AtomicBool::default(),
        })
    }

    /// The device of a topic, if the client may speak for it.
    pub(super) fn speaks_for(&self, place: &Place<'_>) -> Option<Space> {
        if self.own.is(place) {
            return Some(self.own.clone());
        }
        let subs = self.subs.read().unwrap_or_else(PoisonError::into_inner);
        subs.get(&(Box::from(place.product_key), Box::from(place.name))).cloned()
    }

    /// Logs sub-devices in, all or none; `false` if they would be too many.
    pub(super) fn log_in(&self, spaces: Vec<Space>) -> bool {
        let mut subs = self.subs.write().unwrap_or_else(PoisonError::into_inner);
        let keyed: BTreeMap<_, _> =
            spaces.into_iter().map(|space| ((space.product.id.clone(), space.device.node_id.clone()), space)).collect();
        let more = keyed.keys().filter(|key| !subs.contains_key(*key)).count();
        let fits = subs.len() + more <= SUB_DEVICES_MAX;
        if fits {
            self.has_had_subs.store(true, Ordering::Release);
            subs.extend(keyed);
        }
        fits
    }

    /// The device of a topic, if the client may speak for it by what the registry says now: a sub-device that is gone,
    /// disabled or another gateway's is logged out.
    fn still_speaks_for(&self, place: &Place<'_>, registry: &Registry) -> Option<Space> {
        let space = self.speaks_for(place)?;
        if self.own.is(place) || self.has(&space.device, registry) {
            return Some(space);
        }
        self.log_out(place.product_key, place.name);
        None
    }

    /// Whether a sub-device that was logged in may stay so. The topology may still be on its way into the registry, so that
    /// only a gateway that has become another's ends it.
    fn has(&self, logged_in: &Device, registry: &Registry) -> bool {
        registry.device(&logged_in.id).is_some_and(|(now, _)| {
            let gateway = &now.record.gateway_id;
            !now.record.frozen && (*gateway == self.own.device.id || *gateway == logged_in.gateway_id)
        })
    }

    /// Logs a sub-device out; `false` if it was not logged in.
    pub(super) fn log_out(&self, product_key: &str, name: &str) -> bool {
        let mut subs = self.subs.write().unwrap_or_else(PoisonError::into_inner);
        subs.remove(&(Box::from(product_key), Box::from(name))).is_some()
    }

    /// Whether a sub-device is logged in, and may still be.
    pub(super) fn may_speak_for(&self, product_key: &str, name: &str, registry: &Registry) -> bool {
        let subs = self.subs.read().unwrap_or_else(PoisonError::into_inner);
        let space = subs.get(&(Box::from(product_key), Box::from(name)));
        space.is_some_and(|space| self.has(&space.device, registry))
    }

    pub(super) fn is_logged_in(&self, product_key: &str, name: &str) -> bool {
        let subs = self.subs.read().unwrap_or_else(PoisonError::into_inner);
        subs.contains_key(&(Box::from(product_key), Box::from(name)))
    }
}

impl Voice for Spoken {
    fn publishing(&self, topic: &TopicName) -> Publishing {
        let Some(place) = Place::parse(topic.as_str()) else { return Publishing::Deny };
        let Some(space) = self.speaks_for(&place) else { return Publishing::Deny };
        let terminated = match place.about {
            About::Custom(custom) => {
                return if space.may_publish(custom) { Publishing::Route } else { Publishing::Deny };
            }
            About::Thing(tail) => up(tail).is_some(),
            About::Response(_) | About::Carried { .. } => true,
            About::Request => false,
            // Only the gateway itself logs others in.
            About::Session(tail) => self.own.is(&place) && is_session_request(tail),
            About::Ntp(tail) => tail == "request",
            About::Ota(kind) => matches!(kind, "inform" | "progress" | "request"),
            About::Shadow(kind) => kind == "update",
        };
        if terminated { Publishing::Platform } else { Publishing::Deny }
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        let levels: Vec<&str> = filter.levels().collect();
        // There may be thousands of sub-devices: only those are asked closely whose names stand in the filter.
        let named = |space: &Space| {
            levels.contains(&&*space.product.id)
                && (levels.get(1) == Some(&"broadcast") || levels.contains(&&*space.device.node_id))
        };
        let may = || {
            let subs = self.subs.read().unwrap_or_else(PoisonError::into_inner);
            let mut spaces = std::iter::once(&self.own).chain(subs.values());
            spaces.any(|space| named(space) && space.may_subscribe(filter))
        };
        // The platform knows no shared subscriptions of devices.
        if filter.shared().is_none() && may() { Subscribing::Grant(QoS::AtLeastOnce) } else { Subscribing::Deny }
    }

    fn speaks_for_others(&self) -> bool {
        self.has_had_subs.load(Ordering::Acquire)
    }

    fn stands(&self, topic: &TopicName, registry: &Registry) -> bool {
        Place::parse(topic.as_str()).is_some_and(|place| self.still_speaks_for(&place, registry).is_some())
    }

    fn implicit(&self, topic: &TopicName) -> Option<QoS> {
        let place = Place::parse(topic.as_str()).filter(|_| self.auto)?;
        self.speaks_for(&place)?;
        let sent = match place.about {
            About::Thing(tail) => down(tail),
            About::Request => true,
            About::Carried { system, .. } => system,
            About::Session(tail) => tail.strip_suffix("_reply").is_some_and(is_session_request),
            About::Ntp(tail) => tail == "response",
            About::Ota(kind) => matches!(kind, "upgrade" | "request"),
            About::Shadow(kind) => kind == "get",
            About::Response(_) | About::Custom(_) => false,
        };
        sent.then_some(QoS::AtLeastOnce)
    }

    fn uplink(&self, uplink: &Uplink<'_>) -> Answers {
        let mut answers = Answers::default();
        let place = Place::parse(uplink.topic.as_str());
        let Some(place) = place.filter(|_| self.publishing(uplink.topic) == Publishing::Platform) else {
            answers.problem = Some("not a topic of the device that the platform reads");
            return answers;
        };
        let Some(space) = self.still_speaks_for(&place, uplink.registry) else {
            answers.problem = Some("the sub-device is disabled, deleted or another gateway's");
            return answers;
        };
        match place.about {
            About::Thing(tail) => alink::thing(self, uplink, &space, tail, &mut answers),
            About::Session(tail) => gateway::session(self, uplink, tail, &mut answers),
            About::Response(id) | About::Carried { id, .. } => services::response(uplink, &space, id, &mut answers),
            About::Ntp(_) => services::ntp(uplink, &space, &mut answers),
            About::Ota(kind) => services::ota(uplink, &space, kind, &mut answers),
            About::Shadow(_) => services::shadow(uplink, &space, &mut answers),
            About::Request | About::Custom(_) => answers.problem = Some("not for the platform"),
        }
        answers
    }
}
