//! A TCP proxy that does to connections what networks do: delays, losses, silence, cuts. One for each direction in which a
//! pair of nodes dials, so that any set of links can fail by itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes of one read.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that wait for their delay to pass.
const CHUNKS_MAX: usize = 64;

/// Between two tries to listen again where nobody was let in.
const REBIND_WAIT: Duration = Duration::from_millis(20);

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// Everything takes so long, each way.
    Latency(Duration),
    /// Nothing passes, and the sender notices nothing but that: the network is away. Once healed all arrives, as TCP
    /// sends again.
    Stalled,
    /// Half open: connections are accepted, what is sent is taken, and nothing is ever forwarded. They end when it is
    /// healed.
    HalfOpen,
    /// Each chunk is lost with this chance, in percent: what arrives is no longer what was sent.
    Drop(u8),
    /// Connections are closed, and new ones refused.
    Cut,
}

/// See the module. Dropped, it and its connections are gone.
pub struct Proxy {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens on a port of its own, and forwards to `target`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(target: SocketAddr) -> Result<Proxy> {
        let port = crate::harness::free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let (fault, faults) = watch::channel(Fault::None);
        let (target, targets) = watch::channel(target);
        let task = tokio::spawn(listen(listener, address, targets, faults));
        Ok(Proxy { address, target, fault, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards new connections to another address from here on.
    pub fn aim(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    #[must_use]
    pub fn fault(&self) -> Fault {
        *self.fault.borrow()
    }
}

async fn listen(
    listener: TcpListener,
    address: SocketAddr,
    targets: watch::Receiver<SocketAddr>,
    mut faults: watch::Receiver<Fault>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *faults.borrow_and_update() == Fault::Cut {
            listener = None;
            connections.shutdown().await;
            if faults.wait_for(|fault| *fault != Fault::Cut).await.is_err() {
                return;
            }
        }
        let Some(listening) = &listener else {
            match TcpListener::bind(address).await {
                Ok(again) => listener = Some(again),
                Err(_) => sleep(REBIND_WAIT).await,
            }
            continue;
        };
        tokio::select! {
            accepted = listening.accept() => {
                if let Ok((stream, _)) = accepted {
                    let target = *targets.borrow();
                    connections.spawn(carry(stream, target, faults.clone()));
                }
            }
            changed = faults.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either side or a fault ends it.
async fn carry(near: TcpStream, target: SocketAddr, mut faults: watch::Receiver<Fault>) {
    // A network that is away answers no SYN either; the dialler believes it is connected, and hears nothing.
    if faults.wait_for(|fault| *fault != Fault::Stalled).await.is_err() {
        return;
    }
    let swallowed = *faults.borrow() == Fault::HalfOpen;
    let far = if swallowed { None } else { TcpStream::connect(target).await.ok() };
    let Some(far) = far else {
        if swallowed {
            let _ = swallow(near, faults).await;
        }
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let faults_back = faults.clone();
    tokio::select! {
        _ = pass(near_in, far_out, faults) => {}
        _ = pass(far_in, near_out, faults_back) => {}
    }
}

/// Takes everything, until the fault ends.
async fn swallow(mut stream: impl AsyncRead + Unpin, mut faults: watch::Receiver<Fault>) -> io::Result<()> {
    let mut chunk = BytesMut::new();
    loop {
        chunk.clear();
        chunk.reserve(CHUNK_BYTES);
        tokio::select! {
            read = stream.read_buf(&mut chunk) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            healed = faults.wait_for(|fault| *fault != Fault::HalfOpen) => {
                return healed.map(drop).map_err(io::Error::other);
            }
        }
    }
}

/// One direction of a connection. Ends with it, or with a fault that leaves it useless.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    mut faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    let (into, chunks) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let reading = async move {
        let mut chunk = BytesMut::new();
        loop {
            chunk.reserve(CHUNK_BYTES);
            let read = tokio::select! {
                read = from.read_buf(&mut chunk) => read?,
                changed = faults.changed() => {
                    changed.map_err(io::Error::other)?;
                    // Nothing more is read while the network is away.
                    faults.wait_for(|fault| *fault != Fault::Stalled).await.map_err(io::Error::other)?;
                    if *faults.borrow() == Fault::HalfOpen {
                        return swallow(from, faults).await;
                    }
                    continue;
                }
            };
            if read == 0 {
                return Ok(());
            }
            // What was read as the fault began has to wait too.
            let fault = *faults.wait_for(|fault| *fault != Fault::Stalled).await.map_err(io::Error::other)?;
            let chunk = chunk.split().freeze();
            let delay = match fault {
                Fault::Latency(delay) => delay,
                Fault::HalfOpen => return swallow(from, faults).await,
                Fault::Drop(percent) if rand::rng().random_range(0..100) < percent => continue,
                Fault::None | Fault::Drop(_) | Fault::Stalled | Fault::Cut => Duration::ZERO,
            };
            if into.send((Instant::now() + delay, chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = write(to, chunks);
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

async fn write(mut to: impl AsyncWrite + Unpin, mut chunks: mpsc::Receiver<(Instant, Bytes)>) -> io::Result<()> {
    while let Some((due, chunk)) = chunks.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

/// Proxies between all nodes: the one for each (dialler, dialled).
#[derive(Default)]
pub struct Links(std::collections::BTreeMap<(usize, usize), Arc<Proxy>>);

impl Links {
    /// Puts a proxy in front of `address`, which node `to` listens on, for node `from`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn add(&mut self, from: usize, to: usize, address: SocketAddr) -> Result<SocketAddr> {
        let proxy = Proxy::start(address).await?;
        let address = proxy.address();
        self.0.insert((from, to), Arc::new(proxy));
        Ok(address)
    }

    /// Between these two, whoever dials.
    pub fn set_pair(&self, one: usize, other: usize, fault: Fault) {
        self.set(one, other, fault);
        self.set(other, one, fault);
    }

    /// Where `from` dials `to`.
    pub fn set(&self, from: usize, to: usize, fault: Fault) {
        if let Some(proxy) = self.0.get(&(from, to)) {
            proxy.set(fault);
        }
    }

    /// Where node `to` is found by all others from here on, at the name that they know it by.
    pub fn aim(&self, to: usize, address: SocketAddr) {
        let towards = self.0.iter().filter(|((_, dialled), _)| *dialled == to);
        towards.for_each(|(_, proxy)| proxy.aim(address));
    }

    /// Between each of these and each of the others.
    pub fn part(&self, these: &[usize], fault: Fault) {
        for ((from, to), proxy) in &self.0 {
            if these.contains(from) != these.contains(to) {
                proxy.set(fault);
            }
        }
    }

    /// All links.
    pub fn set_all(&self, fault: Fault) {
        self.0.values().for_each(|proxy| proxy.set(fault));
    }

    /// No fault anywhere.
    pub fn heal(&self) {
        self.set_all(Fault::None);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const QUIET: Duration = Duration::from_millis(60);

    /// A server that says everything again, a proxy before it, and a connection through it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    /// What comes back of `text`; `None` if nothing does for a moment.
    async fn says(stream: &mut TcpStream, text: &str) -> Option<String> {
        stream.write_all(text.as_bytes()).await.ok()?;
        heard(stream, text.len(), SOON).await
    }

    async fn heard(stream: &mut TcpStream, count: usize, deadline: Duration) -> Option<String> {
        let mut back = vec![0; count];
        let read = tokio::time::timeout(deadline, stream.read_exact(&mut back)).await;
        read.ok()?.ok().map(|_| String::from_utf8(back).unwrap())
    }

    #[tokio::test]
    async fn without_a_fault_all_passes_and_latency_delays_it() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(says(&mut stream, "hello").await.as_deref(), Some("hello"));
        proxy.set(Fault::Latency(Duration::from_millis(80)));
        let begun = Instant::now();
        assert_eq!(says(&mut stream, "slow").await.as_deref(), Some("slow"));
        assert!(begun.elapsed() >= Duration::from_millis(160), "both ways: {:?}", begun.elapsed());
        let large = "x".repeat(1_000_000);
        proxy.set(Fault::None);
        let (mut from, mut to) = stream.split();
        let mut back = vec![0; large.len()];
        let (written, read) = tokio::join!(to.write_all(large.as_bytes()), from.read_exact(&mut back));
        assert!(written.is_ok() && read.is_ok() && back == large.as_bytes());
    }

    #[tokio::test]
    async fn what_stalls_arrives_later() {
        let (proxy, mut stream) = echo().await;
        assert!(says(&mut stream, "a").await.is_some());
        proxy.set(Fault::Stalled);
        stream.write_all(b"later").await.unwrap();
        assert_eq!(heard(&mut stream, 5, QUIET).await, None);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        second.write_all(b"too").await.unwrap();
        proxy.set(Fault::None);
        assert_eq!(heard(&mut stream, 5, SOON).await.as_deref(), Some("later"));
        assert_eq!(heard(&mut second, 3, SOON).await.as_deref(), Some("too"));
    }

    #[tokio::test]
    async fn half_open_takes_and_gives_nothing_until_it_ends() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Fault::HalfOpen);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        for stream in [&mut stream, &mut second] {
            stream.write_all(&vec![0; 3_000_000]).await.unwrap();
            assert_eq!(heard(stream, 1, QUIET).await, None);
        }
        proxy.set(Fault::None);
        for mut stream in [stream, second] {
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "still open");
        }
    }

    #[tokio::test]
    async fn a_cut_closes_and_refuses_until_it_is_healed() {
        let (proxy, mut stream) = echo().await;
        assert!(says(&mut stream, "a").await.is_some());
        proxy.set(Fault::Cut);
        let ended = tokio::time::timeout(SOON, stream.read(&mut [0])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
        let refused = async || TcpStream::connect(proxy.address()).await.is_err().then_some(());
        crate::wait_for("a refusal", SOON, refused).await.unwrap();
        proxy.set(Fault::None);
        let again = async || TcpStream::connect(proxy.address()).await.ok();
        let mut stream = crate::wait_for("a connection", SOON, again).await.unwrap();
        assert!(says(&mut stream, "back").await.is_some());
    }

    #[tokio::test]
    async fn dropped_chunks_are_gone() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Fault::Drop(100));
        stream.write_all(b"gone").await.unwrap();
        assert_eq!(heard(&mut stream, 1, QUIET).await, None);
        proxy.set(Fault::None);
        assert_eq!(says(&mut stream, "next").await.as_deref(), Some("next"));
    }

    #[tokio::test]
    async fn links_fail_by_pairs_and_sides() {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let mut links = Links::default();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            links.add(from, to, nobody).await.unwrap();
        }
        let cut = |links: &Links| {
            let cut = links.0.iter().filter(|(_, proxy)| proxy.fault() == Fault::Cut);
            cut.map(|(link, _)| *link).collect::<Vec<_>>()
        };
        links.part(&[1], Fault::Cut);
        assert_eq!(cut(&links), [(0, 1), (1, 0), (1, 2), (2, 1)]);
        links.heal();
        links.set_pair(0, 2, Fault::Cut);
        assert_eq!(cut(&links), [(0, 2), (2, 0)]);
    }
}
