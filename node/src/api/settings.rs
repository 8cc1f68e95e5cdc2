//! What the API takes from the configuration.

use std::collections::HashMap;

use fulmar_platform::Secret;
use fulmar_platform::dialect::aliyun;
use fulmar_platform::registry::Role;

use super::access::Access;
use super::attempts::Rules;
pub(super) use super::tunables::{history, list, reset, set};
use crate::config::rest::{Rest, RestRole};
use crate::config::{ConfigError, units};

/// What the configuration says. The same on all nodes.
#[derive(Debug, Clone)]
pub struct Settings {
    pub project_id: String,
    pub(super) project_name: String,
    pub(super) domain_name: String,
    pub(super) token_lifetime_s: u64,
    /// Where clients and people reach this node.
    pub access: Access,
    pub(super) sign_in: Rules,
    /// How Aliyun's devices authenticate over HTTP.
    pub aliyun: aliyun::Options,
    /// Password hash and role, by name: before those of the registry.
    pub(super) users: HashMap<String, (Secret, Role)>,
    /// Secret key and user, by access key: before those of the registry.
    pub(super) access_keys: HashMap<String, (Secret, String)>,
}

impl Settings {
    /// How long a token is good for.
    #[must_use]
    pub fn token_lifetime_s(&self) -> u64 {
        self.token_lifetime_s
    }

    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Each that cannot be read or does not hold what it should.
    pub fn load(rest: &Rest, aliyun: aliyun::Options) -> Result<Settings, ConfigError> {
        let secrets = rest.load()?;
        let role = |role: RestRole| match role {
            RestRole::Viewer => Role::Viewer,
            RestRole::Operator => Role::Operator,
            RestRole::Admin => Role::Admin,
        };
        let secret = |secret: &units::Secret| Secret::new(secret.expose());
        let users = secrets.users.iter().map(|(name, hash, of)| (name.clone(), (secret(hash), role(*of))));
        let keys = secrets.access_keys.iter().map(|(ak, sk, user)| (ak.clone(), (secret(sk), user.clone())));
        Ok(Settings {
            project_id: rest.project_id.clone(),
            project_name: rest.project_name.clone(),
            domain_name: rest.domain_name.clone(),
            token_lifetime_s: u64::from(rest.token_lifetime.as_s()),
            access: Access::default(),
            sign_in: Rules {
                failures_max: rest.sign_in_failures_max,
                window_ms: rest.sign_in_window.as_ms(),
                lock_ms: rest.sign_in_lock.as_ms(),
            },
            aliyun,
            users: users.collect(),
            access_keys: keys.collect(),
        })
    }
}
