//! Resource spaces and access codes.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{App, Kind, Registry};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::Error;
use crate::operations::input::Input;

fn app_json(app: &App) -> Value {
    json!({
        "app_id": app.id, "app_name": app.name, "create_time": time::compact(app.created_ms), "default_app": app.default,
    })
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let name = Input::of(&body)?.required("app_name")?;
    let app = call.operations().create_app(None, &name).await?;
    Answer::created(&app.id, app_json(&app))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let default = call.flag("default_app")?;
    let registry = call.operations().read(Registry::clone);
    let wanted = registry.apps().filter(|app| default.is_none_or(|default| app.record.default == default));
    let mut apps: Vec<_> = wanted.map(|kept| (kept.oid, kept.record.clone())).collect();
    apps.sort_unstable_by_key(|(oid, _)| *oid);
    Answer::ok(json!({ "applications": apps.iter().map(|(_, app)| app_json(app)).collect::<Vec<_>>() }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    let id = call.param("app_id");
    let app = call.operations().read(|registry| registry.app(id).map(|kept| kept.record.clone()));
    Answer::ok(app_json(&*app.ok_or_else(|| Error::Missing { kind: Kind::App, id: id.to_owned() })?))
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let name = Input::of(&body)?.required("app_name")?;
    let app = call.operations().rename_app(call.param("app_id"), &name).await?;
    Answer::ok(app_json(&app))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_app(call.param("app_id")).await?;
    Answer::empty()
}

/// `POST /auth/accesscode`
pub(super) async fn create_access_code(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let input = Input::of(&body)?;
    let kind = input.text("type")?.unwrap_or_else(|| "AMQP".to_owned());
    let force_disconnect = input.flag("force_disconnect")?.unwrap_or(false);
    let made = call.operations().create_access_code(&kind, force_disconnect).await?;
    let json = json!({ "access_key": made.access_key, "access_code": made.access_code.expose() });
    Answer::created(&kind, json)
}
