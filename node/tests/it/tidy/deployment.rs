//! Deployment files say the same as the program: ports, probes, paths, user, time to leave. Those that people write are
//! read line by line: they are ours, so that nothing more than `key: value` has to be understood. Of Kubernetes' the
//! rendered ones are read, as a cluster gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use fulmar::config::Config;
use fulmar::config::listener::{Protocol, Role};
use fulmar_broker::steer::bans::Network;
use serde_json::Value;

use super::root;

/// MQTT, MQTTS, WS, WSS, REST, HTTPS for devices, other nodes, metrics and probes.
const PORTS: [u16; 8] = [1883, 8883, 8083, 8084, 8080, 8443, 7400, 9100];
const PROBES: [&str; 3] = ["/startupz", "/livez", "/readyz"];
const USER: &str = "10001";
const CONFIG_FILE: &str = "/etc/fulmar/fulmar.toml";
const DATA_DIR: &str = "/var/lib/fulmar";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Values of a key, in order, wherever it stands; comments and quotes left out.
fn values<'t>(text: &'t str, key: &str, separator: char) -> Vec<&'t str> {
    text.lines()
        .filter_map(|line| {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let (name, value) = line.strip_prefix("- ").unwrap_or(line).split_once(separator)?;
            (name == key).then(|| value.trim().trim_matches('"'))
        })
        .collect()
}

/// Ports that a configuration opens to others.
fn opened(config: &Config) -> BTreeSet<u16> {
    let listeners = config.listener.iter().map(|listener| listener.address);
    let doors = [Some(config.probes.address), config.cluster.listen, config.admin.address];
    let all = listeners.chain(doors.into_iter().flatten());
    all.filter(|address| !address.ip().is_loopback()).map(|address| address.port()).collect()
}

#[test]
fn values_are_read_line_by_line() {
    let text = "a: 1 # not 2\n  - a: \"x\"\n    b: 3\nA=4\n# a: 5\n";
    assert_eq!(values(text, "a", ':'), ["1", "x"]);
    assert_eq!(values(text, "A", '='), ["4"]);
}

#[test]
fn ports_and_probes_are_those_of_the_program() {
    let known = BTreeSet::from(PORTS);
    assert!(opened(&Config::default()).is_subset(&known), "defaults of the configuration");
    assert_eq!(Config::default().probes.address.port(), 9100);
    let door = read("node/src/doors/probes.rs");
    for path in PROBES {
        assert!(door.contains(&format!("\"{path}\"")), "doors/probes.rs does not serve {path}");
    }
}

#[test]
fn image_agrees_with_the_program() {
    let text = read("deploy/Dockerfile");
    let instruction = |name: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
    };
    let exposed: BTreeSet<u16> =
        instruction("EXPOSE")[0].split(' ').map(|port| port.parse().expect("a port")).collect();
    assert_eq!(exposed, BTreeSet::from(PORTS));
    assert_eq!(instruction("USER"), [format!("{USER}:{USER}")]);
    assert_eq!(instruction("ENTRYPOINT"), ["[\"fulmar\"]"]);
    assert_eq!(instruction("CMD"), [format!("[\"serve\", \"--config\", \"{CONFIG_FILE}\"]")]);
    assert_eq!(instruction("VOLUME"), [DATA_DIR]);
    assert_eq!(instruction("ENV"), [format!("FULMAR__NODE__DATA_DIR={DATA_DIR}")]);
    assert!(
        text.contains("/dev/tcp/127.0.0.1/9100") && text.contains("GET /readyz "),
        "the health check asks the probes"
    );
    let rust_version = "rust:1-slim-bookworm";
    assert!(instruction("FROM")[0].starts_with(rust_version), "the builder follows stable Rust");
}

#[test]
fn compose_agrees_with_the_program() {
    let text = read("deploy/compose.yaml");
    let balancer = read("deploy/haproxy.cfg");
    // What stands before the services holds for each of them.
    let (shared, services) = text.split_once("\nservices:\n").expect("services");
    let (services, rest) = services.split_once("\nnetworks:\n").expect("networks");
    let (network, _) = rest.split_once("\nvolumes:\n").expect("volumes");
    let mut services: Vec<&str> = services.split("\n\n").collect();
    let haproxy = services.pop().expect("the balancer comes last");
    let address: IpAddr = values(haproxy, "ipv4_address", ':')[0].parse().expect("its address");
    let networks = ["subnet", "ip_range"].map(|key| Network::parse(values(network, key, ':')[0]).expect("a network"));
    assert_eq!(networks.map(|network| network.contains(address)), [true, false], "no node gets the balancer's address");
    let mut peers = Vec::new();
    for (index, service) in services.iter().enumerate() {
        // The environment of a service is part of a configuration.
        let overrides = shared.lines().chain(service.lines()).filter_map(|line| {
            let (key, value) = line.trim().split_once(": ")?;
            let ours = key.starts_with(fulmar::config::ENVIRONMENT_PREFIX);
            ours.then(|| (key.to_owned(), value.trim_matches('"').to_owned()))
        });
        let config = Config::load(None, overrides, &[]).unwrap_or_else(|error| panic!("compose.yaml: {error}"));
        assert_ne!(config.auth, Config::default().auth, "what the service sets is read");
        assert_leaves_in_time(&config, values(shared, "stop_grace_period", ':')[0]);
        assert!(!service.contains("ports:"), "nodes are reached by the balancer alone");
        for listener in &config.listener {
            let proxy = listener.proxy.as_ref().expect("every listener is behind the balancer");
            assert!(proxy.required && proxy.trusts(address), "{}: {proxy:?}", listener.name);
            let port = listener.address.port();
            let there = format!("server fulmar-{index} fulmar-{index}:{port} ");
            assert!(balancer.contains(&there) && balancer.contains(&format!("bind :{port}\n")), "haproxy.cfg: {there}");
            assert!(haproxy.contains(&format!("- \"127.0.0.1:{port}:{port}\"")), "{port} is published");
        }
        assert!(balancer.contains(&format!("check port {}\n", config.probes.address.port())));
        assert_eq!(config.cluster.expected as usize, services.len());
        let listen = config.cluster.listen.expect("a listener for peers").port();
        assert_eq!(config.cluster.advertise, Some(format!("fulmar-{index}:{listen}")));
        assert!(service.contains(&format!("  fulmar-{index}:\n")), "advertised by its name");
        assert!(service.contains(&format!("- data-{index}:{DATA_DIR}")), "each has a volume of its own");
        peers.push(config.cluster.advertise.clone().expect("an address"));
        assert_eq!(config.cluster.peers.len(), services.len());
        assert!(config.cluster.peers.starts_with(&peers), "{:?}", config.cluster.peers);
    }
    assert!(text.contains("dockerfile: deploy/Dockerfile"));
    assert!(haproxy.contains("- ./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"));
    assert!(balancer.contains(" send-proxy-v2 ") && balancer.contains("httpchk GET /readyz\n"));
}

#[test]
fn unit_agrees_with_the_program() {
    let text = read("deploy/fulmar.service");
    assert_eq!(values(&text, "ExecStart", '='), [format!("/usr/local/bin/fulmar serve --config {CONFIG_FILE}")]);
    assert_eq!(
        values(&text, "ExecStartPre", '='),
        [format!("/usr/local/bin/fulmar config check --config {CONFIG_FILE}")]
    );
    assert_eq!(values(&text, "Environment", '='), [format!("FULMAR__NODE__DATA_DIR={DATA_DIR}")]);
    assert_eq!(values(&text, "StateDirectory", '='), ["fulmar"], "/var/lib/ and this is where data belongs");
    assert_leaves_in_time(&Config::default(), values(&text, "TimeoutStopSec", '=')[0]);
}

/// Whoever is called by an alert finds what to do.
#[test]
fn every_alert_has_its_place_in_the_runbook() {
    let runbook = read("deploy/README.md");
    let anchor = |heading: &str| -> String {
        let plain = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        plain.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect()
    };
    let anchors: BTreeSet<String> = runbook.lines().filter(|line| line.starts_with("##")).map(anchor).collect();
    let rules = read("deploy/alerts/fulmar.rules.yaml");
    let named = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")?.split_once('#'));
    let named: Vec<_> = named.collect();
    assert_eq!(named.len(), rules.matches("- alert: ").count(), "each alert names its place");
    for (file, place) in named {
        assert_eq!(file, "deploy/README.md");
        assert!(anchors.contains(place), "deploy/README.md has no heading for #{place}");
    }
    for link in runbook.split("](#").skip(1).filter_map(|rest| rest.split_once(')')) {
        assert!(anchors.contains(link.0), "deploy/README.md has no heading for #{}", link.0);
    }
}

/// The platform waits longer than the node takes to leave.
fn assert_leaves_in_time(config: &Config, waits: &str) {
    let waits_s: u64 = waits.trim_end_matches('s').parse().expect("seconds");
    let grace_ms = config.shutdown.grace.as_ms();
    assert!(
        waits_s * 1000 >= grace_ms + 5_000,
        "the platform kills after {waits_s} s, the node leaves in {grace_ms} ms"
    );
}

/// Rendered manifests of Kubernetes, which `k8s/render.py` makes of kustomizations and chart.
const RENDERED: [&str; 11] = [
    "single",
    "three",
    "five",
    "tls",
    "full",
    "chart-default",
    "chart-single",
    "chart-five",
    "chart-tls",
    "chart-full",
    "chart-custom",
];

/// The documents of a golden file.
struct Rendered(Vec<Value>);

impl Rendered {
    fn read(name: &str) -> Rendered {
        let documents = serde_saphyr::from_multiple(&read(&format!("k8s/golden/{name}.yaml")));
        Rendered(documents.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn of_kind<'v>(&'v self, kind: &'v str) -> impl Iterator<Item = &'v Value> {
        self.0.iter().filter(move |document| document["kind"] == kind)
    }

    /// The only one of its kind.
    fn one<'v>(&'v self, kind: &'v str) -> &'v Value {
        let mut found = self.of_kind(kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "one {kind}");
        one
    }

    /// What the nodes are started with: the file, and over it the first pod's environment.
    fn config(&self) -> Config {
        let container = &self.one("StatefulSet")["spec"]["template"]["spec"]["containers"][0];
        let pod = format!("{}-0", text(&self.one("StatefulSet")["metadata"]["name"]));
        let environment = each(&container["env"]).filter_map(|variable| {
            let value = variable["value"].as_str()?.replace("$(POD_NAME)", &pod);
            Some((text(&variable["name"]).to_owned(), value))
        });
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text(&self.one("ConfigMap")["data"]["fulmar.toml"])).expect("the configuration");
        Config::load(Some(file.path()), environment, &[]).unwrap_or_else(|error| panic!("{pod}: {error}"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> Vec<&str> {
    each(value).map(text).collect()
}

#[test]
fn kubernetes_agrees_with_the_program() {
    for name in RENDERED {
        let rendered = Rendered::read(name);
        let config = rendered.config();
        let set = &rendered.one("StatefulSet")["spec"];
        let pod = &set["template"]["spec"];
        let container = &pod["containers"][0];

        let ports: BTreeMap<&str, u64> = each(&container["ports"])
            .map(|port| (text(&port["name"]), port["containerPort"].as_u64().expect("a port")))
            .collect();
        let numbers = ports.values().map(|port| *port as u16).collect::<BTreeSet<_>>();
        assert_eq!(numbers, opened(&config), "{name}: ports of the container and of fulmar.toml");
        assert_eq!(numbers.len(), ports.len(), "{name}: {ports:?}");
        let targets: BTreeSet<&str> = rendered
            .of_kind("Service")
            .flat_map(|service| each(&service["spec"]["ports"]))
            .map(|port| text(&port["targetPort"]))
            .collect();
        assert_eq!(targets, ports.keys().copied().collect(), "{name}: what the services lead to");
        for listener in &config.listener {
            assert_eq!(ports[listener.name.as_str()], u64::from(listener.address.port()), "{name}: {}", listener.name);
            let device_auth = listener.roles.contains(&Role::DeviceAuth);
            assert_eq!(device_auth, listener.protocol == Protocol::Ws, "{name}: credentials beside WebSocket");
        }

        assert_eq!(words(&container["args"]), ["serve", "--config", CONFIG_FILE], "{name}");
        let drains = ["fulmar", "drain", "--data-dir", DATA_DIR];
        assert_eq!(words(&container["lifecycle"]["preStop"]["exec"]["command"]), drains, "{name}");
        for (probe, path) in ["startupProbe", "livenessProbe", "readinessProbe"].iter().zip(PROBES) {
            let get = &container[*probe]["httpGet"];
            assert_eq!((text(&get["path"]), text(&get["port"])), (path, "probes"), "{name}: {probe}");
        }
        assert_eq!(config.probes.address.port(), 9100, "{name}");
        assert_eq!(config.node.data_dir.to_str(), Some(DATA_DIR), "{name}");

        let leaves = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert_leaves_in_time(&config, &leaves.to_string());
        let clients = u64::from(config.limits.connections_max.div_ceil(config.shutdown.disconnect_rate));
        let wait = config.shutdown.balancer_wait.as_ms() / 1000;
        assert_eq!(leaves, wait + clients + 20, "{name}: every client that a pod may have is told");

        let mounts: Vec<&str> = each(&container["volumeMounts"]).map(|mount| text(&mount["mountPath"])).collect();
        for file in files_of(&config) {
            assert!(mounts.iter().any(|mount| file.starts_with(mount)), "{name}: {} is on no volume", file.display());
        }
        assert!(mounts.contains(&DATA_DIR) && mounts.contains(&"/etc/fulmar"), "{name}: {mounts:?}");

        let user: u64 = USER.parse().expect("a number");
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(pod["securityContext"][key], user, "{name}: {key}");
        }
        assert_eq!(set["podManagementPolicy"], "Parallel", "{name}");

        let headless = text(&set["serviceName"]);
        let port = config.cluster.listen.expect("a listener for peers").port();
        assert_eq!(config.cluster.peers, [format!("{headless}:{port}")], "{name}: found by the headless service");
        let own = format!("{}-0.{headless}:{port}", text(&rendered.one("StatefulSet")["metadata"]["name"]));
        assert_eq!(config.cluster.advertise, Some(own), "{name}: each by its own name");
        assert_eq!(set["replicas"], config.cluster.expected, "{name}: as many as a cluster begins with");
        let finds = rendered.of_kind("Service").find(|service| service["metadata"]["name"] == headless);
        assert_eq!(finds.expect("the headless service")["spec"]["publishNotReadyAddresses"], true, "{name}");
    }
    let all = opened(&Rendered::read("three").config()).into_iter().chain(opened(&Rendered::read("tls").config()));
    let known = PORTS.into_iter().chain([8081, 9090]);
    assert_eq!(all.collect::<BTreeSet<_>>(), known.collect(), "every door, the console's and the admins' too");
}

/// Files that a configuration names, but for its data.
fn files_of(config: &Config) -> Vec<&PathBuf> {
    let doors = config.listener.iter().filter_map(|listener| listener.tls.as_ref());
    let doors = doors.flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let admin = config.admin.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let peer = config.cluster.tls.iter().flat_map(|tls| [Some(&tls.ca), Some(&tls.cert), Some(&tls.key)]);
    let people = [config.auth.users_file.as_ref(), config.admin.token_file.as_ref()].into_iter();
    let hashes = config.rest.user.iter().map(|user| user.password_hash_file.as_ref());
    doors.chain(admin).chain(peer).chain(people).chain(hashes).flatten().collect()
}
