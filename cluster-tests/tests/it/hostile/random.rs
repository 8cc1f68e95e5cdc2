//! Random input, over many connections: whatever comes, each connection ends and the node lives.

use cluster_tests::raw;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use rand::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::ws::{BINARY, frame, request};
use crate::support::{Honest, MIB, OPEN, SOON, Server, encoded, seed};

const CONNECTIONS: usize = 600;
const AT_ONCE: usize = 16;

/// Bytes of up to `max`, with many that mean something in MQTT.
fn noise(random: &mut StdRng, max: usize) -> Vec<u8> {
    let count = random.random_range(1..max);
    let mut bytes: Vec<u8> = (0..count).map(|_| random.random()).collect();
    if random.random_bool(0.5) {
        for byte in &mut bytes {
            *byte = if random.random_bool(0.6) { *byte & 0x07 } else { *byte };
        }
    }
    bytes
}

fn packets(random: &mut StdRng, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..20) {
        let packet_id = random.random_range(1..10);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].choose(random).copied().unwrap();
        let topic = ["a", "a/b", "b/c/d", "$SYS/x"].choose(random).unwrap();
        let packet = match random.random_range(0..8) {
            0 => raw::subscribe(packet_id, ["a", "#", "+/b", "$share/g/#", "$SYS/#"].choose(random).unwrap(), qos),
            1 => Packet::PingReq,
            2 => Packet::PubRel(Ack::success(packet_id)),
            3 => Packet::PubAck(Ack::success(packet_id)),
            4 => Packet::PubRec(Ack::success(packet_id)),
            5 if random.random_ratio(1, 5) => raw::disconnect(ReasonCode::Success),
            _ => {
                let id = if qos == QoS::AtMostOnce { 0 } else { packet_id };
                let mut publish = raw::publish(id, topic, qos, noise(random, 300));
                publish.retain = random.random();
                Packet::Publish(publish)
            }
        };
        bytes.extend(encoded(&packet, version));
    }
    bytes
}

/// What one connection sends.
fn input(random: &mut StdRng) -> Vec<u8> {
    let version = [Version::V31, Version::V311, Version::V5].choose(random).copied().unwrap();
    let mut connect = raw::connect(version, &format!("random-{}", random.random_range(0..50)));
    connect.clean_start = random.random();
    if version == Version::V5 && random.random() {
        connect.properties.session_expiry_s = Some(random.random_range(0..3));
    }
    let mut bytes = encoded(&Packet::Connect(Box::new(connect)), version).to_vec();
    match random.random_range(0..5) {
        0 => bytes = noise(random, 3000),
        1 => bytes.extend(noise(random, 3000)),
        2 => bytes.extend(packets(random, version)),
        shape => {
            bytes.extend(packets(random, version));
            // Flipped bits, anywhere or after CONNECT, and perhaps an end cut off.
            let from = if shape == 3 { 0 } else { bytes.len() / 2 };
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(from..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            if random.random() {
                bytes.truncate(random.random_range(1..=bytes.len()));
            }
        }
    }
    bytes
}

#[tokio::test]
async fn whatever_comes_each_connection_ends_and_the_node_lives() {
    let config = format!(
        "{OPEN}connect_timeout = \"1s\"\n[[listener]]\naddress = \"127.0.0.1:PORT1\"\nprotocol = \"auto\"\n\
         connect_timeout = \"1s\"\noversize = \"skip\"\npacket_bytes_max = \"1KiB\"\n"
    );
    let mut server = Server::start(&config).await;
    let mut honest = Honest::connect(server.mqtt(), "random").await;
    let mut random = StdRng::seed_from_u64(seed("whatever_comes_each_connection_ends_and_the_node_lives"));
    let before = server.rss();
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut bytes = input(&mut random);
        if number % 5 == 4 {
            let framed = bytes.chunks(random.random_range(1..500)).flat_map(|part| frame(true, BINARY, true, part));
            let framed: Vec<u8> = framed.collect();
            bytes = request("/", "mqtt").into_bytes();
            bytes.extend(framed);
            if random.random() {
                let at = random.random_range(bytes.len() / 2..bytes.len());
                bytes[at] ^= 0x40;
            }
        }
        let address = server.at(number % 2);
        let cut = random.random_range(1..=bytes.len());
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // In two writes; it may be closed before the second.
            let (first, second) = bytes.split_at(cut);
            let _ = stream.write_all(first).await;
            let _ = stream.write_all(second).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "connection {number} is still open after {bytes:?}");
        });
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(server.node.alive());
    honest.is_served().await;
    server.metric("fulmar_connections", |n| n == 1).await;
    server.metric("fulmar_sessions_connected", |n| n == 1).await;
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 64 * MIB, "RSS grew by {grown} bytes");
    let log = server.node.process().unwrap().stderr();
    assert!(!log.contains("panicked"), "{log}");
    // With the last client gone, nothing is left in the books.
    drop(honest);
    server.metric("fulmar_sessions_connected", |n| n == 0).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.get("fulmar_obligations_unaccounted"), 0);
    assert_eq!(metrics.get("fulmar_live_open"), 0);
}
