//! Behind balancers that send the PROXY protocol: the client of a connection is whom the header names, and nobody comes in
//! without a right one.

use std::net::{IpAddr, SocketAddr};

use cluster_tests::admin::Admin;
use cluster_tests::harness::ADMIN_TOKEN;
use cluster_tests::raw::{RawClient, connect};
use fulmar_mqtt::{ReasonCode, Version};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::ws::WebSocket;
use crate::support::{Kit, OPEN, SOON, Server, tls};

/// Beside the plain listener: 1 MQTT, 2 a test's own, 3 WebSocket, 4 everything and no header needed, 5 of another
/// balancer, 6 for admins, 7 MQTT with a bound on new connections.
const BEHIND: &str = r#"
[[listener]]
name = "one"
address = "127.0.0.1:PORT1"
proxy = { trusted = ["192.0.2.0/24", "127.0.0.0/8"] }
[[listener]]
address = "127.0.0.1:PORT3"
protocol = "ws"
proxy = { trusted = ["127.0.0.1"] }
[[listener]]
address = "127.0.0.1:PORT4"
protocol = "auto"
roles = ["api"]
proxy = { trusted = ["127.0.0.1"], required = false }
[[listener]]
name = "other"
address = "127.0.0.1:PORT5"
proxy = { trusted = ["192.0.2.1"] }
[[listener]]
name = "paced"
address = "127.0.0.1:PORT7"
connect_rate_max = 3
proxy = { trusted = ["127.0.0.1"] }
[rest]
sign_in_failures_max = 2
[admin]
address = "127.0.0.1:PORT6"
token = "TOKEN"
"#;

async fn server(more: &str) -> Server {
    Server::start(&format!("{OPEN}{more}{BEHIND}").replace("TOKEN", ADMIN_TOKEN)).await
}

fn admin(server: &Server) -> Admin {
    Admin::at(server.at(6)).unwrap()
}

/// Version 1, for a client at this address.
fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {0} {0} {1} 1883\r\n", client.ip(), client.port()).into_bytes()
}

/// Version 2 with so much beside the addresses.
fn v2(client: &str, more: usize) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, ip) = match client.ip() {
        IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
        IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
    };
    let noop = u16::try_from(more).unwrap().to_be_bytes();
    let block = [&ip[..], &ip, &client.port().to_be_bytes(), &[7, 0x5b, 4], &noop, &vec![0; more]].concat();
    binary(0x21, family, &block)
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, block].concat()
}

fn local() -> Vec<u8> {
    binary(0x20, 0, &[])
}

async fn opened(at: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

/// Connects over this, and gives the address that the node knows the client by.
async fn known_as(server: &Server, stream: impl AsyncRead + AsyncWrite + Unpin, client_id: &str) -> String {
    let mut client = RawClient::new(stream, Version::V5);
    let connack = client.handshake(connect(Version::V5, client_id), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{client_id}");
    let list = admin(server).call("Sessions/List", json!({ "prefix": client_id })).await.unwrap();
    list["sessions"][0]["address"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned()
}

/// Waits for the end of a connection on which nothing is answered.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too: bytes that nobody has read.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the end of the connection");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_client_is_whom_the_header_names() {
    let server = server("").await;
    for (name, header, client) in [
        ("v1", v1("203.0.113.7:5001"), Some("203.0.113.7:5001")),
        ("v1-6", v1("[2001:db8::7]:5002"), Some("[2001:db8::7]:5002")),
        ("v2", v2("203.0.113.7:5003", 0), Some("203.0.113.7:5003")),
        ("v2-6", v2("[2001:db8::7]:5004", 0), Some("[2001:db8::7]:5004")),
        ("v2-large", v2("203.0.113.7:5005", 3000), Some("203.0.113.7:5005")),
        ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), None),
        ("unspecified", binary(0x21, 0, &[]), None),
        ("local-socket", binary(0x21, 0x31, &[0; 216]), None),
        ("local", local(), None),
    ] {
        let stream = opened(server.at(1), &header).await;
        let own = stream.local_addr().unwrap().to_string();
        assert_eq!(known_as(&server, stream, name).await, client.unwrap_or(&own), "{name}");
    }
    // In pieces, as no balancer sends it.
    for (name, header) in [("cut-1", v1("203.0.113.8:5006")), ("cut-2", v2("203.0.113.8:5006", 3))] {
        let mut stream = opened(server.at(1), b"").await;
        for byte in header {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(known_as(&server, stream, name).await, "203.0.113.8:5006", "{name}");
    }
    let socket = WebSocket::open(opened(server.at(3), &v2("203.0.113.9:5007", 0)).await).await;
    assert_eq!(known_as(&server, socket.into_stream(), "ws").await, "203.0.113.9:5007");
    // Where it may be left out: with it, without it, and what begins as it does.
    let stream = opened(server.at(4), &v1("203.0.113.9:5008")).await;
    assert_eq!(known_as(&server, stream, "may").await, "203.0.113.9:5008");
    let stream = opened(server.at(4), b"").await;
    let own = stream.local_addr().unwrap().to_string();
    assert_eq!(known_as(&server, stream, "need-not").await, own);
    let mut stream = opened(server.at(4), b"P").await;
    stream.write_all(b"ROPFIND / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(server.metrics().await.sum(&["turned_away"]), 0);
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let kit = Kit::shared().await;
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let at = dir.path().display();
    let proxied = "proxy = { trusted = [\"127.0.0.1\"] }";
    let tls_table = format!("tls = {{ cert = \"{at}/server.crt\", key = \"{at}/server.key\" }}");
    let server = server(&format!("[[listener]]\naddress = \"127.0.0.1:PORT2\"\n{proxied}\n{tls_table}\n")).await;
    for (name, header) in [("tls-v1", v1("203.0.113.7:5001")), ("tls-v2", v2("203.0.113.7:5001", 200))] {
        let stream = opened(server.at(2), &header).await;
        let stream = tls::over(stream, kit, None, false).await.unwrap();
        assert_eq!(known_as(&server, stream, name).await, "203.0.113.7:5001", "{name}");
    }
    let stream = opened(server.at(2), b"").await;
    assert!(tls::over(stream, kit, None, false).await.is_err(), "TLS without a header");
    assert_eq!(server.metrics().await.sum(&["turned_away", "proxy_missing"]), 1);
}

#[tokio::test]
async fn whoever_comes_without_a_right_header_is_turned_away() {
    let hasty = "[[listener]]\nname = \"hasty\"\naddress = \"127.0.0.1:PORT2\"\nconnect_timeout = \"1s\"\n";
    let server = server(&format!("{hasty}proxy = {{ trusted = [\"127.0.0.1\"] }}\n")).await;
    let mut count = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, header) in [
        ("proxy_missing", &b"\x10\x10"[..]),
        ("proxy_missing", b"GET / HTTP/1.1\r\n\r\n"),
        ("proxy_missing", &[0xff; 5000]),
        ("proxy_malformed", b"PROXY TCP4 1.2.3.4\r\n"),
        ("proxy_malformed", &[b"PROXY UNKNOWN ".as_slice(), &[b' '; 107]].concat()),
        ("proxy_malformed", &binary(0x31, 0x11, &[0; 12])),
        ("proxy_malformed", &binary(0x21, 0x11, &[0; 11])),
        ("proxy_malformed", &binary(0x21, 0x11, &[0; 5000])),
        ("connect_timeout", b"PROXY TCP4 "),
        ("connect_timeout", &v2("203.0.113.7:5001", 9)[..20]),
        // It says nothing more.
        ("connect_timeout", &local()),
        ("connect_timeout", &v1("203.0.113.7:5001")),
    ] {
        let mut stream = opened(server.at(2), header).await;
        ended(&mut stream).await;
        *count.entry(reason).or_default() += 1;
        let name = format!("fulmar_connections_turned_away_total{{listener=\"hasty\",reason=\"{reason}\"}}");
        server.metric(&name, |seen| seen == count[reason]).await;
    }
    // Cut off by its end.
    let mut stream = opened(server.at(2), b"PROXY TCP4 1.2.3.4").await;
    stream.shutdown().await.unwrap();
    ended(&mut stream).await;
    let name = "fulmar_connections_turned_away_total{listener=\"hasty\",reason=\"proxy_malformed\"}";
    server.metric(name, |seen| seen == count["proxy_malformed"] + 1).await;
    // Not one of the balancers, whatever it sends.
    let mut stream = TcpStream::connect(server.at(5)).await.unwrap();
    let _ = stream.write_all(&v1("203.0.113.7:5001")).await;
    ended(&mut stream).await;
    let name = "fulmar_connections_turned_away_total{listener=\"other\",reason=\"proxy_untrusted\"}";
    server.metric(name, |seen| seen == 1).await;
    server.metric("fulmar_connections", |open| open == 0).await;
}

#[tokio::test]
async fn a_balancer_that_looks_whether_the_port_is_open_takes_nobodys_place() {
    let server = server("").await;
    for header in [local(), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
        for _ in 0..10 {
            let mut stream = opened(server.at(7), &header).await;
            stream.shutdown().await.unwrap();
            ended(&mut stream).await;
        }
    }
    for number in 0..3 {
        let stream = opened(server.at(7), &v2("203.0.113.7:5001", 0)).await;
        known_as(&server, stream, &format!("paced-{number}")).await;
    }
    assert_eq!(server.metrics().await.sum(&["turned_away"]), 0);
    let mut more = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.at(7)).await.unwrap();
        // It may be closed by then.
        let _ = stream.write_all(&v2("203.0.113.7:5001", 0)).await;
        more.push(stream);
    }
    let name = "fulmar_connections_turned_away_total{listener=\"paced\",reason=\"connect_rate_max\"}";
    server.metric(name, |refused| refused > 0).await;
}

#[tokio::test]
async fn bans_and_failed_sign_ins_are_those_of_the_real_address() {
    let server = server("").await;
    let admin = admin(&server);
    admin.call("Bans/Create", json!({ "address": "203.0.113.0/28", "reason": "why" })).await.unwrap();
    let banned = async || {
        let mut stream = opened(server.at(1), &v2("203.0.113.7:5001", 0)).await;
        ended(&mut stream).await;
    };
    banned().await;
    let name = "fulmar_connections_turned_away_total{listener=\"one\",reason=\"banned\"}";
    server.metric(name, |seen| seen == 1).await;
    let stream = opened(server.at(1), &v2("203.0.113.77:5001", 0)).await;
    assert_eq!(known_as(&server, stream, "let-in").await, "203.0.113.77:5001");
    // The balancer's own address bans nobody behind it.
    admin.call("Bans/Create", json!({ "address": "127.0.0.1", "reason": "why" })).await.unwrap();
    let stream = opened(server.at(1), &v2("203.0.113.77:5002", 0)).await;
    assert_eq!(known_as(&server, stream, "still").await, "203.0.113.77:5002");

    let sign_in = async |client: &str| {
        let user = json!({ "name": "x", "password": "wrong" });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let body = json!({ "auth": { "identity": identity } }).to_string();
        let mut stream = opened(server.at(4), &v2(client, 0)).await;
        let request = format!(
            "POST /v3/auth/tokens HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let mut said = Vec::new();
    for client in ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.1:3", "198.51.100.2:1"] {
        said.push(sign_in(client).await);
    }
    assert_eq!(said, ["401", "401", "429", "401"]);
}
