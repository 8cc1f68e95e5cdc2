//! Reads what `[listener.tls]` and `[cluster.tls]` name. The doors that serve TLS and `fulmar config check` read it the
//! same way.

use std::fmt;
use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::listener::Tls;
use super::problem::{ConfigError, Problems};
use super::tree::Tree;

/// Certificate, key and authorities of a listener, read and found to fit together.
pub struct TlsFiles {
    /// The listener's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Who signs client certificates; present if `client_auth` asks for them.
    pub client_roots: Option<RootCertStore>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. `key` is the table's place in the configuration, as in `listener.0.tls`, for errors.
    ///
    /// # Errors
    /// Each file that cannot be read or does not hold what it should, and a key that is not the certificate's.
    pub fn load(&self, key: &str) -> Result<TlsFiles, ConfigError> {
        let tree = Tree::empty();
        let mut problems = Problems::new(&tree);
        let files = self.read(key, &mut problems);
        problems.into_result()?;
        Ok(files.expect("files without problems were read"))
    }

    pub(super) fn read(&self, key: &str, problems: &mut Problems<'_>) -> Option<TlsFiles> {
        let ca = self.client_ca.as_deref().map(|path| (path, "client_ca"));
        read(&self.cert, &self.key, ca, key, problems)
    }
}

/// Reads a certificate, its key, and authorities with the name of their key, all of the table `table`.
pub(super) fn read(
    cert: &Path,
    key: &Path,
    ca: Option<(&Path, &str)>,
    table: &str,
    problems: &mut Problems<'_>,
) -> Option<TlsFiles> {
    let chain = certificates(cert, &format!("{table}.cert"), problems);
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| problems.add(&format!("{table}.key"), unread(key, "a private key", &error)))
        .ok();
    let client_roots = match ca {
        Some((path, name)) => Some(authorities(path, &format!("{table}.{name}"), problems)?),
        None => None,
    };
    let (chain, private) = (chain?, private?);
    match CertifiedKey::from_der(chain.clone(), private.clone_key(), &ring::default_provider()) {
        Ok(_) => Some(TlsFiles { chain, key: private, client_roots }),
        Err(error) => {
            let (shown, cert) = (key.display(), cert.display());
            problems.add(&format!("{table}.key"), format!("{shown} does not go with the certificate {cert}: {error}"));
            None
        }
    }
}

fn unread(path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> String {
    let shown = path.display();
    match error {
        rustls::pki_types::pem::Error::Io(error) => format!("names {shown}, which cannot be read: {error}"),
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

fn authorities(path: &Path, key: &str, problems: &mut Problems<'_>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, key, problems)? {
        if let Err(error) = roots.add(certificate) {
            problems.add(key, format!("names {}, which holds no authority's certificate: {error}", path.display()));
            return None;
        }
    }
    Some(roots)
}
