//! What a listener lets in: services over HTTP by role, dialects, certificates of devices; and what is said of refusals.

use std::time::Duration;

use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::ws::WebSocket;
use crate::support::{
    Kit, OPEN, SOON, Server, VERSIONS, http_get, raw_ack, raw_client, raw_connect, raw_subscribe, tls,
};

/// Listeners beside the plain one: 1 WebSocket, 2 HTTP with one role, 3 everything with the other.
const SERVICES: &str = r#"
[[listener]]
address = "127.0.0.1:PORT1"
protocol = "ws"
[[listener]]
address = "127.0.0.1:PORT2"
protocol = "http"
roles = ["api"]
connect_timeout = "1s"
[[listener]]
address = "127.0.0.1:PORT3"
protocol = "auto"
roles = ["device_auth"]
"#;

#[tokio::test]
async fn a_service_is_only_where_its_role_is() {
    let server = Server::start(&format!("{OPEN}{SERVICES}")).await;
    for (port, path, status) in [
        (1, "/", 426),
        (1, "/v3/auth/tokens", 404),
        (1, "/%76%33/auth/tokens", 404),
        (1, "/auth/devicename", 404),
        (2, "/", 404),
        (2, "/auth/devicename", 404),
        (2, "/device/register", 404),
        (3, "/", 404),
        (3, "/v3/auth/tokens", 404),
        (3, "/%763/auth/tokens", 404),
        (3, "//v5/iot/x", 404),
        (3, "/openapi.json", 404),
    ] {
        assert_eq!(http_get(server.at(port), path).await.unwrap().0, status, "{port} {path}");
    }
    // MQTT comes in on any path, those of services included, wherever MQTT is spoken.
    for (port, status) in [(1, "101"), (2, "404"), (3, "101")] {
        for path in ["/mqtt", "/v3/devices", "/auth/devicename"] {
            let stream = TcpStream::connect(server.at(port)).await.unwrap();
            let answer = WebSocket::ask(stream, path, "mqtt").await.answer;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{port} {path}: {answer}");
        }
    }
    let mut both = raw_client(server.at(3), Version::V5, "both").await;
    both.send(&Packet::PingReq).await.unwrap();
    both.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_asks_is_kept_longer_than_a_connect_may_take() {
    let server = Server::start(&format!("{OPEN}{SERVICES}")).await;
    let mut silent = TcpStream::connect(server.at(2)).await.unwrap();
    let mut asking = TcpStream::connect(server.at(2)).await.unwrap();
    for pause in [Duration::ZERO, Duration::from_millis(1500)] {
        sleep(pause).await;
        asking.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(SOON, asking.read_u8()).await.expect("an answer").expect("it is open"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    }
    let mut rest = Vec::new();
    // Closed or reset, but not kept.
    let _ = timeout(SOON, silent.read_to_end(&mut rest)).await.expect("who asks for nothing is closed");
    assert_eq!(server.metrics().await.sum(&["turned_away", "connect_timeout"]), 1);
}

#[tokio::test]
async fn a_device_may_show_any_certificate_or_none() {
    let (kit, stranger) = (Kit::shared().await, Kit::make().await);
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let config = format!(
        "{OPEN}protocol = \"auto\"\ntls = {{ cert = \"{0}/server.crt\", key = \"{0}/server.key\", client_auth = \"device\" }}\n",
        dir.path().display()
    );
    let server = Server::start(&config).await;
    for only_12 in [true, false] {
        for own in [Some(kit), Some(&stranger), None] {
            let stream = tls::connect(server.mqtt(), kit, own, only_12).await.unwrap();
            let mut client = RawClient::new(stream, Version::V5);
            let connack = client.handshake(raw::connect(Version::V5, "device"), SOON).await.unwrap();
            assert_eq!(connack.reason, ReasonCode::Success, "TLS 1.2: {only_12}");
            let stream = tls::connect(server.mqtt(), kit, own, only_12).await.unwrap();
            let mut client = RawClient::new(WebSocket::open(stream).await.into_stream(), Version::V311);
            let connack = client.handshake(raw::connect(Version::V311, "device"), SOON).await.unwrap();
            assert_eq!(connack.reason, ReasonCode::Success, "TLS 1.2: {only_12}");
        }
    }
    assert_eq!(server.metrics().await.sum(&["turned_away", "tls_failed"]), 0);
}

/// Waits until the node has logged a line with all of these.
async fn logged(server: &mut Server, words: &[&str]) {
    wait_for(&format!("{words:?} in the log"), SOON, async || {
        let process = server.node.process().unwrap();
        let text = process.stdout() + &process.stderr();
        text.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_denied_is_logged_and_counted() {
    let rule = "[[auth.acl]]\nfilters = [\"secret/#\"]\npermission = \"deny\"\n";
    let mut server = Server::start(&format!("{OPEN}{rule}")).await;
    for version in VERSIONS {
        let mut client = raw_client(server.mqtt(), version, &format!("{version:?}")).await;
        let topic = format!("secret/{version:?}");
        client.send(&Packet::Publish(raw::publish(7, &topic, QoS::AtLeastOnce, "x"))).await.unwrap();
        let reason = if version == Version::V5 { ReasonCode::NotAuthorized } else { ReasonCode::Success };
        assert_eq!(raw_ack(&mut client).await, ("PUBACK", 7, reason));
        raw_subscribe(&mut client, &format!("{topic}/+"), QoS::AtLeastOnce).await;
        logged(&mut server, &["no authorization", "publish", &topic]).await;
        logged(&mut server, &["no authorization", "subscribe", &format!("{topic}/+")]).await;
    }
    server.metric("fulmar_publishes_denied_total{dialect=\"generic\"}", |count| count == 2).await;
    server.metric("fulmar_subscribes_denied_total{dialect=\"generic\"}", |count| count == 2).await;
}

#[tokio::test]
async fn a_listener_lets_in_the_dialects_that_it_names() {
    let config = format!("{OPEN}[[listener]]\naddress = \"127.0.0.1:PORT1\"\ndialects = [\"huawei\", \"aliyun\"]\n");
    let mut server = Server::start(&config).await;
    for version in VERSIONS {
        raw_client(server.mqtt(), version, "plain").await;
        let (mut client, connack) = raw_connect(server.at(1), raw::connect(version, "plain")).await;
        assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword, "{version:?}");
        assert!(client.expect_close(SOON).await.unwrap().is_empty());
    }
    logged(&mut server, &["connect refused", "not a client of a dialect that this listener accepts"]).await;
    assert_eq!(server.metrics().await.sum(&["connects_refused_total", "dialect=\"generic\""]), 2);
}
