//! Plays the manifests of `k8s/` with real processes under load, and prints what came of it: `play all --devices 5000`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cluster_tests::harness::fulmar_binary;
use cluster_tests::play::{ALL, Row, Scenario, Settings, golden, named, read, table};
use cluster_tests::sys;

#[derive(Debug, Parser)]
#[command(name = "play", about = "Plays the rendered manifests with real processes, and judges what devices saw")]
struct Arguments {
    /// `all`, or names of scenarios
    #[arg(required_unless_present = "list")]
    scenarios: Vec<String>,
    /// Devices, each with a persistent session
    #[arg(long, default_value_t = 5_000)]
    devices: usize,
    /// Times that a cluster is started from nothing
    #[arg(long, default_value_t = 50)]
    times: usize,
    /// Rendered manifests; else k8s/golden/three.yaml
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// The program of the release before this one, for `image`; without it, `all` leaves that out
    #[arg(long)]
    old_bin: Option<PathBuf>,
    /// The rendered manifests of that release, if they are others
    #[arg(long)]
    old_manifest: Option<PathBuf>,
    /// The fulmar binary that is the image; else FULMAR_BIN, else the one that cargo builds beside this program
    #[arg(long)]
    fulmar_bin: Option<PathBuf>,
    /// Divides probe periods, back-offs and the delay of endpoints; the nodes' own times stay
    #[arg(long, default_value_t = 1.0)]
    pace: f64,
    /// Seed of all that is random; else a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Tells what happens as it happens
    #[arg(long, short)]
    verbose: bool,
    /// Only says what there is
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("play: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        ALL.iter().for_each(|scenario| println!("{:<18}{}", scenario.name, scenario.promise));
        return Ok(true);
    }
    ensure!(arguments.pace > 0.0, "--pace is above 0");
    let chosen = chosen(arguments)?;
    sys::raise_fd_limit()?;
    let settings = settings(arguments)?;
    println!("seed {}, times of Kubernetes divided by {}", settings.seed, settings.pace);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rows = Vec::new();
    for scenario in chosen {
        let row = runtime.block_on(scenario.run(&settings)).unwrap_or_else(|error| Row {
            name: scenario.name.to_owned(),
            seed: settings.seed,
            problems: vec![format!("{error:#}")],
            ..Row::default()
        });
        tell(&row);
        rows.push(row);
    }
    println!("\n{}", table(&rows));
    let broken = rows.iter().filter(|row| !row.is_good()).count();
    println!("{} of {} scenarios kept their promise", rows.len() - broken, rows.len());
    Ok(broken == 0)
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Scenario>> {
    if arguments.scenarios.iter().any(|name| name == "all") {
        let without_old = arguments.old_bin.is_none();
        if without_old {
            println!("image: left out, there is no --old-bin");
        }
        return Ok(ALL.iter().filter(|scenario| !(without_old && scenario.name == "image")).collect());
    }
    let names = arguments.scenarios.iter();
    names.map(|name| named(name).with_context(|| format!("no scenario is {name}; --list names them"))).collect()
}

fn settings(arguments: &Arguments) -> Result<Settings> {
    let manifest = arguments.manifest.as_deref().map_or_else(|| golden("three"), read)?;
    let old = match (&arguments.old_bin, &arguments.old_manifest) {
        (None, _) => None,
        (Some(binary), None) => Some((binary.clone(), manifest.clone())),
        (Some(binary), Some(file)) => Some((binary.clone(), read(file)?)),
    };
    Ok(Settings {
        devices: arguments.devices,
        times: arguments.times,
        seed: arguments.seed.unwrap_or_else(rand::random),
        manifest,
        binary: arguments.fulmar_bin.clone().map_or_else(fulmar_binary, Ok)?,
        old,
        pace: arguments.pace,
        aloud: arguments.verbose,
    })
}

/// As soon as it is known: a run of all takes long.
fn tell(row: &Row) {
    let verdict = if row.is_good() { "kept" } else { "BROKEN" };
    println!("{}: {verdict} (seed {}); {}", row.name, row.seed, row.notes.join("; "));
    if row.felt.reconnects > 0 {
        println!("  longest pause: {:.1} s, {}", row.felt.longest_pause.as_secs_f64(), row.felt.whose);
    }
    row.violations().iter().for_each(|violation| println!("  {violation}"));
}
