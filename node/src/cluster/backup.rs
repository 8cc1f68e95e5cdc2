//! The state of this node as a backup, and a backup as what is to be put back. Absent here: who asks for it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::state::image::{Builder, Head as StateHead, Part};
use fulmar_broker::state::{RestoreStep, Snapshot};
use fulmar_proto::Message as _;
pub use fulmar_proto::types::v1::BackupHead as Head;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Replica;
use super::raft::machine::be_nice;
use super::wire::image::{decode_part, encode_part};
use crate::store::backups::{BackupError, End, Reader, Writer};

/// Bytes of a piece of the file, and pieces that wait to be taken.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING: usize = 4;

/// How long whoever reads a backup may take nothing: the state as it was is kept for it.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Bytes of encoded parts after which a step is full.
const STEP_BYTES: usize = 96 * 1024;

/// Steps that are read ahead of what is committed.
const STEPS_WAITING: usize = 2;

/// Buffer of a file that is read.
const READ_BYTES: usize = 256 * 1024;

/// What a backup gives, one after the other: its head, its bytes, and once it is whole its end.
#[derive(Debug)]
pub enum Piece {
    Head(Box<Head>),
    Content(Bytes),
    End(End),
}

/// A backup file that is whole.
#[derive(Debug)]
pub struct Whole {
    pub head: Head,
    /// As its first record has it.
    pub state: Box<StateHead>,
    pub end: End,
}

/// Begins a backup of the state as it is now, in O(1); it is written by a thread of its own, no faster than it is taken.
/// It ends early without [`Piece::End`] if nobody takes it.
///
/// # Errors
/// There can be no more threads.
pub fn create(replica: &Replica, version: &'static str) -> io::Result<mpsc::Receiver<io::Result<Piece>>> {
    let figures = replica.figures();
    let (snapshot, head) = {
        let state = replica.read();
        let (books, registry) = (state.books(), state.registry());
        let head = Head {
            cluster: replica.peers().cluster(),
            node: replica.run().0.0,
            index: replica.applied(),
            term: figures.term,
            time_ms: state.now().0,
            version: Bytes::from_static(version.as_bytes()),
            sessions: state.session_count() as u64,
            retained: state.retained().len() as u64,
            devices: registry.device_count() as u64,
            queued: books.queued,
            bytes: state.bytes(),
        };
        (state.snapshot(), head)
    };
    let (pieces, taken) = mpsc::channel(PIECES_WAITING);
    let runtime = Handle::current();
    std::thread::Builder::new().name("backup".into()).spawn(move || {
        be_nice();
        let mut sink = Sink { pieces, runtime };
        let written = sink.send(Piece::Head(Box::new(head.clone()))).and_then(|()| write(&snapshot, &head, sink));
        if let Err(error) = written {
            tracing::warn!(%error, "a backup was not finished");
        }
    })?;
    Ok(taken)
}

fn write(snapshot: &Snapshot, head: &Head, sink: Sink) -> io::Result<()> {
    let mut writer = Writer::begin(sink, &head.encode_to_vec())?;
    for part in snapshot.parts() {
        writer.write(&encode_part(&part))?;
    }
    let (mut sink, end) = writer.finish()?;
    tracing::info!(index = head.index, bytes = end.bytes, records = end.records, "a backup was made");
    sink.send(Piece::End(end))
}

/// Where the file goes: pieces that somebody takes.
struct Sink {
    pieces: mpsc::Sender<io::Result<Piece>>,
    runtime: Handle,
}

impl Sink {
    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let sent =
            self.runtime.block_on(async { tokio::time::timeout(TAKEN_WITHIN, self.pieces.send(Ok(piece))).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("nobody takes it any more")),
            Err(_) => Err(io::Error::other(format!("nothing of it was taken for {} s", TAKEN_WITHIN.as_secs()))),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        self.send(Piece::Content(Bytes::copy_from_slice(piece)))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a backup whole, and puts it together as a state, which is let go of again: whether all of it can be put back.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(file: impl Read) -> Result<Whole, BackupError> {
    let mut reader = Reader::open(BufReader::with_capacity(READ_BYTES, file))?;
    let head = head(reader.head())?;
    let (mut builder, mut state, mut number) = (Builder::default(), None, 0_u64);
    while let Some(record) = reader.next()? {
        let part = decode_part(record).map_err(|error| record_error(number, &error.to_string()))?;
        if let Part::Head(first) = &part {
            state = Some(first.clone());
        }
        builder.add(part).map_err(|error| record_error(number, &error.to_string()))?;
        number += 1;
    }
    builder.finish().map_err(|error| record_error(number, &error.to_string()))?;
    let state = state.ok_or_else(|| record_error(0, "it is no head"))?;
    if state.restoring.is_some() {
        return Err(record_error(0, "it is of a cluster that was being restored"));
    }
    Ok(Whole { head, state, end: reader.end().cloned().unwrap_or_default() })
}

fn head(bytes: Bytes) -> Result<Head, BackupError> {
    Head::decode(bytes).map_err(|error| record_error(0, &format!("the head is none: {error}")))
}

fn record_error(number: u64, what: &str) -> BackupError {
    BackupError::Record { number, what: what.to_owned() }
}

/// Reads a backup again that was found whole, on a thread of its own: the steps that put it back, from the first to the
/// last.
///
/// # Errors
/// The file cannot be read from its beginning, or there can be no more threads.
pub fn steps(mut file: File, id: u64, replace: bool) -> io::Result<mpsc::Receiver<Result<RestoreStep, BackupError>>> {
    file.seek(SeekFrom::Start(0))?;
    let (steps, taken) = mpsc::channel(STEPS_WAITING);
    std::thread::Builder::new().name("restore".into()).spawn(move || {
        let give = |step| steps.blocking_send(step).is_ok();
        if let Err(error) = read_steps(file, id, replace, &give) {
            give(Err(error));
        }
    })?;
    Ok(taken)
}

fn read_steps(
    file: File,
    id: u64,
    replace: bool,
    give: &dyn Fn(Result<RestoreStep, BackupError>) -> bool,
) -> Result<(), BackupError> {
    let mut reader = Reader::open(BufReader::with_capacity(READ_BYTES, file))?;
    let (mut parts, mut bytes, mut number, mut read) = (Vec::new(), 0, 0, 0);
    // Subscriptions go on with those of a session, or of a claim's outcome, which is not put back.
    let mut of_session = false;
    while let Some(record) = reader.next()? {
        let size = record.len();
        let part = decode_part(record).map_err(|error| record_error(read, &error.to_string()))?;
        read += 1;
        match part {
            Part::Head(head) => {
                if !give(Ok(RestoreStep::Begin { id, replace, head })) {
                    return Ok(());
                }
                continue;
            }
            Part::Origin(_) | Part::Results(_) | Part::Fallen(_) | Part::LiveRoutes(_) | Part::End => continue,
            Part::Subscriptions(_) if !of_session => continue,
            Part::Session(_) => of_session = true,
            _ => {}
        }
        parts.push(part);
        bytes += size;
        if bytes >= STEP_BYTES {
            if !give(Ok(RestoreStep::Parts { id, number, parts: std::mem::take(&mut parts) })) {
                return Ok(());
            }
            (bytes, number) = (0, number + 1);
        }
    }
    if !parts.is_empty() {
        if !give(Ok(RestoreStep::Parts { id, number, parts })) {
            return Ok(());
        }
        number += 1;
    }
    give(Ok(RestoreStep::End { id, number }));
    Ok(())
}

impl Replica {
    /// A file without a name among this node's snapshots, which is gone with its handle.
    ///
    /// # Errors
    /// The disk has no room for it.
    pub fn scratch(&self) -> io::Result<File> {
        self.shelf.scratch()
    }
}
