//! Requests that the Python SDK (huaweicloudsdkcore 3.1.219) has signed and sent, as they arrived.

use std::collections::BTreeMap;

use fulmar_platform::Secret;
use serde::Deserialize;

use super::*;

const SECRET_KEY: &str = "SKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSK";

#[derive(Debug, Clone, Deserialize)]
struct Vector {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("signature_vectors.json")).expect("vectors");
    assert_eq!(vectors.len(), 8);
    vectors
}

impl Vector {
    fn verify(&self, secret_key: &str, now_s: u64) -> Result<(), Bad> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let header = |name: &str| self.headers.get(name).cloned();
        let request = Request { method: &self.method, path, query, header: &header, body: self.body.as_bytes() };
        Signed::read(&self.headers["authorization"])?.verify(&request, &Secret::new(secret_key), now_s)
    }

    fn at_s(&self) -> u64 {
        fulmar_platform::dialect::time::parse_compact(&self.headers["x-sdk-date"]).expect("a date")
    }

    fn with(&self, name: &str, change: impl Fn(&str) -> String) -> Vector {
        let mut vector = self.clone();
        let value = change(vector.headers.get(name).map_or("", String::as_str));
        vector.headers.insert(name.to_owned(), value);
        vector
    }
}

#[test]
fn what_the_sdk_signs_is_taken_within_fifteen_minutes() {
    for vector in vectors() {
        let at_s = vector.at_s();
        for now_s in [at_s - 900, at_s, at_s + 900] {
            assert_eq!(vector.verify(SECRET_KEY, now_s), Ok(()), "{vector:?}");
        }
        for now_s in [at_s - 901, at_s + 901] {
            assert_eq!(vector.verify(SECRET_KEY, now_s), Err(Bad::Skew));
        }
        assert_eq!(vector.verify("SKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSKSk", at_s), Err(Bad::Signature));
    }
}

#[test]
fn whatever_is_changed_is_noticed() {
    for vector in vectors() {
        let refused = |changed: &Vector, why: Bad| {
            assert_eq!(changed.verify(SECRET_KEY, vector.at_s()), Err(why), "{changed:?}");
        };
        refused(&Vector { method: "PATCH".into(), ..vector.clone() }, Bad::Signature);
        refused(&Vector { target: vector.target.replace("project1", "project2"), ..vector.clone() }, Bad::Signature);
        refused(&Vector { target: format!("{}&a=b", vector.target), ..vector.clone() }, Bad::Signature);
        refused(&Vector { body: format!("{} ", vector.body), ..vector.clone() }, Bad::Signature);
        refused(&vector.with("host", |_| "other".into()), Bad::Signature);
        refused(&vector.with("x-sdk-date", |date| date.replace('Z', "")), Bad::Date);
        let authorization =
            |from: &'static str, to: &'static str| vector.with("authorization", move |value| value.replace(from, to));
        refused(&authorization("host;", ""), Bad::Headers);
        refused(&authorization(";x-sdk-date", ""), Bad::Headers);
        refused(&authorization("x-sdk-date,", "x-sdk-date;absent,"), Bad::Headers);
        refused(&authorization("HMAC-SHA256", "HMAC-SM3"), Bad::Algorithm);
        refused(&authorization("Signature=", "Signature=zz"), Bad::Malformed);
        refused(&authorization("Signature=", "Signature=00"), Bad::Signature);
        refused(&authorization("SignedHeaders=", "Headers="), Bad::Malformed);
        refused(&vector.with("authorization", |_| String::new()), Bad::Malformed);
        if vector.headers["authorization"].starts_with("V11") {
            refused(&authorization("/iotdm", "/other"), Bad::Signature);
            refused(&authorization("/iotdm", ""), Bad::Malformed);
            refused(&authorization("/2", "/3"), Bad::Date);
        }
    }
}

#[test]
fn a_body_that_names_its_hash_must_have_it() {
    let vector = vectors().into_iter().find(|vector| !vector.body.is_empty()).expect("one with a body");
    let named = vector.with("x-sdk-content-sha256", |_| hex::encode(Sha256::digest(vector.body.as_bytes())));
    assert_eq!(named.verify(SECRET_KEY, vector.at_s()), Ok(()));
    let wrong = vector.with("x-sdk-content-sha256", |_| "0".repeat(64));
    assert_eq!(wrong.verify(SECRET_KEY, vector.at_s()), Err(Bad::Content));
    let left_out = vector.with("x-sdk-content-sha256", |_| "UNSIGNED-PAYLOAD".into());
    assert_eq!(left_out.verify(SECRET_KEY, vector.at_s()), Err(Bad::Signature), "it was signed with the body");
}
