//! What an application asks of a device, whatever its dialect: how it is put to the device, and what its answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Dialect, Downlink, aliyun, huawei, tencent};
use crate::registry::Device;

/// The service of devices whose dialect, or whose model, knows none.
pub const SERVICE: &str = "default";

/// Bytes of a packet beside topic and payload, at most.
const HEADER_BYTES_MAX: usize = 16;

/// One request to a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Call<'a> {
    Command {
        /// Empty, or [`SERVICE`]: none.
        service_id: &'a str,
        name: &'a str,
        paras: &'a Map<String, Value>,
        /// Aliyun: by RRPC, which the device answers where it was asked.
        at_once: bool,
    },
    /// `services`: `[{"service_id", "properties": {}}]`.
    SetProperties { services: &'a [Value] },
    /// Of one service, or of all if it is empty. `names`: those that its model has.
    GetProperties { service_id: &'a str, names: &'a [String] },
    /// Any bytes, by the RRPC of Aliyun and Tencent. Without an answer: Tencent's `control`.
    Request { payload: &'a Bytes, answered: bool },
}

/// The id of a request, in the forms that devices take it in.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// A UUID: Huawei.
    pub uuid: &'a str,
    /// A decimal number of 64 bits: Aliyun and Tencent, whose firmware reads it into an integer.
    pub number: &'a str,
}

/// Why a device cannot be asked so: the parameter of the request, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub parameter: &'static str,
    pub problem: String,
}

fn unfit(parameter: &'static str, problem: impl Into<String>) -> Unfit {
    Unfit { parameter, problem: problem.into() }
}

impl Call<'_> {
    /// The parameter that makes a request large.
    fn body(&self) -> &'static str {
        match self {
            Call::Command { .. } => "paras",
            Call::SetProperties { .. } => "services",
            Call::GetProperties { .. } => "service_id",
            Call::Request { .. } => "payload",
        }
    }

    /// The request as it goes to `device`, over the connection of the device `connected`: itself, or its gateway.
    ///
    /// # Errors
    /// The dialect has no such request, or it is too large for the device.
    pub fn encode(
        &self,
        dialect: Dialect,
        device: &Device,
        connected: &str,
        names: Names<'_>,
    ) -> Result<Downlink, Unfit> {
        let downlink = match dialect {
            Dialect::Huawei => self.huawei(device, connected, names.uuid),
            Dialect::Aliyun => self.aliyun(device, names.number),
            Dialect::Tencent => self.tencent(device, names.number),
            Dialect::Generic | Dialect::Sensoro | Dialect::Application => {
                Err(unfit("device_id", "is no device that takes requests"))
            }
        }?;
        let bytes = downlink.topic.as_str().len() + downlink.payload.len() + HEADER_BYTES_MAX;
        match dialect.packet_bytes_max().map(|most| most as usize) {
            Some(most) if bytes > most => {
                let problem = format!("makes a packet of {bytes} bytes; the device takes {most}");
                Err(unfit(self.body(), problem))
            }
            _ => Ok(downlink),
        }
    }

    fn huawei(&self, device: &Device, connected: &str, id: &str) -> Result<Downlink, Unfit> {
        let device = &*device.id;
        let downlink = match *self {
            Call::Command { at_once: true, .. } => return Err(unfit("at_once", "is for devices of Aliyun")),
            Call::Command { service_id, name, paras, .. } => {
                huawei::call::command(connected, device, id, (service_id, name), paras)
            }
            Call::SetProperties { services } => huawei::call::set_properties(connected, device, id, services),
            Call::GetProperties { service_id, .. } => huawei::call::get_properties(connected, device, id, service_id),
            Call::Request { .. } => return Err(unfit("device_id", "is a device of Huawei's: it takes commands")),
        };
        downlink.ok_or_else(|| unfit("device_id", "cannot stand in a topic"))
    }

    fn aliyun(&self, device: &Device, id: &str) -> Result<Downlink, Unfit> {
        let in_service = |service_id: &str, name: &str| match service_id {
            "" | SERVICE => name.to_owned(),
            block => format!("{block}:{name}"),
        };
        let downlink = match *self {
            Call::Command { name: "", .. } => return Err(unfit("command_name", "is required: the service to call")),
            Call::Command { service_id, name, paras, at_once } => {
                let service = in_service(service_id, name);
                let downlink = if at_once {
                    aliyun::call::call_service_at_once(device, id, &service, paras)
                } else {
                    aliyun::call::call_service(device, &service, id, paras)
                };
                return downlink.ok_or_else(|| unfit("command_name", "cannot stand in a topic"));
            }
            Call::SetProperties { services } => {
                let mut params = Map::new();
                for service in services {
                    let id = service.get("service_id").and_then(Value::as_str).unwrap_or_default();
                    let properties = service.get("properties").and_then(Value::as_object).into_iter().flatten();
                    params.extend(properties.map(|(name, value)| (in_service(id, name), value.clone())));
                }
                aliyun::call::set_properties(device, id, &params)
            }
            Call::GetProperties { service_id, names } => {
                let names: Vec<String> = names.iter().map(|name| in_service(service_id, name)).collect();
                aliyun::call::get_properties(device, id, &names)
            }
            Call::Request { answered: false, .. } => return Err(unfit("reply", "must be true for a device of Aliyun")),
            Call::Request { payload, .. } => aliyun::call::request(device, id, payload.clone()),
        };
        downlink.ok_or_else(|| unfit("device_id", "cannot stand in a topic"))
    }

    /// The vendor's hub leaves the form of RRPC to whoever uses it: JSON, which some firmware insists on.
    fn tencent(&self, device: &Device, id: &str) -> Result<Downlink, Unfit> {
        let asked = match *self {
            Call::Command { at_once: true, .. } => return Err(unfit("at_once", "is for devices of Aliyun")),
            Call::Command { service_id, name, paras, .. } => {
                json!({ "type": "command", "service_id": service_id, "command_name": name, "paras": paras })
            }
            Call::SetProperties { services } => json!({ "type": "set_properties", "services": services }),
            Call::GetProperties { service_id, .. } => json!({ "type": "get_properties", "service_id": service_id }),
            Call::Request { payload, answered } => {
                let downlink = if answered {
                    tencent::call::request(device, id, payload.clone())
                } else {
                    tencent::call::control(device, payload.clone())
                };
                return downlink.ok_or_else(|| unfit("device_id", "cannot stand in a topic"));
            }
        };
        let downlink = tencent::call::request(device, id, asked.to_string().into());
        downlink.ok_or_else(|| unfit("device_id", "cannot stand in a topic"))
    }

    /// What an answer means, as the `response` of the REST API has it: the device's own JSON or, of a dialect whose
    /// answers are of another form, the same in Huawei's. What cannot be read is given as text, or as base64.
    #[must_use]
    pub fn response(&self, dialect: Dialect, answer: &[u8]) -> Value {
        if let Call::Request { .. } = self {
            return bytes(answer);
        }
        match serde_json::from_slice(answer) {
            Ok(answer) if dialect == Dialect::Aliyun => self.of_alink(answer),
            Ok(answer) => answer,
            Err(_) => bytes(answer),
        }
    }

    /// From `{"id", "code", "data", "message"?}`, where a code of 200 is success.
    fn of_alink(&self, answer: Value) -> Value {
        let Some(code) = answer.get("code").and_then(Value::as_i64) else { return answer };
        let result_code = if code == 200 { 0 } else { code };
        let data = answer.get("data").cloned().unwrap_or_else(|| json!({}));
        match self {
            Call::Command { name, .. } => {
                json!({ "result_code": result_code, "response_name": name, "paras": data })
            }
            Call::GetProperties { .. } if result_code == 0 => {
                json!({ "services": [{ "service_id": SERVICE, "properties": data }] })
            }
            _ => {
                let said = answer.get("message").and_then(Value::as_str).unwrap_or_default();
                let result_desc = if said.is_empty() && result_code == 0 { "success" } else { said };
                json!({ "result_code": result_code, "result_desc": result_desc })
            }
        }
    }
}

/// `{"payload", "encoding"}`: text as it is, anything else as base64.
fn bytes(payload: &[u8]) -> Value {
    match std::str::from_utf8(payload) {
        Ok(text) => json!({ "payload": text, "encoding": "none" }),
        Err(_) => json!({ "payload": BASE64.encode(payload), "encoding": "base64" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { uuid: "0-0", number: "77" };

    fn device() -> Device {
        Device::new("p", "space", "n", 0)
    }

    fn paras() -> Map<String, Value> {
        json!({"value": 1}).as_object().cloned().unwrap()
    }

    fn sent(call: Call<'_>, dialect: Dialect) -> Result<(String, String), Unfit> {
        let downlink = call.encode(dialect, &device(), "gateway", NAMES)?;
        Ok((downlink.topic.as_str().to_owned(), String::from_utf8(downlink.payload.to_vec()).unwrap()))
    }

    #[test]
    fn every_dialect_has_its_own_form() {
        use Dialect::{Aliyun, Huawei, Tencent};
        let (paras, payload) = (paras(), Bytes::from_static(b"any"));
        let services = [
            json!({"service_id": "s", "properties": {"a": 1}}),
            json!({"service_id": "default", "properties": {"b": 2}}),
        ];
        let names = ["a".to_owned()];
        let command = |service_id, at_once| Call::Command { service_id, name: "c", paras: &paras, at_once };
        let (set, get) =
            (Call::SetProperties { services: &services }, Call::GetProperties { service_id: "s", names: &names });
        let request = |answered| Call::Request { payload: &payload, answered };
        let oc = "$oc/devices/gateway/sys";
        let sys = "/sys/p/n/thing/service";
        for (dialect, call, topic, text) in [
            (
                Huawei,
                command("s", false),
                format!("{oc}/commands/request_id=0-0"),
                r#"{"object_device_id":"p_n","command_name":"c","service_id":"s","paras":{"value":1}}"#,
            ),
            (
                Huawei,
                set,
                format!("{oc}/properties/set/request_id=0-0"),
                r#"{"object_device_id":"p_n","services":[{"properties":{"a":1},"service_id":"s"},{"properties":{"b":2},"service_id":"default"}]}"#,
            ),
            (
                Huawei,
                get,
                format!("{oc}/properties/get/request_id=0-0"),
                r#"{"object_device_id":"p_n","service_id":"s"}"#,
            ),
            (
                Aliyun,
                command("", false),
                format!("{sys}/c"),
                r#"{"id":"77","version":"1.0","params":{"value":1},"method":"thing.service.c"}"#,
            ),
            (
                Aliyun,
                command("block", false),
                format!("{sys}/block:c"),
                r#"{"id":"77","version":"1.0","params":{"value":1},"method":"thing.service.block:c"}"#,
            ),
            (
                Aliyun,
                command("default", true),
                format!("/ext/rrpc/77{sys}/c"),
                r#"{"id":"77","version":"1.0","params":{"value":1},"method":"thing.service.c"}"#,
            ),
            (
                Aliyun,
                set,
                format!("{sys}/property/set"),
                r#"{"id":"77","version":"1.0","params":{"b":2,"s:a":1},"method":"thing.service.property.set"}"#,
            ),
            (
                Aliyun,
                get,
                format!("{sys}/property/get"),
                r#"{"id":"77","version":"1.0","params":["s:a"],"method":"thing.service.property.get"}"#,
            ),
            (Aliyun, request(true), "/sys/p/n/rrpc/request/77".to_owned(), "any"),
            (
                Tencent,
                command("s", false),
                "$rrpc/rxd/p/n/77".to_owned(),
                r#"{"command_name":"c","paras":{"value":1},"service_id":"s","type":"command"}"#,
            ),
            (Tencent, get, "$rrpc/rxd/p/n/77".to_owned(), r#"{"service_id":"s","type":"get_properties"}"#),
            (Tencent, request(true), "$rrpc/rxd/p/n/77".to_owned(), "any"),
            (Tencent, request(false), "p/n/control".to_owned(), "any"),
        ] {
            assert_eq!(sent(call, dialect), Ok((topic, text.to_owned())));
        }
    }

    #[test]
    fn what_a_dialect_does_not_have_is_named() {
        let (paras, payload) = (paras(), Bytes::from_static(b"any"));
        let command = |name, at_once| Call::Command { service_id: "", name, paras: &paras, at_once };
        for (dialect, call, parameter) in [
            (Dialect::Huawei, Call::Request { payload: &payload, answered: true }, "device_id"),
            (Dialect::Huawei, command("c", true), "at_once"),
            (Dialect::Tencent, command("c", true), "at_once"),
            (Dialect::Aliyun, command("", false), "command_name"),
            (Dialect::Aliyun, command("a/b", false), "command_name"),
            (Dialect::Aliyun, command("#", true), "command_name"),
            (Dialect::Aliyun, Call::Request { payload: &payload, answered: false }, "reply"),
            (Dialect::Sensoro, command("c", false), "device_id"),
        ] {
            assert_eq!(sent(call, dialect).expect_err("it is unfit").parameter, parameter);
        }
    }

    #[test]
    fn requests_fit_into_the_packets_of_the_device() {
        for dialect in [Dialect::Huawei, Dialect::Aliyun, Dialect::Tencent] {
            let most = dialect.packet_bytes_max().unwrap() as usize;
            for (length, fits) in [(most - 400, true), (most, false)] {
                let paras = Map::from_iter([("text".to_owned(), Value::String("x".repeat(length)))]);
                let call = Call::Command { service_id: "", name: "c", paras: &paras, at_once: false };
                let outcome = sent(call, dialect).map(drop).map_err(|unfit| unfit.parameter);
                assert_eq!(outcome, if fits { Ok(()) } else { Err("paras") }, "{dialect} {length}");
            }
        }
    }

    #[test]
    fn answers_have_one_form() {
        use Dialect::{Aliyun, Huawei, Tencent};
        let (paras, payload) = (paras(), Bytes::from_static(b"any"));
        let command = Call::Command { service_id: "", name: "c", paras: &paras, at_once: false };
        let (set, get) = (Call::SetProperties { services: &[] }, Call::GetProperties { service_id: "", names: &[] });
        let request = Call::Request { payload: &payload, answered: true };
        for (dialect, call, answer, response) in [
            (Huawei, command, r#"{"result_code":1,"paras":{"a":[]}}"#, json!({"result_code": 1, "paras": {"a": []}})),
            (Tencent, command, "[1]", json!([1])),
            (
                Aliyun,
                command,
                r#"{"id":"1","code":200,"data":{"a":1}}"#,
                json!({"result_code": 0, "response_name": "c", "paras": {"a": 1}}),
            ),
            (
                Aliyun,
                command,
                r#"{"id":"1","code":5001}"#,
                json!({"result_code": 5001, "response_name": "c", "paras": {}}),
            ),
            (Aliyun, command, r#"{"a":1}"#, json!({"a": 1})),
            (Aliyun, set, r#"{"code":200,"data":{}}"#, json!({"result_code": 0, "result_desc": "success"})),
            (Aliyun, set, r#"{"code":460,"message":"bad"}"#, json!({"result_code": 460, "result_desc": "bad"})),
            (
                Aliyun,
                get,
                r#"{"code":200,"data":{"t":2}}"#,
                json!({"services": [{"service_id": "default", "properties": {"t": 2}}]}),
            ),
            (Aliyun, get, r#"{"code":500}"#, json!({"result_code": 500, "result_desc": ""})),
            (Aliyun, request, r#"{"code":200}"#, json!({"payload": r#"{"code":200}"#, "encoding": "none"})),
            (Tencent, command, "no JSON", json!({"payload": "no JSON", "encoding": "none"})),
        ] {
            assert_eq!(call.response(dialect, answer.as_bytes()), response, "{answer}");
        }
        assert_eq!(request.response(Tencent, &[0xff, 0]), json!({"payload": "/wA=", "encoding": "base64"}));
    }
}
