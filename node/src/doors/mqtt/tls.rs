//! TLS of a listener, from the files that its configuration names.

use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

use crate::config::listener::{ClientAuth, Tls};
use crate::config::tls::TlsFiles;

/// How a listener takes TLS.
#[derive(Clone)]
pub struct Acceptor {
    pub(super) tls: TlsAcceptor,
    /// Who signs the certificates of clients, by the configuration.
    pub(super) client_roots: Option<Arc<RootCertStore>>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// TLS 1.2 and 1.3 with the listener's certificate, asking clients for theirs where configured. `key` is the table's
/// place in the configuration, for errors.
///
/// # Errors
/// What is wrong with which file.
pub fn acceptor(config: &Tls, key: &str) -> anyhow::Result<Acceptor> {
    let TlsFiles { chain, key: private, client_roots } = config.load(key)?;
    let client_roots = client_roots.map(Arc::new);
    let builder = ServerConfig::builder();
    let builder = match (config.client_auth, &client_roots) {
        (ClientAuth::Device, _) => builder.with_client_cert_verifier(Arc::new(AnyCertificate::default())),
        (ClientAuth::None, _) | (_, None) => builder.with_no_client_auth(),
        (how, Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder(roots.clone());
            let verifier = if how == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().with_context(|| format!("{key}.client_ca"))?)
        }
    };
    let server = builder.with_single_cert(chain, private).with_context(|| format!("{key}.key"))?;
    Ok(Acceptor { tls: TlsAcceptor::from(Arc::new(server)), client_roots })
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
