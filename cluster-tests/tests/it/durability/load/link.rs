//! A connection that may end at any byte: for its clients that is no error.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use cluster_tests::raw;
use fulmar_mqtt::codec::Role;
use fulmar_mqtt::packet::ConnAck;
use fulmar_mqtt::{Decoded, Decoder, Packet, ReasonCode, Version, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::book::{Book, Step};
use crate::support::{SOON, persistent};

/// How long a node may be away.
const AWAY: Duration = Duration::from_secs(60);

/// Between two looks for it.
const BETWEEN: Duration = Duration::from_millis(10);

/// What came of waiting.
pub(super) enum Heard {
    Packet(Packet),
    /// Nothing in that time.
    Nothing,
    /// The connection has ended.
    Lost,
}

/// An open connection.
pub(super) struct Link {
    stream: TcpStream,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
    /// What the node may say when it ends a connection.
    farewells: &'static [ReasonCode],
}

/// Of a node that is told to end, and of one that fails.
const LEAVING: &[ReasonCode] = &[ReasonCode::ServerShuttingDown];
const FAILING: &[ReasonCode] = &[ReasonCode::ServerShuttingDown, ReasonCode::UnspecifiedError];

impl Link {
    /// Resumes or begins a session, as soon as there is a node. Whether the session is there must be as expected.
    pub(super) async fn resume(
        book: &Book,
        address: SocketAddr,
        version: Version,
        client_id: &str,
        receive_maximum: Option<u16>,
        present: bool,
    ) -> Result<Link> {
        let end = Instant::now() + AWAY;
        let (mut link, connack) = loop {
            if let Some(answered) = Link::attempt(address, version, client_id, receive_maximum).await? {
                break answered;
            }
            ensure!(Instant::now() < end, "{client_id} has found no node for {AWAY:?}");
            sleep(BETWEEN).await;
        };
        ensure!(connack.reason == ReasonCode::Success, "{client_id} was refused: {connack:?}");
        ensure!(
            connack.session_present == present,
            "{client_id}: session present is {}, and should be {present}",
            connack.session_present
        );
        if book.node_fails {
            link.farewells = FAILING;
        }
        book.step(Step::Connack, 1);
        Ok(link)
    }

    /// `None` if there is no node, or it went away before it answered.
    async fn attempt(
        address: SocketAddr,
        version: Version,
        client_id: &str,
        receive_maximum: Option<u16>,
    ) -> Result<Option<(Link, ConnAck)>> {
        let Ok(stream) = TcpStream::connect(address).await else { return Ok(None) };
        if stream.set_nodelay(true).is_err() {
            return Ok(None);
        }
        let mut decoder = Decoder::new(Role::Client, limits::PACKET_BYTES_HARD_MAX);
        decoder.set_version(version);
        let mut link = Link { stream, version, decoder, input: BytesMut::new(), farewells: LEAVING };
        let mut connect = persistent(version, client_id);
        connect.properties.receive_maximum = receive_maximum.filter(|_| version == Version::V5);
        if !link.send(&link.encoded(&Packet::Connect(Box::new(connect)))?).await? {
            return Ok(None);
        }
        match link.next(SOON).await? {
            // One that is going away.
            Heard::Packet(Packet::ConnAck(connack)) if connack.reason == ReasonCode::ServerUnavailable => Ok(None),
            Heard::Packet(Packet::ConnAck(connack)) => Ok(Some((link, *connack))),
            Heard::Packet(other) => bail!("{client_id} got {other:?} instead of CONNACK"),
            Heard::Nothing => bail!("{client_id} is connected, and gets no CONNACK"),
            Heard::Lost => Ok(None),
        }
    }

    pub(super) fn encoded(&self, packet: &Packet) -> Result<BytesMut> {
        let mut bytes = BytesMut::new();
        self.encode(packet, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn encode(&self, packet: &Packet, into: &mut BytesMut) -> Result<()> {
        Ok(fulmar_mqtt::encode(packet, self.version, into)?)
    }

    /// False if the connection has ended.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        let written = timeout(SOON, self.stream.write_all(bytes)).await;
        Ok(written.context("the node reads nothing")?.is_ok())
    }

    /// The next packet, within this time.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<Heard> {
        loop {
            match self.decoder.decode(&mut self.input)? {
                Some(Decoded::Packet(Packet::Disconnect(disconnect)))
                    if self.farewells.contains(&disconnect.reason) =>
                {
                    return Ok(Heard::Lost);
                }
                Some(Decoded::Packet(packet)) => return Ok(Heard::Packet(packet)),
                Some(Decoded::Skipped(skipped)) => bail!("too large a packet: {skipped:?}"),
                None => {}
            }
            match timeout(wait, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Ok(Heard::Nothing),
                Ok(Ok(0) | Err(_)) => return Ok(Heard::Lost),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Leaves politely.
    pub(super) async fn leave(mut self) -> Result<()> {
        let bytes = self.encoded(&raw::disconnect(ReasonCode::Success))?;
        self.send(&bytes).await?;
        // The node closes: then it has seen all that came before.
        while let Heard::Packet(_) = self.next(SOON).await? {}
        Ok(())
    }
}
