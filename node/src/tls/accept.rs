//! Handshakes of whoever comes in over gRPC, each with what holds then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::Tls;

/// For one handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes of one port at a time; further connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 1_024;

/// A connection, with TLS or without.
#[derive(Debug)]
pub enum Wire<C> {
    Plain(C),
    Tls(Box<TlsStream<C>>),
}

/// What comes in, once its handshake is over; without `tls` there is none. What fails is closed.
pub fn handshakes<C>(
    incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
    tls: Option<Tls>,
) -> impl Stream<Item = io::Result<Wire<C>>> + Send + 'static
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wires = incoming.map(move |accepted| {
        let tls = tls.clone();
        async move {
            let (connection, tls) = match (accepted, tls) {
                (Err(error), _) => return Some(Err(error)),
                (Ok(connection), None) => return Some(Ok(Wire::Plain(connection))),
                (Ok(connection), Some(tls)) => (connection, tls),
            };
            let handshake = TlsAcceptor::from(tls.now().server.clone()).accept(connection);
            match timeout(HANDSHAKE, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => Some(Ok(Wire::Tls(Box::new(stream)))),
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    None
                }
            }
        }
    });
    wires.buffer_unordered(HANDSHAKES_MAX).filter_map(std::future::ready)
}

impl<C: Connected> Connected for Wire<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> C::ConnectInfo {
        match self {
            Wire::Plain(io) => io.connect_info(),
            Wire::Tls(io) => io.get_ref().0.connect_info(),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(io) => Pin::new(io).poll_read(context, into),
            Wire::Tls(io) => Pin::new(io).poll_read(context, into),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Wire::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Wire::Tls(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(io) => Pin::new(io).poll_flush(context),
            Wire::Tls(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(io) => Pin::new(io).poll_shutdown(context),
            Wire::Tls(io) => Pin::new(io).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Wire::Plain(io) => Pin::new(io).poll_write_vectored(context, parts),
            Wire::Tls(io) => Pin::new(io).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(io) => io.is_write_vectored(),
            Wire::Tls(io) => io.is_write_vectored(),
        }
    }
}
