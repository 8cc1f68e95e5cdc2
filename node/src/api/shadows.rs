//! Shadows of devices, and what firmware there is for them.

use serde_json::Value;

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    Answer::ok(call.operations().show_shadow(call.param("device_id"))?)
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    Answer::ok(call.operations().update_shadow(call.param("device_id"), &body).await?)
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_shadow(call.param("device_id")).await?;
    Answer::empty()
}

/// The body is the document of the upgrade, with `type` beside its members.
pub(super) async fn offer_upgrade(call: Call) -> Result<Answer, Fault> {
    let body: Value = call.json()?;
    let kind = Input::of(&body)?.required("type")?;
    call.operations().offer_upgrade(call.param("device_id"), &kind, &body).await?;
    Answer::empty()
}

pub(super) async fn query_version(call: Call) -> Result<Answer, Fault> {
    call.operations().query_version(call.param("device_id")).await?;
    Answer::empty()
}
