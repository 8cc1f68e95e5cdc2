//! What a device may publish and subscribe to, in every dialect: a matrix of the topics of all dialects by whose they are.

use std::collections::BTreeSet;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::Cluster;
use cluster_tests::raw::{self, RawClient};
use fulmar_mqtt::{Packet, QoS, ReasonCode};
use tokio::net::TcpStream;

use super::{cluster, connect};
use crate::support::SOON;

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publish {
    Routed,
    /// It ends in the platform: nobody gets it, and nothing is wrong with it.
    Platform,
    Denied,
}

use Publish::{Denied, Platform, Routed};

/// A topic of a dialect; what its own device may do with it, publishing and subscribing.
type Topic = (&'static str, Publish, bool);

/// With `{p}` for the product, `{d}` for the device's name and `{id}` for its id.
fn topics(vendor: Vendor) -> &'static [Topic] {
    match vendor {
        Vendor::Huawei => &[
            ("$oc/devices/{id}/sys/messages/up", Platform, true),
            ("$oc/devices/{id}/sys/messages/down", Denied, true),
            ("$oc/devices/{id}/sys/properties/report", Platform, true),
            ("$oc/devices/{id}/sys/properties/set/request_id=1", Denied, true),
            ("$oc/devices/{id}/sys/commands/request_id=1", Denied, true),
            ("$oc/devices/{id}/sys/commands/response/request_id=1", Platform, true),
            ("$oc/devices/{id}/sys/events/up", Platform, true),
            ("$oc/devices/{id}/sys/events/down", Denied, true),
            ("$oc/devices/{id}/user/own", Platform, true),
        ],
        Vendor::Aliyun => &[
            ("/{p}/{d}/user/both", Routed, true),
            ("/{p}/{d}/user/up", Routed, false),
            ("/{p}/{d}/user/down", Denied, true),
            ("/{p}/{d}/user/none", Denied, false),
            ("/sys/{p}/{d}/thing/event/property/post", Platform, true),
            ("/sys/{p}/{d}/thing/event/property/post_reply", Denied, true),
            ("/sys/{p}/{d}/thing/service/property/set", Denied, true),
            ("/sys/{p}/{d}/thing/service/property/set_reply", Platform, true),
            ("/sys/{p}/{d}/rrpc/request/1", Denied, true),
            ("/sys/{p}/{d}/rrpc/response/1", Platform, true),
            ("/shadow/update/{p}/{d}", Platform, true),
            ("/shadow/get/{p}/{d}", Denied, true),
            ("/ota/device/inform/{p}/{d}", Platform, true),
            ("/ota/device/upgrade/{p}/{d}", Denied, true),
            ("/ext/ntp/{p}/{d}/request", Platform, true),
            ("/ext/ntp/{p}/{d}/response", Denied, true),
        ],
        Vendor::Tencent => &[
            ("{p}/{d}/data", Routed, true),
            ("{p}/{d}/event", Platform, false),
            ("{p}/{d}/control", Denied, true),
            ("{p}/{d}/custom", Routed, true),
            ("{p}/{d}/unknown", Denied, false),
            ("$shadow/operation/{p}/{d}", Platform, false),
            ("$shadow/operation/result/{p}/{d}", Denied, true),
            ("$sys/operation/{p}/{d}", Platform, false),
            ("$sys/operation/result/{p}/{d}", Denied, true),
            ("$ota/report/{p}/{d}", Platform, false),
            ("$ota/update/{p}/{d}", Denied, true),
            ("$rrpc/txd/{p}/{d}/1", Platform, false),
            ("$rrpc/rxd/{p}/{d}/1", Denied, true),
        ],
        Vendor::Sensoro => &[("users/{d}/devices", Denied, true), ("/users/{d}/devices", Denied, true)],
    }
}

/// Filters that reach beyond any device.
const BEYOND: [&str; 17] = [
    "#",
    "+/#",
    "/#",
    "+/+/data",
    "/+/+/user/both",
    "/sys/#",
    "/sys/+/+/thing/#",
    "/broadcast/#",
    "$oc/#",
    "$oc/devices/#",
    "$oc/devices/+/sys/#",
    "$sys/#",
    "$sys/operation/result/+/+",
    "$SYS/#",
    "users/+/devices",
    "/users/+/devices",
    "$share/group/#",
];

/// What a listener that may hear everything listens to.
const EVERYTHING: [&str; 6] = ["#", "$oc/#", "$shadow/#", "$sys/#", "$ota/#", "$rrpc/#"];

/// A topic of a device, or of another that has the same form.
fn of(device: &Device, topic: &str) -> String {
    topic.replace("{p}", device.product_id).replace("{d}", &device.name).replace("{id}", &device.id())
}

/// One row of the matrix for one device.
#[derive(Debug)]
struct Row {
    topic: String,
    publish: Publish,
    subscribe: bool,
}

/// The topics of every dialect, each of this device's own, of another of its product, and of another product's.
fn rows(own: &Device) -> Vec<Row> {
    let mut rows = Vec::new();
    for vendor in Vendor::ALL {
        let mut whose = vec![Device::new(vendor, "other")];
        if vendor != Vendor::Sensoro {
            whose.push(Device::of_other_product(vendor, "own"));
        }
        if vendor == own.vendor {
            whose.push(own.clone());
        }
        for (topic, publish, subscribe) in topics(vendor) {
            for device in &whose {
                let is_own = device == own;
                rows.push(Row {
                    topic: of(device, topic),
                    publish: if is_own { *publish } else { Denied },
                    subscribe: is_own && *subscribe,
                });
            }
        }
    }
    rows
}

/// The code of the SUBACK.
async fn subscribe(client: &mut RawClient<TcpStream>, filter: &str) -> ReasonCode {
    client.send(&raw::subscribe(1, filter, QoS::AtLeastOnce)).await.unwrap();
    client
        .expect("SUBACK", SOON, |packet| match packet {
            Packet::SubAck(suback) => suback.reasons.first().copied(),
            _ => None,
        })
        .await
        .unwrap()
}

/// With its own topic as payload. A refused publish is acknowledged too: MQTT 3.1.1 has no other word.
async fn publish(client: &mut RawClient<TcpStream>, topic: &str) {
    let packet = raw::publish(1, topic, QoS::AtLeastOnce, topic.to_owned());
    client.send(&Packet::Publish(packet)).await.unwrap();
    loop {
        // What is routed may come back to a device that also listens, before the acknowledgement.
        let packet = client.next(SOON).await.unwrap();
        if matches!(packet, Packet::PubAck(_)) {
            return;
        }
    }
}

async fn denied(cluster: &Cluster, vendor: Vendor) -> u64 {
    let label = format!("dialect=\"{}\"", vendor.name());
    cluster.metrics(0).await.unwrap().sum(&["fulmar_publishes_denied_total", &label])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_has_no_topics_but_its_own_in_any_dialect() {
    let own = Vendor::ALL.map(|vendor| Device::new(vendor, "own"));
    let mut known = own.to_vec();
    known.extend(Vendor::ALL.map(|vendor| Device::new(vendor, "other")));
    known.extend(Vendor::OF_DEVICES.map(|vendor| Device::of_other_product(vendor, "own")));
    let (cluster, _rest) = cluster(&known).await;
    let mut listener = Client::connect(cluster.mqtt(1), Options::new(Protocol::V4, "listener")).await.unwrap();
    for filter in EVERYTHING {
        listener.subscribe(filter, 1).await.unwrap();
    }
    for device in &own {
        let mut wrong = Vec::new();
        let rows = rows(device);
        let before = denied(&cluster, device.vendor).await;
        let mut publisher = connect(&cluster, 0, device).await;
        for row in &rows {
            publish(&mut publisher, &row.topic).await;
        }
        drop(publisher);
        // The sentinel shows that all that came through one node has come.
        let mut last = Client::connect(cluster.mqtt(0), Options::new(Protocol::V4, "last")).await.unwrap();
        let sentinel = format!("sentinel/{}", device.vendor.name());
        last.publish_acked(&sentinel, 1, "").await.unwrap();
        let mut heard = BTreeSet::new();
        loop {
            let message = listener.receive(SOON).await.unwrap();
            if message.topic == sentinel {
                break;
            }
            heard.insert(message.text());
        }
        for row in &rows {
            if heard.contains(&row.topic) != (row.publish == Routed) {
                wrong.push(format!(
                    "PUBLISH to {} is {:?}, heard: {}",
                    row.topic,
                    row.publish,
                    !(row.publish == Routed)
                ));
            }
        }
        let counted = denied(&cluster, device.vendor).await - before;
        let wanted = rows.iter().filter(|row| row.publish == Denied).count() as u64;
        if counted != wanted {
            wrong.push(format!("{wanted} publishes are to be denied, {counted} were counted"));
        }
        let mut subscriber = connect(&cluster, 2, device).await;
        let beyond = BEYOND.iter().map(|filter| ((*filter).to_owned(), false));
        let filters = rows.iter().map(|row| (row.topic.clone(), row.subscribe)).chain(beyond);
        for (filter, granted) in filters {
            let code = subscribe(&mut subscriber, &filter).await;
            let right = if granted { code == ReasonCode::GrantedQoS1 } else { code.is_error() };
            if !right {
                wrong.push(format!("SUBSCRIBE to {filter} is answered with {code:?}"));
            }
        }
        assert!(wrong.is_empty(), "{:?}, {} rows:\n{}", device.vendor, rows.len(), wrong.join("\n"));
    }
}
