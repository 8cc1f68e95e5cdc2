//! `fulmar drain`: has the node of a data directory let its clients go, and waits until they are gone. The node stays, for
//! whoever ends its process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::Configured;
use crate::config::units::TimeSpan;
use crate::dispatch::Stage;
use crate::store::pid::{Said, Server};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    configured: Configured,
    /// The data directory of the node, instead of what the configuration says.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    timeout: TimeSpan,
}

/// Returns once the node is drained or gone.
///
/// # Errors
/// It cannot be asked, or takes longer than the timeout.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => options.configured.load()?.node.data_dir,
    };
    let place = data_dir.display().to_string();
    let Some(server) = Server::of(&data_dir).with_context(|| place.clone())? else {
        println!("no process serves {place}");
        return Ok(());
    };
    server.ask_to_drain().with_context(|| format!("process {} cannot be asked", server.pid()))?;
    let by = Instant::now() + options.timeout.duration();
    let mut last = None;
    loop {
        let Some(said) = server.said().with_context(|| place.clone())? else {
            println!("gone");
            return Ok(());
        };
        let Said { stage, connections } = &said;
        if stage == Stage::Drained.name() {
            println!("drained");
            return Ok(());
        }
        if last.as_ref() != Some(&said) {
            eprintln!("{stage}: {connections} connections left");
            last = Some(said.clone());
        }
        if Instant::now() >= by {
            bail!("not drained within {}: {connections} connections left", options.timeout);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
