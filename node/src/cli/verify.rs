//! `fulmar verify`: what an operator runs before trusting a disk again.

use std::path::Path;
use std::process::ExitCode;

use fulmar_platform::dialect::time::iso_ms;

use crate::cluster::backup::{Whole, check};
use crate::cluster::raft::decode_entry;
use crate::store::backups::BackupError;
use crate::store::verify::{Verdict, verify};

/// Wrong arguments.
pub(super) const EXIT_USAGE: u8 = 64;

/// Says how a data directory is, or a backup: exit 0 intact, 1 torn tail, 2 damaged, 3 unreadable.
pub(super) fn run(data_dir: &Path) -> ExitCode {
    if data_dir.is_file() {
        return backup(data_dir);
    }
    let report = verify(data_dir, &|record| decode_entry(record).map(drop));
    let verdict = report.verdict();
    print!("{report}");
    println!("{}: {verdict}", data_dir.display());
    ExitCode::from(match verdict {
        Verdict::Intact => 0,
        Verdict::TornTail => 1,
        Verdict::Damaged => 2,
        Verdict::Unreadable => 3,
    })
}

/// Reads a backup whole. One that was cut off is damaged.
fn backup(path: &Path) -> ExitCode {
    let checked = std::fs::File::open(path).map_err(BackupError::Io).and_then(check);
    let (code, verdict) = match checked {
        Ok(Whole { head, end, .. }) => {
            println!(
                "backup of cluster {:016x} at entry {} of {}: {} sessions with {} messages, {} retained, {} devices",
                head.cluster,
                head.index,
                iso_ms(head.time_ms),
                head.sessions,
                head.queued,
                head.retained,
                head.devices,
            );
            println!("{} records, {} bytes, SHA-256 {}", end.records, end.bytes, end.digest());
            (0, Verdict::Intact)
        }
        Err(error) => {
            println!("{error}");
            match error {
                BackupError::Damaged { .. } | BackupError::Record { .. } => (2, Verdict::Damaged),
                BackupError::Newer(_) | BackupError::Io(_) => (3, Verdict::Unreadable),
            }
        }
    };
    println!("{}: {verdict}", path.display());
    ExitCode::from(code)
}
