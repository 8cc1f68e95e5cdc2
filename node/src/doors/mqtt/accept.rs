//! Listening: sockets with their options, the bounds on connections and their rate, and telling protocols apart.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::session;
use fulmar_platform::Dialect;
use socket2::{Domain, Protocol as SocketProtocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::admission::{Admission, Permit};
use super::connection::{self, Peer};
use super::http::Workers;
use super::proxy::{self, NoClient};
use super::stream::Stream;
use crate::config::listener::{Listener, Protocol, Role};
use crate::doors::Roles;
use crate::sessions::Sessions;
use crate::sessions::open::Terms;
use crate::telemetry::metrics::Turned;
use crate::tls::Tls;

/// One listener, open.
pub struct Door {
    config: Listener,
    sessions: Arc<Sessions>,
    limits: Arc<session::Limits>,
    admission: Arc<Admission>,
    dialects: Arc<[Dialect]>,
    tls: Option<Tls>,
    workers: Workers,
    /// Whether the node takes no more connections.
    stopped: watch::Receiver<bool>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Door {
    #[must_use]
    pub fn new(
        config: Listener,
        sessions: Arc<Sessions>,
        node_connections: Arc<Admission>,
        tls: Option<Tls>,
        workers: Workers,
        stopped: watch::Receiver<bool>,
    ) -> Arc<Door> {
        let packet_bytes_max = config.packet_bytes_max.as_u32();
        let limits = Arc::new(session::Limits { packet_bytes_max, ..sessions.limits().clone() });
        let admission = Admission::within(node_connections, config.connections_max, config.connect_rate_max);
        let dialects = config.dialects().into();
        Arc::new(Door { config, sessions, limits, admission, dialects, tls, workers, stopped })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout.duration()
    }

    /// What is served over HTTP.
    #[must_use]
    pub fn roles(&self) -> Roles {
        let has = |role| self.config.roles.contains(&role);
        Roles { device_auth: has(Role::DeviceAuth), api: has(Role::Api), console: has(Role::Console) }
    }

    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    #[must_use]
    pub fn packet_bytes_max(&self) -> u32 {
        self.limits.packet_bytes_max
    }

    /// What holds for a client that comes in here.
    pub(super) fn terms(&self, peer: &Peer, by: Instant) -> Terms {
        Terms {
            limits: self.limits.clone(),
            oversize: self.config.oversize.policy(),
            dialects: self.dialects.clone(),
            peer: peer.address,
            by,
            encrypted: peer.encrypted,
            host: peer.host.clone(),
            chain: peer.chain.clone(),
            authorities: self.tls.as_ref().and_then(|tls| tls.now().authorities.clone()),
        }
    }

    /// Whether a connection may come in, as far as its socket tells: of one that a balancer makes, [`Door::behind`] says the
    /// rest once it is known whose it is.
    fn let_in(&self, from: IpAddr) -> Result<Permit, Turned> {
        match &self.config.proxy {
            None => {
                self.not_banned(from)?;
                self.admission.admit()
            }
            Some(proxy) if proxy.trusts(from) => self.admission.hold(),
            Some(_) => Err(Turned::ProxyUntrusted),
        }
    }

    /// Whose connection it is that comes from `balancer`, and whether that client may come in. A balancer that only looks
    /// whether the port is open does not count as a new connection.
    async fn behind(
        &self,
        socket: &mut TcpStream,
        balancer: SocketAddr,
        required: bool,
    ) -> Result<SocketAddr, NoClient> {
        let client = proxy::client(socket, balancer, required).await?;
        let may = self.not_banned(client.ip()).and_then(|()| self.admission.pace());
        may.map(|()| client).map_err(NoClient::Turned)
    }

    fn not_banned(&self, address: IpAddr) -> Result<(), Turned> {
        if self.sessions.dispatch().address_banned(address) { Err(Turned::Banned) } else { Ok(()) }
    }

    /// Whether the node takes no more connections, as it changes.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    pub(super) fn turned_away(&self, why: Turned) {
        self.sessions.dispatch().metrics().turned_away(self.name(), why);
    }
}

/// Binds a listener's socket.
///
/// # Errors
/// Whatever the system says; the caller adds which listener it was.
pub fn bind(config: &Listener) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(config.address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if config.address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&config.address.into())?;
    socket.listen(i32::try_from(config.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the node takes no more connections.
pub async fn run(door: Arc<Door>, listener: TcpListener) {
    let mut stopped = door.stopped();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((socket, peer)) => match door.let_in(peer.ip()) {
                Ok(permit) => {
                    tokio::spawn(welcome(door.clone(), socket, peer, permit));
                }
                Err(why) => door.turned_away(why),
            },
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog. Accepting at once again would spin.
                tracing::warn!(listener = door.name(), %error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn welcome(door: Arc<Door>, mut socket: TcpStream, mut address: SocketAddr, permit: Permit) {
    let connect_by = Instant::now() + door.config.connect_timeout.duration();
    if let Err(error) = set_options(&socket, &door.config) {
        tracing::debug!(listener = door.name(), peer = %address, %error, "socket options not set");
        return;
    }
    if let Some(proxy) = &door.config.proxy {
        let client = Box::pin(door.behind(&mut socket, address, proxy.required));
        address = match tokio::time::timeout_at(connect_by, client).await {
            Ok(Ok(client)) => client,
            Ok(Err(NoClient::Check)) => {
                tracing::debug!(listener = door.name(), balancer = %address, "a check of the port");
                return;
            }
            Ok(Err(NoClient::Turned(why))) => return door.turned_away(why),
            Err(_) => return door.turned_away(Turned::NoConnect),
        };
    }
    // In a box of its own: the handshakes are large, and over when the connection idles.
    match Box::pin(tokio::time::timeout_at(connect_by, tell_apart(&door, socket, address))).await {
        Ok(Ok((stream, peer, Speaks::Mqtt))) => {
            connection::serve(stream, &door, peer, connect_by).await;
            drop(permit);
        }
        Ok(Ok((stream, peer, Speaks::Http))) => {
            door.workers.hand_over(stream, door.clone(), peer, connect_by, permit);
        }
        Ok(Err(turned)) => door.turned_away(turned),
        Err(_) => door.turned_away(Turned::NoConnect),
    }
}

enum Speaks {
    Mqtt,
    Http,
}

const TLS_HANDSHAKE: u8 = 0x16;
const MQTT_CONNECT: u8 = 0x10;

/// Completes TLS where there is any, and finds out what is spoken inside.
async fn tell_apart(door: &Door, socket: TcpStream, address: SocketAddr) -> Result<(Stream, Peer, Speaks), Turned> {
    let auto = door.config.protocol == Protocol::Auto;
    let encrypted = match (&door.tls, auto) {
        (None, _) => false,
        (Some(_), false) => true,
        (Some(_), true) => {
            let mut first = [0u8];
            socket.peek(&mut first).await.is_ok_and(|count| count == 1) && first[0] == TLS_HANDSHAKE
        }
    };
    let mut peer = Peer { address, encrypted, host: None, chain: None };
    let mut stream = match (&door.tls, encrypted) {
        (Some(tls), true) => {
            let acceptor = TlsAcceptor::from(tls.now().server.clone());
            let stream = acceptor.accept(socket).await.map_err(|error| {
                tracing::debug!(listener = door.name(), %error, "TLS handshake failed");
                Turned::TlsFailed
            })?;
            let tls = stream.get_ref().1;
            peer.host = tls.server_name().map(Into::into);
            peer.chain =
                tls.peer_certificates().map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
            Stream::tls(stream)
        }
        _ => Stream::tcp(socket),
    };
    let speaks = match door.config.protocol {
        Protocol::Mqtt => Speaks::Mqtt,
        Protocol::Ws | Protocol::Http => Speaks::Http,
        Protocol::Auto => match stream.sniff().await {
            Ok(MQTT_CONNECT) => Speaks::Mqtt,
            Ok(first) if first.is_ascii_uppercase() => Speaks::Http,
            _ => return Err(Turned::NotMqtt),
        },
    };
    Ok((stream, peer, speaks))
}

fn set_options(socket: &TcpStream, config: &Listener) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    let idle = config.tcp_keepalive.duration();
    if !idle.is_zero() {
        let interval = (idle / 4).max(Duration::from_secs(1));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(4))?;
    }
    let unacknowledged = config.tcp_user_timeout.duration();
    if !unacknowledged.is_zero() {
        socket.set_tcp_user_timeout(Some(unacknowledged))?;
    }
    Ok(())
}
