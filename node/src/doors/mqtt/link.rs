//! What a connection reads from and writes to, so that one loop serves byte streams and WebSockets.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// Bytes of one read.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;

/// Both directions of a connection, polled by one task.
pub(super) trait Link {
    /// Bytes that are put together for one write.
    const WRITE_BYTES_MAX: usize = 128 * 1024;

    /// Appends what has come to `buffer`. 0 bytes: the peer has ended its side.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Ready if nothing at all had come when [`Link::poll_recv`] was last pending. That alone does not say so: the runtime
    /// tries no socket before it has heard of what came there, and it hears of some sockets later than of others. Whoever
    /// finds this pending polls both again when woken.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Takes bytes from `out` and sees them on their way. Pending while any are not: then it is called again, also with
    /// nothing new.
    fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<io::Result<()>>;

    /// Ends our side.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

thread_local! {
    /// Where reads land first: an idle connection owns no buffer, and a busy one gets one of just the size that it needs.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

impl Link for Stream {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        LANDING.with_borrow_mut(|landing| {
            let mut read = ReadBuf::new(landing);
            ready!(Pin::new(self).poll_read(cx, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    fn poll_quiet(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // The runtime is about to hear of what is there, and wakes whoever has polled for it.
        if self.quiet() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            let count = ready!(Pin::new(&mut *self).poll_write(cx, out))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(count);
        }
        // TLS holds records back until it is flushed; for TCP this is nothing.
        Pin::new(self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;

    use super::*;

    /// Bytes of which the runtime has not heard, for it looks at the system's events only between two tasks.
    #[tokio::test]
    async fn a_socket_is_not_quiet_before_what_has_come_is_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut link = Stream::tcp(listener.accept().await.unwrap().0);
        let mut buffer = BytesMut::new();
        let mut looks = 0;
        poll_fn(|cx| {
            looks += 1;
            if looks == 1 {
                assert!(link.poll_recv(cx, &mut buffer).is_pending());
                assert!(link.poll_quiet(cx).is_ready());
                peer.write_all(b"good-bye").unwrap();
                assert!(link.poll_recv(cx, &mut buffer).is_pending(), "the runtime is told between two tasks");
                assert!(link.poll_quiet(cx).is_pending());
                return Poll::Pending; // it wakes
            }
            assert!(link.poll_recv(cx, &mut buffer).is_ready());
            assert_eq!(&buffer[..], b"good-bye");
            assert!(link.poll_recv(cx, &mut buffer).is_pending());
            assert!(link.poll_quiet(cx).is_ready());
            Poll::Ready(())
        })
        .await;
        drop(peer);
        assert_eq!(poll_fn(|cx| link.poll_recv(cx, &mut buffer)).await.unwrap(), 0);
        assert!(poll_fn(|cx| Poll::Ready(link.poll_quiet(cx).is_pending())).await, "its end is read first, too");
    }
}
