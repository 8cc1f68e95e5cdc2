//! `backup` and `restore`: everything that is replicated, as a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, put};
use super::progress::Bar;

/// Bytes of a file that go at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Of these parts, those that are read and not sent yet.
const PARTS_MAX: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where it goes; `-` is standard output. It holds secrets: whoever has it can be every device and user.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a regular file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// A backup; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// First empty a cluster that has data, and close its connections.
    #[arg(long)]
    replace: bool,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::refused(format!("{path}: {error}"))
}

fn count(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or_default()
}

/// Stands for standard output, or input.
fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// Writes the file under another name, and gives it its own once it is whole.
pub(super) async fn backup(client: &Client, output: Output, of: &Backup) -> Result<(), Failure> {
    if is_standard(&of.file) {
        if stdout().is_terminal() {
            return Err(Failure::usage("a backup is not for a terminal: send standard output to a file or a program"));
        }
        let mut out = stdout();
        let end = written(client, || Ok(&mut out), &of.file).await?;
        out.flush().map_err(failed(&of.file))?;
        eprintln!("{}", told(output, of, &end)?);
        return Ok(());
    }
    check(of)?;
    let mut partial = of.file.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let mut file = None;
    let written = written(client, || Ok(file.insert(open()?)), &partial).await;
    let synced = written.and_then(|end| {
        file.map_or(Ok(()), |file| file.sync_all()).map_err(failed(&partial))?;
        Ok(end)
    });
    let end = match synced {
        Ok(end) => end,
        Err(failure) => {
            // What is not whole is of no use; that it cannot be removed says nothing more.
            let _ = fs::remove_file(&partial);
            return Err(failure);
        }
    };
    fs::rename(&partial, &of.file).map_err(failed(&of.file))?;
    put(&told(output, of, &end)?)
}

/// Whether the file may take the name that it was given.
fn check(of: &Backup) -> Result<(), Failure> {
    let shown = of.file.display();
    match fs::symlink_metadata(&of.file) {
        Ok(there) if !there.is_file() => Err(Failure::refused(format!(
            "{shown} is no regular file, and would be replaced by one: name another, or - for standard output"
        ))),
        Ok(_) if !of.force => Err(Failure::refused(format!("{shown} is there already: give --force to replace it"))),
        // Nothing is there; if that is not known, it cannot be written either.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What is said of a backup that is whole.
fn told(output: Output, of: &Backup, end: &Value) -> Result<String, Failure> {
    match output.is_table() {
        true => Ok(format!(
            "{}: {} bytes, {} records, SHA-256 {}",
            of.file.display(),
            count(end, "bytes"),
            count(end, "records"),
            end.get("sha256").and_then(Value::as_str).unwrap_or("-")
        )),
        false => output.document(&json!({ "file": of.file, "end": end })),
    }
}

/// Writes a backup to where `open` says, once a node answers; its end.
async fn written<W: Write>(
    client: &Client,
    open: impl FnOnce() -> io::Result<W>,
    path: &Path,
) -> Result<Value, Failure> {
    let mut answers = client.stream("Backups/Create", json!({})).await?;
    let mut file = open().map_err(failed(path))?;
    let bar = Bar::of_bytes("backup", 0);
    while let Some(answer) = client.next(&mut answers).await? {
        if let Some(head) = answer.get("head") {
            bar.at_most(count(head, "replicated_bytes"));
        }
        if let Some(content) = answer.get("content").and_then(Value::as_str) {
            let bytes = STANDARD.decode(content).map_err(|error| Failure::refused(format!("not a backup: {error}")))?;
            file.write_all(&bytes).map_err(failed(path))?;
        }
        bar.at(count(&answer, "bytes"));
        if let Some(end) = answer.get("end") {
            bar.close();
            return Ok(end.clone());
        }
    }
    Err(Failure::refused("the backup broke off before its end: try again"))
}

pub(super) async fn restore(client: &Client, output: Output, of: &Restore) -> Result<(), Failure> {
    let (mut file, length): (Box<dyn Read + Send>, u64) = if is_standard(&of.file) {
        (Box::new(stdin()), 0)
    } else {
        let file = File::open(&of.file).map_err(failed(&of.file))?;
        let length = file.metadata().map_err(failed(&of.file))?.len();
        (Box::new(file), length)
    };
    // Whoever answers this gets the file: what has gone to one node cannot go to another.
    client.call("Cluster/ListMembers", json!({})).await?;
    let bar = Bar::of_bytes("restore", length);
    let unread = Arc::new(Mutex::new(None));
    let (parts, reading) = mpsc::channel(PARTS_MAX);
    let (error, bar_of_parts, replace) = (Arc::clone(&unread), bar.clone(), of.replace);
    // Beside the connection, which must be kept alive while standard input has nothing to say.
    std::thread::spawn(move || {
        let mut next = replace.then(|| json!({ "replace": true }));
        let mut sent = 0;
        loop {
            if next.take().is_some_and(|part| parts.blocking_send(part).is_err()) {
                return; // the node takes no more
            }
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => return,
                Ok(bytes) => {
                    sent += bytes as u64;
                    bar_of_parts.at(sent);
                    next = Some(json!({ "content": STANDARD.encode(&chunk) }));
                }
                Err(why) => {
                    *error.lock() = Some(why);
                    return;
                }
            }
        }
    });
    let answer = client.upload("Backups/Restore", ReceiverStream::new(reading)).await;
    bar.close();
    if let Some(why) = unread.lock().take() {
        return Err(failed(&of.file)(why));
    }
    let answer = answer?;
    if !output.is_table() {
        return put(&output.document(&answer)?);
    }
    let counts = ["sessions", "retained", "devices", "queued", "messages", "tasks"];
    let counts = counts.map(|name| format!("{} {name}", count(&answer, name)));
    put(&format!("restored: {}, as of revision {}", counts.join(", "), count(&answer, "revision")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_replaced_and_only_when_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("a"), dir.path().join("link"));
        let refused = |file: &Path, force: bool| {
            check(&Backup { file: file.to_owned(), force }).err().map(|failure| failure.text).unwrap_or_default()
        };
        assert_eq!(refused(&file, false), "");
        fs::write(&file, "x").expect("written");
        std::os::unix::fs::symlink("a", &link).expect("a link");
        assert!(refused(&file, false).contains("--force"));
        assert_eq!(refused(&file, true), "");
        for strange in [&*link, dir.path(), Path::new("/dev/null"), Path::new("/dev/stdout")] {
            for force in [false, true] {
                assert!(refused(strange, force).contains("no regular file"), "{}", strange.display());
            }
        }
    }
}
