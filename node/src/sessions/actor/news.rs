//! What the log tells a session of its device: wishes that its shadow keeps, devices behind it, what it is to be sent.

use std::collections::HashMap;

use fulmar_broker::state::command::News;
use fulmar_platform::Dialect;
use fulmar_platform::dialect::{huawei, shadow};
use fulmar_platform::registry::Device;

use super::{State, Work};
use crate::cluster::clock::wall_ms;

/// Devices of which it is remembered what they were told to be; beyond them they are told again.
const TOLD_MAX: usize = 4_096;

/// What was told of shadows.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// By device, what it was told on this connection: the same again is not told again.
    told: HashMap<Box<str>, u64>,
    /// The client has not subscribed to where it would be told.
    unheard: bool,
}

impl State {
    /// The session may send: its device is told what is desired of it.
    pub(super) fn opened(&mut self, work: &mut Work) {
        if self.dialect().has_devices() {
            let device = self.receiver.key().identity().to_owned();
            self.wish(&device, work);
        }
    }

    /// The client has subscribed to something more.
    pub(super) fn heard_more(&mut self, work: &mut Work) {
        if std::mem::take(&mut self.uplinks.wishes.unheard) {
            self.opened(work);
        }
    }

    pub(super) fn news(&mut self, news: News, work: &mut Work) {
        match news {
            News::Desired(device) => self.wish(&device.id, work),
            News::SubDevice { device, added } => self.sub_device(&device, added, work),
            News::Downlink(downlink) => self.tell(vec![downlink], work),
        }
    }

    /// Tells a device what is desired of it and not reported, once until that changes.
    fn wish(&mut self, device: &str, work: &mut Work) {
        let registry = self.dispatch.replica().read().registry().clone();
        if registry.shadow(device).is_none() || self.session.ended() || !self.dispatch.acts() {
            return;
        }
        let request_id = format!("shadow-{:016x}", rand::random::<u64>());
        let Some(push) = shadow::push(&registry, device, &request_id, wall_ms()) else {
            self.uplinks.wishes.told.remove(device);
            return;
        };
        if self.uplinks.wishes.told.get(device) == Some(&push.digest) {
            return;
        }
        if self.hears(&push.downlink.topic).is_none() {
            self.uplinks.wishes.unheard = true;
            return;
        }
        if self.dispatch.crowded(&self.receiver) {
            self.dispatch.metrics().downlink_dropped("queue_full");
            return;
        }
        let wishes = &mut self.uplinks.wishes;
        if wishes.told.len() >= TOLD_MAX {
            wishes.told.clear();
        }
        wishes.told.insert(device.into(), push.digest);
        self.tell(vec![push.downlink], work);
    }

    /// A device was added behind the client, or deleted, by somebody else: a gateway of Huawei is told.
    fn sub_device(&mut self, device: &Device, added: bool, work: &mut Work) {
        if self.dialect() != Dialect::Huawei || self.uplinks.asking.contains(&device.id) {
            return;
        }
        let version = self.dispatch.replica().read().registry().last_revision();
        let gateway = self.receiver.key().identity();
        let notice = huawei::call::sub_device_notice(gateway, device, added, version, wall_ms());
        self.tell(notice.into_iter().collect(), work);
    }
}
