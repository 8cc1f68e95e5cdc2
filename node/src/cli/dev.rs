//! `fulmar dev`: a cluster on this machine, each node a process of its own, with certificates and credentials that are
//! made for the occasion, and every endpoint printed and written down.

mod fleet;
mod kit;
mod meter;
mod probe;
mod screen;
mod seed;
mod tour;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::ctl::contexts;
use super::ctl::failure::Failure;
use fleet::Fleet;
use probe::Watch;
use screen::Screen;

const BASE_PORT: u16 = 21_000;

/// Between the base ports of two nodes.
const PORTS_PER_NODE: u16 = 100;

/// Time for all nodes to become ready.
const READY: Duration = Duration::from_secs(25);

/// Time for nodes to leave before they are killed: their grace, and what they take beyond it.
const LEAVE: Duration = Duration::from_secs(20);

/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Nodes to run, as one cluster. Three stand the loss of one, five that of two.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Where certificates, configuration, data and endpoints.json go, and stay. Otherwise a new temporary directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address that all doors listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port from which each door's is counted: MQTT +1, MQTTS +2, WS +3, WSS +4, REST +5 (HTTPS +6), admin +7, peers +8,
    /// probes +9; and 100 more for each further node.
    #[arg(long, default_value_t = BASE_PORT, value_name = "PORT")]
    base_port: u16,
    /// Give node i the address 127.0.0.(1+i) and the default ports.
    #[arg(long, conflicts_with_all = ["host", "base_port"])]
    host_per_node: bool,
    /// Play no device: otherwise the one called `meter` is connected, and answers commands.
    #[arg(long)]
    no_meter: bool,
}

/// One node: where it listens and keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// From 0.
    index: u16,
    dir: PathBuf,
    mqtt: SocketAddr,
    mqtts: SocketAddr,
    ws: SocketAddr,
    wss: SocketAddr,
    rest: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    peer: SocketAddr,
    probes: SocketAddr,
    /// Ports that some SDKs know no other than: 80 for WebSocket and 443 for everything, where they may be opened.
    low: Vec<SocketAddr>,
}

impl Place {
    fn config(&self) -> PathBuf {
        self.dir.join("fulmar.toml")
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Every address with the name of its door.
    fn doors(&self) -> [(&'static str, SocketAddr); 9] {
        [
            ("mqtt", self.mqtt),
            ("mqtts", self.mqtts),
            ("ws", self.ws),
            ("wss", self.wss),
            ("rest", self.rest),
            ("https", self.https),
            ("admin", self.admin),
            ("peer", self.peer),
            ("probes", self.probes),
        ]
    }

    /// Takes the ports below 1024 that it may.
    fn open_low(&mut self) {
        for port in [80, 443] {
            let address = SocketAddr::new(self.mqtt.ip(), port);
            match std::net::TcpListener::bind(address) {
                Ok(_) => self.low.push(address),
                Err(error) => eprintln!("node {}: goes on without {address}: {error}", self.index),
            }
        }
    }

    /// # Errors
    /// An address of this node cannot be listened on.
    fn is_free(&self) -> anyhow::Result<()> {
        for (door, address) in self.doors() {
            std::net::TcpListener::bind(address)
                .with_context(|| format!("node {}: {door}-{} at {address}", self.index, address.port()))?;
        }
        Ok(())
    }
}

impl Options {
    /// The nodes, whose files are under `dir`.
    fn places(&self, dir: &Path) -> anyhow::Result<Vec<Place>> {
        ensure!(self.host.is_loopback(), "--host: {} is not a loopback address; use `fulmar serve`", self.host);
        (0..self.nodes)
            .map(|index| {
                let (host, ports) = if self.host_per_node {
                    // At most 32 nodes.
                    let last = u8::try_from(index + 1).unwrap_or(u8::MAX);
                    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), [1883, 8883, 8083, 8084, 8080, 8443, 9090, 7400, 9100])
                } else {
                    let high = || format!("--base-port: {} is too high for {} nodes", self.base_port, self.nodes);
                    let base = self.base_port.checked_add(index * PORTS_PER_NODE).with_context(high)?;
                    base.checked_add(9).with_context(high)?;
                    (self.host, [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|door| base + door))
                };
                let [mqtt, mqtts, ws, wss, rest, https, admin, peer, probes] =
                    ports.map(|port| SocketAddr::new(host, port));
                let dir = dir.join(format!("node-{index}"));
                Ok(Place { index, dir, mqtt, mqtts, ws, wss, rest, https, admin, peer, probes, low: Vec::new() })
            })
            .collect()
    }
}

/// Runs until Ctrl-C.
pub(super) fn run(options: Options) -> anyhow::Result<()> {
    // A mistake leaves no directory behind.
    options.places(Path::new(""))?;
    let dir = match &options.data_dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("--data-dir: cannot create {}", dir.display()))?;
            dir.canonicalize().with_context(|| format!("--data-dir: {}", dir.display()))?
        }
        None => temporary_dir()?,
    };
    let mut places = options.places(&dir)?;
    kit::fits(&dir, &places)?;
    // Before any node has begun something that could not be begun again elsewhere.
    places.iter().try_for_each(Place::is_free)?;
    if options.host_per_node {
        places.iter_mut().for_each(Place::open_low);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all_ours = runtime.block_on(supervise(&dir, &places, !options.no_meter))?;
    if options.data_dir.is_none() && all_ours {
        if let Ok(path) = context_file() {
            told(contexts::leave_dev(&path, &kit::context(&dir, &places)?));
        }
        // Best effort: a directory left behind in the temporary place harms nobody.
        let _ = fs::remove_dir_all(&dir);
    } else {
        println!("kept: {}", dir.display());
    }
    Ok(())
}

fn context_file() -> Result<PathBuf, Failure> {
    contexts::path(|name| std::env::var(name).ok())
}

/// Nodes serve as well without a context for `fulmar ctl`.
fn told(kept: Result<(), Failure>) {
    if let Err(failure) = kept {
        eprintln!("fulmar dev: `fulmar ctl` has no context for these nodes: {failure}");
    }
}

fn temporary_dir() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("fulmar-dev-{:08x}", rand::random::<u32>()));
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Ctrl-C, and what means the same: SIGTERM, and a terminal that is closed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl Signals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Returns whether every node was ended by us: one that was killed may have been started again by hand.
async fn supervise(dir: &Path, places: &[Place], plays: bool) -> anyhow::Result<bool> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: signal(SignalKind::hangup())?,
    };
    let kit = kit::prepare(dir, places)?;
    let mut fleet = Fleet::start(places)?;
    tokio::select! {
        ready = fleet.wait_until_ready(READY) => {
            if let Err((index, error)) = ready {
                fleet.kill();
                bail!("{error}{}", tail(&places[usize::from(index)]));
            }
        }
        () = signals.recv() => return stop(&mut fleet, &mut signals, &mut Screen::plain()).await,
    }
    let endpoints = kit.write_endpoints(dir, places, &fleet.pids())?;
    let context = kit::context(dir, places)?;
    told(context_file().and_then(|path| contexts::enter_dev(&path, context)));
    tour::print(&endpoints, places, &fleet.pids(), &kit);
    let _meter = plays.then(|| meter::play(places, kit.credentials.demo.meter()));
    let mut screen = Screen::open();
    let mut watch = Watch::start(places);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = signals.recv() => break,
            (began, sights) = watch.changed() => screen.show(began, &sights, &fleet.processes()),
            _ = ticks.tick() => {}
        }
        for (place, pid, status) in fleet.newly_ended() {
            screen.note_end(usize::from(place.index));
            screen.say(&format!(
                "node {} (pid {pid}) has ended: {status}. It stays down. Start it again with\n  {}",
                place.index,
                fleet::serve_command(&place)
            ));
        }
    }
    stop(&mut fleet, &mut signals, &mut screen).await
}

/// The last lines of a node's log.
fn tail(place: &Place) -> String {
    let log = fs::read_to_string(place.log()).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(10).collect();
    tail.into_iter().rev().map(|line| format!("\n  {line}")).collect()
}

/// Lets all nodes leave at the same time; another Ctrl-C kills them. Returns what [`supervise`] does.
async fn stop(fleet: &mut Fleet, signals: &mut Signals, screen: &mut Screen) -> anyhow::Result<bool> {
    let all_ours = fleet.all_run();
    let running = fleet.terminate();
    if !running.is_empty() {
        let which: Vec<String> = running.iter().map(|(index, pid)| format!("{index} (pid {pid})")).collect();
        let nodes = if which.len() == 1 { "node" } else { "nodes" };
        screen.close(&format!("stopping {nodes} {}; Ctrl-C again kills", which.join(", ")));
    }
    let by = Instant::now() + LEAVE;
    while !fleet.all_ended() {
        tokio::select! {
            () = signals.recv() => fleet.kill(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if Instant::now() > by {
            fleet.kill();
        }
    }
    Ok(all_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(nodes: u16) -> Options {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Options { nodes, data_dir: None, host, base_port: BASE_PORT, host_per_node: false, no_meter: true }
    }

    #[test]
    fn each_node_has_its_hundred_ports() {
        let places = options(3).places(Path::new("/d")).expect("they fit");
        let shown = |place: &Place| place.doors().map(|(_, address)| address.port());
        assert_eq!(shown(&places[0]), [21001, 21002, 21003, 21004, 21005, 21006, 21007, 21008, 21009]);
        assert_eq!(shown(&places[2]), [21201, 21202, 21203, 21204, 21205, 21206, 21207, 21208, 21209]);
        assert_eq!(places[2].config(), Path::new("/d/node-2/fulmar.toml"));
        assert!(places.iter().all(|place| place.mqtt.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn or_its_own_address() {
        let options = Options { host_per_node: true, ..options(3) };
        let places = options.places(Path::new("")).expect("they fit");
        assert_eq!(places[0].mqtt, "127.0.0.1:1883".parse().expect("an address"));
        assert_eq!(places[2].peer, "127.0.0.3:7400".parse().expect("an address"));
        assert_eq!(places[2].admin, "127.0.0.3:9090".parse().expect("an address"));
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        let options = Options { base_port: 65_400, ..options(3) };
        let error = options.places(Path::new("")).expect_err("too high").to_string();
        assert!(error.contains("--base-port") && error.contains("65400"), "{error}");
        assert!(Options { base_port: 65_526, ..self::options(1) }.places(Path::new("")).is_ok());
    }
}
