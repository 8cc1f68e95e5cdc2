//! A connection that may end at any byte, and whose node may fall silent: for its clients that is no error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use fulmar_mqtt::codec::Role;
use fulmar_mqtt::packet::ConnAck;
use fulmar_mqtt::{Decoded, Decoder, Packet, ReasonCode, Version, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::SOON;
use super::book::{Book, Step};
use super::doors::Doors;
use crate::history::{ConnectionId, What};
use crate::raw;

/// How long there may be no node.
const AWAY: Duration = Duration::from_secs(60);

/// Between two looks for one.
const BETWEEN: Duration = Duration::from_millis(10);

/// What a node may say when it ends a connection: one that is told to end; one that fails; one of a cluster.
const LEAVING: &[ReasonCode] = &[ReasonCode::ServerShuttingDown];
const FAILING: &[ReasonCode] = &[ReasonCode::ServerShuttingDown, ReasonCode::UnspecifiedError];
const MOVING: &[ReasonCode] = &[
    ReasonCode::ServerShuttingDown,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::UnspecifiedError,
    // A CONNECT that its client gave up on may be read late.
    ReasonCode::SessionTakenOver,
];

/// What a node may answer to a CONNECT that is to be tried again.
const LATER: &[ReasonCode] = &[
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::UseAnotherServer,
    ReasonCode::ConnectionRateExceeded,
];

/// What clients make of a node that is silent or ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// There is one node, and it must answer.
    Alone,
    /// There is one node, which fails by itself and may say so.
    Fails,
    /// There are others: whoever hears nothing for so long goes to the next.
    Moves { patience: Duration },
}

impl Manner {
    pub(super) fn patience(self) -> Duration {
        match self {
            Manner::Alone | Manner::Fails => SOON,
            Manner::Moves { patience } => patience,
        }
    }

    pub(super) fn moves(self) -> bool {
        matches!(self, Manner::Moves { .. })
    }

    fn farewells(self) -> &'static [ReasonCode] {
        match self {
            Manner::Alone => LEAVING,
            Manner::Fails => FAILING,
            Manner::Moves { .. } => MOVING,
        }
    }
}

/// What came of waiting.
pub(super) enum Heard {
    Packet(Packet),
    /// Nothing in that time.
    Nothing,
    /// The connection has ended.
    Lost,
}

/// A client that connects again and again, to one node after the other.
pub(super) struct Caller {
    pub(super) book: Arc<Book>,
    pub(super) doors: Arc<Doors>,
    /// Attempts so far, from where this client begins.
    pub(super) attempt: usize,
    pub(super) client_id: String,
    pub(super) version: Version,
    pub(super) receive_maximum: Option<u16>,
}

impl Caller {
    /// Resumes or begins a session, as soon as there is a node. Whether the session is there must be as expected.
    pub(super) async fn resume(&mut self, present: bool) -> Result<Link> {
        let client_id = &self.client_id;
        let end = Instant::now() + AWAY;
        let (mut link, node, connack) = loop {
            let (node, address) = self.doors.at(self.attempt);
            if let Some((link, connack)) = self.call(address).await? {
                break (link, node, connack);
            }
            self.attempt += 1;
            ensure!(Instant::now() < end, "{client_id} has found no node for {AWAY:?}");
            sleep(BETWEEN).await;
        };
        ensure!(connack.reason == ReasonCode::Success, "{client_id} was refused by node {node}: {connack:?}");
        ensure!(
            connack.session_present == present,
            "{client_id}: session present is {} at node {node}, and should be {present}",
            connack.session_present
        );
        link.connection = Some(self.book.history.opened(client_id, node));
        self.book.step(Step::Connack, 1);
        Ok(link)
    }

    /// The connection is lost; the next one is another node's.
    pub(super) fn lost(&mut self) {
        self.attempt += 1;
    }

    /// `None` if there is no node, it went away before it answered, or is not willing now.
    async fn call(&self, address: SocketAddr) -> Result<Option<(Link, ConnAck)>> {
        let manner = self.book.manner;
        let Ok(Ok(stream)) = timeout(manner.patience(), TcpStream::connect(address)).await else { return Ok(None) };
        if stream.set_nodelay(true).is_err() {
            return Ok(None);
        }
        let mut decoder = Decoder::new(Role::Client, limits::PACKET_BYTES_HARD_MAX);
        decoder.set_version(self.version);
        let (book, connection) = (self.book.clone(), None);
        let mut link = Link { stream, version: self.version, decoder, input: BytesMut::new(), connection, book };
        let mut connect = raw::persistent(self.version, &self.client_id);
        connect.properties.receive_maximum = self.receive_maximum.filter(|_| self.version == Version::V5);
        if !link.send(&link.encoded(&Packet::Connect(Box::new(connect)))?).await? {
            return Ok(None);
        }
        match link.next(manner.patience()).await? {
            // One that is going away.
            Heard::Packet(Packet::ConnAck(connack)) if connack.reason == ReasonCode::ServerUnavailable => Ok(None),
            Heard::Packet(Packet::ConnAck(connack)) if manner.moves() && LATER.contains(&connack.reason) => Ok(None),
            Heard::Packet(Packet::ConnAck(connack)) => Ok(Some((link, *connack))),
            Heard::Packet(other) => bail!("{} got {other:?} instead of CONNACK", self.client_id),
            Heard::Nothing if manner.moves() => Ok(None),
            Heard::Nothing => bail!("{} is connected, and gets no CONNACK", self.client_id),
            Heard::Lost => Ok(None),
        }
    }
}

/// An open connection. Dropped, it is closed without a word.
pub(super) struct Link {
    stream: TcpStream,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
    /// Once it was welcomed.
    connection: Option<ConnectionId>,
    book: Arc<Book>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.record(What::Closed);
    }
}

impl Link {
    /// Notes what happened on this connection.
    pub(super) fn record(&self, what: What) {
        if let Some(connection) = self.connection {
            self.book.history.record(connection, what);
        }
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        self.connection
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
        match timeout(self.book.manner.patience(), self.stream.write_all(bytes)).await {
            Ok(written) => Ok(written.is_ok()),
            Err(_) if self.book.manner.moves() => Ok(false),
            Err(late) => Err(late).context("the node reads nothing"),
        }
    }

    /// The next packet, within this time.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<Heard> {
        loop {
            match self.decoder.decode(&mut self.input)? {
                Some(Decoded::Packet(Packet::Disconnect(disconnect)))
                    if self.book.manner.farewells().contains(&disconnect.reason) =>
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
