//! `fulmar serve`: leaving, probes, errors at start, who may come in and what they may do.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use cluster_tests::harness::{Process, free_port, fulmar_binary};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::sys::Signal;
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::ws::WebSocket;
use crate::support::{
    Kit, OPEN, SOON, Server, VERSIONS, close_reason, http_get, raw_client, raw_connect, raw_publish, raw_subscribe, tls,
};

#[tokio::test]
async fn sigterm_tells_clients_refuses_new_ones_and_exits_well() {
    let mut server = Server::open().await;
    let mut told = raw_client(server.mqtt(), Version::V5, "told").await;
    let mut closed = raw_client(server.mqtt(), Version::V311, "closed").await;
    server.node.signal(Signal::Terminate).unwrap();
    assert_eq!(close_reason(&mut told).await, Some(ReasonCode::ServerShuttingDown));
    assert!(closed.expect_close(SOON).await.unwrap().is_empty(), "3.1.1 knows no DISCONNECT from a server");
    // Both were told after the node had stopped accepting.
    let address = server.mqtt();
    wait_for("no new connection", SOON, async || {
        let Ok(mut late) = RawClient::tcp(address, Version::V311).await else { return Some(()) };
        late.handshake(raw::connect(Version::V311, "late"), SOON).await.is_err().then_some(())
    })
    .await
    .unwrap();
    drop((told, closed));
    let status = server.node.process().unwrap().exited(SOON).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn what_was_queued_is_flushed_before_the_node_leaves() {
    let config = format!("[session]\nlive_queue_bytes_max = \"64MiB\"\n{OPEN}");
    let mut server = Server::start(&config).await;
    let mut subscriber = raw_client(server.mqtt(), Version::V5, "s").await;
    raw_subscribe(&mut subscriber, "t", QoS::AtMostOnce).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "p").await;
    // 48 MB, within the queue's bounds: the socket of a subscriber that has not begun to read does not take it all.
    for _ in 0..800 {
        let publish = raw::publish(0, "t", QoS::AtMostOnce, vec![7; 60_000]);
        publisher.send(&Packet::Publish(publish)).await.unwrap();
    }
    publisher.send(&Packet::PingReq).await.unwrap();
    publisher.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
    server.node.signal(Signal::Terminate).unwrap();
    let packets = subscriber.expect_close(SOON).await.unwrap();
    let publishes = packets.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count();
    assert_eq!(publishes, 800, "accepted before SIGTERM, so written before the end");
    assert!(matches!(packets.last(), Some(Packet::Disconnect(_))), "{:?}", packets.last());
}

#[tokio::test]
async fn probes_tell_draining_and_a_second_sigterm_hurries() {
    // A client that neither reads nor ends its side holds the node up to two seconds, another bound; the grace time
    // here is far beyond the deadline of this test.
    let config = format!("[shutdown]\ngrace = \"10m\"\n{OPEN}");
    let mut server = Server::start(&config).await;
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/startupz", 200), ("/metrics", 200), ("/other", 404)] {
        assert_eq!(http_get(server.probes, path).await.unwrap().0, status, "{path}");
    }
    let mut stuck = raw_client(server.mqtt(), Version::V5, "stuck").await;
    raw_subscribe(&mut stuck, "t", QoS::AtMostOnce).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "p").await;
    for _ in 0..300 {
        let publish = raw::publish(0, "t", QoS::AtMostOnce, vec![7; 60_000]);
        publisher.send(&Packet::Publish(publish)).await.unwrap();
    }
    publisher.send(&Packet::PingReq).await.unwrap();
    publisher.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
    server.node.signal(Signal::Terminate).unwrap();
    assert_eq!(close_reason(&mut publisher).await, Some(ReasonCode::ServerShuttingDown));
    // Between the two signals the node may have left already, which is as good.
    if let Some((status, text)) = http_get(server.probes, "/readyz").await {
        assert!(status == 503 && (text.starts_with("draining: ") || text == "drained\n"), "{status} {text}");
    }
    let _ = server.node.signal(Signal::Terminate);
    let status = server.node.process().unwrap().exited(SOON).await.unwrap();
    assert_eq!(status.code(), Some(0));
    drop(stuck);
}

/// Runs `fulmar serve` with a configuration that cannot start; returns what it says.
async fn refused_start(config: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fulmar.toml");
    let head = format!("[node]\ndata_dir = \"{}\"\n", dir.path().join("data").display());
    std::fs::write(&path, format!("{head}{config}")).unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.args(["serve", "--config"]).arg(&path);
    let mut process = Process::spawn("refused", command, dir.path()).unwrap();
    let status = process.exited(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.tail());
    process.stderr()
}

#[tokio::test]
async fn errors_at_start_name_key_file_and_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let free = free_port().unwrap();
    let off = "[probes]\nenabled = false\n";
    let listener = |rest: &str| format!("{off}[[listener]]\naddress = \"127.0.0.1:{free}\"\n{rest}\n");
    let taken_text = taken.to_string();
    let cases: [(String, &[&str]); 9] = [
        (format!("{off}[[listener]]\nname = \"front\"\naddress = \"{taken}\"\n"), &["listener", "front", &taken_text]),
        (format!("[probes]\naddress = \"{taken}\"\n"), &["probes.address", &taken_text]),
        (listener("backlogg = 3"), &["backlogg", "backlog", "listener"]),
        (listener("connect_timeout = \"soon\""), &["connect_timeout", "10s"]),
        (listener("packet_bytes_max = \"2MiB\""), &["packet_bytes_max", "1MiB"]),
        (listener("tls = { cert = \"/nowhere/c.pem\", key = \"/nowhere/k.pem\" }"), &["tls", "/nowhere/c.pem"]),
        (listener("[auth]\nusers_file = \"/nowhere/users\""), &["auth.users_file", "/nowhere/users"]),
        (
            listener("[[auth.user]]\nusername = \"u\"\npassword_hash = \"secret-in-clear\""),
            &["auth.user.0.password_hash", "argon2"],
        ),
        (listener("[cluster]\nexpected = 3"), &["cluster.expected", "single"]),
    ];
    for (config, words) in cases {
        let error = refused_start(&config).await;
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
        assert!(!error.contains("secret-in-clear"), "{error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[tokio::test]
async fn the_node_id_is_kept_across_restarts() {
    let mut server = Server::open().await;
    let path = server.dir.path().join("data/node-id");
    let before = std::fs::read_to_string(&path).unwrap();
    server.node.terminate().await.unwrap();
    server.node.restart().await.unwrap();
    server.node.kill().await.unwrap();
    server.node.restart().await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    raw_client(server.mqtt(), Version::V5, "a").await;
}

#[tokio::test]
async fn by_default_nobody_comes_in_without_a_name() {
    let server = Server::start("[[listener]]\naddress = \"127.0.0.1:PORT0\"\n").await;
    for version in [Version::V31, Version::V311, Version::V5] {
        // The codec reads code 5 of 3.x as 0x87.
        let (mut client, connack) = raw_connect(server.mqtt(), raw::connect(version, "a")).await;
        assert_eq!(connack.reason, ReasonCode::NotAuthorized, "{version:?}");
        assert!(client.expect_close(SOON).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn users_and_their_rules() {
    let kit = Kit::shared().await;
    let rules = format!(
        r#"
[[listener]]
address = "127.0.0.1:PORT0"
[[auth.user]]
username = "{}"
password_hash = "{}"
[[auth.acl]]
filters = ["devices/%c/#", "users/%u/#"]
permission = "allow"
[[auth.acl]]
filters = ["read/only/#"]
action = "publish"
permission = "deny"
[[auth.acl]]
filters = ["devices/#", "users/#"]
permission = "deny"
"#,
        kit.username, kit.password_hash
    );
    let server = Server::start(&rules).await;
    let user = kit.username.as_str();
    for version in VERSIONS {
        let mut connect = raw::connect(version, "d1");
        connect.username = Some(user.into());
        connect.password = Some(kit.password.clone().into_bytes().into());
        let (mut client, connack) = raw_connect(server.mqtt(), connect.clone()).await;
        assert_eq!(connack.reason, ReasonCode::Success);
        let v5 = version == Version::V5;
        let denied = if v5 { ReasonCode::NotAuthorized } else { ReasonCode::UnspecifiedError };
        let own_user = format!("users/{user}/x");
        let filters = [
            ("devices/d1/x", ReasonCode::GrantedQoS1),
            ("devices/d1/#", ReasonCode::GrantedQoS1),
            (own_user.as_str(), ReasonCode::GrantedQoS1),
            ("read/only/#", ReasonCode::GrantedQoS1),
            ("free", ReasonCode::GrantedQoS1),
            ("devices/d2/x", denied),
            ("devices/+/x", denied),
            ("#", denied),
            ("$share/g/devices/d2/x", denied),
            ("users/other/x", denied),
        ];
        for (filter, code) in filters {
            assert_eq!(raw_subscribe(&mut client, filter, QoS::AtLeastOnce).await, code, "{version:?} {filter}");
        }
        // Who may not publish learns it by MQTT 5; in 3.1.1 the PUBACK says nothing, and nobody gets the message.
        let witness = raw_connect(server.mqtt(), {
            let mut other = connect.clone();
            other.client_id = "d2".into();
            other
        });
        let (witness, _) = &mut witness.await;
        assert_eq!(raw_subscribe(witness, "devices/d2/#", QoS::AtLeastOnce).await, ReasonCode::GrantedQoS1);
        let topics = [
            ("devices/d2/x", false),
            ("read/only/x", false),
            ("$SYS/broker/version", false),
            ("devices/d1/x", true),
            ("free", true),
        ];
        for (number, (topic, allowed)) in topics.into_iter().enumerate() {
            let packet_id = 10 + number as u16;
            let publish = raw::publish(packet_id, topic, QoS::AtLeastOnce, "x");
            client.send(&Packet::Publish(publish)).await.unwrap();
            let (mut acked, mut came) = (None, false);
            while acked.is_none() || came != allowed {
                match client.next(SOON).await.unwrap() {
                    Packet::PubAck(ack) => acked = Some((ack.packet_id, ack.reason)),
                    Packet::Publish(publish) => {
                        assert!(allowed, "{topic} came although it was denied");
                        came = publish.topic.is_some_and(|came| came.as_str() == topic);
                        let ack = fulmar_mqtt::packet::Ack::success(publish.packet_id);
                        client.send(&Packet::PubAck(ack)).await.unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
            let reason = if allowed || !v5 { ReasonCode::Success } else { ReasonCode::NotAuthorized };
            assert_eq!(acked, Some((packet_id, reason)), "{version:?} {topic}");
        }
        witness.send(&Packet::PingReq).await.unwrap();
        witness.expect("nothing but PINGRESP", SOON, |p| (*p == Packet::PingResp).then_some(())).await.unwrap();

        // A will where its client may not publish is refused at CONNECT.
        connect.will = Some(fulmar_mqtt::packet::Will {
            topic: fulmar_mqtt::TopicName::new("devices/d2/x").unwrap(),
            payload: "x".into(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay_s: 0,
            properties: Default::default(),
        });
        assert_eq!(raw_connect(server.mqtt(), connect).await.1.reason, ReasonCode::NotAuthorized);
    }
}

#[tokio::test]
async fn a_client_id_cannot_widen_its_rule() {
    let config = "[auth]\nanonymous = \"allow\"\nacl_default = \"deny\"\n[[auth.acl]]\nfilters = [\"devices/%c/#\"]\n\
                  permission = \"allow\"\n[[listener]]\naddress = \"127.0.0.1:PORT0\"\n";
    let server = Server::start(config).await;
    for client_id in ["+", "#", "a/b", "+/x"] {
        let mut client = raw_client(server.mqtt(), Version::V5, client_id).await;
        for filter in [format!("devices/{client_id}"), "devices/a/x".into(), "devices/a/b/x".into()] {
            if fulmar_mqtt::TopicFilter::new(filter.as_str()).is_ok() {
                let code = raw_subscribe(&mut client, &filter, QoS::AtMostOnce).await;
                assert_eq!(code, ReasonCode::NotAuthorized, "{client_id} {filter}");
            }
        }
    }
}

/// Connects, subscribes, and takes its own message, over whatever stream.
async fn speaks_mqtt<S: AsyncRead + AsyncWrite + Unpin>(stream: S, version: Version, client_id: &str) {
    let mut client = RawClient::new(stream, version);
    let connack = client.handshake(raw::connect(version, client_id), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{client_id}");
    let topic = format!("own/{client_id}");
    raw_subscribe(&mut client, &topic, QoS::AtMostOnce).await;
    // Larger than a TLS record and than what WebSocket writes at once.
    let payload = vec![0xA5; 100_000];
    client.send(&Packet::Publish(raw::publish(0, &topic, QoS::AtMostOnce, payload.clone()))).await.unwrap();
    assert_eq!(raw_publish(&mut client).await.payload, payload);
    client.send(&Packet::Publish(raw::publish(3, &topic, QoS::ExactlyOnce, "x"))).await.unwrap();
    // The message to itself and the answer to it come in any order.
    let mut came = [client.next(SOON).await.unwrap(), client.next(SOON).await.unwrap()];
    came.sort_by_key(|packet| matches!(packet, Packet::PubRec(_)));
    assert!(matches!(&came, [Packet::Publish(_), Packet::PubRec(ack)] if ack.packet_id == 3), "{came:?}");
}

#[tokio::test]
async fn one_auto_port_serves_mqtt_and_websocket_plain_and_encrypted() {
    let kit = Kit::shared().await;
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let config = format!(
        "{OPEN}protocol = \"auto\"\nconnect_timeout = \"1s\"\n\
         tls = {{ cert = \"{0}/server.crt\", key = \"{0}/server.key\" }}\n",
        dir.path().display()
    );
    let server = Server::start(&config).await;
    let address = server.mqtt();
    for version in VERSIONS {
        speaks_mqtt(TcpStream::connect(address).await.unwrap(), version, "tcp").await;
        for only_12 in [true, false] {
            let stream = tls::connect(address, kit, None, only_12).await.unwrap();
            speaks_mqtt(stream, version, "tls").await;
        }
        let ws = WebSocket::open(TcpStream::connect(address).await.unwrap()).await;
        speaks_mqtt(ws.into_stream(), version, "ws").await;
        let wss = WebSocket::open(tls::connect(address, kit, None, false).await.unwrap()).await;
        speaks_mqtt(wss.into_stream(), version, "wss").await;
    }
    // Anything else is closed: at once if its first byte is none of these, and in time if there is none.
    for bytes in [&b"\x00"[..], b"\xFF\xFF", b"hello", b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.is_empty(), "{bytes:?}");
    }
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let (kit, stranger) = (Kit::shared().await, Kit::make().await);
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let tls = |client_auth: &str| {
        format!(
            "tls = {{ cert = \"{0}/server.crt\", key = \"{0}/server.key\", client_ca = \"{0}/ca.crt\", \
             client_auth = \"{client_auth}\" }}\n",
            dir.path().display()
        )
    };
    let config = format!("{OPEN}{}[[listener]]\naddress = \"127.0.0.1:PORT1\"\n{}", tls("required"), tls("optional"));
    let server = Server::start(&config).await;
    let (required, optional) = (server.at(0), server.at(1));
    for only_12 in [true, false] {
        for (address, own, welcome) in [
            (required, Some(kit), true),
            (required, None, false),
            (required, Some(&stranger), false),
            (optional, Some(kit), true),
            (optional, None, true),
            (optional, Some(&stranger), false),
        ] {
            // In TLS 1.3 a client learns only after its own last word that it was turned away.
            let outcome = async {
                let stream = tls::connect(address, kit, own, only_12).await?;
                let mut client = RawClient::new(stream, Version::V311);
                client.handshake(raw::connect(Version::V311, "certified"), SOON).await
            };
            let outcome = outcome.await;
            assert_eq!(outcome.is_ok(), welcome, "{address} TLS 1.2: {only_12}: {outcome:?}");
        }
    }
    assert_eq!(server.metrics().await.sum(&["turned_away", "tls_failed"]), 6);
}

#[tokio::test]
async fn a_plain_client_on_a_tls_port_is_turned_away() {
    let kit = Kit::shared().await;
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let config =
        format!("{OPEN}tls = {{ cert = \"{0}/server.crt\", key = \"{0}/server.key\" }}\n", dir.path().display());
    let server = Server::start(&config).await;
    let mut client = RawClient::tcp(server.mqtt(), Version::V311).await.unwrap();
    assert!(client.handshake(raw::connect(Version::V311, "plain"), SOON).await.is_err());
    server
        .metric(
            &format!(
                "fulmar_connections_turned_away_total{{listener=\"mqtts-{}\",reason=\"tls_failed\"}}",
                server.mqtt().port()
            ),
            |n| n == 1,
        )
        .await;
    speaks_mqtt(tls::connect(server.mqtt(), kit, None, false).await.unwrap(), Version::V5, "tls").await;
}

#[tokio::test]
async fn environment_and_flags_come_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fulmar.toml");
    std::fs::write(&path, "[session]\nreceive_maximum = 7\ntopic_alias_maximum = 7\n").unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.args(["config", "show", "--set", "session.topic_alias_maximum=9", "--config"]).arg(&path);
    command.env("FULMAR__SESSION__RECEIVE_MAXIMUM", "8").env("FULMAR__SESSION__TOPIC_ALIAS_MAXIMUM", "8");
    let mut process = Process::spawn("show", command, dir.path()).unwrap();
    assert!(process.exited(Duration::from_secs(15)).await.unwrap().success());
    let shown = process.stdout();
    assert!(shown.contains("receive_maximum = 8") && shown.contains("topic_alias_maximum = 9"), "{shown}");
}
