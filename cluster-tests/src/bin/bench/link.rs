//! One connection of the driver: many packets per read and per write.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use cluster_tests::{raw, sys};
use fulmar_mqtt::codec::Role;
use fulmar_mqtt::packet::{ConnAck, Connect};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{Decoded, Decoder, Packet, PublishRef, QoS, Version};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of the largest packet that is read.
const PACKET_BYTES_MAX: u32 = fulmar_mqtt::limits::PACKET_BYTES_HARD_MAX;

/// How long a handshake may take on a busy broker.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// Connections per loopback source address; the kernel gives outgoing ones about 28,000 ports each.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;

/// Seconds. Longer than any run: the driver sends no PINGREQ.
const KEEP_ALIVE_S: u16 = 3_600;

/// Longer than any run.
const SESSION_EXPIRY_S: u32 = 86_400;

/// A publish to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) packet_id: u16,
    pub(crate) payload: &'a Bytes,
}

pub(crate) struct Link {
    stream: TcpStream,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    nothing: ForwardProperties,
}

impl Link {
    /// Connects with a session that ends with the connection; `index` spreads many connections over source addresses.
    pub(crate) async fn open(address: SocketAddr, version: Version, index: u32, id: &str) -> Result<(Link, ConnAck)> {
        Link::open_as(address, index, raw::connect(version, id)).await
    }

    /// As [`Link::open`], with a session that stays.
    pub(crate) async fn open_persistent(
        address: SocketAddr,
        version: Version,
        index: u32,
        id: &str,
    ) -> Result<(Link, ConnAck)> {
        let mut connect = Connect { clean_start: false, ..raw::connect(version, id) };
        if version == Version::V5 {
            connect.properties.session_expiry_s = Some(SESSION_EXPIRY_S);
        }
        Link::open_as(address, index, connect).await
    }

    async fn open_as(address: SocketAddr, index: u32, connect: Connect) -> Result<(Link, ConnAck)> {
        let id = connect.client_id.clone();
        let open = Link::connect(address, index / CONNECTIONS_PER_SOURCE, connect);
        timeout(HANDSHAKE, open).await.context("no CONNACK in time")?.with_context(|| format!("client {id}"))
    }

    async fn connect(address: SocketAddr, source: u32, connect: Connect) -> Result<(Link, ConnAck)> {
        let version = connect.version;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if source > 0 && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            sys::bind_address_no_port(&socket)?;
            let host = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + source);
            socket.bind(SocketAddr::from((host, 0)))?;
        }
        let stream = socket.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let mut decoder = Decoder::new(Role::Client, PACKET_BYTES_MAX);
        decoder.set_version(version);
        let (input, output, nothing) = (BytesMut::new(), BytesMut::new(), ForwardProperties::default());
        let mut link = Link { stream, version, decoder, input, output, nothing };
        let connect = Connect { keep_alive_s: KEEP_ALIVE_S, ..connect };
        link.push(&Packet::Connect(Box::new(connect)))?;
        match link.answer().await? {
            Packet::ConnAck(connack) if !connack.reason.is_error() => Ok((link, *connack)),
            other => bail!("expected an accepting CONNACK, got {other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<()> {
        self.push(&raw::subscribe(1, filter, qos))?;
        match timeout(HANDSHAKE, self.answer()).await.context("no SUBACK in time")?? {
            Packet::SubAck(suback) => ensure!(suback.reasons.iter().all(|reason| !reason.is_error()), "{suback:?}"),
            other => bail!("expected SUBACK, got {other:?}"),
        }
        Ok(())
    }

    /// Appends a packet to the output.
    pub(crate) fn push(&mut self, packet: &Packet) -> Result<()> {
        Ok(fulmar_mqtt::encode(packet, self.version, &mut self.output)?)
    }

    /// Appends a PUBLISH to the output.
    pub(crate) fn publish(&mut self, message: Outgoing<'_>) -> Result<()> {
        let publish = PublishRef {
            dup: false,
            qos: message.qos,
            retain: message.retain,
            topic: message.topic,
            packet_id: message.packet_id,
            topic_alias: None,
            message_expiry_s: None,
            subscription_ids: &[],
            forward: &self.nothing,
            payload: message.payload,
        };
        Ok(publish.encode(self.version, &mut self.output)?)
    }

    /// Bytes that wait for the socket.
    pub(crate) fn pending(&self) -> usize {
        self.output.len()
    }

    /// Writes what the socket takes at once.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(written) => drop(self.output.split_to(written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot write"),
            }
        }
        Ok(())
    }

    /// Waits until something can be read, or written if something waits, and does it once. Cancelling it loses nothing.
    pub(crate) async fn turn(&mut self) -> Result<()> {
        if !self.read_or_write().await? {
            bail!("the broker closed the connection");
        }
        Ok(())
    }

    /// Reads and drops until the broker closes.
    pub(crate) async fn closed(&mut self) -> Result<()> {
        while self.read_or_write().await? {
            self.input.clear();
        }
        Ok(())
    }

    /// False at the end of the stream.
    async fn read_or_write(&mut self) -> Result<bool> {
        let write =
            if self.output.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
        let ready = self.stream.ready(write).await?;
        if ready.is_writable() {
            self.flush()?;
        }
        if ready.is_readable() {
            self.input.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot read"),
            }
        }
        Ok(true)
    }

    /// The next packet of what was read.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>> {
        match self.decoder.decode(&mut self.input)? {
            Some(Decoded::Packet(packet)) => Ok(Some(packet)),
            Some(Decoded::Skipped(skipped)) => bail!("a packet beyond {PACKET_BYTES_MAX} bytes: {skipped:?}"),
            None => Ok(None),
        }
    }

    /// Only the socket: an idle connection needs no buffers.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn answer(&mut self) -> Result<Packet> {
        self.flush()?;
        loop {
            if let Some(packet) = self.next()? {
                return Ok(packet);
            }
            self.turn().await?;
        }
    }
}

/// A connection whose index picks source addresses in turn, so that closed ones do not exhaust the ports.
pub(crate) fn spread(index: u64) -> u32 {
    const SOURCES: u64 = 32;
    (index % SOURCES) as u32 * CONNECTIONS_PER_SOURCE
}
