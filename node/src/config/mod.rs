//! The configuration: TOML, over it the environment, over that flags; checked, documented, and able to say where each
//! value came from. One file per section; a field's comment is its description in the JSON schema.
//! Absent here: anything that acts on the values.
//!
//! A required key that is wrong in one element of a list takes that element out of further checks, so that one mistake
//! is reported once.

pub mod admin;
pub mod auth;
pub mod budget;
pub mod cluster;
pub mod limits;
pub mod listener;
pub mod log;
pub mod node;
pub mod platform;
pub mod probes;
mod problem;
pub mod proxy;
mod reader;
pub mod registry;
pub mod rest;
pub mod session;
mod show;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
mod tree;
pub mod units;

use std::net::SocketAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use problem::{ConfigError, Problem};
pub use tree::Origin;

use admin::Admin;
use auth::Auth;
use cluster::Cluster;
use limits::Limits;
use listener::Listener;
use log::Log;
use node::Node;
use platform::Platform;
use probes::Probes;
use problem::Problems;
use registry::Registry;
use rest::Rest;
use session::Session;
use shutdown::Shutdown;
use store::Store;
use telemetry::Telemetry;
use tree::Tree;

/// What an environment variable starts with to be part of the configuration: `FULMAR__SESSION__EXPIRY_MAX=1d`.
pub const ENVIRONMENT_PREFIX: &str = "FULMAR__";

/// Configuration of one Fulmar node. A table that is absent has its defaults. Elements of lists are `[[listener]]`,
/// `[[auth.user]]` and `[[auth.acl]]`. Each key can be set from the environment as `FULMAR__SECTION__KEY`, an element of
/// a list as `FULMAR__LISTENER__0__ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    pub cluster: Cluster,
    /// Where clients come in. Naming one replaces the defaults: MQTT on `0.0.0.0:1883`, WebSocket on `0.0.0.0:8083`.
    pub listener: Vec<Listener>,
    pub probes: Probes,
    pub admin: Admin,
    pub auth: Auth,
    pub rest: Rest,
    pub registry: Registry,
    pub platform: Platform,
    pub session: Session,
    pub limits: Limits,
    pub store: Store,
    pub log: Log,
    pub telemetry: Telemetry,
    pub shutdown: Shutdown,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node: Node::default(),
            cluster: Cluster::default(),
            listener: Listener::defaults(),
            probes: Probes::default(),
            admin: Admin::default(),
            auth: Auth::default(),
            rest: Rest::default(),
            registry: Registry::default(),
            platform: Platform::default(),
            session: Session::default(),
            limits: Limits::default(),
            store: Store::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        }
    }
}

/// A configuration together with where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    tree: Tree,
}

impl Config {
    /// Reads the file, if one is named, and lays the environment and then the overrides over it. Of the environment
    /// only names that start with [`ENVIRONMENT_PREFIX`] are looked at. Overrides are (dotted key, value).
    ///
    /// # Errors
    /// Everything that is wrong, as far as one reading can tell.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Config, ConfigError> {
        Loaded::load(path, environment, overrides).map(|loaded| loaded.config)
    }

    /// Reads TOML and nothing else.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml_str(text: &str) -> Result<Config, ConfigError> {
        Loaded::finish(parse(text, "config")?, Vec::new()).map(|loaded| loaded.config)
    }

    /// The JSON schema of the file, with each key's description and default.
    #[must_use]
    pub fn schema() -> String {
        serde_json::to_string_pretty(&schemars::schema_for!(Config)).expect("a schema is plain JSON")
    }
}

/// The part of the process's environment that [`Config::load`] looks at; text that is not UTF-8 is replaced, and then
/// refused by the key that it is for.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
}

fn parse(text: &str, path: &str) -> Result<Tree, ConfigError> {
    Tree::parse(text, path).map_err(|errors| {
        let told = |(origin, message)| Problem { key: String::new(), origin, message };
        ConfigError { problems: errors.into_iter().map(told).collect() }
    })
}

impl Loaded {
    /// As [`Config::load`], keeping where each value came from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let mut tree = match path {
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let message = format!("{shown}: cannot be read: {error}");
                    ConfigError { problems: vec![Problem { key: String::new(), origin: Origin::Default, message }] }
                })?;
                parse(&text, &shown)?
            }
            None => Tree::empty(),
        };
        let mut problems = Vec::new();
        let mut set = |key: &str, value: &str, origin: Origin| {
            if let Err(message) = tree.set(key, value, &origin) {
                problems.push(Problem { key: key.into(), origin, message });
            }
        };
        for (name, key, value) in sorted(environment) {
            set(&key, &value, Origin::Environment(name.into()));
        }
        for (key, value) in overrides {
            set(key, value, Origin::Flag(key.as_str().into()));
        }
        Loaded::finish(tree, problems)
    }

    fn finish(tree: Tree, mut found: Vec<Problem>) -> Result<Loaded, ConfigError> {
        let mut problems = Problems::new(&tree);
        let mut config: Config = reader::read(&tree, &mut problems);
        config.listener.iter_mut().for_each(Listener::name_if_unnamed);
        let readable = problems.is_empty() && found.is_empty();
        config.check(readable, &mut problems);
        if readable && problems.is_empty() {
            config.check_relations(&mut problems);
        }
        if let Err(error) = problems.into_result() {
            found.extend(error.problems);
        }
        if found.is_empty() { Ok(Loaded { config, tree }) } else { Err(ConfigError { problems: found }) }
    }

    /// Checks what the configuration refers to: that certificates, keys, authorities, password hashes and users can be
    /// read and fit together, and that no certificate has expired. Reads files; opens no port.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::new(&self.tree);
        let now = tls::unix_now();
        for (index, listener) in self.config.listener.iter().enumerate() {
            if let Some(tls) = &listener.tls {
                tls.paths(&format!("listener.{index}.tls")).read(Some(now), &mut problems);
            }
        }
        self.config.cluster.read_tls(now, &mut problems);
        self.config.admin.read_files(now, &mut problems);
        self.config.auth.users(&mut problems);
        self.config.rest.read_files(&mut problems);
        problems.into_result()
    }

    /// The effective configuration as TOML, secrets left out, with the origin of each value that is not a default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        show::to_toml(&self.config, &self.tree)
    }
}

/// Variables of ours as (name, dotted key, value), elements of a list in the order of their numbers.
fn sorted(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String, String)> {
    let mut ours: Vec<_> = environment
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_ascii_lowercase().replace("__", ".");
            Some((name, key, value))
        })
        .collect();
    let order = |key: &str| -> Vec<(usize, String)> {
        key.split('.').map(|part| (part.parse().unwrap_or(0), part.to_owned())).collect()
    };
    ours.sort_by_cached_key(|(_, key, _)| order(key));
    ours
}

impl Config {
    /// Checks each value by itself. `numbered`: whether elements of lists still have the numbers they have in the file.
    fn check(&self, numbered: bool, problems: &mut Problems<'_>) {
        self.node.check(problems);
        self.cluster.check(problems);
        if numbered {
            if self.listener.is_empty() {
                problems.add("listener", "is empty; leave it out for the defaults, or name at least one");
            }
            for (index, listener) in self.listener.iter().enumerate() {
                listener.check(&format!("listener.{index}"), problems);
            }
            self.auth.check(problems);
        }
        self.admin.check(problems);
        self.rest.check(numbered, problems);
        self.platform.check(problems);
        self.session.check(problems);
        self.limits.check(problems);
        self.store.check(problems);
        self.log.check(problems);
        self.telemetry.check(problems);
        self.shutdown.check(problems);
    }

    /// Checks values against each other, once each is right by itself.
    fn check_relations(&self, problems: &mut Problems<'_>) {
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        let probes = self.probes.enabled.then_some(("probes.address".to_owned(), self.probes.address));
        let listeners = self.listener.iter().enumerate();
        let listeners = listeners.map(|(index, listener)| (format!("listener.{index}.address"), listener.address));
        let peers = self.cluster.listen.map(|address| ("cluster.listen".to_owned(), address));
        let admin = self.admin.address.map(|address| ("admin.address".to_owned(), address));
        for (key, address) in listeners.chain(probes).chain(peers).chain(admin) {
            if let Some((other, theirs)) = taken.iter().find(|(_, theirs)| collide(*theirs, address)) {
                problems.add(&key, format!("is {address}, which {other} ({theirs}) takes already"));
            }
            taken.push((key, address));
        }
        for (index, listener) in self.listener.iter().enumerate() {
            let key = format!("listener.{index}");
            listener.check_relations(&key, problems);
            if let Some(other) = self.listener.iter().take(index).position(|other| other.name == listener.name) {
                let message = format!("is {:?}, as is that of listener.{other}; names must differ", listener.name);
                problems.add(&format!("{key}.name"), message);
            }
        }
        let packet = self.listener.iter().map(|listener| listener.packet_bytes_max).max();
        if packet.is_some_and(|packet| self.session.live_queue_bytes_max < packet) {
            problems.add(
                "session.live_queue_bytes_max",
                format!(
                    "is {}, less than the largest packet_bytes_max of a listener ({})",
                    self.session.live_queue_bytes_max,
                    packet.map_or_else(String::new, |packet| packet.to_string()),
                ),
            );
        }
        self.auth.check_relations(problems);
        self.rest.check_relations(problems);
    }
}

/// Whether two sockets cannot listen at the same time. An unspecified IPv6 address takes IPv4 too.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |address: SocketAddr| address.ip().is_unspecified();
    let same_family = one.is_ipv4() == other.is_ipv4();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip()
            || (same_family && (all(one) || all(other)))
            || (one.is_ipv6() && all(one))
            || (other.is_ipv6() && all(other)))
}
