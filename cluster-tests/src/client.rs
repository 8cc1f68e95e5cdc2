//! An independent MQTT client for judging Fulmar: rumqttc, 3.1.1 and 5, made convenient for tests. It shares no code
//! with the broker. Everything that waits takes a deadline.

mod events;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::{LastWillProperties, PublishProperties};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

pub use events::Received;
use events::{Happening, Loop, drive};

/// How long a handshake of one packet and its answer may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes of the largest packet either way. rumqttc's own default of 10 KiB is too small for tests.
const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Requests that may wait for the event loop.
const REQUESTS_MAX: usize = 1024;

/// Which MQTT the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    V4,
    V5,
}

/// A will, of either version.
#[derive(Debug, Clone)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// MQTT 5: seconds.
    pub delay_s: Option<u32>,
}

/// What a client asks for when it connects.
#[derive(Debug, Clone)]
pub struct Options {
    pub protocol: Protocol,
    pub client_id: String,
    /// MQTT 3 clean session, MQTT 5 clean start.
    pub clean: bool,
    /// MQTT 5: seconds.
    pub session_expiry_s: Option<u32>,
    pub keep_alive: Duration,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    pub will: Option<Will>,
    /// Unacknowledged publishes of QoS 1 and 2 at a time.
    pub inflight_max: u16,
    /// Whether a lost connection is opened again, to the same address, until the client is dropped.
    pub reconnect: bool,
}

impl Options {
    #[must_use]
    pub fn new(protocol: Protocol, client_id: &str) -> Options {
        Options {
            protocol,
            client_id: client_id.into(),
            clean: true,
            session_expiry_s: None,
            keep_alive: Duration::from_secs(30),
            credentials: None,
            will: None,
            inflight_max: 100,
            reconnect: false,
        }
    }

    /// A session that outlives its connection.
    #[must_use]
    pub fn persistent(mut self, expiry_s: u32) -> Options {
        (self.clean, self.session_expiry_s) = (false, Some(expiry_s));
        self
    }
}

enum Sender {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The how-manieth publish of QoS 1 or 2 of this client it was; ask [`Client::acked`] about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A connected client. Dropped, it closes the connection without DISCONNECT.
pub struct Client {
    sender: Sender,
    happenings: mpsc::UnboundedReceiver<Happening>,
    task: JoinHandle<()>,
    tickets: u64,
    acked: BTreeMap<Ticket, String>,
    received: std::collections::VecDeque<Received>,
    granted: Option<Vec<String>>,
    unsubscribed: bool,
    ended: Option<String>,
    session_present: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Connects and waits for a CONNACK that accepts.
    ///
    /// # Errors
    /// Refused (with the code), or none in time.
    pub async fn connect(address: SocketAddr, options: Options) -> Result<Client> {
        let (sender, events) = open(address, &options);
        let (into, happenings) = mpsc::unbounded_channel();
        let task = tokio::spawn(drive(events, into, options.reconnect));
        let mut client = Client {
            sender,
            happenings,
            task,
            tickets: 0,
            acked: BTreeMap::new(),
            received: std::collections::VecDeque::new(),
            granted: None,
            unsubscribed: false,
            ended: None,
            session_present: false,
        };
        let end = Instant::now() + HANDSHAKE;
        let first = timeout_at(end, client.happenings.recv()).await.context("no CONNACK in time")?;
        match first {
            Some(Happening::Connected { session_present }) => client.session_present = session_present,
            Some(Happening::Ended(why)) => bail!("{} cannot connect: {why}", options.client_id),
            other => bail!("expected CONNACK, got {other:?}"),
        }
        Ok(client)
    }

    /// Session present of the last CONNACK.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Subscribes and waits for the SUBACK, which must grant.
    ///
    /// # Errors
    /// It does not, or none came in time.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let code = self.try_subscribe(filter, qos).await?;
        ensure!(code.starts_with("Success"), "subscription to {filter} refused: {code}");
        Ok(())
    }

    /// Subscribes and returns what the SUBACK says, in rumqttc's words: `Success(AtLeastOnce)`, `NotAuthorized`.
    ///
    /// # Errors
    /// None came in time.
    pub async fn try_subscribe(&mut self, filter: &str, qos: u8) -> Result<String> {
        self.granted = None;
        match &self.sender {
            Sender::V4(sender) => sender.subscribe(filter, qos_v4(qos)?).await?,
            Sender::V5(sender) => sender.subscribe(filter, qos_v5(qos)?).await?,
        }
        let codes = self.until(HANDSHAKE, |client| client.granted.take()).await.context("no SUBACK")?;
        codes.into_iter().next().context("a SUBACK without a code")
    }

    /// Unsubscribes and waits for the UNSUBACK.
    ///
    /// # Errors
    /// None came in time.
    pub async fn unsubscribe(&mut self, filter: &str) -> Result<()> {
        self.unsubscribed = false;
        match &self.sender {
            Sender::V4(sender) => sender.unsubscribe(filter).await?,
            Sender::V5(sender) => sender.unsubscribe(filter).await?,
        }
        self.until(HANDSHAKE, |client| client.unsubscribed.then_some(())).await.context("no UNSUBACK")
    }

    /// Hands a publish to the event loop. The ticket tells about its ack, if `qos` is not 0.
    ///
    /// # Errors
    /// The client has ended, or the topic is ill-formed.
    pub async fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: impl Into<Bytes>) -> Result<Ticket> {
        let payload: Bytes = payload.into();
        match &self.sender {
            Sender::V4(sender) => sender.publish_bytes(topic, qos_v4(qos)?, retain, payload).await?,
            Sender::V5(sender) => sender.publish_bytes(topic, qos_v5(qos)?, retain, payload).await?,
        }
        Ok(self.ticket(qos))
    }

    /// As [`Client::publish`], with MQTT 5 properties.
    ///
    /// # Errors
    /// As there, or the client speaks 3.1.1.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<Bytes>,
        properties: PublishProperties,
    ) -> Result<Ticket> {
        let Sender::V5(sender) = &self.sender else { bail!("properties need MQTT 5") };
        let payload: Bytes = payload.into();
        sender.publish_with_properties(topic, qos_v5(qos)?, retain, payload, properties).await?;
        Ok(self.ticket(qos))
    }

    /// Publishes with QoS 1 or 2 and waits for the PUBACK or PUBCOMP, which must not refuse.
    ///
    /// # Errors
    /// Refused, or no ack in time.
    pub async fn publish_acked(&mut self, topic: &str, qos: u8, payload: impl Into<Bytes>) -> Result<()> {
        let ticket = self.publish(topic, qos, false, payload).await?;
        let reason = self.acked(ticket, HANDSHAKE).await?;
        ensure!(matches!(reason.as_str(), "Success" | "NoMatchingSubscribers"), "publish refused: {reason}");
        Ok(())
    }

    /// Waits for the PUBACK or PUBCOMP of a publish and returns its reason, in rumqttc's words.
    ///
    /// # Errors
    /// None came in time.
    pub async fn acked(&mut self, ticket: Ticket, deadline: Duration) -> Result<String> {
        self.until(deadline, |client| client.acked.remove(&ticket))
            .await
            .with_context(|| format!("no ack of {ticket:?}"))
    }

    /// The next message.
    ///
    /// # Errors
    /// None came in time.
    pub async fn receive(&mut self, deadline: Duration) -> Result<Received> {
        self.until(deadline, |client| client.received.pop_front()).await.context("no message")
    }

    /// The next `count` messages, all within `deadline`.
    ///
    /// # Errors
    /// Fewer came: says how many.
    pub async fn collect(&mut self, count: usize, deadline: Duration) -> Result<Vec<Received>> {
        let waited = self.until(deadline, |client| (client.received.len() >= count).then_some(())).await;
        waited.with_context(|| format!("{} messages of {count} came", self.received.len()))?;
        Ok(self.received.drain(..count).collect())
    }

    /// Passes if no message comes for so long.
    ///
    /// # Errors
    /// The message that came.
    pub async fn expect_silence(&mut self, duration: Duration) -> Result<()> {
        match self.receive(duration).await {
            Ok(message) => bail!("expected silence, got {message:?}"),
            Err(_) => Ok(()),
        }
    }

    /// Says DISCONNECT and waits until the connection has ended.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn disconnect(mut self) -> Result<()> {
        match &self.sender {
            Sender::V4(sender) => sender.disconnect().await?,
            Sender::V5(sender) => sender.disconnect().await?,
        }
        self.closed(HANDSHAKE).await.map(drop)
    }

    /// Closes the connection without DISCONNECT: what makes a will fly.
    pub async fn abort(mut self) {
        self.task.abort();
        // Cancelled is what we asked for; the socket is closed once the task is gone.
        let _ = timeout(HANDSHAKE, &mut self.task).await;
    }

    /// Waits for the connection to end and returns why, in rumqttc's words. Not for a client that reconnects.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn closed(&mut self, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        while self.ended.is_none() {
            let next = timeout_at(end, self.happenings.recv()).await;
            let Some(happening) = next.map_err(|_| anyhow!("the connection is still open"))? else { break };
            self.take(happening);
        }
        Ok(self.ended.clone().unwrap_or_default())
    }

    fn ticket(&mut self, qos: u8) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += u64::from(qos > 0);
        ticket
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Connected { session_present } => self.session_present = session_present,
            Happening::Received(message) => self.received.push_back(message),
            Happening::Acked { order, reason } => drop(self.acked.insert(Ticket(order), reason)),
            Happening::Subscribed(codes) => self.granted = Some(codes),
            Happening::Unsubscribed => self.unsubscribed = true,
            Happening::Ended(why) => self.ended = Some(why),
        }
    }

    /// Takes what happens until `done` has an answer.
    async fn until<T>(&mut self, deadline: Duration, mut done: impl FnMut(&mut Client) -> Option<T>) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            while let Ok(happening) = self.happenings.try_recv() {
                self.take(happening);
            }
            if let Some(value) = done(self) {
                return Ok(value);
            }
            match timeout_at(end, self.happenings.recv()).await {
                Ok(Some(happening)) => self.take(happening),
                Ok(None) => bail!("the connection ended: {}", self.ended.as_deref().unwrap_or("no reason")),
                Err(_) => bail!("waited {deadline:?} in vain"),
            }
        }
    }
}

fn open(address: SocketAddr, options: &Options) -> (Sender, Loop) {
    let (host, port) = (address.ip().to_string(), address.port());
    match options.protocol {
        Protocol::V4 => {
            let mut wanted = rumqttc::MqttOptions::new(&options.client_id, host, port);
            wanted.set_clean_session(options.clean);
            wanted.set_keep_alive(options.keep_alive);
            wanted.set_inflight(options.inflight_max);
            wanted.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
            if let Some((user, password)) = &options.credentials {
                wanted.set_credentials(user, password);
            }
            if let Some(will) = &options.will {
                let qos = qos_v4(will.qos).unwrap_or(rumqttc::QoS::AtMostOnce);
                wanted.set_last_will(rumqttc::LastWill::new(&will.topic, will.payload.clone(), qos, will.retain));
            }
            let (sender, mut events) = rumqttc::AsyncClient::new(wanted, REQUESTS_MAX);
            let mut network = events.network_options();
            network.set_tcp_nodelay(true);
            events.set_network_options(network);
            (Sender::V4(sender), Loop::V4(Box::new(events)))
        }
        Protocol::V5 => {
            let mut wanted = v5::MqttOptions::new(&options.client_id, host, port);
            wanted.set_clean_start(options.clean);
            wanted.set_keep_alive(options.keep_alive);
            wanted.set_outgoing_inflight_upper_limit(options.inflight_max);
            wanted.set_session_expiry_interval(options.session_expiry_s);
            wanted.set_max_packet_size(Some(PACKET_BYTES_MAX as u32));
            let mut network = wanted.network_options();
            network.set_tcp_nodelay(true);
            wanted.set_network_options(network);
            if let Some((user, password)) = &options.credentials {
                wanted.set_credentials(user, password);
            }
            if let Some(will) = &options.will {
                let qos = qos_v5(will.qos).unwrap_or(v5::mqttbytes::QoS::AtMostOnce);
                let properties = will.delay_s.map(|delay_s| LastWillProperties {
                    delay_interval: Some(delay_s),
                    payload_format_indicator: None,
                    message_expiry_interval: None,
                    content_type: None,
                    response_topic: None,
                    correlation_data: None,
                    user_properties: Vec::new(),
                });
                let last =
                    v5::mqttbytes::v5::LastWill::new(&will.topic, will.payload.clone(), qos, will.retain, properties);
                wanted.set_last_will(last);
            }
            let (sender, events) = v5::AsyncClient::new(wanted, REQUESTS_MAX);
            (Sender::V5(sender), Loop::V5(Box::new(events)))
        }
    }
}

fn qos_v4(qos: u8) -> Result<rumqttc::QoS> {
    rumqttc::qos(qos).map_err(|error| anyhow!("QoS {qos}: {error}"))
}

fn qos_v5(qos: u8) -> Result<v5::mqttbytes::QoS> {
    v5::mqttbytes::qos(qos).ok_or_else(|| anyhow!("QoS {qos} does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port().unwrap()));
        assert!(Client::connect(nobody, Options::new(Protocol::V4, "a")).await.is_err());
    }
}
