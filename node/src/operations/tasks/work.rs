//! What a task does to one target: the operation that its document is the body of.

use std::sync::Arc;

use fulmar_broker::plane::tasks::{Failure, Kind, Outcome, TARGET_BYTES_MAX};
use fulmar_platform::registry::Kind as RecordKind;
use serde_json::{Value, json};

use super::super::input::Input;
use super::super::{DeviceChange, Error, NewCommand, NewDevice, NewMessage, Operations};

/// Characters of a version.
const VERSION_CHARS_MAX: usize = 256;

/// The code of a target whose task's document cannot be read.
const UNREADABLE: &str = "FULMAR.000055";

/// Code and text of a command whose device has not answered in time.
const TIMED_OUT: (&str, &str) = ("IOTDA.014111", "Command request timed out.");

/// What is done to each target.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// As many as there are targets, in their order.
    CreateDevices(Vec<NewDevice>),
    /// One that all are made after; the targets give the node ids.
    CreateLike(Box<NewDevice>),
    UpdateDevices(DeviceChange),
    DeleteDevices,
    Freeze(bool),
    Command(NewCommand),
    Message(NewMessage),
    Shadow(Value),
    Upgrade {
        kind: &'static str,
        version: String,
        document: Value,
    },
    /// A later version of the program takes documents that this one does not.
    Unreadable(String),
}

/// Where an error in the document is.
fn within(place: &str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Invalid { parameter, problem } if parameter == "body" => {
            Error::Invalid { parameter: place.to_owned(), problem }
        }
        Error::Invalid { parameter, problem } => Error::Invalid { parameter: format!("{place}.{parameter}"), problem },
        error => error,
    }
}

impl Work {
    /// Reads a document, and checks it as far as that can be done without a device.
    ///
    /// # Errors
    /// The member that is wrong.
    pub(super) fn read(kind: Kind, document: Option<&Value>) -> Result<Work, Error> {
        match kind {
            Kind::DeleteDevices => return Ok(Work::DeleteDevices),
            Kind::FreezeDevices => return Ok(Work::Freeze(true)),
            Kind::UnfreezeDevices => return Ok(Work::Freeze(false)),
            _ => {}
        }
        let document = document.ok_or_else(|| Error::invalid("document", "is required"))?;
        let input = Input::of(document).map_err(within("document"))?;
        let work = match kind {
            Kind::CreateDevices => create(&input, document),
            Kind::UpdateDevices => DeviceChange::read(&input).map(Work::UpdateDevices),
            Kind::CreateCommands => NewCommand::read(&input).map(Work::Command),
            Kind::CreateMessages => {
                let message = NewMessage { body: Arc::new(document.clone()) };
                message.check().map(|()| Work::Message(message))
            }
            Kind::UpdateDeviceShadows => input.objects("shadow").and_then(|shadow| match shadow {
                Some(_) => Ok(Work::Shadow(document.clone())),
                None => Err(Error::invalid("shadow", "is required")),
            }),
            Kind::SoftwareUpgrade => upgrade(&input, document, "software"),
            Kind::FirmwareUpgrade => upgrade(&input, document, "firmware"),
            Kind::DeleteDevices | Kind::FreezeDevices | Kind::UnfreezeDevices => Ok(Work::DeleteDevices),
        };
        work.map_err(within("document"))
    }

    /// The ids of devices that the document itself says are made.
    pub(super) fn devices(&self) -> Option<Vec<Box<str>>> {
        let Work::CreateDevices(devices) = self else { return None };
        Some(devices.iter().map(|device| device_id(device, &device.node_id)).collect())
    }

    /// The id of the device that is meant by a target.
    pub(super) fn target(&self, named: &str) -> Result<Box<str>, Error> {
        let Work::CreateLike(device) = self else { return Ok(named.into()) };
        let id = device_id(device, named);
        if id.len() > TARGET_BYTES_MAX {
            return Err(Error::invalid(
                "targets",
                format!("{named} makes an id of more than {TARGET_BYTES_MAX} characters"),
            ));
        }
        Ok(id)
    }

    /// Of an upgrade; else empty.
    pub(super) fn version(&self) -> &str {
        match self {
            Work::Upgrade { version, .. } => version,
            _ => "",
        }
    }

    /// Does it to one target. `again`: a run that is lost has begun it before. `None`: how it ends the device will tell.
    pub(super) async fn execute(&self, operations: &Operations, number: u32, id: &str, again: bool) -> Option<Outcome> {
        let outcome = match self {
            Work::CreateDevices(devices) => match devices.get(number as usize) {
                Some(device) => create_one(operations, device).await,
                None => Err(Error::Unavailable),
            },
            Work::CreateLike(like) => {
                let node_id = id.strip_prefix(&*like.product_id).and_then(|rest| rest.strip_prefix('_')).unwrap_or(id);
                create_one(operations, &NewDevice { node_id: node_id.to_owned(), ..(**like).clone() }).await
            }
            Work::UpdateDevices(change) => operations.update_device(id, change).await.map(|_| String::new()),
            Work::DeleteDevices => match operations.delete(RecordKind::Device, id).await {
                Err(Error::Missing { .. }) if again => Ok(String::new()),
                deleted => deleted.map(|()| String::new()),
            },
            Work::Freeze(frozen) => operations.freeze(id, *frozen).await.map(|()| String::new()),
            Work::Command(command) => match operations.command(id, command).await {
                Ok(called) => match called.response {
                    Some(response) => Ok(response.to_string()),
                    None => return Some(failed(TIMED_OUT.0, TIMED_OUT.1.to_owned(), true)),
                },
                Err(error) => Err(error),
            },
            Work::Message(message) => match operations.create_message(id, message).await {
                Ok(sent) => match sent.error {
                    Some((code, text)) => return Some(failed(code, text, true)),
                    None => Ok(json!({ "message_id": sent.id, "status": sent.status }).to_string()),
                },
                Err(error) => Err(error),
            },
            Work::Shadow(body) => operations.update_shadow(id, body).await.map(|_| String::new()),
            Work::Unreadable(problem) => return Some(failed(UNREADABLE, problem.clone(), false)),
            Work::Upgrade { kind, document, .. } => match operations.offer_upgrade(id, kind, document).await {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
        };
        Some(match outcome {
            Ok(output) => Outcome::Success { output: output.into() },
            Err(error) => {
                // What may have been done, and would be done twice, is not tried again by itself.
                let once =
                    matches!(self, Work::Command(_) | Work::Message(_) | Work::CreateDevices(_) | Work::CreateLike(_));
                let may_have_run = once && matches!(error, Error::Lost | Error::Unavailable);
                failed(error.rest().1, error.to_string(), !may_have_run && !for_good(&error))
            }
        })
    }
}

/// Whether another try would come to the same.
fn for_good(error: &Error) -> bool {
    matches!(
        error,
        Error::Invalid { .. }
            | Error::Missing { .. }
            | Error::Exists { .. }
            | Error::InUse { .. }
            | Error::NotInModel { .. }
            | Error::NotWritable { .. }
            | Error::Version { .. }
    )
}

fn failed(code: &str, message: String, again: bool) -> Outcome {
    Outcome::Fail { failure: Failure { code: code.into(), message: message.into() }, again }
}

/// A secret that is made up is shown to nobody: it is reset where it is needed.
async fn create_one(operations: &Operations, device: &NewDevice) -> Result<String, Error> {
    let made = operations.create_device(device).await?;
    Ok(json!({ "device_id": made.device.id }).to_string())
}

fn device_id(device: &NewDevice, node_id: &str) -> Box<str> {
    match &device.id {
        Some(id) => id.as_str().into(),
        None => format!("{}_{node_id}", device.product_id).into(),
    }
}

/// `{"devices": [{...}, ...]}`, or one device without `node_id` and `device_id`.
fn create(input: &Input<'_>, document: &Value) -> Result<Work, Error> {
    if let Some(devices) = input.objects("devices")? {
        if devices.is_empty() {
            return Err(Error::invalid("devices", "must not be empty"));
        }
        let read = |(at, device): (usize, &Input<'_>)| {
            let new = NewDevice::read(device)?;
            if device_id(&new, &new.node_id).len() > TARGET_BYTES_MAX {
                return Err(Error::invalid(
                    &format!("devices[{at}].node_id"),
                    format!("makes an id of more than {TARGET_BYTES_MAX} characters"),
                ));
            }
            Ok(new)
        };
        let devices: Result<_, Error> = devices.iter().enumerate().map(read).collect();
        return devices.map(Work::CreateDevices);
    }
    for name in ["device_id", "node_id"] {
        if input.value(name).is_some() {
            return Err(Error::invalid(name, "must not be there: the targets are node ids"));
        }
    }
    let mut like = document.clone();
    like["node_id"] = "".into();
    Ok(Work::CreateLike(Box::new(NewDevice::read(&Input::of(&like)?)?)))
}

fn upgrade(input: &Input<'_>, document: &Value, kind: &'static str) -> Result<Work, Error> {
    let version = input.required("version")?;
    if !(1..=VERSION_CHARS_MAX).contains(&version.chars().count()) {
        return Err(Error::invalid("version", format!("must have 1 to {VERSION_CHARS_MAX} characters")));
    }
    if !input.required("url")?.starts_with("https://") {
        return Err(Error::invalid("url", "must start with https://: what is not encrypted is not offered to devices"));
    }
    Ok(Work::Upgrade { kind, version, document: document.clone() })
}
