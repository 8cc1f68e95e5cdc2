//! `[[listener]]`: where clients come in, and what is allowed before they are known.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use fulmar_mqtt::limits;
use fulmar_mqtt::packet::OversizePolicy;
use fulmar_platform::Dialect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::proxy::Proxy;
use super::tls;
use super::units::{self, ByteCount, TimeSpan};

/// One port that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Name in logs and metrics, different for each listener. Default: protocol and port, as in `mqtts-8883`.
    #[serde(default)]
    pub name: String,
    /// IP address and port, as in `0.0.0.0:1883`; port 0 lets the system choose. Required.
    #[serde(deserialize_with = "units::address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// What is spoken: `mqtt`; `ws`, MQTT over WebSocket on any path; `http`, the services of `roles` and no MQTT; or
    /// `auto`, all of them, told by the first byte. With `tls` the first three take only TLS, `auto` takes TLS and plain
    /// on the one port. Default `mqtt`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Dialects of the clients that are let in: `tencent`, `aliyun`, `huawei`, `sensoro`, `application` for those that take
    /// what rules push, and `generic` for plain MQTT. The order means nothing. Default all.
    #[serde(default = "defaults::dialects")]
    pub dialects: Vec<DialectName>,
    /// What is served over HTTP: `device_auth`, where devices get their credentials; `api`, the platform's REST API; and
    /// `console`, the web console at `/console`. For `http`, `ws` and `auto`. Default none.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Connections of this listener at a time; beyond it new ones are closed at once. Default 0: only
    /// `limits.connections_max` counts.
    #[serde(default)]
    pub connections_max: u32,
    /// New connections per second; beyond it they are closed at once. Default 0: no limit.
    #[serde(default)]
    pub connect_rate_max: u32,
    /// Time from the accepted connection to a complete CONNECT, PROXY header and handshakes of TLS and WebSocket included;
    /// then it is closed. Default `10s`, 100ms to 5m.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: TimeSpan,
    /// Bytes of a whole packet that a client may send. Default `256KiB`, 1KiB to 1MiB.
    #[serde(default = "defaults::packet_bytes_max")]
    pub packet_bytes_max: ByteCount,
    /// What happens to a larger PUBLISH: `close` ends the connection (0x95 in MQTT 5), `skip` reads past it
    /// and acknowledges it, in MQTT 5 as refused. Default `close`.
    #[serde(default)]
    pub oversize: Oversize,
    /// Connections that the system holds for us before they are accepted. Default 4096, 1 to 65535.
    #[serde(default = "defaults::backlog")]
    pub backlog: u32,
    /// Idle time after which the system probes the peer, and how long it goes on probing every quarter of it. Default
    /// `60s`, 1s to 2h; `0s` turns it off.
    #[serde(default = "defaults::tcp_keepalive")]
    pub tcp_keepalive: TimeSpan,
    /// Time that sent bytes may stay unacknowledged by the peer's system before it drops the connection. Default `30s`,
    /// 1s to 1h; `0s` leaves it to the system.
    #[serde(default = "defaults::tcp_user_timeout")]
    pub tcp_user_timeout: TimeSpan,
    /// Balancers that say whom they connect for, by the PROXY protocol; the header comes before TLS. Default none: whoever
    /// connects is the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Certificate and key; without this table the listener takes no TLS. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT over TCP, or over TLS if the listener has a certificate.
    #[default]
    Mqtt,
    /// MQTT over WebSocket, or over WSS if the listener has a certificate.
    Ws,
    /// HTTP, or HTTPS if the listener has a certificate, and no MQTT.
    Http,
    /// Told by the first byte of a connection: MQTT, TLS (if there is a certificate) or HTTP.
    Auto,
}

/// A dialect that a listener lets in, in the order in which they are asked whose a CONNECT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DialectName {
    /// By its user name, which is no device's.
    Application,
    Tencent,
    Aliyun,
    Huawei,
    Sensoro,
    /// Plain MQTT: whatever is no device's.
    Generic,
}

/// A service over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Where devices get their credentials: `/auth/...` and `/device/register`.
    DeviceAuth,
    /// The platform's REST API: `/v3/...`, `/v5/...` and `/openapi.json`.
    Api,
    /// The web console: `/console/...`.
    Console,
}

/// What happens to a PUBLISH beyond `packet_bytes_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Oversize {
    #[default]
    Close,
    Skip,
}

/// TLS 1.2 and 1.3 of one listener. The files are watched: what new ones say holds for new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and its chain, the listener's own first. Required.
    pub cert: PathBuf,
    /// PEM file of the private key. Required.
    pub key: PathBuf,
    /// PEM file of the authorities that sign client certificates. Needed for `client_auth` `optional` and `required`.
    /// Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// PEM file of revocation lists, each signed by an authority of `client_ca`: certificates on them count for nothing. An
    /// authority without a list there has revoked none. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
    /// Whether clients are asked for a certificate: `none`, `optional` (a presented one must be valid), `required`, or
    /// `device` (any is taken, and the registry says whose it is). Default `none`.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    #[default]
    None,
    Optional,
    Required,
    /// Asked for, and taken whoever signed it; the client proves that the key is its own. What it counts for is settled
    /// at CONNECT, by the authorities of the registry and those of `client_ca`.
    Device,
}

mod defaults {
    use super::{ByteCount, DialectName, TimeSpan, limits};

    pub(super) fn dialects() -> Vec<DialectName> {
        DialectName::ALL.to_vec()
    }

    pub(super) fn connect_timeout() -> TimeSpan {
        TimeSpan::s(10)
    }

    pub(super) fn packet_bytes_max() -> ByteCount {
        ByteCount::new(u64::from(limits::PACKET_BYTES_MAX_DEFAULT))
    }

    pub(super) fn backlog() -> u32 {
        4096
    }

    pub(super) fn tcp_keepalive() -> TimeSpan {
        TimeSpan::s(60)
    }

    pub(super) fn tcp_user_timeout() -> TimeSpan {
        TimeSpan::s(30)
    }
}

impl DialectName {
    /// In the order in which they are asked.
    pub const ALL: [DialectName; 6] = [
        DialectName::Application,
        DialectName::Tencent,
        DialectName::Aliyun,
        DialectName::Huawei,
        DialectName::Sensoro,
        DialectName::Generic,
    ];

    fn dialect(self) -> Dialect {
        match self {
            DialectName::Tencent => Dialect::Tencent,
            DialectName::Aliyun => Dialect::Aliyun,
            DialectName::Huawei => Dialect::Huawei,
            DialectName::Sensoro => Dialect::Sensoro,
            DialectName::Application => Dialect::Application,
            DialectName::Generic => Dialect::Generic,
        }
    }
}

impl Oversize {
    #[must_use]
    pub fn policy(self) -> OversizePolicy {
        match self {
            Oversize::Close => OversizePolicy::Close,
            Oversize::Skip => OversizePolicy::Skip,
        }
    }
}

impl Listener {
    /// A plain listener with every other key at its default, named after protocol and port.
    #[must_use]
    pub fn new(protocol: Protocol, address: SocketAddr) -> Listener {
        let mut listener = Listener {
            name: String::new(),
            address,
            protocol,
            dialects: defaults::dialects(),
            roles: Vec::new(),
            connections_max: 0,
            connect_rate_max: 0,
            connect_timeout: defaults::connect_timeout(),
            packet_bytes_max: defaults::packet_bytes_max(),
            oversize: Oversize::Close,
            backlog: defaults::backlog(),
            tcp_keepalive: defaults::tcp_keepalive(),
            tcp_user_timeout: defaults::tcp_user_timeout(),
            proxy: None,
            tls: None,
        };
        listener.name_if_unnamed();
        listener
    }

    /// The listeners of a configuration that names none: MQTT on 1883 and WebSocket on 8083, all addresses, no TLS.
    #[must_use]
    pub fn defaults() -> Vec<Listener> {
        [(Protocol::Mqtt, 1883), (Protocol::Ws, 8083)]
            .into_iter()
            .map(|(protocol, port)| Listener::new(protocol, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
            .collect()
    }

    /// `mqtt`, `mqtts`, `ws`, `wss`, `http`, `https` or `auto`, as logs and metrics call it.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match (self.protocol, self.tls.is_some()) {
            (Protocol::Mqtt, false) => "mqtt",
            (Protocol::Mqtt, true) => "mqtts",
            (Protocol::Ws, false) => "ws",
            (Protocol::Ws, true) => "wss",
            (Protocol::Http, false) => "http",
            (Protocol::Http, true) => "https",
            (Protocol::Auto, _) => "auto",
        }
    }

    /// The dialects that are let in, each once, in the order in which they are asked.
    #[must_use]
    pub fn dialects(&self) -> Vec<Dialect> {
        DialectName::ALL.into_iter().filter(|name| self.dialects.contains(name)).map(DialectName::dialect).collect()
    }

    pub(super) fn name_if_unnamed(&mut self) {
        if self.name.is_empty() {
            self.name = format!("{}-{}", self.scheme(), self.address.port());
        }
    }

    pub(super) fn check(&self, key: &str, problems: &mut Problems<'_>) {
        let at = |field: &str| format!("{key}.{field}");
        problems.label(&at("name"), &self.name);
        let packet_bytes_max = ByteCount::new(u64::from(limits::PACKET_BYTES_HARD_MAX));
        problems.range(&at("connect_timeout"), self.connect_timeout, TimeSpan::ms(100)..=TimeSpan::s(300));
        problems.range(&at("packet_bytes_max"), self.packet_bytes_max, ByteCount::kib(1)..=packet_bytes_max);
        problems.range(&at("backlog"), self.backlog, 1..=65_535);
        if self.dialects.is_empty() {
            problems.add(&at("dialects"), "is empty; leave it out for all, or name at least one");
        }
        if !self.tcp_keepalive.is_zero() {
            problems.range(&at("tcp_keepalive"), self.tcp_keepalive, TimeSpan::s(1)..=TimeSpan::s(7200));
        }
        if !self.tcp_user_timeout.is_zero() {
            problems.range(&at("tcp_user_timeout"), self.tcp_user_timeout, TimeSpan::s(1)..=TimeSpan::s(3600));
        }
        if let Some(proxy) = &self.proxy {
            proxy.check(&at("proxy"), problems);
        }
    }

    /// Checks what one key says against another, once each is right by itself.
    pub(super) fn check_relations(&self, key: &str, problems: &mut Problems<'_>) {
        match self.protocol {
            Protocol::Mqtt if !self.roles.is_empty() => problems.add(
                &format!("{key}.roles"),
                "need HTTP, which a listener with protocol \"mqtt\" does not speak; set protocol to \"http\", \"ws\" or \"auto\"",
            ),
            Protocol::Http if self.roles.is_empty() => problems.add(
                &format!("{key}.protocol"),
                "is \"http\", which serves nothing without roles; name \"device_auth\", \"api\" or \"console\" in roles",
            ),
            _ => {}
        }
        let Some(tls) = &self.tls else { return };
        match (tls.client_auth, &tls.client_ca) {
            (ClientAuth::None, Some(_)) => problems.add(
                &format!("{key}.tls.client_ca"),
                "has no effect while client_auth is \"none\"; set client_auth to \"optional\", \"required\" or \"device\"",
            ),
            (ClientAuth::Optional | ClientAuth::Required, None) => problems
                .add(&format!("{key}.tls.client_auth"), "needs client_ca, the PEM file of the authorities that sign"),
            _ => {}
        }
        if tls.crl.is_some() && tls.client_ca.is_none() {
            problems.add(&format!("{key}.tls.crl"), tls::CRL_NEEDS_CA);
        }
    }
}
