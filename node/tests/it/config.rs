//! The configuration from outside: the samples in deploy/, precedence, and what is said about mistakes.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

mod cluster;
mod platform;

use std::path::Path;

use fulmar::config::auth::{AclUsers, Permission};
use fulmar::config::listener::{ClientAuth, DialectName, Listener, Oversize, Protocol, Role, Tls};
use fulmar::config::proxy::{Cidr, Proxy};
use fulmar::config::units::{ByteCount, REDACTED, TimeSpan};
use fulmar::config::{Config, ConfigError, Loaded};
use fulmar_broker::steer::bans::Network;
use fulmar_platform::Dialect;

const HASH: &str = "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$LPTz6JyUGCeA07D5LizKrQ";

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn load(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fulmar.toml");
    std::fs::write(&path, toml).unwrap();
    Loaded::load(Some(&path), pairs(environment).into_iter(), &pairs(flags))
}

/// The problems with the directory taken out of them.
fn problems(toml: &str) -> Vec<String> {
    told(&load(toml, &[], &[]).expect_err(toml))
}

fn told(error: &ConfigError) -> Vec<String> {
    let line = |line: &str| match line.find("fulmar.toml:") {
        Some(at) => line.split_at(at).1.to_owned(),
        None => line.to_owned(),
    };
    error.to_string().lines().map(line).collect()
}

#[test]
fn samples_load_and_pass_the_check() {
    let deploy = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
    let mut seen = 0;
    for entry in std::fs::read_dir(deploy).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("fulmar") && name.ends_with(".toml")) {
            continue;
        }
        let loaded = Loaded::load(Some(&path), std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{error}"));
        loaded.check_files().unwrap_or_else(|error| panic!("{error}"));
        loaded.config.auth.generic().unwrap_or_else(|error| panic!("{error}"));
        seen += 1;
    }
    assert!(seen >= 2, "deploy/ holds the samples");
}

#[test]
fn the_full_sample_shows_the_defaults_and_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/fulmar.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let mut sample = Config::from_toml_str(&text).unwrap();
    assert_eq!(sample.node.data_dir, Path::new("/var/lib/fulmar"));
    sample.node.data_dir = Config::default().node.data_dir;
    sample.auth.user.clear();
    sample.auth.acl.clear();
    sample.rest.user.clear();
    assert_eq!(sample, Config::default());

    let schema: serde_json::Value = serde_json::from_str(&Config::schema()).unwrap();
    let mut structs: Vec<&serde_json::Value> = schema["$defs"].as_object().unwrap().values().collect();
    structs.push(&schema);
    for properties in structs.iter().filter_map(|one| one["properties"].as_object()) {
        for key in properties.keys() {
            let said = |line: &str| {
                let line = line.trim_start_matches(['#', ' ', '[']);
                let within = line.strip_prefix("auth.").or_else(|| line.strip_prefix("telemetry."));
                [Some(line), within].into_iter().flatten().any(|line| line.starts_with(key.as_str()))
            };
            assert!(text.lines().any(said), "the sample says nothing of {key}");
        }
    }
}

#[test]
fn every_key_is_described() {
    let schema: serde_json::Value = serde_json::from_str(&Config::schema()).unwrap();
    for (name, one) in schema["$defs"].as_object().unwrap() {
        assert!(one["description"].is_string(), "{name}");
        for (key, property) in one["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key}");
        }
    }
}

#[test]
fn nothing_said_is_the_default() {
    let config = Config::load(None, std::iter::empty(), &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config, Config::from_toml_str("").unwrap());
    let listeners: Vec<_> = config.listener.iter().map(|one| (one.name.as_str(), one.address.to_string())).collect();
    assert_eq!(listeners, [("mqtt-1883", "0.0.0.0:1883".into()), ("ws-8083", "0.0.0.0:8083".into())]);
    assert_eq!(config.auth.anonymous, Permission::Deny);
    assert!(config.probes.enabled);
}

#[test]
fn a_listener_says_all_it_can() {
    let config = Config::from_toml_str(
        r#"
        [[listener]]
        address = "[::]:8883"
        connections_max = 10
        connect_rate_max = 20
        connect_timeout = "1500ms"
        packet_bytes_max = "1MiB"
        oversize = "skip"
        dialects = ["generic", "huawei", "generic"]
        backlog = 5
        tcp_keepalive = "0s"
        tcp_user_timeout = "1m"
        proxy = { trusted = ["192.0.2.7", "10.1.2.3/8", "fd00::/8"] }
        tls = { cert = "c", key = "k", client_ca = "ca", crl = "crl", client_auth = "optional" }
        [[listener]]
        name = "one-for-all"
        address = "127.0.0.1:0"
        protocol = "auto"
        roles = ["api", "device_auth"]
        "#,
    )
    .unwrap();
    let mut auto = Listener::new(Protocol::Auto, "127.0.0.1:0".parse().unwrap());
    auto.name = "one-for-all".into();
    let mut tls = Listener::new(Protocol::Mqtt, "[::]:8883".parse().unwrap());
    tls.name = "mqtts-8883".into();
    tls.connections_max = 10;
    tls.connect_rate_max = 20;
    tls.connect_timeout = TimeSpan::ms(1500);
    tls.packet_bytes_max = ByteCount::mib(1);
    tls.oversize = Oversize::Skip;
    tls.backlog = 5;
    let trusted = ["192.0.2.7", "10.0.0.0/8", "fd00::/8"].map(|one| Cidr(Network::parse(one).unwrap()));
    tls.proxy = Some(Proxy { trusted: trusted.into(), required: true });
    tls.tcp_keepalive = TimeSpan::ZERO;
    tls.tcp_user_timeout = TimeSpan::s(60);
    tls.tls = Some(Tls {
        cert: "c".into(),
        key: "k".into(),
        client_ca: Some("ca".into()),
        crl: Some("crl".into()),
        client_auth: ClientAuth::Optional,
    });
    tls.dialects = vec![DialectName::Generic, DialectName::Huawei, DialectName::Generic];
    assert_eq!(tls.dialects(), [Dialect::Huawei, Dialect::Generic], "each once, as they are asked");
    auto.roles = vec![Role::Api, Role::DeviceAuth];
    assert_eq!(auto.dialects().len(), Dialect::ALL.len());
    assert_eq!(config.listener, [tls, auto]);
}

#[test]
fn environment_is_over_the_file_and_flags_over_both() {
    let loaded = load(
        "[session]\nreceive_maximum = 1\ntopic_alias_maximum = 1\nexpiry_max = \"1d\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n",
        &[
            ("FULMAR__SESSION__RECEIVE_MAXIMUM", "2"),
            ("FULMAR__SESSION__TOPIC_ALIAS_MAXIMUM", "2"),
            ("FULMAR__LISTENER__1__ADDRESS", "127.0.0.1:2"),
            ("FULMAR__LISTENER__1__PROTOCOL", "ws"),
            ("FULMAR__LISTENER__0__NAME", "123"),
            ("FULMAR__PROBES__ENABLED", "false"),
            ("FULMAR__NODE__NAME", ""),
            ("FULMAR__LIMITS__REPLICATED_BYTES_MAX", "2147483648"),
            ("FULMAR__AUTH__ACL", r#"[{ users = ["a"], permission = "deny", filters = ["x/#"] }]"#),
            ("FULMAR_OTHER", "is not ours"),
            ("HOME", "elsewhere"),
        ],
        &[("session.receive_maximum", "3"), ("shutdown.grace", "1s"), ("auth.acl.0.filters", "y, z")],
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let config = &loaded.config;
    assert_eq!((config.session.receive_maximum, config.session.topic_alias_maximum), (3, 2));
    assert_eq!((config.session.expiry_max, config.shutdown.grace), (TimeSpan::s(86_400), TimeSpan::s(1)));
    let listeners: Vec<_> = config.listener.iter().map(|one| (one.name.as_str(), one.address.port())).collect();
    assert_eq!(listeners, [("123", 1), ("ws-2", 2)]);
    assert!(!config.probes.enabled && config.node.name.is_none());
    assert_eq!(config.limits.replicated_bytes_max.to_string(), "2GiB");
    assert_eq!(config.auth.acl[0].users, AclUsers::Named(vec!["a".into()]));
    assert_eq!(config.auth.acl[0].filters, ["y", "z"]);
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_nearest() {
    for (toml, expected) in [
        (
            "[session]\n\nrecieve_maximum = 5\n",
            "fulmar.toml:3: session.recieve_maximum is not a key; did you mean `receive_maximum`?",
        ),
        ("[sesion]\nexpiry_max = \"1d\"\n", "fulmar.toml:1: sesion is not a key; did you mean `session`?"),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\n[[listener]]\naddress = \"0.0.0.0:2\"\nadress = \"0.0.0.0:2\"\n",
            "fulmar.toml:5: listener.1.adress is not a key; did you mean `address`?",
        ),
        (
            "[shutdown]\ncolour = 1\n",
            "fulmar.toml:2: shutdown.colour is not a key; allowed here: `grace`, `balancer_wait`, `disconnect_rate`, \
             `server_reference`",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\ntls = { certs = \"x\", cert = \"x\", key = \"y\" }\n",
            "fulmar.toml:3: listener.0.tls.certs is not a key; did you mean `cert`?",
        ),
        (
            "[[auth.user]]\nusername = \"a\"\npasword_hash_file = \"x\"\npassword_hash = \"$argon2id$\"\n",
            "fulmar.toml:3: auth.user.0.pasword_hash_file is not a key; did you mean `password_hash_file`?",
        ),
    ] {
        assert_eq!(problems(toml), [expected]);
    }
    let error = load("", &[("FULMAR__SESSION__EXPIRY", "1d")], &[("log.lvel", "info")]).unwrap_err();
    assert_eq!(
        told(&error),
        [
            "flag log.lvel: log.lvel is not a key; did you mean `level`?",
            "environment FULMAR__SESSION__EXPIRY: session.expiry is not a key; allowed here: `expiry_max`, \
             `receive_maximum`, `keep_alive_max`, `topic_alias_maximum`, `topic_levels_max`, `subscriptions_max`, \
             `live_queue_entries_max`, `live_queue_bytes_max`, `queue_entries_max`, `queue_bytes_max`, `queue_ttl`",
        ]
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_what_is_allowed() {
    for (toml, expected) in [
        ("[session]\nreceive_maximum = 0", "2: session.receive_maximum is 0; allowed: 1 to 65535"),
        (
            "[shutdown]\nbalancer_wait = \"10s\"",
            "2: shutdown.balancer_wait is 10s; allowed: less than shutdown.grace, 10s",
        ),
        (
            "[shutdown]\nserver_reference = \"\"",
            "2: shutdown.server_reference is no such text; allowed: 1 to 1024 bytes without control characters",
        ),
        (
            "[session]\nreceive_maximum = 70000",
            "2: session.receive_maximum is 70000; allowed: a whole number from 0 to 65535",
        ),
        (
            "[session]\nreceive_maximum = \"many\"",
            "2: session.receive_maximum is \"many\"; allowed: a whole number from 0 to 65535",
        ),
        (
            "[session]\nexpiry_max = 10",
            "2: session.expiry_max is 10; allowed: a span of time with a unit: ms, s, m, h or d, as in \"500ms\", \"10s\" or \"1h30m\"",
        ),
        (
            "[limits]\nreplicated_bytes_max = \"1GB\"",
            "2: limits.replicated_bytes_max is \"1GB\"; allowed: a whole number of bytes, or one with a unit: B, KiB, MiB, GiB or TiB, as in \"256KiB\"",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\npacket_bytes_max = \"2MiB\"",
            "3: listener.0.packet_bytes_max is 2MiB; allowed: 1KiB to 1MiB",
        ),
        (
            "[[listener]]\naddress = \"localhost:1883\"",
            "2: listener.0.address is \"localhost:1883\"; allowed: an IP address and a port, as in \"0.0.0.0:1883\" or \"[::]:1883\"",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nprotocol = \"wss\"",
            "3: listener.0.protocol is \"wss\"; allowed: `mqtt`, `ws`, `http`, `auto`; did you mean `ws`?",
        ),
        ("[log]\nformat = 1", "2: log.format is 1; allowed: `text`, `json`"),
        (
            "[log]\nlevel = \"inof\"",
            "2: log.level is \"inof\"; allowed: off, error, warn, info, debug or trace, also by module, as in \"info,fulmar::doors=debug\"",
        ),
        ("[[listener]]\nprotocol = \"ws\"", "1: listener.0.address is required, but absent"),
        ("[probes]\nenabled = \"yes\"", "2: probes.enabled is \"yes\"; allowed: true or false"),
        ("session = 1", "1: session is 1; allowed: a table"),
        ("listener = []", "1: listener is empty; leave it out for the defaults, or name at least one"),
        (
            "[[auth.acl]]\npermission = \"allow\"\nfilters = [\"a/%c\", \"b/#/c\"]",
            "3: auth.acl.0.filters.1 \"b/#/c\" has a '#' that is not alone in the last level",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nname = \"a b\"",
            "3: listener.0.name is \"a b\"; allowed: 1 to 64 letters, digits, '.', '_' and '-'",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\n[listener.tls]\ncert = \"c\"\nkey = \"k\"\nclient_auth = \"required\"",
            "6: listener.0.tls.client_auth needs client_ca, the PEM file of the authorities that sign",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nproxy = { trusted = [] }",
            "3: listener.0.proxy.trusted is empty, so that nobody could connect; name the balancers, as in [\"10.0.0.0/8\"]",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\n[listener.proxy]\ntrusted = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
            "4: listener.0.proxy.trusted.1 is \"10.0.0.0/33\"; allowed: an IP address, or a network as in \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\n[listener.proxy]\nrequired = false",
            "3: listener.0.proxy.trusted is required, but absent",
        ),
        ("[[listener]]\naddress = \"0.0.0.0:1\"\nproxy = true", "3: listener.0.proxy is true; allowed: a table"),
        (
            "[[listener]]\naddress = \"127.0.0.1:9100\"",
            "probes.address is 0.0.0.0:9100, which listener.0.address (127.0.0.1:9100) takes already",
        ),
        (
            "[[listener]]\naddress = \"[::]:1\"\n[[listener]]\naddress = \"127.0.0.1:1\"\nprotocol = \"ws\"",
            "4: listener.1.address is 127.0.0.1:1, which listener.0.address ([::]:1) takes already",
        ),
    ] {
        let expected = if expected.starts_with("probes") { expected.into() } else { format!("fulmar.toml:{expected}") };
        assert_eq!(problems(toml), [expected]);
    }
}

#[test]
fn many_mistakes_are_told_at_once() {
    let toml = r#"
[session]
receive_maximum = "x"
queue_tll = "1s"
topic_levels_max = 129

[[listener]]
protocol = "mqtt"

[[listener]]
address = 1
[[listener]]
address = "127.0.0.1:1"
backlog = -1
oversize = true
"#;
    let lines: Vec<String> = problems(toml).iter().map(|line| line.split(" is ").next().unwrap().to_owned()).collect();
    assert_eq!(
        lines,
        [
            "fulmar.toml:7: listener.0.address",
            "fulmar.toml:11: listener.1.address",
            "fulmar.toml:14: listener.2.backlog",
            "fulmar.toml:15: listener.2.oversize",
            "fulmar.toml:4: session.queue_tll",
            "fulmar.toml:3: session.receive_maximum",
            "fulmar.toml:5: session.topic_levels_max",
        ]
    );
}

#[test]
fn what_is_not_toml_is_told_by_line() {
    let lines = problems("[session]\nreceive_maximum = = 1\n");
    assert!(lines[0].starts_with("fulmar.toml:2: is not TOML: "), "{lines:?}");
    let lines = problems("[session]\nreceive_maximum = 1\nreceive_maximum = 2\n");
    assert!(lines[0].starts_with("fulmar.toml:3: is not TOML: "), "{lines:?}");
    let error = Config::load(Some(Path::new("no/such.toml")), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("no/such.toml: cannot be read: "), "{error}");
}

#[test]
fn overrides_that_fit_nowhere_are_told() {
    for (key, said) in [
        ("session..x", "has an empty part"),
        ("listener.2.address", "skips to element 2, but the list has 1"),
        ("listener.first.address", "wants a number from 0"),
        ("session.queue_ttl.unit", "is below a key that is not a table"),
        ("", "has an empty part"),
    ] {
        let toml = "[session]\nqueue_ttl = \"1s\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n";
        let error = load(toml, &[], &[(key, "1")]).unwrap_err().to_string();
        assert!(error.contains(said), "{key}: {error}");
    }
}

#[test]
fn secrets_are_neither_shown_nor_told() {
    let user = format!("[[auth.user]]\nusername = \"ann\"\npassword_hash = \"{HASH}\"\n");
    let loaded = load(&user, &[("FULMAR__AUTH__USER__1__USERNAME", "bob")], &[("auth.user.1.password_hash", HASH)]);
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let shown = loaded.to_toml();
    assert!(shown.contains(REDACTED) && !shown.contains("argon2id"), "{shown}");
    assert!(!format!("{:?}", loaded.config).contains("argon2id"));
    assert_eq!(loaded.config.auth.user[1].password_hash.as_ref().unwrap().expose(), HASH);

    let error = load("[[auth.user]]\nusername = \"ann\"\npassword_hash = \"hunter2\"\n", &[], &[]).unwrap_err();
    assert!(
        error.to_string().contains("auth.user.0.password_hash is something else; allowed: an argon2 hash"),
        "{error}"
    );
    let nested = [("FULMAR__AUTH__USER", "[{ username = 'ann', password_hash = 'hunter2'")];
    let both = format!("{error}{}", load("", &nested, &[]).unwrap_err());
    assert!(!both.contains("hunter2"), "{both}");
}

#[test]
fn show_says_where_values_came_from_and_loads_again() {
    let loaded = load(
        "[session]\nreceive_maximum = 5\n[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:2\"\n\
         tls = { cert = \"c\", key = \"k\" }\n[[auth.acl]]\npermission = \"deny\"\nfilters = [\"a = b\", \"c\"]\n",
        &[("FULMAR__SESSION__QUEUE_TTL", "1h")],
        &[("log.level", "debug")],
    );
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let shown = loaded.to_toml();
    let line = |start: &str| shown.lines().rfind(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(
        line("receive_maximum").starts_with("receive_maximum = 5 # ")
            && line("receive_maximum").ends_with("fulmar.toml:2")
    );
    assert_eq!(line("queue_ttl"), "queue_ttl = \"1h\" # environment FULMAR__SESSION__QUEUE_TTL");
    assert_eq!(line("level"), "level = \"debug\" # flag log.level");
    assert_eq!(line("format"), "format = \"text\"");
    assert!(line("address = \"127.0.0.1:2\"").ends_with("fulmar.toml:6"), "{shown}");
    assert!(line("cert").ends_with("fulmar.toml:7"), "{shown}");
    assert_eq!(Config::from_toml_str(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}")), loaded.config);
}

#[test]
fn check_reads_the_files_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    write("crt", &made.cert.pem());
    write("key", &made.signing_key.serialize_pem());
    write("other", &other.signing_key.serialize_pem());
    write("empty", "");
    write("hash", &format!("{HASH}\n"));
    write("users", &format!("# staff\n\nbob:{HASH}\n"));
    write("bad-users", &format!("bob:{HASH}\nbob:{HASH}\nnothing\neve:hunter2\n"));
    let check = |cert: &str, key: &str, ca: &str, hash: &str, users: &str| {
        let file = |name: &str| dir.path().join(name).display().to_string();
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n\
             client_auth = 'required'\n[auth]\nusers_file = '{}'\n[[auth.user]]\nusername = 'ann'\npassword_hash_file = '{}'\n",
            file(cert),
            file(key),
            file(ca),
            file(users),
            file(hash),
        );
        let loaded = load(&toml, &[], &[]).unwrap_or_else(|error| panic!("{error}"));
        let result = loaded.check_files();
        assert_eq!(
            loaded.config.auth.generic().is_ok(),
            result.as_ref().is_err_and(|e| !e.to_string().contains("auth.")) || result.is_ok()
        );
        result
            .map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            .err()
            .unwrap_or_default()
    };
    assert_eq!(check("crt", "key", "crt", "hash", "users"), [""; 0]);
    for (lines, said) in [
        (check("absent", "key", "crt", "hash", "users"), "fulmar.toml:4: listener.0.tls.cert names "),
        (check("empty", "key", "crt", "hash", "users"), "which holds no certificate as PEM"),
        (check("crt", "empty", "crt", "hash", "users"), "fulmar.toml:5: listener.0.tls.key names "),
        (check("crt", "other", "crt", "hash", "users"), "does not go with the certificate"),
        (check("crt", "key", "key", "hash", "users"), "fulmar.toml:6: listener.0.tls.client_ca names "),
        (check("crt", "key", "crt", "absent", "users"), "auth.user.0.password_hash_file names "),
        (check("crt", "key", "crt", "empty", "users"), "whose first line is something else; allowed: an argon2 hash"),
        (check("crt", "key", "crt", "hash", "absent"), "auth.users_file names "),
    ] {
        assert!(lines.len() == 1 && lines[0].contains(said), "{said}: {lines:?}");
    }
    let lines = check("crt", "key", "crt", "hash", "bad-users");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("line 2, which names the user \"bob\" a second time"), "{lines:?}");
    assert!(lines[1].contains("line 3, which is not name:hash") && lines[2].contains("line 4, which has"), "{lines:?}");
    assert!(!lines.concat().contains("hunter2"));
}
