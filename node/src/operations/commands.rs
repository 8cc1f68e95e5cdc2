//! Synchronous commands, and properties that are set and asked for: from any node to the device's, and back. Nothing is
//! kept of them: who asked is answered, and that is all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::SessionKey;
use fulmar_platform::Dialect;
use fulmar_platform::dialect::call::{Call, Names, Unfit};
use fulmar_platform::model::{Mismatch, MismatchKind, Model};
use fulmar_platform::registry::{Device, Kept, Kind, Product};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::input::Input;
use super::{Error, Operations, check};
use crate::dispatch;

const SERVICE_CHARS_MAX: usize = 64;
const COMMAND_CHARS_MAX: usize = 128;

/// Services of one request.
const SERVICES_MAX: usize = 500;

/// Models that are kept read.
const MODELS_MAX: usize = 256;

/// A command to a device, as `POST .../commands` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCommand {
    /// Empty: none, and nothing is checked against the product model.
    pub service_id: String,
    pub command_name: String,
    /// A JSON object.
    pub paras: Value,
}

impl NewCommand {
    /// # Errors
    /// A member is missing, of the wrong type, or too long.
    pub fn read(input: &Input<'_>) -> Result<NewCommand, Error> {
        let service_id = input.text("service_id")?.unwrap_or_default();
        let command_name = input.text("command_name")?.unwrap_or_default();
        check::text("service_id", &service_id, 0, SERVICE_CHARS_MAX)?;
        check::text("command_name", &command_name, 0, COMMAND_CHARS_MAX)?;
        let paras = input.value("paras").ok_or_else(|| input.wrong("paras", "is required"))?.clone();
        if !paras.is_object() {
            return Err(input.wrong("paras", "must be an object"));
        }
        Ok(NewCommand { service_id, command_name, paras })
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Of the request, also where no answer came.
    pub id: String,
    /// What the device has answered; null for what nothing answers. `None`: nothing in time.
    pub response: Option<Value>,
}

/// By product; with the revision of the product that a model was read from.
type ByProduct = HashMap<Box<str>, (u64, Arc<Model>)>;

/// Models of products, as they were last read.
#[derive(Debug, Clone, Default)]
pub(super) struct Models(Arc<Mutex<ByProduct>>);

impl Models {
    fn of(&self, product: &Kept<Product>) -> Arc<Model> {
        let id = &product.record.id;
        if let Some((_, model)) = self.0.lock().get(id).filter(|(revision, _)| *revision == product.revision) {
            return model.clone();
        }
        let read = serde_json::from_str(&product.record.model).ok().and_then(|model| Model::read(&model).ok());
        // It was checked before it was committed.
        let model = Arc::new(read.unwrap_or_default());
        let mut models = self.0.lock();
        if models.len() >= MODELS_MAX {
            models.clear();
        }
        models.insert(id.clone(), (product.revision, model.clone()));
        model
    }
}

/// A device that can be asked.
struct Target {
    device: Arc<Device>,
    dialect: Dialect,
    /// Of the connection that it is reached by: its own, or that of its gateway.
    key: SessionKey,
    /// `None`: nothing is checked.
    model: Option<Arc<Model>>,
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Error {
        let Mismatch { kind, parameter, problem } = mismatch;
        match kind {
            MismatchKind::Unknown => Error::NotInModel { parameter, problem },
            MismatchKind::NotWritable => Error::NotWritable { parameter, problem },
            MismatchKind::Value => Error::Invalid { parameter, problem },
        }
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Error {
        Error::invalid(unfit.parameter, unfit.problem)
    }
}

impl Operations {
    /// Sends a command, and waits for its answer.
    ///
    /// # Errors
    /// There is no such device, it is not online, or the product model does not have the command so. [`Error::Lost`]: the
    /// device's node was lost, and the command may have run.
    pub async fn command(&self, device: &str, command: &NewCommand) -> Result<Called, Error> {
        self.run(device, command, false).await
    }

    /// As [`Operations::command`], to a device of Aliyun's by RRPC: firmware answers it before it does anything else.
    ///
    /// # Errors
    /// As there; and the device is of another dialect.
    pub async fn command_at_once(&self, device: &str, command: &NewCommand) -> Result<Called, Error> {
        self.run(device, command, true).await
    }

    async fn run(&self, device: &str, command: &NewCommand, at_once: bool) -> Result<Called, Error> {
        let target = self.target(device)?;
        let NewCommand { service_id, command_name, paras } = command;
        let paras = paras.as_object().ok_or_else(|| Error::invalid("paras", "must be an object"))?;
        if let Some(model) = target.model.as_ref().filter(|_| !service_id.is_empty()) {
            model.check_command(service_id, command_name, paras)?;
        }
        self.ask(&target, Call::Command { service_id, name: command_name, paras, at_once }).await
    }

    /// Sets properties: `services` is `[{"service_id", "properties": {}}]`.
    ///
    /// # Errors
    /// As of [`Operations::command`].
    pub async fn set_properties(&self, device: &str, services: &Value) -> Result<Called, Error> {
        let list = services.as_array().ok_or_else(|| Error::invalid("services", "must be a list"))?;
        if list.is_empty() || list.len() > SERVICES_MAX {
            return Err(Error::invalid("services", format!("must have 1 to {SERVICES_MAX} elements")));
        }
        let mut read: Vec<(&str, &Map<String, Value>)> = Vec::with_capacity(list.len());
        for (at, service) in list.iter().enumerate() {
            let wrong = |member: &str, problem: &str| Error::invalid(&format!("services[{at}]{member}"), problem);
            let members = service.as_object().ok_or_else(|| wrong("", "must be an object"))?;
            let id = members.get("service_id").and_then(Value::as_str).filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| wrong(".service_id", "is required: a string"))?;
            let properties = members.get("properties").and_then(Value::as_object);
            read.push((id, properties.ok_or_else(|| wrong(".properties", "is required: an object"))?));
        }
        let target = self.target(device)?;
        for (at, (id, properties)) in read.iter().enumerate() {
            if let Some(model) = &target.model {
                model.check_properties(id, properties, &format!("services[{at}]"))?;
            }
        }
        // What is sent on has these members and no others.
        let services: Vec<Value> = read
            .into_iter()
            .map(|(id, properties)| serde_json::json!({ "service_id": id, "properties": properties }))
            .collect();
        self.ask(&target, Call::SetProperties { services: &services }).await
    }

    /// Asks for the properties of a service, or of all if that is empty.
    ///
    /// # Errors
    /// As of [`Operations::command`].
    pub async fn get_properties(&self, device: &str, service_id: &str) -> Result<Called, Error> {
        check::text("service_id", service_id, 0, SERVICE_CHARS_MAX)?;
        let target = self.target(device)?;
        let mut names = Vec::new();
        if let Some(model) = target.model.as_ref().filter(|_| !service_id.is_empty()) {
            let service = model.known_service(service_id, "service_id")?;
            names.extend(service.properties.iter().map(|property| property.name.clone()));
        }
        self.ask(&target, Call::GetProperties { service_id, names: &names }).await
    }

    /// Asks a device of Aliyun's or Tencent's with any bytes. `reply`: whether it answers.
    ///
    /// # Errors
    /// As of [`Operations::command`]; and the dialect has nothing of the kind.
    pub async fn request(&self, device: &str, payload: &Bytes, reply: bool) -> Result<Called, Error> {
        let target = self.target(device)?;
        self.ask(&target, Call::Request { payload, answered: reply }).await
    }

    /// A device that is reached now.
    fn target(&self, id: &str) -> Result<Target, Error> {
        let state = self.dispatch.replica().read();
        let registry = state.registry();
        let missing = || Error::missing(Kind::Device, id);
        let (kept, _) = registry.device(id).ok_or_else(missing)?;
        let device = kept.record.clone();
        if device.frozen {
            return Err(Error::Frozen { device: id.to_owned() });
        }
        let connected = registry.connected_through(id).ok_or_else(missing)?;
        let key = state.session_of_device(connected).ok_or_else(missing)?;
        if state.device_owner(id).is_none() {
            return Err(offline(&device));
        }
        let product = registry.product(&device.product_id).ok_or_else(missing)?.clone();
        drop(state);
        let dialect = product.record.dialect;
        // Other dialects know devices without a model.
        let model = Some(self.models.of(&product));
        let model = model.filter(|model| dialect == Dialect::Huawei || !model.services.is_empty());
        Ok(Target { device, dialect, key, model })
    }

    async fn ask(&self, target: &Target, call: Call<'_>) -> Result<Called, Error> {
        let Target { device, dialect, key, .. } = target;
        let id = self.dispatch.call_id();
        let (uuid, number) = (id.uuid(), id.short().to_string());
        let downlink = call.encode(*dialect, device, key.identity(), Names { uuid: &uuid, number: &number })?;
        let answered = !matches!(call, Call::Request { answered: false, .. });
        let called = self.dispatch.call(id, key, downlink, answered.then_some(self.command_timeout)).await;
        if !self.serves() {
            return Err(Error::Lost); // without a lease nothing is answered
        }
        let response = match called {
            dispatch::Called::Answered(answer) => Some(call.response(*dialect, &answer)),
            dispatch::Called::Sent => Some(Value::Null),
            dispatch::Called::Timeout => None,
            dispatch::Called::Offline => return Err(offline(device)),
            dispatch::Called::NotSubscribed => return Err(Error::NotSubscribed { device: device.id.to_string() }),
            dispatch::Called::Busy => return Err(Error::Busy { device: device.id.to_string() }),
            dispatch::Called::Unreached => return Err(Error::Unreached { device: device.id.to_string() }),
            dispatch::Called::Lost => return Err(Error::Lost),
        };
        Ok(Called { id: uuid, response })
    }
}

fn offline(device: &Device) -> Error {
    match &*device.gateway_id {
        "" => Error::Offline,
        gateway => Error::GatewayOffline { gateway: gateway.to_owned() },
    }
}
