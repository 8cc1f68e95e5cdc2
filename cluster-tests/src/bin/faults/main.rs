//! Runs the promises of a cluster under faults, and prints what came of each: `faults --seconds 60`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use cluster_tests::scenarios::{ALL, Row, Scenario, Settings, table};
use cluster_tests::sys;

#[derive(Debug, Parser)]
#[command(name = "faults", about = "Breaks clusters of real nodes, and judges what their clients saw")]
struct Arguments {
    /// How long faults are made in each scenario; what it takes to begin and to end is added
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Only the scenarios whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Times that each is run, each time with the next seed
    #[arg(long, default_value_t = 1)]
    repeat: u64,
    /// Seed of all that is random; else a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Repetitions of what is counted instead of timed
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Clients where there are to be many
    #[arg(long, default_value_t = 2_000)]
    clients: usize,
    /// The fulmar binary to start; else FULMAR_BIN, else the one that cargo builds beside this program
    #[arg(long)]
    fulmar_bin: Option<PathBuf>,
    /// Only says what there is
    #[arg(long)]
    list: bool,
    /// Ends at the first promise that is broken
    #[arg(long)]
    fail_fast: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn run(arguments: &Arguments) -> Result<bool> {
    let wanted = |scenario: &&Scenario| {
        arguments.only.is_empty() || arguments.only.iter().any(|part| scenario.name.contains(part.as_str()))
    };
    let chosen: Vec<&Scenario> = ALL.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no scenario has such a name; --list names them");
    if arguments.list {
        chosen.iter().for_each(|scenario| println!("{:<26}{}", scenario.name, scenario.promise));
        return Ok(true);
    }
    sys::raise_fd_limit()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let first = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {first}");
    let mut rows = Vec::new();
    'all: for repetition in 0..arguments.repeat {
        for scenario in &chosen {
            let settings = settings(arguments, first.wrapping_add(repetition));
            let row = runtime.block_on(scenario.run(&settings)).unwrap_or_else(|error| Row {
                name: scenario.name.to_owned(),
                seed: settings.seed,
                problems: vec![format!("{error:#}")],
                took: Duration::ZERO,
                ..Row::default()
            });
            tell(&row);
            let broken = !row.is_good();
            rows.push(row);
            if broken && arguments.fail_fast {
                break 'all;
            }
        }
    }
    println!("\n{}", table(&rows));
    let broken = rows.iter().filter(|row| !row.is_good()).count();
    println!("{} of {} runs kept their promise", rows.len() - broken, rows.len());
    Ok(broken == 0)
}

fn settings(arguments: &Arguments, seed: u64) -> Settings {
    Settings {
        seconds: arguments.seconds,
        seed,
        count: arguments.count,
        clients: arguments.clients,
        binary: arguments.fulmar_bin.clone(),
        env: Vec::new(),
    }
}

/// As soon as it is known: a run of all takes long.
fn tell(row: &Row) {
    let verdict = if row.is_good() { "kept" } else { "BROKEN" };
    println!("{}: {verdict} (seed {}); {}", row.name, row.seed, row.notes.join("; "));
    row.violations().iter().for_each(|violation| println!("  {violation}"));
}
