//! Deployment files say the same as the program: ports, probes, paths, user, time to leave. Line by line: the files are
//! ours, so that nothing more than `key: value` has to be understood.

use std::collections::BTreeSet;

use fulmar::config::Config;

use super::root;

/// MQTT, MQTTS, WS, WSS, metrics and probes.
const PORTS: [u16; 5] = [1883, 8883, 8083, 8084, 9100];
const PROBES: [&str; 3] = ["/startupz", "/livez", "/readyz"];
const USER: &str = "10001";
const CONFIG_FILE: &str = "/etc/fulmar/fulmar.toml";
const DATA_DIR: &str = "/var/lib/fulmar";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn config(path: &str) -> Config {
    Config::from_toml_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
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

fn ports(text: &str, key: &str) -> BTreeSet<u16> {
    values(text, key, ':')
        .iter()
        .map(|port| port.parse().unwrap_or_else(|_| panic!("{key}: {port} is no port")))
        .collect()
}

/// Ports that a configuration opens.
fn opened(config: &Config) -> BTreeSet<u16> {
    config.listener.iter().map(|listener| listener.address.port()).chain([config.probes.address.port()]).collect()
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
    let mapped: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- \"127.0.0.1:")).collect();
    assert!(!mapped.is_empty());
    for mapping in mapped {
        let ports = mapping.split('"').next().expect("a mapping of ports");
        let (outside, inside) = ports.split_once(':').expect("a mapping of ports");
        assert_eq!(outside, inside);
        let port = inside.parse().expect("a port");
        assert!(opened(&Config::default()).contains(&port), "the node does not open {port} by default");
    }
    assert!(text.contains(&format!("- data:{DATA_DIR}\n")));
    assert!(text.contains("dockerfile: deploy/Dockerfile"));
    // The environment of the service is part of a configuration.
    let overrides = text.lines().filter_map(|line| {
        let (key, value) = line.trim().split_once(": ")?;
        key.starts_with(fulmar::config::ENVIRONMENT_PREFIX).then(|| (key.to_owned(), value.to_owned()))
    });
    let config = Config::load(None, overrides, &[]).unwrap_or_else(|error| panic!("compose.yaml: {error}"));
    assert_ne!(config.auth, Config::default().auth, "what the service sets is read");
    assert_leaves_in_time(&config, values(&text, "stop_grace_period", ':')[0]);
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

/// The platform waits longer than the node takes to leave.
fn assert_leaves_in_time(config: &Config, waits: &str) {
    let waits_s: u64 = waits.trim_end_matches('s').parse().expect("seconds");
    let grace_ms = config.shutdown.grace.as_ms();
    assert!(
        waits_s * 1000 >= grace_ms + 5_000,
        "the platform kills after {waits_s} s, the node leaves in {grace_ms} ms"
    );
}

#[test]
fn kubernetes_agrees_with_the_program() {
    let base = read("k8s/base/statefulset.yaml");
    for (name, config, set, services) in [
        ("base", config("k8s/base/fulmar.toml"), base.clone(), read("k8s/base/services.yaml")),
        (
            "overlays/tls",
            config("k8s/overlays/tls/fulmar.toml"),
            base.clone() + &read("k8s/overlays/tls/statefulset.yaml"),
            read("k8s/base/services.yaml") + &read("k8s/overlays/tls/services.yaml"),
        ),
    ] {
        assert_eq!(ports(&set, "containerPort"), opened(&config), "{name}: ports of the container and of fulmar.toml");
        assert_eq!(ports(&services, "port"), opened(&config), "{name}: ports of the services and of fulmar.toml");
        assert_eq!(ports(&services, "targetPort"), opened(&config), "{name}: what the services lead to");
        assert_eq!(config.node.data_dir.to_str(), Some(DATA_DIR), "{name}");
        assert_eq!(config.probes.address.port(), 9100, "{name}");
        assert_leaves_in_time(&config, values(&set, "terminationGracePeriodSeconds", ':')[0]);
        let mounts = values(&set, "mountPath", ':');
        let files =
            config.listener.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| [&tls.cert, &tls.key]);
        for file in files.chain(&config.auth.users_file) {
            assert!(mounts.iter().any(|mount| file.starts_with(mount)), "{name}: {} is on no volume", file.display());
        }
        assert!(mounts.contains(&DATA_DIR) && mounts.contains(&"/etc/fulmar"), "{name}: {mounts:?}");
    }
    assert_eq!(opened(&config("k8s/overlays/tls/fulmar.toml")), BTreeSet::from(PORTS), "with TLS all doors are open");
    assert_eq!(values(&base, "path", ':').into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(PROBES));
    assert_eq!(values(&base, "port", ':').into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["9100"]), "probes");
    assert_eq!(values(&base, "args", ':'), [format!("[\"serve\", \"--config\", \"{CONFIG_FILE}\"]")]);
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(values(&base, key, ':'), [USER], "{key}");
    }
    for (key, value) in
        [("runAsNonRoot", "true"), ("readOnlyRootFilesystem", "true"), ("drop", "[ALL]"), ("replicas", "1")]
    {
        assert_eq!(values(&base, key, ':'), [value], "{key}");
    }
    assert!(values(&read("k8s/base/services.yaml"), "sessionAffinity", ':').is_empty(), "any node serves any device");
}
