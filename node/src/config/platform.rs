//! `[platform]`: how the dialects of devices are held to, where the vendors' services differ among themselves.

use fulmar_platform::dialect::{aliyun, application, huawei};
use fulmar_platform::registry::Endpoint;
use fulmar_platform::{Settings, dialect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::{self, TimeSpan};

/// Devices of the registry, by dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Platform {
    /// Targets of batch tasks that this node works on at one time. Default 32, 1 to 1024.
    pub batch_concurrency: u32,
    /// How long the answer of a device to a command, or to a property set or get, is waited for. Default `20s`, as the
    /// vendors have it; 100ms to 60s.
    pub command_timeout: TimeSpan,
    /// Devices of Huawei's IoTDA.
    pub huawei: Huawei,
    /// Devices of Aliyun's IoT Platform.
    pub aliyun: Aliyun,
    /// What applications name this cluster in `instanceId` of their user name, where they name one: another is refused.
    /// Default none: anything will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
}

/// Devices of Huawei's IoTDA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Huawei {
    /// How far the hour that a device signs with may be from this node's, where its client id asks for that to be
    /// checked. Default `1h`, 1h to 24h, whole hours.
    pub timestamp_tolerance: TimeSpan,
}

/// Devices of Aliyun's IoT Platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Aliyun {
    /// Time after its keep alive in which a silent device is not yet cut: a span of time, or `half` the keep alive, as
    /// MQTT has it. Default `5s`, 0s to 10m.
    pub keep_alive_grace: Grace,
    /// Whether a device that connects with the client id of another one of its product has that one cut. Default true.
    pub exclusive_client_id: bool,
    /// Host that pre-authentication tells a device to connect to, where neither the device nor its product has one.
    /// Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_host: Option<String>,
    /// Port that goes with `endpoint_host`. Default 1883.
    pub endpoint_port: u16,
    /// Whether `/auth/...` is answered over HTTP without TLS too: what is answered there are credentials. Default false.
    pub plain_auth: bool,
}

/// A span of time, or `half`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Grace {
    Half,
    Span(TimeSpan),
}

impl TryFrom<String> for Grace {
    type Error = String;

    fn try_from(text: String) -> Result<Grace, String> {
        if text == "half" {
            return Ok(Grace::Half);
        }
        let span = text.parse().map(Grace::Span);
        span.map_err(|_| format!("is {text:?}; allowed: \"half\" or a span of time, as in \"5s\""))
    }
}

impl From<Grace> for String {
    fn from(grace: Grace) -> String {
        match grace {
            Grace::Half => "half".into(),
            Grace::Span(span) => span.to_string(),
        }
    }
}

impl Default for Platform {
    fn default() -> Platform {
        Platform {
            batch_concurrency: 32,
            command_timeout: TimeSpan::s(20),
            huawei: Huawei::default(),
            aliyun: Aliyun::default(),
            instance_id: None,
        }
    }
}

impl Default for Huawei {
    fn default() -> Huawei {
        Huawei { timestamp_tolerance: TimeSpan::s(3600) }
    }
}

impl Default for Aliyun {
    fn default() -> Aliyun {
        Aliyun {
            keep_alive_grace: Grace::Span(TimeSpan::s(5)),
            exclusive_client_id: true,
            endpoint_host: None,
            endpoint_port: 1883,
            plain_auth: false,
        }
    }
}

impl Platform {
    /// As the dialects take it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Platform { huawei, aliyun, instance_id, .. } = self;
        let hours = huawei.timestamp_tolerance.as_s() / 3600;
        let host = aliyun.endpoint_host.as_deref();
        Settings {
            huawei: huawei::Options { timestamp_tolerance_h: u8::try_from(hours).unwrap_or(u8::MAX) },
            aliyun: aliyun::Options {
                keep_alive_grace: match aliyun.keep_alive_grace {
                    Grace::Half => dialect::aliyun::Grace::Half,
                    Grace::Span(span) => {
                        dialect::aliyun::Grace::Seconds(u16::try_from(span.as_s()).unwrap_or(u16::MAX))
                    }
                },
                exclusive_client_id: aliyun.exclusive_client_id,
                endpoint: host.map(|host| Endpoint { host: host.into(), port: aliyun.endpoint_port }),
                plain_auth: aliyun.plain_auth,
            },
            application: application::Options { instance_id: instance_id.as_deref().map(Into::into) },
            ..Settings::default()
        }
    }

    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.range("platform.batch_concurrency", self.batch_concurrency, 1..=1024);
        let timeout = TimeSpan::ms(100)..=TimeSpan::s(60);
        problems.range("platform.command_timeout", self.command_timeout, timeout);
        let tolerance = self.huawei.timestamp_tolerance;
        let key = "platform.huawei.timestamp_tolerance";
        problems.range(key, tolerance, TimeSpan::s(3600)..=TimeSpan::s(24 * 3600));
        if !tolerance.as_ms().is_multiple_of(3_600_000) {
            problems.add(key, format!("is {tolerance}; allowed: whole hours, as in \"1h\""));
        }
        if let Some(id) = &self.instance_id
            && (id.is_empty() || id.contains(['|', '=']))
        {
            problems
                .add("platform.instance_id", format!("is {id:?}; allowed: text without | and =, at least a character"));
        }
        if let Grace::Span(span) = self.aliyun.keep_alive_grace {
            problems.range("platform.aliyun.keep_alive_grace", span, TimeSpan::ZERO..=TimeSpan::s(600));
        }
        problems.range("platform.aliyun.endpoint_port", self.aliyun.endpoint_port, 1..=u16::MAX);
        if let Some(host) = &self.aliyun.endpoint_host
            && units::check_host_port(&format!("{host}:1")).is_err()
        {
            problems
                .add("platform.aliyun.endpoint_host", format!("is {host:?}; allowed: the name or address of a host"));
        }
    }
}
