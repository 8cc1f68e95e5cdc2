//! `[cluster]` and `[admin]`.

use fulmar::config::Config;
use fulmar::config::cluster::{Bootstrap, Cluster, PeerTls};
use fulmar::config::units::REDACTED;

use super::{load, pairs, problems};

#[test]
fn what_does_not_go_together_is_told() {
    const HOST_PORT: &str = r#"a host and a port from 1 to 65535, as in "fulmar-0.example:7400" or "[fd00::1]:7400""#;
    for (table, expected) in [
        ("bootstrap = 'join'\npeers = ['a:1']", r#"2: cluster.bootstrap is "join", which needs cluster.listen"#),
        (
            "bootstrap = 'join'\nlisten = '127.0.0.1:7400'\nplaintext = true",
            r#"2: cluster.bootstrap is "join", which needs cluster.peers"#,
        ),
        (
            "listen = '127.0.0.1:7400'",
            "2: cluster.listen is 127.0.0.1:7400, which needs cluster.tls, or cluster.plaintext = true without TLS",
        ),
        (
            "plaintext = true\nlisten = '[::]:7400'",
            "3: cluster.listen is [::]:7400, all addresses, which needs cluster.advertise, the host:port for other nodes",
        ),
        (
            "plaintext = true\ntls = { ca = 'a', cert = 'c', key = 'k' }",
            "2: cluster.plaintext is true beside cluster.tls; choose one",
        ),
        ("tls = { ca = 'a', cert = 'c' }", "2: cluster.tls.key is required, but absent"),
        (
            "advertise = '0.0.0.0:7400'",
            r#"2: cluster.advertise is "0.0.0.0:7400", all addresses; allowed: one of them"#,
        ),
        ("advertise = 'fulmar-0'", &format!(r#"2: cluster.advertise is "fulmar-0"; allowed: {HOST_PORT}"#)),
        ("peers = ['a:1',\n'b:0']", &format!(r#"3: cluster.peers.1 is "b:0"; allowed: {HOST_PORT}"#)),
        ("expected = 0", "2: cluster.expected is 0; allowed: at least 1"),
        (
            "expected = 3",
            r#"2: cluster.expected is 3, but bootstrap is "single"; allowed: 1, or any number with "join""#,
        ),
        (
            "plaintext = true\nlisten = '127.0.0.1:9100'",
            "3: cluster.listen is 127.0.0.1:9100, which probes.address (0.0.0.0:9100) takes already",
        ),
    ] {
        assert_eq!(problems(&format!("[cluster]\n{table}\n")), [format!("fulmar.toml:{expected}")]);
    }
    for (table, expected) in [
        (
            "address = '127.0.0.1:9090'",
            "2: admin.address is 127.0.0.1:9090, which needs admin.token or admin.token_file",
        ),
        (
            "address = 'localhost'",
            r#"2: admin.address is "localhost"; allowed: an IP address and a port, as in "0.0.0.0:1883" or "[::]:1883""#,
        ),
        (
            "token = 'hunter2'",
            "2: admin.token is something else; allowed: 16 to 256 letters, digits and signs of ASCII, without spaces",
        ),
        ("token = '0123456789abcdef'\ntoken_file = 'x'", "3: admin.token_file is given beside token; choose one"),
    ] {
        assert_eq!(problems(&format!("[admin]\n{table}\n")), [format!("fulmar.toml:{expected}")]);
    }
}

#[test]
fn all_of_it_can_be_said_by_the_environment() {
    let environment = pairs(&[
        ("FULMAR__CLUSTER__BOOTSTRAP", "join"),
        ("FULMAR__CLUSTER__PEERS", "fulmar:7400, [::1]:7401"),
        ("FULMAR__CLUSTER__EXPECTED", "4"),
        ("FULMAR__CLUSTER__LISTEN", "0.0.0.0:7400"),
        ("FULMAR__CLUSTER__ADVERTISE", "fulmar-0.fulmar:7400"),
        ("FULMAR__CLUSTER__TLS__CA", "ca"),
        ("FULMAR__CLUSTER__TLS__CERT", "c"),
        ("FULMAR__CLUSTER__TLS__KEY", "k"),
        ("FULMAR__ADMIN__ADDRESS", ""),
    ]);
    let config = Config::load(None, environment.into_iter(), &[]).unwrap_or_else(|error| panic!("{error}"));
    let cluster = &config.cluster;
    assert_eq!((cluster.bootstrap, cluster.expected, cluster.plaintext), (Bootstrap::Join, 4, false));
    assert_eq!(cluster.peers, ["fulmar:7400", "[::1]:7401"]);
    assert_eq!(cluster.tls, Some(PeerTls { ca: "ca".into(), cert: "c".into(), key: "k".into(), crl: None }));
    assert_eq!(cluster.advertised("0.0.0.0:7400".parse().unwrap()), "fulmar-0.fulmar:7400");
    let survives = |expected| Cluster { expected, ..cluster.clone() }.warning();
    for (expected, said) in [
        (2, "cluster.expected is 2, which is even: it survives the loss of no node, as many as 1 would"),
        (4, "cluster.expected is 4, which is even: it survives the loss of 1 node, as many as 3 would"),
        (6, "cluster.expected is 6, which is even: it survives the loss of 2 nodes, as many as 5 would"),
    ] {
        assert_eq!(survives(expected).as_deref(), Some(said));
    }
    assert_eq!(survives(3), None);
    assert_eq!(config.admin.address, None, "an empty variable says nothing");
    assert_eq!(Config::default().cluster.warning(), None);
}

#[test]
fn the_token_of_admins_is_read_and_never_shown() {
    const TOKEN: &str = "0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let toml = format!("[admin]\naddress = '127.0.0.1:9090'\ntoken_file = '{}'\n", file.display());
    let loaded = load(&toml, &[], &[]).unwrap();
    let unread = loaded.check_files().unwrap_err().to_string();
    assert!(unread.contains("fulmar.toml:3: admin.token_file names ") && unread.contains("cannot be read"), "{unread}");
    std::fs::write(&file, "hunter2\n").unwrap();
    let short = loaded.check_files().unwrap_err().to_string();
    assert!(short.contains("whose first line is something else") && !short.contains("hunter2"), "{short}");
    std::fs::write(&file, format!("{TOKEN}\nsecond line\n")).unwrap();
    loaded.check_files().unwrap();
    assert_eq!(loaded.config.admin.load_token().unwrap().unwrap().expose(), TOKEN);

    let loaded = load(&format!("[admin]\naddress = '127.0.0.1:9090'\ntoken = '{TOKEN}'\n"), &[], &[]).unwrap();
    assert_eq!(loaded.config.admin.load_token().unwrap().unwrap().expose(), TOKEN);
    let shown = loaded.to_toml();
    assert!(shown.contains(REDACTED) && !shown.contains(TOKEN), "{shown}");
    assert!(!format!("{:?}", loaded.config).contains(TOKEN));
}

#[test]
fn files_between_nodes_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let [made, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());
    std::fs::write(file("crt"), made.cert.pem()).unwrap();
    std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(file("other"), other.signing_key.serialize_pem()).unwrap();
    let check = |ca: &str, cert: &str, key: &str| {
        let (ca, cert, key) = (file(ca), file(cert), file(key));
        let loaded = load(&format!("[cluster.tls]\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n"), &[], &[]).unwrap();
        let told = loaded.check_files().map_err(|error| error.to_string()).err().unwrap_or_default();
        assert_eq!(loaded.config.cluster.tls.unwrap().paths().load(None).is_ok(), told.is_empty());
        told
    };
    assert_eq!(check("crt", "crt", "key"), "");
    for (told, said) in [
        (check("absent", "crt", "key"), "fulmar.toml:2: cluster.tls.ca names "),
        (check("crt", "absent", "key"), "fulmar.toml:3: cluster.tls.cert names "),
        (check("crt", "crt", "other"), "does not go with the certificate"),
    ] {
        assert!(told.contains(said) && told.lines().count() == 1, "{said}: {told}");
    }
}
