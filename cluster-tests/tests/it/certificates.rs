//! Certificates, keys, authorities and revocation lists that are replaced while nodes run: the certificate drill of the
//! runbook.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster_tests::admin::Admin;
use cluster_tests::client::{Options, Protocol};
use cluster_tests::harness::{DevOptions, Fulmar, TERM};
use cluster_tests::metrics::Metrics;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::{client::Client, wait_for};
use fulmar_mqtt::{Packet, ReasonCode, Version};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, crypto};

use crate::support::{SOON, Server};

const TOKEN: &str = "only-for-certificates";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Leaf {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// For loopback, and for so many days.
    fn leaf(&self, serial: u64, days: u32) -> Leaf {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - DAY).into(), (now + DAY * days).into());
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: signed.pem(), key: key.serialize_pem(), der: signed.der().clone() }
    }

    fn revokes(&self, serials: &[u64]) -> String {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (now - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Files as Kubernetes mounts a secret: each a link through `..data`, which is replaced as one.
struct Mount {
    dir: TempDir,
    version: u32,
}

const FILES: [&str; 4] = ["tls.crt", "tls.key", "ca.crt", "ca.crl"];

impl Mount {
    fn new(texts: [&str; 4]) -> Mount {
        let mut mount = Mount { dir: tempfile::tempdir().unwrap(), version: 0 };
        mount.swap(texts);
        for name in FILES {
            std::os::unix::fs::symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn swap(&mut self, texts: [&str; 4]) {
        self.version += 1;
        let version = format!("..{}", self.version);
        fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in FILES.into_iter().zip(texts) {
            fs::write(self.path(&version).join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }
}

/// Of one client, which keeps its sessions and resumes them.
fn client_config(ca: &str, own: Option<&Leaf>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(one.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
        }
    })
}

async fn handshake(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(address.ip());
    TlsConnector::from(client.clone()).connect(name, TcpStream::connect(address).await?).await
}

/// The certificate that is shown there.
async fn shown(address: SocketAddr, client: &Arc<ClientConfig>) -> Option<CertificateDer<'static>> {
    let stream = handshake(address, client).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().cloned()
}

async fn shows(address: SocketAddr, client: &Arc<ClientConfig>, wanted: &Leaf) {
    let what = format!("the new certificate at {address}");
    wait_for(&what, SOON, async || (shown(address, client).await.as_ref() == Some(&wanted.der)).then_some(()))
        .await
        .unwrap();
}

/// A client of MQTT over TLS that is let in, and how its handshake was made.
async fn come_in(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> Option<(RawClient<TlsStream<TcpStream>>, HandshakeKind)> {
    let stream = handshake(address, client).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind()?;
    let mut client = RawClient::new(stream, Version::V5);
    // Without an id, so that nobody takes over another's session.
    let connack = client.handshake(raw::connect(Version::V5, ""), SOON).await.ok()?;
    (connack.reason == ReasonCode::Success).then_some((client, kind))
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_bad_ones_for_none() {
    let ca = Authority::new("ca");
    let [first, second, third] = [1, 2, 3].map(|serial| ca.leaf(serial, 30 + u32::try_from(serial).unwrap()));
    let soon = ca.leaf(4, 5);
    let (device, stolen) = (ca.leaf(10, 30), ca.leaf(11, 30));
    let none = ca.revokes(&[]);
    let mut mount = Mount::new([&first.pem, &first.key, &ca.pem, &none]);
    let dir = mount.dir.path().display().to_string();
    let server = Server::start(&format!(
        "[auth]\nanonymous = \"allow\"\n[[listener]]\naddress = \"127.0.0.1:PORT0\"\n\
         [[listener]]\naddress = \"127.0.0.1:PORT1\"\nname = \"devices\"\n\
         tls = {{ cert = \"{dir}/tls.crt\", key = \"{dir}/tls.key\", client_ca = \"{dir}/ca.crt\", crl = \"{dir}/ca.crl\", client_auth = \"required\" }}\n\
         [admin]\naddress = \"127.0.0.1:PORT2\"\ntoken = \"{TOKEN}\"\ntls = {{ cert = \"{dir}/tls.crt\", key = \"{dir}/tls.key\" }}\n",
    ))
    .await;
    let (mqtts, door) = (server.at(1), server.at(2));
    let (good, bad, anybody) =
        (client_config(&ca.pem, Some(&device)), client_config(&ca.pem, Some(&stolen)), client_config(&ca.pem, None));
    let admin = Admin::over_tls(door, TOKEN, &ca.pem).unwrap();
    let alarms = async || -> Vec<(String, String, String)> {
        let said = admin.call("Alarms/List", json!({})).await.unwrap();
        let text = |alarm: &serde_json::Value, name: &str| alarm[name].as_str().unwrap_or_default().to_owned();
        let alarms = said["alarms"].as_array().into_iter().flatten();
        let mut alarms: Vec<_> = alarms
            .map(|alarm| {
                let subject = text(alarm, "subject");
                let (_, used_as) = subject.split_once('/').unwrap_or_default();
                (text(alarm, "name"), used_as.to_owned(), text(alarm, "message"))
            })
            .collect();
        alarms.sort();
        alarms
    };
    let end = async |used_as: &str| {
        server.metrics().await.get(&format!("fulmar_tls_cert_not_after_seconds{{use=\"{used_as}\"}}"))
    };

    let (mut old, _) = come_in(mqtts, &good).await.unwrap();
    for _ in 0..2 {
        come_in(mqtts, &bad).await.unwrap();
    }
    let (_, kind) = come_in(mqtts, &bad).await.unwrap();
    assert_eq!(kind, HandshakeKind::Resumed);
    assert_eq!(shown(mqtts, &good).await.as_ref(), Some(&first.der));
    assert_eq!(alarms().await, []);
    let before = end("listener:devices").await;
    assert!(before > 0 && before == end("admin").await);

    mount.swap([&second.pem, &second.key, &ca.pem, &none]);
    shows(mqtts, &good, &second).await;
    shows(door, &anybody, &second).await;
    server.metric("fulmar_tls_reloads_total{result=\"ok\"}", |count| count == 2).await;
    assert_eq!((end("listener:devices").await, end("admin").await), (before + 86_400, before + 86_400));
    old.send(&Packet::PingReq).await.unwrap();
    old.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();

    // The key of another certificate.
    mount.swap([&third.pem, &second.key, &ca.pem, &none]);
    server.metric("fulmar_alarms_active{name=\"tls_reload_failed\"}", |count| count == 2).await;
    let told = alarms().await;
    let used_as: Vec<&str> = told.iter().map(|(_, used_as, _)| used_as.as_str()).collect();
    assert_eq!(used_as, ["admin", "listener:devices"]);
    assert!(told[1].2.contains("tls.key does not go with the certificate"), "{told:?}");
    for (address, client) in [(mqtts, &good), (door, &anybody)] {
        assert_eq!(shown(address, client).await.as_ref(), Some(&second.der), "what was good goes on");
    }
    assert_eq!(server.metrics().await.get("fulmar_tls_reloads_total{result=\"failed\"}"), 2);

    mount.swap([&third.pem, &third.key, &ca.pem, &ca.revokes(&[11])]);
    shows(mqtts, &good, &third).await;
    assert!(come_in(mqtts, &bad).await.is_none(), "revoked, whatever session it could resume");
    assert!(come_in(mqtts, &good).await.is_some());
    server.metric("fulmar_alarms_active{name=\"tls_reload_failed\"}", |count| count == 0).await;

    mount.swap([&soon.pem, &soon.key, &ca.pem, &none]);
    server.metric("fulmar_alarms_active{name=\"certificate_expires\"}", |count| count == 2).await;
    let told = alarms().await;
    assert!(told.iter().all(|(_, _, text)| text.starts_with("the certificate ends at 20")), "{told:?}");
    mount.swap([&third.pem, &third.key, &ca.pem, &none]);
    server.metric("fulmar_alarms_active{name=\"certificate_expires\"}", |count| count == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_change_their_authority_one_after_the_other_and_keep_their_quorum() {
    let mut dev = Fulmar::dev(DevOptions { nodes: 3, ..DevOptions::default() }).await.unwrap();
    let nodes = dev.endpoints().nodes.clone();
    let ca_path = dev.endpoints().ca.clone().unwrap();
    let (old, new) = (fs::read_to_string(&ca_path).unwrap(), Authority::new("new"));
    let both = format!("{old}{}", new.pem);
    let leaves: Vec<Leaf> = (0..3).map(|node| new.leaf(100 + node, 30)).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::connect(node.mqtt, Options::new(Protocol::V5, &format!("c{}", node.node))).await.unwrap());
    }
    let metrics = async |node: usize| Metrics::of(nodes[node].probes.unwrap(), SOON).await.unwrap();
    let term = metrics(0).await.get(TERM);
    let mut count = 0;
    // A retained message is on a majority's disks, and on every node, before it is acknowledged.
    let mut decides = async |what: &str| {
        for client in &mut clients {
            count += 1;
            let sent = client.publish(&format!("retained/{count}"), 1, true, what.to_owned()).await.unwrap();
            assert_eq!(client.acked(sent, SOON).await.unwrap(), "Success", "{what}");
        }
    };
    let reread = async |node: usize, times: u64| {
        wait_for("the new authorities", SOON, async || {
            (metrics(node).await.get("fulmar_tls_reloads_total{result=\"ok\"}") >= times).then_some(())
        })
        .await
        .unwrap();
    };
    decides("before").await;

    // Written in place: it is the nodes who wait until a file is whole. Read by each for its peers, and to offer it.
    fs::write(&ca_path, &both).unwrap();
    for node in 0..3 {
        reread(node, 2).await;
    }
    decides("both authorities are trusted").await;
    for (node, leaf) in leaves.iter().enumerate() {
        let dir = nodes[node].config.parent().unwrap();
        fs::write(dir.join("peer.crt"), &leaf.pem).unwrap();
        fs::write(dir.join("peer.key"), &leaf.key).unwrap();
        let probe = client_config(&both, Some(leaf));
        shows(nodes[node].peer.unwrap(), &probe, leaf).await;
        decides("one more node shows its new certificate").await;
    }
    fs::write(&ca_path, &new.pem).unwrap();
    for node in 0..3 {
        reread(node, 5).await;
    }
    decides("only the new authority is trusted").await;
    assert_eq!(metrics(0).await.get(TERM), term, "nobody had to be elected");

    // Connections from before went on; now all of those of one node are made anew, in both directions.
    drop(clients.pop());
    dev.node(2).kill().await.unwrap();
    dev.node(2).restart().await.unwrap();
    clients.push(Client::connect(nodes[2].mqtt, Options::new(Protocol::V5, "again")).await.unwrap());
    for client in &mut clients {
        let sent = client.publish("retained/again", 1, true, "made anew").await.unwrap();
        assert_eq!(client.acked(sent, SOON).await.unwrap(), "Success");
    }
}
