//! Devices of four clouds, as their firmware shows itself: what it sends in CONNECT, and which topics are its own.
//! Written from the vendors' rules once more, without the platform's code, so that both can be wrong only apart.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fulmar_mqtt::Version;
use fulmar_mqtt::packet::Connect;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

use crate::raw;

/// Long after the end of any test; seconds since 1970.
const NEVER: u64 = 4_102_444_800;

/// Of all devices here, within the range of each dialect.
pub const KEEP_ALIVE_S: u16 = 600;

/// Whose firmware it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    Huawei,
    Aliyun,
    Tencent,
    Sensoro,
}

impl Vendor {
    pub const ALL: [Vendor; 4] = [Vendor::Huawei, Vendor::Aliyun, Vendor::Tencent, Vendor::Sensoro];

    /// Those whose clients are devices of the registry, which says who is online.
    pub const OF_DEVICES: [Vendor; 3] = [Vendor::Huawei, Vendor::Aliyun, Vendor::Tencent];

    /// The name of its dialect.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Vendor::Huawei => "huawei",
            Vendor::Aliyun => "aliyun",
            Vendor::Tencent => "tencent",
            Vendor::Sensoro => "sensoro",
        }
    }

    /// The product that its devices here are of; Sensoro's applications have none.
    #[must_use]
    pub fn product_id(self) -> &'static str {
        match self {
            Vendor::Huawei => "prod1",
            Vendor::Aliyun => "a1B2c3D4e5F",
            Vendor::Tencent => "ABCDE12345",
            Vendor::Sensoro => "",
        }
    }

    /// Another one, of no device but those that say so.
    #[must_use]
    pub fn other_product_id(self) -> &'static str {
        match self {
            Vendor::Huawei => "prod2",
            Vendor::Aliyun => "a1B2c3D4e5G",
            Vendor::Tencent => "ABCDE12346",
            Vendor::Sensoro => "",
        }
    }

    /// A product, as the REST API takes it.
    #[must_use]
    pub fn product(self, id: &str) -> Value {
        let topics = match self {
            Vendor::Huawei | Vendor::Sensoro => json!([]),
            Vendor::Aliyun => json!([
                { "topic": "user/both", "access": "all" },
                { "topic": "user/up", "access": "pub" },
                { "topic": "user/down", "access": "sub" },
            ]),
            Vendor::Tencent => json!([{ "topic": "custom", "access": "all" }]),
        };
        json!({
            "product_id": id, "name": id, "dialect": self.name(), "device_type": "Sensor",
            "protocol_type": "MQTT", "data_format": "json", "service_capabilities": [], "topics": topics,
        })
    }
}

/// A device, or an application of Sensoro's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub vendor: Vendor,
    pub product_id: &'static str,
    /// Unique among those of its vendor: letters, digits and `-`.
    pub name: String,
}

impl Device {
    #[must_use]
    pub fn new(vendor: Vendor, name: impl Into<String>) -> Device {
        Device { vendor, product_id: vendor.product_id(), name: name.into() }
    }

    /// One of the vendor's other product.
    #[must_use]
    pub fn of_other_product(vendor: Vendor, name: impl Into<String>) -> Device {
        Device { product_id: vendor.other_product_id(), ..Device::new(vendor, name) }
    }

    /// Its id in the registry.
    #[must_use]
    pub fn id(&self) -> String {
        match self.vendor {
            Vendor::Sensoro => self.name.clone(),
            _ => format!("{}_{}", self.product_id, self.name),
        }
    }

    /// The same for the same name; of no worth outside of tests.
    fn secret(&self) -> String {
        let digest = hex::encode(mac::<Hmac<Sha256>>(b"devices", self.name.as_bytes()));
        match self.vendor {
            Vendor::Tencent => BASE64.encode(&digest.as_bytes()[..16]),
            _ => digest.chars().take(32).collect(),
        }
    }

    /// The path under the project, and the body, by which the REST API creates it.
    #[must_use]
    pub fn record(&self) -> (&'static str, Value) {
        match self.vendor {
            Vendor::Sensoro => ("/sensoro-apps", json!({ "app_id": self.name, "app_secret": self.secret(), "qos": 1 })),
            _ => {
                let auth = json!({ "auth_type": "SECRET", "secret": self.secret() });
                ("/devices", json!({ "product_id": self.product_id, "node_id": self.name, "auth_info": auth }))
            }
        }
    }

    /// What it sends to be let in. MQTT 3.1.1, clean.
    #[must_use]
    pub fn connect(&self) -> Connect {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let secret = self.secret();
        let (client_id, username, password) = match self.vendor {
            Vendor::Huawei => {
                // Signature 0: the hour is not checked.
                let hour = "2026010100";
                let password = hex::encode(mac::<Hmac<Sha256>>(hour.as_bytes(), secret.as_bytes()));
                (format!("{}_0_0_{hour}", self.id()), self.id(), password)
            }
            Vendor::Aliyun => {
                let (key, name) = (self.product_id, &self.name);
                let content = format!("clientId{key}.{name}deviceName{name}productKey{key}timestamp{now}");
                let password = hex::encode(mac::<Hmac<Sha1>>(secret.as_bytes(), content.as_bytes()));
                let more = format!("securemode=3,signmethod=hmacsha1,timestamp={now},_ss=1");
                (format!("{key}.{name}|{more}|"), format!("{name}&{key}"), password)
            }
            Vendor::Tencent => {
                let client_id = format!("{}{}", self.product_id, self.name);
                let username = format!("{client_id};12010126;abcde;{NEVER}");
                let key = BASE64.decode(secret).unwrap_or_default();
                let token = hex::encode(mac::<Hmac<Sha256>>(&key, username.as_bytes()));
                (client_id, username, format!("{token};hmacsha256"))
            }
            Vendor::Sensoro => (format!("{}/one", self.name), self.name.clone(), secret),
        };
        let mut connect = raw::connect(Version::V311, &client_id);
        connect.keep_alive_s = KEEP_ALIVE_S;
        connect.username = Some(username.into());
        connect.password = Some(password.into_bytes().into());
        connect
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_the_vendors() {
        // Captured from the vendors' own SDKs, or computed by their documents.
        let hour = mac::<Hmac<Sha256>>(b"2025041401", b"12345678");
        assert_eq!(hex::encode(hour), "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a");
        let content = "clientIda1B2c3D4e5F&sensor-001deviceNamesensor-001productKeya1B2c3D4e5Ftimestamp1795227879";
        let signed = mac::<Hmac<Sha1>>(b"0123456789abcdef0123456789abcdef", content.as_bytes());
        assert_eq!(hex::encode(signed), "76d39a09e539933200263abe426eda68f3c48697");
        let token = mac::<Hmac<Sha256>>(b"0123456789abcdef", b"ABCDE12345dev001;12010126;abcde;4102444800");
        assert_eq!(hex::encode(token), "0c141eb1a62dc19abf2b081286b57375fc2efd50b9d8f64e5432b6d795ffcb00");
    }

    #[test]
    fn secrets_have_the_form_of_their_dialect() {
        for vendor in Vendor::ALL {
            let device = Device::new(vendor, "one");
            assert_eq!(device.secret(), device.secret());
            assert_ne!(device.secret(), Device::new(vendor, "two").secret());
            let decoded = BASE64.decode(device.secret());
            assert!(vendor != Vendor::Tencent || decoded.is_ok_and(|key| key.len() == 16));
        }
    }
}
