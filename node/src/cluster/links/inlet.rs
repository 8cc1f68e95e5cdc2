//! The receiving side: what one run has had from another, and the serving of its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulmar_proto::peer::v1 as proto;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::inbox::{Arrived, Inbox};
use super::record::Records;
use super::{Links, Run};

/// See the module. One for each pair of runs, for as long as both live.
pub(super) struct Inlet {
    /// The run of this node that it belongs to.
    pub(super) own: Run,
    from: Run,
    inbox: Mutex<Inbox>,
    /// Something is to be acknowledged, or there is a newer stream, or the inlet is closed.
    changed: Notify,
    /// Number of the newest stream; [`CLOSED`] once there will be none.
    stream: AtomicU64,
}

const CLOSED: u64 = u64::MAX;

impl Inlet {
    pub(super) fn new(own: Run, from: Run) -> Arc<Inlet> {
        Arc::new(Inlet { own, from, inbox: Mutex::default(), changed: Notify::new(), stream: AtomicU64::new(0) })
    }

    pub(super) fn close(&self) {
        self.stream.store(CLOSED, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Frames that were handed up and are not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.inbox.lock().pending()
    }

    /// Begins a stream; the one before it ends.
    fn begin(&self) -> Option<u64> {
        let mut inbox = self.inbox.lock();
        let stream = self.stream.load(Ordering::Acquire);
        if stream == CLOSED {
            return None;
        }
        // Closing does not take the lock: it wins.
        self.stream.compare_exchange(stream, stream + 1, Ordering::AcqRel, Ordering::Acquire).ok()?;
        inbox.begin();
        drop(inbox);
        self.changed.notify_waiters();
        Some(stream + 1)
    }

    fn current(&self, stream: u64) -> bool {
        self.stream.load(Ordering::Acquire) == stream
    }

    /// Serves one stream to its end. What is wrong with it is told to the other side.
    pub(super) async fn serve<S>(
        self: Arc<Inlet>,
        links: &Links,
        mut frames: S,
        acks: &mpsc::Sender<Result<proto::FrameAck, Status>>,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<proto::Frame, Status>> + Unpin,
    {
        let stream = self.begin().ok_or_else(ended)?;
        loop {
            // Before it looks, so that nothing which changes meanwhile is missed.
            let (changed, leased) = (self.changed.notified(), links.lease.notified());
            tokio::pin!(changed, leased);
            changed.as_mut().enable();
            leased.as_mut().enable();
            if !self.current(stream) {
                return Err(ended());
            }
            let acts = links.acts();
            if acts {
                self.acknowledge(acks).await?;
            }
            tokio::select! {
                frame = frames.next(), if acts => match frame {
                    Some(frame) => self.take(links, frame?, stream).await?,
                    None => return Ok(()),
                },
                () = &mut changed => {}
                () = &mut leased => {}
            }
        }
    }

    async fn acknowledge(&self, acks: &mpsc::Sender<Result<proto::FrameAck, Status>>) -> Result<(), Status> {
        let done = self.inbox.lock().take_done();
        if done.is_empty() {
            return Ok(());
        }
        let mut ack = proto::FrameAck::default();
        for (seq, gone) in done {
            ack.taken.push(seq);
            ack.gone.extend(gone.into_iter().map(|place| proto::GoneMember { seq, place }));
        }
        acks.send(Ok(ack)).await.map_err(|_| Status::cancelled("nobody takes acknowledgements"))
    }

    /// Hands a frame up, unless it was before. One that came as the lease ended waits for the next one.
    async fn take(self: &Arc<Inlet>, links: &Links, frame: proto::Frame, stream: u64) -> Result<(), Status> {
        if frame.seq == 0 {
            return Ok(()); // only a greeting
        }
        let records = Records::new(frame.batch.clone())
            .map_err(|error| Status::failed_precondition(format!("the frame {error}")))?;
        if records.head().to != self.own.1 {
            return Err(Status::failed_precondition("the frame is for another run of this node"));
        }
        links.thawed().await;
        if !self.current(stream) {
            return Err(ended());
        }
        let arrived = self.inbox.lock().arrived(frame.seq, records.head().settled);
        match arrived {
            Arrived::New => {
                links.counts.frames_received.fetch_add(1, Ordering::Relaxed);
                let (inlet, seq) = (self.clone(), frame.seq);
                links.deliver(
                    self.from,
                    frame.batch,
                    Box::new(move |gone| {
                        inlet.inbox.lock().taken(seq, gone);
                        inlet.changed.notify_waiters();
                    }),
                );
                Ok(())
            }
            Arrived::Known => {
                links.counts.frames_repeated.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Arrived::Gap { expected } => {
                Err(Status::out_of_range(format!("frame {} came, and {expected} is expected", frame.seq)))
            }
        }
    }
}

fn ended() -> Status {
    Status::aborted("the stream is not the current one of a live run")
}
