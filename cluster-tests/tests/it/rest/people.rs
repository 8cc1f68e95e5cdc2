//! Who may do what, and who is not let in.

use serde_json::{Value, json};

use super::{Rest, cluster, product, request, sign_in};

#[tokio::test]
async fn each_role_may_do_what_it_may() {
    let (fulmar, doors) = cluster(2, &[]).await;
    let admin = Rest::demo(&fulmar, doors[0]).await;
    for (name, role) in [("eyes", "viewer"), ("hands", "operator")] {
        admin.call("POST", "/users", json!({ "name": name, "password": "12345678", "role": role }), 201).await;
    }
    // At the other node, at once.
    let viewer = Rest::user(doors[1], "eyes", "12345678").await;
    let operator = Rest::user(doors[1], "hands", "12345678").await;
    for path in ["/products", "/devices", "/apps", "/certificates", "/sensoro-apps"] {
        viewer.call("GET", path, Value::Null, 200).await;
    }
    let refused = viewer.ask("POST", "/products", &product("p")).await;
    assert_eq!((refused.status, refused.error().0), (403, "IOTDA.000021"));
    operator.call("POST", "/products", product("p"), 201).await;
    for (method, path) in [
        ("GET", "/users"),
        ("POST", "/users"),
        ("POST", "/access-keys"),
        ("POST", "/auth/accesscode"),
        ("POST", "/certificates"),
    ] {
        for who in [&viewer, &operator] {
            assert_eq!(who.ask(method, path, &Value::Null).await.status, 403, "{method} {path}");
        }
    }
    // A changed role counts at once; a changed password makes tokens void.
    admin.call("PUT", "/users/eyes", json!({ "role": "operator" }), 200).await;
    viewer.call("POST", "/products", product("q"), 201).await;
    admin.call("PUT", "/users/eyes", json!({ "password": "87654321" }), 200).await;
    assert_eq!(viewer.ask("GET", "/products", &Value::Null).await.status, 401);
    admin.call("DELETE", "/users/hands", Value::Null, 204).await;
    assert_eq!(operator.ask("GET", "/products", &Value::Null).await.status, 401);
    let key = admin.call("POST", "/access-keys", json!({ "user": "eyes" }), 201).await;
    let listed = admin.call("GET", "/access-keys", Value::Null, 200).await.to_string();
    assert!(
        listed.contains(key["access_key"].as_str().unwrap()) && !listed.contains(key["secret_key"].as_str().unwrap())
    );
    let users = admin.call("GET", "/users", Value::Null, 200).await.to_string();
    assert!(!users.contains("argon2") && !users.contains("password"), "{users}");
}

#[tokio::test]
async fn whoever_guesses_is_locked_out_for_a_time() {
    let env = [("FULMAR__REST__SIGN_IN_FAILURES_MAX", "3"), ("FULMAR__REST__SIGN_IN_LOCK", "3s")];
    let (fulmar, doors) = cluster(1, &env).await;
    let known = fulmar.endpoints().credentials["rest"].clone();
    let password = known["password"].as_str().unwrap();
    for number in 0..3 {
        let wrong = sign_in(doors[0], "demo", "wrong").await;
        assert_eq!((wrong.status, &wrong.json["error"]["code"]), (401, &json!(401)), "try {number}: {wrong:?}");
        assert!(wrong.header("x-subject-token").is_none());
    }
    let locked = sign_in(doors[0], "demo", password).await;
    assert_eq!(locked.status, 429, "even the right password waits: {locked:?}");
    tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
    assert_eq!(sign_in(doors[0], "demo", password).await.status, 201);
    let endless = sign_in(doors[0], &"x".repeat(129), password).await;
    assert_eq!(endless.status, 400, "{endless:?}");
    // Nobody locks an access key by guessing at it.
    let authorization = "SDK-HMAC-SHA256 Access=GUESSED, SignedHeaders=host;x-sdk-date, Signature=00";
    let headers = [("Authorization", authorization), ("X-Sdk-Date", "20261121T120000Z")];
    for _ in 0..20 {
        let refused = request(doors[0], "GET", "/v5/iot/fulmar/products", &headers, b"").await;
        assert_eq!((refused.status, refused.error().0), (401, "IOTDA.000002"));
    }
    assert_eq!(sign_in(doors[0], "demo", password).await.status, 201, "and passwords are not locked for it");
}

#[tokio::test]
async fn only_what_was_given_out_is_taken() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let path = "/v5/iot/fulmar/products";
    let mut changed = rest.token.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    for headers in [
        vec![],
        vec![("X-Auth-Token", "")],
        vec![("X-Auth-Token", "f1.a.b.c.d")],
        vec![("X-Auth-Token", changed.as_str())],
        vec![("X-Auth-Token", rest.token.as_str()), ("X-Auth-Token", rest.token.as_str())],
        vec![("Authorization", "Basic YTpi"), ("X-Auth-Token", rest.token.as_str())],
        vec![("Authorization", "SDK-ECDSA-P256-SHA256 Access=a, SignedHeaders=host;x-sdk-date, Signature=00")],
    ] {
        let refused = request(doors[0], "GET", path, &headers, b"").await;
        assert_eq!((refused.status, refused.error().0), (401, "IOTDA.000002"), "{headers:?}");
    }
    for (scope, status) in [
        (json!({ "project": { "id": "fulmar" } }), 201),
        (json!({ "domain": { "name": "fulmar" } }), 201),
        (Value::Null, 201),
        (json!({ "project": { "name": "other" } }), 401),
        (json!({ "domain": { "id": "other" } }), 401),
    ] {
        let known = &fulmar.endpoints().credentials["rest"];
        let mut body = super::sign_in_body("demo", known["password"].as_str().unwrap());
        body["auth"]["scope"] = scope.clone();
        let answer = request(doors[0], "POST", "/v3/auth/tokens", &[], body.to_string().as_bytes()).await;
        assert_eq!(answer.status, status, "{scope}: {answer:?}");
    }
    for body in ["", "{", "[]", "{\"auth\":1}", "{\"auth\":{\"identity\":{\"methods\":[\"token\"]}}}"] {
        let answer = request(doors[0], "POST", "/v3/auth/tokens", &[], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
}
