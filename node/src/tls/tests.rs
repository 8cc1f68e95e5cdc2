use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::config::listener::ClientAuth;
use crate::config::tls::TlsPaths;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Form;

/// 2030-01-01, in seconds of Unix time.
const NOW: i64 = 1_893_456_000;

const YEARS: [i32; 2] = [2020, 2040];

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Leaf {
    pem: String,
    key: String,
}

fn authority(name: &str, years: [i32; 2]) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(years[0], 1, 1), date_time_ymd(years[1], 1, 1));
    let key = KeyPair::generate().unwrap();
    Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
}

impl Authority {
    fn leaf(&self, serial: u64, years: [i32; 2]) -> Leaf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(years[0], 1, 1), date_time_ymd(years[1], 1, 1));
        let key = KeyPair::generate().unwrap();
        Leaf { pem: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn revokes(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2040, 1, 1),
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

impl Mount {
    fn new<T: AsRef<str>>(files: &[(&str, T)]) -> Mount {
        let mut mount = Mount { dir: tempfile::tempdir().unwrap(), version: 0 };
        mount.swap(files);
        for (name, _) in files {
            std::os::unix::fs::symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn swap<T: AsRef<str>>(&mut self, files: &[(&str, T)]) {
        self.version += 1;
        let version = format!("..{}", self.version);
        fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in files {
            fs::write(self.path(&version).join(name), text.as_ref()).unwrap();
        }
        std::os::unix::fs::symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn paths(&self, ca: bool, crl: bool) -> TlsPaths {
        TlsPaths {
            table: "listener.0.tls".into(),
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            ca: ca.then(|| ("client_ca", self.path("ca.crt"))),
            crl: crl.then(|| self.path("ca.crl")),
        }
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused_by_name() {
    let (ours, theirs, gone) = (authority("a", YEARS), authority("b", YEARS), authority("c", [2020, 2021]));
    let (leaf, other) = (ours.leaf(1, YEARS), ours.leaf(2, YEARS));
    let (old, new) = (ours.leaf(3, [2020, 2021]), ours.leaf(4, [2031, 2040]));
    let list = ours.revokes(&[7]);
    let (half, _) = leaf.key.split_at(leaf.key.len() / 2);
    for (what, cert, key, ca, crl, said) in [
        ("good", &*leaf.pem, &*leaf.key, &*ours.pem, &*list, ""),
        (
            "another key",
            &leaf.pem,
            &other.key,
            &ours.pem,
            &list,
            "listener.0.tls.key DIR/tls.key does not go with the certificate",
        ),
        (
            "half a key",
            &leaf.pem,
            half,
            &ours.pem,
            &list,
            "listener.0.tls.key names DIR/tls.key, which does not hold a private key",
        ),
        (
            "no certificate",
            "",
            &leaf.key,
            &ours.pem,
            &list,
            "listener.0.tls.cert names DIR/tls.crt, which holds no certificate",
        ),
        ("expired", &old.pem, &old.key, &ours.pem, &list, "tls.crt, whose certificate has expired: Fri, 01 Jan 2021"),
        (
            "not yet",
            &new.pem,
            &new.key,
            &ours.pem,
            &list,
            "tls.crt, whose certificate is not valid before Wed, 01 Jan 2031",
        ),
        (
            "no authority",
            &leaf.pem,
            &leaf.key,
            "",
            &list,
            "listener.0.tls.client_ca names DIR/ca.crt, which holds no certificate",
        ),
        (
            "old authority",
            &leaf.pem,
            &leaf.key,
            &gone.pem,
            &gone.revokes(&[]),
            "ca.crt, whose authorities have all expired",
        ),
        (
            "no list",
            &leaf.pem,
            &leaf.key,
            &ours.pem,
            "",
            "listener.0.tls.crl names DIR/ca.crl, which holds no revocation list",
        ),
        (
            "a stranger's list",
            &leaf.pem,
            &leaf.key,
            &ours.pem,
            &theirs.revokes(&[]),
            "ca.crl, which holds a revocation list that no authority",
        ),
        (
            "a list in its name",
            &leaf.pem,
            &leaf.key,
            &ours.pem,
            &authority("a", YEARS).revokes(&[]),
            "ca.crl, which holds a revocation list that no authority",
        ),
    ] {
        let mount = Mount::new(&[("tls.crt", cert), ("tls.key", key), ("ca.crt", ca), ("ca.crl", crl)]);
        let told = mount.paths(true, true).load(Some(NOW)).map_err(|error| error.to_string()).err().unwrap_or_default();
        let said = said.replace("DIR", &mount.dir.path().display().to_string());
        assert!(
            told.contains(&said) && told.is_empty() == said.is_empty() && told.lines().count() < 2,
            "{what}: {told}"
        );
        let begins = mount.paths(true, true).load(None);
        let at_the_start = matches!(what, "good" | "expired" | "not yet" | "old authority");
        assert_eq!(begins.is_ok(), at_the_start, "{what}: what a node begins with may be out of its time");
    }
    let both = format!("{}{}", theirs.pem, gone.pem);
    let mount = Mount::new(&[("tls.crt", &leaf.pem), ("tls.key", &leaf.key), ("ca.crt", &both)]);
    let files = mount.paths(true, false).load(Some(NOW)).unwrap();
    assert_eq!((files.serial.as_str(), files.not_after), ("01", 2_208_988_800), "one authority of two is in its time");
}

#[test]
fn a_change_counts_when_it_is_whole_and_good() {
    let ca = authority("a", YEARS);
    let leaves: Vec<Leaf> = (1..=4).map(|serial| ca.leaf(serial, YEARS)).collect();
    let files = |cert: &Leaf, key: &Leaf| [("tls.crt", cert.pem.clone()), ("tls.key", key.key.clone())];
    let mut mount = Mount::new(&files(&leaves[0], &leaves[0]));
    let metrics = Arc::new(Metrics::default());
    let certificates = Certificates::unwatched(metrics.clone());
    let tls = certificates.open("listener:a", mount.paths(false, false), Purpose::Listener(ClientAuth::None)).unwrap();
    let first = tls.now();
    let unchanged = |then: &Arc<Secured>| Arc::ptr_eq(&tls.now(), then);
    let counts = |ok: u64, failed: u64| {
        let text = metrics.render(Form::Prometheus, &[], &[]);
        for (result, count) in [("ok", ok), ("failed", failed)] {
            let line = format!("fulmar_tls_reloads_total{{result=\"{result}\"}} {count}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(text.contains("fulmar_tls_cert_not_after_seconds{use=\"listener:a\"} 2208988800\n"), "{text}");
    };
    counts(0, 0);
    let mut put = |cert: usize, key: usize| mount.swap(&files(&leaves[cert], &leaves[key]));

    for _ in 0..3 {
        certificates.look(NOW);
    }
    assert!(unchanged(&first), "nothing has changed");
    put(1, 1);
    certificates.look(NOW);
    assert!(unchanged(&first), "it may still be changing");
    certificates.look(NOW);
    assert!(!unchanged(&first));
    counts(1, 0);

    let second = tls.now();
    put(2, 1);
    for _ in 0..4 {
        certificates.look(NOW);
    }
    assert!(unchanged(&second), "the key of another certificate");
    let failed = certificates.status()[0].failed.clone().unwrap();
    assert!(failed.contains("tls.key does not go with the certificate"), "{failed}");
    counts(1, 1);
    put(1, 1);
    certificates.look(NOW);
    certificates.look(NOW);
    assert_eq!(certificates.status()[0].failed, None);
    assert!(!unchanged(&second));
    counts(2, 1);
}

#[test]
fn a_certificate_that_begins_later_is_taken_then() {
    let ca = authority("a", YEARS);
    let (leaf, later) = (ca.leaf(1, [2020, 2031]), ca.leaf(2, [2031, 2040]));
    let mount = Mount { dir: tempfile::tempdir().unwrap(), version: 0 };
    let write = |mount: &Mount, leaf: &Leaf| {
        // As a program that renames each file into its place.
        for (name, text) in [("tls.crt", &leaf.pem), ("tls.key", &leaf.key)] {
            fs::write(mount.path("new"), text).unwrap();
            fs::rename(mount.path("new"), mount.path(name)).unwrap();
        }
    };
    write(&mount, &leaf);
    let certificates = Certificates::unwatched(Arc::default());
    let tls = certificates.open("peer", mount.paths(false, false), Purpose::Admin).unwrap();
    let first = tls.now();
    write(&mount, &later);
    for _ in 0..3 {
        certificates.look(NOW);
    }
    let status = certificates.status().remove(0);
    assert!(status.failed.unwrap().contains("is not valid before Wed, 01 Jan 2031"));
    assert_eq!(status.ends.unwrap().at_s, NOW + 365 * 86_400);
    certificates.look(NOW + 366 * 86_400);
    assert!(!Arc::ptr_eq(&tls.now(), &first), "at the next look after its beginning");
    assert_eq!(certificates.status()[0].failed, None);
    // What is gone is not taken either.
    fs::remove_file(mount.path("tls.key")).unwrap();
    for _ in 0..2 {
        certificates.look(NOW + 366 * 86_400);
    }
    assert!(certificates.status()[0].failed.as_ref().unwrap().contains("tls.key, which cannot be read"));
}

fn client(ca: &Authority, own: &Leaf, only_12: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let versions = if only_12 { [&version::TLS12] } else { [&version::TLS13] };
    let builder = ClientConfig::builder_with_protocol_versions(&versions).with_root_certificates(roots);
    let chain = vec![CertificateDer::from_pem_slice(own.pem.as_bytes()).unwrap()];
    Arc::new(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap())
}

/// One connection, on which the server says a byte; how the handshake was made, unless the server refuses it.
async fn connect(tls: &Tls, client: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(tls.now().server.clone());
    let served = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        // Until the client has gone.
        let _ = stream.read_u8().await;
        std::io::Result::Ok(())
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
    stream.read_u8().await?;
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    drop(stream);
    served.await.unwrap()?;
    Ok(kind)
}

#[tokio::test]
async fn who_is_revoked_is_refused_also_with_a_session_to_resume() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = authority("a", YEARS);
    let (server, good, bad) = (ca.leaf(1, YEARS), ca.leaf(2, YEARS), ca.leaf(3, YEARS));
    let files = |list: &str| {
        let text = [("tls.crt", &server.pem), ("tls.key", &server.key), ("ca.crt", &ca.pem)];
        let mut files: Vec<(&str, String)> = text.map(|(name, text)| (name, text.clone())).to_vec();
        files.push(("ca.crl", list.to_owned()));
        files
    };
    for only_12 in [true, false] {
        let (none, revoked) = (files(&ca.revokes(&[])), files(&ca.revokes(&[3])));
        let mut mount = Mount::new(&none);
        let certificates = Certificates::unwatched(Arc::default());
        let purpose = Purpose::Listener(ClientAuth::Required);
        let tls = certificates.open("listener:a", mount.paths(true, true), purpose).unwrap();
        let (good, bad) = (client(&ca, &good, only_12), client(&ca, &bad, only_12));
        for one in [&good, &bad] {
            assert_ne!(connect(&tls, one).await.unwrap(), HandshakeKind::Resumed);
            assert_eq!(connect(&tls, one).await.unwrap(), HandshakeKind::Resumed, "TLS 1.2: {only_12}");
        }
        mount.swap(&revoked);
        certificates.look(NOW);
        certificates.look(NOW);
        let refused = connect(&tls, &bad).await.unwrap_err().to_string();
        assert!(refused.contains("CertificateRevoked"), "TLS 1.2: {only_12}: {refused}");
        assert_eq!(connect(&tls, &good).await.unwrap(), HandshakeKind::Full, "what was resumed before is made anew");
        assert_eq!(connect(&tls, &good).await.unwrap(), HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn a_new_revocation_list_is_taken_beside_a_certificate_that_has_ended() {
    /// Ended at `NOW`, but not for the clients, who go by the clock.
    const ENDED: [i32; 2] = [2020, 2029];
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = authority("a", ENDED);
    let (server, next, bad) = (ca.leaf(1, ENDED), ca.leaf(2, ENDED), ca.leaf(3, YEARS));
    let files = |server: &Leaf, list: String| {
        [("tls.crt", server.pem.clone()), ("tls.key", server.key.clone()), ("ca.crt", ca.pem.clone()), ("ca.crl", list)]
    };
    let mut mount = Mount::new(&files(&server, ca.revokes(&[])));
    let certificates = Certificates::unwatched(Arc::default());
    let purpose = Purpose::Listener(ClientAuth::Required);
    let tls = certificates.open("listener:a", mount.paths(true, true), purpose).unwrap();
    let bad = client(&ca, &bad, false);
    connect(&tls, &bad).await.unwrap();
    mount.swap(&files(&server, ca.revokes(&[3])));
    certificates.look(NOW);
    certificates.look(NOW);
    assert_eq!(certificates.status()[0].failed, None);
    let refused = connect(&tls, &bad).await.unwrap_err().to_string();
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    mount.swap(&files(&next, ca.revokes(&[])));
    certificates.look(NOW);
    certificates.look(NOW);
    let failed = certificates.status()[0].failed.clone().unwrap();
    assert!(failed.contains("has expired"), "another one that has ended is a mistake: {failed}");
    assert!(connect(&tls, &bad).await.is_err());
}

#[tokio::test]
async fn nodes_of_both_authorities_reach_each_other_while_both_are_trusted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (old, new) = (authority("old", YEARS), authority("new", YEARS));
    let both = format!("{}{}", old.pem, new.pem);
    let open = |leaf: &Leaf, ca: &str| {
        let mount = Mount::new(&[("tls.crt", &leaf.pem), ("tls.key", &leaf.key), ("ca.crt", &ca.to_owned())]);
        let paths = TlsPaths { ca: Some(("ca", mount.path("ca.crt"))), ..mount.paths(true, false) };
        Tls::new(paths.load(Some(NOW)).unwrap(), Purpose::Peer).unwrap()
    };
    let (a, b) = (old.leaf(1, YEARS), new.leaf(2, YEARS));
    for (server, client, reached) in [
        (open(&a, &both), open(&b, &both), true),
        (open(&b, &both), open(&a, &both), true),
        (open(&b, &new.pem), open(&a, &both), false),
        (open(&a, &both), open(&b, &new.pem), false),
        (open(&b, &new.pem), open(&b, &new.pem), true),
    ] {
        assert_eq!(connect(&server, &client.now().client().unwrap()).await.is_ok(), reached);
    }
}
