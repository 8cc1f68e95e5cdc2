//! Products, devices and what belongs to them, from creation at one node to the end at another.

use serde_json::{Value, json};

use super::{Rest, cluster, product};

#[tokio::test]
async fn products_and_devices_live_on_every_node_at_once() {
    let (fulmar, doors) = cluster(2, &[]).await;
    let here = Rest::demo(&fulmar, doors[0]).await;
    let there = here.elsewhere(doors[1]);
    let made = here.call("POST", "/products", product("meters"), 201).await;
    let id = made["product_id"].as_str().unwrap();
    assert_eq!(id.len(), 24);
    assert!(made["product_secret"].is_null(), "Huawei's have none");
    let shown = there.call("GET", &format!("/products/{id}"), Value::Null, 200).await;
    assert_eq!(shown["service_capabilities"][0]["service_id"], "Meter");
    assert_eq!(shown["create_time"].as_str().unwrap().len(), 16);

    let body = json!({ "product_id": id, "node_id": "n1", "device_name": "first", "extension_info": { "a": 1 } });
    let device = there.call("POST", "/devices", body, 201).await;
    let device_id = format!("{id}_n1");
    assert_eq!((&device["device_id"], &device["status"]), (&json!(device_id), &json!("INACTIVE")));
    let secret = device["auth_info"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 32);

    let path = format!("/devices/{device_id}");
    let shown = here.call("GET", &path, Value::Null, 200).await;
    assert_eq!(shown["gateway_id"], device_id.as_str(), "it is its own gateway");
    assert_eq!(shown["extension_info"]["a"], 1);
    let listed = here.call("GET", &format!("/devices?product_id={id}"), Value::Null, 200).await;
    assert_eq!(listed["page"]["count"], 1);
    for form in [shown.to_string(), listed.to_string()] {
        assert!(!form.contains(&secret), "a secret is shown once");
    }
    assert!(listed["devices"][0]["auth_info"].is_null());

    let changed =
        there.call("PUT", &path, json!({ "device_name": "renamed", "auth_info": { "secure_access": true } }), 200);
    assert_eq!(changed.await["device_name"], "renamed");
    let reset = format!("{path}/action?action_id=resetSecret");
    let reset = here.call("POST", &reset, json!({ "secret": "12345678" }), 200).await;
    assert_eq!(reset, json!({ "device_id": device_id, "secret": "12345678", "secret_type": "PRIMARY" }));
    for (what, status) in [("freeze", "FROZEN"), ("unfreeze", "INACTIVE")] {
        here.call("POST", &format!("{path}/{what}"), Value::Null, 204).await;
        assert_eq!(there.call("GET", &path, Value::Null, 200).await["status"], status);
    }
    let fingerprint = "AB".repeat(20);
    let body = json!({ "fingerprint": fingerprint, "fingerprint_type": "SECONDARY" });
    let reset = there.call("POST", &format!("{path}/reset-fingerprint"), body, 200).await;
    assert_eq!(reset["fingerprint"], fingerprint.to_lowercase());

    let used = here.ask("DELETE", &format!("/products/{id}"), &Value::Null).await;
    assert_eq!((used.status, used.error().0), (409, "FULMAR.000003"));
    here.call("DELETE", &path, Value::Null, 204).await;
    let gone = there.ask("GET", &path, &Value::Null).await;
    assert_eq!((gone.status, gone.error().0), (404, "IOTDA.014000"));
    there.call("DELETE", &format!("/products/{id}"), Value::Null, 204).await;
    assert_eq!(here.ask("GET", &format!("/products/{id}"), &Value::Null).await.status, 404);
}

#[tokio::test]
async fn devices_of_aliyun_s_have_no_certificates_and_are_frozen_wherever_they_are() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let mut of_aliyun = product("p");
    of_aliyun["dialect"] = json!("aliyun");
    let product = rest.call("POST", "/products", of_aliyun, 201).await["product_id"].as_str().unwrap().to_owned();
    let device = |node: &str, gateway: Value| json!({ "product_id": product, "node_id": node, "gateway_id": gateway });
    rest.call("POST", "/devices", device("g", Value::Null), 201).await;
    rest.call("POST", "/devices", device("s", json!(format!("{product}_g"))), 201).await;
    let path = format!("/devices/{product}_s");
    for (what, status) in [("freeze", "FROZEN"), ("unfreeze", "INACTIVE")] {
        rest.call("POST", &format!("{path}/{what}"), Value::Null, 204).await;
        assert_eq!(rest.call("GET", &path, Value::Null, 200).await["status"], status);
    }
    rest.call("POST", &format!("/products/{product}/ca"), Value::Null, 201).await;
    let refused = rest.ask("POST", &format!("{path}/certificate"), &Value::Null).await;
    assert_eq!((refused.status, refused.error().0), (400, "IOTDA.000006"), "{refused:?}");
    let mut by_certificate = device("c", Value::Null);
    by_certificate["auth_info"] = json!({ "auth_type": "CERTIFICATES" });
    let refused = rest.ask("POST", "/devices", &by_certificate).await;
    assert_eq!((refused.status, refused.error().0), (400, "IOTDA.000006"), "{refused:?}");
}

#[tokio::test]
async fn gateways_have_devices_behind_them() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let product = rest.call("POST", "/products", product("p"), 201).await["product_id"].clone();
    let id = |node: &str| format!("{}_{node}", product.as_str().unwrap());
    for (node, gateway) in [("g1", ""), ("g2", ""), ("s", "g1"), ("below", "s")] {
        let gateway = if gateway.is_empty() { Value::Null } else { json!(id(gateway)) };
        let body = json!({ "product_id": product, "node_id": node, "gateway_id": gateway });
        rest.call("POST", "/devices", body, 201).await;
    }
    let behind = async |query: &str| {
        let listed = rest.call("GET", &format!("/devices?{query}"), Value::Null, 200).await;
        listed["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["node_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(behind(&format!("gateway_id={}", id("g1"))).await, ["s"]);
    assert_eq!(behind(&format!("gateway_id={}&is_cascade_query=true", id("g1"))).await, ["below", "s"]);
    let too_deep = json!({ "product_id": product, "node_id": "x", "gateway_id": id("below") });
    assert_eq!(rest.ask("POST", "/devices", &too_deep).await.status, 400);
    let used = format!("/devices/{}/change-gateway", id("s"));
    assert_eq!(rest.ask("POST", &used, &json!({ "gateway_id": id("g2") })).await.status, 409, "it is a gateway itself");
    let moved = format!("/devices/{}/change-gateway", id("below"));
    let moved = rest.call("POST", &moved, json!({ "gateway_id": id("g2") }), 200).await;
    assert_eq!(moved["gateway_id"], id("g2"));
    let frozen = rest.ask("POST", &format!("/devices/{}/freeze", id("s")), &Value::Null).await;
    assert_eq!(frozen.status, 400, "only direct devices are frozen");
    assert_eq!(rest.ask("DELETE", &format!("/devices/{}", id("g2")), &Value::Null).await.status, 409);
}

#[tokio::test]
async fn pages_go_from_new_to_old() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let product = rest.call("POST", "/products", product("p"), 201).await["product_id"].clone();
    for number in 0..7 {
        let body = json!({ "product_id": product, "node_id": format!("n{number}") });
        rest.call("POST", "/devices", body, 201).await;
    }
    let product = product.as_str().unwrap();
    // With a filter, and without one over all devices, of which those of this product are the newest.
    for filter in [format!("product_id={product}&"), String::new()] {
        let (mut marker, mut seen) = (String::from("ffffffffffffffffffffffff"), Vec::new());
        while seen.len() < 7 {
            let page = rest.call("GET", &format!("/devices?{filter}limit=3&marker={marker}"), Value::Null, 200).await;
            let devices = page["devices"].as_array().unwrap();
            assert!(!devices.is_empty() && devices.len() <= 3);
            seen.extend(devices.iter().map(|device| device["node_id"].as_str().unwrap().to_owned()));
            marker = page["page"]["marker"].as_str().unwrap().to_owned();
        }
        assert_eq!(seen[..7], ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]);
    }
    let offset = rest.call("GET", &format!("/devices?product_id={product}&limit=2&offset=4"), Value::Null, 200).await;
    assert_eq!(offset["devices"][0]["node_id"], "n2");
    let none = rest.call("GET", "/devices?end_time=20200101T000000Z", Value::Null, 200).await;
    assert_eq!(none["page"], json!({ "count": 0 }));
}

#[tokio::test]
async fn what_belongs_to_other_dialects_is_managed_too() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let body =
        json!({ "name": "ali", "dialect": "aliyun", "dynamic_registration": "known", "product_id": "a1B2c3D4e5F" });
    let product = rest.call("POST", "/products", body, 201).await;
    assert_eq!(product["product_secret"].as_str().unwrap().len(), 16);
    let topics = json!({ "topics": [{ "topic": "user/up", "access": "pub" }, { "topic": "user/+/x" }] });
    let kept = rest.call("PUT", "/products/a1B2c3D4e5F/topics", topics, 200).await;
    assert_eq!(kept["topics"][1], json!({ "topic": "user/+/x", "access": "all" }));
    assert_eq!(rest.call("GET", "/products/a1B2c3D4e5F/topics", Value::Null, 200).await, kept);
    let endpoint = json!({ "endpoint": { "host": "mqtt.example.com", "port": 8883 } });
    let changed = rest.call("PUT", "/products/a1B2c3D4e5F", endpoint.clone(), 200).await;
    assert_eq!(changed["endpoint"], endpoint["endpoint"]);
    assert!(changed["product_secret"].is_null());

    rest.call("POST", "/devices", json!({ "product_id": "a1B2c3D4e5F", "node_id": "s:1" }), 201).await;
    let refused = rest.ask("POST", "/devices/a1B2c3D4e5F_s:1/certificate", &Value::Null).await;
    assert_eq!(refused.status, 400, "firmware of that dialect shows none: {refused:?}");

    let body = json!({ "product_id": "t1T2t3T4t5", "name": "tencent", "dialect": "tencent" });
    rest.call("POST", "/products", body, 201).await;
    let device = rest.call("POST", "/devices", json!({ "product_id": "t1T2t3T4t5", "node_id": "s1" }), 201).await;
    let without = rest.ask("POST", "/devices/t1T2t3T4t5_s1/certificate", &Value::Null).await;
    assert_eq!(without.status, 404, "its product has no authority: {without:?}");
    let ca = rest.call("POST", "/products/t1T2t3T4t5/ca", Value::Null, 201).await;
    assert!(ca["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let issued = rest.call("POST", "/devices/t1T2t3T4t5_s1/certificate", Value::Null, 201).await;
    assert!(issued["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
    let shown =
        rest.call("GET", &format!("/devices/{}", device["device_id"].as_str().unwrap()), Value::Null, 200).await;
    assert_eq!(shown["auth_info"]["fingerprint"], issued["fingerprint"]);
    assert_eq!(shown["auth_info"]["auth_type"], "CERTIFICATES");
    let own = json!({ "name": "own", "certificate": ca["certificate"] });
    let own = rest.call("POST", "/certificates", own, 201).await;
    assert_eq!(rest.call("GET", "/certificates", Value::Null, 200).await["certificates"].as_array().unwrap().len(), 2);
    rest.call("DELETE", &format!("/certificates/{}", own["certificate_id"].as_str().unwrap()), Value::Null, 204).await;

    let app = rest.call("POST", "/sensoro-apps", json!({ "qos": 1 }), 201).await;
    assert_eq!(app["app_key"].as_str().unwrap().len(), 43);
    let path = format!("/sensoro-apps/{}", app["app_id"].as_str().unwrap());
    assert_eq!(rest.call("PUT", &path, json!({ "safe_mode": true }), 200).await["qos"], 1);
    let rotated = rest.call("POST", &format!("{path}/reset-secret"), Value::Null, 200).await;
    assert_ne!(rotated["app_secret"], app["app_secret"]);
    let listed = rest.call("GET", "/sensoro-apps", Value::Null, 200).await.to_string();
    assert!(!listed.contains(rotated["app_secret"].as_str().unwrap()));
    rest.call("DELETE", &path, Value::Null, 204).await;

    let (first, second) = (
        rest.call("POST", "/auth/accesscode", json!({ "type": "MQTT" }), 201).await,
        rest.call("POST", "/auth/accesscode", json!({ "type": "MQTT" }), 201).await,
    );
    assert_eq!(first["access_key"].as_str().unwrap().len(), 8);
    assert_ne!(first, second);
    let app = rest.call("POST", "/apps", json!({ "app_name": "space" }), 201).await;
    let path = format!("/apps/{}", app["app_id"].as_str().unwrap());
    assert_eq!(rest.call("PUT", &path, json!({ "app_name": "other" }), 200).await["app_name"], "other");
    rest.call("DELETE", &path, Value::Null, 204).await;
    let default = rest.call("GET", "/apps?default_app=true", Value::Null, 200).await;
    assert_eq!(default["applications"].as_array().unwrap().len(), 1);
}
