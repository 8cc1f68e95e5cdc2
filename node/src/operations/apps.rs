//! Resource spaces, and the access codes of applications.

use std::sync::Arc;

use fulmar_platform::Secret;
use fulmar_platform::dialect::application::ACCESS_CODE_BYTES_MAX;
use fulmar_platform::registry::{AccessCode, App, Change, Expect, Kept, Kind, Record, Registry};

use super::{Error, Operations, Target, check, said, secrets};

/// Kinds of access codes.
const CODE_KINDS: [&str; 2] = ["AMQP", "MQTT"];

/// What an application signs in with; shown once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccessCode {
    /// `AMQP` or `MQTT`.
    pub kind: String,
    pub access_key: String,
    pub access_code: Secret,
}

/// The resource space that is meant: the default one where none is named.
pub(super) fn app_of<'r>(registry: &'r Registry, id: Option<&str>) -> Result<&'r Kept<App>, Error> {
    match id.filter(|id| !id.is_empty()) {
        Some(id) => registry.app(id).ok_or_else(|| Error::missing(Kind::App, id)),
        None => registry.apps().find(|app| app.record.default).ok_or(Error::Unavailable),
    }
}

impl Operations {
    /// # Errors
    /// The name is unusable, or the log takes no changes.
    pub async fn create_app(&self, id: Option<&str>, name: &str) -> Result<Arc<App>, Error> {
        check::text("app_name", name, 1, 64)?;
        let id = match id {
            Some(id) => {
                check::word("app_id", id, 36, "")?;
                id.to_owned()
            }
            None => secrets::hex(16),
        };
        let app =
            Arc::new(App { id: id.as_str().into(), name: name.into(), default: false, created_ms: self.now_ms() });
        self.create(Target { kind: Kind::App, id: &id }, Record::App(app.clone())).await?;
        Ok(app)
    }

    /// # Errors
    /// It is not there, or the name is unusable.
    pub async fn rename_app(&self, id: &str, name: &str) -> Result<Arc<App>, Error> {
        check::text("app_name", name, 1, 64)?;
        self.revise(Target { kind: Kind::App, id }, |registry| {
            let kept = registry.app(id).ok_or_else(|| Error::missing(Kind::App, id))?;
            let app = Arc::new(App { name: name.into(), ..(*kept.record).clone() });
            Ok((Record::App(app.clone()), kept.revision, app))
        })
        .await
    }

    /// # Errors
    /// It is not there, others refer to it, or it is the default one.
    pub async fn delete_app(&self, id: &str) -> Result<(), Error> {
        let default = self.read(|registry| registry.app(id).is_some_and(|app| app.record.default));
        if default {
            return Err(Error::invalid("app_id", "names the default resource space, which stays"));
        }
        self.delete(Kind::App, id).await
    }

    /// Makes the access code of a kind, `AMQP` or `MQTT`; the one before is void. `force_disconnect`: connections of
    /// applications that were made with that one are closed.
    ///
    /// # Errors
    /// There is no such kind, or the log takes no changes.
    pub async fn create_access_code(&self, kind: &str, force_disconnect: bool) -> Result<NewAccessCode, Error> {
        let made = NewAccessCode {
            kind: kind.to_owned(),
            access_key: secrets::alphanumeric(8),
            access_code: Secret::new(&secrets::alphanumeric(32)),
        };
        let before = self.read(|registry| registry.access_code(kind).map(|kept| kept.record.access_key.clone()));
        let put = Change::Put { record: self.access_code(&made)?, expect: Expect::Anything };
        // Rejected where the key is another kind's too: then it is not void.
        let cut = before.filter(|_| force_disconnect).map(|access_key| Change::DisconnectApplication { access_key });
        let outcomes = self.commit_together(std::iter::once(put).chain(cut)).await?;
        let rejected = outcomes.into_iter().next().ok_or(Error::Unavailable)?;
        rejected.map_err(|rejection| said(&Target { kind: Kind::AccessCode, id: kind }, &rejection))?;
        Ok(made)
    }

    /// Adds the access code of a kind that has none.
    ///
    /// # Errors
    /// It has one, or something is unusable.
    pub async fn add_access_code(&self, new: &NewAccessCode) -> Result<(), Error> {
        let target = Target { kind: Kind::AccessCode, id: &new.kind };
        self.create(target, self.access_code(new)?).await.map(|_| ())
    }

    fn access_code(&self, new: &NewAccessCode) -> Result<Record, Error> {
        if !CODE_KINDS.contains(&&*new.kind) {
            return Err(Error::invalid("type", "must be AMQP or MQTT"));
        }
        check::word("access_key", &new.access_key, 64, "")?;
        let code = new.access_code.expose();
        if !(8..=ACCESS_CODE_BYTES_MAX).contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!("must be 8 to {ACCESS_CODE_BYTES_MAX} letters, digits and signs of ASCII");
            return Err(Error::invalid("access_code", problem));
        }
        Ok(Record::AccessCode(Arc::new(AccessCode {
            kind: new.kind.as_str().into(),
            access_key: new.access_key.as_str().into(),
            access_code: new.access_code.clone(),
            created_ms: self.now_ms(),
        })))
    }
}
