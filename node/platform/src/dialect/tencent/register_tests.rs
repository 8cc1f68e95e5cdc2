use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::http::{named, not_committed, register, throttled};
use super::{BASE64, Digest, hmac};
use crate::Dialect;
use crate::dialect::HttpAnswer;
use crate::dialect::crypto::sha1;
use crate::dialect::fixture::{Client, NOW_MS, alter, alter_product, apply, registry};
use crate::registry::{AuthKind, Registration, Registry};

const BODY: &str = r#"{"ProductId":"ABCDE12345","DeviceName":"dev001"}"#;
const HOST: &str = "ap-guangzhou.gateway.tencentdevices.com";
const BY_C: [&str; 4] = ["hmacsha1", "1609430400", "460744094", "l5ARM4lU7MWJe0xq/gsnRueOp1Q="];
const BY_PYTHON: [&str; 4] = ["hmacsha256", "1700000000", "12345", "iFRj4IxkcmKm6rXKAJ3l/qGoXRWVUiW2e5Y69OZsrN0="];

fn ask(registry: &Registry, host: &str, values: [&str; 4], body: &str) -> HttpAnswer {
    let names = ["x-tc-algorithm", "x-tc-timestamp", "x-tc-nonce", "x-tc-signature"];
    let headers = |name: &str| {
        let value = names.iter().zip(values).find(|(known, _)| **known == name)?.1;
        (!value.is_empty()).then(|| value.to_owned())
    };
    register(host, &headers, body.as_bytes(), registry, NOW_MS, [5; 32])
}

fn open(registration: Registration) -> Registry {
    let mut registry = registry();
    alter_product(&mut registry, "ABCDE12345", |product| product.registration = registration);
    registry
}

/// `Code` of an answer that refuses.
fn code(answer: &HttpAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert!(answer.changes.is_empty() && body["Response"]["RequestId"].is_string());
    body["Response"]["Error"]["Code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn registration_vectors() {
    let registry = open(Registration::Known);
    let payload = "TZiXpI5j3ulZeS1izWx5LinLwJlT9DvKdh1sHVPPRYnrP2bvs3OebGd8o72CWVzQhUSMnA981gqXR4gkl9JdhsTJvMz9kATc59evXJNdHgPs\
                   iGoW6EWTeenipa61P8ig";
    for (values, host) in [(BY_C, HOST), (BY_PYTHON, HOST), (BY_PYTHON, &format!("{HOST}:80"))] {
        let answer = ask(&registry, host, values, BODY);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let response = &body["Response"];
        assert_eq!((&response["Len"], &response["Payload"]), (&json!(96), &json!(payload)), "{}", answer.body);
        assert!(answer.changes.is_empty() && response["RequestId"].as_str().is_some_and(|id| id.len() == 36));
        assert!(!answer.body.contains(": "), "compact");
    }
}

#[test]
fn registration_is_refused() {
    let mut registry = open(Registration::Known);
    let wrong = [BY_C[0], BY_C[1], BY_C[2], BY_PYTHON[3]];
    for (what, answer, expected) in [
        ("wrong signature", ask(&registry, HOST, wrong, BODY), "AuthFailure.SignatureFailure"),
        ("another host", ask(&registry, "else", BY_C, BODY), "AuthFailure.SignatureFailure"),
        ("another body", ask(&registry, HOST, BY_C, &BODY.replace("001", "002")), "AuthFailure.SignatureFailure"),
        ("unknown product", ask(&registry, HOST, BY_C, &BODY.replace("345", "346")), "AuthFailure.SignatureFailure"),
        (
            "another dialect",
            ask(&registry, HOST, BY_C, &BODY.replace("ABCDE12345", "prod1")),
            "AuthFailure.SignatureFailure",
        ),
        ("no signature", ask(&registry, HOST, ["hmacsha1", "1", "1", ""], BODY), "MissingParameter"),
        ("RSA", ask(&registry, HOST, ["rsa-sha256", "1", "1", "x"], BODY), "InvalidParameterValue"),
        ("no JSON", ask(&registry, HOST, BY_C, "no JSON"), "InvalidParameter"),
        ("off", ask(&open(Registration::Off), HOST, BY_C, BODY), "UnauthorizedOperation"),
    ] {
        assert_eq!(code(&answer), expected, "{what}");
    }
    registry.connected("ABCDE12345_dev001", 1, NOW_MS, None, &mut Vec::new());
    assert_eq!(code(&ask(&registry, HOST, BY_C, BODY)), "UnauthorizedOperation", "it has connected once");
    let mut registry = open(Registration::Open);
    alter(&mut registry, "ABCDE12345_dev001", |device| device.auth.kind = AuthKind::Certificate);
    assert_eq!(code(&ask(&registry, HOST, BY_C, BODY)), "UnsupportedOperation");
    let error = not_committed([5; 32]);
    assert_eq!(code(&HttpAnswer { body: error, granted: false, changes: Vec::new() }), "InternalError");
    let body = throttled([7; 32]);
    assert_eq!(code(&HttpAnswer { body, granted: false, changes: Vec::new() }), "RequestLimitExceeded");
    assert_eq!(named(BODY.as_bytes()), Some(("ABCDE12345".to_owned(), "dev001".to_owned())));
    assert_eq!(named(b"{}"), None);
}

#[test]
fn unknown_devices_are_added_where_the_product_is_open() {
    let sign = |body: &str| {
        let text = format!("POST\n{HOST}\n/device/register\n\nhmacsha1\n1\n2\n{}", hex::encode(sha1(body.as_bytes())));
        let mac = hmac(Digest::Sha1, b"PSPSPSPSPSPSPSPSPSPSPSPS", text.as_bytes());
        BASE64.encode(mac)
    };
    let body = BODY.replace("dev001", "new-1");
    let ask = |registry: &Registry, body: &str| ask(registry, HOST, ["hmacsha1", "1", "2", &sign(body)], body);
    assert_eq!(code(&ask(&open(Registration::Known), &body)), "ResourceNotFound");
    let mut registry = open(Registration::Open);
    let answer = ask(&registry, &body);
    assert!(answer.body.contains("Payload") && answer.changes.len() == 1, "{}", answer.body);
    apply(&mut registry, &answer.changes[0]);
    let secret = registry.device_of("ABCDE12345", "new-1").unwrap().0.record.auth.secret.clone().unwrap();
    let key = BASE64.decode(secret.expose()).unwrap();
    assert_eq!(key.len(), 16);
    // Asked again before it has connected, it gets the same.
    let again = ask(&registry, &body);
    assert!(again.changes.is_empty() && again.body == answer.body);
    // And with it, it connects.
    let user = "ABCDE12345new-1;1;a;4102444800";
    let token = hex::encode(hmac(Digest::Sha256, &key, user.as_bytes()));
    let client = Client::new("ABCDE12345new-1", user, &format!("{token};hmacsha256"));
    assert_eq!(client.outcome(&registry), Ok(Dialect::Tencent));
    for bad in ["", "a/b", "a b", "\\u00e9", &"n".repeat(49)] {
        assert_eq!(code(&ask(&registry, &BODY.replace("dev001", bad))), "InvalidParameterValue", "{bad}");
    }
}

proptest! {
    #[test]
    fn no_registration_panics(
        host in "\\PC{0,9}",
        value in "\\PC{0,9}",
        body in "(\\{\"ProductId\":\"ABCDE12345\",\"DeviceName\":\")?\\PC{0,20}(\"\\})?",
    ) {
        let answer = ask(&open(Registration::Open), &host, ["hmacsha1", &value, &value, &value], &body);
        prop_assert!(serde_json::from_str::<Value>(&answer.body).is_ok());
    }
}
