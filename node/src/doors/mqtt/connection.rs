//! One connection: CONNECT within its time, then packets in batches to the session and bytes from its way out. Reading
//! and writing share one task, and a connection that is idle owns no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use fulmar_mqtt::codec::Role;
use fulmar_mqtt::packet::Connect;
use fulmar_mqtt::{DecodeError, Decoded, Decoder, Packet};
use prometheus_client::metrics::gauge::Gauge;
use ractor::ActorRef;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, Sleep};

use super::accept::Door;
use super::farewell::{FAREWELL, answer_version, refuse, say_goodbye};
use super::link::{Link, READ_BYTES_MAX};
use crate::dispatch::{Dispatch, Receiver};
use crate::sessions::{Batch, Message, Opened};
use crate::telemetry::metrics::{PacketCounts, Turned};

/// For how long a client may have to do with a node that may not act: then it is let go, to find another one.
const FROZEN_MAX: Duration = Duration::from_secs(10);

/// Before a connection of a frozen node looks at the lease by itself, and between two such looks. Mostly it is told.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of answers that a client may leave unread.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// Writes in a row before the connection looks at its other side.
const WRITES_IN_A_ROW_MAX: usize = 8;

thread_local! {
    /// Where bytes to write are put together; only what a socket does not take at once gets a buffer of its own.
    static OUTGOING: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Serves one client from its first byte to its last. `connect_by` bounds the time to a complete CONNECT.
pub(super) async fn serve<L: Link>(link: L, door: &Door, peer: Peer, connect_by: Instant) {
    // What is needed only until there is a session lives in a box of its own, gone when the connection idles.
    let address = peer.address;
    let Some(mut running) = Box::pin(greet(link, door, peer, connect_by)).await else { return };
    if let Err(error) = running.run().await {
        tracing::debug!(listener = door.name(), peer = %address, %error, "connection lost");
    }
}

impl<L> Drop for Running<L> {
    /// Also after a panic the session learns that its connection is gone; one that has ended takes no further message.
    fn drop(&mut self) {
        self.clients.dec();
        let _ = self.actor.cast(Message::Disconnected);
    }
}

/// From the first byte to a session, or to the answer that there will be none.
async fn greet<L: Link>(mut link: L, door: &Door, peer: Peer, connect_by: Instant) -> Option<Running<L>> {
    let mut decoder = Decoder::new(Role::Server, door.packet_bytes_max());
    let mut buffer = BytesMut::new();
    let greeting = tokio::time::timeout_at(connect_by, read_connect(&mut link, &mut decoder, &mut buffer)).await;
    let connect = match greeting {
        Ok(Ok(connect)) => connect,
        Ok(Err(Greeting::Gone)) => return None,
        Ok(Err(Greeting::Malformed(error))) => {
            tracing::debug!(listener = door.name(), peer = %peer.address, %error, "no CONNECT");
            door.turned_away(Turned::NotMqtt);
            refuse(&mut link, answer_version(&decoder, error.reason), error.reason).await;
            return None;
        }
        Err(_) => {
            tracing::debug!(listener = door.name(), peer = %peer.address, "no CONNECT in time");
            door.turned_away(Turned::NoConnect);
            return None;
        }
    };
    let (version, user) = (connect.version, connect.username.clone());
    let connected = Instant::now();
    if tokio::time::timeout_at(connect_by, door.sessions().dispatch().acting()).await.is_err() {
        // It may not be told why: this node says nothing to anybody.
        tracing::debug!(listener = door.name(), peer = %peer.address, "the node was frozen for too long");
        door.turned_away(Turned::Frozen);
        return None;
    }
    // What a frozen node reads may be old: a client that gave up on it is elsewhere by now, and keeps its session there.
    let gone = poll_fn(|cx| match link.poll_recv(cx, &mut buffer) {
        Poll::Ready(more) => Poll::Ready(!matches!(more, Ok(1..))),
        Poll::Pending => link.poll_quiet(cx).map(|()| false),
    });
    if gone.await {
        return None;
    }
    match door.sessions().open(connect, door.terms(&peer, connect_by)).await {
        Ok(Opened { receiver, actor, packet_bytes_max, oversize }) => {
            decoder.set_limit(packet_bytes_max, oversize);
            let dispatch = door.sessions().dispatch().clone();
            let traffic = &dispatch.metrics().traffic;
            traffic.connect.note(connected.elapsed());
            let clients = traffic.clients(door.name(), version as u8, receiver.key().dialect());
            clients.inc();
            let mut counts = PacketCounts::default();
            counts[1] = 1;
            traffic.received(&counts);
            Some(Running {
                clients,
                dispatch,
                link,
                decoder,
                buffer,
                pending: BytesMut::new(),
                sending: false,
                frozen: None,
                unread: false,
                receiver,
                actor,
                timer: None,
                farewell: None,
            })
        }
        Err(refused) => {
            tracing::info!(
                listener = door.name(), peer = %peer.address, dialect = %refused.dialect, client_id = %refused.client_id,
                reason = %refused.reason, detail = refused.detail, "connect refused"
            );
            let dispatch = door.sessions().dispatch();
            dispatch.metrics().connect_refused(refused.dialect, refused.reason);
            let why = format!("{}: {}", refused.reason.text(), refused.detail);
            dispatch.insight().refused(&refused.client_id, user.as_deref(), peer.address, &why);
            refuse(&mut link, Some(version), refused.reason).await;
            None
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// The name that it asked for, by SNI or in the upgrade to WebSocket; without port.
    pub host: Option<Box<str>>,
    /// The client's certificates in DER, its own first, if it presented one: the handshake has proven that the key is
    /// its own, and nothing else.
    pub chain: Option<Arc<[CertificateDer<'static>]>>,
}

enum Greeting {
    Gone,
    Malformed(DecodeError),
}

async fn read_connect<L: Link>(
    link: &mut L,
    decoder: &mut Decoder,
    buffer: &mut BytesMut,
) -> Result<Connect, Greeting> {
    loop {
        match decoder.decode(buffer).map_err(Greeting::Malformed)? {
            Some(Decoded::Packet(Packet::Connect(connect))) => return Ok(*connect),
            // The decoder lets nothing but CONNECT come first.
            Some(_) => return Err(Greeting::Gone),
            None => {}
        }
        match poll_fn(|cx| link.poll_recv(cx, buffer)).await {
            Ok(0) | Err(_) => return Err(Greeting::Gone),
            Ok(_) => {}
        }
    }
}

/// A connection with a session.
struct Running<L> {
    /// Those that came as this one did.
    clients: Gauge,
    dispatch: Arc<Dispatch>,
    link: L,
    decoder: Decoder,
    /// The beginning of a packet that has not come whole; empty and without memory otherwise.
    buffer: BytesMut,
    /// What the socket did not take, and whether anything is still on its way.
    pending: BytesMut,
    sending: bool,
    /// The lease was found to be lost: nothing is done until it is held again.
    frozen: Option<Box<Frozen>>,
    /// What is in `buffer` came as the lease ended, and nobody has looked at it.
    unread: bool,
    receiver: Arc<Receiver>,
    actor: ActorRef<Message>,
    timer: Option<(u64, Pin<Box<Sleep>>)>,
    /// When a closed connection is given up.
    farewell: Option<Pin<Box<Sleep>>>,
}

struct Frozen {
    since: Instant,
    /// The next look.
    look: Pin<Box<Sleep>>,
}

impl Frozen {
    fn now() -> Box<Frozen> {
        Box::new(Frozen { since: Instant::now(), look: Box::pin(tokio::time::sleep(FIRST_LOOK)) })
    }
}

enum Event {
    Read(usize),
    /// The node was frozen until now.
    Thawed,
    Tick,
    Finished,
}

impl<L: Link> Running<L> {
    async fn run(&mut self) -> io::Result<()> {
        // Packets may have come with CONNECT.
        if !self.buffer.is_empty() && !self.take_read() {
            return self.wait_for_end().await;
        }
        loop {
            let event = match poll_fn(|cx| self.poll_event(cx)).await {
                Ok(event) => event,
                Err(error) => {
                    self.read_to_end().await;
                    return Err(error);
                }
            };
            match event {
                Event::Read(0) => return Ok(()),
                Event::Read(count) => {
                    self.dispatch.metrics().received_bytes.inc_by(count as u64);
                    if !self.take_read() {
                        return self.wait_for_end().await;
                    }
                }
                Event::Thawed => {
                    let told = self.actor.cast(Message::Thawed).is_ok();
                    let unread = std::mem::take(&mut self.unread);
                    if !told || (unread && !self.take_read()) {
                        return self.wait_for_end().await;
                    }
                }
                Event::Tick => {
                    if self.actor.cast(Message::Tick).is_err() {
                        return self.wait_for_end().await;
                    }
                }
                Event::Finished => return self.say_goodbye().await,
            }
        }
    }

    /// A socket that takes nothing more may have brought something before: a client that leaves without reading all that
    /// it is sent has its DISCONNECT here.
    async fn read_to_end(&mut self) {
        let mut read = |cx: &mut Context<'_>| {
            self.receiver.listen(cx.waker());
            if self.receiver.outbound().closed() || !self.dispatch.acts() {
                return Poll::Ready(false);
            }
            if !self.receiver.takes_batch() {
                return Poll::Pending;
            }
            let Ok(count @ 1..) = ready!(self.link.poll_recv(cx, &mut self.buffer)) else {
                return Poll::Ready(false);
            };
            self.dispatch.metrics().received_bytes.inc_by(count as u64);
            Poll::Ready(self.pass_on())
        };
        let read = async { while poll_fn(&mut read).await {} };
        // That it has failed is known of its other half within no time.
        let _ = Box::pin(tokio::time::timeout(FAREWELL, read)).await;
    }

    /// Passes on what was read, or keeps it if the lease has ended meanwhile: it may be matched by what is out of date.
    /// `false` if the session takes no more.
    fn take_read(&mut self) -> bool {
        if self.dispatch.acts() {
            return self.pass_on();
        }
        self.frozen.get_or_insert_with(Frozen::now);
        self.unread = true;
        true
    }

    /// Whether anything may be done for this client now. What a run that has ended still has to say is harmless.
    fn acts(&mut self) -> bool {
        let acts = self.receiver.cut() || self.dispatch.acts();
        if !acts {
            self.frozen.get_or_insert_with(Frozen::now);
        }
        acts
    }

    /// Waits for the lease: a signal wakes it, or the next look if nobody knows of this connection any more. Until then no
    /// other timer runs. After [`FROZEN_MAX`] it ends without a word.
    fn poll_frozen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let Some(frozen) = &mut self.frozen else { return Poll::Pending };
        while frozen.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now.duration_since(frozen.since) >= FROZEN_MAX {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            frozen.look.as_mut().reset((now + LOOK_EVERY).min(frozen.since + FROZEN_MAX));
        }
        Poll::Pending
    }

    /// The session is ending: only what is queued is still written.
    async fn wait_for_end(&mut self) -> io::Result<()> {
        while !matches!(poll_fn(|cx| self.poll_end(cx)).await?, Event::Finished) {}
        self.say_goodbye().await
    }

    async fn say_goodbye(&mut self) -> io::Result<()> {
        let farewell = tokio::time::timeout(FAREWELL, say_goodbye(&mut self.link));
        Box::pin(farewell).await.unwrap_or(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        self.receiver.listen(cx.waker());
        if !self.acts() {
            return self.poll_frozen(cx);
        }
        self.frozen = None;
        if self.poll_farewell(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.poll_write(cx)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        self.receiver.listen(cx.waker());
        if !self.acts() {
            return self.poll_frozen(cx);
        }
        if self.frozen.take().is_some() && !self.receiver.cut() {
            return Poll::Ready(Ok(Event::Thawed));
        }
        if let Poll::Ready(event) = self.poll_write(cx) {
            return Poll::Ready(event);
        }
        let (closed, unread) = {
            let outbound = self.receiver.outbound();
            (outbound.closed(), outbound.control_len() + self.pending.len())
        };
        if closed {
            // Nothing that still comes is taken.
            return match self.poll_farewell(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            };
        }
        // A client that does not read its answers is not asked for more questions.
        let answered = !self.sending || unread < UNREAD_BYTES_MAX;
        if answered && self.receiver.takes_batch() {
            if let Poll::Ready(count) = self.link.poll_recv(cx, &mut self.buffer) {
                return Poll::Ready(count.map(Event::Read));
            }
            let heard_out = self.receiver.heard_out(|| self.link.poll_quiet(cx).is_ready());
            if heard_out && self.actor.cast(Message::HeardOut).is_err() {
                return Poll::Ready(Ok(Event::Finished));
            }
        }
        self.poll_timer(cx).map(Ok)
    }

    /// Writes while there is something to write and the socket takes it. Ready only at the end or on failure.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        for _ in 0..WRITES_IN_A_ROW_MAX {
            if self.sending {
                if self.receiver.cut() {
                    // In the middle of something that must not be said any more.
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                match self.link.poll_send(cx, &mut self.pending) {
                    Poll::Ready(Ok(())) => {
                        self.pending = BytesMut::new();
                        self.sending = false;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let drained = OUTGOING.with_borrow_mut(|out| {
                if out.capacity() > 2 * READ_BYTES_MAX.max(L::WRITE_BYTES_MAX) {
                    // One large packet or backlog must not stay with the thread for good.
                    *out = BytesMut::new();
                }
                out.clear();
                let drained = self.dispatch.drain(&self.receiver, self.dispatch.now(), out, L::WRITE_BYTES_MAX);
                // The lease is looked at again: finding out what is to be written takes its time.
                if !out.is_empty() && !self.acts() {
                    self.dispatch.metrics().traffic.sent(out);
                    self.pending = BytesMut::from(&out[..]);
                    self.sending = true;
                } else if !out.is_empty() {
                    self.dispatch.metrics().traffic.sent(out);
                    match self.link.poll_send(cx, out) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Err(error),
                        Poll::Pending => {
                            self.pending = BytesMut::from(&out[..]);
                            self.sending = true;
                        }
                    }
                }
                Ok(drained)
            });
            if self.frozen.is_some() {
                return self.poll_frozen(cx);
            }
            match drained {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(drained) if drained.finished && !self.sending => {
                    return Poll::Ready(Ok(Event::Finished));
                }
                Ok(drained) if !drained.again && !self.sending => return Poll::Pending,
                Ok(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let deadline_ms = self.receiver.deadline_ms();
            if deadline_ms == u64::MAX {
                self.timer = None;
                return Poll::Pending;
            }
            let clock = self.dispatch.replica().clock();
            // A deadline that moves away is found when the timer runs out; only an earlier one is set anew.
            let (armed_ms, sleep) = match &mut self.timer {
                Some(timer) if timer.0 <= deadline_ms => timer,
                timer => {
                    let at = Instant::from_std(clock.instant(deadline_ms));
                    timer.insert((deadline_ms, Box::pin(tokio::time::sleep_until(at))))
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = *armed_ms == deadline_ms;
            self.timer = None;
            if due {
                // Until the session has moved the deadline, it is not told again.
                self.receiver.set_deadline_ms(None);
                return Poll::Ready(Event::Tick);
            }
        }
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL)));
        sleep.as_mut().poll(cx)
    }

    /// Decodes all complete packets and passes them on as one batch. `false` if the session takes no more.
    fn pass_on(&mut self) -> bool {
        let mut packets = Vec::new();
        let error = loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(decoded)) => packets.push(decoded),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        if packets.is_empty() && error.is_none() {
            return true;
        }
        let malformed = error.is_some();
        self.receiver.batch_sent();
        let taken = self.actor.cast(Message::Batch(Batch { packets, error })).is_ok();
        taken && !malformed
    }
}
