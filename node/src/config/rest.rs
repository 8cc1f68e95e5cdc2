//! `[rest]`: the project that the REST API serves, and who may call it besides the users of the registry.

use std::collections::HashSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{check_hash, read};
use super::problem::{ConfigError, Problems};
use super::tree::Tree;
use super::units::{Secret, TimeSpan};

/// The REST API. It is served by listeners with the role `api`. All nodes of a cluster have the same settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rest {
    /// Id of the one project, as it stands in paths and in `X-Project-Id`. Default `fulmar`.
    pub project_id: String,
    /// Its name, by which tokens are asked for. Default `fulmar`.
    pub project_name: String,
    /// Name of the account that users belong to. Default `fulmar`.
    pub domain_name: String,
    /// How long a token is valid. Default `24h`.
    pub token_lifetime: TimeSpan,
    /// Failed sign-ins of one user from one address within `sign_in_window` that lock that user there; four times as many
    /// lock the address. Default 5.
    pub sign_in_failures_max: u32,
    /// Time in which failures are counted together. Default `5m`.
    pub sign_in_window: TimeSpan,
    /// How long they stay locked. Default `5m`.
    pub sign_in_lock: TimeSpan,
    /// PEM file of the authority that vouches for the listeners' certificates, which the console's page of addresses
    /// offers for download. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_certificate: Option<PathBuf>,
    /// Users. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<RestUser>,
    /// Pairs of keys that requests are signed with. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_key: Vec<RestAccessKey>,
}

/// Someone who may call the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestUser {
    /// Required, different for each user.
    pub name: String,
    /// Argon2 hash of the password as a PHC string (`$argon2id$v=19$...`). This or `password_hash_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<Secret>,
    /// File that holds the hash on its first line. This or `password_hash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash_file: Option<PathBuf>,
    /// `viewer` (reads), `operator` (also changes products and devices) or `admin` (everything). Required.
    pub role: RestRole,
}

/// What a user may do: each includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestRole {
    Viewer,
    Operator,
    Admin,
}

/// A pair of access key and secret key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestAccessKey {
    /// Required, different for each pair.
    pub access_key: String,
    /// This or `secret_key_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<Secret>,
    /// File that holds the secret key on its first line. This or `secret_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
    /// Name of the user whose role it has. Required, one of `rest.user`.
    pub user: String,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            project_id: "fulmar".into(),
            project_name: "fulmar".into(),
            domain_name: "fulmar".into(),
            token_lifetime: TimeSpan::s(24 * 60 * 60),
            sign_in_failures_max: 5,
            sign_in_window: TimeSpan::s(5 * 60),
            sign_in_lock: TimeSpan::s(5 * 60),
            root_certificate: None,
            user: Vec::new(),
            access_key: Vec::new(),
        }
    }
}

/// What the files of `[rest]` hold.
#[derive(Debug, Clone, Default)]
pub struct RestSecrets {
    /// Name, hash and role.
    pub users: Vec<(String, Secret, RestRole)>,
    /// Access key, secret key and name of the user.
    pub access_keys: Vec<(String, Secret, String)>,
}

impl Rest {
    /// Users and keys, from their files where these are named.
    ///
    /// # Errors
    /// Each file that cannot be read or does not hold what it should.
    pub fn load(&self) -> Result<RestSecrets, ConfigError> {
        let tree = Tree::empty();
        let mut problems = Problems::new(&tree);
        let secrets = self.read_files(&mut problems);
        problems.into_result().map(|()| secrets)
    }

    pub(super) fn check(&self, numbered: bool, problems: &mut Problems<'_>) {
        for (key, value) in [
            ("rest.project_id", &self.project_id),
            ("rest.project_name", &self.project_name),
            ("rest.domain_name", &self.domain_name),
        ] {
            problems.label(key, value);
        }
        problems.range("rest.token_lifetime", self.token_lifetime, TimeSpan::s(60)..=TimeSpan::s(30 * 24 * 60 * 60));
        problems.range("rest.sign_in_failures_max", self.sign_in_failures_max, 1..=1000);
        problems.range("rest.sign_in_window", self.sign_in_window, TimeSpan::s(1)..=TimeSpan::s(24 * 60 * 60));
        problems.range("rest.sign_in_lock", self.sign_in_lock, TimeSpan::s(1)..=TimeSpan::s(24 * 60 * 60));
        if !numbered {
            return;
        }
        let one_of = |key: &str, names: [&str; 2], given: [bool; 2], problems: &mut Problems<'_>| match given {
            [true, true] => {
                problems.add(&format!("{key}.{}", names[1]), format!("is given beside {}; choose one", names[0]))
            }
            [false, false] => problems.add(key, format!("needs {} or {}", names[0], names[1])),
            _ => {}
        };
        for (index, user) in self.user.iter().enumerate() {
            let key = format!("rest.user.{index}");
            problems.label(&format!("{key}.name"), &user.name);
            let given = [user.password_hash.is_some(), user.password_hash_file.is_some()];
            one_of(&key, ["password_hash", "password_hash_file"], given, problems);
            if let Some(hash) = &user.password_hash {
                check_hash(&format!("{key}.password_hash"), hash.expose(), "is", problems);
            }
        }
        for (index, pair) in self.access_key.iter().enumerate() {
            let key = format!("rest.access_key.{index}");
            problems.label(&format!("{key}.access_key"), &pair.access_key);
            let given = [pair.secret_key.is_some(), pair.secret_key_file.is_some()];
            one_of(&key, ["secret_key", "secret_key_file"], given, problems);
            if let Some(secret) = &pair.secret_key {
                check_secret_key(&format!("{key}.secret_key"), secret.expose(), "is", problems);
            }
        }
    }

    pub(super) fn check_relations(&self, problems: &mut Problems<'_>) {
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        for (index, user) in self.user.iter().enumerate() {
            if !names.insert(user.name.as_str()) {
                problems.add(&format!("rest.user.{index}.name"), format!("is {:?} a second time", user.name));
            }
        }
        for (index, pair) in self.access_key.iter().enumerate() {
            if !keys.insert(pair.access_key.as_str()) {
                let message = format!("is {:?} a second time", pair.access_key);
                problems.add(&format!("rest.access_key.{index}.access_key"), message);
            }
            if !names.contains(pair.user.as_str()) {
                problems.add(
                    &format!("rest.access_key.{index}.user"),
                    format!("is {:?}, which is no rest.user", pair.user),
                );
            }
        }
    }

    /// Reads the files that this names.
    pub(super) fn read_files(&self, problems: &mut Problems<'_>) -> RestSecrets {
        let mut secrets = RestSecrets::default();
        let first_line = |key: &str, path: &PathBuf, problems: &mut Problems<'_>| {
            read(key, path, problems).map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
        };
        for (index, user) in self.user.iter().enumerate() {
            let key = format!("rest.user.{index}.password_hash_file");
            let hash = match (&user.password_hash, &user.password_hash_file) {
                (Some(hash), _) => Some(hash.clone()),
                (None, Some(path)) => first_line(&key, path, problems).map(|hash| {
                    check_hash(&key, &hash, &format!("names {}, whose first line is", path.display()), problems);
                    Secret::new(&hash)
                }),
                (None, None) => None,
            };
            secrets.users.extend(hash.map(|hash| (user.name.clone(), hash, user.role)));
        }
        for (index, pair) in self.access_key.iter().enumerate() {
            let key = format!("rest.access_key.{index}.secret_key_file");
            let secret = match (&pair.secret_key, &pair.secret_key_file) {
                (Some(secret), _) => Some(secret.clone()),
                (None, Some(path)) => first_line(&key, path, problems).map(|secret| {
                    check_secret_key(
                        &key,
                        &secret,
                        &format!("names {}, whose first line is", path.display()),
                        problems,
                    );
                    Secret::new(&secret)
                }),
                (None, None) => None,
            };
            secrets.access_keys.extend(secret.map(|secret| (pair.access_key.clone(), secret, pair.user.clone())));
        }
        secrets
    }
}

/// Says that a secret key is none, without saying what it is.
fn check_secret_key(key: &str, secret: &str, is: &str, problems: &mut Problems<'_>) {
    if !(8..=128).contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.add(key, format!("{is} something else; allowed: 8 to 128 letters, digits and signs of ASCII"));
    }
}
