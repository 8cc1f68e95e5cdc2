//! Whether all has been taken that has come on a WebSocket: one task of actix reads its socket and passes on all that it
//! has, and another one on the same thread, ours, takes what the frames say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// What passes between the two.
#[derive(Default)]
pub(super) struct Quiet {
    asked: AtomicBool,
    /// Nothing more was in the socket when the reader looked.
    found: AtomicBool,
    reader: AtomicWaker,
    taker: AtomicWaker,
}

impl Quiet {
    /// For the reader, which has had nothing to read. `quiet`: whether nothing is there at all; asked only if the taker
    /// wants to know.
    pub(super) fn look(&self, cx: &mut Context<'_>, quiet: impl FnOnce() -> bool) {
        self.reader.register(cx.waker());
        if self.asked.load(Ordering::Acquire) && quiet() {
            self.asked.store(false, Ordering::Release);
            self.found.store(true, Ordering::Release);
            self.taker.wake();
        }
    }

    /// For the taker, which has had nothing to take: ready if the reader has looked since it was asked.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.found.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.taker.register(cx.waker());
        self.asked.store(true, Ordering::Release);
        self.reader.wake();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    #[test]
    fn it_is_quiet_when_the_reader_found_nothing_since_it_was_asked() {
        let (quiet, waker) = (Quiet::default(), noop_waker());
        let mut cx = Context::from_waker(&waker);
        let unasked = || -> bool { unreachable!("nobody has asked") };
        quiet.look(&mut cx, unasked);
        assert!(quiet.poll(&mut cx).is_pending(), "nobody has looked since");
        quiet.look(&mut cx, || false);
        assert!(quiet.poll(&mut cx).is_pending(), "something was there");
        quiet.look(&mut cx, || true);
        assert!(quiet.poll(&mut cx).is_ready());
        quiet.look(&mut cx, unasked);
        assert!(quiet.poll(&mut cx).is_pending(), "that was for the one who asked before");
    }
}
