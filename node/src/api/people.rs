//! Users and their pairs of keys. Those of the configuration are listed, and changed there.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Kind, Registry, Role};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;
use crate::operations::{Error, NewAccessKey, NewUser};

/// As requests and answers have it.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// What the configuration holds is not changed here.
fn not_configured(call: &Call, kind: Kind, id: &str) -> Result<(), Error> {
    let settings = &call.api.settings;
    let configured = match kind {
        Kind::User => settings.users.contains_key(id),
        _ => settings.access_keys.contains_key(id),
    };
    if configured { Err(Error::Exists { kind, id: format!("{id} of the configuration") }) } else { Ok(()) }
}

pub(super) async fn create_user(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let new = NewUser::read(&Input::of(&body)?)?;
    not_configured(&call, Kind::User, &new.name)?;
    let user = call.operations().create_user(&new).await?;
    Answer::created(&user.name, json!({ "name": user.name, "role": role_name(user.role) }))
}

pub(super) async fn list_users(call: Call) -> Result<Answer, Fault> {
    let configured = call.api.settings.users.iter();
    let configured = configured
        .map(|(name, (_, role))| json!({ "name": name, "role": role_name(*role), "source": "configuration" }));
    let mut users: Vec<Value> = configured.collect();
    // A copy shares everything, so that nobody who applies entries waits for it.
    let registry = call.operations().read(Registry::clone);
    users.extend(registry.users().map(|kept| {
        let user = &kept.record;
        json!({
            "name": user.name, "role": role_name(user.role), "source": "registry",
            "create_time": time::compact(user.created_ms),
        })
    }));
    users.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Answer::ok(json!({ "users": users }))
}

pub(super) async fn update_user(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let input = Input::of(&body)?;
    let name = call.param("user_name");
    not_configured(&call, Kind::User, name)?;
    let (password, role) = (input.secret("password")?, input.role()?);
    let user = call.operations().update_user(name, password.as_ref(), role).await?;
    Answer::ok(json!({ "name": user.name, "role": role_name(user.role) }))
}

pub(super) async fn delete_user(call: Call) -> Result<Answer, Fault> {
    let name = call.param("user_name");
    not_configured(&call, Kind::User, name)?;
    call.operations().delete(Kind::User, name).await?;
    Answer::empty()
}

/// The secret key is shown once.
pub(super) async fn create_access_key(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let new = NewAccessKey::read(&Input::of(&body)?)?;
    // Keys of the configuration's users belong there too.
    not_configured(&call, Kind::User, &new.user)?;
    if call.operations().read(|registry| registry.user(&new.user).is_none()) {
        return Err(Error::Missing { kind: Kind::User, id: new.user }.into());
    }
    if let Some(ak) = &new.ak {
        not_configured(&call, Kind::AccessKey, ak)?;
    }
    let key = call.operations().create_access_key(&new).await?;
    let json = json!({ "access_key": key.ak, "secret_key": key.sk.expose(), "user": key.user });
    Answer::created(&key.ak, json)
}

pub(super) async fn list_access_keys(call: Call) -> Result<Answer, Fault> {
    let configured = call.api.settings.access_keys.iter();
    let configured =
        configured.map(|(ak, (_, user))| json!({ "access_key": ak, "user": user, "source": "configuration" }));
    let mut keys: Vec<Value> = configured.collect();
    let registry = call.operations().read(Registry::clone);
    keys.extend(registry.access_keys().map(|kept| {
        let key = &kept.record;
        json!({
            "access_key": key.ak, "user": key.user, "source": "registry",
            "create_time": time::compact(key.created_ms),
        })
    }));
    keys.sort_by(|a, b| a["access_key"].as_str().cmp(&b["access_key"].as_str()));
    Answer::ok(json!({ "access_keys": keys }))
}

pub(super) async fn delete_access_key(call: Call) -> Result<Answer, Fault> {
    let ak = call.param("access_key");
    not_configured(&call, Kind::AccessKey, ak)?;
    call.operations().delete(Kind::AccessKey, ak).await?;
    Answer::empty()
}
