//! A byte stream, plain or TLS, whose first byte may have been read already to tell the protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_rt::net::{ActixStream, Ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A client's byte stream.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    first: Option<u8>,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn tcp(io: TcpStream) -> Stream {
        Stream { io: Io::Tcp(io), first: None }
    }

    pub(super) fn tls(io: TlsStream<TcpStream>) -> Stream {
        Stream { io: Io::Tls(Box::new(io)), first: None }
    }

    /// Reads the first byte; it will be read again.
    ///
    /// # Errors
    /// If the stream ends or fails before there is one.
    pub(super) async fn sniff(&mut self) -> io::Result<u8> {
        let mut first = [0u8];
        self.read_exact(&mut first).await?;
        self.first = Some(first[0]);
        Ok(first[0])
    }

    fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(io) => io,
            Io::Tls(io) => io.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A stream as actix serves it. A vendor's C client looks for the exact bytes `Sec-WebSocket-Accept: ` in the answer to
/// its upgrade, and actix writes header names in lower case: the first answer is respelled on its way out.
#[derive(Debug)]
pub(super) struct HttpStream {
    stream: Stream,
    respelled: bool,
}

const WRITTEN: &[u8] = b"sec-websocket-accept: ";
const WANTED: &[u8] = b"Sec-WebSocket-Accept: ";

impl HttpStream {
    pub(super) fn new(stream: Stream) -> HttpStream {
        HttpStream { stream, respelled: false }
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.respelled {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        let at = buf.windows(WRITTEN.len()).position(|window| window.eq_ignore_ascii_case(WRITTEN));
        let written = match at {
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
            Some(at) => {
                let mut respelled = buf.to_vec();
                respelled[at..at + WANTED.len()].copy_from_slice(WANTED);
                Pin::new(&mut self.stream).poll_write(cx, &respelled)
            }
        };
        if let (Poll::Ready(Ok(count)), Some(at)) = (&written, at) {
            // A short write ends before the header's end at the worst once; then it is respelled again.
            self.respelled = *count >= at + WANTED.len();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl ActixStream for HttpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.stream.socket(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.stream.socket(), cx)
    }
}
