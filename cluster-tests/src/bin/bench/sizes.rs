//! `bench sizes`: what each thing weighs in memory and on disk, on a real node, and the formula by which a node's memory
//! and volume are chosen. Connections of each kind get a fresh node: memory that others have left would hide theirs.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{DevOptions, Fulmar, free_port};
use cluster_tests::raw;
use cluster_tests::rest::{self, Rest};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, Version, encode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::link::{Link, Outgoing};
use crate::measure::failures;
use crate::options::{NodeOptions, SizesOptions};
use crate::own::Own;
use crate::restart::{fill, make_sessions, settled};
use crate::table::{Row, figure, plain};

/// Connections that are being opened at a time.
const OPENING: u32 = 32;

/// For one connection to be made.
const OPENED: Duration = Duration::from_secs(60);

/// The log grows by messages of this size, to call for a snapshot; one topic, so that the state does not.
const GROWTH_BYTES: usize = 64 * 1024;

/// For a snapshot to be written.
const SNAPSHOT: Duration = Duration::from_secs(120);

/// Bytes, of memory and, where the log keeps it, of a snapshot.
#[derive(Debug, Clone, Copy, Default)]
struct Each {
    memory: f64,
    disk: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Tls,
    WebSocket,
}

pub(crate) async fn run(options: &SizesOptions) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kit = dir.path().join("dev");
    // Its certificates are all that is wanted of it.
    let dev = DevOptions {
        nodes: 1,
        data_dir: Some(kit.clone()),
        binary: options.node.fulmar_bin.clone(),
        ..DevOptions::default()
    };
    drop(Fulmar::dev(dev).await?);

    let mut sizes: Vec<(&'static str, Each)> = Vec::new();
    let (mut base, mut subscription) = (0, 0.0);
    for (name, way) in
        [("connection, TCP", Way::Tcp), ("connection, TLS", Way::Tls), ("connection, WebSocket", Way::WebSocket)]
    {
        let (empty, connection, subscribed) = connections(options, way, &kit).await?;
        if way == Way::Tcp {
            (base, subscription) = (empty, subscribed);
        }
        sizes.push((name, Each { memory: connection, disk: None }));
    }
    sizes.push(("subscription of a connected client", Each { memory: subscription, disk: None }));
    sizes.extend(kept(options).await?);
    print(options, base, &sizes);
    Ok(())
}

/// Bytes of an empty node, of each connection, and of a subscription that each then makes.
async fn connections(options: &SizesOptions, way: Way, kit: &Path) -> Result<(u64, f64, f64)> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let more = match way {
        Way::Tcp => format!("[[listener]]\nname = \"other\"\naddress = \"{at}\"\n"),
        Way::WebSocket => format!("[[listener]]\nname = \"other\"\naddress = \"{at}\"\nprotocol = \"ws\"\n"),
        Way::Tls => {
            let file = |name: &str| kit.join("tls").join(name).display().to_string();
            let tls = format!("{{ cert = {:?}, key = {:?} }}", file("server.crt"), file("server.key"));
            format!("[[listener]]\nname = \"other\"\naddress = \"{at}\"\ntls = {tls}\n")
        }
    };
    let own = Own::start_with(&options.node, &more).await?;
    let empty = settled(&own).await?;
    let tls = connector(kit)?;
    let crowd: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let next = Rc::new(Cell::new(0));
    let tasks = (0..OPENING.min(options.count)).map(|_| {
        let (crowd, next, tls, count) = (crowd.clone(), next.clone(), tls.clone(), options.count);
        tokio::task::spawn_local(async move {
            loop {
                let index = next.replace(next.get() + 1);
                if index >= count {
                    return Ok(());
                }
                let opened = tokio::time::timeout(OPENED, open(at, way, &tls, index)).await;
                crowd.borrow_mut().push(opened.context("no connection in time")??);
            }
        })
    });
    let errors = failures(tasks.collect()).await;
    ensure!(errors.is_empty(), "{errors:?}");
    let connected = settled(&own).await?;
    let mut streams = std::mem::take(&mut *crowd.borrow_mut());
    for (index, stream) in streams.iter_mut().enumerate() {
        let subscribe = raw::subscribe(1, &format!("devices/d{index:08}/commands/+"), QoS::AtLeastOnce);
        exchange(stream, way, &subscribe, 5).await?;
    }
    let subscribed = settled(&own).await?;
    let sessions = own.metrics().await?.get("fulmar_sessions_connected");
    ensure!(sessions == u64::from(options.count), "{sessions} of {} clients are connected", options.count);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / f64::from(options.count);
    Ok((empty, each(connected, empty), each(subscribed, connected)))
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}
type Stream = Box<dyn Both>;

fn connector(kit: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(kit.join("tls/ca.crt"))?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connected client of MQTT 3.1.1 whose session ends with it.
async fn open(at: SocketAddr, way: Way, tls: &TlsConnector, index: u32) -> Result<Stream> {
    let socket = TcpStream::connect(at).await?;
    socket.set_nodelay(true)?;
    let mut stream: Stream = match way {
        Way::Tls => Box::new(tls.connect(ServerName::from(at.ip()), socket).await?),
        Way::Tcp | Way::WebSocket => Box::new(socket),
    };
    if way == Way::WebSocket {
        let upgrade = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 101 "), "no upgrade: {}", String::from_utf8_lossy(&answer));
    }
    let connect = Packet::Connect(Box::new(raw::connect(Version::V311, &format!("client-{index:08}"))));
    exchange(&mut stream, way, &connect, 4).await?;
    Ok(stream)
}

/// Sends a packet and reads the answer, of so many bytes; their last one is 0 if all is well.
async fn exchange(stream: &mut Stream, way: Way, packet: &Packet, answer_bytes: usize) -> Result<()> {
    let mut bytes = BytesMut::new();
    encode(packet, Version::V311, &mut bytes)?;
    let mut out = Vec::new();
    if way == Way::WebSocket {
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 126).context("a short packet")?;
        // A binary frame, masked by zeros.
        out.extend([0x82, 0x80 | length, 0, 0, 0, 0]);
    }
    out.extend_from_slice(&bytes);
    stream.write_all(&out).await?;
    let header = if way == Way::WebSocket { 2 } else { 0 };
    let mut answer = vec![0; header + answer_bytes];
    stream.read_exact(&mut answer).await?;
    // SUBACK ends with what was granted, CONNACK with its code.
    ensure!(answer.last().is_some_and(|code| *code < 2), "refused: {answer:?}");
    Ok(())
}

/// What the log keeps, on one node, one kind after the other.
async fn kept(options: &SizesOptions) -> Result<Vec<(&'static str, Each)>> {
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let node = NodeOptions { log_bytes: "1MiB".to_owned(), ..options.node.clone() };
    let own = Own::start_with(&node, &rest::config(api)).await?;
    let count = u64::from(options.kept);
    let payload = Bytes::from(vec![0xA5; options.payload as usize]);
    let mut kept = Vec::new();
    let mut at = State::of(&own).await?;
    make_sessions(&own, count, false).await?;
    at.next(&own, "persistent session", count, &mut kept).await?;
    make_sessions(&own, count, true).await?;
    at.next(&own, "subscription of a persistent session", count, &mut kept).await?;
    fill(&own, count, false, payload.clone(), Rc::new(move |number| format!("s/{}/m", number % count))).await?;
    at.next(&own, "queued message", count, &mut kept).await?;
    fill(&own, count, true, payload, Rc::new(|number| format!("devices/d{number:08}/state/last"))).await?;
    at.next(&own, "retained message", count, &mut kept).await?;
    let rest = Rest::sign_in(api).await?;
    rest.add_products().await?;
    let devices: Vec<Device> =
        (0..count).map(|number| Device::new(Vendor::Huawei, format!("device-{number:08}"))).collect();
    rest.add(&devices).await?;
    at.next(&own, "device", count, &mut kept).await?;
    Ok(kept)
}

/// How large the node is between two fillings.
struct State {
    memory: u64,
    snapshot: u64,
}

impl State {
    async fn of(own: &Own) -> Result<State> {
        let snapshot = snapshot(own).await?;
        Ok(State { memory: settled(own).await?, snapshot })
    }

    async fn next(
        &mut self,
        own: &Own,
        name: &'static str,
        count: u64,
        kept: &mut Vec<(&'static str, Each)>,
    ) -> Result<()> {
        let now = State::of(own).await?;
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / count as f64;
        kept.push((
            name,
            Each { memory: each(now.memory, self.memory), disk: Some(each(now.snapshot, self.snapshot)) },
        ));
        *self = now;
        Ok(())
    }
}

/// Has snapshots written until one holds all that there is; its bytes.
async fn snapshot(own: &Own) -> Result<u64> {
    let wanted = own.metrics().await?.get("fulmar_snapshots_total") + 2;
    let (mut link, _) = Link::open(own.node.mqtt(), own.version, 0, "growth").await?;
    let payload = Bytes::from(vec![0x5A; GROWTH_BYTES]);
    let mut packet_id = 0;
    wait_for("snapshots", SNAPSHOT, async || {
        if own.metrics().await.ok()?.get("fulmar_snapshots_total") >= wanted {
            return Some(());
        }
        packet_id = packet_id % 60_000 + 1;
        let growth = Outgoing { topic: "growth", qos: QoS::AtLeastOnce, retain: true, packet_id, payload: &payload };
        link.publish(growth).ok()?;
        link.flush().ok()?;
        while link.turn().await.is_ok() {
            match link.next() {
                Ok(Some(Packet::PubAck(_))) => break,
                Ok(None) => {}
                _ => return None,
            }
        }
        None
    })
    .await?;
    let bytes = own.metrics().await?.get("fulmar_snapshot_bytes");
    if bytes == 0 {
        bail!("the node does not say how large its snapshot is");
    }
    Ok(bytes)
}

fn print(options: &SizesOptions, base: u64, sizes: &[(&'static str, Each)]) {
    let mut rows = vec![Row::of("bytes each", &["memory".into(), "disk".into()])];
    for (name, each) in sizes {
        let disk = each.disk.map_or_else(|| "-".to_owned(), figure);
        rows.push(Row::of(name, &[figure(each.memory), disk]));
    }
    let line = json!({
        "scenario": "sizes",
        "parameters": { "count": options.count, "kept": options.kept, "payload_bytes": options.payload },
        "base_bytes": base,
        "memory_bytes_each": sizes.iter().map(|(name, each)| (*name, each.memory.round())).collect::<std::collections::BTreeMap<_, _>>(),
        "disk_bytes_each": sizes.iter().filter_map(|(name, each)| Some((*name, each.disk?.round()))).collect::<std::collections::BTreeMap<_, _>>(),
    });
    println!("{line}");
    println!("{}", plain(&rows));
    let term = |name: &str, disk: bool| {
        let each = sizes.iter().find(|(other, _)| *other == name).map(|(_, each)| *each).unwrap_or_default();
        figure(if disk { each.disk.unwrap_or_default() } else { each.memory })
    };
    println!(
        "memory = {} MiB + {} x connections (TLS: {}, WebSocket: {}) + {} x their subscriptions\n         \
         + {} x persistent sessions + {} x their subscriptions + {} x queued + {} x retained messages of {} bytes\n         \
         + {} x devices",
        figure(base as f64 / f64::from(1 << 20)),
        term("connection, TCP", false),
        term("connection, TLS", false),
        term("connection, WebSocket", false),
        term("subscription of a connected client", false),
        term("persistent session", false),
        term("subscription of a persistent session", false),
        term("queued message", false),
        term("retained message", false),
        options.payload,
        term("device", false),
    );
    println!(
        "snapshot = {} x persistent sessions + {} x their subscriptions + {} x queued + {} x retained messages + {} x devices",
        term("persistent session", true),
        term("subscription of a persistent session", true),
        term("queued message", true),
        term("retained message", true),
        term("device", true),
    );
}
