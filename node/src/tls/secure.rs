//! From files to what a handshake needs. All that one use of TLS needs is swapped together.
//!
//! Sessions that may be resumed are kept in the `ServerConfig`, and a resumed one does not show its client's certificate
//! again. New files make a new `ServerConfig`, which knows of no earlier session: so whoever was taken back by a revocation
//! list is not let in by an older session either.

use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::config::listener::ClientAuth;
use crate::config::tls::{Authorities, TlsFiles, Used};

/// HTTP/2, as gRPC asks for it.
const H2: &[u8] = b"h2";

/// What a table of TLS is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Listener(ClientAuth),
    /// Clients must show a certificate if there are authorities for them.
    Admin,
    /// Both sides of connections between nodes; each shows its certificate.
    Peer,
}

/// What holds for the next handshake.
pub struct Secured {
    pub server: Arc<ServerConfig>,
    /// For those who dial as well.
    client: Option<Arc<ClientConfig>>,
    /// Who signs the certificates of the other side.
    pub authorities: Option<Arc<Authorities>>,
    /// The first of its own chain.
    shown: CertificateDer<'static>,
}

/// The TLS of one use: what holds now, to be asked at each handshake.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<Secured>>>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// # Errors
    /// What the files hold cannot be used so.
    pub fn new(files: TlsFiles, purpose: Purpose) -> anyhow::Result<Tls> {
        Ok(Tls(Arc::new(RwLock::new(Arc::new(Secured::new(files, purpose)?)))))
    }

    #[must_use]
    pub fn now(&self) -> Arc<Secured> {
        self.0.read().clone()
    }

    pub(super) fn put(&self, secured: Secured) {
        *self.0.write() = Arc::new(secured);
    }
}

impl Secured {
    pub(super) fn new(files: TlsFiles, purpose: Purpose) -> anyhow::Result<Secured> {
        let TlsFiles { chain, key, authorities, .. } = files;
        let authorities = authorities.map(Arc::new);
        let shown = chain.first().context("no certificate")?.clone();
        let asked = match purpose {
            Purpose::Listener(asked) => asked,
            Purpose::Admin if authorities.is_none() => ClientAuth::None,
            Purpose::Admin | Purpose::Peer => ClientAuth::Required,
        };
        let builder = ServerConfig::builder();
        let builder = match (asked, &authorities) {
            (ClientAuth::Device, _) => builder.with_client_cert_verifier(Arc::new(AnyCertificate::default())),
            (ClientAuth::None, _) | (_, None) => builder.with_no_client_auth(),
            (_, Some(authorities)) => {
                let verifier = WebPkiClientVerifier::builder(authorities.roots.clone())
                    .with_crls(authorities.lists_der.iter().cloned())
                    .allow_unknown_revocation_status();
                let optional = asked == ClientAuth::Optional;
                let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().context("authorities of clients")?)
            }
        };
        let mut server = builder.with_single_cert(chain.clone(), key.clone_key()).context("certificate and key")?;
        let mut client = None;
        if let (Purpose::Peer, Some(authorities)) = (purpose, &authorities) {
            let verifier = WebPkiServerVerifier::builder(authorities.roots.clone())
                .with_crls(authorities.lists_der.iter().cloned())
                .allow_unknown_revocation_status();
            let builder = ClientConfig::builder().with_webpki_verifier(verifier.build().context("authorities")?);
            let mut config = builder.with_client_auth_cert(chain, key).context("certificate and key")?;
            config.alpn_protocols.push(H2.into());
            client = Some(Arc::new(config));
        }
        if purpose == Purpose::Admin || purpose == Purpose::Peer {
            server.alpn_protocols.push(H2.into());
        }
        Ok(Secured { server: Arc::new(server), client, authorities, shown })
    }

    /// What is in use, for whoever reads the files again.
    pub(super) fn used(&self) -> Used<'_> {
        Used { shown: &self.shown, authorities: self.authorities.as_deref() }
    }

    /// For a connection to another node; `None` if this is not for such.
    pub(super) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.client.clone()
    }
}

/// Takes any certificate, or none, and has the client prove that the key is its own. What the certificate counts for is
/// settled at CONNECT: whose it is says the registry.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl Default for AnyCertificate {
    fn default() -> AnyCertificate {
        AnyCertificate(ring::default_provider().signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a client then shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
