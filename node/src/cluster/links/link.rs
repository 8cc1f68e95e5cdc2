//! The sending side: one link for each pair of runs, and the task that keeps its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fulmar_broker::{Generation, NodeId, Publication};
use fulmar_proto::peer::v1 as proto;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::outbox::{Books, Ended, FULL_BYTES, Outbox, Pushed};
use super::record::Member;
use super::{Links, Run};

/// Frames that are given to a stream before it has sent them.
const STREAM_FRAMES: usize = 16;

/// Between two tries to open a stream: doubled from one to the other.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Who is told how a record ended; called once, on any thread, never under a lock of the link.
pub trait Obligation: Send {
    fn ended(self: Box<Self>, how: Ended);
}

/// The way from this run to another one. Shared by publishers and the task that keeps its stream.
pub struct Link {
    /// The run of this node that it belongs to.
    pub(super) own: Run,
    to: Run,
    outbox: Mutex<Outbox<Box<dyn Obligation>>>,
    /// As the outbox has them, for reading without its lock.
    bytes: AtomicUsize,
    /// There is a frame to send, or the link is closed.
    work: Notify,
    up: AtomicBool,
    frames: AtomicU64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("own", &self.own).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(own: Run, to: Run) -> Arc<Link> {
        Arc::new(Link {
            own,
            to,
            outbox: Mutex::new(Outbox::new(to.1)),
            bytes: AtomicUsize::new(0),
            work: Notify::new(),
            up: AtomicBool::new(false),
            frames: AtomicU64::new(0),
        })
    }

    /// The run that it leads to.
    #[must_use]
    pub fn to(&self) -> (NodeId, Generation) {
        self.to
    }

    /// Whether so much is unacknowledged that publishers should wait.
    #[must_use]
    pub fn full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= FULL_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Frames that were given to streams, those that were sent again included.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    pub(super) fn books(&self) -> (Books, u64) {
        self.outbox.lock().books()
    }

    /// Takes several records under one lock.
    #[must_use]
    pub fn begin(&self) -> Pushing<'_> {
        Pushing { link: self, outbox: self.outbox.lock(), any: false }
    }

    /// Ends every obligation as lost and takes nothing more. Returns the books.
    pub(super) fn close(&self, ended: &mut Vec<(Box<dyn Obligation>, Ended)>) -> Books {
        let mut outbox = self.outbox.lock();
        if !outbox.closed() {
            outbox.close(ended);
        }
        self.bytes.store(0, Ordering::Relaxed);
        let (books, _) = outbox.books();
        drop(outbox);
        self.work.notify_one();
        books
    }

    fn acknowledged(&self, ack: &proto::FrameAck) {
        let mut ended = Vec::new();
        let mut outbox = self.outbox.lock();
        for seq in &ack.taken {
            let gone: Vec<u32> = ack.gone.iter().filter(|gone| gone.seq == *seq).map(|gone| gone.place).collect();
            outbox.acknowledged(*seq, &gone, &mut ended);
        }
        self.bytes.store(outbox.bytes(), Ordering::Relaxed);
        drop(outbox);
        ended.into_iter().for_each(|(obligation, how)| obligation.ended(how));
    }

    fn next(&self) -> Option<proto::Frame> {
        let (seq, batch) = self.outbox.lock().next()?;
        Some(proto::Frame { hello: None, seq, batch })
    }

    /// Keeps a stream to the other run until the link is closed.
    pub(super) async fn keep(self: Arc<Link>, links: Arc<Links>) {
        let mut retry = RETRY_MIN;
        while !self.outbox.lock().closed() {
            let was_up = self.try_stream(&links).await;
            self.up.store(false, Ordering::Relaxed);
            retry = if was_up { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                () = self.closing() => return,
            }
        }
    }

    async fn closing(&self) {
        while !self.outbox.lock().closed() {
            self.work.notified().await;
        }
    }

    /// Opens a stream and serves it to its end; `false` if it did not open.
    async fn try_stream(&self, links: &Links) -> bool {
        let Some((mut client, hello)) = links.dial(self.to.0, self.own) else { return false };
        let (frames, outgoing) = mpsc::channel(STREAM_FRAMES);
        let first = proto::Frame { hello: Some(hello), ..proto::Frame::default() };
        if frames.send(first).await.is_err() {
            return false;
        }
        let opened = tokio::select! {
            opened = client.deliver(ReceiverStream::new(outgoing)) => opened,
            () = self.closing() => return false,
        };
        let mut acks = match opened {
            Ok(acks) => acks.into_inner(),
            Err(status) => {
                tracing::debug!(to = ?self.to, %status, "no stream to a peer");
                return false;
            }
        };
        self.outbox.lock().begin();
        self.up.store(true, Ordering::Relaxed);
        tracing::debug!(to = ?self.to, "stream to a peer is up");
        let why = self.serve(links, &frames, &mut acks).await;
        tracing::debug!(to = ?self.to, why, "stream to a peer has ended");
        true
    }

    async fn serve(
        &self,
        links: &Links,
        frames: &mpsc::Sender<proto::Frame>,
        acks: &mut tonic::Streaming<proto::FrameAck>,
    ) -> String {
        let mut next = None;
        loop {
            // Before it looks, so that a lease which comes back meanwhile is not missed.
            let changed = links.lease.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let acts = links.acts();
            if next.is_none() && acts {
                next = self.next();
            }
            tokio::select! {
                ack = acks.message() => match ack {
                    Ok(Some(ack)) => self.acknowledged(&ack),
                    Ok(None) => return "the peer ended it".to_owned(),
                    Err(status) => return status.to_string(),
                },
                permit = frames.reserve(), if next.is_some() && acts => match permit {
                    // Room may have been long in coming: the lease is looked at again.
                    Ok(permit) if links.acts() => {
                        if let Some(frame) = next.take() {
                            self.frames.fetch_add(1, Ordering::Relaxed);
                            permit.send(frame);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return "nobody takes frames".to_owned(),
                },
                () = self.work.notified(), if next.is_none() && acts => {}
                () = &mut changed => {}
                () = self.closing(), if next.is_some() || !acts => {}
            }
            if self.outbox.lock().closed() {
                return "the run has ended".to_owned();
            }
        }
    }
}

/// A link that is being given records.
pub struct Pushing<'a> {
    link: &'a Link,
    outbox: MutexGuard<'a, Outbox<Box<dyn Obligation>>>,
    any: bool,
}

impl std::fmt::Debug for Pushing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushing").field("link", self.link).finish()
    }
}

impl Pushing<'_> {
    /// Adds a record for every live receiver there that matches, or for one member of a shared subscription.
    /// `obligation` is asked for only if the record is kept: who is told how it ended.
    pub fn push(
        &mut self,
        publication: &Publication,
        member: Option<&Member>,
        obligation: impl FnOnce() -> Option<Box<dyn Obligation>>,
    ) -> Pushed {
        let pushed = self.outbox.push(publication, member, obligation);
        self.any |= pushed == Pushed::Taken;
        pushed
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        if self.any {
            self.link.bytes.store(self.outbox.bytes(), Ordering::Relaxed);
            // Where nobody waits this leaves a permit, and no more than one.
            self.link.work.notify_one();
        }
    }
}
