//! Applications of Sensoro's push service.

use std::sync::Arc;

use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::Secret;
use fulmar_platform::dialect::sensoro;
use fulmar_platform::registry::{Kind, Record, SensoroApp};
use serde_json::Value;

use super::{COMMIT, Error, Operations, Target, check, secrets};
use crate::dispatch::downlink::publication;

/// An application to add. What is missing is made up.
#[derive(Debug, Clone, Default)]
pub struct NewSensoroApp {
    pub id: Option<String>,
    pub secret: Option<Secret>,
    pub key: Option<Secret>,
    pub settings: SensoroChange,
}

/// What may be changed; what is missing stays, or has its default: QoS 0, no safe mode, no callback.
#[derive(Debug, Clone, Default)]
pub struct SensoroChange {
    pub qos: Option<u8>,
    pub safe_mode: Option<bool>,
    /// Empty: nowhere.
    pub callback_url: Option<String>,
}

impl SensoroChange {
    fn apply(&self, app: &mut SensoroApp) -> Result<(), Error> {
        if self.qos.is_some_and(|qos| qos > 1) {
            return Err(Error::invalid("qos", "must be 0 or 1"));
        }
        if let Some(url) = self.callback_url.as_deref().filter(|url| !url.is_empty()) {
            let known = url.starts_with("http://") || url.starts_with("https://");
            if !known || url.len() > 1024 || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Error::invalid("callback_url", "must be an http or https address of at most 1024 bytes"));
            }
        }
        app.qos = self.qos.unwrap_or(app.qos);
        app.safe_mode = self.safe_mode.unwrap_or(app.safe_mode);
        if let Some(url) = &self.callback_url {
            app.callback_url = url.as_str().into();
        }
        Ok(())
    }
}

impl Operations {
    /// Secret and key are in the answer, and never shown again.
    ///
    /// # Errors
    /// The id is taken, or something is unusable.
    pub async fn create_sensoro_app(&self, new: &NewSensoroApp) -> Result<Arc<SensoroApp>, Error> {
        let id = new.id.clone().unwrap_or_else(|| secrets::alphanumeric(12));
        check::word("app_id", &id, 64, "")?;
        let secret = new.secret.clone().unwrap_or_else(|| Secret::new(&secrets::alphanumeric(18)));
        if !(8..=64).contains(&secret.expose().len()) || !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("app_secret", "must be 8 to 64 letters, digits and signs of ASCII"));
        }
        let key = new.key.clone().unwrap_or_else(|| Secret::new(&secrets::alphanumeric(43)));
        if key.expose().len() != 43 || !key.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::invalid("app_key", "must be 43 letters and digits"));
        }
        let mut app = SensoroApp {
            id: id.as_str().into(),
            secret,
            key,
            qos: 0,
            safe_mode: false,
            callback_url: "".into(),
            created_ms: self.now_ms(),
        };
        new.settings.apply(&mut app)?;
        let app = Arc::new(app);
        self.create(Target { kind: Kind::SensoroApp, id: &id }, Record::SensoroApp(app.clone())).await?;
        Ok(app)
    }

    /// # Errors
    /// It is not there, or something is unusable.
    pub async fn update_sensoro_app(&self, id: &str, change: &SensoroChange) -> Result<Arc<SensoroApp>, Error> {
        self.change_sensoro_app(id, |app| change.apply(app)).await
    }

    /// Gives an application a new secret, shown once, and ends the sessions of those who came with the old one.
    ///
    /// # Errors
    /// It is not there.
    pub async fn rotate_sensoro_secret(&self, id: &str) -> Result<Arc<SensoroApp>, Error> {
        let secret = Secret::new(&secrets::alphanumeric(18));
        let app = self
            .change_sensoro_app(id, |app| {
                app.secret = secret.clone();
                Ok(())
            })
            .await?;
        self.end_sensoro_sessions(id).await?;
        Ok(app)
    }

    /// Deletes an application and ends its sessions.
    ///
    /// # Errors
    /// It is not there.
    pub async fn delete_sensoro_app(&self, id: &str) -> Result<(), Error> {
        self.delete(Kind::SensoroApp, id).await?;
        self.end_sensoro_sessions(id).await
    }

    /// Pushes a record to the clients of an application: queued for sessions that wait, and on its way to those that are
    /// connected, once this returns.
    ///
    /// # Errors
    /// The application is not there, the record is too large or cannot be encrypted, or there is no room for it.
    pub async fn push_sensoro_record(&self, id: &str, record: Value) -> Result<(), Error> {
        let app = self.read(|registry| registry.sensoro_app(id).map(|kept| kept.record.clone()));
        let app = app.ok_or_else(|| Error::missing(Kind::SensoroApp, id))?;
        let pushed = sensoro::push(&app, record, rand::random())
            .map_err(|error| Error::invalid("app_key", format!("cannot be used: {error}")))?;
        let accepted_at = self.dispatch.now().log;
        let said = |downlink| Command::Announce(Arc::new(publication(downlink, accepted_at)));
        let outcomes = self.dispatch.replica().commit(pushed.into_iter().map(said).collect());
        let outcomes = tokio::time::timeout(COMMIT, outcomes).await.ok().and_then(Result::ok);
        match outcomes.ok_or(Error::Unavailable)?.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))) {
            true => Err(Error::Full),
            false => Ok(()),
        }
    }

    async fn change_sensoro_app(
        &self,
        id: &str,
        change: impl Fn(&mut SensoroApp) -> Result<(), Error>,
    ) -> Result<Arc<SensoroApp>, Error> {
        self.revise(Target { kind: Kind::SensoroApp, id }, |registry| {
            let kept = registry.sensoro_app(id).ok_or_else(|| Error::missing(Kind::SensoroApp, id))?;
            let mut app = (*kept.record).clone();
            change(&mut app)?;
            let app = Arc::new(app);
            Ok((Record::SensoroApp(app.clone()), kept.revision, app))
        })
        .await
    }
}
