//! `fulmar verify`: what an operator runs before trusting a disk again.

use std::path::Path;
use std::process::ExitCode;

use crate::cluster::raft::decode_entry;
use crate::store::verify::{Verdict, verify};

/// Wrong arguments.
pub(super) const EXIT_USAGE: u8 = 64;

/// Says how a data directory is: exit 0 intact, 1 torn tail, 2 damaged, 3 unreadable.
pub(super) fn run(data_dir: &Path) -> ExitCode {
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
