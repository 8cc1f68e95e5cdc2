//! A disk that loses what was not synced. It remembers of each file what was in it when it was last synced, and when the
//! power fails, every page that differs from that is kept, lost, or torn.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;

static DISKS: LazyLock<Mutex<HashMap<PathBuf, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// Called in the place of a sync of a file's data: whether it has been taken care of.
pub(in crate::store) fn intercept(path: &Path) -> io::Result<bool> {
    let disk = DISKS.lock().iter().find(|(root, _)| path.starts_with(root)).map(|(_, disk)| disk.clone());
    match disk {
        // The copy that is checked is never promised to last.
        Some(disk) if !path.components().any(|part| part.as_os_str() == "log.check") => disk.sync(path).map(|()| true),
        _ => Ok(false),
    }
}

/// Called when the names in a directory are synced.
pub(in crate::store) fn dir_synced(dir: &Path) -> io::Result<()> {
    let disk = DISKS.lock().iter().find(|(root, _)| root.join("log") == dir).map(|(_, disk)| disk.clone());
    let Some(disk) = disk else { return Ok(()) };
    let mut state = disk.state.lock();
    if state.written.is_none() {
        state.names = snapshots(dir);
    }
    Ok(())
}

/// sled's `snap.*` files and what is in them.
fn snapshots(log: &Path) -> HashMap<OsString, Vec<u8>> {
    let names = fs::read_dir(log).unwrap().map(|name| name.unwrap());
    let names = names.filter(|name| name.file_name().to_string_lossy().starts_with("snap."));
    names.map(|name| (name.file_name(), fs::read(name.path()).unwrap())).collect()
}

/// The files that the store syncs.
const FILES: [&str; 2] = ["log/db", "durable"];

/// How many syncs before the failure sled's file is remembered; it is synced again in between.
const REMEMBERED: u64 = 12;

pub(super) struct Disk {
    root: PathBuf,
    /// The sync at which the power fails.
    fails_at: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    syncs: u64,
    /// What each file certainly holds, and since which sync.
    synced: HashMap<PathBuf, (u64, Vec<u8>)>,
    /// The last sync of each file.
    last: HashMap<PathBuf, u64>,
    /// The `snap.*` files whose names last.
    names: HashMap<OsString, Vec<u8>>,
    /// What was written when the power failed.
    written: Option<Written>,
}

#[derive(Default)]
struct Written {
    files: HashMap<PathBuf, Vec<u8>>,
    names: HashMap<OsString, Vec<u8>>,
}

impl Disk {
    /// Watches over what lies in `root`. All of it counts as synced, unless it is what a process has left that ended while
    /// the power stayed on: then the disk before knows what is.
    pub(super) fn watch(root: &Path, fails_at: u64, before: Option<&Disk>) -> Arc<Self> {
        let mut state = State::default();
        for name in FILES {
            let content = match before {
                Some(before) => before.state.lock().synced[&before.root.join(name)].1.clone(),
                None => fs::read(root.join(name)).unwrap(),
            };
            state.synced.insert(root.join(name), (0, content));
            state.last.insert(root.join(name), 0);
        }
        state.names = before.map_or_else(|| snapshots(&root.join("log")), |before| before.state.lock().names.clone());
        let disk = Disk { root: root.to_owned(), fails_at, state: Mutex::new(state) };
        let disk = Arc::new(disk);
        DISKS.lock().insert(root.to_owned(), disk.clone());
        disk
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        let syncs = state.syncs;
        if syncs >= self.fails_at {
            if state.written.is_none() {
                state.written = Some(self.read());
            }
            return Err(io::Error::other("the power has failed"));
        }
        state.last.insert(path.to_owned(), syncs);
        if syncs + REMEMBERED >= self.fails_at || !path.ends_with("db") {
            state.synced.insert(path.to_owned(), (syncs, fs::read(path)?));
        }
        Ok(())
    }

    fn read(&self) -> Written {
        let files = FILES.map(|file| self.root.join(file)).into_iter();
        Written {
            files: files.map(|file| (file.clone(), fs::read(file).unwrap())).collect(),
            names: snapshots(&self.root.join("log")),
        }
    }

    /// Ends the watch. Into `root` comes what the next start finds: if the power has failed, what it left, otherwise all
    /// that was written.
    pub(super) fn restart_into(&self, root: &Path, segment_bytes: usize, power: bool, random: &mut StdRng) {
        DISKS.lock().remove(&self.root);
        let mut state = self.state.lock();
        let written = state.written.take().expect("it has failed");
        fs::create_dir_all(root.join("log/blobs")).unwrap();
        for name in ["FORMAT", "log/conf"] {
            fs::copy(self.root.join(name), root.join(name)).unwrap();
        }
        for (name, content) in written.names.iter().chain(&state.names) {
            if match (written.names.contains_key(name), state.names.contains_key(name)) {
                (true, true) => true,
                (kept, _) if !power => kept,
                _ => random.random(),
            } {
                fs::write(root.join("log").join(name), content).unwrap();
            }
        }
        assert_eq!(fs::read_dir(self.root.join("log/blobs")).unwrap().count(), 0, "sled keeps pages elsewhere");
        let loss = Loss::new(segment_bytes, random);
        for (file, written) in written.files {
            let (since, synced) = &state.synced[&file];
            assert_eq!(*since, state.last[&file], "{} was synced and not remembered", file.display());
            let found = if power { loss.found(synced, &written, random) } else { written };
            fs::write(root.join(file.strip_prefix(&self.root).unwrap()), found).unwrap();
        }
    }
}

/// Which pages are lost.
struct Loss {
    /// Bytes that are kept or lost together.
    page: usize,
    /// Whole stretches of this many bytes share a fate; the rest is decided page by page.
    stretch: usize,
    keep: f64,
    tear: f64,
}

impl Loss {
    fn new(segment_bytes: usize, random: &mut StdRng) -> Self {
        let page = [512, 4096][random.random_range(0..2)];
        Loss {
            page,
            stretch: [page, page, 4 * page, segment_bytes / 4, segment_bytes][random.random_range(0..5)],
            keep: [0.0, 0.1, 0.5, 0.5, 0.9, 0.98, 1.0][random.random_range(0..7)],
            tear: [0.0, 0.0, 0.05, 0.5][random.random_range(0..4)],
        }
    }

    fn found(&self, synced: &[u8], written: &[u8], random: &mut StdRng) -> Vec<u8> {
        let mut found = synced.to_vec();
        let mut old = synced.to_vec();
        old.resize(written.len().max(synced.len()), 0);
        // A file that shrank may still be long; one that grew may have its new length without its content.
        if written.len() > synced.len() {
            let length = random.random_range(synced.len()..=written.len());
            found.resize(if random.random() { written.len() } else { length }, 0);
        } else if random.random() {
            found.truncate(written.len());
        }
        let mut kept = false;
        for start in (0..found.len()).step_by(self.page) {
            if start % self.stretch == 0 {
                kept = random.random_bool(self.keep);
            }
            let end = (start + self.page).min(found.len()).min(written.len());
            if end <= start || old[start..end] == written[start..end] {
                continue;
            }
            if random.random_bool(self.tear) {
                let tear = random.random_range(start..=end);
                found[start..tear].copy_from_slice(&written[start..tear]);
            } else if kept {
                found[start..end].copy_from_slice(&written[start..end]);
            }
        }
        found
    }
}

/// A directory in memory if there is such, else on disk.
pub(super) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
