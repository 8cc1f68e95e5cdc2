//! What the tests stand on: nodes with a configuration, connected clients, metrics. Absent here: any judgement.

pub(crate) mod tls;
pub(crate) mod ws;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::harness::{DevOptions, Fulmar, Node, START_DEADLINE, ServeOptions, free_port};
use cluster_tests::metrics::Metrics;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::{proc, wait_for};
use fulmar_mqtt::packet::{self, ConnAck, Connect, Publish};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicName, Version};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

/// How long something that must come may take. Long, for machines that do much else; nothing is measured by it.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// How long is looked for what must not come, once a later fact shows that it would be there by now.
pub(crate) const QUIET: Duration = Duration::from_millis(50);

pub(crate) const MIB: u64 = 1024 * 1024;

/// Both families of versions: 3.1 differs from 3.1.1 in nothing that is asked here but its name.
pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::V4, Protocol::V5];

/// `fulmar serve` with a configuration of its own. Killed when dropped.
pub(crate) struct Server {
    pub(crate) node: Node,
    ports: Vec<u16>,
    pub(crate) probes: SocketAddr,
    // Dropped last: holds data and output.
    pub(crate) dir: TempDir,
}

impl Server {
    /// Starts a node. In `config`, `PORT0` to `PORT7` are free ports and `DIR` is its own directory; data directory and
    /// probes are added. `PORT0` speaks plain MQTT.
    pub(crate) async fn start(config: &str) -> Server {
        Server::start_as(config, None).await
    }

    /// As [`Server::start`], by another program.
    pub(crate) async fn start_as(config: &str, binary: Option<std::path::PathBuf>) -> Server {
        let server = Server::begin(config, None, binary);
        server.node.wait_until_ready(START_DEADLINE).await.unwrap();
        server
    }

    /// As [`Server::start_as`], perhaps on data that are there, and waits for nothing.
    pub(crate) fn begin(
        config: &str,
        data_dir: Option<&std::path::Path>,
        binary: Option<std::path::PathBuf>,
    ) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..9).map(|_| free_port().unwrap()).collect();
        let mut text = format!("[node]\ndata_dir = \"DATA\"\n[probes]\naddress = \"127.0.0.1:PORT8\"\n{config}");
        for (number, port) in ports.iter().enumerate() {
            text = text.replace(&format!("PORT{number}"), &port.to_string());
        }
        let path = dir.path().join("fulmar.toml");
        let data_dir = data_dir.map_or_else(|| dir.path().join("data"), std::path::Path::to_owned);
        let text = text.replacen("DATA", &data_dir.display().to_string(), 1);
        std::fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).unwrap();
        let at = |number: usize| SocketAddr::from(([127, 0, 0, 1], ports[number]));
        let options = ServeOptions {
            config: path,
            mqtt: at(0),
            probes: Some(at(8)),
            env: Vec::new(),
            output_dir: dir.path().to_owned(),
            binary,
        };
        let node = Node::start(options).unwrap();
        let probes = at(8);
        Server { node, ports, probes, dir }
    }

    /// A node with one plain listener that lets everybody in.
    pub(crate) async fn open() -> Server {
        Server::start(OPEN).await
    }

    pub(crate) fn at(&self, number: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[number]))
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.at(0)
    }

    pub(crate) fn rss(&self) -> u64 {
        proc::rss_bytes(self.node.pid()).unwrap()
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::of(self.probes, SOON).await.unwrap()
    }

    /// Waits until a metric is as wanted.
    pub(crate) async fn metric(&self, name: &str, wanted: impl Fn(u64) -> bool) -> u64 {
        let waited = wait_for(name, SOON, async || Some(self.metrics().await.get(name)).filter(|value| wanted(*value)));
        match waited.await {
            Ok(value) => value,
            Err(error) => panic!("{error:#}; it is {}", self.metrics().await.get(name)),
        }
    }
}

pub(crate) const OPEN: &str = "[auth]\nanonymous = \"allow\"\n[[listener]]\naddress = \"127.0.0.1:PORT0\"\n";

/// Listeners of the node that tests share: 0 plain, 1 WebSocket, 2 small packets and skips larger ones.
const SHARED: &str = r#"
[auth]
anonymous = "allow"
[[listener]]
address = "127.0.0.1:PORT0"
[[listener]]
address = "127.0.0.1:PORT1"
protocol = "ws"
[[listener]]
address = "127.0.0.1:PORT2"
packet_bytes_max = "4KiB"
oversize = "skip"
"#;

/// A node for tests that leave nothing behind which others would mind: client ids and topics are their own. It lives as
/// long as one of them runs.
pub(crate) async fn shared() -> Arc<Server> {
    static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
    let mut server = SERVER.lock().await;
    if let Some(running) = server.upgrade() {
        return running;
    }
    let started = Arc::new(Server::start(SHARED).await);
    *server = Arc::downgrade(&started);
    started
}

/// What `fulmar dev` makes for a machine: certificates, and a user with the hash of its password.
pub(crate) struct Kit {
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) password_hash: String,
}

impl Kit {
    /// One that all tests share.
    pub(crate) async fn shared() -> &'static Kit {
        static KIT: OnceCell<Kit> = OnceCell::const_new();
        KIT.get_or_init(Kit::make).await
    }

    /// A new one, with an authority of its own.
    pub(crate) async fn make() -> Kit {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("dev");
        let options = DevOptions { data_dir: Some(data_dir.clone()), ..DevOptions::default() };
        let dev = Fulmar::dev(options).await.unwrap();
        let read = |path: &str| std::fs::read_to_string(data_dir.join(path)).unwrap();
        let config = std::fs::read_to_string(&dev.endpoints().nodes[0].config).unwrap();
        let hash = config.lines().find_map(|line| line.strip_prefix("password_hash = \"")).unwrap();
        let generic = &dev.endpoints().credentials["generic"];
        Kit {
            ca: read("tls/ca.crt"),
            cert: read("tls/server.crt"),
            key: read("tls/server.key"),
            username: generic["username"].as_str().unwrap().into(),
            password: generic["password"].as_str().unwrap().into(),
            password_hash: hash.trim_end_matches('"').into(),
        }
    }

    /// Writes the certificates where a configuration can name them: `ca.crt`, `server.crt`, `server.key`.
    pub(crate) fn write(&self, dir: &std::path::Path) {
        for (name, text) in [("ca.crt", &self.ca), ("server.crt", &self.cert), ("server.key", &self.key)] {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }
}

/// Status and body of a GET; `None` if nobody answers.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    cluster_tests::harness::http_get(address, path, SOON).await
}

/// A connected client without manners: clean, no will.
pub(crate) async fn raw_client(address: SocketAddr, version: Version, client_id: &str) -> RawClient<TcpStream> {
    let (client, connack) = raw_connect(address, raw::connect(version, client_id)).await;
    assert_eq!(connack.reason, ReasonCode::Success, "{client_id}");
    client
}

/// Sends this CONNECT; returns what CONNACK says, whatever that is.
pub(crate) async fn raw_connect(address: SocketAddr, connect: Connect) -> (RawClient<TcpStream>, ConnAck) {
    let mut client = RawClient::tcp(address, connect.version).await.unwrap();
    let connack = client.handshake(connect, SOON).await.unwrap();
    (client, connack)
}

pub(crate) use raw::persistent;

/// A connected rumqttc client.
pub(crate) async fn client(address: SocketAddr, protocol: Protocol, client_id: &str) -> Client {
    Client::connect(address, Options::new(protocol, client_id)).await.unwrap()
}

/// Subscribes a raw client to one filter and returns the SUBACK's code.
pub(crate) async fn raw_subscribe<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawClient<S>,
    filter: &str,
    qos: QoS,
) -> ReasonCode {
    client.send(&raw::subscribe(1, filter, qos)).await.unwrap();
    let granted = client.expect("SUBACK", SOON, |packet| match packet {
        Packet::SubAck(suback) => suback.reasons.first().copied(),
        _ => None,
    });
    granted.await.unwrap()
}

/// The next packet, which must be a PUBLISH.
pub(crate) async fn raw_publish<S: AsyncRead + AsyncWrite + Unpin>(client: &mut RawClient<S>) -> Publish {
    let publish = client.expect("PUBLISH", SOON, |packet| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    });
    publish.await.unwrap()
}

/// The next packet, which must be a PUBACK, PUBREC, PUBREL or PUBCOMP: its name, packet id and reason.
pub(crate) async fn raw_ack<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawClient<S>,
) -> (&'static str, u16, ReasonCode) {
    let ack = client.expect("an acknowledgement", SOON, |packet| match packet {
        Packet::PubAck(ack) => Some(("PUBACK", ack.packet_id, ack.reason)),
        Packet::PubRec(ack) => Some(("PUBREC", ack.packet_id, ack.reason)),
        Packet::PubRel(ack) => Some(("PUBREL", ack.packet_id, ack.reason)),
        Packet::PubComp(ack) => Some(("PUBCOMP", ack.packet_id, ack.reason)),
        _ => None,
    });
    ack.await.unwrap()
}

/// The reason of the DISCONNECT that comes last before the close, if one comes.
pub(crate) async fn close_reason<S: AsyncRead + AsyncWrite + Unpin>(client: &mut RawClient<S>) -> Option<ReasonCode> {
    match client.expect_close(SOON).await.unwrap().pop() {
        Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
        _ => None,
    }
}

/// The bytes of a packet.
pub(crate) fn encoded(packet: &Packet, version: Version) -> Bytes {
    let mut bytes = BytesMut::new();
    fulmar_mqtt::encode(packet, version, &mut bytes).unwrap();
    bytes.freeze()
}

/// A client that behaves, connected before the others begin to misbehave.
pub(crate) struct Honest {
    client: Client,
    topic: String,
    count: u64,
}

impl Honest {
    pub(crate) async fn connect(address: SocketAddr, name: &str) -> Honest {
        let mut client = client(address, Protocol::V5, &format!("honest-{name}")).await;
        let topic = format!("honest/{name}");
        client.subscribe(&topic, 1).await.unwrap();
        Honest { client, topic, count: 0 }
    }

    /// Publishes to itself with QoS 1 and waits for the message.
    pub(crate) async fn round_trip(&mut self) {
        self.count += 1;
        let text = self.count.to_string();
        self.client.publish_acked(&self.topic, 1, text.clone()).await.unwrap();
        assert_eq!(self.client.receive(SOON).await.unwrap().text(), text);
    }

    /// The promise is a round trip within 1 s. One of ten must make it: on a machine with two cores that also runs the
    /// attack and other tests, the scheduler alone may cost one of them more; a node that is truly held up fails all.
    pub(crate) async fn is_served(&mut self) {
        for _ in 0..10 {
            let begun = Instant::now();
            self.round_trip().await;
            if begun.elapsed() < Duration::from_secs(1) {
                return;
            }
        }
        panic!("no round trip of ten was made within 1 s");
    }
}

/// A seed for random input: `FULMAR_TEST_SEED`, or a new one. Printed, so that a failure can be repeated.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var("FULMAR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("{test}: FULMAR_TEST_SEED={seed}");
    seed
}

/// A CONNECT with a will of QoS 1 that says who leaves it.
pub(crate) fn with_will(mut connect: Connect, topic: &str, delay_s: u32) -> Connect {
    connect.will = Some(packet::Will {
        topic: TopicName::new(topic.to_owned()).unwrap(),
        payload: Bytes::copy_from_slice(connect.client_id.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s,
        properties: Default::default(),
    });
    connect
}
