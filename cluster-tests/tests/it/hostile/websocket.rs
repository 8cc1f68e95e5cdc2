//! MQTT over WebSocket, well-formed and not.

use cluster_tests::client::Protocol;
use cluster_tests::raw;
use fulmar_mqtt::packet::Connect;
use fulmar_mqtt::{Packet, QoS, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::ws::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, frame, request};
use crate::support::{Honest, MIB, SOON, Server, client, encoded, raw_client, raw_subscribe, shared, with_will};

async fn open(server: &Server) -> WebSocket<TcpStream> {
    WebSocket::open(TcpStream::connect(server.at(1)).await.unwrap()).await
}

fn connect(client_id: &str) -> Vec<u8> {
    encoded(&Packet::Connect(Box::new(raw::connect(Version::V311, client_id))), Version::V311).to_vec()
}

/// A client of 3.1.1 that has its CONNACK.
async fn let_in(server: &Server, connect: Connect) -> WebSocket<TcpStream> {
    let mut socket = open(server).await;
    socket.send(true, BINARY, &encoded(&Packet::Connect(Box::new(connect)), Version::V311)).await;
    assert_eq!(mqtt(&mut socket, 4).await, CONNACK);
    socket
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

/// The next `count` bytes of MQTT, in whatever frames.
async fn mqtt(socket: &mut WebSocket<TcpStream>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let (opcode, payload) = socket.next().await.expect("the connection lives");
        assert!(matches!(opcode, BINARY | CONTINUATION), "opcode {opcode}");
        bytes.extend(payload);
    }
    bytes
}

#[tokio::test]
async fn the_upgrade_is_answered_to_the_letter_on_any_path() {
    let server = shared().await;
    for path in ["/", "/mqtt", "/any/path?with=query", "/mqtt/"] {
        for protocol in ["mqtt", "mqttv3.1", "other, mqtt"] {
            let stream = TcpStream::connect(server.at(1)).await.unwrap();
            let socket = WebSocket::ask(stream, path, protocol).await;
            let answer = String::from_utf8(socket.answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 101 "), "{path} {protocol}: {answer}");
            // A vendor's C client looks for these very bytes. The value is the RFC's own example.
            assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
            let chosen = if protocol == "mqttv3.1" { "mqttv3.1" } else { "mqtt" };
            let lower = answer.to_ascii_lowercase();
            assert!(lower.contains(&format!("\r\nsec-websocket-protocol: {chosen}\r\n")), "{answer}");
            assert!(lower.contains("\r\nupgrade: websocket\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn what_was_sent_before_the_socket_ended_is_taken() {
    let server = shared().await;
    let mut witness = client(server.mqtt(), Protocol::V5, "witness-of-ends").await;
    witness.subscribe("ends/#", 1).await.unwrap();
    for round in 0..20 {
        let connect = with_will(raw::connect(Version::V311, "ends"), "ends/will", 0);
        let mut socket = let_in(&server, connect).await;
        let said = raw::publish(0, "ends/said", QoS::AtMostOnce, round.to_string());
        let said = frame(true, BINARY, true, &encoded(&Packet::Publish(said), Version::V311));
        let leaves = frame(true, BINARY, true, &[0xE0, 0]);
        let closes = if round % 2 == 0 { frame(true, CLOSE, true, &1000u16.to_be_bytes()) } else { Vec::new() };
        socket.stream().write_all(&[said, leaves, closes].concat()).await.unwrap();
        drop(socket);
        let message = witness.receive(SOON).await.unwrap();
        assert_eq!((message.topic.as_str(), message.text()), ("ends/said", round.to_string()), "round {round}");
    }
    let mut last = raw_client(server.mqtt(), Version::V311, "ends").await;
    last.send(&Packet::Publish(raw::publish(0, "ends/last", QoS::AtMostOnce, ""))).await.unwrap();
    assert_eq!(witness.receive(SOON).await.unwrap().topic, "ends/last", "no will of those who took their leave");
}

#[tokio::test]
async fn a_disconnect_counts_before_the_same_clients_next_connection() {
    let server = shared().await;
    let mut witness = client(server.mqtt(), Protocol::V5, "witness-of-hasty-frames").await;
    witness.subscribe("frames/#", 0).await.unwrap();
    for round in 0..60 {
        let connect = with_will(raw::connect(Version::V311, "hasty-frames"), "frames/will", 0);
        let mut older = let_in(&server, connect).await;
        // Before the DISCONNECT comes nothing, or more than actix holds at once, in many frames or in one.
        let (length, count) = [(0, 0), (10_000, 30), (200_000, 1)][round % 3];
        let long = raw::publish(0, "elsewhere", QoS::AtMostOnce, vec![b'x'; length]);
        let long = frame(true, BINARY, true, &encoded(&Packet::Publish(long), Version::V311));
        let said = [long.repeat(count), frame(true, BINARY, true, &[0xE0, 0])].concat();
        older.stream().write_all(&said).await.unwrap();
        let mut newer = raw_client(server.mqtt(), Version::V311, "hasty-frames").await;
        newer.send(&Packet::Publish(raw::publish(0, "frames/newer", QoS::AtMostOnce, ""))).await.unwrap();
        assert_eq!(witness.receive(SOON).await.unwrap().topic, "frames/newer", "round {round}: no will before it");
    }
}

#[tokio::test]
async fn what_is_no_upgrade_to_mqtt_is_refused() {
    let server = shared().await;
    let good = request("/mqtt", "mqtt");
    for (what, request, status) in [
        ("a plain GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        ("another sub-protocol", request("/mqtt", "chat"), "400"),
        ("no key", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), "400"),
        ("an old version", good.replace("Version: 13", "Version: 8"), "400 or 426"),
        ("no HTTP", "MQTT\r\n\r\n".to_owned(), "400"),
        ("a header without end", format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(500_000)), "431 or 400"),
    ] {
        let mut stream = TcpStream::connect(server.at(1)).await.unwrap();
        // It may be closed before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        match tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer or the end") {
            Ok(_) => {
                let answer = String::from_utf8_lossy(&answer);
                assert!(status.contains(answer.split(' ').nth(1).unwrap()), "{what}: {answer}");
            }
            // Closed without a word is as good where the request made no sense.
            Err(_) => assert!(what == "no HTTP" || what == "a header without end", "{what}"),
        }
    }
}

#[tokio::test]
async fn packets_may_be_cut_and_joined_in_any_way() {
    let server = shared().await;
    // Byte by byte, each in a frame of its own.
    let mut socket = open(&server).await;
    for byte in connect("ws-bytes") {
        socket.send(true, BINARY, &[byte]).await;
    }
    assert_eq!(mqtt(&mut socket, 4).await, CONNACK);
    // As fragments of one message, with control frames and empty ones between.
    socket.send(false, BINARY, &PINGREQ[..1]).await;
    socket.send(true, PING, b"are you there").await;
    socket.send(false, CONTINUATION, &[]).await;
    socket.send(true, CONTINUATION, &PINGREQ[1..]).await;
    let (mut pong, mut pinged) = (None, Vec::new());
    while pong.is_none() || pinged.len() < 2 {
        match socket.next().await.unwrap() {
            (PONG, payload) => pong = Some(payload),
            (_, payload) => pinged.extend(payload),
        }
    }
    assert_eq!(pong.unwrap(), b"are you there");
    assert_eq!(pinged, PINGRESP);
    // Several packets in one frame, the last one's end in the next.
    socket.send(true, BINARY, &[0xC0, 0, 0xC0, 0, 0xC0]).await;
    socket.send(true, BINARY, &[0]).await;
    assert_eq!(mqtt(&mut socket, 6).await, PINGRESP.repeat(3));
    // CONNECT and more at once.
    let mut socket = open(&server).await;
    let mut bytes = connect("ws-joined");
    bytes.extend(PINGREQ);
    socket.send(true, BINARY, &bytes).await;
    assert_eq!(mqtt(&mut socket, 6).await, [&CONNACK[..], &PINGRESP].concat());
    // The upgrade, and frames in the same write.
    let mut stream = TcpStream::connect(server.at(1)).await.unwrap();
    let mut bytes = request("/mqtt", "mqtt").into_bytes();
    bytes.extend(frame(true, BINARY, true, &connect("ws-early")));
    stream.write_all(&bytes).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(&CONNACK) {
        let byte = tokio::time::timeout(SOON, stream.read_u8()).await.expect("CONNACK").unwrap();
        seen.push(byte);
    }
}

#[tokio::test]
async fn a_packet_as_large_as_allowed_passes_in_one_frame_and_in_many() {
    let server = shared().await;
    let mut client = raw::RawClient::new(open(&server).await.into_stream(), Version::V5);
    client.handshake(raw::connect(Version::V5, "ws-large"), SOON).await.unwrap();
    raw_subscribe(&mut client, "ws-large/t", QoS::AtMostOnce).await;
    let payload = vec![0x5A; 256 * 1024 - 100];
    for _ in 0..3 {
        client.send(&Packet::Publish(raw::publish(0, "ws-large/t", QoS::AtMostOnce, payload.clone()))).await.unwrap();
        assert_eq!(crate::support::raw_publish(&mut client).await.payload, payload);
    }
    let mut socket = let_in(&server, raw::connect(Version::V311, "ws-whole")).await;
    let publish = raw::publish(0, "ws-large/t", QoS::AtMostOnce, payload.clone());
    socket.send(true, BINARY, &encoded(&Packet::Publish(publish), Version::V311)).await;
    assert_eq!(crate::support::raw_publish(&mut client).await.payload, payload);
}

/// Each ends the connection; a close frame with a code may come before.
#[tokio::test]
async fn frames_that_are_not_allowed_end_the_connection() {
    let server = shared().await;
    let mut honest = Honest::connect(server.mqtt(), "ws-frames").await;
    let ping = |last, opcode| frame(last, opcode, true, &PINGREQ);
    let mut many = Vec::new();
    for _ in 0..200 {
        many.extend(frame(false, CONTINUATION, true, &vec![0x30; 16 * 1024]));
    }
    many.splice(0..1, [BINARY]);
    for (what, bytes) in [
        ("a text frame", frame(true, TEXT, true, &PINGREQ)),
        ("a text frame in parts", [frame(false, TEXT, true, &PINGREQ), ping(true, CONTINUATION)].concat()),
        ("a frame without mask", frame(true, BINARY, false, &PINGREQ)),
        ("a reserved opcode", ping(true, 3)),
        ("a reserved bit", [vec![0xC2], ping(true, BINARY)[1..].to_vec()].concat()),
        ("a continuation of nothing", ping(true, CONTINUATION)),
        ("a message within a message", [ping(false, BINARY), ping(false, BINARY)].concat()),
        ("a ping in parts", ping(false, PING)),
        ("a ping beyond 125 bytes", frame(true, PING, true, &[0; 126])),
        ("a message without end", many),
        ("a close", frame(true, CLOSE, true, &1000u16.to_be_bytes())),
        ("no MQTT", frame(true, BINARY, true, b"GET / HTTP/1.1\r\n\r\n")),
        ("no frame at all", vec![0xFF; 3000]),
    ] {
        let mut socket = let_in(&server, raw::connect(Version::V311, "ws-wrong")).await;
        // The node may close before all of it is written.
        let _ = socket.stream().write_all(&bytes).await;
        println!("{what}");
        let frames = socket.ended().await;
        let answers = frames.iter().filter(|(opcode, _)| matches!(*opcode, BINARY | CONTINUATION)).count();
        // In the ping-in-a-message cases a packet may have been taken before the wrong frame came.
        let allowed = usize::from(what == "a message within a message");
        assert!(answers <= allowed, "{what}: {frames:?}");
    }
    honest.is_served().await;
}

/// A length is believed only as far as packets may go: neither before CONNECT nor after it is such a frame collected.
#[tokio::test]
async fn a_frame_beyond_all_bounds_is_not_collected() {
    let config = "[auth]\nanonymous = \"allow\"\n[[listener]]\naddress = \"127.0.0.1:PORT0\"\n\
                  [[listener]]\naddress = \"127.0.0.1:PORT1\"\nprotocol = \"ws\"\nconnect_timeout = \"5m\"\n";
    let server = Server::start(config).await;
    let mut honest = Honest::connect(server.mqtt(), "ws-huge").await;
    for connected in [false, true] {
        let before = server.rss();
        let mut socket = match connected {
            true => let_in(&server, raw::connect(Version::V311, "ws-huge")).await,
            false => open(&server).await,
        };
        let mut header = frame(true, BINARY, true, &[]);
        header.splice(1..2, [0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0]); // 1 GiB follows, it says
        // It may be closed at any moment, and had better be.
        let part = vec![0x55; MIB as usize];
        let mut sent = 0;
        if socket.stream().write_all(&header).await.is_ok() {
            while sent < 128 && socket.stream().write_all(&part).await.is_ok() {
                sent += 1;
            }
        }
        honest.round_trip().await;
        let grown = server.rss().saturating_sub(before);
        assert!(grown < 32 * MIB, "RSS grew by {grown} bytes when {sent} MiB of one frame had been sent");
        assert!(sent < 128, "the connection is still open");
    }
}

#[tokio::test]
async fn a_refused_connect_is_answered_before_the_close() {
    let server = shared().await;
    let mut socket = open(&server).await;
    let mut connect = raw::connect(Version::V5, "ws-refused");
    connect.username = Some("nobody".into());
    connect.password = Some("nothing".into());
    let bytes = encoded(&Packet::Connect(Box::new(connect)), Version::V5);
    socket.send(true, BINARY, &bytes).await;
    let frames = socket.ended().await;
    let (opcode, connack) = &frames[0];
    assert_eq!((*opcode, connack[0], connack[3]), (BINARY, 0x20, 0x86), "{frames:?}");
}

#[tokio::test]
async fn clients_of_both_doors_hear_each_other() {
    let server = shared().await;
    let mut over_ws = raw::RawClient::new(open(&server).await.into_stream(), Version::V5);
    over_ws.handshake(raw::connect(Version::V5, "ws-both"), SOON).await.unwrap();
    raw_subscribe(&mut over_ws, "ws-both/t", QoS::AtMostOnce).await;
    let mut over_tcp = raw_client(server.mqtt(), Version::V311, "tcp-both").await;
    raw_subscribe(&mut over_tcp, "ws-both/t", QoS::AtMostOnce).await;
    for text in ["from ws", "from tcp"] {
        let publish = Packet::Publish(raw::publish(0, "ws-both/t", QoS::AtMostOnce, text));
        match text {
            "from ws" => over_ws.send(&publish).await.unwrap(),
            _ => over_tcp.send(&publish).await.unwrap(),
        }
        assert_eq!(crate::support::raw_publish(&mut over_ws).await.payload, text);
        assert_eq!(crate::support::raw_publish(&mut over_tcp).await.payload, text);
    }
}
