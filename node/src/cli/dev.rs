//! `fulmar dev`: a node on this machine as a process of its own, with certificates and credentials that are made for
//! the occasion, and every endpoint printed and written down.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use argon2::password_hash::{PasswordHasher, SaltString};
use clap::Args;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustix::process::{Pid, Signal as ProcessSignal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

const BASE_PORT: u16 = 21_000;

/// Ports of a node from its base.
const MQTT: u16 = 1;
const MQTTS: u16 = 2;
const WS: u16 = 3;
const WSS: u16 = 4;
const PROBES: u16 = 9;

/// Time for the node to become ready.
const READY: Duration = Duration::from_secs(20);

/// Time beyond the node's own grace before it is killed.
const LEAVE: Duration = Duration::from_secs(12);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Nodes to run. This version runs one.
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: u16,
    /// Where certificates, configuration, data and endpoints.json go, and stay. Otherwise a new temporary directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address that all doors listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port from which each door's is counted: MQTT +1, MQTTS +2, WS +3, WSS +4, probes +9.
    #[arg(long, default_value_t = BASE_PORT, value_name = "PORT")]
    base_port: u16,
    /// Give node i the address 127.0.0.(1+i) and the default ports.
    #[arg(long, conflicts_with_all = ["host", "base_port"])]
    host_per_node: bool,
}

struct Ports {
    host: IpAddr,
    mqtt: u16,
    mqtts: u16,
    ws: u16,
    wss: u16,
    probes: u16,
}

impl Options {
    fn ports(&self) -> anyhow::Result<Ports> {
        if self.host_per_node {
            let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
            return Ok(Ports { host, mqtt: 1883, mqtts: 8883, ws: 8083, wss: 8084, probes: 9100 });
        }
        ensure!(self.host.is_loopback(), "--host: {} is not a loopback address; use `fulmar serve`", self.host);
        let port = |offset: u16| {
            self.base_port.checked_add(offset).with_context(|| format!("--base-port: {} is too high", self.base_port))
        };
        Ok(Ports {
            host: self.host,
            mqtt: port(MQTT)?,
            mqtts: port(MQTTS)?,
            ws: port(WS)?,
            wss: port(WSS)?,
            probes: port(PROBES)?,
        })
    }
}

/// Runs until Ctrl-C.
pub(super) fn run(options: Options) -> anyhow::Result<()> {
    ensure!(options.nodes == 1, "--nodes: {} is not possible: this version runs single nodes", options.nodes);
    let ports = options.ports()?;
    let dir = match &options.data_dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("--data-dir: cannot create {}", dir.display()))?;
            dir.canonicalize().with_context(|| format!("--data-dir: {}", dir.display()))?
        }
        None => temporary_dir()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(supervise(&dir, &ports))?;
    if options.data_dir.is_none() && ended == Ended::ByUs {
        // Best effort: a directory left behind in the temporary place harms nobody.
        let _ = fs::remove_dir_all(&dir);
    } else {
        println!("kept: {}", dir.display());
    }
    Ok(())
}

/// How the node that we started came to its end. One that was killed may have been started again by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByUs,
    ByItself,
}

fn temporary_dir() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("fulmar-dev-{:08x}", rand::random::<u32>()));
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

async fn supervise(dir: &Path, ports: &Ports) -> anyhow::Result<Ended> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ca = certificates(dir, ports.host)?;
    let credentials = Credentials::load(dir)?;
    let config = write_config(dir, ports, &credentials)?;
    let mut node = start(dir, &config)?;
    let pid = node.id();
    if let Err(error) = wait_until_ready(&mut node, ports).await {
        stop(&mut node, ProcessSignal::KILL);
        let log = fs::read_to_string(dir.join("node-0/log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        let tail: String = tail.into_iter().rev().map(|line| format!("\n  {line}")).collect();
        bail!("{error:#}{tail}");
    }
    let endpoints = write_endpoints(dir, ports, pid, &config, &ca, &credentials)?;
    print_tour(&endpoints, ports, pid, &config, &ca, &credentials);
    let mut node = Some(node);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(200)), if node.is_some() => {}
        }
        if let Some(status) = node.as_mut().and_then(|node| node.try_wait().ok().flatten()) {
            println!("node 0 (pid {pid}) has ended: {status}. It stays down. Start it again with");
            println!("  {}", serve_command(&config));
            node = None;
        }
    }
    let Some(mut node) = node else { return Ok(Ended::ByItself) };
    println!("stopping node 0 (pid {pid}); Ctrl-C again kills it");
    stop(&mut node, ProcessSignal::TERM);
    let by = Instant::now() + LEAVE;
    while node.try_wait()?.is_none() {
        tokio::select! {
            _ = interrupt.recv() => stop(&mut node, ProcessSignal::KILL),
            _ = terminate.recv() => stop(&mut node, ProcessSignal::KILL),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if Instant::now() > by {
            stop(&mut node, ProcessSignal::KILL);
        }
    }
    Ok(Ended::ByUs)
}

fn stop(node: &mut Child, with: ProcessSignal) {
    if let Some(pid) = i32::try_from(node.id()).ok().and_then(Pid::from_raw) {
        // It may have ended in this moment.
        let _ = kill_process(pid, with);
    }
}

fn start(dir: &Path, config: &Path) -> anyhow::Result<Child> {
    let log = dir.join("node-0/log");
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        // Ctrl-C is for us to pass on.
        .process_group(0)
        .spawn()
        .context("cannot start a node")
}

fn serve_command(config: &Path) -> String {
    let program = std::env::current_exe().map_or_else(|_| "fulmar".into(), |path| path.display().to_string());
    format!("{program} serve --config {}", config.display())
}

async fn wait_until_ready(node: &mut Child, ports: &Ports) -> anyhow::Result<()> {
    let by = Instant::now() + READY;
    while Instant::now() < by {
        if let Some(status) = node.try_wait()? {
            bail!("the node did not start: {status}");
        }
        if ready(SocketAddr::new(ports.host, ports.probes)).await.unwrap_or(false) {
            // Another process may answer on that port while ours has failed to bind it.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(status) = node.try_wait()? {
                bail!("the node did not start: {status}");
            }
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the node was not ready within {} s", READY.as_secs())
}

async fn ready(probes: SocketAddr) -> std::io::Result<bool> {
    let mut socket = tokio::net::TcpStream::connect(probes).await?;
    socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut answer)).await??;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// A user for clients that want one; anonymous clients are allowed too.
struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    /// Those of an earlier run in the same directory, or new ones.
    fn load(dir: &Path) -> anyhow::Result<Credentials> {
        let path = dir.join("credentials.json");
        let username = "demo".to_owned();
        if let Ok(text) = fs::read_to_string(&path) {
            let known: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            if let Some(password) = known["generic"]["password"].as_str() {
                return Ok(Credentials { username, password: password.to_owned() });
            }
        }
        let credentials = Credentials { username, password: format!("{:016x}", rand::random::<u64>()) };
        write_private(&path, &format!("{:#}\n", credentials.json()))?;
        Ok(credentials)
    }

    fn json(&self) -> serde_json::Value {
        json!({ "generic": { "username": self.username, "password": self.password } })
    }

    fn hash(&self) -> anyhow::Result<String> {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|error| anyhow::anyhow!("{error}"))?;
        let hash = argon2::Argon2::default()
            .hash_password(self.password.as_bytes(), &salt)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(hash.to_string())
    }
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// An authority of our own and a server certificate for this machine; kept from run to run. Returns the authority's path.
fn certificates(dir: &Path, host: IpAddr) -> anyhow::Result<PathBuf> {
    let tls = dir.join("tls");
    fs::create_dir_all(&tls).with_context(|| format!("cannot create {}", tls.display()))?;
    let ca_path = tls.join("ca.crt");
    if ca_path.exists() && tls.join("server.crt").exists() && tls.join("server.key").exists() {
        return Ok(ca_path);
    }
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "fulmar dev CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "fulmar dev");
    server.subject_alt_names.push(SanType::IpAddress(host));
    if host != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    }
    let key = KeyPair::generate()?;
    let server = server.signed_by(&key, &ca)?;
    write_private(&tls.join("server.key"), &key.serialize_pem())?;
    fs::write(tls.join("server.crt"), server.pem())?;
    fs::write(&ca_path, ca.pem())?;
    Ok(ca_path)
}

fn write_config(dir: &Path, ports: &Ports, credentials: &Credentials) -> anyhow::Result<PathBuf> {
    let node = dir.join("node-0");
    fs::create_dir_all(&node).with_context(|| format!("cannot create {}", node.display()))?;
    let mut text = String::from("# Written by `fulmar dev`.\n");
    let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
    text.push_str(&format!("\n[node]\ndata_dir = {}\n", quoted(node.join("data"))));
    text.push_str("\n[cluster]\nbootstrap = \"single\"\n");
    for (protocol, port, tls) in
        [("mqtt", ports.mqtt, false), ("mqtt", ports.mqtts, true), ("ws", ports.ws, false), ("ws", ports.wss, true)]
    {
        let address = SocketAddr::new(ports.host, port);
        text.push_str(&format!("\n[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\n"));
        if tls {
            let (cert, key) = (quoted(dir.join("tls/server.crt")), quoted(dir.join("tls/server.key")));
            text.push_str(&format!("tls = {{ cert = {cert}, key = {key} }}\n"));
        }
    }
    text.push_str(&format!("\n[probes]\naddress = \"{}\"\n", SocketAddr::new(ports.host, ports.probes)));
    text.push_str(&format!(
        "\n[auth]\nanonymous = \"allow\"\n\n[[auth.user]]\nusername = \"{}\"\npassword_hash = \"{}\"\n",
        credentials.username,
        credentials.hash()?
    ));
    let path = node.join("fulmar.toml");
    write_private(&path, &text)?;
    Ok(path)
}

fn write_endpoints(
    dir: &Path,
    ports: &Ports,
    pid: u32,
    config: &Path,
    ca: &Path,
    credentials: &Credentials,
) -> anyhow::Result<PathBuf> {
    let at = |port: u16| SocketAddr::new(ports.host, port).to_string();
    let endpoints = json!({
        "version": 1,
        "ca": ca,
        "nodes": [{
            "node": 0,
            "pid": pid,
            "config": config,
            "data_dir": dir.join("node-0/data"),
            "mqtt": at(ports.mqtt),
            "mqtts": at(ports.mqtts),
            "ws": at(ports.ws),
            "wss": at(ports.wss),
            "rest": null,
            "https": null,
            "admin": null,
            "peer": null,
            "probes": at(ports.probes),
        }],
        "credentials": credentials.json(),
    });
    let path = dir.join("endpoints.json");
    write_private(&path, &format!("{endpoints:#}\n"))?;
    Ok(path)
}

fn print_tour(endpoints: &Path, ports: &Ports, pid: u32, config: &Path, ca: &Path, credentials: &Credentials) {
    let Ports { host, mqtt, mqtts, ws, wss, probes } = ports;
    println!("endpoints: {}", endpoints.display());
    println!();
    println!("node 0   pid {pid}   config {}", config.display());
    println!("  mqtt    {host}:{mqtt}");
    println!("  mqtts   {host}:{mqtts}   CA {}", ca.display());
    println!("  ws      ws://{host}:{ws}/mqtt");
    println!("  wss     wss://{host}:{wss}/mqtt");
    println!("  probes  http://{host}:{probes}/metrics");
    println!();
    println!("Clients may come without a name, or as {} with password {}.", credentials.username, credentials.password);
    println!("Try it from two other terminals:");
    println!("  mosquitto_sub -h {host} -p {mqtt} -t 'demo/#' -v");
    println!("  mosquitto_pub -h {host} -p {mqtt} -t demo/hello -m 'hello, fulmar' -q 1");
    println!();
    println!("Ctrl-C stops the node.");
}
