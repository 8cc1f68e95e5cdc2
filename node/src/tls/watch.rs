//! Which files are in use, and whether they have changed. A thread of its own looks at each of them once a second: it
//! follows links, as those of mounted secrets in Kubernetes, whose link `..data` is replaced, and sees renames and
//! writes alike, on every file system. (A watch by inotify would have to follow each link of the way to a file, sees
//! nothing on network file systems, and loses events when its queue is full, so it would need this look as well.)
//!
//! A change counts once two looks in a row have seen the same: files that are written one after the other are read
//! when all of them are there. What does not fit together is not taken, and tried again at each look, because a
//! certificate may begin to be valid while its file stays as it is.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Purpose, Secured, Tls};
use crate::config::admin::Admin;
use crate::config::cluster::Cluster;
use crate::config::listener::{self, Listener};
use crate::config::tls::{TlsPaths, unix_now};
use crate::telemetry::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Files that are in use, and watched for as long as this lives.
pub struct Certificates {
    watched: Mutex<Vec<Arc<Watched>>>,
    metrics: Arc<Metrics>,
}

/// How it stands with the files of one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// As in `listener:mqtts-8883`.
    pub name: String,
    /// Why the newest files are not in use.
    pub failed: Option<String>,
    /// When the certificate that is shown ends, if one is.
    pub ends: Option<Ends>,
}

/// The end of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Seconds of Unix time.
    pub at_s: i64,
    /// Seconds from now on; less than 0 if it has ended.
    pub left_s: i64,
}

/// Reads files anew at a moment, in seconds of Unix time, and uses them; says when the certificate ends, if one is shown.
type Read = Box<dyn Fn(i64) -> Result<Option<i64>, String> + Send + Sync>;

/// What tells one content of a file from another: device, inode, size, and the times of change in ns. `None`: there is no
/// file, or it cannot be asked for.
type Stamp = Option<(u64, u64, u64, i128, i128)>;

struct Watched {
    name: String,
    files: Vec<PathBuf>,
    read: Read,
    seen: Mutex<Seen>,
    /// Never held while files are read.
    told: Mutex<Told>,
}

struct Seen {
    /// When the files were read.
    read: Vec<Stamp>,
    /// At the last look.
    last: Vec<Stamp>,
}

#[derive(Default)]
struct Told {
    failed: Option<String>,
    not_after: Option<i64>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// There is no further thread to be had.
    pub fn start(metrics: Arc<Metrics>) -> io::Result<Arc<Certificates>> {
        let certificates = Arc::new(Certificates::unwatched(metrics));
        let weak = Arc::downgrade(&certificates);
        std::thread::Builder::new().name("tls-files".into()).spawn(move || run(&weak))?;
        Ok(certificates)
    }

    /// Looked at only when somebody says so.
    pub(super) fn unwatched(metrics: Arc<Metrics>) -> Certificates {
        Certificates { watched: Mutex::default(), metrics }
    }

    /// What a listener shows, the `at`-th of the configuration; `None`: it takes no TLS.
    ///
    /// # Errors
    /// As [`Certificates::open`].
    pub fn of_listener(&self, listener: &Listener, at: usize) -> anyhow::Result<Option<Tls>> {
        let open = |tls: &listener::Tls| {
            let paths = tls.paths(&format!("listener.{at}.tls"));
            self.open(&format!("listener:{}", listener.name), paths, Purpose::Listener(tls.client_auth))
        };
        listener.tls.as_ref().map(open).transpose()
    }

    /// What the door for admins shows, if there is that door and TLS on it.
    ///
    /// # Errors
    /// As [`Certificates::open`].
    pub fn of_admins(&self, admin: &Admin) -> anyhow::Result<Option<Tls>> {
        let tls = admin.tls.as_ref().filter(|_| admin.address.is_some());
        tls.map(|tls| self.open("admin", tls.paths(), Purpose::Admin)).transpose()
    }

    /// What the node shows to others, on both sides of a connection; `None`: they talk in plain text.
    ///
    /// # Errors
    /// As [`Certificates::open`].
    pub fn of_peers(&self, cluster: &Cluster) -> anyhow::Result<Option<Tls>> {
        cluster.tls.as_ref().map(|tls| self.open("peer", tls.paths(), Purpose::Peer)).transpose()
    }

    /// Reads the files of a table of TLS, and from now on whenever they change. `name` is the use in metrics and alarms.
    /// A certificate that has expired is taken at first, and kept: some clients do not mind, and an alarm says so.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn open(&self, name: &str, paths: TlsPaths, purpose: Purpose) -> anyhow::Result<Tls> {
        let files = paths.all();
        let stamps = stamps(&files);
        let first = paths.load(None)?;
        let not_after = first.not_after;
        let tls = Tls::new(first, purpose)?;
        let (used_as, taken) = (name.to_owned(), tls.clone());
        let read = move |now: i64| {
            let files = paths.load_again(now, taken.now().used()).map_err(|error| error.to_string())?;
            let (not_after, serial) = (files.not_after, files.serial.clone());
            taken.put(Secured::new(files, purpose).map_err(|error| format!("{}: {error:#}", paths.table))?);
            tracing::info!(used_as, serial, not_after, "TLS files read again");
            Ok(Some(not_after))
        };
        self.add(name, files, stamps, Told { failed: None, not_after: Some(not_after) }, Box::new(read));
        Ok(tls)
    }

    /// Reads a file with which nobody is shown a certificate, and again whenever it changes.
    pub fn follow(&self, name: &str, file: &Path, read: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let files = vec![file.to_owned()];
        let stamps = stamps(&files);
        let told = Told { failed: read().err(), not_after: None };
        self.add(name, files, stamps, told, Box::new(move |_| read().map(|()| None)));
    }

    fn add(&self, name: &str, files: Vec<PathBuf>, stamps: Vec<Stamp>, told: Told, read: Read) {
        if let Some(at) = told.not_after {
            self.metrics.tls_files.ends(name, at);
        }
        let seen = Mutex::new(Seen { read: stamps, last: Vec::new() });
        self.watched.lock().push(Arc::new(Watched { name: name.into(), files, read, seen, told: Mutex::new(told) }));
    }

    /// All that are watched, in the order in which that began.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let now = unix_now();
        let status = |watched: &Arc<Watched>| {
            let told = watched.told.lock();
            let ends = told.not_after.map(|at_s| Ends { at_s, left_s: at_s.saturating_sub(now) });
            Status { name: watched.name.clone(), failed: told.failed.clone(), ends }
        };
        self.watched.lock().iter().map(status).collect()
    }

    /// Looks at all files once.
    pub(super) fn look(&self, now: i64) {
        let watched = self.watched.lock().clone();
        for one in watched {
            one.look(now, &self.metrics);
        }
    }
}

fn run(certificates: &Weak<Certificates>) {
    loop {
        std::thread::sleep(EVERY);
        let Some(certificates) = certificates.upgrade() else { return };
        certificates.look(unix_now());
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?; // of what a link leads to
        let time = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        let (written, changed) = (time(found.mtime(), found.mtime_nsec()), time(found.ctime(), found.ctime_nsec()));
        Some((found.dev(), found.ino(), found.size(), written, changed))
    };
    files.iter().map(stamp).collect()
}

impl Watched {
    fn look(&self, now: i64, metrics: &Metrics) {
        let mut seen = self.seen.lock();
        let stamps = stamps(&self.files);
        let settled = stamps == seen.last;
        let news = stamps != seen.read;
        seen.last.clone_from(&stamps);
        let failed = self.told.lock().failed.clone();
        if !settled || !(news || failed.is_some()) {
            return;
        }
        // Noted before they are read: what changes meanwhile is read at another look.
        seen.read = stamps;
        match (self.read)(now) {
            Ok(not_after) => {
                metrics.tls_files.reloaded("ok");
                if let Some(at) = not_after {
                    metrics.tls_files.ends(&self.name, at);
                }
                *self.told.lock() = Told { failed: None, not_after };
            }
            Err(why) => {
                if news || failed.as_ref() != Some(&why) {
                    metrics.tls_files.reloaded("failed");
                    tracing::error!(used_as = self.name, why, "TLS files not taken; those before stay in use");
                }
                self.told.lock().failed = Some(why);
            }
        }
    }
}
