//! What nodes need before they start, written into the directory: certificates, credentials, and their configuration;
//! and `endpoints.json`, once they have.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use argon2::password_hash::{PasswordHasher, SaltString};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};

use super::Place;
use super::seed::{self, Secrets};
use crate::cli::ctl::contexts::Context;

/// The user name of clients that want one.
const USERNAME: &str = "demo";

/// Names that the servers' certificate is for: firmware of the four clouds asks for those of its vendor.
const NAMES: [&str; 14] = [
    "localhost",
    "*.iot-as-mqtt.cn-shanghai.aliyuncs.com",
    "*.iot-as-http2.cn-shanghai.aliyuncs.com",
    "*.mqtt.iothub.aliyuncs.com",
    "iot-auth.cn-shanghai.aliyuncs.com",
    "*.iotcloud.tencentdevices.com",
    "*.ap-guangzhou.iothub.tencentdevices.com",
    "*.iothub.tencentdevices.com",
    "*.gateway.tencentdevices.com",
    "*.iot-mqtts.cn-north-4.myhuaweicloud.com",
    "*.iotda-device.cn-north-4.myhuaweicloud.com",
    "iotda.cn-north-4.myhuaweicloud.com",
    "iot.sensoro.com",
    "*.sensoro.com",
];

/// What all nodes share.
pub(super) struct Kit {
    /// Certificate of the authority that signs every other.
    pub(super) ca: PathBuf,
    pub(super) credentials: Credentials,
}

/// Where `fulmar ctl` finds the nodes of a directory that was prepared.
pub(super) fn context(dir: &Path, places: &[Place]) -> anyhow::Result<Context> {
    Ok(Context {
        addresses: places.iter().map(|place| place.admin.to_string()).collect(),
        ca: Some(dir.join("tls/ca.crt")),
        token: Some(Credentials::load(dir)?.admin_token),
        ..Context::default()
    })
}

/// For clients that do not want to be anonymous, and for admins. Kept with the directory.
pub(super) struct Credentials {
    pub(super) username: &'static str,
    pub(super) password: String,
    admin_token: String,
    pub(super) demo: Secrets,
}

/// Whether nodes that kept data in the directory can start at these places.
///
/// # Errors
/// How they would.
pub(super) fn fits(dir: &Path, places: &[Place]) -> anyhow::Result<()> {
    let kept = |index: usize| dir.join(format!("node-{index}/data")).exists();
    let nodes = (0..).take_while(|index| kept(*index)).count();
    if nodes > places.len() {
        bail!("--data-dir: {} has the data of {nodes} nodes: use --nodes {nodes}", dir.display());
    }
    let Ok(text) = fs::read_to_string(dir.join("endpoints.json")) else { return Ok(()) };
    let endpoints: Value = serde_json::from_str(&text).unwrap_or_default();
    let known = |index: usize| endpoints["nodes"][index]["peer"].as_str();
    let moved = (0..nodes).find(|index| known(*index).is_some_and(|peer| peer != places[*index].peer.to_string()));
    if nodes > 1
        && let Some((index, peer)) = moved.and_then(|index| Some((index, known(index)?)))
    {
        bail!(
            "--data-dir: the nodes of {} know node {index} as {peer}, not as {}: use the ports and addresses that it \
             was made with",
            dir.display(),
            places[index].peer
        );
    }
    Ok(())
}

/// Writes everything but `endpoints.json`.
pub(super) fn prepare(dir: &Path, places: &[Place]) -> anyhow::Result<Kit> {
    for place in places {
        fs::create_dir_all(&place.dir).with_context(|| format!("cannot create {}", place.dir.display()))?;
    }
    let ca = certificates(dir, places)?;
    let credentials = Credentials::load(dir)?;
    let hash = credentials.hash()?;
    write_private(&dir.join("registry.toml"), &credentials.demo.import())?;
    for place in places {
        write_private(&place.config(), &config(dir, place, places, &credentials, &hash))?;
    }
    Ok(Kit { ca, credentials })
}

impl Kit {
    /// Says where everything is. `pids`: the process of each node.
    pub(super) fn write_endpoints(&self, dir: &Path, places: &[Place], pids: &[u32]) -> anyhow::Result<PathBuf> {
        let node = |(place, pid): (&Place, &u32)| {
            json!({
                "node": place.index,
                "pid": pid,
                "config": place.config(),
                "data_dir": place.data_dir(),
                "mqtt": place.mqtt,
                "mqtts": place.mqtts,
                "ws": place.ws,
                "wss": place.wss,
                "rest": place.rest,
                "https": place.https,
                "admin": place.admin,
                "peer": place.peer,
                "probes": place.probes,
            })
        };
        let endpoints = json!({
            "version": 1,
            "ca": self.ca,
            "nodes": places.iter().zip(pids).map(node).collect::<Vec<Value>>(),
            "credentials": self.credentials.shown(),
        });
        let path = dir.join("endpoints.json");
        write_private(&path, &format!("{endpoints:#}\n"))?;
        Ok(path)
    }
}

impl Credentials {
    /// Those of an earlier run in the same directory, and new ones for what that lacks.
    fn load(dir: &Path) -> anyhow::Result<Credentials> {
        let path = dir.join("credentials.json");
        let known: Value = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?,
            Err(_) => Value::Null,
        };
        let kept = |value: &Value| value.as_str().map(str::to_owned);
        let credentials = Credentials {
            username: USERNAME,
            password: kept(&known["generic"]["password"]).unwrap_or_else(|| format!("{:016x}", rand::random::<u64>())),
            admin_token: kept(&known["admin"]["token"]).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())),
            demo: Secrets::load(&known),
        };
        let mut kept = credentials.common();
        kept["demo"] = credentials.demo.json();
        write_private(&path, &format!("{kept:#}\n"))?;
        Ok(credentials)
    }

    fn common(&self) -> Value {
        json!({
            "generic": { "username": self.username, "password": self.password },
            "admin": { "token": self.admin_token },
        })
    }

    /// For endpoints.json.
    fn shown(&self) -> Value {
        let mut shown = self.common();
        shown["rest"] = self.demo.rest();
        shown["application"] = self.demo.application();
        shown["devices"] = self.demo.devices().into();
        shown
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
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// An authority that is kept from run to run, and what it signs for this one: a certificate for clients and admins, and
/// one for each node to show to the others. Returns the authority's path.
fn certificates(dir: &Path, places: &[Place]) -> anyhow::Result<PathBuf> {
    let tls = dir.join("tls");
    fs::create_dir_all(&tls).with_context(|| format!("cannot create {}", tls.display()))?;
    let (ca_path, key_path) = (tls.join("ca.crt"), tls.join("ca.key"));
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "fulmar dev CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = match fs::read_to_string(&key_path) {
        Ok(pem) if ca_path.exists() => KeyPair::from_pem(&pem).with_context(|| key_path.display().to_string())?,
        _ => {
            let key = KeyPair::generate()?;
            write_private(&key_path, &key.serialize_pem())?;
            fs::write(&ca_path, params.self_signed(&key)?.pem())?;
            key
        }
    };
    let ca = Issuer::new(params, key);
    let mut hosts: Vec<IpAddr> = places.iter().map(|place| place.mqtt.ip()).collect();
    hosts.push(Ipv4Addr::LOCALHOST.into());
    hosts.sort_unstable();
    hosts.dedup();
    sign(&ca, "fulmar dev", &NAMES, &hosts, &tls.join("server"))?;
    for place in places {
        let name = format!("fulmar dev node {}", place.index);
        sign(&ca, &name, &[], &[place.peer.ip()], &place.dir.join("peer"))?;
    }
    Ok(ca_path)
}

/// Writes `BASE.crt` and `BASE.key`.
fn sign(ca: &Issuer<'_, KeyPair>, name: &str, names: &[&str], hosts: &[IpAddr], base: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names.extend(hosts.iter().map(|host| SanType::IpAddress(*host)));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    write_private(&base.with_extension("key"), &key.serialize_pem())?;
    let path = base.with_extension("crt");
    fs::write(&path, certificate.pem()).with_context(|| format!("cannot write {}", path.display()))
}

/// The configuration of one node of these.
fn config(dir: &Path, place: &Place, places: &[Place], credentials: &Credentials, hash: &str) -> String {
    let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
    let (ca, cert, key) =
        (quoted(dir.join("tls/ca.crt")), quoted(dir.join("tls/server.crt")), quoted(dir.join("tls/server.key")));
    let (peer_cert, peer_key) = (quoted(place.dir.join("peer.crt")), quoted(place.dir.join("peer.key")));
    let mut text = format!("# Written by `fulmar dev`.\n\n[node]\ndata_dir = {}\n", quoted(place.data_dir()));
    text.push_str("\n[cluster]\n");
    if places.len() == 1 {
        text.push_str("bootstrap = \"single\"\n");
    } else {
        let peers: Vec<String> = places.iter().map(|place| format!("\"{}\"", place.peer)).collect();
        text.push_str(&format!("bootstrap = \"join\"\npeers = [{}]\nexpected = {}\n", peers.join(", "), places.len()));
    }
    text.push_str(&format!(
        "listen = \"{}\"\ntls = {{ ca = {ca}, cert = {peer_cert}, key = {peer_key} }}\n",
        place.peer
    ));
    let mut listener = |protocol: &str, address: SocketAddr, tls: bool, roles: &str| {
        text.push_str(&format!("\n[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\n"));
        if !roles.is_empty() {
            text.push_str(&format!("roles = [{roles}]\n"));
        }
        if tls {
            text.push_str(&format!("tls = {{ cert = {cert}, key = {key}, client_auth = \"device\" }}\n"));
        }
    };
    match place.mqtt.port() {
        // Aliyun's SDKs know no other port, for TLS either.
        1883 => listener("auto", place.mqtt, true, ""),
        _ => listener("mqtt", place.mqtt, false, ""),
    }
    listener("mqtt", place.mqtts, true, "");
    listener("ws", place.ws, false, "");
    listener("ws", place.wss, true, "");
    listener("http", place.rest, false, "\"api\", \"console\"");
    listener("http", place.https, true, "\"device_auth\", \"api\", \"console\"");
    for address in &place.low {
        match address.port() {
            80 => listener("ws", *address, false, "\"device_auth\""),
            _ => listener("auto", *address, true, "\"device_auth\""),
        }
    }
    text.push_str(&format!(
        "\n[rest]\nproject_id = \"{}\"\n# Tests that guess wrong on purpose all come from one address.\n\
         sign_in_failures_max = 100\nroot_certificate = {ca}\n\n[registry]\nimport = {}\n",
        seed::PROJECT,
        quoted(dir.join("registry.toml"))
    ));
    text.push_str(&format!("\n[probes]\naddress = \"{}\"\n", place.probes));
    text.push_str(&format!(
        "\n[admin]\naddress = \"{}\"\ntoken = \"{}\"\ntls = {{ cert = {cert}, key = {key} }}\n",
        place.admin, credentials.admin_token
    ));
    text.push_str(&format!(
        "\n[auth]\nanonymous = \"allow\"\n\n[[auth.user]]\nusername = \"{}\"\npassword_hash = \"{hash}\"\n",
        credentials.username
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::config::Loaded;
    use crate::config::cluster::Bootstrap;

    fn places(dir: &Path, nodes: u16) -> Vec<Place> {
        let options = Options {
            nodes,
            data_dir: None,
            host: Ipv4Addr::LOCALHOST.into(),
            base_port: 21_000,
            host_per_node: false,
            no_meter: true,
        };
        options.places(dir).expect("they fit")
    }

    #[test]
    fn what_is_written_is_a_configuration_with_all_its_files() {
        for nodes in [1, 3] {
            let dir = tempfile::tempdir().expect("a directory");
            let places = places(dir.path(), nodes);
            prepare(dir.path(), &places).expect("written");
            for place in &places {
                let loaded = Loaded::load(Some(&place.config()), std::iter::empty(), &[]).expect("a configuration");
                loaded.check_files().expect("files that fit together");
                let cluster = &loaded.config.cluster;
                assert_eq!(cluster.listen, Some(place.peer));
                let (bootstrap, peers) = if nodes == 1 { (Bootstrap::Single, 0) } else { (Bootstrap::Join, 3) };
                assert_eq!((cluster.bootstrap, cluster.peers.len()), (bootstrap, peers));
                assert_eq!(cluster.expected, u32::from(nodes));
                assert_eq!(loaded.config.admin.address, Some(place.admin));
            }
        }
    }

    #[test]
    fn authority_and_credentials_are_kept_and_a_cluster_can_grow() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect("written");
        prepare(dir.path(), &places(dir.path(), 1)).expect("written");
        let before = (read("tls/ca.crt"), read("credentials.json"));
        prepare(dir.path(), &places(dir.path(), 3)).expect("written");
        assert_eq!((read("tls/ca.crt"), read("credentials.json")), before);
        let loaded = Loaded::load(Some(&dir.path().join("node-2/fulmar.toml")), std::iter::empty(), &[]);
        loaded.expect("a configuration").check_files().expect("files that fit together");
    }

    #[test]
    fn a_directory_is_not_used_with_fewer_nodes_or_other_addresses() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = places(dir.path(), 3);
        assert!(fits(dir.path(), &made).is_ok());
        let kit = prepare(dir.path(), &made).expect("written");
        for place in &made {
            fs::create_dir_all(place.data_dir()).expect("a directory");
        }
        kit.write_endpoints(dir.path(), &made, &[1, 2, 3]).expect("written");
        assert!(fits(dir.path(), &made).is_ok() && fits(dir.path(), &places(dir.path(), 5)).is_ok());
        let error = fits(dir.path(), &places(dir.path(), 1)).expect_err("fewer").to_string();
        assert!(error.contains("--nodes 3"), "{error}");
        let mut moved = made.clone();
        moved[1].peer = "127.0.0.1:30000".parse().expect("an address");
        let error = fits(dir.path(), &moved).expect_err("moved").to_string();
        assert!(error.contains("node 1") && error.contains("127.0.0.1:21108"), "{error}");
    }
}
