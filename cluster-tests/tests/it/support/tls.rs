//! A TLS client, from the rustls that rumqttc brings along.

use std::net::SocketAddr;
use std::sync::Arc;

use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::tokio_rustls::client::TlsStream;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, version};
use tokio::net::TcpStream;

use super::Kit;

/// Connects, trusting the authority of `trusted` and presenting the certificate of `own`. `only_12`: TLS 1.2, else 1.3.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &Kit,
    own: Option<&Kit>,
    only_12: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.ca.as_bytes()).unwrap()).unwrap();
    let versions = if only_12 { [&version::TLS12] } else { [&version::TLS13] };
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&versions).unwrap().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}
