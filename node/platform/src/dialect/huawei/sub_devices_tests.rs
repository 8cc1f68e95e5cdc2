//! What a gateway asks about the devices behind it.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::Admission;
use crate::dialect::fixture::{Client, NOW_MS, registry, tell};
use crate::registry::{Event, Registry};

const UP: &str = "$oc/devices/prod1_node1/sys/events/up";

struct Gateway {
    registry: Registry,
    voice: Admission,
    events: Vec<Event>,
}

impl Gateway {
    fn new() -> Gateway {
        let mut registry = registry();
        let password = "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a";
        let client = Client::new("prod1_node1_0_0_2025041401", "prod1_node1", password);
        let voice = client.admit(&registry).unwrap();
        registry.connected("prod1_node1", 7, NOW_MS, None, &mut Vec::new());
        Gateway { registry, voice, events: Vec::new() }
    }

    /// The event that it is answered with.
    fn ask(&mut self, kind: &str, paras: Value) -> Value {
        let event = json!({
            "service_id": "$sub_device_manager", "event_type": kind, "event_id": "e-1", "paras": paras,
        });
        let request = json!({"object_device_id": "", "services": [event]});
        let answers = tell(&self.voice, &self.registry, UP, request.to_string());
        assert_eq!(answers.problem, None);
        let mut downlinks = answers.downlinks;
        for asked in answers.asked {
            let mut apply = |change| self.registry.apply(change, NOW_MS, &mut self.events).map(|_| ());
            let outcomes: Vec<_> = asked.changes.iter().map(&mut apply).collect();
            downlinks.extend(asked.reply(&outcomes));
        }
        assert_eq!(downlinks.len(), 1);
        assert_eq!(downlinks[0].topic.as_str(), "$oc/devices/prod1_node1/sys/events/down");
        let answer: Value = serde_json::from_slice(&downlinks[0].payload).unwrap();
        assert_eq!(answer["object_device_id"], "prod1_node1");
        answer["services"][0].clone()
    }

    fn online(&self, device: &str) -> bool {
        self.registry.device(device).is_some_and(|(_, presence)| presence.online)
    }
}

#[test]
fn devices_are_added() {
    let mut gateway = Gateway::new();
    let devices = json!([
        {"node_id": "s1", "product_id": "prod1", "name": "one", "extension_info": {"a": 1}},
        {"node_id": "s2", "product_id": "prod1", "device_id": "named", "parent_device_id": "prod1_node1"},
        {"node_id": "sub1", "product_id": "prod1", "description": null},
        {"node_id": "node2", "product_id": "prod1"},
        {"node_id": "s3", "product_id": "unknown"},
        {"node_id": "s 4", "product_id": "prod1"},
        {"node_id": "s5", "product_id": "prod1", "parent_device_id": "prod1_node2"},
    ]);
    let answer = gateway.ask("add_sub_device_request", json!({"devices": devices}));
    assert_eq!((&answer["event_type"], &answer["event_id"]), (&json!("add_sub_device_response"), &json!("e-1")));
    let paras = &answer["paras"];
    let ids: Vec<&Value> = paras["successful_devices"].as_array().unwrap().iter().map(|it| &it["device_id"]).collect();
    assert_eq!(ids, ["prod1_s1", "named", "prod1_sub1"]);
    assert_eq!(paras["successful_devices"][0]["parent_device_id"], "prod1_node1");
    assert_eq!(paras["successful_devices"][0]["extension_info"], json!({"a": 1}));
    let mut failed: Vec<_> = paras["failed_devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["node_id"].as_str().unwrap(), it["error_code"].as_str().unwrap()))
        .collect();
    failed.sort_unstable();
    let bad = "IOTDA.000006";
    assert_eq!(failed, [("node2", "IOTDA.014031"), ("s 4", bad), ("s3", bad), ("s5", bad)]);
    let (added, _) = gateway.registry.device("named").unwrap();
    assert_eq!((&*added.record.gateway_id, &*added.record.node_id), ("prod1_node1", "s2"));
    let deeper = json!([{"node_id": "d1", "product_id": "prod1", "parent_device_id": "prod1_s1"}]);
    let answer = gateway.ask("add_sub_device_request", json!({"devices": deeper}));
    assert_eq!(answer["paras"]["failed_devices"], json!([]));
    let synced = gateway.ask("sub_device_sync_request", json!({"version": 0}));
    assert_eq!(synced["event_type"], "add_sub_device_notify");
    let mut ids: Vec<&str> =
        synced["paras"]["devices"].as_array().unwrap().iter().map(|it| it["device_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["named", "prod1_d1", "prod1_s1", "prod1_sub1"]);
    assert!(synced["paras"]["version"].as_u64().unwrap() > 0);
}

#[test]
fn devices_are_deleted() {
    let mut gateway = Gateway::new();
    let answer =
        gateway.ask("delete_sub_device_request", json!({"devices": ["prod1_sub1", "prod1_node2", "prod1_node1"]}));
    assert_eq!(answer["event_type"], "delete_sub_device_response");
    assert_eq!(answer["paras"]["successful_devices"], json!(["prod1_sub1"]));
    let failed = answer["paras"]["failed_devices"].as_array().unwrap();
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|it| it["error_code"] == "IOTDA.014000"));
    assert!(gateway.registry.device("prod1_sub1").is_none());
    assert!(gateway.registry.device("prod1_node2").is_some());
    let answer = gateway.ask("delete_sub_device_request", json!({"devices": []}));
    assert_eq!(answer["paras"], json!({"successful_devices": [], "failed_devices": []}));
}

#[test]
fn a_gateway_says_who_is_there() {
    let mut gateway = Gateway::new();
    let status = |device: &str, status: &str| json!({"device_id": device, "status": status});
    let statuses = [status("prod1_sub1", "ONLINE"), status("prod1_node2", "ONLINE"), status("prod1_sub1", "ELSE")];
    let answer = gateway.ask("sub_device_update_status", json!({"device_statuses": statuses}));
    assert_eq!(answer["event_type"], "sub_device_update_status_response");
    assert_eq!(answer["paras"]["successful_devices"], json!([status("prod1_sub1", "ONLINE")]));
    let codes: Vec<&Value> =
        answer["paras"]["failed_devices"].as_array().unwrap().iter().map(|it| &it["error_code"]).collect();
    assert_eq!(codes, ["IOTDA.014000", "IOTDA.000006"]);
    assert!(gateway.online("prod1_sub1") && !gateway.online("prod1_node2"));
    let told = |event: &Event| match event {
        Event::Status(status) => Some((status.device.id.to_string(), status.online)),
        _ => None,
    };
    assert_eq!(gateway.events.iter().filter_map(told).collect::<Vec<_>>(), [("prod1_sub1".to_owned(), true)]);
    // With the gateway everything behind it goes.
    let mut events = Vec::new();
    gateway.registry.disconnected("prod1_node1", 7, NOW_MS + 1, &mut events);
    let gone: Vec<_> = events.iter().filter_map(told).collect();
    assert_eq!(gone, [("prod1_node1".to_owned(), false), ("prod1_sub1".to_owned(), false)]);
    // Whoever speaks by a connection that is over is not heard.
    let statuses = json!({"device_statuses": [status("prod1_sub1", "ONLINE")]});
    let answer = gateway.ask("sub_device_update_status", statuses);
    assert_eq!(answer["paras"]["failed_devices"][0]["error_code"], "FULMAR.000004");
}
