//! An MQTT client without manners: sends any packet or any bytes over any stream, and says what came back. It acks
//! nothing and keeps nothing alive by itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use fulmar_mqtt::codec::Role;
use fulmar_mqtt::packet::{
    ConnAck, Connect, ConnectProperties, Disconnect, Publish, ReasonProperties, Subscribe, SubscribeFilter,
    SubscriptionOptions, Unsubscribe,
};
use fulmar_mqtt::{Decoded, Decoder, Packet, QoS, ReasonCode, TopicFilter, TopicName, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes of the largest packet that is read.
const PACKET_BYTES_MAX: u32 = fulmar_mqtt::limits::PACKET_BYTES_HARD_MAX;

/// Longer than any test.
const SESSION_EXPIRY_S: u32 = 3600;

/// Nothing came in time.
#[derive(Debug)]
struct Late;

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing came in time")
    }
}

impl std::error::Error for Late {}

/// Whether this error of a [`RawClient`] says no more than that nothing came in time: the connection is as it was.
#[must_use]
pub fn is_late(error: &anyhow::Error) -> bool {
    error.is::<Late>()
}

/// One connection.
pub struct RawClient<S> {
    stream: S,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
}

impl RawClient<TcpStream> {
    /// Opens the connection; sends nothing yet.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn tcp(address: SocketAddr, version: Version) -> Result<RawClient<TcpStream>> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(RawClient::new(stream, version))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub fn new(stream: S, version: Version) -> RawClient<S> {
        let mut decoder = Decoder::new(Role::Client, PACKET_BYTES_MAX);
        decoder.set_version(version);
        RawClient { stream, version, decoder, input: BytesMut::new() }
    }

    /// The stream below, for what only it can do.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// # Errors
    /// The packet cannot be encoded or written.
    pub async fn send(&mut self, packet: &Packet) -> Result<()> {
        let mut bytes = BytesMut::new();
        fulmar_mqtt::encode(packet, self.version, &mut bytes)?;
        self.send_bytes(&bytes).await
    }

    /// # Errors
    /// They cannot be written.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next packet.
    ///
    /// # Errors
    /// None came in time, the connection ended, or what came is not MQTT.
    pub async fn next(&mut self, deadline: Duration) -> Result<Packet> {
        let packet = self.next_or_close(Instant::now() + deadline).await?;
        packet.ok_or_else(|| anyhow!("the connection was closed instead of a packet sent"))
    }

    /// The next packet; `None` once the other side has closed.
    ///
    /// # Errors
    /// None came in time, or what came is not MQTT.
    pub async fn next_or_closed(&mut self, deadline: Duration) -> Result<Option<Packet>> {
        self.next_or_close(Instant::now() + deadline).await
    }

    /// The next packet, if `pick` takes it.
    ///
    /// # Errors
    /// As [`RawClient::next`]; or the packet was another one, which is then named.
    pub async fn expect<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        pick: impl FnOnce(&Packet) -> Option<T>,
    ) -> Result<T> {
        let packet = self.next(deadline).await.with_context(|| format!("expected {what}"))?;
        pick(&packet).ok_or_else(|| anyhow!("expected {what}, got {packet:?}"))
    }

    /// Waits for the other side to close and returns what it sent before.
    ///
    /// # Errors
    /// It did not close in time, or sent what is not MQTT.
    pub async fn expect_close(&mut self, deadline: Duration) -> Result<Vec<Packet>> {
        let end = Instant::now() + deadline;
        let mut packets = Vec::new();
        while let Some(packet) = self.next_or_close(end).await.context("expected the connection to be closed")? {
            packets.push(packet);
        }
        Ok(packets)
    }

    /// Passes if nothing comes for so long.
    ///
    /// # Errors
    /// What came, or that the connection ended.
    pub async fn expect_silence(&mut self, duration: Duration) -> Result<()> {
        match timeout(duration, self.next_or_close(Instant::now() + duration * 2)).await {
            Err(_) => Ok(()),
            Ok(came) => bail!("expected silence, got {came:?}"),
        }
    }

    /// Sends CONNECT and takes the CONNACK, whatever it says.
    ///
    /// # Errors
    /// No CONNACK came.
    pub async fn handshake(&mut self, connect: Connect, deadline: Duration) -> Result<ConnAck> {
        self.send(&Packet::Connect(Box::new(connect))).await?;
        self.expect("CONNACK", deadline, |packet| match packet {
            Packet::ConnAck(connack) => Some(connack.as_ref().clone()),
            _ => None,
        })
        .await
    }

    async fn next_or_close(&mut self, end: Instant) -> Result<Option<Packet>> {
        loop {
            match self.decoder.decode(&mut self.input)? {
                Some(Decoded::Packet(packet)) => return Ok(Some(packet)),
                Some(Decoded::Skipped(skipped)) => bail!("a packet beyond {PACKET_BYTES_MAX} bytes: {skipped:?}"),
                None => {}
            }
            let read = timeout_at(end, self.stream.read_buf(&mut self.input));
            match read.await.map_err(|_| anyhow::Error::new(Late))? {
                Ok(0) if self.input.is_empty() => return Ok(None),
                Ok(0) => bail!("the connection was closed within a packet"),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A plain CONNECT: clean, keep alive 60 s, nothing else.
#[must_use]
pub fn connect(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: client_id.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT for a session that outlives its connection.
#[must_use]
pub fn persistent(version: Version, client_id: &str) -> Connect {
    let mut connect = connect(version, client_id);
    connect.clean_start = false;
    if version == Version::V5 {
        connect.properties.session_expiry_s = Some(SESSION_EXPIRY_S);
    }
    connect
}

/// A SUBSCRIBE to one filter.
///
/// # Panics
/// The filter is ill-formed.
#[must_use]
pub fn subscribe(packet_id: u16, filter: &str, qos: QoS) -> Packet {
    let filter = TopicFilter::new(filter).expect("tests subscribe to well-formed filters");
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        filters: vec![SubscribeFilter { filter, options }],
        subscription_id: None,
        user: Vec::new(),
    }))
}

/// An UNSUBSCRIBE from one filter.
///
/// # Panics
/// The filter is ill-formed.
#[must_use]
pub fn unsubscribe(packet_id: u16, filter: &str) -> Packet {
    let filters = vec![TopicFilter::new(filter).expect("tests subscribe to well-formed filters")];
    Packet::Unsubscribe(Box::new(Unsubscribe { packet_id, filters, user: Vec::new() }))
}

/// A PUBLISH; `packet_id` is 0 for QoS 0.
///
/// # Panics
/// The topic is ill-formed.
#[must_use]
pub fn publish(packet_id: u16, topic: &str, qos: QoS, payload: impl Into<Bytes>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new(topic).expect("tests publish to well-formed topics")),
        packet_id,
        properties: Default::default(),
        payload: payload.into(),
    }
}

/// A DISCONNECT.
#[must_use]
pub fn disconnect(reason: ReasonCode) -> Packet {
    Packet::Disconnect(Box::new(Disconnect {
        reason,
        session_expiry_s: None,
        server_reference: None,
        properties: ReasonProperties::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn packets_silence_and_close_are_told_apart() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut client = RawClient::new(near, Version::V311);
        far.write_all(&[0x20, 2, 0]).await.unwrap();
        client.expect_silence(Duration::from_millis(20)).await.unwrap();
        far.write_all(&[0]).await.unwrap();
        let connack = client.handshake(connect(Version::V311, "a"), SOON).await.unwrap();
        assert_eq!(connack.reason, ReasonCode::Success);
        far.write_all(&[0xD0, 0]).await.unwrap();
        assert!(
            client.expect("PUBACK", SOON, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await.is_err()
        );
        far.write_all(&[0xD0, 0]).await.unwrap();
        drop(far);
        assert_eq!(client.expect_close(SOON).await.unwrap(), vec![Packet::PingResp]);
    }

    #[tokio::test]
    async fn half_a_packet_is_no_close() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut client = RawClient::new(near, Version::V311);
        far.write_all(&[0x20, 2, 0]).await.unwrap();
        drop(far);
        assert!(client.expect_close(SOON).await.is_err());
    }
}
