//! Dynamic registration: a device that knows its product's secret asks for its own.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::dialect::crypto::{Digest, aes_cbc_encrypt, hmac, sha1, sha256};
use crate::dialect::{HttpAnswer, uuid};
use crate::registry::{Auth, AuthKind, Change, Device, Expect, Product, Record, Registration, Registry};
use crate::{Dialect, Secret};

const PATH: &str = "/device/register";

const DEVICE_NAME_BYTES_MAX: usize = 48;

const IV: [u8; 16] = [b'0'; 16];

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "ProductId")]
    product_id: String,
    #[serde(rename = "DeviceName")]
    device_name: String,
}

/// `Code` and `Message` of an answer that refuses.
type Failure = (&'static str, &'static str);

const SIGNATURE: Failure = ("AuthFailure.SignatureFailure", "the signature is not right");
const REFUSED: Failure = ("UnauthorizedOperation", "the device may not register itself");

/// Answers `POST /device/register`. `host`: the `Host` header; `headers`: the value of a header by its name in lower
/// case. Registers a device that is there and never connected, or adds one where the product is open to any. The status
/// of HTTP is always 200.
#[must_use]
pub fn register(
    host: &str,
    headers: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    registry: &Registry,
    now_ms: u64,
    entropy: [u8; 32],
) -> HttpAnswer {
    match try_register(host, headers, body, registry, now_ms, &entropy) {
        Ok((payload, changes)) => {
            let response = json!({
                "Len": payload.len(), "Payload": BASE64.encode(&payload), "RequestId": request_id(&entropy),
            });
            HttpAnswer { body: json!({ "Response": response }).to_string(), granted: true, changes }
        }
        Err(failure) => HttpAnswer { body: failed(failure, &entropy), granted: false, changes: Vec::new() },
    }
}

/// The answer where a change of [`register`] was rejected.
#[must_use]
pub fn not_committed(entropy: [u8; 32]) -> String {
    failed(("InternalError", "the device could not be registered"), &entropy)
}

/// The answer to a client that asks too often.
#[must_use]
pub fn throttled(entropy: [u8; 32]) -> String {
    failed(("RequestLimitExceeded", "too many requests"), &entropy)
}

/// Which device of which product a request of [`register`] is about, if it says so.
#[must_use]
pub fn named(body: &[u8]) -> Option<(String, String)> {
    serde_json::from_slice::<Request>(body).ok().map(|request| (request.product_id, request.device_name))
}

fn failed((code, message): Failure, entropy: &[u8; 32]) -> String {
    let response = json!({"Error": {"Code": code, "Message": message}, "RequestId": request_id(entropy)});
    json!({ "Response": response }).to_string()
}

/// Says nothing about the secret that is made of the same entropy.
fn request_id(entropy: &[u8; 32]) -> String {
    uuid(half(sha256(&[entropy.as_slice(), b"request"].concat())))
}

fn half(bytes: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| bytes[at])
}

fn try_register(
    host: &str,
    headers: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    registry: &Registry,
    now_ms: u64,
    entropy: &[u8; 32],
) -> Result<(Vec<u8>, Vec<Change>), Failure> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|_| ("InvalidParameter", "the body is not {\"ProductId\":...,\"DeviceName\":...}"))?;
    let product = registry.product(&request.product_id).filter(|product| product.record.dialect == Dialect::Tencent);
    // Whoever cannot sign does not learn which products there are.
    let product = &*product.ok_or(SIGNATURE)?.record;
    let secret = product.secret.as_ref().ok_or(SIGNATURE)?;
    check_signature(host, headers, body, secret)?;
    if product.registration == Registration::Off {
        return Err(REFUSED);
    }
    let (psk, changes) = match registry.device_of(&product.id, &request.device_name) {
        Some((device, presence)) => {
            let device = &device.record;
            if device.frozen || presence.active_ms != 0 || !device.gateway_id.is_empty() {
                return Err(REFUSED);
            }
            if device.auth.kind == AuthKind::Certificate {
                return Err((
                    "UnsupportedOperation",
                    "the device signs in with a certificate, which is issued elsewhere",
                ));
            }
            (device.auth.secret.clone().ok_or(REFUSED)?, Vec::new())
        }
        None if product.registration == Registration::Open => {
            let (device, psk) = new_device(product, &request.device_name, now_ms, entropy)?;
            let record = Record::Device(Arc::new(device));
            (psk, vec![Change::Put { record, expect: Expect::Absent }])
        }
        None => return Err(("ResourceNotFound", "the device is not there")),
    };
    Ok((encrypt(secret, &psk)?, changes))
}

fn check_signature(
    host: &str,
    headers: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    secret: &Secret,
) -> Result<(), Failure> {
    let header = |name: &str| headers(name).ok_or(("MissingParameter", "a header of the signature is missing"));
    let (algorithm, timestamp) = (header("x-tc-algorithm")?, header("x-tc-timestamp")?);
    let (nonce, signature) = (header("x-tc-nonce")?, header("x-tc-signature")?);
    let (digest, hash) = match algorithm.to_ascii_lowercase().as_str() {
        "hmacsha1" => (Digest::Sha1, hex::encode(sha1(body))),
        "hmacsha256" => (Digest::Sha256, hex::encode(sha256(body))),
        _ => return Err(("InvalidParameterValue", "the algorithm is neither hmacsha1 nor hmacsha256")),
    };
    // Without its port.
    let host = host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let signed = format!("POST\n{host}\n{PATH}\n\n{algorithm}\n{timestamp}\n{nonce}\n{hash}");
    let expected = BASE64.encode(hmac(digest, secret.expose().as_bytes(), signed.as_bytes()));
    if expected.as_bytes().ct_eq(signature.trim().as_bytes()).into() { Ok(()) } else { Err(SIGNATURE) }
}

fn new_device(product: &Product, name: &str, now_ms: u64, entropy: &[u8; 32]) -> Result<(Device, Secret), Failure> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > DEVICE_NAME_BYTES_MAX || !name.bytes().all(is_letter) {
        return Err(("InvalidParameterValue", "the device name is not 1 to 48 of a-z, A-Z, 0-9, _ and -"));
    }
    let key = half(sha256(&[entropy.as_slice(), b"secret"].concat()));
    let psk = Secret::new(&BASE64.encode(key));
    let auth = Auth { secret: Some(psk.clone()), ..Auth::default() };
    let device = Device { auth, ..Device::new(&product.id, &product.app_id, name, now_ms) };
    Ok((device, psk))
}

/// AES-128-CBC under the first bytes of the product's secret, padded with zeros.
fn encrypt(secret: &Secret, psk: &Secret) -> Result<Vec<u8>, Failure> {
    let psk = json!(psk.expose());
    let mut plain = format!(r#"{{"code":0,"message":"success","encryptionType":2,"psk":{psk}}}"#).into_bytes();
    // At least one zero: firmware reads it as a string of C.
    plain.resize((plain.len() / 16 + 1) * 16, 0);
    let key = secret.expose().as_bytes().get(..16);
    key.and_then(|key| aes_cbc_encrypt(key, &IV, &plain))
        .ok_or(("InternalError", "the secret of the product is shorter than 16 bytes"))
}
