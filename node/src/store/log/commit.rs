//! The group commit, and what happens when it fails.

use std::sync::mpsc;
use std::time::Instant;

use super::super::mark::Mark;
use super::super::sled::Broken;
use super::{Done, Shared, StoreError};

impl Shared {
    /// The flusher: commits as long as there is something to commit, and once more at the end.
    pub(super) fn run(&self) {
        loop {
            {
                let mut view = self.view.lock();
                while view.waiting.is_empty() && !view.closing {
                    self.work.wait(&mut view);
                }
                if view.waiting.is_empty() {
                    return;
                }
            }
            self.commit();
        }
    }

    /// Makes durable what has been changed so far, and calls those back who wait for it.
    fn commit(&self) {
        let mut file = self.mark.lock();
        let (waiting, mark) = {
            let mut view = self.view.lock();
            let mark = Mark { last: view.last, purged: view.purged, counter: view.meta.counter };
            (std::mem::take(&mut view.waiting), mark)
        };
        let began = Instant::now();
        fail::fail_point!("log::after_append");
        let written = self.sled.sync().and_then(|()| {
            fail::fail_point!("log::after_flush");
            file.write(mark).map_err(|error| Broken::Io { file: self.mark_path.clone(), error })
        });
        drop(file);
        self.stats.synced(began.elapsed());
        let result = match written {
            Err(broken) => Err(self.fail(&broken)),
            // Another thread may have seen a failure meanwhile.
            Ok(()) => self.view.lock().sound(),
        };
        for done in waiting {
            done(result.clone());
        }
    }

    /// Notes that the log has failed, and says so, once. Returns what callers are told.
    pub(super) fn fail(&self, broken: &Broken) -> StoreError {
        let text = broken.to_string();
        let first = {
            let mut view = self.view.lock();
            let first = view.failed.is_none();
            view.failed.get_or_insert_with(|| text.clone());
            first
        };
        if first {
            (self.fatal)(&text);
        }
        StoreError::Failed(text)
    }

    /// Gives the flusher someone to call back.
    ///
    /// # Errors
    /// If the log is closed or has failed; then nobody is called.
    pub(super) fn enqueue(&self, done: Done) -> Result<(), StoreError> {
        let mut view = self.view.lock();
        view.usable()?;
        view.waiting.push(done);
        self.work.notify_one();
        Ok(())
    }

    /// Returns once all changes made so far are durable.
    pub(super) fn wait_durable(&self) -> Result<(), StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.enqueue(Box::new(move |result| {
            // Whoever waits does so until it is told.
            let _ = answer.send(result);
        }))?;
        answered.recv().unwrap_or(Err(StoreError::Closed))
    }
}
