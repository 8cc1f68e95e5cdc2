//! The open: checked on a copy, then on the log itself, which is repaired where nothing acknowledged is touched.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::super::files::{self, Lock};
use super::super::inspect::{Found, inspect, inspect_copy};
use super::super::layout;
use super::super::mark::{self, Mark, MarkFile};
use super::super::record::{INDEX_END, Position};
use super::super::sled::{self, Broken, PARTS_PER_SEGMENT, Sled};
use super::super::stats::Stats;
use super::super::workers::{self, Watcher};
use super::{Fatal, Log, OpenError, Opened, Options, Shared, StoreError, View};

impl Log {
    /// Opens the log of a data directory, or makes one. Creates the directory if it is absent.
    ///
    /// sled repairs what it opens, and so would destroy what a person may still want to look at. So a copy is opened and
    /// read first, in `log.check/` beside the log: this needs as much free space as the log takes, and time in proportion
    /// (the log is bounded by retention; file systems that share blocks make the copy at once).
    ///
    /// # Errors
    /// [`OpenError`]; unless it is `Io`, no file of the directory has been changed.
    pub fn open(data_dir: &Path, options: Options, fatal: Fatal) -> Result<(Log, Opened), OpenError> {
        let (log, opened) = Log::begin(data_dir, options, fatal, |mark| mark)?;
        log.repair(&opened).map_err(|error| OpenError::Io {
            file: layout::log_dir(data_dir).join(sled::DATA),
            error: std::io::Error::other(error),
        })?;
        Ok((log, opened))
    }

    /// Opens the log as if nothing after `last` had been acknowledged. The mark follows the first change that becomes
    /// durable: until then a start finds as much damage as before. What is not part of the log stays until
    /// [`Log::repair`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_up_to(
        data_dir: &Path,
        last: Option<Position>,
        options: Options,
        fatal: Fatal,
    ) -> Result<(Log, Opened), OpenError> {
        Log::begin(data_dir, options, fatal, |mark| Mark { last, ..mark })
    }

    /// `promised`: what counts as acknowledged, of what the mark says.
    fn begin(
        data_dir: &Path,
        options: Options,
        fatal: Fatal,
        promised: impl FnOnce(Mark) -> Mark,
    ) -> Result<(Log, Opened), OpenError> {
        files::make_dir(data_dir).map_err(OpenError::io(data_dir))?;
        layout::read_format(data_dir)?;
        let lock = Lock::exclusive(data_dir, options.lock_wait)
            .map_err(OpenError::io(data_dir))?
            .ok_or_else(|| OpenError::Locked { file: data_dir.to_owned() })?;
        if layout::examine(data_dir)?.is_none_or(|(_, has_log)| !has_log) {
            layout::create(data_dir, options.segment_bytes)?;
        }
        let mark = MarkFile::open(data_dir)?;
        let promised = promised(mark.mark());
        let copy = layout::check_dir(data_dir);
        files::remove_dir(&copy).map_err(OpenError::io(&copy))?;
        let checked = inspect_copy(data_dir, &copy, options.cache_bytes, &promised, &|_| Ok(()));
        let log_dir = layout::log_dir(data_dir);
        let ready = checked.and_then(|_| sled::take_snapshot(&copy, &log_dir).map_err(OpenError::io(&log_dir)));
        files::remove_dir(&copy).map_err(OpenError::io(&copy))?;
        ready?;

        let data_path = log_dir.join(sled::DATA);
        let segment_bytes =
            sled::segment_bytes_of(&log_dir).map_err(OpenError::io(&log_dir))?.unwrap_or(options.segment_bytes);
        let sled = Sled::open(&log_dir, segment_bytes, options.cache_bytes, options.lock_wait)
            .map_err(|broken| broken.at_open(&data_path))?;
        let found = inspect(&sled, &promised, data_dir, &|_| Ok(()))?;
        let opened = Opened { truncated: found.torn, purge_finished: found.leftovers };
        let log = Log::start(sled, mark, lock, data_dir, &found, fatal).map_err(OpenError::io(&data_path))?;
        Ok((log, opened))
    }

    fn start(
        sled: Sled,
        mark: MarkFile,
        lock: Lock,
        data_dir: &Path,
        found: &Found,
        fatal: Fatal,
    ) -> std::io::Result<Log> {
        let view = View {
            purged: mark.mark().purged,
            last: found.last,
            bytes: found.sizes.iter().map(|size| u64::from(*size)).sum(),
            sizes: found.sizes.clone(),
            meta: found.meta,
            ..View::default()
        };
        let shared = Arc::new(Shared {
            part_bytes: sled.segment_bytes() / PARTS_PER_SEGMENT,
            data_path: layout::log_dir(data_dir).join(sled::DATA),
            mark_path: data_dir.join(mark::FILE),
            sled,
            writer: Mutex::new(()),
            mark: Mutex::new(mark),
            view: Mutex::new(view),
            work: Condvar::new(),
            stats: Stats::default(),
            fatal,
            _lock: lock,
        });
        let weak = Arc::downgrade(&shared);
        let watcher: Watcher = Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.fail(&Broken::Panic("in a thread that writes".to_owned()));
            }
        });
        workers::watch(&watcher);
        let run = shared.clone();
        let flusher = thread::Builder::new().name("log-flusher".to_owned()).spawn(move || {
            // Whoever waits for a flusher that is gone would wait for ever.
            if catch_unwind(AssertUnwindSafe(|| run.run())).is_err() {
                run.fail(&Broken::Panic("in the flusher".to_owned()));
            }
        })?;
        Ok(Log { shared, flusher: Mutex::new(Some(flusher)), _watcher: watcher })
    }

    /// Removes the torn tail and what a purge left, and makes durable and marks what is kept: from here on it is counted
    /// as written.
    ///
    /// # Errors
    /// If the log has failed.
    pub fn repair(&self, opened: &Opened) -> Result<(), StoreError> {
        let (first, next) = {
            let view = self.shared.view.lock();
            (view.first_index(), view.next_index())
        };
        if opened.truncated.is_some() {
            self.shared.remove(next, INDEX_END)?;
        }
        if opened.purge_finished {
            self.shared.remove(0, first)?;
        }
        self.shared.wait_durable()
    }
}
