//! Applications of Sensoro's push service.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Registry, SensoroApp};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;
use crate::operations::{NewSensoroApp, SensoroChange};

fn app_json(app: &SensoroApp) -> Value {
    json!({
        "app_id": app.id, "qos": app.qos, "safe_mode": app.safe_mode, "callback_url": app.callback_url,
        "create_time": time::compact(app.created_ms),
    })
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let app = call.operations().create_sensoro_app(&NewSensoroApp::read(&Input::of(&body)?)?).await?;
    let mut json = app_json(&app);
    json["app_secret"] = app.secret.expose().into();
    json["app_key"] = app.key.expose().into();
    Answer::created(&app.id, json)
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let registry = call.operations().read(Registry::clone);
    let mut apps: Vec<_> = registry.sensoro_apps().map(|kept| (kept.oid, kept.record.clone())).collect();
    apps.sort_unstable_by_key(|(oid, _)| std::cmp::Reverse(*oid));
    Answer::ok(json!({ "sensoro_apps": apps.iter().map(|(_, app)| app_json(app)).collect::<Vec<_>>() }))
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let change = SensoroChange::read(&Input::of(&body)?)?;
    Answer::ok(app_json(&*call.operations().update_sensoro_app(call.param("sensoro_app_id"), &change).await?))
}

/// The new secret is shown once.
pub(super) async fn rotate_secret(call: Call) -> Result<Answer, Fault> {
    let app = call.operations().rotate_sensoro_secret(call.param("sensoro_app_id")).await?;
    Answer::ok(json!({ "app_id": app.id, "app_secret": app.secret.expose() }))
}

/// The body is the record, whatever its members: in safe mode `data` is encrypted.
pub(super) async fn push(call: Call) -> Result<Answer, Fault> {
    let record = call.json()?;
    Input::of(&record)?;
    call.operations().push_sensoro_record(call.param("sensoro_app_id"), record).await?;
    Answer::empty()
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_sensoro_app(call.param("sensoro_app_id")).await?;
    Answer::empty()
}
