//! Which topics a device may use. All that it says under `$oc/devices/{its id}/` ends in the platform, also where a
//! filter of its own would match it; what the platform says there it hears without asking.

use fulmar_mqtt::{QoS, TopicFilter, TopicName};

use super::uplink;
use crate::dialect::spaces::Spaces;
use crate::dialect::{Answers, Publishing, Subscribing, Uplink, Voice};

/// A device that was let in.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) device: Box<str>,
    pub(super) spaces: Spaces,
}

/// What a device says to the platform; with the id of the request that it answers or makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Up<'a> {
    /// A message with an envelope that may name a sub-device.
    Message,
    /// A message on a topic of the product's.
    Custom,
    Properties,
    SubDevices,
    Response(&'a str),
    Shadow(&'a str),
    Events,
}

const DEVICES: &str = "$oc/devices/";

const RESPONSES: [&str; 3] = [
    "sys/commands/response/request_id=",
    "sys/properties/set/response/request_id=",
    "sys/properties/get/response/request_id=",
];

/// Of a topic's rest after the device id, without a query.
pub(super) fn up(rest: &str) -> Option<Up<'_>> {
    Some(match rest {
        "sys/messages/up" => Up::Message,
        "sys/properties/report" => Up::Properties,
        "sys/gateway/sub_devices/properties/report" => Up::SubDevices,
        "sys/events/up" => Up::Events,
        _ => {
            let response = RESPONSES.iter().find_map(|prefix| rest.strip_prefix(prefix)).map(Up::Response);
            let shadow = || rest.strip_prefix("sys/shadow/get/request_id=").map(Up::Shadow);
            let custom = || rest.strip_prefix("user/").filter(|suffix| !suffix.is_empty()).map(|_| Up::Custom);
            response.or_else(shadow).or_else(custom)?
        }
    })
}

/// What the platform says to a device.
fn is_down(rest: &str) -> bool {
    const REQUESTS: [&str; 4] = [
        "sys/commands/request_id=",
        "sys/properties/set/request_id=",
        "sys/properties/get/request_id=",
        "sys/shadow/get/response/request_id=",
    ];
    matches!(rest, "sys/messages/down" | "sys/events/down") || REQUESTS.iter().any(|prefix| rest.starts_with(prefix))
}

impl Connected {
    /// The rest of a topic after this device's id.
    fn own<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(DEVICES)?.strip_prefix(&*self.device)?.strip_prefix('/')
    }
}

impl Voice for Connected {
    fn publishing(&self, topic: &TopicName) -> Publishing {
        let topic = topic.as_str();
        let becomes = |becomes: Publishing, rightful: bool| if rightful { becomes } else { Publishing::Deny };
        if topic.starts_with('$') {
            let path = topic.split('?').next().unwrap_or_default();
            becomes(Publishing::Platform, self.own(path).and_then(up).is_some())
        } else {
            becomes(Publishing::Route, !self.spaces.taken(topic))
        }
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        let mut levels = filter.levels();
        let rightful = match levels.next() {
            Some("$oc") => match levels.next() {
                Some("devices") => levels.next() == Some(&*self.device),
                Some("broadcast") => true,
                _ => false,
            },
            Some(level) if level.starts_with('$') => false,
            _ => !self.spaces.meets(filter),
        };
        if rightful { Subscribing::Grant(QoS::AtLeastOnce) } else { Subscribing::Deny }
    }

    fn implicit(&self, topic: &TopicName) -> Option<QoS> {
        self.own(topic.as_str()).is_some_and(is_down).then_some(QoS::AtMostOnce)
    }

    fn uplink(&self, uplink: &Uplink<'_>) -> Answers {
        let (path, query) = uplink.topic.as_str().split_once('?').unwrap_or((uplink.topic.as_str(), ""));
        match self.own(path).and_then(up) {
            Some(up) => uplink::read(&self.device, up, path, query, uplink),
            None => Answers { problem: Some("not a topic of this device"), ..Answers::default() },
        }
    }
}
