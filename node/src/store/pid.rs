//! Which process serves a data directory: `fulmar.pid`, locked for as long as that process lives, so that nobody takes the
//! number of one that has gone for it. It also says how far the process is in letting its clients go, and in which PID
//! namespace its number counts: in another one, as that of another container, it is somebody else's.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::layout;

/// For a process that lets go of the directory to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// For a process that holds the file to name itself in it, and to be found by its number.
const NAMED_WITHIN: Duration = Duration::from_secs(2);

/// Between two tries.
const RETRY: Duration = Duration::from_millis(20);

/// What a process says of itself: as in `Stage::name`, and the connections that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub stage: String,
    pub connections: u64,
}

/// The file of this process. The lock goes with it.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    /// What it says now.
    said: Mutex<String>,
}

/// The PID namespace of this process; `None` where there is no /proc to look at.
fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

fn locked(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl PidFile {
    /// Names this process as the one that serves the directory, which is its own already.
    ///
    /// # Errors
    /// The file cannot be written, or another process keeps it although the directory is ours.
    pub fn hold(data_dir: &Path) -> io::Result<PidFile> {
        let path = data_dir.join(layout::PID);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let by = Instant::now() + ENDS_WITHIN;
        while !locked(&file, FlockOperation::NonBlockingLockExclusive)? {
            if Instant::now() >= by {
                return Err(io::Error::new(ErrorKind::WouldBlock, "another process keeps fulmar.pid locked"));
            }
            thread::sleep(RETRY);
        }
        let held = PidFile { file, said: Mutex::default() };
        held.say("starting", 0)?;
        Ok(held)
    }

    /// Says how far this process is. What is said already is not written again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say(&self, stage: &str, connections: u64) -> io::Result<()> {
        let namespace = namespace().map(|namespace| format!("{namespace}\n")).unwrap_or_default();
        let text = format!("{}\n{stage} {connections}\n{namespace}", std::process::id());
        let mut said = self.said.lock();
        if *said == text {
            return Ok(());
        }
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)?;
        *said = text;
        Ok(())
    }
}

/// The process that serves a data directory, seen from another one.
#[derive(Debug)]
pub struct Server {
    file: File,
    process: OwnedFd,
    pid: i32,
}

impl Server {
    /// Who serves the directory; `None`: nobody does.
    ///
    /// # Errors
    /// That cannot be found out: its number is that of another PID namespace, or it does not name itself.
    pub fn of(data_dir: &Path) -> io::Result<Option<Server>> {
        Server::of_within(data_dir, NAMED_WITHIN)
    }

    fn of_within(data_dir: &Path, within: Duration) -> io::Result<Option<Server>> {
        let file = match File::open(data_dir.join(layout::PID)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let by = Instant::now() + within;
        while held(&file)? {
            // None, if it is being written.
            if let Some(Text { pid, namespace: its, .. }) = read(&file)?
                && let Some(process) = Pid::from_raw(pid)
            {
                // A release that does not say it yet is taken to be here.
                if its.is_some_and(|its| namespace().is_some_and(|ours| its != ours)) {
                    let what = format!(
                        "process {pid} of another PID namespace serves it: run this where that runs, in its container"
                    );
                    return Err(io::Error::new(ErrorKind::Unsupported, what));
                }
                match pidfd_open(process, PidfdFlags::empty()) {
                    // Still held, so the handle is of whoever holds it and of nobody who has got its number since.
                    Ok(process) if held(&file)? => return Ok(Some(Server { file, process, pid })),
                    Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if Instant::now() >= by {
                let what = "a process keeps fulmar.pid locked, and names itself by no number that is known here";
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            thread::sleep(RETRY);
        }
        Ok(None)
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks the process to let its clients go, and to stay.
    ///
    /// # Errors
    /// It may not be asked. Fine if it has gone.
    pub fn ask_to_drain(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.process, Signal::USR1) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the process says; `None`: it has gone.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn said(&self) -> io::Result<Option<Said>> {
        while held(&self.file)? {
            if let Some(text) = read(&self.file)? {
                return Ok(Some(text.said));
            }
            thread::sleep(RETRY); // it is being written
        }
        Ok(None)
    }
}

/// Whether a process has the file locked.
fn held(file: &File) -> io::Result<bool> {
    if !locked(file, FlockOperation::NonBlockingLockShared)? {
        return Ok(true);
    }
    locked(file, FlockOperation::Unlock)?;
    Ok(false)
}

/// What is in the file.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    pid: i32,
    said: Said,
    /// In which the number counts. Earlier releases do not say it.
    namespace: Option<u64>,
}

/// `None` for what is no whole text.
fn read(file: &File) -> io::Result<Option<Text>> {
    let mut bytes = [0; 128];
    let count = file.read_at(&mut bytes, 0)?;
    let text = bytes.get(..count).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    Ok(parse(text))
}

fn parse(text: &str) -> Option<Text> {
    let (pid, rest) = text.split_once('\n')?;
    let (said, rest) = rest.split_once('\n')?;
    let (stage, connections) = said.split_once(' ')?;
    let said = Said { stage: stage.to_owned(), connections: connections.parse().ok()? };
    let namespace = rest.split_once('\n').and_then(|(namespace, _)| namespace.parse().ok());
    Some(Text { pid: pid.parse().ok()?, said, namespace })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_process_that_holds_the_file_is_found_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Server::of(dir.path()).unwrap().is_none());
        let held = PidFile::hold(dir.path()).unwrap();
        let server = Server::of(dir.path()).unwrap().expect("it is held");
        assert_eq!(server.pid(), i32::try_from(std::process::id()).unwrap());
        assert_eq!(server.said().unwrap(), Some(Said { stage: "starting".to_owned(), connections: 0 }));
        held.say("draining", 12_345).unwrap();
        held.say("draining", 7).unwrap();
        assert_eq!(server.said().unwrap(), Some(Said { stage: "draining".to_owned(), connections: 7 }));
        drop(held);
        assert_eq!(server.said().unwrap(), None);
        assert!(dir.path().join(layout::PID).exists() && Server::of(dir.path()).unwrap().is_none(), "a stale number");
        fs::write(dir.path().join(layout::PID), "1\n").unwrap();
        assert!(Server::of(dir.path()).unwrap().is_none());
        PidFile::hold(dir.path()).unwrap();
    }

    #[test]
    fn a_number_of_another_namespace_or_of_nobody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let held = PidFile::hold(dir.path()).unwrap();
        let ours = namespace().unwrap();
        let of = |text: String| {
            held.file.set_len(0).unwrap();
            held.file.write_all_at(text.as_bytes(), 0).unwrap();
            Server::of_within(dir.path(), Duration::ZERO)
        };
        let pid = std::process::id();
        assert!(of(format!("{pid}\nserving 1\n{ours}\n")).unwrap().is_some());
        assert!(of(format!("{pid}\nserving 1\n")).unwrap().is_some(), "as an earlier release wrote it");
        let refused = of(format!("{pid}\nserving 1\n{}\n", ours + 1)).unwrap_err();
        assert!(refused.to_string().contains("another PID namespace"), "{refused}");
        for nobody in [format!("{}\nserving 1\n", i32::MAX), String::new()] {
            assert_eq!(of(nobody).unwrap_err().kind(), ErrorKind::TimedOut);
        }
    }

    #[test]
    fn what_is_not_whole_is_not_taken() {
        for text in ["", "1", "1\n", "1\nserving", "1\nserving 2", "x\nserving 2\n", "1\nserving\n", "1\nserving x\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(parse("1\nserving 2\n").is_some());
    }
}
