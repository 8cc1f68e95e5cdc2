//! Looks at a data directory that no node has open, and says what is wrong with it. Changes nothing in it.

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::{Damage, OpenError};
use super::files::{self, Lock};
use super::inspect::{self, Found};
use super::log::{Position, Record};
use super::mark::Mark;
use super::snapshots::{SnapshotError, SnapshotHead, Snapshots, verify_file};
use super::{layout, sled};

/// Bytes of pages in memory while the log is read.
const CACHE_BYTES: u64 = 32 << 20;

/// How a part of the data is, or all of it; the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Intact,
    /// The log goes on behind what was acknowledged, and is torn there. The next start cuts it off; nothing is lost.
    TornTail,
    Damaged,
    /// Nothing can be said: no such directory, no permission, in use, or written by a newer release.
    Unreadable,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Intact => "ok",
            Verdict::TornTail => "torn tail",
            Verdict::Damaged => "damaged",
            Verdict::Unreadable => "unreadable",
        })
    }
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub verdict: Verdict,
    pub what: String,
}

/// What was found of all parts. Displayed, it has a line for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub parts: Vec<Part>,
    /// Whose data it is, as far as that can be read.
    pub node: Option<u64>,
    pub cluster: Option<u64>,
    /// The last entry that is whole, with all before it, in the log or a snapshot: of several nodes the one with the
    /// highest term, and then index, has everything that the others have.
    pub last: Option<Position>,
}

impl Report {
    /// The worst of all parts.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.parts.iter().map(|part| part.verdict).max().unwrap_or(Verdict::Unreadable)
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, what: impl Display) {
        self.parts.push(Part { name, verdict, what: what.to_string() });
    }

    /// There is an entry, or a snapshot that ends with it.
    fn reaches(&mut self, at: Option<Position>) {
        let rank = |at: &Position| (at.term, at.index);
        if at.as_ref().map(rank) > self.last.as_ref().map(rank) {
            self.last = at;
        }
    }

    fn add_error(&mut self, name: &'static str, error: &OpenError) {
        match error {
            OpenError::Damaged(damage) => self.add(name, Verdict::Damaged, damage),
            error => self.add(name, Verdict::Unreadable, error),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| writeln!(f, "{:<9} {:<10} {}", part.name, part.verdict, part.what))
    }
}

/// Looks at all of a data directory. `check` looks at each entry of the log; what it says against one makes it damaged.
/// The log is copied into the system's directory for temporary files, and read there.
#[must_use]
pub fn verify(data_dir: &Path, check: &dyn Fn(&Record) -> Result<(), String>) -> Report {
    let mut report = Report::default();
    // A node that starts meanwhile waits until this is done.
    let _lock = match Lock::shared(data_dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            report.add_error("directory", &OpenError::Locked { file: data_dir.to_owned() });
            return report;
        }
        Err(error) => {
            report.add_error("directory", &OpenError::io(data_dir)(error));
            return report;
        }
    };
    match layout::read_format(data_dir) {
        Ok(true) => report.add("format", Verdict::Intact, "version 1"),
        Ok(false) => {}
        Err(error) => {
            report.add_error("format", &error);
            return report;
        }
    }
    match layout::read_node_id(data_dir) {
        Ok(Some(id)) => {
            report.node = Some(id);
            report.add("node", Verdict::Intact, format_args!("{id:016x}"));
        }
        Ok(None) => {}
        Err(error) => report.add_error("node", &error),
    }
    let mark = match layout::examine(data_dir) {
        Ok(Some((mark, true))) => Some(mark),
        Ok(Some((mark, false))) => {
            report.add("log", Verdict::Intact, "none yet");
            add_snapshots(&mut report, data_dir, &mark);
            None
        }
        Ok(None) if report.parts.is_empty() => {
            report.add(
                "directory",
                Verdict::Unreadable,
                format_args!("{} holds no data of a node", data_dir.display()),
            );
            None
        }
        Ok(None) => {
            report.add("log", Verdict::Intact, "none yet");
            add_snapshots(&mut report, data_dir, &Mark::default());
            None
        }
        Err(error) => {
            report.add_error("mark", &error);
            None
        }
    };
    if let Some(mark) = mark {
        report.add("mark", Verdict::Intact, describe(&mark));
        add_log(&mut report, data_dir, &mark, check);
        add_snapshots(&mut report, data_dir, &mark);
    }
    if let Some(Position { term, index, .. }) = report.last {
        report.add("last", Verdict::Intact, format_args!("entry {index} of term {term}"));
    }
    report
}

fn describe(mark: &Mark) -> String {
    let purged = mark.purged.map_or("nothing purged".to_owned(), |purged| format!("purged up to {}", purged.index));
    mark.last.map_or_else(
        || format!("no entry acknowledged, {purged}"),
        |last| format!("entry {} of term {} acknowledged, {purged}", last.index, last.term),
    )
}

fn add_log(report: &mut Report, data_dir: &Path, mark: &Mark, check: &dyn Fn(&Record) -> Result<(), String>) {
    let inspected = |mark: &Mark| match Scratch::make() {
        Ok(scratch) => inspect::inspect_copy(data_dir, &scratch.0.join("log"), CACHE_BYTES, mark, check),
        Err(error) => Err(OpenError::io(&std::env::temp_dir())(error)),
    };
    let Found { last, sizes, meta, torn, leftovers } = match inspected(mark) {
        Ok(found) => found,
        Err(error) => {
            report.add_error("log", &error);
            // Read once more as if nothing had been promised: what is whole before the damage.
            if let OpenError::Damaged(Damage { index: Some(_), .. }) = error
                && let Ok(found) = inspected(&Mark { last: None, ..*mark })
            {
                report.cluster = found.meta.meta.cluster;
                report.reaches(found.last.or(mark.purged));
            }
            return;
        }
    };
    report.cluster = meta.meta.cluster;
    report.reaches(last.or(mark.purged));
    let bytes: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
    let end = last.map_or(String::new(), |last| format!(", up to entry {} of term {}", last.index, last.term));
    let purge = if leftovers { "; an interrupted purge goes on at the next start" } else { "" };
    let what = format!("{} entries, {bytes} bytes{end}{purge}", sizes.len());
    match torn {
        None => report.add("log", Verdict::Intact, what),
        Some(index) => {
            let file = layout::log_dir(data_dir).join(sled::DATA);
            let text = format!("{what}; {} is torn from entry {index} on, which was not acknowledged", file.display());
            report.add("log", Verdict::TornTail, text);
        }
    }
    let vote =
        meta.vote.map_or("no vote".to_owned(), |vote| format!("vote in term {} for {:016x}", vote.term, vote.node));
    let cluster = meta.meta.cluster.map_or("no cluster".to_owned(), |cluster| format!("cluster {cluster:016x}"));
    report.add("metadata", Verdict::Intact, format_args!("{cluster}, generation {}, {vote}", meta.meta.generation));
}

fn add_snapshots(report: &mut Report, data_dir: &Path, mark: &Mark) {
    let dir = layout::snapshot_dir(data_dir);
    let files = match Snapshots::at(dir.clone()).list() {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return report.add_error("snapshot", &OpenError::io(&dir)(error)),
    };
    let mut reached = None;
    for file in files {
        match verify_file(&file.path) {
            Ok(SnapshotHead { term, index, .. }) if (term, index) != (file.term, file.index) => {
                let text =
                    format!("{}: holds entry {index} of term {term}, not what its name says", file.path.display());
                report.add("snapshot", Verdict::Damaged, text);
            }
            Ok(SnapshotHead { term, leader, index, cluster, .. }) => {
                let of = match report.cluster.is_some_and(|own| own != cluster) {
                    true => format!(", of the cluster {cluster:016x}: not used"),
                    false => {
                        reached = reached.max(Some(index));
                        report.reaches(Some(Position { term, leader, index }));
                        String::new()
                    }
                };
                let text = format!("{} bytes, entry {index} of term {term}{of}", file.bytes);
                report.add("snapshot", Verdict::Intact, text);
            }
            Err(error @ SnapshotError::Damaged { .. }) => report.add("snapshot", Verdict::Damaged, error),
            Err(error) => report.add("snapshot", Verdict::Unreadable, error),
        }
    }
    if let Some(purged) = mark.purged.filter(|purged| reached.is_none_or(|reached| reached < purged.index)) {
        let text = format!(
            "{}: none that is whole reaches entry {}, up to which the log is purged",
            dir.display(),
            purged.index
        );
        report.add("snapshot", Verdict::Damaged, text);
    }
}

/// A directory of our own for temporary files, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        loop {
            let path = std::env::temp_dir().join(format!("fulmar-verify-{:016x}", rand::random::<u64>()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up.
        let _ = files::remove_dir(&self.0);
    }
}
