//! The records of sensors, as an application gets them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use fulmar_mqtt::{QoS, TopicName};
use serde_json::Value;

use crate::dialect::Downlink;
use crate::dialect::crypto::aes_cbc_encrypt;
use crate::registry::SensoroApp;

/// What is encrypted is padded to whole blocks of this many bytes, after PKCS #7; AES's own are half as long.
const BLOCK_BYTES: usize = 32;

/// An AppKey is base64 of 32 bytes, without its last `=`; nobody takes care of the two bits that are too many.
const APP_KEY: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Safe mode is on and there is nothing to encrypt with. Such a record is not sent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the AppKey is not 43 characters of base64")]
pub struct Unencryptable;

/// A record as the clients of its AppID get it: once on each spelling of the topic, each for the sessions that have
/// subscribed to that one. In safe mode `encryptData` takes the place of `data`.
///
/// # Errors
/// If it cannot be encrypted although it must be.
pub fn push(app: &SensoroApp, mut record: Value, entropy: [u8; 16]) -> Result<Vec<Downlink>, Unencryptable> {
    if app.safe_mode
        && let Some(record) = record.as_object_mut()
        && let Some(data) = record.remove("data")
    {
        let encrypted = encrypt(app, &data.to_string(), entropy).ok_or(Unencryptable)?;
        record.insert("encryptData".into(), encrypted.into());
    }
    let payload = bytes::Bytes::from(record.to_string());
    let qos = if app.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let topics = ["", "/"].map(|before| TopicName::new(format!("{before}users/{}/devices", app.id)));
    Ok(topics.into_iter().flatten().map(|topic| Downlink { topic, payload: payload.clone(), qos }).collect())
}

/// The AppID of a topic that records are pushed on, in either spelling.
#[must_use]
pub fn record_topic(topic: &TopicName) -> Option<&str> {
    app_of(topic.as_str())
}

/// As [`record_topic`]; of a filter too, if it is the topic itself: no AppID is a wildcard.
pub(super) fn app_of(topic: &str) -> Option<&str> {
    let topic = topic.strip_prefix('/').unwrap_or(topic);
    let app = topic.strip_prefix("users/")?.strip_suffix("/devices")?;
    (!app.is_empty() && !app.contains(['/', '+', '#'])).then_some(app)
}

/// As WeChat encrypts messages: AES-256-CBC over 16 random bytes, the length in 4, the message and the AppID; in
/// base64.
pub(super) fn encrypt(app: &SensoroApp, message: &str, random: [u8; 16]) -> Option<String> {
    let key = APP_KEY.decode(format!("{}=", app.key.expose())).ok()?;
    let iv = *key.first_chunk::<16>()?;
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let mut plain = [random.as_slice(), &length, message.as_bytes(), app.id.as_bytes()].concat();
    let padding = BLOCK_BYTES - plain.len() % BLOCK_BYTES;
    plain.resize(plain.len() + padding, u8::try_from(padding).ok()?);
    (key.len() == 32).then(|| aes_cbc_encrypt(&key, &iv, &plain))?.map(|encrypted| BASE64.encode(encrypted))
}
