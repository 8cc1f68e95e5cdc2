//! Clients that take their time: to say who they are, and to read.

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::ws::{self, TRICKLE, WebSocket};
use crate::support::{Honest, Kit, MIB, OPEN, SOON, Server, encoded, raw_client, raw_connect, raw_subscribe, tls};

/// Waits until the node has closed the connection, sending `bytes` one by one meanwhile, again and again.
async fn trickle(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, bytes: Vec<u8>) {
    let closed = async {
        let mut read = [0; 1024];
        let mut bytes = bytes.iter().cycle();
        loop {
            match timeout(TRICKLE, stream.read(&mut read)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                // Once closed on the other side, writing fails sooner or later; the read says so first.
                Err(_) => {
                    if let Some(byte) = bytes.next() {
                        let _ = stream.write_all(&[*byte]).await;
                    }
                }
            }
        }
    };
    timeout(SOON, closed).await.expect("the connection is closed");
}

#[tokio::test]
async fn who_does_not_say_connect_in_time_is_closed() {
    let kit = Kit::shared().await;
    let dir = tempfile::tempdir().unwrap();
    kit.write(dir.path());
    let config = format!(
        "{OPEN}connect_timeout = \"1s\"\nname = \"tcp\"\n[[listener]]\naddress = \"127.0.0.1:PORT1\"\n\
         connect_timeout = \"1s\"\nname = \"tls\"\ntls = {{ cert = \"{0}/server.crt\", key = \"{0}/server.key\" }}\n\
         [[listener]]\naddress = \"127.0.0.1:PORT2\"\nprotocol = \"ws\"\nconnect_timeout = \"1s\"\nname = \"ws\"\n\
         [[listener]]\naddress = \"127.0.0.1:PORT3\"\n",
        dir.path().display()
    );
    let server = Server::start(&config).await;
    let mut honest = Honest::connect(server.at(3), "loris").await;
    let mut connect = raw::connect(Version::V311, "a client id that takes a while, byte by byte, as far as it comes");
    connect.keep_alive_s = 0;
    let connect = encoded(&Packet::Connect(Box::new(connect)), Version::V311).to_vec();
    let (tcp, tls_address, ws_address) = (server.at(0), server.at(1), server.at(2));
    let open = async |address| TcpStream::connect(address).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..25 {
        tasks.spawn(trickle(open(tcp).await, Vec::new()));
        tasks.spawn(trickle(open(tcp).await, connect.clone()));
        // Silent before, and within, and after the handshake of TLS.
        tasks.spawn(trickle(open(tls_address).await, Vec::new()));
        tasks.spawn(trickle(open(tls_address).await, vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
        tasks.spawn(trickle(tls::connect(tls_address, kit, None, false).await.unwrap(), connect.clone()));
        // After the upgrade.
        let socket = WebSocket::open(open(ws_address).await).await;
        tasks.spawn(trickle(socket.into_stream(), connect.clone()));
    }
    honest.is_served().await;
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let metrics = server.metrics().await;
    for (listener, count) in [("tcp", 50), ("tls", 75), ("ws", 25)] {
        let name =
            format!("fulmar_connections_turned_away_total{{listener=\"{listener}\",reason=\"connect_timeout\"}}");
        assert_eq!(metrics.get(&name), count, "{listener}");
    }
    server.metric("fulmar_connections", |n| n == 1).await;
    honest.is_served().await;
}

/// HTTP that never becomes a WebSocket is no way around `connect_timeout`.
#[tokio::test]
async fn who_does_not_upgrade_in_time_is_closed() {
    let config = "[auth]\nanonymous = \"allow\"\n[[listener]]\naddress = \"127.0.0.1:PORT0\"\nprotocol = \"ws\"\n\
                  connect_timeout = \"1s\"\nname = \"ws\"\n[[listener]]\naddress = \"127.0.0.1:PORT1\"\n";
    let server = Server::start(config).await;
    let address = server.at(0);
    let open = async || TcpStream::connect(address).await.unwrap();
    let mut tasks = JoinSet::new();
    // Nothing; a request line by bytes; a header that never ends; requests that ask for something else, which are
    // answered and closed at once.
    tasks.spawn(trickle(open().await, Vec::new()));
    tasks.spawn(trickle(open().await, ws::request("/a/very/long/path/that/takes/a/while", "mqtt").into_bytes()));
    let mut endless = open().await;
    endless.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    tasks.spawn(trickle(endless, b"X-A: b\r\n".to_vec()));
    tasks.spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let again = async {
            let mut read = [0; 1024];
            loop {
                if stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err() {
                    return;
                }
                if let Ok(Ok(0) | Err(_)) = timeout(TRICKLE, stream.read(&mut read)).await {
                    return;
                }
                // A moment between two requests, as a patient client would leave.
                tokio::time::sleep(TRICKLE).await;
            }
        };
        timeout(SOON, again).await.expect("the connection with requests for ever is closed");
    });
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    server.metric("fulmar_connections", |n| n == 0).await;
    server.metric("fulmar_connections_turned_away_total{listener=\"ws\",reason=\"connect_timeout\"}", |n| n == 3).await;
}

/// Publishes to `topic` until `done`, then waits until all of it has been accepted.
async fn flood(publisher: &mut RawClient<TcpStream>, topic: &str, count: usize, bytes: usize) {
    for _ in 0..count {
        let publish = raw::publish(0, topic, QoS::AtMostOnce, vec![7; bytes]);
        publisher.send(&Packet::Publish(publish)).await.unwrap();
    }
    publisher.send(&Packet::PingReq).await.unwrap();
    publisher.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
}

#[tokio::test]
async fn who_never_reads_costs_a_bounded_queue_of_qos_0() {
    const MESSAGES: usize = 3000;
    const BYTES: usize = 50_000;
    let server = Server::open().await;
    let mut honest = Honest::connect(server.mqtt(), "deaf").await;
    let mut deaf = raw_client(server.mqtt(), Version::V5, "deaf").await;
    raw_subscribe(&mut deaf, "deaf/#", QoS::AtMostOnce).await;
    let mut hearing = raw_client(server.mqtt(), Version::V5, "hearing").await;
    raw_subscribe(&mut hearing, "deaf/#", QoS::AtMostOnce).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "flood").await;
    let before = server.rss();
    let mut came = 0;
    for _ in 0..MESSAGES / 50 {
        flood(&mut publisher, "deaf/t", 50, BYTES).await;
        honest.round_trip().await;
        // Who reads gets everything, for its queue holds what is sent at one time.
        for _ in 0..50 {
            crate::support::raw_publish(&mut hearing).await;
            came += 1;
        }
    }
    honest.is_served().await;
    assert_eq!(came, MESSAGES);
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 32 * MIB, "RSS grew by {grown} bytes, and {} were sent", MESSAGES * BYTES);
    // Counted while it hangs, not only when it is gone.
    let dropped = server.metric("fulmar_live_dropped_total{qos=\"0\",reason=\"queue_full\"}", |n| n > 0).await;
    let metrics = server.metrics().await;
    let delivered = metrics.get("fulmar_live_delivered_total{qos=\"0\"}");
    // Its socket and its queue hold some; each of the others is booked.
    assert!(delivered + dropped <= 2 * MESSAGES as u64, "{delivered} + {dropped}");
    assert!(delivered + dropped + 1000 >= 2 * MESSAGES as u64, "{delivered} + {dropped}");
    drop(deaf);
    server.metric("fulmar_sessions_connected", |n| n == 3).await;
}

#[tokio::test]
async fn who_never_acknowledges_slows_the_publisher_and_is_cut_and_nobody_else_loses_anything() {
    const MESSAGES: usize = 3000;
    let server = Server::open().await;
    let mut bystander = Honest::connect(server.mqtt(), "beside").await;
    for (round, protocol) in [(1, Protocol::V5), (2, Protocol::V4)] {
        let mut connect = raw::connect(Version::V5, "deaf");
        connect.properties.receive_maximum = Some(10);
        let (mut deaf, _) = raw_connect(server.mqtt(), connect).await;
        raw_subscribe(&mut deaf, "slow/t", QoS::AtLeastOnce).await;
        let mut subscriber = Client::connect(server.mqtt(), Options::new(protocol, "honest")).await.unwrap();
        subscriber.subscribe("slow/t", 1).await.unwrap();
        let options = Options { inflight_max: 50, ..Options::new(protocol, "publisher") };
        let mut publisher = Client::connect(server.mqtt(), options).await.unwrap();
        let mut tickets = Vec::new();
        let mut sent = 0;
        // The first thousand fill the deaf one's queue: what follows waits for it. Handed over in parts, because a
        // stalled rumqttc takes only so many.
        while sent < 1040 {
            tickets.push(publisher.publish("slow/t", 1, false, sent.to_string()).await.unwrap());
            sent += 1;
        }
        // While the publisher waits, others are served.
        let stalled = wait_for("the cut", SOON, async || {
            bystander.round_trip().await;
            let cut = server.metrics().await.sum(&["live_dropped", "1+", "slow_receiver"]);
            (cut >= 1000 * round).then_some(())
        });
        stalled.await.unwrap();
        while sent < MESSAGES {
            tickets.push(publisher.publish("slow/t", 1, false, sent.to_string()).await.unwrap());
            sent += 1;
        }
        for ticket in tickets {
            assert_eq!(publisher.acked(ticket, SOON).await.unwrap(), "Success");
        }
        for (number, message) in subscriber.collect(MESSAGES, SOON).await.unwrap().into_iter().enumerate() {
            assert_eq!(message.text(), number.to_string(), "{protocol:?}");
        }
        let end = deaf.expect_close(SOON).await.unwrap().pop();
        let reason = fulmar_mqtt::ReasonCode::QuotaExceeded;
        assert!(matches!(&end, Some(Packet::Disconnect(told)) if told.reason == reason), "{end:?}");
        bystander.is_served().await;
    }
}

/// As above, and its socket is full too: it cannot even be told.
#[tokio::test]
async fn who_never_reads_qos_1_is_cut_too() {
    let server = Server::open().await;
    let mut deaf = raw_client(server.mqtt(), Version::V5, "deaf").await;
    raw_subscribe(&mut deaf, "full/t", QoS::AtLeastOnce).await;
    let mut publisher = Client::connect(server.mqtt(), Options::new(Protocol::V5, "publisher")).await.unwrap();
    let payload = bytes::Bytes::from(vec![7; 100_000]);
    let before = server.rss();
    let mut tickets = Vec::new();
    for _ in 0..300 {
        tickets.push(publisher.publish("full/t", 1, false, payload.clone()).await.unwrap());
    }
    server.metric("fulmar_live_dropped_total{qos=\"1+\",reason=\"slow_receiver\"}", |n| n > 0).await;
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 48 * MIB, "RSS grew by {grown} bytes");
    for ticket in tickets {
        let reason = publisher.acked(ticket, SOON).await.unwrap();
        assert!(matches!(reason.as_str(), "Success" | "NoMatchingSubscribers"), "{reason}");
    }
    server.metric("fulmar_connections", |n| n == 1).await;
    server.metric("fulmar_live_open", |n| n == 0).await;
    drop(deaf);
}

/// A subscriber that reads slowly, but reads, is not cut and loses nothing.
#[tokio::test]
async fn who_acknowledges_slowly_is_waited_for() {
    const MESSAGES: u16 = 1200;
    let server = Server::open().await;
    let mut connect = raw::connect(Version::V5, "slow");
    connect.properties.receive_maximum = Some(1);
    let (mut slow, _) = raw_connect(server.mqtt(), connect).await;
    raw_subscribe(&mut slow, "patience/t", QoS::AtLeastOnce).await;
    let mut publisher = Client::connect(server.mqtt(), Options::new(Protocol::V5, "publisher")).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..MESSAGES {
        // Not more than rumqttc holds for itself while it waits.
        tickets.push(publisher.publish("patience/t", 1, false, number.to_string()).await.unwrap());
        if number >= 1010 {
            let message = crate::support::raw_publish(&mut slow).await;
            assert_eq!(message.payload, (number - 1010).to_string());
            slow.send(&Packet::PubAck(fulmar_mqtt::packet::Ack::success(message.packet_id))).await.unwrap();
        }
    }
    for number in MESSAGES - 1010..MESSAGES {
        let message = crate::support::raw_publish(&mut slow).await;
        assert_eq!(message.payload, number.to_string());
        slow.send(&Packet::PubAck(fulmar_mqtt::packet::Ack::success(message.packet_id))).await.unwrap();
    }
    for ticket in tickets {
        assert_eq!(publisher.acked(ticket, SOON).await.unwrap(), "Success");
    }
    assert_eq!(server.metrics().await.sum(&["live_dropped"]), 0);
}
