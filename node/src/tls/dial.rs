//! Connections to other nodes. A channel of gRPC dials anew after each loss, and each time with what holds then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, StdError, http::Uri};

use super::Tls;

/// Dials one host over TLS, for a channel of gRPC.
#[derive(Debug, Clone)]
pub struct Dialler {
    tcp: HttpConnector,
    tls: Tls,
    host: ServerName<'static>,
}

impl Dialler {
    /// `host`: a name or an address, which the certificate of the other side must be for. `timeout`: for the connection
    /// alone, shared by the addresses that a name stands for.
    ///
    /// # Errors
    /// It is no host.
    pub fn new(tls: Tls, host: &str, timeout: Duration) -> Result<Dialler, InvalidDnsNameError> {
        let host = ServerName::try_from(host.to_owned())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        Ok(Dialler { tcp, tls, host })
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let (tls, host) = (self.tls.clone(), self.host.clone());
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            let config =
                tls.now().client().ok_or_else(|| io::Error::other("this TLS is not for connections to nodes"))?;
            Ok(TokioIo::new(TlsConnector::from(config).connect(host, socket).await?))
        })
    }
}
