//! Topics that belong to the devices of one dialect, seen from clients of another: what such a device hears there it
//! takes for its own cloud's word, so nobody else speaks there, and no device of another dialect listens.

use std::fmt;

use fulmar_mqtt::{TopicFilter, TopicName};

use crate::Dialect;
use crate::dialect::sensoro::record_topic;
use crate::registry::{Product, Registry, SensoroApp, Shelf};

/// Products as they were when a client was let in. Those that are made later are not known to it.
#[derive(Clone)]
pub(crate) struct Spaces {
    products: Shelf<Product>,
    sensoro_apps: Shelf<SensoroApp>,
}

impl fmt::Debug for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spaces of {} products", self.products.size())
    }
}

impl Spaces {
    pub(crate) fn of(registry: &Registry) -> Spaces {
        let (products, sensoro_apps) = registry.catalogue();
        Spaces { products, sensoro_apps }
    }

    fn is_product(&self, id: &str, dialect: Dialect) -> bool {
        self.products.get(id).is_some_and(|product| product.record.dialect == dialect)
    }

    /// Whether a topic belongs to the devices of Aliyun, Tencent or Sensoro. Topics that start with `$` are not looked
    /// at.
    pub(crate) fn taken(&self, topic: &str) -> bool {
        let mut levels = topic.split('/');
        match (levels.next(), levels.next(), levels.next(), levels.next()) {
            (Some(""), Some(level), ..) if is_system(level) || self.is_product(level, Dialect::Aliyun) => true,
            (Some(level), Some(_), ..) if self.is_product(level, Dialect::Tencent) => true,
            (Some("users"), Some(_), Some("devices"), None) => true,
            (Some(""), Some("users"), Some(_), Some("devices")) => levels.next().is_none(),
            _ => false,
        }
    }

    /// Whether a filter may match a topic that is taken. Cautious where a wildcard stands for a product.
    pub(crate) fn meets(&self, filter: &TopicFilter) -> bool {
        let mut levels = filter.levels();
        let wild = |level: Option<&str>| matches!(level, Some("+" | "#"));
        match levels.next() {
            Some("+" | "#") => true,
            Some("") => match levels.next() {
                Some("users") => users(levels),
                Some(level) => wild(Some(level)) || is_system(level) || self.is_product(level, Dialect::Aliyun),
                None => false,
            },
            Some("users") => users(levels),
            Some(level) => self.is_product(level, Dialect::Tencent),
            None => false,
        }
    }

    /// Whether records of an AppID that is there are pushed on a topic.
    pub(crate) fn is_sensoro_record(&self, topic: &TopicName) -> bool {
        record_topic(topic).is_some_and(|app| self.sensoro_apps.contains_key(app))
    }

    /// Whether a topic is one by which Aliyun's cloud and its devices talk: of a product that is there.
    pub(crate) fn is_aliyun_system(&self, topic: &str) -> bool {
        let mut levels = topic.split('/');
        levels.next() == Some("")
            && levels.next().is_some_and(is_system)
            && levels.any(|level| self.is_product(level, Dialect::Aliyun))
    }
}

/// First levels of Aliyun's own topics.
fn is_system(level: &str) -> bool {
    matches!(level, "sys" | "ext" | "ota" | "shadow" | "broadcast")
}

/// Whether the rest of a filter after `users` may match `{AppID}/devices`.
fn users<'a>(mut levels: impl Iterator<Item = &'a str>) -> bool {
    match (levels.next(), levels.next(), levels.next()) {
        (Some("#"), ..) | (Some(_), Some("#"), _) => true,
        (Some(_), Some("devices" | "+"), rest) => matches!(rest, None | Some("#")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Publishing;
    use crate::dialect::fixture::{Client, may_subscribe, publishing, registry};

    #[test]
    fn topics_and_filters() {
        let spaces = Spaces::of(&registry());
        for (topic, taken) in [
            ("ABCDE12345/dev001/control", true),
            ("ABCDE12345/x", true),
            ("ABCDE12345", false),
            ("abcde12345/dev001/control", false),
            ("prod1/node1/x", false),
            ("a1B2c3D4e5F/sensor-001/user/get", false),
            ("/a1B2c3D4e5F/sensor-001/user/get", true),
            ("/ABCDE12345/dev001/control", false),
            ("/sys/x", true),
            ("/ext", true),
            ("/system/x", false),
            ("sys/x", false),
            ("users/any/devices", true),
            ("/users/any/devices", true),
            ("/users/any/devices/1", false),
            ("/users/any", false),
            ("users", false),
            ("/", false),
        ] {
            assert_eq!(spaces.taken(topic), taken, "{topic}");
            let filter = TopicFilter::new(topic).unwrap();
            // A filter is judged with less knowledge.
            assert!(spaces.meets(&filter) || !taken, "{topic}");
        }
        for (filter, meets) in [
            ("#", true),
            ("+/a", true),
            ("/#", true),
            ("/+/a", true),
            ("/sys/#", true),
            ("ABCDE12345/#", true),
            ("users/#", true),
            ("users/+/#", true),
            ("users/+/devices/#", true),
            ("users/a/+", true),
            ("users/a/b", false),
            ("users/a/devices/b", false),
            ("users/+", false),
            ("rooms/#", false),
            ("prod1/#", false),
            ("/rooms/#", false),
        ] {
            assert_eq!(spaces.meets(&TopicFilter::new(filter).unwrap()), meets, "{filter}");
        }
    }

    #[test]
    fn generic_clients_do_not_speak_for_a_cloud() {
        let admission = Client::new("backend", "ann", "ann's").admit(&registry()).unwrap();
        for (topic, becomes) in [
            ("/sys/a1B2c3D4e5F/sensor-001/thing/service/property/set", Publishing::Deny),
            ("/ext/rrpc/1/sys/a1B2c3D4e5F/sensor-001/thing/service/x", Publishing::Deny),
            ("/ext/ntp/a1B2c3D4e5F/sensor-001/response", Publishing::Deny),
            ("/ota/device/upgrade/a1B2c3D4e5F/sensor-001", Publishing::Deny),
            ("/shadow/get/a1B2c3D4e5F/sensor-001", Publishing::Deny),
            ("/broadcast/a1B2c3D4e5F/all", Publishing::Deny),
            ("/sys/another/product", Publishing::Route),
            ("/sys", Publishing::Route),
            ("sys/a1B2c3D4e5F/x", Publishing::Route),
            ("users/foobar/devices", Publishing::Deny),
            ("/users/foobar/devices", Publishing::Deny),
            ("users/nobody/devices", Publishing::Route),
            ("users/foobar/devices/1", Publishing::Route),
            // How backends reach devices, as far as their access list lets them.
            ("/a1B2c3D4e5F/sensor-001/user/get", Publishing::Route),
            ("ABCDE12345/dev001/control", Publishing::Route),
            ("$sys/operation/result/ABCDE12345/dev001", Publishing::Deny),
            ("$oc/devices/prod1_node1/sys/messages/down", Publishing::Deny),
        ] {
            assert_eq!(publishing(&admission, topic), becomes, "{topic}");
        }
        assert!(may_subscribe(&admission, "#"));
    }
}
