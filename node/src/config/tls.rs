//! Reads what `[listener.tls]`, `[admin.tls]` and `[cluster.tls]` name. Whoever serves TLS and `fulmar config check` read it
//! the same way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, X509Certificate};

use super::admin::AdminTls;
use super::cluster::PeerTls;
use super::listener::Tls;
use super::problem::{ConfigError, Problems};
use super::tree::Tree;

/// What is wrong with revocation lists that nobody has signed.
pub(super) const CRL_NEEDS_CA: &str = "needs client_ca, the PEM file of the authorities that sign it";

/// The files of one table of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// The table's place in the configuration, as in `listener.0.tls`, for errors.
    pub table: String,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates of the other side, and what the key is called that names the file.
    pub ca: Option<(&'static str, PathBuf)>,
    pub crl: Option<PathBuf>,
}

/// What they hold, found to fit together.
pub struct TlsFiles {
    /// The one that is shown first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub authorities: Option<Authorities>,
    /// When the first certificate ends, in seconds of Unix time.
    pub not_after: i64,
    /// Of the first certificate, in hexadecimal.
    pub serial: String,
}

/// Who signs the certificates of the other side, and which of those they have taken back.
#[derive(Debug)]
pub struct Authorities {
    pub roots: Arc<RootCertStore>,
    /// Each signed by one of `roots`. An authority without a list has taken nothing back.
    pub lists: Vec<CertRevocationList<'static>>,
    /// The same lists as they were read.
    pub lists_der: Vec<CertificateRevocationListDer<'static>>,
}

/// What is in use of the files of a table.
#[derive(Debug, Clone, Copy)]
pub struct Used<'u> {
    /// The certificate that is shown.
    pub shown: &'u CertificateDer<'static>,
    pub authorities: Option<&'u Authorities>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Tls {
    /// `table`: where this stands in the configuration, as in `listener.0.tls`.
    #[must_use]
    pub fn paths(&self, table: &str) -> TlsPaths {
        let ca = self.client_ca.clone().map(|path| ("client_ca", path));
        let Tls { cert, key, crl, .. } = self.clone();
        TlsPaths { table: table.into(), cert, key, ca, crl }
    }
}

impl AdminTls {
    #[must_use]
    pub fn paths(&self) -> TlsPaths {
        let AdminTls { cert, key, client_ca, crl } = self.clone();
        TlsPaths { table: "admin.tls".into(), cert, key, ca: client_ca.map(|path| ("client_ca", path)), crl }
    }
}

impl PeerTls {
    #[must_use]
    pub fn paths(&self) -> TlsPaths {
        let PeerTls { ca, cert, key, crl } = self.clone();
        TlsPaths { table: "cluster.tls".into(), cert, key, ca: Some(("ca", ca)), crl }
    }
}

impl TlsPaths {
    /// Every file.
    #[must_use]
    pub fn all(&self) -> Vec<PathBuf> {
        let ca = self.ca.as_ref().map(|(_, path)| path);
        [&self.cert, &self.key].into_iter().chain(ca).chain(&self.crl).cloned().collect()
    }

    /// Reads them. `now`, in seconds of Unix time: certificates that are not valid then are wrong as well.
    ///
    /// # Errors
    /// Each file that cannot be read or does not hold what it should, and what does not fit together.
    pub fn load(&self, now: Option<i64>) -> Result<TlsFiles, ConfigError> {
        self.whole(|problems| self.read(now, problems))
    }

    /// Reads them again at `now`. What is `used` already may have ended meanwhile: one that has must not keep out what is
    /// new beside it, such as a list of what was taken back.
    ///
    /// # Errors
    /// As [`TlsPaths::load`].
    pub fn load_again(&self, now: i64, used: Used<'_>) -> Result<TlsFiles, ConfigError> {
        self.whole(|problems| self.read_beside(Some(now), Some(used), problems))
    }

    fn whole(&self, read: impl FnOnce(&mut Problems<'_>) -> Option<TlsFiles>) -> Result<TlsFiles, ConfigError> {
        let tree = Tree::empty();
        let mut problems = Problems::new(&tree);
        let files = read(&mut problems);
        problems.into_result()?;
        Ok(files.expect("files without problems were read"))
    }

    pub(super) fn read(&self, now: Option<i64>, problems: &mut Problems<'_>) -> Option<TlsFiles> {
        self.read_beside(now, None, problems)
    }

    fn read_beside(&self, now: Option<i64>, used: Option<Used<'_>>, problems: &mut Problems<'_>) -> Option<TlsFiles> {
        let at = |name: &str| format!("{}.{name}", self.table);
        let chain = certificates(&self.cert, &at("cert"), problems);
        let shown = chain.as_ref().and_then(|chain| {
            let is_used = used.is_some_and(|used| chain.first() == Some(used.shown));
            shown(chain, &self.cert, now.filter(|_| !is_used), &at("cert"), problems)
        });
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| problems.add(&at("key"), unread(&self.key, "a private key", &error)))
            .ok();
        let authorities = match &self.ca {
            Some((name, path)) => {
                let used = used.and_then(|used| used.authorities);
                let signers = authorities(path, now, used, &at(name), problems)?;
                let lists = self
                    .crl
                    .as_ref()
                    .map_or(Some(Vec::new()), |path| revocation_lists(path, &signers, &at("crl"), problems))?;
                Some(signers.with(lists, &at("crl"), problems)?)
            }
            None => None,
        };
        let (chain, (not_after, serial), key) = (chain?, shown?, key?);
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider()) {
            Ok(_) => Some(TlsFiles { chain, key, authorities, not_after, serial }),
            Err(error) => {
                let (shown, cert) = (self.key.display(), self.cert.display());
                problems.add(&at("key"), format!("{shown} does not go with the certificate {cert}: {error}"));
                None
            }
        }
    }
}

/// Seconds of Unix time.
#[must_use]
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn unread(path: &Path, what: &str, error: &pem::Error) -> String {
    let shown = path.display();
    match error {
        pem::Error::Io(error) => format!("names {shown}, which cannot be read: {error}"),
        error => format!("names {shown}, which does not hold {what} as PEM: {error}"),
    }
}

fn certificates(path: &Path, key: &str, problems: &mut Problems<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => problems.add(key, format!("names {}, which holds no certificate as PEM", path.display())),
        Err(error) => problems.add(key, unread(path, "certificates", &error)),
    }
    None
}

/// End and serial number of the certificate that is shown.
fn shown(
    chain: &[CertificateDer<'_>],
    path: &Path,
    now: Option<i64>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<(i64, String)> {
    let read = chain.first().map(|first| X509Certificate::from_der(first));
    let Some(Ok((_, first))) = read else {
        problems.add(key, format!("names {}, whose first certificate cannot be read", path.display()));
        return None;
    };
    let validity = first.validity();
    let mut wrong = |what: &str, time: &ASN1Time| {
        problems.add(key, format!("names {}, whose certificate {what} {}", path.display(), told(time)));
    };
    match now {
        Some(now) if validity.not_after.timestamp() < now => wrong("has expired:", &validity.not_after),
        Some(now) if validity.not_before.timestamp() > now => wrong("is not valid before", &validity.not_before),
        _ => return Some((validity.not_after.timestamp(), hex::encode(first.raw_serial()))),
    }
    None
}

/// As people read it.
fn told(time: &ASN1Time) -> String {
    time.to_rfc2822().unwrap_or_else(|_| time.to_string())
}

/// Authorities, and their certificates in DER.
struct Signers {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

fn authorities(
    path: &Path,
    now: Option<i64>,
    used: Option<&Authorities>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<Signers> {
    let certificates = certificates(path, key, problems)?;
    let mut roots = RootCertStore::empty();
    let mut last = None;
    for certificate in &certificates {
        if let Err(error) = roots.add(certificate.clone()) {
            problems.add(key, format!("names {}, which holds no authority's certificate: {error}", path.display()));
            return None;
        }
        let end = X509Certificate::from_der(certificate).ok().map(|(_, one)| one.validity().not_after);
        last = last.max(end);
    }
    let is_used = used.is_some_and(|used| used.roots.roots == roots.roots);
    if let (Some(now), Some(end)) = (now.filter(|_| !is_used), last)
        && end.timestamp() < now
    {
        problems.add(key, format!("names {}, whose authorities have all expired: {}", path.display(), told(&end)));
        return None;
    }
    Some(Signers { roots, certificates })
}

/// Reads lists of what the authorities have taken back. A handshake trusts a list only once its signature is checked, and
/// would fail on one that another has signed; so such a list is refused here.
fn revocation_lists(
    path: &Path,
    signers: &Signers,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let read = CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let shown = path.display();
    let wrong = match read {
        Err(error) => unread(path, "revocation lists", &error),
        Ok(lists) if lists.is_empty() => format!("names {shown}, which holds no revocation list as PEM"),
        Ok(lists) => match lists.iter().find(|list| !signers.signed(list)) {
            None => return Some(lists),
            Some(_) => {
                format!("names {shown}, which holds a revocation list that no authority of the table has signed")
            }
        },
    };
    problems.add(key, wrong);
    None
}

impl Signers {
    fn signed(&self, list: &CertificateRevocationListDer<'_>) -> bool {
        let Ok((_, list)) = CertificateRevocationList::from_der(list) else { return false };
        self.certificates.iter().any(|certificate| {
            X509Certificate::from_der(certificate).is_ok_and(|(_, signer)| {
                signer.subject().as_raw() == list.issuer().as_raw()
                    && list.verify_signature(signer.public_key()).is_ok()
            })
        })
    }

    fn with(
        self,
        lists_der: Vec<CertificateRevocationListDer<'static>>,
        key: &str,
        problems: &mut Problems<'_>,
    ) -> Option<Authorities> {
        let lists = lists_der.iter().map(|list| OwnedCertRevocationList::from_der(list).map(CertRevocationList::from));
        match lists.collect() {
            Ok(lists) => Some(Authorities { roots: Arc::new(self.roots), lists, lists_der }),
            Err(error) => {
                let wanted = "X.509 lists of version 2 with a number are (`crlnumber` of openssl ca)";
                problems.add(key, format!("names a revocation list that is not read ({error}); {wanted}"));
                None
            }
        }
    }
}
