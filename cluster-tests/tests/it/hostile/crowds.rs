//! Many connections, or too many.

use cluster_tests::raw::{self, RawClient};
use cluster_tests::{sys, wait_for};
use fulmar_mqtt::Version;
use tokio::net::TcpStream;

use crate::support::{Honest, MIB, OPEN, SOON, Server, raw_client};

#[tokio::test]
async fn five_thousand_connections_without_connect_bother_nobody() {
    // Both processes need a descriptor for each; the node raises its own limit.
    let descriptors = sys::raise_fd_limit().unwrap();
    let count = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(500).min(5000);
    if count < 5000 {
        println!("only {count} connections: the limit is {descriptors} descriptors");
    }
    let config = format!("{OPEN}connect_timeout = \"5m\"\n");
    let server = Server::start(&config).await;
    let mut honest = Honest::connect(server.mqtt(), "crowd").await;
    let before = server.rss();
    let mut crowd = Vec::with_capacity(count);
    while crowd.len() < count {
        for _ in 0..250.min(count - crowd.len()) {
            crowd.push(TcpStream::connect(server.mqtt()).await.unwrap());
        }
        honest.round_trip().await;
    }
    server.metric("fulmar_connections", |n| n == count as u64 + 1).await;
    honest.is_served().await;
    let _newcomer = raw_client(server.mqtt(), Version::V5, "newcomer").await;
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 64 * MIB, "RSS grew by {grown} bytes for {count} connections");
    drop(crowd);
    server.metric("fulmar_connections", |n| n == 2).await;
}

/// Whether a new connection is served; if not, it was closed.
async fn gets_in(server: &Server, client_id: &str) -> Option<RawClient<TcpStream>> {
    let mut client = RawClient::tcp(server.mqtt(), Version::V311).await.ok()?;
    client.handshake(raw::connect(Version::V311, client_id), SOON).await.ok()?;
    Some(client)
}

fn turned_away(reason: &str) -> String {
    format!("fulmar_connections_turned_away_total{{listener=\"l\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_listener_takes_so_many_connections_and_no_more() {
    let config = format!(
        "{OPEN}name = \"l\"\nconnections_max = 3\n[[listener]]\naddress = \"127.0.0.1:PORT1\"\nname = \"other\"\n"
    );
    let server = Server::start(&config).await;
    let mut inside = Vec::new();
    for number in 0..3 {
        inside.push(gets_in(&server, &number.to_string()).await.unwrap());
    }
    for number in 0..5 {
        assert!(gets_in(&server, &format!("late-{number}")).await.is_none());
    }
    server.metric(&turned_away("connections_max"), |n| n == 5).await;
    raw_client(server.at(1), Version::V311, "other").await; // another listener has a bound of its own
    inside.pop();
    let again = wait_for("a place", SOON, async || gets_in(&server, "again").await);
    again.await.unwrap();
}

#[tokio::test]
async fn the_node_takes_so_many_connections_and_no_more() {
    let config = format!("[limits]\nconnections_max = 2\n{OPEN}name = \"l\"\n");
    let server = Server::start(&config).await;
    let _inside = (gets_in(&server, "a").await.unwrap(), gets_in(&server, "b").await.unwrap());
    assert!(gets_in(&server, "c").await.is_none());
    server.metric(&turned_away("connections_max"), |n| n == 1).await;
}

#[tokio::test]
async fn a_listener_takes_so_many_connections_a_second() {
    const TRIES: u64 = 60;
    let config = format!("{OPEN}name = \"l\"\nconnect_rate_max = 10\n[[listener]]\naddress = \"127.0.0.1:PORT1\"\n");
    let server = Server::start(&config).await;
    // The harness looks for a CONNACK nowhere: the first ten are these.
    let begun = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let address = server.mqtt();
    for number in 0..TRIES {
        tasks.spawn(async move {
            let mut client = RawClient::tcp(address, Version::V311).await.ok()?;
            client.handshake(raw::connect(Version::V311, &number.to_string()), SOON).await.ok()
        });
    }
    let accepted = tasks.join_all().await.into_iter().flatten().count() as u64;
    let most = 10 + (begun.elapsed().as_secs_f64() * 10.0).ceil() as u64 + 1;
    assert!((10..=most.min(TRIES)).contains(&accepted), "{accepted} of at most {most}");
    server.metric(&turned_away("connect_rate_max"), |n| n == TRIES - accepted).await;
    let again = wait_for("another second", SOON, async || gets_in(&server, "again").await);
    again.await.unwrap();
}

#[tokio::test]
async fn who_connects_and_leaves_leaves_nothing() {
    let server = Server::open().await;
    let mut honest = Honest::connect(server.mqtt(), "churn").await;
    let mut before = 0;
    for round in 0..10 {
        for number in 0..200 {
            match number % 4 {
                0 => drop(TcpStream::connect(server.mqtt()).await.unwrap()),
                1 => {
                    let mut client = RawClient::tcp(server.mqtt(), Version::V5).await.unwrap();
                    client.send_bytes(&[0x10, 0x7F, 0, 4]).await.unwrap();
                }
                _ => {
                    let mut client = raw_client(server.mqtt(), Version::V5, &format!("churn-{number}")).await;
                    crate::support::raw_subscribe(&mut client, &format!("churn/{number}"), Default::default()).await;
                }
            }
        }
        server.metric("fulmar_connections", |n| n == 1).await;
        if round == 4 {
            before = server.rss();
        }
    }
    server.metric("fulmar_subscriptions", |n| n == 1).await;
    server.metric("fulmar_sessions", |n| n <= 1).await;
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 16 * MIB, "RSS grew by {grown} bytes over 1,000 connections that are gone");
    honest.is_served().await;
}
