//! Who may call the REST API: users and their pairs of keys. Those of the configuration are not kept here.

use std::sync::Arc;

use fulmar_platform::Secret;
use fulmar_platform::registry::{AccessKey, Kind, Record, Role, User};

use super::{Error, Operations, Target, check, secrets};

/// A user to add.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub name: String,
    pub password: Secret,
    pub role: Role,
}

/// A pair of keys to add. What is missing is made up.
#[derive(Debug, Clone, Default)]
pub struct NewAccessKey {
    pub user: String,
    pub ak: Option<String>,
    pub sk: Option<Secret>,
}

async fn hashed(password: &Secret) -> Result<Secret, Error> {
    let password = password.clone();
    let hash = tokio::task::spawn_blocking(move || secrets::hash_password(password.expose())).await;
    hash.map_err(|_| Error::Unavailable)?.map(|hash| Secret::new(&hash))
}

impl Operations {
    /// # Errors
    /// There is a user of that name, or name or password are unusable.
    pub async fn create_user(&self, new: &NewUser) -> Result<Arc<User>, Error> {
        check::word("name", &new.name, 64, ".@")?;
        let password_hash = hashed(&new.password).await?;
        let user = User { name: new.name.as_str().into(), password_hash, role: new.role, created_ms: self.now_ms() };
        let user = Arc::new(user);
        self.create(Target { kind: Kind::User, id: &new.name }, Record::User(user.clone())).await?;
        Ok(user)
    }

    /// Changes password, role or both. Tokens that were given out under the old password are void.
    ///
    /// # Errors
    /// There is no such user, or the password is unusable.
    pub async fn update_user(
        &self,
        name: &str,
        password: Option<&Secret>,
        role: Option<Role>,
    ) -> Result<Arc<User>, Error> {
        let hash = match password {
            Some(password) => Some(hashed(password).await?),
            None => None,
        };
        self.revise(Target { kind: Kind::User, id: name }, |registry| {
            let kept = registry.user(name).ok_or_else(|| Error::missing(Kind::User, name))?;
            let mut user = (*kept.record).clone();
            user.password_hash = hash.clone().unwrap_or(user.password_hash);
            user.role = role.unwrap_or(user.role);
            let user = Arc::new(user);
            Ok((Record::User(user.clone()), kept.revision, user))
        })
        .await
    }

    /// Makes a pair of keys for a user of the registry or, if the caller knows it to exist, of the configuration. The
    /// secret key is shown once.
    ///
    /// # Errors
    /// The access key is taken, or one of both is unusable.
    pub async fn create_access_key(&self, new: &NewAccessKey) -> Result<Arc<AccessKey>, Error> {
        let ak = new.ak.clone().unwrap_or_else(|| secrets::alphanumeric(20).to_ascii_uppercase());
        check::word("access_key", &ak, 64, "")?;
        let sk = new.sk.clone().unwrap_or_else(|| Secret::new(&secrets::alphanumeric(40)));
        if !(8..=128).contains(&sk.expose().len()) || !sk.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("secret_key", "must be 8 to 128 letters, digits and signs of ASCII"));
        }
        let key = AccessKey { ak: ak.as_str().into(), sk, user: new.user.as_str().into(), created_ms: self.now_ms() };
        let key = Arc::new(key);
        self.create(Target { kind: Kind::AccessKey, id: &ak }, Record::AccessKey(key.clone())).await?;
        Ok(key)
    }
}
