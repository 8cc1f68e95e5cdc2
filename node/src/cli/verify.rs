//! `fulmar verify`: what an operator runs before trusting a disk again.

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use fulmar_platform::dialect::time::iso_ms;
use serde_json::{Value, json};

use crate::cluster::backup::{Whole, check};
use crate::cluster::raft::decode_entry;
use crate::store::backups::BackupError;
use crate::store::verify::{Part, Report, Verdict, verify};

/// Wrong arguments.
pub(super) const EXIT_USAGE: u8 = 64;

/// How what was found is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

/// Says how a data directory is, or a backup: exit 0 intact, 1 torn tail, 2 damaged, 3 unreadable.
pub(super) fn run(data_dir: &Path, output: Output) -> ExitCode {
    if data_dir.is_file() {
        return backup(data_dir, output);
    }
    let report = verify(data_dir, &|record| decode_entry(record).map(drop));
    let verdict = report.verdict();
    match output {
        Output::Table => println!("{report}{}: {verdict}", data_dir.display()),
        Output::Json => println!("{:#}", document(data_dir, &report)),
    }
    ExitCode::from(match verdict {
        Verdict::Intact => 0,
        Verdict::TornTail => 1,
        Verdict::Damaged => 2,
        Verdict::Unreadable => 3,
    })
}

fn document(data_dir: &Path, report: &Report) -> Value {
    let id = |id: Option<u64>| id.map(|id| format!("{id:016x}"));
    let part = |part: &Part| json!({ "part": part.name, "verdict": part.verdict.to_string(), "what": part.what });
    json!({
        "data_dir": data_dir,
        "verdict": report.verdict().to_string(),
        "node": id(report.node),
        "cluster": id(report.cluster),
        "last": report.last.map(|last| json!({ "term": last.term, "index": last.index })),
        "parts": report.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

/// Reads a backup whole. One that was cut off is damaged.
fn backup(path: &Path, output: Output) -> ExitCode {
    let checked = std::fs::File::open(path).map_err(BackupError::Io).and_then(check);
    let (code, verdict) = match &checked {
        Ok(_) => (0, Verdict::Intact),
        Err(BackupError::Damaged { .. } | BackupError::Record { .. }) => (2, Verdict::Damaged),
        Err(BackupError::Newer(_) | BackupError::Io(_)) => (3, Verdict::Unreadable),
    };
    match output {
        Output::Table => {
            match checked {
                Ok(whole) => println!("{}", described(&whole)),
                Err(error) => println!("{error}"),
            }
            println!("{}: {verdict}", path.display());
        }
        Output::Json => {
            let mut document = json!({ "file": path, "verdict": verdict.to_string() });
            match checked {
                Ok(Whole { head, end, .. }) => {
                    document["cluster"] = format!("{:016x}", head.cluster).into();
                    document["index"] = head.index.into();
                    document["time"] = iso_ms(head.time_ms).into();
                    document["sha256"] = end.digest().to_string().into();
                }
                Err(error) => document["what"] = error.to_string().into(),
            }
            println!("{document:#}");
        }
    }
    ExitCode::from(code)
}

fn described(Whole { head, end, .. }: &Whole) -> String {
    format!(
        "backup of cluster {:016x} at entry {} of {}: {} sessions with {} messages, {} retained, {} devices\n\
         {} records, {} bytes, SHA-256 {}",
        head.cluster,
        head.index,
        iso_ms(head.time_ms),
        head.sessions,
        head.queued,
        head.retained,
        head.devices,
        end.records,
        end.bytes,
        end.digest()
    )
}
