//! Device authentication over HTTP: pre-authentication before MQTT, and registration. Answers always have HTTP status 200
//! and say in `code` what they are; they stay below 300 bytes, in one line and with `code` first, because firmware reads
//! them by hand.

use super::connect::{digest, product, signed};
use super::{Options, register, token};
use crate::dialect::HttpAnswer;
use crate::registry::{Change, Registry};

/// A form as it came: names and values, decoded.
type Form = [(String, String)];

/// Names that are not signed.
const UNSIGNED: [&str; 5] = ["sign", "signmethod", "signMethod", "version", "resources"];

/// Where devices connect to if nobody says it.
const ENDPOINT: (&str, u16) = ("localhost", 1883);

/// The answer to a request that could not be carried out here and now.
#[must_use]
pub fn failed() -> String {
    failure(500, "internal server error")
}

/// The answer to a request without TLS, where that is asked for: see [`Options::plain_auth`].
#[must_use]
pub fn plain() -> String {
    failure(403, "TLS is required")
}

/// The answer to a client that asks too often.
#[must_use]
pub fn throttled() -> String {
    failure(429, "too many requests")
}

fn failure(code: u16, message: &str) -> String {
    format!(r#"{{"code":{code},"message":"{message}"}}"#)
}

/// Which device of which product a form of [`register`] is about, if it says so.
#[must_use]
pub fn named(form: &Form) -> Option<(&str, &str)> {
    Some((field(form, "productKey")?, field(form, "deviceName")?))
}

/// What is wrong with product, device, secret or form: nothing tells which.
fn bad_request() -> String {
    failure(400, "request error")
}

fn field<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn sign_method(form: &Form) -> Option<&str> {
    field(form, "signmethod").or_else(|| field(form, "signMethod"))
}

/// What is signed: names and values in alphabetical order of the names.
fn content(form: &Form) -> String {
    let mut fields: Vec<&(String, String)> =
        form.iter().filter(|(name, _)| !UNSIGNED.contains(&name.as_str())).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect()
}

/// `POST /auth/devicename` with `productKey`, `deviceName`, `clientId`, `sign`, `signmethod` and what else is signed.
/// Gives `iotId` and `iotToken`, the user name and password of CONNECT on any node, and the host and port to go to.
#[must_use]
pub fn pre_authenticate(form: &Form, registry: &Registry, options: &Options, now_ms: u64) -> String {
    let fields = || Some((field(form, "productKey")?, field(form, "deviceName")?, field(form, "sign")?));
    let (Some((product_key, name, sign)), Some(_), Some(digest)) =
        (fields(), field(form, "clientId"), digest(sign_method(form)))
    else {
        return bad_request();
    };
    let found = product(registry, product_key).zip(registry.device_of(product_key, name));
    let Some((product, (device, _))) = found else { return bad_request() };
    if !signed(&device.record, digest, &content(form), sign.as_bytes()) {
        return bad_request();
    }
    if device.record.frozen {
        return failure(403, "the device is disabled");
    }
    let Some(key) = registry.key() else { return failure(503, "service unavailable") };
    let endpoint = [&device.record.endpoint, &product.endpoint, &options.endpoint].into_iter().flatten().next();
    let (host, port) = endpoint.map_or(ENDPOINT, |endpoint| (&*endpoint.host, endpoint.port));
    format!(
        r#"{{"code":200,"data":{{"iotId":"{}","iotToken":"{}","resources":{{"mqtt":{{"host":{},"port":{port}}}}}}},"message":"success"}}"#,
        device.oid,
        token::issue(key, device, now_ms),
        serde_json::Value::from(host),
    )
}

/// `POST /auth/register/device` with `productKey`, `deviceName`, `random`, `sign` and `signMethod`: gives a device of a
/// product that lets devices register themselves its secret, as long as it was never connected.
#[must_use]
pub fn register(form: &Form, registry: &Registry, now_ms: u64, entropy: [u8; 32]) -> HttpAnswer {
    register_or_why(form, registry, now_ms, &entropy).unwrap_or_else(|body| HttpAnswer {
        body,
        granted: false,
        changes: Vec::new(),
    })
}

fn register_or_why(form: &Form, registry: &Registry, now_ms: u64, entropy: &[u8; 32]) -> Result<HttpAnswer, String> {
    let required = |name| field(form, name).ok_or_else(bad_request);
    let (product_key, name, random) = (required("productKey")?, required("deviceName")?, required("random")?);
    let digest = digest(sign_method(form)).ok_or_else(bad_request)?;
    let product = product(registry, product_key).ok_or_else(bad_request)?;
    if !register::signed(product, name, random, digest, required("sign")?.as_bytes()) {
        return Err(bad_request());
    }
    let (device, expect) = register::candidate(registry, product, name, None, now_ms).map_err(|why| match why {
        register::Why::Unknown | register::Why::Name => bad_request(),
        register::Why::Off => failure(403, "the product has no dynamic registration"),
        register::Why::Active => failure(403, "the device is active already"),
        register::Why::Frozen => failure(403, "the device is disabled"),
        register::Why::SubDevice => failure(403, "a sub-device is registered through its gateway"),
    })?;
    let (secret, change): (_, Option<Change>) = register::secret_of(device, expect, entropy);
    let body = format!(
        r#"{{"code":200,"data":{{"productKey":{},"deviceName":{},"deviceSecret":{}}},"message":"success"}}"#,
        serde_json::Value::from(product_key),
        serde_json::Value::from(name),
        serde_json::Value::from(secret.expose()),
    );
    Ok(HttpAnswer { body, granted: true, changes: change.into_iter().collect() })
}
