//! A TLS client.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, version};

use super::Kit;

/// Connects, trusting the authority of `trusted` and presenting the certificate of `own`. `only_12`: TLS 1.2, else 1.3.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &Kit,
    own: Option<&Kit>,
    only_12: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    over(TcpStream::connect(address).await?, trusted, own, only_12).await
}

/// As [`connect`], on a connection that is there already.
pub(crate) async fn over(
    stream: TcpStream,
    trusted: &Kit,
    own: Option<&Kit>,
    only_12: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.ca.as_bytes()).unwrap()).unwrap();
    let versions = if only_12 { [&version::TLS12] } else { [&version::TLS13] };
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&versions).unwrap().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let name = ServerName::from(stream.peer_addr()?.ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
