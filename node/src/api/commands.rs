//! Synchronous commands, properties of devices, and requests of any bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::input::Input;
use crate::operations::{Called, NewCommand};

/// What the vendor answers with the status of a success.
const TIMEOUT: &str = "IOTDA.014111";

/// `id`: the member that the id of the request is in.
fn answer(device: &str, id: &str, called: Called) -> Result<Answer, Fault> {
    let about = format!("{device} {}", called.id);
    let mut body = json!({ id: called.id });
    match called.response {
        Some(response) => body["response"] = response,
        None => {
            body["error_code"] = TIMEOUT.into();
            body["error_msg"] = "Command request timed out. The device has not answered in time.".into();
        }
    }
    Ok(Answer { about: Some(about), ..Answer::ok(body)? })
}

/// `POST /devices/{device_id}/commands`
pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let input = Input::of(&body)?;
    let (command, at_once) = (NewCommand::read(&input)?, input.flag("at_once")?.unwrap_or(false));
    let (operations, device) = (call.operations(), call.param("device_id"));
    let called = if at_once {
        operations.command_at_once(device, &command).await
    } else {
        operations.command(device, &command).await
    };
    answer(device, "command_id", called?)
}

/// `PUT /devices/{device_id}/properties`
pub(super) async fn set_properties(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let services = Input::of(&body)?.value("services").unwrap_or(&Value::Null);
    let device = call.param("device_id");
    answer(device, "request_id", call.operations().set_properties(device, services).await?)
}

/// `GET /devices/{device_id}/properties`
pub(super) async fn get_properties(call: Call) -> Result<Answer, Fault> {
    let device = call.param("device_id");
    let service_id = call.query("service_id").unwrap_or_default();
    answer(device, "request_id", call.operations().get_properties(device, service_id).await?)
}

/// `POST /devices/{device_id}/rrpc`
pub(super) async fn request(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let input = Input::of(&body)?;
    let text = input.required("payload")?;
    let payload: Bytes = match input.word("encoding", &[("none", false), ("base64", true)])? {
        Some(true) => BASE64.decode(text).map_err(|_| Fault::invalid("payload must be base64"))?.into(),
        _ => text.into(),
    };
    let reply = input.flag("reply")?.unwrap_or(true);
    let device = call.param("device_id");
    answer(device, "request_id", call.operations().request(device, &payload, reply).await?)
}

/// What there is for devices of other protocols only. Of an unknown device it is said that there is none.
fn no_async(call: &Call) -> Result<Answer, Fault> {
    call.operations().show_device(call.param("device_id"))?;
    Err(Fault::invalid("Devices of MQTT take synchronous commands only: use /commands."))
}

/// `POST /devices/{device_id}/async-commands`
pub(super) async fn create_async(call: Call) -> Result<Answer, Fault> {
    no_async(&call)
}

/// `GET /devices/{device_id}/async-commands`
pub(super) async fn list_async(call: Call) -> Result<Answer, Fault> {
    no_async(&call)
}

/// `GET /devices/{device_id}/async-commands/{command_id}`
pub(super) async fn show_async(call: Call) -> Result<Answer, Fault> {
    no_async(&call)
}
