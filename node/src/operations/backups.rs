//! Backups of everything that is replicated, and a cluster made of one again. A backup that comes in lies on the disk of
//! the node that it is sent to until all of it was found whole; only then is anything changed.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fulmar_broker::state::RestoreStep;
use fulmar_broker::state::command::{Command, Outcome};
use futures_util::{Stream, StreamExt};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Operations;
use crate::cluster::backup::{self, Head, Piece, Whole};
use crate::store::backups::{BackupError, End, PREAMBLE_BYTES, check_preamble};

/// Time for one step of a restore to be committed.
const STEP: Duration = Duration::from_secs(30);

/// Time for every node to have applied the last one.
const EVERYWHERE: Duration = Duration::from_secs(30);

/// Bytes of a backup that comes in between two looks at the room on the disk.
const ROOM_EVERY: u64 = 8 << 20;

/// What to do about a restore that has broken off.
const AGAIN: &str =
    "the cluster serves nobody until a restore with `replace` ends well, or until every node's data is wiped";

/// Why there is no backup, or why it was not put back. `Display` is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failed {
    #[error("this node makes or takes a backup already; wait for it, or ask another node")]
    Busy,
    #[error("the cluster has data: {0}. Restore into a fresh cluster, or say `replace` to have it emptied first")]
    Occupied(String),
    #[error("the file is no whole backup, and nothing was changed: {0}")]
    Unfit(String),
    #[error("the backup could not be made or kept here, and nothing was changed: {0}")]
    Disk(String),
    #[error("the restore has broken off: {0}; {AGAIN}")]
    BrokenOff(String),
    #[error("a restore is under way or has broken off: {AGAIN}")]
    Restoring,
}

impl Failed {
    /// As [`super::Error::rest`] has it.
    #[must_use]
    pub fn rest(&self) -> (u16, &'static str) {
        match self {
            Failed::Busy => (503, "FULMAR.000080"),
            Failed::Occupied(_) => (409, "FULMAR.000081"),
            Failed::Unfit(_) => (400, "FULMAR.000082"),
            Failed::Disk(_) => (503, "FULMAR.000083"),
            Failed::BrokenOff(_) => (500, "FULMAR.000084"),
            Failed::Restoring => (503, "FULMAR.000085"),
        }
    }
}

/// A backup as it is made. It takes the node's only place for backups as long as it is kept.
pub struct Backup {
    pub pieces: mpsc::Receiver<io::Result<Piece>>,
    _place: OwnedSemaphorePermit,
}

/// What was put back.
#[derive(Debug, Clone)]
pub struct Restored {
    pub head: Head,
    pub end: End,
    pub took: Duration,
    /// The entry that ended it.
    pub revision: u64,
}

impl Operations {
    /// Whether a restore has begun and not ended well, so that nobody is served.
    #[must_use]
    pub fn restoring(&self) -> bool {
        self.replica().read().restoring()
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Failed> {
        self.backups.clone().try_acquire_owned().map_err(|_| Failed::Busy)
    }

    /// Begins a backup. Whatever any node had acknowledged before is in it.
    ///
    /// # Errors
    /// Another one is being made or taken here, a restore is unfinished, or the cluster takes no changes.
    pub async fn create_backup(&self) -> Result<Backup, Failed> {
        let place = self.place()?;
        // A step that is due anyhow, or nothing: once it is applied here, so is all that was committed before.
        let here = self.replica().commit(vec![Command::Expand]);
        if !matches!(tokio::time::timeout(STEP, here).await, Ok(Ok(_))) {
            return Err(Failed::Disk("the cluster takes no changes now".to_owned()));
        }
        if self.restoring() {
            return Err(Failed::Restoring);
        }
        let pieces = backup::create(self.replica(), env!("CARGO_PKG_VERSION"));
        Ok(Backup { pieces: pieces.map_err(|error| Failed::Disk(error.to_string()))?, _place: place })
    }

    /// Takes a backup, looks whether it is whole, and puts it back.
    ///
    /// # Errors
    /// Nothing was changed, or the restore has broken off: the error says which. `E`: what was wrong with the upload.
    pub async fn restore_backup<E: std::fmt::Display>(
        &self,
        replace: bool,
        contents: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Restored, Failed> {
        let (_place, began) = (self.place()?, Instant::now());
        self.check_vacant(replace)?;
        let file = self.keep(contents).await?;
        let checked = tokio::task::spawn_blocking(move || {
            let whole = backup::check(&file).map_err(|error| Failed::Unfit(error.to_string()));
            whole.map(|whole| (file, whole))
        });
        let (file, whole) = checked.await.map_err(|error| Failed::Unfit(error.to_string()))??;
        self.check_vacant(replace)?;
        let Whole { head, end, .. } = whole;
        tracing::warn!(index = head.index, records = end.records, replace, "a backup is put back");
        let revision = self.put_back(file, replace).await?;
        Ok(Restored { head, end, took: began.elapsed(), revision })
    }

    /// Whether a restore may begin.
    fn check_vacant(&self, replace: bool) -> Result<(), Failed> {
        if replace {
            return Ok(());
        }
        let state = self.replica().read();
        if state.restoring() {
            return Err(Failed::Restoring);
        }
        let occupants: Vec<String> = state.occupants().iter().map(|(what, count)| format!("{count} {what}")).collect();
        if occupants.is_empty() { Ok(()) } else { Err(Failed::Occupied(occupants.join(", "))) }
    }

    /// Writes what comes to a file that is gone with its handle; it is read from its beginning.
    async fn keep<E: std::fmt::Display>(
        &self,
        contents: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<File, Failed> {
        let disk = |error: io::Error| Failed::Disk(error.to_string());
        let mut file = self.replica().scratch().map_err(disk)?;
        let (mut beginning, mut bytes, mut looked_at) = (Vec::new(), 0_u64, 0);
        let mut contents = std::pin::pin!(contents);
        while let Some(content) = contents.next().await {
            let content = content.map_err(|error| Failed::Unfit(format!("the upload has ended early: {error}")))?;
            if beginning.len() < PREAMBLE_BYTES {
                beginning.extend(content.iter().take(PREAMBLE_BYTES - beginning.len()));
                if beginning.len() == PREAMBLE_BYTES {
                    check_preamble(&beginning).map_err(unfit)?;
                }
            }
            bytes += content.len() as u64;
            if bytes - looked_at >= ROOM_EVERY {
                looked_at = bytes;
                if self.replica().figures().disk_low {
                    return Err(Failed::Disk("the disk is nearly full".to_owned()));
                }
            }
            let written = tokio::task::spawn_blocking(move || file.write_all(&content).map(|()| file));
            file = written.await.map_err(|error| disk(io::Error::other(error)))?.map_err(disk)?;
        }
        file.rewind().map_err(disk)?;
        Ok(file)
    }

    /// Proposes the steps of a backup that was found whole. Gives the entry of the last one.
    async fn put_back(&self, file: File, replace: bool) -> Result<u64, Failed> {
        let begun = backup::steps(file, rand::random(), replace);
        let mut steps = begun.map_err(|error| Failed::Disk(error.to_string()))?;
        while let Some(step) = steps.recv().await {
            let step = step.map_err(|error| Failed::BrokenOff(error.to_string()))?;
            let (begins, ends) = (matches!(step, RestoreStep::Begin { .. }), matches!(step, RestoreStep::End { .. }));
            let command = Command::Restore(Box::new(step));
            let committed = tokio::time::timeout(STEP, self.replica().commit_at(vec![command])).await;
            let (outcomes, index) = committed.map_err(|_| broken_off("the cluster does not take changes"))?;
            let outcomes = outcomes.map_err(|error| broken_off(&error.to_string()))?;
            match outcomes.first() {
                Some(Outcome::Done) => {}
                Some(Outcome::Stale) if begins => {
                    self.check_vacant(replace)?;
                    return Err(Failed::Restoring);
                }
                Some(Outcome::Stale) => return Err(broken_off("another restore has taken its place")),
                Some(_) if begins => return Err(Failed::Unfit("its head cannot be taken over".to_owned())),
                _ => return Err(broken_off("a part of it was refused")),
            }
            if ends {
                let everywhere = self.replica().stable(index);
                if tokio::time::timeout(EVERYWHERE, everywhere).await != Ok(true) {
                    tracing::warn!("a backup was put back; a node is late in applying it");
                }
                return Ok(index);
            }
        }
        Err(broken_off("the file has ended early"))
    }
}

fn unfit(error: BackupError) -> Failed {
    Failed::Unfit(error.to_string())
}

fn broken_off(why: &str) -> Failed {
    Failed::BrokenOff(why.to_owned())
}
