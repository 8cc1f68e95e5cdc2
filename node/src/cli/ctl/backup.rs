//! `backup` and `restore`: everything that is replicated, as a file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, put};
use super::progress::Bar;

/// Bytes of a file that go at once.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where it goes. It holds secrets: whoever has it can be every device and user.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
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

/// Writes the file under another name, and gives it its own once it is whole.
pub(super) async fn backup(client: &Client, output: Output, of: &Backup) -> Result<(), Failure> {
    if of.file.exists() && !of.force {
        return Err(Failure::refused(format!("{} is there already: give --force to replace it", of.file.display())));
    }
    let mut partial = of.file.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = written(client, &partial).await;
    let end = match written {
        Ok(end) => end,
        Err(failure) => {
            // What is not whole is of no use; that it cannot be removed says nothing more.
            let _ = fs::remove_file(&partial);
            return Err(failure);
        }
    };
    fs::rename(&partial, &of.file).map_err(failed(&of.file))?;
    match output.is_table() {
        true => put(&format!(
            "{}: {} bytes, {} records, SHA-256 {}",
            of.file.display(),
            count(&end, "bytes"),
            count(&end, "records"),
            end.get("sha256").and_then(Value::as_str).unwrap_or("-")
        )),
        false => put(&output.document(&json!({ "file": of.file, "end": end }))?),
    }
}

async fn written(client: &Client, path: &Path) -> Result<Value, Failure> {
    let mut answers = client.stream("Backups/Create", json!({})).await?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.map_err(failed(path))?;
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
            file.sync_all().map_err(failed(path))?;
            bar.close();
            return Ok(end.clone());
        }
    }
    Err(Failure::refused("the backup broke off before its end: try again"))
}

pub(super) async fn restore(client: &Client, output: Output, of: &Restore) -> Result<(), Failure> {
    let mut file = File::open(&of.file).map_err(failed(&of.file))?;
    let length = file.metadata().map_err(failed(&of.file))?.len();
    // Whoever answers this gets the file: what has gone to one node cannot go to another.
    client.call("Cluster/ListMembers", json!({})).await?;
    let bar = Bar::of_bytes("restore", length);
    let unread = Arc::new(Mutex::new(None));
    let (error, mut sent, mut begins) = (Arc::clone(&unread), 0, of.replace);
    let bar_of_parts = bar.clone();
    let parts = std::iter::from_fn(move || {
        if std::mem::take(&mut begins) {
            return Some(json!({ "replace": true }));
        }
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        match Read::by_ref(&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(bytes) => {
                sent += bytes as u64;
                bar_of_parts.at(sent);
                Some(json!({ "content": STANDARD.encode(&chunk) }))
            }
            Err(why) => {
                *error.lock() = Some(why);
                None
            }
        }
    });
    let answer = client.upload("Backups/Restore", tokio_stream::iter(parts)).await;
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
