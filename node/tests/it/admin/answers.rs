//! Real answers of the calls that REST has: each fits its message, or it would be `INTERNAL`.

use std::collections::BTreeSet;

use fulmar::api;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{Caller, Node};

/// Calls methods, and notes which.
struct Book {
    admin: Caller,
    called: BTreeSet<String>,
}

impl Book {
    async fn well(&mut self, method: &str, document: Value) -> Value {
        self.called.insert(method.to_owned());
        self.admin
            .call(method, document.clone())
            .await
            .unwrap_or_else(|status| panic!("{method} {document}: {status:?}"))
    }

    async fn refused(&mut self, method: &str, document: Value, wanted: Code) -> Status {
        self.called.insert(method.to_owned());
        let status = self.admin.call(method, document).await.expect_err(method);
        assert_eq!(status.code(), wanted, "{method}: {status:?}");
        status
    }
}

fn model() -> Value {
    json!([{
        "service_id": "Meter",
        "service_type": "Meter",
        "properties": [
            { "property_name": "value", "data_type": "decimal", "method": "RW", "min": "0", "max": 9.5, "step": 0.5 },
        ],
        "commands": [{ "command_name": "SET", "paras": [{ "para_name": "v", "data_type": "int" }] }],
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_fits_its_message() {
    let node = Node::start("");
    let mut book = Book { admin: node.admin().await, called: BTreeSet::new() };
    let projects = book.well("Iam/ListProjects", json!({ "name": "eu-north" })).await;
    assert_eq!(projects["projects"][0]["name"], "eu-north");
    let token = book.admin.sign_in("viewer").await;
    assert!(token.call("Apps/List", json!({})).await.is_ok());
    book.called.insert("Iam/CreateToken".to_owned());

    let app = book.well("Apps/Create", json!({ "body": { "app_name": "space" } })).await["app_id"].clone();
    assert_eq!(book.well("Apps/Show", json!({ "app_id": app })).await["default_app"], false);
    assert_eq!(book.well("Apps/List", json!({ "default_app": false })).await["applications"][0]["app_id"], app);
    book.well("Apps/Update", json!({ "app_id": app, "body": { "app_name": "room" } })).await;
    let code =
        book.well("Apps/CreateAccessCode", json!({ "body": { "type": "MQTT", "force_disconnect": true } })).await;
    assert!(code["access_code"].as_str().is_some_and(|code| !code.is_empty()), "{code}");

    products(&mut book, &app).await;
    devices(&mut book, &app).await;
    rules(&mut book, &app).await;
    people(&mut book).await;

    for id in ["p_behind", "p_a", "p_g"] {
        book.well("Devices/Delete", json!({ "device_id": id })).await;
    }
    book.refused("Apps/Delete", json!({ "app_id": app }), Code::FailedPrecondition).await;
    let listed = book.well("Authorities/List", json!({})).await;
    for authority in listed["certificates"].as_array().into_iter().flatten() {
        book.well("Authorities/Delete", json!({ "certificate_id": authority["certificate_id"] })).await;
    }
    book.well("Products/Delete", json!({ "product_id": "p" })).await;
    book.well("Apps/Delete", json!({ "app_id": app })).await;
    let all = api::all().filter(|route| route.in_grpc() && route.http.is_some()).map(|route| route.method());
    let missing: Vec<String> = all.filter(|method| !book.called.contains(method)).collect();
    assert!(missing.is_empty(), "not called: {missing:?}");
}

async fn products(book: &mut Book, app: &Value) {
    let body = json!({
        "product_id": "p", "app_id": app, "name": "Meter", "device_type": "Meter", "protocol_type": "MQTT",
        "data_format": "json", "dialect": "huawei", "service_capabilities": model(),
        "topics": [{ "topic": "user/a", "access": "all" }],
    });
    book.well("Products/Create", json!({ "body": body })).await;
    let endpoint = json!({ "host": "mqtt.example", "port": 1883 });
    book.well("Products/Update", json!({ "product_id": "p", "body": { "endpoint": endpoint } })).await;
    let shown = book.well("Products/Show", json!({ "product_id": "p", "app_id": app })).await;
    assert_eq!((&shown["service_capabilities"], &shown["endpoint"]), (&model(), &endpoint));
    let topics = book.well("Products/Topics", json!({ "product_id": "p" })).await;
    assert_eq!(topics["topics"][0], json!({ "topic": "user/a", "access": "all" }));
    let none = book.well("Products/SetTopics", json!({ "product_id": "p", "body": { "topics": [] } })).await;
    assert_eq!(none, json!({ "product_id": "p" }), "an empty list is another than none");
    book.refused("Products/SetTopics", json!({ "product_id": "p", "body": {} }), Code::InvalidArgument).await;
    let page = book.well("Products/List", json!({ "limit": 1, "product_name": "Meter" })).await;
    assert_eq!((&page["page"]["count"], &page["products"][0]["product_id"]), (&json!(1), &json!("p")));

    let made = book.well("Authorities/CreateProductCa", json!({ "product_id": "p" })).await;
    assert_eq!(made["issues"], true);
    let pem = made["certificate"].as_str().unwrap().to_owned();
    let listed = book.well("Authorities/List", json!({})).await;
    assert_eq!(listed["certificates"][0]["certificate_id"], made["certificate_id"]);
    let body = json!({ "name": "again", "content": pem });
    let again = book.well("Authorities/Upload", json!({ "body": body })).await;
    assert_eq!(again["issues"], false);
    book.well("Authorities/Delete", json!({ "certificate_id": again["certificate_id"] })).await;
}

async fn devices(book: &mut Book, app: &Value) {
    let wish = json!({ "service_id": "Meter", "desired": { "value": 1 } });
    for (node_id, gateway_id) in [("a", None), ("g", None), ("behind", Some("p_a"))] {
        let body = json!({
            "node_id": node_id, "product_id": "p", "app_id": app, "device_name": "one", "shadow": [wish], "gateway_id": gateway_id,
            "extension_info": { "floor": 3, "tags": ["x", null] }, "auth_info": { "timeout": 0 },
        });
        let made = book.well("Devices/Add", json!({ "body": body })).await;
        assert!(made["auth_info"]["secret"].as_str().is_some_and(|secret| !secret.is_empty()), "{made}");
    }
    let body = json!({ "gateway_id": "p_g" });
    book.well("Devices/ChangeGateway", json!({ "device_id": "p_behind", "body": body })).await;
    let body = json!({ "device_name": "renamed", "endpoint": { "host": "h", "port": 1 }, "auth_info": { "secure_access": true } });
    book.well("Devices/Update", json!({ "device_id": "p_a", "body": body })).await;
    let behind = book.well("Devices/Show", json!({ "device_id": "p_behind" })).await;
    assert_eq!(behind["gateway_id"], "p_g");
    let shown = book.well("Devices/Show", json!({ "device_id": "p_a" })).await;
    assert_eq!(shown["device_name"], "renamed");
    assert_eq!(shown["extension_info"], json!({ "floor": 3, "tags": ["x", null] }));
    assert_eq!(shown["auth_info"].get("secret"), None, "shown once");
    let query = json!({ "product_id": "p", "gateway_id": "p_g", "is_cascade_query": true, "limit": 5, "offset": 0 });
    let page = book.well("Devices/List", query).await;
    assert!(page["devices"].as_array().is_some_and(|devices| !devices.is_empty()), "{page}");
    let reset = json!({ "device_id": "p_a", "action_id": "resetSecret", "body": { "secret": "0123456789" } });
    assert_eq!(book.well("Devices/Action", reset).await["secret"], "0123456789");
    let issued = book.well("Devices/IssueCertificate", json!({ "device_id": "p_a" })).await;
    assert!(issued["private_key"].as_str().is_some_and(|key| key.contains("PRIVATE KEY")), "a key");
    let body = json!({ "fingerprint": issued["fingerprint"], "fingerprint_type": "SECONDARY" });
    book.well("Devices/ResetFingerprint", json!({ "device_id": "p_a", "body": body })).await;
    for method in ["Devices/Freeze", "Devices/Unfreeze"] {
        assert_eq!(book.well(method, json!({ "device_id": "p_a" })).await, json!({}));
    }

    let device = json!({ "device_id": "p_a" });
    let shadow = book.well("Shadows/Show", device.clone()).await;
    assert_eq!(shadow["shadow"][0]["desired"]["properties"], json!({ "value": 1 }));
    let body = json!({ "shadow": [{ "service_id": "Meter", "desired": { "value": null }, "version": 1 }] });
    let status = book.admin.call("Shadows/Update", json!({ "device_id": "p_a", "body": body })).await;
    assert!(status.is_ok() || status.as_ref().is_err_and(|s| s.code() == Code::FailedPrecondition), "{status:?}");
    let body = json!({ "shadow": [{ "service_id": "Meter", "desired": { "value": 2.5 } }] });
    let updated = book.well("Shadows/Update", json!({ "device_id": "p_a", "body": body })).await;
    assert_eq!(updated["shadow"][0]["desired"]["properties"]["value"], 2.5);
    let offer = json!({ "type": "firmware", "version": "2", "url": "https://example.org/fw" });
    let offered = json!({ "device_id": "p_a", "body": offer });
    // The device is not connected.
    book.refused("Shadows/OfferUpgrade", offered, Code::FailedPrecondition).await;
    book.refused("Shadows/QueryVersion", device.clone(), Code::FailedPrecondition).await;
    book.well("Shadows/Delete", device.clone()).await;

    let body = json!({ "service_id": "Meter", "command_name": "SET", "paras": { "v": 1 } });
    book.refused("Commands/Create", json!({ "device_id": "p_a", "body": body }), Code::FailedPrecondition).await;
    let body = json!({ "services": [{ "service_id": "Meter", "properties": { "value": 1.5 } }] });
    book.refused("Commands/SetProperties", json!({ "device_id": "p_a", "body": body }), Code::FailedPrecondition).await;
    book.refused("Commands/GetProperties", device.clone(), Code::FailedPrecondition).await;
    let body = json!({ "payload": "aGk=", "encoding": "base64" });
    let status = book.admin.call("Commands/Request", json!({ "device_id": "p_a", "body": body })).await;
    assert!(matches!(status.expect_err("no RRPC").code(), Code::FailedPrecondition | Code::InvalidArgument));
    book.called.insert("Commands/Request".to_owned());
    for method in ["Commands/CreateAsync", "Commands/ListAsync"] {
        book.refused(method, device.clone(), Code::InvalidArgument).await;
    }
    let one = json!({ "device_id": "p_a", "command_id": "c" });
    book.refused("Commands/ShowAsync", one, Code::InvalidArgument).await;

    messages(book, &device).await;
    tasks(book, app).await;
}

async fn messages(book: &mut Book, device: &Value) {
    let properties = json!({ "correlation_data": "c", "user_properties": [{ "prop_key": "k", "prop_value": "v" }] });
    let body =
        json!({ "message": { "text": "hi", "n": [1, 2.5] }, "name": "greeting", "ttl": 60, "properties": properties });
    let sent = book.well("Messages/Create", json!({ "device_id": "p_a", "body": body })).await;
    assert_eq!(sent["result"]["status"], "PENDING");
    let one = json!({ "device_id": "p_a", "message_id": sent["message_id"] });
    let shown = book.well("Messages/Show", one.clone()).await;
    assert_eq!((&shown["message"], &shown["name"]), (&json!({ "text": "hi", "n": [1, 2.5] }), &json!("greeting")));
    let text = json!({ "device_id": "p_a", "body": { "message": "text" } });
    book.well("Messages/Create", text).await;
    let listed = book.well("Messages/List", device.clone()).await;
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(2));
    assert_eq!(book.well("Messages/Delete", one).await, json!({}));
    let body = json!({ "topic_full_name": "$oc/broadcast/news", "message": "aGVsbG8=" });
    assert_eq!(book.well("Messages/Broadcast", json!({ "body": body })).await["topic_full_name"], "$oc/broadcast/news");
}

async fn tasks(book: &mut Book, app: &Value) {
    let body = json!({
        "app_id": app, "task_name": "freeze", "task_type": "freezeDevices", "targets": ["p_a", "p_nobody"],
        "task_policy": { "retry_count": 1, "retry_interval": 1 },
    });
    let task = book.well("BatchTasks/Create", json!({ "body": body })).await["task_id"].clone();
    let body = json!({
        "app_id": app, "task_name": "later", "task_type": "createMessages",
        "targets_filter": { "product_id": "p" }, "document": { "message": "hi" },
    });
    let filtered = book.admin.call("BatchTasks/Create", json!({ "body": body })).await;
    assert!(!filtered.is_err_and(|status| status.code() == Code::Internal));
    let shown = book.well("BatchTasks/Show", json!({ "task_id": task, "limit": 5 })).await;
    assert_eq!(shown["batchtask"]["task_name"], "freeze");
    let listed = book.well("BatchTasks/List", json!({ "app_id": app, "task_type": "freezeDevices" })).await;
    assert_eq!(listed["batchtasks"][0]["task_id"], task);
    for method in ["BatchTasks/Stop", "BatchTasks/Retry", "BatchTasks/Confirm"] {
        let one = json!({ "task_id": task, "body": { "targets": ["p_a"] } });
        let outcome = book.admin.call(method, one).await;
        book.called.insert(method.to_owned());
        assert!(
            !outcome.as_ref().is_err_and(|status| status.code() != Code::FailedPrecondition),
            "{method}: {outcome:?}"
        );
    }
    // It may still be under way.
    let deleted = book.admin.call("BatchTasks/Delete", json!({ "task_id": task })).await;
    book.called.insert("BatchTasks/Delete".to_owned());
    assert!(!deleted.as_ref().is_err_and(|status| status.code() != Code::FailedPrecondition), "{deleted:?}");
}

async fn rules(book: &mut Book, app: &Value) {
    let body = json!({
        "rule_name": "r", "subject": { "resource": "device.property", "event": "report" }, "app_type": "GLOBAL",
        "select": "notify_data.body as body", "where": "notify_data.header.device_id = 'd'", "guarantee": "durable",
    });
    let created = book.admin.call("Rules/Create", json!({ "body": body })).await;
    let plain = json!({ "rule_name": "r", "subject": { "resource": "device.property", "event": "report" } });
    let rule = match created {
        Ok(rule) => rule,
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            book.well("Rules/Create", json!({ "body": plain })).await
        }
    };
    book.called.insert("Rules/Create".to_owned());
    let id = rule["rule_id"].clone();
    book.well("Rules/Show", json!({ "rule_id": id })).await;
    book.well("Rules/List", json!({ "active": false, "limit": 10 })).await;
    let body = json!({ "rule_id": id, "channel": "MQTT_FORWARDING", "channel_detail": { "mqtt_forwarding": { "topic": "it/a" } } });
    let action = book.well("Rules/CreateAction", json!({ "body": body })).await["action_id"].clone();
    assert_eq!(book.well("Rules/ShowAction", json!({ "action_id": action })).await["channel"], "MQTT_FORWARDING");
    assert_eq!(book.well("Rules/ListActions", json!({ "rule_id": id })).await["count"], 1);
    let body = json!({ "channel": "MQTT_FORWARDING", "channel_detail": { "mqtt_forwarding": { "topic": "it/b" } } });
    book.well("Rules/UpdateAction", json!({ "action_id": action, "body": body })).await;
    book.well("Rules/Update", json!({ "rule_id": id, "body": { "active": true } })).await;
    let status = book.well("Rules/Status", json!({ "rule_id": id })).await;
    assert_eq!((&status["active"], status["actions"].as_array().map(Vec::len)), (&json!(true), Some(1)));
    let header = json!({ "device_id": "d", "app_id": app });
    let event = json!({
        "resource": "device.property", "event": "report", "event_time": "20151212T121212Z",
        "notify_data": { "header": header, "body": { "services": [] } },
    });
    let tried = book.well("Rules/Test", json!({ "rule_id": id, "body": { "event": event } })).await;
    assert!(tried.get("matched").is_some(), "{tried}");
    let trial = json!({ "event": event, "select": "*", "where": "1 = " });
    let tried = book.admin.call("Rules/TestTexts", json!({ "body": trial })).await;
    book.called.insert("Rules/TestTexts".to_owned());
    assert!(!tried.as_ref().is_err_and(|status| status.code() != Code::InvalidArgument), "{tried:?}");
    book.well("Rules/DeleteAction", json!({ "action_id": action })).await;
    book.well("Rules/Update", json!({ "rule_id": id, "body": { "active": false } })).await;
    book.well("Rules/Delete", json!({ "rule_id": id })).await;
}

async fn people(book: &mut Book) {
    let body = json!({ "name": "ada", "password": "long enough", "role": "viewer" });
    book.well("People/CreateUser", json!({ "body": body })).await;
    book.well("People/UpdateUser", json!({ "user_name": "ada", "body": { "role": "operator" } })).await;
    let users = book.well("People/ListUsers", json!({})).await;
    assert!(users["users"].as_array().is_some_and(|users| users.len() == 4), "{users}");
    let key = book.well("People/CreateAccessKey", json!({ "body": { "user": "ada" } })).await;
    assert!(key["secret_key"].as_str().is_some_and(|key| !key.is_empty()));
    let listed = book.well("People/ListAccessKeys", json!({})).await;
    assert!(!listed.to_string().contains(key["secret_key"].as_str().unwrap()), "shown once");
    book.well("People/DeleteAccessKey", json!({ "access_key": key["access_key"] })).await;
    book.well("People/DeleteUser", json!({ "user_name": "ada" })).await;

    let made = book.well("Sensoro/Create", json!({ "body": { "app_id": "plaza", "qos": 1, "safe_mode": true } })).await;
    assert!(made["app_secret"].as_str().is_some_and(|secret| !secret.is_empty()), "{made}");
    let body = json!({ "qos": 0 });
    assert_eq!(book.well("Sensoro/Update", json!({ "sensoro_app_id": "plaza", "body": body })).await["qos"], 0);
    assert_eq!(book.well("Sensoro/List", json!({})).await["sensoro_apps"][0]["app_id"], "plaza");
    let rotated = book.well("Sensoro/RotateSecret", json!({ "sensoro_app_id": "plaza" })).await;
    assert_ne!(rotated["app_secret"], made["app_secret"]);
    let pushed =
        book.admin.call("Sensoro/Push", json!({ "sensoro_app_id": "plaza", "body": { "sn": "1", "data": {} } })).await;
    book.called.insert("Sensoro/Push".to_owned());
    assert!(!pushed.as_ref().is_err_and(|status| status.code() == Code::Internal), "{pushed:?}");
    book.well("Sensoro/Delete", json!({ "sensoro_app_id": "plaza" })).await;
    book.refused("Authorities/Delete", json!({ "certificate_id": "0123456789abcdef01234567" }), Code::NotFound).await;
}
