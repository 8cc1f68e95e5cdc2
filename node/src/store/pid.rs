//! Which process serves a data directory: `fulmar.pid`, locked for as long as that process lives, so that nobody takes the
//! number of one that has gone for it. It also says how far the process is in letting its clients go.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::layout;

/// For a process that lets go of the directory to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

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
        let text = format!("{}\n{stage} {connections}\n", std::process::id());
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
    /// That cannot be found out.
    pub fn of(data_dir: &Path) -> io::Result<Option<Server>> {
        let file = match File::open(data_dir.join(layout::PID)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        loop {
            if !held(&file)? {
                return Ok(None);
            }
            let Some((pid, process)) = read(&file)?.and_then(|(pid, _)| Some((pid, Pid::from_raw(pid)?))) else {
                thread::sleep(RETRY); // it is being written
                continue;
            };
            match pidfd_open(process, PidfdFlags::empty()) {
                // Still held, so the handle is of whoever holds it and of nobody who has got its number since.
                Ok(process) if held(&file)? => return Ok(Some(Server { file, process, pid })),
                Ok(_) | Err(rustix::io::Errno::SRCH) => thread::sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        }
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
            if let Some((_, said)) = read(&self.file)? {
                return Ok(Some(said));
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

/// The process and what it says; `None` for what is no whole text.
fn read(file: &File) -> io::Result<Option<(i32, Said)>> {
    let mut bytes = [0; 128];
    let count = file.read_at(&mut bytes, 0)?;
    let text = bytes.get(..count).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    Ok(parse(text))
}

fn parse(text: &str) -> Option<(i32, Said)> {
    let (pid, rest) = text.split_once('\n')?;
    let (stage, connections) = rest.split_once('\n')?.0.split_once(' ')?;
    Some((pid.parse().ok()?, Said { stage: stage.to_owned(), connections: connections.parse().ok()? }))
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
    fn what_is_not_whole_is_not_taken() {
        for text in ["", "1", "1\n", "1\nserving", "1\nserving 2", "x\nserving 2\n", "1\nserving\n", "1\nserving x\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(parse("1\nserving 2\n").is_some());
    }
}
