//! TLS of a listener, from the files that its configuration names.

use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::config::listener::{ClientAuth, Tls};
use crate::config::tls::TlsFiles;

/// TLS 1.2 and 1.3 with the listener's certificate, asking clients for theirs where configured. `key` is the table's
/// place in the configuration, for errors.
///
/// # Errors
/// What is wrong with which file.
pub fn acceptor(config: &Tls, key: &str) -> anyhow::Result<TlsAcceptor> {
    let TlsFiles { chain, key: private, client_roots } = config.load(key)?;
    let builder = ServerConfig::builder();
    let builder = match client_roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            let optional = config.client_auth == ClientAuth::Optional;
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().with_context(|| format!("{key}.client_ca"))?)
        }
    };
    let server = builder.with_single_cert(chain, private).with_context(|| format!("{key}.key"))?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}
