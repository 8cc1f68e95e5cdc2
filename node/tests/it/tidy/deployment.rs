//! Deployment files say the same as the program: ports, probes, paths, user, time to leave. Line by line: the files are
//! ours, so that nothing more than `key: value` has to be understood.

use std::collections::BTreeSet;

use fulmar::config::Config;

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

/// A configuration file, with what a pod's environment adds.
fn config(path: &str) -> Config {
    let advertise = ("FULMAR__CLUSTER__ADVERTISE".to_owned(), "fulmar-0.fulmar-headless:7400".to_owned());
    let config = Config::load(Some(&root().join(path)), [advertise].into_iter(), &[]);
    config.unwrap_or_else(|error| panic!("{path}: {error}"))
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
    // What stands before the services holds for each of them.
    let (shared, services) = text.split_once("\nservices:\n").expect("services");
    let (services, _) = services.split_once("\nvolumes:\n").expect("volumes");
    let services: Vec<&str> = services.split("\n\n").collect();
    let mut outside = BTreeSet::new();
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
        let mapped: Vec<&str> = service.lines().filter_map(|line| line.trim().strip_prefix("- \"127.0.0.1:")).collect();
        assert!(!mapped.is_empty());
        for mapping in mapped {
            let ports = mapping.split('"').next().expect("a mapping of ports");
            let (there, inside) = ports.split_once(':').expect("a mapping of ports");
            assert!(outside.insert(there.to_owned()), "{there} is given out twice");
            let port = inside.parse().expect("a port");
            assert!(opened(&Config::default()).contains(&port), "the node does not open {port} by default");
        }
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
        let peer = config.cluster.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
        let hashes = config.rest.user.iter().filter_map(|user| user.password_hash_file.as_ref());
        let people = config.auth.users_file.iter().chain(&config.admin.token_file).chain(hashes);
        for file in files.chain(peer).chain(people) {
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
    for (key, value) in [
        ("runAsNonRoot", "true"),
        ("readOnlyRootFilesystem", "true"),
        ("drop", "[ALL]"),
        ("podManagementPolicy", "Parallel"),
    ] {
        assert_eq!(values(&base, key, ':'), [value], "{key}");
    }
    let (services, cluster) = (read("k8s/base/services.yaml"), config("k8s/base/fulmar.toml").cluster);
    assert_eq!(values(&base, "replicas", ':'), [cluster.expected.to_string()], "as many as a cluster begins with");
    let headless = values(&base, "serviceName", ':')[0];
    let port = cluster.listen.expect("a listener for peers").port();
    assert_eq!(cluster.peers, [format!("{headless}:{port}")], "peers are found by the headless service");
    assert!(base.contains(&format!("value: $(POD_NAME).{headless}:{port}\n")), "and each by its own name");
    assert!(services.contains(&format!("name: {headless}\n")));
    assert_eq!(values(&services, "publishNotReadyAddresses", ':'), ["true"]);
    assert!(values(&services, "sessionAffinity", ':').is_empty(), "any node serves any device");
}
