//! A byte stream, plain or TLS, whose first byte may have been read already to tell the protocol.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_rt::net::{ActixStream, Ready};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::admission::Permit;
use super::http::Came;
use super::websocket::FRAME_BYTES_MAX;

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

    /// Whether nothing waits in the socket, not even its end.
    pub(super) fn quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self.socket()).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
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
/// its upgrade, and actix writes header names in lower case: that answer is respelled on its way out.
#[derive(Debug)]
pub(super) struct HttpStream {
    stream: Stream,
    /// The upgrade has been answered: what comes from here on are WebSocket frames.
    respelled: bool,
    frames: FrameGuard,
    came: Arc<Came>,
    /// The connection counts until its socket is closed, however long that takes.
    _permit: Permit,
}

const WRITTEN: &[u8] = b"sec-websocket-accept: ";
const WANTED: &[u8] = b"Sec-WebSocket-Accept: ";

impl HttpStream {
    pub(super) fn new(stream: Stream, permit: Permit, came: Arc<Came>) -> HttpStream {
        HttpStream { stream, respelled: false, frames: FrameGuard::default(), came, _permit: permit }
    }

    pub(super) fn came(&self) -> &Arc<Came> {
        &self.came
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.came.quiet().look(cx, || self.stream.quiet());
        }
        ready!(read)?;
        if self.respelled && !self.frames.pass(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a WebSocket frame is too large")));
        }
        Poll::Ready(Ok(()))
    }
}

/// Follows the frames of a WebSocket as they arrive [RFC 6455 5.2], because actix collects a frame whole before it asks
/// how large it is.
#[derive(Debug, Default)]
struct FrameGuard {
    /// The beginning of a header: 2 bytes, and up to 8 of length and 4 of mask.
    header: Header,
    /// Bytes of the frame that are still to come.
    left: u64,
}

#[derive(Debug, Default)]
struct Header {
    bytes: [u8; 14],
    len: usize,
}

impl FrameGuard {
    /// Takes the next bytes; `false` once a frame says that it is larger than any packet.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while let [byte, rest @ ..] = bytes {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            bytes = rest;
            if let Some(slot) = self.header.bytes.get_mut(self.header.len) {
                *slot = *byte;
                self.header.len += 1;
            }
            let Some(payload) = self.payload_len() else { continue };
            self.header.len = 0;
            if payload > FRAME_BYTES_MAX as u64 {
                return false;
            }
            self.left = payload;
        }
        true
    }

    /// Length of the payload, once the header is whole.
    fn payload_len(&self) -> Option<u64> {
        let header = self.header.bytes.get(..self.header.len)?;
        let [_, second, rest @ ..] = header else { return None };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended + mask {
            return None;
        }
        match extended {
            0 => Some(u64::from(second & 0x7f)),
            _ => Some(rest.iter().take(extended).fold(0, |length, byte| length << 8 | u64::from(*byte))),
        }
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.respelled || !self.came.upgraded() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of `length` bytes, of which `sent` are here.
    fn frame(length: u64, masked: bool, sent: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = match length {
            0..126 => vec![0x82, mask | length as u8],
            126..65_536 => [&[0x82, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[0x82, mask | 127][..], &length.to_be_bytes()].concat(),
        };
        bytes.extend(vec![7; if masked { 4 } else { 0 } + sent]);
        bytes
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 100_000];
        let bytes: Vec<u8> =
            lengths.iter().flat_map(|length| frame(*length, *length % 2 == 1, *length as usize)).collect();
        for cut in [1, 2, 3, 7, 4096, bytes.len()] {
            let mut guard = FrameGuard::default();
            assert!(bytes.chunks(cut).all(|chunk| guard.pass(chunk)), "cut {cut}");
            assert_eq!((guard.left, guard.header.len), (0, 0), "cut {cut}");
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_by_its_header() {
        for length in [FRAME_BYTES_MAX as u64 + 1, 1 << 30, u64::MAX] {
            let mut guard = FrameGuard::default();
            assert!(guard.pass(&frame(5, true, 5)));
            assert!(!guard.pass(&frame(length, true, 0)), "{length}");
        }
        assert!(FrameGuard::default().pass(&frame(FRAME_BYTES_MAX as u64, true, 0)));
    }
}
