//! What the disk itself takes: small writes, each made to last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// Bytes of a write.
const WRITE_BYTES: usize = 4096;

/// The file is as long as this, and written through again and again.
const FILE_BYTES: u64 = 1 << 20;

/// Writes 4 KiB and waits for fdatasync, time and again, on a thread of its own, until it is stopped.
pub struct DiskProbe {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Histogram>>>,
}

impl DiskProbe {
    /// Begins, in a file of this directory; `pause` lies between two writes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(dir: &Path, pause: Duration) -> io::Result<DiskProbe> {
        let path = dir.join("fdatasync-probe");
        let file = File::create(&path)?;
        // Of full length from the start: what is measured is data, not the growth of a file.
        let page = vec![0xA5; WRITE_BYTES];
        for at in (0..FILE_BYTES).step_by(WRITE_BYTES) {
            file.write_all_at(&page, at)?;
        }
        file.sync_all()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut histogram, mut at) = (Histogram::default(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                file.write_all_at(&page, at)?;
                file.sync_data()?;
                histogram.record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
                at = (at + WRITE_BYTES as u64) % FILE_BYTES;
                std::thread::sleep(pause);
            }
            Ok(histogram)
        });
        Ok(DiskProbe { path, stop, thread: Some(thread) })
    }

    /// Ends it: nanoseconds of each write with its fdatasync.
    ///
    /// # Errors
    /// A write failed.
    pub fn finish(mut self) -> io::Result<Histogram> {
        self.end().unwrap_or_else(|| Ok(Histogram::default()))
    }

    fn end(&mut self) -> Option<io::Result<Histogram>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take()?.join();
        Some(ended.unwrap_or_else(|_| Err(io::Error::other("the probe of the disk panicked"))))
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        self.end();
        // It may be gone with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::start(dir.path(), Duration::ZERO).unwrap();
        assert!(dir.path().join("fdatasync-probe").exists());
        let histogram = probe.finish().unwrap();
        assert_eq!(histogram.count() == 0, histogram.max() == 0);
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
