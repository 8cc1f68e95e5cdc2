//! Bad input: each error says what was wrong.

use serde_json::{Value, json};

use super::{Rest, cluster, product, request};

#[tokio::test]
async fn errors_say_what_was_wrong() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let id = rest.call("POST", "/products", product("p"), 201).await["product_id"].clone();
    let with = |changes: Value| {
        let mut body = product("p");
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let device = |changes: Value| {
        let mut body = json!({ "product_id": id, "node_id": "n" });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let bad = "IOTDA.000006";
    let rows: Vec<(&str, &str, Value, u16, &str, &str)> = vec![
        ("POST", "/products", json!([]), 400, bad, "body must be an object"),
        ("POST", "/products", json!({}), 400, bad, "name is required"),
        ("POST", "/products", with(json!({ "name": 5 })), 400, bad, "name must be a string"),
        ("POST", "/products", with(json!({ "name": "x".repeat(65) })), 400, bad, "name must have 1 to 64"),
        ("POST", "/products", with(json!({ "data_format": "xml" })), 400, bad, "data_format must be json or binary"),
        ("POST", "/products", with(json!({ "product_id": "a/b" })), 400, bad, "product_id must be"),
        (
            "POST",
            "/products",
            with(json!({ "dialect": "tencent", "product_id": "short" })),
            400,
            bad,
            "product_id must be 10",
        ),
        (
            "POST",
            "/products",
            with(json!({ "dialect": "aliyun", "product_id": "sys" })),
            400,
            bad,
            "product_id must not",
        ),
        ("POST", "/products", with(json!({ "product_id": id })), 409, "FULMAR.000002", "already exists"),
        ("POST", "/products", with(json!({ "dialect": "other" })), 400, bad, "dialect must be huawei or aliyun"),
        ("POST", "/products", with(json!({ "app_id": "none" })), 403, "IOTDA.001000", "resource space none"),
        (
            "POST",
            "/products",
            with(
                json!({ "service_capabilities": [{ "service_id": "S", "properties": [{ "property_name": "a.b" }] }] }),
            ),
            400,
            bad,
            "service_capabilities[0] (S).properties[0].property_name \"a.b\"",
        ),
        ("POST", "/products", with(json!({ "topics": [{ "topic": "#/a" }] })), 400, bad, "topics[0].topic"),
        ("POST", "/products", with(json!({ "endpoint": { "host": "h" } })), 400, bad, "endpoint must be"),
        ("PUT", "/products/none", json!({}), 404, "FULMAR.000001", "product none does not exist"),
        ("POST", "/devices", json!({ "product_id": id }), 400, bad, "node_id is required"),
        ("POST", "/devices", device(json!({ "node_id": "a b" })), 400, bad, "node_id must be"),
        ("POST", "/devices", device(json!({ "device_id": "x".repeat(129) })), 400, bad, "device_id must be"),
        ("POST", "/devices", device(json!({ "product_id": "none" })), 404, "FULMAR.000001", "product none"),
        ("POST", "/devices", device(json!({ "gateway_id": "none" })), 404, "IOTDA.014000", "device none"),
        (
            "POST",
            "/devices",
            device(json!({ "auth_info": { "secret": "short" } })),
            400,
            bad,
            "auth_info.secret must be",
        ),
        ("POST", "/devices", device(json!({ "auth_info": { "auth_type": "NONE" } })), 400, bad, "auth_info.auth_type"),
        (
            "POST",
            "/devices",
            device(json!({ "auth_info": { "fingerprint": "00" } })),
            400,
            bad,
            "auth_info.fingerprint",
        ),
        ("POST", "/devices", device(json!({ "auth_info": { "timeout": -1 } })), 400, bad, "auth_info.timeout must be"),
        (
            "POST",
            "/devices",
            device(json!({ "extension_info": { "a": "x".repeat(2000) } })),
            400,
            bad,
            "extension_info",
        ),
        ("GET", "/devices?limit=51", Value::Null, 400, "IOTDA.000017", "limit"),
        ("GET", "/devices?limit=x", Value::Null, 400, "IOTDA.000017", "limit"),
        ("GET", "/devices?offset=501", Value::Null, 400, "IOTDA.000018", "offset"),
        ("GET", "/devices?marker=12", Value::Null, 400, "IOTDA.000018", "marker"),
        ("GET", "/devices?start_time=2020", Value::Null, 400, "IOTDA.000009", "start_time"),
        (
            "GET",
            "/devices?start_time=20210101T000000Z&end_time=20200101T000000Z",
            Value::Null,
            400,
            "IOTDA.000010",
            "start_time",
        ),
        ("GET", "/devices?is_cascade_query=maybe", Value::Null, 400, bad, "is_cascade_query must be true or false"),
        ("GET", "/devices?device_name=%ff", Value::Null, 400, bad, "UTF-8"),
        ("POST", "/devices/none/action?action_id=other", json!({}), 400, bad, "action_id must be resetSecret"),
        ("POST", "/devices/none/freeze", Value::Null, 404, "IOTDA.014000", "device none does not exist"),
        ("POST", "/auth/accesscode", json!({ "type": "FTP" }), 400, bad, "type must be AMQP or MQTT"),
        ("POST", "/certificates", json!({ "name": "a", "certificate": "x" }), 400, bad, "certificate must be"),
        ("POST", "/sensoro-apps", json!({ "qos": 2 }), 400, bad, "qos must be"),
        ("POST", "/sensoro-apps", json!({ "callback_url": "ftp://x" }), 400, bad, "callback_url must be"),
        (
            "POST",
            "/users",
            json!({ "name": "u", "password": "short", "role": "viewer" }),
            400,
            bad,
            "password must have",
        ),
        ("POST", "/users", json!({ "name": "u", "password": "12345678", "role": "root" }), 400, bad, "role must be"),
        ("POST", "/access-keys", json!({ "user": "none" }), 404, "FULMAR.000001", "user none does not exist"),
        ("DELETE", "/apps/DefaultApp", Value::Null, 400, bad, "default resource space"),
        ("GET", "/nothing", Value::Null, 404, "FULMAR.000404", "no such path"),
        ("PATCH", "/devices", Value::Null, 405, "FULMAR.000405", "POST, GET"),
    ];
    for (method, path, body, status, code, says) in rows {
        let answer = rest.ask(method, path, &body).await;
        let (given, message) = answer.error();
        assert_eq!((answer.status, given), (status, code), "{method} {path} {body}: {answer:?}");
        assert!(message.contains(says), "{method} {path} {body}: {message}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
    }
    for body in [&b"{"[..], b"\xff\xfe", b"{\"a\":1}x"] {
        let answer = rest.send("POST", "/products", body).await;
        assert_eq!((answer.status, answer.error().0), (400, "IOTDA.000008"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_has_a_bound_and_a_project_is_the_clusters() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let answer = rest.send("POST", "/products", &vec![b' '; (1 << 20) + 1]).await;
    assert_eq!((answer.status, answer.error().0), (413, "FULMAR.000413"));
    let token = [("X-Auth-Token", rest.token.as_str())];
    let other = request(rest.at, "GET", "/v5/iot/other/devices", &token, b"").await;
    assert_eq!((other.status, other.error().0), (403, "IOTDA.000021"));
    let named = [token[0], ("X-Project-Id", "other")];
    let other = request(rest.at, "GET", &format!("/v5/iot/{}/devices", rest.project), &named, b"").await;
    assert_eq!(other.status, 403);
    let projects = request(rest.at, "GET", "/v3/projects?name=cn-north-4", &token, b"").await;
    assert_eq!(projects.json["projects"].as_array().unwrap().len(), 1);
    assert_eq!(projects.json["projects"][0]["id"], rest.project.as_str());
}
