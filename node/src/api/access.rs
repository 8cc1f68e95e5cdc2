//! Where clients and people reach this node, by its configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use fulmar_platform::Dialect;
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::config::Config;
use crate::config::listener::{Listener, Protocol, Role};
use crate::operations::input::Input;
use crate::tls::Certificates;

/// Bytes of a certificate's file.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a host's name.
const HOST_BYTES_MAX: usize = 253;

/// A port that speaks MQTT over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// `ws` or `wss`.
    pub scheme: &'static str,
    pub port: u16,
}

/// What the configuration says of how to get here.
#[derive(Debug, Clone, Default)]
pub struct Access {
    places: Vec<Place>,
    instance_id: Option<String>,
    root_certificate: Option<Root>,
}

/// The certificate of the authority that vouches for the listeners.
#[derive(Debug, Clone)]
struct Root {
    path: PathBuf,
    /// As the file says now.
    pem: Arc<RwLock<String>>,
}

/// One way in.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    scheme: &'static str,
    address: IpAddr,
    port: u16,
    dialects: Vec<Dialect>,
    roles: Vec<&'static str>,
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::DeviceAuth => "device_auth",
        Role::Api => "api",
        Role::Console => "console",
    }
}

/// A listener's schemes: one of several protocols has one for each.
fn schemes(listener: &Listener) -> Vec<&'static str> {
    let tls = listener.tls.is_some();
    match (listener.protocol, tls) {
        (Protocol::Auto, false) => vec!["mqtt", "ws", "http"],
        (Protocol::Auto, true) => vec!["mqtt", "ws", "http", "mqtts", "wss", "https"],
        (Protocol::Ws, false) => vec!["ws", "http"],
        (Protocol::Ws, true) => vec!["wss", "https"],
        _ => vec![listener.scheme()],
    }
}

/// Reads certificates as PEM.
fn root_certificate(path: &Path) -> anyhow::Result<String> {
    let shown = || format!("rest.root_certificate names {}", path.display());
    let text = std::fs::read_to_string(path).with_context(shown)?;
    // Nobody is to hand out a key by a slip of the configuration.
    let public = text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY-----");
    anyhow::ensure!(
        public && text.len() <= CERTIFICATE_BYTES_MAX,
        "{}, which is no PEM file of certificates alone",
        shown()
    );
    Ok(text)
}

impl Access {
    /// Reads the certificate that the configuration names. Listeners whose port the system chooses are left out.
    ///
    /// # Errors
    /// It cannot be read, or is no text of a certificate.
    pub fn load(config: &Config) -> anyhow::Result<Access> {
        let mut places = Vec::new();
        for listener in config.listener.iter().filter(|listener| listener.address.port() != 0) {
            for scheme in schemes(listener) {
                let http = scheme.starts_with("http");
                if http && listener.roles.is_empty() {
                    continue;
                }
                places.push(Place {
                    name: listener.name.clone(),
                    scheme,
                    address: listener.address.ip(),
                    port: listener.address.port(),
                    dialects: if http { Vec::new() } else { listener.dialects() },
                    roles: if http { listener.roles.iter().copied().map(role_name).collect() } else { Vec::new() },
                });
            }
        }
        let root_certificate = match &config.rest.root_certificate {
            None => None,
            Some(path) => Some(Root { path: path.clone(), pem: Arc::new(RwLock::new(root_certificate(path)?)) }),
        };
        Ok(Access { places, instance_id: config.platform.instance_id.clone(), root_certificate })
    }

    /// Reads the certificate again whenever its file changes.
    pub fn follow(&self, certificates: &Certificates) {
        if let Some(Root { path, pem }) = self.root_certificate.clone() {
            let file = path.clone();
            let read = move || {
                *pem.write() = root_certificate(&path).map_err(|error| format!("{error:#}"))?;
                Ok(())
            };
            certificates.follow("rest.root_certificate", &file, read);
        }
    }

    /// Where MQTT over WebSocket is spoken.
    #[must_use]
    pub fn sockets(&self) -> Vec<Socket> {
        let sockets = self.places.iter().filter(|place| matches!(place.scheme, "ws" | "wss"));
        sockets.map(|place| Socket { scheme: place.scheme, port: place.port }).collect()
    }

    /// `host`: what a listener on all addresses is called.
    fn document(&self, host: Option<&str>, project_id: &str) -> Value {
        let addresses = self.places.iter().map(|place| {
            let own = place.address.to_string();
            let host = host.filter(|_| place.address.is_unspecified()).unwrap_or(&own);
            json!({
                "name": place.name, "scheme": place.scheme, "host": host, "port": place.port,
                "dialects": place.dialects.iter().map(|dialect| dialect.as_str()).collect::<Vec<_>>(),
                "roles": place.roles,
            })
        });
        let mut document = json!({ "project_id": project_id, "addresses": addresses.collect::<Vec<_>>() });
        if let Some(instance_id) = &self.instance_id {
            document["instance_id"] = instance_id.as_str().into();
        }
        if let Some(root) = &self.root_certificate {
            document["root_certificate"] = root.pem.read().as_str().into();
        }
        document
    }
}

pub(super) async fn details(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let host = Input::of(&body)?.text("host")?;
    if host.as_ref().is_some_and(|host| host.is_empty() || host.len() > HOST_BYTES_MAX) {
        return Err(Fault::invalid(&format!("host must have 1 to {HOST_BYTES_MAX} bytes")));
    }
    let settings = &call.api.settings;
    Answer::ok(settings.access.document(host.as_deref(), &settings.project_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_shown_by_each_of_its_schemes() {
        let mut listener = vec![
            Listener::new(Protocol::Mqtt, "0.0.0.0:1883".parse().expect("an address")),
            Listener::new(Protocol::Ws, "192.0.2.1:8083".parse().expect("an address")),
            Listener::new(Protocol::Auto, "[::]:8000".parse().expect("an address")),
            Listener::new(Protocol::Mqtt, "0.0.0.0:0".parse().expect("an address")),
        ];
        listener[2].roles = vec![Role::Api, Role::Console];
        let config = Config { listener, ..Config::default() };
        let access = Access::load(&config).expect("no file");
        let document = access.document(Some("iot.example"), "fulmar");
        let shown: Vec<String> = document["addresses"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|place| {
                let text = |name: &str| place[name].as_str().expect("text");
                format!("{}://{}:{} {}", text("scheme"), text("host"), place["port"], place["roles"])
            })
            .collect();
        assert_eq!(
            shown,
            [
                "mqtt://iot.example:1883 []",
                "ws://192.0.2.1:8083 []",
                "mqtt://iot.example:8000 []",
                "ws://iot.example:8000 []",
                "http://iot.example:8000 [\"api\",\"console\"]",
            ]
        );
        let sockets: Vec<u16> = access.sockets().iter().map(|socket| socket.port).collect();
        assert_eq!(sockets, [8083, 8000]);
    }

    #[test]
    fn a_key_is_never_given_for_a_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.crt");
        let mut config = Config::default();
        config.rest.root_certificate = Some(path.clone());
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, good) in [
            (pem.to_owned(), true),
            (format!("{pem}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), false),
            ("nothing".to_owned(), false),
        ] {
            std::fs::write(&path, &text).expect("written");
            let access = Access::load(&config);
            assert_eq!(access.is_ok(), good, "{text}");
            if let Ok(access) = access {
                assert_eq!(access.document(None, "p")["root_certificate"], text);
            }
        }
    }
}
