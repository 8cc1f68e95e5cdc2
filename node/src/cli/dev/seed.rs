//! What the registry of a development cluster begins with: a product and a device for each dialect, someone who may
//! call the REST API, and an access code for applications. Secrets are made once and kept with the directory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::meter::Identity;

/// The id of the one project.
pub(super) const PROJECT: &str = "fulmar";

pub(super) const USER: &str = "demo";

const AK: &str = "FULMARDEMOAK";

const ACCESS_KEY: &str = "FULMARAPP";

const DEVICE: &str = "device1";

/// The device that `dev` plays itself.
const METER: &str = "meter";

const HUAWEI: &str = "demohuawei";

/// Aliyun's product keys have 11 characters, Tencent's ids 10.
const ALIYUN: &str = "a1demoALIYU";

const TENCENT: &str = "DEMOTENCEN";

const SENSORO: &str = "demosensoro";

/// Of Huawei's client ids. The 0 before it says that it is not held against the clock.
const HOUR: &str = "2026010100";

/// What Tencent's CONNECT carries for its own service.
const TENCENT_SDK: &str = "12010126";

/// Seconds since 1970 until which a Tencent user name is valid: the end of this century.
const TENCENT_EXPIRY_S: u64 = 4_102_444_800;

/// Secrets of the demo records.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) password: String,
    sk: String,
    huawei: String,
    aliyun: String,
    aliyun_product: String,
    tencent: String,
    tencent_product: String,
    sensoro: String,
    sensoro_key: String,
    access_code: String,
}

impl Secrets {
    /// Those of an earlier run, and new ones for what that lacks.
    pub(super) fn load(known: &Value) -> Secrets {
        let hex = |name: &str, digits: usize| {
            let made = || format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
            known["demo"][name].as_str().map_or_else(|| made().chars().take(digits).collect(), str::to_owned)
        };
        let tencent = || STANDARD.encode(rand::random::<[u8; 16]>());
        Secrets {
            password: hex("password", 16),
            sk: hex("sk", 40),
            huawei: hex("huawei", 32),
            aliyun: hex("aliyun", 32),
            aliyun_product: hex("aliyun_product", 16),
            tencent: known["demo"]["tencent"].as_str().map_or_else(tencent, str::to_owned),
            tencent_product: hex("tencent_product", 24),
            sensoro: hex("sensoro", 18),
            sensoro_key: hex("sensoro_key", 43),
            access_code: hex("access_code", 32),
        }
    }

    /// As they are kept.
    pub(super) fn json(&self) -> Value {
        json!({
            "password": self.password, "sk": self.sk, "huawei": self.huawei, "aliyun": self.aliyun,
            "aliyun_product": self.aliyun_product, "tencent": self.tencent, "tencent_product": self.tencent_product,
            "sensoro": self.sensoro, "sensoro_key": self.sensoro_key, "access_code": self.access_code,
        })
    }

    /// What clients of the REST API sign in with.
    pub(super) fn rest(&self) -> Value {
        json!({ "project_id": PROJECT, "user": USER, "password": self.password, "ak": AK, "sk": self.sk })
    }

    /// What an application signs in to MQTT with.
    pub(super) fn application(&self) -> Value {
        json!({ "access_key": ACCESS_KEY, "access_code": self.access_code })
    }

    /// The file that nodes import.
    pub(super) fn import(&self) -> String {
        let model = "service_capabilities = [{ service_id = \"WaterMeter\", properties = [{ property_name = \"value\", \
                     data_type = \"decimal\", method = \"RW\" }], commands = [{ command_name = \"ON_OFF\", paras = [{ \
                     para_name = \"value\", data_type = \"string\", enum_list = [\"ON\", \"OFF\"] }] }] }]";
        let mut text = String::from("# Written by `fulmar dev`.\n");
        let products = [
            (
                HUAWEI,
                "huawei",
                format!("device_type = \"WaterMeter\"\nprotocol_type = \"MQTT\"\ndata_format = \"json\"\n{model}\n"),
            ),
            (
                ALIYUN,
                "aliyun",
                format!("product_secret = \"{}\"\ndynamic_registration = \"open\"\n", self.aliyun_product),
            ),
            (
                TENCENT,
                "tencent",
                format!("product_secret = \"{}\"\ndynamic_registration = \"open\"\n", self.tencent_product),
            ),
        ];
        for (id, dialect, more) in products {
            text.push_str(&format!(
                "\n[[product]]\nproduct_id = \"{id}\"\nname = \"demo {dialect}\"\ndialect = \"{dialect}\"\n{more}\
                 topics = [{{ topic = \"user/demo\" }}, {{ topic = \"demo\" }}]\n"
            ));
        }
        let devices = [
            (HUAWEI, DEVICE, &self.huawei),
            (HUAWEI, METER, &self.huawei),
            (ALIYUN, DEVICE, &self.aliyun),
            (TENCENT, DEVICE, &self.tencent),
        ];
        for (product, device, secret) in devices {
            text.push_str(&format!(
                "\n[[device]]\nproduct_id = \"{product}\"\nnode_id = \"{device}\"\nauth_info = {{ secret = \"{secret}\" }}\n"
            ));
        }
        text.push_str(&format!(
            "\n[[sensoro_app]]\napp_id = \"{SENSORO}\"\napp_secret = \"{}\"\napp_key = \"{}\"\n\n[[user]]\nname = \"{USER}\"\n\
             password = \"{}\"\nrole = \"admin\"\n\n[[access_key]]\nuser = \"{USER}\"\naccess_key = \"{AK}\"\n\
             secret_key = \"{}\"\n\n[[access_code]]\ntype = \"MQTT\"\naccess_key = \"{ACCESS_KEY}\"\naccess_code = \"{}\"\n",
            self.sensoro, self.sensoro_key, self.password, self.sk, self.access_code
        ));
        text
    }

    /// How the device that `dev` plays signs in.
    pub(super) fn meter(&self) -> Identity {
        let device = format!("{HUAWEI}_{METER}");
        let client_id = format!("{device}_0_0_{HOUR}");
        Identity { device, client_id, password: hmac(HOUR.as_bytes(), &self.huawei) }
    }

    /// What each device says in CONNECT. Valid as long as the secrets are.
    pub(super) fn devices(&self) -> Vec<Value> {
        let device = |dialect: &str, client_id: &str, username: &str, password: &str| json!({ "dialect": dialect, "client_id": client_id, "username": username, "password": password });
        let id = format!("{HUAWEI}_{DEVICE}");
        let huawei = device("huawei", &format!("{id}_0_0_{HOUR}"), &id, &hmac(HOUR.as_bytes(), &self.huawei));
        let content = format!("clientId{DEVICE}deviceName{DEVICE}productKey{ALIYUN}");
        let aliyun = device(
            "aliyun",
            &format!("{DEVICE}|securemode=3,signmethod=hmacsha256|"),
            &format!("{DEVICE}&{ALIYUN}"),
            &hmac(self.aliyun.as_bytes(), &content),
        );
        let id = format!("{TENCENT}{DEVICE}");
        let username = format!("{id};{TENCENT_SDK};demo1;{TENCENT_EXPIRY_S}");
        let key = STANDARD.decode(&self.tencent).unwrap_or_default();
        let tencent = device("tencent", &id, &username, &format!("{};hmacsha256", hmac(&key, &username)));
        let sensoro = device("sensoro", &format!("{SENSORO}/demo"), SENSORO, &self.sensoro);
        vec![huawei, aliyun, tencent, sensoro]
    }
}

/// HMAC-SHA256 in lower-case hex.
fn hmac(key: &[u8], message: &str) -> String {
    // A key of any length will do for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Seed;

    #[test]
    fn what_is_written_can_be_imported() {
        let secrets = Secrets::load(&Value::Null);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("registry.toml");
        std::fs::write(&path, secrets.import()).expect("written");
        Seed::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let again = Secrets::load(&json!({ "demo": secrets.json() }));
        assert_eq!(again.import(), secrets.import(), "secrets are kept");
    }

    #[test]
    fn passwords_are_those_of_the_vendors() {
        // The vendor's own example for its device SDKs.
        assert_eq!(hmac(b"2025041401", "12345678"), "c75150e6cb841417396819e4d2ee4358a416344a03a083e3a8567074ddec820a");
        let devices = Secrets::load(&Value::Null).devices();
        let dialects: Vec<&str> = devices.iter().filter_map(|device| device["dialect"].as_str()).collect();
        assert_eq!(dialects, ["huawei", "aliyun", "tencent", "sensoro"]);
    }
}
