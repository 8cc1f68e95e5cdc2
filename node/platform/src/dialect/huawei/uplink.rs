//! Reads what a device says to the platform.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use fulmar_mqtt::{QoS, TopicName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::events;
use super::topics::Up;
use crate::dialect::{Answers, Downlink, Report, Told, Uplink, shadow, uuid};
use crate::registry::{Change, Rejection};

/// Of what a compressed payload becomes.
const INFLATED_BYTES_MAX: u64 = 1 << 20;

const REQUEST_ID_BYTES_MAX: usize = 256;

/// Sub-devices of one report, and events of one message.
pub(super) const ENTRIES_MAX: usize = 50;

type Read<T> = Result<T, &'static str>;

/// One uplink being read.
pub(super) struct Reading<'a> {
    pub(super) own: &'a str,
    pub(super) uplink: &'a Uplink<'a>,
    request_id: Box<str>,
    pub(super) answers: Answers,
}

/// `path` and `query` are the two sides of the topic's `?`; `up` is what the path means.
pub(super) fn read(own: &str, up: Up<'_>, path: &str, query: &str, uplink: &Uplink<'_>) -> Answers {
    let parameter = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let named = match up {
        Up::Response(id) | Up::Shadow(id) => Some(id),
        _ => parameter("request_id"),
    };
    let request_id = match named.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX) {
        Some(id) => id.into(),
        None => uuid(uplink.entropy).into(),
    };
    let mut reading = Reading { own, uplink, request_id, answers: Answers::default() };
    let payload = match parameter("encoding") {
        None | Some("") => Ok(uplink.payload.clone()),
        Some("gzip") => inflate(uplink.payload),
        Some(_) => Err("an encoding that is not gzip"),
    };
    if let Err(problem) = payload.and_then(|payload| reading.read(up, path, &payload)) {
        reading.answers.problem = Some(problem);
    }
    reading.answers
}

fn inflate(payload: &[u8]) -> Read<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(payload)
        .take(INFLATED_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|_| "the payload is not gzip, as its topic says")?;
    if plain.len() as u64 > INFLATED_BYTES_MAX {
        return Err("the payload inflates to more than 1 MiB");
    }
    Ok(Bytes::from(plain))
}

#[derive(Deserialize)]
struct GetShadow {
    #[serde(default)]
    object_device_id: Value,
    /// Empty or null: all.
    #[serde(default)]
    service_id: Option<String>,
}

/// Any message may name a sub-device as the one that it is about.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    object_device_id: Value,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(default)]
    object_device_id: Value,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct SubDevices {
    devices: Vec<SubDevice>,
}

#[derive(Deserialize)]
struct SubDevice {
    device_id: String,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    service_id: String,
    properties: Map<String, Value>,
    #[serde(default)]
    event_time: Value,
}

pub(super) fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Read<T> {
    serde_json::from_slice(payload).map_err(|_| "not the JSON that belongs on this topic")
}

/// A time that a device gives: `yyyyMMdd'T'HHmmss'Z'`, or ISO 8601 with milliseconds. Without one the time of arrival
/// counts.
pub(super) fn event_time(given: &Value) -> Option<&str> {
    let is_like = |text: &str, form: &str| {
        text.len() == form.len()
            && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    let forms = ["00000000T000000Z", "0000-00-00T00:00:00.000Z"];
    given.as_str().filter(|text| forms.iter().any(|form| is_like(text, form)))
}

fn services(services: Vec<Service>) -> Value {
    let service = |service: Service| {
        let mut told = json!({"service_id": service.service_id, "properties": service.properties});
        if let Some(time) = event_time(&service.event_time) {
            told["event_time"] = time.into();
        }
        told
    };
    services.into_iter().map(service).collect()
}

impl Reading<'_> {
    fn read(&mut self, up: Up<'_>, path: &str, payload: &Bytes) -> Read<()> {
        match up {
            Up::Custom => {
                let message = message(path, payload)?;
                self.report(self.own, message);
            }
            Up::Message => {
                // Anything goes; only an envelope is looked into.
                let named = parse::<Envelope>(payload).map_or(Value::Null, |envelope| envelope.object_device_id);
                let device = self.whose(&named)?;
                self.report(&device, message(path, payload)?);
            }
            Up::Properties => {
                let Properties { object_device_id, services: told } = parse(payload)?;
                let device = self.whose(&object_device_id)?;
                self.report(&device, Told::Properties(services(told)));
            }
            Up::SubDevices => self.sub_devices(parse(payload)?)?,
            Up::Response("") | Up::Shadow("") => return Err("no request id"),
            Up::Response(id) | Up::Shadow(id) if id.len() > REQUEST_ID_BYTES_MAX => {
                return Err("a request id too long");
            }
            Up::Response(_) => {
                let Envelope { object_device_id } = parse(payload)?;
                let device = self.whose(&object_device_id)?;
                self.report(&device, Told::Response(payload.clone()));
            }
            Up::Shadow(id) => {
                let GetShadow { object_device_id, service_id } = parse(payload)?;
                let device = self.whose(&object_device_id)?;
                let wanted = service_id.as_deref().filter(|id| !id.is_empty());
                let services = shadow::services(self.uplink.registry, &device, wanted);
                let answer = json!({"object_device_id": device, "shadow": services});
                self.answer(&format!("sys/shadow/get/response/request_id={id}"), &answer)?;
            }
            Up::Events => events::read(self, payload)?,
        }
        Ok(())
    }

    fn sub_devices(&mut self, told: SubDevices) -> Read<()> {
        if told.devices.len() > ENTRIES_MAX {
            return Err("more than 50 sub-devices in one report");
        }
        // One that is not the gateway's does not spoil what the others say.
        let mut outcome = Ok(());
        for SubDevice { device_id, services: told } in told.devices {
            match self.whose(&Value::String(device_id)) {
                Ok(device) => self.report(&device, Told::Properties(services(told))),
                Err(problem) => outcome = Err(problem),
            }
        }
        outcome
    }

    /// Which device is named: this one, also where nothing is named, or a sub-device of it.
    pub(super) fn whose(&self, named: &Value) -> Read<Box<str>> {
        match named {
            Value::Null => Ok(self.own.into()),
            Value::String(id) if id.is_empty() || *id == *self.own => Ok(self.own.into()),
            Value::String(id) if self.is_below(id) => Ok(id.as_str().into()),
            _ => Err("about a device that is no sub-device of this one"),
        }
    }

    /// Sub-devices may have sub-devices, and these none.
    fn is_below(&self, id: &str) -> bool {
        let gateway = |id: &str| self.uplink.registry.device(id).map(|(device, _)| &*device.record.gateway_id);
        let above = gateway(id);
        let above_that = above.filter(|id| !id.is_empty()).and_then(gateway);
        above == Some(self.own) || above_that == Some(self.own)
    }

    pub(super) fn report(&mut self, device: &str, what: Told) {
        let request_id = self.request_id.clone();
        self.answers.reports.push(Report { device: device.into(), request_id, what });
    }

    /// To the connected device, on a topic that is given without the part up to its id.
    pub(super) fn answer(&mut self, rest: &str, answer: &Value) -> Read<()> {
        self.answers.downlinks.push(downlink(self.own, rest, answer).ok_or("a topic that is none")?);
        Ok(())
    }

    /// Has changes committed, and answers an event by what they come to.
    pub(super) fn ask(
        &mut self,
        changes: Vec<Change>,
        reply: impl FnOnce(&[Result<(), Rejection>]) -> Value + Send + 'static,
    ) {
        let own = Box::<str>::from(self.own);
        self.answers
            .ask(changes, move |outcomes| downlink(&own, "sys/events/down", &reply(outcomes)).into_iter().collect());
    }
}

fn downlink(own: &str, rest: &str, answer: &Value) -> Option<Downlink> {
    let topic = TopicName::new(format!("$oc/devices/{own}/{rest}")).ok()?;
    Some(Downlink { topic, payload: answer.to_string().into(), qos: QoS::AtLeastOnce })
}

/// With the topic as it was, but for its query.
fn message(path: &str, payload: &Bytes) -> Read<Told> {
    let topic = TopicName::new(path).map_err(|_| "a topic that is none")?;
    Ok(Told::Message { topic, payload: payload.clone() })
}
