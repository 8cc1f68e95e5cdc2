//! A child process whose output goes to files and who dies with its handle.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::sys::{self, Signal};
use crate::wait::wait_for;

/// Lines of each output file that an error shows.
const TAIL_LINES: usize = 30;

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output is appended to files under `dir` that carry `name`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(name: &str, mut command: Command, dir: &Path) -> Result<Process> {
        let (stdout, stderr) = (dir.join(format!("{name}.stdout")), dir.join(format!("{name}.stderr")));
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?);
        let child = command.spawn().with_context(|| format!("cannot start {name} as {command:?}"))?;
        Ok(Process { name: name.into(), child, stdout, stderr, exited: None })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // As long as the child is not waited for, its number cannot become another's.
        match self.status()? {
            Some(status) => Err(anyhow!("{} has ended: {status}", self.name)),
            None => Ok(sys::signal(self.pid(), signal)?),
        }
    }

    /// SIGKILL, and waits until it is gone. Fine if it was gone before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status()? {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.exited = Some(status);
        Ok(status)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait()?;
        }
        Ok(self.exited)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It still runs; its last output is shown.
    pub async fn exited(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let waited = wait_for(&what, deadline, async || self.status().ok().flatten()).await;
        waited.with_context(|| self.tail())
    }

    /// What it printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it printed to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// The end of both outputs, for an error message.
    #[must_use]
    pub fn tail(&self) -> String {
        let end = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ")
        };
        format!(
            "{} (pid {}) printed last\n stdout:\n  {}\n stderr:\n  {}",
            self.name,
            self.pid(),
            end(self.stdout()),
            end(self.stderr())
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a kernel that refuses, and a panic here would hide the one that matters.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_kept_and_signals_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exec sleep 60"]);
        let mut process = Process::spawn("sleeper", command, dir.path()).unwrap();
        wait_for("output", Duration::from_secs(5), async || (!process.stderr().is_empty()).then_some(()))
            .await
            .unwrap();
        assert_eq!(process.stdout(), "out\n");
        assert!(process.exited(Duration::from_millis(20)).await.unwrap_err().to_string().contains("err"));
        process.signal(Signal::Terminate).unwrap();
        assert!(!process.exited(Duration::from_secs(5)).await.unwrap().success());
        assert!(process.signal(Signal::Stop).is_err());
    }
}
